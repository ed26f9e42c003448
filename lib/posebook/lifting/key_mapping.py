"""Convert the state dict keys of the authors' lifters to ours."""

from torch import Tensor

from posebook.models.key_mapping import rename

# Patterns in the authors' keys and their replacements, applied in this order.
NAMES = [
    # MixSTE; KTPFormer has most of these too
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
    # MotionBERT
    (r"^joints_embed", "start"),
    (r"^pos_embed$", "places"),
    (r"^temp_embed", "times"),
    (r"^blocks_st", "spatial_first"),
    (r"^blocks_ts", "temporal_first"),
    (r"^ts_attn", "fusion"),
    (r"^pre_logits\.fc", "head.features"),
    (r"^head\.(weight|bias)$", r"head.out.\1"),
    # HoT, outside of the lifter that it prunes
    (r"^pos_embed_token", "positions"),
    (r"^x_token", "recover.queries"),
    (r"^cross_attention\.(?:linear_)?", "recover."),
]


def remap_keys(state: dict[str, Tensor], is_hot: bool) -> dict[str, Tensor]:
    """A lifter's state dict with our keys instead of its authors'; is_hot: it is pruned by HoT."""
    state = rename(state, NAMES)
    if not is_hot:
        return state
    outer = ("positions", "recover.")
    return {key if key.startswith(outer) else f"lifter.{key}": value for key, value in state.items()}
