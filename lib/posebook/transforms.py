"""Geometry between image and network input, and the augmentations of training.

One affine a sample holds flip, rotation, scale, shift and crop: (2, 3), from image pixels to input pixels,
pixel centres at integers. Joints go through the same matrix as the pixels.

1. The crop is mmpose's TopdownAffine without UDP, and the HRNet code's: the box's centre falls on
   (W / 2, H / 2) of the input, half a pixel from its centre.
2. Augmentation ranges are drawn as mmpose draws them: normal, truncated at one deviation, times the range.
3. Half body, shift and the HSV ranges have mmpose's defaults, which the paper's config leaves in force.
"""

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from posebook.recipes import Augmentation
from posebook.skeletons import Skeleton

MEAN = (123.675, 116.28, 103.53)
DEVIATION = (58.395, 57.12, 57.375)
PADDING = 1.25  # what a box is enlarged by


def crop_affine(
    bbox: tuple[float, float, float, float],
    input_size: tuple[int, int],
    padding: float = PADDING,
    scale: float = 1.0,
    rotation: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    flip: bool = False,
) -> np.ndarray:
    """Image-to-input matrix (2, 3) that crops a box (x, y, w, h) to input_size (H, W).

    The box is widened to the input's aspect and enlarged by padding * scale about its centre, which `shift`
    moves by a share of the enlarged box; rotation is in degrees, clockwise on the picture; flip mirrors.
    """
    height, width = input_size
    x, y, w, h = bbox
    box_width = max(w, h * width / height) * padding
    centre = np.array([x + w / 2 + shift[0] * box_width, y + h / 2 + shift[1] * box_width * height / width])
    zoom = width / (box_width * scale)
    cosine, sine = zoom * math.cos(math.radians(rotation)), zoom * math.sin(math.radians(rotation))
    matrix = np.array([[cosine, -sine], [sine, cosine]])  # (2, 2)
    if flip:
        matrix[0] = -matrix[0]
    offset = np.array([width / 2, height / 2]) - matrix @ centre
    if flip:  # a mirrored picture's column x was column W - 1 - x
        offset[0] -= 1
    return np.hstack([matrix, offset[:, None]])  # (2, 3)


def apply_affine(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (..., 2) through a (2, 3) matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def invert(matrix: np.ndarray) -> np.ndarray:
    """The (2, 3) matrix of the way back."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.hstack([linear, -linear @ matrix[:, 2:]])


def warp(image: np.ndarray, matrix: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
    """Resample an image (H', W', 3) uint8 bilinearly into input_size (H, W, 3); outside is black."""
    height, width = input_size
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)


def normalise(images: Tensor) -> Tensor:
    """RGB uint8 (B, H, W, 3) to float (B, 3, H, W) with ImageNet's mean and deviation taken out."""
    mean, deviation = images.new_tensor([MEAN, DEVIATION], dtype=torch.float32)
    return ((images.float() - mean) / deviation).permute(0, 3, 1, 2)  # (B, 3, H, W)


def _spread(rng: np.random.Generator) -> float:
    """A normal draw, truncated at one deviation."""
    while abs(draw := rng.standard_normal()) > 1:
        pass
    return draw


def half_body_box(
    keypoints: np.ndarray, skeleton: Skeleton, rng: np.random.Generator
) -> tuple[float, float, float, float] | None:
    """The box of the upper or the lower body's labelled joints, enlarged by 1.5, or None where too few are.

    Upper with probability 0.7; a half needs 2 (upper) or 3 (lower) joints, the person 9. None, too, for
    joints of which nobody has said which are the upper ones.
    """
    if not skeleton.upper_body:
        return None
    labelled = np.flatnonzero(keypoints[:, 2] > 0)
    upper = [k for k in labelled if k in skeleton.upper_body]
    lower = [k for k in labelled if k not in skeleton.upper_body]
    if len(labelled) < 9 or (len(upper) < 2 and len(lower) < 3):
        return None
    if len(upper) < 2 or len(lower) < 3:
        chosen = upper if len(upper) >= 2 else lower
    else:
        chosen = upper if rng.random() < 0.7 else lower
    low, high = keypoints[chosen, :2].min(0), keypoints[chosen, :2].max(0)
    (x, y), (w, h) = (low + high) / 2, np.maximum(high - low, 1.0) * 1.5
    return x - w / 2, y - h / 2, w, h


def random_affine(
    bbox: tuple[float, float, float, float],
    keypoints: np.ndarray,
    skeleton: Skeleton,
    input_size: tuple[int, int],
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> tuple[np.ndarray, bool]:
    """Draw one training crop: the image-to-input matrix (2, 3) and whether it mirrors."""
    flip = rng.random() < augmentation.flip
    padding = PADDING
    if rng.random() < augmentation.half_body:
        half = half_body_box(keypoints, skeleton, rng)
        bbox, padding = (half, 1.0) if half else (bbox, padding)
    shift = (0.0, 0.0)
    if rng.random() < augmentation.shift_probability:
        shift = (augmentation.shift * _spread(rng), augmentation.shift * _spread(rng))
    low, high = augmentation.scale
    scale = (low + high) / 2 + _spread(rng) * (high - low) / 2
    rotation = (
        _spread(rng) * augmentation.rotation if rng.random() < augmentation.rotation_probability else 0.0
    )
    return crop_affine(bbox, input_size, padding, scale, rotation, shift, flip), flip


def flip_joints(keypoints: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Exchange left and right joints of (K, ...): what a mirror does to their names."""
    return keypoints[skeleton.flip_indices]


def photometric(image: np.ndarray, augmentation: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """HSV jitter, blur, median blur and coarse dropout on an input (H, W, 3) uint8, in this order."""
    gains = rng.uniform(-1, 1, 3) * augmentation.hsv * rng.integers(0, 2, 3)
    if gains.any():
        hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
        levels = np.arange(256)
        hue = cv2.LUT(hue, ((levels + gains[0]) % 180).astype(np.uint8))
        saturation = cv2.LUT(saturation, np.clip(levels + gains[1], 0, 255).astype(np.uint8))
        value = cv2.LUT(value, np.clip(levels + gains[2], 0, 255).astype(np.uint8))
        image = cv2.cvtColor(cv2.merge([hue, saturation, value]), cv2.COLOR_HSV2RGB)
    if rng.random() < augmentation.blur:
        size = int(rng.choice([3, 5, 7]))
        image = cv2.blur(image, (size, size))
    if rng.random() < augmentation.median_blur:
        image = cv2.medianBlur(image, int(rng.choice([3, 5, 7])))
    if rng.random() < augmentation.dropout:
        height, width = image.shape[:2]
        h, w = (round(side * rng.uniform(*augmentation.dropout_size)) for side in (height, width))
        y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        image[y : y + h, x : x + w] = 0
    return image
