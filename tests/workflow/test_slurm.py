"""A grid of trainings on a real Slurm, with the profile users get, while a machine is lost beneath it."""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from slurm import cluster

from helpers import ROOT
from posebook import records

pytest.importorskip("snakemake_executor_plugin_slurm", reason="the extra `cluster` is not installed")


@pytest.fixture
def slurm():
    if why := cluster.missing():
        pytest.skip(f"no Slurm here: {why}")
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))  # not tmp_path: a socket's path is short
    try:
        cluster.start(folder)
        yield folder
    finally:
        cluster.stop(folder)
        shutil.rmtree(folder)


def said(work: Path) -> dict[int, str]:
    """What each run has said so far, by its seed."""
    return {int(path.stem): path.read_text() for path in (work / "logs").glob("*.log")}


def in_the_middle(work: Path, node: str) -> int | None:
    """The seed of a run on a node that has a checkpoint after its first and no record yet."""
    for seed, text in said(work).items():
        name = f"train-starnet-pose-t-synthetic-64x64-demo-seed{seed}"
        checkpoints = list((work / "reports" / "runs").glob(f"{name}-*/checkpoint-*[1-9]*.safetensors"))
        ended = (work / "reports" / "records" / f"{name}.npz").exists()
        if text.count("started on") == text.count(f"started on {node}") == 1 and checkpoints and not ended:
            return seed
    return None


def wait_for(what, seconds: float, shown: Path):
    """What `what` returns once it is not None; fails with the end of a file after so many seconds."""
    until = time.monotonic() + seconds
    while (found := what()) is None:
        assert time.monotonic() < until, shown.read_text()[-3000:]
        time.sleep(0.05)
    return found


@pytest.mark.slow
def test_a_grid_outlives_a_lost_machine_and_a_killed_run(slurm, small, tmp_path):
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(ROOT / "tests" / "workflow" / "slurm" / "Snakefile"),
    ]
    command += ["--profile", str(ROOT / "workflow" / "profiles" / "slurm"), "--directory", str(tmp_path)]
    command += ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2"]
    command += ["--config", f"small={small}"]
    environment = cluster.environment(slurm) | {"PYTHONPATH": str(ROOT / "lib")}
    out = tmp_path / "snakemake.log"
    with out.open("w") as file:
        grid = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        # A machine is lost with all that runs on it; on the other a training is killed, as if out of memory.
        lost = wait_for(lambda: in_the_middle(tmp_path, "node1"), 60, out)
        cluster.kill_node(slurm, "node1")
        killed = wait_for(lambda: in_the_middle(tmp_path, "node2"), 60, out)
        cluster.kill(cluster.processes(slurm, "node2", "-m\0posebook.training"))
        wait_for(lambda: cluster.states(slurm)["node1"].startswith("down") or None, 60, out)
        cluster.start_node(slurm, "node1")
        assert grid.wait(timeout=240) == 0, out.read_text()[-3000:]
    finally:
        grid.kill()
    # Slurm queues again what the lost machine ran, Snakemake what failed.
    assert "due to failure of node node1" in (slurm / "slurmctld.log").read_text()
    assert out.read_text().count("Trying to restart job") == 1
    names = [f"train-starnet-pose-t-synthetic-64x64-demo-seed{seed}" for seed in range(3)]
    found = records.load(tmp_path / "reports" / "records")
    assert [record["name"] for record in found] == names
    assert {path.suffix for path in (tmp_path / "reports" / "records").iterdir()} == {".json", ".npz"}
    for record in found:
        text, touched = said(tmp_path)[record["seed"]], record["seed"] in (lost, killed)
        assert [point["epoch"] for point in record["curve"]] == [1, 2, 3, 4]
        assert text.count(f"reports/records/{record['name']}.json") == 1  # trained to the end once
        assert text.count("started on") == 1 + touched
        assert text.count("resuming from step") == touched
    before = [Path(record["path"]).stat().st_mtime_ns for record in found]
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and "Nothing to be done" in again.stderr + again.stdout
    assert [Path(record["path"]).stat().st_mtime_ns for record in found] == before
