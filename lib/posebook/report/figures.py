"""The plots that several pages share, in one style.

Every function draws from its arguments and returns the Figure or Axes; none reads a file. Images are (H, W,
3) uint8. Points are (x, y) in pixels, with pixel centers at integers.
"""

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from mpl_toolkits.axes_grid1 import make_axes_locatable

from posebook.evaluation.metrics import PRIMARY_METRICS
from posebook.report.colors import BLUE, CELL_INK, GOLD, GRID, INK, MUTED, ORANGE, SIGNED, TEAL
from posebook.skeletons import Skeleton


def use_style() -> None:
    """Set the matplotlib style of all pages.

    While a page is generated, plots are saved as PNG and SVG, without a background, because pages have a
    light and a dark color scheme.
    """
    background = "white"
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell and "POSEBOOK_STILL" in os.environ:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("png", "svg")
        background = "none"
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "font.family": "DejaVu Sans",
            "font.size": 9.5,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.titlesize": 10.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.edgecolor": MUTED,
            "axes.linewidth": 0.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.prop_cycle": cycler(color=[TEAL, ORANGE, BLUE, GOLD, MUTED]),
            "grid.color": GRID,
            "grid.linewidth": 0.9,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "lines.linewidth": 1.8,
            "legend.frameon": False,
            "image.interpolation": "nearest",
            "figure.facecolor": background,
            "axes.facecolor": background,
            "savefig.facecolor": background,
        }
    )


def draw_pose(
    ax: Axes,
    image: np.ndarray | None,
    keypoints: np.ndarray,
    skeleton: Skeleton,
    scores: np.ndarray | None = None,
    threshold: float = 0.3,
) -> Axes:
    """Draw a person's joints and limbs over `image`, or over the current contents of `ax` if it is None.

    keypoints: (K, 2), or (K, 3) with COCO's visibility v: 0 is omitted, 1 (hidden) is drawn hollow. scores:
    (K,). Joints with a score below `threshold`, and their limbs, are drawn faint.
    """
    if image is not None:
        ax.imshow(image)
        ax.set_axis_off()
    points = np.asarray(keypoints, dtype=float)
    visible = points[:, 2] if points.shape[1] == 3 else np.full(len(points), 2)
    alpha = np.ones(len(points)) if scores is None else np.where(np.asarray(scores) < threshold, 0.25, 1.0)
    for a, b in skeleton.limbs:
        if visible[a] and visible[b]:
            line = points[[a, b], :2].T  # (2, 2): x of both ends, y of both ends
            opacity = min(alpha[a], alpha[b])
            # A wider white line below makes limbs visible on any background.
            ax.plot(*line, color="white", linewidth=3.6, alpha=0.5 * opacity, solid_capstyle="round")
            ax.plot(*line, color=skeleton.colors[b], linewidth=2.0, alpha=opacity, solid_capstyle="round")
    for joint in np.flatnonzero(visible):
        color = skeleton.colors[joint]
        face, edge = (color, "white") if visible[joint] >= 2 else ("white", color)
        x, y = points[joint, :2]
        ax.plot(x, y, "o", ms=4.5, mew=1.0, mfc=face, mec=edge, alpha=alpha[joint])
    return ax


def image_grid(
    images: Sequence[np.ndarray], titles: Sequence[str] | None = None, ncols: int = 4, width: float = 10.0
) -> tuple[Figure, list[Axes]]:
    """A grid of images, `width` inches wide; returns the figure and the axes of each image, to draw on."""
    if not len(images):
        raise ValueError("image_grid needs at least one image")
    ncols = min(ncols, len(images))
    nrows = -(-len(images) // ncols)  # rounded up
    tallest = max(image.shape[0] / image.shape[1] for image in images)
    height = width / ncols * tallest * nrows + (0.25 * nrows if titles is not None else 0)
    figure, grid = plt.subplots(nrows, ncols, figsize=(width, height), squeeze=False)
    axes = list(grid.flat)
    for ax in axes:
        ax.set_axis_off()
    for index, (ax, image) in enumerate(zip(axes, images, strict=False)):
        ax.imshow(image)
        ax.autoscale(False)  # joints outside of the image must not change the scale
        if titles is not None:
            ax.set_title(titles[index], fontsize=8.5, fontweight="normal")
    return figure, axes[: len(images)]


def curve_metric(record: dict) -> str | None:
    """The primary metric in a record's learning curve, if it has one."""
    return next((m for m in PRIMARY_METRICS if any(e.get(m) is not None for e in record["curve"])), None)


def learning_curves(records: Sequence[dict]) -> Figure:
    """Learning curves of training records: loss on the left, validation metric on the right."""
    records = [record for record in records if record.get("curve")]
    if not records:
        raise ValueError("no record has a learning curve")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.3))
    metrics = []
    for record in records:
        curve = record["curve"]
        left.plot([e["epoch"] for e in curve], [e["loss"] for e in curve], label=record["name"])
        if metric := curve_metric(record):
            points = [(e["epoch"], e[metric]) for e in curve if e.get(metric) is not None]
            if before := record.get("before"):  # the initial weights
                points.insert(0, (0, before["metrics_without_flip"][metric]))
            right.plot(*zip(*points, strict=True), marker="o", markersize=3, label=record["name"])
            metrics.append(metric)
    left.set(xlabel="epoch", ylabel="loss", title="Training loss")
    ylabel = " or ".join(dict.fromkeys(metrics)) or "no metric in this record"
    right.set(xlabel="epoch", ylabel=ylabel, title="Validation", ylim=(0, 1))
    if len(records) > 1:
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", fontsize=8.5)
    return figure


