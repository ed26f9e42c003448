"""Published weights by name: data/checkpoints.csv, one line for each public file.

1. A line is found by its model and the name of its weights: ("hrnet-w32", "coco-384x288"). Most names start
   with the dataset. The column source names the public file, at a commit, that states the URL, the hash and
   the accuracy. A field is empty if it is not public.
2. Files are kept in one folder: $POSEBOOK_CACHE, or data/checkpoints. Nothing is downloaded on import.
3. Some files are only on a web page of their authors (page instead of url). The user saves them under the
   name in the column file.
4. The bundled weights have names too: data/weights/MODEL-NAME.safetensors.
"""

import csv
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posebook import downloads, paths
from posebook.utils import unknown_name_error

TABLE = paths.DATA / "checkpoints.csv"
BACKBONE = "imagenet"  # the dataset of files that contain only a backbone


@dataclass(frozen=True)
class Checkpoint:
    """One line of the table. Fields that are not public are empty."""

    model: str
    weights: str  # the name of the weights
    options: dict[str, Any]  # keyword arguments of the builder
    dataset: str  # on which the accuracy is published; its skeleton is the model's
    trained_on: str
    input_size: tuple[int, ...]  # (height, width); empty for lifters and backbones
    metric: str
    value: str  # in the metric's unit, as printed
    boxes: str  # 'detector' or 'ground truth', of the published accuracy
    flip_test: str  # 'yes' or 'no', of the published accuracy
    decoding: str  # 'UDP', 'DARK' or '' for the default, of the published accuracy
    file: str  # its name in the folder of published weights
    url: str
    page: str  # where the file is found if it has no URL
    hash: str  # 'sha256:...' or 'md5:...', the first digits or all
    size: str
    license: str
    source: str
    note: str


def folder() -> Path:
    """The folder of published weights: $POSEBOOK_CACHE, or data/checkpoints."""
    return Path(os.environ.get("POSEBOOK_CACHE") or paths.DATA / "checkpoints").expanduser()


@functools.cache
def load_table() -> tuple[Checkpoint, ...]:
    """All lines of the table. Raises FileNotFoundError outside a clone of the repository."""
    with paths.require(TABLE).open(newline="") as file:
        return tuple(_parse(line) for line in csv.DictReader(file))


def _parse(line: dict[str, str]) -> Checkpoint:
    pairs = dict(pair.split("=") for pair in line.pop("options").split(";") if pair)
    options: dict[str, Any] = {key: int(value) if value.isdigit() else value for key, value in pairs.items()}
    size = tuple(int(side) for side in line.pop("input_size").split("x") if side)
    return Checkpoint(options=options, input_size=size, **line)


def _bundled(model: str) -> dict[str, Path]:
    """The bundled weights of a model by name."""
    files = [path for path in paths.WEIGHTS.glob(f"{model}-*.safetensors") if ".golden" not in path.name]
    return {path.stem.removeprefix(f"{model}-"): path for path in sorted(files)}


def find(model: str, weights: str) -> Checkpoint:
    """The line of a model and the name of its weights. Raises ValueError, with similar names."""
    lines = {line.weights: line for line in load_table() if line.model == model}
    if weights not in lines:
        if not lines and not _bundled(model):
            raise ValueError(f"no published weights of {model!r} are known: see posebook download weights")
        raise unknown_name_error(weights, [*lines, *_bundled(model)], f"weights of {model}")
    return lines[weights]


def fetch(checkpoint: Checkpoint) -> Path:
    """The path of a file, which is downloaded if it is not there. A published hash is checked each time.

    Raises ConnectionError, with the path under which to save the file, FileNotFoundError for a file that is
    only on a web page, and ValueError for another hash.
    """
    path = folder() / checkpoint.file
    line = f"line {checkpoint.model}, {checkpoint.weights} of {TABLE.name}"
    if path.is_file() and checkpoint.hash and not downloads.has_hash(path, checkpoint.hash):
        raise ValueError(f"{path} is not the file of {line}: its hash is not {checkpoint.hash}; delete it")
    if path.is_file():
        return path
    if not checkpoint.url:
        note = f" ({checkpoint.note})" if checkpoint.note else ""
        raise FileNotFoundError(f"no {path}: download it by hand from {checkpoint.page}{note}")
    try:
        return downloads.fetch(checkpoint.url, folder(), checkpoint.file, checkpoint.hash or None)
    except downloads.MovedError as error:
        raise ConnectionError(f"{error}; correct the url in {line}, or save the file as {path}") from error
    except ConnectionError as error:
        other = ", ".join(_bundled(checkpoint.model))
        other = f"; bundled weights need no network: {other}" if other else ""
        raise ConnectionError(f"{error}; or save the file as {path}{other}") from error


def is_path(text: str) -> bool:
    """Whether a text is a path, not a name in a table of files."""
    return os.sep in text or "." in text or Path(text).is_file()


def find_by_file(path: str | Path) -> Checkpoint | None:
    """The line of a file of a pose model by the name of the file, or None."""
    lines = load_table() if TABLE.is_file() else ()
    return next((line for line in lines if line.file == Path(path).name and line.input_size), None)


def find_given(weights: str, model: str | None) -> Checkpoint | None:
    """The line of weights that are given as a path or by name; None for bundled weights and unknown files.

    Raises ValueError for a name without a model, an unknown name, or a file with only a backbone.
    """
    if is_path(weights):
        return find_by_file(weights)
    if model is None:
        raise ValueError(f"weights {weights!r} are given by name: also give the name of the model")
    if weights in _bundled(model):
        return None
    checkpoint = find(model, weights)
    if checkpoint.dataset == BACKBONE:
        raise ValueError(f"{checkpoint.file} contains only a backbone, with which a training can start")
    return checkpoint


def resolve(weights: str | Path, model: str | None) -> Path:
    """The file of weights that are given as a path or by name; downloads it if necessary.

    Raises the errors of `find_given` and `fetch`.
    """
    text = str(weights)
    checkpoint = find_given(text, model)
    if is_path(text):
        return Path(text)
    return fetch(checkpoint) if checkpoint else _bundled(str(model))[text]
