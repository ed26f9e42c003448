"""Pages of runs, of notebooks that did not end, and single files."""

import os
import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from report_helpers import executed_notebook

from posebook.report import html, notebooks


def main_text(path) -> str:
    soup = BeautifulSoup(path.read_text(), "html.parser")
    return " ".join(soup.select_one("main").get_text(" ").split())


def unfinished() -> nbformat.NotebookNode:
    """What papermill has saved of a notebook whose second cell runs."""
    bars = [new_output("stream", name="stderr", text=f"\r {percent}%|#") for percent in (10, 20, 30)]
    cells = [
        new_code_cell("seed = 0", metadata={"tags": ["parameters"], "papermill": {"status": "completed"}}),
        new_code_cell("train()", outputs=bars, metadata={"papermill": {"status": "running"}}),
        new_code_cell("show()", metadata={"papermill": {"status": "pending"}}),
    ]
    return new_notebook(cells=[new_markdown_cell("# Train a model"), *cells])


def test_page_of_an_unfinished_run_says_so_and_shows_the_last_progress(tmp_path):
    folder = tmp_path / "executed" / "runs"
    folder.mkdir(parents=True)
    nbformat.write(unfinished(), folder / "lapx-3.ipynb")
    nbformat.write(executed_notebook(), folder.parent / "index.ipynb")
    html.export([folder.parent / "index.ipynb", folder / "lapx-3.ipynb"], tmp_path / "html")
    text = main_text(tmp_path / "html/runs/lapx-3.html")
    assert "stopped in cell 2 : the run was killed, or has not ended yet" in text
    assert "The same command continues the training from its last checkpoint." in text
    assert "30%|#" in text and "10%" not in text
    soup = BeautifulSoup((tmp_path / "html/runs/lapx-3.html").read_text(), "html.parser")
    assert soup.title.text.startswith("Train a model: lapx-3")
    links = soup.select('aside a[aria-current="page"]')
    assert [" ".join(link.text.split()) for link in links] == ["lapx-3 stopped"]


def test_a_folder_stands_for_the_newest_notebook_of_each_run(tmp_path):
    for age, name in enumerate(["b.ipynb", "b.failed.ipynb", "a.failed.ipynb", "a.ipynb"]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (age, age))
    given = [tmp_path / "runs.ipynb", tmp_path, tmp_path / "none"]
    names = [path.name for path in notebooks.expand_folders(given)]
    assert names == ["runs.ipynb", "a.ipynb", "b.failed.ipynb"]


def test_a_notebook_becomes_one_file(tmp_path):
    nbformat.write(executed_notebook(), tmp_path / "trained.ipynb")
    out = tmp_path / "new" / "page.html"
    notebooks.main(["convert", str(tmp_path / "trained.ipynb"), str(out)])
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    soup = BeautifulSoup(out.read_text(), "html.parser")
    assert soup.select_one("a.brand")["href"] == "#page"  # there is no front page
    assert not soup.select("script[src], link[rel=stylesheet], img[src^=http]")
    index = next(script.text for script in soup.select("script") if "posebookPassages =" in script.text)
    assert re.search(r'"heading":\s*"Loss"', index)


def test_a_file_of_another_type_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        notebooks.main(["convert", "trained.ipynb", "trained.docx"])
    assert "trained.docx must end in .html or .pdf" in capsys.readouterr().err


@pytest.mark.slow
def test_a_notebook_becomes_a_pdf(tmp_path, chromium):
    nbformat.write(executed_notebook(), tmp_path / "trained.ipynb")
    notebooks.main(["convert", str(tmp_path / "trained.ipynb"), str(tmp_path / "trained.pdf")])
    assert (tmp_path / "trained.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    "words, message",
    [
        (["execute", "gone.ipynb", "out.ipynb"], "no notebook at gone.ipynb"),
        (["convert", "gone.ipynb", "out.html"], "no notebook at gone.ipynb"),
        (["export", "html", "gone.ipynb"], "no notebook at gone.ipynb"),
        (
            ["execute", __file__, "out.ipynb", "-p", "out_dir", "[1"],
            "'[1' is neither JSON nor YAML: while parsing",
        ),
    ],
)
def test_wrong_input_is_one_line(words, message, capsys, monkeypatch):
    monkeypatch.setattr(notebooks, "exit_with_parent", lambda: None)
    with pytest.raises(SystemExit) as ended:
        notebooks.main(words)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith(f"error: {message}") and error.count("\n") == 1


def test_a_folder_of_runs_need_not_exist(tmp_path):
    """The report of a new clone has no runs."""
    nbformat.write(executed_notebook(), tmp_path / "index.ipynb")
    notebooks.main(["export", str(tmp_path / "html"), str(tmp_path / "index.ipynb"), str(tmp_path / "runs")])
    assert (tmp_path / "html" / "index.html").is_file()
