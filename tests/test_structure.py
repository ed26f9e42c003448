"""The structure of the package: imports go down the levels, and nothing is found by counting folders."""

import ast
import re
import subprocess
import sys
import warnings

import pytest

import posebook
from helpers import ROOT
from posebook import import_graph

LEVELS = [
    {"cli", "__main__"},
    {"report"},
    {"papers"},
    {"lifting", "benchmark"},
    {"training", "inference"},
    {"evaluation"},
    {"datasets", "explain"},
    {"models", "transforms"},
    {
        "codecs",
        "complexity",
        "import_graph",
        "losses",
        "migration",
        "paths",
        "records",
        "skeletons",
        "downloads",
        "utils",
        "__init__",
    },
]
LEVEL = {name: len(LEVELS) - number for number, names in enumerate(LEVELS) for name in names}
FILES = sorted(import_graph.PACKAGE.rglob("*.py"))


def part(path) -> str:
    """The package or module of the top level that a file belongs to."""
    return path.relative_to(import_graph.PACKAGE).parts[0].removesuffix(".py")


def test_every_file_has_a_level():
    assert {part(path) for path in FILES} == LEVEL.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(import_graph.PACKAGE)))
def test_imports_go_down(path):
    if path.name == "__main__.py":  # python -m posebook.training is the command
        return
    names = import_graph.imported_names(ast.parse(path.read_text()))
    parts = {name.split(".")[1] for name in names if name.count(".")} & LEVEL.keys()
    above = {name for name in parts - {part(path)} if LEVEL[name] > LEVEL[part(path)]}
    assert not above, f"imports {above} from above"


def test_nothing_is_found_by_counting_folders():
    for folder in ("lib", "tests", "workflow"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not re.search(r"parents?\[\d", path.read_text().replace('r"parents', "")), path


def test_a_change_of_any_imported_file_changes_the_hash_of_a_run(tmp_path, monkeypatch):
    """The lifters' loss and data, which an earlier hash left out, among them."""
    names = {
        str(path.relative_to(import_graph.PACKAGE))
        for path in import_graph.closure([import_graph.PACKAGE / "lifting/training.py"])
    }
    assert {"lifting/clips.py", "lifting/training.py", "lifting/recipes.py", "training/loop.py"} <= names
    copied = tmp_path / "posebook"
    subprocess.run(["cp", "-r", str(import_graph.PACKAGE), str(copied)], check=True)
    monkeypatch.setattr(import_graph, "PACKAGE", copied)
    import_graph._direct.cache_clear()
    before = import_graph.code_hash(["posebook.lifting.training"])
    for name in ("lifting/clips.py", "lifting/training.py", "training/optimizer.py"):
        text = (copied / name).read_text()
        (copied / name).write_text(text + "\n# changed\n")
        assert import_graph.code_hash(["posebook.lifting.training"]) != before, name
        (copied / name).write_text(text)
    (copied / "models" / "hrnet.py").write_text("# another model\n")
    assert import_graph.code_hash(["posebook.lifting.training"]) == before
    import_graph._direct.cache_clear()


def test_former_module_names_still_work_with_a_warning():
    for name, new in posebook._FORMER_MODULES.items():
        with pytest.warns(DeprecationWarning, match=f"posebook.{name} is now posebook.{new}"):
            assert getattr(posebook, name) is sys.modules[f"posebook.{new}"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert callable(posebook.training.train) and callable(posebook.evaluation.evaluate)
        assert callable(posebook.export)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = posebook.nothing


def test_importing_posebook_is_quick():
    code = "import sys, posebook; assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tests_are_short_and_do_not_import_each_other():
    for path in (ROOT / "tests").rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path
        assert not re.search(r"^(from|import) test_", text, re.MULTILINE), path


def test_tests_mirror_the_package():
    packages = {path.name for path in import_graph.PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    folders = {path.parent.name for path in (ROOT / "tests").rglob("test_*.py")} - {
        "tests",
        "workflow",
        "pages",
    }
    assert folders == packages
