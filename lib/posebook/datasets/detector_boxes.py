"""People as a detector found them: a COCO results file of boxes in place of the annotated ones.

    ROOT/person_detection_results/COCO_val2017_detections_AP_H_56_person.json, and the like

1. Entries of other categories than 1 (person) are left out, as everywhere.
2. The annotations stay what the figures are measured against: an image without a box is one where nobody was
   found, and its people are missed.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from posebook.datasets import Person, PoseDataset, coco_json
from posebook.utils import sha256


def load_boxes(people: PoseDataset, path: str | Path, threshold: float = 0.0) -> PoseDataset:
    """The same split with the boxes of a detections file, those scored above `threshold`.

    Raises ValueError naming the entry that is none, and for a file of other images.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no detections at {path}")
    content = coco_json.read_json(path)
    if not isinstance(content, list):
        raise ValueError(f"{path} is not a file of detections: it is not a list of boxes")
    wanted, joints = people.images, len(people.skeleton.keypoints)
    persons, strangers, flat = [], [], 0
    for place, entry in enumerate(content):
        what = f"{path}, detection {place}"
        if coco_json.get_field(what, entry, "category_id", int) != 1:
            continue
        image = coco_json.get_field(what, entry, "image_id", int)
        x, y, w, h = coco_json.get_numbers(what, "bbox", entry.get("bbox"), 4)
        score = coco_json.get_number(what, entry, "score")
        if score <= threshold:
            continue
        if image not in wanted:
            strangers.append(image)
        elif w <= 0 or h <= 0:
            flat += 1
        else:
            nothing = np.zeros((joints, 3))  # (K, 3)
            persons.append(Person(wanted[image], image, place, (x, y, w, h), w * h, nothing, score))
    if not persons or len(strangers) > len(persons):
        theirs, ours = (", ".join(map(str, ids[:3])) for ids in (strangers, sorted(wanted)))
        raise ValueError(
            f"{path} is of other images: {len(strangers)} of its boxes lie on images that are not in "
            f"{people.annotations.name} ({theirs}, ...), whose ids are {ours}, ..."
        )
    if strangers:
        print(f"leaving out {len(strangers)} boxes on images that are not in {people.annotations.name}")
    if flat:
        print(f"leaving out {flat} boxes of no area in {path.name}")
    empty = len(wanted.keys() - {person.image_id for person in persons})
    if empty:
        print(f"{empty} of {len(wanted)} images have no box in {path.name}: whoever is on them is missed")
    boxes = f"detector: {path.name}"
    return replace(people, instances=tuple(persons), boxes=boxes, boxes_sha256=sha256(path))
