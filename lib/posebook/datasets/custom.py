"""Your own data: people, animals or hands in any COCO-format file that names its joints.

    ROOT/annotations/SPLIT.json, or person_keypoints_SPLIT.json     ROOT/SPLIT/, or ROOT/images/

1. Joints and limbs come from the file's category (`keypoints` and `skeleton`, whose indices start at 1 as in
   COCO). If the joints are those of a known skeleton in the same order, that skeleton is used.
2. Left and right joints are found by name: left_knee, kneeLeft, L.knee or knee_l, and the same with right.
3. Sigmas are the category's `sigmas`. If it has none, all are 0.067, the mean of COCO's sigmas.
4. A person without an area gets the area of its box.
"""

from pathlib import Path

from posebook import skeletons
from posebook.datasets import PoseDataset, coco_json, missing_dataset
from posebook.skeletons import SKELETONS, Skeleton

LAYOUT = "annotations/{split}.json (COCO keypoint format) and the images in {split}/ or images/"
INSTRUCTIONS = "export your annotations as COCO keypoints; notebooks/learn/your_own_data.ipynb shows one"


def load(root: Path, split: str = "val") -> PoseDataset:
    """Load SPLIT of your own data as a dataset named own-FOLDER. Raises DatasetMissing and ValueError."""
    names = (f"{split}.json", f"person_keypoints_{split}.json")
    path = next((path for name in names if (path := root / "annotations" / name).is_file()), None)
    if path is None:
        raise missing_dataset(root, f"split {split}", LAYOUT.format(split=split), INSTRUCTIONS)
    content, name = coco_json.read_annotations(path), f"own-{root.resolve().name}"
    folder = root / split if (root / split).is_dir() else root / "images"
    return coco_json.make_dataset(content, name, split, folder, category_skeleton(content, name))


def category_skeleton(content: coco_json.Annotations, name: str) -> Skeleton:
    """The skeleton that a file's category describes. Raises ValueError if it is missing or invalid."""
    joints, limbs = (content.category.get(key) for key in ("keypoints", "skeleton"))
    if not isinstance(joints, list):
        raise ValueError(f"{content.path} names no joints: its category must have a list `keypoints`")
    for known in SKELETONS.values():
        if list(known.keypoints) == joints:
            return known
    # From 1-based to 0-based. Anything that is not a pair of integers is passed on: make_skeleton rejects it.
    zero_based = [
        [end - 1 if isinstance(end, int) else end for end in limb] if isinstance(limb, list) else limb
        for limb in (limbs if isinstance(limbs, list) else [])
    ]
    try:
        return skeletons.make_skeleton(name, joints, zero_based, content.category.get("sigmas"))
    except ValueError as error:
        raise ValueError(f"{content.path}, category: {error}") from error
