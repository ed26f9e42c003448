"""Lite-HRNet: HRNet's branches out of shuffled channels, weighted by all resolutions and by place.

Yu, Xiao, Gao, Yuan, Zhang, Sang and Wang, "Lite-HRNet: A Lightweight High-Resolution Network", CVPR 2021;
the version with conditional channel weighting. Depth 18 has 2, 4 and 2 modules in its stages, 30 has 3, 8, 3.

What the released code does beyond the text:
1. A fusion counts the first branch twice, and what the other branches take from that one is its fused sum,
   not its map. They take it twice, evaluating the same layers again. Weights were trained so.
2. The second weighting pools each branch over the whole picture: its gate is one number a channel.
3. A head passes the branches from the smallest up, each through a separable convolution.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from posebook.models.hrnet import advance
from posebook.models.layers import PoseModel, check_sides, init_weights
from posebook.skeletons import Skeleton

WIDTHS = (40, 80, 160, 320)
MODULES = {18: (2, 4, 2), 30: (3, 8, 3)}


class ConvModule(nn.Sequential):
    """Convolution, batch norm unless it has a bias, and an activation unless None."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel=1,
        stride=1,
        groups=1,
        act: nn.Module | None = None,
        norm=True,
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=not norm
        )
        if norm:
            self.bn = nn.BatchNorm2d(out_channels)
        if act is not None:
            self.activate = act


