"""SimpleBaseline: a ResNet and three deconvolutions; with another head, SimCC on ResNet.

Xiao, Wu and Wei, "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018. `simcc`: Li et al.,
"SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation", ECCV 2022 (first called
SimDR), which flattens the map of each joint and classifies x and y with one linear layer each.

Choices that the texts do not specify:
1. The 3x3 convolution of a block has the stride, as in PyTorch's ResNet.
2. All joints share SimCC's classifiers; a bin is half a pixel wide (split_ratio 2).
"""

from torch import Tensor, nn

from posebook.codecs import SimCC
from posebook.models.layers import (
    Bottleneck,
    PoseModel,
    check_sides,
    deconvolutions,
    init_weights,
    residual_blocks,
)
from posebook.skeletons import Skeleton

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class SimpleBaseline(PoseModel):
    """Images (B, 3, H, W), normalized, to [heatmaps (B, K, H/4, W/4)], or to SimCC logits if `simcc` is True.

    depth: 50, 101 or 152. The logits are x (B, K, W * split_ratio) and y (B, K, H * split_ratio). Raises
    ValueError for another depth or if a side is not a multiple of 32.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        input_size: tuple[int, int],
        depth: int = 50,
        simcc: bool = False,
        split_ratio: int = 2,
    ):
        super().__init__(skeleton, input_size)
        check_sides("SimpleBaseline", input_size, 32)
        if depth not in BLOCKS:
            raise ValueError(f"SimpleBaseline has depth 50, 101 or 152, not {depth}")
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        counts = BLOCKS[depth]
        self.layer1 = residual_blocks(Bottleneck, 64, 64, counts[0])
        self.layer2 = residual_blocks(Bottleneck, 256, 128, counts[1], 2)
        self.layer3 = residual_blocks(Bottleneck, 512, 256, counts[2], 2)
        self.layer4 = residual_blocks(Bottleneck, 1024, 512, counts[3], 2)
        self.deconv_layers = deconvolutions(2048, 3)
        self.final_layer = nn.Conv2d(256, len(skeleton.keypoints), 1)
        self.simcc = simcc
        if simcc:
            height, width = input_size
            cells = height * width // 16
            self.mlp_head_x = nn.Linear(cells, round(width * split_ratio))
            self.mlp_head_y = nn.Linear(cells, round(height * split_ratio))
        init_weights(self)

    def forward(self, images: Tensor) -> list[Tensor] | SimCC:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))  # (B, 64, H/4, W/4)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, 2048, H/32, W/32)
        x = self.final_layer(self.deconv_layers(x))  # (B, K, H/4, W/4)
        if not self.simcc:
            return [x]
        x = x.flatten(2)  # (B, K, H/4 * W/4)
        return SimCC(self.mlp_head_x(x), self.mlp_head_y(x))  # (B, K, Wx), (B, K, Wy)
