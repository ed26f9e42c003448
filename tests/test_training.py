"""The loop: order, schedule, average, checkpoints, and going on after a kill."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import safetensors
import safetensors.torch
import torch

from posebook import datasets, files, models, recipes, training

SMALL = {
    "epochs": 3,
    "batch": 8,
    "input_size": [64, 64],
    "evaluate_every": 2,
    "warmup_steps": 2,
    "stage2_epochs": 1,
}


def test_each_epoch_holds_every_person_once_and_a_resume_sees_the_same_order():
    recipe = replace(recipes.FAST, epochs=3, batch=4)
    all_of_it = list(training.batches(10, recipe, 7, 0))
    assert len(all_of_it) == 9
    for epoch in range(3):
        keys = [key for batch in all_of_it[3 * epoch : 3 * epoch + 3] for key in batch]
        assert sorted(keys) == [(epoch, i) for i in range(10)]
    for step in range(9):
        assert list(training.batches(10, recipe, 7, step)) == all_of_it[step:]
    assert list(training.batches(10, recipe, 8, 0)) != all_of_it


def test_the_papers_learning_rate():
    recipe = recipes.get("paper")
    steps = 147  # of an epoch of COCO at batch 1024
    total = steps * recipe.epochs
    rate = [training.learning_rate(step, total, recipe) for step in (0, 500, 1000, total // 2, total)]
    assert rate == pytest.approx([4e-8, 2e-3, 4e-3, 4e-3, 2e-4])
    middle = training.learning_rate(round(0.75 * total), total, recipe)
    assert middle == pytest.approx((4e-3 + 2e-4) / 2, rel=1e-3)
    assert training.learning_rate(2000, total, replace(recipe, batch=256)) == pytest.approx(1e-3)


def test_the_papers_recipe():
    recipe = recipes.get("paper")
    assert (recipe.epochs, recipe.weight_decay, recipe.ema, recipe.beta) == (210, 0.05, 0.0002, 10.0)
    assert recipe.sigma == (4.9, 5.66) and recipe.stage2_epochs == 15


def test_no_decay_on_norms_and_biases():
    model = models.build("starnet-pose-s", input_size=(64, 64))
    decayed, plain = training.parameter_groups(model, 0.05)
    names = {id(p): name for name, p in model.named_parameters()}
    assert decayed["weight_decay"] == 0.05 and plain["weight_decay"] == 0
    assert all(".bn." not in names[id(p)] and not names[id(p)].endswith("bias") for p in decayed["params"])
    assert all(".bn." in names[id(p)] or names[id(p)].endswith(("bias", ".g")) for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


def test_the_average_is_the_formula():
    model, ema = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    model.weight.data.fill_(3.0)
    model.running_mean.fill_(5.0)
    model.num_batches_tracked.fill_(7)
    recipe = replace(recipes.FAST, ema=0.1, ema_warmup=10.0)
    training.average(ema, model, 4, recipe)
    momentum = 0.9 * math.exp(-5 / 10) + 0.1
    assert ema.weight.tolist() == pytest.approx([1 + 2 * momentum] * 2)
    assert ema.running_mean.tolist() == pytest.approx([5 * momentum] * 2) and ema.num_batches_tracked == 7


def test_samples_depend_on_nothing_but_their_key(small):
    people = datasets.load("synthetic", small, "train")
    recipe = recipes.get("fast", input_size=[64, 64])
    samples = training.Samples(people, recipe, (64, 64), 3)
    first = samples[5, 2]
    _ = samples[0, 0], samples[1, 7]
    assert all(torch.equal(a, b) for a, b in zip(first, samples[5, 2], strict=True))
    assert not torch.equal(first[0], samples[6, 2][0])
    image, points, weights = first
    assert image.shape == (64, 64, 3) and points.shape == (17, 2) and set(weights.tolist()) <= {0.0, 1.0}


def run(small, folder, **changes):
    return training.train(
        "starnet-pose-t", "synthetic", str(small), "fast", out_dir=str(folder), **(SMALL | changes)
    )


def test_a_run_and_its_record(small, tmp_path):
    record = run(small, tmp_path)
    assert [point["epoch"] for point in record["curve"]] == [1, 2, 3] and "AP" in record["curve"][1]
    assert record["curve"][0]["loss"] > 0 and 0 <= record["metrics"]["AP"] <= 1
    assert record["protocol"]["flip_test"] and record["protocol"]["boxes"] == "ground truth"
    weights = tmp_path / record["weights"]["file"]
    assert files.sha256(weights) == record["weights"]["sha256"] and models.load_weights(
        weights, "starnet-pose-t"
    )
    assert str(tmp_path) not in json.dumps(record) and str(small) not in json.dumps(record)
    again = run(small, tmp_path)  # nothing is left to train
    assert again["weights"] == record["weights"] and again["curve"] == record["curve"]


def test_a_heatmap_net_is_trained_and_evaluated(small, tmp_path):
    how = SMALL | {"epochs": 4, "batch": 6, "learning_rate": 2e-3}
    record = training.train("lpn-50", "synthetic", str(small), "fast", out_dir=str(tmp_path), **how)
    losses = [point["loss"] for point in record["curve"]]
    assert record["protocol"]["decoding"] == "heatmap argmax, quarter offset" and losses[-1] < losses[0]
    weights = tmp_path / record["weights"]["file"]
    assert type(models.load_weights(weights)).__name__ == "LPN"


def test_the_papers_profile_is_of_its_own_nets(small, tmp_path):
    with pytest.raises(ValueError, match="profile paper is the recipe of starnet-pose-t.*another for lapx"):
        training.train("lapx", "synthetic", str(small), "paper", out_dir=str(tmp_path))


def test_a_run_starts_from_weights_it_is_given(small, tmp_path):
    first = training.train(data_root=str(small), out_dir=str(tmp_path / "first"), **SMALL | {"epochs": 1})
    file = tmp_path / "first" / first["weights"]["file"]
    still = SMALL | {"epochs": 1, "learning_rate": 0.0}
    second = training.train(data_root=str(small), out_dir=str(tmp_path / "second"), init=str(file), **still)
    assert second["weights"]["initialisation"] == f"weights {file.name} sha256 {first['weights']['sha256']}"
    before = models.load_weights(file)
    after = models.load_weights(tmp_path / "second" / second["weights"]["file"])
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        assert torch.equal(old, new), name
    with pytest.raises(ValueError, match="holds weights of starnet-pose-t, not of starnet-pose-s"):
        training.train("starnet-pose-s", data_root=str(small), out_dir=str(tmp_path), init=str(file), **SMALL)
    with pytest.raises(ValueError, match="name one of the two"):
        training.train(backbone="imagenet.safetensors", init=str(file), **SMALL)


def test_loader_processes_change_nothing(small, tmp_path):
    alone, helped = run(small, tmp_path / "a", epochs=1), run(small, tmp_path / "b", epochs=1, workers=2)
    assert alone["weights"]["sha256"] == helped["weights"]["sha256"]


def test_the_loss_falls_when_a_few_people_are_learnt_by_heart(small, tmp_path):
    record = training.train(
        "starnet-pose-t",
        "synthetic",
        str(small),
        "overfit",
        out_dir=str(tmp_path),
        epochs=12,
        batch=8,
        input_size=[64, 64],
    )
    losses = [point["loss"] for point in record["curve"]]
    assert losses[-1] < 0.9 * losses[0]


def test_nan_stops_the_run_and_names_the_step(small, tmp_path, monkeypatch):
    real, calls = training.losses.simcc_kl, []

    def poisoned(*arguments):
        calls.append(1)
        return real(*arguments) * (math.nan if len(calls) == 5 else 1.0)

    monkeypatch.setattr(training.losses, "simcc_kl", poisoned)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 5"):
        run(small, tmp_path)
    (checkpoint,) = tmp_path.rglob("checkpoint.safetensors")  # of the first epoch, before the fault
    tensors = safetensors.torch.load_file(checkpoint)
    assert all(value.isfinite().all() for value in tensors.values() if value.is_floating_point())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            dict(model="starnet-pose"),
            "unknown model 'starnet-pose'; did you mean starnet-pose-t or starnet-pose-s",
        ),
        (dict(profile="dem"), "unknown profile 'dem'; did you mean demo"),
        (dict(epoch=3), "unknown recipe field 'epoch'; did you mean epochs"),
        (dict(dataset="synthetics"), "unknown dataset 'synthetics'; did you mean synthetic"),
        (dict(options={"attn": "cbam"}), "unknown option of starnet-pose-t 'attn'; did you mean attention"),
    ],
)
def test_unknown_names_are_met_before_any_work(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        training.train(**({"out_dir": str(tmp_path), "data_root": str(tmp_path)} | arguments))
    assert not list(tmp_path.iterdir())


def test_another_run_starts_anew_and_a_torn_checkpoint_is_refused(small, tmp_path, monkeypatch):
    record = run(small, tmp_path, epochs=1)
    files = {record["weights"]["file"], run(small, tmp_path, epochs=1, batch=12)["weights"]["file"]}
    with monkeypatch.context() as patch:
        patch.setattr(training, "sources", lambda net: "other code")
        files.add(run(small, tmp_path, epochs=1)["weights"]["file"])
    assert len(files) == 3 and all((tmp_path / file).exists() for file in files)
    path = (tmp_path / record["weights"]["file"]).with_name("checkpoint.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is no checkpoint of a training run"):
        run(small, tmp_path, epochs=1)


def start(small, folder) -> subprocess.Popen:
    """The command line, in a process of its own."""
    command = [sys.executable, "-m", "posebook.training", "--dataset", "synthetic", "--data-root", str(small)]
    command += [
        "--profile",
        "fast",
        "--out-dir",
        str(folder),
        "--set",
        json.dumps(SMALL | {"epochs": 8, "batch": 4}),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def epochs_done(folder) -> int:
    """Epochs in the checkpoint of the only run in a folder, 0 before the first."""
    for path in folder.rglob("checkpoint.safetensors"):
        with safetensors.safe_open(path, "pt") as file:
            return len(json.loads(file.metadata()["run"])["curve"])
    return 0


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_weights(small, tmp_path):
    for _ in range(2):  # two kills, at two places
        before = epochs_done(tmp_path / "killed")
        process = start(small, tmp_path / "killed")
        while process.poll() is None and epochs_done(tmp_path / "killed") < before + 2:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 0 < epochs_done(tmp_path / "killed") < 8
    resumed, undisturbed = start(small, tmp_path / "killed"), None
    said = resumed.communicate()[0]
    assert resumed.returncode == 0, said
    assert "going on from epoch" in said
    undisturbed = start(small, tmp_path / "whole")
    assert undisturbed.communicate() and undisturbed.returncode == 0
    killed, whole = (
        json.loads(next((tmp_path / name / "records").glob("*.json")).read_text())
        for name in ("killed", "whole")
    )
    assert killed["weights"]["sha256"] == whole["weights"]["sha256"]
    assert killed["curve"] == whole["curve"] and killed["metrics"] == whole["metrics"]
    a, b = (
        safetensors.torch.load_file(next((tmp_path / n).rglob("checkpoint.safetensors")))
        for n in ("killed", "whole")
    )
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
