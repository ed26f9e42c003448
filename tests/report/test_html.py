"""Export of executed notebooks to pages, and what `make reproduce` would run after a change."""

import io
import json
import re
from copy import deepcopy
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from report_helpers import (
    changed,
    executed_notebook,
    image,
    rules,
    with_a_scene,
)

from helpers import ROOT
from page_helpers import broken_links
from posebook.report import browser, colors, html, notebooks, page_cells


def test_page_loads_nothing(page):
    assert page.select("[src]")
    assert all(element["src"].startswith("data:") for element in page.select("[src]"))
    assert all(element["href"].startswith("data:") for element in page.select("link"))
    assert not page.select("script[src]")
    assert not re.search(r"url\(|@import", page.style.text)
    assert page.title.text == "A page: with a title · posebook"


def test_plotly_script_is_written_once_for_all_pages(tmp_path):
    pytest.importorskip("plotly")
    for name in ("index", "learn/one", "learn/two"):
        path = tmp_path / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(with_a_scene() if "/" in name else executed_notebook(), path)
    html.export(
        [tmp_path / f"{name}.ipynb" for name in ("index", "learn/one", "learn/two")], tmp_path / "html"
    )
    scripts = sorted(path.relative_to(tmp_path / "html").as_posix() for path in tmp_path.rglob("*.js"))
    assert scripts == ["plotly.min.js", "search.js"]
    page = BeautifulSoup((tmp_path / "html/learn/one.html").read_text(), "html.parser")
    (scene,) = page.select("figure.scene")
    assert (tmp_path / "html/learn" / scene["data-library"]).resolve() == tmp_path / "html/plotly.min.js"
    assert json.loads(scene.script.string)["frames"] and scene.img["alt"].startswith("truth, again")
    assert not page.select("script[src]")  # loaded when the scene comes into view
    assert (tmp_path / "html/learn/one.html").stat().st_size < 500_000


def test_no_plotly_script_without_scene(report):
    assert not (report / "plotly.min.js").exists()


def test_code_is_folded_below_its_output(page):
    (fold,) = [fold for fold in page.select("details.code") if fold["class"] == ["code"]]
    assert "open" not in fold.attrs and "kl(p, q)" in fold.text.replace("\xa0", " ")
    assert "epoch 1 done" in fold.find_previous_sibling().text
    assert not page.select_one("details img, details.code:not(.solution) .outputs")


def code(source: str, output: str = "") -> nbformat.NotebookNode:
    outputs = [new_output("stream", name="stdout", text=output)] if output else []
    return new_code_cell(source, outputs=outputs)


