"""The papers' numbers, and the rule that a measured figure stands only in a cell of its own dataset."""

import copy
import json
import shlex
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from posebook import complexity, datasets, models, skeletons
from posebook.datasets import PoseDataset
from posebook.evaluation import metrics, predictions
from posebook.papers import ablations, commands, matching, size_trace, tables
from posebook.papers.cells import SIZE_COLUMNS, SPEED_COLUMNS, load_cells, parse_size
from posebook.report import html_tables
from posebook.training import recipes

PAPER = "StarNet-Pose"
CELLS = {
    "main_results": 2 * 8,
    "lightweight_comparison": 8 * 6,
    "speed": 6 * 7,
    "architecture": 6 * 2,
    "attention_ablation": 3 * 6,
    "occlusion_ablation": 5,
}


OTHERS = {
    ("LAPX", "mpii_results"): 9 * 3,
    ("LAPX", "coco_results"): 22 * 3,
    ("LAPX", "speed"): 26,
    ("LAPX", "ablation"): 14 * 9,
    ("AMFACPose", "coco_results"): 25,
    ("AMFACPose", "crowdpose_results"): 14,
    ("AMFACPose", "speed"): 18,
    ("AMFACPose", "ablation"): 6 * 3,
    ("ViTPose", "coco_results"): 16 + 3 + 8,
    ("ViTPose", "six_datasets"): 4 * 6,
    ("HoT", "h36m_results"): 2 + 3 + 1 + 2,
    ("H2OT", "h36m_results"): 3,
    ("KTPFormer", "h36m_results"): 2 + 1 + 1,
    ("KTPFormer", "3dhp_results"): 2,
    ("StarPose", "h36m_results"): 4,
    ("StarPose", "ablation"): 4 + 2,
    ("StarPose", "3dhp_results"): 3,
}


@pytest.fixture(scope="module")
def everything() -> pd.DataFrame:
    return load_cells()


@pytest.fixture(scope="module")
def cells(everything) -> pd.DataFrame:
    return everything[everything["paper"] == PAPER]


def parameters(*recipe: str, **changes) -> dict:
    """What a record says of a recipe: profile, model, dataset and changes, as `recipes.get` takes them."""
    return json.loads(json.dumps(asdict(recipes.get(*recipe, **changes))))


def record(**changes) -> dict:
    """A run that measures StarNet-Pose-T's COCO row; changes replace fields, 'a.b' within one."""
    people = {"name": "coco", "split": "val2017", "sha256": "0" * 64, "persons": 6352}
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
        "weights": {"initialization": "scratch"},
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


def cell(table: pd.DataFrame, row: str, column: str) -> pd.Series:
    found = table[(table["row"] == row) & (table["column"] == column)]
    assert len(found) == 1
    return found.iloc[0]


def ap(
    *records: dict, name: str = "main_results", row: str = "StarNet-Pose-T", column: str = "AP"
) -> pd.Series:
    return cell(tables.build_table(PAPER, name, list(records)), row, column)


def test_every_table_is_whole(everything, cells):
    assert cells.groupby("table").size().to_dict() == CELLS
    others = everything[everything["paper"] != PAPER]
    assert others.groupby(["paper", "table"]).size().to_dict() == OTHERS
    assert not everything.duplicated(["paper", "table", "row", "column"]).any()


def test_every_cell_has_its_source_and_a_value(everything):
    cells = everything
    assert (cells["source"] != "").all() and (cells["value"] != "").all()
    numbers = cells[cells["unit"] != "text"]
    assert pd.to_numeric(numbers["value"], errors="coerce").notna().all()
    accuracies = cells[(cells["dataset"] != "") & ~cells["column"].isin(SIZE_COLUMNS)]
    assert (accuracies["boxes_basis"] != "").all()  # whose boxes, and how that is known


