"""CrowdPose (Li et al., CVPR 2019): 14 joints of people in crowds, in the layout of mmpose and HRNet.

    ROOT/annotations/mmpose_crowdpose_{train,val,trainval,test}.json, or crowdpose_{...}.json
    ROOT/images/*.jpg

1. Papers train on trainval (12,000 images) and evaluate on test (8,000 images).
2. The annotations give no area. The official evaluation uses 0.53 times the area of the box.
3. Each image entry has a crowd index. The evaluation groups the images by it.
"""

from pathlib import Path

from posebook import skeletons
from posebook.datasets import PoseDataset, coco_json, missing_dataset
from posebook.utils import check_name

IMAGES = {"train": 10000, "val": 2000, "trainval": 12000, "test": 8000}
AREA = 0.53  # person's area / area of the box, from the official evaluation
INSTRUCTIONS = "https://github.com/Jeff-sjtu/CrowdPose, or posebook download crowdpose"


def load(root: Path, split: str = "test") -> PoseDataset:
    """Load a CrowdPose split. Raises DatasetMissing, and ValueError for a broken file or entry."""
    check_name(split, IMAGES, "split of crowdpose")
    names = [f"{prefix}crowdpose_{split}.json" for prefix in ("mmpose_", "")]
    path = next((path for name in names if (path := root / "annotations" / name).is_file()), None)
    if path is None:
        layout = f"annotations/{' or '.join(names)} and the folder images/"
        raise missing_dataset(root, f"crowdpose {split}", layout, INSTRUCTIONS)
    content, skeleton = coco_json.read_annotations(path), skeletons.get("crowdpose")
    for number, image in content.images.items():
        if not isinstance(image.get("crowdIndex"), int | float):
            raise ValueError(f"{path}, image {number}: no crowdIndex, by which images are grouped")
    return coco_json.make_dataset(
        content, "crowdpose", split, root / "images", skeleton, num_images=IMAGES[split], area_ratio=AREA
    )