def feature_map_diagram(shapes: dict[str, tuple[int, ...]], width: float = 10.0) -> Figure:
    """Feature maps as blocks in order of computation, with height H and a width proportional to log(C).

    shapes: (C, H, W) by name. The name is below each block, the number of channels and the size above it.
    """
    if any(len(shape) != 3 for shape in shapes.values()):
        raise ValueError("each block needs the shape of a feature map, (C, H, W)")
    tallest = max(height for _, height, _ in shapes.values())
    figure, ax = plt.subplots(figsize=(width, 3.6))
    left = 0.0
    for number, (name, (channels, height, columns)) in enumerate(shapes.items()):
        block_width, block_height = 0.18 * np.log2(channels), max(height / tallest, 0.04)
        color = (TEAL, BLUE)[number % 2]
        corner = (left, -block_height / 2)
        ax.add_patch(plt.Rectangle(corner, block_width, block_height, color=color, alpha=0.75, linewidth=0))
        middle = left + block_width / 2
        label = f"{channels}\n{height}×{columns}"
        ax.text(middle, block_height / 2 + 0.02, label, ha="center", va="bottom", fontsize=8.5, color=MUTED)
        ax.text(middle, -0.54, name, ha="right", va="top", rotation=35, fontsize=9.5, rotation_mode="anchor")
        left += block_width + 0.75
    ax.set(xlim=(-0.4, left), ylim=(-0.95, 0.72))
    ax.set_axis_off()
    return figure


def simcc_marginals(
    ax: Axes, image: np.ndarray, x: np.ndarray, y: np.ndarray, point: tuple[float, float] | None = None
) -> tuple[Axes, Axes]:
    """Draw one joint's two distributions along the edges of its crop: x (Wx,) above, y (Wy,) on the right.

    x and y are probabilities or other weights. Their bins are spread over the crop for any split ratio.
    point: (x, y) of the decoded joint, to be marked. Returns the axes of the two distributions.
    """
    height, width = image.shape[:2]
    ax.imshow(image)
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    divider = make_axes_locatable(ax)
    top = divider.append_axes("top", size="22%", pad=0.05, sharex=ax)
    side = divider.append_axes("right", size="22%", pad=0.05, sharey=ax)
    columns = np.arange(len(x)) * width / len(x)
    rows = np.arange(len(y)) * height / len(y)
    top.fill_between(columns, x, color=TEAL, alpha=0.85, linewidth=0)
    side.fill_betweenx(rows, y, color=ORANGE, alpha=0.85, linewidth=0)
    top.set_ylim(bottom=0)
    side.set_xlim(left=0)
    for edge in (top, side):
        edge.set_axis_off()
    if point is not None:
        for line in (ax.axvline, top.axvline):
            line(point[0], color=TEAL, linewidth=0.9)
        for line in (ax.axhline, side.axhline):
            line(point[1], color=ORANGE, linewidth=0.9)
        ax.plot(*point, "o", ms=6, mfc="none", mec="white", mew=1.6)
    return top, side


def attribution_overlay(ax: Axes, image: np.ndarray, values: np.ndarray) -> Axes:
    """An attribution map (H, W) over the pale gray image (H, W, 3): teal above 0, orange below.

    Each map is scaled to the 99th percentile of its absolute values, and smoothed with a standard deviation
    of 1 pixel. A map of zeros is labeled.
    """
    if not values.any():
        text = ax.text(0.5, 0.5, "map is zero\neverywhere", transform=ax.transAxes, ha="center", va="center")
        text.set(color=CELL_INK, fontsize=7.5, bbox={"facecolor": "white", "linewidth": 0, "pad": 2})
    values = cv2.GaussianBlur(np.ascontiguousarray(values, np.float32), (0, 0), 1)
    values = np.clip(values / (np.quantile(np.abs(values), 0.99) or 1), -1, 1)
    ax.imshow(255 - (255 - image.mean(2)) / 2, cmap="gray", vmin=0, vmax=255)
    ax.imshow(values, cmap=SIGNED, vmin=-1, vmax=1, alpha=np.abs(values) * 0.85)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    return ax


