"""Published cells: commands, matching records and sizes."""

import json
import shlex

import pandas as pd
import pytest
from tables_helpers import PAPER, ap, benchmark, cell, lapx, record, run_of

from posebook import complexity, datasets, models
from posebook.papers import ablations, commands, matching, size_trace, tables
from posebook.papers.cells import load_cells, parse_size
from posebook.papers.statuses import QUANTITIES, STATUSES
from posebook.report import html_tables
from posebook.training import recipes


def test_status_and_command_depend_on_whether_model_is_built():
    table = tables.build_table(PAPER, "lightweight_comparison", [])
    unknown = table["row"].isin(["X-HRNet-30", "LMFormer-L", "LGM-Pose"])
    assert (table.loc[unknown, "status"] == "published only").all() and (
        table.loc[unknown, "command"] == ""
    ).all()
    missing = table[table["status"] == "not run"]
    ours = missing["row"].str.startswith("StarNet")
    assert ours.sum() == 8 and missing.loc[ours, "command"].str.contains("--model starnet-pose-").all()
    pattern = "posebook evaluate --weights coco\\S* --model (?:rtmpose|lite)-.* --profile paper"
    assert missing.loc[~ours, "command"].str.contains(pattern).all()
    (lite,) = set(missing.loc[missing["row"] == "Lite-HRNet-30", "command"])
    assert (
        "--weights coco-authors --model lite-hrnet-30" in lite
    )  # printed is the AP of the authors' file, not of mmpose's
    command = ap(name="occlusion_ablation", row="StarNetCA-S1")["command"]
    assert command == "make grid PROFILE=paper ROWS=occlusion-ca"


def test_commands_train_the_recipe_of_the_cell(everything, tmp_path):
    """Every training command is valid and requests the dataset, options and recipe of the cell."""
    asked = 0
    cells = everything[
        everything["model"].isin(recipes.PAPER) & (everything["dataset"] != "")
    ].drop_duplicates(["paper", "table", "row", "dataset"])
    for line in cells.to_dict("records"):
        words = shlex.split(commands.measuring_command(line))
        if words[:2] == ["make", "grid"]:
            for run in ablations.matching_rows(words[3].removeprefix("ROWS=")):
                made = recipes.get("paper", run.model, run.dataset, **run.changes)
                assert (run.row, run.model, made) == (line["row"], line["model"], matching.cell_recipe(line))
            asked += 1
        elif words[:2] == ["posebook", "train"]:
            given = dict(zip(words[2::2], words[3::2], strict=True))
            models.check_options(given["--model"], json.loads(given.get("--options", "{}")))
            changes = json.loads(given.get("--set", "{}"))
            recipe = recipes.get(given["--profile"], given["--model"], given["--dataset"], **changes)
            assert recipe == matching.cell_recipe(line)
            with pytest.raises(datasets.DatasetMissing):
                datasets.load(given["--dataset"], tmp_path)
            asked += 1
    assert asked == (3 + 5 + 6 + 14) + (2 + 2 + 2) + (3 + 1) + (2 + 4) + 8


@pytest.mark.slow
def test_scorecard_counts():
    card, more = tables.scorecard([]), tables.scorecard([record(), benchmark()])
    cells = load_cells()
    assert card.groupby(["paper", "table"])["count"].sum().equals(cells.groupby(["paper", "table"]).size())
    assert set(card["status"]) <= set(STATUSES) and set(card["quantity"]) <= set(QUANTITIES)
    assert card.groupby("paper")["fitted"].sum().loc[lambda counts: counts > 0].to_dict() == {"AMFACPose": 16}

    def not_run(counted: pd.DataFrame) -> pd.Series:
        return counted[counted["status"] == "not run"].groupby(["paper", "table"])["count"].sum()

    fewer = (not_run(card) - not_run(more)).loc[lambda counts: counts != 0]
    expected = {"main_results": 6, "lightweight_comparison": 4, "speed": 5}
    assert fewer.to_dict() == {(PAPER, table): number for table, number in expected.items()}


