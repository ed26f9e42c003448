"""Layers that several models share.

The RTMCC head is the head of RTMPose (Jiang et al., 2023, section 3.3), with the gated attention unit of Hua
et al. (ICML 2022). Choices that the text does not specify or that differ from the released code:
1. The gated attention unit has no positional bias, no dropout and no drop path.
2. Its gamma and beta are initialized uniformly in (0, 0.05), not in (0, 1) as in RTMPose's code. With (0, 1),
   every joint initially attends to all joints about equally and strongly, and its own token has almost no
   effect. After 25 epochs of training from scratch on 86 people, the loss was 0.002 instead of 0.009 (one run
   each, 128 x 96).
3. As in RTMPose's code, the first layer of the unit uses Xavier initialization. The other linear layers of
   the head use a normal distribution with standard deviation 0.01, and its convolution one with 0.001.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from posebook.codecs import SimCC
from posebook.skeletons import Skeleton


class PoseModel(nn.Module):
    """Base class of every 2D pose model.

    skeleton: the K joints that the model predicts, in output order. input_size: (height, width) in pixels.
    udp: whether the weights were trained with UDP, whose crop, flip test and decoding differ. dark: whether
    the accuracy of the weights was published with DARK, which decodes their heatmaps by default.
    """

    udp = False
    dark = False

    def __init__(self, skeleton: Skeleton, input_size: tuple[int, int]):
        super().__init__()
        self.skeleton, self.input_size = skeleton, (int(input_size[0]), int(input_size[1]))


class ConvModule(nn.Sequential):
    """Convolution, batch norm if `norm` is True, and the activation `act` if it is given.

    bias: whether the convolution has a bias despite batch norm; without batch norm it always has one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: type[nn.Module] | None = None,
        norm: bool = True,
        bias: bool = False,
    ):
        super().__init__()
        padding, bias = kernel_size // 2, bias or not norm
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias
        )
        if norm:
            self.bn = nn.BatchNorm2d(out_channels)
        if act is not None:
            self.activate = act()


