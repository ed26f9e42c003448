"""Metrics of predictions: OKS AP (COCO and CrowdPose), PCKh and PCK, with the matches for the bootstrap.

COCO: pycocotools, unchanged. CrowdPose (Li et al., CVPR 2019): pycocotools with 14 sigmas, 0.53 of the box
area as the person's area, at most 20 detections per image and one area range; easy, medium and hard images
by crowd index. MPII: the official evaluatePCKh (Andriluka et al., CVPR 2014). LSPET: PCK at a fifth of the
torso diagonal.

1. The score of a person is the box score times the mean score of the joints above 0.2, as in mmpose's
   CocoMetric.
2. Detected boxes overlap, so their poses go through OKS-NMS at 0.9 as in the HRNet code, with the area of the
   enlarged box. Poses in annotated boxes do not: mmpose and the HRNet code apply it to them, too, which can
   remove a person whose pose equals that of a neighbor.
3. CrowdPose images are easy at a crowd index below 0.2 and hard at 0.8 or more. The AP of a group is its mean
   precision over all thresholds, as in the official tool.
4. The PCKh total is the mean over joints without pelvis and thorax, as in the official script, and not the
   mean of the body parts.
5. A metric that cannot be measured has no entry, for example AP_M without medium people; pycocotools returns
   -1 there.
"""

import contextlib
import importlib.util
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from posebook import transforms
from posebook.datasets import Person, PoseDataset, coco_json
from posebook.datasets.crowdpose import AREA as CROWD_AREA

JOINT_THRESHOLD = 0.2  # choice 1
NMS_THRESHOLD = 0.9  # choice 2
PCK_THRESHOLD = 0.2  # of the torso diagonal
PRIMARY_METRICS = ("AP", "PCKh@0.5", "PCK@0.2")  # a learning curve shows the one that the dataset has
COCO_METRICS = {"AP": 0, "AP50": 1, "AP75": 2, "AP_M": 3, "AP_L": 4, "AR": 5}  # indices in COCOeval.stats
CROWD_GROUPS = {"AP easy": (0.0, 0.2), "AP medium": (0.2, 0.8), "AP hard": (0.8, np.inf)}
MPII_PARTS = ("head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")


@dataclass(frozen=True)
class Predictions:
    """Predicted poses of N people in the order of the dataset's instances, in pixels of their images."""

    keypoints: np.ndarray  # (N, K, 2)
    scores: np.ndarray  # (N, K)
    decoding: str = "simcc argmax"


@dataclass(frozen=True)
class ImageStats:
    """The contribution of each image to a metric, so that a bootstrap can resample images.

    I images; for AP also T OKS thresholds and D detections. Files of predictions contain the field names.
    """

    images: np.ndarray  # (I,) ids
    people: np.ndarray  # (I,) AP: number of people to find; PCKh and PCK: number of counted joints
    hit: np.ndarray  # AP: (T, D) bool, matched to a person; PCKh and PCK: (I,) number of correct joints
    counts: np.ndarray | None = None  # (T, D) bool: neither ignored nor matched to an ignored person
    score: np.ndarray | None = None  # (D,) score of a detection
    place: np.ndarray | None = None  # (D,) index of a detection's image in `images`


def check_dependencies(dataset: PoseDataset) -> None:
    """Raise ModuleNotFoundError if the dataset's metric needs a package that is not installed."""
    if dataset.metric_type in ("oks", "crowd") and importlib.util.find_spec("pycocotools") is None:
        raise ModuleNotFoundError(
            f"{dataset.name} is scored by pycocotools, which is not installed: pip install pycocotools, or "
            "train on a dataset that does not need it (lspet, mpii)"
        )


def score(dataset: PoseDataset, predictions: Predictions) -> dict[str, float]:
    """The dataset's metrics, as fractions. Raises ValueError as `measure` does."""
    return measure(dataset, predictions)[0]


