"""Metrics against plain loops, other evaluators and known answers; real annotations where they are."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from metrics_helpers import annotated, people_of, random_people, rng, several

from posebook import skeletons
from posebook.evaluation import bootstrap, error_analysis, metrics, predictions
from posebook.evaluation.metrics import Predictions


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