def test_accuracies_state_their_data():
    pck = record(metrics={"PCK@0.2": 0.6}, metrics_without_flip={"PCK@0.2": 0.5}, evaluated__name="lspet")
    plain = record(protocol__flip_test=False)
    start = "weights a.safetensors sha256 00"
    plain |= {"interval": [0.7, 0.75], "weights": {"initialization": start, "file": "b.safetensors"}}
    plain["protocol"]["boxes"] = "detector: file.json"
    plain["parameters"]["runtime"] = "OpenVINO int8"
    table = tables.all_accuracies([pck, plain, benchmark()])
    assert list(table["boxes"]) == ["ground truth", "detector"]
    assert list(table["95 % interval"]) == ["", "0.700 to 0.750"]
    assert list(table["weights"]) == [
        "made-up, from backbone starnet_s1.pth.tar",
        "made-up, from weights a, OpenVINO int8",
    ]
    assert table.loc[1, "measured on"] == "COCO val2017, 6,352 boxes"
    assert list(table["metric"]) == ["PCK@0.2", "AP"]
    assert table.loc[0, ["with flip test", "without"]].tolist() == [0.6, 0.5]
    assert pd.isna(table.loc[1, "with flip test"]) and table.loc[1, "without"] == pytest.approx(0.71234)
    assert table.loc[0, "measured on"] == "LSPET val2017, 6,352 people"


def test_unknown_table_raises_with_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"StarNet-Pose/speed"):
        tables.build_table(PAPER, "spede", [])
    with pytest.raises(FileNotFoundError, match="one CSV file for each paper"):
        load_cells(tmp_path)
    with pytest.raises(FileNotFoundError, match="part of the posebook repository"):
        load_cells(tmp_path / "missing")


@pytest.mark.slow
def test_ablation_sizes_use_options_and_skeleton():
    assert lapx("3: 4-stage (channels=190)")["measured"] == "2.25"
    assert lapx("1: 2-stage (channels=256)")["measured"] == "2.30"
    assert lapx("12: 10 + ECA-NonLocal, γ=0.2")["exact"] == "2.3111"  # of MPII's 16 joints; printed 2.30
    steps = tables.build_table("AMFACPose", "ablation", [])
    sizes = steps[steps["column"] == "Params (M)"]
    assert (sizes["measured"] == sizes["published"]).all() and len(sizes) == 6


@pytest.mark.slow
def test_command_trains_with_recipe_and_evaluates_without():
    """LAP has neither a recipe in posebook nor public weights."""
    assert lapx("2: 3-stage (channels=208)", "PCKh@0.5")["command"] == "make grid PROFILE=paper ROWS=lapx-2"
    table = tables.build_table("LAPX", "mpii_results", [])
    assert "--model lapx --dataset mpii --data-root data/mpii" in cell(table, "LAPX", "PCKh@0.5")["command"]
    assert cell(table, "LAP", "PCKh@0.5")[["status", "command"]].tolist() == ["published only", ""]
    table = tables.build_table("AMFACPose", "coco_results", [])
    small = cell(table, "AMFACPose, ResNet-18, 384×288", "AP")
    assert small["command"].endswith("""--set '{"input_size": [384, 288]}'""")
    hrnet = cell(table, "HRNet-W48", "AP")
    assert hrnet["status"] == "not run" and "--weights coco-384x288" in hrnet["command"]


def test_grid_run_fills_only_its_row():
    for id in ablations.rows():
        row = ablations.rows()[id]
        filled = load_cells()
        filled = filled[(filled["table"] == row.table) & (filled["paper"] == row.paper)]
        for made, rows in ((run_of(id), [row.row] if row.row else []), (run_of(id, "demo"), [])):
            cells = filled[filled["column"].isin(["AP", "PCKh@0.5"])].to_dict("records")
            found = [c for c in cells if matching.matches(c, parse_size(c["input_size"]), made)]
            assert [c["row"] for c in found] == rows, id
        swept = tables.occlusion_sweep([run_of(id)])
        assert list(swept.loc[swept["AP"] != "", "run"]) == ([id] if row.table == "occlusion_sweep" else [])


def test_demo_run_fills_no_cell():
    twelve = ("12: 10 + ECA-NonLocal, γ=0.2", "PCKh@0.5")
    filled = tables.build_table("LAPX", "ablation", [run_of("lapx-12-seed0")])
    assert cell(filled, *twelve)["measured"] == "90.00" and cell(filled, *twelve)["spread"] == ""
    assert "without flip test, seed 0" in cell(filled, *twelve)["where"]
    demo = tables.build_table("LAPX", "ablation", [run_of("lapx-12-seed0", "demo")])
    assert cell(demo, *twelve)["status"] == "not run"


