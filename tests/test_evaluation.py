"""Metrics against plain loops and known answers; the flip test; real annotations where they are."""

import json
import math

import numpy as np
import pytest
import torch

from posebook import codecs, datasets, evaluation, models, skeletons
from posebook.datasets import Person, Persons

rng = np.random.default_rng(0)


def people_of(skeleton: str, keypoints: np.ndarray, path=None) -> Persons:
    """A little dataset around keypoints (N, K, 3)."""
    persons = tuple(
        Person("nowhere.jpg", i + 1, i + 1, (0.0, 0.0, 100.0, 100.0), 5000.0, points)
        for i, points in enumerate(keypoints)
    )
    return Persons("made", "val", skeletons.get(skeleton), "0" * 64, persons, path)


def annotated(tmp_path, keypoints: np.ndarray) -> Persons:
    """The same, with the COCO file pycocotools reads."""
    people = people_of("coco", keypoints, tmp_path / "truth.json")
    content = {
        "images": [
            {"id": p.image_id, "width": 100, "height": 100, "file_name": "x.jpg"} for p in people.persons
        ],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {
                "id": p.id,
                "image_id": p.image_id,
                "category_id": 1,
                "iscrowd": 0,
                "area": p.area,
                "bbox": list(p.bbox),
                "num_keypoints": int((p.keypoints[:, 2] > 0).sum()),
                "keypoints": p.keypoints.ravel().tolist(),
            }
            for p in people.persons
        ],
    }
    people.annotations.write_text(json.dumps(content))
    return people


def random_people(joints: int, count: int = 20) -> np.ndarray:
    points = rng.uniform(0, 100, (count, joints, 3))
    points[..., 2] = 2
    return points


def oks(truth: np.ndarray, points: np.ndarray, area: float) -> float:
    """The formula, joint by joint."""
    total, seen = 0.0, 0
    for (x, y, v), (px, py), sigma in zip(truth, points, skeletons.get("coco").sigmas, strict=True):
        if v > 0:
            total += math.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * area * (2 * sigma) ** 2))
            seen += 1
    return total / seen


def test_perfect_predictions_have_ap_one(tmp_path):
    people = annotated(tmp_path, random_people(17))
    truth = np.stack([p.keypoints for p in people.persons])
    result = evaluation.average_precision(people, evaluation.Predictions(truth[..., :2], np.ones((20, 17))))
    assert result["AP"] == result["AP50"] == result["AR"] == 1.0


def test_ap_counts_the_people_above_each_threshold(tmp_path):
    """One person a picture, equal scores: recall at a threshold is the share of people above it."""
    people = annotated(tmp_path, random_people(17))
    truth = np.stack([p.keypoints for p in people.persons])
    points = truth[..., :2] + rng.normal(0, 3, (20, 17, 2))
    result = evaluation.average_precision(people, evaluation.Predictions(points, np.ones((20, 17))))
    similar = np.array([oks(t, p, 5000.0) for t, p in zip(truth, points, strict=True)])
    thresholds = np.linspace(0.5, 0.95, 10)
    assert 0.05 < result["AR"] < 0.95
    assert result["AR"] == pytest.approx(np.mean([(similar >= t).mean() for t in thresholds]))


def test_person_score_is_the_mean_of_the_joints_above_the_threshold():
    people = people_of("coco", random_people(17, 2))
    scores = np.full((2, 17), 0.1)
    scores[0, :2] = 0.3, 0.5
    assert evaluation.person_scores(people, scores) == pytest.approx([0.4, 0.0])


def test_pck_against_a_loop():
    truth = random_people(14, 40)
    truth[..., 2] = 2 * (rng.random((40, 14)) < 0.7)
    people = people_of("lspet", truth)
    points = truth[..., :2] + rng.normal(0, 12, (40, 14, 2))
    result = evaluation.correct_keypoints(people, evaluation.Predictions(points, np.ones((40, 14))))
    right = counted = left_out = 0
    for joints, found in zip(truth, points, strict=True):
        # LSPET's order: right hip 2, left hip 3, right shoulder 8, left shoulder 9
        if joints[9, 2] and joints[2, 2]:
            torso = math.dist(joints[9, :2], joints[2, :2])
        elif joints[8, 2] and joints[3, 2]:
            torso = math.dist(joints[8, :2], joints[3, :2])
        else:
            left_out += 1
            continue
        for joint in range(14):
            if joints[joint, 2]:
                counted += 1
                right += math.dist(joints[joint, :2], found[joint]) <= 0.2 * torso
    assert result["PCK@0.2"] == pytest.approx(right / counted) and result["not_scored"] == left_out > 0
    assert 0.1 < result["PCK@0.2"] < 0.9


def test_flip_test_of_a_mirror_symmetric_net_changes_nothing():
    """A net that answers to a mirrored picture with the mirrored answer gains nothing from the average."""

    class Symmetric(torch.nn.Module):
        skeleton = skeletons.get("coco")

        def forward(self, images):
            profile = images.mean((1, 2)).repeat_interleave(2, -1)  # (B, 2W)
            x = torch.stack([profile] * 17, 1)  # (B, 17, 2W)
            return codecs.SimCC(x, images.mean((1, 3)).repeat_interleave(2, -1)[:, None].repeat(1, 17, 1))

    net, images = Symmetric(), torch.randn(2, 3, 32, 64)
    once, twice = evaluation.forward(net, images, False), evaluation.forward(net, images, True)
    assert torch.allclose(once.x, twice.x, atol=1e-6) and torch.allclose(once.y, twice.y, atol=1e-6)


def test_joints_that_are_not_the_models_are_refused():
    model = models.build("starnet-pose-t", "lspet", (64, 64))
    with pytest.raises(ValueError, match="the model gives lspet joints, made has coco joints"):
        evaluation.predict(model, people_of("coco", random_people(17, 2)))


def test_annotated_joints_through_the_crop_and_back_have_ap_one(test_data):
    """Real COCO people: encode in the crop, decode, map back, score by pycocotools."""
    people = datasets.load("coco", test_data / "coco_sample", "train2017")
    assert len(people.persons) == 86 and people.name == "coco-sample"
    points = []
    for person in people.persons:
        matrix = evaluation.transforms.crop_affine(person.bbox, (256, 192))
        target = codecs.encode_simcc(
            torch.from_numpy(evaluation.transforms.apply_affine(matrix, person.keypoints[:, :2]))[None],
            (256, 192),
        )
        found = codecs.decode_simcc(target)[0][0].numpy()
        points.append(evaluation.transforms.apply_affine(evaluation.transforms.invert(matrix), found))
    result = evaluation.average_precision(people, evaluation.Predictions(np.stack(points), np.ones((86, 17))))
    assert 0.95 <= result["AP"] <= 1.0
