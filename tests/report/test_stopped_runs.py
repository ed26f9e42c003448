"""A run whose notebook is killed, runs out of disk space or time keeps its outputs and continues."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from bs4 import BeautifulSoup
from report_helpers import executed_notebook

from helpers import ROOT
from posebook.report import html, notebooks

SETTINGS = {"epochs": 8, "batch_size": 4, "input_size": [64, 64], "evaluate_every": 1, "stage2_epochs": 1}
PAGE = Path("executed", "runs", "tiny.ipynb")
LIMIT = 20_000_000  # bytes: a checkpoint has about 45 MB


def start(small, folder, **options) -> subprocess.Popen:
    """Start a training as Snakemake does, with a checkpoint every other step."""
    words = {"data_root": small, "profile": "fast", "out_dir": folder, "name": "tiny", "save_every": 2}
    words |= {"settings": json.dumps(SETTINGS)}
    command = [sys.executable, "-m", "posebook.report", "execute", "notebooks/train.ipynb", folder / PAGE]
    for name, value in words.items():
        command += ["-p", name, value]
    return subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TQDM_MININTERVAL": "0.1"},
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def last_step(folder: Path) -> int:
    steps = [int(path.stem.split("-")[-1]) for path in folder.rglob("checkpoint-*.safetensors")]
    return max(steps, default=0)


def wait_for_step(process: subprocess.Popen, folder: Path, step: int) -> None:
    """Wait until a training has a checkpoint of this step or a later one."""
    while last_step(folder) < step:
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.05)


def page(folder: Path, notebook: Path) -> str:
    """The text of the page of a notebook, in a report with a front page."""
    assert notebook.is_file()
    index = folder / "executed" / "index.ipynb"
    nbformat.write(executed_notebook(), index)
    html.export(notebooks.expand_folders([index, folder / PAGE.parent]), folder / "html")
    soup = BeautifulSoup((folder / "html" / "runs" / "tiny.html").read_text(), "html.parser")
    return " ".join(soup.select_one("main").get_text(" ").split())


@pytest.mark.slow
def test_a_stopped_run_keeps_its_outputs_and_continues(small, tmp_path):
    failed = (tmp_path / PAGE).with_suffix(".failed.ipynb")

    # The kernel is killed, for example because memory ran out.
    process = start(small, tmp_path)
    wait_for_step(process, tmp_path, 8)
    (kernel,) = psutil.Process(process.pid).children()
    kernel.kill()
    terminal = process.communicate()[1]
    assert process.returncode == 1 and "train.ipynb failed; its outputs so far" in terminal
    assert "epoch 1" in terminal and "sample/s" in terminal and "epoch=1/8" in terminal
    assert nbformat.read(failed, as_version=4).metadata.posebook.stopped.error == "Kernel died"
    text = page(tmp_path, failed)
    assert "This notebook stopped in cell" in text and "Kernel died" in text
    assert "The same command continues the training from its last checkpoint." in text
    assert "epoch 1" in text and text.count("sample/s") == 1  # one state of the progress bar

    # The time limit is over: SIGTERM. The training writes a checkpoint, and the notebook is saved.
    before = last_step(tmp_path)
    process = start(small, tmp_path)
    wait_for_step(process, tmp_path, before + 2)
    process.send_signal(signal.SIGTERM)
    terminal = process.communicate()[1]
    assert process.returncode == 1 and f"resuming from step {before}" in terminal
    assert f"stopped by SIGTERM after step {last_step(tmp_path)}" in terminal
    assert "SystemExit: 143" in page(tmp_path, failed)

    # The disk is full.
    before = last_step(tmp_path)
    process = start(
        small, tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    )
    terminal = process.communicate()[1]
    assert process.returncode == 1 and "cannot write the checkpoint of step" in terminal
    assert last_step(tmp_path) == before
    assert "Free some space, then run the same command again" in page(tmp_path, failed)

    # Papermill itself is killed: nothing marks the notebook, but its page shows that it did not end.
    process = start(small, tmp_path)
    wait_for_step(process, tmp_path, before + 2)
    for member in [*psutil.Process(process.pid).children(), psutil.Process(process.pid)]:
        member.kill()
    process.communicate()
    assert "the run was killed, or has not ended yet" in page(tmp_path, tmp_path / PAGE)

    process = start(small, tmp_path)
    terminal = process.communicate()[1]
    assert process.returncode == 0, terminal[-3000:]
    assert not failed.exists() and not (tmp_path / "records" / "tiny.before.json").exists()
    record = json.loads((tmp_path / "records" / "tiny.json").read_text())
    assert [point["epoch"] for point in record["curve"]] == list(range(1, SETTINGS["epochs"] + 1))
    text = page(tmp_path, tmp_path / PAGE)
    assert "resuming from step" in text and "This notebook stopped" not in text


def test_a_notebook_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys):
    import papermill

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(papermill, "execute_notebook", full)
    with pytest.raises(SystemExit):
        notebooks.execute(ROOT / "notebooks/records.ipynb", tmp_path / "out.ipynb", {})
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "out.ipynb cannot be written: [Errno 28] No space left on device. Run the same command" in error
