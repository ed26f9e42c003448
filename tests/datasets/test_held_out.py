"""Held-out images of a training: no added labels, and no image that the initial weights have seen."""

import json

from posebook import datasets, models
from posebook.datasets import combined
from posebook.training import trainer
from posebook.training.config import make_config

RECIPE = {"epochs": 1, "batch_size": 8, "input_size": [64, 64], "stage2_epochs": 1, "evaluate_every": 1}


def config(own, small, tmp_path, **changes):
    settings = {"dataset": "own+synthetic", "data_root": {"own": str(own), "synthetic": str(small)}}
    settings |= {"shares": [0.25, 0.75], "hold_out": 0.3, "val_split": "none", "out_dir": str(tmp_path)}
    return make_config(profile="fast", **settings | changes, **RECIPE)


def test_learning_curve_counts_only_annotated_joints(own, small, tmp_path):
    """The noses of `own` are labeled by a file. They are trained on, but not measured."""
    people = datasets.load("own", own, "train").instances
    labels = {person.image.name: {"nose": [5.0, 5.0, 0.9]} for person in people}
    (tmp_path / "labels.json").write_text(json.dumps({"labels": labels}))
    run = trainer.prepare(config(own, small, tmp_path, labels={"own": str(tmp_path / "labels.json")}))
    trained, held_out = run.train_set.sources[0], run.curve_set.sources[0]
    assert all(person.keypoints[0, 2] for person in trained.instances)
    assert held_out.instances and not any(person.keypoints[0, 2] for person in held_out.instances)
    names = [{person.image.name for person in source.instances} for source in (trained, held_out)]
    assert not names[0] & names[1] and names[0] | names[1] == set(labels)


def test_held_out_images_of_the_initial_weights_are_reported(own, small, tmp_path, capsys, monkeypatch):
    run = trainer.prepare(config(own, small, tmp_path))
    seen = combined.image_hashes(run.curve_set.instances)
    monkeypatch.setattr(models, "trained_images", lambda path: set(list(seen)[:2]))
    trainer.warn_about_earlier_images(run.curve_set, "folder/first.safetensors")
    printed = capsys.readouterr().out
    assert printed.startswith(f"2 of {len(seen)} held-out images are among those that first.safetensors was")
    monkeypatch.setattr(models, "trained_images", lambda path: {"0" * 12})
    trainer.warn_about_earlier_images(run.curve_set, "first.safetensors")
    assert not capsys.readouterr().out


def test_images_of_own_data_are_compared_however_many_there_are(own, small, monkeypatch):
    monkeypatch.setattr(trainer, "MAX_HASHED_IMAGES", 1)
    assert trainer.is_hashed(datasets.load("own", own, "train"))
    assert not trainer.is_hashed(datasets.load("synthetic", small, "train"))


def test_validation_split_is_part_of_the_run(small, tmp_path):
    """Otherwise a resumed run would mix two splits in one learning curve."""
    settings = {"dataset": "synthetic", "data_root": str(small), "out_dir": str(tmp_path), "profile": "fast"}
    runs = [trainer.prepare(make_config(val_split=split, **settings, **RECIPE)) for split in (None, "none")]
    first, second = map(trainer.run_identity, runs)
    assert "val_split" not in first and second == first | {"val_split": "none"}
