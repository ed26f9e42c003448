"""Initialize a model from weights of the same model with other joints or another input size.

1. Tensors of the same shape are copied.
2. A dimension that counts joints is mapped by joint name. Joints that the weights do not have keep their
   initialization.
3. A dimension that depends on the input size is interpolated linearly, over the grid of cells where it counts
   cells. Where such a dimension is summed over (the inputs of a linear layer), the weights are scaled so that
   the sum over an image of the same content stays the same.

Which dimensions these are is found by building the model with one more joint, at twice the height and at
twice the width. Not transferred: inputs along one side that hold several features a position, and dimensions
with several slices a joint (both in AMFACPose).
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
    options, joints = facts["options"], skeletons.from_description(facts["skeleton"])
    old_size, new_size = tuple(facts["input_size"]), model.input_size
    theirs = _shapes(name, joints, old_size, options)
    if theirs != {key: tuple(value.shape) for key, value in state.items()}:
        raise ValueError(
            f"{path.name} is damaged: its tensors are not those of {name} as it describes itself"
        )
    wanted = model.skeleton.keypoints
    if not set(wanted) & set(joints.keypoints):
        raise ValueError(
            f"{path.name} has none of the joints {', '.join(wanted[:4])}{', ...' if len(wanted) > 4 else ''}"
        )
    more_joints = taller = wider = theirs
    if joints.keypoints != wanted:
        probe = skeletons.make_skeleton(
            "probe", [f"joint {k}" for k in range(len(joints.keypoints) + 1)], [], None
        )
        more_joints = _shapes(name, probe, old_size, options)
    if old_size != new_size:
        height, width = old_size
        taller = _shapes(name, joints, (2 * height, width), options)
        wider = _shapes(name, joints, (height, 2 * width), options)

    done, merged, own = Transfer(), {}, model.state_dict()
    if own.keys() != state.keys():
        models.load_official(model, state)  # raises: names the keys that differ
    for key, start in own.items():
        value = state[key]
        for axis in range(value.ndim):
            grows = [shapes[key][axis] != theirs[key][axis] for shapes in (taller, wider)]
            if any(grown and old != new for grown, old, new in zip(grows, old_size, new_size, strict=True)):
                value = _interpolate(key, value, axis, start.shape[axis], old_size, new_size, grows)
                done.interpolated += [key] if key not in done.interpolated else []
        for axis in range(value.ndim):
            if more_joints[key][axis] != theirs[key][axis]:
                value = _map_joints(key, value, start, axis, joints.keypoints, wanted)
                done.mapped.append(key)
        if value.shape != start.shape:
            raise ValueError(
                f"{path.name} does not fit: {key} is {tuple(value.shape)}, not {tuple(start.shape)}; the "
                f"model's options are {options} in the file"
            )
        if key not in done.mapped and key not in done.interpolated:
            done.copied.append(key)
        merged[key] = value
    if done.mapped:
        done.initialized += [joint for joint in wanted if joint not in joints.keypoints]
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
    """`start` with the slices along `axis` of those joints that `value` has too.

    The other axes have the same lengths. Raises ValueError where a joint has several slices.
    """
    if value.shape[axis] != len(old) or start.shape[axis] != len(new):
        raise ValueError(
            f"{key} cannot be mapped by joint name: it has {value.shape[axis]} slices for {len(old)} joints"
        )
    mapped = start.clone()
    for place, joint in enumerate(new):
        if joint in old:
            mapped.select(axis, place).copy_(value.select(axis, old.index(joint)))
    return mapped


def _interpolate(
    key: str,
    value: Tensor,
    axis: int,
    length: int,
    old: tuple[int, int],
    new: tuple[int, int],
    grows: Sequence[bool],
) -> Tensor:
    """`value` with axis `axis` interpolated from its length at input size `old` to `length` at `new`.

    grows: whether the axis grows with the input's height and with its width. With both, it counts cells of a
    grid; with one, positions along that side. Raises ValueError for other lengths.
    """
    before, summed = value.shape[axis], axis == 1 and value.ndim == 2  # inputs of a linear layer
    moved = value.movedim(axis, -1)
    flat = moved.reshape(-1, 1, before)  # (N, 1, before)
    if all(grows):
        grids = _grid(before, old), _grid(length, new)
        if None in grids:
            raise ValueError(f"{key} cannot be interpolated: axis {axis} is no grid of the input's cells")
        cells = F.interpolate(flat.unflatten(2, grids[0]), grids[1], mode="bilinear", align_corners=False)
        flat = cells.flatten(2)  # (N, 1, length)
    elif summed:
        raise ValueError(
            f"{key} cannot be interpolated from input {old[0]}x{old[1]} to {new[0]}x{new[1]}: its inputs "
            "along a side hold several features a position"
        )
    else:
        flat = F.interpolate(flat, length, mode="linear", align_corners=False)  # (N, 1, length)
    if summed:  # more inputs, the same sum
        flat = flat * (before / length)
    return flat.reshape(*moved.shape[:-1], length).movedim(-1, axis).contiguous()


def _grid(cells: int, input_size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of a map of so many cells at an input size; None where no stride gives them."""
    height, width = input_size
    for stride in (4, 8, 16, 32, 64):
        if height % stride == 0 and width % stride == 0 and cells == height // stride * (width // stride):
            return height // stride, width // stride
    return None
