"""Fixtures of the tests in this folder."""

import pytest
import torch
from attribution_helpers import SIZE

from posebook import models


@pytest.fixture(scope="module")
def model():
    """An untrained model whose outputs differ between images.

    Without biases all features would be zero for the mean image, where ScaleNorm is discontinuous and
    integrated gradients would not converge.
    """
    torch.manual_seed(0)
    model = models.build("starnet-pose-t", input_size=SIZE)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
            elif name.endswith("bias"):
                parameter.normal_(std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def lapx():
    torch.manual_seed(0)
    return models.build("lapx", input_size=SIZE, stages=1, width=16).eval()
