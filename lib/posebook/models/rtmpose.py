"""RTMPose: a CSPNeXt backbone with a coordinate-classification head.

Jiang et al., "RTMPose: Real-Time Multi-Person Pose Estimation based on MMPose", arXiv 2303.07399, 2023.
Backbone: Lyu et al., "RTMDet: An Empirical Study of Designing Real-Time Object Detectors", arXiv 2212.07784,
2022. The head is in layers.py.

Choices that the text does not specify, from the released configuration:
1. Sizes t and s scale RTMDet's widths by 0.375 and 0.5 and its depths by 0.167 and 0.33.
2. Batch norm has PyTorch's default epsilon; the configuration replaces the detector's 0.001.
3. Pyramid pooling precedes the blocks of the last stage, which have no shortcut.
"""

from functools import partial

import torch
from torch import Tensor, nn

from posebook.codecs import SimCC
from posebook.models.layers import ConvModule, PoseModel, RTMCCHead, check_sides
from posebook.skeletons import Skeleton

STAGES = ((128, 3), (256, 6), (512, 6), (1024, 3))  # width and number of blocks, before scaling

ConvSiLU = partial(ConvModule, act=nn.SiLU)


class Separable(nn.Sequential):
    """A depthwise 5x5 convolution, then a 1x1 convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.depthwise_conv = ConvSiLU(width, width, 5, groups=width)
        self.pointwise_conv = ConvSiLU(width, width)


class CSPNeXtBlock(nn.Module):
    """A 3x3 and a separable 5x5 convolution, with a shortcut if `shortcut` is True."""

    def __init__(self, width: int, shortcut: bool):
        super().__init__()
        self.conv1, self.conv2 = ConvSiLU(width, width, 3), Separable(width)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class ChannelAttention(nn.Module):
    """One gate for each channel, computed from the mean of the map."""

    def __init__(self, channels: int):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Conv2d(channels, channels, 1)
        self.act = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.act(self.fc(self.pool(x)))


class CSPLayer(nn.Module):
    """Cross-stage partial layer (B, width, H, W).

    Two 1x1 convolutions make two maps with half of the channels each. One of them passes the blocks. Both are
    then concatenated, gated by channel, and mixed by a 1x1 convolution.
    """

    def __init__(self, width: int, blocks: int, shortcut: bool):
        super().__init__()
        self.main_conv, self.short_conv = ConvSiLU(width, width // 2), ConvSiLU(width, width // 2)
        self.final_conv = ConvSiLU(width, width)
        self.blocks = nn.Sequential(*(CSPNeXtBlock(width // 2, shortcut) for _ in range(blocks)))
        self.attention = ChannelAttention(width)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.blocks(self.main_conv(x)), self.short_conv(x)], 1)  # (B, C/2 + C/2, H, W)
        return self.final_conv(self.attention(both))


class PyramidPooling(nn.Module):
    """The map and its maxima in windows of 5, 9 and 13, concatenated and mixed by a 1x1 convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.conv2 = ConvSiLU(width, width // 2), ConvSiLU(width * 2, width)
        self.pools = nn.ModuleList(nn.MaxPool2d(side, 1, side // 2) for side in (5, 9, 13))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)  # (B, C/2, H, W)
        return self.conv2(torch.cat([x, *(pool(x) for pool in self.pools)], 1))  # input: (B, 2C, H, W)


class CSPNeXt(nn.Module):
    """Images (B, 3, H, W) to features (B, 1024 widen, H/32, W/32) by a stem and four strided stages.

    deepen, widen: factors for the number of blocks and the widths of STAGES.
    """

    def __init__(self, deepen: float, widen: float):
        super().__init__()
        width = int(64 * widen)
        self.stem = nn.Sequential(
            ConvSiLU(3, width // 2, 3, 2),
            ConvSiLU(width // 2, width // 2, 3),
            ConvSiLU(width // 2, width, 3),
        )
        for stage, (base_width, blocks) in enumerate(STAGES, 1):
            out_channels, last = int(base_width * widen), stage == len(STAGES)
            layers: list[nn.Module] = [ConvSiLU(width, out_channels, 3, 2)]
            layers += [PyramidPooling(out_channels)] if last else []
            layers += [CSPLayer(out_channels, max(round(blocks * deepen), 1), shortcut=not last)]
            setattr(self, f"stage{stage}", nn.Sequential(*layers))
            width = out_channels
        self.channels = width

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # (B, 64 widen, H/2, W/2)
        for stage in range(1, len(STAGES) + 1):
            x = getattr(self, f"stage{stage}")(x)  # (B, 128 widen .. 1024 widen, H/4 .. H/32, W/4 .. W/32)
        return x


class RTMPose(PoseModel):
    """Images (B, 3, H, W), normalized, to SimCC logits x (B, K, 2W) and y (B, K, 2H).

    deepen, widen: factors for the depth and width of the backbone. Raises ValueError if a side is not a
    multiple of 32.
    """

    def __init__(
        self, skeleton: Skeleton, input_size: tuple[int, int], deepen: float = 0.167, widen: float = 0.375
    ):
        super().__init__(skeleton, input_size)
        check_sides("RTMPose", input_size, 32)
        self.backbone = CSPNeXt(deepen, widen)
        self.head = RTMCCHead(self.backbone.channels, len(skeleton.keypoints), input_size)

    def forward(self, images: Tensor) -> SimCC:
        return self.head(self.backbone(images))
