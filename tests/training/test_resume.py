"""Checkpoints, gradient accumulation, several processes, and resuming after an interruption."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import psutil
import pytest
import safetensors
import safetensors.torch
import torch
from training_helpers import SMALL, run

from helpers import ROOT
from posebook import cli, datasets, migration, models
from posebook.models import starnet_pose
from posebook.training import checkpoints, data, loop, recipes, runtime, trainer
from posebook.training.config import make_config


def test_other_settings_or_other_code_start_another_run(small, tmp_path, monkeypatch):
    record = run(small, tmp_path, epochs=1)
    files = {record["weights"]["file"], run(small, tmp_path, epochs=1, batch_size=12)["weights"]["file"]}
    with monkeypatch.context() as patch:
        patch.setattr(loop, "run_code_hash", lambda *_: "other code")
        files.add(run(small, tmp_path, epochs=1)["weights"]["file"])
    assert len(files) == 3 and all((tmp_path / file).exists() for file in files)


def test_a_damaged_checkpoint_is_skipped_and_without_a_valid_one_the_run_raises(small, tmp_path, capsys):
    record = run(small, tmp_path)
    folder = (tmp_path / record["weights"]["file"]).parent
    _, newest = checkpoints.list_checkpoints(folder)  # the last two are kept
    newest.write_bytes(newest.read_bytes()[:1000])
    again = run(small, tmp_path)
    assert f"{newest} is not a checkpoint of this run" in capsys.readouterr().out
    assert again["weights"]["sha256"] == record["weights"]["sha256"]
    for path in checkpoints.list_checkpoints(folder):
        path.write_bytes(b"{}")
    with pytest.raises(
        ValueError, match="is not a checkpoint of this run .*, and no earlier one is valid: move it away"
    ):
        run(small, tmp_path)


def test_a_checkpoint_of_another_run_is_not_loaded(small, tmp_path):
    first, second = run(small, tmp_path, epochs=1), run(small, tmp_path, epochs=1, batch_size=12)
    path, *_ = checkpoints.list_checkpoints((tmp_path / first["weights"]["file"]).parent)
    for other in checkpoints.list_checkpoints((tmp_path / second["weights"]["file"]).parent):
        other.write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="it belongs to another run"):
        run(small, tmp_path, epochs=1, batch_size=12)


@pytest.mark.slow
def test_the_gain_of_lapx_is_zero_then_rises(small, tmp_path):
    # one epoch frozen, then two epochs in which the gain rises to 0.2
    settings = SMALL | {"nonlocal_schedule": [1 / 3, 1.0]}
    record = trainer.train(
        make_config("lapx", "synthetic", str(small), "fast", out_dir=str(tmp_path), **settings)
    )
    after_two, after_three = (
        safetensors.torch.load_file(path)
        for path in checkpoints.list_checkpoints((tmp_path / record["weights"]["file"]).parent)
    )
    torch.manual_seed(0)
    start = models.build("lapx", "coco", (64, 64)).state_dict()
    branch = "hg.0.attention.position_attention."
    for tensors, gain in ((after_two, 0.1), (after_three, 0.2)):
        assert tensors[f"model.{branch}gamma"].item() == pytest.approx(gain)
        assert not torch.equal(tensors[f"model.{branch}g.weight"], start[f"{branch}g.weight"])
    always_frozen = trainer.train(
        make_config(
            "lapx",
            "synthetic",
            str(small),
            "fast",
            out_dir=str(tmp_path),
            **settings | {"nonlocal_schedule": [1.0, 2.0]},
        )
    )
    *_, frozen = checkpoints.list_checkpoints((tmp_path / always_frozen["weights"]["file"]).parent)
    assert torch.equal(
        safetensors.torch.load_file(frozen)[f"model.{branch}g.weight"], start[f"{branch}g.weight"]
    )


def test_the_order_of_fields_does_not_change_a_runs_folder():
    """A migrated identity lists the fields that it lacked at the end."""
    recipe = {"epochs": 1, "lr_gamma": 0.1}
    migrated = migration.migrate_identity({"model": "lapx", "recipe": recipe})
    present = {"recipe": dict(reversed(migrated["recipe"].items())), "model": "lapx"}
    assert migration.identity_hash(migrated) == migration.identity_hash(present)


def test_two_runs_in_one_folder_raise(small, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "LOCK_TIMEOUT", 1)
    folder = (tmp_path / run(small, tmp_path, epochs=1)["weights"]["file"]).parent
    with checkpoints.run_lock(folder):
        with pytest.raises(
            BlockingIOError, match=f"process {os.getpid()} on .* is training in .*: wait for it"
        ):
            run(small, tmp_path, epochs=1)


def test_errors_of_a_training_are_one_line(small, tmp_path, monkeypatch, capsys):
    def locked(_):
        raise BlockingIOError("process 1 is training in runs/x: wait for it")

    words = ["train", "--data-root", str(small), "--profile", "overfit", "--out-dir", str(tmp_path)]
    monkeypatch.setattr(checkpoints, "run_lock", locked)
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert "error: process 1 is training in runs/x: wait for it\n" in capsys.readouterr().err


def test_processes_wait_for_the_lock_before_they_read_a_checkpoint(small, tmp_path, monkeypatch):
    """Only the first process has the lock; the run before may write its last checkpoint until then."""
    order = []
    resume = checkpoints.TrainState.resume
    monkeypatch.setattr(runtime.RuntimeConfig, "barrier", lambda _: order.append("barrier"))
    monkeypatch.setattr(
        checkpoints.TrainState, "resume", lambda *args: order.append("resume") or resume(*args)
    )
    run(small, tmp_path, epochs=1)
    assert order[:3] == ["barrier", "resume", "barrier"]


def test_other_images_of_own_data_start_another_run(own, tmp_path):
    """Annotations stay the same if a user replaces an image."""
    shutil.copytree(own, tmp_path / "own")
    config = make_config(dataset="own", data_root=str(tmp_path / "own"), profile="overfit", **SMALL)
    before = trainer.run_identity(trainer.prepare(config))
    image = tmp_path / "own" / "train" / "3.jpg"
    cv2.imwrite(str(image), 255 - cv2.imread(str(image)))
    after = trainer.run_identity(trainer.prepare(config))
    assert before != after and before["data"] == after["data"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    model = torch.nn.Linear(2, 1)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = checkpoints.TrainState(
        model, model, torch.optim.SGD(model.parameters(), lr=0.1), scaler, {}, step=7
    )
    torch.nn.init.constant_(model.weight, math.nan)
    with pytest.raises(FloatingPointError, match="weight is not finite after step 7"):
        state.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_with_tuples_in_its_options_resumes(small, tmp_path, capsys):
    for _ in range(2):
        run(small, tmp_path, epochs=1, options={"depths": (1, 1, 1, 1)})
    assert "resuming from step 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, seed, name",
    [
        ([], 0, "lapx-3-fast"),
        (["--seed", "2"], 2, "lapx-3-fast-seed2"),
        (["--seed", "2", "--name", "mine"], 2, "mine"),
    ],
)
def test_a_grid_row_is_trained_with_its_seed_or_another(words, seed, name, monkeypatch):
    configs = []
    monkeypatch.setattr(trainer, "train", lambda config: configs.append(config) or {})
    cli.main(["train", "--grid", "lapx-3", "--profile", "fast", *words])
    assert [(config.seed, config.name, config.model) for config in configs] == [(seed, name, "lapx")]


def test_a_grid_row_excludes_options_that_it_sets(capsys, monkeypatch):
    with pytest.raises(SystemExit):
        cli.main(["train", "--grid", "lapx-3", "--model", "lapx"])
    assert "--grid already sets model: leave out --model" in capsys.readouterr().err


def test_gradient_accumulation_gives_the_gradient_of_the_batch(small):
    dataset = datasets.load("synthetic", small, "train")
    recipe = recipes.get("fast", "lapx", input_size=[64, 64], batch_size=7, max_grad_norm=0.01)
    batch = next(
        iter(loop.batch_iterator(data.TrainDataset(dataset, recipe, 0), 0, runtime.RuntimeConfig("cpu")))
    )
    gradients = []
    for grad_accum_steps in (1, 3):
        torch.manual_seed(0)
        # eval: batch norm must not depend on the split of the batch
        model = models.build("lapx", dataset.skeleton, (64, 64)).eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        state = checkpoints.TrainState(model, model, optimizer, torch.amp.GradScaler(enabled=False), {})
        loop.train_step(state, model, batch, 7, recipe, runtime.RuntimeConfig("cpu"), grad_accum_steps)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-8)
    assert gradients[0].norm() == pytest.approx(0.01, rel=1e-3)  # clipped


def test_out_of_memory_doubles_grad_accum_steps(small, tmp_path, monkeypatch, capsys):
    real = starnet_pose.StarNetPose.forward

    def limited(model, images):
        if model.training and len(images) > 3:
            raise torch.OutOfMemoryError
        return real(model, images)

    monkeypatch.setattr(starnet_pose.StarNetPose, "forward", limited)
    assert len(run(small, tmp_path)["curve"]) == 3
    output = "".join(capsys.readouterr())
    assert "out of memory with 8 samples: from here on, grad_accum_steps is 2" in output
    assert "grad_accum_steps is 4" in output


def test_a_loader_process_that_dies_is_replaced(small, tmp_path, monkeypatch, capsys):
    real, parent, mark = data.TrainDataset.__getitems__, os.getpid(), tmp_path / "died"

    def fatal(dataset, keys):
        if keys[0][0] == 1 and os.getpid() != parent and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(dataset, keys)

    undisturbed = run(small, tmp_path / "a")
    monkeypatch.setattr(data.TrainDataset, "__getitems__", fatal)
    restarted = run(small, tmp_path / "b", workers=1)
    assert mark.exists() and "a data loader process died" in "".join(capsys.readouterr())
    assert restarted["weights"]["sha256"] == undisturbed["weights"]["sha256"]


def start(small, folder, processes: int = 1, **changes) -> subprocess.Popen:
    """Start the command line in new processes, with a checkpoint every other step."""
    words = [
        "--dataset",
        "synthetic",
        "--data-root",
        str(small),
        "--profile",
        "fast",
        "--out-dir",
        str(folder),
    ]
    words += ["--save-every", "2", "--set", json.dumps(SMALL | {"epochs": 8, "batch_size": 4} | changes)]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [sys.executable, *(launch if processes > 1 else []), "-m", "posebook.training", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def steps_done(folder) -> int:
    """Return the step of the newest checkpoint of the only run in a folder, 0 without one."""
    return max(
        (int(path.stem.split("-")[-1]) for path in folder.rglob("checkpoint-*.safetensors")), default=0
    )


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupted_run_ends_with_the_same_weights(small, tmp_path, processes):
    if processes > 1:
        pytest.importorskip("accelerate")
    for sign in (signal.SIGKILL, signal.SIGTERM):
        before = steps_done(tmp_path / "stopped")
        process = start(small, tmp_path / "stopped", processes)
        while process.poll() is None:
            done = steps_done(tmp_path / "stopped")
            if done >= before + 8 and done % 6:  # in the middle of an epoch
                break
            time.sleep(0.02)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:  # the workers of torchrun do not end with it
            member.send_signal(sign)
        output = process.communicate()[0]
        if sign == signal.SIGTERM and processes == 1:
            assert process.returncode == 143 and "stopped by SIGTERM after step" in output, output
    assert 0 < steps_done(tmp_path / "stopped") < 48
    resumed = start(small, tmp_path / "stopped", processes)
    output = resumed.communicate()[0]
    assert resumed.returncode == 0, output
    assert "resuming from step" in output
    undisturbed = start(small, tmp_path / "undisturbed", processes)
    assert undisturbed.communicate() and undisturbed.returncode == 0
    stopped, reference = (
        json.loads(next((tmp_path / name / "records").glob("*.json")).read_text())
        for name in ("stopped", "undisturbed")
    )
    assert stopped["weights"]["sha256"] == reference["weights"]["sha256"]
    assert stopped["curve"] == reference["curve"] and stopped["metrics"] == reference["metrics"]
    a, b = (
        safetensors.torch.load_file(max((tmp_path / name).rglob("checkpoint-*.safetensors")))
        for name in ("stopped", "undisturbed")
    )
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
def test_two_processes_compute_the_gradient_of_one(small, tmp_path):
    pytest.importorskip("accelerate")
    script, environment = (
        ROOT / "tests" / "training" / "two_processes.py",
        os.environ | {"OMP_NUM_THREADS": "1"},
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for number, command in enumerate((launch, [sys.executable])):
        words = [*command, str(script), str(small), str(tmp_path / f"{number}.safetensors")]
        subprocess.run(words, env=environment, check=True, capture_output=True)
    two, one = (safetensors.torch.load_file(tmp_path / f"{number}.safetensors") for number in range(2))
    assert two.keys() == one.keys() and len(one) > 100
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_checkpoint(small, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=110m", "none", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine does not allow mounting a small disk")
    try:
        output = start(small, disk).communicate()[0]  # a checkpoint has about 45 MB: the third does not fit
        assert "cannot write the checkpoint of step 4" in output
        assert "the last checkpoint is checkpoint-00000002.safetensors" in output
        subprocess.run(["mount", "-o", "remount,size=500m", str(disk)], check=True)
        again = start(small, disk)
        assert "resuming from step 2" in again.communicate()[0] and again.returncode == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)
