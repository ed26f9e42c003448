"""Printed and measured results of lifters, and the comparison of pruning methods over seeds."""

import copy
import json
import shlex
from dataclasses import asdict

import pandas as pd
import pytest
import torch

from posebook import cli
from posebook.lifting import metrics, models, pruning, recipes, training
from posebook.papers import lifting_tables, tables
from posebook.papers.cells import load_cells
from posebook.report import html_tables

HOT = "prune=3:cluster:81;recover=attend"
CELL = {"model": "mixste", "options": HOT, "dataset": "h36m", "split": "val", "column": "MPJPE"}


def lift(**changes) -> dict:
    """The record of a training of HoT's MixSTE on Human3.6M; changes replace fields, a__b nested ones."""
    parts = {"name": "h36m", "split": "val", "sha256": "0" * 64, "clips": 236}
    record = {
        "kind": "lift",
        "name": "made-up",
        "model": "mixste",
        "options": {"prune": {"3": ["cluster", 81]}, "recover": "attend"},
        "dataset": parts | {"split": "train"},
        "evaluated": parts,
        "profile": "paper",
        "parameters": json.loads(json.dumps(asdict(recipes.get("paper", "mixste")))) | {"device": "cuda"},
        "metrics": {"MPJPE": 41.23, "P-MPJPE": 32.0, "MPJVE": 2.0, "ACC": 1.0},
        "seed": 0,
        "started": "2026-01-01T00:00:00Z",
        "machine": {"device": "cuda: made-up"},
    }
    record = copy.deepcopy(record)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = record
        for parent in parents:
            place = place[parent]
        place[last] = value
    return record


def ktpformer(**changes) -> dict:
    """The record of a training of KTPFormer on Human3.6M."""
    parameters = json.loads(json.dumps(asdict(recipes.get("paper", "ktpformer")))) | {"device": "cuda"}
    return lift(model="ktpformer", options={}, parameters=parameters, **changes)


def ktpformer_cell(*records: dict) -> pd.Series:
    table = tables.build_table("KTPFormer", "h36m_results", list(records))
    return table[(table["row"] == "KTPFormer") & (table["column"] == "MPJPE")].iloc[0]


# printed cells


def test_counted_costs_equal_printed_ones():
    table = tables.build_table("HoT", "h36m_results", [])
    giga = table[table["column"] == "FLOPs (G)"]
    assert len(giga) == 4 and (giga["measured"] == giga["published"]).all()
    assert (giga["reason"] == "counter linear layers").all() and (giga["exact"] != giga["published"]).all()
    saved = table[table["column"] == "FLOPs saved (%)"].set_index("row")["measured"]
    assert saved.to_dict() == {"HoT w. MixSTE": "40", "HoT w. MotionBERT": "52"}


def test_paper_models_agree_with_published_rows():
    cells = load_cells()
    cells = cells[cells["model"].isin(models.LIFTERS)]
    for row, model, text in cells[["row", "model", "options"]].itertuples(index=False):
        assert lifting_tables.PAPER_MODELS[row.removesuffix(", true 2D joints")] == (model, text)


def test_training_fills_cell_of_its_dataset():
    found = ktpformer_cell(lift(), ktpformer())
    assert (found["measured"], found["status"], found["spread"]) == ("41.2", "differs", "")
    assert found["where"].startswith("cuda: made-up, 2026-01-01, with flip test, seed 0")
    older = ktpformer(metrics__MPJPE=90.0, started="2025-01-01T00:00:00Z")
    several = ktpformer_cell(older, ktpformer(), ktpformer(seed=1, metrics__MPJPE=41.63))
    assert (several["measured"], several["spread"]) == ("41.4", "± 0.3, 2 runs")
    page = html_tables.comparison_table(tables.build_table("KTPFormer", "h36m_results", [ktpformer()])).data
    assert "41.2" in page and "--lifter ktpformer --dataset h36m-gt" in page


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset__name": "motion", "evaluated__name": "motion"},
        {"dataset__name": "motion"},
        {"evaluated__split": "train"},
        {"profile": "fast"},
        {"model": "motionbert"},
        {"options": {}},
        {"options__recover": "interpolate"},
        {"parameters__epochs": 3},
        {"kind": "starpose"},
    ],
    ids=str,
)
def test_other_records_fill_no_cell(changes):
    assert not lifting_tables.matching_runs(CELL, [lift(**changes)]) and lifting_tables.matching_runs(
        CELL, [lift(**changes), lift()]
    )


