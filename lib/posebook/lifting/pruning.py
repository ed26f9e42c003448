"""Fewer frames in the middle: prune them between two layers of a lifter, recover them at its end.

HoT: Li et al., "Hourglass Tokenizer for Efficient Transformer-Based 3D Human Pose Estimation", CVPR 2024, and
the authors' code. H2OT: "H2OT: Hierarchical Hourglass Tokenizer for Efficient Video Pose Transformers", TPAMI
2025, of which there is no code: from its abstract and second-hand accounts of its modules.

What is chosen, or differs:
1. HoT breaks near-ties among frames by random numbers; here the earlier frame wins, so that the same input
   has the same answer. Indices may be given instead, for parity or to reuse them on a mirrored sequence.
2. The density of a frame counts itself among its two nearest, as the authors' code does: it is exp(-d^2 / 2)
   of the distance d to the nearest other.
3. HoT's table of positions, added to the frames that are kept, belongs to its recovery by attention: one that
   knows where the kept frames lie needs none. Pruned twice, it is added at the first time.
4. H2OT's schedule is in no source: {2: F/3, 5: F/9} of MixSTE's eight layers is a default, not its figure.
5. Attention's rank of a frame (H2OT's TPA): how much the frames' mean tokens look at it, softmax(f f' / sqrt
   C), without weights of its own.
6. `interpolate` works on the kept indices; frames before the first and after the last kept one repeat it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from posebook.lifting import models
from posebook.lifting.models import Lifter
from posebook.utils import unknown_name_error

Pruner = Callable[[Tensor, Tensor], Tensor]  # tokens (B, F, J, C), 2D joints (B, F, J, 2) to indices (B, f)


def _top_frames(scores: Tensor, keep: int) -> Tensor:
    """The frames (B, f) of the highest scores (B, F), by time; of equal ones the earlier."""
    return scores.sort(dim=1, descending=True, stable=True)[1][:, :keep].sort(1)[0]


@dataclass(frozen=True)
class ClusterPruner:
    """HoT's selection: frames of many alike (dense) that are far from denser ones, by their mean token.

    center: the middle frame is always among them, for a net that answers for it alone (HoT's seq2frame).
    """

    keep: int
    center: bool = False

    def __call__(self, tokens: Tensor, _: Tensor) -> Tensor:
        features = tokens.mean(2)  # (B, F, C)
        apart = torch.cdist(features, features) / features.shape[-1] ** 0.5  # (B, F, F)
        density = (-apart.topk(2, largest=False)[0].square().mean(-1)).exp()  # (B, F); choice 2
        denser = density[:, None] > density[:, :, None]  # (B, F, F): whether another frame is denser
        farthest = apart.flatten(1).amax(1)[:, None, None]
        distance = torch.where(denser, apart, farthest).amin(-1)  # (B, F)
        scores = density * distance
        if self.center:
            middle = torch.arange(scores.shape[1], device=scores.device) == scores.shape[1] // 2
            scores = scores.masked_fill(middle, torch.inf)
        return _top_frames(scores, self.keep)


@dataclass(frozen=True)
class MotionPruner:
    """The frames before which the 2D joints have moved most (H2OT's TPMo)."""

    keep: int

    def __call__(self, _: Tensor, keypoints: Tensor) -> Tensor:
        moved = keypoints.diff(dim=1).abs().sum((2, 3))  # (B, F - 1)
        return _top_frames(nn.functional.pad(moved, (1, 0)), self.keep)


@dataclass(frozen=True)
class AttentionPruner:
    """The frames that the others look at most (H2OT's TPA); choice 5."""

    keep: int

    def __call__(self, tokens: Tensor, _: Tensor) -> Tensor:
        features = tokens.mean(2)  # (B, F, C)
        looks = features @ features.transpose(1, 2) / features.shape[-1] ** 0.5
        return _top_frames(looks.softmax(-1).mean(1), self.keep)


@dataclass(frozen=True)
class UniformPruner:
    """Frames at equal steps, the first and the last among them (H2OT's TPS)."""

    keep: int

    def __call__(self, tokens: Tensor, _: Tensor) -> Tensor:
        steps = torch.linspace(0, tokens.shape[1] - 1, self.keep, device=tokens.device).round().long()
        return steps.expand(len(tokens), -1)


PRUNERS = {
    "cluster": ClusterPruner,
    "motion": MotionPruner,
    "attended": AttentionPruner,
    "uniform": UniformPruner,
}


class CrossAttention(nn.Module):
    """Tokens of all frames: learned queries look at those of the kept ones, joint by joint (HoT's TRA)."""

    def __init__(self, frames: int, width: int, heads: int = 8):
        super().__init__()
        self.heads = heads
        self.queries = nn.Parameter(torch.zeros(1, frames, width))
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def look(self, x: Tensor) -> Tensor:
        """Tokens (B, f, C) of one joint to (B, F, C)."""
        queries = self.queries.expand(len(x), -1, -1)
        q, k, v = (
            part(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part, y in ((self.q, queries), (self.k, x), (self.v, x))
        )  # (B, heads, F or f, C / heads)
        seen = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, F, C)
        return queries + self.proj(seen)

    def forward(self, x: Tensor) -> Tensor:
        return self.look(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1)).transpose(1, 2)


def interpolate(poses: Tensor, kept: Tensor, frames: int) -> Tensor:
    """Poses (B, f, J, 3) at the frames kept (B, f) to poses (B, F, J, 3), linear between them; choice 6."""
    kept = kept.contiguous()
    times = torch.arange(frames, device=kept.device).expand(len(kept), -1).contiguous()  # (B, F)
    after = torch.searchsorted(kept, times).clamp(1, max(1, kept.shape[1] - 1))
    after = after.clamp(max=kept.shape[1] - 1)
    before = (after - 1).clamp(min=0)
    start, end = kept.gather(1, before), kept.gather(1, after)
    share = (times - start).to(poses.dtype) / (end - start).clamp(min=1)  # (B, F)
    left, right = _select_frames(poses, before), _select_frames(poses, after)  # (B, F, J, 3)
    return left + share.clamp(0, 1)[..., None, None] * (right - left)


def _select_frames(x: Tensor, index: Tensor) -> Tensor:
    """The frames (B, f) of x (B, F, J, C)."""
    return x.gather(1, index[..., None, None].expand(-1, -1, *x.shape[2:]))


RECOVERIES = ("attend", "interpolate", "keep")


class FramePruning(Lifter):
    """A lifter whose later layers see fewer frames.

    prune: which pruner before which layer, counted from 0; recover: "attend" (HoT's, before the head),
    "interpolate" (H2OT's, after it) or "keep" (answers for the kept frames alone). Raises ValueError for a
    layer that is not there, for frames that are not, and for another recovery.
    """

    def __init__(self, lifter: Lifter, prune: dict[int, Pruner], recover: str = "interpolate"):
        super().__init__(lifter.frames, lifter.joints, lifter.channels, lifter.width, lifter.depth)
        if recover not in RECOVERIES:
            raise ValueError(f"frames are recovered by {', '.join(RECOVERIES)}, not {recover!r}")
        self.prune = dict(sorted(prune.items()))
        left = self.frames
        for layer, pruner in self.prune.items():
            if layer == 0 and (not isinstance(pruner, UniformPruner) or isinstance(lifter, models.KTPFormer)):
                raise ValueError(
                    "before layer 0, which is told each frame's time, only uniform frames can be kept, and "
                    "none left out of KTPFormer"
                )
            if not 0 <= layer < self.depth:
                raise ValueError(f"there is no layer {layer} to prune before: 0 to {self.depth - 1}")
            if not 1 <= pruner.keep <= left:
                raise ValueError(
                    f"cannot keep {pruner.keep} frames before layer {layer}: only {left} are left"
                )
            left = pruner.keep
        self.lifter = lifter
        self.recover = CrossAttention(self.frames, self.width) if recover == "attend" else None
        self.interpolates = recover == "interpolate"
        first = next(iter(self.prune.values())).keep if self.prune else self.frames
        self.positions = nn.Parameter(torch.zeros(1, first, self.width)) if recover == "attend" else None

    def middle(self, x: Tensor, given: dict[int, Tensor] | None = None) -> tuple[Tensor, dict[int, Tensor]]:
        """Tokens (B, f, J, C) after all layers, and after each pruning which frames (B, f) are left.

        given: frames to keep instead of the pruner's, as their numbers among those still there, by layer.
        """
        tokens, kept = self.lifter.embed(x), {}
        left = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)  # (B, F)
        for i in range(self.depth):
            if i in self.prune:
                if (given or {}).get(i) is None:
                    with torch.no_grad():
                        keypoints = x[..., :2].gather(1, left[..., None, None].expand(-1, -1, x.shape[2], 2))
                        index = self.prune[i](tokens, keypoints)  # (B, f)
                else:
                    index = given[i]
                tokens, left = _select_frames(tokens, index), left.gather(1, index)
                if self.positions is not None and not kept:
                    tokens = tokens + self.positions[:, :, None]
                kept[i] = left
            tokens = self.lifter.layer(i, tokens)
        return tokens, kept

    def forward(self, x: Tensor, given: dict[int, Tensor] | None = None) -> Tensor:
        tokens, kept = self.middle(x, given)
        if self.recover is not None:
            return self.lifter.head(self.recover(tokens))  # (B, F, J, 3)
        poses = self.lifter.head(tokens)  # (B, f, J, 3)
        if not self.interpolates or not kept:
            return poses
        return interpolate(poses, list(kept.values())[-1], x.shape[1])


def build_lifter(
    name: str,
    frames: int = 243,
    prune: dict[int | str, tuple[str, int]] | None = None,
    recover: str = "interpolate",
    **options: object,
) -> Lifter:
    """A lifter by its name, untrained, inside an Hourglass where frames are pruned.

    prune: a pruner's name and how many frames it keeps, by layer: {3: ("cluster", 81)} with recover="attend"
    is HoT. Raises ValueError, with the near names, for a lifter or a pruner it does not know.
    """
    lifter = models.build_plain(name, frames, **options)
    pruners = {}
    for layer, (kind, keep) in (prune or {}).items():
        if kind not in PRUNERS:
            raise unknown_name_error(kind, PRUNERS, "pruner")
        pruners[int(layer)] = PRUNERS[kind](keep)
    return FramePruning(lifter, pruners, recover) if pruners else lifter
