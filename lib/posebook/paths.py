"""Paths of the repository: data, published tables, archived records, weights, reports.

1. In an editable install the repository is found from this file, so commands work from any folder.
2. A plain wheel has no repository. Paths then start at the working directory, and `require` explains in one
   line that a missing file is part of the repository.
"""

from pathlib import Path


def find_root() -> Path:
    """The repository that contains this package, or the working directory if there is none."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "pyproject.toml").is_file() and (folder / "lib" / "posebook").is_dir():
            return folder
    return Path.cwd()


ROOT = find_root()
DATA = ROOT / "data"
PUBLISHED = DATA / "published"
MEASURED = DATA / "measured"
WEIGHTS = DATA / "weights"
REPORTS = ROOT / "reports"


def require(path: Path) -> Path:
    """Return `path`. Raises FileNotFoundError if it is missing because it is part of the repository only."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path.name} is part of the posebook repository, not of the installed package: "
            "run this command in a clone of the repository"
        )
    return path
