"""Read the tensors of a checkpoint without running code that it may contain.

PyTorch's loader with weights_only=True builds only tensors and plain values, and refuses a file that names
any other class or function. Training scripts store such objects beside the tensors: mmengine's HistoryBuffer,
NumPy's numbers and random state, an argparse.Namespace (open-mmlab/mmengine#1655).

1. The names are listed first, without running the pickle. An inert placeholder replaces each of them, so the
   loader never imports or calls what the file names. Names that the loader itself allows are not replaced.
2. A file whose tensors were lost with the placeholders, or that never had any, is refused.
3. Unlike lifting/safe_pickle.py, which rebuilds NumPy arrays, this reader needs nothing but the tensors.
"""

import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from torch import Tensor

WRAPPERS = ("state_dict", "model", "model_pos")  # keys under which training scripts store the state dict
LEGACY_PICKLES = 4  # a file of PyTorch before 1.6: magic number, version, system, content
PYTHON2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # torch.save writes Python 2's names


class _Placeholder:
    """Replaces objects other than tensors in a checkpoint: it accepts any arguments and stores nothing."""

    def __init__(self, *_: object):
        pass

    def __setstate__(self, _: object) -> None:
        pass


def list_globals(path: Path) -> set[str]:
    """The dotted names of all classes and functions that the pickles of a PyTorch file name. Runs no code."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return set().union(*(_globals_of(file) for _ in range(LEGACY_PICKLES)))
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return set().union(*(_globals_of(io.BytesIO(archive.read(name))) for name in pickles))


def _globals_of(file: IO[bytes]) -> set[str]:
    """The names in one pickle. STACK_GLOBAL and INST are left out: PyTorch's loader refuses them anyway."""
    pairs = [str(arg).split(" ") for code, arg, _ in pickletools.genops(file) if code.name == "GLOBAL"]
    return {f"{PYTHON2_MODULES.get(module, module)}.{name}" for module, name in pairs}


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors or PyTorch file without executing pickled code.

    Returns the state dict, without the dictionaries around it and without the prefix 'module.'. Raises
    FileNotFoundError, and ValueError if the file is not a checkpoint or has no named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    ignored: set[str] = set()
    try:
        if path.suffix == ".safetensors":
            state: Any = safetensors.torch.load_file(path)
        else:
            ignored = list_globals(path)
            placeholders: list[Callable[..., Any] | tuple[Callable[..., Any], str]]
            placeholders = [(_Placeholder, name) for name in ignored]
            with torch.serialization.safe_globals(placeholders):
                state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError, safetensors.SafetensorError, zipfile.BadZipFile, RuntimeError, EOFError,
        ValueError, LookupError, AttributeError, TypeError,
    ) as error:  # fmt: skip
        raise ValueError(f"{path.name} cannot be read as weights: {_reason(path, error)}") from error
    for wrapper in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not any(
        isinstance(value, Tensor) and isinstance(key, str) for key, value in state.items()
    ):
        calls = f", but names {', '.join(sorted(ignored)[:3])}" if ignored else ""
        raise ValueError(f"{path.name} cannot be read as weights: it contains no named tensors{calls}")
    return {
        str(key).removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)
    }


def _reason(path: Path, error: Exception) -> str:
    """One line that says why a file cannot be read, without PyTorch's advice to run the code in the file."""
    with path.open("rb") as file:
        if file.read(64).lstrip()[:1] == b"<":
            return "it is a web page"
    cause = error.__context__ if isinstance(error, pickle.UnpicklingError) and error.__context__ else error
    return (str(cause).splitlines() or ["it is broken"])[0]
