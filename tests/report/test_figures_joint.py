"""The plot of one joint, and notebooks/explore.ipynb, which selects it with menus in JupyterLab."""

import cv2
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch

from helpers import ROOT
from page_helpers import jupyterlab, run_all_cells
from posebook import datasets, models
from posebook.datasets import synthetic
from posebook.report import figures, figures_joint


@pytest.fixture(scope="module")
def person(tmp_path_factory) -> datasets.Person:
    """A rendered person in an image file."""
    path = tmp_path_factory.mktemp("image") / "one.png"
    image, annotations = synthetic.render(np.random.SeedSequence((0, 1, 3)))
    cv2.imwrite(str(path), image[..., ::-1])
    return datasets.Person(path, 1, 1, tuple(annotations[0]["bbox"]), 0.0, np.zeros((17, 3)))


@pytest.mark.parametrize("name, layers", [("starnet-pose-t", 1), ("lapx", 2)])
def test_panels_show_distribution_or_heatmap_of_the_joint(name, layers, person):
    torch.manual_seed(0)
    model = models.build(name, input_size=(64, 64)).eval()
    figure = figures_joint.explain_joint(model, person, "left_knee")
    left, middle, right, *edges = figure.axes
    titles = [ax.get_title(loc="left") + ax.get_title(loc="center") for ax in (left, right)]  # by the style
    assert titles == ["predicted pose", "attribution, Grad-CAM"]
    assert middle.get_xlabel().startswith("left knee, score ") and len(edges) == 2
    assert len(middle.images) == layers
    assert middle.get_xlim() == (-0.5, 63.5) and middle.get_ylim() == (63.5, -0.5)
    plt.close(figure)


def test_heatmap_cell_is_centered_on_its_pixel():
    heatmap = np.zeros((8, 6))
    heatmap[3, 2] = 1  # of stride 4: the pixel in row 12 and column 8
    _, ax = plt.subplots()
    ax.imshow(np.zeros((32, 24, 3)))
    left, right, bottom, top = figures_joint.heatmap_overlay(ax, heatmap, (32, 24)).images[-1].get_extent()
    assert left + (right - left) * 2.5 / 6 == 8 and top + (bottom - top) * 3.5 / 8 == 12
    assert figures_joint.heatmap_overlay(ax, 0 * heatmap, (32, 24)).axis() == (-0.5, 23.5, 31.5, -0.5)
    plt.close()


def test_unknown_joint_is_an_error(person):
    with pytest.raises(ValueError, match="left_knee"):
        figures_joint.explain_joint(models.build("starnet-pose-t", input_size=(64, 64)), person, "left_nee")


def test_items_of_a_menu_depend_on_other_menus(monkeypatch):
    ipywidgets = pytest.importorskip("ipywidgets")
    made = {}
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **widgets: made.update(widgets))
    files = {"small": ["a", "b"], "large": ["c", "b"]}

    def draw(model="large", weights="b", color="red"):
        raise AssertionError("only interact draws")

    figures.interactive(draw, model=list(files), weights=lambda model: files[model], color=["red", "blue"])
    assert made["color"] == ["red", "blue"]  # left to ipywidgets
    assert (made["model"].value, made["weights"].value) == ("large", "b")  # the defaults of draw
    made["model"].value = "small"
    assert made["weights"].options == ("a", "b") and made["weights"].value == "b"  # still an item
    made["weights"].value = "a"
    made["model"].value = "large"
    assert made["weights"].options == ("c", "b") and made["weights"].value == "c"  # "a" is gone


@pytest.mark.slow
def test_explore_notebook_in_jupyterlab(chromium, person, tmp_path):
    """A change of the joint or of the model draws the figure again; weights follow the model."""
    notebook = nbformat.read(ROOT / "notebooks" / "explore.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source = cell.source.replace("images = None", f"images = [{str(person.image)!r}]")
    nbformat.write(notebook, tmp_path / "explore.ipynb")
    tab = chromium.new_page(viewport={"width": 1280, "height": 900})
    tab.set_default_timeout(60_000)
    with jupyterlab(tmp_path) as address:
        tab.goto(f"{address}/lab/tree/explore.ipynb?token=small")
        run_all_cells(tab)
        figure, select = tab.locator(".widget-interact img"), tab.locator(".widget-dropdown select")
        figure.wait_for()
        assert tab.locator(".jp-OutputArea-output img").count() == 2
        for number, value in ((4, "right_knee"), (2, "lapx")):
            before = figure.get_attribute("src")
            select.nth(number).select_option(value)
            tab.wait_for_function(
                "old => ![undefined, old].includes(document.querySelector('.widget-interact img')?.src)",
                arg=before,
            )
        assert select.nth(3).inner_text() == "lapx-synthetic"
        assert select.nth(4).input_value() == "right_knee"
        errors = ("stderr", "error")
        assert not any(
            tab.query_selector(f"[data-mime-type='application/vnd.jupyter.{kind}']") for kind in errors
        )
    tab.close()
