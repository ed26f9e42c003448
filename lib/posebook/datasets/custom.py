"""One's own people, or animals, or hands: any COCO-format file that names its joints.

    ROOT/annotations/SPLIT.json, or person_keypoints_SPLIT.json     ROOT/SPLIT/, or ROOT/images/

1. Joints and limbs are those of the file's category (`keypoints`, `skeleton`, whose pairs count from 1, as
   COCO's); where the joints are a known set's, in its order, they are that set.
2. Left and right joints are found by name: left_knee, kneeLeft, L.knee or knee_l and their right ones.
3. Sigmas are the category's `sigmas` where it has them, or all 0.067, the mean of COCO's.
4. A person without an area has the box's.
"""

from pathlib import Path

from posebook import skeletons
from posebook.datasets import PoseDataset, coco_json, missing_dataset
from posebook.skeletons import SKELETONS, Skeleton
from posebook.utils import sha256

LAYOUT = "annotations/{split}.json (COCO keypoint format) and the images in {split}/ or images/"
HOW = "export your annotations as COCO keypoints; notebooks/learn/your_own_data.ipynb shows one"


def load(root: Path, split: str = "val") -> PoseDataset:
    """People of ROOT's SPLIT; the dataset is called own-FOLDER. Raises DatasetMissing, and ValueError."""
    names = (f"{split}.json", f"person_keypoints_{split}.json")
    path = next((p for name in names if (p := root / "annotations" / name).is_file()), None)
    if path is None:
        raise missing_dataset(root, f"split {split}", LAYOUT.format(split=split), HOW)
    content = coco_json.read_annotations(path)
    skeleton = category_skeleton(content, f"own-{root.resolve().name}")
    folder = root / split if (root / split).is_dir() else root / "images"
    persons, images, skipped = coco_json.load_people(content, folder, skeleton)
    return PoseDataset(
        f"own-{root.resolve().name}", split, skeleton, sha256(path), persons, path, skipped, images
    )


def category_skeleton(content: coco_json.Annotations, name: str) -> Skeleton:
    """The skeleton a file's category describes; raises ValueError for one that it does not describe."""
    joints, limbs = (content.category.get(key) for key in ("keypoints", "skeleton"))
    if not isinstance(joints, list):
        raise ValueError(f"{content.path} names no joints: its category must have a list `keypoints`")
    for known in SKELETONS.values():
        if list(known.keypoints) == joints:
            return known
    pairs = limbs if isinstance(limbs, list) else []
    counted = [
        [e - 1 if isinstance(e, int) else e for e in limb] if isinstance(limb, list) else limb
        for limb in pairs
    ]
    try:
        return skeletons.make_skeleton(name, joints, counted, content.category.get("sigmas"))
    except ValueError as error:
        raise ValueError(f"{content.path}, category: {error}") from error