def measure(dataset: PoseDataset, predictions: Predictions) -> tuple[dict[str, float], ImageStats]:
    """The dataset's metrics, as fractions, and the contribution of each image.

    Raises ValueError if predictions are missing or not finite, or if the annotations lack what the metric
    needs.
    """
    check_predictions(dataset, predictions)
    if dataset.metric_type == "pckh":
        return pckh(dataset, predictions)
    if dataset.metric_type == "pck":
        return pck(dataset, predictions)
    return average_precision(dataset, predictions)


def check_predictions(dataset: PoseDataset, predictions: Predictions) -> None:
    """Raise ValueError, with the first person, if predictions are missing or not finite."""
    shape = (len(dataset.instances), len(dataset.skeleton.keypoints))
    for name, array, expected in (
        ("keypoints", predictions.keypoints, (*shape, 2)),
        ("scores", predictions.scores, shape),
    ):
        if array.shape != expected:
            raise ValueError(f"predicted {name} have shape {array.shape}; {dataset.name} needs {expected}")
        bad = ~np.isfinite(array).reshape(len(array), -1).all(1)  # (N,)
        if bad.any():
            person = dataset.instances[int(bad.argmax())]
            raise ValueError(
                f"predicted {name} of {int(bad.sum())} people are not finite numbers; the first is person "
                f"{person.id} of image {person.image.name}"
            )


def person_scores(dataset: PoseDataset, scores: np.ndarray) -> np.ndarray:
    """The box score times the mean joint score (`mean_scores`) of each person, (N,)."""
    return mean_scores(scores) * np.array([person.score for person in dataset.instances])


def mean_scores(scores: np.ndarray) -> np.ndarray:
    """The mean of each person's joint scores (N, K) above JOINT_THRESHOLD, (N,); 0 if no score is above."""
    above = scores > JOINT_THRESHOLD  # (N, K)
    return np.where(above, scores, 0).sum(1) / np.maximum(above.sum(1), 1)


