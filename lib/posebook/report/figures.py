"""Figures and tables that the pages share, in one style.

Every function draws and returns what it drew on; none reads a file. Images are (H, W, 3) uint8, points (x, y)
pixels with pixel centers at integers.
"""

import os
import sys
from collections.abc import Callable, Sequence

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1 import make_axes_locatable

from posebook.evaluation.metrics import PRIMARY_METRICS
from posebook.report.colors import BLUE, GOLD, GRID, INK, MUTED, ORANGE, SIGNED, TEAL, box_color
from posebook.skeletons import Skeleton


def use_style() -> None:
    """Set the one matplotlib style of all pages; a page in the making gets its figures as vectors too.

    Of the two the smaller one is shown (lib/posebook/report/html.py).
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell and "POSEBOOK_STILL" in os.environ:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("png", "svg")
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
            "savefig.facecolor": "white",
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
    """Draw a person's joints and limbs over `image` (or over what is there already, when it is None).

    keypoints: (K, 2), or (K, 3) with v as COCO has it: 0 is left out, 1 (hidden) is drawn hollow. Joints
    whose score, (K,), is under `threshold` are drawn faint, and so are their limbs.
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
            ax.plot(
                *line,
                color="white",
                linewidth=3.6,
                alpha=0.5 * min(alpha[a], alpha[b]),
                solid_capstyle="round",
            )
            color = skeleton.colors[b]
            ax.plot(*line, color=color, linewidth=2.0, alpha=min(alpha[a], alpha[b]), solid_capstyle="round")
    for joint in np.flatnonzero(visible):
        color = skeleton.colors[joint]
        face = color if visible[joint] >= 2 else "white"
        style = {"markerfacecolor": face, "markeredgecolor": color if face == "white" else "white"}
        ax.plot(*points[joint, :2], "o", markersize=4.5, markeredgewidth=1.0, alpha=alpha[joint], **style)
    return ax


def image_grid(
    images: Sequence[np.ndarray], titles: Sequence[str] | None = None, ncols: int = 4, width: float = 10.0
) -> tuple[Figure, list[Axes]]:
    """A grid of pictures `width` inches wide; returns the figure and one axes a picture, to be drawn on."""
    if not len(images):
        raise ValueError("a sheet needs at least one picture")
    ncols = min(ncols, len(images))
    nrows = -(-len(images) // ncols)
    tallest = max(image.shape[0] / image.shape[1] for image in images)
    height = width / ncols * tallest * nrows + (0.25 * nrows if titles is not None else 0)
    figure, grid = plt.subplots(nrows, ncols, figsize=(width, height), squeeze=False)
    axes = list(grid.flat)
    for ax in axes:
        ax.set_axis_off()
    for index, (ax, image) in enumerate(zip(axes, images, strict=False)):
        ax.imshow(image)
        if titles is not None:
            ax.set_title(titles[index], fontsize=8.5, fontweight="normal")
    return figure, axes[: len(images)]


def learning_curves(records: Sequence[dict]) -> Figure:
    """Learning curves of train records: loss on the left, the validation metric on the right."""
    records = [record for record in records if record.get("curve")]
    if not records:
        raise ValueError("no record here holds a learning curve")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.3))
    names = []
    for record in records:
        entries = record["curve"]
        epochs = [entry["epoch"] for entry in entries]
        left.plot(epochs, [entry["loss"] for entry in entries], label=record["name"])
        name = next(
            (key for key in PRIMARY_METRICS if any(entry.get(key) is not None for entry in entries)), None
        )
        if name:
            scored = [(entry["epoch"], entry[name]) for entry in entries if entry.get(name) is not None]
            right.plot(*zip(*scored, strict=True), marker="o", markersize=3, label=record["name"])
            names.append(name)
    left.set(xlabel="epoch", ylabel="loss", title="Training loss")
    metric = " or ".join(dict.fromkeys(names)) or "no metric in this record"
    right.set(xlabel="epoch", ylabel=metric, title="Validation", ylim=(0, 1))
    if len(records) > 1:
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", fontsize=8.5)
    return figure


def legs(records: Sequence[dict]) -> Figure:
    """The validation metric of one training in several runs, over the people seen, in the order given.

    Each run starts from the weights of the one before it. Raises ValueError where no run has a metric.
    """
    figure, ax = plt.subplots(figsize=(8, 3.2))
    seen, metric = 0, None
    for number, record in enumerate(records, 1):
        people, entries = record["dataset"]["persons"], record["curve"]
        metric = metric or next(
            (key for key in PRIMARY_METRICS if any(key in entry for entry in entries)), None
        )
        scored = [(seen + entry["epoch"] * people, entry[metric]) for entry in entries if metric in entry]
        if scored:
            ax.plot(*zip(*scored, strict=True), marker="o", markersize=3, label=f"run {number}")
        seen += entries[-1]["epoch"] * people
    if metric is None:
        raise ValueError("no record here holds a learning curve with a metric")
    ax.set(xlabel="training people seen, thousands", ylabel=metric, ylim=(0, 1))
    ax.xaxis.set_major_formatter(lambda people, _: f"{people / 1000:,.0f}")
    ax.legend(ncols=len(records), loc="upper left")
    return figure


