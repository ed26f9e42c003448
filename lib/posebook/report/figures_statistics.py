"""The statistical plots of the result pages, drawn with seaborn in the style of figures.use_style.

Every function draws from its arguments and returns the Figure; none reads a file. Intervals are 95 %
intervals. Tables are long: one observation for each row.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from posebook.report import figures
from posebook.report.colors import BLUE, GOLD, INK, MUTED, ORANGE, SIGNED, TEAL

PALETTE = (TEAL, ORANGE, BLUE, GOLD, MUTED)


def error_by_joint(errors: pd.DataFrame) -> Figure:
    """Distribution of the error of each joint, for visible and for hidden joints, on a logarithmic axis.

    errors: the columns joint, visibility and error (above 0). Each box is half as likely as the next inner
    one (letter values: Hofmann, Wickham and Kafadar, 2017).
    """
    figure, ax = plt.subplots(figsize=(10, 3.6))
    sns.boxenplot(
        errors,
        x="joint",
        y="error",
        hue="visibility",
        palette=PALETTE[: errors["visibility"].nunique()],
        log_scale=True,
        flier_kws={"s": 4, "alpha": 0.4},
        line_kws={"color": "white", "linewidth": 1.6},
        ax=ax,
    )
    ax.set(xlabel="", ylabel="error / √(box area)")
    ax.legend(title=None, loc="upper right", ncols=2)
    return figure


def heatmap(table: pd.DataFrame, label: str, decimals: int = 1) -> Figure:
    """A table of numbers as colored cells that contain the numbers. NaN is left blank.

    label: of the color bar. The colors are symmetric about 0.
    """
    figure, ax = plt.subplots(figsize=(2.4 + 0.5 * table.shape[1], 1.1 + 0.3 * len(table)))
    bound = np.nanmax(np.abs(table.to_numpy(float))) or 1
    sns.heatmap(
        table.rename(index=_words, columns=_words),
        cmap=SIGNED,
        vmin=-bound if (table < 0).to_numpy().any() else 0,
        vmax=bound,
        center=0,
        annot=True,
        fmt=f".{decimals}f",
        annot_kws={"fontsize": 7.5},
        cbar_kws={"label": label, "shrink": 0.7},
        ax=ax,
    )
    ax.grid(False)
    ax.set(xlabel="", ylabel="")
    ax.tick_params(length=0)
    plt.setp(ax.get_xticklabels(), rotation=35, ha="right", rotation_mode="anchor")
    return figure


def runtime_times(rows: Sequence[dict], baseline: str) -> Figure:
    """Latencies of benchmark rows, on a logarithmic axis: a panel for each model, a line for each runtime.

    The dots are the medians of the rounds, the bar is their median. baseline: the runtime drawn in gray.
    """
    timed = [row for row in rows if "latency_ms" in row]
    rounds = pd.DataFrame(
        [(row["model"], row["form"], ms) for row in timed for ms in row["latency_ms"]["rounds"]],
        columns=["model", "runtime", "ms"],
    )
    names, runtimes = rounds["model"].unique(), rounds["runtime"].unique()
    columns = min(len(names), 3)
    lines = -(-len(names) // columns)  # rounded up
    size = 3.7 * columns, (0.34 * len(runtimes) + 0.75) * lines
    figure, axes = plt.subplots(lines, columns, figsize=size, sharey=True, squeeze=False)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    style = {"x": "ms", "y": "runtime", "hue": "runtime", "order": runtimes, "legend": False}
    style["palette"] = {name: MUTED if name == baseline else TEAL for name in runtimes}
    for ax, name in zip(axes.flat, names, strict=False):
        own = rounds[rounds["model"] == name]
        sns.stripplot(own, jitter=False, size=4, alpha=0.35, ax=ax, **style)
        sns.pointplot(own, estimator="median", errorbar=None, marker="|", markersize=15, ax=ax, **style)
        ax.set(title=name, xlabel="ms", ylabel="", xscale="log")
        _plain_log_ticks(ax)
    return figure


def _plain_log_ticks(ax: Axes) -> None:
    """Label a logarithmic axis with plain numbers: 5, 10, 20."""
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


def draw_intervals(ax: Axes, x: Iterable, table: pd.DataFrame, **style: Any) -> None:
    """Draw the columns low and high of a table as vertical intervals.

    A bootstrap interval of a small group need not contain its value, from which matplotlib measures them.
    """
    middle = (table["low"] + table["high"]) / 2
    ax.errorbar(list(x), middle, (table["high"] - table["low"]) / 2, fmt="none", **style)


def metric_by_group(groups: pd.DataFrame, metric: str) -> Figure:
    """A metric of groups of people with its intervals.

    groups: indexed by the name of the group, with the columns `metric`, low, high and people. seaborn's
    pointplot computes its own intervals and cannot draw given ones, so the points are matplotlib's.
    """
    figure, ax = plt.subplots(figsize=(6.4, 3.0))
    values, places = groups[metric], range(len(groups))
    ax.plot(places, values, "o", ms=9, color=TEAL)
    draw_intervals(ax, places, groups, lw=3, color=TEAL, capsize=9, capthick=3)
    ax.set_xticks(places, [f"{name}\n{n:,} people" for name, n in groups["people"].items()], fontsize=8.5)
    for place, value in enumerate(values):
        ax.annotate(f"{value:.3f}", (place, value), (9, 0), textcoords="offset points", va="center")
    ax.set(xlabel="", ylabel=metric, ylim=(0, None))
    ax.grid(axis="x", visible=False)
    ax.margins(x=0.12)
    return figure


def box_heights(people: pd.DataFrame) -> Figure:
    """Histograms of the heights of person boxes, stacked by group. people: the columns height and group."""
    figure, ax = plt.subplots(figsize=(7.2, 2.8))
    sns.histplot(
        people,
        x="height",
        hue="group",
        multiple="stack",
        binwidth=20,
        palette=PALETTE[: people["group"].nunique()],
        alpha=0.85,
        edgecolor="white",
        ax=ax,
    )
    sns.move_legend(ax, "upper right", title=None)
    ax.set(xlabel="height of the person's box, pixels", ylabel="people")
    return figure


def consecutive_runs(records: Sequence[dict]) -> Figure:
    """The validation metric of one training that was continued in several runs, over the instances seen.

    Each run starts from the weights of the one before it. Raises ValueError if no run has a metric.
    """
    metric = next(filter(None, map(figures.curve_metric, records)), None)
    if metric is None:
        raise ValueError("no record has a learning curve with a metric")
    figure, ax = plt.subplots(figsize=(8, 3.2))
    seen = 0
    for number, record in enumerate(records, 1):
        instances, curve = record["dataset"]["persons"], record["curve"]
        points = [(seen + e["epoch"] * instances, e[metric]) for e in curve if metric in e]
        if points:
            ax.plot(*zip(*points, strict=True), marker="o", markersize=3, label=f"run {number}")
        seen += curve[-1]["epoch"] * instances
    ax.set(xlabel="training people seen, in thousands", ylabel=metric, ylim=(0, 1))
    ax.xaxis.set_major_formatter(lambda instances, _: f"{instances / 1000:,.0f}")
    ax.legend(ncols=len(records), loc="upper left")
    return figure


def share_bars(shares: pd.Series, colors: dict[str, str], label: str) -> Figure:
    """Shares as horizontal bars, the largest first. colors: by name of the share."""
    shares = shares.sort_values(ascending=False)
    figure, ax = plt.subplots(figsize=(7.2, 0.24 * len(shares) + 0.8))
    bars = ax.barh(
        [_words(name) for name in shares.index], shares, color=[colors[n] for n in shares.index], height=0.7
    )
    ax.bar_label(bars, fmt="{:.0%}", padding=3, fontsize=8.5)
    ax.set(xlabel=label, xlim=(0, 1.1 * shares.max()))
    ax.xaxis.set_major_formatter("{x:.0%}")
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return figure


def rates_by_round(panels: dict[str, pd.DataFrame], label: str) -> Figure:
    """Rates of several variants, a panel for each table: every round as a dot, the median as a bar.

    panels: by title, a table with a column for each variant and a row for each round.
    """
    heights = [table.shape[1] for table in panels.values()]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(8, 0.34 * sum(heights) + 0.9 * len(heights)),
        height_ratios=heights,
        squeeze=False,
    )
    for ax, (title, table) in zip(axes.flat, panels.items(), strict=True):
        rounds = table.melt(var_name="variant", value_name="rate")
        sns.stripplot(rounds, x="rate", y="variant", color=TEAL, alpha=0.5, jitter=False, size=5, ax=ax)
        sns.pointplot(
            rounds, x="rate", y="variant", estimator="median", errorbar=None, color=INK, linestyle="none",
            marker="|", markersize=15, ax=ax,
        )  # fmt: skip
        for place, value in enumerate(table.median()):
            ax.annotate(
                f"{value:,.{0 if value >= 10 else 1}f}",
                (value, place),
                (6, 5),
                textcoords="offset points",
                fontsize=8.5,
            )
        ax.set(title=title, xlabel=label, ylabel="", xlim=(0, 1.12 * table.to_numpy().max()))
    return figure


def deletion_insertion_curves(cases: pd.DataFrame) -> Figure:
    """Deletion and insertion curves side by side: the mean over people and its bootstrap interval.

    cases: the columns method, person, removed (%), curve ("deletion" or "insertion") and target, which is 0
    for the gray image and 1 for the full image. Several joints of one person are averaged first, because they
    are not independent.
    """
    keys = ["method", "person", "removed", "curve"]
    people = cases.groupby(keys, sort=False, as_index=False)["target"].mean()
    figure, axes = plt.subplots(1, 2, figsize=(9.4, 3.3), sharey=True)
    texts = {"deletion": "deletion: lower is better", "insertion": "insertion: higher is better"}
    for ax, (curve, title) in zip(axes, texts.items(), strict=True):
        part = people[people["curve"] == curve]
        palette = dict(zip(dict.fromkeys(part["method"]), PALETTE * 2, strict=False))
        sns.lineplot(
            part, x="removed", y="target", hue="method", palette=palette, errorbar=("ci", 95), seed=0,
            legend=ax is axes[1], ax=ax,
        )  # fmt: skip
        ax.set(title=title, xlabel=f"blocks {'deleted' if curve == 'deletion' else 'inserted'}, %", ylabel="")
    axes[0].set_ylabel("target: 0 gray, 1 full image")
    sns.move_legend(axes[1], "upper left", bbox_to_anchor=(1, 1), title=None, frameon=False)
    return figure


def differences_by_size(rows: pd.DataFrame, label: str) -> Figure:
    """Paired differences with intervals over the side of a square, a panel for each kind of square.

    rows: the columns square, joints, side, difference, low and high. joints: the hue.
    """
    kinds = list(dict.fromkeys(rows["square"]))
    figure, axes = plt.subplots(1, len(kinds), figsize=(4.8 * len(kinds), 3.2), sharey=True, squeeze=False)
    for ax, kind in zip(axes.flat, kinds, strict=True):
        for shift, (color, (joints, part)) in enumerate(
            zip(PALETTE, rows[rows["square"] == kind].groupby("joints", sort=False), strict=False)
        ):
            x, y = part["side"] + 0.012 * shift, part["difference"]
            ax.plot(x, y, "o", ms=5, color=color, label=joints)
            draw_intervals(ax, x, part, capsize=3, color=color)
        ax.axhline(0, color=INK, linewidth=0.9)
        ax.set(title=f"square: {kind}", xlabel="side of the square / crop height")
    axes[0, 0].set_ylabel(label)
    axes[0, 0].legend(title=None)
    return figure


def seed_differences(panels: dict[str, pd.DataFrame]) -> Figure:
    """Differences with their intervals over seeds, one panel for each title; intervals with 0 are gray.

    panels: tables indexed by what is compared, with the columns value, low and high.
    """
    rows = [len(table) for table in panels.values()]
    figure, axes = plt.subplots(
        len(panels), figsize=(6, 0.4 * sum(rows) + 0.7 * len(rows)), height_ratios=rows, squeeze=False
    )
    for ax, (title, table) in zip(axes.flat, panels.items(), strict=True):
        ax.axvline(0, color=INK, linewidth=0.9)
        for place, row in enumerate(table.itertuples()):
            color = TEAL if row.low > 0 or row.high < 0 else MUTED
            ax.plot((row.low, row.high), (place, place), color=color, lw=3, solid_capstyle="butt")
            ax.plot(row.value, place, "o", ms=7, color=color)
        ax.set_yticks(range(len(table)), table.index)
        ax.set_ylim(len(table) - 0.5, -0.5)  # the first row at the top
        ax.set_title(title, loc="left")
        ax.grid(axis="y", visible=False)
    return figure


def accuracy_over_time(points: pd.DataFrame) -> Figure:
    """AP over milliseconds: filled dots are on the front, and our models are teal.

    points: the columns label, ms, low and high (the ends of the range of ms), AP, ours and front, from which
    the front's line is drawn. The names are evenly spaced in a column on the right, so that they cannot
    overlap; a line leads to each dot.
    """
    figure, ax = plt.subplots(figsize=(7, 1.2 + 0.34 * len(points)))
    front = points[points["front"]].sort_values("ms")
    ax.step(front["ms"], front["AP"], where="post", color=INK, lw=1, ls="--")
    names = points.sort_values(["AP", "ms"]).to_dict("records")
    for row, point in enumerate(names):
        color, xy = TEAL if point["ours"] else ORANGE, (point["ms"], point["AP"])
        ax.plot((point["low"], point["high"]), (point["AP"],) * 2, color=color, lw=3, alpha=0.3)
        ax.plot(*xy, "o", color=color, mfc=color if point["front"] else "white", ms=8)
        ax.annotate(
            point["label"],
            xy,
            (1.06, (row + 0.5) / len(names)),
            textcoords="axes fraction",
            va="center",
            weight="bold" if point["front"] else "normal",
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.7, "alpha": 0.5, "relpos": (0, 0.5)},
        )
    ax.margins(0.1)  # before the limits, which would otherwise cut off the highest dot
    ax.set(xlabel="ms from crop to keypoints", ylabel="AP", xlim=(0, None), ylim=(0, None))
    return figure


def _words(name: object) -> str:
    return str(name).replace("_", " ")


def found_and_entropy(table: pd.DataFrame) -> Figure:
    """Share of found joints (above) and entropy (below) over the side of a square, with intervals as bands.

    table: the first result of evaluation.occlusion.compare.
    """
    panels = list(table.groupby(["square", "joints"], sort=False))
    figure, axes = plt.subplots(2, len(panels), figsize=(2.9 * len(panels), 5.4), sharex=True, sharey="row")
    for row, (what, label) in zip(
        axes, {"found": "share of found joints", "entropy": "entropy"}.items(), strict=True
    ):
        for ax, ((kind, group), part) in zip(row, panels, strict=True):
            lines = part[part["what"] == what].groupby("network", sort=False)
            for color, (name, line) in zip(PALETTE, lines, strict=False):
                ax.plot(line["side"], line["value"], marker="o", markersize=3.5, color=color, label=name)
                ax.fill_between(line["side"], line["low"], line["high"], color=color, alpha=0.15, linewidth=0)
            ax.set_title(f"{group} joints, {kind}", fontsize=9)
        row[0].set_ylabel(label)
    for ax in axes[1]:
        ax.set_xlabel("side / crop height")
    axes[0, 0].legend()
    return figure