def oks(points: np.ndarray, others: np.ndarray, areas: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """OKS (M,) of one pose (K, 2) with other poses (M, K, 2) over all joints; areas (M,) in square pixels."""
    squares = ((others - points) ** 2).sum(-1)  # (M, K)
    # As in pycocotools: 8 sigma^2 is 2 (2 sigma)^2, with doubled sigmas; spacing avoids a division by zero.
    return np.exp(-squares / (8 * sigmas**2 * areas[:, None] + np.spacing(1))).mean(1)


def oks_nms(dataset: PoseDataset, predictions: Predictions, person_score: np.ndarray) -> np.ndarray:
    """OKS-NMS: which people remain, boolean (N,). person_score: (N,), from `person_scores`.

    In each image the person with the highest score remains, and removes the others whose OKS with it is above
    NMS_THRESHOLD; this repeats with the rest.
    """
    sigmas = np.array(dataset.skeleton.sigmas)
    areas = np.array([padded_area(person) for person in dataset.instances])
    remains = np.zeros(len(person_score), bool)
    for indices in group_by_image(dataset):
        rest = indices[np.argsort(-person_score[indices], kind="stable")]
        while len(rest):
            best, rest = rest[0], rest[1:]
            remains[best] = True
            mean_area = (areas[rest] + areas[best]) / 2
            similarity = oks(predictions.keypoints[best], predictions.keypoints[rest], mean_area, sigmas)
            rest = rest[similarity <= NMS_THRESHOLD]
    return remains


def group_by_image(dataset: PoseDataset) -> list[np.ndarray]:
    """For each image, the indices of its people in `instances`."""
    groups: dict[int, list[int]] = {}
    for index, person in enumerate(dataset.instances):
        groups.setdefault(person.image_id, []).append(index)
    return [np.array(indices) for indices in groups.values()]


def padded_area(person: Person) -> float:
    """Area in square pixels of the box as most models crop it: extended to 3:4 and enlarged by 1.25."""
    _, _, w, h = person.bbox
    width = max(w, h * 3 / 4) * transforms.PADDING
    return width * width * 4 / 3


def coco_ground_truth(dataset: PoseDataset) -> dict:
    """The annotation file as pycocotools needs it, with the areas that the metric uses.

    Annotations that are not scored (crowds, people without joints) may lack keypoints or a box; these become
    zeros.
    """
    content, joints = json.loads(dataset.annotations.read_text()), len(dataset.skeleton.keypoints)
    crowd, entries = dataset.metric_type == "crowd", []
    for entry in coco_json.select_people(dataset.annotations, content)[1]:
        keypoints = _numbers_or_zeros(entry.get("keypoints"), 3 * (len(dataset.file_joints) or joints))
        if dataset.joint_map:
            triples = [keypoints[3 * k : 3 * k + 3] if k >= 0 else [0, 0, 0] for k in dataset.joint_map]
            keypoints = [value for triple in triples for value in triple]
        box = _numbers_or_zeros(entry.get("bbox"), 4)
        labeled = sum(v > 0 for v in keypoints[2::3])
        (area,) = _numbers_or_zeros([entry.get("area", 0)], 1)
        entries.append(
            {
                "id": entry["id"],
                "image_id": entry["image_id"],
                "category_id": 1,
                "bbox": box,
                "keypoints": keypoints,
                "iscrowd": int(bool(entry.get("iscrowd", 0))),
                "num_keypoints": min(labeled, max(0, entry.get("num_keypoints", labeled))),
                "area": CROWD_AREA * box[2] * box[3] if crowd else area or box[2] * box[3],
            }
        )
    return content | {"annotations": entries, "categories": [{"id": 1, "name": "person"}]}


def _numbers_or_zeros(values: Any, count: int) -> list[float]:
    """The values if they are a list of `count` numbers, else `count` zeros."""
    valid = isinstance(values, list) and all(isinstance(value, int | float) for value in values)
    return values if valid and len(values) == count else [0] * count


def coco_results(dataset: PoseDataset, predictions: Predictions) -> list[dict]:
    """COCO result entries; for detected boxes, only those that remain after OKS-NMS."""
    totals = person_scores(dataset, predictions.scores)
    remains = np.ones(len(totals), bool)
    if dataset.boxes != "ground truth":
        remains = oks_nms(dataset, predictions, totals)
    triples = np.concatenate([predictions.keypoints, predictions.scores[..., None]], -1)  # (N, K, 3)
    return [
        {
            "image_id": dataset.instances[i].image_id,
            "category_id": 1,
            "keypoints": triples[i].ravel().tolist(),
            "score": float(totals[i]),
        }
        for i in np.flatnonzero(remains)
    ]


def average_precision(
    dataset: PoseDataset, predictions: Predictions, content: dict | None = None
) -> tuple[dict[str, float], ImageStats]:
    """COCO's or CrowdPose's AP and AR, as fractions, and the contribution of each image.

    content: the ground truth, if it is not `coco_ground_truth`. Raises ValueError for a skeleton without
    sigmas.
    """
    content = content or coco_ground_truth(dataset)
    crowd = dataset.metric_type == "crowd"
    scorer = run_cocoeval(dataset, content, coco_results(dataset, predictions), crowd)
    stats = image_stats(scorer)
    if not crowd:
        metrics = {name: float(scorer.stats[index]) for name, index in COCO_METRICS.items()}
        return {name: value for name, value in metrics.items() if value >= 0}, stats
    precision = scorer.eval["precision"][:, :, 0, 0, 0]  # (T, 101 recalls)
    metrics = {"AP": precision.mean(), "AP50": precision[0].mean(), "AP75": precision[5].mean()}
    metrics["AR"] = scorer.eval["recall"][:, 0, 0, 0].mean()
    crowd_index = {image["id"]: image["crowdIndex"] for image in content["images"]}
    crowdedness = np.array([crowd_index[image] for image in stats.images])  # (I,)
    for name, (low, high) in CROWD_GROUPS.items():
        members = (crowdedness >= low) & (crowdedness < high)  # (I,)
        if stats.people[members].any():
            metrics[name] = weighted_metric(stats, members.astype(np.float64)[None])[0]
    return {name: float(value) for name, value in metrics.items()}, stats


def run_cocoeval(
    dataset: PoseDataset, content: dict, results: list[dict], crowd: bool, iou_type: str = "keypoints"
) -> Any:
    """A pycocotools COCOeval after evaluate and accumulate, and for COCO also summarize.

    iou_type: keypoints, or bbox to evaluate the boxes of `results`.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if dataset.skeleton.sigmas is None:
        raise ValueError(f"skeleton {dataset.skeleton.name} has no sigmas, which OKS needs")
    first = min((entry["id"] for entry in content["annotations"]), default=1)
    for entry in content["annotations"]:
        entry["id"] += max(0, 1 - first)  # pycocotools takes a match with id 0 for no match
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        scorer = COCOeval(truth, truth.loadRes(results), iou_type)
        scorer.params.kpt_oks_sigmas = np.array(dataset.skeleton.sigmas)
        # Without unusable images: nothing can be predicted there. A dataset may not list its images.
        scorer.params.imgIds = sorted(dataset.images) or sorted(truth.imgs)
        if crowd:
            scorer.params.areaRng, scorer.params.areaRngLbl = [[0, 1e10]], ["all"]
        scorer.evaluate()
        scorer.accumulate()
        if not crowd:
            scorer.summarize()
    return scorer


def image_stats(scorer: Any) -> ImageStats:
    """The matches of an evaluated COCOeval over all areas, image by image."""
    images = np.array(scorer.params.imgIds)
    entries = scorer.evalImgs[: len(images)]  # area range "all" comes first
    people = np.array([0 if e is None else int((~np.asarray(e["gtIgnore"], bool)).sum()) for e in entries])
    detected = [(index, e) for index, e in enumerate(entries) if e is not None and len(e["dtScores"])]
    if not detected:
        empty = np.zeros((len(scorer.params.iouThrs), 0), bool)
        return ImageStats(images, people, empty, empty, np.zeros(0), np.zeros(0, int))
    ignored = np.concatenate([e["dtIgnore"] for _, e in detected], 1).astype(bool)  # (T, D)
    return ImageStats(
        images,
        people,
        np.concatenate([e["dtMatches"] for _, e in detected], 1) > 0,
        ~ignored,
        np.concatenate([e["dtScores"] for _, e in detected]),
        np.concatenate([np.full(len(e["dtScores"]), index) for index, e in detected]),
    )


def weighted_metric(stats: ImageStats, weights: np.ndarray) -> np.ndarray:
    """The metric (R,) for R resamples, in which each image counts `weights` (R, I) times.

    AP (computed as in pycocotools: the mean precision at 101 recalls) or the share of correct joints; NaN for
    a resample without people.
    """
    people = weights @ stats.people  # (R,)
    with np.errstate(invalid="ignore", divide="ignore"):
        if stats.score is None:
            return (weights @ stats.hit) / people
        assert stats.counts is not None and stats.place is not None
        order = np.argsort(-stats.score, kind="mergesort")  # stable, so that ties rank as in pycocotools
        repeats = weights[:, stats.place[order]]  # (R, D): how often a detection's image is drawn
        recall_levels = np.linspace(0, 1, 101)
        result = np.zeros(len(weights))
        for hit, counts in zip(stats.hit[:, order], stats.counts[:, order], strict=True):  # (D,) each
            true_positives = np.cumsum(repeats * (hit & counts), 1)  # (R, D)
            false_positives = np.cumsum(repeats * (~hit & counts), 1)  # (R, D)
            precision = true_positives / np.maximum(true_positives + false_positives, np.spacing(1))
            envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]  # (R, D), not increasing
            recalls = true_positives / people[:, None]  # (R, D)
            for row, (recall, precisions) in enumerate(zip(recalls, envelope, strict=True)):
                index = np.searchsorted(recall, recall_levels)  # (101,); D if a level is not reached
                result[row] += precisions[index[index < len(precisions)]].sum() / len(recall_levels)
        return np.where(people > 0, result / len(stats.hit), np.nan)


def _joint_stats(dataset: PoseDataset, correct: np.ndarray, counted: np.ndarray) -> ImageStats:
    """The numbers of correct and of counted joints in each image; both arguments are boolean (N, K)."""
    images, index = np.unique([person.image_id for person in dataset.instances], return_inverse=True)
    hits, joints = (
        np.bincount(index, weights=mask.sum(1), minlength=len(images)) for mask in (correct, counted)
    )
    return ImageStats(images, joints, hits)


def pckh(dataset: PoseDataset, predictions: Predictions) -> tuple[dict[str, float], ImageStats]:
    """PCKh@0.5 and PCKh@0.1: the share of labeled joints within 0.5 or 0.1 head sizes of their location.

    Returns both totals over joints (choice 4) and PCKh@0.5 of each body part (the mean of left and right).
    Raises ValueError if people have no head sizes.
    """
    truth = np.stack([person.keypoints for person in dataset.instances])  # (N, K, 3)
    heads = np.array([person.head for person in dataset.instances])  # (N,)
    if not (heads > 0).all():
        raise ValueError(
            f"{dataset.name} {dataset.split} has no head sizes: PCKh needs mpii_gt_val.mat beside "
            f"{dataset.annotations}"
        )
    names = dataset.skeleton.keypoints
    labeled = truth[..., 2] > 0  # (N, K)
    distance = np.linalg.norm(predictions.keypoints - truth[..., :2], axis=2) / heads[:, None]  # (N, K)
    counted = labeled.copy()
    counted[:, [names.index("pelvis"), names.index("thorax")]] = False  # choice 4
    metrics = {f"PCKh@{limit:g}": float((distance <= limit)[counted].mean()) for limit in (0.5, 0.1)}
    correct = labeled & (distance <= 0.5)
    rates = correct.sum(0) / np.maximum(labeled.sum(0), 1)  # (K,)
    for part in MPII_PARTS:
        joints = [
            i for i, name in enumerate(names) if name in (f"left_{part}", f"right_{part}", f"{part}_top")
        ]
        metrics[f"PCKh@0.5 {part}"] = float(rates[joints].mean())
    return metrics, _joint_stats(dataset, correct & counted, counted)


def pck(dataset: PoseDataset, predictions: Predictions) -> tuple[dict[str, float], ImageStats]:
    """PCK@0.2, in total and per joint: the share of joints within 0.2 torso diagonals of their location.

    The torso diagonal is from left shoulder to right hip. If one of them is not labeled, it is from right
    shoulder to left hip. If that is not labeled either, the person is not scored; `not_scored` counts these.
    Raises ValueError if no joint of any person can be scored.
    """
    names = dataset.skeleton.keypoints
    truth = np.stack([person.keypoints for person in dataset.instances])  # (N, K, 3)
    torso = np.full(len(truth), np.nan)  # (N,) pixels
    # the first choice comes last, so that it overwrites the second
    for shoulder, hip in (("right_shoulder", "left_hip"), ("left_shoulder", "right_hip")):
        a, b = truth[:, names.index(shoulder)], truth[:, names.index(hip)]  # (N, 3)
        both = (a[:, 2] > 0) & (b[:, 2] > 0)
        torso[both] = np.linalg.norm(a[both, :2] - b[both, :2], axis=1)
    scored = torso > 0  # (N,); false for NaN
    counted = (truth[..., 2] > 0) & scored[:, None]  # (N, K)
    if not counted.any():
        raise ValueError(
            f"{dataset.name} {dataset.split}: PCK needs a person with a labeled shoulder and hip"
        )
    distance = np.linalg.norm(predictions.keypoints - truth[..., :2], axis=2)  # (N, K)
    correct = counted & (distance <= PCK_THRESHOLD * np.nan_to_num(torso)[:, None])
    metric = f"PCK@{PCK_THRESHOLD:g}"
    result = {metric: float(correct.sum() / counted.sum()), "not_scored": int((~scored).sum())}
    for joint, name in enumerate(names):
        if counted[:, joint].any():
            result[f"{metric} {name}"] = float(correct[:, joint].sum() / counted[:, joint].sum())
    return result, _joint_stats(dataset, correct, counted)
