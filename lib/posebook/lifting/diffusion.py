"""StarPose: a lifter as a diffusion denoiser, with a history of its own poses and energy guidance.

Yang et al., "StarPose: 3D Human Pose Estimation via Spatial-Temporal Autoregressive Diffusion", TCSVT 2025.
The repository named in its abstract has no code. [2nd] marks what we know of the paper at second hand, [ours]
marks our own choices. Axes are B, F (frames), J, C; L frames of history; H hypotheses. Poses are in meters,
camera axes, relative to the hip. Rays are x / z and y / z of the 2D joints in camera space.

1. Diffusion time t runs from 0 (the pose) to 1 (pure noise) with Nichol & Dhariwal's cosine schedule, ICML
   2021, as in Shan et al., "D3DP", ICCV 2023. It is continuous, so that a sampler can use any number of steps
   [ours; the paper: a mixture of five Gaussians, 50 steps, 2nd].
2. The model predicts the clean pose, not the noise (D3DP; the paper's loss contradicts its sampler here,
   2nd).
3. The noise has a standard deviation of 0.3 m, like poses. Nothing else is scaled and nothing is clipped
   [ours].
4. The denoiser is any lifter. Its input channels are two of the 2D joints, three of the noisy pose, and C of
   the condition: the sum of the time embedding (a sinusoid through two layers, which D3DP adds to the tokens)
   and the history embedding. A lifter with FramePruning works too and makes sampling faster [ours; the paper:
   a graph transformer on features of a frozen MixSTE, 2nd].
5. History: two spatial transformers, for the 2D and for the 3D poses, with a temporal position embedding. Two
   stages follow, each with a graph convolution and attention in parallel, and a linear layer [2nd]. The graph
   has 2J nodes per frame and links bones, a joint's 2D and 3D nodes, and a node with itself in the frame
   before. Attention is over the nodes of a frame in the first stage, and over the frames of a node in the
   second: attention over all of them would cost more than the denoiser [ours].
6. The embedding (B, 1, J, C) is taken from the last frame of the history and added to all frames [ours].
7. In training two windows follow each other. The second one's history is the model's prediction for the first
   window from pure noise. It is never the truth, nor a prediction from a partly noisy truth: from these the
   model would learn to trust its history more than its own predictions deserve [ours; the paper does not
   say].
8. Guidance moves the predicted clean pose down the gradient of the energy at this pose. The gradient does not
   go through the model, so that guidance also works on poses from other models [ours; in the paper it does,
   2nd].
9. Energy: 1 reprojection + 1 left-right symmetry + 0.01 variance of bone lengths + 0.01 squared speed, with
   equal weights for all joints [2nd; joint weights and step size ours]. All are in square meters per frame:
   reprojection errors are measured at the person's distance [ours].
10. Reprojection needs the position of the person in camera space. It is solved for, not given [ours; public
   code of others adds the true root position].
11. Five steps and five hypotheses. Their mean is the prediction and becomes the history [2nd]. Sampling is
   DDIM with eta 1 (D3DP).
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

History = tuple[Tensor, Tensor]  # 2D joints (B, L, J, 2) and predicted poses (B, L, J, 3)

SPREAD = 0.3  # meters: standard deviation of the noise, choice 3
WEIGHTS = {"reprojection": 1.0, "symmetry": 1.0, "lengths": 0.01, "speed": 0.01}  # of the energy, choice 9
RATE = 0.1  # step size of guidance: one step removes a fifth of a joint's reprojection error
NEAREST = 0.5  # meters: smallest distance to the camera, to keep the reprojection finite
_MIRRORED = [tuple(H36M.flip_indices[joint] for joint in bone) for bone in BONES]
# Index pairs of a bone and its mirror image in BONES: 6.
PAIRS = [(i, BONES.index(bone)) for i, bone in enumerate(_MIRRORED) if BONES.index(bone) > i]


def alpha_bar(t: Tensor) -> Tensor:
    """The pose's share of the variance at times t, from 1 at t = 0 to 0 at t = 1: choice 1's schedule."""
    angle = (t + 0.008) / 1.008 * math.pi / 2
    return (angle.cos() / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2


def add_noise(pose: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Poses (B, F, J, 3) diffused to times t (B,) with unit noise of the same shape."""
    signal = alpha_bar(t)[:, None, None, None]  # (B, 1, 1, 1)
    return signal.sqrt() * pose + (1 - signal).sqrt() * SPREAD * noise


