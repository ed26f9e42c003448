"""StarNet-Pose: a StarNet backbone under RTMPose's coordinate-classification head.

Luo et al., "StarNet-Pose: Heatmap-Free Lightweight Pose Estimation via Multiplicative Feature Interaction and
Occlusion-Aware Training", Neurocomputing 2026. Backbone: Ma et al., "Rewrite the Stars", CVPR 2024. Head:
Jiang et al., "RTMPose", 2023, section 3; its gated attention unit: Hua et al., ICML 2022.

Where the text is silent or differs from the published weights:
1. The document draws a depthwise convolution on each branch of the star block. The weights hold one 7x7
   depthwise convolution before two 1x1 branches, and one after their product; that is what is built here.
2. Branches and the second depthwise convolution have no batch norm; every convolution has a bias.
3. Attention sits after the projection g and before the second depthwise convolution.
4. CBAM, the ablation's rival, has no published code in this place: its sizes are the CBAM paper's
   (reduction 16, at least 8 channels; 7x7), put where coordinate attention sits.
5. The gated attention unit has no positional bias, no dropout and no drop path.
6. It starts with gamma and beta in (0, 0.05), not (0, 1) as RTMPose's code: there every joint attends to all
   joints alike at first, eight times over, and its own token drowns. From scratch the difference is large:
   after 25 epochs on 86 people the loss was 0.002 for 0.009 (one run each, 128 x 96). Its first layer starts
   from Xavier, as in that code.
"""

import torch
from torch import Tensor, nn

from posebook.codecs import SimCC
from posebook.models.layers import CBAM, ConvBN, CoordinateAttention, ScaleNorm
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

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x)
        y = nn.functional.relu6(self.f1(y)) * self.f2(y)  # (B, 4C, H, W): the star
        return x + self.dwconv2(self.ca(self.g(y)))  # (B, C, H, W)


class StarNet(nn.Module):
    """Four stages, each a strided 3x3 convolution and star blocks; 8 x width channels at 1/32 of the size."""

    def __init__(
        self, width: int, depths: tuple[int, ...], attention: str, attention_stages: tuple[int, ...]
    ):
        super().__init__()
        self.stem = nn.Sequential(ConvBN(3, 32, 3, stride=2), nn.ReLU6())
        self.stages = nn.ModuleList()
        inputs = 32
        for stage, depth in enumerate(depths):
            outputs = width * 2**stage
            module = ATTENTION[attention] if stage + 1 in attention_stages else None
            blocks = [StarBlock(outputs, attention=module) for _ in range(depth)]
            self.stages.append(nn.Sequential(ConvBN(inputs, outputs, 3, stride=2), *blocks))
            inputs = outputs
        self.channels = inputs

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # (B, 32, H/2, W/2)
        for stage in self.stages:
            x = stage(x)  # (B, width * 2**stage, H/4 .. H/32, W/4 .. W/32)
        return x


class Scale(nn.Module):
    """A learnt gain a channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class GatedAttention(nn.Module):
    """Gated attention unit over the K joint tokens (RTMPose, section 3.3): squared ReLU for softmax."""

    def __init__(self, width: int, s: int = 128, expansion: int = 2):
        super().__init__()
        self.s, self.e = s, expansion * width
        self.gamma = nn.Parameter(0.05 * torch.rand(2, s))
        self.beta = nn.Parameter(0.05 * torch.rand(2, s))
        self.o = nn.Linear(self.e, width, bias=False)
        self.uv = nn.Linear(width, 2 * self.e + s, bias=False)
        self.ln = ScaleNorm(width)
        self.res_scale = Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        u, v, base = nn.functional.silu(self.uv(self.ln(x))).split(
            [self.e, self.e, self.s], -1
        )  # (B, K, e|e|s)
        q, k = (base[:, :, None] * self.gamma + self.beta).unbind(2)  # each (B, K, s)
        attention = torch.relu(q @ k.transpose(1, 2) / self.s**0.5).square()  # (B, K, K)
        return self.res_scale(x) + self.o(u * (attention @ v))  # (B, K, width)


class RTMCCHead(nn.Module):
    """One token a joint from a 7x7 convolution, mixed by attention, then one linear classifier an axis."""

    def __init__(
        self, channels: int, joints: int, input_size: tuple[int, int], split_ratio: int = 2, width: int = 256
    ):
        super().__init__()
        height, columns = input_size
        tokens = (height // 32) * (columns // 32)
        self.final_layer = nn.Conv2d(channels, joints, 7, padding=3)
        self.mlp = nn.Sequential(ScaleNorm(tokens), nn.Linear(tokens, width, bias=False))
        self.gau = GatedAttention(width)
        self.cls_x = nn.Linear(width, columns * split_ratio, bias=False)
        self.cls_y = nn.Linear(width, height * split_ratio, bias=False)

    def forward(self, x: Tensor) -> SimCC:
        x = self.final_layer(x).flatten(2)  # (B, K, H/32 * W/32)
        x = self.gau(self.mlp(x))  # (B, K, width)
        return SimCC(self.cls_x(x), self.cls_y(x))  # (B, K, Wx), (B, K, Wy)


class StarNetPose(nn.Module):
    """Images (B, 3, H, W), normalised, to SimCC logits x (B, K, 2W) and y (B, K, 2H).

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
        super().__init__()
        if any(side % 32 or side <= 0 for side in input_size):
            raise ValueError(
                f"StarNet-Pose needs sides that are multiples of 32, not {tuple(input_size)} (height, width)"
            )
        if attention not in ATTENTION:
            raise ValueError(f"unknown attention {attention!r}; one of {', '.join(ATTENTION)}")
        self.skeleton, self.input_size = skeleton, tuple(input_size)
        self.backbone = StarNet(width, depths, attention, attention_stages)
        self.head = RTMCCHead(self.backbone.channels, len(skeleton.keypoints), input_size)
        self._initialise()

    def _initialise(self) -> None:
        """Starting weights: 0.02 in the backbone (StarNet's), 0.001 and 0.01 in the head (RTMPose's).

        The attention unit starts otherwise (the docstring's number 6).
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and ".ca." not in name:
                nn.init.trunc_normal_(module.weight, std=0.001 if name.startswith("head") else 0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
        nn.init.xavier_uniform_(self.head.gau.uv.weight)

    def forward(self, images: Tensor) -> SimCC:
        return self.head(self.backbone(images))
