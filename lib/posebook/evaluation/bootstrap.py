"""Bootstrap over images (Efron, 1979): how much a metric would change on other images.

The images of a benchmark are a sample of all possible images. Resampling them with replacement a thousand
times, and computing the metric each time, shows the spread. Two models are compared on the same resamples, so
that the difficulty of an image, which affects both models, cancels in the difference.

1. Images are resampled, not people: the people of one image are not independent samples, and AP ranks the
   detections of all images together.
2. Intervals are the 2.5th and 97.5th percentiles.
"""

from collections.abc import Iterator

import numpy as np

from posebook.evaluation.metrics import ImageStats, weighted_metric

NUM_RESAMPLES = 1000  # a multiple of 100


def _resample_counts(images: int, seed: int = 0) -> Iterator[np.ndarray]:
    """How often each image is drawn: arrays (R, I) of 100 resamples, which limits memory."""
    rng = np.random.default_rng(seed)
    for _ in range(NUM_RESAMPLES // 100):
        yield rng.multinomial(images, np.full(images, 1 / images), 100).astype(float)  # (R, I)


def _interval95(batches: list[np.ndarray]) -> tuple[float, float]:
    low, high = np.nanpercentile(np.concatenate(batches), (2.5, 97.5))
    return float(low), float(high)


def interval(stats: ImageStats) -> tuple[float, float]:
    """The 95 % interval of the primary metric (AP, PCKh@0.5 or PCK), as fractions."""
    return _interval95([weighted_metric(stats, w) for w in _resample_counts(len(stats.images))])


def paired_difference(a: ImageStats, b: ImageStats) -> tuple[float, float, float]:
    """The metric of b minus that of a, and its 95 % interval: (difference, low, high).

    Raises ValueError if a and b were not measured on the same images and annotations with the same metric.
    """
    if len(a.images) != len(b.images) or (a.images != b.images).any():
        raise ValueError(
            f"cannot compare in pairs: measured on different images ({len(a.images)} and {len(b.images)})"
        )
    if (a.people != b.people).any() or (a.score is None) != (b.score is None):
        raise ValueError("cannot compare in pairs: measured with different metrics or annotations")

    def difference(weights: np.ndarray) -> np.ndarray:
        return weighted_metric(b, weights) - weighted_metric(a, weights)

    differences = [difference(w) for w in _resample_counts(len(a.images))]
    return float(difference(np.ones((1, len(a.images))))[0]), *_interval95(differences)


def mean_interval(
    sums: np.ndarray, counts: np.ndarray | None = None, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of a quantity and its 95 % interval, from resampled people: (mean, low, high).

    sums (N,): the sum of the quantity over the items of each person, for example its joints. counts (N,): the
    number of items; by default 1 for each sum that is not NaN. All three values are NaN if there is no item.
    """
    counts = np.isfinite(sums).astype(float) if counts is None else counts.astype(float)
    sums = np.where(counts > 0, sums, 0.0)
    if not counts.any():
        return np.nan, np.nan, np.nan
    drawn = np.concatenate(list(_resample_counts(len(sums), seed)))  # (R, N)
    with np.errstate(invalid="ignore"):  # a resample without any item is NaN
        values = (drawn @ sums) / (drawn @ counts)  # (R,)
    return float(sums.sum() / counts.sum()), *_interval95([values])
