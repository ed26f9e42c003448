"""Constants of the tests in this folder."""

import torch

SIZE = (64, 64)  # (height, width)
BINS = torch.tensor([[40, 90], [100, 7]])  # (B, 2): x and y bins of two images
