"""Initialize a model from weights of the same model with other joints or another input size.

1. Tensors of the same shape are copied.
2. A dimension that counts joints is mapped by joint name. Joints that the weights do not have keep their
   initialization.
3. A dimension that depends on the input size is interpolated linearly, over the grid of cells where it counts
   cells. Where such a dimension is summed over (the inputs of a linear layer), the weights are scaled so that
   the sum over an image of the same content stays the same.

Which dimensions these are is found by building the model with other joints and with another input size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posebook import models, skeletons


@dataclass
class Transfer:
    """What became of each tensor of a model, by name."""

    copied: list[str] = field(default_factory=list)
    mapped: list[str] = field(default_factory=list)  # by joint name
    interpolated: list[str] = field(default_factory=list)  # to another input size
    initialized: list[str] = field(default_factory=list)  # joints that the weights do not have

    def summary(self) -> str:
        """One line for people: counts, and the names of joints that were initialized."""
        text = f"copied {len(self.copied)} tensors, mapped {len(self.mapped)} by joint name, "
        text += f"interpolated {len(self.interpolated)} to the input size, initialized "
        return text + (", ".join(self.initialized) or "nothing")

    def describe(self) -> dict:
        """What a record says of it."""
        return {
            "copied": len(self.copied),
            "mapped": self.mapped,
            "interpolated": self.interpolated,
            "initialized": self.initialized,
        }


def check_weights(path: str | Path, name: str) -> None:
    """Check that `path` can be what a model called `name` starts from, before any work is done.

    Raises FileNotFoundError where there is no such file, and ValueError for weights of another model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights to start from at {path}: init names a weights file")
    try:
        facts = models.describe_weights(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path.name} cannot be read as weights: {error}") from error
    if facts.get("model", name) != name:
        raise ValueError(f"{path.name} holds weights of {facts['model']}, not of {name}")


def transfer_weights(model: nn.Module, path: str | Path, name: str) -> Transfer:
    """Initialize `model`, a model called `name`, from a weights file; returns what was done.

    Raises as `check_weights` does, and ValueError for weights that cannot be mapped or interpolated.
    """
    check_weights(path, name)
    path = Path(path)
    facts, state = models.describe_weights(path), models.read_checkpoint(path)
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    if not facts:  # an authors' file: it must fit as it is
        models.load_official(model, state)
        return Transfer(copied=list(state))
    options, joints = facts["options"], skeletons.described(facts["skeleton"])
    old_size, new_size = tuple(facts["input_size"]), model.input_size
    theirs = _shapes(name, joints, old_size, options)
    if theirs != {key: tuple(value.shape) for key, value in state.items()}:
        raise ValueError(
            f"{path.name} is damaged: its tensors are not those of {name} as it describes itself"
        )
    count = len(joints.keypoints)
    probe = skeletons.own("probe", [f"joint {k}" for k in range(count + 1)], [], None)
    more_joints = _shapes(name, probe, old_size, options)
    larger = _shapes(name, joints, (2 * old_size[0], 2 * old_size[1]), options)

    done, merged, own = Transfer(), {}, model.state_dict()
    if own.keys() != state.keys():
        models.load_official(model, state)  # raises: names the keys that differ
    for key, start in own.items():
        value = state[key]
        joint_axes = [axis for axis in range(value.ndim) if more_joints[key][axis] != theirs[key][axis]]
        size_axes = [axis for axis in range(value.ndim) if larger[key][axis] != theirs[key][axis]]
        if joint_axes and joints.keypoints != model.skeleton.keypoints:
            value = _map_joints(key, value, start, joint_axes[0], joints.keypoints, model.skeleton.keypoints)
            done.mapped.append(key)
        if size_axes and old_size != new_size:
            for axis in size_axes:
                value = _interpolate(key, value, axis, start.shape[axis], old_size, new_size)
            done.interpolated.append(key)
        if value.shape != start.shape:
            raise ValueError(
                f"{path.name} does not fit: {key} is {tuple(value.shape)}, not {tuple(start.shape)}; the model's "
                f"options are {options} in the file"
            )
        if key not in done.mapped and key not in done.interpolated:
            done.copied.append(key)
        merged[key] = value
    if done.mapped:
        done.initialized += [joint for joint in model.skeleton.keypoints if joint not in joints.keypoints]
    if len(done.initialized) == len(model.skeleton.keypoints):
        raise ValueError(f"{path.name} has none of the joints {', '.join(model.skeleton.keypoints[:4])}, ...")
    model.load_state_dict(merged)
    return done


def _shapes(
    name: str, joints: skeletons.Skeleton, input_size: tuple[int, int], options: dict
) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's tensors, without computing any of them."""
    with torch.device("meta"):
        built = models.build(name, joints, input_size, **options)
    return {key: tuple(value.shape) for key, value in built.state_dict().items()}


def _map_joints(
    key: str, value: Tensor, start: Tensor, axis: int, old: Sequence[str], new: Sequence[str]
) -> Tensor:
    """`start` with the slices along `axis` of those joints that `value` has too."""
    if value.shape[axis] != len(old) or start.shape[axis] != len(new):
        raise ValueError(
            f"{key} cannot be mapped by joint name: axis {axis} holds more than one slice a joint"
        )
    # other axes may differ by the input size: then the new joints' slices wait for interpolation
    shape = list(value.shape)
    shape[axis] = len(new)
    mapped = start.clone() if list(start.shape) == shape else value.new_zeros(shape)
    pairs = [(new.index(joint), old.index(joint)) for joint in new if joint in old]
    to, source = (
        (torch.tensor(places, dtype=torch.long) for places in zip(*pairs, strict=True)) if pairs else ((), ())
    )
    if pairs:
        mapped.index_copy_(axis, to, value.index_select(axis, source))
    return mapped


def _interpolate(
    key: str, value: Tensor, axis: int, length: int, old: tuple[int, int], new: tuple[int, int]
) -> Tensor:
    """`value` with axis `axis` interpolated from its length at input size `old` to `length` at `new`."""
    before = value.shape[axis]
    moved = value.movedim(axis, -1).flatten(0, -2) if value.ndim > 1 else value[None]  # (N, before)
    grid = _grid(before, old), _grid(length, new)
    extra = 0
    if None in grid:  # a class token before the cells
        extra, grid = 1, (_grid(before - 1, old), _grid(length - 1, new))
    if None not in grid:
        cells = moved[:, extra:].unflatten(1, grid[0])[:, None]  # (N, 1, h, w)
        cells = F.interpolate(cells, grid[1], mode="bilinear", align_corners=False)
        resized = torch.cat([moved[:, :extra], cells.flatten(1)], 1)  # (N, length)
    elif before * new[0] == length * old[0] or before * new[1] == length * old[1]:  # bins along a side
        resized = F.interpolate(moved[:, None], length, mode="linear", align_corners=False)[
            :, 0
        ]  # (N, length)
    else:
        raise ValueError(f"{key} cannot be interpolated from {before} to {length} along axis {axis}")
    if axis > 0 and value.ndim == 2:  # (out, in) of a linear layer: more inputs, the same sum
        resized = resized * (before / length)
    if value.ndim == 1:
        return resized[0]
    shape = value.movedim(axis, -1).shape[:-1]
    return resized.unflatten(0, shape).movedim(-1, axis).contiguous()


def _grid(cells: int, input_size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of a map of so many cells at an input size; None where no stride gives them."""
    height, width = input_size
    for stride in (4, 8, 16, 32, 64):
        if height % stride == 0 and width % stride == 0 and cells == height // stride * (width // stride):
            return height // stride, width // stride
    return None
