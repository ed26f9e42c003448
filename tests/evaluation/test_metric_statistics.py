"""PCKh, bootstrap and error analysis against plain loops and known results; the speed of scoring."""

import dataclasses
import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from metrics_helpers import annotated_dataset, make_dataset, noisy_predictions, random_keypoints, rng

from posebook import skeletons
from posebook.evaluation import bootstrap, error_analysis, metrics, predictions
from posebook.evaluation.metrics import Predictions


def test_pckh_against_a_loop_with_the_official_rules():
    """The rules of evaluatePCKh, joint by joint; the total excludes pelvis and thorax."""
    truth = random_keypoints(16, 30)
    truth[..., 2] = 2 * (rng.random((30, 16)) < 0.8)
    dataset = make_dataset("mpii", truth)
    heads = rng.uniform(10, 40, 30)
    persons = tuple(replace(p, head=float(h)) for p, h in zip(dataset.instances, heads, strict=True))
    dataset = replace(dataset, instances=persons)
    points = truth[..., :2] + rng.normal(0, 8, (30, 16, 2))
    result, stats = metrics.measure(dataset, Predictions(points, np.ones((30, 16))))
    correct, counted, by_joint = {0.5: 0, 0.1: 0}, 0, {joint: [0, 0] for joint in range(16)}
    for joints, predicted, head in zip(truth, points, heads, strict=True):
        for joint in range(16):
            if not joints[joint, 2]:
                continue
            distance = math.dist(joints[joint, :2], predicted[joint]) / head
            by_joint[joint][0] += distance <= 0.5
            by_joint[joint][1] += 1
            if joint not in (6, 7):
                counted += 1
                for limit in correct:
                    correct[limit] += distance <= limit
    for limit, count in correct.items():
        assert result[f"PCKh@{limit}"] == pytest.approx(count / counted)
    rate = {joint: hits / total for joint, (hits, total) in by_joint.items()}
    assert result["PCKh@0.5 head"] == pytest.approx(rate[9])
    assert result["PCKh@0.5 wrist"] == pytest.approx((rate[10] + rate[15]) / 2)
    assert result["PCKh@0.5 ankle"] == pytest.approx((rate[0] + rate[5]) / 2)
    assert metrics.weighted_metric(stats, np.ones((1, 30)))[0] == pytest.approx(result["PCKh@0.5"])


def test_pckh_without_head_sizes_names_the_missing_file():
    dataset = make_dataset("mpii", random_keypoints(16, 3), "mpii_val.json")
    with pytest.raises(ValueError, match="PCKh needs mpii_gt_val.mat beside mpii_val.json"):
        metrics.score(dataset, Predictions(np.zeros((3, 16, 2)), np.ones((3, 16))))


def test_custom_data_with_known_joints_is_scored_by_oks(tmp_path):
    """Custom data has no head sizes and no crowd index, even with the joints of MPII or CrowdPose."""
    for skeleton, joints in (("mpii", 16), ("crowdpose", 14)):
        dataset = replace(make_dataset(skeleton, random_keypoints(joints)), name="own-people")
        assert dataset.metric_type == "oks"
        assert replace(dataset, name=f"{skeleton}-sample").metric_type != "oks"


def test_bootstrap_interval_of_a_share_against_the_formula():
    """With one joint in each of 1000 images, half of the interval is about 1.96 standard errors."""
    hit = (np.random.default_rng(2).random(1000) < 0.7).astype(float)
    stats = metrics.ImageStats(np.arange(1000), np.ones(1000), hit)
    low, high = bootstrap.interval(stats)
    error = math.sqrt(0.7 * 0.3 / 1000)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert low < hit.mean() < high


def test_paired_bootstrap_of_equal_and_of_better_predictions(tmp_path):
    dataset, predicted = noisy_predictions(tmp_path)
    truth = np.stack([p.keypoints for p in dataset.instances])[..., :2]
    better = replace(predicted, keypoints=(predicted.keypoints + truth) / 2)
    (_, a), (_, b) = metrics.measure(dataset, predicted), metrics.measure(dataset, better)
    same, low, high = bootstrap.paired_difference(a, a)
    assert same == low == high == 0
    gain, low, high = bootstrap.paired_difference(a, b)
    assert 0 < low < gain < high
    expected = metrics.score(dataset, better)["AP"] - metrics.score(dataset, predicted)["AP"]
    assert gain == pytest.approx(expected)
    one, other = bootstrap.interval(a), bootstrap.interval(b)
    assert high - low < (one[1] - one[0]) + (other[1] - other[0])  # pairing helps