def feature_map_diagram(shapes: dict[str, tuple[int, ...]], width: float = 10.0) -> Figure:
    """Maps (C, H, W) in the order they are computed, as blocks: as high as H, as wide as C is large (log).

    The name stands under each block, its channels and size over it.
    """
    if any(len(shape) != 3 for shape in shapes.values()):
        raise ValueError("a block needs a map's shape (C, H, W)")
    tallest = max(height for _, height, _ in shapes.values())
    figure, ax = plt.subplots(figsize=(width, 3.6))
    left = 0.0
    for number, (name, (channels, height, columns)) in enumerate(shapes.items()):
        wide, high = 0.18 * np.log2(channels), max(height / tallest, 0.04)
        color = (TEAL, BLUE)[number % 2]
        ax.add_patch(plt.Rectangle((left, -high / 2), wide, high, color=color, alpha=0.75, linewidth=0))
        middle = left + wide / 2
        label = f"{channels}\n{height}×{columns}"
        ax.text(middle, high / 2 + 0.02, label, ha="center", va="bottom", fontsize=8.5, color=MUTED)
        ax.text(middle, -0.54, name, ha="right", va="top", rotation=35, fontsize=9.5, rotation_mode="anchor")
        left += wide + 0.75
    ax.set(xlim=(-0.4, left), ylim=(-0.95, 0.72))
    ax.set_axis_off()
    return figure


def simcc_marginals(
    ax: Axes, image: np.ndarray, x: np.ndarray, y: np.ndarray, point: tuple[float, float] | None = None
) -> tuple[Axes, Axes]:
    """One joint's two distributions along the edges of its crop: x (Wx,) above, y (Wy,) at the right.

    x and y are probabilities (or any weights); their bins are spread over the crop's pixels, whatever the
    split ratio. `point` (x, y) marks the decoded joint. Returns the axes of the two distributions.
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
        ax.plot(
            *point, "o", markersize=6, markerfacecolor="none", markeredgecolor="white", markeredgewidth=1.6
        )
    return top, side


def attribution_overlay(ax: Axes, image: np.ndarray, values: np.ndarray) -> Axes:
    """A map (H, W) over its pale gray picture (H, W, 3): teal above 0, orange below.

    Each map has its own scale, which ends at its largest hundredth; for the eye it is smoothed by a pixel.
    """
    values = cv2.GaussianBlur(np.ascontiguousarray(values, np.float32), (0, 0), 1)
    values = np.clip(values / (np.quantile(np.abs(values), 0.99) or 1), -1, 1)
    ax.imshow(255 - (255 - image.mean(2)) / 2, cmap="gray", vmin=0, vmax=255)
    ax.imshow(values, cmap=SIGNED, vmin=-1, vmax=1, alpha=np.abs(values) * 0.85)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    return ax


def deletion_insertion_curves(cases: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Figure:
    """Deletion and insertion curves side by side: a method's mean over its cases, which lie faint behind.

    cases: a method's name, its deletion and its insertion curves, each (B, steps + 1); a name may come again.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    words = ("deletion: low is good", "taken away"), ("insertion: high is good", "put in")
    for which, (ax, (title, done)) in enumerate(zip(axes, words, strict=True), start=1):
        for i, method in enumerate(dict.fromkeys(case[0] for case in cases)):
            lines = np.concatenate([case[which] for case in cases if case[0] == method])  # (cases, steps + 1)
            shares = np.linspace(0, 100, lines.shape[1])
            ax.plot(shares, lines.T, color=f"C{i}", linewidth=0.6, alpha=0.3)
            ax.plot(shares, lines.mean(0), color=f"C{i}", label=method)
        ax.set(title=title, xlabel=f"blocks {done}, %", ylim=(-1, 1.6))
    axes[0].set_ylabel("target: 0 gray, 1 whole picture")
    axes[1].legend(loc="lower right")
    return figure


def heatmap(table: pd.DataFrame, label: str) -> Figure:
    """A table of numbers as colored cells with the numbers in them; `label` says what they are."""
    figure, ax = plt.subplots(figsize=(1.6 + 0.85 * table.shape[1], 0.9 + 0.27 * len(table)))
    values = table.to_numpy(float)
    bound = np.nanmax(np.abs(values)) or 1
    picture = ax.imshow(values, cmap=SIGNED, vmin=-bound, vmax=bound, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = "white" if abs(value) > 0.75 * bound else INK
            ax.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7.5, color=color)
    ax.set_xticks(range(table.shape[1]), table.columns, rotation=30, ha="right")
    ax.set_yticks(range(len(table)), [str(name).replace("_", " ") for name in table.index])
    ax.grid(False)
    figure.colorbar(picture, ax=ax, label=label, shrink=0.7)
    return figure


