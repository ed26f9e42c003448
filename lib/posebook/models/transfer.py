"""Initialize a model from weights of the same model with other joints or another input size.

1. Tensors of the same shape are copied.
2. An axis that counts joints is mapped by joint name. Joints that the weights do not have keep their
   initialization.
3. An axis that depends on the input size is interpolated linearly; if it counts cells of a grid, over rows
   and columns. If a layer sums over this axis (the inputs of a linear layer), its weights are scaled so that
   the sum stays the same for an image with the same content.

To find these axes, the model is built with one more joint, at twice the height, and at twice the width. Two
kinds of axes cannot be transferred, both in AMFACPose: inputs along one side with several features per
position, and axes with several slices per joint.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import safetensors
import torch
import torch.nn.functional as F
from torch import Tensor

from posebook import models, skeletons
from posebook.models import key_mapping
from posebook.models.layers import PoseModel
from posebook.skeletons import Skeleton


@dataclass
class TransferReport:
    """How each tensor of a model was initialized, by name."""

    copied: list[str] = field(default_factory=list)
    mapped: list[str] = field(default_factory=list)  # by joint name
    interpolated: list[str] = field(default_factory=list)  # to another input size
    initialized: list[str] = field(default_factory=list)  # names of joints that the weights do not have

    def summary(self) -> str:
        """One line of text with the counts and the names of the initialized joints."""
        text = f"copied {len(self.copied)} tensors, mapped {len(self.mapped)} by joint name, "
        text += f"interpolated {len(self.interpolated)} to the input size, initialized "
        return text + (", ".join(self.initialized) or "nothing")

    def describe(self) -> dict:
        """The entry for a record."""
        return asdict(self) | {"copied": len(self.copied)}


@dataclass(frozen=True)
class _Config:
    """The arguments of `models.build`."""

    name: str
    skeleton: Skeleton
    input_size: tuple[int, int]
    options: dict[str, object]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the model's tensors, without memory for their values."""
        with torch.device("meta"):
            model = models.build(self.name, self.skeleton, self.input_size, **self.options)
        return {key: tuple(value.shape) for key, value in model.state_dict().items()}


# For each axis of a tensor: whether its length depends on the joints, the height and the width of the input.
Axes = list[tuple[bool, bool, bool]]


