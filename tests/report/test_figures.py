"""Plots and HTML tables."""

import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from posebook import skeletons
from posebook.report import colors, figures, figures_statistics, html, html_tables

COCO = skeletons.get("coco")


pytestmark = pytest.mark.usefixtures("page_style")


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


def test_joints_outside_of_an_image_do_not_shrink_it():
    _, (ax, other) = figures.image_grid([np.zeros((20, 30, 3), np.uint8)] * 2)
    points = pose()
    points[3, :2] = (-500, 900)
    figures.draw_pose(ax, None, points, COCO)
    assert ax.get_xlim() == other.get_xlim() == (-0.5, 29.5) and ax.get_ylim() == (19.5, -0.5)


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
    records[0]["before"] = {"metrics_without_flip": {"AP": 0.1}}
    right = figures.learning_curves(records[:1]).axes[1]
    assert right.lines[0].get_xydata().tolist() == [[0, 0.1], [2, 0.4], [3, 0.6]]


def test_marginals_are_aligned_with_pixels():
    _, ax = plt.subplots()
    x, y = np.zeros(96), np.zeros(128)
    x[40], y[100] = 1, 1  # two bins per pixel: pixels 20 and 50
    top, side = figures.simcc_marginals(ax, np.zeros((64, 48, 3), np.uint8), x, y, point=(20, 50))
    across = top.collections[0].get_paths()[0].vertices
    down = side.collections[0].get_paths()[0].vertices
    assert across[across[:, 1].argmax(), 0] == 20 and down[down[:, 0].argmax(), 1] == 50
    assert top.get_xlim() == ax.get_xlim() and side.get_ylim() == ax.get_ylim()


def test_note_marks_are_letters_and_distinct():
    marks = [html_tables._letters(number) for number in range(60)]
    assert marks[:2] == ["a", "b"] and marks[25:28] == ["z", "aa", "bb"]
    assert len(set(marks)) == 60 and "".join(marks).isalpha()


def test_every_color_of_a_plot_differs_between_light_and_dark_pages():
    """The exporter replaces each of them by a variable of the style sheet."""
    named = {colors.INK, colors.MUTED, colors.GRID, colors.TEAL, colors.ORANGE, colors.GOLD, colors.BLUE}
    drawn = {skeletons.LEFT, skeletons.RIGHT, skeletons.MIDDLE, *colors.STATUS_COLORS.values()}
    assert named | drawn <= html.PALETTE.keys()
    assert html.themed_css(f"color: {colors.TEAL.upper()}") == "color: var(--accent)"


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


def test_map_of_zeros_is_labeled():
    for value, texts in ((0.0, ["map is zero\neverywhere"]), (1.0, [])):
        _, ax = plt.subplots()
        figures.attribution_overlay(ax, np.zeros((8, 6, 3), np.uint8), np.full((8, 6), value))
        assert [text.get_text() for text in ax.texts] == texts


def test_difference_of_maps_is_second_minus_first():
    maps = {"without": np.zeros((8, 6)), "with": np.zeros((8, 6))}
    maps["with"][2, 3] = 0.5
    figure = figures.map_difference(np.zeros((32, 24, 3), np.uint8), maps, np.array([[12.0, 8.0]]), zoom=True)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["image", "without", "with", "difference"]
    image, change = figure.axes[3].images
    assert change.get_array()[2, 3] == 0.5 and change.get_clim() == (-0.5, 0.5)
    assert figure.axes[1].images[1].get_clim() == figure.axes[2].images[1].get_clim() == (0, 0.5)
    assert image.get_extent() == change.get_extent() and figure.axes[0].get_xlim() == (6, 18)


# statistical plots


def test_consecutive_runs_continue_the_count_of_people():
    runs = [curve_record(name, "AP", 2, 1, 0.5) | {"dataset": {"persons": 100}} for name in ("a", "b")]
    (ax,) = figures_statistics.consecutive_runs(runs).axes
    assert [line.get_xdata().tolist() for line in ax.lines] == [[200, 300], [500, 600]]
    with pytest.raises(ValueError, match="no record has a learning curve with a metric"):
        figures_statistics.consecutive_runs([{"name": "a", "curve": [{"epoch": 1, "loss": 2.0}]}])


