"""Error types (Ronchi and Perona, ICCV 2017), and AP by visibility and occlusion.

The similarity of a predicted joint and a location is that of OKS, exp(-d^2 / 2 s^2 k^2), at the scale of the
annotated person.

1. Ronchi and Perona, section 3.1: a joint is good at a similarity of 0.85 or more to its annotated location,
   and jitter at 0.5 or more. Otherwise it is an inversion if the similarity to another joint of the same
   person is 0.5 or more, and a swap if that to a joint of another person of the image is. If both apply, the
   larger similarity decides. If neither applies, it is a miss.
2. Each prediction belongs to the person whose box it was made from. All functions here therefore require
   annotated boxes.
3. AP by visibility counts either the visible or the hidden joints; the scorer sees the others as unlabeled.
   AP by occlusion groups people by their share of hidden joints. Both exclude the people outside of the
   group together with their predictions, which would otherwise count as false positives. AP by joints
   counts a group of joints in the same way.
4. The conditions of `failure_rates` and their limits are ours.
"""

from dataclasses import replace

import numpy as np

from posebook.datasets import PoseDataset
from posebook.evaluation import bootstrap
from posebook.evaluation.metrics import (
    ImageStats,
    Predictions,
    average_precision,
    check_predictions,
    coco_ground_truth,
    group_by_image,
    oks,
)

GOOD, CLOSE = 0.85, 0.5
FAILED = 0.5  # OKS of a pose
ERROR_TYPES = ("good", "jitter", "inversion", "swap", "miss")
# Shares of hidden joints: above the first number, up to and including the second.
OCCLUSION_GROUPS = ((0.0, 0.0), (0.0, 0.25), (0.25, 0.5), (0.5, 1.0))


def classify_errors(dataset: PoseDataset, predictions: Predictions) -> np.ndarray:
    """The error type (N, K) of each predicted joint: an index into ERROR_TYPES, or -1 if it is not labeled.

    Raises ValueError if the skeleton has no sigmas or if the boxes are those of a detector.
    """
    _check_inputs(dataset, predictions)
    variances = (2 * np.array(dataset.skeleton.sigmas)) ** 2  # (K,)
    people = dataset.instances
    same_image = {index: group for group in group_by_image(dataset) for index in group}
    result = np.full(predictions.scores.shape, -1)
    for index, person in enumerate(people):
        labeled = person.keypoints[:, 2] > 0  # (K,)
        points = predictions.keypoints[index]  # (K, 2)
        own = _similarities(points, person.keypoints[None, :, :2], person.area, variances)[:, 0]  # (K, K)
        correct = np.diagonal(own)  # (K,)
        other_joints = own * labeled
        np.fill_diagonal(other_joints, 0)
        inversion, swap = other_joints.max(1), np.zeros(len(points))  # (K,)
        others = [people[i].keypoints for i in same_image[index] if i != index]
        if others:
            stacked = np.stack(others)  # (M, K, 3)
            similar = _similarities(points, stacked[..., :2], person.area, variances)  # (K, M, K)
            swap = (similar * (stacked[..., 2] > 0)).max((1, 2))
        error_type = np.select(
            [correct >= GOOD, correct >= CLOSE, np.maximum(inversion, swap) < CLOSE, inversion >= swap],
            [0, 1, 4, 2],
            default=3,
        )
        result[index, labeled] = error_type[labeled]
    return result


def _similarities(
    points: np.ndarray, locations: np.ndarray, area: float, variances: np.ndarray
) -> np.ndarray:
    """Similarity (K, M, K) of predicted joints (K, 2) to locations (M, K, 2).

    The tolerance is that of the joint at the location, not of the predicted joint.
    """
    squares = ((points[:, None, None] - locations[None]) ** 2).sum(-1)  # (K, M, K)
    return np.exp(-squares / (2 * area * variances))


def joint_confusion(dataset: PoseDataset, predictions: Predictions) -> np.ndarray:
    """Which joint is mistaken for which: (K, K), shares of the labeled joints of each row.

    Entry (k, j) is the share of the predictions of joint k that are inversions onto joint j of the same
    person. The diagonal is 0. A joint that is never labeled has a row of 0. Raises ValueError as
    `classify_errors` does.
    """
    error_types = classify_errors(dataset, predictions)  # (N, K)
    variances = (2 * np.array(dataset.skeleton.sigmas)) ** 2  # (K,)
    counts = np.zeros((len(variances), len(variances)))
    for person, types, points in zip(dataset.instances, error_types, predictions.keypoints, strict=True):
        own = _similarities(points, person.keypoints[None, :, :2], person.area, variances)[:, 0]  # (K, K)
        own *= person.keypoints[:, 2] > 0
        np.fill_diagonal(own, 0)
        for joint in np.flatnonzero(types == ERROR_TYPES.index("inversion")):
            counts[joint, own[joint].argmax()] += 1
    return counts / np.maximum(1, (error_types >= 0).sum(0))[:, None]


