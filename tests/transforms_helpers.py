"""The crops of single people, written as plain code, for comparison with the batches of `transforms`."""

import math

import numpy as np

from posebook.skeletons import Skeleton
from posebook.transforms import PADDING, Augmentation


def crop_affine(
    bbox: tuple[float, float, float, float],
    input_size: tuple[int, int],
    padding: float = PADDING,
    scale: float = 1.0,
    rotation: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    flip: bool = False,
    udp: bool = False,
) -> np.ndarray:
    """`transforms.crop_affine_batch` for one box."""
    height, width = input_size
    x, y, w, h = bbox
    box_width = max(w, h * width / height) * padding
    center = np.array([x + w / 2 + shift[0] * box_width, y + h / 2 + shift[1] * box_width * height / width])
    zoom = width / (box_width * scale)
    cosine, sine = zoom * math.cos(math.radians(rotation)), zoom * math.sin(math.radians(rotation))
    matrix = np.array([[cosine, -sine], [sine, cosine]])  # (2, 2)
    if flip:
        matrix[0] = -matrix[0]
    if udp:
        matrix *= [[(width - 1) / width], [(height - 1) / height]]
    offset = np.array([width - udp, height - udp]) / 2 - matrix @ center
    if flip and not udp:  # the negated row maps column x to W - x, but its mirror image is W - 1 - x
        offset[0] -= 1
    return np.hstack([matrix, offset[:, None]])  # (2, 3)


def truncated_normal(rng: np.random.Generator) -> float:
    """A normal random number, truncated at one standard deviation."""
    while abs(draw := rng.standard_normal()) > 1:
        pass
    return draw


def half_body_box(
    keypoints: np.ndarray, skeleton: Skeleton, rng: np.random.Generator
) -> tuple[float, float, float, float] | None:
    """The box of the labeled joints of the upper or lower body, enlarged by 1.5.

    If both halves are possible, the upper body is chosen with probability 0.7. Returns None if the person has
    fewer than 9 labeled joints, if the upper body has fewer than 2 and the lower body fewer than 3, or if the
    skeleton defines no upper body. All numbers are mmpose's defaults.
    """
    if not skeleton.upper_body:
        return None
    labeled = np.flatnonzero(keypoints[:, 2] > 0)
    upper = [k for k in labeled if k in skeleton.upper_body]
    lower = [k for k in labeled if k not in skeleton.upper_body]
    if len(labeled) < 9 or (len(upper) < 2 and len(lower) < 3):
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
    """Draw one training crop: the image-to-input matrix (2, 3), and whether it is mirrored."""
    flip = rng.random() < augmentation.flip
    padding = PADDING
    if rng.random() < augmentation.half_body and (half := half_body_box(keypoints, skeleton, rng)):
        bbox, padding = half, 1.0  # a half-body box is already enlarged
    shift = (0.0, 0.0)
    if rng.random() < augmentation.shift_probability:
        shift = (augmentation.shift * truncated_normal(rng), augmentation.shift * truncated_normal(rng))
    low, high = augmentation.scale
    scale = (low + high) / 2 + truncated_normal(rng) * (high - low) / 2
    rotation = 0.0
    if rng.random() < augmentation.rotation_probability:
        rotation = truncated_normal(rng) * augmentation.rotation
    return crop_affine(bbox, input_size, padding, scale, rotation, shift, flip), flip
