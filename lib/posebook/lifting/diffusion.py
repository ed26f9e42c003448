"""StarPose: a lifter made a denoiser, told what it answered before and pulled towards what a body can do.

Yang et al., "StarPose: 3D Human Pose Estimation via Spatial-Temporal Autoregressive Diffusion", TCSVT 2025.
There is no public code; [2nd] marks what is known of the text at second hand, [chosen] what is ours. Axes are
B, F (frames), J, C; L frames of history; H hypotheses. Poses are meters, camera axes, relative to the hip.

1. Diffusion runs over time t from 0 (the pose) to 1 (noise alone) by Nichol & Dhariwal's cosine, ICML 2021,
   as in Shan et al., "D3DP", ICCV 2023; without steps of its own, so that a sampler may take any [chosen; the
   paper: a mixture of five Gaussians, 50 steps, 2nd].
2. The net answers the clean pose, not the noise (D3DP; the paper's loss contradicts its sampler there, 2nd).
3. Noise has a deviation of 0.3 m, a pose's own; nothing else is scaled and nothing clipped [chosen].
4. The denoiser is any lifter: after two channels seen and three noisy come those that say t (a sinusoid
   through two layers, as D3DP adds it to the tokens) and the history. An `Hourglass` will do, and makes
   sampling quicker [chosen; the paper: a graph transformer on features of a frozen MixSTE, 2nd].
5. History: two spatial transformers, of the 2D and of the 3D poses, and positions in time; then a graph of 2J
   nodes a frame (bones, a joint's 2D with its 3D, a joint with itself a frame before) with attention beside
   it, in two stages, and a linear layer [2nd]. Attention goes over a frame's nodes in the first stage and
   over a node's frames in the second: over all at once it would cost more than the denoiser [chosen].
6. The embedding (B, 1, J, C) is read at the last frame of the history and given to all frames [chosen].
7. In training two windows follow each other. The second one's history is what the net answers for the first
   from noise alone, never the truth or a guess that has seen some of it: told those, it learns a trust in its
   past that its own answers do not deserve [chosen; the paper does not say].
8. Guidance moves the guess of the clean pose down the gradient of the energy at that guess; no gradient
   through the net, so that it works on poses from anywhere [chosen; the paper's goes through the net, 2nd].
9. Energy: 1 reprojection + 1 symmetry of left and right + 0.01 deviation of bones' lengths + 0.01 squared
   speed, joints weighing the same [2nd, the weights of joints and the rate chosen]. All in square meters a
   frame: reprojection is measured at the person's distance [chosen].
10. Reprojection needs to know where the person stands: that is solved for, never told [chosen; public code of
   others adds the true root].
11. Five steps, five hypotheses, of which the mean is the answer and becomes history [2nd]; fresh noise of
   DDIM's eta 1 (D3DP).
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from posebook.lifting.camera import solve_root
from posebook.lifting.clips import window_starts
from posebook.lifting.models import Lifter, attend_frames, attend_joints
from posebook.lifting.skeleton import BONES, H36M, adjacency, bones
from posebook.models.transformer import Attention, Block

SPREAD = 0.3  # meters: the deviation of noise
WEIGHTS = {"reprojection": 1.0, "symmetry": 1.0, "lengths": 0.01, "speed": 0.01}
RATE = 0.1  # of a step of guidance: a fifth of a joint's error in the picture
NEAREST = 0.5  # meters: nobody is taken to stand nearer to the camera
_MIRRORED = [tuple(H36M.flip_indices[joint] for joint in bone) for bone in BONES]
PAIRS = [(i, BONES.index(_MIRRORED[i])) for i in range(len(BONES)) if BONES.index(_MIRRORED[i]) > i]  # 6


def alpha_bar(t: Tensor) -> Tensor:
    """The share of a pose's variance that is left at times t, from 1 at t = 0 to 0 at t = 1; choice 1."""
    angle = (t + 0.008) / 1.008 * math.pi / 2
    return (angle.cos() / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2


def add_noise(pose: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Poses (B, F, J, 3) at times t (B,), given unit noise of their shape."""
    share = alpha_bar(t)[:, None, None, None]
    return share.sqrt() * pose + (1 - share).sqrt() * SPREAD * noise


def ddim_step(noisy: Tensor, clean: Tensor, t: Tensor, to: Tensor, eta: float, noise: Tensor) -> Tensor:
    """From time t to an earlier one, given a guess of the clean pose (Song et al., "DDIM", ICLR 2021).

    eta: how much of the noise is drawn anew, 0 none, 1 as much as diffusion would.
    """
    here, there = alpha_bar(t), alpha_bar(to)
    inside = (noisy - here.sqrt() * clean) / (1 - here).sqrt()  # the noise that the guess leaves, meters
    fresh = eta * ((1 - there) / (1 - here) * (1 - here / there)).sqrt()
    return there.sqrt() * clean + (1 - there - fresh**2).clamp(min=0).sqrt() * inside + fresh * SPREAD * noise


def time_embedding(t: Tensor, width: int) -> Tensor:
    """Times (B,) from 0 to 1 as sines and cosines (B, C), as in D3DP."""
    rates = torch.exp(torch.arange(width // 2, device=t.device) * (-math.log(10000) / (width // 2)))
    angles = 1000 * t[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


class GraphAttentionBlock(nn.Module):
    """A graph convolution and attention beside each other on nodes (B, L, 2J, C); choice 5."""

    def __init__(self, width: int, heads: int, graph: Tensor, over_frames: bool):
        super().__init__()
        self.over_frames = over_frames
        self.norm = nn.LayerNorm(width)
        self.graph = nn.Linear(2 * width, width)  # of a node's neighbors, and of itself a frame before
        self.attn = Attention(width, heads)
        self.register_buffer("links", graph, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        before = torch.cat([y[:, :1], y[:, :-1]], 1)  # (B, L, 2J, C); the first frame is before itself
        linked = self.graph(torch.cat([self.links @ y, before], -1)).relu()
        return x + linked + (attend_frames if self.over_frames else attend_joints)(self.attn, y)


class HistoryEncoder(nn.Module):
    """The last L poses, seen (B, L, J, 2) and answered (B, L, J, 3), as an embedding (B, 1, J, C); HPIM."""

    def __init__(self, length: int, width: int, heads: int = 4):
        super().__init__()
        self.length, joints = length, len(H36M.keypoints)
        self.seen, self.answered = nn.Linear(2, width), nn.Linear(3, width)
        self.joint_pos_embed = nn.Parameter(0.02 * torch.randn(2 * joints, width))
        self.frame_pos_embed = nn.Parameter(0.02 * torch.randn(length, 1, width))
        self.spatial = nn.ModuleList(Block(width, heads, 2 * width) for _ in range(2))
        twins = [(joint, joint + joints) for joint in range(joints)]
        links = [*BONES, *((a + joints, b + joints) for a, b in BONES), *twins]
        graph = adjacency(links, 2 * joints)
        self.stages = nn.ModuleList(
            GraphAttentionBlock(width, heads, graph, over_frames) for over_frames in (False, True)
        )
        self.out = nn.Linear(2 * width, width)

    def forward(self, keypoints: Tensor, pose: Tensor) -> Tensor:
        joints = keypoints.shape[2]
        halves = torch.cat([self.seen(keypoints), self.answered(pose)], 2) + self.joint_pos_embed
        pairs = zip(self.spatial, halves.split(joints, 2), strict=True)
        mixed = [attend_joints(block, half) for block, half in pairs]  # each (B, L, J, C)
        x = torch.cat(mixed, 2) + self.frame_pos_embed  # (B, L, 2J, C)
        for stage in self.stages:
            x = stage(x)
        return self.out(torch.cat(x[:, -1:].split(joints, 2), -1))  # (B, 1, J, 2C) to (B, 1, J, C)


class Denoiser(nn.Module):
    """Noisy poses to clean ones (B, F, J, 3), by a lifter of 5 + C channels; choice 4."""

    def __init__(self, lifter: Lifter, history: HistoryEncoder | None = None):
        super().__init__()
        self.lifter, self.history = lifter, history
        self.width = lifter.channels - 5
        hidden = 2 * self.width
        self.time = nn.Sequential(nn.Linear(self.width, hidden), nn.GELU(), nn.Linear(hidden, self.width))

    def forward(self, x: Tensor, t: Tensor, past: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """For poses seen and noisy (B, F, J, 2 + 3) at times t (B,), with the past as History takes it."""
        told = self.time(time_embedding(t, self.width))[:, None, None]  # (B, 1, 1, C)
        told = told if past is None else told + self.history(*past)  # (B, 1, J, C)
        return self.lifter(torch.cat([x, told.expand(*x.shape[:-1], -1)], -1))  # from (B, F, J, 5 + C)


def energy_terms(pose: Tensor, rays: Tensor) -> dict[str, Tensor]:
    """What is wrong with poses (B, F, J, 3) seen along rays (B, F, J, 2): (B,), m^2 a frame; choice 9."""
    root = solve_root(pose, rays)[..., None, :]  # (B, F, 1, 3)
    depth = (pose + root)[..., 2:].clamp(min=NEAREST)
    off = ((pose + root)[..., :2] / depth - rays) * root[..., 2:].detach().clamp(min=NEAREST)
    lengths = bones(pose)  # (B, F, 16)
    right, left = zip(*PAIRS, strict=True)
    return {
        "reprojection": off.square().sum((-2, -1)).mean(-1),
        "symmetry": (lengths[..., right] - lengths[..., left]).square().sum(-1).mean(-1),
        "lengths": lengths.var(-2, correction=0).sum(-1),
        "speed": pose.diff(dim=-3).square().sum((-2, -1)).mean(-1),
    }


def energy(pose: Tensor, rays: Tensor) -> Tensor:
    """The weighted sum of the energies of poses, (B,)."""
    return sum(WEIGHTS[name] * value for name, value in energy_terms(pose, rays).items())


def energy_guidance(pose: Tensor, rays: Tensor, rounds: int = 1) -> Tensor:
    """Poses (B, F, J, 3) after so many steps down the energy's gradient, the hip kept at 0; choice 8."""
    for _ in range(rounds):
        with torch.enable_grad():
            pose = pose.detach().requires_grad_()
            (slope,) = torch.autograd.grad(energy(pose, rays).sum(), pose)
        slope[..., 0, :] = 0
        pose = pose.detach() - RATE * pose.shape[1] * slope  # the energy is a mean over frames
    return pose


@torch.no_grad()
def ddim_sample(
    net: nn.Module,
    x: Tensor,
    past: tuple[Tensor, Tensor] | None = None,
    rays: Tensor | None = None,
    steps: int = 5,
    eta: float = 1.0,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The way from noise to poses for x (B, F, J, 2): at every time t, the noisy and the clean (B, F, J, 3).

    past: as History takes it, (B, L, ...); rays (B, F, J, 2): for guidance, without them there is none. The
    last clean poses are the answer.
    """

    def drawn() -> Tensor:
        return torch.randn(*x.shape[:-1], 3, generator=generator, device=x.device)

    noisy, times = SPREAD * drawn(), torch.linspace(1, 0, steps + 1, device=x.device)
    for t, to in zip(times[:-1], times[1:], strict=True):
        clean = net(torch.cat([x, noisy], -1), t.expand(len(x)), past).clone()
        clean[..., 0, :] = 0
        clean = clean if rays is None else energy_guidance(clean, rays)
        yield t, noisy, clean
        noisy = ddim_step(noisy, clean, t, to, eta, drawn())


def lift_sequences(
    net: nn.Module,
    x: Tensor,
    frames: int,
    rays: Tensor | None = None,
    history: bool = True,
    hypotheses: int = 5,
    generator: torch.Generator | None = None,
    **how: float,
) -> Tensor:
    """Sequences (B, T, J, 2) lifted window by window to hypotheses (B, H, T, J, 3); their mean is the answer.

    rays (B, T, J, 2) as in `walk`, `how` too; history: whether a window is told what was answered before it.
    """
    answers = x.new_zeros(len(x), hypotheses, *x.shape[1:-1], 3)

    def spread(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.repeat_interleave(hypotheses, 0)

    for start, counted in window_starts(x.shape[1], frames):
        here, past = slice(start, start + frames), None
        if history and net.history and start >= net.history.length:
            before = slice(start - net.history.length, start)
            past = (spread(x[:, before]), spread(answers[:, :, before].mean(1)))
        seen = None if rays is None else spread(rays[:, here])
        *_, (_, _, clean) = ddim_sample(net, spread(x[:, here]), past, seen, generator=generator, **how)
        answers[:, :, here][:, :, counted] = clean.unflatten(0, (len(x), hypotheses))[:, :, counted]
    return answers
