"""Published tables, and the rule that a measured value only fills a cell of its own dataset."""

import numpy as np
import pandas as pd
import pytest
from tables_helpers import CELLS, PAPER, ap, cell, lapx, parameters, record, run_of

from posebook import models, skeletons
from posebook.datasets import PoseDataset
from posebook.evaluation import metrics, predictions
from posebook.papers import size_trace, tables
from posebook.papers.cells import SIZE_COLUMNS
from posebook.report import html_tables

OTHERS = {
    ("LAPX", "mpii_results"): 9 * 3,
    ("LAPX", "coco_results"): 22 * 3,
    ("LAPX", "speed"): 26,
    ("LAPX", "ablation"): 14 * 9,
    ("LAPX", "repeated_runs"): 2,
    ("LAPX", "memory"): 2,
    ("LAPX", "convolutions"): 2,
    ("LAPX", "datasets"): 4 + 3,
    ("AMFACPose", "coco_results"): 25 + 4 * 3,
    ("AMFACPose", "crowdpose_results"): 14,
    ("AMFACPose", "speed"): 18,
    ("AMFACPose", "ablation"): 6 * 3,
    ("AMFACPose", "speed_bounds"): 4,
    ("AMFACPose", "devices"): 3,
    ("AMFACPose", "training_time"): 2,
    ("AMFACPose", "datasets"): 5 + 6,
    ("ViTPose", "coco_results"): 16 + 6 + 8,
    ("ViTPose", "six_datasets"): 4 * 6,
    ("HoT", "h36m_results"): 1 + 3 + 1 + 2,
    ("H2OT", "h36m_results"): 3,
    ("KTPFormer", "h36m_results"): 1 + 1 + 1,
    ("KTPFormer", "3dhp_results"): 2,
    ("StarPose", "h36m_results"): 4,
    ("StarPose", "ablation"): 4 + 2,
    ("StarPose", "3dhp_results"): 3,
}


def test_every_table_is_complete(everything, cells):
    assert cells.groupby("table").size().to_dict() == CELLS
    others = everything[everything["paper"] != PAPER]
    assert others.groupby(["paper", "table"]).size().to_dict() == OTHERS
    assert not everything.duplicated(["paper", "table", "row", "column"]).any()


def test_every_cell_has_source_and_value(everything):
    cells = everything
    assert (cells["source"] != "").all() and (cells["value"] != "").all()
    numbers = cells[cells["unit"] != "text"]
    assert pd.to_numeric(numbers["value"], errors="coerce").notna().all()
    accuracies = cells[(cells["dataset"] != "") & ~cells["column"].isin(SIZE_COLUMNS)]
    assert (accuracies["boxes_basis"] != "").all()  # the source of boxes, and how it is known


def test_latency_agrees_with_fps_and_ap_is_ordered(cells):
    """FPS = 1000 / latency in ms, within the rounding of both."""
    for _, table in cells[cells["column"].isin(["Latency (ms)", "FPS"])].groupby("table"):
        rows = table.pivot(index="row", columns="column", values="value").astype(float)
        rounding = 0.005 + 0.05 * 1000 / rows["FPS"] ** 2
        assert ((rows["Latency (ms)"] - 1000 / rows["FPS"]).abs() <= rounding).all()
    accuracy = cells[cells["column"].isin(["AP", "AP50", "AP75"])]
    rows = accuracy.pivot(index=["table", "row"], columns="column", values="value").astype(float).dropna()
    assert len(rows) == 13 and (rows["AP"] < rows["AP75"]).all() and (rows["AP75"] < rows["AP50"]).all()


def test_values_agree_between_tables(cells):
    """A document prints the same value for a model in all tables."""
    full = cells[cells["table"].isin(["main_results", "lightweight_comparison", "speed"])]
    shared = full.groupby(["row", "column"])["value"]
    assert (shared.nunique() == 1).all() and (shared.size() > 1).sum() > 20


def test_printed_digits_are_preserved(cells):
    main = cells[cells["table"] == "main_results"].set_index(["row", "column"])["value"]
    assert main["StarNet-Pose-T", "AP"] == "72.00"
    assert main["StarNet-Pose-S", "Params (M)"] == "6.428"


def test_sizes_are_counted_on_built_models():
    for row, printed in (("StarNet-Pose-T", "3.504"), ("StarNet-Pose-S", "6.428")):
        found = ap(row=row, column="Params (M)")
        assert (found["published"], found["measured"], found["status"]) == (
            printed,
            printed,
            "agrees",
        )
        work = ap(row=row, column="GFLOPs")
        assert (work["measured"], work["reason"]) == (work["published"], "counter fvcore")
        assert 0.98 < float(work["exact"]) / float(work["published"]) < 1


