"""Training from a canvas cache only: the same people and weights without images and annotations."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from posebook import cli, datasets, models, records, skeletons
from posebook.datasets import DatasetMissing, PoseDataset, canvas_cache, coco, combined, lspet
from posebook.papers import tables
from posebook.training import data, recipes, trainer
from posebook.training.config import make_config

RECIPE = {"epochs": 2, "batch_size": 8, "input_size": [64, 64], "stage2_epochs": 1, "evaluate_every": 9}
STAGES = (recipes.FAST.stage1, recipes.FAST.stage2)


@pytest.fixture
def copy(small, tmp_path):
    """A copy of the small dataset that a test may move."""
    return shutil.copytree(small, tmp_path / "data" / "people")


def assert_equal(one, other) -> None:
    """Two datasets are equal except for paths."""
    facts = [
        replace(dataset, instances=(), sources=(), annotations=None, images={}) for dataset in (one, other)
    ]
    assert facts[0] == facts[1] and one.describe() == other.describe()
    assert len(one.instances) == len(other.instances) and len(one.sources) == len(other.sources)
    for a, b in zip(one.instances, other.instances, strict=True):
        assert a.image.name == b.image.name and replace(a, image=None, head=0) == replace(
            b, image=None, head=0
        )
        assert np.array_equal(a.keypoints, b.keypoints) and np.array_equal(a.head, b.head, equal_nan=True)
    for a, b in zip(one.sources, other.sources, strict=True):
        assert_equal(a, b)


def sources(own, small) -> list[combined.Source]:
    return [combined.Source("own", own, "train", 0.25), combined.Source("synthetic", small, "val", 0.75)]


@pytest.mark.parametrize("combine", [False, True])
def test_cached_people_equal_the_packed_people(own, small, tmp_path, combine):
    """This includes the sources, their people and their shares."""
    dataset = combined.load_combined(sources(own, small)) if combine else datasets.load("own", own, "train")
    file = canvas_cache.open_or_create(dataset, tmp_path, (64, 64), STAGES)
    cached = canvas_cache.CanvasCache(file.path).dataset()
    assert_equal(dataset, cached)
    assert cached.shares == dataset.shares and cached.annotations == file.path
    assert file.image_hashes == combined.image_hashes(dataset.instances)
    recipe = recipes.get("fast", input_size=[64, 64])
    one, other = (data.TrainDataset(source, recipe, 0, file) for source in (dataset, cached))
    for index in (0, 5, len(one) - 1):
        assert all((a == b).all() for a, b in zip(one[1, index], other[1, index], strict=True))


def test_changed_keypoints_or_shares_are_packed_again(own, small, tmp_path):
    dataset = combined.load_combined(sources(own, small))
    canvas_cache.open_or_create(dataset, tmp_path, (64, 64), STAGES)
    first, second = dataset.sources
    moved = replace(first.instances[0], keypoints=first.instances[0].keypoints + 1)
    others = [
        combined.combine((replace(first, instances=(moved, *first.instances[1:])), second), (0.25, 0.75)),
        combined.combine(dataset.sources, (0.5, 0.5)),
    ]
    for other in others:
        assert_equal(other, canvas_cache.open_or_create(other, tmp_path, (64, 64), STAGES).dataset())


def test_caches_of_an_earlier_version_are_packed_again(own, tmp_path, monkeypatch):
    dataset = datasets.load("own", own, "train")
    with monkeypatch.context() as patch:
        patch.setattr(canvas_cache, "VERSION", 1)
        patch.setattr(canvas_cache, "_encode_people", lambda dataset: b"")
        old = canvas_cache.open_or_create(dataset, tmp_path, (64, 64), STAGES)
    assert len(canvas_cache.CanvasCache(old.path)) == 24  # its canvases are readable
    with pytest.raises(ValueError, match="packed by an earlier version and holds no people: pack it again"):
        canvas_cache.CanvasCache(old.path).dataset()
    assert_equal(dataset, canvas_cache.open_or_create(dataset, tmp_path, (64, 64), STAGES).dataset())


@pytest.mark.parametrize("dataset", ["synthetic", "own+synthetic"])
def test_training_without_images_gives_identical_weights(copy, own, tmp_path, dataset):
    several = "+" in dataset
    root = f"own={own},synthetic={copy}" if several else str(copy)
    settings = dict(profile="fast", **RECIPE)
    if several:
        settings["shares"] = "0.25,0.75"
    packing = trainer.train(
        make_config(
            dataset=dataset,
            data_root=root,
            out_dir=str(tmp_path / "a"),
            pack="jpeg",
            val_split="none",
            **settings,
        )
    )
    (file,) = (tmp_path / "a" / "packed").glob("*.pack")
    settings.pop("shares", None)
    settings |= {"canvases": str(file), "val_split": "none"}
    copy.rename(tmp_path / "moved away")
    alone = trainer.train(make_config(dataset=dataset, out_dir=str(tmp_path / "c"), **settings))
    assert alone["weights"]["sha256"] == packing["weights"]["sha256"]
    assert alone["dataset"] == packing["dataset"] and alone["parameters"]["canvases"] == file.name
    assert alone["metrics"] == {} and alone["not_evaluated"] == "no validation split (val_split none)"
    assert [point["epoch"] for point in alone["curve"]] == [1, 2]
    loaded = records.load(records.write(alone, tmp_path / "c").parent)
    assert loaded[0]["metrics"] == {} and tables.all_accuracies(loaded).empty
    weights = tmp_path / "c" / alone["weights"]["file"]
    assert len(models.trained_images(weights)) == (48 if several else 24)
    with pytest.raises(DatasetMissing, match=f"is not in {copy}"):
        trainer.train(
            make_config(
                dataset="own", data_root=str(copy), out_dir=str(tmp_path), **settings | {"val_split": None}
            )
        )


def test_existing_validation_data_is_evaluated(copy, tmp_path):
    dataset = datasets.load("synthetic", copy, "train")
    file = canvas_cache.open_or_create(dataset, tmp_path / "carried", (64, 64), STAGES).path
    shutil.rmtree(copy / "train")
    settings = dict(profile="fast", canvases=str(file), data_root=str(copy), out_dir=str(tmp_path), **RECIPE)
    record = trainer.train(make_config(**settings | {"epochs": 1}))
    assert "AP" in record["metrics"] and "not_evaluated" not in record
    assert len(models.trained_images(tmp_path / record["weights"]["file"])) == 24


def test_images_in_both_cache_and_validation_set_are_rejected(copy, tmp_path):
    dataset = datasets.load("synthetic", copy, "train")
    file = canvas_cache.open_or_create(dataset, tmp_path, (64, 64), STAGES).path
    shutil.copy(copy / "train" / "7.jpg", copy / "val" / "3.jpg")
    shutil.rmtree(copy / "train")
    with pytest.raises(ValueError, match=r"1 of 24 images .* that this run was trained on \(3.jpg\)"):
        trainer.train(
            make_config(
                profile="fast", canvases=str(file), data_root=str(copy), out_dir=str(tmp_path), **RECIPE
            )
        )


def test_incompatible_caches_are_rejected(small, tmp_path):
    dataset = datasets.load("synthetic", small, "train")
    file = canvas_cache.open_or_create(dataset, tmp_path, (64, 64), (recipes.DEMO.stage1,)).path
    foreign = tmp_path / "foreign.pack"
    foreign.write_bytes(b"PK")
    settings = dict(
        profile="demo", canvases=str(file), val_split="none", out_dir=str(tmp_path), input_size=[64, 64]
    )
    message_start = "canvases are packed already, with their sources and shares: leave out "
    for changes, message in [
        ({"canvases": str(tmp_path / "none.pack")}, f"no canvas cache at {tmp_path / 'none.pack'}"),
        ({"canvases": str(foreign)}, "is not a canvas cache"),
        (
            {"input_size": [64, 96]},
            "holds canvases for inputs of 64x64, not of 64x96: pack them for that size",
        ),
        (
            {"profile": "fast"},
            "holds canvases that reach .* this recipe's augmentation needs .*: pack them for it",
        ),
        ({"shares": "1"}, message_start + "shares"),
        ({"labels": "own=x"}, message_start + "labels"),
        ({"hold_out": 0.1}, message_start + "hold_out"),
        ({"pack": "raw"}, message_start + "pack"),
        ({"val_split": None, "dataset": "synthetic-14", "data_root": str(small)}, "is not in"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            trainer.train(make_config(**settings | changes))
    assert not (tmp_path / "runs").exists()


def test_validation_data_with_other_joints_is_rejected(small, copy, tmp_path):
    file = canvas_cache.open_or_create(
        datasets.load("synthetic", small, "train"), tmp_path, (64, 64), STAGES
    ).path
    annotations = copy / "annotations" / "person_keypoints_val.json"
    content = json.loads(annotations.read_text())
    content["categories"][0]["keypoints"] = ["thumb", "wrist"]
    for entry in content["annotations"]:
        entry["keypoints"] = entry["keypoints"][:6]
    annotations.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match="own-people has other joints than synthetic: joint 0 is nose, not thumb"
    ):
        trainer.train(
            make_config(
                dataset="own",
                data_root=str(copy),
                profile="fast",
                canvases=str(file),
                out_dir=str(tmp_path),
                **RECIPE,
            )
        )


def test_the_command_line_trains_from_a_cache(small, tmp_path, monkeypatch, capsys):
    file = canvas_cache.open_or_create(
        datasets.load("synthetic", small, "train"), tmp_path, (64, 64), STAGES
    ).path
    words = ["--canvases", str(file), "--val-split", "none", "--profile", "fast", "--out-dir", str(tmp_path)]
    words += ["--set", json.dumps(RECIPE | {"epochs": 1})]
    cli.main(["train", *words])
    path = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(open(path).read())["parameters"]["canvases"] == file.name


@pytest.fixture(scope="module")
def photographs(test_data) -> PoseDataset:
    athletes = lspet.load(test_data / "lspet", "val")
    athletes = combined.map_joints(
        replace(athletes, instances=athletes.instances[:30]), skeletons.get("coco")
    )
    return combined.combine([athletes, coco.load(test_data / "coco_sample", "train2017")], (0.6, 0.4))


def test_crops_from_canvases_equal_those_of_the_images(photographs, tmp_path):
    recipe = recipes.get("fast")
    file = canvas_cache.open_or_create(
        photographs, tmp_path, (256, 192), (recipe.stage1, recipe.stage2), "raw"
    )
    from_images = data.TrainDataset(photographs, recipe, 0)
    from_cache = data.TrainDataset(photographs, recipe, 0, file)
    differences = []
    for i in range(0, len(from_images), 4):
        (a, points, weights), (b, points_b, weights_b) = from_images[1, i], from_cache[1, i]
        assert torch.equal(points, points_b) and torch.equal(weights, weights_b)
        differences.append((a.float() - b.float()).abs().mean().item())
    assert np.mean(differences) < 1.5  # reduction of large people avoids aliasing


@pytest.mark.parametrize("preload", [True, False])
def test_gpu_batches_equal_those_of_the_loader(photographs, tmp_path, preload):
    recipe = recipes.get("fast", batch_size=20, input_size=[128, 96], epochs=2, stage2_epochs=1)
    file = canvas_cache.open_or_create(
        photographs, tmp_path, (128, 96), (recipe.stage1, recipe.stage2), "raw"
    )
    samples, other = (data.TrainDataset(photographs, recipe, 3, file) for _ in range(2))
    steps = data.ResumableBatchSampler(samples, first_step=1)
    device = data.gpu_batches(samples, steps, "cpu", 0, file.tensor("cpu") if preload else None)
    count = 0
    for one, two in zip(device, data.make_loader(other, steps, 0), strict=True):
        count += 1
        assert torch.equal(one[1], two[1]) and torch.equal(one[2], two[2])
        assert (one[0].float() - two[0].float()).abs().mean() < 0.5  # OpenCV warps in steps of 1/32 pixel
    assert count == 2 * math.ceil(len(samples) / 20) - 1