def test_different_images_or_annotations_cannot_be_paired(tmp_path):
    _, stats = metrics.measure(*noisy_predictions(tmp_path))
    with pytest.raises(ValueError, match=r"measured on different images \(100 and 99\)"):
        bootstrap.paired_difference(stats, replace(stats, images=stats.images[:-1]))
    with pytest.raises(ValueError, match="different metrics or annotations"):
        bootstrap.paired_difference(stats, replace(stats, people=stats.people + 1))


def test_mean_interval_resamples_people(monkeypatch):
    monkeypatch.setattr(bootstrap, "NUM_RESAMPLES", 4000)
    rng = np.random.default_rng(0)
    sums, counts = rng.normal(5, 1, 40), rng.integers(0, 4, 40)
    mean, low, high = bootstrap.mean_interval(sums, counts)
    items = [(s, c) for s, c in zip(sums, counts, strict=True) if c]  # a person without items has no sum
    assert mean == pytest.approx(sum(s for s, _ in items) / sum(c for _, c in items))
    draws = [rng.integers(40, size=40) for _ in range(4000)]
    means = [(sums * (counts > 0))[draw].sum() / counts[draw].sum() for draw in draws]
    assert (low, high) == pytest.approx(np.percentile(means, (2.5, 97.5)), rel=0.03)
    with_gap = np.array([1.0, np.nan, 3.0])
    assert bootstrap.mean_interval(with_gap)[0] == 2.0
    assert np.isnan(bootstrap.mean_interval(np.array([np.nan]))).all()


def test_image_stats_are_saved_beside_the_record(tmp_path):
    dataset, predicted = noisy_predictions(tmp_path)
    result, stats = metrics.measure(dataset, predicted)
    path = predictions.save_predictions(tmp_path / "evaluate.json", dataset, predicted, stats)
    assert path.name == "evaluate.npz"
    loaded = predictions.load_image_stats(tmp_path / "evaluate.json")
    assert metrics.weighted_metric(loaded, np.ones((1, len(stats.images))))[0] == pytest.approx(result["AP"])
    with np.load(path) as arrays:
        assert arrays["keypoints"] == pytest.approx(predicted.keypoints, abs=0.0051)
        assert arrays["person"].tolist() == [p.id for p in dataset.instances]
    with pytest.raises(FileNotFoundError, match="no predictions beside other.json"):
        predictions.load_image_stats(tmp_path / "other.json")


def test_classification_of_each_error_type():
    """Two people side by side; one joint of the first is moved to produce each error type."""
    truth = random_keypoints(17, 2)
    truth[0, :, :2] = np.arange(17)[:, None] * 100 + [0, 5000]
    truth[1, :, :2] = truth[0, :, :2] + [2000, 0]
    persons = tuple(replace(p, image_id=1, area=10000.0) for p in make_dataset("coco", truth).instances)
    dataset = replace(make_dataset("coco", truth), instances=persons)
    sigma = 2 * skeletons.get("coco").sigmas[9]  # left wrist
    locations = {
        "good": truth[0, 9, :2] + [100 * sigma * 0.5, 0],  # exp(-0.125) = 0.88
        "jitter": truth[0, 9, :2] + [100 * sigma, 0],  # exp(-0.5) = 0.61
        "inversion": truth[0, 10, :2],
        "swap": truth[1, 9, :2],
        "miss": np.array([-900.0, 0.0]),
    }
    for name, location in locations.items():
        points = truth[..., :2].copy()
        points[0, 9] = location
        error_types = error_analysis.classify_errors(dataset, Predictions(points, np.ones((2, 17))))
        assert error_analysis.ERROR_TYPES[error_types[0, 9]] == name
        assert (np.delete(error_types.ravel(), 9) == 0).all()
        confusion = error_analysis.joint_confusion(dataset, Predictions(points, np.ones((2, 17))))
        assert confusion[9, 10] == (0.5 if name == "inversion" else 0)  # one of two left wrists
        assert confusion.sum() == confusion[9, 10]
    rates = error_analysis.error_rates(error_types)
    assert rates["miss"] == pytest.approx(1 / 34) and sum(rates.values()) == pytest.approx(1)
    with pytest.raises(ValueError, match="annotated boxes"):
        error_analysis.classify_errors(
            replace(dataset, boxes="detector"), Predictions(points, np.ones((2, 17)))
        )


