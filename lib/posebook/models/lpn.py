"""LPN: SimpleBaseline with depthwise bottlenecks, global context and lightweight deconvolutions.

Zhang, Tang and Wu, "Simple and Lightweight Human Pose Estimation", arXiv 1911.10346, 2019. Global context:
Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCV Workshops 2019.

Choices that the text does not specify, from the released code and configurations:
1. A bottleneck does not widen, and the last stage has no stride, so two deconvolutions are enough.
2. Deconvolutions have as many groups as divide both widths, 256, and are followed by a 1x1 convolution.
3. The last convolution of the context block is initialized to zero, so the block initially adds nothing.
"""

import torch
from torch import Tensor, nn

from posebook.models.layers import PoseModel, check_sides, init_weights, residual_blocks
from posebook.models.simplebaseline import BLOCKS
from posebook.skeletons import Skeleton


class GlobalContext(nn.Module):
    """Pool the map with one attention map and add the result at all positions (GCNet, section 3)."""

    def __init__(self, channels: int):
        super().__init__()
        hidden_dim = max(16, channels // 16)
        self.conv_mask = nn.Conv2d(channels, 1, 1)
        self.softmax = nn.Softmax(dim=2)
        self.channel_add_conv = nn.Sequential(
            nn.Conv2d(channels, hidden_dim, 1),
            nn.LayerNorm([hidden_dim, 1, 1]),
            nn.ReLU(),
            nn.Conv2d(hidden_dim, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        mask = self.softmax(self.conv_mask(x).flatten(2))  # (B, 1, H * W)
        context = torch.matmul(x.flatten(2), mask.transpose(1, 2))[..., None]  # (B, C, 1, 1)
        return x + self.channel_add_conv(context)


class LightBottleneck(nn.Module):
    """1x1, depthwise 3x3 and 1x1 convolution and global context, with a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1, downsample: nn.Module | None = None):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.downsample = downsample
        self.att = GlobalContext(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))  # (B, width, H, W)
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))  # (B, width, H/stride, W/stride)
        return self.relu(self.att(y) + (x if self.downsample is None else self.downsample(x)))


class LPN(PoseModel):
    """Images (B, 3, H, W), normalized, to [heatmaps (B, K, H/4, W/4)].

    depth: 50, 101 or 152. Raises ValueError for another depth or if a side is not a multiple of 16.
    """

    def __init__(self, skeleton: Skeleton, input_size: tuple[int, int], depth: int = 50):
        super().__init__(skeleton, input_size)
        check_sides("LPN", input_size, 16)
        if depth not in BLOCKS:
            raise ValueError(f"LPN has depth 50, 101 or 152, not {depth}")
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        counts = BLOCKS[depth]
        self.layer1 = residual_blocks(LightBottleneck, 64, 64, counts[0])
        self.layer2 = residual_blocks(LightBottleneck, 64, 128, counts[1], 2)
        self.layer3 = residual_blocks(LightBottleneck, 128, 256, counts[2], 2)
        self.layer4 = residual_blocks(LightBottleneck, 256, 512, counts[3])
        layers: list[nn.Module] = []
        for in_channels in (512, 256):
            up = nn.ConvTranspose2d(in_channels, 256, 4, 2, 1, groups=256, bias=False)
            layers += [up, nn.BatchNorm2d(256), nn.ReLU()]
            layers += [nn.Conv2d(256, 256, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU()]
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(256, len(skeleton.keypoints), 1)
        init_weights(self)
        for module in self.modules():
            if isinstance(module, GlobalContext):
                last = module.channel_add_conv[-1]
                assert isinstance(last, nn.Conv2d)
                nn.init.zeros_(last.weight)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))  # (B, 64, H/4, W/4)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, 512, H/16, W/16)
        return [self.final_layer(self.deconv_layers(x))]  # (B, K, H/4, W/4)
