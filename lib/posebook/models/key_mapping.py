"""Convert the state dict keys of mmpose and transformers to ours, which are those of the models' authors.

mmpose wraps HRNet, SimpleBaseline and SimCC in a backbone and a head, names the head `keypoint_head` in its
version 0 and `head` in version 1, and takes ViTPose's backbone from mmpretrain. Our RTMPose and StarNet-Pose
have its layout. Sources, public code of open-mmlab: mmpose/models/backbones/{hrnet,resnet,litehrnet}.py,
mmpose/models/heads/heatmap_heads/heatmap_head.py, mmpose/models/heads/coord_cls_heads/simcc_head.py,
mmpretrain/models/backbones/vision_transformer.py; of huggingface:
transformers/models/vitpose/convert_vitpose_to_hf.py.

1. Our position table has a row for a class token, which is added to all tokens. mmpretrain has no such row,
   or does not use it: here it is zero.
2. transformers' files of ViTPose++ have the experts of all datasets, but only COCO's decoder: they become a
   plain ViTPose (`vitpose.merge_experts`).
"""

import re
from collections.abc import Collection

import torch
from torch import Tensor

from posebook.models.vitpose import GRID, merge_experts

Rules = list[tuple[str, str]]  # patterns in a key and their replacements, applied in this order

# Models whose authors have neither a backbone nor a head: HRNet, SimpleBaseline and SimCC.
UNWRAPPED: Rules = [(r"^backbone\.", ""), (r"^(?:keypoint_)?head\.(?:deconv_head\.)?", "")]
# Models with mmpose 0's name of the head.
KEYPOINT_HEAD: Rules = [(r"^head\.", "keypoint_head.")]
MMPRETRAIN_VIT: Rules = [
    (r"^backbone\.patch_embed\.projection", "backbone.patch_embed.proj"),
    (r"^backbone\.layers\.(\d+)\.ln", r"backbone.blocks.\1.norm"),
    (r"^backbone\.layers\.(\d+)\.attn", r"backbone.blocks.\1.attn"),
    (r"^backbone\.layers\.(\d+)\.ffn\.layers\.0\.0", r"backbone.blocks.\1.mlp.fc1"),
    (r"^backbone\.layers\.(\d+)\.ffn\.layers\.1", r"backbone.blocks.\1.mlp.fc2"),
    (r"^backbone\.ln1", "backbone.last_norm"),
]
TRANSFORMERS_VIT: Rules = [
    (r"^backbone\.embeddings\.patch_embeddings\.projection", "backbone.patch_embed.proj"),
    (r"^backbone\.embeddings\.position_embeddings", "backbone.pos_embed"),
    (r"^backbone\.encoder\.layer\.", "backbone.blocks."),
    (r"\.layernorm_before", ".norm1"),
    (r"\.layernorm_after", ".norm2"),
    (r"^backbone\.layernorm", "backbone.last_norm"),
    (r"\.attention\.output\.dense", ".attn.proj"),
    (r"\.attention\.attention\.query", ".attn.qkv"),
    (r"^head\.deconv1", "keypoint_head.deconv_layers.0"),
    (r"^head\.batchnorm1", "keypoint_head.deconv_layers.1"),
    (r"^head\.deconv2", "keypoint_head.deconv_layers.3"),
    (r"^head\.batchnorm2", "keypoint_head.deconv_layers.4"),
    (r"^head\.conv\.", "keypoint_head.final_layer."),
]
# Buffers of the input's normalization, and a parameter that ViTPose's code does not use.
UNUSED = re.compile(r"data_preprocessor\.|backbone\.cls_token$")


def remap_keys(state: dict[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """A state dict with our keys, if it has those of mmpose or transformers; otherwise unchanged.

    own: the keys of the model, which decide on the rules. Keys that no rule knows stay as they are.
    """
    if state.keys() == set(own):
        return state
    state = {key: value for key, value in state.items() if key in own or not UNUSED.match(key)}
    if "backbone.embeddings.position_embeddings" in state:
        state = rename(_join_queries(state), TRANSFORMERS_VIT)
        if any(".experts." in key for key in state.keys() - set(own)):
            state = merge_experts(state)  # choice 2
    if "backbone.layers.0.ln1.weight" in state:
        state = rename(state, MMPRETRAIN_VIT)
        patches = state["backbone.pos_embed"][:, -GRID[0] * GRID[1] :]  # (1, 192, C); choice 1
        state["backbone.pos_embed"] = torch.cat([torch.zeros_like(patches[:, :1]), patches], 1)  # (1, 193, C)
    if any(key.startswith("keypoint_head.") for key in own):
        state = rename(state, KEYPOINT_HEAD)
    elif not any(key.startswith(("backbone.", "head.")) for key in own):
        state = rename(state, UNWRAPPED)
    return state


def rename(state: dict[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """A state dict with the rules applied to its keys."""
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def _join_queries(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' queries, keys and values of each layer as one layer, under the key of the queries."""
    query, joined = ".attention.attention.query.", {}
    for key, value in state.items():
        if query in key:
            others = [state[key.replace(query, f".attention.attention.{name}.")] for name in ("key", "value")]
            joined[key] = torch.cat([value, *others])  # (3 C, C) or (3 C,)
        elif ".attention.attention." not in key:
            joined[key] = value
    return joined
