"""Geometry: pixels and joints go through the same matrix; crops are mmpose's."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posebook import skeletons, transforms
from posebook.recipes import STARNET_POSE, Augmentation

SIZE = (256, 192)
BOX = (40.0, 30.0, 60.0, 120.0)
COCO = skeletons.get("coco")


def test_the_box_centre_falls_on_half_the_input():
    matrix = transforms.crop_affine(BOX, SIZE)
    assert transforms.apply_affine(matrix, np.array([70.0, 90.0])) == pytest.approx([96, 128])


def test_the_box_is_widened_to_the_aspect_and_enlarged():
    matrix = transforms.crop_affine(BOX, SIZE)
    height = 120 * 1.25  # the box is narrower than 3:4, so its height decides
    assert matrix[0, 0] == pytest.approx(256 / height) and matrix[1, 1] == pytest.approx(256 / height)
    wide = transforms.crop_affine((0, 0, 100, 50), SIZE)
    assert wide[0, 0] == pytest.approx(192 / 125)


@settings(deadline=None, max_examples=60)
@given(
    st.floats(0.5, 1.5),
    st.floats(-180, 180),
    st.floats(-0.3, 0.3),
    st.booleans(),
    st.floats(0, 300),
    st.floats(0, 300),
)
def test_there_and_back(scale, rotation, shift, flip, x, y):
    matrix = transforms.crop_affine(
        BOX, SIZE, scale=scale, rotation=rotation, shift=(shift, -shift), flip=flip
    )
    point = np.array([x, y])
    back = transforms.apply_affine(transforms.invert(matrix), transforms.apply_affine(matrix, point))
    assert back == pytest.approx(point, abs=1e-6)


def test_flip_is_the_mirror_of_the_input():
    plain, mirrored = (transforms.crop_affine(BOX, SIZE, rotation=20, flip=flip) for flip in (False, True))
    point = np.array([55.0, 77.0])
    a, b = transforms.apply_affine(plain, point), transforms.apply_affine(mirrored, point)
    assert b == pytest.approx([SIZE[1] - 1 - a[0], a[1]])


@pytest.mark.parametrize("rotation, flip", [(0, False), (33, False), (-70, True)])
def test_a_bright_dot_lands_where_its_joint_does(rotation, flip):
    image = np.zeros((200, 200, 3), np.uint8)
    cv2.circle(image, (75, 95), 4, (255, 255, 255), -1)
    matrix = transforms.crop_affine(BOX, SIZE, rotation=rotation, flip=flip)
    warped = transforms.warp(image, matrix, SIZE)[..., 0].astype(float)
    rows, columns = np.indices(SIZE)
    found = np.array([(columns * warped).sum(), (rows * warped).sum()]) / warped.sum()
    assert found == pytest.approx(transforms.apply_affine(matrix, np.array([75.0, 95.0])), abs=0.1)


def test_normalise_is_the_formula():
    image = torch.randint(0, 256, (1, 4, 5, 3), dtype=torch.uint8)
    out = transforms.normalise(image)
    assert out.shape == (1, 3, 4, 5)
    expected = (image[0, 2, 3, 1].item() - 116.28) / 57.12
    assert out[0, 1, 2, 3].item() == pytest.approx(expected, abs=1e-5)


def test_random_affine_stays_within_its_ranges():
    rng = np.random.default_rng(0)
    joints = np.full((17, 3), 2.0)
    still = Augmentation(half_body=0, shift=0, scale=(0.6, 1.4), rotation=80, rotation_probability=1)
    base = 256 / (120 * 1.25)
    scales, angles, flips = [], [], []
    for _ in range(500):
        matrix, flip = transforms.random_affine(BOX, joints, COCO, SIZE, still, rng)
        row = matrix[1, :2]
        scales.append(base / np.hypot(*row))
        angles.append(np.degrees(np.arctan2(row[0], row[1])))
        flips.append(flip)
    assert 0.6 <= min(scales) < 0.7 and 1.3 < max(scales) <= 1.4
    assert -80 <= min(angles) < -60 and 60 < max(angles) <= 80
    assert 0.4 < np.mean(flips) < 0.6


def test_half_body_holds_its_half():
    rng = np.random.default_rng(1)
    joints = np.concatenate([rng.uniform(20, 180, (17, 2)), np.full((17, 1), 2.0)], 1)
    for _ in range(20):
        x, y, w, h = transforms.half_body_box(joints, COCO, rng)
        within = [x <= px <= x + w and y <= py <= y + h for px, py, _ in joints]
        assert all(within[:11]) or all(within[11:])
    joints[9:, 2] = 0
    joints[3:9, 2] = 0
    assert transforms.half_body_box(joints, COCO, rng) is None


def test_dropout_covers_what_it_says():
    only = Augmentation(hsv=(0, 0, 0), blur=0, median_blur=0, dropout=1)
    for seed in range(20):
        image = transforms.photometric(
            np.full((100, 80, 3), 200, np.uint8), only, np.random.default_rng(seed)
        )
        rows, columns = np.nonzero(image[..., 0] == 0)
        assert 20 <= np.ptp(rows) + 1 <= 40 and 16 <= np.ptp(columns) + 1 <= 32
        assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


def test_no_augmentation_changes_nothing():
    none = Augmentation(0, 0, (1, 1), 0, 0, 0, 0, (0, 0, 0), 0, 0, 0)
    rng, image = (
        np.random.default_rng(0),
        np.random.default_rng(1).integers(0, 256, (50, 40, 3), dtype=np.uint8),
    )
    assert (transforms.photometric(image.copy(), none, rng) == image).all()
    matrix, flip = transforms.random_affine(BOX, np.full((17, 3), 2.0), COCO, SIZE, none, rng)
    assert not flip and matrix == pytest.approx(transforms.crop_affine(BOX, SIZE))


def test_the_second_stage_is_milder():
    first, second = STARNET_POSE.stage1, STARNET_POSE.stage2
    assert (first.rotation, second.rotation) == (80, 60) and (first.dropout, second.dropout) == (1.0, 0.5)
    assert first.scale == (0.6, 1.4) and second.scale == (0.75, 1.25) and second.shift == 0


def test_flip_pairs_are_found_by_name():
    for name in skeletons.SKELETONS:
        skeleton = skeletons.get(name)
        for left, right in skeleton.flip_pairs:
            assert skeleton.keypoints[left].replace("left", "right") == skeleton.keypoints[right]
        order = skeleton.flip_indices
        assert [order[i] for i in order] == list(range(len(order)))
        assert skeleton.sigmas is None or len(skeleton.sigmas) == len(order)
    assert [len(skeletons.get(n).keypoints) for n in ("coco", "crowdpose", "mpii", "lspet")] == [
        17,
        14,
        16,
        14,
    ]


def test_unknown_skeleton_offers_the_near_one():
    with pytest.raises(ValueError, match="unknown skeleton 'cocco'; did you mean coco"):
        skeletons.get("cocco")
