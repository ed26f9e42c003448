"""Every ablation of the papers as a list of training runs: data/grid.csv, one line for each run.

A line defines a run and its name: the record of row lapx-3 is lapx-3.json. If a printed row is the mean of
several runs, it has one line for each seed. Everything that a line does not state comes from the model's own
recipe on that dataset (recipes.PAPER). Sources: the tables that the lines name, as transcribed in
data/published. No results are published for occlusion_sweep; its source is
experiments/occlusion_prob_study/experiment_matrix.py in the repository of the StarNet-Pose authors,
lechan775/starnet-pose.
"""

import csv
import fnmatch
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posebook import models, paths
from posebook.training import recipes
from posebook.training.config import TrainConfig
from posebook.utils import check_name, unknown_name_error

FILE = paths.DATA / "grid.csv"
BACKBONES = Path("data", "checkpoints")  # folder of the backbone authors' ImageNet files
SCHEDULE_FIELDS = ("epochs", "stage2_epochs", "input_size")  # the profiles demo and fast set these themselves


@dataclass(frozen=True)
class GridRow:
    """One training run, and the row of the printed table that it measures."""

    id: str
    paper: str
    table: str
    row: str  # as printed; "" if no results are published
    model: str
    options: dict  # keyword arguments of the builder
    dataset: str
    changes: dict  # changed fields of the paper's recipe
    backbone: str  # name of the ImageNet file that the backbone starts from, or ""
    seed: int

    def name(self, profile: str) -> str:
        """The name of the record: the id for profile paper, otherwise the id with the profile appended."""
        return self.id if profile == "paper" else f"{self.id}-{profile}"

    def config(self, profile: str, **settings: Any) -> TrainConfig:
        """The run as a TrainConfig; settings: fields that a row does not define, such as device and out_dir.

        Profiles other than paper train the row's model from scratch on the bundled synthetic data, with the
        number of epochs and the input size of that profile.
        """
        if profile == "paper":
            dataset, changes = self.dataset, self.changes
            backbone = str(paths.ROOT / BACKBONES / self.backbone) if self.backbone else None
        else:
            dataset, backbone = "synthetic", None
            changes = {field: value for field, value in self.changes.items() if field not in SCHEDULE_FIELDS}
        return TrainConfig(
            model=self.model,
            options=self.options,
            dataset=dataset,
            recipe=changes,
            backbone=backbone,
            seed=self.seed,
            name=self.name(profile),
            profile=profile,
            **settings,
        )


@functools.cache
def rows(path: Path = FILE) -> dict[str, GridRow]:
    """Every row by its id, in the order of the file.

    Raises ValueError, with the line number, for an unknown model, option or recipe field, for a model without
    a paper's recipe on that dataset, and for a duplicate id.
    """
    rows_by_id: dict[str, GridRow] = {}
    with open(paths.require(path), newline="", encoding="utf8") as file:
        for line, cells in enumerate(csv.DictReader(file), 2):  # line 1 is the header
            try:
                parsed = {name: json.loads(cells[name]) for name in ("options", "changes", "seed")}
                fields: dict[str, Any] = cells | parsed
                row = GridRow(**fields)
                models.check_options(row.model, row.options)
                recipes.get("paper", row.model, row.dataset, **row.changes)
                if row.id in rows_by_id:
                    raise ValueError(f"duplicate id {row.id!r}")
            except ValueError as error:
                raise ValueError(f"{path.name}, line {line}: {error}") from error
            rows_by_id[row.id] = row
    return rows_by_id


def get_row(row_id: str) -> GridRow:
    """The row with this id; raises ValueError with close matches if there is none."""
    check_name(row_id, rows(), "grid row")
    return rows()[row_id]


def matching_rows(patterns: str) -> list[GridRow]:
    """The rows whose ids match any of several comma-separated globs, e.g. 'lapx-*,amfacpose-3'.

    Raises ValueError with close matches for a glob that matches no row.
    """
    selected: dict[str, GridRow] = {}
    for pattern in patterns.split(","):
        ids = fnmatch.filter(rows(), pattern.strip())
        if not ids:
            raise unknown_name_error(pattern, rows(), "grid row")
        selected |= {row_id: rows()[row_id] for row_id in ids}
    return list(selected.values())