def check_weights(path: str | Path, name: str) -> None:
    """Check that `path` contains weights that can initialize the model `name`.

    Raises FileNotFoundError if the file does not exist, and ValueError for weights of another model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights to start from at {path}: init names a file that does not exist")
    try:
        facts = models.describe_weights(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path.name} cannot be read as weights: {error}") from error
    if facts.get("model", name) != name:
        raise ValueError(f"{path.name} holds weights of {facts['model']}, not of {name}")


def transfer_weights(model: PoseModel, path: str | Path, name: str) -> TransferReport:
    """Initialize `model`, which `models.build(name, ...)` built, from a weights file.

    Raises the errors of `check_weights`, and ValueError for weights that cannot be mapped or interpolated;
    the model then stays unchanged.
    """
    check_weights(path, name)
    path = Path(path)
    facts, state = models.describe_weights(path), models.read_checkpoint(path)
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    if not facts:  # an authors' file does not describe its model, so it must fit as it is
        models.load_official(model, state)
        return TransferReport(copied=list(state))
    skeleton = skeletons.from_description(facts["skeleton"])
    source = _Config(name, skeleton, tuple(facts["input_size"]), facts["options"])
    shapes = source.shapes()
    state = key_mapping.remap_keys(state, shapes)
    if shapes != {key: tuple(value.shape) for key, value in state.items()}:
        raise ValueError(f"{path.name} is damaged: its tensors do not match its description of {name}")
    joints = model.skeleton.keypoints
    if not set(joints) & set(skeleton.keypoints):
        more = ", ..." if len(joints) > 4 else ""
        raise ValueError(f"{path.name} has none of the joints {', '.join(joints[:4])}{more}")
    initial = model.state_dict()
    if initial.keys() != state.keys():
        models.load_official(model, state)  # raises an error that names the keys that differ

    report, merged = TransferReport(), {}
    axes = _find_axes(source, shapes, model)
    for key, start in initial.items():
        value = _transfer_tensor(key, state[key], start, axes[key], source, model, report)
        if value.shape != start.shape:
            raise ValueError(
                f"{path.name} does not fit: {key} is {tuple(value.shape)}, not {tuple(start.shape)}; the "
                f"options in the file are {source.options}"
            )
        merged[key] = value
    if report.mapped:
        report.initialized += [joint for joint in joints if joint not in skeleton.keypoints]
    model.load_state_dict(merged)
    return report


def _find_axes(source: _Config, shapes: dict[str, tuple[int, ...]], model: PoseModel) -> dict[str, Axes]:
    """The dependencies of all tensors of `source` on those joints and sizes in which `model` differs."""
    height, width = source.input_size
    more_joints = taller = wider = shapes
    if source.skeleton.keypoints != model.skeleton.keypoints:
        names = [f"joint {k}" for k in range(len(source.skeleton.keypoints) + 1)]
        more_joints = replace(source, skeleton=skeletons.make_skeleton("probe", names, [], None)).shapes()
    if source.input_size != model.input_size:
        taller = replace(source, input_size=(2 * height, width)).shapes()
        wider = replace(source, input_size=(height, 2 * width)).shapes()
    return {
        key: [
            (more_joints[key][axis] != length, taller[key][axis] != length, wider[key][axis] != length)
            for axis, length in enumerate(shape)
        ]
        for key, shape in shapes.items()
    }


def _transfer_tensor(
    key: str,
    value: Tensor,
    initial: Tensor,
    axes: Axes,
    source: _Config,
    model: PoseModel,
    report: TransferReport,
) -> Tensor:
    """`value` with its axes interpolated and mapped as `initial` needs it; adds `key` to `report`."""
    old_size, new_size = source.input_size, model.input_size
    for axis, (_, *grows) in enumerate(axes):
        if any(grown and old != new for grown, old, new in zip(grows, old_size, new_size, strict=True)):
            value = _interpolate(key, value, axis, initial.shape[axis], old_size, new_size, grows)
            report.interpolated += [key] if key not in report.interpolated else []
    for axis, (counts_joints, *_) in enumerate(axes):
        if counts_joints:
            value = _map_joints(
                key, value, initial, axis, source.skeleton.keypoints, model.skeleton.keypoints
            )
            report.mapped.append(key)
    if key not in report.mapped and key not in report.interpolated:
        report.copied.append(key)
    return value


def _map_joints(
    key: str, value: Tensor, initial: Tensor, axis: int, old: Sequence[str], new: Sequence[str]
) -> Tensor:
    """`initial` with the slices along `axis` of all joints that `value` has too.

    old, new: joint names of `value` and `initial`. Their other axes have the same lengths. Raises ValueError
    if a joint has several slices.
    """
    if value.shape[axis] != len(old) or initial.shape[axis] != len(new):
        raise ValueError(
            f"{key} cannot be mapped by joint name: it has {value.shape[axis]} slices for {len(old)} joints"
        )
    mapped = initial.clone()
    for index, joint in enumerate(new):
        if joint in old:
            mapped.select(axis, index).copy_(value.select(axis, old.index(joint)))
    return mapped


def _interpolate(
    key: str,
    value: Tensor,
    axis: int,
    length: int,
    old_size: tuple[int, int],
    new_size: tuple[int, int],
    grows: Sequence[bool],
) -> Tensor:
    """`value` with `axis` interpolated to `length`, from input size `old_size` to `new_size`.

    grows: whether the axis grows with the input's height and with its width. If it grows with both, it counts
    cells of a grid, otherwise positions along one side. Raises ValueError if its length does not agree with
    this.
    """
    old_length, is_summed = value.shape[axis], axis == 1 and value.ndim == 2  # inputs of a linear layer
    last = value.movedim(axis, -1)
    flat = last.reshape(-1, 1, old_length)  # (N, 1, old_length)
    if all(grows):
        old_grid, new_grid = _grid(old_length, old_size), _grid(length, new_size)
        if old_grid is None or new_grid is None:
            raise ValueError(f"{key} cannot be interpolated: axis {axis} is not a grid of cells of the input")
        cells = F.interpolate(flat.unflatten(2, old_grid), new_grid, mode="bilinear", align_corners=False)
        flat = cells.flatten(2)  # (N, 1, length)
    elif is_summed:
        raise ValueError(
            f"{key} cannot be interpolated from input {old_size[0]}x{old_size[1]} to "
            f"{new_size[0]}x{new_size[1]}: its inputs along one side have several features per position"
        )
    else:
        flat = F.interpolate(flat, length, mode="linear", align_corners=False)  # (N, 1, length)
    if is_summed:  # the number of inputs changes, their sum does not
        flat = flat * (old_length / length)
    return flat.reshape(*last.shape[:-1], length).movedim(-1, axis).contiguous()


def _grid(cells: int, input_size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of a map with this number of cells; None if no stride from 4 to 64 gives them."""
    height, width = input_size
    for stride in (4, 8, 16, 32, 64):
        if height % stride == 0 and width % stride == 0 and cells == height // stride * (width // stride):
            return height // stride, width // stride
    return None
