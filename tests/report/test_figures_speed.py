"""The plots of times: labels that do not overlap, and one line for each runtime."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from posebook.benchmark import timing
from posebook.report import figures, figures_statistics
from posebook.report.colors import MUTED, TEAL

pytestmark = pytest.mark.usefixtures("page_style")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", [0.0, 0.01, 1.0])
def test_labels_of_bubbles_do_not_overlap(spread, seed):
    """Even if all points are in one place."""
    x, y = spread * np.random.default_rng(seed).uniform(size=(2, 9))
    points = pd.DataFrame({"label": [f"StarNet-Pose-{i}" for i in range(9)], "GFLOPs": x, "FPS": y})
    points = points.assign(size=1.0, source=["a"] * 7 + ["b"] * 2)
    figure = figures.tradeoff(points, "GFLOPs", "FPS", "size")
    figure.canvas.draw()
    for ax, count in zip(figure.axes, (7, 2), strict=True):
        boxes = [Text.get_window_extent(text) for text in ax.texts]  # without the line to the point
        assert len(boxes) == count
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_runtimes_have_a_line_each_with_all_rounds():
    rows = [
        {"model": model, "form": form, "latency_ms": timing.summarize([[ms], [ms + 1], [ms + 5]])}
        for model, form, ms in (("a", "eager", 10.0), ("a", "fast", 4.0), ("b", "eager", 30.0))
    ] + [{"model": "b", "form": "fast", "why": "not installed"}]
    figure = figures_statistics.runtime_times(rows, "eager")
    first, second = figure.axes
    assert (first.get_title(loc="left"), second.get_title(loc="left")) == ("a", "b")
    assert first.get_xscale() == "log"
    dots = [np.asarray(dots.get_offsets()) for dots in first.collections if len(dots.get_offsets())]
    assert sorted(float(x) for x in np.concatenate(dots)[:, 0]) == [4, 5, 9, 10, 11, 15]
    medians = [float(x) for line in first.lines for x in np.atleast_1d(line.get_xdata()) if x == x]
    assert {5.0, 11.0} <= set(medians)
    shown = {line.get_color() for line in first.lines}
    assert {MUTED, TEAL} <= shown
