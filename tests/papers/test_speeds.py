"""Published speeds and memory: which benchmark row measures a cell, and the reason for an empty cell."""

from collections import Counter

import pytest
from tables_helpers import PAPER, ap, benchmark, cell

from posebook import models
from posebook.benchmark.rows import is_correct
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


SPEED_CELLS = [
    cell for cell in load_cells().to_dict("records") if speeds.quantity(cell) and cell["table"] == "speed"
]


def measure(row: str, column: str, *records: dict) -> dict:
    """`speeds.measure_cell` of the one cell in this row and column, and the published value."""
    (found,) = (cell for cell in SPEED_CELLS if (cell["row"], cell["column"]) == (row, column))
    return speeds.measure_cell(found, records) | {"published": found["value"]}


def test_every_speed_cell_is_measured_or_gives_the_reason():
    results = [(cell, speeds.measure_cell(cell, [])) for cell in SPEED_CELLS]
    assert all("measured" not in result and result["reason"] for _, result in results)
    counts = Counter((cell["paper"], speeds.quantity(cell)) for cell in SPEED_CELLS)
    assert counts["LAPX", "RAM (MB)"] == 7
    assert sum(n for (paper, _), n in counts.items() if paper == "LAPX") == 26
    assert sum(n for (paper, _), n in counts.items() if paper == "AMFACPose") == 18
    unbuilt = {
        cell["row"]: result["reason"]
        for cell, result in results
        if not result["reason"].startswith("no benchmark of")
    }
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
    results = [speeds.measure_cell(cell, [record]) for cell in SPEED_CELLS]
    filled = [result for result in results if "measured" in result]
    assert len(filled) == len(results) - 3
    assert all(result["device"] == "cpu: made-up" for result in filled)
    assert speeds.unmeasured_inputs(rows) == {}
    some = rows_of({("eager fp32",): [("amfacpose-r34", (256, 256))]})
    assert ("amfacpose-r34", (256, 256)) not in speeds.unmeasured_inputs(some)["eager fp32",]


def test_lapx_is_measured_in_onnx_runtime_with_two_passes_for_augmentation():
    plain, both = (
        measure(name, "FPS, Apple M2", lapx_benchmark())
        for name in ("LAPX, without augmentation, 256×192", "LAPX, 256×192")
    )
    assert (plain["measured"], plain["published"]) == ("50.0", "30")
    assert (both["measured"], both["published"]) == ("25.0", "15")
    assert "two are counted" in both["where"] and "two are counted" not in plain["where"]
    assert ORT in plain["where"] and "quiet" not in plain["where"] and plain["device"] == "cpu: made-up"
    memory = measure("LAPX, 256×192", "RAM (MB)", lapx_benchmark())
    assert (memory["measured"], memory["published"]) == (f"{40 * 2**20 / 1e6:.1f}", "58.0")
    silent = measure("LAPX, 256×192", "RAM (MB)", lapx_benchmark(resident_mib=None))  # a system without /proc
    assert silent["reason"] == f"no benchmark of lapx at this size in {ORT}"
    # a speed that the document takes from another paper stands for one forward pass, in eager PyTorch
    assert measure("LPN-50, 256×192", "FPS, i7-8700K", benchmark("lpn-50", 20.0))["measured"] == "50.0"
    found = cell(tables.build_table("LAPX", "speed", [lapx_benchmark()]), "LAPX, 256×192", "FPS, Apple M2")
    assert found["measured"] == "25.0" and "two are counted" in found["where"]
    empty = cell(tables.build_table("LAPX", "speed", []), "Dite-HRNet-30, 256×192", "FPS, RK3588")
    assert empty[["status", "reason"]].tolist() == ["published only", "posebook does not build Dite-HRNet-30"]


def test_row_with_other_outputs_fills_no_cell():
    wrong = lapx_benchmark(difference=1.9, threads=2)
    name = "LAPX, without augmentation, 256×192"
    found = measure(name, "FPS, Apple M2", wrong)
    assert "measured" not in found
    assert found["reason"] == f"the recorded outputs in {ORT} differ from the model's by 1.9e+00"
    status = cell(tables.build_table("LAPX", "speed", [wrong]), name, "FPS, Apple M2")
    assert (status["status"], status["command"]) == ("not run", "posebook benchmark --published")
    both = measure(name, "FPS, Apple M2", wrong, lapx_benchmark(difference=1e-6, threads=1))
    assert both["measured"] == "50.0" and ", 1 thread," in both["where"]
    assert is_correct({"form": "OpenVINO int8", "difference": 0.3})


def test_more_threads_then_quiet_then_newer_rows_are_preferred():
    def dated(median, started, quiet, **changes):
        changes |= {"conditions": {"quiet": quiet}}
        return benchmark(median=median, **changes) | {"started": started}

    records = [dated(30.0, "2026-03", False), dated(20.0, "2026-01", True), dated(10.0, "2026-02", True)]
    found = speeds.find_rows(records, "starnet-pose-t", (256, 192), "eager fp32")
    assert [row["latency_ms"]["median"] for _, row in found] == [10.0, 20.0, 30.0]
    assert ap(*records, name="speed", column="Latency (ms)")["measured"] == "10.00"
    agreeing, loud = dated(40.0, "2026-01", False), dated(90.0, "2026-04", False)
    agreeing["metrics"][0]["latency_ms"]["spread"], loud["metrics"][0]["latency_ms"]["spread"] = 0.2, 0.7
    first = speeds.find_rows([loud, agreeing], "starnet-pose-t", (256, 192), "eager fp32")[0]
    assert first[0] is agreeing
    records += [dated(5.0, "2026-04", True, threads=1), dated(2.0, "2026-05", False, threads=1)]
    assert ap(*records, name="speed", column="Latency (ms)")["measured"] == "10.00"
    best = speeds.best_rows(records, "starnet-pose-t", (256, 192), "eager fp32")
    medians = {key: row["latency_ms"]["median"] for key, row in best.items()}
    assert medians == {("cpu: made-up", 2): 10.0, ("cpu: made-up", 1): 5.0}
    wrong = dated(1.0, "2026-06", True, form=ORT, difference=1.9)
    assert speeds.best_rows([wrong], "starnet-pose-t", (256, 192), ORT) == {}


def test_order_separates_only_ranges_that_do_not_overlap():
    def latency(p10: float, median: float, p90: float) -> dict:
        return {"p10": p10, "median": median, "p90": p90}

    a, b, c, d = latency(1, 2, 3), latency(2.5, 4, 5), latency(6, 7, 8), latency(6, 6.5, 7)
    assert speeds.is_separated(a, c) and not speeds.is_separated(c, a) and not speeds.is_separated(a, b)
    text = speeds.order_text({"c": c, "b": b, "a": a, "d": d})
    assert text == "a and b (not separated) < d and c (not separated)"
    assert speeds.order_text({"c": c, "a": a}) == "a < c" and speeds.order_text({"a": a}) == "a"
    # a long range joins all that it overlaps
    assert "<" not in speeds.order_text({"a": latency(1, 2, 9), "b": b, "c": c})


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
