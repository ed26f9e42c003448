"""Parameters are checked inside every notebook, and printed messages also reach the terminal."""

import ast
import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

import IPython
import nbformat
import pytest

from helpers import ROOT
from posebook.report import notebooks, running

NOTEBOOKS = sorted(
    path
    for path in (ROOT / "notebooks").rglob("*.ipynb")
    if not {"learn", ".ipynb_checkpoints"} & set(path.parts)
)
DECLARED = {"count": 1, "rate": 0.5, "dark": False, "model": "lapx", "sides": [1], "boxes": None}


@pytest.mark.parametrize(
    "given",
    [
        {"count": 0, "rate": 1, "dark": True, "model": "", "sides": [], "boxes": "file.json"},
        {"boxes": None},
        {"boxes": [1, 2]},
        {},
    ],
)
def test_declared_parameters_of_the_right_type_are_accepted(given):
    running.check_parameters(DECLARED, given)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"modle": "lapx"}, "the notebook has no parameter 'modle'; did you mean model"),
        ({"x": 1}, "did you mean count or rate or dark or model or sides or boxes"),
        ({"count": "2"}, "parameter count must be of type int, as 1, not '2'"),
        ({"count": True}, "parameter count must be of type int, as 1, not True"),
        ({"count": 1.5}, "of type int"),
        ({"rate": "fast"}, "parameter rate must be of type float, as 0.5, not 'fast'"),
        ({"dark": 1}, "of type bool, as False, not 1"),
        ({"model": None}, "of type str, as 'lapx', not None"),
        ({"sides": 2}, r"of type list, as \[1\], not 2"),
    ],
)
def test_other_parameters_are_rejected(given, message):
    with pytest.raises(ValueError, match=message):
        running.check_parameters(DECLARED, given)
    if next(iter(given)) not in DECLARED:
        with pytest.raises(ValueError, match="it declares none"):
            running.check_parameters({}, given)


def test_assigned_values_are_the_literals_of_a_cell():
    source = 'a = 1  # one\nb: str = "x"\nc = float("nan")\nd = {"e": [1, None]}\nprint(a)\n'
    assert running.assigned_values(source) == {"a": 1, "b": "x", "c": None, "d": {"e": [1, None]}}


@pytest.mark.parametrize(
    "cells, message",
    [
        (["", 'model = "lapx"', '# Parameters\nmodle = "lapx"\n', "now"], "did you mean model"),
        (["", "seed = 0", '# Parameters\nseed = "0"\n', "now"], "parameter seed must be of type int"),
        (["", "# Parameters\nseed = 0\n", "now"], "it declares none"),
        (["", "seed = 0", "# Parameters\nseed = 1\n", "now"], None),
        (["", "seed = 0", "now"], None),
        (["", "colab = 1", "seed = 0", "# Parameters\nsed = 1\n", "now"], "did you mean seed"),
        (["", "1", "2", "3", "# Parameters\nx = 1\n"], None),  # an interactive session
    ],
)
def test_the_cell_of_papermill_is_checked(monkeypatch, cells, message):
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(user_ns={"In": cells}))
    if message is None:
        running.check_injected()
    else:
        with pytest.raises(ValueError, match=message):
            running.check_injected()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_checks_its_parameters_directly_after_its_first_imports(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    if cells[0]["id"] == "colab":
        cells.pop(0)
    if "parameters" in cells[0].metadata.get("tags", []):
        cells.pop(0)
    statements = ast.parse(cells[0].source).body
    while isinstance(statements[0], ast.Import | ast.ImportFrom):
        statements.pop(0)
    assert ast.unparse(statements[0]) == "running.check_injected()"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_rejects_a_parameter_that_it_does_not_declare(path):
    declared = notebooks.declared_parameters(path)
    running.check_parameters(declared, declared)
    for name in declared:
        with pytest.raises(ValueError, match=f"no parameter '{name}_'; did you mean .*{name}"):
            running.check_parameters(declared, {f"{name}_": declared[name]})


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, message",
    [
        (["-p", "modle", "lapx"], "ValueError: the notebook has no parameter 'modle'; did you mean model"),
        (["-p", "seed", "one"], "ValueError: parameter seed must be of type int, as 0, not 'one'"),
    ],
)
def test_papermill_stops_before_any_work(words, message, tmp_path):
    command = [sys.executable, "-m", "papermill", "notebooks/train.ipynb", str(tmp_path / "out.ipynb")]
    done = subprocess.run([*command, "-k", "python3", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and message in done.stderr
    cells = [c for c in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in cells if cell.execution_count] == [1, 2, 3]


def test_messages_are_kept_and_copied_to_stderr():
    with redirect_stderr(io.StringIO()) as terminal, redirect_stdout(running.Messages()) as messages:
        print("epoch 1")
    assert messages.getvalue() == terminal.getvalue() == "epoch 1\n"


def test_only_the_last_state_of_a_progress_bar_is_kept():
    text = "start\n\r 10%|#\r 20%|##\r 30%|###\nepoch 1\r\n\r 40%"
    assert running.without_progress(text) == "start\n 30%|###\nepoch 1\r\n 40%"
