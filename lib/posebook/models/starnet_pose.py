"""StarNet-Pose: a StarNet backbone with RTMPose's coordinate-classification head.

Luo et al., "StarNet-Pose: Heatmap-Free Lightweight Pose Estimation via Multiplicative Feature Interaction and
Occlusion-Aware Training", Neurocomputing 2026. Backbone: Ma et al., "Rewrite the Stars", CVPR 2024. Head:
Jiang et al., "RTMPose", 2023 (in layers.py, with its choices).

Choices that the text does not specify or that follow the published weights instead:
1. The paper draws a depthwise convolution on each branch of the star block. The weights contain one 7x7
   depthwise convolution before two 1x1 branches and one after their product. This code follows the weights.
2. The branches and the second depthwise convolution have no batch norm; every convolution has a bias.
3. Attention follows the projection g and precedes the second depthwise convolution.
4. The ablation compares with CBAM, for which no code is published. Its sizes are those of the CBAM paper
   (reduction 16, at least 8 channels; 7x7), and it is placed where coordinate attention is.
"""

from functools import partial

from torch import Tensor, nn

from posebook.codecs import SimCC
from posebook.models.layers import CBAM, ConvModule, CoordinateAttention, PoseModel, RTMCCHead, check_sides
from posebook.skeletons import Skeleton

ConvBN = partial(ConvModule, bias=True)  # choice 2
ATTENTION: dict[str, type[nn.Module] | None] = {"none": None, "coordinate": CoordinateAttention, "cbam": CBAM}


class StarBlock(nn.Module):
    """x + dwconv2(attention(g(relu6(f1(y)) * f2(y)))) with y = dwconv(x), for maps (B, width, H, W).

    The product of the two branches is the star operation (Rewrite the Stars, eq. 1).
    """

    def __init__(self, width: int, attention: type[nn.Module] | None = None):
        super().__init__()
        self.dwconv = ConvBN(width, width, 7, groups=width)
        self.f1 = ConvBN(width, 4 * width, norm=False)
        self.f2 = ConvBN(width, 4 * width, norm=False)
        self.g = ConvBN(4 * width, width)
        self.dwconv2 = ConvBN(width, width, 7, groups=width, norm=False)
        self.ca = attention(width) if attention else nn.Identity()
        self.act = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x)
        y = self.act(self.f1(y)) * self.f2(y)  # (B, 4 width, H, W)
        return x + self.dwconv2(self.ca(self.g(y)))  # (B, width, H, W)


class StarNet(nn.Module):
    """Images (B, 3, H, W) to features (B, 8 width, H/32, W/32). Arguments as in StarNetPose.

    A stem and four stages, each with a strided 3x3 convolution and star blocks.
    """

    def __init__(
        self, width: int, depths: tuple[int, ...], attention: str, attention_stages: tuple[int, ...]
    ):
        super().__init__()
        self.stem = nn.Sequential(ConvBN(3, 32, 3, stride=2), nn.ReLU6())
        self.stages = nn.ModuleList()
        in_channels = 32
        for stage, depth in enumerate(depths):
            out_channels = width * 2**stage
            attention_class = ATTENTION[attention] if stage + 1 in attention_stages else None
            blocks = [StarBlock(out_channels, attention_class) for _ in range(depth)]
            self.stages.append(nn.Sequential(ConvBN(in_channels, out_channels, 3, stride=2), *blocks))
            in_channels = out_channels
        self.channels = in_channels
        for name, module in self.named_modules():
            # StarNet's initialization. Attention modules (`ca`) keep their own.
            if isinstance(module, nn.Conv2d) and ".ca." not in name:
                nn.init.trunc_normal_(module.weight, std=0.02)
                assert module.bias is not None  # choice 2
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # (B, 32, H/2, W/2)
        for stage in self.stages:
            x = stage(x)  # (B, width * 2**stage, H/4 .. H/32, W/4 .. W/32)
        return x


class StarNetPose(PoseModel):
    """Images (B, 3, H, W), normalized, to SimCC logits x (B, K, 2W) and y (B, K, 2H).

    width: channels of the first stage; they double at each stage. depths: number of blocks of each stage.
    attention: 'none', 'coordinate' or 'cbam', used in the stages `attention_stages`, which count from 1.
    Raises ValueError if a side is not a multiple of 32 and for an unknown attention.
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
