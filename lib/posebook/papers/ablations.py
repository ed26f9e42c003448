"""Every ablation of the papers as runs to be made: data/grid.csv, a line a run.

A line says what a run is, and its name: the record of row lapx-3 is lapx-3.json. Where a printed row is the
mean of several runs, it has a line a seed. What a line does not say is the model's own recipe on that
dataset (recipes.PAPER). Sources: the tables that the lines name, as data/published has them; and for
occlusion_sweep, of which no figures are published, experiments/occlusion_prob_study/experiment_matrix.py of
the StarNet-Pose authors' repository, lechan775/starnet-pose.
"""

import csv
import fnmatch
import functools
import json
from dataclasses import dataclass
from pathlib import Path

from posebook import models, paths
from posebook.training import recipes
from posebook.training.config import TrainConfig
from posebook.utils import unknown_name_error

FILE = paths.DATA / "grid.csv"
BACKBONES = Path("data", "checkpoints")  # where the backbone authors' ImageNet files lie
SCHEDULE_FIELDS = ("epochs", "stage2_epochs", "input_size")  # what a smaller profile has its own of


@dataclass(frozen=True)
class GridRow:
    """One run: which row of which printed table it makes, and how."""

    id: str
    paper: str
    table: str
    row: str  # as printed; "" where no figures are published
    model: str
    options: dict  # the builder's keyword arguments
    dataset: str
    changes: dict  # of the paper's recipe
    backbone: str  # the name of the ImageNet file it starts from, or ""
    seed: int

    def name(self, profile: str) -> str:
        """What its record is called; only that of profile paper has the row's own name."""
        return self.id if profile == "paper" else f"{self.id}-{profile}"

    def config(self, profile: str, **settings: object) -> TrainConfig:
        """The run as a TrainConfig; settings: fields that a row says nothing of, such as device and out_dir.

        Any profile but paper trains the row's net on the embedded data, from scratch, for that profile's own
        number of epochs at its own input size.
        """
        how = {"model": self.model, "options": self.options, "seed": self.seed, "name": self.name(profile)}
        how |= {"profile": profile}
        if profile == "paper":
            backbone = str(paths.ROOT / BACKBONES / self.backbone) if self.backbone else None
            return TrainConfig(
                dataset=self.dataset, backbone=backbone, recipe=self.changes, **how, **settings
            )
        changes = {field: value for field, value in self.changes.items() if field not in SCHEDULE_FIELDS}
        return TrainConfig(dataset="synthetic", recipe=changes, **how, **settings)


@functools.cache
def rows(path: Path = FILE) -> dict[str, GridRow]:
    """Every row by its id, in the file's order.

    Raises ValueError naming the line for a model, an option or a recipe field that is not known, for a model
    without a paper's recipe on that dataset, and for an id that was there before.
    """
    found = {}
    with open(path, newline="", encoding="utf8") as file:
        for line, cells in enumerate(csv.DictReader(file), 2):
            try:
                parsed = {name: json.loads(cells[name]) for name in ("options", "changes", "seed")}
                row = GridRow(**cells | parsed)
                models.check_options(row.model, row.options)
                recipes.get("paper", row.model, row.dataset, **row.changes)
                if row.id in found:
                    raise ValueError(f"another row is called {row.id!r}")
            except ValueError as error:
                raise ValueError(f"{path.name}, line {line}: {error}") from error
            found[row.id] = row
    return found


def get_row(id: str) -> GridRow:
    """The row of this id; ValueError offers the near ones."""
    if id not in rows():
        raise unknown_name_error(id, rows(), "row of the grid")
    return rows()[id]


def matching_rows(patterns: str) -> list[GridRow]:
    """The rows whose ids match any of some globs, 'lapx-*,amfacpose-3'.

    Raises ValueError with the near ids for a glob that no row matches.
    """
    asked: dict[str, GridRow] = {}
    for pattern in patterns.split(","):
        ids = fnmatch.filter(rows(), pattern.strip())
        if not ids:
            raise unknown_name_error(pattern, rows(), "row of the grid")
        asked |= {id: rows()[id] for id in ids}
    return list(asked.values())
