"""Helpers for the tests of this folder."""

import copy
import json
from dataclasses import asdict

import pandas as pd

from posebook.papers import ablations, tables
from posebook.training import recipes

PAPER = "StarNet-Pose"
BACKBONES = {"starnet-pose-s": "starnet_s3.pth.tar"}


CELLS = {
    "main_results": 2 * 8,
    "lightweight_comparison": 8 * 6,
    "speed": 6 * 7,
    "architecture": 6 * 2,
    "attention_ablation": 3 * 6,
    "occlusion_ablation": 5,
}


def parameters(*recipe: str, **changes) -> dict:
    """The parameters in a record for a recipe; arguments as for `recipes.get`."""
    return json.loads(json.dumps(asdict(recipes.get(*recipe, **changes))))


def record(**changes) -> dict:
    """The record of a run for StarNet-Pose-T's COCO row; changes replace fields, a__b nested ones."""
    people = {"name": "coco", "split": "val2017", "sha256": "0" * 64, "persons": 6352}
    backbone = BACKBONES.get(changes.get("model", ""), "starnet_s1.pth.tar")
    fields = {
        "kind": "train",
        "name": "made-up",
        "model": "starnet-pose-t",
        "options": {},
        "dataset": people | {"split": "train2017", "persons": 149813},
        "evaluated": people,
        "profile": "paper",
        "parameters": parameters("paper"),
        "protocol": {"input_size": [256, 192], "boxes": "ground truth", "flip_test": True},
        "metrics": {"AP": 0.71234, "AP50": 0.9, "AP75": 0.79, "AR": 0.74},
        "curve": [{"epoch": 10, "loss": 1.0, "AP": 0.5}, {"epoch": 20, "loss": 0.9, "AP": 0.4}],
        "seed": 0,
        "weights": {"initialization": f"backbone {backbone} sha256 00"},
        "machine": {"device": "cuda: made-up"},
        "started": "2026-01-01T00:00:00Z",
    }
    fields = copy.deepcopy(fields)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = fields
        for parent in parents:
            place = place[parent]
        place[last] = value
    return fields


def benchmark(model: str = "starnet-pose-t", median: float = 20.0, **changes) -> dict:
    """A benchmark record with one row, on a machine that was not quiet; changes replace fields of the row."""
    run = {"model": model, "input_size": [256, 192], "batch": 1, "form": "eager fp32", "threads": 2}
    run |= {"difference": 0.0}
    run |= {"latency_ms": {"median": median, "p10": 19.0, "p90": 25.0, "mean": 21.0}} | changes
    return record(kind="benchmark", model="all", metrics=[run], machine={"device": "cpu: made-up"})


def cell(table: pd.DataFrame, row: str, column: str) -> pd.Series:
    found = table[(table["row"] == row) & (table["column"] == column)]
    assert len(found) == 1
    return found.iloc[0]


def ap(
    *records: dict, name: str = "main_results", row: str = "StarNet-Pose-T", column: str = "AP"
) -> pd.Series:
    return cell(tables.build_table(PAPER, name, list(records)), row, column)


def lapx(row: str, column: str = "Params (M)", records: list[dict] = ()) -> pd.Series:
    return cell(tables.build_table("LAPX", "ablation", list(records)), row, column)


def run_of(id: str, profile: str = "paper", **changes) -> dict:
    """The record that a grid row would write."""
    config = ablations.rows()[id].config(profile)
    named = {
        name: getattr(config, name) for name in ("model", "options", "seed", "name", "profile", "dataset")
    }
    recipe = parameters(profile, named["model"], named["dataset"], **config.recipe)
    split = "val2017" if named["dataset"].startswith("coco") else "val"
    people = {"name": named["dataset"], "split": split, "sha256": "0" * 64, "persons": 2958}
    figures = {"PCKh@0.5": 0.9} if named["dataset"] == "mpii" else {"AP": 0.5}
    made = record(**named | {"dataset": people}, evaluated=people, parameters=recipe, metrics=figures)
    made |= {"metrics_without_flip": figures} | changes
    made["protocol"]["input_size"] = recipe["input_size"]
    return made
