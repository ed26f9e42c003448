"""MPII Human Pose (Andriluka et al., CVPR 2014): 16 joints, laid out as mmpose and HRNet have it.

    ROOT/annotations/mpii_{train,val}.json     ROOT/annotations/mpii_gt_val.mat (head sizes, for PCKh)
    ROOT/images/*.jpg

1. A person has a center and a scale, the body's height over 200 pixels; the box is the square of that height,
   its center moved down by 15 scaled pixels so that ankles stay inside, as HRNet and mmpose do it.
2. Coordinates count from 1 (MATLAB); they are moved to pixel centers at integers from 0.
3. A joint is labeled where joints_vis is 1; hidden joints that are annotated count, as in the official PCKh.
4. Head size is 0.6 of the head box's diagonal (the official script's SC_BIAS).
"""

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from posebook import skeletons
from posebook.datasets import Person, PoseDataset, coco_json, missing_dataset, usable_images
from posebook.utils import sha256, unknown_name_error

PEOPLE = {"train": 22246, "val": 2958}
HEAD = 0.6
HOW = "http://human-pose.mpi-inf.mpg.de (images), or posebook download mpii"


def load(root: Path, split: str = "val") -> PoseDataset:
    """People of a split; val with head sizes where mpii_gt_val.mat is there, which PCKh needs.

    Raises DatasetMissing, and ValueError naming a file or an entry that is not MPII's.
    """
    if split not in PEOPLE:
        raise unknown_name_error(split, PEOPLE, "split of mpii")
    path = root / "annotations" / f"mpii_{split}.json"
    if not path.is_file():
        raise missing_dataset(root, f"mpii {split}", f"annotations/{path.name} and the folder images/", HOW)
    content, skeleton = coco_json.read_json(path), skeletons.get("mpii")
    if not isinstance(content, list) or not content:
        raise ValueError(f"{path} is not an MPII annotation file: it is not a list of people")
    people = [_person(f"{path}, person {place}", entry) for place, entry in enumerate(content)]
    names = {name: number for number, name in enumerate(sorted({name for name, *_ in people}))}
    usable, broken = usable_images(root / "images", list(names))
    matlab = root / "annotations" / "mpii_gt_val.mat"
    heads = head_sizes(matlab, len(people)) if split == "val" and matlab.is_file() else None
    persons = []
    for place, (name, center, scale, points) in enumerate(people):
        if name not in usable:
            continue
        (x, y), side = center + [0, 15 * scale], 200 * scale
        box = (x - 1 - side / 2, y - 1 - side / 2, side, side)
        head = float(heads[place]) if heads is not None else float("nan")
        persons.append(Person(root / "images" / name, names[name], place, box, side**2, points, head=head))
    whole = "mpii" if len(people) == PEOPLE[split] else "mpii-sample"
    return PoseDataset(whole, split, skeleton, sha256(path), tuple(persons), path, broken)


def _person(what: str, entry: object) -> tuple[str, np.ndarray, float, np.ndarray]:
    """An entry's image, center (2,), scale and joints (K, 3); ValueError for anything else."""
    try:
        name, scale = entry["image"], float(entry["scale"])
        center, joints = (np.array(entry[key], np.float64) for key in ("center", "joints"))
        visible = np.array(entry["joints_vis"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{what}: not image, center, scale, joints and joints_vis ({error!r})") from error
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise ValueError(f"{what}: image {name!r} is not a file name")
    if joints.shape != (16, 2) or visible.shape != (16,) or center.shape != (2,):
        raise ValueError(f"{what}: {joints.shape} joints and {visible.shape} visibilities, not 16 of each")
    if not np.isfinite([*joints.flat, *visible, *center, scale]).all() or not 0 < scale < 1e4:
        raise ValueError(f"{what}: a number that is none, or a scale that is not positive")
    labeled = visible > 0
    points = np.concatenate([joints - 1, 2.0 * labeled[:, None]], 1)  # (K, 3)
    points[~labeled] = 0
    return name, center, scale, points


def head_sizes(path: Path, people: int) -> np.ndarray:
    """Head sizes (N,) in pixels, in the order of mpii_val.json, from the official mpii_gt_val.mat."""
    try:
        boxes = loadmat(path)["headboxes_src"]  # (2, 2, N): corner, axis, person
    except Exception as error:  # scipy raises many kinds for a file that is not MATLAB's
        raise ValueError(f"{path} is not MPII's mpii_gt_val.mat: {error}") from error
    if boxes.shape != (2, 2, people):
        raise ValueError(
            f"{path} holds head boxes of shape {boxes.shape}, not (2, 2, {people}): another split"
        )
    return HEAD * np.linalg.norm(boxes[1] - boxes[0], axis=0)  # (N,)
