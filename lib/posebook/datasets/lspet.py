"""Leeds Sports Pose Extended (Johnson and Everingham, CVPR 2011): 14 joints of one athlete per image.

    ROOT/images/im00001.jpg ...     ROOT/joints.mat (14 x 3 x N: x, y, visible)

1. The authors define no splits. Here, im00001 to im03500 are for training and im03501 to im04000 for
   validation. Other images on disk are not used.
2. The coordinates start at 1 (MATLAB). They are shifted so that the center of the first pixel is (0, 0).
3. The coordinates of a joint marked as not visible are meaningless. The joint is not labeled (v = 0).
4. The box is the tight box of the labeled joints. Cropping enlarges it by 1.25, as every other box.
"""

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from posebook import skeletons
from posebook.datasets import Person, PoseDataset, missing_dataset, usable_images
from posebook.utils import check_name, sha256

SPLITS = {"train": range(1, 3501), "val": range(3501, 4001)}
LAYOUT = "joints.mat and the folder images/ with im00001.jpg and so on"
INSTRUCTIONS = "http://sam.johnson.io/research/lspet.html"


def load(root: Path, split: str = "val") -> PoseDataset:
    """Load a split. Raises DatasetMissing, and ValueError if joints.mat is not LSPET's file."""
    check_name(split, SPLITS, "split of lspet")
    path = root / "joints.mat"
    if not path.is_file() or not (root / "images").is_dir():
        raise missing_dataset(root, "lspet", LAYOUT, INSTRUCTIONS)
    try:
        joints = loadmat(path)["joints"]  # (14, 3, N)
    except Exception as error:  # for a file of another format, scipy raises many different errors
        raise ValueError(f"{path} is not LSPET's joints.mat: {error}") from error
    skeleton = skeletons.get("lspet")
    if joints.shape[:2] != (len(skeleton.keypoints), 3):
        raise ValueError(f"{path} holds joints of shape {joints.shape}, not (14, 3, N)")
    names = {n: f"im{n:05d}.jpg" for n in SPLITS[split] if n <= joints.shape[2]}
    usable, broken = usable_images(root / "images", list(names.values()))
    instances = []
    for n, name in names.items():
        keypoints = joints[:, :, n - 1].astype(np.float64)  # (14, 3)
        labeled = keypoints[:, 2] > 0  # (14,)
        if name not in usable or labeled.sum() < 2:  # one joint gives no box
            continue
        keypoints[:, :2] -= 1  # from MATLAB's pixel coordinates
        keypoints[:, 2] = 2 * labeled
        keypoints[~labeled, :2] = 0
        low, high = keypoints[labeled, :2].min(0), keypoints[labeled, :2].max(0)
        w, h = np.maximum(high - low, 1.0)
        instances.append(Person(root / "images" / name, n, n, (*low, w, h), w * h, keypoints))
    return PoseDataset("lspet", split, skeleton, sha256(path), tuple(instances), path, broken)
