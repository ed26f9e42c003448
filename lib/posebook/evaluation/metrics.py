"""Figures from predictions: AP by OKS (COCO's and CrowdPose's), PCKh, PCK; matches kept for the bootstrap.

COCO: pycocotools, unchanged. CrowdPose (Li et al., CVPR 2019): the same with 14 sigmas, an area of 0.53 of
the box's, at most 20 detections an image and one area range; easy, medium and hard images by crowd index.
MPII: the official evaluatePCKh (Andriluka et al., CVPR 2014). LSPET: PCK at a fifth of the torso's diagonal.

1. A person's score is the box's times the mean score of its joints above 0.2, as mmpose's CocoMetric has it.
2. A detector's boxes overlap: OKS-NMS at 0.9 as in the HRNet code, with the area of the enlarged box.
3. CrowdPose's easy images have an index below 0.2, its hard ones of 0.8 and more; a group's AP is the mean
   precision over all thresholds, as the official tool has it.
4. PCKh's total is over joints, pelvis and thorax left out as in the official script: no mean of the parts.
5. What cannot be measured (AP of medium people where there are none) has no entry, where pycocotools says -1.
"""

import contextlib
import importlib.util
import io
import json
from dataclasses import dataclass

import numpy as np

from posebook import transforms
from posebook.datasets import Person, PoseDataset
from posebook.datasets.crowdpose import AREA as CROWD_AREA

JOINT_THRESHOLD = 0.2
NMS_THRESHOLD = 0.9
PRIMARY_METRICS = ("AP", "PCKh@0.5", "PCK@0.2")  # the figure a learning curve shows, whichever the data has
COCO_METRICS = {"AP": 0, "AP50": 1, "AP75": 2, "AP_M": 3, "AP_L": 4, "AR": 5}  # places in COCOeval.stats
CROWD_GROUPS = {"AP easy": (0.0, 0.2), "AP medium": (0.2, 0.8), "AP hard": (0.8, np.inf)}
MPII_PARTS = ("head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")


@dataclass(frozen=True)
class Predictions:
    """In the order of the persons, in pixels of their images."""

    keypoints: np.ndarray  # (N, K, 2)
    scores: np.ndarray  # (N, K)
    decoding: str = "simcc argmax"


@dataclass(frozen=True)
class ImageStats:
    """What a metric says of each image, so that images can be drawn again: for AP or for a share of joints.

    AP: `score`, `hit` and `counts` of each detection at each OKS threshold; `people` to find in each image. A
    share: `hit` right joints among `people` labeled ones, per image.
    """

    images: np.ndarray  # (I,) ids
    people: np.ndarray  # (I,)
    hit: np.ndarray  # (T, D) bool of detections, or (I,) of a share
    counts: np.ndarray | None = None  # (T, D) bool: neither ignored nor matched to somebody ignored
    score: np.ndarray | None = None  # (D,)
    place: np.ndarray | None = None  # (D,) of a detection's image in `images`


def metric_type(dataset: PoseDataset) -> str:
    """Which metric a dataset is measured by: 'oks', 'crowd', 'pckh' or 'pck'.

    CrowdPose and MPII have their own; other data with the joints of one of them has not what those ask for.
    """
    return dataset.metric_type


def check_dependencies(dataset: PoseDataset) -> None:
    """Raise ModuleNotFoundError, before any work, where the metric's library is not there (bare machines)."""
    if metric_type(dataset) in ("oks", "crowd") and importlib.util.find_spec("pycocotools") is None:
        raise ModuleNotFoundError(
            f"{dataset.name} is scored by pycocotools, which is not installed: pip install pycocotools, or "
            "train on data scored without it (lspet, mpii)"
        )


def score(dataset: PoseDataset, predictions: Predictions) -> dict[str, float]:
    """The dataset's own metrics. Raises ValueError for predictions that are not a finite number each."""
    return measure(dataset, predictions)[0]


def measure(dataset: PoseDataset, predictions: Predictions) -> tuple[dict[str, float], ImageStats]:
    """The dataset's own metrics, and what they are made of, image by image."""
    check_predictions(dataset, predictions)
    how = metric_type(dataset)
    if how == "pckh":
        return pckh(dataset, predictions)
    if how == "pck":
        return pck(dataset, predictions)
    return average_precision(dataset, predictions)