def map_difference(
    image: np.ndarray, maps: dict[str, np.ndarray], points: np.ndarray, zoom: bool = False
) -> Figure:
    """Two maps (h, w) of one image (H, W, 3) in one scale, and their difference: teal more, orange less.

    The difference is the second map minus the first, in a scale of its own. points (P, 2): drawn as rings, as
    (x, y) in pixels of the image. zoom: show only the surroundings of the points.
    """
    (first, second), (height, width) = maps.values(), image.shape[:2]
    top, most = max(first.max(), second.max()), np.abs(second - first).max() or 1
    layers = [
        ("image", None, {}),
        *((name, m, {"cmap": "magma", "vmin": 0, "vmax": top}) for name, m in maps.items()),
    ]
    layers.append(("difference", second - first, {"cmap": SIGNED, "vmin": -most, "vmax": most}))
    figure, axes = plt.subplots(1, 4, figsize=(10, 3.0 if zoom else 3.6))
    for ax, (title, values, scale) in zip(axes, layers, strict=True):
        ax.imshow(image)
        if values is not None:
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)
            ax.imshow(values, extent=extent, interpolation="bicubic", alpha=0.8, **scale)
        ax.plot(*points.T, "o", color="none", markeredgecolor="white", markersize=9)
        ax.set_title(title, fontsize=9)
        ax.set_axis_off()
        if zoom:
            x, y = points.mean(0)
            ax.set(xlim=(x - width / 4, x + width / 4), ylim=(y + height / 5, y - height / 5))
    return figure


