"""A training run: sample order, schedule, averaged weights, initial weights, record and errors."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import safetensors
import safetensors.torch
import torch
from training_helpers import SMALL, run

from helpers import ROOT
from posebook import datasets, models, utils
from posebook import losses as loss_functions
from posebook.losses import simcc_kl
from posebook.training import data, optimizer, recipes, trainer
from posebook.training.config import make_config


def test_each_epoch_has_every_sample_once_and_a_resumed_run_has_the_same_order():
    recipe = replace(recipes.FAST, epochs=3, batch_size=4)
    batches = list(data.epoch_batches(10, recipe, 7, 0))
    assert len(batches) == 9
    for epoch in range(3):
        keys = [key for batch in batches[3 * epoch : 3 * epoch + 3] for key in batch]
        assert sorted(keys) == [(epoch, i) for i in range(10)]
    for step in range(9):
        assert list(data.epoch_batches(10, recipe, 7, step)) == batches[step:]
    assert list(data.epoch_batches(10, recipe, 8, 0)) != batches


def test_the_learning_rate_of_profile_paper():
    recipe = recipes.get("paper")
    steps = 147  # per epoch of COCO with batch size 1024
    total = steps * recipe.epochs
    rate = [optimizer.lr_at_step(step, total, recipe) for step in (0, 500, 1000, total // 2, total)]
    assert rate == pytest.approx([4e-8, 2e-3, 4e-3, 4e-3, 2e-4])
    middle = optimizer.lr_at_step(round(0.75 * total), total, recipe)
    assert middle == pytest.approx((4e-3 + 2e-4) / 2, rel=1e-3)
    assert optimizer.lr_at_step(2000, total, replace(recipe, batch_size=256)) == pytest.approx(1e-3)


def test_norms_and_biases_have_no_weight_decay():
    model = models.build("starnet-pose-s", input_size=(64, 64))
    decay, no_decay = optimizer.parameter_groups(model, 0.05)
    names = {id(p): name for name, p in model.named_parameters()}
    assert decay["weight_decay"] == 0.05 and no_decay["weight_decay"] == 0
    assert all(".bn." not in names[id(p)] and not names[id(p)].endswith("bias") for p in decay["params"])
    assert all(".bn." in names[id(p)] or names[id(p)].endswith(("bias", ".g")) for p in no_decay["params"])
    assert len(decay["params"]) + len(no_decay["params"]) == len(names)


def test_layer_decay_of_a_transformer():
    """The rate falls from the head to the patches. Norms, biases and position embeddings have no decay."""
    model = models.build("vitpose-s", input_size=(64, 64), depth=3)
    groups = optimizer.parameter_groups(model, 0.1, 0.8)
    assert [group["rate"] for group in groups[::2]] == pytest.approx([0.8**4, 0.8**3, 0.8**2, 0.8, 1])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {
        names[id(p)]: (group["rate"], group["weight_decay"]) for group in groups for p in group["params"]
    }
    assert rates.keys() == dict(model.named_parameters()).keys()
    assert rates["backbone.pos_embed"] == pytest.approx((0.8**4, 0))
    assert rates["backbone.patch_embed.proj.weight"] == pytest.approx((0.8**4, 0.1))
    assert rates["backbone.blocks.0.attn.qkv.weight"] == pytest.approx((0.8**3, 0.1))
    assert rates["backbone.blocks.2.norm1.weight"] == pytest.approx((0.8, 0))
    assert rates["keypoint_head.final_layer.weight"] == (1, 0.1)


def test_the_moving_average_equals_its_formula():
    model, ema = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    model.weight.data.fill_(3.0)
    model.running_mean.fill_(5.0)
    model.num_batches_tracked.fill_(7)
    recipe = replace(recipes.FAST, ema_momentum=0.1, ema_warmup=10.0)
    optimizer.update_ema(ema, model, 4, recipe)
    momentum = 0.9 * math.exp(-5 / 10) + 0.1
    assert ema.weight.tolist() == pytest.approx([1 + 2 * momentum] * 2)
    assert ema.running_mean.tolist() == pytest.approx([5 * momentum] * 2) and ema.num_batches_tracked == 7


def test_a_sample_depends_only_on_its_key(small):
    dataset = datasets.load("synthetic", small, "train")
    recipe = recipes.get("fast", input_size=[64, 64])
    samples = data.TrainDataset(dataset, recipe, 3)
    first = samples[5, 2]
    _ = samples[0, 0], samples[1, 7]
    assert all(torch.equal(a, b) for a, b in zip(first, samples[5, 2], strict=True))
    assert not torch.equal(first[0], samples[6, 2][0])
    image, points, weights = first
    assert image.shape == (64, 64, 3) and points.shape == (17, 2) and set(weights.tolist()) <= {0.0, 1.0}


def test_a_run_and_its_record(small, tmp_path, capsys):
    record = run(small, tmp_path)
    assert [point["epoch"] for point in record["curve"]] == [1, 2, 3] and "AP" in record["curve"][1]
    assert record["curve"][0]["loss"] > 0 and 0 <= record["metrics"]["AP"] <= 1
    assert record["protocol"]["flip_test"] and record["protocol"]["boxes"] == "ground truth"
    weights = tmp_path / record["weights"]["file"]
    assert utils.sha256(weights) == record["weights"]["sha256"] and models.load_weights(
        weights, "starnet-pose-t"
    )
    assert str(tmp_path) not in json.dumps(record) and str(small) not in json.dumps(record)
    capsys.readouterr()
    again = run(small, tmp_path)  # training is already complete
    assert "resuming from step" in capsys.readouterr().out
    assert again["weights"] == record["weights"] and again["curve"] == record["curve"]


def test_saved_weights_are_trained(small, tmp_path):
    states = []
    for rate in (0.0, 1e-3):
        file = run(small, tmp_path, epochs=1, learning_rate=rate)["weights"]["file"]
        states.append(models.load_weights(tmp_path / file).state_dict())
    trained = [
        key for key, value in states[0].items() if value.is_floating_point() and key.endswith("weight")
    ]
    assert trained and not any(torch.equal(states[0][key], states[1][key]) for key in trained)


def test_a_heatmap_model_is_trained_and_evaluated(small, tmp_path):
    settings = SMALL | {"epochs": 4, "batch_size": 6, "learning_rate": 2e-3}
    record = trainer.train(
        make_config("lpn-50", "synthetic", str(small), "fast", out_dir=str(tmp_path), **settings)
    )
    losses = [point["loss"] for point in record["curve"]]
    assert record["protocol"]["decoding"] == "heatmap argmax, quarter offset" and losses[-1] < losses[0]
    weights = tmp_path / record["weights"]["file"]
    assert type(models.load_weights(weights)).__name__ == "LPN"


def test_profile_paper_needs_a_recipe_for_model_and_dataset(small, tmp_path):
    with pytest.raises(
        ValueError,
        match="no paper's recipe for lapx on synthetic: profile paper has recipes for starnet-pose-t on coco",
    ):
        trainer.train(make_config("lapx", "synthetic", str(small), "paper", out_dir=str(tmp_path)))


def test_a_run_starts_from_given_weights(small, tmp_path):
    first = trainer.train(
        make_config(data_root=str(small), out_dir=str(tmp_path / "first"), **SMALL | {"epochs": 1})
    )
    file = tmp_path / "first" / first["weights"]["file"]
    no_learning = SMALL | {"epochs": 1, "learning_rate": 0.0}
    second = trainer.train(
        make_config(data_root=str(small), out_dir=str(tmp_path / "second"), init=str(file), **no_learning)
    )
    assert second["weights"]["initialization"] == f"weights {file.name} sha256 {first['weights']['sha256']}"
    before = models.load_weights(file)
    after = models.load_weights(tmp_path / "second" / second["weights"]["file"])
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        assert torch.equal(old, new), name
    (folder,) = (tmp_path / "first" / "runs").iterdir()
    assert second["name"] == f"train-starnet-pose-t-synthetic-64x64-from-{folder.name}-demo-seed0"
    assert second["before"]["metrics"] == pytest.approx(first["metrics"])
    assert second["difference"]["images"] == 24
    assert "before" not in first and "difference" not in first
    with pytest.raises(ValueError, match="name one of the two"):
        trainer.train(make_config(backbone="imagenet.safetensors", init=str(file), **SMALL))


@pytest.fixture
def small_14(small, tmp_path):
    """Return the small dataset with CrowdPose's number of joints."""
    root = tmp_path / "data"
    shutil.copytree(small, root)
    for split in ("train", "val"):
        content = json.loads((root / f"annotations/person_keypoints_{split}.json").read_text())
        for person in content["annotations"]:
            person |= {"num_keypoints": 14, "keypoints": person["keypoints"][: 3 * 14]}
        (root / f"annotations/person_keypoints_14_{split}.json").write_text(json.dumps(content))
    return root