def test_command_trains_the_options_of_the_cell():
    words = shlex.split(lifting_tables.training_command(CELL))
    given = dict(zip(words[2::2], words[3::2], strict=True))
    made = {"prune": json.loads(given["--prune"]), "recover": given["--recover"]}
    assert made == lift()["options"] and given["--dataset"] in training.DATASETS
    assert words[:2] == ["posebook", "train-lifter"]
    assert ktpformer_cell()["command"] == lifting_tables.h36m_command("KTPFormer")


# runs for the comparison of methods


def runs(*methods: str, seeds: int = 3, **errors: float) -> list[dict]:
    """Runs of methods with errors 1 mm apart between seeds; errors: by method, with _ instead of -."""
    return [
        lift(
            name=f"lift-mixste-{method}-fast-seed{seed}",
            dataset__name="motion",
            metrics={name: errors[method.replace("-", "_")] + seed for name in metrics.METRICS},
        )
        | {"complexity": {"macs": 2_000_000}, "options": options_of(method)}
        for method in methods
        for seed in range(seeds)
    ]


def options_of(method: str) -> dict:
    return recipes.SMALL_MODEL | lifting_tables.VARIANT_OPTIONS[method]


def test_pruning_table_groups_runs_by_method():
    made = runs("hot", "full", full=100.0, hot=90.0) + [lift(name="lift-mixste-motion-demo-seed0")]
    unnamed = made[0] | {"name": "lift-mixste-motion-fast-seed0"}  # the default name of a training
    made += [unnamed, made[0] | {"name": "lift-mixste-full-fast-seed9"}]  # pruned, but called full
    table = lifting_tables.pruning_table(made)
    assert list(table.index) == ["full", "hot"] and list(table["seeds"]) == [3, 3]
    assert table.loc["hot", ["MPJPE", "MPJPE ±", "multiply-adds (M)"]].tolist() == [91.0, 1.0, 2.0]
    longer = lift(name="lift-mixste-full-fast-seed7", dataset__name="motion", parameters__epochs=9)
    other = lift(name="lift-ktpformer-no-bones-fast-seed0", dataset__name="motion", model="ktpformer")
    further = [longer | {"options": options_of("full")}, other | {"options": options_of("no-bones")}]
    more = lifting_tables.pruning_table([*made, *(run | {"complexity": {"macs": 1}} for run in further)])
    assert more["seeds"].to_dict() == {"full": 3, "hot": 3, "ktpformer, no-bones": 1}
    assert lifting_tables.pruning_table([]).empty and lifting_tables.guidance_table([]).empty


def test_pruning_command_trains_a_run_of_the_table(monkeypatch):
    asked = []

    def train(**arguments) -> dict:
        """Stand-in for train_lifter."""
        asked.append(arguments)
        return {}

    monkeypatch.setattr(training, "train_lifter", train)
    cli.main(shlex.split(lifting_tables.PRUNING)[1:])
    assert [arguments["name"] for arguments in asked] == ["lift-mixste-hot-fast-seed0"]


def test_frames_per_layer():
    small = {"width": 8, "depth": 4, "heads": 2}
    model = pruning.build_lifter("mixste", 9, **small, prune={1: ("uniform", 5), 3: ("uniform", 2)})
    assert lifting_tables.frames_per_layer(model, torch.zeros(1, 9, 17, 2)) == [9, 5, 5, 2]


def test_guidance_table_groups_by_options():
    rows = [{"net": "plain", "guided": False}, {"net": "starpose", "history": True, "guided": True}]
    results = [[row | dict.fromkeys(metrics.METRICS, 1.0 + seed) for row in rows] for seed in range(2)]
    made = [{"kind": "starpose", "name": f"s{seed}", "metrics": each} for seed, each in enumerate(results)]
    table = lifting_tables.guidance_table(made)
    assert list(table.index) == ["plain", "starpose + history + guided"] and list(table["seeds"]) == [2, 2]
