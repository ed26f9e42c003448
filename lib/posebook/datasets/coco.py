"""COCO keypoints (Lin et al., ECCV 2014) in their official layout, at any root.

    ROOT/annotations/person_keypoints_{train2017,val2017}.json
    ROOT/{train2017,val2017}/*.jpg

1. A person counts when it has at least one labeled joint and a box of some area; crowds do not. That is
   mmpose's and HRNet's choice of people for both training and ground-truth boxes.
2. A box is clipped to its image, as in both.
"""

import json
from pathlib import Path

from posebook import skeletons
from posebook.datasets import PoseDataset, coco_json, missing_dataset
from posebook.utils import sha256, unknown_name_error

LAYOUT = "annotations/{file} and the folder {split}/ with its images"
IMAGES = {"train2017": 118287, "val2017": 5000}  # of the official files
MINI = {"train2017": 5000, "val2017": 500}  # of the StarNet-Pose authors' COCO-mini
HOW = "https://cocodataset.org/#download (2017 images and annotations)"


def load(root: Path, split: str = "val2017") -> PoseDataset:
    """People of a COCO split; raises DatasetMissing, and ValueError naming a broken file or entry."""
    if split not in IMAGES:
        raise unknown_name_error(split, IMAGES, "split of coco")
    return read("coco", root, split, HOW, IMAGES[split])


def load_mini(root: Path, split: str = "val2017") -> PoseDataset:
    """COCO-mini of the StarNet-Pose authors (tools/create_mini_coco.py): the first images of COCO's files.

    root is COCO's; the cut annotations are written beside the full ones the first time.
    """
    if split not in MINI:
        raise unknown_name_error(split, MINI, "split of coco-mini")
    full, cut = (root / "annotations" / f"person_keypoints_{split}{end}.json" for end in ("", "_mini"))
    if full.is_file() and not cut.is_file():
        content = coco_json.read_json(full)
        content["images"] = content["images"][: MINI[split]]
        chosen = {image["id"] for image in content["images"]}
        content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in chosen]
        temporary = cut.with_suffix(".tmp")
        temporary.write_text(json.dumps(content))
        temporary.replace(cut)
    return read("coco-mini", root, split, HOW, MINI[split], cut)


def load_synthetic(root: Path, split: str = "val") -> PoseDataset:
    """People of the embedded dataset, which synthetic.generate writes in COCO's format."""
    return _drawn("synthetic", root, split, "coco", "person_keypoints_{split}.json")


def load_synthetic_14(root: Path, split: str = "val") -> PoseDataset:
    """The same people in the same pictures, with CrowdPose's 14 joints."""
    return _drawn("synthetic-14", root, split, "crowdpose", "person_keypoints_14_{split}.json")


def _drawn(name: str, root: Path, split: str, skeleton: str, file: str) -> PoseDataset:
    """One of the embedded dataset's keypoint sets."""
    if split not in ("train", "val"):
        raise unknown_name_error(split, ["train", "val"], f"split of {name}")
    how, path = f"posebook synthesize --root {root}", root / "annotations" / file
    return read(name, root, split, how, path=path.with_name(file.format(split=split)), skeleton=skeleton)


def read(
    name: str,
    root: Path,
    split: str,
    how: str,
    whole: int | None = None,
    path: Path | None = None,
    skeleton: str = "coco",
) -> PoseDataset:
    """Read ROOT's annotations of `split` into people, skipping broken images up to the set limit.

    whole: how many images the real split has; a file with fewer is a sample of it, and is named one.
    path: the annotation file where it has another name; skeleton: whose joints it has.
    """
    path = path or root / "annotations" / f"person_keypoints_{split}.json"
    if not path.is_file():
        file = path.name.replace("_mini", "")  # which is cut from the whole one
        raise missing_dataset(root, f"{name} {split}", LAYOUT.format(file=file, split=split), how)
    content = coco_json.read_annotations(path)
    if whole and len(content.images) != whole:
        name += "-sample"
    joints = skeletons.get(skeleton)
    persons, images, skipped = coco_json.load_people(content, root / split, joints)
    return PoseDataset(name, split, joints, sha256(path), persons, path, skipped, images)
