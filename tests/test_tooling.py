"""Configuration of continuous integration, pre-commit and packaging agrees with the repository."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from helpers import ROOT, load_script
from posebook.inference import runtimes

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_calls_targets_that_exist(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    workflow = yaml.safe_load(path.read_text())
    assert workflow.keys() >= {"name", "jobs"} and True in workflow  # YAML reads the key `on` as True
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        steps = [step["run"] for step in job["steps"] if "run" in step]
        called = {word for step in steps for word in re.findall(r"^make ([a-z-]+)", step, re.MULTILINE)}
        assert called and called <= targets


def test_templates_are_valid():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        template = yaml.safe_load(path.read_text())
        assert template.keys() >= {"name", "description", "body"}
        assert all({"type", "attributes"} <= field.keys() for field in template["body"])


def test_pre_commit_uses_the_pinned_ruff():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    revisions = {repository["repo"].rsplit("/", 1)[1]: repository["rev"] for repository in config["repos"]}
    pinned = re.search(r"^ruff==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert revisions.keys() == {"ruff-pre-commit", "nbstripout"}
    assert pinned and revisions["ruff-pre-commit"] == f"v{pinned[1]}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """An environment for commands that see the built wheel instead of the repository, and an empty folder."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # Built from a copy: setuptools writes build/ and lib/posebook.egg-info beside the sources.
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "clone")], check=True)
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*build, str(folder / "clone")], check=True)
    (path,) = folder.glob("posebook-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(path)], check=True)
    (folder / "empty").mkdir()
    return os.environ | {"PYTHONPATH": str(folder / "site")}, folder / "empty"


def posebook(wheel, *arguments: str) -> subprocess.CompletedProcess:
    environment, folder = wheel
    command = [sys.executable, "-m", "posebook", *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_wheel_predicts_and_trains_without_the_repository(wheel):
    environment, folder = wheel
    code = "import posebook; print(posebook.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=folder, capture_output=True, text=True
    )
    assert str(folder.parent) in where.stdout
    assert "starnet-pose-t" in posebook(wheel, "models").stdout
    made = posebook(wheel, "synthesize", "--root", "people", "--train-images", "24", "--val-images", "4")
    assert made.returncode == 0, made.stderr
    trained = posebook(
        wheel, "train", "--dataset", "synthetic", "--data-root", "people", "--profile", "overfit",
        "--set", '{"epochs": 1, "input_size": [64, 64]}',
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    (weights,) = (folder / "reports" / "runs").glob("*/weights.safetensors")
    image = next((folder / "people").rglob("*.jpg"))
    predicted = posebook(wheel, "predict", str(image), "--weights", str(weights), "--out-dir", "poses")
    assert predicted.returncode == 0, predicted.stderr
    assert list((folder / "poses").glob("*.json"))


@pytest.mark.slow
def test_wheel_names_what_needs_the_repository(wheel):
    refused = posebook(wheel, "grid")
    assert refused.returncode == 2
    assert re.fullmatch(r".*grid\.csv is part of the posebook repository.*\n", refused.stderr), refused.stderr


def test_listed_constructions_are_found_with_line_and_advice():
    check = load_script(ROOT / "workflow" / "check_english.py")
    assert check.find("Each joint has one weight.\nRaises Value" + "Error where the file is damaged.") == [
        (2, "ValueError " + "where", "use 'if'")
    ]
    assert check.find("It stands" + " beside the record. Each image an hour.") != []
    assert check.find("We keep one image per person, which is not large.") == []


@pytest.mark.parametrize("target", ["benchmark", "benchmark-archive"])
def test_make_passes_parameters_that_the_benchmark_has(target):
    printed = subprocess.run(
        ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    given = yaml.safe_load(re.search(r"-y '(\{.*?\})'", printed, re.DOTALL)[1])
    cells = json.loads((ROOT / "notebooks/benchmark.ipynb").read_text())["cells"]
    declared = next("".join(c["source"]) for c in cells if c["metadata"].get("tags") == ["parameters"])
    assert given.keys() <= set(re.findall(r"^(\w+) =", declared, re.MULTILINE))
    assert given["wanted"] == ["all"] or set(given["wanted"]) <= runtimes.RUNTIMES.keys()
