"""Which files of posebook some code depends on, found by reading its imports.

The hash of a training run and the inputs of the workflow's rules both come from here, so that neither is a
list of module names kept by hand.

1. Imports are followed through the whole package, also those inside functions.
2. An attribute such as `posebook.training.train` counts as an import of all modules of that package.
"""

import ast
import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

PACKAGE = Path(__file__).parent


def module_file(name: str) -> Path | None:
    """The file of a module called posebook.NAME..., or None if there is no such module."""
    base = PACKAGE.joinpath(*name.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def imported_names(tree: ast.AST) -> set[str]:
    """Dotted names of posebook that a syntax tree imports or uses as attributes of `posebook`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            parts, base = [node.attr], node.value
            while isinstance(base, ast.Attribute):
                parts.append(base.attr)
                base = base.value
            if isinstance(base, ast.Name) and base.id == "posebook":
                names.add(".".join(["posebook", *reversed(parts)]))
    return {name for name in names if name.split(".")[0] == "posebook"}


def files_of(name: str) -> set[Path]:
    """The files of a dotted name: its module and packages; of an attribute of a package, all its modules."""
    parts, found = name.split("."), set()
    for end in range(1, len(parts) + 1):
        path = module_file(".".join(parts[:end]))
        if path is None:  # an attribute of a module or package
            package = found and PACKAGE.joinpath(*parts[1 : end - 1])
            if package and package != PACKAGE and package.is_dir():
                found |= set(package.glob("*.py"))
            break
        found.add(path)
    return found


@functools.cache
def _direct(path: Path) -> frozenset[Path]:
    """Files that one file imports."""
    names = imported_names(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset().union(*map(files_of, names)) if names else frozenset()


def closure(files: Iterable[Path], stop: Iterable[Path] = ()) -> list[Path]:
    """The files and everything that they import; imports of the files in `stop` are not followed."""
    found, waiting, stop = set(), list(files), set(stop)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            if path not in stop:
                waiting += _direct(path)
    return sorted(found)


def notebook_files(notebook: str | Path) -> list[Path]:
    """All files of posebook that a notebook's code cells depend on."""
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    lines = [line for text in code for line in text.split("\n") if not line.lstrip().startswith(("%", "!"))]
    return closure(set().union(*map(files_of, imported_names(ast.parse("\n".join(lines))))))


def code_hash(modules: Iterable[str]) -> str:
    """A hash of the files of these modules and of all that they import.

    Imports of `posebook.models` itself are not followed: it imports every model, and a run depends on one.
    """
    stop = {PACKAGE / "models" / "__init__.py"}
    files = closure((path for name in modules if (path := module_file(name))), stop)
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()