def test_several_seeds_give_mean_and_spread():
    figures = {"lapx-12-seed0": 0.8790, "lapx-12-seed1": 0.8800, "lapx-12-seed2": 0.8801}
    runs = [run_of(id, metrics_without_flip={"PCKh@0.5": value}) for id, value in figures.items()]
    older = run_of("lapx-12-seed1", metrics_without_flip={"PCKh@0.5": 0.1}, started="2025-01-01T00:00:00Z")
    given = run_of("lapx-12-seed2", metrics_without_flip={"PCKh@0.5": 0.2}, started="2025-01-01T00:00:00Z")
    given["weights"] = {"initialization": "weights from elsewhere"}
    found = tables.build_table("LAPX", "ablation", [older, given, *runs])
    twelve = cell(found, "12: 10 + ECA-NonLocal, γ=0.2", "PCKh@0.5")
    assert (twelve["measured"], twelve["spread"]) == ("87.97", "± 0.06, 3 runs")
    assert "seeds 0, 1, 2" in twelve["where"] and twelve["interval"] == ""
    assert "± 0.06, 3 runs" in html_tables.comparison_table(found).data


def test_sweep_table():
    made = run_of("sweep-08-02", interval=[0.48, 0.52])
    table = tables.occlusion_sweep([made]).set_index("run")
    assert len(table) == 9
    measured = table.loc["sweep-08-02"]
    assert (measured["first"], measured["last"], measured["AP"]) == (0.8, 0.2, "50.00")
    assert measured["interval"] == "48.00 to 52.00" and measured["command"] == ""
    assert table.loc["sweep-00-00", "command"] == "make grid PROFILE=paper ROWS=sweep-00-00"


def test_weights_of_posebook_fill_a_cell_only_with_the_record_of_their_training():
    def evaluated(**facts):
        run = record(
            kind="evaluate", metrics={"AP": 0.6}, weights={"trained_on": "coco", "sha256": "1"} | facts
        )
        run["dataset"] = run.pop("evaluated")
        return run

    assert ap(evaluated())["measured"] == "60.00"  # the authors' weights
    assert ap(evaluated(trained_here=True))["measured"] == ""
    trained = record(weights__sha256="1", protocol__boxes="detector: x", started="2025-01-01")
    assert ap(evaluated(trained_here=True), trained)["measured"] == "60.00"
    assert ap(evaluated(trained_here=True), trained | {"profile": "fast"})["measured"] == ""


def test_row_without_augmentation_uses_result_without_flip_test():
    run = record(
        model="lapx", kind="evaluate", weights={"trained_on": "coco"}, metrics={"AP": 0.7}, split="val2017"
    )
    run["dataset"] = run.pop("evaluated")
    run["metrics_without_flip"] = {"AP": 0.69}
    table = tables.build_table("LAPX", "coco_results", [run])
    assert cell(table, "LAPX, 256×192", "AP")["measured"] == "70.0"
    plain = cell(table, "LAPX, without augmentation, 256×192", "AP")
    assert plain["measured"] == "69.0" and "without flip test" in plain["where"]


def test_sizes_are_read_from_record_of_current_code():
    line = {"model": "lapx", "options": "", "input_size": "256x256", "dataset": "mpii"}
    row = {"model": "lapx", "options": "", "input_size": "256x256", "skeleton": "mpii", "params": 1}
    counted = {"kind": "complexity", "parameters": {"code": complexity.code_hash()}, "metrics": [row]}
    assert size_trace.count(line, [counted])["params"] == 1
    counted["parameters"]["code"] = "older"
    assert size_trace.count(line, [counted])["params"] == 2311111


@pytest.mark.parametrize(
    "printed, expected",
    [
        ("0.435", {("fvcore", "rounded")}),
        ("0.432", {("exact", "rounded"), ("exact", "truncated")}),
        ("0.44", {("thop", "rounded"), ("mmcv", "rounded"), ("mmcv", "truncated")}),
        ("0.431", set()),
        (
            "0.430",
            {("fvcore", "rounded"), ("exact", "rounded")}
            | {(n, "truncated") for n in ("fvcore", "exact", "thop")},
        ),
        (
            "0.4",
            {(n, match) for n in ("exact", "fvcore", "thop", "mmcv") for match in ("rounded", "truncated")},
        ),
        ("1.0", set()),
        ("", set()),
    ],
)
def test_matching_counters_of_a_printed_number(printed, expected):
    totals = {"exact": 0.4323, "fvcore": 0.4349, "thop": 0.4374, "mmcv": 0.4416}
    assert set(size_trace.matching_counters(printed, totals)) == expected
