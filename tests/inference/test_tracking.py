"""Tracking by OKS: identity under shuffling and gaps, new people, and the best matching by brute force."""

import itertools

import numpy as np
import pytest

from posebook import skeletons
from posebook.evaluation import metrics
from posebook.inference import tracking

SIGMAS = tracking.track_sigmas(skeletons.get("coco"))
AREA = 100.0 * 200.0


def follow(frames: list[np.ndarray], area: float = AREA) -> list[list[int]]:
    """The numbers of the tracks of each frame's poses (N, 17, 2)."""
    tracks, numbers, result = [], itertools.count(1), []
    for poses in frames:
        found, tracks = tracking.update_tracks(tracks, poses, np.full(len(poses), area), SIGMAS, numbers)
        result.append(found)
    return result


@pytest.fixture
def pose():
    return np.random.default_rng(0).uniform(0, 1, (17, 2)) * [100, 200]


def test_people_keep_their_number_in_any_order_of_boxes(pose):
    rng = np.random.default_rng(1)
    starts, velocities = np.array([[0, 0], [150, 0], [300, 0.0]]), np.array([[5, 0], [0, 4], [-4, 2.0]])
    frames, orders = [], []
    for frame in range(20):
        order = rng.permutation(3)
        noise = rng.normal(0, 2, (3, 17, 2))
        frames.append((pose + starts[:, None] + frame * velocities[:, None] + noise)[order])
        orders.append(order)
    found = follow(frames)
    numbers = dict(zip(orders[0].tolist(), found[0], strict=True))
    assert sorted(numbers.values()) == [1, 2, 3]
    assert all([numbers[i] for i in order] == row for order, row in zip(orders, found, strict=True))


def test_a_track_survives_a_gap_of_some_frames(pose):
    here, empty = pose[None], np.zeros((0, 17, 2))
    assert follow([here, *[empty] * tracking.MAX_MISSED, here])[-1] == [1]
    assert follow([here, *[empty] * (tracking.MAX_MISSED + 1), here])[-1] == [2]
    assert follow([empty, here, empty]) == [[], [1], []]


def test_a_person_elsewhere_gets_a_new_number_and_ended_numbers_are_not_used_again(pose):
    assert follow([pose[None], pose[None] + 300, pose[None], np.stack([pose + 600, pose])]) == [
        [1], [2], [1], [3, 1]
    ]  # fmt: skip


def test_the_matching_has_the_largest_sum_of_oks(pose):
    rng = np.random.default_rng(2)
    for _ in range(20):
        before, after = pose + rng.uniform(0, 25, (2, 4, 1, 2))
        tracks = [tracking.Track(i, keypoints, AREA) for i, keypoints in enumerate(before)]
        found, _ = tracking.update_tracks(tracks, after, np.full(4, AREA), SIGMAS, itertools.count(4))
        table = np.array([metrics.oks(one, after, np.full(4, AREA), SIGMAS) for one in before])
        table[table < tracking.MIN_OKS] = 0
        best = max(sum(table[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(4)))
        assert sum(table[number, j] for j, number in enumerate(found) if number < 4) == pytest.approx(best)


def test_larger_people_may_move_farther(pose):
    moved = np.stack([pose + 30])
    assert follow([pose[None], moved], area=AREA / 20)[-1] == [2]
    assert follow([pose[None], moved], area=AREA * 20)[-1] == [1]


def test_a_skeleton_without_sigmas():
    assert tracking.track_sigmas(skeletons.get("lspet")).tolist() == [tracking.SIGMA] * 14
    assert tracking.track_sigmas(skeletons.get("coco")).mean() == pytest.approx(tracking.SIGMA, abs=1e-3)
