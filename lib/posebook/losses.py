"""Loss functions of predictions, targets and weights."""

import torch
import torch.nn.functional as F
from torch import Tensor

from posebook.codecs import SimCC


def simcc_kl(logits: SimCC, targets: SimCC, weights: Tensor, beta: float = 10.0) -> Tensor:
    """Sum of the Kullback-Leibler divergences of both axes, a scalar.

    logits, targets: x (B, K, Wx), y (B, K, Wy). weights: (B, K), 0 for joints that do not count.
    A softmax with inverse temperature `beta` converts both logits and targets to distributions, so the model
    learns softmax(beta * Gaussian) (RTMPose's KLDiscretLoss with label_softmax, beta 10).

    The loss is the mean over bins, joints and batch. RTMPose sums over the batch. With AdamW and
    without a limit on the gradient's norm, this changes the size of the gradient but hardly the step.
    """

    def axis_loss(logit: Tensor, target: Tensor) -> Tensor:
        target = torch.softmax(beta * target, -1)  # (B, K, bins)
        divergence = F.kl_div(torch.log_softmax(beta * logit, -1), target, reduction="none").mean(-1)
        return (divergence * weights).mean()  # scalar, from (B, K)

    return axis_loss(logits.x, targets.x) + axis_loss(logits.y, targets.y)


def heatmap_mse(stages: list[Tensor], target: Tensor, weights: Tensor) -> Tensor:
    """Half the squared error of heatmaps, the mean over cells, joints, batch and stages, a scalar.

    stages: one (B, K, h, w) per stage. target: (B, K, h, w). weights: (B, K), 0 for joints that do not count.
    Source: LAPX, equations 4.1 and 4.2. Over cells, the paper sums; the mean is from the HRNet code.
    """
    errors = [((stage - target).square().mean((2, 3)) * weights).mean() for stage in stages]
    return 0.5 * torch.stack(errors).mean()


def kl_discrete(
    logits: SimCC, targets: SimCC, weights: Tensor, smoothing: float = 0.1, temperature: float = 0.5
) -> Tensor:
    """Sum of AMFACPose's discretized divergences of both axes (equations 20 and 21), a scalar.

    logits, targets: x (B, K, Wx), y (B, K, Wy). The targets are unnormalized peaks as returned by
    `encode_simcc`. weights: (B, K), a joint's visibility times its weight. smoothing: the fraction of the
    uniform distribution that is mixed into the normalized targets. temperature: divides the logits. The
    divergence is summed over bins; the loss is the mean over joints and batch.

    Our copy of the paper lacks the values of smoothing and temperature. The defaults are our choice.
    """

    def axis_loss(logit: Tensor, target: Tensor) -> Tensor:
        target = target / target.sum(-1, keepdim=True).clamp(min=1e-12)  # (B, K, bins)
        target = (1 - smoothing) * target + smoothing / target.shape[-1]
        divergence = F.kl_div(torch.log_softmax(logit / temperature, -1), target, reduction="none").sum(-1)
        return (divergence * weights).mean()  # scalar, from (B, K)

    return axis_loss(logits.x, targets.x) + axis_loss(logits.y, targets.y)
