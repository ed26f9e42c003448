"""Find the files of posebook that some code depends on, by reading its imports.

Both the code hash of a training run and the inputs of the workflow's rules are computed here. A list of
module names written by hand would become wrong at the next move.

1. Imports are followed through the whole package, including those inside functions.
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
    """The file of the module `posebook.NAME`, or None if there is no such module."""
    base = PACKAGE.joinpath(*name.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def imported_names(tree: ast.AST) -> set[str]:
    """Dotted names below `posebook` that a syntax tree imports or reads as attributes."""
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
    """The files behind a dotted name.

    These are its module and the packages around it. If the name is an attribute of a package, all modules of
    that package are included.
    """
    parts, files = name.split("."), set[Path]()
    for end in range(1, len(parts) + 1):
        path = module_file(".".join(parts[:end]))
        if path is None:  # an attribute of a module or package
            package = PACKAGE.joinpath(*parts[1 : end - 1])
            if files and package != PACKAGE and package.is_dir():
                files |= set(package.glob("*.py"))
            break
        files.add(path)
    return files


@functools.cache
def _direct(path: Path) -> frozenset[Path]:
    """The files that one file imports."""
    names = imported_names(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset().union(*map(files_of, names)) if names else frozenset()


def closure(files: Iterable[Path], stop: Iterable[Path] = ()) -> list[Path]:
    """The given files and everything they import. Imports inside the files in `stop` are not followed."""
    visited, queue, stop = set[Path](), list(files), set(stop)
    while queue:
        path = queue.pop()
        if path not in visited:
            visited.add(path)
            if path not in stop:
                queue += _direct(path)
    return sorted(visited)


def notebook_files(notebook: str | Path) -> list[Path]:
    """All files of posebook that the code cells of a notebook depend on."""
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    lines = [line for text in code for line in text.split("\n") if not line.lstrip().startswith(("%", "!"))]
    names = imported_names(ast.parse("\n".join(lines)))
    return closure(path for name in names for path in files_of(name))


def code_hash(modules: Iterable[str]) -> str:
    """SHA-256 over the files of these modules and of everything they import.

    Imports of `posebook.models` itself are not followed: it imports every model, but a run depends on one.
    """
    stop = {PACKAGE / "models" / "__init__.py"}
    files = closure((path for name in modules if (path := module_file(name))), stop)
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()
