"""Trainings and evaluations as notebooks: which notebook writes a record, with which parameters.

Snakemake executes these runs with papermill. The executed notebook is the page of the run. It has the name of
the record that it writes.
"""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posebook import paths
from posebook.training.config import TrainConfig, changed_fields

PAGES = Path("executed", "runs")  # below the folder of reports


@dataclass(frozen=True)
class NotebookRun:
    """A notebook, the parameters that differ from its defaults, and the files that it reads."""

    notebook: str  # below notebooks/, without suffix
    parameters: dict[str, Any]
    files: tuple[str, ...] = ()

    def options(self, **more: Any) -> str:
        """The parameters, and more of them, as options of `python -m posebook.report execute` in a shell."""
        given = self.parameters | more
        return " ".join(f"-p {name} {shlex.quote(format_value(value))}" for name, value in given.items())


def format_value(value: Any) -> str:
    """A value as text for `parse_value`: a string without quotes if possible, otherwise JSON."""
    return value if isinstance(value, str) and parse_value(value) == value else json.dumps(value)


def parse_value(text: str) -> Any:
    """The value of a parameter in a shell: JSON, or YAML if it is none. In YAML alone, 1e-05 is a text."""
    import yaml  # a dependency of papermill

    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is neither JSON nor YAML: {' '.join(str(error).split())}") from error


def training(config: TrainConfig, files: tuple[str, ...] = ()) -> NotebookRun:
    """The run of notebooks/train.ipynb that trains with a config."""
    changed = changed_fields(config)
    if "recipe" in changed:
        changed["settings"] = changed.pop("recipe")
    return NotebookRun("train", changed, files)


def page_of(record: str) -> Path | None:
    """The executed notebook that wrote a record, given by path or name; None if it is not on this machine."""
    name = Path(record).name.removesuffix(".json")
    # The evaluation with a detector's boxes is on the page of the one with annotated boxes.
    for stem in (name, name.removesuffix("-detector")):
        page = paths.REPORTS / PAGES / f"{stem}.ipynb"
        if name and page.is_file():
            return page
    return None