def ddim_step(noisy: Tensor, clean: Tensor, t: Tensor, to: Tensor, eta: float, noise: Tensor) -> Tensor:
    """From noisy poses at time t to those at an earlier time `to` (Song et al., "DDIM", ICLR 2021).

    noisy, clean (the prediction) and unit noise: (B, F, J, 3); t, to: scalars. eta: from 0 (deterministic) to
    1 (as much new noise as in DDPM).
    """
    signal, next_signal = alpha_bar(t), alpha_bar(to)
    residual = (noisy - signal.sqrt() * clean) / (1 - signal).sqrt()  # the noise that `clean` implies, meters
    fresh = eta * ((1 - next_signal) / (1 - signal) * (1 - signal / next_signal)).sqrt()
    kept = (1 - next_signal - fresh**2).clamp(min=0).sqrt()  # rounding can make this negative
    return next_signal.sqrt() * clean + kept * residual + fresh * SPREAD * noise


def time_embedding(t: Tensor, width: int) -> Tensor:
    """The sinusoidal embedding (B, C) of times (B,) from 0 to 1, as in D3DP."""
    rates = torch.exp(torch.arange(width // 2, device=t.device) * (-math.log(10000) / (width // 2)))
    angles = 1000 * t[:, None] * rates  # (B, C / 2); D3DP has 1000 time steps
    return torch.cat([angles.sin(), angles.cos()], -1)


class GraphAttentionBlock(nn.Module):
    """A graph convolution and attention in parallel on nodes (B, L, 2J, C); choice 5."""

    links: Tensor

    def __init__(self, width: int, heads: int, graph: Tensor, over_frames: bool):
        super().__init__()
        self.over_frames = over_frames
        self.norm = nn.LayerNorm(width)
        self.graph = nn.Linear(2 * width, width)  # features of the neighbors, and of the frame before
        self.attn = Attention(width, heads)
        self.register_buffer("links", graph, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        before = torch.cat([y[:, :1], y[:, :-1]], 1)  # (B, L, 2J, C); the first frame precedes itself
        linked = self.graph(torch.cat([self.links @ y, before], -1)).relu()
        return x + linked + (attend_frames if self.over_frames else attend_joints)(self.attn, y)


class HistoryEncoder(nn.Module):
    """The paper's HPIM: the last L poses, 2D (B, L, J, 2) and predicted 3D (B, L, J, 3), to (B, 1, J, C).

    length: L; width: C. See choices 5 and 6.
    """

    def __init__(self, length: int, width: int, heads: int = 4):
        super().__init__()
        self.length, joints = length, len(H36M.keypoints)
        self.seen, self.answered = nn.Linear(2, width), nn.Linear(3, width)  # input projections of 2D and 3D
        self.joint_pos_embed = nn.Parameter(0.02 * torch.randn(2 * joints, width))
        self.frame_pos_embed = nn.Parameter(0.02 * torch.randn(length, 1, width))
        self.spatial = nn.ModuleList(Block(width, heads, 2 * width) for _ in range(2))
        same_joint = [(joint, joint + joints) for joint in range(joints)]  # its 2D and its 3D node
        links = [*BONES, *((a + joints, b + joints) for a, b in BONES), *same_joint]
        graph = adjacency(links, 2 * joints)
        self.stages = nn.ModuleList(
            GraphAttentionBlock(width, heads, graph, over_frames) for over_frames in (False, True)
        )
        self.out = nn.Linear(2 * width, width)

    def forward(self, keypoints: Tensor, pose: Tensor) -> Tensor:
        joints = keypoints.shape[2]
        x = torch.cat([self.seen(keypoints), self.answered(pose)], 2) + self.joint_pos_embed  # (B, L, 2J, C)
        halves = zip(self.spatial, x.split(joints, 2), strict=True)
        x = torch.cat([attend_joints(block, half) for block, half in halves], 2) + self.frame_pos_embed
        for stage in self.stages:
            x = stage(x)
        return self.out(torch.cat(x[:, -1:].split(joints, 2), -1))  # (B, 1, J, 2C) to (B, 1, J, C)


class Denoiser(nn.Module):
    """Predicts clean poses (B, F, J, 3) with a lifter of 5 + C input channels; choice 4."""

    def __init__(self, lifter: Lifter, history: HistoryEncoder | None = None):
        super().__init__()
        self.lifter, self.history = lifter, history
        self.width = lifter.channels - 5
        hidden = 2 * self.width
        self.time = nn.Sequential(nn.Linear(self.width, hidden), nn.GELU(), nn.Linear(hidden, self.width))

    def forward(self, x: Tensor, t: Tensor, past: History | None = None) -> Tensor:
        """x: 2D joints and noisy poses (B, F, J, 2 + 3); t: times (B,); past: the last L frames."""
        condition = self.time(time_embedding(t, self.width))[:, None, None]  # (B, 1, 1, C)
        if past is not None:
            assert self.history is not None, "this denoiser has no HistoryEncoder"
            condition = condition + self.history(*past)  # (B, 1, J, C)
        return self.lifter(torch.cat([x, condition.expand(*x.shape[:-1], -1)], -1))  # from (B, F, J, 5 + C)


def energy_terms(pose: Tensor, rays: Tensor) -> dict[str, Tensor]:
    """The energies (B,) of poses (B, F, J, 3) with rays (B, F, J, 2), in m^2 per frame; choices 9 and 10."""
    root = solve_root(pose, rays)[..., None, :]  # (B, F, 1, 3)
    depth = (pose + root)[..., 2:].clamp(min=NEAREST)  # (B, F, J, 1)
    # detached: otherwise moving the person closer would lower the energy
    error = ((pose + root)[..., :2] / depth - rays) * root[..., 2:].detach().clamp(min=NEAREST)
    lengths = bones(pose)  # (B, F, 16)
    bone, mirror_image = zip(*PAIRS, strict=True)
    return {
        "reprojection": error.square().sum((-2, -1)).mean(-1),
        "symmetry": (lengths[..., bone] - lengths[..., mirror_image]).square().sum(-1).mean(-1),
        "lengths": lengths.var(-2, correction=0).sum(-1),
        "speed": pose.diff(dim=-3).square().sum((-2, -1)).mean(-1),
    }


def energy(pose: Tensor, rays: Tensor) -> Tensor:
    """The weighted sum of the energies of poses, (B,)."""
    terms = energy_terms(pose, rays)
    return sum((WEIGHTS[name] * term for name, term in terms.items()), start=pose.new_zeros(len(pose)))


def energy_guidance(pose: Tensor, rays: Tensor, rounds: int = 1) -> Tensor:
    """Poses (B, F, J, 3) after `rounds` gradient steps on the energy, with the hip at 0; choice 8."""
    for _ in range(rounds):
        with torch.enable_grad():
            pose = pose.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(energy(pose, rays).sum(), pose)
        gradient[..., 0, :] = 0
        pose = pose.detach() - RATE * pose.shape[1] * gradient  # times F: the energy is a mean over frames
    return pose


@torch.no_grad()
def ddim_sample(
    model: nn.Module,
    x: Tensor,
    past: History | None = None,
    rays: Tensor | None = None,
    steps: int = 5,
    eta: float = 1.0,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Sample poses for 2D joints x (B, F, J, 2): yields t and the noisy and the clean poses (B, F, J, 3).

    The last clean poses are the prediction. past: the history, (B, L, ...). rays: (B, F, J, 2) for guidance,
    None for no guidance.
    """

    def unit_noise() -> Tensor:
        return torch.randn(*x.shape[:-1], 3, generator=generator, device=x.device)

    noisy, times = SPREAD * unit_noise(), torch.linspace(1, 0, steps + 1, device=x.device)
    for t, to in zip(times[:-1], times[1:], strict=True):
        clean = model(torch.cat([x, noisy], -1), t.expand(len(x)), past).clone()
        clean[..., 0, :] = 0
        clean = clean if rays is None else energy_guidance(clean, rays)
        yield t, noisy, clean
        noisy = ddim_step(noisy, clean, t, to, eta, unit_noise())


def lift_sequences(
    model: Denoiser,
    x: Tensor,
    frames: int,
    rays: Tensor | None = None,
    history: bool = True,
    hypotheses: int = 5,
    steps: int = 5,
    eta: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Lift sequences (B, T, J, 2) in windows of `frames` to hypotheses (B, H, T, J, 3); use their mean.

    rays: (B, T, J, 2) for guidance. history: condition each window on the poses before it, if the model has a
    HistoryEncoder. The last three of the nine parameters are passed on to `ddim_sample`.
    """
    poses = x.new_zeros(len(x), hypotheses, *x.shape[1:-1], 3)

    def repeat(tensor: Tensor) -> Tensor:
        return tensor.repeat_interleave(hypotheses, 0)  # (B, ...) to (B H, ...)

    for start, mask in window_starts(x.shape[1], frames):
        window, past = slice(start, start + frames), None
        if history and model.history is not None and start >= model.history.length:
            before = slice(start - model.history.length, start)
            past = repeat(x[:, before]), repeat(poses[:, :, before].mean(1))
        window_rays = None if rays is None else repeat(rays[:, window])
        *_, (_, _, clean) = ddim_sample(model, repeat(x[:, window]), past, window_rays, steps, eta, generator)
        poses[:, :, window][:, :, mask] = clean.unflatten(0, (len(x), hypotheses))[:, :, mask]
    return poses
