"""Comparisons of accuracies: printed numbers, intervals over seeds, and measured cells."""

import pandas as pd
import pytest
from scipy import stats

from posebook.evaluation import seeds
from posebook.lifting import recipes
from posebook.papers import claims, studies, tables


@pytest.mark.parametrize(
    "value, printed, same",
    [(3.504155, "3.504", True), (2.3111, "2.30", False), (2.3111, "2.3", True), (0.25, "1.0", False)]
    + [(2.35, "2.3", True), (2.35, "2.4", True), (2.3501, "2.3", False), (210, "210", True)],
)
def test_rounds_to(value, printed, same):
    assert claims.rounds_to(value, printed) is same


@pytest.mark.parametrize("difference, agrees", [("0.0", False), ("0.1", True), ("0.3", True), ("0.4", False)])
def test_printed_difference_allows_for_rounding(difference, agrees):
    """70.6 less 70.4 is anything from 0.1 to 0.3 before rounding, and the difference is rounded, too."""
    possible = [70.55 + a / 100 - (70.35 + b / 100) for a in range(11) for b in range(11)]
    assert any(abs(value - float(difference)) <= 0.05 + 1e-9 for value in possible) is agrees
    assert claims.difference_agrees("70.6", "70.4", difference) is agrees


def test_printed_interval_allows_for_the_rounding_of_the_deviation():
    low, high = claims.printed_interval(0.2, "0.06", (3, 1), freedom=2)
    half = stats.t.ppf(0.975, 2) * (0.065**2 / 3 + 0.065**2) ** 0.5
    assert (low, high) == pytest.approx((0.2 - half, 0.2 + half))


# intervals over seeds


def runs(arm: str, values: list[float], suffix: str = "") -> list[dict]:
    return [
        {"name": f"study-x-{arm}-seed{seed}{suffix}", "seed": seed, "metrics": {"AP": value}, "kind": "train"}
        for seed, value in enumerate(values)
    ]


ARMS = ("study-x-with-seed*", "study-x-without-seed*")


def compare(first: list[float], second: list[float], **options) -> claims.Finding:
    ledger = runs("with", first) + runs("without", second)
    return claims.compare_seeds(ledger, ARMS, {"AP": "points"}, "#A", **options)


def test_names_of_records_are_matched_exactly():
    ledger = runs("with", [1.0, 2.0]) + runs("with", [3.0], "-occluded") + runs("without", [4.0])
    assert [run["metrics"]["AP"] for run in claims.by_seed(ledger, ARMS[0]).values()] == [1.0, 2.0]
    assert len(claims.by_seed(ledger, "study-x-with-seed*-occluded")) == 1
    newer = claims.by_seed([*ledger, *runs("with", [9.0])], ARMS[0])
    assert newer[0]["metrics"]["AP"] == 9.0
    others = [{"name": f"{kind}-x", "kind": kind, "seed": None} for kind in ("predict", "benchmark")]
    assert claims.by_seed(others + ledger, ARMS[0]) == claims.by_seed(ledger, ARMS[0])


def test_records_of_a_study_with_another_recipe_do_not_count():
    run = studies.get_run("study-pruning-full-seed0")
    record = {
        "kind": "train-lifter", "name": run.name, "model": run.model, "options": {}, "seed": 0,
        "dataset": {"name": run.dataset}, "parameters": dict(run.changes),
        "weights": {"initialization": "scratch", "sha256": "0"},
    }  # fmt: skip
    shorter = record | {"parameters": record["parameters"] | {"epochs": 2}}
    names = "study-pruning-full-seed*"
    assert claims.by_seed([record], names) == {0: record} and claims.by_seed([shorter], names) == {}


def test_pruning_variant_with_other_options_does_not_count():
    options = recipes.SMALL_MODEL | {"prune": {"1": ["cluster", 9]}, "recover": "attend"}
    facts = {"name": "lift-mixste-hot-fast-seed0", "kind": "lift", "model": "mixste", "seed": 0}
    names = "lift-mixste-hot-fast-seed*"
    assert list(claims.by_seed([facts | {"options": options}], names)) == [0]
    assert claims.by_seed([facts | {"options": recipes.SMALL_MODEL}], names) == {}
    assert claims.by_seed([facts | {"options": options | {"width": 64}}], names) == {}


def test_interval_over_seeds_decides():
    ahead, near = compare([0.50, 0.51, 0.52], [0.30, 0.31, 0.32]), compare([0.3, 0.5], [0.3, 0.4])
    assert (ahead.verdict, near.verdict) == ("reproduced", "inconclusive")
    behind = compare([0.30, 0.31, 0.32], [0.50, 0.51, 0.52], scale=100)
    assert behind.verdict == "inconclusive" and "the opposite of the claim" in behind.found
    assert compare([0.30, 0.31, 0.32], [0.50, 0.51, 0.52], sign=-1).verdict == "reproduced"
    assert compare([0.30, 0.31], [0.30, 0.31], deciding=-1.0).verdict == "reproduced"
    expected = seeds.difference([0.3, 0.5], [0.3, 0.4])
    assert f"interval {expected.low:+.1f} to {expected.high:+.1f}" in near.found
    assert f"a true gain of {expected.detectable:+.1f} points would be found in 80 % of" in near.decide
    limited = compare([0.3, 0.5], [0.3, 0.4], deciding=0.1)
    assert f"a true gain of {expected.detectable + 0.1:+.1f} points" in limited.decide
    # an interval below the limit: more seeds would not change it
    assert (
        compare([0.30, 0.31, 0.32], [0.50, 0.51, 0.52], scale=100, decide="real data").decide == "real data"
    )
    assert near.rule == "the 95 % interval of the gain over seeds lies above 0 points"
    assert near.records[0] == "study-x-with-seed0" and len(near.records) == 4


