"""Several datasets as one: joints by name, shares, held-out images, and each source's metric."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from posebook import cli, datasets, models, skeletons
from posebook.datasets import Person, PoseDataset, combined
from posebook.datasets.combined import Source
from posebook.evaluation import metrics
from posebook.evaluation.metrics import Predictions
from posebook.training import data, loop, recipes, trainer
from posebook.training.config import make_config

COCO = skeletons.get("coco")
RECIPE = {"epochs": 2, "batch_size": 8, "input_size": [64, 64], "stage2_epochs": 1, "evaluate_every": 1}


def made(skeleton, count: int = 12, name: str = "made", seed: int = 0) -> PoseDataset:
    """People of drawn joints, a fifth of them not labeled, in images that are not there."""
    rng, joints = np.random.default_rng(seed), len(skeleton.keypoints)
    persons = []
    for number in range(count):
        points = np.concatenate([rng.uniform(0, 200, (joints, 2)), np.full((joints, 1), 2.0)], 1)
        points[rng.random(joints) < 0.2] = 0
        persons.append(Person(f"{name}/{number}.jpg", number, number, (0.0, 0.0, 200.0, 200.0), 4e4, points))
    persons = tuple(replace(person, image=datasets.Path(person.image)) for person in persons)
    return PoseDataset(name, "val", skeleton, "0" * 64, persons, None)


def both(own, small) -> list[Source]:
    return [Source("own", own, "train", 0.25), Source("synthetic", small, "train", 0.75)]


@pytest.mark.parametrize("skeleton", ["coco", "crowdpose", "mpii"])
def test_joints_are_mapped_by_name(skeleton):
    source, target = made(skeletons.get("lspet")), skeletons.get(skeleton)
    mapped = combined.map_joints(source, target)
    assert mapped.skeleton == target and mapped.file_joints == source.skeleton.keypoints
    for before, after in zip(source.instances, mapped.instances, strict=True):
        assert after.keypoints.shape == (len(target.keypoints), 3)
        assert replace(after, keypoints=None) == replace(before, keypoints=None)
        for name, joint in zip(target.keypoints, after.keypoints, strict=True):
            known = name in source.skeleton.keypoints
            expected = before.keypoints[source.skeleton.keypoints.index(name)] if known else [0, 0, 0]
            assert (joint == expected).all()
    assert combined.map_joints(source, source.skeleton) is source


def test_joints_that_a_source_lacks_have_weight_0_in_the_loss(own, small):
    people = combined.load_combined(both(own, small))
    drawn = data.TrainDataset(people, recipes.get("fast", input_size=[64, 64]), 0)
    drawn.draw(0)
    first = torch.from_numpy(drawn.person_indices(0) < 24)  # own's, which have no nose
    assert not drawn.weights[first, 0].any() and drawn.weights[~first, 0].any()
    assert drawn.weights[first, 1:].any(0).all()


@pytest.mark.parametrize(
    "sizes, shares", [((24, 24), (0.25, 0.75)), ((5, 40, 9), (0.7, 0.1, 0.2)), ((3, 9), (1, 0))]
)
def test_shares_of_an_epoch(sizes, shares):
    parts = [made(COCO, size, f"part {i}", i) for i, size in enumerate(sizes)]
    people, total = combined.combine(parts, shares), sum(sizes)
    counts, seen = combined.split_epoch(people.shares, total), np.zeros(total, int)
    assert sum(counts) == total
    assert all(
        abs(count - share / sum(shares) * total) < 1 for count, share in zip(counts, shares, strict=True)
    )
    starts = np.cumsum([0, *sizes])
    for epoch in range(30):
        chosen = combined.epoch_instances(people, 7, epoch)
        assert (chosen == combined.epoch_instances(people, 7, epoch)).all() and len(chosen) == total
        seen += np.bincount(chosen, minlength=total)
        for first, last, count in zip(starts, starts[1:], counts, strict=False):
            assert ((chosen >= first) & (chosen < last)).sum() == count
            assert np.ptp(seen[first:last]) <= 1  # everyone of a source is seen equally often
    assert (combined.epoch_instances(people, 8, 0) != combined.epoch_instances(people, 7, 0)).any()


def test_without_shares_a_source_has_its_part_of_the_people():
    parts = [made(COCO, size, f"part {size}") for size in (6, 18)]
    people = combined.combine(parts, (None, None))
    assert people.shares == (0.25, 0.75)
    assert sorted(combined.epoch_instances(people, 0, 3)) == list(range(24))


def test_a_plain_dataset_keeps_its_samples_and_their_order(small):
    people = datasets.load("synthetic", small, "train")
    assert (combined.epoch_instances(people, 3, 5) == np.arange(24)).all()
    alone = combined.combine([people], [None])
    recipe = recipes.get("fast", input_size=[64, 64])
    plain, mixed = (data.TrainDataset(persons, recipe, 3) for persons in (people, alone))
    order = mixed.person_indices(1)
    assert sorted(order) == list(range(24)) and (order != np.arange(24)).any()
    assert plain.person_indices(1).tolist() == list(range(24))


def test_held_out_images_are_others_and_always_the_same(small):
    people = made(COCO, 400)
    people = replace(people, instances=(*people.instances, *people.instances[:50]))  # two in an image
    rest, held = combined.hold_out(people, 0.2)
    names = [{person.image.name for person in side.instances} for side in (rest, held)]
    assert not names[0] & names[1] and len(rest.instances) + len(held.instances) == 450
    assert 0.12 < len(names[1]) / 400 < 0.28
    assert combined.hold_out(people, 0.2) == (rest, held)
    assert names[1] < {person.image.name for person in combined.hold_out(people, 0.4)[1].instances}
    assert (rest.split, held.split) == ("val without held out 0.2", "val held out 0.2")
    several = combined.combine([people, made(COCO, 60, "more")], (0.5, 0.5))
    rest, held = combined.hold_out(several, 0.2)
    assert rest.shares == held.shares == (0.5, 0.5) and [len(s.instances) for s in held.sources][0] == len(
        combined.hold_out(people, 0.2)[1].instances
    )
    with pytest.raises(ValueError, match="holding out 0 of made leaves nobody on one side"):
        combined.hold_out(people, 0)


def test_lspet_on_cocos_joints_is_scored_by_pck_on_12_joints():
    source = made(skeletons.get("lspet"), 40, "lspet")
    mapped = combined.map_joints(source, COCO)
    assert metrics.metric_type(mapped) == "pck" and mapped.describe()["joints"] == 12
    rng = np.random.default_rng(1)
    found = rng.uniform(0, 200, (40, 17, 2))
    for i, person in enumerate(mapped.instances):
        near = rng.random(17) < 0.5
        found[i, near] = person.keypoints[near, :2] + rng.normal(0, 5, (near.sum(), 2))
    scores, units = metrics.measure(mapped, Predictions(found, np.ones((40, 17))))
    shared = [name for name in source.skeleton.keypoints if name in COCO.keypoints]
    places = [source.skeleton.keypoints.index(name) for name in shared]
    few = replace(
        source,
        skeleton=skeletons.make_skeleton("few", shared, [], None),
        instances=tuple(replace(p, keypoints=p.keypoints[places]) for p in source.instances),
    )
    mine = found[:, [COCO.keypoints.index(name) for name in shared]]
    assert scores == metrics.pck(few, Predictions(mine, np.ones((40, 12))))[0]
    assert units.people.sum() == sum(
        (p.keypoints[:, 2] > 0).sum() for p in few.instances if not math.isnan(torso(p, shared))
    )


def torso(person, names) -> float:
    points = dict(zip(names, person.keypoints, strict=True))
    for a, b in (("left_shoulder", "right_hip"), ("right_shoulder", "left_hip")):
        if points[a][2] > 0 and points[b][2] > 0:
            return math.dist(points[a][:2], points[b][:2])
    return math.nan


def test_fewer_joints_of_a_coco_file_are_scored_by_pycocotools(small):
    from pycocotools.coco import COCO as Truth
    from pycocotools.cocoeval import COCOeval

    people = datasets.load("synthetic", small, "val")
    names = list(COCO.keypoints[5:])[::-1]
    mapped = combined.map_joints(people, skeletons.make_skeleton("twelve", names, [], None))
    assert metrics.metric_type(mapped) == "oks"
    found = np.stack([person.keypoints[:, :2] for person in mapped.instances])
    found = found + np.random.default_rng(0).normal(0, 3, found.shape)
    scores = metrics.score(mapped, Predictions(found, np.ones((24, 12))))
    places = [COCO.keypoints.index(name) for name in names]
    content = json.loads(people.annotations.read_text())
    for entry in content["annotations"]:
        entry["keypoints"] = np.array(entry["keypoints"]).reshape(17, 3)[places].ravel().tolist()
        entry["num_keypoints"] = 12
    truth = Truth()
    truth.dataset = content
    truth.createIndex()
    rows = [
        {"image_id": p.image_id, "category_id": 1, "score": 1.0}
        | {"keypoints": np.concatenate([f, np.ones((12, 1))], 1).ravel().tolist()}
        for p, f in zip(mapped.instances, found, strict=True)
    ]
    scorer = COCOeval(truth, truth.loadRes(rows), "keypoints")
    scorer.params.kpt_oks_sigmas = np.array(mapped.skeleton.sigmas)
    scorer.evaluate(), scorer.accumulate(), scorer.summarize()
    assert 0.1 < scores["AP"] == pytest.approx(scorer.stats[0])


def test_added_labels_fill_in_what_is_not_labeled(tmp_path):
    people = combined.map_joints(made(skeletons.get("lspet")), COCO)
    point = {
        "nose": [5.0, 6.0, 0.9],
        "left_eye": [7.0, 8.0, 0.3],
        "left_knee": [1.0, 2.0, 0.9],
        "neck": [1, 1, 1],
    }
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"labels": {"0.jpg": point, "3.jpg": point}}))
    added = combined.add_labels(people, path)
    assert added.describe()["labels"].startswith("labels.json sha256 ")
    knee = COCO.keypoints.index("left_knee")
    for i, (before, after) in enumerate(zip(people.instances, added.instances, strict=True)):
        expected = before.keypoints.copy()
        if i in (0, 3):
            expected[0] = 5, 6, 1
            if expected[knee, 2] == 0:
                expected[knee] = 1, 2, 1
        assert (after.keypoints == expected).all()
    path.write_text("[]")
    with pytest.raises(ValueError, match="labels.json is not a file of additional labels: it has no object"):
        combined.add_labels(people, path)


def command_line(monkeypatch, *words: str) -> None:
    cli.main(["train", *words])


def test_the_command_line_trains_on_two_sources(own, small, tmp_path, monkeypatch, capsys):
    words = [
        "--dataset",
        "own+synthetic",
        "--data-root",
        f"own={own},synthetic={small}",
        "--shares",
        "0.25,0.75",
    ]
    words += [
        "--profile",
        "fast",
        "--out-dir",
        str(tmp_path),
        "--hold-out",
        "0.2",
        "--set",
        json.dumps(RECIPE),
    ]
    command_line(monkeypatch, *words)
    record = json.loads(open(capsys.readouterr().out.splitlines()[-1]).read())
    first, second = record["dataset"]["sources"]
    assert (first["name"], second["name"]) == (f"own-{own.name}", "synthetic")
    assert first["split"] == second["split"] == "train without held out 0.2" and first["joints"] == 16
    assert (first["share"], second["share"]) == (0.25, 0.75) and first["sha256"] != second["sha256"]
    assert set(record["metrics"]) >= {f"own-{own.name} AP", "synthetic AP"}
    assert [one["evaluated"]["name"] for one in record["evaluations"]] == [first["name"], "synthetic"]
    assert record["curve_measured_on"]["split"] == "train held out 0.2+train held out 0.2"
    assert "synthetic AP" in record["curve"][0] and "synthetic AP" in record["curve"][-1]
    assert len(list((tmp_path / "records").glob("*.npz"))) == 2
    assert str(own) not in json.dumps(record) and str(tmp_path) not in json.dumps(record)
    weights = tmp_path / record["weights"]["file"]
    kept = sum(one["persons"] for one in record["dataset"]["sources"])
    assert 30 < len(models.trained_images(weights)) == kept < 48


def test_a_resumed_run_ends_with_the_same_weights(own, small, tmp_path, monkeypatch):
    def run(folder):
        root = {"own": str(own), "synthetic": str(small)}
        how = dict(shares=[0.25, 0.75], val_split="none", save_every=1, out_dir=str(folder), profile="fast")
        return trainer.train(make_config(dataset="own+synthetic", data_root=root, **how, **RECIPE))

    whole, real, calls = run(tmp_path / "whole"), loop.train_step, []

    def stopped(*arguments):
        calls.append(1)
        if len(calls) == 9:  # amid the second epoch
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped")
    assert run(tmp_path / "stopped")["weights"]["sha256"] == whole["weights"]["sha256"]


def test_other_shares_are_another_run(own, small):
    digests = {
        combined.load_combined(
            [replace(one, share=share) for one, share in zip(both(own, small), shares, strict=True)]
        ).sha256
        for shares in ((0.25, 0.75), (0.5, 0.5), (1, 3))
    }
    assert len(digests) == 2  # 1 to 3 is the first one
