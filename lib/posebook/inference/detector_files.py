"""Person detectors by name: data/detectors.csv, one line for each public file with a permissive license.

1. The column source names the public file, at a commit, that states the URL. The hash is that of the ONNX
   file; it is empty if it is not public.
2. mmdeploy's archives contain end2end.onnx, which is saved under the name of the archive.
3. Files are kept in the folder of published weights.
"""

import csv
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from posebook import downloads, paths
from posebook.datasets import download
from posebook.models import published
from posebook.utils import unknown_name_error

TABLE = paths.DATA / "detectors.csv"
MEMBER = "end2end.onnx"  # the model in an archive of mmdeploy


@dataclass(frozen=True)
class DetectorFile:
    """One line of the table. Fields that are not public are empty."""

    name: str
    file: str  # its name in the folder of published weights
    url: str  # of an .onnx file or of an archive of mmdeploy
    hash: str  # 'sha256:...' of the .onnx file, the first digits or all
    license: str
    format: str
    input_size: str
    source: str
    note: str


def load_table() -> tuple[DetectorFile, ...]:
    """All lines of the table. Raises FileNotFoundError outside a clone of the repository."""
    with paths.require(TABLE).open(newline="") as file:
        return tuple(DetectorFile(**line) for line in csv.DictReader(file))


def find(name: str) -> DetectorFile:
    """The line of a detector. Raises ValueError, with similar names, for an unknown name."""
    lines = {line.name: line for line in load_table()}
    if name not in lines:
        raise unknown_name_error(name, lines, "detector")
    return lines[name]


def fetch(line: DetectorFile) -> Path:
    """The path of a detector, which is downloaded if it is not there. A published hash is checked each time.

    Raises ConnectionError, with the path under which to save the file, and ValueError for another hash.
    """
    path = published.folder() / line.file
    if not path.is_file():
        try:
            if not line.url.endswith(".zip"):
                return downloads.fetch(line.url, path.parent, line.file, line.hash or None)
            archive = downloads.fetch(line.url, path.parent)
        except ConnectionError as error:
            saved = path.parent / line.url.rsplit("/", 1)[1] if line.url.endswith(".zip") else path
            moved = isinstance(error, downloads.MovedError)
            fix = f"; correct the url in line {line.name} of {TABLE.name}" if moved else ""
            raise ConnectionError(f"{error}{fix}; or save {line.url} as {saved}") from error
        folder = path.parent / f"{line.file}.unpacked"
        download.unpack(archive, [MEMBER], folder)
        os.replace(folder / MEMBER, path)
        shutil.rmtree(folder)
        archive.unlink()
    if line.hash and not downloads.has_hash(path, line.hash):
        raise ValueError(f"{path} is not the detector {line.name}: its hash is not {line.hash}; delete it")
    return path


def resolve(detector: str | Path) -> Path:
    """The file of a detector that is given as a path or by name; downloads it if necessary.

    Raises FileNotFoundError for a path without a file, and the errors of `find` and `fetch`.
    """
    path = Path(detector)
    if not published.is_path(str(detector)):
        return fetch(find(str(detector)))
    if not path.is_file():
        raise FileNotFoundError(f"no detector at {path}")
    return path
