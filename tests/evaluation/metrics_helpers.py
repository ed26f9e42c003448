"""What the tests of this folder share."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from posebook import skeletons
from posebook.datasets import Person, PoseDataset
from posebook.evaluation.metrics import Predictions

rng = np.random.default_rng(0)


def people_of(skeleton: str, keypoints: np.ndarray, path=None) -> PoseDataset:
    """A little dataset around keypoints (N, K, 3)."""
    persons = tuple(
        Person(Path("nowhere.jpg"), i + 1, i + 1, (0.0, 0.0, 100.0, 100.0), 5000.0, points)
        for i, points in enumerate(keypoints)
    )
    name = "made" if skeleton == "coco" else skeleton
    return PoseDataset(name, "val", skeletons.get(skeleton), "0" * 64, persons, path)


def annotated(tmp_path, keypoints: np.ndarray) -> PoseDataset:
    """The same, with the COCO file pycocotools reads."""
    people = people_of("coco", keypoints, tmp_path / "truth.json")
    content = {
        "images": [
            {"id": p.image_id, "width": 100, "height": 100, "file_name": "x.jpg"} for p in people.instances
        ],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {
                "id": p.id,
                "image_id": p.image_id,
                "category_id": 1,
                "iscrowd": 0,
                "area": p.area,
                "bbox": list(p.bbox),
                "num_keypoints": int((p.keypoints[:, 2] > 0).sum()),
                "keypoints": p.keypoints.ravel().tolist(),
            }
            for p in people.instances
        ],
    }
    people.annotations.write_text(json.dumps(content))
    return people


def random_people(joints: int, count: int = 20) -> np.ndarray:
    points = rng.uniform(0, 100, (count, joints, 3))
    points[..., 2] = 2
    return points


def several(tmp_path, images: int = 40) -> tuple[PoseDataset, Predictions]:
    """Images of one to four people each, predicted with errors from none to hopeless, some scores equal."""
    draw = np.random.default_rng(3)
    people = annotated(tmp_path, random_people(17, 100))
    places = np.sort(draw.integers(1, images + 1, 100))
    persons = tuple(replace(p, image_id=int(i)) for p, i in zip(people.instances, places, strict=True))
    content = json.loads(people.annotations.read_text())
    for entry, person in zip(content["annotations"], persons, strict=True):
        entry["image_id"] = person.image_id
    people.annotations.write_text(json.dumps(content))
    truth = np.stack([p.keypoints for p in persons])
    noise = draw.uniform(0, 12, 100)[:, None, None] * draw.normal(size=(100, 17, 2))
    scores = np.round(draw.uniform(0.2, 1, (100, 1)), 1) * np.ones((100, 17))
    return replace(people, instances=persons), Predictions(truth[..., :2] + noise, scores)
