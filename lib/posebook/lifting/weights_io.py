"""Lifters' weights as files: written with what builds the lifter again, and read, the authors' too."""

import json
import re
from pathlib import Path

import safetensors.torch

from posebook import migration, models
from posebook.lifting import key_mapping, pruning
from posebook.lifting.models import LIFTERS, Lifter
from posebook.utils import sha256

# Before which layer HoT's authors prune the frames of each lifter.
HOT = {"mixste": 3, "motionbert": 1}
WINDOWED = re.compile(r"(lifter\.)?(times|trajectory\.positions)")  # tables with a row a frame


def save_weights(
    lifter: Lifter, path: str | Path, name: str, trained_on: str | None = None, **options: object
) -> str:
    """Write a lifter that `hourglass.build(name, frames, **options)` built; returns the file's SHA-256."""
    facts = {"model": name, "frames": lifter.frames, "options": options, "trained_on": trained_on}
    state = {key: value.detach().cpu().contiguous() for key, value in lifter.state_dict().items()}
    safetensors.torch.save_file(state, path, {"posebook": json.dumps(facts)})
    return sha256(path)


def load_weights(path: str | Path, name: str | None = None, frames: int | None = None) -> Lifter:
    """The lifter of a weights file, in eval mode: built as the file says, or, for an authors' file, as `name`
    of its published size, with the window that its tables have, inside HoT where it has HoT's.

    frames: the window it must have; None: any. Raises FileNotFoundError, and ValueError for a file of no
    lifter, of another lifter than `name`, of another window, or that does not say which lifter it is.
    """
    path, state = Path(path), models.read_checkpoint(path)
    told = models.describe_weights(path)
    if told and told["model"] not in LIFTERS:
        raise ValueError(f"{path.name} holds weights of {told['model']}, which is no lifter")
    if not told and name is None:
        raise ValueError(f"{path.name} does not say which lifter it is: name one of {', '.join(LIFTERS)}")
    if name and told.get("model", name) != name:
        raise ValueError(f"{path.name} holds weights of {told['model']}, not of {name}")
    if told:
        state = migration.migrate_keys(state)
        lifter = pruning.build_lifter(told["model"], told["frames"], **told["options"])
    else:
        hot = "x_token" in state and name in HOT
        state = key_mapping.remap_keys(state, hot)
        tables = [value.shape[1] for key, value in state.items() if WINDOWED.fullmatch(key)]
        around = {"prune": {HOT[name]: ("cluster", state["positions"].shape[1])}} if hot else {}
        lifter = pruning.build_lifter(name, *tables[:1], **around, recover="attend")
    models.load_official(lifter, state)
    if frames not in (None, lifter.frames):
        raise ValueError(f"{path.name} is a lifter of windows of {lifter.frames} frames, not of {frames}")
    return lifter.eval()
