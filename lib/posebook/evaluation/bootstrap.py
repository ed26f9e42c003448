"""How far a figure would move on other images: the bootstrap over images (Efron, 1979).

A benchmark's images are one draw of all the images there might be. Drawing as many from them, with
repetition, a thousand times, and measuring each time, shows the spread. Two nets are measured on the same
draws: what makes an image hard for both does not blur their difference.

1. What is drawn are images, not people: the people of one image are no independent draws, and AP ranks all
   detections together.
2. Intervals are the percentiles 2.5 and 97.5.
"""

from collections.abc import Iterator

import numpy as np

from posebook.evaluation.metrics import ImageStats, weighted_metric

NUM_RESAMPLES = 1000


def _resample_counts(images: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image was drawn, (R, I), a hundred draws at a time."""
    rng = np.random.default_rng(seed)
    for start in range(0, draws, 100):
        yield rng.multinomial(images, np.full(images, 1 / images), min(100, draws - start)).astype(float)


def _interval95(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)


def interval(units: ImageStats, draws: int = NUM_RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a record's main figure (AP, PCKh@0.5 or PCK), as fractions."""
    return _interval95(
        np.concatenate([weighted_metric(units, w) for w in _resample_counts(len(units.images), draws, seed)])
    )


def paired_difference(
    a: ImageStats, b: ImageStats, draws: int = NUM_RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """b's figure less a's, on the same images, and its 95 % interval: (difference, low, high).

    Raises ValueError where the two were not measured on the same images and people.
    """
    if len(a.images) != len(b.images) or (a.images != b.images).any():
        raise ValueError(
            f"measured on other images: {len(a.images)} and {len(b.images)}; nothing can be paired"
        )
    if (a.people != b.people).any() or (a.score is None) != (b.score is None):
        raise ValueError("measured by other metrics or on other annotations; nothing can be paired")
    everything = np.ones((1, len(a.images)))
    whole = float((weighted_metric(b, everything) - weighted_metric(a, everything))[0])
    drawn = [
        weighted_metric(b, w) - weighted_metric(a, w) for w in _resample_counts(len(a.images), draws, seed)
    ]
    return whole, *_interval95(np.concatenate(drawn))
