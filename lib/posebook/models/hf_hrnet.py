"""HF-HRNet: Lite-HRNet with plain, hardware-friendly layers instead of channel shuffling.

Zhang, Dun, Pei, Lai, Liu, Zhang and Qian, "HF-HRNet: A Simple Hardware Friendly High-Resolution Network",
IEEE Transactions on Circuits and Systems for Video Technology 34(8), 2024. The branches, the exchange between
them and the head are those of lite_hrnet.py. This includes the fusion that counts branches twice: the authors
note that accuracy decreases without it.

Behavior of the released code that the text does not describe:
1. A block adds a coarse version of its map: 3x3 averages at half the size, a 1x1 convolution without batch
   norm, and nearest-neighbor upsampling. In the stem, but not in the blocks, a ReLU follows this convolution.
2. The released weights call the shortcut of the stem `dwonsample`.
3. If the smallest branch has an odd side (12 x 9 at 384x288), halving and doubling does not restore its size.
   The authors' second file replaces the coarse version of this branch by its mean.
"""

from functools import partial

from torch import Tensor, nn

from posebook.models.layers import ConvModule, PoseModel, check_sides
from posebook.models.lite_hrnet import (
    MODULES,
    Backbone,
    CrossResolutionWeighting,
    Head,
    separable,
)
from posebook.skeletons import Skeleton

WIDTHS = (48, 96, 192, 384)


def coarse(channels: int, relu: bool = False, use_mean: bool = False) -> nn.Sequential:
    """Layers that average a map (B, C, H, W) to half its size, mix its channels, and enlarge it again.

    If `use_mean` is True, they use the mean of the map (B, C, 1, 1) instead.
    """
    pool = nn.AdaptiveAvgPool2d(1) if use_mean else nn.AvgPool2d(3, 2, 1)
    up = nn.Identity() if use_mean else nn.Upsample(scale_factor=2, mode="nearest")
    conv = nn.Conv2d(channels, channels, 1, bias=False)
    return nn.Sequential(pool, conv, *([nn.ReLU()] if relu else []), up)


class Block(nn.Module):
    """Gates from all resolutions, then two depthwise convolutions with coarse versions, and a shortcut.

    odd_sides: whether the smallest branch has an odd side; it then uses its mean as the coarse version.
    """

    def __init__(self, widths: list[int], odd_sides: bool):
        super().__init__()
        use_mean = [odd_sides and width == WIDTHS[-1] for width in widths]
        options = list(zip(widths, use_mean, strict=True))
        self.cross_resolution_weighting = CrossResolutionWeighting(widths)
        self.depthwise_convsfirst = nn.ModuleList(ConvModule(c, c, 3, groups=c, act=nn.ReLU) for c in widths)
        self.global1 = nn.ModuleList(coarse(c, use_mean=mean) for c, mean in options)
        self.depthwise_convslast = nn.ModuleList(ConvModule(c, c, 3, groups=c) for c in widths)
        self.global2 = nn.ModuleList(coarse(c, use_mean=mean) for c, mean in options)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        outputs = []
        for i, (x, y) in enumerate(zip(maps, self.cross_resolution_weighting(maps), strict=True)):
            y = self.depthwise_convsfirst[i](y)
            y = self.depthwise_convslast[i](y + self.global1[i](y))
            outputs.append(x + y + self.global2[i](y))
        return outputs


class Downsample(nn.Module):
    """The block of the stem: it has a stride, but no gates."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.dwonsample = separable(in_channels, out_channels, 2, relu=False)
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
        )
        depthwise = nn.Conv2d(out_channels, out_channels, 3, 1, 1, groups=out_channels, bias=False)
        self.conv2 = nn.Sequential(depthwise, nn.BatchNorm2d(out_channels), nn.ReLU())
        self.global1, self.global2 = coarse(out_channels, relu=True), coarse(out_channels, relu=True)
        strided = nn.Conv2d(out_channels, out_channels, 3, 2, 1, groups=out_channels, bias=False)
        self.conv3 = nn.Sequential(strided, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))  # (B, 48, H, W)
        y = self.conv3(y + self.global1(y))  # (B, 48, H/2, W/2)
        return y + self.global2(y) + self.dwonsample(x)


class Stem(nn.Sequential):
    """Images (B, 3, H, W) to features (B, 48, H/4, W/4)."""

    def __init__(self):
        super().__init__()
        self.conv1 = ConvModule(3, 32, 3, 2, act=nn.ReLU)
        self.conv2 = Downsample(32, WIDTHS[0])


class HFHRNet(PoseModel):
    """Images (B, 3, H, W), normalized, to [heatmaps (B, K, H/4, W/4)].

    depth: 18 or 30. Raises ValueError for another depth or if a side is not a multiple of 32.
    """

    def __init__(self, skeleton: Skeleton, input_size: tuple[int, int], depth: int = 18):
        super().__init__(skeleton, input_size)
        check_sides("HF-HRNet", input_size, 32)
        if depth not in MODULES:
            raise ValueError(f"HF-HRNet has depth 18 or 30, not {depth}")
        odd_sides = any(side % 64 for side in input_size)  # the smallest branch has 1/32 of the input's size
        self.backbone = Backbone(Stem(), WIDTHS[0], WIDTHS, depth, partial(Block, odd_sides=odd_sides))
        self.keypoint_head = Head(WIDTHS[0], len(skeleton.keypoints))

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.keypoint_head(self.backbone(images))
