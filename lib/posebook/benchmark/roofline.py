"""Time per layer, and the limits of the machine (timing.py, choice 3)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from posebook.benchmark.timing import clock


def op_type(module: nn.Module) -> str:
    """Category of the operation that a module itself performs, for sums over layers."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)):
        if module.groups == module.in_channels > 1:
            return "depthwise"
        return "1x1" if max(module.kernel_size) == 1 else "other convolutions"
    if isinstance(module, nn.Linear):
        return "linear"
    if "Norm" in type(module).__name__:
        return "norms"
    is_activation = not list(module.children()) and not list(module.parameters())
    return "activations" if is_activation else "between layers"


@torch.no_grad()
def layer_times(model: nn.Module, images: Tensor, device: str = "cpu", runs: int = 10) -> list[dict]:
    """Measure each module's own time in eager mode, without its children's, as the median of `runs`.

    Returns one row for each module, in order of use: {"name", "kind", "of", "ms", "macs", "bytes"}. `kind` is
    its `op_type`, and `of` is its class. macs and bytes are those of convolutions and linear layers, and 0
    for other modules.
    """
    model, images, now = model.to(device).eval(), images.to(device), clock(device)
    names = {module: name for name, module in model.named_modules()}
    own_ms: dict[nn.Module, float] = {}
    costs: dict[nn.Module, tuple[int, int]] = {}  # multiply-adds and bytes
    results: list[dict[nn.Module, float]] = []  # own_ms of each pass
    stack: list[list[float]] = []  # of each running module: its start, and the time of its children so far

    def begin(module: nn.Module, inputs: tuple) -> None:
        stack.append([now(), 0.0])

    def end(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        start, children_ms = stack.pop()
        elapsed = now() - start
        if stack:
            stack[-1][1] += elapsed
        own_ms[module] = own_ms.get(module, 0.0) + elapsed - children_ms
        if results:  # costs are of the first warm-up pass; later passes measure less of this function
            return
        macs, size = costs.setdefault(module, (0, 0))  # of earlier calls in this pass
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and op_type(module) != "norms":
            # each output value uses one filter; in a transposed convolution, each input value does
            filtered = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
            values = inputs[0].numel() + output.numel() + weight.numel()
            macs, size = macs + filtered.numel() * weight[0].numel(), size + inputs[0].element_size() * values
            costs[module] = macs, size

    hooks = [h for m in names for h in (m.register_forward_pre_hook(begin), m.register_forward_hook(end))]
    warmup = 2
    for _ in range(warmup + runs):
        own_ms.clear()
        model(images)
        results.append(dict(own_ms))
    for hook in hooks:
        hook.remove()
    return [
        {
            "name": names[module],
            "kind": op_type(module),
            "of": type(module).__name__,
            "ms": float(np.median([result[module] for result in results[warmup:]])),
            "macs": costs[module][0],
            "bytes": costs[module][1],
        }
        for module in results[-1]
    ]


def measure_roofline(device: str = "cpu", side: int | None = None, mebibytes: int = 256) -> dict[str, float]:
    """Measure this machine's two roofs with PyTorch's threads: {"gmacs", "gbytes"}, both per second.

    gmacs is from a matrix product with `side` rows and columns, by default 1024, or 8192 on a GPU. gbytes is
    from a copy of `mebibytes`; it counts reads and writes. Each is the best of 32 runs.
    """
    now = clock(device)
    side = side or (1024 if torch.device(device).type == "cpu" else 8192)
    a, b = torch.rand(2, side, side, device=device)
    source = torch.zeros(mebibytes * 2**18, device=device)  # float32
    target = torch.empty_like(source)

    def best_rate(job: Callable, amount: float) -> float:
        times = []
        for _ in range(32):
            start = now()
            job()
            times.append(now() - start)
        return amount / min(times) / 1e6  # per millisecond to billions per second

    return {
        "gmacs": best_rate(lambda: a @ b, side**3),
        "gbytes": best_rate(lambda: target.copy_(source), 2 * source.nbytes),
    }
