"""Leeds Sports Pose Extended (Johnson and Everingham, CVPR 2011): 14 joints of one athlete a picture.

    ROOT/images/im00001.jpg ...     ROOT/joints.mat (14 x 3 x N: x, y, visible)

1. The source has no splits. Here: validation im03501 to im04000, whatever else is on disk; training
   im00001 to im03500.
2. Its coordinates count pixels from 1 (MATLAB); they are moved to pixel centers at integers from 0.
3. A joint marked not visible has meaningless coordinates: it is not labeled (v = 0) and counts nowhere.
4. The box is the tight one of the labeled joints; cropping enlarges it by 1.25 as every other box.
"""

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from posebook import skeletons
from posebook.datasets import Person, PoseDataset, missing_dataset, usable_images
from posebook.utils import sha256, unknown_name_error

SPLITS = {"train": range(1, 3501), "val": range(3501, 4001)}
SOURCE = "http://sam.johnson.io/research/lspet.html"


def load(root: Path, split: str = "val") -> PoseDataset:
    """People of a split; raises DatasetMissing, and ValueError for a file that is not LSPET's."""
    if split not in SPLITS:
        raise unknown_name_error(split, SPLITS, "split of lspet")
    path = root / "joints.mat"
    if not path.is_file() or not (root / "images").is_dir():
        raise missing_dataset(
            root, "lspet", "joints.mat and the folder images/ with im00001.jpg and so on", SOURCE
        )
    try:
        joints = loadmat(path)["joints"]  # (14, 3, N)
    except Exception as error:  # scipy raises many kinds for a file that is not MATLAB's
        raise ValueError(f"{path} is not LSPET's joints.mat: {error}") from error
    skeleton = skeletons.get("lspet")
    if joints.shape[:2] != (len(skeleton.keypoints), 3):
        raise ValueError(f"{path} holds joints of shape {joints.shape}, not (14, 3, N)")
    numbers = [n for n in SPLITS[split] if n <= joints.shape[2]]
    names = {n: f"im{n:05d}.jpg" for n in numbers}
    usable, broken = usable_images(root / "images", list(names.values()))
    persons = []
    for n in numbers:
        keypoints = joints[:, :, n - 1].astype(np.float64)  # (14, 3)
        keypoints[:, :2] -= 1  # MATLAB counts from 1
        keypoints[:, 2] = 2 * (keypoints[:, 2] > 0)
        seen = keypoints[keypoints[:, 2] > 0, :2]
        if names[n] not in usable or len(seen) < 2:
            continue
        low, high = seen.min(0), seen.max(0)
        w, h = np.maximum(high - low, 1.0)
        keypoints[keypoints[:, 2] == 0, :2] = 0
        persons.append(Person(root / "images" / names[n], n, n, (*low, w, h), w * h, keypoints))
    return PoseDataset("lspet", split, skeleton, sha256(path), tuple(persons), path, broken)
