"""Each status of a cell, recomputed by plain loops from the values that a page shows."""

import math
import random

import pytest
from tables_helpers import PAPER, ap, benchmark, cell, record

from posebook.papers import statuses, tables
from posebook.papers.cells import load_cells
from posebook.papers.statuses import AGREES, CONVENTION, DIFFERS, accuracy_status, size_status


def decimals(text: str) -> int:
    return len(text.split(".")[1]) if "." in text else 0


def rounds(text: str, printed: str) -> bool:
    return f"{float(text):.{decimals(printed)}f}" == printed


def truncates(text: str, printed: str) -> bool:
    scale = 10 ** decimals(printed)
    return math.floor(float(text) * scale + 1e-6) == round(float(printed) * scale)


def expected_size_status(line) -> str:
    """The status of a size from the shown texts alone."""
    shorter = line["published"][:-1] if line["published"].endswith("0") else line["published"]
    if line["counter"] == "":
        return DIFFERS
    assert any(
        fits(line["measured"], text) for fits in (rounds, truncates) for text in (line["published"], shorter)
    )
    complete = rounds(line["measured"], line["published"]) or truncates(line["measured"], line["published"])
    return AGREES if complete and line["counter"].startswith(("all", "exact")) else CONVENTION


@pytest.mark.slow
def test_status_of_each_size_follows_from_the_shown_values():
    seen = set()
    for paper, table in load_cells()[["paper", "table"]].drop_duplicates().itertuples(index=False):
        shown = tables.build_table(paper, table, [])
        for line in shown[(shown["exact"] != "") & (shown["unit"] != "%")].to_dict("records"):
            assert line["status"] == expected_size_status(line), line
            seen.add(line["status"])
    assert seen == {AGREES, CONVENTION, DIFFERS}


def test_own_counter_agrees_and_another_one_is_a_convention():
    for counter, value, status, reason in (
        ("all", 2.3042, AGREES, ""),
        ("exact", 2.3091, AGREES, "truncated"),
        ("thop", 2.3042, CONVENTION, "counter thop"),
        ("mmcv, truncated", 2.3091, CONVENTION, "counter mmcv, truncated"),
        ("all", 2.3111, CONVENTION, "last zero ignored"),
        ("thop", 2.3111, CONVENTION, "counter thop; last zero ignored"),
        ("", 2.31, DIFFERS, "+0.01"),
        ("", 2.2, DIFFERS, "−0.10"),
    ):
        assert size_status("2.30", value, counter) == {"status": status, "reason": reason}


def test_accuracy_agrees_only_if_it_rounds_and_the_protocol_is_the_same():
    draw = random.Random(0)
    for _ in range(500):
        printed = f"{draw.uniform(60, 62):.{draw.choice((0, 1, 2))}f}"
        value, conventions = draw.uniform(60, 62), draw.choice(([], ["boxes: detector"]))
        other = draw.choice(("", printed, "10"))
        found = accuracy_status(printed, value, conventions, other, "boxes: ground truth")
        if rounds(str(value), printed):
            expected = CONVENTION if conventions else AGREES
        else:
            expected = CONVENTION if other == printed else DIFFERS
        assert found["status"] == expected
        assert (found["reason"] == "") == (expected == AGREES)


@pytest.mark.parametrize(
    "changes, status, reason",
    [
        ({}, AGREES, ""),
        ({"protocol__boxes": "detector: boxes.json"}, CONVENTION, "boxes: detector"),
        ({"protocol__flip_test": False}, CONVENTION, "without flip test"),
        ({"metrics": {"AP": 0.7112}}, DIFFERS, "−0.88"),
        ({"metrics": {"AP": 0.73}, "protocol__boxes": "detector: x"}, DIFFERS, "+1.00; boxes: detector"),
    ],
    ids=str,
)
def test_convention_of_a_measurement_is_named(changes, status, reason):
    """The row is printed as 72.00, with ground-truth boxes."""
    found = ap(record(**({"metrics": {"AP": 0.72}} | changes)))
    assert (found["status"], found["reason"]) == (status, reason)


def test_agreement_with_the_other_boxes_is_named():
    detector = record(protocol__boxes="detector: boxes.json", metrics={"AP": 0.72})
    found = ap(detector, record())
    assert (found["measured"], found["status"], found["reason"]) == ("71.23", CONVENTION, "boxes: detector")


@pytest.mark.slow
def test_boxes_that_the_paper_does_not_state_are_a_convention():
    run = record(
        model="lite-hrnet-30", kind="evaluate", weights={"trained_on": "coco"}, metrics={"AP": 0.672}
    )
    run["dataset"] = run.pop("evaluated")
    table = tables.build_table("LAPX", "coco_results", [run])
    found = cell(table, "Lite-HRNet-30, 256×192", "AP")
    assert found["status"] == CONVENTION
    assert found["reason"] == "boxes: ground truth (not stated in the paper)"


def test_speed_is_only_compared_on_the_device_of_the_paper():
    for device, status in (("cuda: NVIDIA GeForce RTX 5090", AGREES), ("cpu", statuses.ELSEWHERE)):
        timed = benchmark(median=3.194) | {"machine": {"device": device}}
        found = ap(timed, name="speed", column="Latency (ms)")
        assert (found["measured"], found["status"], found["device"]) == ("3.19", status, device)


def test_every_column_has_a_quantity():
    cells = load_cells()
    for column, unit in cells[["column", "unit"]].drop_duplicates().itertuples(index=False):
        assert statuses.quantity(column, unit) in statuses.QUANTITIES
    for column, unit, quantity in (
        ("Params (M)", "M", "size"),
        ("FLOPs saved (%)", "%", "FLOPs"),
        ("FPS, Apple M2", "1/s", "latency"),
        ("RAM (MB)", "MB", "memory"),
        ("PCKh@0.5 knee", "%", "accuracy"),
        ("Best AP epoch", "epoch", "accuracy"),
        ("StarNet-Pose-T", "text", "architecture"),
        ("Training time (h)", "h", "other"),
    ):
        assert statuses.quantity(column, unit) == quantity


def test_fitted_sizes_are_marked():
    table = tables.build_table("AMFACPose", "coco_results", [])
    fitted = table[table["fitted"] == "yes"]
    assert set(fitted["column"]) == {"Params (M)", "GFLOPs"}
    assert set(fitted["model"]) == set(statuses.FITTED)
    assert (tables.build_table(PAPER, "main_results", [])["fitted"] == "").all()
