"""Diagrams of models, drawn from the live modules: blocks, their connections, output shapes, parameters.

`trace` runs a model on the meta device and follows every tensor from block to block, also through functions
that are not modules. `draw` places the blocks from top to bottom in the order of computation. A changed model
changes its diagram.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torchinfo
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from posebook import models
from posebook.complexity import SkipInit, run_on_meta
from posebook.report.colors import CELL_INK, GRID, INK, MUTED

# Functions that combine two blocks: shown as small nodes. Augmented assignments have other names.
SYMBOLS = {"mul": "×", "add": "+", "iadd": "+", "cat": "cat", "matmul": "@", "bmm": "@", "sub": "−"}
# Word in a label -> color of the block and of its text. These colors are not those of posebook.report.colors,
# which pages replace by lighter ones in their dark scheme: white text needs a dark block in both schemes.
KINDS = {
    "input": ("#5c6975", "white"),
    "attention": ("#b5502f", "white"),
    "head": ("#2b6089", "white"),
    "fusion": ("#dda62d", CELL_INK),
    "": ("#0a706b", "white"),
}
ROW, COLUMN = 0.62, 2.5  # inches


@dataclass
class Node:
    """A block, or a function that combines several blocks."""

    label: str
    shape: tuple[int, ...] = ()  # of the output, without the batch
    params: int = 0
    inputs: set[int] = field(default_factory=set)  # positions of the nodes that feed it
    symbol: bool = False  # a function


class _Follow(TorchFunctionMode):
    """Know the nodes that each tensor comes from, and add a node for each function that combines several."""

    def __init__(self, nodes: list[Node]):
        super().__init__()
        self.nodes, self.inside = nodes, 0
        self.origins: dict[int, set[int]] = {}
        self.alive: list[Tensor] = []  # the id of a freed tensor could be used again

    def origin(self, values: Any) -> set[int]:
        """The nodes that any tensor among the values comes from."""
        tensors = (value for value in tree_leaves(values) if isinstance(value, Tensor))
        return set().union(*(self.origins.get(id(tensor), set()) for tensor in tensors))

    def mark(self, values: Any, origin: set[int]) -> None:
        """Note where the tensors among the values come from."""
        for value in tree_leaves(values):
            if isinstance(value, Tensor):
                self.origins[id(value)] = origin
                self.alive.append(value)

    def add(self, node: Node, output: Any) -> None:
        """Append a node whose output is these tensors."""
        tensors = [value for value in tree_leaves(output) if isinstance(value, Tensor)]
        node.shape = tuple(tensors[0].shape[1:] if len(tensors[0]) == 1 else tensors[0].shape)
        self.nodes.append(node)
        self.mark(output, {len(self.nodes) - 1})

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None):
        output = func(*args, **(kwargs or {}))
        if self.inside:
            return output
        origin = self.origin((args, kwargs))
        symbol = SYMBOLS.get(getattr(func, "__name__", "").strip("_").removeprefix("r"))
        separate = [self.origin(value) for value in tree_leaves(args) if isinstance(value, Tensor)]
        if symbol and sum(map(bool, separate)) > 1 and any(one != origin for one in separate if one):
            self.add(Node(symbol, inputs=origin, symbol=True), output)
        elif origin:
            self.mark(output, origin)
        return output


def trace(model: nn.Module, input_shape: tuple[int, ...], blocks: Mapping[str, str]) -> list[Node]:
    """The nodes of a forward pass in order. The first one is the input.

    input_shape: with a batch of 1. blocks: regular expression for the full name of a submodule -> its label,
    with groups as in re.Match.expand. A number after # is raised by one: "stage #\\1" counts from 1. What is
    inside a block is not shown. Raises ValueError for an expression that matches no submodule.
    """
    names = dict(model.named_modules())
    if unmatched := [regex for regex in blocks if not any(re.fullmatch(regex, name) for name in names)]:
        raise ValueError(f"no submodule matches {', '.join(unmatched)}")
    nodes = [Node("input", tuple(input_shape[1:]))]
    follow, hooks = _Follow(nodes), []

    def hook_block(module: nn.Module, label: str) -> None:
        params = sum(parameter.numel() for parameter in module.parameters())
        entered: list[set[int]] = []

        def enter(_: nn.Module, inputs: tuple) -> None:
            if not follow.inside:
                entered.append(follow.origin(inputs))
            follow.inside += 1

        def leave(_: nn.Module, inputs: tuple, output: Any) -> None:
            follow.inside -= 1
            if not follow.inside:
                follow.add(Node(label, params=params, inputs=entered.pop()), output)

        hooks.extend([module.register_forward_pre_hook(enter), module.register_forward_hook(leave)])

    for name, module in names.items():
        if match := next(filter(None, (re.fullmatch(regex, name) for regex in blocks)), None):
            label = match.expand(blocks[match.re.pattern])
            hook_block(module, re.sub(r"#(\d+)", lambda number: str(int(number[1]) + 1), label))
    inputs = torch.empty(input_shape, device="meta")
    follow.mark(inputs, {0})
    try:
        with follow:
            run_on_meta(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return nodes


def fold_repeats(nodes: list[Node]) -> list[Node]:
    """The nodes with each chain of equal blocks 'block 1', 'block 2' and so on as one 'block 1 to 12'.

    Blocks are equal if their labels differ in the last number alone, and shapes and parameters do not differ.
    """
    folded: list[Node] = []
    new: dict[int, int] = {}  # position in nodes -> position in folded
    chain: tuple = ()
    for position, node in enumerate(nodes):
        label, _, number = node.label.rpartition(" ")
        same, before = (label, node.shape, node.params), position - 1
        alone = sum(before in other.inputs for other in nodes) == 1  # no other node reads the one before
        if number.isdigit() and same == chain and node.inputs == {before} and alone:
            last = folded[-1]
            last.label = f"{last.label.partition(' to ')[0]} to {number}"
            last.params += node.params
        else:
            inputs = {new[i] for i in node.inputs}
            folded.append(Node(node.label, node.shape, node.params, inputs, node.symbol))
        chain, new[position] = same, len(folded) - 1
    return folded


def ranks(nodes: list[Node]) -> list[int]:
    """The row of each node: one below the lowest node that feeds it."""
    rows: list[int] = []
    for node in nodes:
        rows.append(1 + max((rows[i] for i in node.inputs), default=-1))
    return rows


def columns(nodes: list[Node], rows: list[int]) -> list[float]:
    """The horizontal position of each node: the nodes of a row side by side, centered at 0."""
    by_row: dict[int, list[int]] = {}
    for position, row in enumerate(rows):
        by_row.setdefault(row, []).append(position)
    x = [0.0] * len(nodes)
    for members in by_row.values():
        parents = {i: [x[j] for j in nodes[i].inputs] for i in members}
        members.sort(key=lambda i: sum(parents[i]) / max(len(parents[i]), 1))
        for slot, position in enumerate(members):
            x[position] = slot - (len(members) - 1) / 2
    return x


def draw(nodes: list[Node]) -> Figure:
    """A diagram of traced nodes. In each block: its label, the shape of its output, and its parameters."""
    rows = ranks(nodes)
    x = [COLUMN * value for value in columns(nodes, rows)]
    y = [-ROW * row for row in rows]
    half, bottom = max(map(abs, x)) + 0.56 * COLUMN, min(y) - ROW / 2
    figure, ax = plt.subplots(figsize=(2 * half, ROW / 2 - bottom), layout="none")
    ax.set_position((0, 0, 1, 1))
    ax.set(xlim=(-half, half), ylim=(bottom, ROW / 2))
    ax.set_axis_off()
    lane_ends: dict[int, list[int]] = {-1: [], 1: []}  # side -> the last row of each lane beside the blocks
    for i, node in enumerate(nodes):
        for j in node.inputs:
            # A short arrow may touch a block, but not vanish behind it.
            clearance = COLUMN / 2 if rows[i] - rows[j] > 2 else COLUMN / 10
            blocked = any(
                abs(x[k] - np.interp(rows[k], (rows[j], rows[i]), (x[j], x[i]))) < clearance
                for k in range(len(nodes))
                if rows[j] < rows[k] < rows[i]
            )
            lane = None
            if blocked:  # on the side of the block, so that the line crosses no neighbor
                # Lanes of the same rows are side by side.
                side = -1 if x[j] < 0 else 1
                lane = side * (max(x) + COLUMN / 2 - 0.12 * sum(rows[j] <= end for end in lane_ends[side]))
                lane_ends[side].append(rows[i])
            _draw_arrow(ax, (x[j], y[j], nodes[j].symbol), (x[i], y[i], node.symbol), lane)
        _draw_node(ax, node, x[i], y[i])
    return figure


def _draw_arrow(
    ax: Axes, start: tuple[float, float, bool], end: tuple[float, float, bool], lane: float | None
) -> None:
    """An arrow between two nodes (x, y, symbol): straight, or beside all nodes along a vertical lane."""
    style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 9, "color": MUTED, "linewidth": 1}
    (x0, y0, symbol0), (x1, y1, symbol1) = start, end
    if lane is None:
        ends = (x0, y0 - 0.36 * ROW), (x1, y1 + (0.17 if symbol1 else 0.36 * ROW))
    else:
        side = 1 if lane > x0 else -1
        side0, side1 = (side * (0.17 if symbol else 0.42 * COLUMN) for symbol in (symbol0, symbol1))
        ax.plot([x0 + side0, lane, lane], [y0, y0, y1], color=MUTED, linewidth=1, zorder=1)
        ends = (lane, y1), (x1 + side1, y1)
    ax.add_patch(FancyArrowPatch(*ends, shrinkA=0, shrinkB=0, zorder=1, **style))


def _draw_node(ax: Axes, node: Node, x: float, y: float) -> None:
    """A block as a rounded box, or a function as a circle."""
    if node.symbol:
        ax.add_patch(plt.Circle((x, y), 0.17, facecolor=GRID, edgecolor=MUTED, zorder=2))
        ax.text(x, y - 0.01, node.label, ha="center", va="center", fontsize=9, color=INK, zorder=3)
        return
    color, ink = next(colors for word, colors in KINDS.items() if word in node.label)
    width, height = 0.84 * COLUMN, 0.72 * ROW
    box = FancyBboxPatch(
        (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.06",
        facecolor=color, edgecolor="none", zorder=2,
    )  # fmt: skip
    ax.add_patch(box)
    shape = "×".join(map(str, node.shape))
    small = f"{shape}, {_short(node.params)}" if node.params else shape
    ax.text(x, y + 0.08, node.label, ha="center", va="center", fontsize=9, color=ink, zorder=3)
    ax.text(x, y - 0.12, small, ha="center", va="center", fontsize=7.5, color=ink, zorder=3)


def _short(number: int) -> str:
    """A number of parameters with about two digits: 1.56 M, 26 k or 384."""
    if number >= 1e5:
        return f"{number / 1e6:.2f} M"
    return f"{number / 1e3:.1f} k" if number >= 1e3 else str(number)


def draw_model(name: str, **options: Any) -> Figure:
    """The diagram of a 2D model with a family in BLOCKS. name, options: see models.build.

    The model is built without memory for its weights. Raises ValueError for a model of another family.
    """
    family = next((family for family in BLOCKS if name == family or name.startswith(f"{family}-")), None)
    if family is None or name not in models.names():
        raise ValueError(f"no diagram of {name!r}: posebook.report.diagrams.BLOCKS has {', '.join(BLOCKS)}")
    with torch.device("meta"), SkipInit():
        model = models.build(name, **options)
    return draw(fold_repeats(trace(model, (1, 3, *model.input_size), BLOCKS[family])))


def layer_table(model: models.PoseModel, depth: int = 3) -> pd.DataFrame:
    """The layers of a model by torchinfo, down to `depth`: layer, type, output (without batch), parameters.

    A layer has the name of its module, for example head.gau. Layers without parameters are left out, and so
    is a layer's second call.
    """
    device = next(model.parameters()).device
    size: Any = model.input_size
    names = {id(module): name for name, module in model.named_modules()}
    summary = torchinfo.summary(model, (1, 3, *size), device=device, mode="eval", depth=depth, verbose=0)
    rows = [
        {
            "layer": names[layer.layer_id],
            "type": layer.class_name,
            "output": "×".join(map(str, layer.output_size[1:])),
            "parameters": layer.num_params,
        }
        for layer in summary.summary_list
        if 0 < layer.depth <= depth and layer.num_params and not layer.is_recursive
    ]
    return pd.DataFrame(rows)


# What the diagram of each family shows; see `trace`.
BLOCKS: dict[str, dict[str, str]] = {
    "starnet-pose": {
        r"backbone\.stem": "stem",
        r"backbone\.stages\.(\d+)": r"stage #\1",
        r"head\.final_layer": "head: 7×7 convolution",
        r"head\.mlp": "head: linear",
        r"head\.gau": "head: gated attention unit",
        r"head\.cls_([xy])": r"head: bins of \1",
    },
    "amfacpose": {
        r"stem": "stem, CoordConv",
        r"stages\.(\d+)": r"stage #\1, SCRM and SE",
        r"neck\.laterals\.(\d+)": r"fusion: 1×1, scale #\1",
        r"neck\.contexts\.(\d+)": r"attention: DGCB, scale #\1",
        r"neck\.fuse": "fusion: 1×1",
        r"mlp_([xy])": r"head: bins of \1",
    },
    "lapx": {
        r"layer1": "bottleneck 1",
        r"layer2": "bottleneck 2",
        r"layer3": "bottleneck 3",
        r"conv1": "7×7 convolution",
        r"stem_attention": "attention: ECA-CBAM",
        r"hg\.(\d+)": r"hourglass #\1",
        r"res\.(\d+)": r"bottleneck, stage #\1",
        r"fc\.(\d+)": r"1×1, stage #\1",
        r"backbone_attention\.(\d+)": r"attention: ECA-CBAM, stage #\1",
        r"score\.(\d+)": r"head: heatmaps, stage #\1",
        r"fc_\.(\d+)": r"fusion: 1×1, features #\1",
        r"score_\.(\d+)": r"fusion: 1×1, heatmaps #\1",
    },
    "vitpose": {
        r"backbone\.patch_embed\.proj": "patches: 16×16 convolution",
        r"backbone\.blocks\.(\d+)": r"attention and MLP #\1",
        r"backbone\.last_norm": "layer norm",
        r"keypoint_head\.(deconv_layers|final_layer)": r"head: \1",
    },
    "mixste": {
        r"start": "linear",
        r"spatial\.(\d+)": r"attention over joints #\1",
        r"temporal\.(\d+)": r"attention over frames #\1",
        r"head": "head",
    },
    "ktpformer": {
        r"kinematic": "fusion: graph of the skeleton",
        r"trajectory": "fusion: graph of the frames",
        r"spatial\.(\d+)": r"attention over joints #\1",
        r"temporal\.(\d+)": r"attention over frames #\1",
        r"head": "head",
    },
}
