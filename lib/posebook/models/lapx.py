"""LAPX: a lightweight stacked hourglass with global context in its necks; and LAP, its predecessor.

Zhao, Kappan, Bamdad and Cruz, "LAPX: Lightweight Hourglass Network with Global Context", 2025. LAP: Kappan et
al., "Attention-enhanced lightweight hourglass network for human pose estimation", ACRA 2024. There is no
public code of LAP: two stages of 256 channels with CBAM in the stem, in the neck and after each stage give
its published size.

Choices that the text does not specify, or where text, published code and this code differ:
1. Each row of the paper's ablation is a set of keyword arguments. The row with four stages says 190 channels,
   the text 180: 180 gives the published 2.25 M parameters, 190 gives 2.54 M.
2. ECA-NonLocal is in the neck of stages 1 and 3 (section 3.3). Stage 2 keeps ECA alone, which the text does
   not mention. The blocks of the stem have no soft gate. Soft gates start at zero, which disables the
   shortcut.
3. The published code switches a non-local branch by a plain attribute that is off after construction and is
   not part of the checkpoint. If weights are loaded into it, it runs without the branch and gives no warning.
   Here the branch is always on, and its gain, which is part of the checkpoint, scales it. The recipe controls
   the gain through `set_nonlocal_gain`.
4. The published code doubles the size of a map on the way up. Sides must therefore be multiples of 64, and
   the paper's own 384x288 fails. Here a map is resized to the map that it is added to. Wherever doubling
   works, the result is the same.
5. CBAM applies the sigmoid to each of the two pooled branches before their sum, so its gates are in (0, 2).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from posebook.models.layers import ConvModule, PoseModel, check_sides
from posebook.skeletons import Skeleton

HOURGLASS_DEPTH = 4  # how often an hourglass halves its map


class Bottleneck(nn.Module):
    """Pre-activated 1x1, depthwise 3x3 and 1x1 convolution with a shortcut; `neck` are its inner channels.

    Maps (B, in_channels, H, W) to (B, 2 neck, H, W).

    soft_gate: multiply the shortcut by a learned weight for each channel.
    """

    def __init__(self, in_channels: int, neck: int, soft_gate: bool = False):
        super().__init__()
        out_channels = 2 * neck
        self.downsample = None
        if in_channels != out_channels:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1))
        self.elu = nn.ELU()
        self.bn1, self.pw_conv1 = nn.BatchNorm2d(in_channels), nn.Conv2d(in_channels, neck, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(neck)
        self.dw_conv = nn.Conv2d(neck, neck, 3, 1, 1, groups=neck, bias=False)
        self.bn3, self.pw_conv2 = nn.BatchNorm2d(neck), nn.Conv2d(neck, out_channels, 1)
        self.alpha = nn.Parameter(torch.zeros(1, out_channels, 1, 1)) if soft_gate else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.pw_conv1(self.elu(self.bn1(x)))  # (B, neck, H, W)
        y = self.pw_conv2(self.elu(self.bn3(self.dw_conv(self.elu(self.bn2(y))))))  # (B, 2 neck, H, W)
        shortcut = x if self.downsample is None else self.downsample(x)
        return y + (shortcut if self.alpha is None else self.alpha * shortcut)


class ECA(nn.Module):
    """Channel gates from a 1D convolution along the channels of mean plus maximum (section 3.3).

    ECA is the efficient channel attention of Wang et al., CVPR 2020, which pools by the mean alone.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.avg_pool, self.max_pool = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
        self.conv = nn.Conv1d(1, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = (self.avg_pool(x) + self.max_pool(x)).flatten(2).transpose(1, 2)  # (B, 1, C)
        return x * torch.sigmoid(self.conv(pooled)).transpose(1, 2)[..., None]  # (B, C, H, W)


def max_and_mean(x: Tensor) -> Tensor:
    """Maximum and mean over the channels: (B, C, H, W) to (B, 2, H, W)."""
    return torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)