def test_code_without_output_makes_one_fold_per_section(tmp_path):
    cells = [new_markdown_cell("# Title"), code("a = 1"), code("b = 2"), new_markdown_cell("Prose.")]
    cells += [code("print(a)", "1"), code("c = 3"), new_markdown_cell("## Next"), code("d = 4")]
    folded = page_cells.fold_code(deepcopy(cells))
    assert [cell.metadata.get("folded") for cell in folded] == [
        None,
        None,
        ["a = 1", "b = 2", "print(a)"],
        ["c = 3"],
        None,
        ["d = 4"],
    ]
    (tmp_path / "learn").mkdir()
    names = ("index", "learn/index", "learn/lesson")
    for name in names:
        nbformat.write(new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    html.export([tmp_path / f"{name}.ipynb" for name in names], tmp_path / "html")
    *results, lesson = (
        BeautifulSoup((tmp_path / "html" / f"{name}.html").read_text(), "html.parser").main for name in names
    )
    for result in results:  # also the index of the lessons
        assert [len(fold.select("pre")) for fold in result.select("details")] == [3, 1, 1]
    assert not lesson.select("details")  # a lesson shows its code where it stands
    texts = [pre.text.replace("\xa0", " ").strip() for pre in lesson.select("pre")]
    assert texts == ["a = 1", "b = 2", "print(a)", "1", "c = 3", "d = 4"]


def test_solution_is_folded_with_output(page):
    (fold,) = page.select("details.solution")
    assert "open" not in fold.attrs and fold.summary.text == "solution"
    assert "assert loss" in fold.text.replace("\xa0", " ") and "a quarter" in fold.select_one(".outputs").text
    assert not fold.select("details")


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/**/*.ipynb")), ids=lambda path: path.stem)
def test_formulas_of_every_notebook_convert_to_mathml(path):
    """Rendering raises for unsupported formulas; the export of a page would detect them too late."""
    exporter, shown = html.PageExporter(), ""
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            shown += exporter.markdown2html({}, cell.source)
    formulae = sum("$$" in cell.source for cell in nbformat.read(path, 4).cells)
    assert shown.count("<math") >= formulae and "$$" not in shown


def test_progress_bars_and_widgets_are_removed(page):
    assert "progress bar" not in page.text
    assert "HBox" not in page.text


@pytest.mark.parametrize("length, kept", [(3000, "image/svg+xml"), (2_000_000, "image/png")])
def test_plot_is_an_svg_unless_it_is_very_large(length, kept):
    both = {"image/png": "A" * 800, "image/svg+xml": f"<svg>{'.' * length}</svg>"}
    assert set(page_cells.prefer_svg({"data": both})["data"]) == {kept}
    alone = {"data": {"image/png": "A"}}
    assert page_cells.prefer_svg(alone) == {"data": {"image/png": "A"}} and page_cells.prefer_svg({}) == {}


def plot_in_svg(color: str) -> str:
    stream = io.StringIO()
    with plt.rc_context({"figure.facecolor": "none", "axes.facecolor": "none", "text.color": colors.INK}):
        figure, ax = plt.subplots(figsize=(8, 3))
        ax.fill_between([0, 1], [1, 2], color=color, clip_on=True)
        ax.set_title("a title")
        figure.savefig(stream, format="svg")
    plt.close(figure)
    return stream.getvalue()


def test_plots_follow_the_color_scheme_and_have_unique_ids(tmp_path):
    cells = [new_markdown_cell("# Title\n\nThe loss falls. It does.")]
    for color in (colors.TEAL, colors.ORANGE):
        svg = new_output("display_data", {"image/svg+xml": plot_in_svg(color), "text/plain": "<Figure>"})
        cells.append(new_code_cell("plot()", outputs=[svg]))
    nbformat.write(new_notebook(cells=cells), tmp_path / "index.ipynb")
    html.export([tmp_path / "index.ipynb"], tmp_path / "html")
    page = BeautifulSoup((tmp_path / "html/index.html").read_text(), "html.parser")
    plots = page.select("figure.wide > svg")
    assert [plot["aria-label"] for plot in plots] == ["Title. The loss falls"] * 2
    for plot, color in zip(plots, ("accent", "warm"), strict=True):
        drawn = str(plot)
        assert f"fill: var(--{color})" in drawn and "fill: var(--ink)" in drawn
        assert "#ffffff" not in drawn and colors.TEAL not in drawn and "<style" not in drawn
        references = set(re.findall(r'(?:url\(|href=")#([^")]+)', drawn))
        assert references and references == {element["id"] for element in plot.select("[id]")}
    ids = [element["id"] for element in page.select("[id]")]
    assert len(ids) == len(set(ids))


def test_parameters_show_value_and_meaning(page):
    rows = [
        [cell.text for cell in row.select("th, td")] for row in page.select("details.parameters tbody tr")
    ]
    assert rows == [["model", "'starnet-pose-t'", "name of the model"], ["seed", "7", "random seed"]]
    assert "seed = 7" not in page.select_one("main").text  # papermill's own cell is not shown as code


def test_formulas_are_mathml(page):
    block, *inline = page.select("math")
    assert block["display"] == "block" and block.select("mfrac")
    assert len(inline) == 1
    assert "$" not in page.select_one("main").text


def test_unknown_tex_command_raises():
    with pytest.raises(ValueError, match="nosuchthing"):
        html.formula_mathml(r"\nosuchthing x", "inline")


def test_image_has_text_alternative(page):
    assert page.img["alt"] == "Loss. Here p i is the label's"


def test_table_has_scrolling_box_and_foot(page):
    box = page.select_one(".outputs .scroll")
    assert box["tabindex"] == "0" and box.table and box["aria-label"] == "table: Loss"
    assert "border" not in box.table.attrs and not page.select("style[scoped]")
    rows = [row.select("td") for row in box.select("tbody tr")]
    assert len(rows) == 5 and box.select_one("tfoot td").text == "all"


def test_number_columns_are_marked():
    cells = "<tr><td>T</td><td>72.00</td></tr><tr><td>S</td><td>−1.5</td></tr>"
    soup = BeautifulSoup(f"<table><tr><th>net</th><th>AP</th></tr>{cells}</table>", "html.parser")
    html.style_table(soup.table, soup)
    assert ["number" in cell.get("class", []) for cell in soup.select("td")] == [False, True, False, True]


def test_search_index_has_every_passage_with_valid_link(report):
    text = (report / "search.js").read_text()
    found = json.loads(text.removeprefix("window.posebookPassages = ").removesuffix(";\n"))
    assert [(one["page"], one["heading"], one["href"]) for one in found[:2]] == [
        ("A page: with a title", "A page: with a title", "index.html"),
        ("A page: with a title", "Loss", "index.html#Loss"),
    ]
    assert "not symmetric" in found[1]["text"] and len(found) == 4
    assert broken_links(report, [one["href"] for one in found], report / "index.html") == []


# a notebook that stopped


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A report with a complete page and a page whose notebook stopped in its second cell."""
    folder = tmp_path_factory.mktemp("stopped")
    nbformat.write(executed_notebook(), folder / "index.ipynb")
    notebook = executed_notebook()
    notebook.metadata["posebook"]["stopped"] = {"cell": 2, "error": "ZeroDivisionError: division by <zero>"}
    error = {"ename": "ZeroDivisionError", "evalue": "division by <zero>", "traceback": ["line 1", "1 / 0"]}
    notebook.cells += [
        new_markdown_cell("An exception was met", metadata={"tags": ["papermill-error-cell-tag"]}),
        new_code_cell("1 / 0", outputs=[new_output("error", **error)], execution_count=2),
    ]
    nbformat.write(notebook, folder / "train.failed.ipynb")
    html.export([folder / "index.ipynb", folder / "train.failed.ipynb"], folder / "html")
    return folder / "html"


def test_stopped_notebook_is_reported_on_its_page(stopped):
    page = BeautifulSoup((stopped / "train.html").read_text(), "html.parser")
    notice = page.select_one("main p.stopped")
    assert "stopped in cell 2: ZeroDivisionError: division by <zero>" in notice.text
    fold = page.select_one(f"details{notice.a['href']}")
    assert fold.summary.text == "ZeroDivisionError: division by <zero>" and "open" not in fold.attrs
    assert "1 / 0" in fold.pre.text
    assert "An exception was met" not in page.text  # text of papermill


def test_stopped_notebook_is_marked_in_every_list_of_pages(stopped):
    for name in ("index", "train"):
        page = BeautifulSoup((stopped / f"{name}.html").read_text(), "html.parser")
        assert [link["href"] for link in page.select("aside a:has(.stopped)")] == ["train.html"]
    assert not BeautifulSoup((stopped / "index.html").read_text(), "html.parser").select("main .stopped")


def test_parameters_with_syntax_error_do_not_stop_export():
    cell = new_code_cell("seed = = 1", metadata={"tags": ["parameters"]})
    assert page_cells.parameters(new_notebook(cells=[cell])) == []


def test_assignments_that_papermill_cannot_set_are_not_parameters():
    cell = new_code_cell("a, b = 1, 2\nc: int\nseed = 0  # a seed", metadata={"tags": ["parameters"]})
    (row,) = page_cells.parameters(new_notebook(cells=[cell]))
    assert row == {"name": "seed", "value": "0", "meaning": "a seed"}


def test_plots_of_other_programs_are_exported(tmp_path):
    sizes = 'width="900px" height="20px"', 'width="100%"', ""
    plots = [new_output("display_data", {"image/svg+xml": f"<svg {size}></svg>"}) for size in sizes]
    plots.append(new_output("display_data", {"image/png": image()}))  # without text/plain
    cells = [new_markdown_cell("# Title"), new_code_cell("plot()", outputs=plots)]
    nbformat.write(new_notebook(cells=cells), tmp_path / "index.ipynb")
    html.export([tmp_path / "index.ipynb"], tmp_path / "html")
    page = BeautifulSoup((tmp_path / "html/index.html").read_text(), "html.parser")
    assert len(page.select("figure > svg")) == 3 and len(page.select("figure.wide > svg")) == 1
    assert len(page.select("main img")) == 1


def test_exporting_a_folder_without_notebooks_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_info:
        notebooks.main(["export", str(tmp_path / "html"), str(tmp_path)])
    assert exit_info.value.code == 2 and f"no notebook in {tmp_path}" in capsys.readouterr().err
    assert not (tmp_path / "html").exists()


def test_converting_a_page_without_a_title_is_one_line(tmp_path, capsys):
    nbformat.write(new_notebook(cells=[new_markdown_cell("no title")]), tmp_path / "a.ipynb")
    with pytest.raises(SystemExit) as exit_info:
        notebooks.main(["convert", str(tmp_path / "a.ipynb"), str(tmp_path / "a.html")])
    error = capsys.readouterr().err
    assert exit_info.value.code == 2 and error.count("\n") == 1 and "has no level-1 heading" in error


def test_links_point_to_pages(page, report):
    links = {link.text: link["href"] for link in page.select("main .prose a")}
    assert links == {"the speeds": "tables/speed.html", "the paper": "https://example.org/paper"}
    for folder in (report, report / "tables"):
        for path in folder.glob("*.html"):
            soup = BeautifulSoup(path.read_text(), "html.parser")
            assert len(soup.select("aside a[aria-current]")) == 1
            for link in soup.select("aside a, nav.onward a"):
                assert (path.parent / link["href"]).exists()


def test_footer_states_run_code_and_machine(page):
    words = page.select_one("footer").text
    for part in (
        "2026-01-02 03:04 UTC",
        "0123456789",
        "posebook 0.1.0",
        "seed=7",
        "cpu: one",
        "torch 2.13.0",
    ):
        assert part in words


@pytest.mark.parametrize(
    "source",
    ["![far](https://example.org/a.png)", "![far](a.png)", "<script src='//example.org/a.js'></script>"],
)
def test_page_with_external_resource_raises(source, tmp_path):
    nbformat.write(new_notebook(cells=[new_markdown_cell(f"# Title\n\n{source}")]), tmp_path / "index.ipynb")
    with pytest.raises(ValueError, match="would load"):
        html.export([tmp_path / "index.ipynb"], tmp_path / "html")


def test_headline_names_stopped_notebooks(tmp_path, capsys):
    front = new_code_cell("", metadata={"tags": ["headline"]}, execution_count=1)
    front.outputs = [new_output("display_data", {"text/markdown": "- **12 of 40** cells"})]
    nbformat.write(new_notebook(cells=[front]), tmp_path / "index.ipynb")
    notebooks.headline(tmp_path, tmp_path / "index.html")
    assert "12 of 40 cells" in capsys.readouterr().out
    about = {"posebook": {"stopped": {"cell": 3, "error": "KeyError: 'AP'"}}}
    (tmp_path / "tables").mkdir()
    nbformat.write(new_notebook(metadata=about), tmp_path / "tables" / "speed.failed.ipynb")
    (tmp_path / "index.ipynb").unlink()  # it may be the one that failed
    notebooks.headline(tmp_path, tmp_path / "index.html")
    said = capsys.readouterr().err
    assert "STOPPED in cell 3" in said and "tables/speed.failed.ipynb" in said and "KeyError: 'AP'" in said


def test_commands_without_browser_exit_with_hint(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(browser, "BROWSERS", ["chromium"])
    for words in (["pdf", "page.html", f"{tmp_path}/page.pdf"], ["screenshots", "html", f"{tmp_path}/docs"]):
        with pytest.raises(SystemExit) as ended:
            notebooks.main(words)
        assert ended.value.code == 2
        assert "apt-get install chromium" in capsys.readouterr().err


def test_no_change_runs_nothing(tree):
    assert rules(tree) == []


@pytest.mark.parametrize(
    "path, runs",
    [
        ("notebooks/tables/speed.ipynb", ["export", "index", "report", "table"]),
        ("notebooks/index.ipynb", ["export", "index", "report"]),
        ("lib/posebook/report/template/style.css", ["export", "report"]),
    ],
)
def test_change_runs_dependent_rules(path, runs, tree):
    with changed(tree / path):
        assert rules(tree) == runs


def test_change_of_plots_does_not_repeat_training(tree):
    with changed(tree / "lib/posebook/report/figures.py"):
        planned = rules(tree)
    assert "evaluate" in planned and "train" not in planned


@pytest.mark.parametrize("path", ["models/layers.py", "transforms.py", "training/loop.py"])
def test_change_of_model_data_or_loop_repeats_training(path, tree):
    with changed(tree / "lib/posebook" / path):
        assert "train" in rules(tree)
