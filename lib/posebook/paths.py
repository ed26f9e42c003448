"""Where the files of a posebook checkout are.

1. In an editable install the checkout is found from this file, so that commands work from any folder.
2. A plain wheel has no checkout: then files are looked for in the working directory, and `require` says in
   one line that something is part of the repository.
"""

from pathlib import Path


def find_root() -> Path:
    """The checkout that holds this package, or the working directory."""
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
    """`path`, if it is there; FileNotFoundError says that it is part of the repository."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path.name} is part of the posebook repository and not of the installed package: run this in a "
            "checkout of the repository"
        )
    return path
