"""The posebook command: help, errors, and what it prints."""

import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from posebook import cli, models


def refused(capsys, *words: str) -> str:
    """What a command says on stderr when it fails: one line, with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.err.startswith("error: ") and said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_shows_options_defaults_and_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0 and f"posebook {command} {cli.COMMANDS[command][3]}" in text
    assert "--debug" in text and "None" not in text
    if command in ("train", "evaluate", "predict", "lift", "export", "benchmark"):
        assert "(default: cpu)" in text


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_an_example_can_be_parsed(command):
    words = [word.strip("'") for word in cli.COMMANDS[command][3].split()]
    seen = []
    parts = cli.COMMANDS[command]
    cli.COMMANDS[command] = (*parts[:2], seen.append, parts[3])
    try:
        cli.main([command, *words])
    finally:
        cli.COMMANDS[command] = parts
    assert len(seen) == 1 and seen[0].command == command


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("command", ["train", "predict"])
def test_a_device_that_is_not_there(command, capsys, tmp_path):
    words = [str(tmp_path)] if command == "predict" else ["--out-dir", str(tmp_path / "out")]
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    assert "device cuda is not available" in refused(capsys, command, *words, "--device", "cuda")
    assert "unknown device 'gpu'" in refused(capsys, command, *words, "--device", "gpu")
    assert not (tmp_path / "out").exists()


def test_predicting_on_nothing_fails(capsys, tmp_path):
    assert "gone.jpg" in refused(capsys, "predict", str(tmp_path / "gone.jpg"))
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    with pytest.raises(SystemExit) as ended:
        cli.main(["predict", str(tmp_path / "broken.jpg"), "--out-dir", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert ended.value.code == 2 and "error: no image could be read" in said.err
    assert "broken.jpg cannot be decoded" in said.err


@pytest.mark.parametrize(
    "words, message",
    [
        (["train", "--model", "lapxx"], "unknown model 'lapxx'; did you mean lapx"),
        (["train", "--set", '{"epoch": 3}'], "unknown recipe field 'epoch'; did you mean epochs"),
        (["train", "--dataset", "coca"], "unknown dataset 'coca'"),
        (["train", "--data-root", "/nowhere"], "is not in /nowhere"),
        (["evaluate", "--weights", "gone.safetensors"], "is not in"),
        (["models", "resnet"], "unknown model 'resnet'"),
        (["grid", "lapxx-*"], "unknown grid row"),
        (["records", "archive", "gone.json"], "no record at gone.json"),
        (["lift", "gone.mp4"], "gone.mp4"),
    ],
)
def test_errors_are_one_line(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("POSEBOOK_DATA", str(tmp_path))
    assert message in refused(capsys, *words)


def test_debug_shows_the_traceback(capsys):
    with pytest.raises(ValueError, match="unknown model 'lapxx'"):
        cli.main(["train", "--model", "lapxx", "--debug"])


def test_models_are_listed_and_counted(capsys):
    cli.main(["models"])
    assert capsys.readouterr().out.split() == models.names()
    cli.main(["models", "starnet-pose-t"])
    text = capsys.readouterr().out
    assert re.search(r"parameters: 3,5\d\d,\d\d\d", text) and "exact: " in text


def test_the_grid_names_its_commands(capsys):
    cli.main(["grid", "lapx-1"])
    assert capsys.readouterr().out.strip().endswith("posebook train --grid lapx-1 --profile paper")


def test_records_are_listed(capsys):
    cli.main(["records", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 60 and any(line.startswith("benchmark-cpu  benchmark") for line in lines)


def test_a_model_is_exported(tmp_path, capsys):
    net = models.build("starnet-pose-t", input_size=(64, 64)).eval()
    models.save_weights(net, tmp_path / "w.safetensors", "starnet-pose-t")
    cli.main(["export", str(tmp_path / "net.onnx"), "--weights", str(tmp_path / "w.safetensors")])
    assert (tmp_path / "net.onnx").stat().st_size > 1e6 and "net.onnx" in capsys.readouterr().out


def test_modules_are_run_without_papermill_snakemake_or_pycocotools(small, tmp_path):
    """As on a bare GPU machine: LSPET-like data needs none of them."""
    code = (
        "import sys\n"
        "for name in ('papermill', 'snakemake', 'pycocotools', 'captum'): sys.modules[name] = None\n"
        "from posebook.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    recipe = json.dumps({"epochs": 1, "batch_size": 8, "input_size": [64, 64]})
    words = ["train", "--data-root", str(small), "--val-split", "none", "--profile", "fast", "--set", recipe]
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--out-dir", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert list((tmp_path / "runs").rglob("weights.safetensors"))
