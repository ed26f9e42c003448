"""A config as a command line, and training with torchrun."""

import argparse
import dataclasses
import os
import signal
import sys
import threading
import time

import pytest
from training_helpers import SMALL

from posebook import cli
from posebook.training import launch
from posebook.training.config import TrainConfig


def parse(words: list[str]) -> TrainConfig:
    """The config that `posebook train` makes of its options."""
    parser = argparse.ArgumentParser()
    cli.add_train(parser)
    args = vars(parser.parse_args(words))
    return TrainConfig(**{field.name: args[field.name] for field in dataclasses.fields(TrainConfig)})


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        TrainConfig(model="lapx", seed=3, recipe={"epochs": 2, "stage1": {"dropout": 0}}, compile=True),
        TrainConfig(options={"attention": "cbam"}, data_root="a b/c", hold_out=0.25, backbone="x.pth"),
    ],
)
def test_the_command_line_of_a_config_gives_the_same_config(config):
    assert parse(launch.command_line(config)) == config


def test_mappings_and_lists_are_written_as_the_command_line_reads_them():
    config = TrainConfig(dataset="coco+lspet", data_root={"coco": "a", "lspet": "b"}, shares=[0.5, 0.5])
    args = parse(launch.command_line(config))
    assert args.data_root == "coco=a,lspet=b" and args.shares == "0.5,0.5"


def test_output_of_a_command_is_printed_and_returned(capsys):
    assert launch.run_command([sys.executable, "-c", "print('one'); print('two')"]) == ["one", "two"]
    assert capsys.readouterr().out == "one\ntwo\n"


def test_a_command_that_fails_raises(capsys):
    with pytest.raises(RuntimeError, match="failed with status 3; its messages are above"):
        launch.run_command([sys.executable, "-c", "import sys; print('why'); sys.exit(3)"])
    assert "why" in capsys.readouterr().out


def test_a_command_without_a_record_raises(monkeypatch):
    monkeypatch.setattr(launch, "run_command", lambda _: ["nothing"])
    with pytest.raises(RuntimeError, match="torchrun ended without a record"):
        launch.train(TrainConfig(), "--nproc-per-node 2")


@pytest.mark.parametrize(
    "torchrun, start",
    [
        ("--nproc-per-node 2", []),
        ("srun --nodes 2 torchrun --nnodes 2", ["srun", "--nodes", "2"]),
    ],
)
def test_torchrun_is_the_one_of_this_environment(torchrun, start, monkeypatch):
    commands = []
    monkeypatch.setattr(launch, "run_command", lambda words: commands.append(words) or [])
    with pytest.raises(RuntimeError):
        launch.train(TrainConfig(seed=1), torchrun)
    (words,) = commands
    assert words[: len(start) + 3] == [*start, sys.executable, "-m", "torch.distributed.run"]
    assert words[-4:] == ["-m", "posebook.training", "--seed", "1"]


def test_sigterm_is_passed_on():
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    started, previous = time.monotonic(), signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="failed with status -15"):
        launch.run_command([sys.executable, "-c", "import time; time.sleep(60)"])
    assert time.monotonic() - started < 30 and signal.getsignal(signal.SIGTERM) is previous


@pytest.mark.slow
def test_two_processes_write_the_record(small, tmp_path, capsys):
    pytest.importorskip("accelerate")
    config = TrainConfig(
        data_root=str(small), profile="fast", out_dir=str(tmp_path), recipe=SMALL | {"epochs": 1}, name="two"
    )
    record = launch.train(config, "--standalone --nproc-per-node 2")
    assert record["name"] == "two" and record["parameters"]["processes"] == 2
    assert "sample/s" in capsys.readouterr().out
