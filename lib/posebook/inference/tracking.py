"""Track people over the frames of a video by OKS.

Poses of a frame are matched with the last poses of the tracks, as in Simple Baselines (Xiao, Wu and Wei, ECCV
2018) and PoseFlow (Xiu et al., BMVC 2018), but without optical flow. Choices:

1. The matching has the largest sum of OKS (Hungarian method) among pairs with an OKS of at least MIN_OKS.
   Simple Baselines matches greedily.
2. OKS is over all joints, with the mean area of both boxes. Joints without sigmas have SIGMA.
3. A track without a match keeps its last pose for MAX_MISSED frames. Then it ends, and a person at this
   location gets a new number.
4. Nothing describes the look of a person: after a crossing or a cut, numbers can be exchanged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from posebook.evaluation import metrics
from posebook.skeletons import Skeleton

MIN_OKS = 0.3
MAX_MISSED = 15  # frames: half a second at 30 frames per second
SIGMA = 0.067  # mean of COCO's sigmas, as for custom joints in `skeletons`


@dataclass(frozen=True)
class Track:
    """A person in the last frame in which they were found."""

    number: int
    keypoints: np.ndarray  # (K, 2) pixels
    area: float  # of the box, square pixels
    missed: int = 0  # frames since then


def track_sigmas(skeleton: Skeleton) -> np.ndarray:
    """The sigmas (K,) that the tracks of a skeleton use."""
    return np.array(skeleton.sigmas or [SIGMA] * len(skeleton.keypoints))


def update_tracks(
    tracks: Sequence[Track],
    keypoints: np.ndarray,
    areas: np.ndarray,
    sigmas: np.ndarray,
    numbers: Iterator[int],
) -> tuple[list[int], list[Track]]:
    """Match the poses (N, K, 2) of a frame with the tracks. areas: (N,) of their boxes.

    numbers: of new tracks. Returns the number of each pose's track, and the tracks that continue.
    """
    similarity = np.zeros((len(tracks), len(keypoints)))
    for row, track in enumerate(tracks):
        similarity[row] = metrics.oks(track.keypoints, keypoints, (areas + track.area) / 2, sigmas)
    similarity[similarity < MIN_OKS] = 0  # before matching: such a pair must not displace another one
    pairs = zip(*linear_sum_assignment(similarity, maximize=True), strict=True)
    matched = {pose: tracks[row].number for row, pose in pairs if similarity[row, pose] > 0}
    found = [matched[pose] if pose in matched else next(numbers) for pose in range(len(keypoints))]
    current = [Track(number, keypoints[i], float(areas[i])) for i, number in enumerate(found)]
    waiting = [replace(track, missed=track.missed + 1) for track in tracks if track.number not in found]
    return found, current + [track for track in waiting if track.missed <= MAX_MISSED]
