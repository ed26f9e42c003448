"""HRNet: parallel branches of four resolutions; with another head, SimCC on HRNet.

Sun, Xiao, Liu and Wang, "Deep High-Resolution Representation Learning for Human Pose Estimation", CVPR 2019.
`simcc`: Li et al., "SimCC", ECCV 2022, as in simplebaseline.py.

Choices that the text does not specify, from the released code and configurations:
1. Stages 2, 3 and 4 have 1, 4 and 3 modules, each with four basic blocks per branch. Only the last module
   outputs a single branch.
2. A fusion goes to a lower resolution by strided 3x3 convolutions with ReLU between them, and to a higher one
   by a 1x1 convolution and nearest-neighbor upsampling.
3. A stage computes its new branch from the smallest branch of the previous stage.
4. SimCC's released W48 at 384x288 has 1.5 bins per pixel (split_ratio); its other models have 2.
"""

from collections.abc import Callable

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

MODULES = (1, 4, 3)  # numbers of modules in stages 2, 3 and 4

# Constructor of a 3x3 convolution with batch norm: (in_channels, out_channels, stride, relu) to a module.
ConvLayer = Callable[[int, int, int, bool], nn.Module]


def conv_bn(in_channels: int, out_channels: int, stride: int, relu: bool) -> nn.Sequential:
    """A 3x3 convolution without bias, batch norm, and ReLU if `relu` is True."""
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), *([nn.ReLU()] if relu else []))


def exchange(widths: list[int], source: int, target: int, layer: ConvLayer, mode: str) -> nn.Module | None:
    """The layers that bring branch `source` to the resolution and width of branch `target`.

    None stands for a branch that passes unchanged. layer: constructor of the strided convolutions. mode:
    interpolation mode of the upsampling.
    """
    if source == target:
        return None
    if source > target:
        return nn.Sequential(
            nn.Conv2d(widths[source], widths[target], 1, bias=False),
            nn.BatchNorm2d(widths[target]),
            nn.Upsample(scale_factor=2 ** (source - target), mode=mode),
        )
    steps = [layer(widths[source], widths[source], 2, True) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, layer(widths[source], widths[target], 2, False))


def exchanges(widths: list[int], num_outputs: int, layer: ConvLayer, mode: str = "nearest") -> nn.ModuleList:
    """One row of `exchange` layers for each output branch, with one column for each input branch."""
    rows = [
        [exchange(widths, source, target, layer, mode) for source in range(len(widths))]
        for target in range(num_outputs)
    ]
    # ModuleList accepts None, although its annotation does not say so.
    return nn.ModuleList(nn.ModuleList(row) for row in rows)  # type: ignore[arg-type]


def fuse(rows: nn.ModuleList, maps: list[Tensor], relu: nn.Module) -> list[Tensor]:
    """The output branches: each is the sum of all input branches at its resolution. rows: see `exchanges`."""
    fused = []
    for row in rows:
        assert isinstance(row, nn.ModuleList)
        terms = [x if layer is None else layer(x) for layer, x in zip(row, maps, strict=True)]
        fused.append(relu(sum(terms[1:], terms[0])))  # (B, width * 2**i, H/4 / 2**i, W/4 / 2**i)
    return fused


def transition(in_widths: list[int], widths: list[int], layer: ConvLayer) -> nn.ModuleList:
    """The layers that make the branches of the next stage; None passes a branch on unchanged.

    in_widths, widths: channels of the branches before and after. layer: constructor of the convolutions.
    """
    layers: list[nn.Module | None] = []
    for i, width in enumerate(widths):
        if i >= len(in_widths):
            layers.append(nn.Sequential(layer(in_widths[-1], width, 2, True)))
        else:
            layers.append(None if in_widths[i] == width else layer(in_widths[i], width, 1, True))
    return nn.ModuleList(layers)  # type: ignore[arg-type]  # as in `exchanges`


def apply_transition(layers: nn.ModuleList, maps: list[Tensor]) -> list[Tensor]:
    """The branches of the next stage. A new branch starts from the smallest previous branch."""
    sources = maps + maps[-1:] * (len(layers) - len(maps))
    return [x if layer is None else layer(x) for layer, x in zip(layers, sources, strict=True)]


class HighResolutionModule(nn.Module):
    """Blocks on each branch, then a fusion in which each output is the sum of all branches (section 3.2)."""

    def __init__(self, widths: list[int], num_outputs: int):
        super().__init__()
        self.branches = nn.ModuleList(residual_blocks(BasicBlock, width, width, 4) for width in widths)
        self.fuse_layers = exchanges(widths, num_outputs, conv_bn)
        self.relu = nn.ReLU()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return fuse(self.fuse_layers, maps, self.relu)


class HRNet(PoseModel):
    """Images (B, 3, H, W), normalized, to [heatmaps (B, K, H/4, W/4)], or to SimCC logits if `simcc` is True.

    width: channels of the first branch, 32 or 48 in the paper; each further branch has twice as many. The
    logits are x (B, K, W * split_ratio) and y (B, K, H * split_ratio). Raises ValueError if a side is not a
    multiple of 32.
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
        in_widths = [256]
        for stage, number in enumerate(MODULES, 2):
            widths = [width * 2**i for i in range(stage)]
            setattr(self, f"transition{stage - 1}", transition(in_widths, widths, conv_bn))
            modules = [HighResolutionModule(widths, stage) for _ in range(number)]
            if stage == 4:
                # Replaced, not built so at first: that would change the random numbers of `init_weights`.
                modules[-1] = HighResolutionModule(widths, 1)
            setattr(self, f"stage{stage}", nn.Sequential(*modules))
            in_widths = widths
        self.final_layer = nn.Conv2d(width, len(skeleton.keypoints), 1)
        self.simcc = simcc
        if simcc:
            input_height, input_width = input_size
            cells = input_height * input_width // 16
            self.mlp_head_x = nn.Linear(cells, round(input_width * split_ratio))
            self.mlp_head_y = nn.Linear(cells, round(input_height * split_ratio))
        init_weights(self)

    def forward(self, images: Tensor) -> list[Tensor] | SimCC:
        x = self.relu(self.bn1(self.conv1(images)))  # (B, 64, H/2, W/2)
        x = self.relu(self.bn2(self.conv2(x)))  # (B, 64, H/4, W/4)
        maps = [self.layer1(x)]  # (B, 256, H/4, W/4)
        for stage in (2, 3, 4):
            maps = apply_transition(getattr(self, f"transition{stage - 1}"), maps)
            maps = getattr(self, f"stage{stage}")(maps)  # i-th: (B, width * 2**i, H/4 / 2**i, W/4 / 2**i)
        x = self.final_layer(maps[0])  # (B, K, H/4, W/4)
        if not self.simcc:
            return [x]
        x = x.flatten(2)  # (B, K, H/4 * W/4)
        return SimCC(self.mlp_head_x(x), self.mlp_head_y(x))  # (B, K, Wx), (B, K, Wy)