def test_ap_by_visibility_and_by_occlusion(tmp_path):
    """Visible joints are correct and hidden joints wrong: AP is 1 over the former and 0 over the latter."""
    truth = random_keypoints(17)
    truth[:10, ::2, 2] = 1
    truth[10:12, :, 2] = 1
    dataset = annotated_dataset(tmp_path, truth)
    points = truth[..., :2] + np.where(truth[..., 2:] == 1, 60.0, 0.0)
    predicted = Predictions(points, np.ones((20, 17)))
    assert error_analysis.by_visibility(dataset, predicted) == {
        "visible joints": (1.0, 18),
        "hidden joints": (0.0, 12),
    }
    intervals = error_analysis.intervals_by_visibility(dataset, predicted)
    assert intervals["visible joints"] == {"AP": 1.0, "low": 1.0, "high": 1.0, "people": 18}
    assert intervals["hidden joints"] == {"AP": 0.0, "low": 0.0, "high": 0.0, "people": 12}
    groups = error_analysis.by_occlusion(dataset, predicted)
    assert {name: count for name, (_, count) in groups.items()} == {
        "none hidden": 8,
        "50% to 100% hidden": 12,
    }
    assert groups["none hidden"][0] == 1.0 and groups["50% to 100% hidden"][0] < 0.1
    intervals = error_analysis.intervals_by_occlusion(dataset, predicted)
    assert {name: (row["AP"], row["people"]) for name, row in intervals.items()} == groups
    assert all(row["low"] <= row["AP"] <= row["high"] for row in intervals.values())
    assert intervals["none hidden"]["low"] == 1.0


def test_change_by_joints_separates_new_joints_from_known_ones(tmp_path):
    """In the predictions after, the new joints are correct and the known ones slightly worse."""
    dataset, noisy = noisy_predictions(tmp_path)
    truth = np.stack([person.keypoints[:, :2] for person in dataset.instances])  # (N, K, 2)
    new = np.arange(17) < 2
    shift = np.where(new[:, None], 500.0, 0.0)
    before = replace(noisy, keypoints=truth + shift)
    after = replace(noisy, keypoints=truth + 2 * ~new[:, None])
    groups = {"new": new, "known": ~new, "all": np.ones(17, bool)}
    found = error_analysis.change_by_joints(dataset, before, after, groups)
    assert found["new"] == {"before": 0, "after": 1, "value": 1, "interval": [1, 1], "people": 100}
    assert found["known"]["before"] == 1 and found["known"]["interval"][1] < 0
    old, new_stats = (metrics.average_precision(dataset, one) for one in (before, after))
    value, *limits = bootstrap.paired_difference(old[1], new_stats[1])
    assert found["all"]["value"] == pytest.approx(new_stats[0]["AP"] - old[0]["AP"])
    assert [found["all"]["value"], found["all"]["interval"]] == [value, limits]


SCORE = """
import json, sys, time
import numpy as np
from posebook import datasets, records
from posebook.evaluation import metrics
draw = np.random.default_rng(1)
start = time.perf_counter()
dataset = datasets.load("coco", sys.argv[1])
truth = np.stack([person.keypoints for person in dataset.instances])
predicted = metrics.Predictions(truth[..., :2] + draw.normal(0, 8, (6352, 17, 2)), draw.random((6352, 17)))
ap = metrics.score(dataset, predicted)["AP"]
seconds = time.perf_counter() - start
print(json.dumps([ap, seconds, records.peak_memory()]))
"""


@pytest.mark.slow
def test_scoring_a_full_validation_split_takes_ten_seconds(tmp_path):
    """6,352 people in 5,000 images, as in COCO val2017, need at most 10 s and 2 GB, including loading."""
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
    # a separate process, because the peak memory of this one includes the earlier tests
    done = subprocess.run(
        [sys.executable, "-c", SCORE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    ap, seconds, peak = json.loads(done.stdout.splitlines()[-1])
    assert 0 < ap < 1
    assert seconds < 10, f"{seconds:.1f} s"
    assert peak < 2 * 2**30


def test_saved_predictions_belong_to_the_people_of_one_dataset(tmp_path):
    dataset, predicted = noisy_predictions(tmp_path)
    _, stats = metrics.measure(dataset, predicted)
    predictions.save_predictions(tmp_path / "evaluate.json", dataset, predicted, stats)
    loaded = predictions.load_predictions(tmp_path / "evaluate.json", dataset)
    assert loaded.keypoints == pytest.approx(predicted.keypoints, abs=0.0051)
    assert loaded.scores == pytest.approx(predicted.scores)
    others = dataclasses.replace(dataset, instances=dataset.instances[::-1])
    with pytest.raises(
        ValueError, match=f"evaluate.json has predictions for other people than {dataset.name}"
    ):
        predictions.load_predictions(tmp_path / "evaluate.json", others)
    with pytest.raises(FileNotFoundError, match="no predictions beside other.json"):
        predictions.load_predictions(tmp_path / "other.json", dataset)
