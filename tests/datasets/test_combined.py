"""Combined datasets: joints mapped by name, shares, held-out images, and the metric of each source."""

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


def random_dataset(skeleton, count: int = 12, name: str = "made", seed: int = 0) -> PoseDataset:
    """People with random joints, a fifth of them unlabeled, in images that do not exist."""
    rng, joints = np.random.default_rng(seed), len(skeleton.keypoints)
    persons = []
    for number in range(count):
        points = np.concatenate([rng.uniform(0, 200, (joints, 2)), np.full((joints, 1), 2.0)], 1)
        points[rng.random(joints) < 0.2] = 0
        persons.append(Person(f"{name}/{number}.jpg", number, number, (0.0, 0.0, 200.0, 200.0), 4e4, points))
    persons = tuple(replace(person, image=datasets.Path(person.image)) for person in persons)
    return PoseDataset(name, "val", skeleton, "0" * 64, persons, None)


def both_sources(own, small) -> list[Source]:
    return [Source("own", own, "train", 0.25), Source("synthetic", small, "train", 0.75)]


@pytest.mark.parametrize("skeleton", ["coco", "crowdpose", "mpii"])
def test_joints_are_mapped_by_name(skeleton):
    source, target = random_dataset(skeletons.get("lspet")), skeletons.get(skeleton)
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


def test_joints_missing_in_a_source_have_weight_0(own, small):
    dataset = combined.load_combined(both_sources(own, small))
    samples = data.TrainDataset(dataset, recipes.get("fast", input_size=[64, 64]), 0)
    samples.draw(0)
    first = torch.from_numpy(samples.person_indices(0) < 24)  # from own, without a nose
    assert not samples.weights[first, 0].any() and samples.weights[~first, 0].any()
    assert samples.weights[first, 1:].any(0).all()


@pytest.mark.parametrize(
    "sizes, shares", [((24, 24), (0.25, 0.75)), ((5, 40, 9), (0.7, 0.1, 0.2)), ((3, 9), (1, 0))]
)
def test_shares_of_an_epoch(sizes, shares):
    sources = [random_dataset(COCO, size, f"source {i}", i) for i, size in enumerate(sizes)]
    dataset, total = combined.combine(sources, shares), sum(sizes)
    counts, sampled = combined.split_epoch(dataset.shares, total), np.zeros(total, int)
    assert sum(counts) == total
    assert all(
        abs(count - share / sum(shares) * total) < 1 for count, share in zip(counts, shares, strict=True)
    )
    starts = np.cumsum([0, *sizes])
    for epoch in range(30):
        indices = combined.epoch_instances(dataset, 7, epoch)
        assert (indices == combined.epoch_instances(dataset, 7, epoch)).all() and len(indices) == total
        sampled += np.bincount(indices, minlength=total)
        for first, last, count in zip(starts, starts[1:], counts, strict=False):
            assert ((indices >= first) & (indices < last)).sum() == count
            assert np.ptp(sampled[first:last]) <= 1  # all people of a source are sampled equally often
    assert (combined.epoch_instances(dataset, 8, 0) != combined.epoch_instances(dataset, 7, 0)).any()


def test_default_shares_are_proportional_to_the_sizes():
    sources = [random_dataset(COCO, size, f"source {size}") for size in (6, 18)]
    dataset = combined.combine(sources, (None, None))
    assert dataset.shares == (0.25, 0.75)
    assert sorted(combined.epoch_instances(dataset, 0, 3)) == list(range(24))


def test_a_single_dataset_is_not_shuffled_by_shares(small):
    dataset = datasets.load("synthetic", small, "train")
    assert (combined.epoch_instances(dataset, 3, 5) == np.arange(24)).all()
    one_source = combined.combine([dataset], [None])
    recipe = recipes.get("fast", input_size=[64, 64])
    single, combination = (data.TrainDataset(each, recipe, 3) for each in (dataset, one_source))
    order = combination.person_indices(1)
    assert sorted(order) == list(range(24)) and (order != np.arange(24)).any()
    assert single.person_indices(1).tolist() == list(range(24))


