"""Published speeds and memory: which benchmark row measures a cell, and the reason for an empty cell."""

import pandas as pd
import pytest
from tables_helpers import PAPER, ap, benchmark, cell

from posebook import models
from posebook.papers import speeds, tables
from posebook.papers.cells import load_cells

ORT = speeds.ONNX_RUNTIME
QUIET = {"quiet": True}


def lapx_benchmark(**changes) -> dict:
    """ONNX Runtime takes 20 ms and 40 MiB for LAPX."""
    return benchmark("lapx", 20.0, **{"form": ORT, "resident_mib": 40.0, "conditions": QUIET} | changes)


def test_latency_is_read_from_benchmark_with_machine():
    found = ap(benchmark(), name="speed", column="Latency (ms)")
    assert (found["measured"], found["status"]) == ("20.00", "measured on another device")
    assert "cpu: made-up" in found["where"] and "19.00 to 25.00" in found["where"]
    assert ap(benchmark(), name="speed", column="FPS")["measured"] == "50.0"
    assert "not from a quiet measurement" in found["where"]
    assert "quiet" not in ap(benchmark(conditions=QUIET), name="speed", column="FPS")["where"]
    for other in (benchmark(batch=8), benchmark(input_size=[128, 96]), benchmark(form="compiled fp32")):
        assert ap(other, name="speed", column="FPS")["status"] == "not run"


def line(table: pd.DataFrame, row: str, published: str) -> pd.Series:
    found = table[
        (table["row"] == row) & (table["published device"] + table["quantity"]).str.contains(published)
    ]
    assert len(found) == 1
    return found.iloc[0]


def test_every_speed_cell_is_measured_or_gives_the_reason():
    table = speeds.speed_table([])
    assert table["measured"].isna().all() and (table["why"] != "").all()
    counts = table.groupby(["paper", "quantity"]).size().to_dict()
    assert counts["LAPX", "RAM (MB)"] == 7
    assert sum(n for (paper, _), n in counts.items() if paper == "LAPX") == 26
    assert sum(n for (paper, _), n in counts.items() if paper == "AMFACPose") == 18
    unbuilt = table[~table["why"].str.startswith("no benchmark of")].groupby("row")["why"].first().to_dict()
    assert unbuilt == {
        "UDP, ResNet-152": "the document does not state the input size",
        "Dite-HRNet-30, 256×192": "posebook does not build Dite-HRNet-30",
        "Dite-HRNet-30, 384×288": "posebook does not build Dite-HRNet-30",
    }


def test_one_benchmark_of_the_unmeasured_inputs_fills_all_cells_that_can_be_measured():
    def rows_of(todo):
        fields = {"conditions": QUIET, "resident_mib": 40.0}
        return [
            benchmark(name, 10.0, input_size=list(size), form=form, **fields)["metrics"][0]
            for forms, inputs in todo.items()
            for name, size in inputs
            for form in forms
        ]

    todo = speeds.unmeasured_inputs([])
    assert ("amfacpose-r34", (256, 256)) in todo["eager fp32",]
    rows = rows_of(todo)
    record = benchmark() | {"metrics": rows}
    table = speeds.speed_table([record])
    assert (table["why"] != "").sum() == 3 and table["measured"].notna().sum() == len(table) - 3
    assert (table.loc[table["why"] == "", "device"].str.startswith("cpu: made-up")).all()
    assert speeds.unmeasured_inputs(rows) == {}
    some = rows_of({("eager fp32",): [("amfacpose-r34", (256, 256))]})
    assert ("amfacpose-r34", (256, 256)) not in speeds.unmeasured_inputs(some)["eager fp32",]


