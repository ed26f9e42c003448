"""Prepare a trained model for deployment: fold it, and export it to ONNX.

1. A forward pass with hooks finds which batch norm follows which convolution. Module names are not used, so
   this works for every model. A norm is merged if it and its convolution are used once. If the convolution's
   output has another consumer, the outputs change, and the model is rejected.
2. A module with parts that are constant at a fixed input size has a method `fixed(height, width)`. Only
   AMFACPose's coordinate convolutions have it. It stayed because it measured faster. Joining the two 1x1
   branches of the star block into one was slower (6.0 against 4.6 ms in ONNX Runtime), so it is not done.
3. torch's own exporter (dynamo) writes the ONNX file. onnxruntime then checks the file on random images, with
   the batch size that it was made for. If the batch size is free, it checks two batch sizes.
4. Files contain Mish as x * p / (2 - p), where p = s * (2 - s) and s = sigmoid(x). This is the same function.
   ONNX Runtime has no kernel for Mish. It computes tanh(softplus(x)), and its Softplus is not vectorized: it
   took nine tenths of the time of AMFACPose (docs/experiments.md).
"""

import copy
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from posebook import codecs, transforms
from posebook.evaluation import predictions
from posebook.inference.output import staged_folder
from posebook.models.layers import PoseModel

TOLERANCE = 1e-4  # largest accepted difference between a folded or exported model and its source
MAX_MOVED = 0.1  # largest accepted share of joints that a file with decoding locates elsewhere


class OutputMismatch(ValueError):
    """A model prepared for inference does not compute the outputs of its source."""


@torch.no_grad()
def fold(model: PoseModel) -> PoseModel:
    """Return a copy for inference: batch norms merged into convolutions, constants precomputed.

    Constants hold for the model's input size. Outputs change by rounding only. Raises OutputMismatch, a
    ValueError, if they change by more than TOLERANCE.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    images = torch.randn(1, 3, *model.input_size, generator=torch.Generator().manual_seed(0))
    images = images.to(next(model.parameters()).device)
    conv_outputs: dict[int, tuple[nn.Module, Tensor]] = {}
    calls: dict[nn.Module, int] = {}
    norm_to_conv: dict[nn.BatchNorm2d, nn.Module] = {}
    specialized: dict[nn.Module, Callable[[], nn.Module]] = {}

    def record(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            # a reference to the tensor prevents Python from reusing its id
            conv_outputs[id(output)] = module, output
        elif isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in conv_outputs:
            norm_to_conv[module] = conv_outputs[id(inputs[0])][0]
        elif specialize := getattr(module, "fixed", None):
            specialized[module] = partial(specialize, *inputs[0].shape[-2:])

    hooks = [module.register_forward_hook(record) for module in folded.modules()]
    expected = [output.cpu() for output in folded(images)]
    for hook in hooks:
        hook.remove()

    for norm, conv in norm_to_conv.items():
        assert isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)) and norm.running_mean is not None
        assert norm.running_var is not None
        transposed = isinstance(conv, nn.ConvTranspose2d)
        # fuse_conv_bn_weights is wrong for grouped transposed convolutions
        if calls[norm] > 1 or calls[conv] > 1 or (transposed and conv.groups > 1):
            continue
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias,
            transposed,
        )  # fmt: skip
        _replace(folded, norm, nn.Identity())
    for module, make in specialized.items():
        _replace(folded, module, make())
    difference = max_difference(expected, [output.cpu() for output in folded(images)])
    if not difference <= TOLERANCE:
        raise OutputMismatch(
            f"folding changed an output by {difference:.1e}: the model has a module that fold cannot merge"
        )
    return folded


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    name = next(name for name, module in model.named_modules() if module is old)
    model.set_submodule(name, new)


def max_difference(expected: list, actual: list) -> float:
    """Return the largest absolute difference between two lists of arrays.

    If the largest expected value is under 1, the difference is divided by it. The result is infinite if the
    shapes differ or if a value is not finite.
    """
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(expected, actual, strict=True)
    ]
    if any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    peak = max(np.abs(a).max() for a, _ in pairs)
    difference = max(np.abs(a - b).max() for a, b in pairs) / min(1.0, peak)
    return float(difference) if np.isfinite(difference) else float("inf")


def moved_joints(expected: np.ndarray | Tensor, actual: np.ndarray | Tensor) -> float:
    """The share of joints (..., K, 2) that are more than TOLERANCE pixels from the expected point."""
    distance = np.abs(np.asarray(actual, np.float64) - np.asarray(expected, np.float64)).max(-1)  # (..., K)
    return float((~(distance <= TOLERANCE)).mean())  # NaN counts as moved


class SigmoidMish(nn.Module):
    """Mish with operators that ONNX Runtime has fast kernels for (choice 4)."""

    def forward(self, x: Tensor) -> Tensor:
        s = torch.sigmoid(x)
        p = s * (2 - s)
        return x * (p / (2 - p))


class EndToEnd(nn.Module):
    """A model from image to joints: RGB uint8 crops (B, H, W, 3) to keypoints (B, K, 2) and scores (B, K).

    Keypoints are in crop pixels. There is no flip test. Heatmaps are decoded with the quarter offset, also
    those of `model.dark`.
    """

    def __init__(self, model: PoseModel):
        super().__init__()
        self.model, self.input_size = model, model.input_size

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(transforms.normalize(crops))
        keypoints, scores, _ = predictions.decode(output, self.input_size)
        return keypoints, scores


def export(model: PoseModel, path: str | Path, batch: int | None = 1, end_to_end: bool = False) -> Path:
    """Fold a model, write it as ONNX, check the file against the model, and return the path.

    path ends in .onnx. batch is the batch size; None leaves it free. The input `images` is (B, 3, H, W)
    float, normalized, at the model's input size. The outputs are the model's: `x` and `y`, or `heatmap_1`,
    `heatmap_2` and so on, one for each stage. With end_to_end, the input is `crops` (B, H, W, 3) uint8, and
    the outputs are `keypoints` (B, K, 2) in crop pixels and `scores` (B, K). The file's metadata contains
    the skeleton, the joint names and the input size.

    Raises ValueError for another file suffix, a batch size below 1, and for end_to_end with weights trained
    with UDP: the file has neither their crops nor their decoding. Raises OutputMismatch, and writes no file,
    if the outputs of onnxruntime and of the model differ by more than TOLERANCE. With end_to_end, the scores
    must agree, and all joints but a share of MAX_MOVED: those can have two equal maxima. Raises ImportError
    without onnxscript or onnxruntime.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"{path.name} does not end in .onnx")
    if batch is not None and batch < 1:
        raise ValueError(f"the batch size is {batch}: give a positive number, or 0 to leave it free")
    if end_to_end and model.udp:
        raise ValueError(
            "end-to-end export has no decoding for weights trained with UDP: leave out end_to_end"
        )
    import onnxruntime  # noqa: F401  an optional dependency: fail before the export, not after it

    device = next(model.parameters()).device
    folded = fold(model.cpu())
    model.to(device)
    source: PoseModel | EndToEnd = EndToEnd(folded).eval() if end_to_end else folded
    exported = copy.deepcopy(source)
    for module in [module for module in exported.modules() if isinstance(module, nn.Mish)]:
        _replace(exported, module, SigmoidMish())
    input_name = "crops" if end_to_end else "images"
    images = _example_images(exported, batch or 2)  # a batch of 1 would be exported as a constant
    with torch.no_grad():
        output_names = ["keypoints", "scores"] if end_to_end else _output_names(exported(images))
    shapes = ({0: torch.export.Dim("batch")},) if batch is None else None
    program = to_onnx(exported, images, [input_name], output_names, dynamic_shapes=shapes)
    skeleton = {"skeleton": model.skeleton.name, "keypoints": json.dumps(model.skeleton.keypoints)}
    program.model.metadata_props.update(skeleton | {"input_size": json.dumps(model.input_size)})
    with staged_folder(path.parent) as folder:  # weights over 2 GB are in a second file
        program.save(folder / path.name)
        _check_file(folder / path.name, source, (batch,) if batch else (1, 3))
    return path


