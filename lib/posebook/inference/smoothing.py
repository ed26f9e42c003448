"""One-euro filter of the joints of a track (Casiez, Roussel and Vogel, CHI 2012).

A first-order low-pass filter whose cutoff frequency grows with speed: a joint at rest does not jitter, and a
fast joint is not late. Constants and choices:

1. The speed is the difference of two unfiltered positions, as in Roussel's C++ code, smoothed with a cutoff
   of SPEED_CUTOFF. At a constant speed the joint is therefore late by exactly 1 / (2 pi cutoff) seconds.
2. Both coordinates of a joint have the cutoff of its speed, so that the filter does not bend its path.
3. The cutoff grows with the speed in person sizes per second, as in MediaPipe: people near the camera and far
   away are smoothed equally. The size is the square root of the area of the person's box.
4. At any constant speed, a joint is less than 1 / (2 pi BETA) = 1.6 % of the person's size behind.
"""

from dataclasses import dataclass

import numpy as np

MIN_CUTOFF = 1.0  # Hz, of a joint at rest
BETA = 10.0  # Hz per person size and second
SPEED_CUTOFF = 1.0  # Hz


@dataclass(frozen=True)
class FilterState:
    """The filter after one frame."""

    time: float  # seconds
    raw: np.ndarray  # (K, 2) positions in the frame, pixels
    points: np.ndarray  # (K, 2) smoothed positions, pixels
    velocity: np.ndarray  # (K, 2) smoothed, pixels per second


def smoothing_factor(cutoff: np.ndarray | float, step: float) -> np.ndarray | float:
    """Weight of the new value in a low-pass filter. cutoff in Hz, step: seconds since the last value."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))


def smooth(state: FilterState | None, raw: np.ndarray, time: float, size: float) -> FilterState:
    """Filter the joints (K, 2) of one person in one frame.

    state: after the last frame with this person, None in the first one. time: seconds. size: of the person,
    pixels. Raises ValueError if time does not increase.
    """
    if state is None:
        return FilterState(time, raw, raw, np.zeros_like(raw))
    step = time - state.time
    if step <= 0:
        raise ValueError(f"the time of a frame must increase: {time} s after {state.time} s")
    weight = smoothing_factor(SPEED_CUTOFF, step)
    velocity = state.velocity + weight * ((raw - state.raw) / step - state.velocity)  # (K, 2)
    speed = np.linalg.norm(velocity, axis=-1, keepdims=True) / max(size, 1.0)  # (K, 1) sizes per second
    weight = smoothing_factor(MIN_CUTOFF + BETA * speed, step)  # (K, 1)
    return FilterState(time, raw, state.points + weight * (raw - state.points), velocity)
