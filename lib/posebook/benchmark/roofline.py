"""Time per layer, and the limits of the machine."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from posebook.benchmark.timing import clock


def op_type(module: nn.Module) -> str:
    """What sort of work a module does itself, for the sums over layers."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)):
        if module.groups == module.in_channels > 1:
            return "depthwise"
        return "1x1" if max(module.kernel_size) == 1 else "other convolutions"
    if isinstance(module, nn.Linear):
        return "linear"
    if "Norm" in type(module).__name__:
        return "norms"
    return (
        "activations" if not list(module.children()) and list(module.parameters()) == [] else "between layers"
    )


@torch.no_grad()
def layer_times(model: nn.Module, images: Tensor, device: str = "cpu", runs: int = 10) -> list[dict]:
    """Each module's own time in eager mode: {"name", "kind", "of", "ms", "macs", "bytes"}, in order of use.

    `of` is the module's class; macs and bytes are those of convolutions and linear layers, 0 of the others.
    """
    model, images, now = model.to(device).eval(), images.to(device), clock(device)
    names = {module: name for name, module in model.named_modules()}
    rows, stack = {}, []

    def begin(module: nn.Module, inputs: tuple) -> None:
        stack.append([now(), 0.0])

    def end(module: nn.Module, inputs: tuple, output: object) -> None:
        start, below = stack.pop()
        took = now() - start
        if stack:
            stack[-1][1] += took
        rows[module] = rows.get(module, 0.0) + took - below
        if hasattr(module, "weight") and op_type(module) != "norms":
            used = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
            macs, weights = used.numel() * module.weight[0].numel(), module.weight.numel()
            size = inputs[0].element_size() * (inputs[0].numel() + output.numel() + weights)
            costs[module] = macs, size

    costs, totals = {}, []
    hooks = [h for m in names for h in (m.register_forward_pre_hook(begin), m.register_forward_hook(end))]
    for _ in range(runs + 2):
        rows.clear()
        model(images)
        totals.append(dict(rows))
    for hook in hooks:
        hook.remove()
    return [
        {
            "name": names[module],
            "kind": op_type(module),
            "of": type(module).__name__,
            "ms": float(np.median([total[module] for total in totals[2:]])),
            "macs": costs.get(module, (0, 0))[0],
            "bytes": costs.get(module, (0, 0))[1],
        }
        for module in totals[-1]
    ]


def measure_roofline(device: str = "cpu", side: int = 1024, mebibytes: int = 256) -> dict[str, float]:
    """This machine's roofs with PyTorch's threads, the best of several: gmacs and gbytes a second."""
    now = clock(device)
    a, b = torch.rand(2, side, side, device=device)
    source = torch.zeros(mebibytes * 2**18, device=device)  # float32
    target = torch.empty_like(source)

    def best(job: Callable, amount: float) -> float:
        times = []
        for _ in range(8):
            start = now()
            job()
            times.append(now() - start)
        return amount / min(times) / 1e6

    return {
        "gmacs": best(lambda: a @ b, side**3),
        "gbytes": best(lambda: target.copy_(source), 2 * source.nbytes),
    }
