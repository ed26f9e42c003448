"""Your own data: people, animals or hands in any COCO-format file that names its joints.

    ROOT/annotations/SPLIT.json, or person_keypoints_SPLIT.json     ROOT/SPLIT/, or ROOT/images/

1. Joints and limbs come from the file's category (`keypoints` and `skeleton`, whose indices start at 1 as in
   COCO). If the joints are those of a known skeleton in the same order, its limbs and names are used.
2. Left and right joints are found by name: left_knee, kneeLeft, L.knee or knee_l, and the same with right.
3. Sigmas are the category's `sigmas`. If it has none, all are 0.067, the mean of COCO's sigmas.
4. A person without an area gets the area of its box.
5. The width and height of each image in the file must be those of the image as it is stored. They differ if
   the images were scaled afterwards, or if the annotation tool turned a photograph by its EXIF data.
"""

from dataclasses import replace
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
    dataset = coco_json.make_dataset(content, name, split, folder, category_skeleton(content, name))
    for image_id, file in dataset.images.items():
        entry = content.images[image_id]
        check_size(file, (entry["width"], entry["height"]), content.path)
    return dataset


def check_size(file: Path, expected: tuple[int, int], annotations: Path) -> None:
    """Raise ValueError if an image does not have the annotated (width, height), without decoding it."""
    from PIL import Image  # here, because the check of a GPU needs no images

    try:
        with Image.open(file) as image:
            size = image.size
    except (OSError, Image.DecompressionBombError):  # unknown to Pillow, or very large
        return
    if size != tuple(expected):
        raise ValueError(
            f"{file} is {size[0]} x {size[1]} pixels, not {expected[0]} x {expected[1]} as in "
            f"{annotations.name}: was it scaled or turned (EXIF orientation)? Save the images as the "
            "annotation tool shows them"
        )


def category_skeleton(content: coco_json.Annotations, name: str) -> Skeleton:
    """The skeleton that a file's category describes. Raises ValueError if it is missing or invalid."""
    joints, limbs = (content.category.get(key) for key in ("keypoints", "skeleton"))
    if not isinstance(joints, list):
        raise ValueError(f"{content.path} names no joints: its category must have a list `keypoints`")
    sigmas = content.category.get("sigmas")
    known = next((known for known in SKELETONS.values() if list(known.keypoints) == joints), None)
    if known and known.sigmas and not sigmas:
        return known
    # From 1-based to 0-based. Anything that is not a pair of integers is passed on: make_skeleton rejects it.
    zero_based = [
        [end - 1 if isinstance(end, int) else end for end in limb] if isinstance(limb, list) else limb
        for limb in (limbs if isinstance(limbs, list) else [])
    ]
    try:
        made = skeletons.make_skeleton(name, joints, zero_based, sigmas)
        return replace(known, sigmas=made.sigmas) if known else made
    except ValueError as error:
        raise ValueError(f"{content.path}, category: {error}") from error
