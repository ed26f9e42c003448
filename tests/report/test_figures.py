"""Plots and HTML tables."""

import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from posebook import skeletons
from posebook.report import colors, figures

COCO = skeletons.get("coco")


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


def pixels(figure: plt.Figure) -> np.ndarray:
    """The rendered figure, (H, W, 3)."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def colored(figure: plt.Figure, color: str) -> int:
    """The number of pixels with nearly this color."""
    target = np.round(np.array(matplotlib.colors.to_rgb(color)) * 255)
    return int((np.abs(pixels(figure) - target).max(-1) <= 2).sum())


def pose() -> np.ndarray:
    """Random joints in a 64 x 48 image, (K, 3), all visible."""
    rng = np.random.default_rng(0)
    return np.c_[rng.uniform(4, 44, 17), rng.uniform(4, 60, 17), np.full(17, 2)]


def test_pose_is_drawn_in_colors_of_sides():
    figure, ax = plt.subplots(figsize=(4, 4))
    figures.draw_pose(ax, np.full((64, 48, 3), 255, np.uint8), pose(), COCO)
    assert colored(figure, skeletons.LEFT) > 100 and colored(figure, skeletons.RIGHT) > 100
    assert len(ax.lines) == 17 + 2 * len(COCO.limbs)


def test_unlabeled_joints_are_omitted_and_low_scores_are_faint():
    _, ax = plt.subplots()
    points = pose()
    points[:, 2] = 0
    figures.draw_pose(ax, None, points, COCO)
    assert len(ax.lines) == 0
    scores = np.full(17, 0.9)
    scores[0] = 0.1
    figures.draw_pose(ax, None, pose()[:, :2], COCO, scores)
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [dot.get_alpha() < 0.5 for dot in dots] == [True] + [False] * 16
    assert dots[9].get_xdata()[0] == pytest.approx(pose()[9, 0])


def test_hidden_joint_is_hollow():
    _, ax = plt.subplots()
    points = np.zeros((17, 3))
    points[5] = (3, 4, 1)
    points[6] = (7, 8, 2)
    figures.draw_pose(ax, None, points, COCO)
    hidden, seen = (line for line in ax.lines if line.get_marker() == "o")
    assert hidden.get_markerfacecolor() == "white" and seen.get_markerfacecolor() == COCO.colors[6]


def test_image_grid_has_one_axes_per_image():
    images = [np.full((20, 30, 3), 10 * i, np.uint8) for i in range(5)]
    figure, axes = figures.image_grid(images, [str(i) for i in range(5)], ncols=3)
    assert len(axes) == 5 and len(figure.axes) == 6
    assert axes[4].get_title(loc="left") == "4"
    assert len(np.unique(pixels(figure))) > 5
    with pytest.raises(ValueError, match="at least one"):
        figures.image_grid([])


def curve_record(name: str, metric: str, *losses: float) -> dict:
    """A record with a metric at epochs 2 and 3."""
    curve = [{"epoch": epoch, "loss": loss} for epoch, loss in enumerate(losses, 1)]
    curve[1][metric], curve[2][metric] = 0.4, 0.6
    return {"name": name, "curve": curve}


def test_learning_curves_show_loss_and_metric():
    records = [
        curve_record("a", "AP", 2, 1, 0.5),
        curve_record("b", "PCK@0.2", 1, 0.8, 0.7),
        {"name": "none"},
    ]
    figure = figures.learning_curves(records)
    left, right = figure.axes
    assert [list(line.get_ydata()) for line in left.lines] == [[2, 1, 0.5], [1, 0.8, 0.7]]
    assert [list(line.get_xdata()) for line in right.lines] == [[2, 3]] * 2
    assert right.get_ylabel() == "AP or PCK@0.2"
    assert colored(figure, colors.TEAL) > 100 and colored(figure, colors.ORANGE) > 100
    with pytest.raises(ValueError, match="no record"):
        figures.learning_curves(records[2:])


def test_marginals_are_aligned_with_pixels():
    _, ax = plt.subplots()
    x, y = np.zeros(96), np.zeros(128)
    x[40], y[100] = 1, 1  # two bins per pixel: pixels 20 and 50
    top, side = figures.simcc_marginals(ax, np.zeros((64, 48, 3), np.uint8), x, y, point=(20, 50))
    across = top.collections[0].get_paths()[0].vertices
    down = side.collections[0].get_paths()[0].vertices
    assert across[across[:, 1].argmax(), 0] == 20 and down[down[:, 0].argmax(), 1] == 50
    assert top.get_xlim() == ax.get_xlim() and side.get_ylim() == ax.get_ylim()


def test_feature_map_diagram_has_one_block_per_map():
    figure = figures.feature_map_diagram({"stem": (32, 64, 48), "neck": (256, 8, 6)})
    tall, small = figure.axes[0].patches
    assert tall.get_height() == pytest.approx(8 * small.get_height()) and small.get_width() > tall.get_width()
    assert [text.get_text() for text in figure.axes[0].texts][::2] == ["32\n64×48", "256\n8×6"]
    with pytest.raises(ValueError, match="shape of a feature map"):
        figures.feature_map_diagram({"tokens": (17, 256)})


def test_interactive_draws_once_and_reports_missing_package(capsys, monkeypatch):
    drawn = []
    figures.interactive(lambda beta: drawn.append(beta), beta=(1, 20, 1))
    assert len(drawn) == 1 and 1 <= drawn[0] <= 20
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    figures.interactive(lambda beta: drawn.append(beta), beta=(1, 20, 1))
    assert len(drawn) == 1
    assert "pip install ipywidgets" in capsys.readouterr().out
