"""Read and write lifters' weights: our files, which also store how to build the lifter, and the authors'."""

import json
import re
from pathlib import Path
from typing import Any

import safetensors.torch

from posebook import migration, models
from posebook.lifting import key_mapping, pruning
from posebook.lifting.models import LIFTERS, Lifter
from posebook.utils import sha256

# The layer before which HoT's authors prune the frames of each lifter.
HOT = {"mixste": 3, "motionbert": 1}
PER_FRAME = re.compile(r"(lifter\.)?(times|trajectory\.positions)")  # embeddings (1, frames, ...)


def save_weights(
    lifter: Lifter, path: str | Path, name: str, trained_on: str | None = None, **options: Any
) -> str:
    """Write a lifter from `pruning.build_lifter(name, frames, **options)`; returns the file's SHA-256."""
    facts = {"model": name, "frames": lifter.frames, "options": options, "trained_on": trained_on}
    state = {key: value.detach().cpu().contiguous() for key, value in lifter.state_dict().items()}
    safetensors.torch.save_file(state, path, {"posebook": json.dumps(facts)})
    return sha256(path)


def load_weights(path: str | Path, name: str | None = None) -> Lifter:
    """The lifter of a weights file, in eval mode.

    Our files state which lifter it is. For an authors' file give `name`; the lifter gets its published size,
    the window length of the file's embeddings, and HoT's pruning if the file has HoT's tensors.

    Raises FileNotFoundError, and ValueError if the file has no lifter or another one than `name`, or does not
    state its lifter.
    """
    path, state = Path(path), models.read_checkpoint(path)
    facts = models.describe_weights(path)
    if facts and facts["model"] not in LIFTERS:
        raise ValueError(f"{path.name} has weights of {facts['model']}, which is not a lifter")
    if name and facts and facts["model"] != name:
        raise ValueError(f"{path.name} has weights of {facts['model']}, not of {name}")
    if facts:
        state = migration.migrate_keys(state)
        lifter = pruning.build_lifter(facts["model"], facts["frames"], **facts["options"])
    elif name is None:
        raise ValueError(f"{path.name} does not state its lifter: give one of {', '.join(LIFTERS)}")
    else:
        is_hot = "x_token" in state and name in HOT
        state = key_mapping.remap_keys(state, is_hot)
        window = next((value.shape[1] for key, value in state.items() if PER_FRAME.fullmatch(key)), 243)
        prune = {HOT[name]: ("cluster", state["positions"].shape[1])} if is_hot else None
        lifter = pruning.build_lifter(name, window, prune, recover="attend")
    models.load_official(lifter, state)
    return lifter.eval()
