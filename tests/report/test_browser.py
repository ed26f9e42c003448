"""Pages and JupyterLab in a headless Chromium."""

import shutil
from pathlib import Path

import cv2
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from report_helpers import executed_notebook, with_a_scene

from page_helpers import CHROMIUM, CHROMIUM_FLAGS, is_from_page, jupyterlab, run_all_cells
from posebook.report import browser, html, notebooks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """A report of two small pages."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "tables").mkdir()
    for name in ("index", "tables/speed"):
        nbformat.write(executed_notebook(), folder / f"{name}.ipynb")
    html.export([folder / "index.ipynb", folder / "tables/speed.ipynb"], folder / "html")
    return folder / "html"


def test_search_by_keyboard(report, chromium):
    tab = chromium.new_page()
    tab.goto((report / "index.html").as_uri())
    tab.keyboard.press("/")
    tab.keyboard.type("Symmetric divergence")
    tab.wait_for_selector("dialog li")
    assert tab.inner_text("dialog [role=status]") == "2 passages"
    assert "A page: with a title › Loss" in tab.inner_text("dialog li")
    assert tab.inner_text("dialog mark") == "divergence"
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/tables/speed.html#Loss")
    tab.keyboard.press("/")
    tab.keyboard.type("zebra")
    tab.wait_for_function("document.querySelector('dialog [role=status]').textContent === 'nothing found'")
    tab.keyboard.press("Escape")
    assert not tab.is_visible("dialog")
    tab.close()


def test_single_page_reports_missing_search_file(report, chromium, tmp_path):
    shutil.copy(report / "index.html", tmp_path)
    tab = chromium.new_page()
    tab.goto((tmp_path / "index.html").as_uri())
    tab.get_by_role("button", name="search").click()
    tab.wait_for_function("document.querySelector('dialog [role=status]').textContent.includes('search.js')")
    tab.close()


@pytest.mark.parametrize("system, chosen", [("light", "dark"), ("dark", "light")])
def test_color_scheme_is_remembered(system, chosen, report, chromium):
    context = chromium.new_context(color_scheme=system)
    tab = context.new_page()
    color = "getComputedStyle(document.body).backgroundColor"
    tab.goto((report / "index.html").as_uri())
    before = tab.evaluate(color)
    tab.get_by_role("button", name=chosen).click()
    after = tab.evaluate(color)
    tab.wait_for_timeout(500)  # localStorage reaches the process of the next page with a delay
    tab.goto((report / "tables/speed.html").as_uri())
    assert tab.evaluate(color) == after != before
    tab.get_by_role("button", name=system).click()
    assert tab.evaluate("[document.documentElement.dataset.theme, localStorage['posebook-theme']]") == [
        "",
        "",
    ]
    assert tab.evaluate(color) == before  # follows the system again
    context.close()


def test_table_is_sorted_by_header(report, chromium):
    tab = chromium.new_page()
    tab.goto((report / "index.html").as_uri())

    def names() -> list[str]:
        return tab.evaluate(
            "[...document.querySelectorAll('.outputs tr')].map(row => row.cells[0].innerText)"
        )

    ap, seconds = (tab.get_by_role("button", name=name, exact=True) for name in ("AP", "time"))
    assert names() == ["name", "T", "", "S", "L", "M", "all"]  # "name" is only for screen readers
    ap.press("Enter")  # a row without a name stays below its own; the totals stay last
    assert names()[1:] == ["S", "M", "T", "", "L", "all"]
    assert tab.get_attribute("th[aria-sort]", "aria-sort") == "ascending"
    ap.click()  # unmeasured values are last in both directions
    assert names()[1:] == ["T", "", "M", "S", "L", "all"]
    ap.click()
    assert names()[1:] == ["T", "", "S", "L", "M", "all"] and not tab.query_selector("[aria-sort]")
    seconds.click()
    assert names()[1:] == ["T", "", "S", "M", "L", "all"]
    tab.close()


@pytest.fixture(scope="module")
def moving(tmp_path_factory) -> Path:
    """A page with a filtered table and an animated drawing."""
    folder = tmp_path_factory.mktemp("moving")
    rows = "".join(f"<tr><td>{name}</td><td>{i}</td></tr>" for i, name in enumerate(("LAPX", "LAP", "HoT")))
    head = "<thead><tr><th>model</th><th>AP</th></tr></thead>"
    animation = '<animate attributeName="cx" dur="1s" values="0;9;0" repeatCount="indefinite"/>'
    drawing = f'<svg width="20" height="20"><circle r="3">{animation}</circle></svg>'
    shown = (
        f'<div class="filter"><table>{head}<tbody>{rows}</tbody></table></div>'
        f'<figure class="loop">{drawing}</figure>'
    )
    output = new_output("display_data", {"text/html": shown, "text/plain": ""})
    cells = [new_markdown_cell("# Title"), new_code_cell("shown()", outputs=[output])]
    nbformat.write(new_notebook(cells=cells), folder / "index.ipynb")
    html.export([folder / "index.ipynb"], folder / "html")
    return folder / "html/index.html"


def test_filter_shows_rows_with_all_words(moving, chromium):
    tab = chromium.new_page()
    tab.goto(moving.as_uri())
    visible = "[...document.querySelectorAll('tbody tr')].filter(row => row.checkVisibility()).length"
    assert tab.evaluate(visible) == 3
    tab.get_by_role("searchbox", name="filter rows").fill("lap 1")
    assert tab.evaluate(visible) == 1 and tab.inner_text(".filter [role=status]") == "1 of 3 rows"
    tab.get_by_role("button", name="AP").click()  # sorting keeps the filter
    assert tab.evaluate(visible) == 1
    tab.close()


@pytest.mark.parametrize("motion, first", [("no-preference", "pause"), ("reduce", "play")])
def test_motion_can_be_paused_and_waits_for_readers_who_prefer_less(motion, first, moving, chromium):
    tab = chromium.new_page(reduced_motion=motion)
    tab.goto(moving.as_uri())
    paused = "document.querySelector('.loop svg').animationsPaused()"
    button = tab.locator(".loop button")
    assert button.inner_text() == first and tab.evaluate(paused) == (first == "play")
    button.click()
    assert button.inner_text() != first and tab.evaluate(paused) == (first == "pause")
    tab.close()


def test_only_the_current_group_of_pages_is_open(report, chromium):
    tab = chromium.new_page(viewport={"width": 400, "height": 800})
    tab.goto((report / "tables/speed.html").as_uri())
    tab.click(".menu > summary")
    assert tab.is_visible(".menu a[aria-current]") and not tab.is_visible("aside")
    tab.goto((report / "index.html").as_uri())
    tab.click(".menu > summary")
    speed = tab.locator(".menu a", has_text="Speed")
    assert not speed.is_visible()
    tab.click(".menu summary:has-text('StarNet-Pose')")
    assert speed.is_visible()
    tab.close()


def test_print_shows_images_and_tables_only(report, chromium, tmp_path):
    tab = chromium.new_page()
    tab.goto((report / "index.html").as_uri())
    tab.emulate_media(media="print")
    for selector, there in (("figure", True), (".outputs table", True), ("aside", False), ("details", False)):
        assert tab.is_visible(selector) == there, selector
    tab.close()
    notebooks.main(["pdf", str(report / "index.html"), str(tmp_path / "page.pdf")])
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


@pytest.fixture(scope="module")
def scene_page(tmp_path_factory) -> Path:
    """A page with a 3D skeleton."""
    pytest.importorskip("plotly")
    folder = tmp_path_factory.mktemp("space")
    nbformat.write(with_a_scene(), folder / "index.ipynb")
    html.export([folder / "index.ipynb"], folder / "html")
    return folder / "html/index.html"


@pytest.fixture(scope="module")
def webgl_chromium(chromium):
    """Chromium with software WebGL."""
    args = [*(flag for flag in CHROMIUM_FLAGS if flag != "--disable-gpu"), "--use-angle=swiftshader"]
    window = chromium.browser_type.launch(
        executable_path=CHROMIUM, args=[*args, "--enable-unsafe-swiftshader"]
    )
    yield window
    window.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_3d_skeleton_rotates_and_plays_by_keyboard(scheme, scene_page, webgl_chromium):
    tab = webgl_chromium.new_page(viewport={"width": 1000, "height": 900}, color_scheme=scheme)
    messages, requests = [], []
    tab.on("console", lambda message: messages.append(message.text) if is_from_page(message) else None)
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(scene_page.as_uri())
    tab.locator("figure.scene").scroll_into_view_if_needed()
    tab.wait_for_selector("figure.lives .live output")
    assert not tab.is_visible("figure.scene > img")
    assert {url for url in requests if url.startswith("file:")} == {
        scene_page.as_uri(),
        (scene_page.parent / html.LIBRARY).as_uri(),
    }
    assert not [url for url in requests if not url.startswith(("file:", "data:", "blob:"))]

    eye = "document.querySelector('.live > div').layout.scene.camera.eye.x"
    before = tab.evaluate(eye)
    tab.focus(".live > div")
    tab.keyboard.press("ArrowLeft")
    tab.wait_for_function(f"Math.abs({eye} - {before}) > 0.05")

    first = "document.querySelector('.live > div').data.find(trace => trace.meta === 'left').z"
    before = tab.evaluate(f"JSON.stringify({first})")
    tab.get_by_role("slider", name="time").press("End")
    assert tab.inner_text(".live output") == "0.78 s"
    tab.wait_for_function(f"JSON.stringify({first}) !== {before!r}")
    tab.get_by_role("button", name="play").press("Enter")
    tab.wait_for_function("document.querySelector('.live output').textContent !== '0.78 s'")
    tab.get_by_role("button", name="stop").press("Enter")
    stopped = tab.inner_text(".live output")
    tab.wait_for_timeout(200)
    assert tab.inner_text(".live output") == stopped

    line = "document.querySelector('.live > div').data.find(trace => trace.meta === 'left').line.color"
    color = tab.evaluate(line)
    tab.get_by_role("button", name={"light": "dark", "dark": "light"}[scheme]).click()
    tab.wait_for_function(f"{line} !== {color!r}")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-playwright-python here")
    assert not [
        (one["id"], one["nodes"][0]["html"][:200]) for one in axe.Axe().run(tab).response["violations"]
    ]
    assert tab.evaluate("document.documentElement.scrollWidth") <= 1000
    tab.emulate_media(media="print")
    assert tab.is_visible("figure.scene > img") and not tab.is_visible(".live")
    assert not messages
    tab.close()


def test_static_image_remains_without_webgl_or_library(scene_page, chromium, tmp_path):
    tab = chromium.new_page()
    tab.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    tab.goto(scene_page.as_uri())
    tab.wait_for_timeout(500)
    assert tab.is_visible("figure.scene > img") and not tab.query_selector(".live")
    tab.close()
    shutil.copy(scene_page, tmp_path)  # a single page, without the library
    tab = chromium.new_page()
    tab.goto((tmp_path / "index.html").as_uri())
    tab.wait_for_timeout(500)
    assert tab.is_visible("figure.scene > img") and not tab.query_selector(".live")
    tab.close()


@pytest.mark.usefixtures("chromium")
def test_readme_screenshots(report, tmp_path, monkeypatch):
    monkeypatch.setattr(browser, "SCREENSHOTS", {"front": "index.html"})
    notebooks.main(["screenshots", str(report), str(tmp_path)])
    assert cv2.imread(str(tmp_path / "front.webp")).shape == (800, 1280, 3)
    assert (tmp_path / "front.webp").stat().st_size < 150_000


WIDGET = """from ipywidgets import interact