def test_error_of_each_joint_by_visibility():
    rng = np.random.default_rng(0)
    errors = pd.DataFrame(
        [
            (j, v, e)
            for j in ("wrist", "hip")
            for v in ("visible", "hidden")
            for e in rng.lognormal(-3, 1, 50)
        ],
        columns=["joint", "visibility", "error"],
    )
    (ax,) = figures_statistics.error_by_joint(errors).axes
    assert ax.get_yscale() == "log"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["wrist", "hip"]
    assert ax.get_legend_handles_labels()[1] == ["visible", "hidden"]


def test_heatmap_shows_each_number_and_leaves_nan_blank():
    table = pd.DataFrame([[1.25, np.nan], [-4, 0]], index=["left_wrist", "nose"], columns=["arm", "leg"])
    ax, bar = figures_statistics.heatmap(table, "loss").axes
    assert [text.get_text() for text in ax.texts] == ["1.2", "-4.0", "0.0"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["left wrist", "nose"]
    assert bar.get_ylabel() == "loss" and bar.get_ylim() == (-4, 4)


def test_metric_of_groups_is_drawn_at_its_value_with_its_interval():
    groups = pd.DataFrame(
        {"AP": [0.5, 0.3], "low": [0.4, 0.31], "high": [0.55, 0.5], "people": [1200, 7]},
        index=["none", "all"],
    )  # the bootstrap interval of a small group need not contain its value
    (ax,) = figures_statistics.metric_by_group(groups, "AP").axes
    drawn = np.concatenate([line.get_ydata() for line in ax.lines])
    assert all(np.isclose(drawn, end).any() for end in groups[["AP", "low", "high"]].to_numpy().ravel())
    assert [text.get_text() for text in ax.texts] == ["0.500", "0.300"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["none\n1,200 people", "all\n7 people"]


def test_histogram_of_heights_counts_everyone():
    people = pd.DataFrame({"height": [30, 31, 90, 95, 200], "group": ["a", "b", "a", "a", "b"]})
    (ax,) = figures_statistics.box_heights(people).axes
    assert sum(bar.get_height() for bar in ax.patches) == len(people)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


def test_bars_of_joints_are_sorted():
    shares = pd.Series({"nose": 0.2, "left_eye": 0.6, "hip": 0.4})
    (ax,) = figures_statistics.share_bars(shares, dict.fromkeys(shares.index, colors.TEAL), "hidden").axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["left eye", "hip", "nose"]
    assert [text.get_text() for text in ax.texts] == ["60%", "40%", "20%"]


def test_rates_show_each_round_and_the_median():
    panels = {"a": pd.DataFrame({"x": [1.0, 2, 9], "y": [4.0, 4, 4]}), "b": pd.DataFrame({"z": [5.0]})}
    upper, lower = figures_statistics.rates_by_round(panels, "people/s").axes
    assert sorted(np.concatenate([dots.get_offsets()[:, 0] for dots in upper.collections])) == [
        1,
        2,
        4,
        4,
        4,
        9,
    ]
    assert [text.get_text() for text in upper.texts] == ["2.0", "4.0"]
    assert lower.get_xlabel() == "people/s" and lower.get_title(loc="left") == "b"


def test_deletion_curves_average_the_joints_of_a_person_first():
    rows = [
        ("IG", p, r, c, v)
        for p, v in ((1, 0.0), (1, 1.0), (2, 1.0))
        for r in (0, 100)
        for c in ("deletion", "insertion")
    ]
    cases = pd.DataFrame(rows, columns=["method", "person", "removed", "curve", "target"])
    left, right = figures_statistics.deletion_insertion_curves(cases).axes
    for ax in (left, right):
        assert ax.lines[0].get_ydata().tolist() == [0.75, 0.75]  # not 2/3
    assert left.get_legend() is None and right.get_legend().get_texts()[0].get_text() == "IG"


def test_differences_have_a_panel_for_each_kind_of_square():
    rows = pd.DataFrame(
        [("black", "covered", 0.3, 2.0, -1.0, 5.0), ("image", "free", 0.3, 1.0, 0.5, 2.0)],
        columns=["square", "joints", "side", "difference", "low", "high"],
    )
    left, right = figures_statistics.differences_by_size(rows, "difference").axes
    assert left.get_title(loc="left") == "square: black" and right.get_title(loc="left") == "square: image"
    (bar,) = left.containers[0].lines[2]
    assert bar.get_segments()[0][:, 1].tolist() == [-1.0, 5.0]


def test_intervals_over_seeds_that_contain_0_are_gray():
    table = pd.DataFrame(
        {"value": [1.0, -2.0, 0.5], "low": [0.5, -3, -1], "high": [1.5, -1, 2]}, ["a", "b", "c"]
    )
    top, bottom = figures_statistics.seed_differences({"one": table, "two": table[2:]}).axes
    assert [tick.get_text() for tick in top.get_yticklabels()] == ["a", "b", "c"]
    (zero, *drawn), expected = top.lines, (colors.TEAL, colors.TEAL, colors.MUTED)
    assert zero.get_xdata() == [0, 0]
    for place, row, color in zip(range(3), table.itertuples(), expected, strict=True):
        line, dot = drawn[2 * place : 2 * place + 2]
        assert list(line.get_xdata()) == [row.low, row.high] and line.get_ydata()[0] == place
        assert dot.get_xdata() == [row.value] and line.get_color() == dot.get_color() == color
    assert top.get_ylim() == (2.5, -0.5) and bottom.get_ylim() == (0.5, -0.5)


def test_found_joints_and_entropy_have_a_panel_for_each_group():
    table = pd.DataFrame(
        [
            (square, side, name, joints, what, 9, side, side - 0.1, side + 0.1)
            for square in ("black", "another image")
            for joints in ("covered", "free")
            for what in ("found", "entropy")
            for name in ("a", "b")
            for side in (0.0, 0.5)
        ],
        columns=["square", "side", "network", "joints", "what", "count", "value", "low", "high"],
    )
    axes = figures_statistics.found_and_entropy(table).axes
    assert len(axes) == 8 and all(len(ax.lines) == 2 for ax in axes)
    assert axes[1].get_title(loc="left") == "free joints, black"
    assert axes[4].get_ylabel() == "entropy" and axes[0].lines[0].get_ydata().tolist() == [0, 0.5]


@pytest.mark.parametrize("count", [1, 3, 14])
def test_names_over_time_do_not_overlap(count):
    """Even if all models have nearly the same time and AP; the front is marked twice."""
    points = pd.DataFrame({"label": [f"StarNet-Pose-T (synthetic, {i})" for i in range(count)]})
    points = points.assign(ms=20 + 0.01 * points.index, AP=0.3, ours=points.index % 2 == 0)
    points = points.assign(low=points["ms"] - 4, high=points["ms"] + 5, front=points.index < 2)
    figure = figures_statistics.accuracy_over_time(points)
    figure.canvas.draw()
    (ax,) = figure.axes
    boxes = [Text.get_window_extent(text) for text in ax.texts]  # without the line to the dot
    assert len(boxes) == count and ax.texts[0].get_text() == points["label"][0]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(box.x0 > ax.get_window_extent().x1 for box in boxes)  # beside the dots, not on them
    for text, front in zip(ax.texts, points["front"], strict=True):
        assert (text.get_weight() == "bold") == front
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    filled = [dot.get_markerfacecolor() != "white" for dot in dots]
    assert filled == points["front"].tolist() and dots[0].get_color() == colors.TEAL
    ranges = [line.get_xdata() for line in ax.lines if line.get_alpha() == 0.3]
    assert [list(ends) for ends in ranges] == points[["low", "high"]].values.tolist()