def check_predictions(dataset: PoseDataset, predictions: Predictions) -> None:
    """Raise ValueError, naming the person, for predictions that are missing or not numbers."""
    shape = (len(dataset.instances), len(dataset.skeleton.keypoints))
    for name, array, wanted in (
        ("keypoints", predictions.keypoints, (*shape, 2)),
        ("scores", predictions.scores, shape),
    ):
        if array.shape != wanted:
            raise ValueError(f"predicted {name} have shape {array.shape}; {dataset.name} wants {wanted}")
        bad = ~np.isfinite(array).reshape(len(array), -1).all(1)  # (N,)
        if bad.any():
            person = dataset.instances[int(bad.argmax())]
            raise ValueError(
                f"predicted {name} of {int(bad.sum())} people are not finite numbers; the first is person "
                f"{person.id} of image {person.image.name}"
            )


def person_scores(dataset: PoseDataset, scores: np.ndarray) -> np.ndarray:
    """Box score times `mean_scores`, (N,)."""
    return mean_scores(scores) * np.array([person.score for person in dataset.instances])


def mean_scores(scores: np.ndarray) -> np.ndarray:
    """The mean of each person's joint scores (N, K) above JOINT_THRESHOLD, (N,); 0 where none is above."""
    counts = scores > JOINT_THRESHOLD  # (N, K)
    return np.where(counts, scores, 0).sum(1) / np.maximum(counts.sum(1), 1)


