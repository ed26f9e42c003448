"""Losses compared with plain loops, and checked at inputs with a known value."""

import math

import torch

from posebook import codecs, losses

POINTS = torch.tensor([[[3.0, 5.0], [10.2, 7.9], [1.0, 14.4]], [[6.5, 2.0], [0.0, 0.0], [11.0, 15.0]]])
WEIGHTS = torch.tensor([[1.0, 1.5, 0.0], [1.0, 1.2, 1.0]])


def random_logits() -> codecs.SimCC:
    torch.manual_seed(0)
    return codecs.SimCC(torch.randn(2, 3, 24), torch.randn(2, 3, 32))


def test_heatmap_mse_equals_a_plain_loop():
    torch.manual_seed(0)
    stages, target = [torch.rand(2, 3, 4, 5) for _ in range(3)], torch.rand(2, 3, 4, 5)
    total = 0.0
    for stage in stages:
        for b in range(2):
            for k in range(3):
                error = sum(
                    float((stage[b, k, i, j] - target[b, k, i, j]) ** 2) for i in range(4) for j in range(5)
                )
                total += float(WEIGHTS[b, k]) * error / 20
    assert math.isclose(float(losses.heatmap_mse(stages, target, WEIGHTS)), total / 2 / 6 / 3, rel_tol=1e-5)


def test_kl_discrete_equals_a_plain_loop():
    logits, targets = random_logits(), codecs.encode_simcc(POINTS, (16, 12), sigma=(2.0, 2.0))
    total = 0.0
    for axis in range(2):
        for b in range(2):
            for k in range(3):
                z, g = (logits[axis][b, k] / 0.7).tolist(), targets[axis][b, k].tolist()
                bins, norm = len(z), sum(math.exp(v) for v in z)
                for value, peak in zip(z, g, strict=True):
                    q = 0.8 * peak / sum(g) + 0.2 / bins
                    total += float(WEIGHTS[b, k]) * q * (math.log(q) - math.log(math.exp(value) / norm))
    loss = losses.kl_discrete(logits, targets, WEIGHTS, smoothing=0.2, temperature=0.7)
    assert math.isclose(float(loss), total / 6, rel_tol=1e-4)


def test_kl_discrete_is_zero_at_the_smoothed_target_and_ignores_constants():
    targets = codecs.encode_simcc(POINTS, (16, 12), sigma=(2.0, 2.0))
    goals = [0.9 * axis / axis.sum(-1, keepdim=True) + 0.1 / axis.shape[-1] for axis in targets]
    exact = codecs.SimCC(*(goal.log() for goal in goals))
    assert abs(float(losses.kl_discrete(exact, targets, WEIGHTS, 0.1, temperature=1.0))) < 1e-6
    logits = random_logits()
    shifted = codecs.SimCC(logits.x + 3, logits.y - 7)
    values = [losses.kl_discrete(each, targets, WEIGHTS) for each in (logits, shifted)]
    assert torch.allclose(*values, atol=1e-5)


def test_kl_discrete_gradient_raises_the_logit_at_the_joint():
    logits = codecs.SimCC(*((axis / 10).requires_grad_() for axis in random_logits()))
    targets = codecs.encode_simcc(POINTS, (16, 12), sigma=(2.0, 2.0))
    losses.kl_discrete(logits, targets, torch.ones(2, 3)).backward()
    at_joint = logits.x.grad.gather(-1, targets.x.argmax(-1, keepdim=True))
    assert (at_joint < 0).all() and torch.allclose(logits.x.grad.sum(-1), torch.zeros(2, 3), atol=1e-6)