def test_columns_agree_with_each_other(cells):
    """Frames a second are a thousand over the milliseconds, to the last digit printed of either."""
    for _, table in cells[cells["column"].isin(SPEED_COLUMNS)].groupby("table"):
        rows = table.pivot(index="row", columns="column", values="value").astype(float)
        rounding = 0.005 + 0.05 * 1000 / rows["FPS"] ** 2
        assert ((rows["Latency (ms)"] - 1000 / rows["FPS"]).abs() <= rounding).all()
    accuracy = cells[cells["column"].isin(["AP", "AP50", "AP75"])]
    rows = accuracy.pivot(index=["table", "row"], columns="column", values="value").astype(float).dropna()
    assert len(rows) == 13 and (rows["AP"] < rows["AP75"]).all() and (rows["AP75"] < rows["AP50"]).all()


def test_tables_agree_with_each_other(cells):
    """A model's figure is the same wherever the document prints it."""
    full = cells[cells["table"].isin(["main_results", "lightweight_comparison", "speed"])]
    shared = full.groupby(["row", "column"])["value"]
    assert (shared.nunique() == 1).all() and (shared.size() > 1).sum() > 20


def test_printed_digits_are_kept(cells):
    main = cells[cells["table"] == "main_results"].set_index(["row", "column"])["value"]
    assert main["StarNet-Pose-T", "AP"] == "72.00"
    assert main["StarNet-Pose-S", "Params (M)"] == "6.428"


def test_sizes_are_counted_on_the_built_models():
    for row, parameters in (("StarNet-Pose-T", "3.504"), ("StarNet-Pose-S", "6.428")):
        found = ap(row=row, column="Params (M)")
        assert (found["published"], found["measured"], found["status"]) == (
            parameters,
            parameters,
            "measured here",
        )
        work = ap(row=row, column="GFLOPs")
        assert 0.98 < float(work["measured"]) / float(work["published"]) < 1


def test_architecture_is_read_from_the_modules():
    table = tables.build_table(PAPER, "architecture", [])
    assert (table["measured"] == table["published"]).all()
    other = tables.architecture(models.build("starnet-pose-s", attention="none", depths=(1, 2, 3, 4)))
    assert other["Stage 1"] == "32 ch, depth 1, no CA" and other["Stage 3"] == "128 ch, depth 3, no CA"


def test_a_coco_record_fills_its_cell():
    found = ap(record())
    assert (found["measured"], found["status"], found["measured_boxes"]) == (
        "71.23",
        "measured here",
        "ground truth",
    )
    assert "cuda: made-up" in found["where"] and "seed 0" in found["where"] and "scratch" in found["where"]
    assert ap(record(), row="StarNet-Pose-S")["status"] == "not measured"
    seen_more_often = record(parameters__evaluate_every=50)
    assert ap(seen_more_often)["status"] == "measured here"


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset__name": "synthetic", "evaluated__name": "synthetic"},
        {"dataset__name": "synthetic"},  # trained elsewhere
        {"evaluated__name": "coco-sample"},  # what a part of COCO in COCO's layout is called
        {"dataset__name": "coco-sample", "evaluated__name": "coco-sample"},
        {"evaluated__split": "train2017"},
        {"profile": "demo"},
        {"profile": "fast"},
        {"parameters__epochs": 5},
        {"parameters__batch_size": 64},
        {"parameters__stage1__dropout": 0.0},
        {"protocol__input_size": [128, 96]},
        {"options": {"attention": "cbam"}},
        {"kind": "evaluate"},  # of weights whose training the record does not tell
        {"kind": "evaluate", "weights": {"trained_on": "synthetic"}},
        {"kind": "dataset"},
    ],
    ids=str,
)
def test_no_other_record_fills_a_coco_cell(changes):
    found = ap(record(**changes))
    assert (found["measured"], found["status"]) == ("", "not measured")


def test_given_weights_fill_a_cell_when_the_record_tells_their_data():
    given = record(kind="evaluate", weights={"trained_on": "coco", "initialization": "authors' file"})
    given["dataset"] = given.pop("evaluated")
    assert ap(given)["measured"] == "71.23" and "authors' file" in ap(given)["where"]


