"""HF-HRNet: Lite-HRNet's branches with plain, hardware-friendly layers in the place of shuffled halves.

Zhang, Dun, Pei, Lai, Liu, Zhang and Qian, "HF-HRNet: A Simple Hardware Friendly High-Resolution Network",
IEEE Transactions on Circuits and Systems for Video Technology 34(8), 2024. Branches, exchange and head are
those of lite_hrnet.py, the double counting in the fusion included: without it, the authors note, accuracy
falls.

What the released code does beyond the text:
1. A block adds a coarse view of itself: 3x3 averages at half the size, a 1x1 convolution without norm, and
   nearest neighbors back. In the stem, but not in the blocks, a ReLU follows that convolution.
2. Its weights call the stem's shortcut `dwonsample`.
3. Where the smallest branch has an odd side (12 x 9 at 384x288) it cannot be halved and doubled; the authors'
   second file gives that branch its mean in the place of the coarse view.
"""

from torch import Tensor, nn

from posebook.models.layers import PoseModel, check_sides
from posebook.models.lite_hrnet import (
    MODULES,
    Backbone,
    ConvModule,
    CrossResolutionWeighting,
    Head,
    exchange,
    fuse,
    separable,
)
from posebook.skeletons import Skeleton

WIDTHS = (48, 96, 192, 384)


def coarse(channels: int, relu: bool = False, whole: bool = False) -> nn.Sequential:
    """A map's averages at half its size, mixed over channels and raised again; or, if `whole`, its mean."""
    pool = nn.AdaptiveAvgPool2d(1) if whole else nn.AvgPool2d(3, 2, 1)
    up = nn.Identity() if whole else nn.Upsample(scale_factor=2, mode="nearest")
    mix = nn.Conv2d(channels, channels, 1, bias=False)
    return nn.Sequential(pool, mix, *([nn.ReLU()] if relu else []), up)


class Block(nn.Module):
    """Gates from all resolutions, then twice a depthwise convolution and its coarse view, on a shortcut."""

    def __init__(self, widths: list[int], odd: bool):
        super().__init__()
        whole = [odd and width == WIDTHS[-1] for width in widths]
        pairs = list(zip(widths, whole, strict=True))
        self.cross_resolution_weighting = CrossResolutionWeighting(widths)
        self.depthwise_convsfirst = nn.ModuleList(
            ConvModule(c, c, 3, groups=c, act=nn.ReLU()) for c in widths
        )
        self.global1 = nn.ModuleList(coarse(c, whole=mean) for c, mean in pairs)
        self.depthwise_convslast = nn.ModuleList(ConvModule(c, c, 3, groups=c) for c in widths)
        self.global2 = nn.ModuleList(coarse(c, whole=mean) for c, mean in pairs)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        outputs = []
        for i, (x, y) in enumerate(zip(maps, self.cross_resolution_weighting(maps), strict=True)):
            y = self.depthwise_convsfirst[i](y)
            y = self.depthwise_convslast[i](y + self.global1[i](y))
            outputs.append(x + y + self.global2[i](y))
        return outputs


class HFModule(nn.Module):
    """Two blocks, then the exchange between branches."""

    def __init__(self, widths: list[int], odd: bool):
        super().__init__()
        self.layers = nn.Sequential(Block(widths, odd), Block(widths, odd))
        numbers = range(len(widths))
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(exchange(widths, source, target) for source in numbers) for target in numbers
        )
        self.relu = nn.ReLU()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return fuse(self.fuse_layers, self.layers(maps), self.relu)


class Downsample(nn.Module):
    """The stem's block: as the others, with a stride and without gates."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.dwonsample = separable(in_channels, out_channels, 2, relu=False)
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
        )
        wide = nn.Conv2d(out_channels, out_channels, 3, 1, 1, groups=out_channels, bias=False)
        self.conv2 = nn.Sequential(wide, nn.BatchNorm2d(out_channels), nn.ReLU())
        self.global1, self.global2 = coarse(out_channels, relu=True), coarse(out_channels, relu=True)
        strided = nn.Conv2d(out_channels, out_channels, 3, 2, 1, groups=out_channels, bias=False)
        self.conv3 = nn.Sequential(strided, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))  # (B, 48, H, W)
        y = self.conv3(y + self.global1(y))  # (B, 48, H/2, W/2)
        return y + self.global2(y) + self.dwonsample(x)


class Stem(nn.Sequential):
    """To a quarter of the size."""

    def __init__(self):
        super().__init__()
        self.conv1 = ConvModule(3, 32, 3, 2, act=nn.ReLU())
        self.conv2 = Downsample(32, WIDTHS[0])


class HFHRNet(PoseModel):
    """Images (B, 3, H, W), normalized, to [heatmaps (B, K, H/4, W/4)].

    depth: 18 or 30. Raises ValueError for another depth and for sides that are no multiples of 32.
    """

    def __init__(self, skeleton: Skeleton, input_size: tuple[int, int], depth: int = 18):
        super().__init__(skeleton, input_size)
        check_sides("HF-HRNet", input_size, 32)
        if depth not in MODULES:
            raise ValueError(f"HF-HRNet has depth 18 or 30, not {depth}")
        odd = any(side % 64 for side in input_size)
        stages = [
            [HFModule(list(WIDTHS[:branches]), odd) for _ in range(number)]
            for branches, number in enumerate(MODULES[depth], 2)
        ]
        self.backbone = Backbone(Stem(), WIDTHS[0], WIDTHS, stages)
        self.keypoint_head = Head(WIDTHS[0], len(skeleton.keypoints))

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.keypoint_head(self.backbone(images))
