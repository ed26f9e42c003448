"""The pages that `make reproduce` or `make site` built, opened in headless Chromium."""

from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from helpers import ROOT
from page_checks import cut_off, has_answer, names_from_code, python_reprs, wide_tables
from page_helpers import Messages, broken_links

HTML = ROOT / "reports" / "html"
PAGES = sorted(HTML.rglob("*.html"))
pytestmark = pytest.mark.pages


def page_name(path: Path) -> str:
    return str(path.relative_to(HTML))


def is_lesson(path: Path) -> bool:
    return path.parent.name == "learn"


def test_there_is_a_report():
    assert HTML / "index.html" in PAGES, "run `make reproduce` first"


@pytest.mark.parametrize("path", PAGES, ids=page_name)
@pytest.mark.parametrize("width", [1280, 400])
def test_page_fits_and_is_complete(width, path, chromium):
    """Nothing is too wide or cut off, every image is drawn and described, nothing is loaded."""
    tab = chromium.new_page(viewport={"width": width, "height": 900})
    messages = Messages(tab)
    tab.goto(path.as_uri())
    tab.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    undrawn = tab.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.alt)")
    undescribed = tab.evaluate("[...document.images].filter(image => !image.alt).length")
    content_width = tab.evaluate("document.documentElement.scrollWidth")
    unreachable, cut_tables = cut_off(tab), wide_tables(tab)
    tab.close()
    assert not messages.console
    assert messages.foreign_requests(HTML, path) == []
    assert undrawn == [] and undescribed == 0
    assert content_width <= width
    assert unreachable == []
    assert width < 1280 or is_lesson(path) or cut_tables == []


@pytest.mark.parametrize("path", [path for path in PAGES if not is_lesson(path)], ids=page_name)
def test_first_screen_answers(path, chromium):
    """A result page shows a plot, a table or an image before the reader scrolls."""
    tab = chromium.new_page(viewport={"width": 1280, "height": 800})
    tab.goto(path.as_uri())
    answered = has_answer(tab)
    tab.close()
    assert answered


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_page_shows_no_names_and_objects_of_code(path):
    page = BeautifulSoup(path.read_text(), "html.parser")
    assert python_reprs(page, is_lesson(path)) == []
    assert names_from_code(page) == []


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_links_lead_somewhere(path):
    links = [link["href"] for link in BeautifulSoup(path.read_text(), "html.parser").select("a[href]")]
    assert broken_links(HTML, links, path) == []


@pytest.mark.parametrize("path", PAGES, ids=page_name)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_accessible(scheme, path, chromium):
    """axe-core finds no violation."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-playwright-python here")
    tab = chromium.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    tab.goto(path.as_uri())
    violations = [
        (rule["id"], len(rule["nodes"]), rule["nodes"][0]["html"][:200])
        for rule in axe.Axe().run(tab).response["violations"]
    ]
    tab.close()
    assert violations == []
