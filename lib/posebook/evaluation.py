"""Predict, decode, and score: AP by OKS (COCO's evaluation, by pycocotools) and PCK.

1. One exact warp from the full image, the net once or twice (flip test; mirrored heatmaps moved by a cell),
   argmax decoding, and the same affine back.
2. A person's score is the box's times the mean score of its joints above 0.2, as mmpose's CocoMetric has it.
3. No non-maximum suppression here: with ground-truth boxes there is one prediction a person.
"""

import contextlib
import io
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from posebook import codecs, transforms
from posebook.datasets import Persons, read_image

JOINT_THRESHOLD = 0.2
METRICS = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR")


@dataclass(frozen=True)
class Predictions:
    """In the order of the persons, in pixels of their images."""

    keypoints: np.ndarray  # (N, K, 2)
    scores: np.ndarray  # (N, K)
    decoding: str = "simcc argmax"


class Crops(Dataset):
    """The network inputs of some people: one warp each, straight from the full image."""

    def __init__(self, persons: Persons, input_size: tuple[int, int]):
        self.persons, self.input_size = persons, input_size

    def __len__(self) -> int:
        return len(self.persons.persons)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, np.ndarray]:
        person = self.persons.persons[index]
        matrix = transforms.crop_affine(person.bbox, self.input_size)
        return torch.from_numpy(transforms.warp(read_image(person.image), matrix, self.input_size)), matrix


def forward(model: nn.Module, images: torch.Tensor, flip_test: bool) -> codecs.SimCC | torch.Tensor:
    """Run normalised images (B, 3, H, W); with flip_test, average with the mirrored images' outputs.

    Of a heatmap model the last stage's heatmaps (B, K, h, w).
    """
    output, flips = model(images), model.skeleton.flip_indices
    if isinstance(output, codecs.SimCC):
        if not flip_test:
            return output
        mirrored = codecs.flip_simcc(model(images.flip(-1)), flips)
        return codecs.SimCC(*((a + b) / 2 for a, b in zip(output, mirrored, strict=True)))
    if not flip_test:
        return output[-1]
    return (output[-1] + codecs.flip_heatmap(model(images.flip(-1))[-1], flips)) / 2


def decode(output: codecs.SimCC | torch.Tensor, input_size: tuple[int, int]) -> tuple:
    """Keypoints (B, K, 2) in input pixels and scores (B, K) from what `forward` gives."""
    if isinstance(output, codecs.SimCC):
        return codecs.decode_simcc(output, output.x.shape[-1] / input_size[1])
    return codecs.decode_heatmap(output, input_size[0] // output.shape[-2])


@torch.no_grad()
def predict(
    model: nn.Module,
    persons: Persons,
    flip_test: bool = True,
    batch: int = 64,
    device: str = "cpu",
    workers: int = 0,
) -> Predictions:
    """Keypoints and scores of every person; puts the model in eval mode.

    Raises ValueError where the model's joints are not the people's.
    """
    if model.skeleton != persons.skeleton:
        raise ValueError(
            f"the model gives {model.skeleton.name} joints, {persons.name} has {persons.skeleton.name} joints"
        )
    model.to(device).eval()
    crops = DataLoader(Crops(persons, model.input_size), batch, num_workers=workers)
    keypoints, scores, heatmaps = [], [], False
    for images, matrices in tqdm(crops, desc="predict", delay=2, leave=False):
        output = forward(model, transforms.normalise(images.to(device)), flip_test)
        points, score = decode(output, model.input_size)
        heatmaps = not isinstance(output, codecs.SimCC)
        for matrix, person in zip(matrices.numpy(), points.double().cpu().numpy(), strict=True):
            keypoints.append(transforms.apply_affine(transforms.invert(matrix), person))
        scores.append(score.cpu().numpy())
    decoding = "heatmap argmax, quarter offset" if heatmaps else Predictions.decoding
    return Predictions(np.stack(keypoints), np.concatenate(scores), decoding)


def person_scores(persons: Persons, scores: np.ndarray) -> np.ndarray:
    """Box score times the mean of the joint scores above JOINT_THRESHOLD, (N,); 0 where none is above."""
    counts = scores > JOINT_THRESHOLD  # (N, K)
    means = np.where(counts, scores, 0).sum(1) / np.maximum(counts.sum(1), 1)
    return means * np.array([person.score for person in persons.persons])


def average_precision(persons: Persons, predictions: Predictions) -> dict[str, float]:
    """COCO's keypoint metrics, as fractions, against the annotation file the persons came from."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = []
    overall = person_scores(persons, predictions.scores)
    for person, points, score, total in zip(
        persons.persons, predictions.keypoints, predictions.scores, overall, strict=True
    ):
        triples = np.concatenate([points, score[:, None]], 1)  # (K, 3)
        rows.append(
            {
                "image_id": person.image_id,
                "category_id": 1,
                "keypoints": triples.ravel().tolist(),
                "score": float(total),
            }
        )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(os.fspath(persons.annotations))
        scorer = COCOeval(truth, truth.loadRes(rows), "keypoints")
        scorer.params.kpt_oks_sigmas = np.array(persons.skeleton.sigmas)
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    ap, ap50, ap75, medium, large, ar = scorer.stats[:6]
    return dict(zip(METRICS, map(float, (ap, ap50, ap75, medium, large, ar)), strict=True))


def correct_keypoints(persons: Persons, predictions: Predictions, share: float = 0.2) -> dict[str, float]:
    """PCK: the share of labelled joints within `share` of the torso's length of their place.

    Torso: left shoulder to right hip; where one is hidden, right shoulder to left hip; where that fails too
    the person is not scored, and `not_scored` counts those. The total is over joints; per joint too.
    """
    names = persons.skeleton.keypoints
    index = names.index
    diagonals = (
        (index("left_shoulder"), index("right_hip")),
        (index("right_shoulder"), index("left_hip")),
    )
    truth = np.stack([person.keypoints for person in persons.persons])  # (N, K, 3)
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
        result[f"{metric} {name}"] = float(right[:, joint].sum() / max(1, counts[:, joint].sum()))
    return result


def score(persons: Persons, predictions: Predictions) -> dict[str, float]:
    """The dataset's own metrics: AP where its skeleton has OKS sigmas, PCK@0.2 where not."""
    metric = correct_keypoints if persons.skeleton.sigmas is None else average_precision
    return metric(persons, predictions)


def evaluate(model: nn.Module, persons: Persons, flip_test: bool = True, **how: object) -> dict[str, float]:
    """Predict and score; `how`: batch, device and workers of `predict`."""
    return score(persons, predict(model, persons, flip_test, **how))


def protocol(
    persons: Persons, input_size: tuple[int, int], flip_test: bool, decoding: str = Predictions.decoding
) -> dict:
    """What a record says of how a figure was measured."""
    oks = persons.skeleton.sigmas is not None
    return {
        "input_size": list(input_size),
        "boxes": "ground truth",
        "flip_test": flip_test,
        "decoding": decoding,
        "metric": "OKS AP by pycocotools" if oks else "PCK, torso diagonal",
        "sigmas": persons.skeleton.name if oks else None,
        "nms": None,
        "rescoring": f"mean of joint scores above {JOINT_THRESHOLD}" if oks else None,
        "evaluated_on": persons.split,
    }
