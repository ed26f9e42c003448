"""The checks of test_pages.py find the faults of small bad pages, and none on a good one."""

from html import escape

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from page_checks import cut_off, has_answer, names_from_code, python_reprs, wide_tables
from posebook.report import html

pytestmark = pytest.mark.pages
TABLE = "<table><thead><tr><th>model</th><th>AP</th></tr></thead><tbody>{}</tbody></table>"
ROW = "<tr><td>LAPX</td><td>72.1</td></tr>"
LONG = "x" * 3000


@pytest.fixture
def opened(tmp_path, chromium):
    """A function that opens a page with outputs in HTML, 1280 or 400 px wide; its tab and its text."""
    tabs = []

    def open_page(output: str, heading: str = "A page", width: int = 1280):
        cells = [new_markdown_cell(f"# {heading}\n\nA question?")]
        kind = "text/html" if output.startswith("<") else "text/plain"
        shown = new_output("display_data", {kind: output, "text/plain": output})
        cells.append(new_code_cell("shown()", outputs=[shown]))
        nbformat.write(new_notebook(cells=cells), tmp_path / "index.ipynb")
        html.export([tmp_path / "index.ipynb"], tmp_path / "html")
        tab = chromium.new_page(viewport={"width": width, "height": 800})
        tabs.append(tab)
        tab.goto((tmp_path / "html/index.html").as_uri())
        return tab, BeautifulSoup((tmp_path / "html/index.html").read_text(), "html.parser")

    yield open_page
    for tab in tabs:
        tab.close()


@pytest.mark.parametrize("width", [1280, 400])
def test_a_good_page_passes(width, opened):
    tab, page = opened(TABLE.format(ROW), heading="LAPX and StarNet-Pose-T", width=width)
    assert (cut_off(tab), wide_tables(tab), python_reprs(page), names_from_code(page)) == ([], [], [], [])
    assert has_answer(tab)


@pytest.mark.parametrize(
    "output, found",
    [
        (f'<div style="overflow-x: hidden; width: 300px">{LONG}</div>', True),
        (f'<div style="overflow: clip; width: 300px">{LONG}</div>', True),
        (f'<div style="width: 2000px"><p>{LONG}</p></div>', True),  # leaves the page
        (f'<div style="overflow-x: auto; width: 300px" tabindex="0"><p>{LONG}</p></div>', False),
        (f'<p style="overflow-wrap: anywhere">{LONG}</p>', False),
        (LONG, False),  # preformatted text scrolls
    ],
    ids=["hidden", "clipped", "beyond the page", "scrolls", "wraps", "preformatted"],
)
def test_content_that_is_cut_off(output, found, opened):
    tab, _ = opened(output)
    assert bool(cut_off(tab)) == found


def test_table_wider_than_its_box(opened):
    wide = f'<tr><td style="white-space: nowrap">{"AP " * 200}</td><td>72.1</td></tr>'
    tab, _ = opened(TABLE.format(wide))
    (fault,) = wide_tables(tab)
    assert fault.startswith("table: A page: ") and cut_off(tab) == []


@pytest.mark.parametrize(
    "output, found",
    [
        (TABLE.format(ROW), True),
        (f'<div style="height: 690px">prose</div>{TABLE.format(ROW * 9)}', False),  # starts below
        ("<p>text alone</p>", False),
        ("a line of text", False),
    ],
    ids=["table", "below", "prose", "text"],
)
def test_first_screen(output, found, opened):
    tab, _ = opened(output)
    assert has_answer(tab) == found


REPRS = (
    "<Axes: xlabel='a'>",
    "[Text(3, 0, '86.45'), Text(3, 0, '86.82')]",
    "{False: 0.0, True: 0.0865}",
    "{'AP': 0.1,\n 'AR': 0.2}",
    "array([0.1, 0.2])",
    "entropy: tensor(0.5)",
    "<Figure size 640x480 with 1 Axes>",
    "PosixPath('reports')",
    "<function main at 0x7f>",
    "Name: AP, dtype: float64",
)


def with_output(text: str) -> BeautifulSoup:
    page = f'<main><div class="outputs"><pre class="text">{escape(text)}</pre></div></main>'
    return BeautifulSoup(page, "html.parser")


@pytest.mark.parametrize("text", REPRS)
def test_python_objects_in_output(text):
    assert python_reprs(with_output(text))


@pytest.mark.parametrize("text", ["AP 0.473, 95 % interval 0.453 to 0.497", "{}", "ratio 3:4, set {a, b}"])
def test_plain_text_is_no_python_object(text):
    assert python_reprs(with_output(text)) == []


def test_code_in_a_table_is_no_output():
    command = "<td>run <code>--set '{\"input_size\": [384, 288]}'</code></td>"
    page = BeautifulSoup(f'<main><div class="outputs"><table>{command}</table></div></main>', "html.parser")
    assert python_reprs(page) == []
    page.code.unwrap()
    assert python_reprs(page)


def test_lessons_may_show_values_but_no_matplotlib_objects():
    page = with_output("array([1]) <Axes: >")
    assert python_reprs(page) == ["array(", "<Axes"] and python_reprs(page, lesson=True) == ["<Axes"]


@pytest.mark.parametrize(
    "heading, found",
    [
        ("The neck of lapx", True),
        ("Training starnet-pose-t", True),
        ("mixste: a lifter", True),
        ("LAPX at 256×256", False),
        ("A block-lapx and RTMPose-t", False),
        ("The overlapping parts", False),
    ],
)
def test_model_names_of_the_code_in_headings(heading, found):
    page = BeautifulSoup(f"<main><h2>{heading}</h2></main>", "html.parser")
    assert bool(names_from_code(page)) == found