def test_held_out_images_are_disjoint_and_deterministic(small):
    dataset = random_dataset(COCO, 400)
    # 50 images have two people.
    dataset = replace(dataset, instances=(*dataset.instances, *dataset.instances[:50]))
    rest, held_out = combined.hold_out(dataset, 0.2)
    names = [{person.image.name for person in side.instances} for side in (rest, held_out)]
    assert not names[0] & names[1] and len(rest.instances) + len(held_out.instances) == 450
    assert 0.12 < len(names[1]) / 400 < 0.28
    assert combined.hold_out(dataset, 0.2) == (rest, held_out)
    assert names[1] < {person.image.name for person in combined.hold_out(dataset, 0.4)[1].instances}
    assert (rest.split, held_out.split) == ("val without held out 0.2", "val held out 0.2")
    combination = combined.combine([dataset, random_dataset(COCO, 60, "more")], (0.5, 0.5))
    rest, held_out = combined.hold_out(combination, 0.2)
    assert rest.shares == held_out.shares == (0.5, 0.5) and [len(s.instances) for s in held_out.sources][
        0
    ] == len(combined.hold_out(dataset, 0.2)[1].instances)
    with pytest.raises(ValueError, match="holding out 0 of made leaves one side without people"):
        combined.hold_out(dataset, 0)


def test_held_out_people_need_not_have_every_joint():
    sources = [random_dataset(COCO, 60, name) for name in ("one", "two")]
    for source in sources:
        for person in combined.hold_out(source, 0.2)[1].instances:
            person.keypoints[0] = 0
    held_out = combined.hold_out(combined.combine(sources, (0.5, 0.5)), 0.2)[1]
    assert not any(person.keypoints[0].any() for person in held_out.instances)


def test_lspet_with_coco_joints_is_evaluated_with_pck_on_12_joints():
    source = random_dataset(skeletons.get("lspet"), 40, "lspet")
    mapped = combined.map_joints(source, COCO)
    assert mapped.metric_type == "pck" and mapped.describe()["joints"] == 12
    rng = np.random.default_rng(1)
    predicted = rng.uniform(0, 200, (40, 17, 2))
    for i, person in enumerate(mapped.instances):
        near = rng.random(17) < 0.5
        predicted[i, near] = person.keypoints[near, :2] + rng.normal(0, 5, (near.sum(), 2))
    scores, units = metrics.measure(mapped, Predictions(predicted, np.ones((40, 17))))
    shared = [name for name in source.skeleton.keypoints if name in COCO.keypoints]
    indices = [source.skeleton.keypoints.index(name) for name in shared]
    reduced = replace(
        source,
        skeleton=skeletons.make_skeleton("shared", shared, [], None),
        instances=tuple(replace(p, keypoints=p.keypoints[indices]) for p in source.instances),
    )
    shared_predictions = predicted[:, [COCO.keypoints.index(name) for name in shared]]
    assert scores == metrics.pck(reduced, Predictions(shared_predictions, np.ones((40, 12))))[0]
    assert units.people.sum() == sum(
        (p.keypoints[:, 2] > 0).sum() for p in reduced.instances if not math.isnan(torso(p, shared))
    )


def torso(person, names) -> float:
    points = dict(zip(names, person.keypoints, strict=True))
    for a, b in (("left_shoulder", "right_hip"), ("right_shoulder", "left_hip")):
        if points[a][2] > 0 and points[b][2] > 0:
            return math.dist(points[a][:2], points[b][:2])
    return math.nan


