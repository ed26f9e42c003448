"""The page that runs a model in the browser: its parts, and its results against Python's."""

import base64
import hashlib
import os
import re
import shutil
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers import ROOT
from page_checks import cut_off, has_answer
from page_helpers import Messages
from posebook import models
from posebook.datasets import synthetic
from posebook.inference import predict
from posebook.report import browser_demo, front_page, html

IMAGE = np.zeros((8, 6, 3), np.uint8)


@pytest.fixture(scope="module")
def net():
    return models.load_weights(predict.DEFAULT_WEIGHTS)


def test_without_npm_the_page_says_that_it_was_not_built(net, tmp_path, monkeypatch):
    monkeypatch.setattr(browser_demo.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="npm is missing: install Node.js"):
        browser_demo.load_runtime(tmp_path)
    text = browser_demo.page(net, IMAGE, tmp_path)
    assert "This page was not built." in text and "npm is missing" in text and "<script" not in text


def test_failed_download_and_other_archive_are_reported(net, tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text(
        "#!/bin/sh\necho 'npm error code E404' >&2\necho 'npm error 404 <Not Found>' >&2\nexit 1\n"
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ConnectionError, match="could not download onnxruntime-web .*: npm error 404"):
        browser_demo.load_runtime(tmp_path / "new")
    assert "404 &lt;Not Found&gt;" in browser_demo.page(net, IMAGE, tmp_path / "new")
    (tmp_path / f"onnxruntime-web-{browser_demo.VERSION}.tgz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="its hash differs; delete it"):
        browser_demo.load_runtime(tmp_path)


@pytest.mark.slow
def test_onnx_file_contains_float16_weights_and_gives_the_models_output(net):
    import onnxruntime

    stored = browser_demo.onnx_bytes(net)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    assert 2 * parameters < len(stored) < 2.3 * parameters
    session = onnxruntime.InferenceSession(stored, providers=["CPUExecutionProvider"])
    images = torch.randn(1, 3, *net.input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = net(images)
    for one, other in zip(expected, session.run(["x", "y"], {"images": images.numpy()}), strict=True):
        np.testing.assert_allclose(one.numpy(), other, atol=1e-4)


def test_heatmap_model_is_refused():
    with pytest.raises(ValueError, match="decodes SimCC outputs without UDP only"):
        browser_demo.onnx_bytes(models.build("lapx", input_size=(64, 64)))


@pytest.fixture(scope="module")
def page(net, tmp_path_factory) -> Path:
    """The exported page, with a rendered person as the example."""
    folder, archives = tmp_path_factory.mktemp("demo"), ROOT / "data" / "npm"
    if shutil.which("npm") is None:
        pytest.skip("no npm here")
    try:
        browser_demo.load_runtime(archives)
    except ConnectionError as error:
        if re.search("404|ETARGET|No matching version", str(error)):  # npm answers: the version is wrong
            raise
        pytest.skip(str(error))
    example = front_page.predicted_people(count=1)[0][0].image
    output = new_output("display_data", {"text/html": browser_demo.page(net, example, archives)})
    cells = [new_markdown_cell("# Title"), new_code_cell("page()", outputs=[output])]
    nbformat.write(new_notebook(cells=cells), folder / "browser.ipynb")
    html.export([folder / "browser.ipynb"], folder / "html")
    return folder / "html/browser.html"


@pytest.fixture
def tab(page, chromium):
    """The page after the model has run on the example."""
    tab = chromium.new_page(viewport={"width": 1280, "height": 900})
    tab.messages = Messages(tab)
    tab.goto(page.as_uri())
    tab.wait_for_selector(".demo[data-ready]", timeout=60_000)
    yield tab
    tab.close()


def assert_same(tab, net, image: np.ndarray, box: list[float]) -> None:
    """The browser has the pixels of `image`, and its prediction in the box is Python's."""
    pixels = (
        "new Uint8Array(await crypto.subtle.digest('SHA-256', document.querySelector('.demo').image.data))"
    )
    rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    digest = tab.evaluate(f"(async () => btoa(String.fromCharCode(...{pixels})))()")
    assert digest == base64.b64encode(hashlib.sha256(rgba.tobytes()).digest()).decode()
    crops = predict.crop_boxes(Path(), image, np.array([box]), np.ones(1), net.input_size)
    ((keypoints, scores),) = predict.predict_keypoints(net, [crops], flip_test=False, device="cpu")
    found = tab.evaluate(
        "(({keypoints, scores}) => ({keypoints, scores}))(document.querySelector('.demo').result)"
    )
    zoom = crops.matrices[0, 0, 0]  # input pixels per image pixel
    assert np.abs(np.array(found["keypoints"]) - keypoints[0]).max() * zoom < 1e-3
    assert np.abs(np.array(found["scores"]) - scores[0]).max() < 1e-3


def shown(tab) -> list[str]:
    return tab.evaluate("[...document.querySelectorAll('.demo td')].map(cell => cell.textContent)")


@pytest.mark.slow
def test_browser_predicts_what_python_predicts(net, tab, page, tmp_path):
    """The example, another image as a file, and a box that is typed, without any request."""
    example = front_page.predicted_people(count=1)[0][0].image
    height, width = example.shape[:2]
    assert_same(tab, net, example, [0, 0, width - 1, height - 1])
    assert "joints have a score of at least 0.2" in tab.inner_text(".demo [role=status]")
    assert "less than 0.0001 pixels, less than 0.0001 in a score" in tab.inner_text(".facts")

    image, annotations = synthetic.render(np.random.SeedSequence((0, 1, 3)))
    cv2.imwrite(str(tmp_path / "people.png"), image[..., ::-1])
    before = shown(tab)
    tab.set_input_files("input[type=file]", tmp_path / "people.png")
    tab.wait_for_function(f"document.querySelector('.demo').image.width === {image.shape[1]}")
    tab.wait_for_function("document.querySelector('.demo [role=status]').textContent.includes('Measured')")
    assert shown(tab) != before
    assert_same(tab, net, image, [0, 0, image.shape[1] - 1, image.shape[0] - 1])
    box = [round(side) for side in annotations[0]["bbox"]]
    for name, side in zip(("left", "top", "width", "height"), box, strict=True):
        tab.fill(f"input[name={name}]", str(side))
        tab.keyboard.press("Enter")
    tab.wait_for_function("document.querySelector('.demo [role=status]').textContent.includes('Measured')")
    assert_same(tab, net, image, box)
    assert tab.messages.foreign_requests(page.parent, page) == []
    assert not tab.messages.console
    assert tab.evaluate("fetch('http://127.0.0.1:9/').catch(error => error.message)") == "Failed to fetch"
    assert "Content Security Policy" in tab.messages.console[0]


@pytest.mark.slow
def test_box_is_drawn_with_the_mouse_and_joint_chosen_by_keyboard(net, tab):
    example = front_page.predicted_people(count=1)[0][0].image
    place = tab.locator("canvas.photo").bounding_box()
    scale = example.shape[1] / place["width"]
    left, top = place["x"] + 0.25 * place["width"], place["y"] + 0.25 * place["height"]
    before = shown(tab)
    tab.mouse.move(left, top)
    tab.mouse.down()
    tab.mouse.move(left + 40 / scale, top + 80 / scale, steps=3)
    tab.mouse.up()
    tab.wait_for_function("Math.abs(document.querySelector('input[name=height]').value - 80) < 2")
    assert shown(tab) != before
    tab.get_by_role("button", name="whole image").press("Enter")
    tab.wait_for_function(f"document.querySelector('input[name=width]').value == {example.shape[1] - 1}")
    assert shown(tab) == before

    curve = tab.get_attribute("svg.columns path", "d")
    tab.focus(".demo select")
    tab.keyboard.press("Home")  # the nose, which is not visible in this image
    assert tab.get_attribute("svg.columns path", "d") != curve
    assert "distributions of nose:" in tab.get_attribute(".simcc", "aria-label")


@pytest.mark.slow
def test_file_that_is_no_image_is_reported(tab, tmp_path):
    before = shown(tab)
    (tmp_path / "notes.txt").write_text("no image")
    tab.set_input_files("input[type=file]", tmp_path / "notes.txt")
    tab.wait_for_function("document.querySelector('.demo [role=status]').textContent.startsWith('Error')")
    assert "cannot read this file as an image" in tab.inner_text(".demo [role=status]")
    assert shown(tab) == before


@pytest.mark.slow
@pytest.mark.parametrize("scheme, width", [("light", 400), ("dark", 1280)])
def test_page_fits_and_is_accessible(scheme, width, page, chromium):
    tab = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab.goto(page.as_uri())
    tab.wait_for_selector(".demo[data-ready]", timeout=60_000)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert cut_off(tab) == [] and has_answer(tab)
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-playwright-python here")
    assert not [
        (one["id"], one["nodes"][0]["html"][:200]) for one in axe.Axe().run(tab).response["violations"]
    ]
    tab.close()
