"""Read .npz files with pickled dictionaries, without running code that a pickle may contain.

Such a file contains a pickle, and a pickle can name any function and call it. This reader knows only the few
names with which NumPy 1.x and 2.x write an array, a number and a dtype, and refuses all others.

1. It replaces these few names with its own functions. NumPy's own can be made to read an array of objects
   from bytes, that is, to follow arbitrary addresses. Here arrays of numbers are made only from bytes, and
   arrays of objects only from lists.
2. Python 2 did not distinguish text from bytes: both are read as Latin-1.
"""

import math
import pickle
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

POINTER = b"version https://git-lfs"  # the first bytes of a Git LFS pointer file
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
CODE = re.compile(r"[biufSU]\d{1,3}|O8?")  # dtypes of numbers, text and objects; no structured ones


class _DType:
    """Replaces numpy.dtype."""

    def __init__(self, code: str, *_: object):
        if not isinstance(code, str) or not CODE.fullmatch(code):
            raise pickle.UnpicklingError(f"it has values of type {str(code)[:40]!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    @property
    def real(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class _Array(np.ndarray):
    """An array that checks its content before it takes it; choice 1."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, content = state
        if dtype.code.startswith("O"):
            if not isinstance(content, list) or len(content) != math.prod(shape):
                raise pickle.UnpicklingError("it has an array of objects that is not made from a list")
        elif isinstance(content, str):
            content = content.encode("latin1")  # choice 2
        elif not isinstance(content, bytes):
            raise pickle.UnpicklingError("it has an array of numbers that is not made from bytes")
        state = (1, shape, dtype.real, bool(is_fortran), content)
        super().__setstate__(state)  # type: ignore[arg-type]  # NumPy takes a bool, its stub a numpy.bool


def _reconstruct(*_: object) -> _Array:
    """Replaces NumPy's _reconstruct: an empty array, which __setstate__ fills."""
    return np.ndarray.__new__(_Array, (0,), np.int8)


def _scalar(dtype: _DType, content: bytes | str) -> object:
    """Replaces NumPy's scalar."""
    content = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(content, dtype.real)[0]  # frombuffer refuses objects


def _encode(text: str, _: str) -> bytes:
    """Replaces _codecs.encode, with which Python 3 writes bytes in protocols of Python 2."""
    return text.encode("latin1")


NAMES: dict[tuple[str, str], object] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): None,  # only an argument of _reconstruct, which ignores it
    ("_codecs", "encode"): _encode,
}
for _core in ("numpy.core.multiarray", "numpy._core.multiarray"):
    NAMES |= {(_core, "_reconstruct"): _reconstruct, (_core, "scalar"): _scalar}


class Unpickler(pickle.Unpickler):
    """Reads NAMES and plain values; raises UnpicklingError for any other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in NAMES:
            raise pickle.UnpicklingError(f"it needs {module}.{name}, neither an array nor a plain value")
        return NAMES[module, name]


def read(path: str | Path) -> dict[str, Any]:
    """The content of an .npz file by name: arrays, and the objects in arrays of one object.

    Raises FileNotFoundError, and ValueError for a Git LFS pointer, a file that is not a complete .npz file,
    and a pickle with anything but arrays and plain values. No code from the file is run.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise ValueError(f"{path} is a Git LFS pointer: `git lfs pull` in its repository gets the file")
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _read_member(archive, name) for name in archive.namelist()}
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} was not read: {error}; none of its code was run") from error
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a complete .npz file: {error}") from error
    except (ValueError, TypeError, AttributeError, LookupError, RuntimeError) as error:
        raise ValueError(f"{path} was not read: its content is invalid ({error})") from error


def _read_member(archive: zipfile.ZipFile, name: str) -> object:
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"{name} has the unknown NumPy format {version}")
        if HEADERS[version](file)[2].hasobject:
            content = Unpickler(file, encoding="latin1").load()
            return content.item() if isinstance(content, np.ndarray) and content.ndim == 0 else content
    with archive.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
