"""Geometry and augmentation: pixels and joints use the same matrix, and batches equal single samples."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posebook import codecs, skeletons, transforms
from posebook.datasets import lspet, read_image
from posebook.training.recipes import STARNET_POSE
from posebook.transforms import Augmentation
from transforms_helpers import crop_affine, half_body_box, random_affine

SIZE = (256, 192)
BOX = (40.0, 30.0, 60.0, 120.0)
COCO = skeletons.get("coco")


def test_the_box_center_is_mapped_to_half_the_input_size():
    matrix = transforms.crop_affine(BOX, SIZE)
    assert transforms.apply_affine(matrix, np.array([70.0, 90.0])) == pytest.approx([96, 128])


@pytest.mark.parametrize("rotation", [0.0, 30.0])
def test_crop_of_udp(rotation):
    """mmpose's get_udp_warp_matrix (mmpose/structures/bbox/transforms.py@4d787240)."""
    center, scale = np.array([70.0, 90.0]), np.array([112.5, 150.0])  # of BOX, with 3:4 and 1.25
    cosine, sine = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
    x, y = 191 / scale[0], 255 / scale[1]
    expected = [
        [cosine * x, -sine * x, x * (-center[0] * cosine + center[1] * sine + scale[0] / 2)],
        [sine * y, cosine * y, y * (-center[0] * sine - center[1] * cosine + scale[1] / 2)],
    ]
    matrix = transforms.crop_affine(BOX, SIZE, rotation=rotation, udp=True)
    np.testing.assert_allclose(matrix, expected, atol=1e-9)
    mirrored = transforms.crop_affine(BOX, SIZE, rotation=rotation, flip=True, udp=True)
    points = np.array([[40.0, 30.0], [100.0, 150.0]])
    both = transforms.apply_affine(matrix, points)[:, 0] + transforms.apply_affine(mirrored, points)[:, 0]
    assert both == pytest.approx([191, 191])


def test_the_box_is_extended_to_the_aspect_ratio_and_enlarged():
    matrix = transforms.crop_affine(BOX, SIZE)
    height = 120 * 1.25  # the box is narrower than 3:4, so its height determines the scale
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
def test_invert_recovers_the_point(scale, rotation, shift, flip, x, y):
    matrix = transforms.crop_affine(
        BOX, SIZE, scale=scale, rotation=rotation, shift=(shift, -shift), flip=flip
    )
    point = np.array([x, y])
    back = transforms.apply_affine(transforms.invert(matrix), transforms.apply_affine(matrix, point))
    assert back == pytest.approx(point, abs=1e-6)


def test_flip_mirrors_the_input():
    plain, mirrored = (transforms.crop_affine(BOX, SIZE, rotation=20, flip=flip) for flip in (False, True))
    point = np.array([55.0, 77.0])
    a, b = transforms.apply_affine(plain, point), transforms.apply_affine(mirrored, point)
    assert b == pytest.approx([SIZE[1] - 1 - a[0], a[1]])


@pytest.mark.parametrize("rotation, flip", [(0, False), (33, False), (-70, True)])
def test_a_dot_and_its_joint_have_the_same_position(rotation, flip):
    image = np.zeros((200, 200, 3), np.uint8)
    cv2.circle(image, (75, 95), 4, (255, 255, 255), -1)
    matrix = transforms.crop_affine(BOX, SIZE, rotation=rotation, flip=flip)
    warped = transforms.warp(image, matrix, SIZE)[..., 0].astype(float)
    rows, columns = np.indices(SIZE)
    centroid = np.array([(columns * warped).sum(), (rows * warped).sum()]) / warped.sum()
    assert centroid == pytest.approx(transforms.apply_affine(matrix, np.array([75.0, 95.0])), abs=0.1)


def test_normalize_equals_the_formula():
    image = torch.randint(0, 256, (1, 4, 5, 3), dtype=torch.uint8)
    out = transforms.normalize(image)
    assert out.shape == (1, 3, 4, 5)
    expected = (image[0, 2, 3, 1].item() - 116.28) / 57.12
    assert out[0, 1, 2, 3].item() == pytest.approx(expected, abs=1e-5)


def test_random_crops_stay_within_their_ranges():
    augmentation = Augmentation(half_body=0, shift=0, scale=(0.6, 1.4), rotation=80, rotation_probability=1)
    boxes, joints = np.tile(BOX, (500, 1)), np.full((500, 17, 3), 2.0)
    matrices, flips = transforms.random_affine_batch(
        boxes, joints, COCO, SIZE, augmentation, np.random.default_rng(0)
    )
    row = matrices[:, 1, :2]
    scales = 256 / (120 * 1.25) / np.hypot(*row.T)
    angles = np.degrees(np.arctan2(row[:, 0], row[:, 1]))
    assert 0.6 <= scales.min() < 0.7 and 1.3 < scales.max() <= 1.4
    assert -80 <= angles.min() < -60 and 60 < angles.max() <= 80
    assert 0.4 < flips.mean() < 0.6


