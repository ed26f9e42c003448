"""Lite-HRNet: HRNet's branches with channel shuffling, and with gates across and within resolutions.

Yu, Xiao, Gao, Yuan, Zhang, Sang and Wang, "Lite-HRNet: A Lightweight High-Resolution Network", CVPR 2021;
the version with conditional channel weighting. With depth 18 the stages have 2, 4 and 2 modules, with depth
30 they have 3, 8 and 3.

Behavior of the released code that the text does not describe:
1. A fusion counts the first branch twice. The other outputs take the fused sum of the first branch, not its
   input map, and count that twice too; the released code evaluates the same layers again for this. The
   released weights were trained with this fusion.
2. The second weighting pools each branch over the whole image, so its gate is one number for each channel.
3. The head passes the branches from the smallest to the largest, each through a separable convolution.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from posebook.models.hrnet import apply_transition, exchanges, transition
from posebook.models.layers import ConvModule, PoseModel, check_sides, init_weights
from posebook.skeletons import Skeleton

WIDTHS = (40, 80, 160, 320)
MODULES = {18: (2, 4, 2), 30: (3, 8, 3)}  # depth -> numbers of modules in the stages


def channel_shuffle(x: Tensor) -> Tensor:
    """Interleave the two halves of the channels of (B, C, H, W): 0, C/2, 1, C/2 + 1, ..."""
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def separable(in_channels: int, out_channels: int, stride: int, relu: bool) -> nn.Sequential:
    """A depthwise 3x3 convolution and a 1x1 convolution, each with batch norm, and ReLU if `relu` is True."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        *([nn.ReLU()] if relu else []),
    )


