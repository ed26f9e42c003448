"""Metrics against plain loops, other evaluators and known answers; real annotations where they are."""

import contextlib
import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from posebook import codecs, datasets, skeletons, transforms
from posebook.datasets import Person, PoseDataset
from posebook.evaluation import bootstrap, error_analysis, metrics, predictions
from posebook.evaluation.metrics import Predictions

rng = np.random.default_rng(0)


def people_of(skeleton: str, keypoints: np.ndarray, path=None) -> PoseDataset:
    """A little dataset around keypoints (N, K, 3)."""
    persons = tuple(
        Person(Path("nowhere.jpg"), i + 1, i + 1, (0.0, 0.0, 100.0, 100.0), 5000.0, points)
        for i, points in enumerate(keypoints)
    )
    name = "made" if skeleton == "coco" else skeleton
    return PoseDataset(name, "val", skeletons.get(skeleton), "0" * 64, persons, path)


def annotated(tmp_path, keypoints: np.ndarray) -> PoseDataset:
    """The same, with the COCO file pycocotools reads."""
    people = people_of("coco", keypoints, tmp_path / "truth.json")
    content = {
        "images": [
            {"id": p.image_id, "width": 100, "height": 100, "file_name": "x.jpg"} for p in people.instances
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
            for p in people.instances
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


def several(tmp_path, images: int = 40) -> tuple[PoseDataset, Predictions]:
    """Images of one to four people each, predicted with errors from none to hopeless, some scores equal."""
    draw = np.random.default_rng(3)
    people = annotated(tmp_path, random_people(17, 100))
    places = np.sort(draw.integers(1, images + 1, 100))
    persons = tuple(replace(p, image_id=int(i)) for p, i in zip(people.instances, places, strict=True))
    content = json.loads(people.annotations.read_text())
    for entry, person in zip(content["annotations"], persons, strict=True):
        entry["image_id"] = person.image_id
    people.annotations.write_text(json.dumps(content))
    truth = np.stack([p.keypoints for p in persons])
    noise = draw.uniform(0, 12, 100)[:, None, None] * draw.normal(size=(100, 17, 2))
    scores = np.round(draw.uniform(0.2, 1, (100, 1)), 1) * np.ones((100, 17))
    return replace(people, instances=persons), Predictions(truth[..., :2] + noise, scores)


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


def test_pckh_against_the_official_script_by_hand():
    """evaluatePCKh's rules, joint by joint; pelvis and thorax are not in the total."""
    truth = random_people(16, 30)
    truth[..., 2] = 2 * (rng.random((30, 16)) < 0.8)
    people = people_of("mpii", truth)
    heads = rng.uniform(10, 40, 30)
    persons = tuple(replace(p, head=float(h)) for p, h in zip(people.instances, heads, strict=True))
    people = replace(people, instances=persons)
    points = truth[..., :2] + rng.normal(0, 8, (30, 16, 2))
    result, units = metrics.measure(people, Predictions(points, np.ones((30, 16))))
    right, counted, by_joint = {0.5: 0, 0.1: 0}, 0, {joint: [0, 0] for joint in range(16)}
    for joints, places, head in zip(truth, points, heads, strict=True):
        for joint in range(16):
            if not joints[joint, 2]:
                continue
            distance = math.dist(joints[joint, :2], places[joint]) / head
            by_joint[joint][0] += distance <= 0.5
            by_joint[joint][1] += 1
            if joint not in (6, 7):
                counted += 1
                for limit in right:
                    right[limit] += distance <= limit
    for limit, count in right.items():
        assert result[f"PCKh@{limit}"] == pytest.approx(count / counted)
    rate = {joint: hits / total for joint, (hits, total) in by_joint.items()}
    assert result["PCKh@0.5 head"] == pytest.approx(rate[9])
    assert result["PCKh@0.5 wrist"] == pytest.approx((rate[10] + rate[15]) / 2)
    assert result["PCKh@0.5 ankle"] == pytest.approx((rate[0] + rate[5]) / 2)
    assert metrics.weighted_metric(units, np.ones((1, 30)))[0] == pytest.approx(result["PCKh@0.5"])


def test_pckh_without_head_sizes_says_what_is_missing():
    people = people_of("mpii", random_people(16, 3), "mpii_val.json")
    with pytest.raises(ValueError, match="PCKh needs mpii_gt_val.mat beside mpii_val.json"):
        metrics.score(people, Predictions(np.zeros((3, 16, 2)), np.ones((3, 16))))


def test_other_data_with_known_joints_is_scored_by_oks(tmp_path):
    """One's own people with MPII's joints have no head sizes, with CrowdPose's no crowd index."""
    for skeleton, joints in (("mpii", 16), ("crowdpose", 14)):
        people = replace(people_of(skeleton, random_people(joints)), name="own-people")
        assert metrics.metric_type(people) == "oks"
        assert metrics.metric_type(replace(people, name=f"{skeleton}-sample")) != "oks"


def test_bootstrap_of_a_share_against_its_formula():
    """A thousand images of one joint each: the interval of a share is about 1.96 standard errors wide."""
    hit = (np.random.default_rng(2).random(1000) < 0.7).astype(float)
    units = metrics.ImageStats(np.arange(1000), np.ones(1000), hit)
    low, high = bootstrap.interval(units)
    error = math.sqrt(0.7 * 0.3 / 1000)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert low < hit.mean() < high


def test_paired_bootstrap_knows_the_same_from_the_better(tmp_path):
    people, found = several(tmp_path)
    truth = np.stack([p.keypoints for p in people.instances])[..., :2]
    better = replace(found, keypoints=(found.keypoints + truth) / 2)
    (_, a), (_, b) = metrics.measure(people, found), metrics.measure(people, better)
    same, low, high = bootstrap.paired_difference(a, a)
    assert same == low == high == 0
    gain, low, high = bootstrap.paired_difference(a, b)
    assert 0 < low < gain < high
    assert gain == pytest.approx(metrics.score(people, better)["AP"] - metrics.score(people, found)["AP"])
    one, other = bootstrap.interval(a), bootstrap.interval(b)
    assert high - low < (one[1] - one[0]) + (other[1] - other[0])  # pairing helps


def test_records_of_other_images_are_not_paired(tmp_path):
    _, units = metrics.measure(*several(tmp_path))
    with pytest.raises(ValueError, match="measured on other images: 100 and 99"):
        bootstrap.paired_difference(units, replace(units, images=units.images[:-1]))
    with pytest.raises(ValueError, match="other metrics or on other annotations"):
        bootstrap.paired_difference(units, replace(units, people=units.people + 1))


def test_units_are_kept_beside_the_record(tmp_path):
    people, found = several(tmp_path)
    result, units = metrics.measure(people, found)
    path = predictions.save_predictions(tmp_path / "evaluate.json", people, found, units)
    assert path.name == "evaluate.npz"
    read = predictions.load_image_stats(tmp_path / "evaluate.json")
    assert metrics.weighted_metric(read, np.ones((1, len(units.images))))[0] == pytest.approx(result["AP"])
    with np.load(path) as arrays:
        assert arrays["keypoints"] == pytest.approx(found.keypoints, abs=0.0051)
        assert arrays["person"].tolist() == [p.id for p in people.instances]
    with pytest.raises(FileNotFoundError, match="no predictions beside other.json"):
        predictions.load_image_stats(tmp_path / "other.json")


def test_each_kind_of_error_is_told_from_the_others():
    """Two people side by side; one joint of the first is put where each kind of error puts it."""
    truth = random_people(17, 2)
    truth[0, :, :2] = np.arange(17)[:, None] * 100 + [0, 5000]
    truth[1, :, :2] = truth[0, :, :2] + [2000, 0]
    persons = tuple(replace(p, image_id=1, area=10000.0) for p in people_of("coco", truth).instances)
    people = replace(people_of("coco", truth), instances=persons)
    sigma = 2 * skeletons.get("coco").sigmas[9]  # left wrist
    places = {
        "good": truth[0, 9, :2] + [100 * sigma * 0.5, 0],  # exp(-0.125) = 0.88
        "jitter": truth[0, 9, :2] + [100 * sigma, 0],  # exp(-0.5) = 0.61
        "inversion": truth[0, 10, :2],
        "swap": truth[1, 9, :2],
        "miss": np.array([-900.0, 0.0]),
    }
    for name, place in places.items():
        points = truth[..., :2].copy()
        points[0, 9] = place
        kinds = error_analysis.classify_errors(people, Predictions(points, np.ones((2, 17))))
        assert error_analysis.ERROR_TYPES[kinds[0, 9]] == name
        assert (np.delete(kinds.ravel(), 9) == 0).all()
    shares = error_analysis.error_rates(kinds)
    assert shares["miss"] == pytest.approx(1 / 34) and sum(shares.values()) == pytest.approx(1)
    with pytest.raises(ValueError, match="annotated boxes"):
        error_analysis.classify_errors(
            replace(people, boxes="detector"), Predictions(points, np.ones((2, 17)))
        )


def test_hidden_joints_have_their_own_ap(tmp_path):
    """Seen joints right and hidden ones wrong: one AP is 1, the other 0."""
    truth = random_people(17)
    truth[:10, ::2, 2] = 1
    truth[10:12, :, 2] = 1
    people = annotated(tmp_path, truth)
    points = truth[..., :2] + np.where(truth[..., 2:] == 1, 60.0, 0.0)
    found = Predictions(points, np.ones((20, 17)))
    assert error_analysis.by_visibility(people, found) == {
        "seen joints": (1.0, 18),
        "hidden joints": (0.0, 12),
    }
    groups = error_analysis.by_occlusion(people, found)
    assert {name: count for name, (_, count) in groups.items()} == {
        "none hidden": 8,
        "50% to 100% hidden": 12,
    }
    assert groups["none hidden"][0] == 1.0 and groups["50% to 100% hidden"][0] < 0.1


SCORE = """
import json, sys, time
import numpy as np
from posebook import datasets, metrics, records
draw = np.random.default_rng(1)
start = time.perf_counter()
people = datasets.load("coco", sys.argv[1])
truth = np.stack([person.keypoints for person in people.instances])
found = metrics.Predictions(truth[..., :2] + draw.normal(0, 8, (6352, 17, 2)), draw.random((6352, 17)))
ap = metrics.score(people, found)["AP"]
seconds = time.perf_counter() - start
print(json.dumps([ap, seconds, records.peak_memory()]))
"""


@pytest.mark.slow
def test_a_whole_validation_split_is_scored_in_ten_seconds(tmp_path):
    """6,352 people on 5,000 images with the sizes of COCO's, loading included, in 10 s and 2 GB."""
    draw = np.random.default_rng(0)
    content = {
        "categories": [{"id": 1, "name": "person", "keypoints": list(skeletons.get("coco").keypoints)}]
    }
    content["images"] = [
        {"id": i, "width": 640, "height": 480, "file_name": f"{i:012d}.jpg"} for i in range(1, 5001)
    ]
    content["annotations"] = []
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    for i in range(1, 5001):
        (tmp_path / "val2017" / f"{i:012d}.jpg").write_bytes(b"\xff\xd9")
    for i in range(1, 6353):
        joints = np.concatenate([draw.uniform(100, 300, (17, 2)).round(2), draw.integers(1, 3, (17, 1))], 1)
        content["annotations"].append(
            {
                "id": i,
                "image_id": int(draw.integers(1, 5001)),
                "category_id": 1,
                "iscrowd": 0,
                "area": 20000.0,
            }
            | {"bbox": [90, 90, 220, 220], "num_keypoints": 17, "keypoints": joints.ravel().tolist()}
            | {"segmentation": [draw.uniform(90, 310, 120).round(2).tolist()]}
        )
    (tmp_path / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(content))
    # In a process of its own: this one's peak memory is that of every test before.
    done = subprocess.run(
        [sys.executable, "-c", SCORE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    ap, seconds, peak = json.loads(done.stdout.splitlines()[-1])
    assert 0 < ap < 1
    assert seconds < 10, f"{seconds:.1f} s"
    assert peak < 2 * 2**30