def test_ap_of_mapped_joints_equals_pycocotools(small):
    from pycocotools.coco import COCO as Truth
    from pycocotools.cocoeval import COCOeval

    dataset = datasets.load("synthetic", small, "val")
    names = list(COCO.keypoints[5:])[::-1]
    mapped = combined.map_joints(dataset, skeletons.make_skeleton("twelve", names, [], None))
    assert mapped.metric_type == "oks"
    predicted = np.stack([person.keypoints[:, :2] for person in mapped.instances])
    predicted = predicted + np.random.default_rng(0).normal(0, 3, predicted.shape)
    scores = metrics.score(mapped, Predictions(predicted, np.ones((24, 12))))
    indices = [COCO.keypoints.index(name) for name in names]
    content = json.loads(dataset.annotations.read_text())
    for entry in content["annotations"]:
        entry["keypoints"] = np.array(entry["keypoints"]).reshape(17, 3)[indices].ravel().tolist()
        entry["num_keypoints"] = 12
    truth = Truth()
    truth.dataset = content
    truth.createIndex()
    rows = [
        {"image_id": p.image_id, "category_id": 1, "score": 1.0}
        | {"keypoints": np.concatenate([f, np.ones((12, 1))], 1).ravel().tolist()}
        for p, f in zip(mapped.instances, predicted, strict=True)
    ]
    scorer = COCOeval(truth, truth.loadRes(rows), "keypoints")
    scorer.params.kpt_oks_sigmas = np.array(mapped.skeleton.sigmas)
    scorer.evaluate(), scorer.accumulate(), scorer.summarize()
    assert 0.1 < scores["AP"] == pytest.approx(scorer.stats[0])


def test_added_labels_fill_unlabeled_joints(tmp_path):
    dataset = combined.map_joints(random_dataset(skeletons.get("lspet")), COCO)
    labels = {
        "nose": [5.0, 6.0, 0.9],
        "left_eye": [7.0, 8.0, 0.3],
        "left_knee": [1.0, 2.0, 0.9],
        "neck": [1, 1, 1],
    }
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"labels": {"0.jpg": labels, "3.jpg": labels}}))
    added = combined.add_labels(dataset, path)
    assert added.describe()["labels"].startswith("labels.json sha256 ")
    knee = COCO.keypoints.index("left_knee")
    for i, (before, after) in enumerate(zip(dataset.instances, added.instances, strict=True)):
        expected = before.keypoints.copy()
        if i in (0, 3):
            expected[0] = 5, 6, 1
            if expected[knee, 2] == 0:
                expected[knee] = 1, 2, 1
        assert (after.keypoints == expected).all()
    path.write_text("[]")
    with pytest.raises(ValueError, match="labels.json is not a file of additional labels: it has no object"):
        combined.add_labels(dataset, path)
    for text, message in (
        ("{", "labels.json is not a file of additional labels: Expecting"),
        ('{"labels": {"a.jpg": {"nose": [1, 2, 0.9]}}}', "labels.json has no label of an image of made val"),
        ('{"labels": {"0.jpg": {"nose": [1, 2]}}}', "labels.json, 0.jpg: nose is .1, 2., not 3 numbers"),
        ('{"labels": {"0.jpg": [1, 2, 3, 4]}}', "labels.json, 0.jpg: joints is .*, not 3 numbers"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            combined.add_labels(dataset, path)


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
    cli.main(["train", *words])
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
    count = sum(one["persons"] for one in record["dataset"]["sources"])
    assert 30 < len(models.trained_images(weights)) == count < 48


def test_a_resumed_run_ends_with_the_same_weights(own, small, tmp_path, monkeypatch):
    def run(folder):
        root = {"own": str(own), "synthetic": str(small)}
        options = dict(
            shares=[0.25, 0.75], val_split="none", save_every=4, out_dir=str(folder), profile="fast"
        )
        return trainer.train(make_config(dataset="own+synthetic", data_root=root, **options, **RECIPE))

    complete, train_step, calls = run(tmp_path / "complete"), loop.train_step, []

    def interrupted_step(*arguments):
        calls.append(1)
        if len(calls) == 10:  # in the second epoch, one step after a checkpoint
            raise KeyboardInterrupt
        return train_step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", interrupted_step)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped")
    assert run(tmp_path / "stopped")["weights"]["sha256"] == complete["weights"]["sha256"]


def test_other_shares_give_another_hash(own, small):
    digests = {
        combined.load_combined(
            [replace(one, share=share) for one, share in zip(both_sources(own, small), shares, strict=True)]
        ).sha256
        for shares in ((0.25, 0.75), (0.5, 0.5), (1, 3))
    }
    assert len(digests) == 2  # (1, 3) equals (0.25, 0.75)