def printed_and_measured_scatter(table: pd.DataFrame, x: str, y: str) -> Figure:
    """Two columns of a tables.build_table against each other: what is printed hollow, what is measured
    filled.

    A printed point takes the color of its boxes; a measured one stands only where both figures are measured.
    """
    rows = table[table["column"].isin([x, y])].pivot(index="row", columns="column").loc[table["row"].unique()]
    printed = rows["published"][[x, y]].astype(float)
    spread = printed.max() - printed.min()
    figure, ax = plt.subplots(figsize=(7.2, 4.2))
    for boxes, points in printed.groupby(rows["boxes"][y]):
        color = box_color(boxes)
        ax.plot(points[x], points[y], "o", ms=8, mfc="white", mec=color, mew=2, label=f"printed, {boxes}")
    for name, point in printed.iterrows():
        gap = (printed - point) / spread
        crowded = ((gap[x] > 0) & (gap[x] < 0.2) & (gap[y].abs() < 0.06)).any()  # a neighbor to the right
        shift, side = ((-7, 4), "right") if crowded else ((7, 4), "left")
        ax.annotate(name, point, xytext=shift, textcoords="offset points", ha=side, color=INK, fontsize=8.5)
    both = rows["measured"][(rows["measured"][[x, y]] != "").all(axis=1)].astype(float)
    if len(both):
        ax.plot(both[x], both[y], "D", ms=8, color=TEAL, label="measured here")
    ax.set(xlabel=x, ylabel=y)
    ax.margins(x=0.14, y=0.12)
    ax.legend(loc="lower right", fontsize=8.5)
    return figure


def printed_and_measured_bars(table: pd.DataFrame, column: str) -> Figure:
    """One column of a tables.build_table as bars: printed figures, and beside them, on a scale of their own,
    measured ones where there are any."""
    cells = table[table["column"] == column]
    measured = cells[cells["measured"] != ""]
    panels = [(cells, "published", MUTED), (measured, "measured", TEAL)][: 2 if len(measured) else 1]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(5.2 * len(panels), 0.4 * len(cells) + 1.0), squeeze=False
    )
    for ax, (part, key, color) in zip(axes.flat, panels, strict=True):
        values = part[key].astype(float)
        ax.bar_label(
            ax.barh(part["row"], values, color=color, height=0.62), labels=list(part[key]), padding=3
        )
        ax.set(xlabel=column, title=key, xlim=(0, 1.18 * values.max()))
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    return figure