@interact(beta=(1, 20, 1))
def show(beta=10):
    print("beta is", beta)"""

IN_SPACE = """import numpy as np

from posebook.report import figures_3d

figures_3d.scene({"a line": np.linspace(0, 1, 2 * 17 * 3).reshape(2, 17, 3)})"""


@pytest.fixture
def lab(tmp_path):
    """JupyterLab with small.ipynb in its own folder; yields its address."""
    sources = ("1 + 1", WIDGET, IN_SPACE)
    cells = [new_markdown_cell("# Small: does it run?"), *map(new_code_cell, sources)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / "small.ipynb")
    with jupyterlab(tmp_path) as address:
        yield f"{address}/lab/tree/small.ipynb?token=small"


def test_a_notebook_in_jupyterlab(lab, chromium):
    """The notebook runs without errors, widget and 3D figure work, and no other host is contacted."""
    tab = chromium.new_page(viewport={"width": 1280, "height": 900})
    tab.set_default_timeout(180_000)
    requests = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(lab)
    run_all_cells(tab)
    tab.wait_for_selector(".jp-OutputArea:has-text('beta is 10')")
    tab.locator(".noUi-handle").press("ArrowRight")
    tab.wait_for_selector(".jp-OutputArea:has-text('beta is 11')")
    tab.wait_for_selector(".jp-OutputArea .js-plotly-plot :text('play')")
    assert not [url for url in requests if "plotly" in url and "127.0.0.1" not in url]
    assert not tab.query_selector(".jp-OutputArea-output [data-mime-type='application/vnd.jupyter.error']")
    assert not tab.query_selector("[data-mime-type='application/vnd.jupyter.stderr']")
    tab.close()
