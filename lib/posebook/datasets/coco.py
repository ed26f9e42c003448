"""COCO keypoints (Lin et al., ECCV 2014) in the official layout.

    ROOT/annotations/person_keypoints_{train2017,val2017}.json
    ROOT/{train2017,val2017}/*.jpg

1. A person is used if it has at least one labeled joint and a box with an area, and is not a crowd. mmpose
   and HRNet select the same people for training and for evaluation with ground-truth boxes.
2. Boxes are clipped to the image, as in mmpose and HRNet.
"""

import json
from pathlib import Path

from posebook import skeletons
from posebook.datasets import PoseDataset, coco_json, missing_dataset
from posebook.utils import atomic_write, check_name

IMAGES = {"train2017": 118287, "val2017": 5000}  # in the official files
MINI = {"train2017": 5000, "val2017": 500}  # in COCO-mini of the StarNet-Pose authors
RENDERED = {  # synthetic data by name: joints, annotation file, splits
    "synthetic": ("coco", "person_keypoints_{}.json", ("train", "val", "val_occluded")),
    "synthetic-14": ("crowdpose", "person_keypoints_14_{}.json", ("train", "val")),
}
INSTRUCTIONS = "https://cocodataset.org/#download (2017 images and annotations)"


def load(root: Path, split: str = "val2017") -> PoseDataset:
    """Load a COCO split. Raises DatasetMissing, and ValueError for a broken file or entry."""
    check_name(split, IMAGES, "split of coco")
    return read("coco", root, split, INSTRUCTIONS, num_images=IMAGES[split])


def load_mini(root: Path, split: str = "val2017") -> PoseDataset:
    """Load COCO-mini of the StarNet-Pose authors (tools/create_mini_coco.py): COCO's first images.

    root is COCO's folder. The first call writes the reduced annotation file next to the full one.
    """
    check_name(split, MINI, "split of coco-mini")
    full, reduced = (root / "annotations" / f"person_keypoints_{split}{end}.json" for end in ("", "_mini"))
    if full.is_file() and not (reduced.is_file() and reduced.stat().st_mtime >= full.stat().st_mtime):
        coco_json.read_annotations(full)  # raises for an unusable file
        content = coco_json.read_json(full)
        content["images"] = content["images"][: MINI[split]]
        chosen = {image["id"] for image in content["images"]}
        content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in chosen]
        with atomic_write(reduced) as temporary:
            temporary.write_text(json.dumps(content))
    return read("coco-mini", root, split, INSTRUCTIONS, num_images=MINI[split], path=reduced)


def load_rendered(name: str, root: Path, split: str = "val") -> PoseDataset:
    """Load the bundled synthetic data, which synthetic.generate writes in COCO's format.

    name: a key of RENDERED. Both have the same images and people.
    """
    skeleton, file, splits = RENDERED[name]
    check_name(split, splits, f"split of {name}")
    occluded = " --occluded" if split == "val_occluded" else ""
    instructions = f"posebook synthesize --root {root}{occluded}"
    path = root / "annotations" / file.format(split)
    return read(name, root, split, instructions, path=path, skeleton=skeleton)


def read(
    name: str,
    root: Path,
    split: str,
    instructions: str,
    num_images: int | None = None,
    path: Path | None = None,
    skeleton: str = "coco",
) -> PoseDataset:
    """Read the annotations of `split` below `root`.

    instructions: how to get the files. num_images: size of the official split; a smaller file is named
    NAME-sample. path: the annotation file if it does not have COCO's name. skeleton: its joints.
    """
    path = path or root / "annotations" / f"person_keypoints_{split}.json"
    if not path.is_file():
        file = path.name.replace("_mini", "")  # COCO-mini is created from the full file
        layout = f"annotations/{file} and the folder {split}/ with its images"
        raise missing_dataset(root, f"{name} {split}", layout, instructions)
    content = coco_json.read_annotations(path)
    joints = skeletons.get(skeleton)
    return coco_json.make_dataset(content, name, split, root / split, joints, num_images=num_images)
