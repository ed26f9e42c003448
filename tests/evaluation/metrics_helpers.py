"""Helpers of the tests in this folder."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from posebook import skeletons
from posebook.datasets import Person, PoseDataset
from posebook.evaluation.metrics import Predictions

rng = np.random.default_rng(0)


def make_dataset(skeleton: str, keypoints: np.ndarray, path=None) -> PoseDataset:
    """A small dataset with one person per image and keypoints (N, K, 3)."""
    persons = tuple(
        Person(Path("nowhere.jpg"), i + 1, i + 1, (0.0, 0.0, 100.0, 100.0), 5000.0, points)
        for i, points in enumerate(keypoints)
    )
    name = "made" if skeleton == "coco" else skeleton
    return PoseDataset(name, "val", skeletons.get(skeleton), "0" * 64, persons, path)


def annotated_dataset(tmp_path, keypoints: np.ndarray) -> PoseDataset:
    """The same with a COCO annotation file, which pycocotools reads."""
    dataset = make_dataset("coco", keypoints, tmp_path / "truth.json")
    content = {
        "images": [
            {"id": p.image_id, "width": 100, "height": 100, "file_name": "x.jpg"} for p in dataset.instances
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
            for p in dataset.instances
        ],
    }
    dataset.annotations.write_text(json.dumps(content))
    return dataset


def random_keypoints(joints: int, count: int = 20) -> np.ndarray:
    """Visible keypoints (N, K, 3)."""
    points = rng.uniform(0, 100, (count, joints, 3))
    points[..., 2] = 2
    return points


def noisy_predictions(tmp_path, images: int = 40) -> tuple[PoseDataset, Predictions]:
    """A dataset with several people in most images; predictions with errors of all sizes and tied scores."""
    draw = np.random.default_rng(3)
    dataset = annotated_dataset(tmp_path, random_keypoints(17, 100))
    image_ids = np.sort(draw.integers(1, images + 1, 100))
    persons = tuple(replace(p, image_id=int(i)) for p, i in zip(dataset.instances, image_ids, strict=True))
    content = json.loads(dataset.annotations.read_text())
    for entry, person in zip(content["annotations"], persons, strict=True):
        entry["image_id"] = person.image_id
    dataset.annotations.write_text(json.dumps(content))
    truth = np.stack([p.keypoints for p in persons])
    noise = draw.uniform(0, 12, 100)[:, None, None] * draw.normal(size=(100, 17, 2))
    scores = np.round(draw.uniform(0.2, 1, (100, 1)), 1) * np.ones((100, 17))
    return replace(dataset, instances=persons), Predictions(truth[..., :2] + noise, scores)
