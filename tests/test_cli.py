"""The posebook command: help, errors and output."""

import importlib
import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from posebook import cli, models, records
from posebook.inference import export, tflite
from posebook.lifting import starpose
from posebook.report import notebooks
from posebook.training import multi_dataset


def run_failing(capsys, *words: str) -> str:
    """Run a command that fails with exit code 2, and return the single line that it prints to stderr."""
    with pytest.raises(SystemExit) as exit_info:
        cli.main(words)
    error = capsys.readouterr().err
    assert exit_info.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    "words, said",
    [
        (("download", "unknown"), "invalid choice: 'unknown'"),
        (("models", "--unknown"), "unrecognized arguments: --unknown"),
        (("evaluate",), "required: --weights"),
        (("trian",), "invalid choice: 'trian'"),
        (
            ("train", "--options", "[1]"),
            "argument --options: '[1]' is not a JSON object, such as {\"name\": 1}",
        ),
        (("train-lifter", "--set", "[1]"), "argument --set: '[1]' is not a JSON object"),
        (("train-lifter", "--prune", "{"), "argument --prune: '{' is not JSON: "),
        ((), "required: COMMAND"),
    ],
)
def test_a_wrong_command_line_is_one_line_that_names_the_help(words, said, capsys):
    error = run_failing(capsys, *words)
    assert said in error and error.endswith("--help\n")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_shows_options_defaults_and_an_example(command, capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main([command, "--help"])
    text = capsys.readouterr().out
    assert exit_info.value.code == 0 and f"posebook {command} {cli.EXAMPLES[command]}" in text
    assert "--debug" in text and "None" not in text
    if command in ("train", "evaluate", "predict", "lift", "export", "benchmark"):
        assert "(default: cpu)" in text


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_example_can_be_parsed(command, monkeypatch):
    calls = []
    add_options, _, summary = cli.COMMANDS[command]
    monkeypatch.setitem(cli.COMMANDS, command, (add_options, calls.append, summary))
    cli.main([command, *(word.strip("'") for word in cli.EXAMPLES[command].split())])
    assert len(calls) == 1 and calls[0].command == command


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("command", ["train", "predict"])
def test_unavailable_device(command, capsys, tmp_path):
    words = [str(tmp_path)] if command == "predict" else ["--out-dir", str(tmp_path / "out")]
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    assert "device cuda is not available" in run_failing(capsys, command, *words, "--device", "cuda")
    assert "unknown device 'gpu'" in run_failing(capsys, command, *words, "--device", "gpu")
    for device in ("meta", "xpu"):
        expected = f"device {device} is not available (posebook runs on cpu, cuda and mps): use --device cpu"
        assert expected in run_failing(capsys, command, *words, "--device", device)
    assert not (tmp_path / "out").exists()


def test_predict_fails_without_a_readable_image(capsys, tmp_path):
    assert "gone.jpg" in run_failing(capsys, "predict", str(tmp_path / "gone.jpg"))
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    words = ["predict", str(tmp_path / "broken.jpg"), "--out-dir", str(tmp_path / "out")]
    error = run_failing(capsys, *words)
    assert "no image could be read: " in error and "broken.jpg cannot be decoded" in error


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
        (
            ["train-lifter", "--set", '{"seed": 1}'],
            "--set changes fields of the recipe; seed has its own option",
        ),
    ],
)
def test_errors_are_one_line(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("POSEBOOK_DATA", str(tmp_path))
    assert message in run_failing(capsys, *words)


def test_missing_permission_is_one_line(monkeypatch, capsys):
    def refuse(args):
        raise PermissionError(13, "Permission denied", "/reports")

    options, _, summary = cli.COMMANDS["models"]
    monkeypatch.setitem(cli.COMMANDS, "models", (options, refuse, summary))  # root may write anywhere
    with pytest.raises(SystemExit) as stop:
        cli.main(["models"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: [Errno 13] Permission denied: '/reports'\n"


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="unknown model 'lapxx'"):
        cli.main(["train", "--model", "lapxx", "--debug"])


def test_models_are_listed_and_counted(capsys):
    cli.main(["models"])
    assert capsys.readouterr().out.split() == models.names()
    cli.main(["models", "starnet-pose-t"])
    text = capsys.readouterr().out
    assert re.search(r"parameters: 3,5\d\d,\d\d\d", text) and "exact: " in text


def test_grid_prints_the_training_command(capsys):
    cli.main(["grid", "lapx-1"])
    assert capsys.readouterr().out.strip().endswith("posebook train --grid lapx-1 --profile paper")


def test_records_are_listed(capsys):
    cli.main(["records", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 60 and any(line.startswith("benchmark-cpu  benchmark") for line in lines)


def test_benchmark_of_an_unknown_model_is_one_line(capsys):
    error = run_failing(capsys, "benchmark", "--model", "lapx,starnet-pose-x")
    assert "unknown model 'starnet-pose-x'; did you mean starnet-pose" in error


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["--prune", '{"1": ["uniform", "9"]}'],
            "the uniform pruner keeps a whole number of frames, not '9'",
        ),
        (["--options", '{"widht": 16}'], "unknown option of mixste 'widht'; did you mean width"),
        (["--options", '{"width": "16"}'], "width of mixste must be a positive integer, not '16'"),
        (["--options", '{"heads": 3}'], "a width of 32 cannot be divided into 3 heads"),
        (["--options", '{"frames": 81}'], "frames is a field of the recipe, not an option of the lifter"),
        (["--set", '{"frames": "27"}'], "frames of mixste must be a positive integer, not '27'"),
        (["--set", '{"frames": 0}'], "frames of mixste must be a positive integer, not 0"),
        (["--lifter", "ktpformer", "--options", '{"links": [[0, 99]]}'], "ktpformer cannot be built with"),
    ],
)
def test_wrong_options_of_a_lifter_are_one_line(words, message, capsys, tmp_path):
    assert message in run_failing(capsys, "train-lifter", "--out-dir", str(tmp_path), *words)
    assert not list(tmp_path.iterdir())


def test_benchmark_checks_peers_and_passes_their_absolute_paths(capsys, tmp_path, monkeypatch):
    calls, loaded = [], []
    monkeypatch.setattr(notebooks, "execute", lambda *arguments: calls.append(arguments))
    missing = str(tmp_path / "none.tflite")
    assert f"no model file at {missing}" in run_failing(capsys, "benchmark", "--peers", missing)
    assert not calls
    monkeypatch.setattr(tflite, "load_peer", loaded.append)
    monkeypatch.chdir(tmp_path)
    cli.main(["benchmark", "--peers", "a.tflite", "b.tflite", "--model", "lapx"])
    ((_, _, parameters),) = calls
    assert parameters["peers"] == [str(tmp_path / "a.tflite"), str(tmp_path / "b.tflite")]
    assert parameters["model"] == "lapx" and loaded == ["a.tflite", "b.tflite"]
    cli.main(["benchmark"])
    assert calls[1][2]["peers"] == []


@pytest.mark.parametrize(
    "words, batch, end_to_end",
    [([], 1, False), (["--batch", "0"], None, False), (["--batch", "2", "--end-to-end"], 2, True)],
)
def test_export_loads_the_model_and_passes_the_options(
    words, batch, end_to_end, tmp_path, capsys, monkeypatch
):
    """tests/inference/test_export.py tests the exporter, which takes half a minute to import."""
    weights, out = tmp_path / "w.safetensors", tmp_path / "pose.onnx"
    model = models.build("starnet-pose-t", input_size=(64, 64)).eval()
    models.save_weights(model, weights, "starnet-pose-t")

    def fake_export(loaded, *args):
        assert args == (str(out), batch, end_to_end) and loaded.input_size == (64, 64)
        state = loaded.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        return Path(args[0])

    monkeypatch.setattr(export, "export", fake_export)
    cli.main(["export", str(out), "--weights", str(weights), *words])
    assert capsys.readouterr().out == f"{out}\n"


@pytest.fixture
def fresh_cli(monkeypatch):
    """posebook.cli, imported anew as on a machine without the optional packages.

    A new process would import torch again, which takes longer than the test. After the test, the modules of
    posebook are the previous ones, because other tests compare their classes.
    """
    previous = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "posebook"}
    for name in ("papermill", "snakemake", "pycocotools", "captum"):
        monkeypatch.setitem(sys.modules, name, None)  # an import raises ModuleNotFoundError
    yield importlib.import_module("posebook.cli")
    for name in [name for name in sys.modules if name.split(".")[0] == "posebook"]:
        del sys.modules[name]
    sys.modules.update(previous)


