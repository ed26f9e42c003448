"""What `make reproduce`, `make site` and `make grid` run, and how failing notebooks are handled."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from report_helpers import changed, execute, executed_notebook, rules, snakemake

from helpers import ROOT
from posebook.models import published
from posebook.training import trainer
from posebook.training.config import TrainConfig

TRAINED = "train-starnet-pose-t-synthetic-14-from-starnet-pose-t-synthetic-demo-seed0"


RECORD = f"{{}}/reports/records/{TRAINED}.json"


def test_change_of_renderer_repeats_rendering_and_training(tree):
    with changed(tree / "lib/posebook/datasets/synthetic/__init__.py"):
        assert {"people", "train", "evaluate"} <= set(rules(tree))


def test_the_demo_training_writes_the_record_that_pages_read(tree):
    assert RECORD.format("").lstrip("/") in snakemake(tree, "--dry-run", "--forceall")
    weights = "data/weights/starnet-pose-t-synthetic.safetensors"
    assert trainer.run_name(TrainConfig(init=weights), "synthetic-14", (128, 96)) == TRAINED


def test_change_of_initial_weights_repeats_training(tree):
    with changed(tree / "data/weights/starnet-pose-t-synthetic.safetensors"):
        assert {"train", "evaluate"} <= set(rules(tree))


def test_notebooks_get_only_parameters_that_they_declare(tree):
    planned = snakemake(tree, "--dry-run", "--forceall", "--printshellcmds", "--config", "site=1")
    commands = re.findall(r"posebook\.report execute (\S+) \S+(.*)", planned)
    assert {"notebooks/train.ipynb", "notebooks/tables/speed.ipynb"} < {notebook for notebook, _ in commands}
    for notebook, arguments in commands:
        given = set(re.findall(r"-p (\w+)", arguments))
        cells = nbformat.read(ROOT / notebook, as_version=4).cells
        declared = [c.source for c in cells if "parameters" in c.metadata.get("tags", [])]
        assert given <= set(re.findall(r"^(\w+) =", "\n".join(declared), re.MULTILINE)), notebook


def test_after_failure_pages_use_existing_files(tree):
    """With failed=1, the stopped notebook is exported, and tables do without its record."""
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


def test_profile_paper_measures_available_models_and_data(tree):
    """Own files and published weights are evaluated, with both boxes if the detector's file exists."""
    made = ["data/mpii/annotations/x", "data/coco/annotations/x", "data/checkpoints/lapx-mpii-256x256.pth"]
    made += ["data/checkpoints/lapx-coco-384x288.pth.tar", "data/checkpoints/lpn-50-crowdpose-256x192.pth"]
    made += ["data/coco/person_detection_results/COCO_val2017_detections_AP_H_56_person.json"]
    made += ["data/checkpoints/starnet_s1.pth.tar"]  # the backbone of StarNet-Pose-T, but not that of S
    for name in made:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    try:
        planned = snakemake(tree, "--dry-run", "--printshellcmds", "--config", "profile=paper")
        trained = snakemake(tree, "--dry-run", "--config", "profile=paper", "device=cuda")
    finally:
        for name in ("mpii", "coco", "checkpoints"):
            shutil.rmtree(tree / "data" / name)
    commands = re.findall(r"execute notebooks/evaluate\.ipynb (reports/executed/runs/.+)", planned)
    own = [command for command in commands if "-p weights data/checkpoints/" in command]
    assert len(own) == 2  # CrowdPose is missing
    assert sum("-p boxes data/coco/person_detection_results/" in command for command in own) == 1
    (mpii,) = (command for command in own if "mpii" in command)
    assert mpii.startswith("reports/executed/runs/evaluate-lapx-mpii-256x256-paper-seed0.ipynb ")
    assert "-p weights data/checkpoints/lapx-mpii-256x256.pth -p trained_on mpii" in mpii
    assert "-p input_size '[256, 256]' -p model lapx -p dataset mpii -p data_root data/mpii" in mpii
    named = [command for command in commands if command not in own]
    lines = [line for line in published.load_table() if line.url and line.weights in ("coco", "mpii")]
    assert len(named) == len(lines)
    assert any("-p weights coco -p model rtmpose-t -p dataset coco" in line for line in named)
    assert not any("crowdpose" in command for command in named)
    assert "notebooks/train.ipynb reports/executed/runs/" not in planned  # without GPU
    assert "evaluate-lapx-coco-384x288-paper-seed0-detector.json" in planned
    wanted = {"starnet-pose-t-coco", "lapx-coco", "lapx-mpii"}
    wanted |= {
        "amfacpose-r34-coco",
        "amfacpose-r18-coco",
    }  # not CrowdPose, which is missing, nor COCO-mini
    assert set(re.findall(r"output: reports/records/train-(.+)-paper-seed0\.json", trained)) == wanted