def test_the_other_kind_of_boxes_stands_beside():
    detector = record(protocol__boxes="detector: boxes.json, sha256 0", metrics={"AP": 0.69})
    found = ap(detector, record())
    assert (found["measured"], found["other"]) == ("71.23", "69.00")
    assert found["other_boxes"].startswith("detector") and ap(record())["other"] == ""
    page = html_tables.comparison_table(tables.build_table(PAPER, "main_results", [detector, record()])).data
    assert page.count(">posebook<") == 3 and "69.00" in page


def test_the_main_figure_has_its_interval():
    found = tables.build_table(PAPER, "main_results", [record(interval=[0.701, 0.7234])])
    assert cell(found, "StarNet-Pose-T", "AP")["interval"] == "70.10 to 72.34"
    assert cell(found, "StarNet-Pose-T", "AP50")["interval"] == ""
    assert "70.10 to 72.34" in html_tables.comparison_table(found).data


def test_measured_rows_are_paired_where_their_predictions_are_kept(tmp_path):
    hits = np.random.default_rng(0).random((2, 400)) < [[0.6], [0.7]]
    runs = []
    for name, hit in zip(("starnet-pose-t", "starnet-pose-s"), hits, strict=True):
        units = metrics.ImageStats(np.arange(400), np.ones(400), hit.astype(float))
        people = PoseDataset("made", "val", skeletons.get("coco"), "", (), None)
        predictions.save_predictions(
            tmp_path / name, people, metrics.Predictions(np.zeros((0, 17, 2)), np.zeros(0)), units
        )
        path = str(tmp_path / f"{name}.json")
        runs.append(record(model=name, interval=[0.5, 0.6], path=path))
    paired = tables.paired_differences(tables.build_table(PAPER, "main_results", runs))
    (line,) = paired.to_dict("records")
    gain = 100 * (hits[0].mean() - hits[1].mean())
    assert line["difference"] == pytest.approx(gain) and line["low"] < gain < line["high"]
    (tmp_path / "starnet-pose-t.npz").unlink()
    assert tables.paired_differences(tables.build_table(PAPER, "main_results", runs)).empty


def test_rows_without_flip_test_are_paired_by_the_predictions_that_are_kept(tmp_path):
    people, hits = PoseDataset("made", "val", skeletons.get("mpii"), "", (), None), np.ones((2, 50))
    hits[1, :10] = 0
    runs = []
    for id, hit in zip(("lapx-1", "lapx-12-seed2"), hits, strict=True):
        units = metrics.ImageStats(np.arange(50), np.ones(50), hit)
        nothing = metrics.Predictions(np.zeros((0, 16, 2)), np.zeros(0))
        predictions.save_predictions(tmp_path / id, people, nothing, units)
        runs.append(run_of(id, path=str(tmp_path / f"{id}.json")))
    (line,) = tables.paired_differences(tables.build_table("LAPX", "ablation", runs)).to_dict("records")
    assert line["row"].startswith("1:") and line["less"].startswith("12:")
    assert line["difference"] == pytest.approx(20)
    both = tables.build_table(
        "LAPX", "mpii_results", runs[1:]
    )  # printed with flip test and without: one record
    assert (both["record"] != "").sum() == 2 and tables.paired_differences(both).empty


def test_a_training_that_is_asked_for_has_its_cost():
    run = record(dataset__name="synthetic", evaluated__name="synthetic", wall_seconds=3600.0)
    run |= {"name": "train-made", "complexity": {"macs": {"exact": 432_300_000}}}
    run["parameters"] |= {"epochs": 10}
    run["dataset"]["persons"] = 36_000  # 100 people a second
    run["complexity"]["macs"]["exact"] = size_trace.count(
        {"model": "lapx", "options": "", "input_size": "256x256", "dataset": "mpii"}, []
    )["macs"]["exact"]
    twelve = lapx("12: 10 + ECA-NonLocal, γ=0.2", "PCKh@0.5", [run])
    assert f"about {3 * 200 * 22_246 / 100 / 3600:.0f} hours" in twelve["cost"]  # three runs of 200 epochs
    run["complexity"]["macs"]["exact"] = 432_300_000
    found = cell(tables.build_table(PAPER, "main_results", [run]), "StarNet-Pose-T", "AP")
    hours = 210 * 149_813 / 100 / 3600
    assert f"about {hours:.0f} hours at the 100 people a second of train-made" in found["cost"]
    assert ap()["cost"] == ""