def test_a_run_from_weights_with_other_joints_is_evaluated_before_and_after(small_14, tmp_path):
    shipped = ROOT / "data/weights/starnet-pose-t-synthetic.safetensors"
    settings = SMALL | {"epochs": 1, "input_size": [128, 96]}
    record = trainer.train(
        make_config(
            "starnet-pose-t",
            "synthetic-14",
            str(small_14),
            out_dir=str(tmp_path),
            init=str(shipped),
            **settings,
        )
    )
    assert record["name"] == "train-starnet-pose-t-synthetic-14-from-starnet-pose-t-synthetic-demo-seed0"
    assert record["weights"]["transfer"]["initialized"] == ["head", "neck"]
    change = record["difference"]["value"]
    assert change == pytest.approx(record["metrics"]["AP"] - record["before"]["metrics"]["AP"])
    low, high = record["difference"]["interval"]
    assert low <= change <= high
    saved = {path.name for path in (tmp_path / "records").iterdir()}
    assert {f"{record['name']}.npz", f"{record['name']}.before.npz"} <= saved


def test_unusable_initial_weights_raise_before_any_work(tmp_path):
    shipped = ROOT / "data/weights/starnet-pose-t-synthetic.safetensors"
    missing = {"data_root": str(tmp_path / "no data"), "out_dir": str(tmp_path / "out")}
    with pytest.raises(FileNotFoundError, match="no weights to start from at .*gone.safetensors: init names"):
        trainer.train(make_config(init=str(tmp_path / "gone.safetensors"), **missing))
    with pytest.raises(ValueError, match="holds weights of starnet-pose-t, not of starnet-pose-s"):
        trainer.train(make_config("starnet-pose-s", init=str(shipped), **missing))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(shipped.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged.safetensors cannot be read as weights"):
        trainer.train(make_config(init=str(damaged), **missing))
    assert not (tmp_path / "out").exists()


def test_loader_processes_do_not_change_the_weights(small, tmp_path):
    without, with_workers = (
        run(small, tmp_path / "a", epochs=1),
        run(small, tmp_path / "b", epochs=1, workers=2),
    )
    assert without["weights"]["sha256"] == with_workers["weights"]["sha256"]


def test_a_run_that_packs_canvases_is_another_run(small, tmp_path):
    record = run(small, tmp_path, pack="raw", epochs=1)
    assert record["parameters"]["pack"] == "raw" and list((tmp_path / "packed").glob("*.pack"))
    unpacked = run(small, tmp_path, epochs=1)
    assert record["weights"]["file"] != unpacked["weights"]["file"]
    assert record["curve"][0]["loss"] == pytest.approx(unpacked["curve"][0]["loss"], rel=0.05)


@pytest.mark.parametrize(
    "precision", ["float32", *(pytest.param(p, marks=pytest.mark.slow) for p in ("bf16", "fp16"))]
)
def test_the_loss_falls_when_overfitting_a_few_people(small, tmp_path, precision):
    record = trainer.train(
        make_config(
            "starnet-pose-t",
            "synthetic",
            str(small),
            "overfit",
            out_dir=str(tmp_path),
            epochs=3 if precision == "fp16" else 12,  # slow on a CPU
            batch_size=8,
            # oneDNN computes a wrong bf16 gradient of a 7x7 convolution over 2x2 cells on some AMD CPUs
            input_size=[128, 96] if precision == "bf16" else [64, 64],
            precision=precision,
        )
    )
    losses = [point["loss"] for point in record["curve"]]
    assert (
        losses[-1] < (1 if precision == "fp16" else 0.9) * losses[0]
        and record["parameters"]["precision"] == precision
    )


def test_a_nan_loss_stops_the_run_and_is_reported_with_its_step(small, tmp_path, monkeypatch):
    real, calls = simcc_kl, []

    def poisoned(*arguments):
        calls.append(1)
        return real(*arguments) * (math.nan if len(calls) == 5 else 1.0)

    monkeypatch.setattr(loss_functions, "simcc_kl", poisoned)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 5"):
        run(small, tmp_path)
    checkpoint = max(tmp_path.rglob("checkpoint-*.safetensors"))  # of the first epoch, before the NaN
    tensors = safetensors.torch.load_file(checkpoint)
    assert checkpoint.stem.endswith("03") and all(
        value.isfinite().all() for value in tensors.values() if value.is_floating_point()
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            dict(model="starnet-pose"),
            "unknown model 'starnet-pose'; did you mean starnet-pose-t or starnet-pose-s",
        ),
        (dict(profile="dem"), "unknown profile 'dem'; did you mean demo"),
        (dict(precision="bf15"), "unknown precision 'bf15'; did you mean bf16"),
        (dict(grad_accum_steps=0), "grad_accum_steps must be a positive integer, not 0"),
        (dict(save_every=0), "save_every must be a positive integer, not 0"),
        (dict(epoch=3), "unknown setting 'epoch'; did you mean epochs"),
        (dict(dataset="synthetics"), "unknown dataset 'synthetics'; did you mean synthetic"),
        (dict(options={"attn": "cbam"}), "unknown option of starnet-pose-t 'attn'; did you mean attention"),
    ],
)
def test_unknown_names_raise_before_any_work(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        trainer.train(make_config(**({"out_dir": str(tmp_path), "data_root": str(tmp_path)} | arguments)))
    assert not list(tmp_path.iterdir())
