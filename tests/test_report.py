"""From executed notebooks to pages, and what `make reproduce` would run after a change."""

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import cv2
import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from conftest import ROOT
from posebook.report import browser
from posebook.report import html as pages
from posebook.report import notebooks as run
from posebook.training import trainer

TRAINED = "train-starnet-pose-t-synthetic-14-from-starnet-pose-t-synthetic-demo-seed0"
RECORD = f"{{}}/reports/records/{TRAINED}.json"
PROSE = r"""# A page: with a title

See [the speeds](tables/speed.ipynb), [a page that is not here](learn/none.ipynb) and
[the paper](https://example.org/paper).

## Loss

The divergence of two distributions. It is not symmetric.

$$D(p \,\|\, q) = \sum_i p_i \log \frac{p_i}{q_i}, \quad \hat x = \operatorname*{arg\,max}_i p_i$$

Here $p_i$ is the label's."""
PARAMETERS = """model = "starnet-pose-t"  # which net
seed = 0  # of everything random"""
ROWS = [
    ["T", "72.00", "900 µs"],
    ["", "not measured", ""],
    ["S", "−1,072.5<sup>a</sup>", "3.5 ms"],
    ["L", "–", "1 s"],
    ["M", "8 ± 0.3", "12 ms"],
    ["all", "72.00", ""],
]
TABLE = "<style scoped>td {color: red}</style><table border='1'>"
TABLE += "<thead><tr><th></th><th>AP</th><th>time</th></tr></thead><tbody>"
TABLE += (
    "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in ROWS) + "</tbody></table>"
)


def picture() -> str:
    _, png = cv2.imencode(".png", np.full((20, 900, 3), 200, np.uint8))
    return base64.b64encode(png.tobytes()).decode()


def executed_notebook() -> nbformat.NotebookNode:
    outputs = [
        new_output("stream", name="stderr", text="\r 10%|# | a progress bar"),
        new_output("stream", name="stdout", text="epoch 1 done"),
        new_output("display_data", {"image/png": picture(), "text/plain": "<Figure>"}),
        new_output("display_data", {"text/html": TABLE, "text/plain": "net AP"}),
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "HBox()"}),
    ]
    notebook = new_notebook(
        cells=[
            new_markdown_cell(PROSE),
            new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            new_code_cell("seed = 7", metadata={"tags": ["injected-parameters"]}),
            new_code_cell("loss = kl(p, q)", outputs=outputs, execution_count=1),
            new_code_cell(
                "assert loss == 0.25",
                metadata={"tags": ["solution"]},
                outputs=[new_output("stream", name="stdout", text="a quarter")],
                execution_count=2,
            ),
        ]
    )
    notebook.metadata["papermill"] = {
        "parameters": {"seed": 7},
        "start_time": "2026-01-02T03:04:05",
        "duration": 3.2,
    }
    notebook.metadata["posebook"] = {
        "code": {"commit": "0123456789abcdef", "dirty": False, "version": "0.1.0"},
        "machine": {"device": "cpu: one", "platform": "Linux", "python": "3.11", "torch": "2.13.0"},
    }
    return notebook


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """A report of two pages, exported once."""
    folder = tmp_path_factory.mktemp("report")
    for name in ("index", "tables/speed"):
        path = folder / "executed" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(executed_notebook(), path)
    pages.export([folder / "executed/index.ipynb", folder / "executed/tables/speed.ipynb"], folder / "html")
    return folder / "html"


@pytest.fixture(scope="module")
def page(report) -> BeautifulSoup:
    return BeautifulSoup((report / "index.html").read_text(), "html.parser")


def test_page_loads_nothing(page):
    assert page.select("[src]")
    assert all(element["src"].startswith("data:") for element in page.select("[src]"))
    assert all(element["href"].startswith("data:") for element in page.select("link"))
    assert not page.select("script[src]")
    assert not re.search(r"url\(|@import", page.style.text)
    assert page.title.text == "A page: with a title · posebook"


