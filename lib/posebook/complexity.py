"""Parameters and multiply-adds of a model, counted without running it on data.

"GFLOPs" in this field's tables are multiply-adds, of which each tool counts other operations and prints other
units. `exact` is ours; the rest are what the papers' tools would have said of the same net:

exact      convolutions, linear layers and matrix products: torch's own counter on the meta device, where no
           fused attention kernel hides a product
fvcore     (and mmengine, so mmpose 1.x) exact without fused attention; batch norm 2 an element, layer norm
           5, adaptive pooling 1 an input element, upsampling 1 (nearest) or 4 (bilinear) an output element
thop       by module type: no bias, batch and layer norm 4 an element, transposed convolutions on the output
           grid, softmax, bilinear upsampling 11 an output element; no product outside a layer. Its total of
           parameters leaves out what no such layer holds: bare parameters
mmcv       (1.x, so mmpose 0.x) by module type: bias, norms 2, ReLU and its kin 1, pooling and upsampling 1
hrnet      the HRNet code's get_model_summary: convolutions and linear layers, transposed ones on the output
           grid, linear layers on tokens times their number; printed over 2^30
torchstat  as carried by Lite-HRNet: much as mmcv, but a module called twice counts once; printed over 2^20
"""

import functools
import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

UNITS = {"exact": 1e9, "fvcore": 1e9, "thop": 1e9, "mmcv": 1e9, "hrnet": 2**30, "torchstat": 2**20 * 1e3}

CONV = (nn.Conv1d, nn.Conv2d)
NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)
RELU = (nn.ReLU, nn.ReLU6, nn.PReLU, nn.LeakyReLU, nn.ELU)
POOL = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)

Rule = Callable[[nn.Module, Tensor, Tensor], int]  # of a module, its input and its output


def _per_element(weight: int, of_output: bool = False) -> Rule:
    """`weight` an element of the input, or of the output."""
    return lambda m, x, y: weight * (y if of_output else x).numel()


def _conv(m: nn.Module, x: Tensor, y: Tensor) -> int:
    return y.numel() * m.weight[0].numel()


def _conv_and_bias(m: nn.Module, x: Tensor, y: Tensor) -> int:
    return y.numel() * (m.weight[0].numel() + (m.bias is not None))


def _transposed(m: nn.Module, x: Tensor, y: Tensor) -> int:
    return x.numel() * m.weight[0].numel()


def _transposed_on_output_grid(m: nn.Module, x: Tensor, y: Tensor) -> int:
    return y[0, 0].numel() * len(y) * m.weight.numel()


def _linear(m: nn.Module, x: Tensor, y: Tensor) -> int:
    return y.numel() * m.in_features


def _softmax(m: nn.Module, x: Tensor, y: Tensor) -> int:
    return x.numel() // x.shape[m.dim] * (3 * x.shape[m.dim] - 1)


