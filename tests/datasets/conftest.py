"""Fixtures for the tests of the datasets."""

import json

import cv2
import numpy as np
import pytest


@pytest.fixture
def made(tmp_path):
    """Twenty images with one person each, in COCO's layout.

    Returns a function that changes the annotations, writes them and returns the root.
    """
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val").mkdir()
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    for i in range(1, 21):
        name = f"{i:03d}.jpg"
        image = np.random.default_rng(i).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "val" / name), image)
        content["images"].append({"id": i, "file_name": name, "height": 60, "width": 80})
        content["annotations"].append(
            {"id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 40, 50], "area": 900.0, "iscrowd": 0}
            | {"num_keypoints": 17, "keypoints": [10, 20, 2] * 17}
        )

    def write(change=lambda content: None):
        change(content)
        (tmp_path / "annotations" / "person_keypoints_val.json").write_text(json.dumps(content))
        return tmp_path

    return write
