"""HRNet: branches of four resolutions side by side; with another head, SimCC on HRNet.

Sun, Xiao, Liu and Wang, "Deep High-Resolution Representation Learning for Human Pose Estimation", CVPR 2019.
`simcc`: Li et al., "SimCC", ECCV 2022, as in simplebaseline.py.

Where the text is silent, from the released code and configurations:
1. Stages of 1, 4 and 3 modules, four basic blocks a branch in each; only the last module gives one branch.
2. A fusion goes down by strided 3x3 convolutions, ReLU between them, and up by a 1x1 convolution and nearest
   neighbors.
3. A branch that a stage adds starts from the smallest one before it.
4. SimCC's released W48 at 384x288 has 1.5 bins a pixel (split_ratio), its other nets 2.
"""

from torch import Tensor, nn

from posebook.codecs import SimCC
from posebook.models.layers import (
    BasicBlock,
    Bottleneck,
    PoseModel,
    check_sides,
    init_weights,
    residual_blocks,
)
from posebook.skeletons import Skeleton

MODULES = (1, 4, 3)  # of stages 2, 3 and 4


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, relu: bool = False
) -> nn.Sequential:
    """Convolution without bias and batch norm, and ReLU where asked for."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), *([nn.ReLU()] if relu else []))


def exchange(widths: list[int], source: int, target: int) -> nn.Module | None:
    """What carries branch `source` to the resolution and width of branch `target`."""
    if source == target:
        return None
    if source > target:
        up = nn.Upsample(scale_factor=2 ** (source - target), mode="nearest")
        return nn.Sequential(*conv_bn(widths[source], widths[target], 1), up)
    steps = [conv_bn(widths[source], widths[source], 3, 2, relu=True) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, conv_bn(widths[source], widths[target], 3, 2))


def fuse(layers: nn.ModuleList, maps: list[Tensor], relu: nn.Module) -> list[Tensor]:
    """One output a row of layers: the sum of all branches, carried to its resolution."""
    fused = []
    for row in layers:
        terms = [x if layer is None else layer(x) for layer, x in zip(row, maps, strict=True)]
        fused.append(relu(sum(terms[1:], terms[0])))  # (B, width * 2**i, H/4 / 2**i, W/4 / 2**i)
    return fused


def advance(layers: nn.ModuleList, maps: list[Tensor]) -> list[Tensor]:
    """The branches of the next stage: through `transition`'s layers, new ones from the smallest before."""
    sources = maps + maps[-1:] * (len(layers) - len(maps))
    return [x if layer is None else layer(x) for layer, x in zip(layers, sources, strict=True)]


class HighResolutionModule(nn.Module):
    """Blocks on every branch, then each output the sum of all branches (section 3.2)."""

    def __init__(self, widths: list[int], num_outputs: int):
        super().__init__()
        self.branches = nn.ModuleList(residual_blocks(BasicBlock, width, width, 4) for width in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(exchange(widths, source, target) for source in range(len(widths)))
            for target in range(num_outputs)
        )
        self.relu = nn.ReLU()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return fuse(self.fuse_layers, maps, self.relu)


def transition(before: list[int], widths: list[int]) -> nn.ModuleList:
    """Branches of the next stage from those before: None keeps one as it is."""
    layers = []
    for number, width in enumerate(widths):
        if number < len(before):
            same = before[number] == width
            layers.append(None if same else conv_bn(before[number], width, 3, relu=True))
        else:
            layers.append(nn.Sequential(conv_bn(before[-1], width, 3, 2, relu=True)))
    return nn.ModuleList(layers)


class HRNet(PoseModel):
    """Images (B, 3, H, W), normalized, to [heatmaps (B, K, H/4, W/4)], or with simcc to SimCC logits.

    width: channels of the first branch, 32 or 48 in the paper, doubled at each halving. Raises ValueError for
    sides that are no multiples of 32.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        input_size: tuple[int, int],
        width: int = 32,
        simcc: bool = False,
        split_ratio: float = 2,
    ):
        super().__init__(skeleton, input_size)
        check_sides("HRNet", input_size, 32)
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.layer1 = residual_blocks(Bottleneck, 64, 64, 4)
        before = [256]
        for stage, modules in enumerate(MODULES, 2):
            widths = [width * 2**i for i in range(stage)]
            setattr(self, f"transition{stage - 1}", transition(before, widths))
            layers = [HighResolutionModule(widths, stage) for _ in range(modules)]
            if stage == 4:
                layers[-1] = HighResolutionModule(widths, 1)
            setattr(self, f"stage{stage}", nn.Sequential(*layers))
            before = widths
        self.final_layer = nn.Conv2d(width, len(skeleton.keypoints), 1)
        self.simcc = simcc
        if simcc:
            height, columns = input_size
            self.mlp_head_x = nn.Linear(height * columns // 16, int(columns * split_ratio))
            self.mlp_head_y = nn.Linear(height * columns // 16, int(height * split_ratio))
        init_weights(self)

    def forward(self, images: Tensor) -> list[Tensor] | SimCC:
        x = self.relu(self.bn1(self.conv1(images)))  # (B, 64, H/2, W/2)
        x = self.relu(self.bn2(self.conv2(x)))  # (B, 64, H/4, W/4)
        maps = [self.layer1(x)]  # (B, 256, H/4, W/4)
        for stage in (2, 3, 4):
            maps = getattr(self, f"stage{stage}")(advance(getattr(self, f"transition{stage - 1}"), maps))
        x = self.final_layer(maps[0])  # (B, K, H/4, W/4)
        if not self.simcc:
            return [x]
        x = x.flatten(2)  # (B, K, H/4 * W/4)
        return SimCC(self.mlp_head_x(x), self.mlp_head_y(x))  # (B, K, Wx), (B, K, Wy)