@pytest.mark.parametrize("upper", [False, True])
def test_half_body_box_contains_its_half(upper):
    rng = np.random.default_rng(1)
    joints = np.concatenate([rng.uniform(20, 180, (17, 2)), np.full((17, 1), 2.0)], 1)
    ((x, y, w, h),), _ = transforms.half_body_boxes(joints[None], COCO, np.array([upper]))
    within = [x <= px <= x + w and y <= py <= y + h for px, py, _ in joints]
    assert all(within[:11] if upper else within[11:])
    joints[9:, 2] = 0
    joints[3:9, 2] = 0
    assert not transforms.half_body_boxes(joints[None], COCO, np.array([upper]))[1].any()


def test_dropout_hole_has_the_configured_size():
    only = Augmentation(hsv=(0, 0, 0), blur=0, median_blur=0, dropout=1)
    for seed in range(20):
        jitter = transforms.draw_jitter(1, (100, 80), only, np.random.default_rng(seed))
        image = transforms.apply_photometric(np.full((100, 80, 3), 200, np.uint8), jitter)
        rows, columns = np.nonzero(image[..., 0] == 0)
        assert 20 <= np.ptp(rows) + 1 <= 40 and 16 <= np.ptp(columns) + 1 <= 32
        assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


def test_no_augmentation_changes_nothing():
    none = Augmentation(0, 0, (1, 1), 0, 0, 0, 0, (0, 0, 0), 0, 0, 0)
    rng, image = (
        np.random.default_rng(0),
        np.random.default_rng(1).integers(0, 256, (50, 40, 3), dtype=np.uint8),
    )
    jitter = transforms.draw_jitter(1, (50, 40), none, rng)
    assert (transforms.apply_photometric(image.copy(), jitter) == image).all()
    batch = torch.from_numpy(image)[None]
    assert torch.equal(transforms.apply_photometric_batch(batch, jitter), batch)
    matrices, flips = transforms.random_affine_batch(
        np.array([BOX]), np.full((1, 17, 3), 2.0), COCO, SIZE, none, rng
    )
    assert not flips.any() and matrices[0] == pytest.approx(transforms.crop_affine(BOX, SIZE))


