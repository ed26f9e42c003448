"""Layers that several papers share."""

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d


class ConvBN(nn.Sequential):
    """Convolution with bias, then batch norm unless `norm` is off; the children are `conv` and `bn`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, norm=True
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
        if norm:
            self.bn = nn.BatchNorm2d(outputs)


class CoordinateAttention(nn.Module):
    """Hou et al., "Coordinate Attention for Efficient Mobile Network Design", CVPR 2021, section 3.2.

    Two averages, one along each axis, pass one shared bottleneck and become a gate a row and a gate a column.
    The last convolutions start at zero: each gate is then sigmoid(0) = 0.5, the product a factor of 0.25.
    """

    def __init__(self, channels: int, reduction: int = 32):
        super().__init__()
        middle = max(8, channels // reduction)
        self.conv_reduce = nn.Conv2d(channels, middle, 1, bias=False)
        self.bn = nn.BatchNorm2d(middle)
        self.conv_h = nn.Conv2d(middle, channels, 1)
        self.conv_w = nn.Conv2d(middle, channels, 1)
        for conv in (self.conv_h, self.conv_w):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        # pooled as the authors pool: another order of the same sum shows after twelve saturated gates
        rows = adaptive_avg_pool2d(x, (None, 1))  # (B, C, H, 1)
        columns = adaptive_avg_pool2d(x, (1, None)).transpose(2, 3)  # (B, C, W, 1)
        y = torch.relu(self.bn(self.conv_reduce(torch.cat([rows, columns], 2))))  # (B, c, H + W, 1)
        rows, columns = y.split([height, width], 2)
        gate_h = torch.sigmoid(self.conv_h(rows))  # (B, C, H, 1)
        gate_w = torch.sigmoid(self.conv_w(columns.transpose(2, 3)))  # (B, C, 1, W)
        return x * gate_h * gate_w


class CBAM(nn.Module):
    """Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018, section 3."""

    def __init__(self, channels: int, reduction: int = 16, kernel: int = 7):
        super().__init__()
        middle = max(8, channels // reduction)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, middle, 1, bias=False), nn.ReLU(), nn.Conv2d(middle, channels, 1, bias=False)
        )
        self.spatial = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.mlp(x.mean((2, 3), keepdim=True)) + self.mlp(
            x.amax((2, 3), keepdim=True)
        )  # (B, C, 1, 1)
        x = x * torch.sigmoid(pooled)
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)  # (B, 2, H, W)
        return x * torch.sigmoid(self.spatial(summary))


class ScaleNorm(nn.Module):
    """Divide by the root mean square of the last axis, times one learnt gain (Nguyen and Salazar, 2019)."""

    def __init__(self, dimension: int):
        super().__init__()
        self.scale = dimension**-0.5
        self.g = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        rms = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * self.scale
        return x / rms.clamp(min=1e-5) * self.g