def test_options_left_out_are_the_builders():
    spelt = record(model="starnet-pose-s", options={"attention": "coordinate", "attention_stages": [3, 4]})
    assert ap(spelt, row="StarNet-Pose-S")["status"] == "measured here"


def test_the_printed_boxes_come_first_then_the_newest():
    detector = record(
        protocol__boxes="detector boxes.json sha256 0", started="2027-01-01T00:00:00Z", metrics={"AP": 0.69}
    )
    assert ap(detector)["measured"] == "69.00" and ap(detector)["measured_boxes"].startswith("detector")
    assert ap(detector, record())["measured"] == "71.23"
    assert ap(record(), record(started="2026-06-01T00:00:00Z", metrics={"AP": 0.7}))["measured"] == "70.00"


def test_ablations_ask_for_their_options_and_their_schedule():
    rows = [
        "StarNet-S1 (w/o CA)",
        "StarNetCA-S1",
        "StarNetCA-S1 + fixed dropout",
        "StarNet-S1 + fixed dropout",
    ]

    def filled(run: dict) -> list[str]:
        table = tables.build_table(PAPER, "occlusion_ablation", [run])
        return list(table.loc[table["status"] == "measured here", "row"])

    def mini(model: str = "starnet-pose-t", **changes) -> dict:
        return {
            "dataset__name": "coco-mini",
            "evaluated__name": "coco-mini",
            "model": model,
            "parameters": parameters("paper", model, "coco-mini", **changes),
        }

    assert filled(record(**mini())) == rows[:1]
    assert filled(record(**mini(), options={"attention": "coordinate"})) == rows[1:2]
    fixed = {"stage1": {"dropout": 0.6}, "stage2": {"dropout": 0.6}}
    assert filled(record(**mini(**fixed))) == rows[3:]
    best = {"name": "attention_ablation", "row": "StarNet + CBAM"}
    longer = mini("starnet-pose-s", epochs=210, stage2_epochs=15)
    cbam = record(**longer, options={"attention": "cbam"})
    assert ap(cbam, **best, column="Best AP")["measured"] == "50.00"
    assert ap(cbam, **best, column="Best AP epoch")["measured"] == "10"
    shorter = record(**mini("starnet-pose-s"), options={"attention": "cbam"})
    assert ap(shorter, **best)["status"] == "not measured"


def benchmark(model: str = "starnet-pose-t", median: float = 20.0, **changes) -> dict:
    run = {"model": model, "input_size": [256, 192], "batch": 1, "form": "eager fp32", "threads": 2}
    run |= {"latency_ms": {"median": median, "p10": 19.0, "p90": 25.0, "mean": 21.0}} | changes
    return record(kind="benchmark", model="all", metrics=[run], machine={"device": "cpu: made-up"})


def test_latency_comes_from_a_benchmark_and_names_its_machine():
    found = ap(benchmark(), name="speed", column="Latency (ms)")
    assert (found["measured"], found["status"]) == ("20.00", "measured here")
    assert "cpu: made-up" in found["where"] and "19.00 to 25.00" in found["where"]
    assert ap(benchmark(), name="speed", column="FPS")["measured"] == "50.0"
    for other in (benchmark(batch=8), benchmark(input_size=[128, 96]), benchmark(form="compiled fp32")):
        assert ap(other, name="speed", column="FPS")["status"] == "not measured"


