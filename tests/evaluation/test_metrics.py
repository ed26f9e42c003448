"""Metrics against plain loops, other evaluators and known answers; real annotations where they are."""

import contextlib
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from metrics_helpers import annotated, people_of, random_people, rng, several

from posebook import codecs, datasets, skeletons, transforms
from posebook.datasets import Person, PoseDataset
from posebook.evaluation import metrics
from posebook.evaluation.metrics import Predictions


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
    truth = np.stack([p.keypoints for p in people.instances])
    result = metrics.score(people, Predictions(truth[..., :2], np.ones((20, 17))))
    assert result["AP"] == result["AP50"] == result["AR"] == 1.0


def test_ap_counts_the_people_above_each_threshold(tmp_path):
    """One person a picture, equal scores: recall at a threshold is the share of people above it."""
    people = annotated(tmp_path, random_people(17))
    truth = np.stack([p.keypoints for p in people.instances])
    points = truth[..., :2] + rng.normal(0, 3, (20, 17, 2))
    result = metrics.score(people, Predictions(points, np.ones((20, 17))))
    similar = np.array([oks(t, p, 5000.0) for t, p in zip(truth, points, strict=True)])
    thresholds = np.linspace(0.5, 0.95, 10)
    assert 0.05 < result["AR"] < 0.95
    assert result["AR"] == pytest.approx(np.mean([(similar >= t).mean() for t in thresholds]))


def test_person_score_is_the_mean_of_the_joints_above_the_threshold():
    people = people_of("coco", random_people(17, 2))
    scores = np.full((2, 17), 0.1)
    scores[0, :2] = 0.3, 0.5
    assert metrics.person_scores(people, scores) == pytest.approx([0.4, 0.0])


def test_pck_against_a_loop():
    truth = random_people(14, 40)
    truth[..., 2] = 2 * (rng.random((40, 14)) < 0.7)
    people = people_of("lspet", truth)
    points = truth[..., :2] + rng.normal(0, 12, (40, 14, 2))
    result = metrics.score(people, Predictions(points, np.ones((40, 14))))
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


def test_annotated_joints_through_the_crop_and_back_have_ap_one(test_data):
    """Real COCO people: encode in the crop, decode, map back, score by pycocotools."""
    people = datasets.load("coco", test_data / "coco_sample", "train2017")
    assert len(people.instances) == 86 and people.name == "coco-sample"
    points = []
    for person in people.instances:
        matrix = transforms.crop_affine(person.bbox, (256, 192))
        target = codecs.encode_simcc(
            torch.from_numpy(transforms.apply_affine(matrix, person.keypoints[:, :2]))[None],
            (256, 192),
        )
        found = codecs.decode_simcc(target)[0][0].numpy()
        points.append(transforms.apply_affine(transforms.invert(matrix), found))
    result = metrics.score(people, Predictions(np.stack(points), np.ones((86, 17))))
    assert 0.95 <= result["AP"] <= 1.0


def test_an_absent_size_has_no_figure_and_a_person_with_id_0_counts(tmp_path):
    people = annotated(tmp_path, random_people(17))
    content = json.loads(people.annotations.read_text())
    for entry in content["annotations"]:
        entry["id"] -= 1
    people.annotations.write_text(json.dumps(content))
    truth = np.stack([p.keypoints for p in people.instances])
    result = metrics.score(people, Predictions(truth[..., :2], np.ones((20, 17))))
    assert result["AP"] == result["AP_M"] == 1.0 and "AP_L" not in result  # 5,000 pixels are medium


@pytest.mark.parametrize("name, place", [("keypoints", (3, 5, 0)), ("scores", (3, 5))])
def test_predictions_that_are_no_numbers_are_named(tmp_path, name, place):
    people = annotated(tmp_path, random_people(17))
    found = Predictions(np.zeros((20, 17, 2)), np.ones((20, 17)))
    getattr(found, name)[place] = np.nan
    with pytest.raises(ValueError, match=f"predicted {name} of 1 people are not finite .* person 4 of image"):
        metrics.score(people, found)


