"""The papers on the front page: a card each, printed accuracy against cost, and what has been run."""

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from torch import nn

from posebook import models, paths
from posebook.complexity import record_calls
from posebook.lifting import diffusion
from posebook.lifting.models import LIFTERS, build_plain
from posebook.lifting.pruning import build_lifter
from posebook.lifting.skeleton import H36M
from posebook.papers.cells import load_cells
from posebook.papers.lifting_tables import parse_options
from posebook.papers.names import PAPERS
from posebook.report.colors import BOX_COLORS, TEAL, VERDICT_COLORS
from posebook.report.front_page import svg

PAPER_FILE = paths.DATA / "papers.csv"
FRAMES = 243  # of the lifters' windows
NUMBERS = {  # column of a printed table -> its value on a card
    "Params (M)": "{} M parameters",
    "GFLOPs": "{} GFLOPs",
    "FLOPs (G)": "{} GFLOPs",
    "FLOPs saved (%)": "{} % of the FLOPs saved",
    "AP": "{} AP",
    "MPJPE": "{} mm MPJPE",
    "MPJPE lowered (mm)": "MPJPE {} mm lower",
}


def load_papers() -> pd.DataFrame:
    """data/papers.csv: title, venue, code, weights and model of each paper, and the row on its card.

    The options of a lifter are its pruning, as in `lifting_tables.parse_options`.
    """
    return pd.read_csv(paths.require(PAPER_FILE), dtype=str, keep_default_na=False)


def build_meta(paper: Mapping[str, str]) -> tuple[nn.Module, tuple[tuple[int, ...], ...]]:
    """A paper's model on the meta device, where nothing is computed, and the shapes of its inputs."""
    joints = 1, FRAMES, len(H36M.keypoints), 2
    with torch.device("meta"):
        if paper["paper"] == "StarPose":
            plain = build_plain("mixste", FRAMES, channels=5 + 32, width=32)
            return diffusion.Denoiser(plain), ((1, FRAMES, len(H36M.keypoints), 5), (1,))
        if paper["model"] in LIFTERS:
            pruning = parse_options(paper["options"])
            return build_lifter(paper["model"], FRAMES, **pruning, width=32), (joints,)
        model = models.build(paper["model"])
        return model, ((1, 3, *model.input_size),)


def positions(model: nn.Module, input_shapes: tuple[tuple[int, ...], ...]) -> list[int]:
    """The number of positions (pixels or tokens) in the output of each convolution and linear layer."""
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    return [
        output.numel() // output.shape[-1 if isinstance(layer, nn.Linear) else 1]
        for layer, _, output in record_calls(model, layers, *input_shapes)
    ]


def icon_svg(counts: Sequence[int]) -> str:
    """A silhouette of a model: how many positions its maps have, from the first layer to the last."""
    half = 24 * np.sqrt(np.array(counts) / max(counts))
    x = np.linspace(2, 118, len(half))
    edge = [f"{a:.1f} {28 - b:.1f}" for a, b in zip(x, half, strict=True)]
    edge += [f"{a:.1f} {28 + b:.1f}" for a, b in zip(x[::-1], half[::-1], strict=True)]
    return svg(120, 56, f'<path d="M{"L".join(edge)}Z" style="fill: {TEAL}"/>', "sizes of the model's maps")


def verdict_bar(verdicts: Iterable[str]) -> str:
    """A bar with a segment for each verdict, and the counts in words."""
    counts = Counter(verdicts)
    total, left, content, words = sum(counts.values()), 0.0, [], []
    for verdict, color in VERDICT_COLORS.items():
        if counts[verdict]:
            width = 240 * counts[verdict] / total
            content.append(
                f'<rect x="{left:.1f}" y="0" width="{width:.1f}" height="12" style="fill: {color}"/>'
            )
            swatch = f'<i class="swatch" style="background: {color}"></i>'
            words.append(f'<span class="verdict">{swatch}{counts[verdict]} {verdict}</span>')
            left += width
    if not total:
        return "<p>no verdict yet</p>"
    label = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    return f"{svg(240, 12, ''.join(content), label)}<p>{total} claims: {' '.join(words)}</p>"