def with_a_scene() -> nbformat.NotebookNode:
    """An executed notebook with a skeleton to turn, as figures_3d.scene leaves it for a page."""
    from posebook.lifting import synthetic_motion
    from posebook.report import figures_3d

    (clip,) = synthetic_motion.make_clips(1, frames=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSEBOOK_STILL", "1")
        made = figures_3d.scene({"truth": clip.pose, "again": clip.pose}, clip.fps, clip.camera).data
    notebook = executed_notebook()
    shown = new_output("display_data", {"text/html": made, "text/plain": "<HTML>"})
    notebook.cells.insert(1, new_code_cell("scene()", outputs=[shown], execution_count=9))
    return notebook


def test_what_draws_in_space_lies_once_beside_the_pages(tmp_path):
    pytest.importorskip("plotly")
    for name in ("index", "learn/one", "learn/two"):
        path = tmp_path / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(with_a_scene() if "/" in name else executed_notebook(), path)
    pages.export(
        [tmp_path / f"{name}.ipynb" for name in ("index", "learn/one", "learn/two")], tmp_path / "html"
    )
    scripts = sorted(path.relative_to(tmp_path / "html").as_posix() for path in tmp_path.rglob("*.js"))
    assert scripts == ["plotly.min.js", "search.js"]
    page = BeautifulSoup((tmp_path / "html/learn/one.html").read_text(), "html.parser")
    (scene,) = page.select("figure.scene")
    assert (tmp_path / "html/learn" / scene["data-library"]).resolve() == tmp_path / "html/plotly.min.js"
    assert json.loads(scene.script.string)["frames"] and scene.img["alt"].startswith("truth, again")
    assert not page.select("script[src]")  # fetched when it is looked at
    assert (tmp_path / "html/learn/one.html").stat().st_size < 500_000


def test_no_library_without_a_scene(report):
    assert not (report / "plotly.min.js").exists()


def test_code_is_folded_and_outputs_are_not(page):
    (fold,) = [fold for fold in page.select("details.code") if fold["class"] == ["code"]]
    assert "open" not in fold.attrs and "kl(p, q)" in fold.text.replace("\xa0", " ")
    assert "epoch 1 done" in page.select_one(".outputs").text
    assert not page.select_one("details img, details.code:not(.solution) .outputs")


def test_a_solution_is_folded_with_its_output(page):
    (fold,) = page.select("details.solution")
    assert "open" not in fold.attrs and fold.summary.text == "solution"
    assert "assert loss" in fold.text.replace("\xa0", " ") and "a quarter" in fold.select_one(".outputs").text
    assert not fold.select("details")


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/**/*.ipynb")), ids=lambda path: path.stem)
def test_the_formulae_of_every_page_can_be_shown(path):
    """Rendered as on the page, which raises for what MathML cannot show: lessons are exported late."""
    exporter, shown = pages.PageExporter(), ""
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            shown += exporter.markdown2html({}, cell.source)
    formulae = sum("$$" in cell.source for cell in nbformat.read(path, 4).cells)
    assert shown.count("<math") >= formulae and "$$" not in shown


def test_no_progress_bar_and_no_widget(page):
    assert "progress bar" not in page.text
    assert "HBox" not in page.text


@pytest.mark.parametrize("length, kept", [(300, "image/svg+xml"), (3000, "image/png")])
def test_a_picture_is_shown_in_its_smaller_form(length, kept):
    both = {"image/png": "A" * 800, "image/svg+xml": "<svg>" + "." * length}
    assert set(pages.pick_smaller_format({"data": both})["data"]) == {kept}
    alone = {"data": {"image/png": "A"}}
    assert (
        pages.pick_smaller_format(alone) == {"data": {"image/png": "A"}}
        and pages.pick_smaller_format({}) == {}
    )


def test_parameters_show_this_run_and_their_meaning(page):
    rows = [
        [cell.text for cell in row.select("th, td")] for row in page.select("details.parameters tbody tr")
    ]
    assert rows == [["model", "'starnet-pose-t'", "which net"], ["seed", "7", "of everything random"]]
    assert "seed = 7" not in page.select_one("main").text  # papermill's own cell is not shown as code


def test_formulas_are_mathml(page):
    block, *inline = page.select("math")
    assert block["display"] == "block" and block.select("mfrac")
    assert len(inline) == 1
    assert "$" not in page.select_one("main").text


def test_an_unknown_command_of_tex_is_refused():
    with pytest.raises(ValueError, match="nosuchthing"):
        pages.formula_mathml(r"\nosuchthing x", "inline")


def test_picture_has_words(page):
    assert page.img["alt"] == "Loss. Here p i is the label's"


def test_table_scrolls_in_its_own_box_with_figures_to_the_right(page):
    box = page.select_one(".outputs .scroll")
    assert box["tabindex"] == "0" and box.table and box["aria-label"] == "table: Loss"
    assert "border" not in box.table.attrs and not page.select("style[scoped]")
    rows = [row.select("td") for row in box.select("tbody tr")]
    assert len(rows) == 5 and box.select_one("tfoot td").text == "all"


def test_columns_of_figures_stand_to_the_right():
    cells = "<tr><td>T</td><td>72.00</td></tr><tr><td>S</td><td>−1.5</td></tr>"
    soup = BeautifulSoup(f"<table><tr><th>net</th><th>AP</th></tr>{cells}</table>", "html.parser")
    pages.style_table(soup.table, soup)
    assert ["number" in cell.get("class", []) for cell in soup.select("td")] == [False, True, False, True]


def test_the_search_has_every_passage_with_a_link_that_is_there(report):
    text = (report / "search.js").read_text()
    found = json.loads(text.removeprefix("window.posebookPassages = ").removesuffix(";\n"))
    assert [(one["page"], one["heading"], one["href"]) for one in found[:2]] == [
        ("A page: with a title", "A page: with a title", "index.html"),
        ("A page: with a title", "Loss", "index.html#Loss"),
    ]
    assert "not symmetric" in found[1]["text"] and len(found) == 4
    assert broken(report, [one["href"] for one in found], report / "index.html") == []


def broken(root: Path, links: list[str], page: Path) -> list[str]:
    """Those of a page's links that lead to no page under `root`, or to no element of it."""
    lost = []
    for link in links:
        path, _, fragment = link.partition("#")
        if "://" in path or path.startswith(("mailto:", "data:")):
            continue
        target = (page.parent / unquote(path)).resolve() if path else page
        known = ids(target) if target.is_relative_to(root) and target.exists() else None
        if known is None or (fragment and unquote(fragment) not in known):
            lost.append(f"{page.name}: {link}")
    return lost


@cache
def ids(page: Path) -> set[str]:
    return {element["id"] for element in BeautifulSoup(page.read_text(), "html.parser").select("[id]")}


# a notebook that stopped


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A report of a page that is whole and one whose notebook stopped in its second cell."""
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
    pages.export([folder / "index.ipynb", folder / "train.failed.ipynb"], folder / "html")
    return folder / "html"


def test_a_notebook_that_stopped_says_so_on_its_page(stopped):
    page = BeautifulSoup((stopped / "train.html").read_text(), "html.parser")
    told = page.select_one("main p.stopped")
    assert "stopped in cell 2: ZeroDivisionError: division by <zero>" in told.text
    fold = page.select_one(f"details{told.a['href']}")
    assert fold.summary.text == "ZeroDivisionError: division by <zero>" and "open" not in fold.attrs
    assert "1 / 0" in fold.pre.text
    assert "An exception was met" not in page.text  # papermill's own words


def test_a_notebook_that_stopped_is_marked_in_every_list_of_pages(stopped):
    for name in ("index", "train"):
        page = BeautifulSoup((stopped / f"{name}.html").read_text(), "html.parser")
        assert [link["href"] for link in page.select("aside a:has(.stopped)")] == ["train.html"]
    assert not BeautifulSoup((stopped / "index.html").read_text(), "html.parser").select("main .stopped")


def test_parameters_that_are_no_python_stop_the_notebook_not_the_page():
    cell = new_code_cell("seed = = 1", metadata={"tags": ["parameters"]})
    assert pages.parameters(new_notebook(cells=[cell])) == []


def test_links_go_to_pages(page, report):
    links = {link.text: link["href"] for link in page.select("main .prose a")}
    assert links == {"the speeds": "tables/speed.html", "the paper": "https://example.org/paper"}
    for folder in (report, report / "tables"):
        for path in folder.glob("*.html"):
            soup = BeautifulSoup(path.read_text(), "html.parser")
            assert len(soup.select("aside a[aria-current]")) == 1
            for link in soup.select("aside a, nav.onward a"):
                assert (path.parent / link["href"]).exists()


def test_footer_says_where_it_comes_from(page):
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
def test_a_page_that_would_load_something_is_refused(source, tmp_path):
    nbformat.write(new_notebook(cells=[new_markdown_cell(f"# Title\n\n{source}")]), tmp_path / "index.ipynb")
    with pytest.raises(ValueError, match="would load"):
        pages.export([tmp_path / "index.ipynb"], tmp_path / "html")


def test_the_headline_names_what_stopped(tmp_path, capsys):
    front = new_code_cell("", metadata={"tags": ["headline"]}, execution_count=1)
    front.outputs = [new_output("display_data", {"text/markdown": "- **12 of 40** cells"})]
    nbformat.write(new_notebook(cells=[front]), tmp_path / "index.ipynb")
    run.headline(tmp_path, tmp_path / "index.html")
    assert "12 of 40 cells" in capsys.readouterr().out
    about = {"posebook": {"stopped": {"cell": 3, "error": "KeyError: 'AP'"}}}
    (tmp_path / "tables").mkdir()
    nbformat.write(new_notebook(metadata=about), tmp_path / "tables" / "speed.failed.ipynb")
    (tmp_path / "index.ipynb").unlink()  # it may be the one that failed
    run.headline(tmp_path, tmp_path / "index.html")
    said = capsys.readouterr().err
    assert "STOPPED in cell 3" in said and "tables/speed.failed.ipynb" in said and "KeyError: 'AP'" in said


def test_without_a_browser_the_commands_that_need_one_say_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(browser, "NAMES", ["chromium"])
    for words in (["pdf", "page.html", f"{tmp_path}/page.pdf"], ["screenshots", "html", f"{tmp_path}/docs"]):
        with pytest.raises(SystemExit) as ended:
            run.main(words)
        assert ended.value.code == 2
        assert "apt-get install chromium" in capsys.readouterr().err


# what make reproduce runs


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of what the Snakefile reads, with every output of the demo in place and up to date."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("lib", "notebooks", "workflow"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("published", "measured", "weights"):
        (folder / "data" / name).mkdir(parents=True)
    for name in ("claims", "errata", "grid"):
        (folder / "data" / f"{name}.csv").touch()
    for path in (ROOT / "data" / "weights").glob("*-synthetic.safetensors"):
        (folder / "data" / "weights" / path.name).touch()
    for name in ("dataset", "train", "evaluate", "benchmark", "attribution"):
        (folder / "notebooks" / f"{name}.ipynb").touch()
    planned = snakemake(folder, "--dry-run")
    for output in re.findall(r"^    output: (.+)$", planned, re.MULTILINE):
        for path in output.split(", "):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()
    snakemake(folder, "--touch")
    return folder


def snakemake(folder: Path, *arguments: str, target: str = "report") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", target, "--cores", "2", "--nolock", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    return done.stdout + done.stderr


def rules(folder: Path) -> list[str]:
    """The rules that would run now, one entry a job."""
    return sorted(re.findall(r"^(?:local)?rule (\w+):", snakemake(folder, "--dry-run"), re.MULTILINE))


@contextmanager
def changed(path: Path):
    """The file with a line more, and then as it was, to the second."""
    before, stat = path.read_text(), path.stat()
    path.write_text(before + ("\n" if path.suffix == ".ipynb" else "\n# changed\n"))  # still JSON
    try:
        yield
    finally:
        path.write_text(before)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_nothing_changed_runs_nothing(tree):
    assert rules(tree) == []


@pytest.mark.parametrize(
    "path, runs",
    [
        ("notebooks/tables/speed.ipynb", ["export", "index", "report", "table"]),
        ("notebooks/index.ipynb", ["export", "index", "report"]),
        ("lib/posebook/report/template/style.css", ["export", "report"]),
    ],
)
def test_a_change_runs_what_it_must(path, runs, tree):
    with changed(tree / path):
        assert rules(tree) == runs


def test_a_change_of_plots_does_not_train_again(tree):
    with changed(tree / "lib/posebook/report/figures.py"):
        planned = rules(tree)
    assert "evaluate" in planned and "train" not in planned


@pytest.mark.parametrize("path", ["models/layers.py", "transforms.py", "training/loop.py"])
def test_a_change_of_net_data_or_training_trains_again(path, tree):
    with changed(tree / "lib/posebook" / path):
        assert "train" in rules(tree)


def test_a_change_of_the_renderer_draws_and_trains_again(tree):
    with changed(tree / "lib/posebook/datasets/synthetic/__init__.py"):
        assert {"people", "train", "evaluate"} <= set(rules(tree))


def test_the_front_page_says_what_training_changed(tree):
    assert RECORD.format("").lstrip("/") in snakemake(tree, "--dry-run", "--forceall")
    weights = "data/weights/starnet-pose-t-synthetic.safetensors"
    assert trainer.run_name("starnet-pose-t", {}, "synthetic-14", [], weights, "demo-seed0") == TRAINED
    cells = nbformat.read(ROOT / "notebooks/index.ipynb", as_version=4).cells
    names = {}
    exec(next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])), names)
    assert names["trained"] == TRAINED
    exec(next(cell.source for cell in cells if "def training(" in cell.source), names)
    record = {
        "wall_seconds": 121.0,
        "evaluated": {"name": "synthetic-14", "split": "val", "persons": 756},
        "before": {"metrics": {"AP": 0.3577}},
        "metrics": {"AP": 0.5},
        "difference": {"value": 0.1423, "interval": [0.12, 0.16], "images": 400},
    }
    assert names["training"](record) == (
        "- **0.358 → 0.500 AP** by 2 min of training from the shipped weights: +0.142, "
        "95 % interval +0.120 to +0.160, 756 people of synthetic-14 val"
    )


def test_other_initial_weights_train_again(tree):
    with changed(tree / "data/weights/starnet-pose-t-synthetic.safetensors"):
        assert {"train", "evaluate"} <= set(rules(tree))


def test_after_a_failure_the_rest_is_made_from_what_there_is(tree):
    """With failed=1 the notebook that stopped is shown as it is, and its record left out of the tables."""
    page, record = tree / "reports/executed/train.ipynb", RECORD.format(tree)
    failed = page.with_suffix(".failed.ipynb")
    gone = [(path, f"{path}.gone") for path in (page, record)]
    for path, aside in gone:
        os.rename(path, aside)
    failed.touch()
    try:
        again = snakemake(tree, "--dry-run", "--config", "failed=1")
    finally:
        failed.unlink()
        for path, aside in gone:
            os.rename(aside, path)
    assert "rule train:" not in again and "rule index:" in again
    (pages,) = re.findall(r"^    input: (.*search\.js|.*page\.js.*)$", again, re.MULTILINE)
    assert "reports/executed/train.failed.ipynb" in pages and "reports/executed/train.ipynb" not in pages
    assert rules(tree) == []


def test_profile_paper_measures_what_lies_there(tree):
    """Authors' weights are evaluated, in both kinds of boxes where the detector's file is there."""
    made = ["data/mpii/annotations/x", "data/coco/annotations/x", "data/checkpoints/lapx-mpii-256x256.pth"]
    made += ["data/checkpoints/lapx-coco-384x288.pth.tar", "data/checkpoints/lpn-50-crowdpose-256x192.pth"]
    made += ["data/coco/person_detection_results/COCO_val2017_detections_AP_H_56_person.json"]
    for name in made:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    try:
        planned = snakemake(tree, "--dry-run", "--printshellcmds", "--config", "profile=paper")
        trained = snakemake(tree, "--dry-run", "--config", "profile=paper", "device=cuda")
    finally:
        for name in ("mpii", "coco", "checkpoints"):
            shutil.rmtree(tree / "data" / name)
    commands = re.findall(r"posebook\.evaluation (.+)", planned)
    assert len(commands) == 3  # CrowdPose is not there
    assert sum("--boxes data/coco/person_detection_results/" in command for command in commands) == 1
    (mpii,) = (command for command in commands if "mpii" in command)
    assert "--weights data/checkpoints/lapx-mpii-256x256.pth --model lapx --input-size 256 256" in mpii
    assert "--dataset mpii --trained-on mpii --profile paper --device cpu" in mpii
    assert "posebook.training" not in planned  # no GPU here
    assert "evaluate-lapx-coco-384x288-paper-seed0-detector.json" in planned
    wanted = {"starnet-pose-t-coco", "starnet-pose-s-coco", "lapx-coco", "lapx-mpii"}
    wanted |= {"amfacpose-r34-coco", "amfacpose-r18-coco"}  # CrowdPose is not there, COCO-mini is the grid's
    assert set(re.findall(r"output: reports/records/train-(.+)-paper-seed0\.json", trained)) == wanted


@pytest.mark.slow
def test_a_lesson_that_fails_leaves_a_site_and_a_failure(tree, tmp_path):
    """`make site` once with a lesson that fails, and again once it is mended."""
    folder = shutil.copytree(tree, tmp_path / "tree")
    for path in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / path, folder)
    shutil.rmtree(folder / "notebooks" / "learn")
    for path in (folder / "reports/executed").rglob("*.ipynb"):
        nbformat.write(executed_notebook(), path)
    for name in (
        "attribution/amfacpose-r18",
        "attribution/lapx",
        "attribution/vitpose-s-two-sets",
        "attention",
        "occlusion",
        "training_speed",
        "learn/index",
    ):
        page = folder / "reports/executed" / f"{name}.ipynb"
        page.parent.mkdir(exist_ok=True)
        nbformat.write(executed_notebook(), page)
    lesson = folder / "notebooks/learn/bad.ipynb"
    lesson.parent.mkdir()
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    course = [new_markdown_cell("# The course"), new_code_cell("1")]
    nbformat.write(new_notebook(cells=course, metadata=kernel), lesson.parent / "index.ipynb")
    (lesson.parent / "course.csv").write_text("lesson,builds on,about\n")
    snakemake(folder, "--touch", "--config", "site=1")
    (lesson.parent / "course.csv").write_text("lesson,builds on,about\nbad,,what fails\n")
    cells = [new_markdown_cell("# Bad: does it end?"), new_code_cell("1 / 0")]
    nbformat.write(new_notebook(cells=cells, metadata=kernel), lesson)
    make = ["make", "site", "-o", "setup", f"VENV={sys.prefix}", "CORES=1"]
    done = subprocess.run(make, cwd=folder, capture_output=True, text=True)
    assert done.returncode != 0
    assert "STOPPED in cell 1" in done.stderr and "ZeroDivisionError" in done.stderr
    page = folder / "reports/html/learn/bad.html"
    assert page.is_file(), done.stderr[-3000:]
    assert "This notebook stopped" in page.read_text()
    cells[1].source = "1 / 1"
    nbformat.write(new_notebook(cells=cells, metadata=kernel), lesson)
    done = subprocess.run(make, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "STOPPED" not in done.stderr
    assert "This notebook stopped" not in page.read_text()


def planned_rows(tree: Path, *settings: str) -> str:
    return snakemake(tree, "--dry-run", "--printshellcmds", "--config", *settings, target="grid")


@pytest.mark.slow
def test_rows_of_the_grid_are_planned_as_they_are_asked_for(tree):
    paper = planned_rows(tree, "profile=paper", "device=cuda", "rows=lapx-12*,amfacpose-3")
    assert sorted(re.findall(r"output: reports/records/(.+)\.json", paper)) == [
        "amfacpose-3",
        "lapx-12-seed0",
        "lapx-12-seed1",
        "lapx-12-seed2",
    ]
    assert "posebook.training --grid amfacpose-3 --profile paper --device cuda" in paper
    assert paper.count("gpu=1") == 4
    demo = planned_rows(tree, "rows=sweep-08-02")
    assert "output: reports/records/sweep-08-02-demo.json" in demo and "gpu=1" not in demo
    assert "--grid sweep-08-02 --profile demo --device cpu" in demo
    done = tree / "reports/records/amfacpose-3.json"
    done.touch()
    try:
        again = planned_rows(tree, "profile=paper", "device=cuda", "rows=amfacpose-*")
        assert "records/amfacpose-4.json" in again and "--grid amfacpose-3" not in again
    finally:
        done.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["reproduce", "grid"])
def test_make_asks_for_what_snakemake_knows(target, tree):
    said = subprocess.run(
        ["make", "-n", target, "ROWS=lapx-3"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    (command,) = (line for line in said.splitlines() if "/snakemake " in line)
    words = [sys.executable, "-m", "snakemake", *shlex.split(command.split("||")[0])[1:], "--dry-run"]
    done = subprocess.run(words, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert ("--grid lapx-3" in done.stdout + done.stderr or "run " in done.stdout) == (target == "grid")


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings, message",
    [
        (["rows=lapy-3"], "unknown row of the grid 'lapy-3'; did you mean lapx-3"),
        ([], "unknown row of the grid ''; did you mean attention-none or attention-cbam"),
        (["rows=attention-cbam", "profile=paper"], "data/checkpoints/starnet_s3.pth.tar"),
    ],
)
def test_rows_that_cannot_be_made_are_refused_before_any_work(settings, message, tree):
    command = [sys.executable, "-m", "snakemake", "grid", "--dry-run", "--cores", "2", "--nolock"]
    command += ["--config", *settings] if settings else []
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert done.returncode != 0 and message in done.stderr + done.stdout


def test_a_lost_dataset_is_made_again_once_it_is_needed(tree):
    annotations = tree / "data/synthetic/annotations"
    annotations.rename(annotations.with_name("gone"))
    try:
        with changed(tree / "lib/posebook/explain/attribution.py"):
            assert {"people", "attribution"} <= set(rules(tree))
    finally:
        annotations.with_name("gone").rename(annotations)


def test_the_dataset_page_finds_the_people_drawn_before_it():
    text = (ROOT / "workflow" / "Snakefile").read_text() + (ROOT / "notebooks/dataset.ipynb").read_text()
    assert len(re.findall(r"1200 if profile == .{0,2}demo.{0,2} else 8000", text, re.IGNORECASE)) == 2


def test_an_unknown_profile_is_refused_before_any_work(tree):
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "report", "--dry-run", "--nolock", "--config", "profile=dmo"],
        cwd=tree,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "dmo" in done.stderr + done.stdout and "demo" in done.stderr + done.stdout


# with a kernel


def execute(notebook: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "posebook.report", "execute", str(notebook), str(out), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_failing_notebook_shows_its_traceback_and_fails(tmp_path):
    cells = [
        new_code_cell("scale = 0  # of nothing", metadata={"tags": ["parameters"]}),
        new_code_cell("1 / scale"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / "bad.ipynb")
    done = execute(tmp_path / "bad.ipynb", tmp_path / "out.ipynb")
    assert done.returncode == 1
    assert "ZeroDivisionError: division by zero" in done.stderr and "bad.ipynb failed" in done.stderr
    assert not (tmp_path / "out.ipynb").exists() and (tmp_path / "out.failed.ipynb").exists()
    assert execute(tmp_path / "bad.ipynb", tmp_path / "out.ipynb", "-p", "scale", "2").returncode == 0
    assert (tmp_path / "out.ipynb").exists() and not (tmp_path / "out.failed.ipynb").exists()


@pytest.mark.slow
def test_an_unknown_parameter_is_refused_with_the_near_one(tmp_path):
    done = execute(ROOT / "notebooks/index.ipynb", tmp_path / "out.ipynb", "-p", "sede", "1")
    assert done.returncode == 2
    assert "'sede'" in done.stderr and "seed" in done.stderr
    assert not (tmp_path / "out.ipynb").exists()