def test_architecture_is_read_from_modules():
    table = tables.build_table(PAPER, "architecture", [])
    assert (table["measured"] == table["published"]).all()
    other = tables.architecture(models.build("starnet-pose-s", attention="none", depths=(1, 2, 3, 4)))
    assert other["Stage 1"] == "32 ch, depth 1, no CA" and other["Stage 3"] == "128 ch, depth 3, no CA"


def test_coco_record_fills_its_cell():
    found = ap(record())
    assert (found["measured"], found["status"], found["measured_boxes"]) == (
        "71.23",
        "differs",
        "ground truth",
    )
    assert "cuda: made-up" in found["where"] and "seed 0" in found["where"] and "starnet_s1" in found["where"]
    assert ap(record(), row="StarNet-Pose-S")["status"] == "not run"
    seen_more_often = record(parameters__evaluate_every=50)
    assert ap(seen_more_often)["measured"] == "71.23"


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset__name": "synthetic", "evaluated__name": "synthetic"},
        {"dataset__name": "synthetic"},  # trained on other data
        {"weights__initialization": "scratch"},  # the row starts from ImageNet weights
        {"weights__initialization": "backbone starnet_s3.pth.tar sha256 00"},
        {"config": {"hold_out": 0.1}},  # not trained on the whole dataset
        {"evaluated__name": "coco-sample"},  # name of a subset of COCO
        {"dataset__name": "coco-sample", "evaluated__name": "coco-sample"},
        {"evaluated__split": "train2017"},
        {"profile": "demo"},
        {"profile": "fast"},
        {"parameters__epochs": 5},
        {"parameters__batch_size": 64},
        {"parameters__stage1__dropout": 0.0},
        {"protocol__input_size": [128, 96]},
        {"options": {"attention": "cbam"}},
        {"kind": "evaluate"},  # weights with unknown training data
        {"kind": "evaluate", "weights": {"trained_on": "synthetic"}},
        {"kind": "dataset"},
    ],
    ids=str,
)
def test_other_records_fill_no_coco_cell(changes):
    found = ap(record(**changes))
    assert (found["measured"], found["status"]) == ("", "not run")


def test_given_weights_fill_cell_if_training_data_is_known():
    given = record(kind="evaluate", weights={"trained_on": "coco", "initialization": "authors' file"})
    given["dataset"] = given.pop("evaluated")
    assert ap(given)["measured"] == "71.23" and "authors' file" in ap(given)["where"]
    given["parameters"] = given["parameters"] | {"runtime": "OpenVINO int8"}  # not what the paper measured
    assert ap(given)["measured"] == ""


def test_result_with_other_boxes_is_shown_too():
    detector = record(protocol__boxes="detector: boxes.json, sha256 0", metrics={"AP": 0.69})
    found = ap(detector, record())
    assert (found["measured"], found["other"]) == ("71.23", "69.00")
    assert found["other_boxes"].startswith("detector") and ap(record())["other"] == ""
    page = html_tables.comparison_table(tables.build_table(PAPER, "main_results", [detector, record()])).data
    assert "<small>detector: 69.00</small>" in page


def test_primary_metric_has_interval():
    found = tables.build_table(PAPER, "main_results", [record(interval=[0.701, 0.7234])])
    assert cell(found, "StarNet-Pose-T", "AP")["interval"] == "70.10 to 72.34"
    assert cell(found, "StarNet-Pose-T", "AP50")["interval"] == ""
    assert "70.10 to 72.34" in html_tables.comparison_table(found).data


def test_measured_rows_are_paired_if_predictions_are_archived(tmp_path):
    hits = np.random.default_rng(0).random((2, 400)) < [[0.6], [0.7]]
    runs = []
    for name, hit in zip(("starnet-pose-t", "starnet-pose-s"), hits, strict=True):
        stats = metrics.ImageStats(np.arange(400), np.ones(400), hit.astype(float))
        dataset = PoseDataset("made", "val", skeletons.get("coco"), "", (), None)
        predictions.save_predictions(
            tmp_path / name, dataset, metrics.Predictions(np.zeros((0, 17, 2)), np.zeros(0)), stats
        )
        path = str(tmp_path / f"{name}.json")
        runs.append(record(model=name, interval=[0.5, 0.6], path=path))
    paired = tables.paired_differences(tables.build_table(PAPER, "main_results", runs))
    (line,) = paired.to_dict("records")
    gain = 100 * (hits[0].mean() - hits[1].mean())
    assert line["difference"] == pytest.approx(gain) and line["low"] < gain < line["high"]
    (tmp_path / "starnet-pose-t.npz").unlink()
    assert tables.paired_differences(tables.build_table(PAPER, "main_results", runs)).empty


