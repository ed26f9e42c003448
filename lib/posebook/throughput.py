"""How many training samples a second are prepared: plainly from pictures, and from packed canvases.

Plain is what a loader does that takes one sample after the other, with the formulas of mmpose 1.x, in which
StarNet-Pose was trained: decode the whole picture, warp, HSV in 16 bits (YOLOXHSVRandomAug), blurs and hole
(Albumentation), a Gaussian a joint and axis (SimCCLabel). Order and distributions are the same for both.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import cv2
import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from posebook import codecs, recipes, samples, transforms
from posebook.datasets import Persons
from posebook.datasets.packed import Packed
from posebook.recipes import Recipe

Sample = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Plain(Dataset):
    """`samples.Samples` the plain way; a sample is whole, with its targets."""

    def __init__(self, persons: Persons, recipe: Recipe, seed: int):
        self.persons, self.recipe, self.seed = persons, recipe, seed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Input (H, W, 3) uint8, targets x (K, 2 W) and y (K, 2 H), weights (K,)."""
        epoch, index = key
        person, skeleton, augmentation = (
            self.persons.persons[index],
            self.persons.skeleton,
            self.recipe.stage1,
        )
        height, width = input_size = self.recipe.input_size
        rng = np.random.default_rng((self.seed, epoch, index))
        image = cv2.imread(str(person.image))  # (H', W', 3) BGR
        matrix, flipped = transforms.random_affine(
            person.bbox, person.keypoints, skeleton, input_size, augmentation, rng
        )
        image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)  # (H, W, 3)
        jitter = transforms.draw_jitter(1, input_size, augmentation, rng)
        hue, saturation, value = jitter.gains[0]
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(np.int16)
        hsv[..., 0] = (hsv[..., 0] + hue) % 180
        hsv[..., 1] = np.clip(hsv[..., 1] + saturation, 0, 255)
        hsv[..., 2] = np.clip(hsv[..., 2] + value, 0, 255)
        image = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
        if jitter.blur[0]:
            image = cv2.blur(image, (int(jitter.blur[0]),) * 2)
        if jitter.median[0]:
            image = cv2.medianBlur(image, int(jitter.median[0]))
        y, x, h, w = jitter.hole[0]
        image[y : y + h, x : x + w] = 0
        keypoints = person.keypoints.copy()  # (K, 3)
        keypoints[:, :2] = transforms.apply_affine(matrix, keypoints[:, :2])
        if flipped:
            keypoints = transforms.flip_joints(keypoints, skeleton)
        points = keypoints[:, :2].astype(np.float32)
        inside = ((points >= -0.5) & (points < (width - 0.5, height - 0.5))).all(1)
        sigma = recipes.sigma_for(self.recipe)
        bins = [np.arange(2 * size, dtype=np.float32) for size in (width, height)]
        targets = [np.zeros((len(points), len(line)), np.float32) for line in bins]  # (K, 2 W), (K, 2 H)
        for k, point in enumerate(points):
            for axis in (0, 1):
                distance = bins[axis] - np.round(2 * point[axis])
                targets[axis][k] = np.exp(-(distance**2) / (2 * sigma[axis] ** 2))
        return image, *targets, (inside & (keypoints[:, 2] > 0)).astype(np.float32)


def with_targets(batches: Iterator, recipe: Recipe) -> Iterator[tuple[Tensor, ...]]:
    """Batches of `samples.Samples` as Plain's: the targets of all in one go, where they have arrived.

    Processes that made them would have to send them, a third as many bytes as the inputs.
    """
    for images, points, weights in batches:
        targets = codecs.encode_simcc(points, recipe.input_size, 2.0, recipes.sigma_for(recipe))
        yield images, *targets, weights


def pipelines(
    persons: Persons, packed: Packed, recipe: Recipe, workers: int
) -> dict[str, Callable[[], Iterator]]:
    """How to start either: endless batches in the same order, (images, targets x, targets y, weights)."""
    endless = replace(recipe, epochs=10**9)  # the first stage all along

    def start(dataset: Dataset) -> Iterator:
        order = samples.batches(len(persons.persons), endless, 0, 0)
        return iter(DataLoader(dataset, batch_sampler=order, num_workers=workers))

    plain = Plain(persons, recipe, 0)
    quick = samples.Samples(persons, endless, 0, packed)
    return {"plain": lambda: start(plain), "packed": lambda: with_targets(start(quick), recipe)}


def measure(
    persons: Persons,
    packed: Packed,
    recipe: Recipe,
    workers: int = 2,
    rounds: int = 5,
    seconds: float = 4.0,
) -> dict[str, list[float]]:
    """People a second of both in turns, a number a round: {"plain": [...], "packed": [...], "ratio": [...]}.

    In a turn processes start, run for `seconds` to get going, and then for `seconds` that count.
    """
    cv2.setNumThreads(0)  # the processes share the cores
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, start in pipelines(persons, packed, recipe, workers).items():
            batches = start()
            _people(batches, seconds)
            found.setdefault(name, []).append(_people(batches, seconds))
            del batches  # ends its processes: none works beside the other's
    return found | {"ratio": [b / a for a, b in zip(found["plain"], found["packed"], strict=True)]}


def _people(batches: Iterator, seconds: float) -> float:
    """People a second of batches taken for so long."""
    start, people = time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < seconds:
        people += len(next(batches)[0])
    return people / taken