def _mean(extra: int, windows: int) -> Rule:
    """Adaptive average pooling: the window's sides, `extra` added to each, and `windows` for the division."""

    def rule(m: nn.Module, x: Tensor, y: Tensor) -> int:
        height, width = (i // o + extra for i, o in zip(x.shape[-2:], y.shape[-2:], strict=True))
        return y.numel() * (height * width + windows)

    return rule


RULES: dict[str, dict[tuple | type, Rule]] = {
    "thop": {
        CONV: _conv,
        nn.ConvTranspose2d: _transposed_on_output_grid,
        NORM: _per_element(4),
        nn.Linear: _linear,
        nn.Softmax: _softmax,
        nn.AdaptiveAvgPool2d: _mean(0, 1),
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
        nn.Linear: lambda m, x, y: y.numel() * x.shape[1],
    },
    "torchstat": {
        nn.Conv2d: _conv_and_bias,
        nn.ConvTranspose2d: _transposed,
        nn.BatchNorm2d: _per_element(2),
        nn.Linear: lambda m, x, y: _linear(m, x, y) if x.ndim == 2 else 0,
        RELU: _per_element(1),
        (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d): _mean(1, 0),
        (nn.MaxPool2d, nn.AvgPool2d): lambda m, x, y: y.numel() * m.kernel_size**2,
        nn.Upsample: lambda m, x, y: len(y) * y[0, 0].numel(),
    },
}


class SkipInit(TorchFunctionMode):
    """Within it no layer draws its starting weights: for nets on the meta device, which are only counted."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        if getattr(function, "__module__", None) == "torch.nn.init":
            return (options or {}).get("tensor", arguments[0] if arguments else None)
        return function(*arguments, **(options or {}))


class _FvcoreExtras(TorchFunctionMode):
    """What fvcore counts beside the exact products, and the fused attention it does not see."""

    total = 0

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = options or {}
        y = function(*arguments, **options)
        if function in (functional.batch_norm, functional.layer_norm):
            self.total += y.numel() * (2 if function is functional.batch_norm else 5)
        elif function is functional.adaptive_avg_pool2d:
            self.total += arguments[0].numel()
        elif function is functional.interpolate:
            mode = options.get("mode", arguments[3] if len(arguments) > 3 else "nearest")
            self.total += y.numel() * (4 if mode == "bilinear" else 1)
        elif function is functional.scaled_dot_product_attention:
            query, key, value = arguments[:3]
            pairs = query.numel() // query.shape[-1] * key.shape[-2]
            self.total -= pairs * (query.shape[-1] + value.shape[-1])
        return y


def _module_hooks(model: nn.Module) -> tuple[dict, list]:
    """Hooks that fill {convention: {module: multiply-adds}}, and their handles."""
    seen: dict[str, dict[nn.Module, int]] = {convention: {} for convention in RULES}

    def look(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        for convention, rules in RULES.items():
            for types, rule in rules.items():
                if isinstance(module, types):
                    earlier = 0 if convention == "torchstat" else seen[convention].get(module, 0)
                    seen[convention][module] = earlier + rule(module, inputs[0], output)

    leaves = [module for module in model.modules() if not any(module.children())]
    return seen, [module.register_forward_hook(look) for module in leaves]


def count(model: nn.Module, input_size: tuple[int, int]) -> dict:
    """Parameters and multiply-adds for one image of input_size (height, width), by every convention.

    {"params": int, "thop_params": int, "macs": {"exact": int, "fvcore": int, ...}}; the model stays as it
    was. `printed` gives the figure in the unit each tool prints.
    """
    meta = {name: value.to("meta") for name, value in (*model.named_parameters(), *model.named_buffers())}
    training = model.training
    model.eval()
    seen, handles = _module_hooks(model)
    try:
        image = torch.empty(1, 3, *input_size, device="meta")
        with FlopCounterMode(display=False) as counter, _FvcoreExtras() as beside, torch.no_grad():
            torch.func.functional_call(model, meta, (image,))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    exact = counter.get_total_flops() // 2
    macs = {"exact": exact, "fvcore": exact + beside.total}
    macs |= {convention: sum(modules.values()) for convention, modules in seen.items()}
    return {
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "thop_params": sum(p.numel() for module in seen["thop"] for p in module.parameters()),
        "macs": macs,
    }


def shapes(model: nn.Module, names: list[str]) -> dict[str, tuple[int, ...]]:
    """The output shape of each named module for one image of the model's input_size, batch left out.

    Of a module that runs several times the last shape. Raises AttributeError for a name that is not there.
    """
    seen: dict[str, tuple[int, ...]] = {}

    def look(name: str) -> Callable:
        return lambda module, inputs, output: seen.update({name: tuple(output.shape[1:])})

    handles = [model.get_submodule(name).register_forward_hook(look(name)) for name in names]
    meta = {name: value.to("meta") for name, value in (*model.named_parameters(), *model.named_buffers())}
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            torch.func.functional_call(model, meta, (torch.empty(1, 3, *model.input_size, device="meta"),))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return {name: seen[name] for name in names}


def in_tool_units(counted: dict, convention: str) -> float:
    """The figure of `count` in giga, as the convention's tool prints it."""
    return counted["macs"][convention] / UNITS[convention]


def matching_counters(value: str, figures: dict[str, float]) -> list[tuple[str, str]]:
    """Ways to a printed value from figures by name: (name, "rounded" or "cut off"), both where both do.

    At the digits the value has; where the last of several is a zero, also without it.
    """
    ways, padded = [], len(value.partition(".")[2]) > 1 and value.endswith("0")
    for text in {value, value[:-1]} if padded else {value} - {""}:
        digits = len(text.partition(".")[2])
        for name, figure in figures.items():
            if f"{figure:.{digits}f}" == f"{float(text):.{digits}f}":
                ways.append((name, "rounded"))
            if math.floor(figure * 10**digits + 1e-9) == round(float(text) * 10**digits):
                ways.append((name, "cut off"))
    return sorted(set(ways))


@functools.cache
def code_hash() -> str:
    """A hash of the code that counts depend on: this file and the models."""
    folder = Path(__file__).parent
    files = [Path(__file__), folder / "codecs.py", *sorted((folder / "models").glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
