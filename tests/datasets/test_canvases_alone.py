"""Training from a file of canvases alone: the same people, the same weights, no images and no annotations."""

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
    """A copy of the small dataset that a test may move away."""
    return shutil.copytree(small, tmp_path / "data" / "people")


def alike(one, other) -> None:
    """Two `Persons` are equal but for paths."""
    facts = [
        replace(people, instances=(), sources=(), annotations=None, images={}) for people in (one, other)
    ]
    assert facts[0] == facts[1] and one.describe() == other.describe()
    assert len(one.instances) == len(other.instances) and len(one.sources) == len(other.sources)
    for a, b in zip(one.instances, other.instances, strict=True):
        assert a.image.name == b.image.name and replace(a, image=None, head=0) == replace(
            b, image=None, head=0
        )
        assert np.array_equal(a.keypoints, b.keypoints) and np.array_equal(a.head, b.head, equal_nan=True)
    for a, b in zip(one.sources, other.sources, strict=True):
        alike(a, b)


def sources(own, small) -> list[combined.Source]:
    return [combined.Source("own", own, "train", 0.25), combined.Source("synthetic", small, "val", 0.75)]


@pytest.mark.parametrize("several", [False, True])
def test_the_people_of_a_file_are_those_packed(own, small, tmp_path, several):
    """Sources and shares too; with each source's people its own."""
    people = combined.load_combined(sources(own, small)) if several else datasets.load("own", own, "train")
    file = canvas_cache.open_or_create(people, tmp_path, (64, 64), STAGES)
    found = canvas_cache.CanvasCache(file.path).people()
    alike(people, found)
    assert found.shares == people.shares and found.annotations == file.path
    assert file.image_hashes == combined.image_hashes(people.instances)
    recipe = recipes.get("fast", input_size=[64, 64])
    one, other = (data.TrainDataset(persons, recipe, 0, file) for persons in (people, found))
    for index in (0, 5, len(one) - 1):
        assert all((a == b).all() for a, b in zip(one[1, index], other[1, index], strict=True))


def test_other_keypoints_or_shares_are_packed_again(own, small, tmp_path):
    people = combined.load_combined(sources(own, small))
    canvas_cache.open_or_create(people, tmp_path, (64, 64), STAGES)
    first, second = people.sources
    moved = replace(first.instances[0], keypoints=first.instances[0].keypoints + 1)
    others = [
        combined.combine((replace(first, instances=(moved, *first.instances[1:])), second), (0.25, 0.75)),
        combined.combine(people.sources, (0.5, 0.5)),
    ]
    for other in others:
        alike(other, canvas_cache.open_or_create(other, tmp_path, (64, 64), STAGES).people())


def test_files_of_an_earlier_version_hold_no_people_and_are_packed_again(own, tmp_path, monkeypatch):
    people = datasets.load("own", own, "train")
    with monkeypatch.context() as patch:
        patch.setattr(canvas_cache, "VERSION", 1)
        patch.setattr(canvas_cache, "_people_bytes", lambda people: b"")
        old = canvas_cache.open_or_create(people, tmp_path, (64, 64), STAGES)
    assert len(canvas_cache.CanvasCache(old.path)) == 24  # its canvases can be read
    with pytest.raises(ValueError, match="packed by an earlier version and holds no people: pack it again"):
        canvas_cache.CanvasCache(old.path).people()
    alike(people, canvas_cache.open_or_create(people, tmp_path, (64, 64), STAGES).people())


@pytest.mark.parametrize("dataset", ["synthetic", "own+synthetic"])
def test_without_images_the_weights_are_the_same_bit_for_bit(copy, own, tmp_path, dataset):
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
    kept = records.load(records.write(alone, tmp_path / "c").parent)
    assert kept[0]["metrics"] == {} and tables.all_accuracies(kept).empty
    weights = tmp_path / "c" / alone["weights"]["file"]
    assert len(models.trained_images(weights)) == (48 if several else 24)
    with pytest.raises(DatasetMissing, match=f"is not in {copy}"):
        trainer.train(
            make_config(
                dataset="own", data_root=str(copy), out_dir=str(tmp_path), **settings | {"val_split": None}
            )
        )


