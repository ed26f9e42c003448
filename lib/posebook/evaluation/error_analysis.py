"""What goes wrong: kinds of error (Ronchi and Perona, ICCV 2017), and AP where joints are hidden.

A joint's similarity to a place is that of OKS, exp(-d^2 / 2 s^2 k^2), on the annotated person's scale.

1. Ronchi and Perona, section 3.1: a joint within 0.85 of its place is good, within 0.5 of it jitter.
   Otherwise it is an inversion where it is within 0.5 of another joint of the same person, a swap where it is
   within 0.5 of a joint of another person of the image, a miss where neither; the nearer of the two decides.
2. The prediction of a person is the one made from its box: everything here asks for annotated boxes.
3. AP by visibility counts only the joints seen, or only the hidden ones: the others are unlabeled for the
   scorer. By occlusion, people are grouped by their hidden share. Both leave out the people not asked for,
   and the predictions made of them, which would otherwise count as false.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from posebook.datasets import PoseDataset
from posebook.evaluation.metrics import (
    Predictions,
    average_precision,
    check_predictions,
    coco_ground_truth,
    group_by_image,
)

GOOD, CLOSE = 0.85, 0.5
ERROR_TYPES = ("good", "jitter", "inversion", "swap", "miss")
OCCLUSION_GROUPS = (
    (0.0, 0.0),
    (0.0, 0.25),
    (0.25, 0.5),
    (0.5, 1.0),
)  # hidden share above the first, up to the second


def classify_errors(dataset: PoseDataset, predictions: Predictions) -> np.ndarray:
    """The kind (N, K) of each joint's prediction, an index into KINDS, and -1 where it is not labeled.

    Raises ValueError for people without sigmas, or found in a detector's boxes.
    """
    _check_metric(dataset, predictions)
    variances = (2 * np.array(dataset.skeleton.sigmas)) ** 2  # (K,)
    people = dataset.instances
    together = {place: places for places in group_by_image(dataset) for place in places}
    result = np.full(predictions.scores.shape, -1)
    for place, person in enumerate(people):
        labeled = person.keypoints[:, 2] > 0
        points = predictions.keypoints[place]  # (K, 2)
        own = _similarities(points, person.keypoints[None, :, :2], person.area, variances)[:, 0]  # (K, K)
        right = np.diagonal(own)
        others = [people[i].keypoints for i in together[place] if i != place]
        other = own * labeled
        np.fill_diagonal(other, 0)
        inversion, swap = other.max(1), np.zeros(len(points))  # (K,)
        if others:
            table = np.stack(others)  # (M, K, 3)
            near = _similarities(points, table[..., :2], person.area, variances)  # (K, M, K)
            swap = (near * (table[..., 2] > 0)).max((1, 2))
        kind = np.select(
            [right >= GOOD, right >= CLOSE, np.maximum(inversion, swap) < CLOSE, inversion >= swap],
            [0, 1, 4, 2],
            default=3,
        )
        result[place, labeled] = kind[labeled]
    return result


def _similarities(points: np.ndarray, places: np.ndarray, area: float, variances: np.ndarray) -> np.ndarray:
    """Similarity of predicted joints (K, 2) to places (M, K, 2): (K, M, K), with the place's own spread."""
    squares = ((points[:, None, None] - places[None]) ** 2).sum(-1)  # (K, M, K)
    return np.exp(-squares / (2 * area * variances))


def error_rates(kinds: np.ndarray) -> dict[str, float]:
    """The share of labeled joints of each kind."""
    counts = Counter(kinds[kinds >= 0].tolist())
    total = max(1, sum(counts.values()))
    return {name: counts[i] / total for i, name in enumerate(ERROR_TYPES)}


def _check_metric(dataset: PoseDataset, predictions: Predictions) -> None:
    check_predictions(dataset, predictions)
    if dataset.skeleton.sigmas is None or dataset.boxes != "ground truth":
        raise ValueError("the breakdown needs sigmas and annotated boxes: each prediction is its person's")


def _subset_ap(
    dataset: PoseDataset, predictions: Predictions, kept: np.ndarray, joints: np.ndarray
) -> float | None:
    """AP of the people `kept` (N,), over the labeled joints among `joints` (N, K); None without people."""
    if not kept.any():
        return None
    content, places = coco_ground_truth(dataset), {person.id: i for i, person in enumerate(dataset.instances)}
    for entry in content["annotations"]:
        place = places.get(entry["id"])
        if place is None or not kept[place]:
            entry["num_keypoints"] = 0  # for the scorer nobody: not to be found
            continue
        seen = np.where(joints[place], entry["keypoints"][2::3], 0)
        entry["keypoints"][2::3] = seen.tolist()
        entry["num_keypoints"] = int((seen > 0).sum())
    some = replace(dataset, instances=tuple(dataset.instances[i] for i in np.flatnonzero(kept)))
    found = replace(predictions, keypoints=predictions.keypoints[kept], scores=predictions.scores[kept])
    return average_precision(some, found, content)[0]["AP"]


def _visibility(dataset: PoseDataset) -> np.ndarray:
    return np.stack([person.keypoints[:, 2] for person in dataset.instances])  # (N, K)


def by_visibility(dataset: PoseDataset, predictions: Predictions) -> dict[str, tuple[float, int]]:
    """AP over the joints seen, and over the hidden ones, with the number of people who have such."""
    _check_metric(dataset, predictions)
    visible, result = _visibility(dataset), {}
    for name, v in (("seen joints", 2), ("hidden joints", 1)):
        joints = visible == v
        kept = joints.any(1)
        if (ap := _subset_ap(dataset, predictions, kept, joints)) is not None:
            result[name] = ap, int(kept.sum())
    return result


def by_occlusion(dataset: PoseDataset, predictions: Predictions) -> dict[str, tuple[float, int]]:
    """AP, and the number of people, by the share of a person's labeled joints that is hidden."""
    _check_metric(dataset, predictions)
    visible, result = _visibility(dataset), {}
    share = (visible == 1).sum(1) / (visible > 0).sum(1)  # (N,)
    for low, high in OCCLUSION_GROUPS:
        kept = (share > low) & (share <= high) if high else share == 0
        if (ap := _subset_ap(dataset, predictions, kept, visible > 0)) is not None:
            result[f"{low:.0%} to {high:.0%} hidden" if high else "none hidden"] = ap, int(kept.sum())
    return result
