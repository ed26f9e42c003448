"""Counting rules of each convention, operator by operator, and the counters that match a printed number."""

import pytest
import torch
from torch import nn

from posebook import complexity, models


class ApplyToZeros(nn.Module):
    """A model that ignores its image and applies one operator to zeros of a given shape."""

    def __init__(self, operator, shape=(1, 8, 6, 4)):
        super().__init__()
        self.operator, self.shape = operator, shape

    def forward(self, images):
        return self.operator(images.new_zeros(self.shape))


class AppliedTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1, bias=False)

    def forward(self, x):
        return self.conv(self.conv(x))


def pairwise_products(x):
    """(L, C) times (C, L), with L = 24 positions."""
    x = x.flatten(2)  # (1, 8, 24)
    return torch.bmm(x.transpose(1, 2), x)


def attention(x):
    x = x.flatten(2).transpose(1, 2)[:, None]  # (1, 1, 24, 8)
    return nn.functional.scaled_dot_product_attention(x, x, x)


# Measured with the original packages on an input of 1 x 8 x 6 x 4, in the order of complexity.UNITS:
# exact, fvcore, thop, mmcv, hrnet, torchstat.
MEASURED = {
    "conv": (lambda: nn.Conv2d(8, 8, 1, bias=False), (1536, 1536, 1536, 1536, 1536, 1536)),
    "conv, bias": (lambda: nn.Conv2d(8, 8, 1), (1536, 1536, 1536, 1728, 1536, 1728)),
    "depthwise": (lambda: nn.Conv2d(8, 8, 3, 1, 1, 1, 8, bias=False), (1728,) * 6),
    "transposed": (
        lambda: nn.ConvTranspose2d(8, 8, 4, 2, 1, bias=False),
        (24576, 24576, 98304, 24576, 98304, 24576),
    ),
    "conv 1d": (
        lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 8, 3, 1, 1, bias=False)),
        (4608, 4608, 4608, 4608, 4608, 0),
    ),
    "batch norm": (lambda: nn.BatchNorm2d(8), (0, 384, 768, 384, 0, 384)),
    "layer norm": (lambda: nn.LayerNorm(4), (0, 960, 768, 384, 0, 0)),
    "relu": (nn.ReLU, (0, 0, 0, 192, 0, 192)),
    "elu": (nn.ELU, (0, 0, 0, 192, 0, 192)),
    "relu6": (nn.ReLU6, (0, 0, 0, 192, 0, 192)),
    "silu": (nn.SiLU, (0,) * 6),
    "softmax": (lambda: nn.Softmax(1), (0, 0, 552, 0, 0, 0)),
    "max pooling": (lambda: nn.MaxPool2d(2), (0, 0, 0, 192, 0, 192)),
    "max pooling, stride 1": (lambda: nn.MaxPool2d(5, 1, 2), (0, 0, 0, 192, 0, 4800)),
    "global average pooling": (lambda: nn.AdaptiveAvgPool2d(1), (0, 192, 200, 192, 0, 280)),
    "nearest": (lambda: nn.Upsample(scale_factor=2, mode="nearest"), (0, 768, 768, 768, 0, 96)),
    "bilinear": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), (0, 3072, 8448, 768, 0, 96)),
    "matrix product": (lambda: pairwise_products, (4608, 4608, 0, 0, 0, 0)),
    "fused attention": (lambda: attention, (9216, 0, 0, 0, 0, 0)),
    "called twice": (AppliedTwice, (3072, 3072, 3072, 3072, 3072, 1536)),
}


@pytest.mark.parametrize("name", MEASURED)
def test_rules_match_the_original_packages(name):
    operator, expected = MEASURED[name]
    macs = complexity.count(ApplyToZeros(operator()), (6, 4))["macs"]
    assert tuple(macs[convention] for convention in complexity.UNITS) == expected


def test_linear_layers_on_tokens():
    macs = complexity.count(ApplyToZeros(nn.Linear(8, 4), (1, 24, 8)), (6, 4))["macs"]
    assert macs == {"exact": 768, "fvcore": 768, "thop": 768, "mmcv": 768, "hrnet": 2304, "torchstat": 0}


def test_thop_omits_bare_parameters():
    counted = complexity.count(models.build("starnet-pose-t"), (256, 192))
    # the gains of two ScaleNorms, gamma and beta of the gated attention unit, and its residual gain
    bare = 1 + 2 * 2 * 128 + 256 + 1
    assert counted["params"] - counted["thop_params"] == bare


def test_output_shapes_of_named_submodules():
    model = models.build("starnet-pose-t", input_size=(64, 96))
    shapes = complexity.shapes(model, ["backbone.stem", "backbone.stages.3", "head.cls_y"])
    assert list(shapes.values()) == [(32, 32, 48), (192, 2, 3), (17, 128)]
    with pytest.raises(AttributeError):
        complexity.shapes(model, ["backbone.stages.9"])