def paper_card(paper: Mapping[str, str], verdicts: Iterable[str]) -> str:
    """The card of a paper: icon, title, printed numbers, verdicts, and if code and weights are public."""
    cells = load_cells()
    cells = cells[(cells["paper"] == paper["paper"]) & (cells["table"] == paper["table"])]
    cells = cells[(cells["row"] == paper["row"]) & cells["column"].isin(NUMBERS)]
    lines = cells[["column", "value"]].itertuples(index=False)
    numbers = " · ".join(NUMBERS[column].format(value) for column, value in lines)
    code = f'<a href="{paper["code"]}">code</a>' if paper["code"] else f"no code found: {paper['source']}"
    row = html.escape(paper["row"].replace("H2OT", PAPERS["H2OT"]))
    return (
        f"<article>{icon_svg(positions(*build_meta(paper)))}"
        f'<h3><a href="audit/{paper["audit"]}.ipynb">{PAPERS[paper["paper"]]}</a></h3>'
        f"<p>{html.escape(paper['title'].removeprefix(PAPERS[paper['paper']] + ': '))}. {paper['venue']}</p>"
        f"<p><strong>{row}</strong>: {html.escape(numbers)}, as printed</p>"
        f"{verdict_bar(verdicts)}<p>{code}; weights {paper['weights']}</p></article>"
    )


def printed_tradeoff() -> pd.DataFrame:
    """GFLOPs and AP on COCO val as printed, one row per model and input: name, GFLOPs, AP, paper, boxes.

    boxes: ground truth, detector or not stated.
    """
    cells, keys = load_cells(), ["paper", "table", "row"]
    accuracies = cells[
        (cells["column"] == "AP") & (cells["dataset"] == "coco") & (cells["table"] != "ablation")
    ]
    costs = cells[cells["column"] == "GFLOPs"][[*keys, "value"]].rename(columns={"value": "GFLOPs"})
    rows = accuracies.merge(costs, on=keys).rename(columns={"value": "AP", "row": "name"})
    rows["boxes"] = rows["boxes"].str.split(",").str[0]
    rows[["GFLOPs", "AP"]] = rows[["GFLOPs", "AP"]].astype(float)
    return rows[["name", "GFLOPs", "AP", "paper", "boxes"]].drop_duplicates(["name", "AP", "boxes"])


def pareto_front(points: pd.DataFrame, cost: str = "GFLOPs") -> pd.DataFrame:
    """The rows for which no other row has at most the same cost and a higher AP, by cost (a column)."""
    ordered = points.sort_values([cost, "AP"], ascending=[True, False])
    return ordered[ordered["AP"] > ordered["AP"].cummax().shift(fill_value=-np.inf)]


def pareto_plot(points: pd.DataFrame) -> Axes:
    """AP over GFLOPs (log scale) of `printed_tradeoff`; the shape of a point tells whose boxes were used."""
    figure, ax = plt.subplots(figsize=(10, 5))
    shapes = {"ground truth": "o", "detector": "s", "not stated": "X"}
    style = {"hue": "boxes", "palette": BOX_COLORS, "style": "boxes", "markers": shapes}
    sns.scatterplot(points, x="GFLOPs", y="AP", s=70, ax=ax, **style)
    for boxes in ("ground truth", "detector"):
        front = pareto_front(points[points["boxes"] == boxes])
        ax.step(front["GFLOPs"], front["AP"], where="post", color=BOX_COLORS[boxes], lw=1.2, ls="--")
        for point in front.to_dict("records"):
            name = point["name"].split(",")[0]
            ax.annotate(
                name, (point["GFLOPs"], point["AP"]), (6, 5), textcoords="offset points", fontsize=8.5
            )
    ax.set(xscale="log", xlabel="printed GFLOPs", ylabel="printed AP, COCO val")
    ticks = [0.2, 0.5, 1, 2, 5, 10, 20]
    ax.set_xticks(ticks, map(str, ticks))
    ax.legend(title="boxes", loc="lower right")
    return ax


def coverage_heatmap(counts: pd.DataFrame, quantities: Sequence[str]) -> Axes:
    """The share of printed cells that were run, by paper and quantity.

    counts: the columns paper, quantity, count (printed cells) and run (of these).
    """
    totals = counts.pivot_table(index="paper", columns="quantity", values=["count", "run"], aggfunc="sum")
    totals = totals.reindex([name for name in PAPERS.values() if name in totals.index])
    cells, run = (totals[name].reindex(columns=list(quantities)) for name in ("count", "run"))
    texts = run.map("{:.0f}".format) + " of " + cells.map("{:.0f}".format)
    figure, ax = plt.subplots(figsize=(7.5, 0.42 * len(cells) + 0.9))
    palette = sns.light_palette("#0a716c", as_cmap=True)  # not a color of the page: the same in both schemes
    style = {"cmap": palette, "vmin": 0, "vmax": 1, "linewidths": 2, "linecolor": "none", "fmt": ""}
    sns.heatmap(run / cells, annot=texts, mask=cells.isna(), cbar=False, ax=ax, **style)
    ax.set(xlabel="", ylabel="")
    ax.grid(False)
    ax.tick_params(length=0)
    return ax
