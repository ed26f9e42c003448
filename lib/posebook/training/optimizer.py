"""Learning rate, parameter groups and the moving average of the weights."""

import math

import torch
from torch import nn

from posebook.training.recipes import Recipe


def lr_at_step(step: int, total: int, recipe: Recipe) -> float:
    """The rate at a step of `total`: linear warm-up, flat, then a cosine to min_lr_ratio of it, or drops."""
    peak = recipe.learning_rate * recipe.batch_size / recipe.base_batch_size
    if step < recipe.warmup_steps:
        return peak * max(1e-5, step / recipe.warmup_steps)
    if recipe.milestones:
        return peak * recipe.lr_gamma ** sum(
            step / total * recipe.epochs >= epoch for epoch in recipe.milestones
        )
    share = max(0.0, (step / total - recipe.cosine_start) / (1 - recipe.cosine_start))
    return peak * (recipe.min_lr_ratio + (1 - recipe.min_lr_ratio) * (1 + math.cos(math.pi * share)) / 2)


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict]:
    """Weights with decay; norms, biases and tables of positions without.

    layer_decay: the share of a layer's rate that the layer before it has; a group's is under `rate`.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for path, module in model.named_modules():
        norm = "Norm" in type(module).__name__
        for name, parameter in module.named_parameters(recurse=False):
            layer = model.layer_of(f"{path}.{name}") if layer_decay < 1 else 0
            plain = norm or name.endswith(("bias", "pos_embed"))
            groups.setdefault((layer, plain), []).append(parameter)
    last = max(layer for layer, _ in groups)
    return [
        {
            "params": groups[layer, plain],
            "weight_decay": 0.0 if plain else weight_decay,
            "rate": layer_decay ** (last - layer),
        }
        for layer, plain in sorted(groups)
    ]


@torch.no_grad()
def update_ema(into: nn.Module, model: nn.Module, step: int, recipe: Recipe) -> None:
    """Move the averaged weights and buffers towards the model's; faster early on (ExpMomentumEMA)."""
    momentum = recipe.ema_momentum + (1 - recipe.ema_momentum) * math.exp(-(1 + step) / recipe.ema_warmup)
    old, new = ([*net.parameters(), *net.buffers()] for net in (into, model))
    floats = [i for i, value in enumerate(old) if value.is_floating_point()]
    torch._foreach_lerp_([old[i] for i in floats], [new[i] for i in floats], momentum)
    counts = [i for i, value in enumerate(old) if not value.is_floating_point()]
    if counts:  # of batches, in nets with batch norms
        torch._foreach_copy_([old[i] for i in counts], [new[i] for i in counts])
