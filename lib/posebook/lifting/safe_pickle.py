"""Arrays and plain values out of NumPy's files, without running what else a pickle may hold.

A file of dictionaries is a pickle, and a pickle is a program: it names functions and calls them. This reader
knows the few names by which NumPy, 1.x or 2.x, writes an array, a number and a type, and refuses any other.

1. For those few names it has its own functions. NumPy's can be talked into reading an array of objects from
   bytes, that is, into following any address; ours make arrays of numbers from bytes, of objects from lists.
2. Python 2 wrote text and bytes as one: both are read, as Latin-1.
"""

import math
import pickle
import re
import zipfile
from pathlib import Path
from zlib import error as TornError

import numpy as np

POINTER = b"version https://git-lfs"  # how a file begins that stands for another one
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
CODE = re.compile(r"[biufSU]\d{1,3}|O8?")


class _Type:
    """What stands for numpy.dtype: a number's, a text's or an object's type, and no structure of several."""

    def __init__(self, code: str, *_: object):
        if not isinstance(code, str) or not CODE.fullmatch(code):
            raise pickle.UnpicklingError(f"it holds values of type {str(code)[:40]!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    @property
    def real(self) -> np.dtype:
        """The type itself."""
        return np.dtype(self.order + self.code)


class _Array(np.ndarray):
    """An array that fills itself from what its pickle says; choice 1."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, columns_first, content = state
        if kind.code.startswith("O"):
            if not isinstance(content, list) or len(content) != math.prod(shape):
                raise pickle.UnpicklingError("it holds an array of objects that is no list of them")
        elif isinstance(content, str):
            content = content.encode("latin1")  # choice 2
        elif not isinstance(content, bytes):
            raise pickle.UnpicklingError("it holds an array of numbers that are no bytes")
        super().__setstate__((1, shape, kind.real, bool(columns_first), content))


def _array(*_: object) -> _Array:
    """What stands for NumPy's _reconstruct: an array that is still empty."""
    return np.ndarray.__new__(_Array, (0,), np.int8)


def _number(kind: _Type, content: bytes | str) -> object:
    """What stands for NumPy's scalar."""
    content = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(content, kind.real)[0]  # which makes no objects of bytes


def _bytes(text: str, _: str) -> bytes:
    """What stands for _codecs.encode, by which Python 3 writes bytes in Python 2's manner."""
    return text.encode("latin1")


NAMES: dict[tuple[str, str], object] = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): None,  # only ever an argument
    ("_codecs", "encode"): _bytes,
}
for _core in ("numpy.core.multiarray", "numpy._core.multiarray"):
    NAMES |= {(_core, "_reconstruct"): _array, (_core, "scalar"): _number}


class Unpickler(pickle.Unpickler):
    """Reads what NAMES and plain values make; UnpicklingError names the first other thing."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, no array and no plain value")
        return NAMES[module, name]


def read(path: str | Path) -> dict[str, object]:
    """What an .npz file holds, by name: arrays, and what stood in arrays of one object.

    Raises FileNotFoundError, and ValueError for a pointer of Git LFS, a file that is no .npz or is cut off,
    and one whose pickles ask for anything but arrays and plain values; nothing of them is called.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise ValueError(
                f"{path} is a Git LFS pointer, some lines that stand for the file: `git lfs pull` in its "
                "repository brings the file itself"
            )
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _member(archive, name) for name in archive.namelist()}
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is not read: {error}; nothing of it was run") from error
    except (zipfile.BadZipFile, EOFError, TornError) as error:
        raise ValueError(f"{path} is not an .npz file, or not all of one: {error}") from error
    except (ValueError, TypeError, AttributeError, LookupError, RuntimeError) as error:
        raise ValueError(f"{path} is not read: what it holds makes no sense ({error})") from error


def _member(archive: zipfile.ZipFile, name: str) -> object:
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"{name} is written in NumPy's format {version}")
        kind = HEADERS[version](file)[2]
        if kind.hasobject:
            content = Unpickler(file, encoding="latin1").load()
            return content.item() if isinstance(content, np.ndarray) and content.ndim == 0 else content
    with archive.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
