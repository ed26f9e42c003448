"""Learning-rate schedule, parameter groups and the moving average of the weights."""

import math

import torch
from torch import nn

from posebook.training.recipes import BaseRecipe


def lr_at_step(step: int, total: int, recipe: BaseRecipe) -> float:
    """Return the learning rate at a step of `total`, counted from 0.

    Linear warm-up comes first. With milestones, the rate is then multiplied by lr_gamma at each of these
    epochs. Without, it is constant until `cosine_start` and then falls along a cosine to min_lr_ratio.
    """
    peak = recipe.learning_rate * recipe.batch_size / recipe.base_batch_size
    if step < recipe.warmup_steps:
        return peak * max(1e-5, step / recipe.warmup_steps)
    progress = step / total
    if recipe.milestones:
        return peak * recipe.lr_gamma ** sum(progress * recipe.epochs >= epoch for epoch in recipe.milestones)
    phase = max(0.0, (progress - recipe.cosine_start) / (1 - recipe.cosine_start))  # 0 to 1 along the cosine
    return peak * (recipe.min_lr_ratio + (1 - recipe.min_lr_ratio) * (1 + math.cos(math.pi * phase)) / 2)


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict]:
    """Group parameters by layer and weight decay. Norms, biases and ViTPose's position embeddings have none.

    layer_decay: ratio of a layer's learning rate to that of the next layer; below 1, the model must have a
    method layer_of(name), else ValueError. The key `rate` of a group is its factor on the learning rate.
    """
    if layer_decay < 1 and not hasattr(model, "layer_of"):
        raise ValueError(f"layer_decay {layer_decay} needs a model with numbered layers, such as ViTPose")
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for path, module in model.named_modules():
        is_norm = "Norm" in type(module).__name__
        for name, parameter in module.named_parameters(recurse=False):
            layer = 0
            if layer_decay < 1:
                layer = model.layer_of(f"{path}.{name}")  # type: ignore[operator]  # only ViTPose has it
            no_decay = is_norm or name.endswith(("bias", "pos_embed"))
            groups.setdefault((layer, no_decay), []).append(parameter)
    last = max(layer for layer, _ in groups)
    return [
        {
            "params": groups[layer, no_decay],
            "weight_decay": 0.0 if no_decay else weight_decay,
            "rate": layer_decay ** (last - layer),
        }
        for layer, no_decay in sorted(groups)
    ]


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, step: int, recipe: BaseRecipe) -> None:
    """Move averaged weights and buffers toward the model's.

    In early steps the momentum is larger, as in ExpMomentumEMA, which StarNet-Pose's authors use.
    """
    momentum = recipe.ema_momentum + (1 - recipe.ema_momentum) * math.exp(-(1 + step) / recipe.ema_warmup)
    old, new = ([*module.parameters(), *module.buffers()] for module in (ema, model))
    floats = [i for i, value in enumerate(old) if value.is_floating_point()]
    torch._foreach_lerp_([old[i] for i in floats], [new[i] for i in floats], momentum)
    counts = [i for i, value in enumerate(old) if not value.is_floating_point()]
    if counts:  # batch norm's num_batches_tracked
        torch._foreach_copy_([old[i] for i in counts], [new[i] for i in counts])