def oks(points: np.ndarray, others: np.ndarray, areas: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """Similarity (M,) of one pose (K, 2) to others (M, K, 2), all joints counted; areas (M,) in pixels."""
    squares = ((others - points) ** 2).sum(-1)  # (M, K)
    return np.exp(-squares / (8 * sigmas**2 * areas[:, None] + np.spacing(1))).mean(1)


def oks_nms(dataset: PoseDataset, predictions: Predictions, totals: np.ndarray) -> np.ndarray:
    """OKS-NMS: which people (N,) stay. In each image the best stays, and those it is not too similar to."""
    sigmas = np.array(dataset.skeleton.sigmas)
    areas = np.array([padded_area(person) for person in dataset.instances])
    stays = np.zeros(len(totals), bool)
    for places in group_by_image(dataset):
        left = places[np.argsort(-totals[places], kind="stable")]
        while len(left):
            best, left = left[0], left[1:]
            stays[best] = True
            between = (areas[left] + areas[best]) / 2
            alike = oks(predictions.keypoints[best], predictions.keypoints[left], between, sigmas)
            left = left[alike <= NMS_THRESHOLD]
    return stays


def group_by_image(dataset: PoseDataset) -> list[np.ndarray]:
    """The places in `persons` of each image's people."""
    places: dict[int, list[int]] = {}
    for place, person in enumerate(dataset.instances):
        places.setdefault(person.image_id, []).append(place)
    return list(map(np.array, places.values()))


def padded_area(person: Person) -> float:
    """Area in pixels of the box as most nets crop it: widened to 3:4 and enlarged by 1.25."""
    _, _, w, h = person.bbox
    width = max(w, h * 3 / 4) * transforms.PADDING
    return width * width * 4 / 3


def coco_ground_truth(dataset: PoseDataset) -> dict:
    """What pycocotools needs of the annotation file, with the areas that the evaluation takes.

    Entries that are nobody to find (crowds, people without joints) may lack joints or a box: they have none.
    """
    content, joints = json.loads(dataset.annotations.read_text()), len(dataset.skeleton.keypoints)
    crowd, entries = metric_type(dataset) == "crowd", []
    for entry in content["annotations"]:
        keypoints = _numbers(entry.get("keypoints"), 3 * (len(dataset.file_joints) or joints))
        if dataset.joint_map:
            triples = [keypoints[3 * k : 3 * k + 3] if k >= 0 else [0, 0, 0] for k in dataset.joint_map]
            keypoints = [value for triple in triples for value in triple]
        box = _numbers(entry.get("bbox"), 4)
        labeled = sum(v > 0 for v in keypoints[2::3])
        clean = {"id": entry["id"], "image_id": entry["image_id"], "category_id": 1, "bbox": box}
        clean |= {"keypoints": keypoints, "iscrowd": int(bool(entry.get("iscrowd", 0)))}
        clean["num_keypoints"] = min(labeled, max(0, entry.get("num_keypoints", labeled)))
        (area,) = _numbers([entry.get("area", box[2] * box[3])], 1)
        clean["area"] = CROWD_AREA * box[2] * box[3] if crowd else area
        entries.append(clean)
    return content | {"annotations": entries, "categories": [{"id": 1, "name": "person"}]}


def _numbers(values: object, count: int) -> list[float]:
    """The values where they are so many numbers, and as many zeros where not."""
    good = isinstance(values, list) and len(values) == count
    return values if good and all(isinstance(value, int | float) for value in values) else [0] * count


def coco_results(dataset: PoseDataset, predictions: Predictions) -> list[dict]:
    """COCO's result entries, those that OKS-NMS leaves where the boxes are a detector's."""
    totals = person_scores(dataset, predictions.scores)
    stays = np.ones(len(totals), bool)
    if dataset.boxes != "ground truth":
        stays = oks_nms(dataset, predictions, totals)
    triples = np.concatenate([predictions.keypoints, predictions.scores[..., None]], -1)  # (N, K, 3)
    return [
        {
            "image_id": dataset.instances[i].image_id,
            "category_id": 1,
            "keypoints": triples[i].ravel().tolist(),
            "score": float(totals[i]),
        }
        for i in np.flatnonzero(stays)
    ]


def average_precision(
    dataset: PoseDataset, predictions: Predictions, content: dict | None = None
) -> tuple[dict[str, float], ImageStats]:
    """AP as COCO or CrowdPose has it, fractions. content: what to score against instead of the file's."""
    content = content or coco_ground_truth(dataset)
    crowd = metric_type(dataset) == "crowd"
    scorer = run_cocoeval(dataset, content, coco_results(dataset, predictions), crowd)
    if crowd:
        precision = scorer.eval["precision"][:, :, 0, 0, 0]  # (T, R)
        found = {"AP": precision, "AP50": precision[0], "AP75": precision[5]}
        metrics = {name: float(values.mean()) for name, values in found.items()}
        metrics["AR"] = float(scorer.eval["recall"][:, 0, 0, 0].mean())
        units = image_stats(scorer)
        index = {image["id"]: image.get("crowdIndex") for image in content["images"]}
        if None in index.values():
            raise ValueError(
                f"{dataset.annotations}: images without crowdIndex cannot be told easy from hard"
            )
        crowdedness = np.array([index[number] for number in units.images])
        for name, (low, high) in CROWD_GROUPS.items():
            inside = (crowdedness >= low) & (crowdedness < high)
            if units.people[inside].any():
                metrics[name] = weighted_metric(units, inside.astype(np.float64)[None])[0]
        return metrics, units
    metrics = {name: float(scorer.stats[place]) for name, place in COCO_METRICS.items()}
    return {name: value for name, value in metrics.items() if value >= 0}, image_stats(scorer)


def run_cocoeval(dataset: PoseDataset, content: dict, rows: list[dict], crowd: bool) -> object:
    """A pycocotools COCOeval, evaluated and accumulated, and summarized for COCO."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if dataset.skeleton.sigmas is None:
        raise ValueError(f"{dataset.skeleton.name} has no sigmas to measure OKS by")
    first = min((entry["id"] for entry in content["annotations"]), default=1)
    for entry in content["annotations"]:
        entry["id"] += max(0, 1 - first)  # pycocotools takes a person with id 0 for nobody
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        scorer = COCOeval(truth, truth.loadRes(rows), "keypoints")
        scorer.params.kpt_oks_sigmas = np.array(dataset.skeleton.sigmas)
        scorer.params.imgIds = sorted(dataset.images) or sorted(truth.imgs)
        if crowd:
            scorer.params.areaRng, scorer.params.areaRngLbl = [[0, 1e10]], ["all"]
        scorer.evaluate()
        scorer.accumulate()
        if not crowd:
            scorer.summarize()
    return scorer


def image_stats(scorer: object) -> ImageStats:
    """What an evaluated COCOeval matched over all areas, image by image."""
    images = np.array(scorer.params.imgIds)
    entries = scorer.evalImgs[: len(images)]  # area range "all" comes first
    people = [0 if e is None else int((~np.asarray(e["gtIgnore"], bool)).sum()) for e in entries]
    found = [(place, e) for place, e in enumerate(entries) if e is not None and len(e["dtScores"])]
    levels = len(scorer.params.iouThrs)
    if not found:
        nothing = np.zeros((levels, 0), bool)
        return ImageStats(images, np.array(people), nothing, nothing, np.zeros(0), np.zeros(0, int))
    ignored = np.concatenate([e["dtIgnore"] for _, e in found], 1).astype(bool)  # (T, D)
    return ImageStats(
        images,
        np.array(people),
        np.concatenate([e["dtMatches"] for _, e in found], 1) > 0,
        ~ignored,
        np.concatenate([e["dtScores"] for _, e in found]),
        np.concatenate([np.full(len(e["dtScores"]), place) for place, e in found]),
    )


def weighted_metric(units: ImageStats, weights: np.ndarray) -> np.ndarray:
    """The metric (R,) when each image counts `weights` (R, I) times: COCO's AP, or the share of right joints.

    NaN where nobody is to be found. AP is pycocotools' own, precision at 101 recalls, made from kept matches.
    """
    people = weights @ units.people  # (R,)
    with np.errstate(invalid="ignore", divide="ignore"):
        if units.score is None:
            return (weights @ units.hit) / people
        order = np.argsort(-units.score, kind="mergesort")
        times = weights[:, units.place[order]]  # (R, D)
        levels = np.linspace(0, 1, 101)
        result = np.zeros(len(weights))
        for hit, counts in zip(units.hit[:, order], units.counts[:, order], strict=True):
            right = np.cumsum(times * (hit & counts), 1)  # (R, D)
            wrong = np.cumsum(times * (~hit & counts), 1)
            precision = right / np.maximum(right + wrong, np.spacing(1))
            envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
            for draw, (recall, height) in enumerate(zip(right / people[:, None], envelope, strict=True)):
                place = np.searchsorted(recall, levels)
                result[draw] += height[place[place < len(height)]].sum() / len(levels)
        return np.where(people > 0, result / len(units.hit), np.nan)


def _ratio_stats(dataset: PoseDataset, right: np.ndarray, counts: np.ndarray) -> ImageStats:
    """Units of a share of joints: right and counted ones (N, K) summed over each image's people."""
    images, place = np.unique([person.image_id for person in dataset.instances], return_inverse=True)
    sums = [np.bincount(place, weights=table.sum(1), minlength=len(images)) for table in (right, counts)]
    return ImageStats(images, sums[1], sums[0])


def pckh(dataset: PoseDataset, predictions: Predictions) -> tuple[dict[str, float], ImageStats]:
    """PCKh@0.5 and @0.1: labeled joints within a half, and a tenth, of the head size of their place.

    Per part (the mean of left and right) at 0.5, and the totals over joints. ValueError without head sizes.
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
    distance = np.linalg.norm(predictions.keypoints - truth[..., :2], axis=2) / heads[:, None]
    total = labeled.copy()
    total[:, [names.index("pelvis"), names.index("thorax")]] = False
    metrics = {f"PCKh@{limit:g}": float((distance <= limit)[total].mean()) for limit in (0.5, 0.1)}
    right = labeled & (distance <= 0.5)
    rates = right.sum(0) / np.maximum(labeled.sum(0), 1)  # (K,)
    for part in MPII_PARTS:
        joints = [
            i for i, name in enumerate(names) if name in (f"left_{part}", f"right_{part}", f"{part}_top")
        ]
        metrics[f"PCKh@0.5 {part}"] = float(rates[joints].mean())
    return metrics, _ratio_stats(dataset, right & total, total)


def pck(
    dataset: PoseDataset, predictions: Predictions, share: float = 0.2
) -> tuple[dict[str, float], ImageStats]:
    """PCK: the share of labeled joints within `share` of the torso's length of their place.

    Torso: left shoulder to right hip; where one is hidden, right shoulder to left hip; where that fails too
    the person is not scored, and `not_scored` counts those. The total is over joints; per joint too.
    """
    names = dataset.skeleton.keypoints
    index = names.index
    diagonals = (
        (index("left_shoulder"), index("right_hip")),
        (index("right_shoulder"), index("left_hip")),
    )
    truth = np.stack([person.keypoints for person in dataset.instances])  # (N, K, 3)
    torso = np.full(len(truth), np.nan)
    for a, b in reversed(diagonals):  # the first one has the last word
        both = (truth[:, a, 2] > 0) & (truth[:, b, 2] > 0)
        torso[both] = np.linalg.norm(truth[both, a, :2] - truth[both, b, :2], axis=1)
    counts = (truth[..., 2] > 0) & (torso > 0)[:, None]  # (N, K); a comparison with NaN is false
    distance = np.linalg.norm(predictions.keypoints - truth[..., :2], axis=2)  # (N, K)
    right = counts & (distance <= share * np.nan_to_num(torso)[:, None])
    metric = f"PCK@{share:g}"
    result = {metric: float(right.sum() / counts.sum()), "not_scored": int((~(torso > 0)).sum())}
    for joint, name in enumerate(names):
        if counts[:, joint].any():
            result[f"{metric} {name}"] = float(right[:, joint].sum() / counts[:, joint].sum())
    return result, _ratio_stats(dataset, right, counts)