def runtime_times(rows: Sequence[dict], plain: str) -> Figure:
    """Times of benchmark rows: a panel a model, a line a form, the rounds' medians as dots, `plain` first."""
    timed = [row for row in rows if "latency_ms" in row]
    names = list(dict.fromkeys(row["model"] for row in timed))
    columns = min(len(names), 3)
    height = 0.34 * max(sum(row["model"] == name for row in timed) for name in names) + 0.75
    deep = -(-len(names) // columns)
    figure, axes = plt.subplots(deep, columns, figsize=(3.7 * columns, height * deep), squeeze=False)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    for ax, name in zip(axes.flat, names, strict=False):
        own = [row for row in timed if row["model"] == name]
        for place, row in enumerate(own):
            timing = row["latency_ms"]
            color = MUTED if row["form"] == plain else TEAL
            ax.plot(timing["rounds"], [place] * len(timing["rounds"]), "o", ms=4, color=color, alpha=0.35)
            ax.plot(timing["median"], place, "|", ms=15, mew=2.5, color=color)
        ax.set_yticks(range(len(own)), [row["form"] for row in own] if ax in axes[:, 0] else [])
        ax.set(title=name, xlabel="ms", ylim=(len(own) - 0.5, -0.5), xlim=(0, None))
    return figure


def tradeoff(points: pd.DataFrame, x: str, y: str, size: str, front: bool = False) -> Figure:
    """Columns x and y of nets as bubbles, area by `size`: a panel a `source`, since their scales differ.

    points: also `label` and `source`; front: joins the nets that no other beats in both x and y.
    """
    sources = list(dict.fromkeys(points["source"]))
    figure, axes = plt.subplots(1, len(sources), figsize=(5.2 * len(sources), 3.9), squeeze=False)
    for ax, source, color in zip(axes.flat, sources, (TEAL, ORANGE, BLUE, GOLD) * 9, strict=False):
        own = points[points["source"] == source].dropna(subset=[x, y]).sort_values(x)
        area = 60 * own[size].fillna(own[size].median()).fillna(3)
        ax.scatter(own[x], own[y], s=area, color=color, alpha=0.45, edgecolor=color, linewidth=1.2)
        gaps = (own[x].max() - own[x].min()) or 1, (own[y].max() - own[y].min()) or 1
        placed = []
        for _, point in own.iterrows():
            near = [(p, up) for p, up in placed if abs(p[x] - point[x]) < 0.3 * gaps[0]]
            near = [up for p, up in near if abs(p[y] - point[y]) < 0.09 * gaps[1]]
            placed.append((point, up := near.count(True) <= near.count(False)))
            where = {"xytext": (0, 10 if up else -17), "textcoords": "offset points", "ha": "center"}
            ax.annotate(point["label"], (point[x], point[y]), **where, fontsize=7.8)
        if front:
            best = own[[not ((own[x] >= p[x]) & (own[y] > p[y])).any() for _, p in own.iterrows()]]
            ax.step(best[x], best[y], where="pre", color=INK, lw=1, ls="--")
        ax.set(xlabel=x, ylabel=y, title=source)
        ax.margins(0.2)
    return figure


def layer_times(tables: dict[str, pd.DataFrame]) -> Figure:
    """Where each net's time goes: a stacked bar a net, its shares by kind of layer (columns kind and ms)."""
    shares = pd.DataFrame(
        {name: table.groupby("kind")["ms"].sum() for name, table in tables.items()}
    ).T.fillna(0)
    shares = shares[shares.sum().sort_values(ascending=False).index]
    percent = 100 * shares.div(shares.sum(axis=1), axis=0)
    figure, ax = plt.subplots(figsize=(8.4, 0.46 * len(shares) + 1.1))
    left = np.zeros(len(shares))
    colors = (TEAL, ORANGE, BLUE, GOLD, MUTED, "#8fb8b5", "#e3b7a5")
    for kind, color in zip(percent, colors, strict=False):
        ax.barh(percent.index, percent[kind], left=left, color=color, label=kind, height=0.68)
        for place, value in enumerate(percent[kind]):
            if value >= 7:
                ax.text(
                    left[place] + value / 2,
                    place,
                    f"{value:.0f}",
                    ha="center",
                    va="center",
                    color="white",
                    fontsize=8,
                )
        left += percent[kind].to_numpy()
    ax.set(xlabel="% of an eager forward", xlim=(0, 100), ylim=(len(shares) - 0.5, -0.5))
    ax.grid(False)
    ax.legend(ncols=4, fontsize=8.2, loc="lower left", bbox_to_anchor=(0, 1.0))
    return figure


def roofline(table: pd.DataFrame, gmacs: float, gbytes: float) -> Figure:
    """Layers (kind, ms, macs, bytes) under a machine's roofs: multiply-adds a byte against those a second."""
    table = table[(table["macs"] > 0) & (table["ms"] > 0)]
    figure, ax = plt.subplots(figsize=(7.2, 4.1))
    dense = table["macs"] / table["bytes"]
    line = np.geomspace(min(dense.min(), 0.1) / 1.5, max(dense.max(), gmacs / gbytes) * 2, 100)
    ax.plot(line, np.minimum(line * gbytes, gmacs), color=INK, lw=1.4, label="measured roofs")
    ax.axvline(gmacs / gbytes, color=MUTED, lw=0.8, ls=":")
    for kind, part in table.groupby("kind"):
        rate = part["macs"] / part["ms"] / 1e6
        ax.scatter(part["macs"] / part["bytes"], rate, s=20, alpha=0.65, label=kind)
    ax.set(xscale="log", yscale="log", xlabel="multiply-adds a byte", ylabel="billion multiply-adds a second")
    ax.text(gmacs / gbytes, ax.get_ylim()[0] * 1.3, "  bound by arithmetic", fontsize=8.2, color=MUTED)
    ax.text(
        gmacs / gbytes, ax.get_ylim()[0] * 1.3, "bound by memory  ", fontsize=8.2, color=MUTED, ha="right"
    )
    ax.legend(fontsize=8.2, loc="center right")
    return figure


def interactive(draw: Callable[..., None], **choices: object) -> None:
    """`draw`, redrawn in JupyterLab when an argument is moved; a sentence where ipywidgets is missing.

    choices: what ipywidgets.interact takes for each argument: (low, high, step) a slider, a list a menu.
    A page holds no widget (lib/posebook/report/notebooks.py sets POSEBOOK_STILL): draw the same figure once
    before, still.
    """
    if "POSEBOOK_STILL" in os.environ:
        print("In JupyterLab this cell moves the figure above.")
        return
    try:
        from ipywidgets import interact
    except ModuleNotFoundError:
        print("With ipywidgets installed this cell is a slider: pip install ipywidgets")
        return
    interact(draw, **choices)
