"""Clips, and the windows of them that lifters are trained and evaluated on.

A clip is one person in front of one camera: 2D joints in pixels and 3D joints in camera axes. A lifter's
input is normalized by the image width; its output is in meters relative to the hip.

1. A clip is cut into adjacent windows. The last window is moved back so that it ends with the clip. The
   frames that it shares with the window before it are masked, in the loss as in the metrics.
2. An epoch contains each window twice, as it is and mirrored, as in the lifters' own code.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from posebook.lifting.camera import Camera
from posebook.lifting.recipes import Recipe
from posebook.lifting.skeleton import H36M, check_order, mirror


@dataclass(frozen=True)
class Clip:
    """The motion of one person in front of one camera."""

    name: str
    action: str
    keypoints: np.ndarray  # (T, J, 3): x, y in pixels, score; NaN if a joint was not detected
    pose: np.ndarray | None  # (T, J, 3): meters, camera axes, not relative to the hip; None if unknown
    camera: Camera
    fps: float = 50.0
    joints: tuple[str, ...] = H36M.keypoints


def window_starts(length: int, frames: int) -> list[tuple[int, np.ndarray]]:
    """The first frame of each window of `frames` in a clip, and which of its frames count (F,) bool; choice
    1.

    Raises ValueError if the clip is shorter than a window.
    """
    if length < frames:
        raise ValueError(
            f"the sequence has {length} frames, fewer than the lifter's window of {frames}: use a longer "
            "sequence, or a lifter with a shorter window"
        )
    starts = list(range(0, length - frames + 1, frames))
    windows = [(start, np.ones(frames, bool)) for start in starts]
    if rest := length - starts[-1] - frames:
        windows.append((length - frames, np.arange(frames) >= frames - rest))
    return windows


def fill_gaps(keypoints: np.ndarray, name: str = "the sequence") -> np.ndarray:
    """Interpolate the missing joints (NaN) of keypoints (T, J, 3) over time, with score 0.

    Raises ValueError if a joint is missing in all frames, or if more than half of all joints are missing.
    """
    missing = np.isnan(keypoints[..., :2]).any(-1)  # (T, J)
    if not missing.any():
        return keypoints
    if missing.all(0).any():
        absent = ", ".join(H36M.keypoints[joint] for joint in np.flatnonzero(missing.all(0)))
        raise ValueError(f"{name}: {absent} was detected in no frame, but a lifter needs all joints")
    if missing.mean() > 0.5:
        raise ValueError(f"{name}: {missing.mean():.0%} of its joints were not detected, more than half")
    filled, times = keypoints.copy(), np.arange(len(keypoints))
    for joint in np.flatnonzero(missing.any(0)):
        gap = missing[:, joint]
        for axis in (0, 1):
            filled[gap, joint, axis] = np.interp(times[gap], times[~gap], keypoints[~gap, joint, axis])
        filled[gap, joint, 2] = 0
    return filled


def clip_inputs(clip: Clip, channels: int = 2) -> Tensor:
    """A lifter's input for a clip, (T, J, channels) float32: normalized x and y; 3 channels add the score.

    Raises ValueError if the joints have another order or if one was never detected.
    """
    check_order(clip.joints)
    keypoints = fill_gaps(clip.keypoints, clip.name)
    normalized = np.concatenate([clip.camera.normalize(keypoints[..., :2]), keypoints[..., 2:]], -1)
    return torch.as_tensor(normalized[..., :channels], dtype=torch.float32)


def clip_targets(clip: Clip) -> Tensor:
    """A lifter's target for a clip, (T, J, 3) float32: meters, camera axes, relative to the hip."""
    assert clip.pose is not None, f"{clip.name} has no 3D pose"
    return torch.as_tensor(clip.pose - clip.pose[:, :1], dtype=torch.float32)


class WindowDataset(Dataset):
    """Training windows by (epoch, index): input (F, J, C), target (F, J, 3), mask (F,); choice 2."""

    def __init__(self, clips: list[Clip], recipe: Recipe, seed: int, channels: int = 2):
        self.recipe, self.seed = recipe, seed  # the training loop reads these too
        self.clips = [(clip_inputs(clip, channels), clip_targets(clip)) for clip in clips]
        self.windows = [
            (index, start, torch.from_numpy(mask))
            for index, (x, _) in enumerate(self.clips)
            for start, mask in window_starts(len(x), recipe.frames)
        ]

    def __len__(self) -> int:
        return 2 * len(self.windows)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, ...]:
        window, mirrored = divmod(key[1], 2)
        clip, start, mask = self.windows[window]
        x, y = (tensor[start : start + self.recipe.frames] for tensor in self.clips[clip])
        return (mirror(x), mirror(y), mask) if mirrored else (x, y, mask)
