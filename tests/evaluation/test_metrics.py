"""Metrics against plain loops, another evaluator and known results, on synthetic and real annotations."""

import contextlib
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from metrics_helpers import annotated_dataset, make_dataset, noisy_predictions, random_keypoints, rng

from posebook import codecs, datasets, skeletons, transforms
from posebook.datasets import Person, PoseDataset
from posebook.evaluation import metrics
from posebook.evaluation.metrics import Predictions


def oks(truth: np.ndarray, points: np.ndarray, area: float) -> float:
    """The formula of OKS, joint by joint."""
    total, seen = 0.0, 0
    for (x, y, v), (px, py), sigma in zip(truth, points, skeletons.get("coco").sigmas, strict=True):
        if v > 0:
            total += math.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * area * (2 * sigma) ** 2))
            seen += 1
    return total / seen


def test_perfect_predictions_have_ap_one(tmp_path):
    dataset = annotated_dataset(tmp_path, random_keypoints(17))
    truth = np.stack([p.keypoints for p in dataset.instances])
    result = metrics.score(dataset, Predictions(truth[..., :2], np.ones((20, 17))))
    assert result["AP"] == result["AP50"] == result["AR"] == 1.0


def test_recall_counts_the_people_above_each_threshold(tmp_path):
    """With one person per image and equal scores, recall at a threshold is the share of people above it."""
    dataset = annotated_dataset(tmp_path, random_keypoints(17))
    truth = np.stack([p.keypoints for p in dataset.instances])
    points = truth[..., :2] + rng.normal(0, 3, (20, 17, 2))
    result = metrics.score(dataset, Predictions(points, np.ones((20, 17))))
    similar = np.array([oks(t, p, 5000.0) for t, p in zip(truth, points, strict=True)])
    thresholds = np.linspace(0.5, 0.95, 10)
    assert 0.05 < result["AR"] < 0.95
    assert result["AR"] == pytest.approx(np.mean([(similar >= t).mean() for t in thresholds]))


def test_person_score_is_the_mean_of_the_joints_above_the_threshold():
    dataset = make_dataset("coco", random_keypoints(17, 2))
    scores = np.full((2, 17), 0.1)
    scores[0, :2] = 0.3, 0.5
    assert metrics.person_scores(dataset, scores) == pytest.approx([0.4, 0.0])


def test_pck_against_a_loop():
    truth = random_keypoints(14, 40)
    truth[..., 2] = 2 * (rng.random((40, 14)) < 0.7)
    dataset = make_dataset("lspet", truth)
    points = truth[..., :2] + rng.normal(0, 12, (40, 14, 2))
    result = metrics.score(dataset, Predictions(points, np.ones((40, 14))))
    correct = counted = not_scored = 0
    for joints, predicted in zip(truth, points, strict=True):
        # LSPET's order: right hip 2, left hip 3, right shoulder 8, left shoulder 9
        if joints[9, 2] and joints[2, 2]:
            torso = math.dist(joints[9, :2], joints[2, :2])
        elif joints[8, 2] and joints[3, 2]:
            torso = math.dist(joints[8, :2], joints[3, :2])
        else:
            not_scored += 1
            continue
        for joint in range(14):
            if joints[joint, 2]:
                counted += 1
                correct += math.dist(joints[joint, :2], predicted[joint]) <= 0.2 * torso
    assert result["PCK@0.2"] == pytest.approx(correct / counted)
    assert result["not_scored"] == not_scored > 0
    assert 0.1 < result["PCK@0.2"] < 0.9


def test_pck_without_any_torso_is_an_error():
    truth = random_keypoints(14, 3)
    truth[:, 2:4, 2] = 0  # the hips
    points = Predictions(truth[..., :2], np.ones((3, 14)))
    with pytest.raises(ValueError, match="PCK needs a person with a labeled shoulder and hip"):
        metrics.score(make_dataset("lspet", truth), points)


def test_annotated_joints_mapped_to_the_crop_and_back_have_ap_one(test_data):
    """Annotated people of COCO: encode in the crop, decode, map back, score with pycocotools."""
    dataset = datasets.load("coco", test_data / "coco_sample", "train2017")
    assert len(dataset.instances) == 86 and dataset.name == "coco-sample"
    points = []
    for person in dataset.instances:
        matrix = transforms.crop_affine(person.bbox, (256, 192))
        target = codecs.encode_simcc(
            torch.from_numpy(transforms.apply_affine(matrix, person.keypoints[:, :2]))[None],
            (256, 192),
        )
        decoded = codecs.decode_simcc(target)[0][0].numpy()
        points.append(transforms.apply_affine(transforms.invert(matrix), decoded))
    result = metrics.score(dataset, Predictions(np.stack(points), np.ones((86, 17))))
    assert 0.95 <= result["AP"] <= 1.0


def test_size_without_people_has_no_ap_and_id_0_counts(tmp_path):
    dataset = annotated_dataset(tmp_path, random_keypoints(17))
    content = json.loads(dataset.annotations.read_text())
    for entry in content["annotations"]:
        entry["id"] -= 1
    dataset.annotations.write_text(json.dumps(content))
    truth = np.stack([p.keypoints for p in dataset.instances])
    result = metrics.score(dataset, Predictions(truth[..., :2], np.ones((20, 17))))
    assert result["AP"] == result["AP_M"] == 1.0 and "AP_L" not in result  # an area of 5,000 pixels is medium


@pytest.mark.parametrize("name, index", [("keypoints", (3, 5, 0)), ("scores", (3, 5))])
def test_error_names_the_person_with_a_nan(tmp_path, name, index):
    dataset = annotated_dataset(tmp_path, random_keypoints(17))
    predicted = Predictions(np.zeros((20, 17, 2)), np.ones((20, 17)))
    getattr(predicted, name)[index] = np.nan
    with pytest.raises(ValueError, match=f"predicted {name} of 1 people are not finite .* person 4 of image"):
        metrics.score(dataset, predicted)


