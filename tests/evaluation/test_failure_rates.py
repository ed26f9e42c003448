"""How often poses fail, under conditions that are known by construction."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posebook import skeletons
from posebook.datasets import Person, PoseDataset
from posebook.evaluation import error_analysis
from posebook.evaluation.metrics import Predictions

COCO = skeletons.get("coco")


def person(number: int, box: tuple, image: int = 1, hidden: int = 0, labeled: int = 17) -> Person:
    """An upright person whose joints fill the box: the nose at the top, the ankles at the bottom."""
    x, y, w, h = box
    points = np.zeros((17, 3))
    points[:, 0] = x + w * np.linspace(0.3, 0.7, 17)
    points[:, 1] = y + h * np.linspace(0, 1, 17)
    points[:labeled, 2] = 2
    points[:hidden, 2] = 1
    return Person(Path("a.jpg"), image, number, box, w * h / 2, points)


def dataset(*people: Person) -> PoseDataset:
    return PoseDataset("made", "val", COCO, "", people, Path("a.json"))


def rates(made: PoseDataset, errors: dict[int, float]) -> dict:
    """Failure rates if all joints of the numbered people are off by so many pixels."""
    keypoints = np.stack([p.keypoints[:, :2] + errors.get(p.id, 0.0) for p in made.instances])
    return error_analysis.failure_rates(made, Predictions(keypoints, np.ones(keypoints.shape[:2])))


def test_each_condition_selects_its_people():
    lying = person(6, (0, 0, 200, 90), image=6)
    lying = replace(lying, keypoints=lying.keypoints[:, [1, 0, 2]])  # along x instead of y
    made = dataset(
        person(1, (0, 0, 100, 200)),
        person(2, (0, 0, 60, 90), image=2),
        person(3, (0, 0, 100, 200), image=3),
        person(4, (50, 0, 100, 200), image=3, hidden=5),
        person(5, (0, 0, 100, 200), image=5, labeled=8),
        lying,
    )
    found = rates(made, {2: 500, 4: 500, 6: 500})
    assert {name: (row["people"], row["failed"]) for name, row in found.items()} == {
        "all": (6, 0.5),
        "small (area below 64 x 64 pixels)": (1, 1.0),
        "overlaps another person (IoU above 0.1)": (2, 0.5),
        "over a quarter of the joints hidden": (1, 1.0),
        "at most eight joints labeled": (1, 0.0),
        "torso tilted by more than 45 degrees": (1, 1.0),
        "box wider than high": (1, 1.0),
    }


@pytest.mark.parametrize("error", [1, 5, 10, 15, 20, 30, 60])
def test_failure_is_oks_below_the_limit(error):
    made = dataset(person(1, (0, 0, 100, 200), labeled=12))
    similarity = np.mean(
        [np.exp(-2 * error**2 / (2 * 10_000 * (2 * sigma) ** 2)) for sigma in COCO.sigmas[:12]]
    )
    assert rates(made, {1: error})["all"]["failed"] == (similarity < 0.5)


def test_upside_down_counts_as_tilted_and_unlabeled_torso_does_not():
    upright = person(1, (0, 0, 100, 200))
    flipped = upright.keypoints * [1, -1, 1] + [0, 200, 0]
    without_hips = upright.keypoints * [1, -1, 1]
    without_hips[11, 2] = 0
    people = upright, replace(upright, keypoints=flipped), replace(upright, keypoints=without_hips)
    assert error_analysis._tilted(dataset(*people)).tolist() == [False, True, False]
