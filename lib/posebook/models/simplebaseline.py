"""SimpleBaseline: a ResNet and three deconvolutions; with another head, SimCC on ResNet.

Xiao, Wu and Wei, "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018. `simcc`: Li et al.,
"SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation", ECCV 2022 (first called
SimDR), which flattens each joint's map and classifies x and y with one linear layer each.

Where the texts are silent:
1. The 3x3 convolution of a block carries the stride, as in PyTorch's ResNet.
2. SimCC's classifiers are shared by the joints; bins are half pixels (split_ratio 2).
"""

from torch import Tensor, nn

from posebook.codecs import SimCC
from posebook.models.layers import Bottleneck, PoseModel, check_sides, init_weights, residual_blocks
from posebook.skeletons import Skeleton

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class SimpleBaseline(PoseModel):
    """Images (B, 3, H, W), normalized, to [heatmaps (B, K, H/4, W/4)], or with simcc to SimCC logits.

    depth: 50, 101 or 152. Raises ValueError for another depth and for sides that are no multiples of 32.
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
        one, two, three, four = BLOCKS[depth]
        self.layer1 = residual_blocks(Bottleneck, 64, 64, one)
        self.layer2 = residual_blocks(Bottleneck, 256, 128, two, 2)
        self.layer3 = residual_blocks(Bottleneck, 512, 256, three, 2)
        self.layer4 = residual_blocks(Bottleneck, 1024, 512, four, 2)
        layers = []
        for in_channels in (2048, 256, 256):
            layers += [
                nn.ConvTranspose2d(in_channels, 256, 4, 2, 1, bias=False),
                nn.BatchNorm2d(256),
                nn.ReLU(),
            ]
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(256, len(skeleton.keypoints), 1)
        self.simcc = simcc
        if simcc:
            height, width = input_size
            self.mlp_head_x = nn.Linear(height * width // 16, width * split_ratio)
            self.mlp_head_y = nn.Linear(height * width // 16, height * split_ratio)
        init_weights(self)

    def forward(self, images: Tensor) -> list[Tensor] | SimCC:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))  # (B, 64, H/4, W/4)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, 2048, H/32, W/32)
        x = self.final_layer(self.deconv_layers(x))  # (B, K, H/4, W/4)
        if not self.simcc:
            return [x]
        x = x.flatten(2)  # (B, K, H/4 * W/4)
        return SimCC(self.mlp_head_x(x), self.mlp_head_y(x))  # (B, K, Wx), (B, K, Wy)
