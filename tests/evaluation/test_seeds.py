"""Differences between repeated trainings: Welch's interval and the detectable effect."""

import numpy as np
import pytest
from scipy import stats

from posebook.evaluation.seeds import difference


def test_interval_is_that_of_scipy():
    arm, baseline = [0.31, 0.35, 0.33, 0.30, 0.36], [0.29, 0.30, 0.28]
    found = difference(arm, baseline)
    expected = stats.ttest_ind(arm, baseline, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.value == pytest.approx(np.mean(arm) - np.mean(baseline)) and found.seeds == (5, 3)


def test_interval_contains_the_true_difference_in_95_percent_of_studies():
    rng, hits = np.random.default_rng(0), []
    for _ in range(2000):
        found = difference(rng.normal(1.0, 0.5, 5), rng.normal(0.0, 1.0, 5))
        hits.append(found.low <= 1.0 <= found.high)
    assert 0.94 < np.mean(hits) < 0.97


def test_detectable_difference_is_found_in_80_percent_of_studies():
    """With the true spread; the estimate from a few runs varies around this value."""
    rng = np.random.default_rng(1)
    effect = np.median([difference(*rng.normal(0, 1.0, (2, 5))).detectable for _ in range(2000)])
    studies = [difference(rng.normal(effect, 1.0, 5), rng.normal(0.0, 1.0, 5)) for _ in range(4000)]
    assert 0.7 < np.mean([study.low > 0 for study in studies]) < 0.9


def test_single_run_has_no_interval():
    with pytest.raises(ValueError, match="needs two runs of each arm"):
        difference([0.3, 0.4], [0.3])


def test_nothing_follows_from_identical_runs():
    """A run that was copied has no spread. This does not make a difference certain."""
    found = difference([0.5, 0.5], [0.25, 0.25])
    assert (found.value, found.low, found.high, found.detectable) == (0.25, -np.inf, np.inf, np.inf)
