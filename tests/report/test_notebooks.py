"""The committed notebooks have no outputs, short cells and prose; every lesson is complete and runs."""

import ast
import csv
import importlib
import json
import os
import re
import statistics
import subprocess
import sys
import types

import nbformat
import pytest

from helpers import ROOT, load_script

NOTEBOOKS = sorted(
    path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)
LEARN = ROOT / "notebooks/learn"
COURSE = list(csv.DictReader((LEARN / "course.csv").read_text(encoding="utf-8").splitlines()))
LESSONS = [LEARN / f"{row['lesson']}.ipynb" for row in COURSE]
time_lessons = load_script(ROOT / "workflow/time_lessons.py")
LINK = re.compile(r"\]\(([^)#\s]+)")


def name(path) -> str:
    return str(path.relative_to(ROOT / "notebooks"))


@pytest.fixture(params=NOTEBOOKS, ids=name)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture(params=LESSONS, ids=name)
def lesson(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


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
    cells = [cell for cell in code(notebook) if "colab" not in tags(cell)]
    count, total = len(prose(notebook)), len(prose(notebook)) + len(cells)
    assert count / total >= 0.4, f"{count} of {total} cells are prose"
    assert statistics.median(len(cell.source.splitlines()) for cell in cells) < 8


def assigned(cell) -> set[str]:
    """The names that a cell of parameters assigns."""
    return {node.targets[0].id for node in ast.parse(cell.source).body}


def test_parameters_are_commented_and_read_by_a_later_cell(notebook):
    tagged = [cell for cell in code(notebook) if "parameters" in tags(cell)]
    assert len(tagged) <= 1
    for cell in tagged:
        assert all("  # " in line for line in cell.source.splitlines()), "every parameter needs a comment"
        later = code(notebook)[code(notebook).index(cell) + 1 :]
        nodes = [node for other in later for node in ast.walk(ast.parse(other.source))]
        read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        assert assigned(cell) and not assigned(cell) - read, "parameters that no cell reads"
        assert "not used" not in cell.source and "not read" not in cell.source


def test_defines_no_class(path, notebook):
    if path in LESSONS:
        pytest.skip("a lesson may define its model")
    for cell in code(notebook):
        source = "\n".join(line for line in cell.source.splitlines() if not line.startswith(("%", "!")))
        assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(ast.parse(source)))


def test_links_are_valid(path, notebook):
    for target in LINK.findall("\n".join(prose(notebook))):
        assert "://" in target or (path.parent / target).exists(), target


def test_modules_that_are_named_exist(notebook):
    for module in re.findall(r"\bposebook/[\w/]+\.py\b", "\n".join(prose(notebook))):
        assert (ROOT / "lib" / module).is_file(), module


def test_names_of_the_library_that_are_used_exist(notebook):
    """A name that the library no longer has would only be missed when the page is built."""
    nodes = [node for cell in code(notebook) for node in ast.walk(ast.parse(cell.source))]
    imported = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("posebook"):
            package = importlib.import_module(node.module)
            for alias in node.names:
                try:
                    value = getattr(package, alias.name)
                except AttributeError:
                    value = importlib.import_module(f"{node.module}.{alias.name}")
                imported[alias.asname or alias.name] = value
    assigned = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = imported.get(node.value.id)
            if isinstance(owner, types.ModuleType) and node.value.id not in assigned:
                assert hasattr(owner, node.attr), f"{owner.__name__}.{node.attr}"


def test_course_lists_all_lessons_after_their_prerequisites():
    order = [row["lesson"] for row in COURSE]
    assert sorted(["index", *order]) == sorted(path.stem for path in LEARN.glob("*.ipynb"))
    for place, row in enumerate(COURSE):
        assert set(row["builds on"].split()) <= set(order[:place]), (
            f"{row['lesson']} builds on a later lesson"
        )
        assert row["about"]


def test_lesson_states_its_content_early(lesson):
    assert "**What you will see.**" in "\n".join(prose(lesson)[:2])


def test_lessons_state_the_archived_durations():
    record = json.loads((ROOT / "data/measured/lessons.json").read_text())
    assert list(record["metrics"]) == time_lessons.lessons()
    for path in LESSONS:
        stated = time_lessons.sentence(record["metrics"][path.stem], record["parameters"]["cores"])
        first = nbformat.read(path, as_version=4).cells[0].source
        assert time_lessons.with_sentence(first, stated) == first and stated in first


@pytest.mark.parametrize(
    "seconds, stated",
    [(1, "5 seconds"), (57, "55 seconds"), (58, "1 minute"), (89, "1.5 minutes"), (120, "2 minutes")],
)
def test_durations_are_rounded(seconds, stated):
    assert time_lessons.sentence(seconds, 2) == f"It runs in about {stated} on 2 cores."
    text = "# A\n\n**Requirements.** PyTorch.\nTwo lines.\n\nMore."
    once = time_lessons.with_sentence(text, time_lessons.sentence(seconds, 2))
    assert once == text.replace("lines.", f"lines.\nIt runs in about {stated} on 2 cores.")
    assert time_lessons.with_sentence(once, "It runs in about 9 seconds on 8 cores.").count("It runs") == 1


def test_lesson_has_formula(lesson):
    assert re.search(r"\$[^$]*\\[^$]*\$", "\n".join(prose(lesson)))


def test_lesson_has_exercise_with_folded_solution_and_check(lesson):
    """Cells tagged `exercise` and `check`, if any, are between the question and the solution."""
    places = [i for i, cell in enumerate(lesson.cells) if cell.source.startswith("## Exercise")]
    assert places
    for place in places:
        solved = next(i for i in range(place, len(lesson.cells)) if "solution" in tags(lesson.cells[i]))
        assert not any(cell.source.startswith("## ") for cell in lesson.cells[place + 1 : solved])
        assert lesson.cells[solved - 1].source.endswith(
            "The solution is in the next cell, folded: try first."
        )
    solutions = [cell for cell in code(lesson) if "solution" in tags(cell)]
    for cell in solutions:
        assert cell.metadata.jupyter == {"source_hidden": True, "outputs_hidden": True}
    assert any(isinstance(node, ast.Assert) for cell in solutions for node in ast.parse(cell.source).body)


def test_lesson_ends_with_further_reading(lesson):
    last = lesson.cells[-1]
    assert last.cell_type == "markdown"
    assert last.source.startswith("## What you have seen, and what to read next\n")
    assert ".ipynb" in "".join(LINK.findall(last.source))


# Lessons that train for minutes: fewer epochs show that every cell runs.
SHORT = {"build_starnet_pose": ["-p", "epochs", "6"], "build_a_lifter": ["-p", "epochs", "1"]}


@pytest.mark.slow
@pytest.mark.parametrize("path", [LEARN / "index.ipynb", *LESSONS], ids=name)
def test_lesson_runs(path, tmp_path):
    options = [*SHORT[path.stem], "-p", "out_dir", str(tmp_path)] if path.stem in SHORT else []
    done = subprocess.run(
        [sys.executable, "-m", "posebook.report", "execute", str(path), str(tmp_path / path.name), *options],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    executed = nbformat.read(tmp_path / path.name, as_version=4)
    assert all(cell.execution_count for cell in code(executed) if cell.source.strip())
    kinds = {kind for cell in code(executed) for output in cell.outputs for kind in output.get("data", {})}
    assert any(kind.startswith("image/") for kind in kinds), "no image"
