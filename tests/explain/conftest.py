"""Fixtures of this folder."""

import pytest
import torch
from attribution_helpers import SIZE

from posebook import models


@pytest.fixture(scope="module")
def net():
    """A net whose answers differ from picture to picture, though nobody trained it.

    Without biases all features vanish on the mean picture, where ScaleNorm then jumps: no integral converges.
    """
    torch.manual_seed(0)
    net = models.build("starnet-pose-t", input_size=SIZE)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
            elif name.endswith("bias"):
                parameter.normal_(std=0.3)
    return net.eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def lapx():
    torch.manual_seed(0)
    return models.build("lapx", input_size=SIZE, stages=1, width=16).eval()