@pytest.mark.slow
def test_failing_lesson_gives_page_and_error(tree, tmp_path):
    """`make site` with a failing lesson, and again after it is repaired."""
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
        "browser",
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
def test_requested_grid_rows_are_planned(tree):
    paper = planned_rows(tree, "profile=paper", "device=cuda", "rows=lapx-12*,amfacpose-3")
    assert sorted(re.findall(r"output: reports/records/(.+)\.json", paper)) == [
        "amfacpose-3",
        "lapx-12-seed0",
        "lapx-12-seed1",
        "lapx-12-seed2",
    ]
    assert "notebooks/train.ipynb reports/executed/runs/amfacpose-3.ipynb -p model amfacpose" in paper
    assert "-p profile paper -p device cuda" in paper and "-p pack jpeg" in paper
    assert paper.count("gpu=1") == 4
    demo = planned_rows(tree, "rows=sweep-08-02")
    assert "output: reports/records/sweep-08-02-demo.json" in demo and "gpu=1" not in demo
    assert "-p data_root data/synthetic" in demo and "-p name sweep-08-02-demo" in demo
    done = tree / "reports/records/amfacpose-3.json"
    done.touch()
    try:
        again = planned_rows(tree, "profile=paper", "device=cuda", "rows=amfacpose-*")
        assert "records/amfacpose-4.json" in again and "-p name amfacpose-3 " not in again
    finally:
        done.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["reproduce", "grid"])
def test_make_passes_valid_arguments_to_snakemake(target, tree):
    output = subprocess.run(
        ["make", "-n", target, "ROWS=lapx-3"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    (command,) = (line for line in output.splitlines() if "/snakemake " in line)
    words = [sys.executable, "-m", "snakemake", *shlex.split(command.split("||")[0])[1:], "--dry-run"]
    done = subprocess.run(words, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert ("-p name lapx-3" in done.stdout + done.stderr or "run " in done.stdout) == (target == "grid")


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings, message",
    [
        (["rows=lapy-3"], "unknown grid row 'lapy-3'; did you mean lapx-3"),
        ([], "no rows are named: make grid ROWS='lapx-*'; `posebook grid` lists them"),
        (["rows="], "no rows are named: make grid ROWS='lapx-*'; `posebook grid` lists them"),
        (["rows=attention-cbam", "profile=paper"], "data/checkpoints/starnet_s3.pth.tar"),
    ],
)
def test_invalid_rows_fail_before_any_work(settings, message, tree):
    command = [sys.executable, "-m", "snakemake", "grid", "--dry-run", "--cores", "2", "--nolock"]
    command += ["--config", *settings] if settings else []
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert done.returncode != 0 and message in done.stderr + done.stdout


@pytest.mark.slow
def test_requested_studies_are_planned(tree):
    arguments = "--dry-run", "--printshellcmds", "--config"
    priors = snakemake(tree, *arguments, "study=priors", target="study")
    assert priors.count("execute notebooks/train_lifter.ipynb reports/executed/runs/study-priors-") == 15
    assert priors.count("reports/executed/runs/study-pruning-full-") == 5  # MixSTE, an arm of both
    assert "study-pruning-h2ot" not in priors
    assert "--occluded" not in priors  # lifters need no rendered people
    everything = snakemake(tree, *arguments, "study=", target="study")
    for notebook in ("train", "evaluate"):
        command = f"execute notebooks/{notebook}.ipynb reports/executed/runs/study-dropout-"
        assert everything.count(command) == 15
    assert "--occluded" in everything


@pytest.mark.slow
def test_misspelled_study_is_an_error_before_any_work(tree):
    command = [sys.executable, "-m", "snakemake", "study", "--dry-run", "--cores", "2", "--nolock"]
    done = subprocess.run(
        [*command, "--config", "study=priors,prunning"], cwd=tree, capture_output=True, text=True
    )
    message = "no study 'prunning': choose from dropout, pruning, priors"
    assert done.returncode != 0 and message in done.stderr + done.stdout


def test_missing_dataset_is_rendered_if_needed(tree):
    annotations = tree / "data/synthetic/annotations"
    annotations.rename(annotations.with_name("gone"))
    try:
        with changed(tree / "lib/posebook/explain/attribution.py"):
            assert {"people", "attribution"} <= set(rules(tree))
    finally:
        annotations.with_name("gone").rename(annotations)


def test_dataset_notebook_and_rule_use_same_number_of_images():
    text = (ROOT / "workflow" / "Snakefile").read_text() + (ROOT / "notebooks/dataset.ipynb").read_text()
    assert len(re.findall(r"1200 if profile == .{0,2}demo.{0,2} else 8000", text, re.IGNORECASE)) == 2


def test_unknown_profile_fails_before_any_work(tree):
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "report", "--dry-run", "--nolock", "--config", "profile=dmo"],
        cwd=tree,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "dmo" in done.stderr + done.stdout and "demo" in done.stderr + done.stdout


@pytest.mark.slow
def test_failing_notebook_prints_traceback_and_fails(tmp_path):
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
def test_unknown_parameter_fails_with_suggestion(tmp_path):
    done = execute(ROOT / "notebooks/index.ipynb", tmp_path / "out.ipynb", "-p", "out_dri", "1")
    assert done.returncode == 2
    assert "has no parameter 'out_dri'; did you mean out_dir?" in done.stderr
    assert not (tmp_path / "out.ipynb").exists()