def shuffle(x: Tensor) -> Tensor:
    """Deal the channels of two halves in turn: (B, C, H, W) to the same."""
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def separable(in_channels: int, out_channels: int, stride: int, relu: bool) -> nn.Sequential:
    """A 3x3 filter a channel and a 1x1 convolution, a norm after each."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        *([nn.ReLU()] if relu else []),
    )


class SpatialWeighting(nn.Module):
    """A gate a channel from the map's mean (section 3.2)."""

    def __init__(self, channels: int):
        super().__init__()
        self.global_avgpool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = ConvModule(channels, channels // 4, act=nn.ReLU(), norm=False)
        self.conv2 = ConvModule(channels // 4, channels, act=nn.Sigmoid(), norm=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv2(self.conv1(self.global_avgpool(x)))


class CrossResolutionWeighting(nn.Module):
    """Gates of every branch from all of them, brought to the smallest size (section 3.2)."""

    def __init__(self, widths: list[int], reduction: int = 8):
        super().__init__()
        self.widths, total = widths, sum(widths)
        self.conv1 = ConvModule(total, total // reduction, act=nn.ReLU())
        self.conv2 = ConvModule(total // reduction, total, act=nn.Sigmoid())

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        smallest = maps[-1].shape[-2:]
        pooled = [adaptive_avg_pool2d(x, smallest) for x in maps[:-1]] + maps[-1:]
        gates = self.conv2(self.conv1(torch.cat(pooled, 1)))  # (B, all channels, h, w)
        gates = gates.split(self.widths, 1)
        return [x * interpolate(gate, size=x.shape[-2:]) for x, gate in zip(maps, gates, strict=True)]


class ConditionalChannelWeighting(nn.Module):
    """Half of each branch passes both weightings and a depthwise convolution; then halves are shuffled."""

    def __init__(self, widths: list[int]):
        super().__init__()
        halves = [width // 2 for width in widths]
        self.cross_resolution_weighting = CrossResolutionWeighting(halves)
        self.depthwise_convs = nn.ModuleList(ConvModule(c, c, 3, groups=c) for c in halves)
        self.spatial_weighting = nn.ModuleList(SpatialWeighting(c) for c in halves)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        kept, changed = zip(*(x.chunk(2, 1) for x in maps), strict=True)  # each (B, C/2, H, W)
        changed = self.cross_resolution_weighting(list(changed))
        parts = zip(kept, changed, self.depthwise_convs, self.spatial_weighting, strict=True)
        return [shuffle(torch.cat([same, weigh(conv(x))], 1)) for same, x, conv, weigh in parts]


def exchange(widths: list[int], source: int, target: int, mode: str = "nearest") -> nn.Module | None:
    """What carries branch `source` to the resolution and width of branch `target`."""
    if source == target:
        return None
    if source > target:
        return nn.Sequential(
            nn.Conv2d(widths[source], widths[target], 1, bias=False),
            nn.BatchNorm2d(widths[target]),
            nn.Upsample(scale_factor=2 ** (source - target), mode=mode),
        )
    steps = [separable(widths[source], widths[source], 2, relu=True) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, separable(widths[source], widths[target], 2, relu=False))


def fuse(layers: nn.ModuleList, maps: list[Tensor], relu: nn.Module) -> list[Tensor]:
    """Each output from all branches, as the released weights were trained: see the docstring's number 1."""
    first = maps[0] + maps[0]
    for layer, x in zip(layers[0][1:], maps[1:], strict=True):
        first = first + layer(x)
    fused = [relu(first)]
    for row in layers[1:]:
        y = row[0](first) + row[0](first)
        for layer, x in zip(row[1:], maps[1:], strict=True):
            y = y + (x if layer is None else layer(x))
        fused.append(relu(y))  # (B, 2**i widths[0], H/4 / 2**i, W/4 / 2**i) for the i-th
    return fused


class LiteHRModule(nn.Module):
    """Two weighted layers, then the exchange between branches."""

    def __init__(self, widths: list[int]):
        super().__init__()
        self.layers = nn.Sequential(ConditionalChannelWeighting(widths), ConditionalChannelWeighting(widths))
        numbers = range(len(widths))
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(exchange(widths, source, target) for source in numbers) for target in numbers
        )
        self.relu = nn.ReLU()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return fuse(self.fuse_layers, self.layers(maps), self.relu)


class Stem(nn.Module):
    """To a quarter of the size in shuffled halves, one narrow and one of an inverted bottleneck."""

    def __init__(self, width: int = 32):
        super().__init__()
        half = width // 2
        self.conv1 = ConvModule(3, width, 3, 2, act=nn.ReLU())
        self.branch1 = nn.Sequential(
            ConvModule(half, half, 3, 2, groups=half), ConvModule(half, half, act=nn.ReLU())
        )
        self.expand_conv = ConvModule(half, width, act=nn.ReLU())
        self.depthwise_conv = ConvModule(width, width, 3, 2, groups=width)
        self.linear_conv = ConvModule(width, half, act=nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.conv1(x).chunk(2, 1)  # each (B, 16, H/2, W/2)
        second = self.linear_conv(self.depthwise_conv(self.expand_conv(second)))  # (B, 16, H/4, W/4)
        return shuffle(torch.cat([self.branch1(first), second], 1))  # (B, 32, H/4, W/4)


def transition(before: list[int], widths: list[int]) -> nn.ModuleList:
    """Branches of the next stage from those before: None keeps one as it is."""
    layers = []
    for number, width in enumerate(widths):
        if number >= len(before):
            layers.append(nn.Sequential(separable(before[-1], width, 2, relu=True)))
        else:
            same = before[number] == width
            layers.append(None if same else separable(before[number], width, 1, relu=True))
    return nn.ModuleList(layers)


class Project(nn.Sequential):
    """A depthwise and a pointwise convolution of the head."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.depthwise_conv = ConvModule(in_channels, in_channels, 3, groups=in_channels)
        self.pointwise_conv = ConvModule(in_channels, out_channels, act=nn.ReLU())


class IterativeHead(nn.Module):
    """From the smallest branch up: raise, add the next one, project to the width after it."""

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        upwards = widths[::-1]
        self.projects = nn.ModuleList(
            Project(*pair) for pair in zip(upwards, (*upwards[1:], upwards[-1]), strict=True)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        y = self.projects[0](maps[-1])
        for x, project in zip(maps[-2::-1], self.projects[1:], strict=True):
            raised = interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=True)
            y = project(x + raised)  # (B, the next width, its H, its W)
        return y  # (B, widths[0], H/4, W/4)


class Backbone(nn.Module):
    """Stem, three stages of two, three and four branches, and the head that joins them."""

    def __init__(self, stem: nn.Module, before: int, widths: tuple[int, ...], stages: list[list[nn.Module]]):
        super().__init__()
        self.stem, branches = stem, [before]
        for number, modules in enumerate(stages):
            wanted = list(widths[: number + 2])
            setattr(self, f"transition{number}", transition(branches, wanted))
            setattr(self, f"stage{number}", nn.Sequential(*modules))
            branches = wanted
        self.head_layer = IterativeHead(widths)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.stem(x)]
        for number in range(3):
            maps = getattr(self, f"stage{number}")(advance(getattr(self, f"transition{number}"), maps))
        return self.head_layer(maps)


class Head(nn.Module):
    """One map a joint from a 1x1 convolution."""

    def __init__(self, in_channels: int, joints: int):
        super().__init__()
        self.final_layer = nn.Conv2d(in_channels, joints, 1)
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.final_layer(x)]  # (B, K, H/4, W/4)


class LiteHRNet(PoseModel):
    """Images (B, 3, H, W), normalized, to [heatmaps (B, K, H/4, W/4)].

    depth: 18 or 30. Raises ValueError for another depth and for sides that are no multiples of 32.
    """

    def __init__(self, skeleton: Skeleton, input_size: tuple[int, int], depth: int = 18):
        super().__init__(skeleton, input_size)
        check_sides("Lite-HRNet", input_size, 32)
        if depth not in MODULES:
            raise ValueError(f"Lite-HRNet has depth 18 or 30, not {depth}")
        stages = [
            [LiteHRModule(list(WIDTHS[:branches])) for _ in range(number)]
            for branches, number in enumerate(MODULES[depth], 2)
        ]
        self.backbone = Backbone(Stem(), 32, WIDTHS, stages)
        self.keypoint_head = Head(WIDTHS[0], len(skeleton.keypoints))

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.keypoint_head(self.backbone(images))
