"""Diagrams from live modules: the traced connections are those of the forward pass."""

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.patches import FancyBboxPatch
from torch import nn

from posebook import models
from posebook.lifting import models as lifters
from posebook.models.lapx import NonLocal
from posebook.report import diagrams

SIZE = (128, 96)


class Branches(nn.Module):
    """Two branches that are multiplied, a functional activation, and a sum with the input of the branches."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = (nn.Linear(4, 4) for _ in range(3))
        self.heads = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 3)])

    def forward(self, x):
        x = self.stem(x).relu()
        y = self.left(x) * torch.sigmoid(self.right(x)) + x
        return [head(y) for head in self.heads]


def edges(nodes):
    return {(nodes[i].label, node.label) for node in nodes for i in node.inputs}


def test_connections_through_functions_and_modules():
    blocks = {"stem": "stem", "left": "left", "right": "right", r"heads\.(\d)": r"head #\1"}
    nodes = diagrams.trace(Branches(), (1, 4), blocks)
    assert edges(nodes) == {
        ("input", "stem"), ("stem", "left"), ("stem", "right"), ("left", "×"), ("right", "×"),
        ("×", "+"), ("stem", "+"), ("+", "head 1"), ("+", "head 2"),
    }  # fmt: skip
    assert [(node.label, node.shape, node.params) for node in nodes[-2:]] == [
        ("head 1", (2,), 10),
        ("head 2", (3,), 15),
    ]


@pytest.mark.parametrize("name", ["starnet-pose-t", "amfacpose-r18", "lapx"])
def test_blocks_hold_all_parameters_and_real_shapes(name):
    """No layer with weights is missing, and each output has the shape of a real forward pass."""
    model = models.build(name, input_size=SIZE).eval()
    nodes = diagrams.trace(
        model, (1, 3, *SIZE), diagrams.BLOCKS[name.partition("-r18")[0].removesuffix("-t")]
    )
    total = sum(parameter.numel() for parameter in model.parameters())
    missing = 1 - sum(node.params for node in nodes) / total
    assert 0 <= missing < 0.001  # LAPX has a norm between its blocks
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, *SIZE))
    ends = set(range(len(nodes))) - {i for node in nodes for i in node.inputs}
    assert ends <= {i for i, node in enumerate(nodes) if node.label.startswith("head")}
    shapes = [tuple(output.shape[1:]) for output in outputs]
    heads = [node.shape for node in nodes if node.label.startswith(("head: bins", "head: heatmaps"))]
    assert heads == shapes


def test_ablation_changes_the_diagram():
    blocks = {key: label for key, label in diagrams.BLOCKS["amfacpose"].items() if "contexts" not in key}
    model = models.build("amfacpose-r18", input_size=SIZE, dgcb=False)
    assert "×" not in {node.label for node in diagrams.trace(model, (1, 3, *SIZE), blocks)}


@pytest.mark.parametrize("name", ["mixste", "ktpformer"])
def test_lifters_are_chains(name):
    lifter = lifters.build_plain(name, 9, width=16, depth=2, heads=2)
    nodes = diagrams.trace(lifter, (1, 9, 17, 2), diagrams.BLOCKS[name])
    assert [node.inputs for node in nodes[1:]] == [{i} for i in range(len(nodes) - 1)]
    assert nodes[-1].shape == (9, 17, 3)


def test_model_is_unchanged():
    model = models.build("starnet-pose-t", input_size=SIZE).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    diagrams.trace(model, (1, 3, *SIZE), diagrams.BLOCKS["starnet-pose"])
    assert model.training and not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_unknown_block_is_an_error():
    with pytest.raises(ValueError, match="no submodule matches nothing"):
        diagrams.trace(Branches(), (1, 4), {"nothing": "x"})


def test_drawing_has_a_box_for_each_block_and_an_arrow_for_each_connection():
    nodes = diagrams.trace(Branches(), (1, 4), {"stem": "stem", "left": "left", "right": "right"})
    figure = diagrams.draw(nodes)
    (ax,) = figure.axes
    texts = {text.get_text() for text in ax.texts}
    assert {"input", "stem", "left", "right", "×", "+"} <= texts
    arrows = [patch for patch in ax.patches if type(patch).__name__ == "FancyArrowPatch"]
    assert len(arrows) == sum(len(node.inputs) for node in nodes)
    plt.close(figure)


def test_line_beside_the_blocks_passes_behind_no_block_of_its_row():
    blocks = {name: name for name in ("theta", "phi", "g", "softmax", "out_proj")}
    figure = diagrams.draw(diagrams.trace(NonLocal(8), (1, 8, 4, 3), blocks))
    (ax,) = figure.axes
    boxes = [patch.get_window_extent() for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    assert len(ax.lines) == 2  # the values on the left, the shortcut on the right
    for line in ax.lines:
        (start, y), (lane, _), _ = ax.transData.transform(line.get_xydata())
        between = sorted((start, lane))
        assert not any(b.y0 < y < b.y1 and between[0] < (b.x0 + b.x1) / 2 < between[1] for b in boxes)
    plt.close(figure)


def test_equal_blocks_in_a_row_are_one():
    nodes = [
        diagrams.Node("input", (3,)),
        diagrams.Node("block 1", (4,), 10, {0}),
        diagrams.Node("block 2", (4,), 10, {1}),
        diagrams.Node("block 3", (4,), 10, {2}),
        diagrams.Node("block 4", (2,), 10, {3}),  # another shape
        diagrams.Node("+", (4,), 0, {2, 4}, symbol=True),
    ]
    folded = diagrams.fold_repeats(nodes)
    assert [node.label for node in folded] == ["input", "block 1 to 2", "block 3", "block 4", "+"]
    assert [node.inputs for node in folded] == [set(), {0}, {1}, {2}, {1, 3}]  # block 2 is read twice
    assert sum(node.params for node in folded) == sum(node.params for node in nodes)
    assert nodes[1].label == "block 1"


@pytest.mark.parametrize("decoder", ["classic", "simple"])
def test_diagram_of_a_model_by_its_name(decoder):
    figure = diagrams.draw_model("vitpose-s", input_size=SIZE, decoder=decoder)
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert "attention and MLP 1 to 12" in texts
    assert "17×32×24" in {text.partition(",")[0] for text in texts}  # the heatmaps
    plt.close(figure)


@pytest.mark.parametrize("name", ["hrnet-w48", "mixste", "nothing"])
def test_no_diagram_of_other_models(name):
    with pytest.raises(ValueError, match=f"no diagram of '{name}': .* has starnet-pose"):
        diagrams.draw_model(name)


def test_layer_table_has_all_parameters():
    model = models.build("starnet-pose-t", input_size=SIZE).train()
    layers = diagrams.layer_table(model, depth=3)
    total = sum(parameter.numel() for parameter in model.parameters())
    outer = layers[~layers["layer"].str.contains(".", regex=False)]
    assert outer["parameters"].sum() == total and model.training
    assert dict(zip(layers["layer"], layers["output"], strict=True))["head.cls_x"] == "17×192"
