"""One net for several keypoint sets: halves without a common picture, mixed batches, what is measured."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from posebook import codecs, complexity, datasets, losses, models, records, transforms
from posebook.datasets.synthetic import writing
from posebook.evaluation.metrics import Predictions
from posebook.training import multi_dataset, objectives, recipes
from posebook.training.data import TrainDataset

TINY = {"width": 24, "depth": 2, "heads": 2}
SHORT = {"epochs": 1, "batch_size": 8, "base_batch_size": 8, "input_size": (64, 48), "warmup_steps": 1}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    writing.generate(root, train_images=6, val_images=3, seed=1, workers=1)
    return root


@pytest.fixture
def sets(drawn):
    return [datasets.load(name, drawn, "train") for name in multi_dataset.DATASETS]


def together(sets, **changes):
    recipe = recipes.get("demo", multi_dataset.MODEL, **SHORT | changes)
    return multi_dataset.ConcatPoseDataset([TrainDataset(people, recipe, 0) for people in sets])


def test_halves_share_no_picture_and_lose_none(sets):
    parts = multi_dataset.split_by_image(sets)
    pictures = [{person.image_id for person in part.instances} for part in parts]
    assert not pictures[0] & pictures[1]
    assert pictures[0] | pictures[1] == {person.image_id for person in sets[0].instances}
    assert [len(part.skeleton.keypoints) for part in parts] == [17, 14]
    assert sum(len(part.instances) for part in parts) == len(sets[0].instances)


def test_samples_of_both_sets_are_those_of_each_with_joints_that_do_not_count(sets):
    both, parts = together(sets), [TrainDataset(people, together(sets).recipe, 0) for people in sets]
    first = len(parts[0])
    assert len(both) == first + len(parts[1])
    for index in range(len(both)):
        image, points, weights, number = both[0, index]
        assert number == (index >= first)
        alone = parts[number][0, index - first * number]
        joints = len(alone[1])
        assert torch.equal(image, alone[0])
        assert torch.equal(points[:joints], alone[1]) and torch.equal(weights[:joints], alone[2])
        assert points.shape == (17, 2) and weights[joints:].sum() == 0


def test_a_batch_of_both_has_the_loss_of_each_alone(sets):
    """The loss is a mean over people, of whom those with 14 joints have three that are right anyway."""
    both = together(sets)
    net = models.build(
        multi_dataset.MODEL, "coco", (64, 48), **TINY, extra_num_joints=(14,), expert_dim=12
    ).eval()
    torch.nn.init.normal_(net.associate_keypoint_heads[0].final_layer.weight, std=0.1)
    batch = next(iter(DataLoader([both[0, index] for index in (0, 1, len(both) - 1)], 3)))
    assert batch[3].tolist() == [0, 0, 1]
    found = objectives.pose_loss(net, batch, both.recipe)
    sum_ = 0.0
    for image, points, weights, number in (both[0, index] for index in (0, 1, len(both) - 1)):
        joints = net.joints[number]
        maps = net(transforms.normalize(image[None]), number)
        target = codecs.encode_heatmap(points[None, :joints], (64, 48), 4)
        sum_ += losses.heatmap_mse(maps, target, weights[None, :joints]) * joints / 17
    assert found.item() == pytest.approx(sum_.item() / 3, rel=1e-5)


def test_the_share_of_near_joints_by_a_loop(sets):
    people, rng = sets[1], np.random.default_rng(0)
    truth = np.stack([person.keypoints for person in people.instances])
    guess = truth[..., :2] + rng.normal(0, 12, truth[..., :2].shape)
    near = []
    for person, points in zip(people.instances, guess, strict=True):
        for (x, y, v), (a, b) in zip(person.keypoints, points, strict=True):
            if v > 0:
                near.append(np.hypot(x - a, y - b) <= 0.1 * max(person.bbox[2], person.bbox[3]))
    found = multi_dataset.pck(people, Predictions(guess, np.ones(guess.shape[:2])))
    assert 0.1 < found < 0.9 and found == pytest.approx(np.mean(near))


def test_a_guess_is_the_median_place_in_a_box(sets):
    people = sets[1]
    points = multi_dataset.median_baseline(people, people).keypoints
    k = people.skeleton.keypoints.index("neck")
    seen = []
    for person in people.instances:
        (x, y, w, h), (a, b, v) = person.bbox, person.keypoints[k]
        if v > 0:
            seen.append([(a - x - w / 2) / max(w, h), (b - y - h / 2) / max(w, h)])
    for person, joints in zip(people.instances, points, strict=True):
        x, y, w, h = person.bbox
        expected = np.array([x + w / 2, y + h / 2]) + max(w, h) * np.median(seen, 0)
        assert joints[k] == pytest.approx(expected)


def test_every_way_costs_a_set_what_a_plain_net_costs(sets):
    recipe = recipes.get("demo", multi_dataset.MODEL, **SHORT)
    size, counts, sizes = recipe.input_size, {}, {}
    for way in multi_dataset.METHODS:
        nets, _ = multi_dataset.build_models(way, sets, recipe)
        plains = [one for net in nets for one in multi_dataset.plain_models(net, sets)][:2]
        if way == "separate":
            plains = nets
        assert [len(one.skeleton.keypoints) for one in plains] == [17, 14]
        counts[way] = [complexity.count(one, size) for one in plains]
        sizes[way] = sum(complexity.count(net, size)["params"] for net in nets)
    assert counts["separate"] == counts["decoders"] == counts["experts"]
    assert sizes["decoders"] < sizes["experts"] < sizes["separate"]


@pytest.mark.parametrize("way, runs", [("separate", 2), ("experts", 1)])
def test_a_way_is_trained_measured_and_recorded(drawn, tmp_path, monkeypatch, way, runs):
    monkeypatch.setattr(multi_dataset, "MODEL_OPTIONS", multi_dataset.MODEL_OPTIONS | TINY)
    record = multi_dataset.train(way, drawn, out_dir=tmp_path, **SHORT)
    assert set(record["metrics"]) == {
        f"{name}, {joints} joints" for name in ("PCK@0.1", "AP") for joints in (17, 14)
    }
    assert len(record["curves"]) == runs and all(len(curve) == 1 for curve in record["curves"])
    assert [people["name"] for people in record["datasets"]] == list(multi_dataset.DATASETS)
    asked = [datasets.load(name, drawn) for name in multi_dataset.DATASETS]
    plain = multi_dataset.plain_models(models.load_weights(tmp_path / record["weights"]["file"]), asked)
    for one, people in zip(plain, asked[-len(plain) :], strict=True):  # of separate nets the last
        assert multi_dataset.evaluate_dataset(one, people).items() <= record["metrics"].items()
    assert len(record["complexity"]["merged"]) == 2 and set(record["guess"]) < set(record["metrics"])
    assert records.load(records.write(record, tmp_path).parent)[0]["name"] == f"several-{way}-seed0"
    again = multi_dataset.train(
        way, drawn, out_dir=tmp_path, **SHORT
    )  # from its last checkpoint: nothing is left
    assert again["metrics"] == record["metrics"] and again["curves"] == record["curves"]


def test_an_unknown_way_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="unknown way 'expert'; did you mean experts"):
        multi_dataset.train("expert", tmp_path)
