"""What the tests of this folder share."""

import torch

SIZE = (64, 64)


BINS = torch.tensor([[40, 90], [100, 7]])  # (B, 2): x and y of two images
