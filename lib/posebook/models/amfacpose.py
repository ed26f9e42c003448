"""AMFACPose: a depthwise-separable ResNet with attentive multi-scale fusion and coordinate classification.

Zakir, Salman, Benitez-Garcia and Takahashi, "Attentive Multi-Scale Features with Adaptive Context PoseResNet
for Resource-Efficient Human Pose Estimation", Electronics 14(11):2107, 2025.

There is no public code, and the available copy of the text lacks its equations and widths. The structure
follows the text. The sizes were fitted to the parameters and GFLOPs (thop's) that the text gives for seven
rows. They match all of them to one decimal place (the baseline's 4.70 is 4.73 here). This does not identify
the model: about 36,000 plausible choices match equally well. Chosen:
1. Strides 2, 4, 8, 16 and no pooling; the numbers allow nothing else. Stem widths 16, 32, 64, of which the
   first layer has stride 2. Batch norm after both convolutions of a separable pair.
2. SCRM in each block, before the sum, with 3x3 kernels. Its 1D convolution runs along the channels. SE with a
   reduction of 4 follows each stage; its output goes to the next stage and to the pyramid.
3. The pyramid takes stages 2 to 4 at 64 channels; DGCB has a reduction of 2. Equation 8, taken literally,
   multiplies features by themselves (`modulate='refined'`); 'mask' uses only the refined ones. Without the
   pyramid, a 1x1 convolution of stage 4 replaces it.
4. Eight channels per joint. The mean over one axis gives the input of the classifier for the other axis,
   which has two hidden layers of 256. All joints share the two classifiers.
5. CoordConv's four scalars are a gain and a shift for each grid, initialized to 1 and 0. Section 3.1 says
   that the stem's convolutions are "interleaved with CoordConv2d", section 1 that they are "a series of 3 x 3
   CoordConv2d layers". Here all three are coordinate convolutions.
6. The copy has lost the number of bins per pixel: "we adopt [...], following the design choice" of SimCC. Its
   usual k = 2 is chosen (`split_ratio`).
7. DGCB adds "only two small 1x1 convolutions per scale" by the text. Its equations describe two branches with
   ReLU and sigmoid. Here each branch has two convolutions, four per scale, because a mask that ends with a
   ReLU can vanish. With one convolution per branch, all published sizes are also met.
8. Batch norm and Mish follow the 1x1 convolutions that project the pyramid's scales. The text has neither.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from posebook.codecs import SimCC
from posebook.models.layers import PoseModel, check_sides
from posebook.skeletons import Skeleton

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
DGCB_REPEATS = 8  # channels per joint


class CoordConv2d(nn.Module):
    """Convolution of a map and two coordinate grids in [-1, 1], each with a gain and a shift (eq. 2)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int):
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(2))
        self.conv = nn.Conv2d(
            in_channels + 2, out_channels, kernel_size, stride, kernel_size // 2, bias=False
        )

    def grids(self, height: int, width: int) -> Tensor:
        """The grids of x and y (2, H, W) that are concatenated to an input of this size."""
        y, x = (
            torch.linspace(-1, 1, side, dtype=self.gain.dtype, device=self.gain.device)
            for side in (height, width)
        )
        grids = torch.stack(torch.meshgrid(x, y, indexing="xy"))  # (2, H, W)
        return grids * self.gain[:, None, None] + self.shift[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        grids = self.grids(*x.shape[-2:])
        return self.conv(torch.cat([x, grids.expand(len(x), -1, -1, -1)], 1))  # input: (B, C + 2, H, W)

    def fixed(self, height: int, width: int) -> nn.Module:
        """The same function for one input size, for export: the contribution of the grids is a constant."""
        return FixedSizeCoordConv(self, height, width)


class FixedSizeCoordConv(nn.Module):
    """Coordinate convolution at one input size: a convolution plus a constant map (1, C, H, W)."""

    def __init__(self, coordinates: CoordConv2d, height: int, width: int):
        super().__init__()
        conv, grids = coordinates.conv, coordinates.grids(height, width)
        in_channels = conv.in_channels - 2
        stride, padding = conv.stride[0], conv.kernel_size[0] // 2
        self.conv = nn.Conv2d(
            in_channels, conv.out_channels, conv.kernel_size[0], stride, padding, bias=conv.bias is not None
        )
        self.conv.weight = nn.Parameter(conv.weight[:, :in_channels], requires_grad=False)
        self.conv.bias = conv.bias  # export folds the next batch norm into a bias
        added = nn.functional.conv2d(grids[None], conv.weight[:, in_channels:], None, stride, padding)
        self.register_buffer("added", added)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.added


def separable(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """A depthwise 3x3 and a 1x1 convolution (eqs 3 and 4), each with batch norm, with Mish between them."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.Mish(),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class SCRM(nn.Module):
    """Spatial and channel refinement: channel gates and spatial gates in parallel (eqs 14 to 16)."""

    def __init__(self, channels: int):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.channel = nn.Sequential(nn.Conv1d(1, 1, 3, padding=1, bias=False), nn.BatchNorm1d(1))
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        channel = self.channel(self.pool(x).flatten(2).transpose(1, 2))  # (B, 1, C)
        channel = channel.transpose(1, 2)[..., None]  # (B, C, 1, 1)
        return x * torch.sigmoid(channel) * torch.sigmoid(self.spatial(x))


def channel_gate(channels: int, reduction: int) -> nn.Sequential:
    """Gates (B, C, 1, 1) from a pooled map (B, C, 1, 1)."""
    return nn.Sequential(
        nn.Conv2d(channels, channels // reduction, 1),
        nn.ReLU(),
        nn.Conv2d(channels // reduction, channels, 1),
        nn.Sigmoid(),
    )


class SE(nn.Module):
    """Squeeze-and-excitation (Hu et al., CVPR 2018; eqs 12 and 13)."""

    def __init__(self, channels: int, reduction: int = 4):
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), *channel_gate(channels, reduction))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Block(nn.Module):
    """ResNet's basic block with separable convolutions and Mish; `scrm` adds SCRM before the sum."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, scrm: bool):
        super().__init__()
        self.first = separable(in_channels, out_channels, stride)
        self.second = separable(out_channels, out_channels, 1)
        self.scrm = SCRM(out_channels) if scrm else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            project = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(project, nn.BatchNorm2d(out_channels))
        self.act = nn.Mish()

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.act(self.first(x)))  # (B, out_channels, H/stride, W/stride)
        return self.act(self.scrm(y) + self.shortcut(x))


class DGCB(nn.Module):
    """Dual-gate context block: the product of two gates for each channel, from the mean (eqs 10 and 11)."""

    def __init__(self, channels: int, reduction: int = 2):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.context, self.gate = channel_gate(channels, reduction), channel_gate(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        z = self.pool(x)  # (B, C, 1, 1)
        return x * self.context(z) * self.gate(z)


class AFPN(nn.Module):
    """Adaptive feature pyramid (eqs 5 to 9): maps of several scales to (B, out_channels, H/4, W/4).

    Each scale is projected to `width` channels, refined by DGCB if `dgcb` is True, and enlarged to the finest
    scale. A 1x1 convolution then joins the scales. modulate: choice 3 of the module's docstring.
    """

    def __init__(
        self, channels: tuple[int, ...], out_channels: int, dgcb: bool, modulate: str, width: int = 64
    ):
        super().__init__()
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width), nn.Mish())
            for c in channels
        )
        self.contexts = nn.ModuleList(DGCB(width) for _ in channels) if dgcb else [None] * len(channels)
        self.modulate = modulate
        self.fuse = nn.Sequential(
            nn.Conv2d(width * len(channels), out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        size, scales = features[0].shape[-2:], []
        for feature, lateral, context in zip(features, self.laterals, self.contexts, strict=True):
            projected = lateral(feature)  # (B, 64, H/4 .. H/16, W/4 .. W/16)
            maps = [projected] if context is None else [context(projected)]
            if context is not None and self.modulate == "refined":
                maps.append(projected)
            maps = [interpolate(m, size, mode="bilinear") if m.shape[-2:] != size else m for m in maps]
            scales.append(maps[0] * maps[1] if len(maps) == 2 else maps[0])  # (B, 64, H/4, W/4)
        return self.fuse(torch.cat(scales, 1))  # (B, out_channels, H/4, W/4)


def classifier(in_channels: int, bins: int, hidden_dim: int = 256) -> nn.Sequential:
    """The classifier of one axis, which all joints share (eq. 19)."""
    return nn.Sequential(
        nn.Linear(in_channels, hidden_dim),
        nn.Mish(),
        nn.Linear(hidden_dim, hidden_dim),
        nn.Mish(),
        nn.Linear(hidden_dim, bins),
    )


class AMFACPose(PoseModel):
    """Images (B, 3, H, W), normalized, to SimCC logits x (B, K, 2W) and y (B, K, 2H).

    depth: 34 or 18. afpn, dgcb, scrm, se and coordconv switch the modules on or off, in the order of the
    paper's ablation. modulate: 'refined' or 'mask' (choice 3 of the module's docstring). There are more than
    eight parameters because each ablation is one option. Raises ValueError if a side is not a multiple of 16,
    for another depth or modulation, and for dgcb without afpn.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        input_size: tuple[int, int],
        depth: int = 34,
        afpn: bool = True,
        dgcb: bool = True,
        scrm: bool = True,
        se: bool = True,
        coordconv: bool = True,
        modulate: str = "refined",
        split_ratio: int = 2,
    ):
        super().__init__(skeleton, input_size)
        height, width = input_size
        check_sides("AMFACPose", input_size, 16)
        if depth not in BLOCKS:
            raise ValueError(f"AMFACPose has depth 18 or 34, not {depth}")
        if modulate not in ("refined", "mask"):
            raise ValueError(f"unknown modulate {modulate!r}; one of refined, mask")
        if dgcb and not afpn:
            raise ValueError("dgcb refines the scales of the pyramid, so it needs afpn=True")
        stem: list[nn.Module] = []
        in_channels = 3
        for out_channels, stride in ((16, 2), (32, 1), (64, 1)):
            # Built even if it is replaced, so that a seed keeps giving the same initial weights.
            conv: nn.Module = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
            if coordconv:
                conv = CoordConv2d(in_channels, out_channels, 3, stride)
            stem += [conv, nn.BatchNorm2d(out_channels), nn.Mish()]
            in_channels = out_channels
        self.stem = nn.Sequential(*stem)
        self.stages = nn.ModuleList()
        for stage, number in enumerate(BLOCKS[depth]):
            out_channels = 64 * 2**stage
            layers: list[nn.Module] = [Block(in_channels, out_channels, 2 if stage else 1, scrm)]
            layers += [Block(out_channels, out_channels, 1, scrm) for _ in range(number - 1)]
            layers += [SE(out_channels)] if se else []
            self.stages.append(nn.Sequential(*layers))
            in_channels = out_channels
        channels = len(skeleton.keypoints) * DGCB_REPEATS
        self.neck: nn.Module
        if afpn:
            self.neck = AFPN((128, 256, 512), channels, dgcb, modulate)
        else:
            self.neck = nn.Sequential(nn.Conv2d(512, channels, 1, bias=False), nn.BatchNorm2d(channels))
        stride = 4 if afpn else 16
        self.mlp_x = classifier(DGCB_REPEATS * width // stride, round(split_ratio * width))
        self.mlp_y = classifier(DGCB_REPEATS * height // stride, round(split_ratio * height))

    def forward(self, images: Tensor) -> SimCC:
        x, features = self.stem(images), []  # x: (B, 64, H/2, W/2)
        for stage in self.stages:
            x = stage(x)  # (B, 64 .. 512, H/2 .. H/16, W/2 .. W/16)
            features.append(x)
        x = self.neck(features[1:] if isinstance(self.neck, AFPN) else x)  # (B, 8K, h, w)
        x = x.unflatten(1, (-1, DGCB_REPEATS))  # (B, K, 8, h, w)
        x_features, y_features = x.mean(3).flatten(2), x.mean(4).flatten(2)  # (B, K, 8w), (B, K, 8h)
        return SimCC(self.mlp_x(x_features), self.mlp_y(y_features))  # (B, K, Wx), (B, K, Wy)
