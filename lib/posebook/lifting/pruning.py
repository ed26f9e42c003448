"""Frame pruning: remove frames between two layers of a lifter, and recover all frames at its end.

HoT: Li et al., "Hourglass Tokenizer for Efficient Transformer-Based 3D Human Pose Estimation", CVPR 2024, and
the authors' code. H2OT: "H2OT: Hierarchical Hourglass Tokenizer for Efficient Video Pose Transformers", TPAMI
2025. The repository named in its abstract has only HoT's code. H2OT is implemented from its abstract and
second-hand descriptions of its modules.
Axes are B, F (frames of a sequence), f (kept frames), J, C.

Our choices, and differences from the papers:
1. HoT adds a random number below 1e-6 to each density, so that one of two equally dense frames is the denser
   one. Two frames that are nearest to each other always have the same density. Without this, neither would
   dominate the other, and both would be kept although they are alike. Here the earlier of two frames whose
   densities differ by at most TIE is the denser one, so that the same input always gives the same output.
   The caller can pass frame indices instead, to compare with other code or to use the same frames for a
   mirrored sequence.
2. The density of a frame counts the frame itself among its two nearest frames, as in the authors' code. It is
   exp(-d^2 / 2) for the distance d to the nearest other frame.
3. HoT adds a position embedding to the kept frames. It belongs to recovery by attention here; interpolation
   knows the positions of the kept frames and has none. With several prunings it is added at the first one.
4. No source has H2OT's schedule. The default {2: F/3, 5: F/9} for MixSTE's eight layers is ours.
5. H2OT's TPA ranks a frame by the attention that it receives from the mean tokens of all frames,
   softmax(f f' / sqrt C), without learned weights.
6. `interpolate` is linear between kept frames. Frames before the first or after the last kept one repeat it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from posebook.lifting import models
from posebook.lifting.models import Lifter
from posebook.utils import check_name

TIE = 1e-6  # choice 1
HEADS = 8  # of the recovery by attention


@dataclass(frozen=True)
class Pruner:
    """Selects `keep` frames: tokens (B, F, J, C) and 2D joints (B, F, J, 2) to sorted indices (B, keep)."""

    keep: int

    def __call__(self, tokens: Tensor, keypoints: Tensor, /) -> Tensor:
        raise NotImplementedError


def _top_frames(scores: Tensor, keep: int) -> Tensor:
    """The frames (B, keep) with the highest scores (B, F), in temporal order; of equal scores the earlier."""
    return scores.sort(dim=1, descending=True, stable=True)[1][:, :keep].sort(1)[0]


@dataclass(frozen=True)
class ClusterPruner(Pruner):
    """HoT's cluster centers: frames with a high density and a large distance to any denser frame.

    center: always keep the middle frame, for a model that predicts only this frame (HoT's seq2frame).
    """

    center: bool = False

    def __call__(self, tokens: Tensor, _: Tensor) -> Tensor:
        features = tokens.mean(2)  # (B, F, C)
        distances = torch.cdist(features, features) / features.shape[-1] ** 0.5  # (B, F, F)
        density = (-distances.topk(2, largest=False)[0].square().mean(-1)).exp()  # (B, F); choice 2
        ahead = density[:, None] - density[:, :, None]  # (B, F, F): by how much another frame is denser
        earlier = torch.ones_like(ahead).tril(-1) > 0  # (B, F, F): whether the other frame is earlier
        denser = (ahead > TIE) | (ahead.abs() <= TIE) & earlier
        farthest = distances.flatten(1).amax(1)[:, None, None]  # (B, 1, 1); stands for "no denser frame"
        scores = density * torch.where(denser, distances, farthest).amin(-1)  # (B, F)
        if self.center:
            middle = torch.arange(scores.shape[1], device=scores.device) == scores.shape[1] // 2  # (F,)
            scores = scores.masked_fill(middle, torch.inf)
        return _top_frames(scores, self.keep)


class MotionPruner(Pruner):
    """The frames with the largest motion of the 2D joints since the frame before (H2OT's TPMo)."""

    def __call__(self, _: Tensor, keypoints: Tensor) -> Tensor:
        motion = keypoints.diff(dim=1).abs().sum((2, 3))  # (B, F - 1)
        return _top_frames(nn.functional.pad(motion, (1, 0)), self.keep)


class AttentionPruner(Pruner):
    """The frames that receive the most attention from all frames (H2OT's TPA); choice 5."""

    def __call__(self, tokens: Tensor, _: Tensor) -> Tensor:
        features = tokens.mean(2)  # (B, F, C)
        logits = features @ features.transpose(1, 2) / features.shape[-1] ** 0.5  # (B, F, F)
        return _top_frames(logits.softmax(-1).mean(1), self.keep)


class UniformPruner(Pruner):
    """Frames at equal steps, including the first and the last (H2OT's TPS)."""

    def __call__(self, tokens: Tensor, _: Tensor) -> Tensor:
        steps = torch.linspace(0, tokens.shape[1] - 1, self.keep, device=tokens.device).round().long()
        return steps.expand(len(tokens), -1)


PRUNERS: dict[str, type[Pruner]] = {
    "cluster": ClusterPruner,
    "motion": MotionPruner,
    "attended": AttentionPruner,
    "uniform": UniformPruner,
}


class CrossAttention(nn.Module):
    """HoT's TRA: learned queries of all frames attend to the tokens of the kept frames, for each joint."""

    def __init__(self, frames: int, width: int):
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(1, frames, width))
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, f, J, C) to (B, F, J, C)."""
        x = tokens.transpose(1, 2).flatten(0, 1)  # (B J, f, C)
        queries = self.queries.expand(len(x), -1, -1)
        q, k, v = (
            layer(y).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for layer, y in ((self.q, queries), (self.k, x), (self.v, x))
        )  # (B J, 8, F or f, C / 8)
        attended = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = queries + self.proj(attended)  # (B J, F, C)
        return x.unflatten(0, (len(tokens), -1)).transpose(1, 2)


def interpolate(poses: Tensor, kept: Tensor, frames: int) -> Tensor:
    """Interpolate poses (B, f, J, 3) at the frames `kept` (B, f) to poses (B, frames, J, 3); choice 6."""
    kept = kept.contiguous()  # searchsorted warns otherwise
    times = torch.arange(frames, device=kept.device).expand(len(kept), -1).contiguous()  # (B, F)
    last = kept.shape[1] - 1
    # Positions in `kept` of the two frames around each frame. With one kept frame, both are 0.
    after = torch.searchsorted(kept, times).clamp(min(1, last), last)  # (B, F)
    before = (after - 1).clamp(min=0)
    start, end = kept.gather(1, before), kept.gather(1, after)  # frame numbers (B, F)
    weight = (times - start).to(poses.dtype) / (end - start).clamp(min=1)  # (B, F)
    left, right = _select_frames(poses, before), _select_frames(poses, after)  # (B, F, J, 3)
    return left + weight.clamp(0, 1)[..., None, None] * (right - left)


def _select_frames(x: Tensor, index: Tensor) -> Tensor:
    """The frames `index` (B, f) of x (B, F, J, C)."""
    return x.gather(1, index[..., None, None].expand(-1, -1, *x.shape[2:]))


RECOVERIES = ("attend", "interpolate", "keep")


class FramePruning(Lifter):
    """A lifter whose later layers process fewer frames.

    prune: the pruner before a layer, counted from 0. recover: "attend" (HoT, before the head), "interpolate"
    (H2OT, after the head) or "keep" (poses of the kept frames only). Raises ValueError for an unknown layer
    or recovery, and if a pruner keeps more frames than there are. Recovery by attention needs sequences of
    exactly `lifter.frames` frames; `forward` raises ValueError for another length.
    """

    def __init__(self, lifter: Lifter, prune: Mapping[int, Pruner], recover: str = "interpolate"):
        super().__init__(lifter.frames, lifter.channels, lifter.width, lifter.depth)
        if recover not in RECOVERIES:
            raise ValueError(f"recover is one of {', '.join(RECOVERIES)}, not {recover!r}")
        if recover == "attend" and self.width % HEADS:
            raise ValueError(
                f"recovery by attention has {HEADS} heads: the width {self.width} is no multiple"
            )
        self.prune = dict(sorted(prune.items()))
        frames = self.frames
        for layer, pruner in self.prune.items():
            in_layer_0 = isinstance(lifter, models.MixSTE | models.KTPFormer)  # the temporal positions
            uniform = isinstance(pruner, UniformPruner) and not isinstance(lifter, models.KTPFormer)
            if layer == 0 and in_layer_0 and not uniform:
                raise ValueError(
                    "layer 0 adds the temporal positions of the frames: before it only the uniform pruner is "
                    "possible, and KTPFormer needs all frames"
                )
            if not 0 <= layer < self.depth:
                raise ValueError(f"cannot prune before layer {layer}: layers are 0 to {self.depth - 1}")
            if not 1 <= pruner.keep <= frames:
                raise ValueError(f"cannot keep {pruner.keep} frames before layer {layer}: it gets {frames}")
            frames = pruner.keep
        self.lifter = lifter
        self.recover = CrossAttention(self.frames, self.width) if recover == "attend" else None
        self.interpolates = recover == "interpolate"
        first = next(iter(self.prune.values())).keep if self.prune else self.frames  # after the first pruning
        self.positions = nn.Parameter(torch.zeros(1, first, self.width)) if recover == "attend" else None

    def middle(self, x: Tensor, given: dict[int, Tensor] | None = None) -> tuple[Tensor, dict[int, Tensor]]:
        """All layers of the lifter, between `embed` and `head`.

        Returns tokens (B, f, J, C), and for each pruned layer the kept frames (B, f), numbered as in x.
        given: {layer: indices among the remaining frames}, used instead of the layer's pruner.
        """
        tokens = self.lifter.embed(x)  # (B, F, J, C)
        kept: dict[int, Tensor] = {}
        frames = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)  # (B, F)
        for i in range(self.depth):
            if i in self.prune:
                if given and i in given:
                    index = given[i]
                else:
                    with torch.no_grad():
                        index = self.prune[i](tokens, _select_frames(x[..., :2], frames))  # (B, f)
                tokens, frames = _select_frames(tokens, index), frames.gather(1, index)
                if self.positions is not None and not kept:  # choice 3
                    tokens = tokens + self.positions[:, :, None]
                kept[i] = frames
            tokens = self.lifter.layer(i, tokens)
        return tokens, kept

    def forward(self, x: Tensor, given: dict[int, Tensor] | None = None) -> Tensor:
        if self.recover is not None and x.shape[1] != self.frames:
            raise ValueError(f"recovery by attention is for {self.frames} frames, not {x.shape[1]}")
        tokens, kept = self.middle(x, given)
        if self.recover is not None:
            return self.lifter.head(self.recover(tokens))  # (B, F, J, 3)
        poses = self.lifter.head(tokens)  # (B, f, J, 3)
        if self.interpolates and kept:
            return interpolate(poses, list(kept.values())[-1], x.shape[1])  # (B, F, J, 3)
        return poses


def build_lifter(
    name: str,
    frames: int = 243,
    prune: Mapping[Any, tuple[str, int]] | None = None,
    recover: str = "interpolate",
    **options: Any,
) -> Lifter:
    """Build an untrained lifter, inside FramePruning if `prune` has any layers.

    prune: {layer: (pruner's name, number of kept frames)}; {3: ("cluster", 81)} with recover="attend" is HoT
    for MixSTE. Raises ValueError with suggestions for an unknown lifter, option or pruner, and for values
    that cannot be used.
    """
    lifter = models.build_plain(name, frames, **options)
    pruners = {}
    for layer, value in (prune or {}).items():
        try:
            number, (pruner, keep) = int(layer), value
        except (TypeError, ValueError) as error:
            raise ValueError(
                f'pruners by layer have the form {{"3": ["cluster", 81]}}, not {{"{layer}": {value!r}}}'
            ) from error
        check_name(pruner, PRUNERS, "pruner")
        if not isinstance(keep, int):
            raise ValueError(f"the {pruner} pruner keeps a whole number of frames, not {keep!r}")
        pruners[number] = PRUNERS[pruner](keep)
    return FramePruning(lifter, pruners, recover) if pruners else lifter
