"""The check of a GPU: its table, the processes of its sections, and each section with tiny sizes on a CPU."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from helpers import ROOT
from posebook import cli, records
from posebook.benchmark import gpu_check, gpu_sections, stand_ins
from posebook.benchmark.random_people import random_people
from posebook.training import recipes

TINY = asdict(gpu_check.TINY)
TRAINING = {
    "people_per_second": 5000.0,
    "input_size": [256, 192],
    "busy": 0.6,
    "joules_per_person": 0.5,
    "phases": {"data": 0.5, "forward": 0.2, "backward": 0.2, "optimizer": 0.1},
}


def test_length_of_a_union_of_intervals():
    rng = np.random.default_rng(0)
    for count in (0, 1, 5, 40):
        starts, lengths = rng.integers(0, 100, count), rng.integers(0, 20, count)
        intervals = [(int(start), int(start + length)) for start, length in zip(starts, lengths, strict=True)]
        covered = {second for start, end in intervals for second in range(start, end)}
        assert gpu_sections.union_length(intervals) == len(covered)


def test_table_compares_with_goals_and_computes_hours():
    results = {
        "train starnet-pose-t": TRAINING,
        "train lapx, compiled": TRAINING | {"busy": 0.95, "joules_per_person": None},
        "latency starnet-pose-t": {
            "eager fp32": {"milliseconds": 2.0, "joules": 0.1},
            "CUDA graph fp16": {"milliseconds": 0.4, "joules": None},
            "torch.compile fp32": {"why": "no compiler"},
        },
        "sample speed": {"held": 9000.0, "raw": 800.0, "workers": 4},
        "agreement": {"lapx float32": 1e-4, "lapx bf16": 0.9},
        "resume": {"difference": 0.0},
        "latency lapx": {"failed": "not finished after 90 s"},
    }
    rows = {row.what: row for row in gpu_check.table(results)}
    assert rows["train starnet-pose-t"].met is False and rows["train lapx, compiled"].met is True
    assert rows["train starnet-pose-t: device busy"].met is False
    hours = 210 * 149_813 / 5000 / 3600
    assert rows["train starnet-pose-t: paper's schedule on COCO"].value == f"{hours:.1f} hours"
    assert rows["latency starnet-pose-t, CUDA graph fp16"].met is True
    assert rows["latency starnet-pose-t, eager fp32"][1:] == ("2.00 ms, 0.100 J", "", None)
    assert rows["latency starnet-pose-t, torch.compile fp32"].value == "no compiler"
    assert rows["gradient lapx float32"].met is True and rows["gradient lapx bf16"].met is False
    assert rows["resume after kill -9"].met is True
    assert rows["latency lapx"].value == "failed: not finished after 90 s"
    text = gpu_check.as_text(list(rows.values()))
    assert "5,000 people/s" in text and "missed" in text and len(text.splitlines()) == len(rows) + 1


def test_page_states_hours_of_the_formula_and_that_no_record_is_from_a_gpu():
    page = (ROOT / "docs" / "gpu.md").read_text()
    rows = re.findall(r"\| (\S+) \| (\d+) \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \|", page)
    assert len(rows) == len(gpu_check.GOALS)
    for row, (model, goal) in zip(rows, gpu_check.GOALS.items(), strict=True):
        epochs = recipes.get("paper", model).epochs
        hours = epochs * gpu_check.COCO_PEOPLE / goal / 3600
        expected = (str(epochs), f"{goal:,}", f"{hours:.1f}", f"{hours / 8:.1f}")
        assert row[0].lower() == model and row[1:] == expected
    devices = [record["machine"]["device"] for record in records.load(records.ARCHIVE)]
    assert devices and not [device for device in devices if device.startswith("cuda")]


def test_bottleneck_is_the_host_the_device_or_a_phase():
    lines = gpu_check.bottlenecks(
        {
            "train a": TRAINING,
            "train b": TRAINING | {"busy": 0.95},
            "train c": TRAINING | {"busy": None},
            "resume": {},
        }
    )
    assert "waits for the host 40% of the time; the longest phase is data" in lines[0]
    assert "the device's work limits the speed, most in data" in lines[1]
    assert lines[2].startswith("train c: the longest phase is data (data 50%") and len(lines) == 3


def test_sections_together_may_not_exceed_ten_minutes_by_themselves():
    found = gpu_check.sections(gpu_check.Settings())
    assert len(found) == 9
    assert all(callable(getattr(gpu_sections, function)) for _, function, _ in found.values())


def test_limits_shrink_so_that_all_sections_end_in_ten_minutes(tmp_path, monkeypatch):
    now, limits = [0.0], []

    def slow(function, limit, **_):
        limits.append(max(limit, 0))
        now[0] += limits[-1]
        raise RuntimeError("slow")

    monkeypatch.setattr(gpu_check.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(gpu_check, "in_new_process", slow)
    gpu_check.run(replace(gpu_check.Settings(), device="cpu"), tmp_path)
    assert len(limits) > 2 and 0 < sum(limits) <= 600


def test_a_section_that_fails_or_hangs_states_the_reason():
    with pytest.raises(RuntimeError, match="no time was left"):
        gpu_check.in_new_process("latency", 0.0)
    with pytest.raises(RuntimeError, match="not finished after 0 s"):
        gpu_check.in_new_process("latency", 0.1, model="lapx", settings=TINY)
    with pytest.raises(RuntimeError, match="unknown model 'lapxx'; did you mean lapx"):
        gpu_check.in_new_process("latency", 300, model="lapxx", settings=TINY)


def test_a_failed_section_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    def fake(function, limit, **arguments):
        if function != "resume":
            raise RuntimeError("broken")
        return {"difference": 0.0}

    monkeypatch.setattr(gpu_check, "in_new_process", fake)
    monkeypatch.setattr(stand_ins, "is_stand_in", lambda name: name == "cv2")
    gpu_check.run(gpu_check.TINY, tmp_path)
    output = capsys.readouterr().out
    assert "agreement: broken" in output and "not installed here: cv2" in output
    (record,) = records.load(tmp_path / "records")
    assert record["metrics"]["goals_met"] == 1 and record["parameters"]["missing_packages"] == ["cv2"]
    assert record["metrics"]["sections"]["agreement"] == {"failed": "broken"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_command_ends_with_code_2(capsys, tmp_path):
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["gpu-check", "--out-dir", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert exit_info.value.code == 2 and error.count("\n") == 1 and "device cuda is not available" in error
    assert not (tmp_path / "out").exists()


def test_phases_of_a_training_fill_its_time():
    result = gpu_sections.train_speed("starnet-pose-t", TINY)
    assert result["people_per_second"] > 0 and result["batch_size"] == 8 and result["busy"] is None
    assert not [row for row in gpu_check.table({"train starnet-pose-t": result}) if "hours" in row.value]
    assert gpu_sections.kernel_seconds(lambda: None) is None or torch.cuda.is_available()
    assert list(result["phases"]) == ["data", "forward", "backward", "optimizer"]
    assert sum(result["phases"].values()) == pytest.approx(1) and min(result["phases"].values()) > 0


def test_gradients_of_another_precision_differ_little():
    recipe = gpu_sections.make_recipe("starnet-pose-t", TINY)
    exact, again, rounded = (
        gpu_sections.gradient(
            "starnet-pose-t", recipe, gpu_sections.RuntimeConfig("cpu", precision=precision)
        )
        for precision in ("float32", "float32", "bf16")
    )
    assert torch.equal(exact, again)
    assert 1e-4 < (rounded - exact).norm() / exact.norm() < gpu_check.TOLERANCES["bf16"]


@pytest.mark.parametrize(
    "code, message", [(1, "disk full"), (0, "the killed training started from the beginning")]
)
def test_a_training_that_does_not_resume_is_an_error(code, message, monkeypatch):
    codes = iter([code, -signal.SIGKILL, 0])

    def fake(command, **_):
        return subprocess.CompletedProcess(command, next(codes), "", "disk full\n")

    monkeypatch.setattr(gpu_sections.subprocess, "run", fake)
    with pytest.raises(RuntimeError, match=message):
        gpu_sections.resume(TINY)


def test_random_canvases_are_as_large_as_the_recipe_needs():
    recipe = recipes.get("paper", "starnet-pose-t")
    people, canvases = random_people(20, recipe, jpeg=True)
    _, raw = random_people(20, recipe)
    assert (
        canvases[3].shape == (canvases.side, canvases.side, 3)
        and len(canvases) == len(people.instances) == 20
    )
    assert (canvases[3] == canvases[19]).all() and not (canvases[3] == canvases[4]).all()
    assert np.abs(canvases[3].astype(int) - raw[3]).mean() < 10  # JPEG blurs colors
    assert (raw.tensor("cpu")[19].numpy() == raw[19]).all()


@pytest.mark.slow
def test_whole_check_on_a_cpu(tmp_path):
    """Each section in its own process, among them a training that is killed and resumed bit for bit."""
    command = [sys.executable, "-m", "posebook", "gpu-check", "--device", "cpu", "--out-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "records" / "gpu-check-cpu.json").read_text())
    sections = record["metrics"]["sections"]
    assert not [name for name, result in sections.items() if "failed" in result]
    assert sections["resume"] == {"difference": 0.0}
    assert "not comparable with the goals" in done.stdout
    assert "train starnet-pose-t: the longest phase" in done.stdout
    assert set(sections["sample speed"]) == {"held", "raw", "jpeg", "workers"}