def test_what_is_not_built_is_published_only_and_what_is_has_a_command():
    table = tables.build_table(PAPER, "lightweight_comparison", [])
    unknown = table["row"].isin(["X-HRNet-30", "LMFormer-L", "LGM-Pose"])
    assert (table.loc[unknown, "status"] == "published").all() and (table.loc[unknown, "command"] == "").all()
    missing = table[table["status"] == "not measured"]
    ours = missing["row"].str.startswith("StarNet")
    assert ours.sum() == 8 and missing.loc[ours, "command"].str.contains("--model starnet-pose-").all()
    assert missing.loc[~ours, "command"].str.contains("evaluate.ipynb .*-p model (?:rtmpose|lite)").all()
    command = ap(name="occlusion_ablation", row="StarNetCA-S1")["command"]
    assert command == "make grid PROFILE=paper ROWS=occlusion-ca"


def test_the_commands_would_do_what_the_cells_ask_for(everything, tmp_path):
    """Every training command names a dataset, options and a recipe that posebook takes: the cell's own."""
    asked = 0
    cells = everything[
        everything["model"].isin(recipes.PAPER) & (everything["dataset"] != "")
    ].drop_duplicates(["paper", "table", "row", "dataset"])
    for cell in cells.to_dict("records"):
        words = shlex.split(commands.measuring_command(cell))
        if words[:2] == ["make", "grid"]:
            for run in ablations.matching_rows(words[3].removeprefix("ROWS=")):
                made = recipes.get("paper", run.model, run.dataset, **run.changes)
                assert (run.row, run.model, made) == (cell["row"], cell["model"], matching.cell_recipe(cell))
            asked += 1
        elif words[:2] == ["posebook", "train"]:
            given = dict(zip(words[2::2], words[3::2], strict=True))
            models.check_options(given["--model"], json.loads(given.get("--options", "{}")))
            changes = json.loads(given.get("--set", "{}"))
            recipe = recipes.get(given["--profile"], given["--model"], given["--dataset"], **changes)
            assert recipe == matching.cell_recipe(cell)
            with pytest.raises(datasets.DatasetMissing):
                datasets.load(given["--dataset"], tmp_path)
            asked += 1
    assert asked == (3 + 5 + 6 + 14) + (2 + 2 + 2) + (3 + 1) + (2 + 4) + 8


def test_the_scorecard_adds_up():
    card = tables.scorecard([])
    ours = card["paper"] == PAPER
    assert dict(zip(card.loc[ours, "table"], card.loc[ours, "cells"], strict=True)) == CELLS
    assert (card[["measured here", "not measured", "published only"]].sum(axis=1) == card["cells"]).all()
    more = tables.scorecard([record(), benchmark()])
    gained = more["measured here"] - card["measured here"]
    assert gained[~ours].sum() == 0
    assert dict(zip(card.loc[ours, "table"], gained[ours], strict=True)) == {
        "main_results": 6,
        "lightweight_comparison": 4,
        "speed": 5,
        "architecture": 0,
        "attention_ablation": 0,
        "occlusion_ablation": 0,
    }


def test_accuracies_say_what_they_were_measured_on():
    pck = record(metrics={"PCK@0.2": 0.6}, metrics_without_flip={"PCK@0.2": 0.5}, evaluated__name="lspet")
    plain = record(protocol__flip_test=False)
    table = tables.all_accuracies([pck, plain, benchmark()])
    assert list(table["metric"]) == ["PCK@0.2", "AP"]
    assert table.loc[0, ["with flip test", "without"]].tolist() == [0.6, 0.5]
    assert pd.isna(table.loc[1, "with flip test"]) and table.loc[1, "without"] == pytest.approx(0.71234)
    assert table.loc[0, "measured on"] == "lspet val2017, 6,352 people"


def test_unknown_tables_are_named():
    with pytest.raises(ValueError, match=r"StarNet-Pose/speed"):
        tables.build_table(PAPER, "spede", [])
    with pytest.raises(FileNotFoundError, match="one CSV file a paper"):
        load_cells("no/such/folder")


def lapx(row: str, column: str = "Params (M)", records: list[dict] = ()) -> pd.Series:
    return cell(tables.build_table("LAPX", "ablation", list(records)), row, column)


