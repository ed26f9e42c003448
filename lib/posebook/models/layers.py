"""Layers that several papers share.

The RTMCC head is RTMPose's (Jiang et al., 2023, section 3.3), with the gated attention unit of Hua et al.
(ICML 2022). Where the text is silent or ours differs:
1. The gated attention unit has no positional bias, no dropout and no drop path.
2. It starts with gamma and beta in (0, 0.05), not (0, 1) as RTMPose's code: there every joint attends to all
   joints alike at first, eight times over, and its own token drowns. From scratch the difference is large:
   after 25 epochs on 86 people the loss was 0.002 for 0.009 (one run each, 128 x 96). Its first layer starts
   from Xavier, the head's other linear layers at 0.01 and its convolution at 0.001, as in that code.
"""

import torch
from torch import Tensor, nn

from posebook.codecs import SimCC
from posebook.skeletons import Skeleton


class PoseModel(nn.Module):
    """Base class of every 2D pose model: the joints it predicts and the input size it was built for.

    skeleton: the K joints, in output order. input_size: (height, width) in pixels.
    """

    skeleton: Skeleton
    input_size: tuple[int, int]

    def __init__(self, skeleton: Skeleton, input_size: tuple[int, int]):
        super().__init__()
        self.skeleton, self.input_size = skeleton, (int(input_size[0]), int(input_size[1]))


class ConvBN(nn.Sequential):
    """Convolution with bias, then batch norm unless `norm` is off; the children are `conv` and `bn`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        norm=True,
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups)
        if norm:
            self.bn = nn.BatchNorm2d(out_channels)


class CoordinateAttention(nn.Module):
    """Hou et al., "Coordinate Attention for Efficient Mobile Network Design", CVPR 2021, section 3.2.

    Two averages, one along each axis, pass one shared bottleneck and become a gate a row and a gate a column.
    The last convolutions start at zero: each gate is then sigmoid(0) = 0.5, the product a factor of 0.25.
    """

    def __init__(self, channels: int, reduction: int = 32):
        super().__init__()
        hidden_dim = max(8, channels // reduction)
        self.conv_reduce = nn.Conv2d(channels, hidden_dim, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden_dim)
        self.conv_h = nn.Conv2d(hidden_dim, channels, 1)
        self.conv_w = nn.Conv2d(hidden_dim, channels, 1)
        self.pool_h, self.pool_w = nn.AdaptiveAvgPool2d((None, 1)), nn.AdaptiveAvgPool2d((1, None))
        for conv in (self.conv_h, self.conv_w):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        # pooled as the authors pool: another order of the same sum shows after twelve saturated gates
        rows = self.pool_h(x)  # (B, C, H, 1)
        columns = self.pool_w(x).transpose(2, 3)  # (B, C, W, 1)
        y = torch.relu(self.bn(self.conv_reduce(torch.cat([rows, columns], 2))))  # (B, c, H + W, 1)
        rows, columns = y.split([height, width], 2)
        gate_h = torch.sigmoid(self.conv_h(rows))  # (B, C, H, 1)
        gate_w = torch.sigmoid(self.conv_w(columns.transpose(2, 3)))  # (B, C, 1, W)
        return x * gate_h * gate_w


class CBAM(nn.Module):
    """Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018, section 3."""

    def __init__(self, channels: int, reduction: int = 16, kernel_size: int = 7):
        super().__init__()
        hidden_dim = max(8, channels // reduction)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden_dim, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(hidden_dim, channels, 1, bias=False),
        )
        self.spatial = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.mlp(x.mean((2, 3), keepdim=True)) + self.mlp(
            x.amax((2, 3), keepdim=True)
        )  # (B, C, 1, 1)
        x = x * torch.sigmoid(pooled)
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)  # (B, 2, H, W)
        return x * torch.sigmoid(self.spatial(summary))


class ScaleNorm(nn.Module):
    """Divide by the root mean square of the last axis, times one learned gain (Nguyen and Salazar, 2019)."""

    def __init__(self, dimension: int):
        super().__init__()
        self.scale = dimension**-0.5
        self.g = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        rms = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * self.scale
        return x / rms.clamp(min=1e-5) * self.g


class Scale(nn.Module):
    """A learned gain a channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class GatedAttention(nn.Module):
    """Gated attention unit over the K joint tokens (RTMPose, section 3.3): squared ReLU for softmax."""

    def __init__(self, width: int, s: int = 128, expansion: int = 2):
        super().__init__()
        self.s, self.e = s, expansion * width
        self.gamma = nn.Parameter(0.05 * torch.rand(2, s))
        self.beta = nn.Parameter(0.05 * torch.rand(2, s))
        self.o = nn.Linear(self.e, width, bias=False)
        self.uv = nn.Linear(width, 2 * self.e + s, bias=False)
        nn.init.xavier_uniform_(self.uv.weight)
        self.ln = ScaleNorm(width)
        self.res_scale = Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        u, v, base = nn.functional.silu(self.uv(self.ln(x))).split(
            [self.e, self.e, self.s], -1
        )  # (B, K, e|e|s)
        q, k = (base[:, :, None] * self.gamma + self.beta).unbind(2)  # each (B, K, s)
        attention = torch.relu(q @ k.transpose(1, 2) / self.s**0.5).square()  # (B, K, K)
        return self.res_scale(x) + self.o(u * (attention @ v))  # (B, K, width)