def error_rates(error_types: np.ndarray) -> dict[str, float]:
    """The share of each error type among the labeled joints."""
    counts = np.bincount(error_types[error_types >= 0], minlength=len(ERROR_TYPES))
    return dict(zip(ERROR_TYPES, (counts / max(1, counts.sum())).tolist(), strict=True))


def _check_inputs(dataset: PoseDataset, predictions: Predictions) -> None:
    check_predictions(dataset, predictions)
    if dataset.skeleton.sigmas is None or dataset.boxes != "ground truth":
        raise ValueError(
            f"error analysis needs a skeleton with sigmas and annotated boxes; {dataset.name} has "
            f"{dataset.skeleton.name} joints and boxes from {dataset.boxes}"
        )


def _group_ap(
    dataset: PoseDataset, predictions: Predictions, groups: dict[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, tuple[float, int, ImageStats]]:
    """AP, number of people and image statistics of each group that is not empty.

    groups: by name, the members (N,) and the joints (N, K) that count, both boolean.
    """
    _check_inputs(dataset, predictions)
    indices = {person.id: i for i, person in enumerate(dataset.instances)}
    result = {}
    for name, (members, joints) in groups.items():
        if not members.any():
            continue
        content = coco_ground_truth(dataset)
        for entry in content["annotations"]:
            index = indices.get(entry["id"])
            if index is None or not members[index]:
                entry["num_keypoints"] = 0  # COCOeval ignores a person without keypoints
                continue
            visibility = np.where(joints[index], entry["keypoints"][2::3], 0)  # (K,)
            entry["keypoints"][2::3] = visibility.tolist()
            entry["num_keypoints"] = int((visibility > 0).sum())
        subset = replace(dataset, instances=tuple(dataset.instances[i] for i in np.flatnonzero(members)))
        predicted = replace(
            predictions, keypoints=predictions.keypoints[members], scores=predictions.scores[members]
        )
        scores, stats = average_precision(subset, predicted, content)
        result[name] = scores["AP"], int(members.sum()), stats
    return result


def _visibility(dataset: PoseDataset) -> np.ndarray:
    return np.stack([person.keypoints[:, 2] for person in dataset.instances])  # (N, K)


def by_visibility(dataset: PoseDataset, predictions: Predictions) -> dict[str, tuple[float, int]]:
    """AP over the visible joints and over the hidden joints, with the number of people who have such joints.

    Raises ValueError as `classify_errors` does.
    """
    groups = _group_ap(dataset, predictions, _visibility_groups(dataset))
    return {name: (ap, n) for name, (ap, n, _) in groups.items()}


def by_occlusion(dataset: PoseDataset, predictions: Predictions) -> dict[str, tuple[float, int]]:
    """AP and number of people by the share of a person's labeled joints that are hidden.

    Raises ValueError as `classify_errors` does.
    """
    groups = _group_ap(dataset, predictions, _occlusion_groups(dataset))
    return {name: (ap, n) for name, (ap, n, _) in groups.items()}


def intervals_by_occlusion(dataset: PoseDataset, predictions: Predictions) -> dict[str, dict[str, float]]:
    """As `by_occlusion`, with the 95 % bootstrap interval of each AP.

    Returns {group: {"AP", "low", "high", "people"}}. Raises ValueError as `classify_errors` does.
    """
    return _with_intervals(_group_ap(dataset, predictions, _occlusion_groups(dataset)))


def intervals_by_visibility(dataset: PoseDataset, predictions: Predictions) -> dict[str, dict[str, float]]:
    """As `by_visibility`, with 95 % bootstrap intervals; returns the fields of `intervals_by_occlusion`."""
    return _with_intervals(_group_ap(dataset, predictions, _visibility_groups(dataset)))


def _with_intervals(groups: dict[str, tuple[float, int, ImageStats]]) -> dict[str, dict[str, float]]:
    result = {}
    for name, (ap, people, stats) in groups.items():
        low, high = bootstrap.interval(stats)
        result[name] = {"AP": ap, "low": low, "high": high, "people": people}
    return result


def change_by_joints(
    dataset: PoseDataset, before: Predictions, after: Predictions, groups: dict[str, np.ndarray]
) -> dict[str, dict]:
    """How AP over a group of joints differs between two sets of predictions for the same people.

    groups: by name, the joints (K,) that count, boolean. Returns {group: {"before", "after", "value",
    "interval", "people"}}: both AP, their difference with its paired 95 % bootstrap interval over images, and
    the number of people who have such joints. Raises ValueError as `classify_errors` does.
    """
    labeled = _visibility(dataset) > 0  # (N, K)
    selected = {name: ((labeled & joints).any(1), labeled & joints) for name, joints in groups.items()}
    old = _group_ap(dataset, before, selected)
    result = {}
    for name, (ap, people, stats) in _group_ap(dataset, after, selected).items():
        value, *limits = bootstrap.paired_difference(old[name][2], stats)
        result[name] = {
            "before": old[name][0], "after": ap, "value": value, "interval": limits, "people": people
        }  # fmt: skip
    return result


def _visibility_groups(dataset: PoseDataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The members (N,) and joints (N, K) of the visible and of the hidden joints."""
    visible, hidden = _visibility(dataset) == 2, _visibility(dataset) == 1  # (N, K)
    return {"visible joints": (visible.any(1), visible), "hidden joints": (hidden.any(1), hidden)}


def _occlusion_groups(dataset: PoseDataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The members (N,) and joints (N, K) of each group of OCCLUSION_GROUPS."""
    labeled, hidden = _visibility(dataset) > 0, _visibility(dataset) == 1  # (N, K)
    share = hidden.sum(1) / labeled.sum(1)  # (N,)
    groups = {}
    for low, high in OCCLUSION_GROUPS:
        name = f"{low:.0%} to {high:.0%} hidden" if high else "none hidden"
        members = (share > low) & (share <= high) if high else share == 0
        groups[name] = members, labeled
    return groups


def person_oks(dataset: PoseDataset, predictions: Predictions) -> np.ndarray:
    """OKS (N,) of each prediction with the person of its box, over the labeled joints.

    Raises ValueError as `classify_errors` does.
    """
    _check_inputs(dataset, predictions)
    sigmas = np.array(dataset.skeleton.sigmas)
    similarity = []
    for person, points in zip(dataset.instances, predictions.keypoints, strict=True):
        labeled = person.keypoints[:, 2] > 0
        annotated = person.keypoints[None, labeled, :2]  # (1, L, 2)
        similarity.append(oks(points[labeled], annotated, np.array([person.area]), sigmas[labeled])[0])
    return np.array(similarity)


def failure_rates(dataset: PoseDataset, predictions: Predictions) -> dict[str, dict[str, float]]:
    """How often the pose of a person fails: OKS below FAILED over the labeled joints.

    Returns {condition: {"people", "failed"}}: the number of people under a condition and the share of them
    that failed, first for all people, then for the six conditions of `_conditions`. A condition without
    people is left out. Raises ValueError as `classify_errors` does.
    """
    failed = person_oks(dataset, predictions) < FAILED  # (N,)
    groups = {"all": np.ones(len(failed), bool)} | _conditions(dataset)
    return {
        name: {"people": int(members.sum()), "failed": float(failed[members].mean())}
        for name, members in groups.items()
        if members.any()
    }


def _conditions(dataset: PoseDataset) -> dict[str, np.ndarray]:
    """Conditions under which poses are hard to predict, as boolean arrays (N,)."""
    visibility = _visibility(dataset)  # (N, K)
    labeled = (visibility > 0).sum(1)
    boxes = np.array([person.bbox for person in dataset.instances])  # (N, 4)
    crowded = np.zeros(len(boxes), bool)
    for group in group_by_image(dataset):
        for index in group:
            others = boxes[group[group != index]]
            crowded[index] = bool((_iou(boxes[index], others) > 0.1).any())
    return {
        "small (area below 64 x 64 pixels)": np.array([p.area for p in dataset.instances]) < 64**2,
        "overlaps another person (IoU above 0.1)": crowded,
        "over a quarter of the joints hidden": (visibility == 1).sum(1) > labeled / 4,
        "at most eight joints labeled": labeled <= 8,
        "torso tilted by more than 45 degrees": _tilted(dataset),
        "box wider than high": boxes[:, 2] > boxes[:, 3],
    }


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union (M,) of a box (4,) with others (M, 4), all x, y, w, h."""
    low = np.maximum(box[:2], others[:, :2])  # (M, 2)
    high = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    intersection = (high - low).clip(0).prod(1)  # (M,)
    return intersection / (box[2:].prod() + others[:, 2:].prod(1) - intersection)


def _tilted(dataset: PoseDataset) -> np.ndarray:
    """Whether the torso is over 45 degrees from upright (N,); False if its joints are not all labeled."""
    names = dataset.skeleton.keypoints
    sides = [[f"{side}_{part}" for side in ("left", "right")] for part in ("shoulder", "hip")]
    if not {name for pair in sides for name in pair} <= set(names):
        return np.zeros(len(dataset.instances), bool)
    result = []
    for person in dataset.instances:
        torso = person.keypoints[[[names.index(name) for name in pair] for pair in sides]]  # (2, 2, 3)
        x, y = (torso[0] - torso[1]).mean(0)[:2]  # from the middle of the hips to that of the shoulders
        result.append(bool((torso[..., 2] > 0).all() and -y < abs(x)))
    return np.array(result)


def breakdown(dataset: PoseDataset, predictions: Predictions) -> dict[str, dict]:
    """Everything of this module that a record stores."""
    return {
        "error_types": error_rates(classify_errors(dataset, predictions)),
        "by_visibility": by_visibility(dataset, predictions),
        "by_occlusion": by_occlusion(dataset, predictions),
        "failures": failure_rates(dataset, predictions),
    }
