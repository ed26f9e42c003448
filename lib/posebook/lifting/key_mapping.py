"""The authors' checkpoint layouts of the lifters, under our names."""

import re
from pathlib import Path

from torch import Tensor

from posebook import models
from posebook.lifting.models import Lifter
from posebook.lifting.pruning import FramePruning

# Patterns in their names, one after the other, and what stands here in their place.
NAMES = [
    # MixSTE's, of which KTPFormer has most
    (r"^Spatial_patch_to_embedding", "start"),
    (r"^Spatial_pos_embed", "places"),
    (r"^Temporal_pos_embed", "times"),
    (r"^STEblocks", "spatial"),
    (r"^TTEblocks", "temporal"),
    (r"^Spatial_norm", "spatial_norm"),
    (r"^Temporal_norm", "temporal_norm"),
    # KTPFormer's prior blocks
    (r"^kpattention", "kinematic"),
    (r"^tpattention", "trajectory"),
    (r"attn\.(?:Spatial|Temporal)_pos_embed", "positions"),
    (r"attn\.kpa\.", "graph.0."),
    (r"attn\.tpa\.gconv1\.", "graph.0."),
    (r"attn\.tpa\.gconv2\.", "graph.1."),
    (r"gconv\.W$", "weights"),
    (r"gconv\.M$", "modulation"),
    (r"gconv\.adj2$", "learned"),
    (r"gconv\.bias$", "bias"),
    (r"^(kinematic|trajectory)\.graph\.(\d)\.bn", r"\1.graph.\2.norm"),
    (r"^(kinematic|trajectory)\.attn\.norm1", r"\1.block.norm1"),
    (r"^(kinematic|trajectory)\.(attn|norm2|mlp)", r"\1.block.\2"),
    # MotionBERT's
    (r"^joints_embed", "start"),
    (r"^pos_embed$", "places"),
    (r"^temp_embed", "times"),
    (r"^blocks_st", "spatial_first"),
    (r"^blocks_ts", "temporal_first"),
    (r"^ts_attn", "fusion"),
    (r"^pre_logits\.fc", "head.features"),
    (r"^head\.(weight|bias)$", r"head.out.\1"),
]
AROUND = [  # HoT's own, around either
    (r"^pos_embed_token", "positions"),
    (r"^x_token", "recover.queries"),
    (r"^cross_attention\.(?:linear_)?", "recover."),
]


def remap_keys(state: dict[str, Tensor], hourglass: bool) -> dict[str, Tensor]:
    """A lifter's tensors in its authors' layout by our names."""
    found = {}
    for key, value in state.items():
        outer = key
        for pattern, name in AROUND:
            outer = re.sub(pattern, name, outer)
        if outer != key:
            found[outer] = value
            continue
        for pattern, name in NAMES:
            key = re.sub(pattern, name, key)
        found[f"lifter.{key}" if hourglass else key] = value
    return found


def load_official(lifter: Lifter, source: str | Path | dict[str, Tensor]) -> Lifter:
    """Load an authors' checkpoint, strictly; raises ValueError as models.load_official does."""
    state = source if isinstance(source, dict) else models.read_checkpoint(source)
    return models.load_official(lifter, remap_keys(state, isinstance(lifter, FramePruning)))