def test_missing_pycocotools_is_an_early_error(monkeypatch):
    find = metrics.importlib.util.find_spec
    monkeypatch.setattr(
        metrics.importlib.util, "find_spec", lambda name: None if name == "pycocotools" else find(name)
    )
    with pytest.raises(ModuleNotFoundError, match="made is scored by pycocotools, which is not installed"):
        metrics.check_dependencies(make_dataset("coco", random_keypoints(17, 1)))
    metrics.check_dependencies(make_dataset("lspet", random_keypoints(14, 1)))


def test_wrong_number_of_predictions_raises(tmp_path):
    dataset = annotated_dataset(tmp_path, random_keypoints(17))
    with pytest.raises(
        ValueError, match=r"predicted keypoints have shape \(19, 17, 2\); made needs \(20, 17, 2\)"
    ):
        metrics.score(dataset, Predictions(np.zeros((19, 17, 2)), np.ones((19, 17))))


def test_ap_from_image_stats_is_that_of_pycocotools(tmp_path):
    dataset, predicted = noisy_predictions(tmp_path)
    result, stats = metrics.measure(dataset, predicted)
    assert 0.2 < result["AP"] < 0.9
    once = np.ones((1, len(stats.images)))
    assert metrics.weighted_metric(stats, once)[0] == pytest.approx(result["AP"], abs=1e-9)
    # weight 0 removes an image, as if the dataset did not contain it
    weights = once.copy()
    weights[0, [3, 7, 8]] = 0
    remaining = np.flatnonzero(weights[0])
    subset = replace(dataset, images={int(stats.images[i]): Path("x.jpg") for i in remaining})
    assert metrics.weighted_metric(stats, weights)[0] == pytest.approx(
        metrics.score(subset, predicted)["AP"], abs=1e-9
    )


def test_oks_nms_against_a_loop(tmp_path):
    """Each pose twice, the copy shifted by 0 to 8 pixels: NMS removes similar copies."""
    dataset, predicted = noisy_predictions(tmp_path)
    twice = replace(dataset, instances=dataset.instances * 2, boxes="detector")
    shifted = predicted.keypoints + np.random.default_rng(1).uniform(0, 8, (100, 1, 1))
    keypoints = np.concatenate([predicted.keypoints, shifted])
    both = Predictions(keypoints, np.tile(predicted.scores, (2, 1)) * 0.9)
    totals = metrics.person_scores(twice, both.scores) - np.arange(200) * 1e-6  # no ties
    remains = metrics.oks_nms(twice, both, totals)
    sigmas = skeletons.get("coco").sigmas
    area = (100 / 0.75) * 100 * 1.25**2  # boxes of 100 x 100, extended to 3:4 and enlarged
    best: list[int] = []
    for i in sorted(range(200), key=lambda i: -totals[i]):
        better = [j for j in best if twice.instances[j].image_id == twice.instances[i].image_id]
        similarities = [
            np.mean(
                [
                    math.exp(
                        -(math.dist(both.keypoints[i, k], both.keypoints[j, k]) ** 2) / (8 * s * s * area)
                    )
                    for k, s in enumerate(sigmas)
                ]
            )
            for j in better
        ]
        if all(value <= 0.9 for value in similarities):
            best.append(i)
    assert sorted(best) == np.flatnonzero(remains).tolist() and 100 < len(best) < 200
    assert (
        len(metrics.coco_results(replace(twice, boxes="ground truth"), both)) == 200
    )  # annotated boxes: no NMS


def test_crowdpose_agrees_with_another_evaluator(test_data, tmp_path):
    """All validation people with perturbed poses: equals faster-coco-eval in crowd mode to four decimals."""
    evaluator = pytest.importorskip("faster_coco_eval")
    path = test_data / "crowdpose_val" / "crowdpose_val.json"
    content = json.loads(path.read_text())
    draw = np.random.default_rng(5)
    persons, points = [], []
    for entry in content["annotations"]:
        if not entry["num_keypoints"] or draw.random() < 0.1:
            continue
        joints = np.array(entry["keypoints"], float).reshape(14, 3)
        x, y, w, h = entry["bbox"]
        persons.append(Person(Path("x.jpg"), entry["image_id"], entry["id"], (x, y, w, h), w * h, joints))
        spread = draw.uniform(0, 0.08) * math.sqrt(w * h)
        points.append(joints[:, :2] + draw.normal(0, spread, (14, 2)))
    dataset = PoseDataset("crowdpose", "val", skeletons.get("crowdpose"), "0" * 64, tuple(persons), path)
    predicted = Predictions(np.stack(points), draw.uniform(0.3, 1, (len(points), 14)))
    posebook_metrics = metrics.score(dataset, predicted)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = evaluator.COCO(str(path))
        reference = evaluator.COCOeval_faster(
            truth,
            truth.loadRes(metrics.coco_results(dataset, predicted)),
            "keypoints_crowd",
            use_area=False,
        )
        reference.params.kpt_oks_sigmas = np.array(dataset.skeleton.sigmas)
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    stats = reference.all_stats
    names = ("AP", "AP50", "AP75", "AR", None, None, "AP easy", "AP medium", "AP hard")
    for name, value in zip(names, stats, strict=True):
        assert name is None or posebook_metrics[name] == pytest.approx(value, abs=5.1e-5), name
    assert posebook_metrics["AP easy"] != posebook_metrics["AP hard"] and 0.2 < posebook_metrics["AP"] < 0.9
