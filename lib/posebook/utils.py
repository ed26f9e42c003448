"""Small helpers that several packages share: hashing, safe writing, suggestions, lazy imports."""

import difflib
import glob
import hashlib
import importlib
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ABANDONED = 24 * 3600  # seconds without a change after which a temporary file is removed


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, which replaces `path` when the block ends.

    If the block raises, the temporary file is deleted and `path` stays as it was: no other process ever sees
    half a file. Temporary files of processes that were killed are removed when `path` is written again.
    """
    # With the host name, because on a shared folder another host may have the same process ID.
    temporary = path.with_name(f"{path.name}.{platform.node()}.{os.getpid()}.tmp")
    for old in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
        with suppress(FileNotFoundError):  # another process may remove it, too
            if time.time() - old.stat().st_mtime > ABANDONED:
                old.unlink()
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())  # otherwise a power loss can leave the new name with an empty file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def unknown_name_error(word: str, known: Iterable[str], what: str) -> ValueError:
    """A ValueError for an unknown name. It suggests close matches, or lists all names if there are none."""
    known = list(known)
    offers = difflib.get_close_matches(word, known, n=3, cutoff=0.4) or known
    return ValueError(f"unknown {what} {word!r}; did you mean {' or '.join(offers)}?")


def check_name(word: str, known: Iterable[str], what: str) -> None:
    """Raise `unknown_name_error` if the word is not one of the known names."""
    known = list(known)
    if word not in known:
        raise unknown_name_error(word, known, what)


def lazy_attributes(
    package: str, exports: dict[str, str], renamed: dict[str, str] | None = None
) -> Callable[[str], object]:
    """A module-level `__getattr__` that imports public names of a package on first use.

    exports: public name -> module of the package that defines it. renamed: former name -> "module:name" below
    posebook; a former name still works, with a DeprecationWarning.
    """
    renamed = renamed or {}

    def get(name: str) -> object:
        if name in exports:
            return getattr(importlib.import_module(f"{package}.{exports[name]}"), name)
        if name in renamed:
            module, _, attribute = renamed[name].partition(":")
            where = f"posebook.{module}" + (f".{attribute}" if attribute else "")
            warnings.warn(f"{package}.{name} is now {where}", DeprecationWarning, stacklevel=2)
            target = importlib.import_module(f"posebook.{module}")
            return getattr(target, attribute) if attribute else target
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return importlib.import_module(f"{package}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{package}.{name}":
                raise
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None

    return get
