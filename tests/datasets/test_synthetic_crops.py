"""Crops of rendered people."""

import numpy as np
import pytest

from posebook.datasets.synthetic import crops


def test_joints_stay_on_the_pixels_that_they_mark():
    """Two bright squares around two joints are at the joints of the crop."""
    image = np.zeros((120, 160, 3), np.uint8)
    places = np.array([[60, 40], [90, 80]])
    for value, (x, y) in zip((100, 200), places, strict=True):
        image[y - 2 : y + 3, x - 2 : x + 3] = value
    keypoints = [60, 40, 2, 90, 80, 1]
    crop, joints = crops.crop_person(image, {"bbox": [50, 30, 50, 60], "keypoints": keypoints}, (128, 96))
    assert crop.shape == (128, 96, 3) and crop.dtype == np.uint8
    assert joints[:, 2].tolist() == [2, 1]
    for value, (x, y) in zip((100, 200), joints[:, :2], strict=True):
        rows, columns = np.nonzero(np.abs(crop[..., 0].astype(int) - value) < 10)
        assert (columns.mean(), rows.mean()) == pytest.approx((x, y), abs=0.7)
