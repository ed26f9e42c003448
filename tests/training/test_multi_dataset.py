"""One model for several keypoint sets: halves without common images, mixed batches, evaluation."""

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


def concatenated(sets, **changes):
    recipe = recipes.get("demo", multi_dataset.MODEL, **SHORT | changes)
    return multi_dataset.ConcatPoseDataset([TrainDataset(dataset, recipe, 0) for dataset in sets])


def test_the_halves_share_no_image_and_lose_none(sets):
    halves = multi_dataset.split_by_image(sets)
    images = [{person.image_id for person in half.instances} for half in halves]
    assert not images[0] & images[1]
    assert images[0] | images[1] == {person.image_id for person in sets[0].instances}
    assert [len(half.skeleton.keypoints) for half in halves] == [17, 14]
    assert sum(len(half.instances) for half in halves) == len(sets[0].instances)


def test_samples_of_both_sets_equal_those_of_each_with_missing_joints_at_weight_zero(sets):
    both = concatenated(sets)
    single = [TrainDataset(dataset, both.recipe, 0) for dataset in sets]
    first = len(single[0])
    assert len(both) == first + len(single[1])
    for index in range(len(both)):
        image, points, weights, number = both[0, index]
        assert number == (index >= first)
        expected = single[number][0, index - first * number]
        joints = len(expected[1])
        assert torch.equal(image, expected[0])
        assert torch.equal(points[:joints], expected[1]) and torch.equal(weights[:joints], expected[2])
        assert points.shape == (17, 2) and weights[joints:].sum() == 0


def test_the_loss_of_a_mixed_batch_is_the_mean_of_the_single_losses(sets):
    """For people with 14 joints, the three missing joints have no error, hence the factor joints / 17."""
    both = concatenated(sets)
    model = models.build(
        multi_dataset.MODEL, "coco", (64, 48), **TINY, extra_num_joints=(14,), expert_dim=12
    ).eval()
    torch.nn.init.normal_(model.associate_keypoint_heads[0].final_layer.weight, std=0.1)
    batch = next(iter(DataLoader([both[0, index] for index in (0, 1, len(both) - 1)], 3)))
    assert batch[3].tolist() == [0, 0, 1]
    loss = objectives.pose_loss(model, batch, both.recipe)
    total = 0.0
    for image, points, weights, number in (both[0, index] for index in (0, 1, len(both) - 1)):
        joints = model.joints[number]
        heatmaps = model(transforms.normalize(image[None]), number)
        target = codecs.encode_heatmap(points[None, :joints], (64, 48), 4)
        total += losses.heatmap_mse(heatmaps, target, weights[None, :joints]) * joints / 17
    assert loss.item() == pytest.approx(total.item() / 3, rel=1e-5)


def test_pck_equals_a_loop_over_joints(sets):
    dataset, rng = sets[1], np.random.default_rng(0)
    truth = np.stack([person.keypoints for person in dataset.instances])
    predicted = truth[..., :2] + rng.normal(0, 12, truth[..., :2].shape)
    correct = []
    for person, points in zip(dataset.instances, predicted, strict=True):
        for (x, y, v), (a, b) in zip(person.keypoints, points, strict=True):
            if v > 0:
                correct.append(np.hypot(x - a, y - b) <= 0.1 * max(person.bbox[2], person.bbox[3]))
    pck = multi_dataset.pck(dataset, Predictions(predicted, np.ones(predicted.shape[:2])))
    assert 0.1 < pck < 0.9 and pck == pytest.approx(np.mean(correct))


def test_the_baseline_is_the_median_location_in_a_box(sets):
    dataset = sets[1]
    points = multi_dataset.median_baseline(dataset, dataset).keypoints
    k = dataset.skeleton.keypoints.index("neck")
    locations = []
    for person in dataset.instances:
        (x, y, w, h), (a, b, v) = person.bbox, person.keypoints[k]
        if v > 0:
            locations.append([(a - x - w / 2) / max(w, h), (b - y - h / 2) / max(w, h)])
    for person, joints in zip(dataset.instances, points, strict=True):
        x, y, w, h = person.bbox
        expected = np.array([x + w / 2, y + h / 2]) + max(w, h) * np.median(locations, 0)
        assert joints[k] == pytest.approx(expected)


def test_every_method_has_the_multiply_adds_of_a_plain_model_per_set(sets):
    recipe = recipes.get("demo", multi_dataset.MODEL, **SHORT)
    size, counts, sizes = recipe.input_size, {}, {}
    for method in multi_dataset.METHODS:
        built, _ = multi_dataset.build_models(method, sets, recipe)
        plain = [one for model in built for one in multi_dataset.plain_models(model, sets)][:2]
        if method == "separate":
            plain = built
        assert [len(one.skeleton.keypoints) for one in plain] == [17, 14]
        counts[method] = [complexity.count(one, size) for one in plain]
        sizes[method] = sum(complexity.count(model, size)["params"] for model in built)
    assert counts["separate"] == counts["decoders"] == counts["experts"]
    assert sizes["decoders"] < sizes["experts"] < sizes["separate"]


@pytest.mark.parametrize("method, runs", [("separate", 2), ("experts", 1)])
def test_a_method_is_trained_evaluated_and_recorded(drawn, tmp_path, monkeypatch, method, runs, capsys):
    monkeypatch.setattr(multi_dataset, "MODEL_OPTIONS", multi_dataset.MODEL_OPTIONS | TINY)
    record = multi_dataset.train(method, drawn, out_dir=tmp_path, **SHORT)
    assert set(record["metrics"]) == {
        f"{name}, {joints} joints" for name in ("PCK@0.1", "AP") for joints in (17, 14)
    }
    assert len(record["curves"]) == runs and all(len(curve) == 1 for curve in record["curves"])
    assert [dataset["name"] for dataset in record["datasets"]] == list(multi_dataset.DATASETS)
    val_sets = [datasets.load(name, drawn) for name in multi_dataset.DATASETS]
    plain = multi_dataset.plain_models(models.load_weights(tmp_path / record["weights"]["file"]), val_sets)
    for one, dataset in zip(plain, val_sets[-len(plain) :], strict=True):  # separate: only the last model
        assert multi_dataset.evaluate_dataset(one, dataset).items() <= record["metrics"].items()
    assert record["weights"]["trained_on"] == {"separate": "synthetic-14"}.get(
        method, "+".join(multi_dataset.DATASETS)
    )
    assert models.trained_images(tmp_path / record["weights"]["file"])
    assert len(record["complexity"]["merged"]) == 2 and set(record["guess"]) < set(record["metrics"])
    assert records.load(records.write(record, tmp_path).parent)[0]["name"] == f"several-{method}-seed0"
    capsys.readouterr()
    again = multi_dataset.train(method, drawn, out_dir=tmp_path, **SHORT)  # from the last checkpoint
    assert "resuming from step" in capsys.readouterr().out
    assert again["metrics"] == record["metrics"] and again["curves"] == record["curves"]


def test_an_unknown_method_raises_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="unknown method 'expert'; did you mean experts"):
        multi_dataset.train("expert", tmp_path)
