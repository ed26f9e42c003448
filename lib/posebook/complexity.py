"""Count parameters and multiply-adds of a model without running it on data.

The "GFLOPs" in the tables of this field are multiply-adds. The tools differ in the operations that they count
and in the unit that they print. `exact` is our own counter. The others reproduce the tools that papers used:

exact      convolutions, linear layers and matrix products, counted by PyTorch's FlopCounterMode on the meta
           device, where no fused attention kernel hides a product
fvcore     (also mmengine, thus mmpose 1.x) as exact, without fused attention; plus 2 for each element in
           batch norm and 5 in layer norm, 1 for each input element of adaptive average pooling, and 1
           (nearest) or 4 (bilinear) for each output element of upsampling
thop       by module type: convolutions and linear layers without bias, batch norm and layer norm 4 for each
           element, transposed convolutions on the output grid, softmax, average pooling, and bilinear
           upsampling 11 for each output element; no products outside of layers. Its number of parameters
           omits bare parameters, which belong to no counted layer
mmcv       (1.x, thus mmpose 0.x) by module type: convolutions with bias, norms 2 for each element, ReLU and
           its variants, pooling and upsampling 1
hrnet      get_model_summary of the HRNet code: convolutions and linear layers; transposed convolutions on the
           output grid; a linear layer on tokens (B, N, C) multiplies by N instead of C. Prints units of 2^30
torchstat  the copy in Lite-HRNet: similar to mmcv, but counts a module that runs twice only once. Prints
           units of 2^20
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from posebook import import_graph

# The unit of each tool: multiply-adds for one printed "G".
UNITS = {"exact": 1e9, "fvcore": 1e9, "thop": 1e9, "mmcv": 1e9, "hrnet": 2**30, "torchstat": 2**20 * 1e3}

CONV = (nn.Conv1d, nn.Conv2d)
NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)
RELU = (nn.ReLU, nn.ReLU6, nn.PReLU, nn.LeakyReLU, nn.ELU)
POOL = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)

# Multiply-adds of a module from its input and its output. Any: the rules read attributes of layer classes.
Rule = Callable[[Any, Tensor, Tensor], int]


def _per_element(weight: int, of_output: bool = False) -> Rule:
    """`weight` for each element of the input, or of the output."""
    return lambda m, x, y: weight * (y if of_output else x).numel()


def _conv(m: Any, x: Tensor, y: Tensor) -> int:
    return y.numel() * m.weight[0].numel()


def _conv_and_bias(m: Any, x: Tensor, y: Tensor) -> int:
    return y.numel() * (m.weight[0].numel() + (m.bias is not None))


def _transposed(m: Any, x: Tensor, y: Tensor) -> int:
    return x.numel() * m.weight[0].numel()


def _transposed_on_output_grid(m: Any, x: Tensor, y: Tensor) -> int:
    return y[0, 0].numel() * len(y) * m.weight.numel()


def _linear(m: Any, x: Tensor, y: Tensor) -> int:
    return y.numel() * m.in_features


def _softmax(m: Any, x: Tensor, y: Tensor) -> int:
    return x.numel() // x.shape[m.dim] * (3 * x.shape[m.dim] - 1)


def _adaptive_pool(extra: int, division: int) -> Rule:
    """Adaptive pooling: the window area with `extra` added to each side, plus `division`, for each output."""

    def rule(m: Any, x: Tensor, y: Tensor) -> int:
        height, width = (i // o + extra for i, o in zip(x.shape[-2:], y.shape[-2:], strict=True))
        return y.numel() * (height * width + division)

    return rule


RULES: dict[str, dict[tuple | type, Rule]] = {
    "thop": {
        CONV: _conv,
        nn.ConvTranspose2d: _transposed_on_output_grid,
        NORM: _per_element(4),
        nn.Linear: _linear,
        nn.Softmax: _softmax,
        nn.AdaptiveAvgPool2d: _adaptive_pool(0, 1),
        nn.AvgPool2d: _per_element(1, of_output=True),
        nn.Upsample: lambda m, x, y: y.numel() * {"nearest": 1, "bilinear": 11}[m.mode],
    },
    "mmcv": {
        CONV: _conv_and_bias,
        nn.ConvTranspose2d: _transposed,
        NORM: _per_element(2),
        nn.Linear: _linear,
        RELU: _per_element(1, of_output=True),
        POOL: _per_element(1),
        nn.Upsample: _per_element(1, of_output=True),
    },
    "hrnet": {
        CONV: _conv,
        nn.ConvTranspose2d: _transposed_on_output_grid,
        nn.Linear: lambda m, x, y: y.numel() * x.shape[1],  # in_features only if x is (B, C)
    },
    "torchstat": {
        nn.Conv2d: _conv_and_bias,
        nn.ConvTranspose2d: _transposed,
        nn.BatchNorm2d: _per_element(2),
        nn.Linear: lambda m, x, y: _linear(m, x, y) if x.ndim == 2 else 0,
        RELU: _per_element(1),
        (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d): _adaptive_pool(1, 0),
        (nn.MaxPool2d, nn.AvgPool2d): lambda m, x, y: y.numel() * m.kernel_size**2,
        nn.Upsample: lambda m, x, y: len(y) * y[0, 0].numel(),
    },
}


class SkipInit(TorchFunctionMode):
    """Context that skips weight initialization, for models on the meta device that are only counted."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__module__", None) == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return function(*args, **(kwargs or {}))


