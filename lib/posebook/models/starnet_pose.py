"""StarNet-Pose: a StarNet backbone under RTMPose's coordinate-classification head.

Luo et al., "StarNet-Pose: Heatmap-Free Lightweight Pose Estimation via Multiplicative Feature Interaction and
Occlusion-Aware Training", Neurocomputing 2026. Backbone: Ma et al., "Rewrite the Stars", CVPR 2024. Head:
Jiang et al., "RTMPose", 2023 (in layers.py, with what was chosen there).

Where the text is silent or differs from the published weights:
1. The document draws a depthwise convolution on each branch of the star block. The weights hold one 7x7
   depthwise convolution before two 1x1 branches, and one after their product; that is what is built here.
2. Branches and the second depthwise convolution have no batch norm; every convolution has a bias.
3. Attention sits after the projection g and before the second depthwise convolution.
4. CBAM, the ablation's rival, has no published code in this place: its sizes are the CBAM paper's
   (reduction 16, at least 8 channels; 7x7), put where coordinate attention sits.
"""

from torch import Tensor, nn

from posebook.codecs import SimCC
from posebook.models.layers import CBAM, ConvBN, CoordinateAttention, PoseModel, RTMCCHead, check_sides
from posebook.skeletons import Skeleton

ATTENTION = {"none": None, "coordinate": CoordinateAttention, "cbam": CBAM}


class StarBlock(nn.Module):
    """x + dw2(attention(g(relu6(f1 y) * f2 y))), y = dw(x): the star operation (Rewrite the Stars, eq. 1)."""

    def __init__(self, width: int, expansion: int = 4, attention: type[nn.Module] | None = None):
        super().__init__()
        self.dwconv = ConvBN(width, width, 7, groups=width)
        self.f1 = ConvBN(width, expansion * width, norm=False)
        self.f2 = ConvBN(width, expansion * width, norm=False)
        self.g = ConvBN(expansion * width, width)
        self.dwconv2 = ConvBN(width, width, 7, groups=width, norm=False)
        self.ca = attention(width) if attention else nn.Identity()
        self.act = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x)
        y = self.act(self.f1(y)) * self.f2(y)  # (B, 4C, H, W): the star
        return x + self.dwconv2(self.ca(self.g(y)))  # (B, C, H, W)


class StarNet(nn.Module):
    """Four stages, each a strided 3x3 convolution and star blocks; 8 x width channels at 1/32 of the size."""

    def __init__(
        self, width: int, depths: tuple[int, ...], attention: str, attention_stages: tuple[int, ...]
    ):
        super().__init__()
        self.stem = nn.Sequential(ConvBN(3, 32, 3, stride=2), nn.ReLU6())
        self.stages = nn.ModuleList()
        in_channels = 32
        for stage, depth in enumerate(depths):
            out_channels = width * 2**stage
            module = ATTENTION[attention] if stage + 1 in attention_stages else None
            blocks = [StarBlock(out_channels, attention=module) for _ in range(depth)]
            self.stages.append(nn.Sequential(ConvBN(in_channels, out_channels, 3, stride=2), *blocks))
            in_channels = out_channels
        self.channels = in_channels
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and ".ca." not in name:  # as StarNet starts
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # (B, 32, H/2, W/2)
        for stage in self.stages:
            x = stage(x)  # (B, width * 2**stage, H/4 .. H/32, W/4 .. W/32)
        return x


class StarNetPose(PoseModel):
    """Images (B, 3, H, W), normalized, to SimCC logits x (B, K, 2W) and y (B, K, 2H).

    H and W must be multiples of 32. attention: 'none', 'coordinate' or 'cbam' in `attention_stages` (from 1).
    Raises ValueError for an input size or an attention it cannot take.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        input_size: tuple[int, int],
        width: int = 24,
        depths: tuple[int, ...] = (2, 2, 8, 3),
        attention: str = "none",
        attention_stages: tuple[int, ...] = (3, 4),
    ):
        super().__init__(skeleton, input_size)
        check_sides("StarNet-Pose", input_size, 32)
        if attention not in ATTENTION:
            raise ValueError(f"unknown attention {attention!r}; one of {', '.join(ATTENTION)}")
        self.backbone = StarNet(width, depths, attention, attention_stages)
        self.head = RTMCCHead(self.backbone.channels, len(skeleton.keypoints), input_size)

    def forward(self, images: Tensor) -> SimCC:
        return self.head(self.backbone(images))