def test_one_run_is_not_an_interval():
    found = compare([0.5], [0.3, 0.4], decide="`posebook study study-x-with-seed1`")
    assert found.verdict == "not tested" and found.why == "fewer than two archived runs of study-x-with-seed*"
    assert found.decide == "`posebook study study-x-with-seed1`"


# measured cells


def cell(row="net", measured="", interval="", seed_interval="", published="70.0", command="make it") -> dict:
    known = dict(row=row, column="AP", published=published, measured=measured, boxes="detector")
    known |= dict(measured_boxes="detector: x.json")
    return known | dict(
        interval=interval, seed_interval=seed_interval, command=command, record=f"x/{row}.json"
    )


def test_check_reproduced_requires_all_cells():
    found = claims.check_reproduced([cell(measured="70.2"), cell("other", command="")], 1.0, "#A")
    assert (found.verdict, found.decide) == ("not tested", "weights or a recipe for other")
    assert claims.check_reproduced([cell()], 1.0, "#A").decide == "`make it`"


@pytest.mark.parametrize(
    "known, verdict",
    [
        ({"interval": "69.5 to 70.6"}, "reproduced"),
        ({"interval": "69.5 to 71.1"}, "inconclusive"),
        ({"interval": "64.0 to 65.0"}, "inconclusive"),
        ({"seed_interval": "69.8 to 70.2"}, "reproduced"),
        ({"seed_interval": "68.8 to 71.2"}, "inconclusive"),
        ({}, "inconclusive"),
    ],
    ids=str,
)
def test_check_reproduced_compares_the_interval(known, verdict):
    found = claims.check_reproduced([cell(measured="70.1", **known)], 1.0, "#A")
    assert found.verdict == verdict and found.records == ("net",)


def test_other_boxes_reproduce_nothing():
    other = cell(measured="70.1", interval="69.5 to 70.6") | {"measured_boxes": "ground truth"}
    found = claims.check_reproduced([other], 1.0, "#A")
    assert found.verdict == "inconclusive"
    assert found.decide == "a measurement of net with the boxes of the paper"


def test_interval_of_several_runs_is_a_t_interval_of_the_unrounded_values():
    values = [75.70, 75.76]  # printed as 75.7 ± 0.0
    columns = tables._spread(values, "76.6")
    assert columns["spread"] == "± 0.0, 2 runs"
    expected = stats.t.interval(0.95, 1, 75.73, 0.06 / 2**0.5 / 2**0.5)
    assert claims._interval(cell(**{"seed_interval": columns["seed_interval"]})) == pytest.approx(expected)


def test_runs_with_other_settings_are_not_pooled():
    ledger = [run | {"parameters": {"epochs": 6, "device": "cpu"}} for run in runs("with", [1.0, 2.0])]
    longer = [run | {"parameters": {"epochs": 50}} for run in runs("with", [7.0, 8.0, 9.0])[2:]]
    elsewhere = [
        run | {"parameters": {"epochs": 6, "device": "cuda"}} for run in runs("with", [7, 8, 9, 3.0])[3:]
    ]
    found = claims.by_seed([*ledger, *longer, *elsewhere], ARMS[0])
    assert {seed: run["metrics"]["AP"] for seed, run in found.items()} == {0: 1.0, 1: 2.0, 3: 3.0}


@pytest.mark.parametrize("low, verdict", [(2.1, "reproduced"), (1.9, "inconclusive"), (-9.0, "inconclusive")])
@pytest.mark.parametrize("swapped", [False, True])
def test_check_margin_uses_paired_interval(low, verdict, swapped, monkeypatch):
    """At least half of the printed difference of 4, whichever row the pairs name first."""
    table = pd.DataFrame([cell("a", "72.0", published="72.0"), cell("b", "69.0", published="68.0")])
    names, sign = (["b", "a"], -1) if swapped else (["a", "b"], 1)
    ends = sorted((sign * low, sign * 5.0))
    pair = pd.DataFrame(
        [[*names, "AP", sign * 3.0, *ends]], columns="row less column difference low high".split()
    )
    monkeypatch.setattr(tables, "paired_differences", lambda _: pair)
    found = claims.check_margin(table, "a", "b", "#A")
    assert found.verdict == verdict and found.records == ("a", "b")
    assert found.found.startswith(f"+3.00 measured (95 % interval {low:+.2f} to +5.00), +4.00 printed")


def test_check_margin_requires_both_rows_with_the_same_boxes(monkeypatch):
    monkeypatch.setattr(tables, "paired_differences", lambda _: pd.DataFrame())
    table = pd.DataFrame([cell("a", "72.0"), cell("b", "69.0")])
    assert claims.check_margin(table, "a", "b", "#A") is None  # no archived predictions
    assert claims.check_margin(table.iloc[:1], "a", "b", "#A") is None
    table.loc[1, "measured_boxes"] = "ground truth"
    assert claims.check_margin(table, "a", "b", "#A") is None
