"""The address of the repository, its copies in README.md and notebooks, and the installation in Colab."""

import json
import os
import shutil
import subprocess
import sys

import nbformat
import pytest

from helpers import ROOT

FILES = ("pyproject.toml", "README.md", "notebooks/learn/simcc.ipynb", "notebooks/explore.ipynb")
ADDRESS = "https://github.com/someone/posebook-copy"


@pytest.fixture
def copy(tmp_path):
    """A folder with the files that contain the address, and the modules that the script imports."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "lib/posebook").mkdir(parents=True)
    for name in ("__init__.py", "paths.py", "utils.py"):
        shutil.copy(ROOT / "lib/posebook" / name, tmp_path / "lib/posebook" / name)
    return tmp_path


def set_repository(folder, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "workflow/set_repository.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(folder / "lib")}
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)


def contents(folder) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in FILES}


def colab_cells(folder, name: str) -> list[str]:
    cells = nbformat.read(folder / name, as_version=4).cells
    assert [i for i, cell in enumerate(cells) if cell["id"] == "colab"] == [1]
    return [cell.source for cell in cells if cell["id"] == "colab"]


def test_repository_has_the_current_copies(copy):
    before = contents(copy)
    assert set_repository(copy).returncode == 0
    assert contents(copy) == before


def test_one_command_sets_the_address_everywhere(copy):
    assert set_repository(copy, ADDRESS).returncode == 0
    first = contents(copy)
    assert f'[project.urls]\nRepository = "{ADDRESS}"\n' in first["pyproject.toml"]
    for link in ("someone.github.io/", "gh/someone/", "github/someone/"):
        assert f"{link}posebook-copy/" in first["README.md"]
    for name in FILES[2:]:
        assert f'REPOSITORY = "{ADDRESS}"' in colab_cells(copy, name)[0]
    other = ADDRESS.replace("someone", "another")
    assert set_repository(copy, other).returncode == 0
    assert contents(copy) == {name: text.replace("someone", "another") for name, text in first.items()}


def test_other_addresses_are_refused(copy):
    before = contents(copy)
    run = set_repository(copy, "git@github.com:someone/posebook")
    assert run.returncode == 2 and len(run.stderr.splitlines()) == 1
    assert "is not an address like https://github.com/OWNER/NAME" in run.stderr
    assert contents(copy) == before


SESSION = """
import json, sys, types
sys.executable = {python!r}
if {colab}:
    sys.modules["google.colab"] = types.ModuleType("google.colab")
{cell}
import os
print(json.dumps([os.getcwd(), sys.path[0]]))
"""


@pytest.mark.parametrize("colab", [True, False])
def test_cell_installs_only_in_colab(tmp_path, copy, colab):
    """In place of pip, a script notes its arguments. -S hides the packages of this environment."""
    repository, session = tmp_path / "repository", tmp_path / "session"
    for folder in (repository, session):
        folder.mkdir()
    git = ["git", "-C", str(repository), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "empty"], check=True)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@" > arguments\n')
    python.chmod(0o755)
    (cell,) = colab_cells(copy, "notebooks/explore.ipynb")
    cell = cell.replace('REPOSITORY = ""', f'REPOSITORY = "{repository.as_uri()}"')
    code = SESSION.format(python=str(python), colab=colab, cell=cell)
    command = [sys.executable, "-S", "-E", "-c", code]
    run = subprocess.run(command, cwd=session, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    folder, first = json.loads(run.stdout.splitlines()[-1])
    if colab:
        assert (folder, first) == (str(session / "posebook"), "lib")
        assert (session / "arguments").read_text() == "-m pip install -q -e posebook[notebooks]\n"
    else:
        assert folder == str(session) and not any(session.iterdir())


def test_binder_installs_the_pinned_versions():
    lines = (ROOT / ".binder/requirements.txt").read_text().splitlines()
    assert "-c ../constraints.txt" in lines and "-e .[notebooks]" in lines
    assert os.access(ROOT / ".binder/postBuild", os.X_OK)