class RTMCCHead(nn.Module):
    """One token a joint from a 7x7 convolution, mixed by attention, then one linear classifier an axis."""

    def __init__(
        self, channels: int, joints: int, input_size: tuple[int, int], split_ratio: int = 2, width: int = 256
    ):
        super().__init__()
        height, columns = input_size
        tokens = (height // 32) * (columns // 32)
        self.final_layer = nn.Conv2d(channels, joints, 7, padding=3)
        self.mlp = nn.Sequential(ScaleNorm(tokens), nn.Linear(tokens, width, bias=False))
        self.gau = GatedAttention(width)
        self.cls_x = nn.Linear(width, columns * split_ratio, bias=False)
        self.cls_y = nn.Linear(width, height * split_ratio, bias=False)
        nn.init.normal_(self.final_layer.weight, std=0.001)
        nn.init.zeros_(self.final_layer.bias)
        for linear in (self.mlp[1], self.gau.o, self.cls_x, self.cls_y):
            nn.init.normal_(linear.weight, std=0.01)

    def forward(self, x: Tensor) -> SimCC:
        x = self.final_layer(x).flatten(2)  # (B, K, H/32 * W/32)
        x = self.gau(self.mlp(x))  # (B, K, width)
        return SimCC(self.cls_x(x), self.cls_y(x))  # (B, K, Wx), (B, K, Wy)


class BasicBlock(nn.Module):
    """ResNet's block of two 3x3 convolutions (He et al., CVPR 2016)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1, downsample: nn.Module | None = None):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))  # (B, width, H/stride, W/stride)
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """ResNet's block of a 1x1, a 3x3 and a widening 1x1 convolution; the 3x3 one carries the stride."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1, downsample: nn.Module | None = None):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))  # (B, width, H, W)
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))  # (B, 4 width, H/stride, W/stride)
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def residual_blocks(
    block: type[nn.Module], in_channels: int, width: int, number: int, stride: int = 1
) -> nn.Sequential:
    """`number` blocks, the first with the stride and, where shapes change, a projection beside it."""
    outputs, downsample = width * block.expansion, None
    if stride != 1 or in_channels != outputs:
        downsample = nn.Sequential(
            nn.Conv2d(in_channels, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        )
    first = block(in_channels, width, stride, downsample)
    return nn.Sequential(first, *(block(outputs, width) for _ in range(number - 1)))


def init_weights(model: nn.Module, deviation: float = 0.001) -> None:
    """Start every convolution from a normal of this deviation, its bias at zero: HRNet's code and its kin."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def check_sides(name: str, input_size: tuple[int, int], multiple: int) -> None:
    """Raise ValueError, naming the sizes that go, for an input a net cannot take."""
    if any(side % multiple or side <= 0 for side in input_size):
        raise ValueError(
            f"{name} needs sides that are multiples of {multiple}, not {tuple(input_size)} (height, width)"
        )