class _FvcoreExtras(TorchFunctionMode):
    """Counts what fvcore adds to the exact products, minus the fused attention that fvcore misses."""

    total = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # PyTorch decomposes a batch norm on the meta device into many small operations, 20 to 30 % of the
        # time of a count. Its output has the shape of its input.
        is_batch_norm = function is functional.batch_norm
        y = torch.empty_like(args[0]) if is_batch_norm else function(*args, **kwargs)
        if function in (functional.batch_norm, functional.layer_norm):
            self.total += y.numel() * (2 if function is functional.batch_norm else 5)
        elif function is functional.adaptive_avg_pool2d:
            self.total += args[0].numel()
        elif function is functional.interpolate:
            mode = kwargs.get("mode", args[3] if len(args) > 3 else "nearest")
            self.total += y.numel() * (4 if mode == "bilinear" else 1)
        elif function is functional.scaled_dot_product_attention:
            query, key, value = args[:3]
            pairs = query.numel() // query.shape[-1] * key.shape[-2]
            self.total -= pairs * (query.shape[-1] + value.shape[-1])
        return y


def run_on_meta(model: nn.Module, *inputs: Tensor) -> None:
    """Run a model in eval mode on the meta device, for its hooks: tensors have shapes, but no values.

    inputs: on the meta device. The weights, device and mode of the model stay unchanged.
    """
    tensors = (*model.named_parameters(), *model.named_buffers())
    meta = {name: value.detach().to("meta") for name, value in tensors}
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            torch.func.functional_call(model, meta, inputs)
    finally:
        model.train(training)


@contextmanager
def recorded_calls(modules: Iterable[nn.Module]) -> Iterator[list[tuple[nn.Module, tuple, Any]]]:
    """A list of every call of these modules in the block, in order: (module, inputs, output)."""
    calls: list[tuple[nn.Module, tuple, Any]] = []
    hooks = [module.register_forward_hook(lambda *call: calls.append(call)) for module in modules]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def record_calls(
    model: nn.Module, modules: Iterable[nn.Module], *input_shapes: tuple[int, ...]
) -> list[tuple[nn.Module, tuple, Any]]:
    """`recorded_calls` of these submodules in `run_on_meta`."""
    with recorded_calls(modules) as calls:
        run_on_meta(model, *(torch.empty(shape, device="meta") for shape in input_shapes))
    return calls


def count(model: nn.Module, input_size: tuple[int, int]) -> dict:
    """Parameters and multiply-adds for one image of input_size (height, width), by each convention.

    Returns {"params": int, "thop_params": int, "macs": {"exact": int, "fvcore": int, ...}}. The model stays
    unchanged. `in_tool_units` converts the multiply-adds to the unit that each tool prints.
    """
    leaves = [module for module in model.modules() if not any(module.children())]
    with FlopCounterMode(display=False) as counter, _FvcoreExtras() as extras:
        calls = record_calls(model, leaves, (1, 3, *input_size))
    by_module: dict[str, dict[nn.Module, int]] = {convention: {} for convention in RULES}
    for module, inputs, output in calls:
        for convention, rules in RULES.items():
            for types, rule in rules.items():
                if isinstance(module, types):
                    earlier = 0 if convention == "torchstat" else by_module[convention].get(module, 0)
                    by_module[convention][module] = earlier + rule(module, inputs[0], output)
    exact = counter.get_total_flops() // 2  # PyTorch counts a multiply-add as two operations
    macs = {"exact": exact, "fvcore": exact + extras.total}
    macs |= {convention: sum(values.values()) for convention, values in by_module.items()}
    return {
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "thop_params": sum(p.numel() for module in by_module["thop"] for p in module.parameters()),
        "macs": macs,
    }


def shapes(model: nn.Module, names: list[str]) -> dict[str, tuple[int, ...]]:
    """The output shape of each named submodule for one image of the model's input_size, without the batch.

    If a module runs several times, its last shape is returned. Raises AttributeError for an unknown name.
    """
    modules = {name: model.get_submodule(name) for name in names}
    input_size: Any = model.input_size
    calls = record_calls(model, modules.values(), (1, 3, *input_size))
    last = {module: tuple(output.shape[1:]) for module, _, output in calls}
    return {name: last[module] for name, module in modules.items()}


def in_tool_units(counted: dict, convention: str) -> float:
    """The multiply-adds from `count` in giga, in the unit of the convention's tool."""
    return counted["macs"][convention] / UNITS[convention]


@functools.cache
def code_hash() -> str:
    """A hash of the code that the counts depend on: this file, the models, and what they import."""
    models = sorted(path.stem for path in (Path(__file__).parent / "models").glob("*.py"))
    return import_graph.code_hash([__name__, *(f"posebook.models.{name}" for name in models)])
