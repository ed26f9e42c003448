"""What many tests share: the checkout, made-up weights, differences."""

import importlib.util
import math
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from posebook.paths import ROOT

__all__ = ["ROOT", "load_script", "drawn", "apart"]


def load_script(path: Path) -> ModuleType:
    """Import a script that is not part of the library."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    return script


def drawn(layout: list) -> dict[str, torch.Tensor]:
    """The fixtures' weights: each key draws from a generator seeded by its own name."""
    state = {}
    for key, shape, _ in layout:
        rng, last = np.random.default_rng(zlib.crc32(key.encode())), key.split(".")[-1]
        if last == "num_batches_tracked":
            value = np.zeros(shape, np.int64)
        elif last == "running_mean" or last == "bias":
            value = 0.1 * rng.standard_normal(shape)
        elif last == "weight" and len(shape) >= 2:
            value = rng.standard_normal(shape) / math.sqrt(np.prod(shape[1:]))
        else:
            value = rng.uniform(0.5, 1.5, shape)
        state[key] = torch.as_tensor(value)
    return state


def apart(outputs: list[np.ndarray], others: list[np.ndarray]) -> float:
    """The largest difference, as a share of the largest value of its output."""
    pairs = zip(outputs, others, strict=True)
    return max(np.abs(one - other).max() / np.abs(other).max() for one, other in pairs)