def test_training_needs_neither_papermill_nor_snakemake_nor_pycocotools(fresh_cli, small, tmp_path, capsys):
    """Training on a bare GPU machine: a dataset that is not scored with pycocotools needs none of them."""
    recipe = json.dumps({"epochs": 1, "batch_size": 8, "input_size": [64, 64]})
    words = ["train", "--data-root", str(small), "--val-split", "none", "--profile", "fast", "--set", recipe]
    assert fresh_cli is not cli
    fresh_cli.main([*words, "--out-dir", str(tmp_path)])
    assert list((tmp_path / "runs").rglob("weights.safetensors"))
    assert "records" in capsys.readouterr().out


def test_small_trainings_pass_their_options(monkeypatch, tmp_path, capsys):
    asked = []

    def two_sets(method, data_root, seed, out_dir, device, epochs):
        asked.append((method, data_root, seed, out_dir, device, epochs))
        return {"metrics": {"AP": 0.5}}

    def diffusion(seed, out_dir, epochs):
        asked.append((seed, out_dir, epochs))
        return {"metrics": [{"net": "plain", "MPJPE": 1.23}]}

    monkeypatch.setattr(records, "write", lambda record, out_dir: tmp_path / "made.json")
    monkeypatch.setattr(multi_dataset, "train", two_sets)
    monkeypatch.setattr(starpose, "train_and_compare", diffusion)
    words = ["--way", "decoders", "--data-root", "d", "--seed", "3", "--epochs", "2", "--out-dir", "o"]
    cli.main(["train-two-sets", *words])
    cli.main(["train-starpose", "--seed", "4", "--epochs", "5", "--out-dir", "o"])
    assert asked == [("decoders", "d", 3, "o", "cpu", 2), (4, "o", 5)]
    assert "made.json" in capsys.readouterr().out