def test_a_bare_machine_is_told_before_any_work(monkeypatch):
    find = metrics.importlib.util.find_spec
    monkeypatch.setattr(
        metrics.importlib.util, "find_spec", lambda name: None if name == "pycocotools" else find(name)
    )
    with pytest.raises(ModuleNotFoundError, match="made is scored by pycocotools, which is not installed"):
        metrics.check_dependencies(people_of("coco", random_people(17, 1)))
    metrics.check_dependencies(people_of("lspet", random_people(14, 1)))


def test_predictions_of_another_number_of_people_are_refused(tmp_path):
    people = annotated(tmp_path, random_people(17))
    with pytest.raises(
        ValueError, match=r"predicted keypoints have shape \(19, 17, 2\); made wants \(20, 17, 2\)"
    ):
        metrics.score(people, Predictions(np.zeros((19, 17, 2)), np.ones((19, 17))))


def test_ap_from_the_kept_matches_is_pycocotools(tmp_path):
    people, found = several(tmp_path)
    result, units = metrics.measure(people, found)
    assert 0.2 < result["AP"] < 0.9
    once = np.ones((1, len(units.images)))
    assert metrics.weighted_metric(units, once)[0] == pytest.approx(result["AP"], abs=1e-9)
    # an image drawn twice, another not at all: what the scorer says of a file that has it so
    weights = once.copy()
    weights[0, [3, 7, 8]] = 0
    kept = np.flatnonzero(weights[0])
    part = replace(people, images={int(units.images[i]): Path("x.jpg") for i in kept})
    assert metrics.weighted_metric(units, weights)[0] == pytest.approx(
        metrics.score(part, found)["AP"], abs=1e-9
    )


def test_suppression_against_a_loop(tmp_path):
    """Every pose twice, the copies moved a little or a lot: those alike go, the best stays."""
    people, found = several(tmp_path)
    twice = replace(people, instances=people.instances * 2, boxes="detector")
    moved = found.keypoints + np.random.default_rng(1).uniform(0, 8, (100, 1, 1))
    both = Predictions(np.concatenate([found.keypoints, moved]), np.tile(found.scores, (2, 1)) * 0.9)
    totals = metrics.person_scores(twice, both.scores) - np.arange(200) * 1e-6  # no ties
    stays = metrics.oks_nms(twice, both, totals)
    sigmas = skeletons.get("coco").sigmas
    area = (100 / 0.75) * 100 * 1.25**2  # boxes of 100 x 100, widened to 3:4, enlarged
    kept: list[int] = []
    for i in sorted(range(200), key=lambda i: -totals[i]):
        rivals = [j for j in kept if twice.instances[j].image_id == twice.instances[i].image_id]
        alike = [
            np.mean(
                [
                    math.exp(
                        -(math.dist(both.keypoints[i, k], both.keypoints[j, k]) ** 2) / (8 * s * s * area)
                    )
                    for k, s in enumerate(sigmas)
                ]
            )
            for j in rivals
        ]
        if all(value <= 0.9 for value in alike):
            kept.append(i)
    assert sorted(kept) == np.flatnonzero(stays).tolist() and 100 < len(kept) < 200
    assert (
        len(metrics.coco_results(replace(twice, boxes="ground truth"), both)) == 200
    )  # one a person: none goes


def test_crowdpose_agrees_with_another_evaluator(test_data, tmp_path):
    """The whole validation annotation, perturbed poses: faster-coco-eval's crowd mode, to four decimals."""
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
    people = PoseDataset("crowdpose", "val", skeletons.get("crowdpose"), "0" * 64, tuple(persons), path)
    found = Predictions(np.stack(points), draw.uniform(0.3, 1, (len(points), 14)))
    ours = metrics.score(people, found)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = evaluator.COCO(str(path))
        theirs = evaluator.COCOeval_faster(
            truth,
            truth.loadRes(metrics.coco_results(people, found)),
            "keypoints_crowd",
            use_area=False,
        )
        theirs.params.kpt_oks_sigmas = np.array(people.skeleton.sigmas)
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    stats = theirs.all_stats
    names = ("AP", "AP50", "AP75", "AR", None, None, "AP easy", "AP medium", "AP hard")
    for name, value in zip(names, stats, strict=True):
        assert name is None or ours[name] == pytest.approx(value, abs=5.1e-5), name
    assert ours["AP easy"] != ours["AP hard"] and 0.2 < ours["AP"] < 0.9