@pytest.mark.slow
def test_rows_without_flip_test_are_paired_by_archived_predictions(tmp_path):
    dataset, hits = PoseDataset("made", "val", skeletons.get("mpii"), "", (), None), np.ones((2, 50))
    hits[1, :10] = 0
    runs = []
    for id, hit in zip(("lapx-1", "lapx-12-seed2"), hits, strict=True):
        stats = metrics.ImageStats(np.arange(50), np.ones(50), hit)
        nothing = metrics.Predictions(np.zeros((0, 16, 2)), np.zeros(0))
        predictions.save_predictions(tmp_path / id, dataset, nothing, stats)
        runs.append(run_of(id, path=str(tmp_path / f"{id}.json")))
    (line,) = tables.paired_differences(tables.build_table("LAPX", "ablation", runs)).to_dict("records")
    assert line["row"].startswith("1:") and line["less"].startswith("12:")
    assert line["difference"] == pytest.approx(20)
    both = tables.build_table(
        "LAPX", "mpii_results", runs[1:]
    )  # printed with flip test and without: one record
    assert (both["record"] != "").sum() == 2 and tables.paired_differences(both).empty


@pytest.mark.slow
def test_training_command_has_cost():
    run = record(dataset__name="synthetic", evaluated__name="synthetic", wall_seconds=3600.0)
    run |= {"name": "train-made", "complexity": {"macs": {"exact": 432_300_000}}}
    run["parameters"] |= {"epochs": 10}
    run["dataset"]["persons"] = 36_000  # 100 people/s
    run["complexity"]["macs"]["exact"] = size_trace.count(
        {"model": "lapx", "options": "", "input_size": "256x256", "dataset": "mpii"}, []
    )["macs"]["exact"]
    twelve = lapx("12: 10 + ECA-NonLocal, γ=0.2", "PCKh@0.5", [run])
    assert f"about {3 * 200 * 22_246 / 100 / 3600:.0f} hours" in twelve["cost"]  # three runs of 200 epochs
    run["complexity"]["macs"]["exact"] = 432_300_000
    found = cell(tables.build_table(PAPER, "main_results", [run]), "StarNet-Pose-T", "AP")
    hours = 210 * 149_813 / 100 / 3600
    assert f"about {hours:.0f} hours at the speed of train-made: 100 people/s" in found["cost"]
    assert ap()["cost"] == ""


def test_omitted_options_are_builder_defaults():
    spelt = record(model="starnet-pose-s", options={"attention": "coordinate", "attention_stages": [3, 4]})
    assert ap(spelt, row="StarNet-Pose-S")["measured"] == "71.23"


def test_printed_boxes_are_preferred_then_newest_record():
    detector = record(
        protocol__boxes="detector boxes.json sha256 0", started="2027-01-01T00:00:00Z", metrics={"AP": 0.69}
    )
    assert ap(detector)["measured"] == "69.00" and ap(detector)["measured_boxes"].startswith("detector")
    assert ap(detector, record())["measured"] == "71.23"
    assert ap(record(), record(started="2026-06-01T00:00:00Z", metrics={"AP": 0.7}))["measured"] == "70.00"


def test_ablation_cells_require_options_and_schedule():
    rows = [
        "StarNet-S1 (w/o CA)",
        "StarNetCA-S1",
        "StarNetCA-S1 + fixed dropout",
        "StarNet-S1 + fixed dropout",
    ]

    def filled(run: dict) -> list[str]:
        table = tables.build_table(PAPER, "occlusion_ablation", [run])
        return list(table.loc[table["measured"] != "", "row"])

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
    on_curve = ap(cbam, **best, column="Best AP")
    assert on_curve["measured"] == "50.00" and "without flip test" in on_curve["where"]
    assert "without flip test" in on_curve["reason"]
    assert ap(cbam, **best, column="Best AP epoch")["measured"] == "10"
    shorter = record(**mini("starnet-pose-s"), options={"attention": "cbam"})
    assert ap(shorter, **best)["status"] == "not run"