def tradeoff(points: pd.DataFrame, x: str, y: str, size: str) -> Figure:
    """Columns x and y of models as bubbles with area `size`, in one panel for each `source`.

    Scales differ between sources. points: also has the columns `label` and `source`.
    """
    sources, tables = list(dict.fromkeys(points["source"])), []
    lines = -(-len(sources) // 2)  # two panels in a line
    figure, axes = plt.subplots(lines, 2, figsize=(10.4, 3.9 * lines), squeeze=False)
    for ax in axes.flat[len(sources) :]:
        ax.set_visible(False)
    for ax, source, color in zip(axes.flat, sources, (TEAL, ORANGE, BLUE, GOLD) * 9, strict=False):
        own = points[points["source"] == source].dropna(subset=[x, y]).sort_values(x)
        area = 60 * own[size].fillna(own[size].median()).fillna(3)
        ax.scatter(own[x], own[y], s=area, color=color, alpha=0.45, edgecolor=color, linewidth=1.2)
        ax.set(xlabel=x, ylabel=y, title=source)
        ax.margins(0.2)
        tables.append((ax, own))
    figure.canvas.draw()  # the layout, which decides where labels overlap
    for ax, own in tables:
        _label_points(ax, own[[x, y]].to_numpy(float), own["label"].tolist())
    return figure


def _label_points(ax: Axes, points: np.ndarray, labels: Sequence[str]) -> None:
    """Write a label at each point (N, 2), as close as possible without overlapping another one."""
    offsets = [(0, side * (13.5 + 10 * line) - 3.5) for line in range(8) for side in (1, -1)]
    taken: list[Bbox] = []
    for xy, label in zip(points, labels, strict=True):
        for offset in offsets:
            leader = {"arrowstyle": "-", "color": MUTED, "lw": 0.6} if offset in offsets[2:] else None
            text = ax.annotate(
                label, xy, offset, textcoords="offset points", ha="center", fontsize=7.8, arrowprops=leader
            )
            text.set_in_layout(False)
            box = Text.get_window_extent(text).padded(1)  # without the line
            if not any(map(box.overlaps, taken)) or offset == offsets[-1]:
                break
            text.remove()
        taken.append(box)


def layer_times(tables: dict[str, pd.DataFrame]) -> Figure:
    """A stacked bar for each model: the share of time of each type of layer.

    tables: layers of each model, with the columns kind (of layer) and ms.
    """
    shares = pd.DataFrame(
        {name: table.groupby("kind")["ms"].sum() for name, table in tables.items()}
    ).T.fillna(0)
    shares = shares[shares.sum().sort_values(ascending=False).index]
    percent = 100 * shares.div(shares.sum(axis=1), axis=0)
    figure, ax = plt.subplots(figsize=(8.4, 0.46 * len(shares) + 1.1))
    left = np.zeros(len(shares))
    colors = (TEAL, ORANGE, BLUE, GOLD, MUTED, "#8fb8b5", "#e3b7a5")
    for kind, color in zip(percent, colors, strict=False):
        bars = ax.barh(percent.index, percent[kind], left=left, color=color, label=kind, height=0.68)
        # narrower segments have no space for a number
        texts = [f"{value:.0f}" if value >= 7 else "" for value in percent[kind]]
        ax.bar_label(bars, texts, label_type="center", color="white", fontsize=8)
        left += percent[kind].to_numpy()
    ax.set(xlabel="% of an eager forward pass", xlim=(0, 100), ylim=(len(shares) - 0.5, -0.5))
    ax.grid(False)
    ax.legend(ncols=4, fontsize=8.2, loc="lower left", bbox_to_anchor=(0, 1.0))
    return figure


def roofline(table: pd.DataFrame, gmacs: float, gbytes: float) -> Figure:
    """A roofline plot of layers: multiply-adds per second over multiply-adds per byte.

    table: layers with the columns kind, ms, macs and bytes. gmacs, gbytes: the machine's measured peak
    compute (billion multiply-adds/s) and memory bandwidth (GB/s).
    """
    table = table[(table["macs"] > 0) & (table["ms"] > 0)]
    figure, ax = plt.subplots(figsize=(7.2, 4.1))
    intensity = table["macs"] / table["bytes"]
    ridge = gmacs / gbytes  # the intensity at which both limits meet
    x = np.geomspace(min(intensity.min(), 0.1) / 1.5, max(intensity.max(), ridge) * 2, 100)
    ax.plot(x, np.minimum(x * gbytes, gmacs), color=INK, lw=1.4, label="measured roofline")
    ax.axvline(ridge, color=MUTED, lw=0.8, ls=":")
    for kind, layers in table.groupby("kind"):
        rate = layers["macs"] / layers["ms"] / 1e6  # billion multiply-adds/s
        ax.scatter(layers["macs"] / layers["bytes"], rate, s=20, alpha=0.65, label=kind)
    ax.set(xscale="log", yscale="log")
    ax.set(xlabel="multiply-adds per byte", ylabel="billion multiply-adds per second")
    bottom = ax.get_ylim()[0] * 1.3
    ax.text(ridge, bottom, "  compute-bound", fontsize=8.2, color=MUTED)
    ax.text(ridge, bottom, "memory-bound  ", fontsize=8.2, color=MUTED, ha="right")
    ax.legend(fontsize=8.2, loc="center right")
    return figure


def interactive(draw: Callable[..., None], **choices: Any) -> None:
    """Call `draw` in JupyterLab whenever a widget for one of its arguments changes.

    choices: the widget of each argument, as for ipywidgets.interact: (low, high, step) for a slider, a list
    for a menu. A function gives the items of a menu that depend on arguments before it, which are its
    parameters: person=lambda image: people[image]. Pages cannot contain widgets (posebook.report.notebooks
    sets POSEBOOK_STILL): draw a static version of the plot in an earlier cell. Without widgets, a sentence is
    printed.
    """
    if "POSEBOOK_STILL" in os.environ:
        print("In JupyterLab, this cell makes the plot above interactive.")
        return
    try:
        from ipywidgets import Dropdown, interact
    except ModuleNotFoundError:
        print("This interactive cell needs ipywidgets: pip install ipywidgets")
        return
    defaults = {name: one.default for name, one in inspect.signature(draw).parameters.items()}
    depends = {name: list(inspect.signature(c).parameters) for name, c in choices.items() if callable(c)}
    menus: dict[str, Any] = {}

    def refresh(name: str, kept: object) -> None:
        arguments = {parent: menus[parent].value for parent in depends.get(name, ())}
        items = tuple(choices[name](**arguments) if callable(choices[name]) else choices[name])
        if items != menus[name].options:  # an unchanged menu must not draw again
            menus[name].options = items
            values = [item[1] if isinstance(item, tuple) else item for item in items]
            menus[name].value = kept if kept in values else values[0]

    for name in choices:
        if name in depends or name in sum(depends.values(), []):
            menus[name] = Dropdown(description=name)
            refresh(name, defaults[name])
            for parent in depends.get(name, ()):
                menus[parent].observe(lambda _, name=name: refresh(name, menus[name].value), "value")
    interact(draw, **choices | menus)