class SpatialWeighting(nn.Module):
    """One gate for each channel, computed from the mean of the map (section 3.2)."""

    def __init__(self, channels: int):
        super().__init__()
        self.global_avgpool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = ConvModule(channels, channels // 4, act=nn.ReLU, norm=False)
        self.conv2 = ConvModule(channels // 4, channels, act=nn.Sigmoid, norm=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv2(self.conv1(self.global_avgpool(x)))


class CrossResolutionWeighting(nn.Module):
    """Gates of each branch, computed from all branches at the size of the smallest one (section 3.2)."""

    def __init__(self, widths: list[int], reduction: int = 8):
        super().__init__()
        self.widths, total = widths, sum(widths)
        self.conv1 = ConvModule(total, total // reduction, act=nn.ReLU)
        self.conv2 = ConvModule(total // reduction, total, act=nn.Sigmoid)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        height, width = maps[-1].shape[-2:]
        pooled = [adaptive_avg_pool2d(x, (height, width)) for x in maps[:-1]] + maps[-1:]
        gates = self.conv2(self.conv1(torch.cat(pooled, 1)))  # (B, sum of widths, height, width)
        gates = gates.split(self.widths, 1)  # each (B, C, height, width)
        return [x * interpolate(gate, size=x.shape[-2:]) for x, gate in zip(maps, gates, strict=True)]


class ConditionalChannelWeighting(nn.Module):
    """Half of the channels of each branch passes both weightings and a depthwise convolution.

    The halves are then concatenated and shuffled.
    """

    def __init__(self, widths: list[int]):
        super().__init__()
        halves = [width // 2 for width in widths]
        self.cross_resolution_weighting = CrossResolutionWeighting(halves)
        self.depthwise_convs = nn.ModuleList(ConvModule(c, c, 3, groups=c) for c in halves)
        self.spatial_weighting = nn.ModuleList(SpatialWeighting(c) for c in halves)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        unchanged, weighted = zip(*(x.chunk(2, 1) for x in maps), strict=True)  # each (B, C/2, H, W)
        weighted = self.cross_resolution_weighting(list(weighted))
        branches = zip(unchanged, weighted, self.depthwise_convs, self.spatial_weighting, strict=True)
        return [channel_shuffle(torch.cat([same, gate(conv(x))], 1)) for same, x, conv, gate in branches]


def fuse(rows: nn.ModuleList, maps: list[Tensor], relu: nn.Module) -> list[Tensor]:
    """The output branches, as the released weights were trained (number 1 of the module's docstring)."""
    first, fused = maps[0], []
    for i, row in enumerate(rows):
        assert isinstance(row, nn.ModuleList)
        # The layer is called twice, as in the released code, so that counters of operations agree.
        y = first + first if row[0] is None else row[0](first) + row[0](first)
        for layer, x in zip(row[1:], maps[1:], strict=True):
            y = y + (x if layer is None else layer(x))
        if i == 0:
            first = y
        fused.append(relu(y))  # i-th branch: (B, 2**i widths[0], H/4 / 2**i, W/4 / 2**i)
    return fused


class FusionModule(nn.Module):
    """Two blocks on all branches, then a fusion of the branches. make_block: widths to a block."""

    def __init__(self, widths: list[int], make_block: Callable[[list[int]], nn.Module]):
        super().__init__()
        self.layers = nn.Sequential(make_block(widths), make_block(widths))
        self.fuse_layers = exchanges(widths, len(widths), separable)
        self.relu = nn.ReLU()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return fuse(self.fuse_layers, self.layers(maps), self.relu)


class Stem(nn.Module):
    """Images (B, 3, H, W) to features (B, width, H/4, W/4).

    After a strided convolution, one half of the channels passes a separable convolution and the other half an
    inverted bottleneck; the halves are then shuffled.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        half = width // 2
        self.conv1 = ConvModule(3, width, 3, 2, act=nn.ReLU)
        self.branch1 = nn.Sequential(
            ConvModule(half, half, 3, 2, groups=half), ConvModule(half, half, act=nn.ReLU)
        )
        self.expand_conv = ConvModule(half, width, act=nn.ReLU)
        self.depthwise_conv = ConvModule(width, width, 3, 2, groups=width)
        self.linear_conv = ConvModule(width, half, act=nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.conv1(x).chunk(2, 1)  # each (B, 16, H/2, W/2)
        second = self.linear_conv(self.depthwise_conv(self.expand_conv(second)))  # (B, 16, H/4, W/4)
        return channel_shuffle(torch.cat([self.branch1(first), second], 1))  # (B, 32, H/4, W/4)


class Project(nn.Sequential):
    """Separable convolution of the head: depthwise 3x3, then pointwise."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.depthwise_conv = ConvModule(in_channels, in_channels, 3, groups=in_channels)
        self.pointwise_conv = ConvModule(in_channels, out_channels, act=nn.ReLU)


class IterativeHead(nn.Module):
    """Branches of all resolutions to one map (B, widths[0], H/4, W/4).

    From the smallest branch to the largest, each step enlarges the current map, adds the next branch, and
    projects the sum to the width of the branch after it.
    """

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        in_widths = widths[::-1]
        out_widths = (*in_widths[1:], in_widths[-1])
        self.projects = nn.ModuleList(Project(*pair) for pair in zip(in_widths, out_widths, strict=True))

    def forward(self, maps: list[Tensor]) -> Tensor:
        y = self.projects[0](maps[-1])
        for x, project in zip(maps[-2::-1], self.projects[1:], strict=True):
            enlarged = interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=True)
            y = project(x + enlarged)  # size of x, channels of the next branch
        return y  # (B, widths[0], H/4, W/4)


class Backbone(nn.Module):
    """Images (B, 3, H, W) to features (B, widths[0], H/4, W/4).

    A stem with `stem_width` channels, three stages with two, three and four branches, and the head that joins
    the branches. widths: channels of the branches. depth: a key of MODULES. make_block: see FusionModule.
    """

    def __init__(
        self,
        stem: nn.Module,
        stem_width: int,
        widths: tuple[int, ...],
        depth: int,
        make_block: Callable[[list[int]], nn.Module],
    ):
        super().__init__()
        self.stem, in_widths = stem, [stem_width]
        for i, number in enumerate(MODULES[depth]):
            out_widths = list(widths[: i + 2])
            setattr(self, f"transition{i}", transition(in_widths, out_widths, separable))
            modules = (FusionModule(out_widths, make_block) for _ in range(number))
            setattr(self, f"stage{i}", nn.Sequential(*modules))
            in_widths = out_widths
        self.head_layer = IterativeHead(widths)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.stem(x)]
        for i in range(3):
            maps = apply_transition(getattr(self, f"transition{i}"), maps)
            maps = getattr(self, f"stage{i}")(maps)
        return self.head_layer(maps)


class Head(nn.Module):
    """Features (B, C, H/4, W/4) to [heatmaps (B, K, H/4, W/4)] by a 1x1 convolution."""

    def __init__(self, in_channels: int, joints: int):
        super().__init__()
        self.final_layer = nn.Conv2d(in_channels, joints, 1)
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.final_layer(x)]  # (B, K, H/4, W/4)


class LiteHRNet(PoseModel):
    """Images (B, 3, H, W), normalized, to [heatmaps (B, K, H/4, W/4)].

    depth: 18 or 30. Raises ValueError for another depth or if a side is not a multiple of 32.
    """

    def __init__(self, skeleton: Skeleton, input_size: tuple[int, int], depth: int = 18):
        super().__init__(skeleton, input_size)
        check_sides("Lite-HRNet", input_size, 32)
        if depth not in MODULES:
            raise ValueError(f"Lite-HRNet has depth 18 or 30, not {depth}")
        self.backbone = Backbone(Stem(), 32, WIDTHS, depth, ConditionalChannelWeighting)
        self.keypoint_head = Head(WIDTHS[0], len(skeleton.keypoints))

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.keypoint_head(self.backbone(images))
