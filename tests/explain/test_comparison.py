"""Maps of all methods by name, their checks, and what an interval of a margin allows to say."""

import numpy as np
import pandas as pd
import pytest
import torch
from attribution_helpers import BINS, SIZE
from scipy import stats

from posebook.explain import attribution, comparison, faithfulness


@pytest.fixture
def target(model):
    return attribution.JointTarget(model, "nose")


def test_methods_by_name_are_those_of_the_library(target, images):
    maps, delta = comparison.attribute(target, "integrated gradients", images, BINS, steps=4)
    expected, same_delta = attribution.integrated_gradients(target, images, BINS, 4)
    torch.testing.assert_close(maps, expected)
    torch.testing.assert_close(delta, same_delta)
    for method, expected in (
        ("Grad-CAM", attribution.grad_cam(target, images, BINS)),
        ("SmoothGrad", attribution.smooth_gradients(target, images, BINS, samples=2)),
        ("occlusion", attribution.occlusion_map(target, images, BINS, SIZE[0] // 8)),
    ):
        maps, delta = comparison.attribute(target, method, images, BINS, steps=4)
        torch.testing.assert_close(maps, expected)
        assert delta is None
    noise = [comparison.attribute(target, comparison.NOISE, images, BINS)[0] for _ in range(2)]
    assert noise[0].shape == (2, *SIZE) and not torch.equal(*noise)
    with pytest.raises(ValueError, match="method 'ocklusion'.*occlusion"):
        comparison.attribute(target, "ocklusion", images, BINS)


def test_checks_have_a_row_for_each_image(target, images):
    squares = faithfulness.random_occlusions(target, images, BINS, window=8, samples=4)
    maps = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(0))
    body = torch.zeros(2, *SIZE, dtype=torch.bool)
    body[:, : SIZE[0] // 2] = True
    arguments = (target, images, BINS, maps, maps, body, squares, lambda inputs: maps)
    rows, (deletion, insertion) = comparison.check_maps(*arguments)
    assert rows["body"].tolist() == [0.5, 0.5] and rows["like shuffled"].tolist() == pytest.approx([1, 1])
    assert rows["sensitivity"].tolist() == [0, 0]
    assert rows["deletion"].tolist() == pytest.approx(deletion.mean(1).tolist(), rel=1e-5)
    assert insertion[:, 0].tolist() == [0, 0] and deletion[:, 0].tolist() == pytest.approx([1, 1])


def test_margins_are_positive_if_a_check_is_passed():
    numbers = ["infidelity", "deletion", "insertion", "pointing", "on the person", "body", "like shuffled"]
    cases = pd.DataFrame(
        [
            ("a", "nose", 1, 0.3, 0.1, 0.6, 1.0, 0.7, 0.4, 0.1, 0.2),
            ("a", "nose", 2, 0.9, 0.5, 0.2, 0.0, 0.3, 0.4, 0.8, np.nan),
            ("noise", "nose", 1, 0.9, 0.3, 0.3, 0.0, 0.4, 0.4, 0.0, 0.9),
            ("noise", "nose", 2, 0.8, 0.3, 0.3, 0.0, 0.4, 0.4, 0.0, 0.9),
        ],
        columns=["method", "joint", "person", *numbers, "sensitivity"],
    )
    found = comparison.margins(cases, (200, 100))
    assert found.loc[0, list(comparison.CHECKS)].tolist() == pytest.approx(
        [0.6, 0.5, 1 - 0.02 * np.pi, 0.3, 0.4, 0.3]
    )
    assert (found.loc[1, ["infidelity", "insertion", "pointing", "on the person", "like shuffled"]] < 0).all()
    assert np.isnan(found.loc[1, "sensitivity"])
    assert found.loc[2, "infidelity"] == 0


def test_intervals_are_over_people_and_exact_for_pointing():
    rng = np.random.default_rng(0)
    keys = [(m, j, p) for m in ("a", "noise") for j in ("nose", "hip") for p in range(10)]
    cases = pd.DataFrame(keys, columns=["method", "joint", "person"])
    for name in (
        "infidelity",
        "deletion",
        "insertion",
        "on the person",
        "body",
        "like shuffled",
        "sensitivity",
    ):
        cases[name] = rng.uniform(size=len(cases))
    cases["pointing"] = 0.0
    intervals = comparison.margin_intervals(cases, (200, 100))
    margins = comparison.margins(cases, (200, 100)).query("method == 'a'")
    people = margins.groupby("person")["on the person"].mean()
    expected = people.mean(), *stats.t.interval(0.95, 9, people.mean(), people.sem())
    assert intervals.loc["a", "on the person"] == pytest.approx(expected)
    margin, low, high = intervals.loc["a", "pointing"]
    assert margin == low == pytest.approx(-0.02 * np.pi)
    assert high == pytest.approx(1 - 0.025 ** (1 / 20) + margin)  # no hit in 20 cases
    assert comparison.verdict(low, high) == "undecided"
    assert intervals.loc["noise", "infidelity"] == (0, 0, 0)
    alone = comparison.margin_intervals(cases[cases["person"] == 3], (200, 100)).loc["a", "insertion"]
    assert np.isnan(alone[1:]).all() and comparison.verdict(*alone[1:]) == "undecided"


def test_verdict_needs_the_whole_interval_on_one_side():
    intervals = ((0.1, 0.3), (-0.3, -0.1), (-0.1, 0.3), (np.nan, np.nan))
    assert [comparison.verdict(*ends) for ends in intervals] == ["passes", "fails", "undecided", "undecided"]
