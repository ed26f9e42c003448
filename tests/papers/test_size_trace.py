"""Printed sizes traced to counters, and errata with measurements."""

import math

import pytest

from posebook import complexity
from posebook.papers import size_trace
from posebook.papers.cells import load_cells

pytestmark = pytest.mark.slow  # counts every model of the papers


@pytest.fixture(scope="module")
def record() -> dict:
    """A record like that of the complexity page, with every model counted once."""
    return {
        "kind": "complexity",
        "parameters": {"code": complexity.code_hash()},
        "metrics": size_trace.count_all(),
    }


@pytest.fixture(scope="module")
def table(record):
    return size_trace.size_table([record]).set_index(["paper", "row"])


def test_every_model_with_printed_size_is_in_table(table):
    cells = load_cells()
    assert set(cells["model"]) & set(table["model"]) >= {"lapx", "amfacpose-r34", "hf-hrnet-30", "lpn-152"}
    assert not table.index.duplicated().any() and len(table) == 52


@pytest.mark.parametrize(
    "paper, row, params, giga",
    [
        ("StarNet-Pose", "StarNet-Pose-T", "all", "fvcore"),
        ("StarNet-Pose", "Lite-HRNet-30", "all", "torchstat"),
        ("AMFACPose", "AMFACPose, ResNet-34, 384×288", "all", "thop"),
        ("AMFACPose", "HRNet-W48", "all", "hrnet"),
        ("LAPX", "LAPX", "thop's total", "thop"),
        ("LAPX", "LPN-50, 256×192", "all", "hrnet or torchstat"),
        (
            "LAPX",
            "LPN-101, 256×192",
            "all, truncated or thop's total, truncated",
            "hrnet or torchstat, truncated",
        ),
        ("LAPX", "HF-HRNet-30, 256×192", "all", "fvcore, truncated or mmcv, truncated"),
        ("LAPX", "LAP, 384×288", "thop's total", "thop, truncated"),
        ("StarNet-Pose", "RTMPose-s", "all", "fvcore or mmcv or thop, truncated"),
        ("LAPX", "HRFormer-T, 384×288", "all", ""),
    ],
)
def test_sizes_are_traced(table, paper, row, params, giga):
    found = table.loc[(paper, row)]
    assert (found["params by"], found["GFLOPs by"]) == (params, giga)


def test_only_one_impossible_value_is_not_traced(table):
    lost = table[(table["GFLOPs"] != "") & (table["GFLOPs by"] == "")]
    assert list(lost.index) == [("LAPX", "HRFormer-T, 384×288")]
    assert (table["params by"] != "").all()


@pytest.mark.parametrize(
    "paper, row, note",
    [
        ("StarNet-Pose", "StarNet-Pose-T", "rounded"),
        ("AMFACPose", "Baseline", "last zero ignored"),
        ("LAPX", "HF-HRNet-30, 256×192", "truncated"),
        ("LAPX", "HRFormer-T, 384×288", "unexplained"),
        ("LAPX", "7: 3-stage + SG", "not printed"),
    ],
)
def test_printed_gflops_are_explained(table, paper, row, note):
    line = table.loc[(paper, row)]
    value, found = size_trace.explain_gflops(line.to_dict())
    assert found == note
    assert math.isnan(value) == (note in ("unexplained", "not printed"))
    if note == "truncated":
        decimals = len(line["GFLOPs"].partition(".")[2])
        assert 0 <= value - float(line["GFLOPs"]) < 10**-decimals


def test_errata_contain_measurements(record):
    text = "\n".join(size_trace.errata([record]))
    for figure in (
        "2,253,709",
        "2,537,912",
        "2,311,111",
        "8,114 of them not counted by thop",
        "mmcv 2.997 G",
    ):
        assert figure in text
    assert text.count("**") == 2 * len(size_trace.errata([record]))