def random_people(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (B, 4), and keypoints (B, 17, 3) inside the boxes, some of them unlabeled."""
    rng = np.random.default_rng(seed)
    boxes = np.hstack([rng.uniform(0, 100, (count, 2)), rng.uniform(20, 150, (count, 2))])
    points = boxes[:, None, :2] + rng.random((count, 17, 2)) * boxes[:, None, 2:]
    return boxes, np.concatenate([points, rng.integers(0, 3, (count, 17, 1))], -1)


@pytest.mark.parametrize("udp", [False, True])
def test_batch_crops_equal_single_crops(udp):
    rng = np.random.default_rng(0)
    boxes, _ = random_people(50)
    padding, scale = rng.choice([1.0, 1.25], 50), rng.uniform(0.6, 1.4, 50)
    rotation, shift, flip = rng.uniform(-180, 180, 50), rng.uniform(-0.2, 0.2, (50, 2)), rng.random(50) < 0.5
    matrices = transforms.crop_affine_batch(boxes, SIZE, padding, scale, rotation, shift, flip, udp)
    for i, matrix in enumerate(matrices):
        given = boxes[i], SIZE, padding[i], scale[i], rotation[i], shift[i], bool(flip[i]), udp
        assert matrix == pytest.approx(crop_affine(*given), abs=1e-9)
        assert matrix == pytest.approx(transforms.crop_affine(*given), abs=1e-9)


class ConstantGenerator:
    """A random generator that always returns the same number."""

    def __init__(self, number: float):
        self.number = number

    def random(self) -> float:
        return self.number


@pytest.mark.parametrize("name", ["coco", "lspet", "crowdpose"])
def test_batch_half_body_boxes_equal_single_boxes(name):
    skeleton = skeletons.get(name)
    _, keypoints = random_people(300)
    keypoints = keypoints[:, : len(skeleton.keypoints)]
    keypoints[:40, :, 2] *= np.isin(np.arange(keypoints.shape[1]), skeleton.upper_body)  # upper body only
    keypoints[40:60, :, 2] = 0
    missing = set()
    for upper in (False, True):
        boxes, valid = transforms.half_body_boxes(keypoints, skeleton, np.full(len(keypoints), upper))
        for i, joints in enumerate(keypoints):
            one = half_body_box(joints, skeleton, ConstantGenerator(0.0 if upper else 0.9))
            assert valid[i] == (one is not None) and (one is None or boxes[i] == pytest.approx(one))
            missing.add(one is None)
    assert missing == {False, True}
    own = skeletons.make_skeleton("mine", list(skeleton.keypoints), [], None)
    assert not transforms.half_body_boxes(keypoints, own, np.ones(len(keypoints), bool))[1].any()


def test_batch_and_single_draws_have_the_same_distribution():
    count, augmentation = 4000, STARNET_POSE.stage1
    boxes, keypoints = np.tile(BOX, (count, 1)), np.tile(random_people(1)[1], (count, 1, 1))
    keypoints[..., 2] = 2
    rng = np.random.default_rng(0)
    batch, flips = transforms.random_affine_batch(boxes, keypoints, COCO, SIZE, augmentation, rng)
    single = [random_affine(BOX, keypoints[0], COCO, SIZE, augmentation, rng) for _ in range(count)]
    ones = np.array([matrix for matrix, _ in single])
    assert abs(flips.mean() - 0.5) < 0.03
    center = np.array([70.0, 90.0])
    for matrices in (batch, ones):  # half of the matrices mirror
        assert (np.linalg.det(matrices[:, :, :2]) < 0).mean() == pytest.approx(0.5, abs=0.03)
    for statistic in (  # zoom, angle, and position of the box center
        lambda m: np.hypot(m[:, 1, 0], m[:, 1, 1]),
        lambda m: np.arctan2(m[:, 1, 0], m[:, 1, 1]),
        lambda m: (m @ np.append(center, 1))[:, 0],
        lambda m: (m @ np.append(center, 1))[:, 1],
    ):
        a, b = statistic(batch), statistic(ones)
        assert abs(a.mean() - b.mean()) < 0.1 * b.std() and a.std() == pytest.approx(b.std(), rel=0.1)
    again = transforms.random_affine_batch(
        boxes, keypoints, COCO, SIZE, augmentation, np.random.default_rng(0)
    )
    assert (again[0] == batch).all()


def test_cpu_and_batch_warps_agree(test_data):
    people = lspet.load(test_data / "lspet", "val").instances[:6]
    boxes, keypoints = (np.array([getattr(p, name) for p in people]) for name in ("bbox", "keypoints"))
    canvases = np.zeros((6, 400, 400, 3), np.uint8)
    for canvas, person in zip(canvases, people, strict=True):
        image = read_image(person.image)[:400, :400]
        canvas[: image.shape[0], : image.shape[1]] = image
    skeleton, rng = skeletons.get("lspet"), np.random.default_rng(0)
    matrices, _ = transforms.random_affine_batch(boxes, keypoints, skeleton, SIZE, STARNET_POSE.stage1, rng)
    batch = transforms.warp_batch(torch.from_numpy(canvases), torch.from_numpy(matrices), SIZE)
    for canvas, matrix, warped in zip(canvases, matrices, batch, strict=True):
        difference = np.abs(warped.numpy().astype(int) - transforms.warp(canvas, matrix, SIZE))
        # Older OpenCV rounds coordinates to 1/32 pixel. At a sharp edge, this changes a few gray levels.
        assert difference.mean() < 0.5 and np.quantile(difference, 0.999) <= 8


def test_small_and_large_images_are_warped_identically():
    image = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    small = image[:300, :300]
    assert small.shape[0] * small.shape[1] < transforms.SMALL_IMAGE < image.shape[0] * image.shape[1]
    matrix = transforms.crop_affine((100, 100, 60, 80), SIZE, rotation=30)  # inside both images
    assert (transforms.warp(small, matrix, SIZE) == transforms.warp(image, matrix, SIZE)).all()


@pytest.mark.parametrize("flip", [False, True])
def test_a_spot_and_its_joint_agree_to_a_hundredth_of_a_pixel(flip):
    rng = np.random.default_rng(0)
    rows, columns = np.indices((300, 300))
    for rotation in (0, 33, -70):
        joint = rng.uniform(140, 160, 2)
        spot = np.exp(-((columns - joint[0]) ** 2 + (rows - joint[1]) ** 2) / (2 * 6.0**2))
        image = np.repeat((255 * spot).round().astype(np.uint8)[..., None], 3, -1)
        matrix = transforms.crop_affine((100, 90, 90, 120), SIZE, rotation=rotation, flip=flip)
        keypoints = torch.tensor([*joint, 2.0], dtype=torch.float64).tile(1, 17, 1)
        points, weights = transforms.transform_keypoints(
            keypoints, torch.from_numpy(matrix)[None], torch.tensor([flip]), COCO, SIZE
        )
        batch = transforms.warp_batch(torch.from_numpy(image)[None], torch.from_numpy(matrix)[None], SIZE)[0]
        for warped in (transforms.warp(image, matrix, SIZE), batch.numpy()):
            weight = warped[..., 0].astype(float)
            y, x = np.indices(SIZE)
            centroid = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
            assert centroid == pytest.approx(points[0, 0].numpy(), abs=0.01)
        assert weights.all()


def test_batch_keypoints_equal_single_keypoints():
    boxes, keypoints = random_people(40)
    rng = np.random.default_rng(0)
    matrices, flips = transforms.random_affine_batch(boxes, keypoints, COCO, SIZE, STARNET_POSE.stage1, rng)
    points, weights = transforms.transform_keypoints(
        *map(torch.from_numpy, (keypoints, matrices, flips)), COCO, SIZE
    )
    assert points.dtype == weights.dtype == torch.float32 and 0 < weights.mean() < 1
    for i in range(40):
        joints = keypoints[i].copy()
        joints[:, :2] = transforms.apply_affine(matrices[i], joints[:, :2])
        joints = transforms.flip_joints(joints, COCO) if flips[i] else joints
        assert points[i].numpy() == pytest.approx(joints[:, :2], rel=1e-5)
        inside = codecs.inside(torch.from_numpy(joints[:, :2]), SIZE).numpy()
        assert (weights[i].numpy() == (inside & (joints[:, 2] > 0))).all()


def test_cpu_and_batch_photometric_changes_agree(test_data):
    paths = [test_data / "lspet" / "images" / f"im{n:05d}.jpg" for n in range(1, 41)]
    images = np.array([cv2.resize(read_image(path), (48, 64)) for path in paths])  # (B, 64, 48, 3)
    images[0] = np.random.default_rng(1).integers(0, 256, (64, 48, 3))  # contains all hues
    frequent = Augmentation(hsv=(90, 60, 60), blur=0.5, median_blur=0.5, dropout=0.5)
    jitter = transforms.draw_jitter(40, (64, 48), frequent, np.random.default_rng(0))
    assert set(jitter.blur) == set(jitter.median) == {0, 3, 5, 7}
    batch = transforms.apply_photometric_batch(torch.from_numpy(images), jitter).numpy()
    for i, image in enumerate(images):
        difference = np.abs(batch[i].astype(int) - transforms.apply_photometric(image.copy(), jitter, i))
        # Rounding may change the hue by 1 of 180, and a channel then by 1/30 of the chroma.
        assert difference.mean() < 0.5 and difference.max() <= 10, i


def test_batch_blurs_equal_opencv():
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 16, 3), dtype=np.uint8)
    for size in (3, 5, 7):
        mean, median = (
            blur(torch.from_numpy(images), size) for blur in (transforms._mean, transforms._median)
        )
        for i, image in enumerate(images):
            assert np.abs(mean[i].numpy().astype(int) - cv2.blur(image, (size, size))).max() <= 1
            assert (median[i].numpy() == cv2.medianBlur(image, size)).all()


def test_hue_wraps_and_saturation_and_value_are_clipped():
    """Compared with a loop over the pixels."""
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for offsets in ((5, 30, -30), (-5, -30, 30), (0, 12, 0), (-3, 0, 0)):
        jitter = transforms.Jitter(np.array([offsets]), *np.zeros((2, 1), int), np.zeros((1, 4), int))
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(int)
        for y in range(8):
            for x in range(8):
                h, s, v = hsv[y, x] + offsets
                hsv[y, x] = h % 180, min(max(s, 0), 255), min(max(v, 0), 255)
        expected = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
        assert (transforms.apply_photometric(image.copy(), jitter) == expected).all()


def test_jitter_has_the_frequencies_and_ranges_of_the_recipe():
    jitter = transforms.draw_jitter(20000, SIZE, STARNET_POSE.stage2, np.random.default_rng(0))
    for axis, limit in enumerate((5, 30, 30)):
        offsets = jitter.hsv_offsets[:, axis]
        assert -offsets.min() == offsets.max() == limit - 1  # truncated toward 0
        assert (offsets == 0).mean() == pytest.approx(0.5 + 0.5 / limit, abs=0.02)
    for sizes in (jitter.blur, jitter.median):
        assert [(sizes == size).mean() for size in (0, 3, 5, 7)] == pytest.approx(
            [0.9] + 3 * [0.1 / 3], abs=0.01
        )
    y, x, h, w = jitter.hole.T
    assert (h > 0).mean() == pytest.approx(0.5, abs=0.02)
    assert h[h > 0].min() == 51 and h.max() == 102 and w[w > 0].min() == 38 and w.max() == 77
    assert y.min() == x.min() == 0 and (y + h).max() == 256 and (x + w).max() == 192


def test_the_second_stage_is_weaker():
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


def test_unknown_skeleton_suggests_a_close_match():
    with pytest.raises(ValueError, match="unknown skeleton 'cocco'; did you mean coco"):
        skeletons.get("cocco")