def to_onnx(
    model: nn.Module, images: Tensor, inputs: Sequence[str], outputs: Sequence[str], **options: Any
) -> torch.onnx.ONNXProgram:
    """Run torch's ONNX exporter without the messages about its internals.

    inputs, outputs: their names. options: as for torch.onnx.export.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            program = torch.onnx.export(
                model,
                (images,),
                dynamo=True,
                verbose=False,
                input_names=inputs,
                output_names=outputs,
                **options,
            )
        finally:
            logging.disable(logging.NOTSET)
    assert program is not None  # it is None only with dynamo=False
    return program


def _check_file(path: Path, model: PoseModel | EndToEnd, batches: tuple[int, ...]) -> None:
    """Raise OutputMismatch if onnxruntime and the model disagree on random images."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in batches:
        images = _example_images(model, batch)
        with torch.no_grad():
            expected = list(model(images))
        actual = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        if isinstance(model, EndToEnd):  # if two bins are equal up to rounding, either one is correct
            if (moved := moved_joints(expected[0], actual[0])) > MAX_MOVED:
                raise OutputMismatch(
                    f"{path.name} locates {moved:.0%} of the joints elsewhere than the model"
                )
            expected, actual = expected[1:], actual[1:]
        difference = max_difference(expected, actual)
        if not difference <= TOLERANCE:
            raise OutputMismatch(f"the outputs of {path.name} differ from the model's by {difference:.1e}")


def _example_images(model: PoseModel | EndToEnd, count: int) -> Tensor:
    """Random model input. Its seed is fixed so that the check of a file is reproducible."""
    generator = torch.Generator().manual_seed(count)
    height, width = model.input_size
    if isinstance(model, EndToEnd):
        return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)
    return torch.randn(count, 3, height, width, generator=generator)


def _output_names(output: codecs.SimCC | list[Tensor]) -> list[str]:
    if isinstance(output, codecs.SimCC):
        return list(output._fields)
    return [f"heatmap_{stage}" for stage in range(1, len(output) + 1)]