def test_ablations_are_built_with_their_keywords_and_their_joints():
    assert lapx("3: 4-stage (channels=190)")["measured"] == "2.25"
    assert lapx("1: 2-stage (channels=256)")["measured"] == "2.30"
    assert lapx("12: 10 + ECA-NonLocal, γ=0.2")["measured"] == "2.31"  # of MPII's 16 joints; printed 2.30
    steps = tables.build_table("AMFACPose", "ablation", [])
    sizes = steps[steps["column"] == "Params (M)"]
    assert (sizes["measured"] == sizes["published"]).all() and len(sizes) == 6


def test_a_net_with_a_recipe_is_trained_and_another_evaluated():
    """LAP has neither a recipe here nor public weights."""
    assert lapx("2: 3-stage (channels=208)", "PCKh@0.5")["command"] == "make grid PROFILE=paper ROWS=lapx-2"
    table = tables.build_table("LAPX", "mpii_results", [])
    assert "--model lapx --dataset mpii --data-root data/mpii" in cell(table, "LAPX", "PCKh@0.5")["command"]
    assert cell(table, "LAP", "PCKh@0.5")[["status", "command"]].tolist() == ["published", ""]
    table = tables.build_table("AMFACPose", "coco_results", [])
    small = cell(table, "AMFACPose, ResNet-18, 384×288", "AP")
    assert small["command"].endswith("""--set '{"input_size": [384, 288]}'""")
    hrnet = cell(table, "HRNet-W48", "AP")
    assert hrnet["status"] == "not measured" and "input_size: [384, 288]" in hrnet["command"]


def run_of(id: str, profile: str = "paper", **changes) -> dict:
    """The record that a row of the grid would leave."""
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


def test_a_run_of_the_grid_fills_its_row_and_no_other():
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


def test_a_demo_of_a_row_never_fills_its_cell():
    twelve = ("12: 10 + ECA-NonLocal, γ=0.2", "PCKh@0.5")
    filled = tables.build_table("LAPX", "ablation", [run_of("lapx-12-seed0")])
    assert cell(filled, *twelve)["measured"] == "90.00" and cell(filled, *twelve)["spread"] == ""
    assert "without flip test, seed 0" in cell(filled, *twelve)["where"]
    demo = tables.build_table("LAPX", "ablation", [run_of("lapx-12-seed0", "demo")])
    assert cell(demo, *twelve)["status"] == "not measured"


def test_several_seeds_of_a_row_are_their_mean_and_spread():
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


def test_the_sweep_has_its_nine_runs_and_their_commands():
    made = run_of("sweep-08-02", interval=[0.48, 0.52])
    table = tables.occlusion_sweep([made]).set_index("run")
    assert len(table) == 9
    measured = table.loc["sweep-08-02"]
    assert (measured["first"], measured["last"], measured["AP"]) == (0.8, 0.2, "50.00")
    assert measured["interval"] == "48.00 to 52.00" and measured["command"] == ""
    assert table.loc["sweep-00-00", "command"] == "make grid PROFILE=paper ROWS=sweep-00-00"


def test_a_row_without_augmentation_takes_the_figure_without_flip_test():
    run = record(
        model="lapx", kind="evaluate", weights={"trained_on": "coco"}, metrics={"AP": 0.7}, split="val2017"
    )
    run["dataset"] = run.pop("evaluated")
    run["metrics_without_flip"] = {"AP": 0.69}
    table = tables.build_table("LAPX", "coco_results", [run])
    assert cell(table, "LAPX, 256×192", "AP")["measured"] == "70.0"
    plain = cell(table, "LAPX, without augmentation, 256×192", "AP")
    assert plain["measured"] == "69.0" and "without flip test" in plain["where"]


def test_sizes_come_from_the_record_that_this_code_wrote():
    line = {"model": "lapx", "options": "", "input_size": "256x256", "dataset": "mpii"}
    row = {"model": "lapx", "options": "", "input_size": "256x256", "skeleton": "mpii", "params": 1}
    kept = {"kind": "complexity", "parameters": {"code": complexity.code_hash()}, "metrics": [row]}
    assert size_trace.count(line, [kept])["params"] == 1
    kept["parameters"]["code"] = "older"
    assert size_trace.count(line, [kept])["params"] == 2311111