class ECACBAM(nn.Module):
    """ECA, then spatial gates as in CBAM (section 3.4)."""

    def __init__(self, channels: int):
        super().__init__()
        self.channel_attention = ECA(channels)
        self.spatial_conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.channel_attention(x)
        return x * torch.sigmoid(self.spatial_conv(max_and_mean(x)))


class CBAM(nn.Module):
    """LAP's attention: channel gates, then spatial gates (choice 5 of the module's docstring)."""

    def __init__(self, channels: int):
        super().__init__()
        self.max_pool, self.avg_pool = nn.AdaptiveMaxPool2d(1), nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 16, bias=False),
            nn.ReLU(),
            nn.Linear(channels // 16, channels, bias=False),
            nn.Sigmoid(),
        )
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc(self.max_pool(x).flatten(1)) + self.fc(self.avg_pool(x).flatten(1))  # (B, C)
        x = x * gate[..., None, None]
        return x * torch.sigmoid(self.conv(max_and_mean(x)))


class NonLocal(nn.Module):
    """x + gamma * self-attention between all positions, in C / 8 channels (section 3.3)."""

    def __init__(self, channels: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))
        self.theta, self.phi, self.g = (nn.Conv2d(channels, channels // 8, 1) for _ in range(3))
        self.out_proj = nn.Conv2d(channels // 8, channels, 1)
        self.softmax = nn.Softmax(dim=-1)

    def attention(self, x: Tensor) -> Tensor:
        """Attention weights between all positions (B, H W, H W); each row sums to 1."""
        queries = self.theta(x).flatten(2).transpose(1, 2)  # (B, H W, C / 8)
        return self.softmax(torch.bmm(queries, self.phi(x).flatten(2)))

    def forward(self, x: Tensor) -> Tensor:
        values = self.g(x).flatten(2).transpose(1, 2)  # (B, H W, C / 8)
        y = torch.bmm(self.attention(x), values).transpose(1, 2).unflatten(2, x.shape[-2:])  # (B, C/8, H, W)
        return x + self.gamma * self.out_proj(y)


class ECANonLocal(nn.Module):
    """ECA, then the non-local branch (section 3.3)."""

    def __init__(self, channels: int):
        super().__init__()
        self.channel_attention, self.position_attention = ECA(channels), NonLocal(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.position_attention(self.channel_attention(x))


ATTENTION: dict[str, type[nn.Module] | None] = {"none": None, "cbam": CBAM, "eca_cbam": ECACBAM}
# For each option, the attention in the necks of stages 1 and 3, and that of the other stages.
NECKS: dict[str, tuple[type[nn.Module] | None, type[nn.Module] | None]] = {
    "none": (None, None),
    "eca": (ECA, ECA),
    "cbam": (CBAM, CBAM),
    "nonlocal": (ECANonLocal, ECA),
}


class Hourglass(nn.Module):
    """Hourglass over a map (B, C, H, W) with attention in its neck, the smallest map.

    The map is halved four times and enlarged again, with bottlenecks on the way down, on the way up and on
    each shortcut. `forward` processes one level and calls itself for the next smaller one.
    """

    def __init__(self, width: int, soft_gate: bool, attention: type[nn.Module] | None):
        super().__init__()

        def block() -> nn.Sequential:
            return nn.Sequential(Bottleneck(width, width // 2, soft_gate))

        # Level 0 is the smallest. Blocks of a level: shortcut, down, up, and for level 0 the neck.
        self.hg = nn.ModuleList(
            nn.ModuleList(block() for _ in range(3 if level else 4)) for level in range(HOURGLASS_DEPTH)
        )
        self.attention = attention(width) if attention else nn.Identity()

    def forward(self, x: Tensor, level: int = HOURGLASS_DEPTH - 1) -> Tensor:
        blocks = self.hg[level]
        assert isinstance(blocks, nn.ModuleList)
        low = blocks[1](max_pool2d(x, 2))  # (B, C, H/2, W/2)
        low = self(low, level - 1) if level else self.attention(blocks[3](low))
        return blocks[0](x) + interpolate(blocks[2](low), size=x.shape[-2:])  # (B, C, H, W)


class LAPX(PoseModel):
    """Images (B, 3, H, W), normalized, to a list of heatmaps (B, K, H/4, W/4), one for each stage.

    The last entry is the final output. stages, width: number of hourglasses and their channels. attention:
    'none', 'cbam' or 'eca_cbam' after each stage and, with stem_attention, after the stem. neck: 'none',
    'eca', 'cbam' or 'nonlocal' (choice 2 of the module's docstring). soft_gate: a learned weight for each
    channel of each shortcut. Raises ValueError if a side is less than 64 or not a multiple of 4, and for an
    unknown attention or neck.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        input_size: tuple[int, int],
        stages: int = 3,
        width: int = 208,
        attention: str = "eca_cbam",
        stem_attention: bool = True,
        neck: str = "nonlocal",
        soft_gate: bool = True,
    ):
        super().__init__(skeleton, input_size)
        check_sides("LAPX", input_size, 4)
        if min(input_size) < 64:
            raise ValueError(f"LAPX needs sides of at least 64, not {tuple(input_size)} (height, width)")
        if attention not in ATTENTION:
            raise ValueError(f"unknown attention {attention!r}; one of {', '.join(ATTENTION)}")
        if neck not in NECKS:
            raise ValueError(f"unknown neck {neck!r}; one of {', '.join(NECKS)}")
        module = ATTENTION[attention] or nn.Identity
        if stem_attention and attention == "none":
            raise ValueError("stem_attention=True needs an attention, not 'none'")
        joints, quarter, half = len(skeleton.keypoints), width // 4, width // 2
        self.conv1 = nn.Conv2d(3, quarter, 7, 2, 3, bias=False)
        self.bn1, self.elu = nn.BatchNorm2d(quarter), nn.ELU()
        self.layer1 = nn.Sequential(Bottleneck(quarter, quarter))
        self.maxpool = nn.MaxPool2d(2)
        self.layer2 = nn.Sequential(Bottleneck(2 * quarter, 2 * quarter))
        self.layer3 = nn.Sequential(Bottleneck(4 * quarter, half))
        self.stem_attention = module(width) if stem_attention else nn.Identity()
        self.backbone_attention = nn.ModuleList(module(width) for _ in range(stages))
        first_and_third, others = NECKS[neck]
        self.hg = nn.ModuleList(
            Hourglass(width, soft_gate, first_and_third if stage in (0, 2) else others)
            for stage in range(stages)
        )
        self.res = nn.ModuleList(nn.Sequential(Bottleneck(width, half)) for _ in range(stages))
        self.fc = nn.ModuleList(ConvModule(width, width, act=nn.ELU) for _ in range(stages))
        self.score = nn.ModuleList(nn.Conv2d(width, joints, 1) for _ in range(stages))
        self.fc_ = nn.ModuleList(ConvModule(width, width, norm=False) for _ in range(stages - 1))
        self.score_ = nn.ModuleList(nn.Conv2d(joints, width, 1) for _ in range(stages - 1))

    def set_nonlocal_gain(self, gain: float | None) -> None:
        """Start a phase of the training strategy of section 3.3.

        With gain 0 the non-local branches are frozen and add nothing. With another gain they learn, and their
        gamma is fixed at this gain. With None, gamma learns too, from its current value.
        """
        for branch in (module for module in self.modules() if isinstance(module, NonLocal)):
            branch.requires_grad_(gain != 0)
            branch.gamma.requires_grad_(gain is None)
            if gain is not None:
                nn.init.constant_(branch.gamma, gain)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.layer1(self.elu(self.bn1(self.conv1(images))))  # (B, C/2, H/2, W/2)
        x = self.stem_attention(self.layer3(self.layer2(self.maxpool(x))))  # (B, C, H/4, W/4)
        heatmaps = []
        for stage, hourglass in enumerate(self.hg):
            y = self.fc[stage](self.res[stage](hourglass(x)))
            y = self.backbone_attention[stage](y)
            heatmaps.append(self.score[stage](y))  # (B, K, H/4, W/4)
            if stage + 1 < len(self.hg):
                x = x + self.fc_[stage](y) + self.score_[stage](heatmaps[-1])
        return heatmaps
