"""The one-euro filter: lag on a ramp, noise, a plain loop as reference, and the numbers on the docs page."""

import math
import re

import numpy as np
import pytest

from helpers import ROOT
from posebook.inference import smoothing


def filtered(points: np.ndarray, times: np.ndarray, size: float = 100.0) -> np.ndarray:
    """Smoothed positions (T, K, 2) of a sequence (T, K, 2)."""
    state, result = None, []
    for raw, time in zip(points, times, strict=True):
        state = smoothing.smooth(state, raw, time, size)
        result.append(state.points)
    return np.stack(result)


def ramp_lag(speed: float, times: np.ndarray) -> float:
    """Seconds that the filter is late for a joint with a constant speed in person sizes per second."""
    direction = np.array([0.6, 0.8])
    points = 100 * speed * times[:, None, None] * direction  # (T, 1, 2) for a person of 100 pixels
    behind = (points - filtered(points, times))[-1, 0]
    assert behind / np.linalg.norm(behind) == pytest.approx(direction)  # the path is not bent
    return float(np.linalg.norm(behind) / (100 * speed))


@pytest.mark.parametrize("cutoff", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("speed", [0.05, 0.5, 2.0])
def test_lag_on_a_ramp_is_one_over_two_pi_cutoff(cutoff, speed, monkeypatch):
    monkeypatch.setattr(smoothing, "MIN_CUTOFF", cutoff)
    expected = 1 / (2 * math.pi * (cutoff + smoothing.BETA * speed))
    regular = np.arange(500) / 25
    irregular = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.12, 500))
    for times in (regular, irregular):
        assert ramp_lag(speed, times) == pytest.approx(expected, rel=1e-3)
    assert ramp_lag(speed, regular) * speed < 1 / (2 * math.pi * smoothing.BETA)  # bounded in person sizes


def test_lag_on_the_docs_page_is_the_measured_one():
    rows = re.findall(
        r"^\| ([\d.]+) \| (\d+) ms \| ([\d.]+) \| ([\d.]+) % \|$", (ROOT / "docs/video.md").read_text(), re.M
    )
    assert len(rows) == 4
    for speed, milliseconds, frames, percent in ([float(value) for value in row] for row in rows):
        lag = ramp_lag(speed, np.arange(1000) / 30)
        assert (milliseconds, frames, percent) == (
            round(1000 * lag), round(30 * lag, 1), round(100 * lag * speed, 1)
        )  # fmt: skip


def test_noise_at_rest_is_reduced_as_theory_predicts(monkeypatch):
    noise = np.random.default_rng(0).normal(0, 1, (300, 500, 2))
    times = np.arange(300) / 25
    with monkeypatch.context() as patch:
        patch.setattr(smoothing, "BETA", 0.0)
        weight = smoothing.smoothing_factor(smoothing.MIN_CUTOFF, 1 / 25)
        measured = filtered(noise, times)[100:].std()
        assert measured == pytest.approx(math.sqrt(weight / (2 - weight)), rel=0.03)
    assert measured < filtered(noise, times)[100:].std() < 0.6  # a noise of 1 % of the person's size


def test_filter_is_the_plain_loop():
    rng = np.random.default_rng(1)
    points = rng.normal(0, 5, (40, 3, 2)).cumsum(0)
    times = np.cumsum(rng.uniform(0.02, 0.1, 40))
    result = filtered(points, times, size=60.0)
    for joint in range(3):
        x, y = points[0, joint]
        u = v = 0.0
        for i in range(1, 40):
            step = times[i] - times[i - 1]
            d = 1 / (1 + 1 / (2 * math.pi * smoothing.SPEED_CUTOFF * step))
            u += d * ((points[i, joint, 0] - points[i - 1, joint, 0]) / step - u)
            v += d * ((points[i, joint, 1] - points[i - 1, joint, 1]) / step - v)
            cutoff = smoothing.MIN_CUTOFF + smoothing.BETA * math.hypot(u, v) / 60
            a = 1 / (1 + 1 / (2 * math.pi * cutoff * step))
            x, y = x + a * (points[i, joint, 0] - x), y + a * (points[i, joint, 1] - y)
            assert result[i, joint] == pytest.approx((x, y))


def test_a_joint_at_rest_stays_and_scale_does_not_matter():
    still = np.full((5, 2, 2), 7.0)
    assert (filtered(still, np.arange(5.0)) == 7).all()
    path = np.random.default_rng(2).normal(0, 1, (30, 2, 2)).cumsum(0)
    times = np.arange(30) / 30
    assert filtered(3 * path, times, size=300.0) == pytest.approx(3 * filtered(path, times, size=100.0))


def test_time_must_increase():
    state = smoothing.smooth(None, np.zeros((1, 2)), 1.0, 10.0)
    with pytest.raises(ValueError, match="the time of a frame must increase: 1.0 s after 1.0 s"):
        smoothing.smooth(state, np.zeros((1, 2)), 1.0, 10.0)
