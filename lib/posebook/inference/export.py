"""From a trained net to one that is shipped: what is exact is folded away, and the rest written as ONNX.

1. Which norm follows which convolution is seen in a forward, not read from names, so that it holds for every
   net here. A norm is merged where its convolution gives to nothing else and both are used once.
2. A module that knows what of it is constant at a fixed input says so by a method `fixed(height, width)`:
   AMFACPose's coordinate convolutions. It was measured before it was kept; joining the star block's two 1x1
   branches into one was slower (6.0 against 4.6 ms in ONNX Runtime) and is not done.
3. ONNX by torch's own exporter (dynamo). The file is checked with onnxruntime on random pictures, in the
   batch it was made for and in another where the batch is free.
"""

import copy
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from posebook import transforms
from posebook.evaluation import predictions

TOLERANCE = 1e-4  # of a folded or written net against the one it was made from


@torch.no_grad()
def fold(model: nn.Module) -> nn.Module:
    """A copy for inference: norms merged into convolutions, constants of this input size computed.

    The model's answers change by rounding only. Raises ValueError where they do by more than TOLERANCE.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    images = torch.randn(1, 3, *model.input_size, generator=torch.Generator().manual_seed(0))
    images = images.to(next(model.parameters()).device)
    made, uses, pairs, sizes = {}, {}, {}, {}

    def watch(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        uses[module] = uses.get(module, 0) + 1
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            made[id(output)] = module, output  # the tensor is kept, so that its id stays its own
        elif isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in made:
            pairs[module] = made[id(inputs[0])][0]
        elif hasattr(module, "fixed"):
            sizes[module] = inputs[0].shape[-2:]

    hooks = [module.register_forward_hook(watch) for module in folded.modules()]
    before = [part.cpu() for part in output_list(folded(images))]
    for hook in hooks:
        hook.remove()

    for norm, conv in pairs.items():
        transposed = isinstance(conv, nn.ConvTranspose2d)
        if uses[norm] > 1 or uses[conv] > 1 or (transposed and conv.groups > 1):
            continue
        statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics, transposed)
        _replace(folded, norm, nn.Identity())
    for module, size in sizes.items():
        _replace(folded, module, module.fixed(*size))
    worst = max_difference(before, [part.cpu() for part in output_list(folded(images))])
    if not worst <= TOLERANCE:
        raise ValueError(
            f"folding moved an output by {worst:.1e}: this net has a part that fold cannot merge"
        )
    return folded


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    name = next(name for name, module in model.named_modules() if module is old)
    model.set_submodule(name, new)


def output_list(output: tuple | list) -> list[Tensor]:
    """What a model gave, as a plain list: x and y of coordinate classes, or each stage's heatmaps."""
    return list(output)


def max_difference(wanted: list, found: list) -> float:
    """The largest difference of two lists of arrays, over the largest wanted value where that is under 1.

    Infinite where one holds what is no number, or the shapes are not alike.
    """
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(wanted, found, strict=True)
    ]
    if any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    peak = max(np.abs(a).max() for a, _ in pairs)
    worst = max(np.abs(a - b).max() for a, b in pairs) / min(1.0, peak)
    return float(worst) if np.isfinite(worst) else float("inf")


class EndToEnd(nn.Module):
    """A model from picture to joints: RGB uint8 crops (B, H, W, 3) to keypoints (B, K, 2) and scores (B, K).

    Keypoints in the crop's pixels. No flip test; heatmaps are decoded with the quarter offset.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.input_size = model, model.input_size

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(transforms.normalize(crops))
        return predictions.decode(output if hasattr(output, "x") else output[-1], self.input_size)[:2]


def export(model: nn.Module, path: str | Path, batch: int | None = 1, whole: bool = False) -> Path:
    """Write a model as ONNX, folded, and check the file against the model.

    path: ends in .onnx; batch: None leaves it free. The input `images` is (B, 3, H, W) float, normalized, at
    the model's input size, the outputs the model's: `x` and `y`, or `heatmap_1` and on, one a stage.
    With whole: `crops` (B, H, W, 3) uint8 to `keypoints` (B, K, 2) in the crop's pixels and `scores` (B, K).
    The file tells skeleton, joints and input size in its metadata. Returns the path.

    Raises ValueError for another ending, and where onnxruntime's answers are not the model's to TOLERANCE
    (of `whole`: scores; and keypoints of all joints whose best two bins are not alike); ImportError without
    onnxscript or onnxruntime.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"{path.name} does not end in .onnx")
    import onnxruntime  # only who exports needs it

    device = next(model.parameters()).device
    net = EndToEnd(fold(model.cpu())).eval() if whole else fold(model.cpu())
    model.to(device)
    given = "crops" if whole else "images"
    images = _example_images(net, batch or 2, whole)
    with torch.no_grad():
        gives = ["keypoints", "scores"] if whole else _output_names(net(images))
    shapes = ({0: torch.export.Dim("batch")},) if batch is None else None
    program = _without_logging(
        torch.onnx.export, net, (images,), dynamo=True, input_names=[given], output_names=gives,
        dynamic_shapes=shapes, verbose=False,
    )  # fmt: skip
    skeleton = {"skeleton": model.skeleton.name, "keypoints": json.dumps(model.skeleton.keypoints)}
    program.model.metadata_props.update(skeleton | {"input_size": json.dumps(model.input_size)})
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(path)

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (batch,) if batch else (1, 3):
        images = _example_images(net, count, whole)
        with torch.no_grad():
            wanted = output_list(net(images))
        found = session.run(None, {given: images.numpy()})
        if whole:  # where two bins are alike to rounding, either is right
            moved = np.abs(found[0] - wanted[0].numpy()).max(-1) > TOLERANCE  # (B, K)
            if moved.mean() > 0.1:
                raise ValueError(f"{path.name} places {moved.sum()} of {moved.size} joints elsewhere")
            wanted, found = wanted[1:], found[1:]
        worst = max_difference(wanted, found)
        if not worst <= TOLERANCE:
            path.unlink()
            raise ValueError(f"{path.name} answers otherwise than the model, by {worst:.1e}")
    return path


def _example_images(net: nn.Module, count: int, whole: bool) -> Tensor:
    """Random input of a net; fixed, so that a file's check gives the same figure each time."""
    generator = torch.Generator().manual_seed(count)
    if whole:
        return torch.randint(0, 256, (count, *net.input_size, 3), dtype=torch.uint8, generator=generator)
    return torch.randn(count, 3, *net.input_size, generator=generator)


def _output_names(output: tuple | list) -> list[str]:
    if hasattr(output, "_fields"):
        return list(output._fields)
    return [f"heatmap_{stage + 1}" for stage in range(len(output))]


def _without_logging(call, *arguments, **how):
    """Call without the exporter's notes on its own inside."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call(*arguments, **how)
    finally:
        logging.disable(logging.NOTSET)
