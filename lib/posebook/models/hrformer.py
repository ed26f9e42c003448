"""HRFormer: HRNet's branches with windows of self-attention for convolutions.

Yuan, Fu, Huang, Lin, Zhang, Chen and Wang, "HRFormer: High-Resolution Transformer for Dense Prediction",
NeurIPS 2021. There is no released pose net of size T: its widths are the authors' classification net's.

Where the text is silent, from the released code:
1. Windows of 7x7 never shift. A map whose sides are no multiples of 7 is padded with zeros all round, after
   the norm; what is padded takes part in the attention, and is cut off again.
2. The weights hold a table of biases by the offset of two places of a window, and the index into it; the
   released pose code never adds them, and nor does this.
3. The block's second half is a 1x1, a depthwise 3x3 and a 1x1 convolution, each with batch norm and GELU.
4. The last projection is applied as a function: counters that watch modules do not see it. The released code
   resizes each raised map once more, to the size it has; that is left out, and fvcore would count it.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad, softmax

from posebook.models.hrnet import advance, fuse, transition
from posebook.models.layers import Bottleneck, PoseModel, check_sides, init_weights, residual_blocks
from posebook.models.lite_hrnet import Head, exchange
from posebook.skeletons import Skeleton

WINDOW = 7
MODULES = (1, 3, 2)  # of stages 2, 3 and 4, two blocks a branch in each


def offsets(side: int) -> Tensor:
    """Which entry of the bias table stands for each pair of places of a window: (side², side²)."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    down, across = ((g.flatten()[:, None] - g.flatten()[None]) + side - 1 for g in (rows, columns))
    return down * (2 * side - 1) + across


class WindowAttention(nn.Module):
    """Multi-head self-attention within each of N windows of tokens (49, N, C)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        self.register_buffer("relative_position_index", offsets(WINDOW))
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
    """Attention of a map (B, H, W, C), cut into windows and put together again."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = WindowAttention(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width = x.shape[:3]
        down, across = -height % WINDOW, -width % WINDOW
        top, left = down // 2, across // 2
        x = pad(x, (0, 0, left, across - left, top, down - top))  # (B, 7h, 7w, C)
        windows = (
            x.unflatten(2, (-1, WINDOW)).unflatten(1, (-1, WINDOW)).transpose(2, 3)
        )  # (B, h, w, 7, 7, C)
        rows, columns = windows.shape[1:3]
        x = self.attn(windows.flatten(3, 4).flatten(0, 2).transpose(0, 1)).transpose(0, 1)  # (B h w, 49, C)
        x = x.reshape(batch, rows, columns, WINDOW, WINDOW, -1).transpose(2, 3)  # (B, h, 7, w, 7, C)
        return x.flatten(3, 4).flatten(1, 2)[:, top : top + height, left : left + width]  # (B, H, W, C)


class ConvMLP(nn.Module):
    """1x1, depthwise 3x3 and 1x1 convolution, four times as wide between."""

    def __init__(self, width: int):
        super().__init__()
        wide = 4 * width
        self.fc1, self.norm1 = nn.Conv2d(width, wide, 1), nn.BatchNorm2d(wide)
        self.dw3x3, self.norm2 = nn.Conv2d(wide, wide, 3, 1, 1, groups=wide), nn.BatchNorm2d(wide)
        self.fc2, self.norm3 = nn.Conv2d(wide, width, 1), nn.BatchNorm2d(width)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.fc1(x)))  # (B, 4C, H, W)
        x = self.act(self.norm2(self.dw3x3(x)))
        return self.act(self.norm3(self.fc2(x)))  # (B, C, H, W)


class TransformerBlock(nn.Module):
    """Attention in windows, then the convolutions, each on a shortcut (section 3)."""

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
    """Two blocks on every branch, then each output the sum of all branches."""

    def __init__(self, widths: list[int], num_outputs: int):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(TransformerBlock(width, 2**i) for _ in range(2)))
            for i, width in enumerate(widths)
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(exchange(widths, source, target, "bilinear") for source in range(len(widths)))
            for target in range(num_outputs)
        )
        self.relu = nn.ReLU()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return fuse(self.fuse_layers, maps, self.relu)


class Backbone(nn.Module):
    """HRNet's stem, two bottlenecks, and three stages of transformer modules; `width` channels at 1/4."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.layer1 = residual_blocks(Bottleneck, 64, 64, 2)
        before = [256]
        for stage, modules in enumerate(MODULES, 2):
            widths = [width * 2**i for i in range(stage)]
            setattr(self, f"transition{stage - 1}", transition(before, widths))
            num_outputs = [stage] * modules if stage < 4 else [stage, 1]
            setattr(
                self, f"stage{stage}", nn.Sequential(*(TransformerModule(widths, n) for n in num_outputs))
            )
            before = widths
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(images)))  # (B, 64, H/2, W/2)
        x = self.relu(self.bn2(self.conv2(x)))  # (B, 64, H/4, W/4)
        maps = [self.layer1(x)]  # (B, 256, H/4, W/4)
        for stage in (2, 3, 4):
            maps = getattr(self, f"stage{stage}")(advance(getattr(self, f"transition{stage - 1}"), maps))
        return maps[0]  # (B, width, H/4, W/4)


class HRFormer(PoseModel):
    """Images (B, 3, H, W), normalized, to [heatmaps (B, K, H/4, W/4)].

    width: channels of the first branch, 18 for T. Raises ValueError for sides that are no multiples of 32.
    """

    def __init__(self, skeleton: Skeleton, input_size: tuple[int, int], width: int = 18):
        super().__init__(skeleton, input_size)
        check_sides("HRFormer", input_size, 32)
        self.backbone = Backbone(width)
        self.keypoint_head = Head(width, len(skeleton.keypoints))

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.keypoint_head(self.backbone(images))