def test_the_validation_people_are_evaluated_where_they_are_there(copy, tmp_path):
    people = datasets.load("synthetic", copy, "train")
    file = canvas_cache.open_or_create(people, tmp_path / "carried", (64, 64), STAGES).path
    shutil.rmtree(copy / "train")
    settings = dict(profile="fast", canvases=str(file), data_root=str(copy), out_dir=str(tmp_path), **RECIPE)
    record = trainer.train(make_config(**settings | {"epochs": 1}))
    assert "AP" in record["metrics"] and "not_evaluated" not in record
    assert len(models.trained_images(tmp_path / record["weights"]["file"])) == 24


def test_images_in_the_file_and_in_the_validation_set_are_refused(copy, tmp_path):
    people = datasets.load("synthetic", copy, "train")
    file = canvas_cache.open_or_create(people, tmp_path, (64, 64), STAGES).path
    shutil.copy(copy / "train" / "7.jpg", copy / "val" / "3.jpg")
    shutil.rmtree(copy / "train")
    with pytest.raises(ValueError, match=r"1 of 24 images .* that this run was trained on \(3.jpg\)"):
        trainer.train(
            make_config(
                profile="fast", canvases=str(file), data_root=str(copy), out_dir=str(tmp_path), **RECIPE
            )
        )


def test_canvases_that_do_not_serve_are_refused(small, tmp_path):
    people = datasets.load("synthetic", small, "train")
    file = canvas_cache.open_or_create(people, tmp_path, (64, 64), (recipes.DEMO.stage1,)).path
    foreign = tmp_path / "foreign.pack"
    foreign.write_bytes(b"PK")
    given = dict(
        profile="demo", canvases=str(file), val_split="none", out_dir=str(tmp_path), input_size=[64, 64]
    )
    leave = "canvases are packed already, with their sources and shares: leave out "
    for changes, message in [
        ({"canvases": str(tmp_path / "none.pack")}, f"no canvas cache at {tmp_path / 'none.pack'}"),
        ({"canvases": str(foreign)}, "is no file of packed canvases"),
        (
            {"input_size": [64, 96]},
            "holds canvases for inputs of 64x64, not of 64x96: pack them for that size",
        ),
        (
            {"profile": "fast"},
            "holds canvases that reach .* this recipe's augmentation needs .*: pack them for it",
        ),
        ({"shares": "1"}, leave + "shares"),
        ({"labels": "own=x"}, leave + "labels"),
        ({"hold_out": 0.1}, leave + "hold_out"),
        ({"pack": "raw"}, leave + "pack"),
        ({"val_split": None, "dataset": "synthetic-14", "data_root": str(small)}, "is not in"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            trainer.train(make_config(**given | changes))
    assert not (tmp_path / "runs").exists()


def test_people_to_evaluate_on_with_other_joints_are_refused(small, copy, tmp_path):
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


def test_the_command_line_trains_from_a_file(small, tmp_path, monkeypatch, capsys):
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


def test_crops_from_canvases_are_those_of_the_pictures(photographs, tmp_path):
    recipe = recipes.get("fast")
    file = canvas_cache.open_or_create(
        photographs, tmp_path, (256, 192), (recipe.stage1, recipe.stage2), "raw"
    )
    plain, quick = data.TrainDataset(photographs, recipe, 0), data.TrainDataset(photographs, recipe, 0, file)
    differences = []
    for i in range(0, len(plain), 4):
        (a, points, weights), (b, points_b, weights_b) = plain[1, i], quick[1, i]
        assert torch.equal(points, points_b) and torch.equal(weights, weights_b)
        differences.append((a.float() - b.float()).abs().mean().item())
    assert np.mean(differences) < 1.5  # large people are shrunk without aliasing


@pytest.mark.parametrize("held", [True, False])
def test_a_devices_batches_are_those_of_the_loader(photographs, tmp_path, held):
    recipe = recipes.get("fast", batch_size=20, input_size=[128, 96], epochs=2, stage2_epochs=1)
    file = canvas_cache.open_or_create(
        photographs, tmp_path, (128, 96), (recipe.stage1, recipe.stage2), "raw"
    )
    drawn, other = (data.TrainDataset(photographs, recipe, 3, file) for _ in range(2))
    steps = data.ResumableBatchSampler(drawn, first_step=1)
    device = data.gpu_batches(drawn, steps, "cpu", 0, file.tensor("cpu") if held else None)
    count = 0
    for one, two in zip(device, data.make_loader(other, steps, 0), strict=True):
        count += 1
        assert torch.equal(one[1], two[1]) and torch.equal(one[2], two[2])
        assert (one[0].float() - two[0].float()).abs().mean() < 0.5  # OpenCV warps in 32nds of a pixel
    assert count == 2 * math.ceil(len(drawn) / 20) - 1
