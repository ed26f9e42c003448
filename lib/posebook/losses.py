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


def heatmap_mse(stages: list[Tensor], target: Tensor, weights: Tensor) -> Tensor:
    """Half the squared error of heatmaps, a scalar: the mean over cells, joints, batch and stages.

    stages: one (B, K, h, w) a stage; target: (B, K, h, w); weights: (B, K), 0 for joints that do not count
    (LAPX, equations 4.1 and 4.2; over cells the mean as in the HRNet code, where the text sums).
    """
    errors = [((stage - target).square().mean((2, 3)) * weights).mean() for stage in stages]
    return 0.5 * torch.stack(errors).mean()


def kl_discrete(
    logits: SimCC, targets: SimCC, weights: Tensor, smoothing: float = 0.1, temperature: float = 0.5
) -> Tensor:
    """AMFACPose's discretized divergence of both axes (equations 20 and 21), a scalar.

    logits, targets: x (B, K, Wx), y (B, K, Wy), the targets unnormalized peaks such as `encode_simcc` gives;
    weights: (B, K), a joint's visibility times its weight. The targets are normalized and mixed with
    `smoothing` of the uniform distribution; the logits are divided by `temperature`. A true divergence,
    summed over bins; the mean is over joints and batch. Our copy of the paper has lost its smoothing and
    temperature: these are chosen here.
    """
    total = 0.0
    for logit, target in zip(logits, targets, strict=True):
        goal = target / target.sum(-1, keepdim=True).clamp(min=1e-12)  # (B, K, bins)
        goal = (1 - smoothing) * goal + smoothing / goal.shape[-1]
        divergence = F.kl_div(torch.log_softmax(logit / temperature, -1), goal, reduction="none").sum(-1)
        total = total + (divergence * weights).mean()  # of (B, K)
    return total
