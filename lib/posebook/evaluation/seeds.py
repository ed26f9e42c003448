"""Differences between trainings that were repeated with several seeds: interval and detectable effect.

Welch's t interval: the runs of two arms are independent samples with different variances. Their seeds are the
same numbers, but runs of different arms share little randomness, so pairing them would only lose degrees of
freedom.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # scipy.stats takes a second to import

CONFIDENCE, POWER = 0.95, 0.8


@dataclass(frozen=True)
class SeedDifference:
    """The mean of one arm minus the mean of another, in the unit of the results."""

    value: float
    low: float  # 95 % interval
    high: float
    detectable: float  # true difference that would be found (interval without 0) in 80 % of such studies
    seeds: tuple[int, int]  # number of runs of the two arms


def half_width(error: float, freedom: float) -> float:
    """Half of the 95 % t interval of a mean with this standard error and these degrees of freedom."""
    return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * error


def difference(arm: Sequence[float], baseline: Sequence[float]) -> SeedDifference:
    """The difference of two arms by Welch's t test. Raises ValueError for an arm with fewer than two runs.

    detectable: (t at 97.5 % + t at 80 %) standard errors, the usual approximation for a two-sided test.
    """
    samples = [np.asarray(values, float) for values in (arm, baseline)]
    if min(map(len, samples)) < 2:
        raise ValueError(f"an interval over seeds needs two runs of each arm, not {[*map(len, samples)]}")
    variances = [sample.var(ddof=1) / len(sample) for sample in samples]  # of the means
    error = float(np.sqrt(sum(variances)))
    value = float(samples[0].mean() - samples[1].mean())
    if error == 0:  # identical results, as of a run that was copied: nothing follows from them
        return SeedDifference(value, -np.inf, np.inf, np.inf, (len(samples[0]), len(samples[1])))
    freedom = sum(variances) ** 2 / sum(
        variance**2 / (len(sample) - 1) for variance, sample in zip(variances, samples, strict=True)
    )
    half = half_width(error, freedom)
    detectable = half + float(stdtrit(freedom, POWER)) * error
    return SeedDifference(value, value - half, value + half, detectable, (len(samples[0]), len(samples[1])))
