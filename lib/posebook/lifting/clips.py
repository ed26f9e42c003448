"""Motion as lifters are trained and scored on it: clips, and windows that count every frame once.

A clip is one person before one camera: 2D joints in pixels, 3D joints in camera axes. What a net sees is
normalized by the picture's width; what it answers is in meters relative to the hip.

1. A clip is cut into windows that touch. The last one is moved back to end with the clip; the frames it
   shares with the one before it are marked and count neither in a loss nor in a metric.
2. In an epoch every window comes twice, plain and mirrored, as in the lifters' own code.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from posebook.lifting.camera import Camera
from posebook.lifting.skeleton import H36M, check_order, mirror


@dataclass(frozen=True)
class Clip:
    """One person's motion before one camera."""

    name: str
    action: str
    keypoints: np.ndarray  # (T, J, 3): x, y in pixels, score; NaN where nothing was detected
    pose: np.ndarray | None  # (T, J, 3): meters, camera axes, where the person stands; None: not known
    camera: Camera
    fps: float = 50.0
    joints: tuple[str, ...] = H36M.keypoints


def window_starts(length: int, frames: int, pad: bool = False) -> list[tuple[int, np.ndarray]]:
    """Where windows of `frames` begin in a clip, each with which of its frames count (F,) bool; choice 1.

    pad: a shorter clip is one window whose last frames, not its own, do not count. Raises ValueError for a
    clip that is shorter, without it.
    """
    if length < frames:
        if not pad:
            raise ValueError(
                f"the sequence has {length} frames and the window {frames}: take a net of a shorter window, "
                "or pad=True, which repeats the last frame and counts none of the repetitions"
            )
        return [(0, np.arange(frames) < length)]
    starts = list(range(0, length - frames + 1, frames))
    found = [(start, np.ones(frames, bool)) for start in starts]
    rest = length - starts[-1] - frames
    if rest:
        found.append((length - frames, np.arange(frames) >= frames - rest))
    return found


def fill_gaps(keypoints: np.ndarray, name: str = "the sequence") -> tuple[np.ndarray, int]:
    """Keypoints (T, J, 3) without NaN: lost ones lie between those before and after, with score 0.

    Returns them and how many were lost. Raises ValueError for a joint that is seen in no frame, and where
    more than half are lost.
    """
    lost = np.isnan(keypoints[..., :2]).any(-1)  # (T, J)
    if not lost.any():
        return keypoints, 0
    if lost.all(0).any():
        absent = ", ".join(H36M.keypoints[joint] for joint in np.flatnonzero(lost.all(0)))
        raise ValueError(f"{name}: {absent} was detected in no frame, and a lifter needs all joints")
    if lost.mean() > 0.5:
        raise ValueError(f"{name}: {lost.mean():.0%} of its joints were not detected, more than half")
    filled, times = keypoints.copy(), np.arange(len(keypoints))
    for joint in np.flatnonzero(lost.any(0)):
        seen = ~lost[:, joint]
        for axis in (0, 1):
            filled[~seen, joint, axis] = np.interp(times[~seen], times[seen], keypoints[seen, joint, axis])
        filled[~seen, joint, 2] = 0
    return filled, int(lost.sum())


def clip_inputs(clip: Clip, channels: int = 2) -> Tensor:
    """What a net is given of a clip (T, J, 2 or 3), float32: x, y normalized, and for 3 channels the score.

    Raises ValueError for joints in another order and for joints that were never detected.
    """
    check_order(clip.joints)
    keypoints, _ = fill_gaps(clip.keypoints, clip.name)
    normalized = np.concatenate([clip.camera.normalize(keypoints[..., :2]), keypoints[..., 2:]], -1)
    return torch.as_tensor(normalized[..., :channels], dtype=torch.float32)


def clip_targets(clip: Clip) -> Tensor:
    """What a net should answer (T, J, 3), float32: meters, camera axes, relative to the hip, which is 0."""
    return torch.as_tensor(clip.pose - clip.pose[:, :1], dtype=torch.float32)


class WindowDataset(Dataset):
    """Training windows by (epoch, number): input (F, J, C), target (F, J, 3), counted (F,); choice 2."""

    packed = None  # nothing is cut out of pictures

    def __init__(self, clips: list[Clip], recipe: object, seed: int, frames: int, channels: int = 2):
        self.recipe, self.seed, self.frames = recipe, seed, frames
        self.clips = [(clip_inputs(clip, channels), clip_targets(clip)) for clip in clips]
        self.places = [
            (number, start, torch.from_numpy(counted))
            for number, (x, _) in enumerate(self.clips)
            for start, counted in window_starts(len(x), frames)
        ]

    def __len__(self) -> int:
        return 2 * len(self.places)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        number, mirrored = divmod(key[1], 2)
        clip, start, counted = self.places[number]
        x, y = (tensor[start : start + self.frames] for tensor in self.clips[clip])
        return (mirror(x), mirror(y), counted) if mirrored else (x, y, counted)
