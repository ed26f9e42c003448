"""HRFormer: HRNet's branches with self-attention in windows instead of convolutions.

Yuan, Fu, Huang, Lin, Zhang, Chen and Wang, "HRFormer: High-Resolution Transformer for Dense Prediction",
NeurIPS 2021. The authors released no pose model of size T. Its widths are those of their classification
model.

Choices that the text does not specify, from the released code:
1. The windows of 7x7 are never shifted. If the sides of a map are not multiples of 7, the map is padded with
   zeros on all sides after the norm. The padding takes part in the attention and is removed afterwards.
2. The weights contain a table of biases by the relative position of two tokens of a window, and the index
   into this table. The released pose code never adds these biases, and neither does this code.
3. The second half of a block is a 1x1, a depthwise 3x3 and a 1x1 convolution, each with batch norm and GELU.
4. The last projection is called as a function, so counters that count modules miss it. The released code
   resizes each enlarged map once more, to the size that it already has. This step is omitted; fvcore would
   count it.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad, softmax

from posebook.models.hrnet import apply_transition, conv_bn, exchanges, fuse, transition
from posebook.models.layers import Bottleneck, PoseModel, check_sides, init_weights, residual_blocks
from posebook.models.lite_hrnet import Head, separable
from posebook.skeletons import Skeleton

WINDOW = 7
MODULES = (1, 3, 2)  # numbers of modules in stages 2, 3 and 4


def relative_position_index(side: int) -> Tensor:
    """Index into the bias table for each pair of tokens of a window: (side², side²)."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    dy, dx = ((g.flatten()[:, None] - g.flatten()[None]) + side - 1 for g in (rows, columns))
    return dy * (2 * side - 1) + dx


class WindowAttention(nn.Module):
    """Multi-head self-attention within each of N windows of 49 tokens (49, N, C)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_position_index(WINDOW))
        self.k_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.q_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).permute(1, 2, 0, 3)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )  # each (N, heads, 49, C / heads)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)  # (N, heads, 49, 49)
        x = (softmax(scores, -1) @ v).permute(2, 0, 1, 3).flatten(2)  # (49, N, C)
        return linear(x, self.out_proj.weight, self.out_proj.bias)


class LocalAttention(nn.Module):
    """Self-attention within the windows of a map (B, H, W, C)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = WindowAttention(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width = x.shape[:3]
        pad_y, pad_x = -height % WINDOW, -width % WINDOW
        top, left = pad_y // 2, pad_x // 2
        x = pad(x, (0, 0, left, pad_x - left, top, pad_y - top))  # (B, 7h, 7w, C)
        windows = (
            x.unflatten(2, (-1, WINDOW)).unflatten(1, (-1, WINDOW)).transpose(2, 3)
        )  # (B, h, w, 7, 7, C)
        rows, columns = windows.shape[1:3]
        x = self.attn(windows.flatten(3, 4).flatten(0, 2).transpose(0, 1)).transpose(0, 1)  # (B h w, 49, C)
        x = x.reshape(batch, rows, columns, WINDOW, WINDOW, -1).transpose(2, 3)  # (B, h, 7, w, 7, C)
        return x.flatten(3, 4).flatten(1, 2)[:, top : top + height, left : left + width]  # (B, H, W, C)


class ConvMLP(nn.Module):
    """1x1, depthwise 3x3 and 1x1 convolution; the hidden layer has four times as many channels."""

    def __init__(self, width: int):
        super().__init__()
        hidden_dim = 4 * width
        self.fc1, self.norm1 = nn.Conv2d(width, hidden_dim, 1), nn.BatchNorm2d(hidden_dim)
        self.dw3x3 = nn.Conv2d(hidden_dim, hidden_dim, 3, 1, 1, groups=hidden_dim)
        self.norm2 = nn.BatchNorm2d(hidden_dim)
        self.fc2, self.norm3 = nn.Conv2d(hidden_dim, width, 1), nn.BatchNorm2d(width)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.fc1(x)))  # (B, 4C, H, W)
        x = self.act(self.norm2(self.dw3x3(x)))
        return self.act(self.norm3(self.fc2(x)))  # (B, C, H, W)


class TransformerBlock(nn.Module):
    """Attention in windows, then convolutions, each with a shortcut (section 3)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = LocalAttention(width, heads)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.mlp = ConvMLP(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        x = x + self.attn(self.norm1(x))
        y = self.mlp(self.norm2(x).permute(0, 3, 1, 2))  # (B, C, H, W)
        return x.permute(0, 3, 1, 2) + y


class TransformerModule(nn.Module):
    """Two blocks on each branch, then a fusion in which each output is the sum of all branches."""

    def __init__(self, widths: list[int], num_outputs: int):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(TransformerBlock(width, 2**i) for _ in range(2)))
            for i, width in enumerate(widths)
        )
        self.fuse_layers = exchanges(widths, num_outputs, separable, "bilinear")
        self.relu = nn.ReLU()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return fuse(self.fuse_layers, maps, self.relu)


class Backbone(nn.Module):
    """Images (B, 3, H, W) to features (B, width, H/4, W/4).

    HRNet's stem, two bottlenecks, and three stages of transformer modules.
    """

    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.layer1 = residual_blocks(Bottleneck, 64, 64, 2)
        in_widths = [256]
        for stage, number in enumerate(MODULES, 2):
            widths = [width * 2**i for i in range(stage)]
            setattr(self, f"transition{stage - 1}", transition(in_widths, widths, conv_bn))
            num_outputs = [stage] * (number - 1) + [1 if stage == 4 else stage]
            modules = (TransformerModule(widths, n) for n in num_outputs)
            setattr(self, f"stage{stage}", nn.Sequential(*modules))
            in_widths = widths
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(images)))  # (B, 64, H/2, W/2)
        x = self.relu(self.bn2(self.conv2(x)))  # (B, 64, H/4, W/4)
        maps = [self.layer1(x)]  # (B, 256, H/4, W/4)
        for stage in (2, 3, 4):
            maps = apply_transition(getattr(self, f"transition{stage - 1}"), maps)
            maps = getattr(self, f"stage{stage}")(maps)
        return maps[0]  # (B, width, H/4, W/4)


class HRFormer(PoseModel):
    """Images (B, 3, H, W), normalized, to [heatmaps (B, K, H/4, W/4)].

    width: channels of the first branch, 18 for T. Raises ValueError if a side is not a multiple of 32.
    """

    def __init__(self, skeleton: Skeleton, input_size: tuple[int, int], width: int = 18):
        super().__init__(skeleton, input_size)
        check_sides("HRFormer", input_size, 32)
        self.backbone = Backbone(width)
        self.keypoint_head = Head(width, len(skeleton.keypoints))

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.keypoint_head(self.backbone(images))
