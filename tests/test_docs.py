"""The commands and programs of README.md and docs/ run as they are printed, or say why they are not run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from helpers import ROOT, load_script
from posebook import datasets, models
from posebook.report import browser

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = "# Not run by the tests"


def blocks(page: Path, runnable: bool) -> list[tuple[str, str]]:
    """Language and text of the page's blocks of code that the tests run, or of those they do not."""
    found = [
        (language, text) for language, text in BLOCK.findall(page.read_text()) if language in ("sh", "python")
    ]
    return [(language, text) for language, text in found if text.startswith(NOT_RUN) != runnable]


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_not_run_state_a_reason(page):
    for _, text in blocks(page, runnable=False):
        assert re.match(NOT_RUN + r"( as written)?[:.] \w+", text), text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_images_exist(page):
    text = BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_screenshot_is_shown():
    shown = "".join(page.read_text() for page in PAGES)
    assert [name for name in browser.SCREENSHOTS if f"{name}.webp)" not in shown] == []


@pytest.mark.parametrize("page, names", [("models", models.names()), ("datasets", datasets.names())])
def test_tables_list_every_model_and_dataset(page, names):
    rows = re.findall(r"^\|.*", (ROOT / "docs" / f"{page}.md").read_text(), re.MULTILINE)
    assert [name for name in names if f"`{name}`" not in "".join(rows)] == []


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder like a clone of the repository, with a dataset of a few synthetic people and one image."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "data").mkdir()
    for name in ("notebooks", "workflow", "lib", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    for path in (ROOT / "data").iterdir():
        if path.name not in ("synthetic", "packed"):
            (folder / "data" / path.name).symlink_to(path)
    command = [sys.executable, "-m", "posebook", "synthesize", "--root", "data/synthetic"]
    subprocess.run([*command, "--train-images", "24", "--val-images", "8"], cwd=folder, check=True)
    image = next((folder / "data" / "synthetic" / "val").glob("*.jpg"))
    for name in ("people.jpg", "photo.jpg"):
        cv2.imwrite(str(folder / name), cv2.imread(str(image)))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, runnable=True)], ids=lambda page: page.name
)
def test_commands_run_as_printed(page, clone, tmp_path):
    for path in clone.iterdir():  # each page starts from the same folder and leaves nothing for the next one
        (tmp_path / path.name).symlink_to(path)
    shutil.copytree(clone / "data", tmp_path / "data-copy", symlinks=True)
    (tmp_path / "data").unlink()
    (tmp_path / "data-copy").rename(tmp_path / "data")
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": programs, "POSEBOOK_DATA": str(tmp_path / "data")}
    for language, text in blocks(page, runnable=True):
        command = ["bash", "-euc", text] if language == "sh" else [sys.executable, "-c", text]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, f"{text}\n{result.stdout[-1500:]}\n{result.stderr[-3000:]}"


def test_architecture_page_is_up_to_date():
    architecture = load_script(ROOT / "docs" / "architecture.py")
    assert (ROOT / "docs" / "architecture.md").read_text() == architecture.page(), "run docs/architecture.py"


def test_readme_shows_the_archived_results_on_photographs():
    shown = re.findall(
        r"^   \| (\S+).*? \| ([\d.]+) \| ([\d.]+) to ([\d.]+) \|$", (ROOT / "README.md").read_text(), re.M
    )
    files = {"MoveNet": "movenet_lightning_int8", "BlazePose": "pose_landmark_full"}
    assert len(shown) == 4
    for name, *values in shown:
        file = files.get(name, name.strip("`"))
        record = json.loads((ROOT / "data" / "measured" / f"photographs-coco-{file}.json").read_text())
        assert values == [f"{value:.3f}" for value in (record["metrics"]["AP"], *record["interval"])]
