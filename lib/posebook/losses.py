"""Losses as pure functions of predictions, targets and weights."""

import torch
import torch.nn.functional as F
from torch import Tensor

from posebook.codecs import SimCC


def simcc_kl(logits: SimCC, targets: SimCC, weights: Tensor, beta: float = 10.0) -> Tensor:
    """Kullback-Leibler divergence of both axes, a scalar.

    logits, targets: x (B, K, Wx), y (B, K, Wy); weights: (B, K), 0 for joints that do not count.
    Both sides go through a softmax at inverse temperature `beta`, the targets too: softmax(beta * Gaussian)
    is the distribution the net learns (RTMPose's KLDiscretLoss with label_softmax, beta 10).

    The mean is over bins, joints and batch; RTMPose's sums over the batch, which under AdamW changes the
    size of the gradient but not the step.
    """
    total = 0.0
    for logit, target in zip(logits, targets, strict=True):
        goal = torch.softmax(beta * target, -1)  # (B, K, bins)
        divergence = F.kl_div(torch.log_softmax(beta * logit, -1), goal, reduction="none").mean(-1)  # (B, K)
        total = total + (divergence * weights).mean()
    return total
