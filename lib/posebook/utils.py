"""What every kind of file here needs."""

import difflib
import hashlib
import importlib
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unknown_name_error(word: str, known: Iterable[str], what: str) -> ValueError:
    """An error for a name that is not known, with the near ones in it, or all where none is near."""
    known = list(known)
    offers = difflib.get_close_matches(word, known, n=3, cutoff=0.4) or known
    return ValueError(f"unknown {what} {word!r}; did you mean {' or '.join(offers)}?")


def lazy_attributes(
    package: str, exports: dict[str, str], renamed: dict[str, str] | None = None
) -> Callable[[str], object]:
    """A module-level `__getattr__` that imports a package's public names when they are first used.

    exports: public name -> module of the package that defines it. renamed: former name -> "module:name"
    from the top of posebook, which still works with a DeprecationWarning.
    """
    renamed = renamed or {}

    def get(name: str) -> object:
        if name in exports:
            return getattr(importlib.import_module(f"{package}.{exports[name]}"), name)
        if name in renamed:
            module, _, attribute = renamed[name].partition(":")
            where = f"posebook.{module}" + (f".{attribute}" if attribute else "")
            warnings.warn(f"{package}.{name} is now {where}", DeprecationWarning, stacklevel=2)
            found = importlib.import_module(f"posebook.{module}")
            return getattr(found, attribute) if attribute else found
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return importlib.import_module(f"{package}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{package}.{name}":
                raise
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None

    return get
