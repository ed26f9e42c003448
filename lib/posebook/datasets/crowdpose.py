"""CrowdPose (Li et al., CVPR 2019): 14 joints of people in crowds, laid out as mmpose and HRNet have it.

    ROOT/annotations/mmpose_crowdpose_{train,val,trainval,test}.json, or crowdpose_{...}.json
    ROOT/images/*.jpg

1. Papers train on trainval (12,000 images) and evaluate on test (8,000).
2. The annotations give no area; the official evaluation takes 0.53 of the box's.
3. An image's crowd index stands in its entry; evaluation sorts by it.
"""

from pathlib import Path

from posebook import skeletons
from posebook.datasets import PoseDataset, coco_json, missing_dataset
from posebook.utils import sha256, unknown_name_error

IMAGES = {"train": 10000, "val": 2000, "trainval": 12000, "test": 8000}
AREA = 0.53  # of the box: the official evaluation's
HOW = "https://github.com/Jeff-sjtu/CrowdPose, or posebook download crowdpose"


def load(root: Path, split: str = "test") -> PoseDataset:
    """People of a split; raises DatasetMissing, and ValueError naming a broken file or entry."""
    if split not in IMAGES:
        raise unknown_name_error(split, IMAGES, "split of crowdpose")
    names = [f"{prefix}crowdpose_{split}.json" for prefix in ("mmpose_", "")]
    paths = [root / "annotations" / name for name in names]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise missing_dataset(
            root, f"crowdpose {split}", f"annotations/{' or '.join(names)} and the folder images/", HOW
        )
    content = coco_json.read_annotations(path)
    name = "crowdpose" if len(content.images) == IMAGES[split] else "crowdpose-sample"
    skeleton = skeletons.get("crowdpose")
    persons, images, skipped = coco_json.load_people(content, root / "images", skeleton, AREA)
    return PoseDataset(name, split, skeleton, sha256(path), persons, path, skipped, images)
