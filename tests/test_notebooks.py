"""The committed notebooks: clean, short-celled, half prose; and every lesson runs."""

import ast
import os
import statistics
import subprocess
import sys

import nbformat
import pytest

from conftest import ROOT

NOTEBOOKS = sorted(
    path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)
LESSONS = [path for path in NOTEBOOKS if path.parent.name == "learn"]
MEANS_THE_SAME = {"model", "dataset", "data_root", "profile", "device", "seed", "out_dir"}


def name(path) -> str:
    return str(path.relative_to(ROOT / "notebooks"))


@pytest.fixture(params=NOTEBOOKS, ids=name)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_is_valid_and_committed_without_outputs(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code(notebook):
        assert cell.execution_count is None
        assert cell.outputs == []
        assert "execution" not in cell.metadata


def test_opens_with_a_title(notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")


def test_is_half_prose_in_short_cells(notebook):
    cells = code(notebook)
    prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    assert len(prose) / len(notebook.cells) >= 0.4, f"{len(prose)} of {len(notebook.cells)} cells are prose"
    assert statistics.median(len(cell.source.splitlines()) for cell in cells) < 8


def test_parameters_each_with_a_comment(path, notebook):
    tagged = [cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", [])]
    if path in LESSONS:
        assert len(tagged) <= 1
        return
    (cell,) = tagged
    lines = cell.source.splitlines()
    assert all("  # " in line for line in lines), "every parameter says what it is"
    names = {node.targets[0].id for node in ast.parse(cell.source).body}
    assert names >= MEANS_THE_SAME


def test_defines_no_class(path, notebook):
    if path in LESSONS:
        pytest.skip("a lesson may build its net on the page")
    for cell in code(notebook):
        source = "\n".join(line for line in cell.source.splitlines() if not line.startswith(("%", "!")))
        assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(ast.parse(source)))


def test_there_are_lessons():
    assert {path.stem for path in LESSONS} >= {"start_here", "star_operation", "simcc"}


@pytest.mark.slow
@pytest.mark.parametrize("path", LESSONS, ids=name)
def test_lesson_runs(path, tmp_path):
    done = subprocess.run(
        [sys.executable, "report/run.py", "execute", str(path), str(tmp_path / path.name)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    executed = nbformat.read(tmp_path / path.name, as_version=4)
    assert all(cell.execution_count for cell in code(executed) if cell.source.strip())
