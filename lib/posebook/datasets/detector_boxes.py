"""A detector's boxes instead of the annotated ones, from a COCO results file.

    ROOT/COCO_BOXES, the file of the HRNet authors, and similar files

1. Only entries of category 1 (person) are used.
2. The annotations remain the ground truth. People in an image without a box count as missed.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from posebook.datasets import Person, PoseDataset, coco_json
from posebook.utils import sha256

COCO_BOXES = "person_detection_results/COCO_val2017_detections_AP_H_56_person.json"  # below COCO's folder


def load_boxes(dataset: PoseDataset, path: str | Path, threshold: float = 0.0) -> PoseDataset:
    """Replace the people of a split by the boxes of a results file with a score above `threshold`.

    Raises FileNotFoundError, and ValueError for an invalid entry, a file that belongs to other images, or no
    usable box.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no detections at {path}")
    content = coco_json.read_json(path)
    if not isinstance(content, list):
        raise ValueError(f"{path} is not a file of detections: it is not a list of boxes")
    images, annotations = dataset.images, dataset.annotations.name
    num_joints = len(dataset.skeleton.keypoints)
    instances, unknown_ids, empty = [], [], 0
    for index, entry in enumerate(content):
        context = f"{path}, detection {index}"
        if coco_json.get_field(context, entry, "category_id", int) != 1:
            continue
        image_id = coco_json.get_field(context, entry, "image_id", int)
        x, y, w, h = coco_json.get_numbers(context, "bbox", entry.get("bbox"), 4)
        score = coco_json.get_number(context, entry, "score")
        if score <= threshold:
            continue
        if image_id not in images:
            unknown_ids.append(image_id)
        elif w <= 0 or h <= 0:
            empty += 1
        else:
            keypoints = np.zeros((num_joints, 3))  # (K, 3), none labeled
            instances.append(Person(images[image_id], image_id, index, (x, y, w, h), w * h, keypoints, score))
    if not instances and not unknown_ids:
        raise ValueError(f"{path} has no box of a person with an area and a score above {threshold}")
    if len(unknown_ids) > len(instances):
        theirs, ours = (", ".join(map(str, ids[:3])) for ids in (unknown_ids, sorted(images)))
        raise ValueError(
            f"{path} belongs to other images: {len(unknown_ids)} of its boxes have image ids ({theirs}, ...) "
            f"that are not in {annotations}, whose ids are {ours}, ..."
        )
    if unknown_ids:
        print(f"skipping {len(unknown_ids)} boxes on images that are not in {annotations}")
    if empty:
        print(f"skipping {empty} boxes without area in {path.name}")
    missed = len(images.keys() - {person.image_id for person in instances})
    if missed:
        print(f"{missed} of {len(images)} images have no box in {path.name}: people in them count as missed")
    boxes = f"detector: {path.name}"
    return replace(dataset, instances=tuple(instances), boxes=boxes, boxes_sha256=sha256(path))
