"""Which joints models find when squares cover a part of each person.

1. The squares have random centers, the same for all models and sides. They are filled with black, as
   CoarseDropout fills its holes, or with the pixels of another person's crop, which it never shows.
2. Only joints that are visible in the original image count. A joint is found if the prediction is within a
   tenth of the crop's height of the annotation.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import torch

from posebook import transforms
from posebook.evaluation import bootstrap, predictions
from posebook.explain import attribution
from posebook.models.layers import PoseModel

BLACK = 0
FILLS = ("black", "another image")


def cover(image: np.ndarray, center: np.ndarray, side: float, fill: np.ndarray | int = BLACK) -> np.ndarray:
    """Return a copy of an image (H, W, 3) with a square about `center` (x, y) filled.

    side: in pixels. fill: a gray level from 0 to 255, or an image (H, W, 3) whose pixels at the same position
    are copied.
    """
    changed = image.copy()
    left, top = np.round(np.maximum(center - side / 2, 0)).astype(int)
    right, bottom = np.round(np.maximum(center + side / 2, 0)).astype(int)
    square = slice(top, bottom), slice(left, right)
    changed[square] = fill if np.isscalar(fill) else np.asarray(fill)[square]
    return changed


@torch.no_grad()
def predict_with_entropy(
    model: PoseModel, images: np.ndarray, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Return joints (B, K, 2) in pixels and normalized entropies (B, K) for images (B, H, W, 3), uint8."""
    found = []
    for part in torch.from_numpy(images).split(64):
        output = model(transforms.normalize(part.to(device)))
        points = predictions.decode(output, model.input_size, model.dark, model.udp)[0]  # (B, K, 2)
        found.append(torch.cat([points, attribution.entropy(output)[..., None]], 2).cpu())
    joined = torch.cat(found).numpy()  # (B, K, 3)
    return joined[..., :2], joined[..., 2]


def compare(
    models: Mapping[str, PoseModel],
    images: np.ndarray,
    joints: np.ndarray,
    sides: Sequence[float],
    device: str = "cpu",
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure models on people with squares of several sides, with 95 % intervals over people.

    images (B, H, W, 3) and joints (B, K, 3) are crops as `predictions.crop_people` returns them. sides:
    shares of the height. Returns the share of found joints and the mean entropy of each model, and the
    differences in percentage points of found joints between consecutive models, both by kind of square, side,
    and whether the square covers the joint. Raises ValueError for a single person, whose square cannot have
    parts of another, and if the models have different input sizes or joints.
    """
    if len(images) < 2:
        raise ValueError("at least two people are needed: a square is filled with a part of another person")
    if len({(model.input_size, model.skeleton.keypoints) for model in models.values()}) > 1:
        raise ValueError(
            "models with different input sizes or joints cannot be compared: choose other weights"
        )
    height, width = images.shape[1:3]
    places, seen = joints[..., :2], joints[..., 2] == 2  # (B, K, 2), (B, K)
    centers = np.random.default_rng(seed).uniform([0, 0], [width, height], (len(images), 2))
    others = np.roll(images, len(images) // 2, axis=0)
    rows, differences = [], []
    for kind in FILLS:
        for side in sides:
            fills = [BLACK] * len(images) if kind == "black" else others
            covered = [
                cover(*each)
                for each in zip(images, centers, [side * height] * len(images), fills, strict=True)
            ]
            under = (np.abs(places - centers[:, None]) < side * height / 2).all(-1)  # (B, K)
            groups = {"covered": seen & under, "free": seen & ~under}
            found = {}
            for name, model in models.items():
                points, entropies = predict_with_entropy(model, np.stack(covered), device)
                found[name] = np.linalg.norm(points - places, axis=-1) < height / 10
                for what, values in (("found", found[name]), ("entropy", entropies)):
                    for group, members in groups.items():
                        interval = _mean(values, members, seed)
                        rows.append([kind, side, name, group, what, int(members.sum()), *interval])
            for before, after in pairwise(found.values()):
                for group, members in groups.items():
                    change = 100 * (after.astype(float) - before)
                    differences.append([kind, group, side, *_mean(change, members, seed)])
    columns = ["square", "side", "network", "joints", "what", "count", "value", "low", "high"]
    names = ["square", "joints", "side", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns), pd.DataFrame(differences, columns=names).dropna()


def _mean(values: np.ndarray, members: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Mean of values (B, K) over the members (B, K), and its interval."""
    return bootstrap.mean_interval((values * members).sum(1), members.sum(1), seed=seed)
