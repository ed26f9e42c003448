"""Crops of rendered people, as the lessons look at them."""

from typing import Any

import numpy as np

from posebook import transforms


def crop_person(
    image: np.ndarray, annotation: dict[str, Any], input_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A model's view of a person, uint8 (H, W, 3), and the joints x, y, v in its pixels, (K, 3).

    image: RGB uint8 (H', W', 3). annotation: the person in COCO's format, as `writing.render` returns it.
    input_size: (H, W).
    """
    matrix = transforms.crop_affine(annotation["bbox"], input_size)
    joints = np.reshape(annotation["keypoints"], (-1, 3)).astype(float)
    joints[:, :2] = transforms.apply_affine(matrix, joints[:, :2])
    return transforms.warp(image, matrix, input_size), joints