def test_lapx_is_measured_in_onnx_runtime_with_two_passes_for_augmentation():
    table = speeds.speed_table([lapx_benchmark()])
    plain, both = (
        line(table, name, "Apple M2.*FPS")
        for name in ("LAPX, without augmentation, 256×192", "LAPX, 256×192")
    )
    assert (plain["measured"], plain["forwards"], plain["published"]) == ("50.0", 1, "30")
    assert (both["measured"], both["forwards"], both["published"]) == ("25.0", 2, "15")
    assert plain["runtime"] == ORT and plain["device"].startswith("cpu: made-up") and plain["quiet"]
    memory = line(table, "LAPX, 256×192", "RAM")
    assert (memory["measured"], memory["published"]) == (f"{40 * 2**20 / 1e6:.1f}", "58.0")
    silent = speeds.speed_table([lapx_benchmark(resident_mib=None)])  # a system without /proc
    assert line(silent, "LAPX, 256×192", "RAM")["why"] == f"no benchmark of lapx at this size in {ORT}"
    # a speed that the document takes from another paper stands for one forward pass, in eager PyTorch
    other = speeds.speed_table([benchmark("lpn-50", 20.0)])
    assert line(other, "LPN-50, 256×192", "i7-8700K")["measured"] == "50.0"
    found = cell(tables.build_table("LAPX", "speed", [lapx_benchmark()]), "LAPX, 256×192", "FPS, Apple M2")
    assert found["measured"] == "25.0" and "two forward passes" in found["where"]
    empty = cell(tables.build_table("LAPX", "speed", []), "Dite-HRNet-30, 256×192", "FPS, RK3588")
    assert empty[["status", "reason"]].tolist() == ["published only", "posebook does not build Dite-HRNet-30"]


def test_row_with_other_outputs_fills_no_cell():
    wrong = lapx_benchmark(difference=1.9, threads=2)
    name = "LAPX, without augmentation, 256×192"
    found = line(speeds.speed_table([wrong]), name, "FPS")
    assert pd.isna(found["measured"])
    assert found["why"] == f"the recorded outputs in {ORT} differ from the model's by 1.9e+00"
    status = cell(tables.build_table("LAPX", "speed", [wrong]), name, "FPS, Apple M2")
    assert (status["status"], status["command"]) == ("not run", "posebook benchmark --published")
    both = line(speeds.speed_table([wrong, lapx_benchmark(difference=1e-6, threads=1)]), name, "FPS")
    assert both["measured"] == "50.0" and both["threads"] == 1
    assert speeds.is_correct({"form": "OpenVINO int8", "difference": 0.3})


def test_quiet_then_newer_rows_are_preferred():
    def dated(median, started, quiet, **changes):
        changes |= {"conditions": {"quiet": quiet}}
        return benchmark(median=median, **changes) | {"started": started}

    records = [dated(30.0, "2026-03", False), dated(20.0, "2026-01", True), dated(10.0, "2026-02", True)]
    found = speeds.find_rows(records, "starnet-pose-t", (256, 192), "eager fp32")
    assert [row["latency_ms"]["median"] for _, row in found] == [10.0, 20.0, 30.0]
    assert ap(*records, name="speed", column="Latency (ms)")["measured"] == "10.00"
    assert speeds.find_rows(records, "starnet-pose-t", (256, 192), "eager fp32", "cuda") == []


def test_published_speeds_name_the_model_of_every_row_that_posebook_builds():
    published = speeds.published_speeds()
    unnamed = set(published.loc[published["model"] == "", "row"])
    assert unnamed == {"UDP, ResNet-152", "Dite-HRNet-30, 256×192", "Dite-HRNet-30, 384×288"}
    assert set(published["model"]) - {""} <= set(models.names())
    small = published[published["row"] == "ResNet-34, 256×256"]
    assert small[["model", "input_size", "fps"]].values.tolist() == [["amfacpose-r34", "256x256", 23.59]]
    assert set(published.loc[published["paper"] == PAPER, "device"]) == {"RTX 5090"}


@pytest.mark.parametrize("paper", ["AMFACPose", "LAPX"])
def test_model_of_a_speed_cell_is_that_of_the_row_in_other_tables(paper):
    cells = load_cells()
    cells = cells[(cells["paper"] == paper) & (cells["model"] != "") & (cells["options"] == "")]
    speed = cells[cells["table"] == "speed"].drop_duplicates("row")
    rest = cells[cells["table"] == "coco_results"].drop_duplicates("row").set_index("row")
    matched = 0
    for row, model, size in speed[["row", "model", "input_size"]].itertuples(index=False):
        for name in (row, f"{paper}, {row}"):
            if name in rest.index:
                assert (rest.loc[name, "model"], rest.loc[name, "input_size"]) == (model, size)
                matched += 1
    assert matched >= 3