class CoordinateAttention(nn.Module):
    """Hou et al., "Coordinate Attention for Efficient Mobile Network Design", CVPR 2021, section 3.2.

    The map (B, C, H, W) is averaged along each axis. A shared bottleneck turns the averages into one gate for
    each row and one for each column. The last convolutions are initialized to zero, so each gate starts at
    sigmoid(0) = 0.5 and their product at 0.25.
    """

    def __init__(self, channels: int):
        super().__init__()
        hidden_dim = max(8, channels // 32)
        self.conv_reduce = nn.Conv2d(channels, hidden_dim, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden_dim)
        self.conv_h = nn.Conv2d(hidden_dim, channels, 1)
        self.conv_w = nn.Conv2d(hidden_dim, channels, 1)
        self.pool_h, self.pool_w = nn.AdaptiveAvgPool2d((None, 1)), nn.AdaptiveAvgPool2d((1, None))
        for parameter in (*self.conv_h.parameters(), *self.conv_w.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        # Pool with the same modules as the authors: another order of summation rounds differently, and after
        # twelve saturated gates this changes the output visibly.
        rows = self.pool_h(x)  # (B, C, H, 1)
        columns = self.pool_w(x).transpose(2, 3)  # (B, C, W, 1)
        y = torch.relu(self.bn(self.conv_reduce(torch.cat([rows, columns], 2))))  # (B, hidden_dim, H + W, 1)
        rows, columns = y.split([height, width], 2)  # (B, hidden_dim, H, 1), (B, hidden_dim, W, 1)
        gate_h = torch.sigmoid(self.conv_h(rows))  # (B, C, H, 1)
        gate_w = torch.sigmoid(self.conv_w(columns.transpose(2, 3)))  # (B, C, 1, W)
        return x * gate_h * gate_w


class CBAM(nn.Module):
    """Channel gates, then spatial gates, for a map (B, C, H, W).

    Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018, section 3.
    """

    def __init__(self, channels: int):
        super().__init__()
        hidden_dim = max(8, channels // 16)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden_dim, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(hidden_dim, channels, 1, bias=False),
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean, maximum = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)  # each (B, C, 1, 1)
        x = x * torch.sigmoid(self.mlp(mean) + self.mlp(maximum))
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)  # (B, 2, H, W)
        return x * torch.sigmoid(self.spatial(pooled))


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
    """A learned gain for each channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class GatedAttention(nn.Module):
    """Gated attention unit over the K joint tokens (B, K, width) (RTMPose, section 3.3).

    The attention weights are squared ReLUs instead of a softmax. s is the dimension of queries and keys, e
    that of gates and values.
    """

    def __init__(self, width: int, s: int = 128):
        super().__init__()
        self.s, self.e = s, 2 * width
        self.gamma = nn.Parameter(0.05 * torch.rand(2, s))
        self.beta = nn.Parameter(0.05 * torch.rand(2, s))
        self.o = nn.Linear(self.e, width, bias=False)
        self.uv = nn.Linear(width, 2 * self.e + s, bias=False)
        nn.init.xavier_uniform_(self.uv.weight)
        self.ln = ScaleNorm(width)
        self.res_scale = Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        mixed = nn.functional.silu(self.uv(self.ln(x)))  # (B, K, 2 e + s)
        u, v, base = mixed.split([self.e, self.e, self.s], -1)  # gates, values, base of queries and keys
        q, k = (base[:, :, None] * self.gamma + self.beta).unbind(2)  # each (B, K, s)
        attention = torch.relu(q @ k.transpose(1, 2) / self.s**0.5).square()  # (B, K, K)
        return self.res_scale(x) + self.o(u * (attention @ v))  # (B, K, width)


class RTMCCHead(nn.Module):
    """Features (B, C, H/32, W/32) to SimCC logits x (B, K, 2W) and y (B, K, 2H).

    A 7x7 convolution makes one map for each joint, a linear layer turns each map into a token of 256 numbers,
    a gated attention unit mixes the tokens, and one linear layer for each axis classifies them.
    """

    def __init__(self, channels: int, joints: int, input_size: tuple[int, int]):
        super().__init__()
        input_height, input_width = input_size
        cells, width = (input_height // 32) * (input_width // 32), 256
        self.final_layer = nn.Conv2d(channels, joints, 7, padding=3)
        embedding = nn.Linear(cells, width, bias=False)
        self.mlp = nn.Sequential(ScaleNorm(cells), embedding)
        self.gau = GatedAttention(width)
        self.cls_x = nn.Linear(width, 2 * input_width, bias=False)
        self.cls_y = nn.Linear(width, 2 * input_height, bias=False)
        init_weights(self.final_layer)
        for linear in (embedding, self.gau.o, self.cls_x, self.cls_y):
            nn.init.normal_(linear.weight, std=0.01)

    def forward(self, x: Tensor) -> SimCC:
        x = self.final_layer(x).flatten(2)  # (B, K, H/32 * W/32)
        x = self.gau(self.mlp(x))  # (B, K, 256)
        return SimCC(self.cls_x(x), self.cls_y(x))  # (B, K, 2W), (B, K, 2H)


class ResidualBlock(Protocol):
    """Constructor of a ResNet block. The block has `expansion * width` output channels."""

    expansion: int

    def __call__(
        self, in_channels: int, width: int, stride: int = 1, downsample: nn.Module | None = None
    ) -> nn.Module: ...


class BasicBlock(nn.Module):
    """ResNet block with two 3x3 convolutions (He et al., CVPR 2016)."""

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
    """ResNet block with 1x1, 3x3 and widening 1x1 convolutions; the 3x3 convolution has the stride."""

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
    block: ResidualBlock, in_channels: int, width: int, number: int, stride: int = 1
) -> nn.Sequential:
    """`number` blocks. The first has the stride and, if the shape changes, a projection as its shortcut."""
    out_channels, downsample = width * block.expansion, None
    if stride != 1 or in_channels != out_channels:
        downsample = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
        )
    first = block(in_channels, width, stride, downsample)
    return nn.Sequential(first, *(block(out_channels, width) for _ in range(number - 1)))


def deconvolutions(in_channels: int, number: int) -> nn.Sequential:
    """`number` 4x4 transposed convolutions to 256 channels that double the size, with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for channels in (in_channels, *[256] * (number - 1)):
        up = nn.ConvTranspose2d(channels, 256, 4, 2, 1, bias=False)
        layers += [up, nn.BatchNorm2d(256), nn.ReLU()]
    return nn.Sequential(*layers)


def init_weights(model: nn.Module) -> None:
    """Initialize convolutions as in HRNet's code: normal weights (standard deviation 0.001), zero biases."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.001)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def check_sides(model: str, input_size: tuple[int, int], multiple: int) -> None:
    """Raise ValueError if height or width is not a positive multiple of `multiple`."""
    if any(side % multiple or side <= 0 for side in input_size):
        raise ValueError(
            f"{model} needs an input height and width that are multiples of {multiple}, "
            f"not {tuple(input_size)} (height, width)"
        )
