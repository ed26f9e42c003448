"""MPII Human Pose (Andriluka et al., CVPR 2014): 16 joints, in the layout of mmpose and HRNet.

    ROOT/annotations/mpii_{train,val}.json     ROOT/annotations/mpii_gt_val.mat (head sizes, for PCKh)
    ROOT/images/*.jpg

1. A person has a center and a scale: the height of the body divided by 200 pixels. The box is the square with
   this height as its side. Its center is moved down by 15 * scale pixels to keep the ankles inside, as in
   HRNet and mmpose.
2. The coordinates start at 1 (MATLAB). They are shifted so that the center of the first pixel is (0, 0).
3. A joint is labeled if joints_vis is 1. Annotated hidden joints count, as in the official PCKh.
4. The head size is 0.6 times the diagonal of the head box (SC_BIAS in the official script).
"""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from posebook import skeletons
from posebook.datasets import Person, PoseDataset, coco_json, missing_dataset, usable_images
from posebook.utils import check_name, sha256

PEOPLE = {"train": 22246, "val": 2958}  # in the official files
SC_BIAS = 0.6  # head size / diagonal of the head box
INSTRUCTIONS = "http://human-pose.mpi-inf.mpg.de (images), or posebook download mpii"


def load(root: Path, split: str = "val") -> PoseDataset:
    """Load a split. val has the head sizes, which PCKh needs, if mpii_gt_val.mat is present.

    Raises DatasetMissing, and ValueError for a file or an entry that is not MPII's.
    """
    check_name(split, PEOPLE, "split of mpii")
    path = root / "annotations" / f"mpii_{split}.json"
    if not path.is_file():
        layout = f"annotations/{path.name} and the folder images/"
        raise missing_dataset(root, f"mpii {split}", layout, INSTRUCTIONS)
    content = coco_json.read_json(path)
    if not isinstance(content, list) or not content:
        raise ValueError(f"{path} is not an MPII annotation file: it is not a list of people")
    entries = [_read_entry(f"{path}, person {index}", entry) for index, entry in enumerate(content)]
    image_ids = {name: i for i, name in enumerate(sorted({name for name, *_ in entries}))}
    usable, broken = usable_images(root / "images", list(image_ids))
    matlab_file = path.with_name("mpii_gt_val.mat")
    heads = np.full(len(entries), np.nan)
    if split == "val" and matlab_file.is_file():
        heads = head_sizes(matlab_file, len(entries))
    instances = []
    for index, (name, center, scale, keypoints) in enumerate(entries):
        if name not in usable:
            continue
        (x, y), side = center + [0, 15 * scale], 200 * scale
        bbox = (x - 1 - side / 2, y - 1 - side / 2, side, side)
        image, head = root / "images" / name, float(heads[index])
        instances.append(Person(image, image_ids[name], index, bbox, side**2, keypoints, head=head))
    dataset_name = "mpii" if len(entries) == PEOPLE[split] else "mpii-sample"
    skeleton = skeletons.get("mpii")
    return PoseDataset(dataset_name, split, skeleton, sha256(path), tuple(instances), path, broken)


def _read_entry(context: str, entry: Any) -> tuple[str, np.ndarray, float, np.ndarray]:
    """An entry's image name, center (2,), scale and keypoints (K, 3). Raises ValueError if it is invalid."""
    try:
        name, scale = entry["image"], float(entry["scale"])
        center, joints, visible = (
            np.array(entry[key], np.float64) for key in ("center", "joints", "joints_vis")
        )  # (2,), (K, 2), (K,)
    except (KeyError, TypeError, ValueError) as error:
        message = "image, center, scale, joints and joints_vis are needed"
        raise ValueError(f"{context}: {message} ({error!r})") from error
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise ValueError(f"{context}: image {name!r} is not a file name")
    if joints.shape != (16, 2) or visible.shape != (16,) or center.shape != (2,):
        raise ValueError(f"{context}: {joints.shape} joints and {visible.shape} visibilities, not 16 of each")
    if not np.isfinite([*joints.flat, *visible, *center, scale]).all() or not 0 < scale < 1e4:
        raise ValueError(f"{context}: a value is not finite, or the scale is not between 0 and 10,000")
    labeled = visible > 0
    keypoints = np.concatenate([joints - 1, 2.0 * labeled[:, None]], 1)  # (K, 3)
    keypoints[~labeled] = 0
    return name, center, scale, keypoints


def head_sizes(path: Path, num_people: int) -> np.ndarray:
    """Head sizes (N,) in pixels from the official mpii_gt_val.mat, in the order of mpii_val.json."""
    try:
        boxes = loadmat(path)["headboxes_src"]  # (2, 2, N): corner, axis, person
    except Exception as error:  # for a file of another format, scipy raises many different errors
        raise ValueError(f"{path} is not MPII's mpii_gt_val.mat: {error}") from error
    if boxes.shape != (2, 2, num_people):
        raise ValueError(
            f"{path} holds head boxes of shape {boxes.shape}, not (2, 2, {num_people}): another split"
        )
    return SC_BIAS * np.linalg.norm(boxes[1] - boxes[0], axis=0)  # (N,)
