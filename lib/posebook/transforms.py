"""Geometry between image and network input, and the augmentations of training.

One affine a sample holds flip, rotation, scale, shift and crop: (2, 3), from image pixels to input pixels,
pixel centers at integers. Joints go through the same matrix as the pixels.

1. The crop is mmpose's TopdownAffine without UDP, and the HRNet code's: the box's center falls on
   (W / 2, H / 2) of the input, half a pixel from its center.
2. Augmentation ranges are drawn as mmpose draws them: normal, truncated at one deviation, times the range.
3. Half body, shift and the HSV ranges have mmpose's defaults, which the paper's config leaves in force.
4. On a CPU samples are warped and colored one by one with OpenCV; on a GPU by the batch (`*_batch`), from
   draws made on the CPU, so that they are the same for every device. Both take one's matrices and `Jitter`.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor, nn

from posebook import codecs
from posebook.skeletons import Skeleton


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training sample. Probabilities 0 to 1, rotation in degrees."""

    flip: float = 0.5  # config: RandomFlip, horizontal
    half_body: float = 0.3  # mmpose's default probability
    scale: tuple[float, float] = (0.6, 1.4)  # config, stage 1
    rotation: float = 80.0  # config, stage 1
    rotation_probability: float = 0.6  # mmpose's default
    shift: float = 0.16  # share of the box; mmpose's default, stage 1
    shift_probability: float = 0.3  # mmpose's default
    hsv: tuple[float, float, float] = (5, 30, 30)  # YOLOX's hue, saturation and value ranges
    blur: float = 0.1  # config
    median_blur: float = 0.1  # config
    dropout: float = 1.0  # config: CoarseDropout, one hole, stage 1
    dropout_size: tuple[float, float] = (0.2, 0.4)  # config: share of each side


MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
PADDING = 1.25  # what a box is enlarged by
SMALL_IMAGE = 150_000  # pixels of an image below which a fourth channel costs less than it saves in a warp
TAIL = ndtr(-1)  # share of a normal's draws below one deviation


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

    The box is widened to the input's aspect and enlarged by padding * scale about its center, which `shift`
    moves by a share of the enlarged box; rotation is in degrees, clockwise on the picture; flip mirrors.
    """
    height, width = input_size
    x, y, w, h = bbox
    box_width = max(w, h * width / height) * padding
    center = np.array([x + w / 2 + shift[0] * box_width, y + h / 2 + shift[1] * box_width * height / width])
    zoom = width / (box_width * scale)
    cosine, sine = zoom * math.cos(math.radians(rotation)), zoom * math.sin(math.radians(rotation))
    matrix = np.array([[cosine, -sine], [sine, cosine]])  # (2, 2)
    if flip:
        matrix[0] = -matrix[0]
    offset = np.array([width / 2, height / 2]) - matrix @ center
    if flip:  # a mirrored picture's column x was column W - 1 - x
        offset[0] -= 1
    return np.hstack([matrix, offset[:, None]])  # (2, 3)


def apply_affine(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (..., 2) through a (2, 3) matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def invert(matrix: np.ndarray) -> np.ndarray:
    """The (2, 3) matrix of the way back."""
    return cv2.invertAffineTransform(matrix)


def from_canvas(matrices: np.ndarray, placed: np.ndarray) -> np.ndarray:
    """Image-to-input matrices (B, 2, 3) as canvas-to-input ones, the canvases placed by (B, 2, 3)."""
    back = np.linalg.inv(placed[:, :, :2])  # (B, 2, 2)
    linear = matrices[:, :, :2] @ back
    return np.concatenate([linear, matrices[:, :, 2:] - linear @ placed[:, :, 2:]], 2)


def warp(image: np.ndarray, matrix: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
    """Resample an image (H', W', 3) uint8 bilinearly into input_size (H, W, 3); outside is black."""
    height, width = input_size
    if image.shape[0] * image.shape[1] > SMALL_IMAGE:
        return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
    image = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)  # (H', W', 4): OpenCV's warp is quicker by a third
    return cv2.cvtColor(cv2.warpAffine(image, matrix, (width, height)), cv2.COLOR_RGBA2RGB)  # (H, W, 3)


def warp_batch(canvases: Tensor, matrices: Tensor, input_size: tuple[int, int]) -> Tensor:
    """`warp` of a batch on its device: canvases (B, S, S, 3) uint8 by matrices (B, 2, 3); (B, H, W, 3)."""
    count, side, device = len(canvases), canvases.shape[1], canvases.device
    matrices = matrices.double()  # the way back in float64, the pixels' places in float32
    linear = torch.linalg.inv(matrices[:, :, :2])  # (B, 2, 2)
    back = torch.cat([linear, -linear @ matrices[:, :, 2:]], 2).float().to(device)[..., None, None]
    rows, columns = (torch.arange(size, device=device, dtype=torch.float32) for size in input_size)
    x, y = (
        back[:, i, 0] * columns + back[:, i, 1] * rows[:, None] + back[:, i, 2] for i in (0, 1)
    )  # (B, H, W)
    pixels = canvases.reshape(count, side * side, 3)
    sample = torch.arange(count, device=device)[:, None, None]
    out = 0
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = x.floor() + dx, y.floor() + dy
            weight = (1 - (x - column).abs()) * (1 - (y - row).abs())  # (B, H, W)
            weight *= (column >= 0) & (column < side) & (row >= 0) & (row < side)
            place = row.clamp(0, side - 1).long() * side + column.clamp(0, side - 1).long()
            out = out + weight[..., None] * pixels[sample, place]  # (B, H, W, 3)
    return out.round().byte()


def normalize(images: Tensor) -> Tensor:
    """RGB uint8 (B, H, W, 3) to float (B, 3, H, W) with ImageNet's mean and deviation taken out."""
    mean, deviation = images.new_tensor([MEAN, STD], dtype=torch.float32)
    return ((images.float() - mean) / deviation).permute(0, 3, 1, 2)  # (B, 3, H, W)


def truncated_normal(rng: np.random.Generator) -> float:
    """A normal draw, truncated at one deviation."""
    while abs(draw := rng.standard_normal()) > 1:
        pass
    return draw


def half_body_box(
    keypoints: np.ndarray, skeleton: Skeleton, rng: np.random.Generator
) -> tuple[float, float, float, float] | None:
    """The box of the upper or the lower body's labeled joints, enlarged by 1.5, or None where too few are.

    Upper with probability 0.7; a half needs 2 (upper) or 3 (lower) joints, the person 9. None, too, for
    joints of which nobody has said which are the upper ones.
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
    """Draw one training crop: the image-to-input matrix (2, 3) and whether it mirrors."""
    flip = rng.random() < augmentation.flip
    padding = PADDING
    if rng.random() < augmentation.half_body:
        half = half_body_box(keypoints, skeleton, rng)
        bbox, padding = (half, 1.0) if half else (bbox, padding)
    shift = (0.0, 0.0)
    if rng.random() < augmentation.shift_probability:
        shift = (augmentation.shift * truncated_normal(rng), augmentation.shift * truncated_normal(rng))
    low, high = augmentation.scale
    scale = (low + high) / 2 + truncated_normal(rng) * (high - low) / 2
    rotation = (
        truncated_normal(rng) * augmentation.rotation
        if rng.random() < augmentation.rotation_probability
        else 0.0
    )
    return crop_affine(bbox, input_size, padding, scale, rotation, shift, flip), flip


def random_affine_batch(
    boxes: np.ndarray,
    keypoints: np.ndarray,
    skeleton: Skeleton,
    input_size: tuple[int, int],
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """`random_affine` for boxes (B, 4) and keypoints (B, K, 3): matrices (B, 2, 3) and mirrored (B,).

    The same distribution, drawn in another order: give it a generator made of (seed, epoch, step).
    """
    count = len(boxes)
    draws = rng.random((count, 9))
    spread = ndtri(TAIL + (1 - 2 * TAIL) * draws[:, :4])  # (B, 4) normal, truncated at one deviation
    halves, found = half_body_boxes(keypoints, skeleton, draws[:, 4] < 0.7)
    half = found & (draws[:, 5] < augmentation.half_body)  # (B,)
    boxes = np.where(half[:, None], halves, boxes)  # (B, 4)
    shift = augmentation.shift * spread[:, :2] * (draws[:, 6:7] < augmentation.shift_probability)  # (B, 2)
    low, high = augmentation.scale
    scale = (low + high) / 2 + spread[:, 2] * (high - low) / 2
    rotation = augmentation.rotation * spread[:, 3] * (draws[:, 7] < augmentation.rotation_probability)
    flip = draws[:, 8] < augmentation.flip
    return crop_affine_batch(
        boxes, input_size, np.where(half, 1.0, PADDING), scale, rotation, shift, flip
    ), flip


def half_body_boxes(
    keypoints: np.ndarray, skeleton: Skeleton, upper_first: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`half_body_box` of keypoints (B, K, 3): boxes (B, 4) and which there are (B,).

    upper_first (B,): which half to take where either would do.
    """
    labeled = keypoints[..., 2] > 0  # (B, K)
    is_upper = np.isin(np.arange(labeled.shape[1]), skeleton.upper_body)  # (K,)
    upper, lower = labeled & is_upper, labeled & ~is_upper
    can_upper, can_lower = upper.sum(1) >= 2, lower.sum(1) >= 3  # (B,)
    found = (labeled.sum(1) >= 9) & (can_upper | can_lower) & bool(skeleton.upper_body)
    take_upper = np.where(can_upper & can_lower, upper_first, can_upper)
    chosen = np.where(take_upper[:, None], upper, lower)[..., None]  # (B, K, 1)
    points = np.where(found[:, None, None], keypoints[..., :2], 0.0)  # (B, K, 2)
    low = np.where(chosen, points, np.inf).min(1, initial=np.inf)  # (B, 2)
    high = np.where(chosen, points, -np.inf).max(1, initial=-np.inf)
    low, high = (np.where(found[:, None], corner, 0.0) for corner in (low, high))
    sides = np.maximum(high - low, 1.0) * 1.5
    return np.hstack([(low + high - sides) / 2, sides]), found


def crop_affine_batch(
    boxes: np.ndarray,
    input_size: tuple[int, int],
    padding: np.ndarray,
    scale: np.ndarray,
    rotation: np.ndarray,
    shift: np.ndarray,
    flip: np.ndarray,
) -> np.ndarray:
    """`crop_affine` for B boxes (B, 4), shifts (B, 2) and all else (B,): matrices (B, 2, 3)."""
    height, width = input_size
    x, y, w, h = boxes.T
    box_width = np.maximum(w, h * width / height) * padding
    center_x, center_y = (
        x + w / 2 + shift[:, 0] * box_width,
        y + h / 2 + shift[:, 1] * box_width * height / width,
    )
    zoom = width / (box_width * scale)
    cosine, sine = zoom * np.cos(np.radians(rotation)), zoom * np.sin(np.radians(rotation))
    mirror = np.where(flip, -1.0, 1.0)
    rows = [
        (mirror * cosine, -mirror * sine, width / 2 - mirror * (cosine * center_x - sine * center_y) - flip),
        (sine, cosine, height / 2 - sine * center_x - cosine * center_y),
    ]
    return np.moveaxis(np.array(rows), 2, 0)  # (B, 2, 3)


def flip_joints(keypoints: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Exchange left and right joints of (K, ...): what a mirror does to their names."""
    return keypoints[skeleton.flip_indices]


def transform_keypoints(
    keypoints: Tensor, matrices: Tensor, flips: Tensor, skeleton: Skeleton, input_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Keypoints (B, K, 3) of images through their crops (B, 2, 3): points (B, K, 2), weights (B, K).

    A weight is 1 for a joint that is labeled and inside the input.
    """
    points = keypoints[..., :2] @ matrices[:, :, :2].mT + matrices[:, None, :, 2]  # (B, K, 2)
    moved = torch.cat([points, keypoints[..., 2:]], -1)
    moved = torch.where(flips[:, None, None], moved[:, skeleton.flip_indices], moved)  # (B, K, 3)
    points = moved[..., :2].float()
    return points, ((moved[..., 2] > 0) & codecs.inside(points, input_size)).float()


class Jitter(NamedTuple):
    """What becomes of B inputs besides their geometry."""

    gains: np.ndarray  # (B, 3) whole levels added to hue (of 180), saturation and value; 0 0 0 for none
    blur: np.ndarray  # (B,) side of the window: 3, 5 or 7; 0 for none
    median: np.ndarray  # (B,) the same
    hole: np.ndarray  # (B, 4) y, x, height, width; no area for none


def draw_jitter(
    count: int, input_size: tuple[int, int], augmentation: Augmentation, rng: np.random.Generator
) -> Jitter:
    """Draw for `count` inputs of input_size (H, W)."""
    draws = rng.random((count, 15))  # in one call: of a sample, calls cost more than numbers
    gains = np.trunc((2 * draws[:, :3] - 1) * augmentation.hsv * (draws[:, 3:6] < 0.5)).astype(int)  # (B, 3)
    windows = 3 + 2 * (3 * draws[:, 6:8]).astype(int)  # (B, 2)
    blur, median = (windows * (draws[:, 8:10] < (augmentation.blur, augmentation.median_blur))).T
    low, high = augmentation.dropout_size
    sides = np.round((low + (high - low) * draws[:, 10:12]) * input_size)  # (B, 2)
    sides *= draws[:, 12:13] < augmentation.dropout
    corner = np.floor(draws[:, 13:15] * (input_size - sides + 1))
    return Jitter(gains, blur, median, np.hstack([corner, sides]).astype(int))


def apply_photometric(image: np.ndarray, jitter: Jitter, i: int = 0) -> np.ndarray:
    """HSV jitter, blur, median blur and coarse dropout on an input (H, W, 3), in this order: draw i's."""
    gains, blur, median = jitter.gains[i], int(jitter.blur[i]), int(jitter.median[i])
    if gains.any():
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        if gains[0]:  # hue goes round
            turned = ((np.arange(256) + gains[0]) % 180).astype(np.uint8)
            cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, 0), turned), hsv, 0)
        gains = np.tile(
            [0, *gains[1:]], image.shape[1]
        )  # (W * 3,): whole rows at once are quicker than pixels
        flat = hsv.reshape(len(image), -1)  # (H, W * 3)
        # saturation and value stop at 0 and 255: clipped first, so that the bytes' sum cannot go round
        low, high = np.maximum(-gains, 0).astype(np.uint8), np.minimum(255 - gains, 255).astype(np.uint8)
        np.minimum(np.maximum(flat, low, out=flat), high, out=flat)
        flat += gains.astype(np.uint8)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if blur:
        image = cv2.blur(image, (blur, blur))
    if median:
        image = cv2.medianBlur(image, median)
    y, x, h, w = jitter.hole[i]
    image[y : y + h, x : x + w] = 0
    return image


def apply_photometric_batch(images: Tensor, jitter: Jitter) -> Tensor:
    """`photometric` of a batch on its device: images (B, H, W, 3) uint8 to the same."""

    def on_device(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(images.device)

    if jitter.gains.any():
        gains = on_device(jitter.gains)[:, :, None, None]  # (B, 3, 1, 1)
        images = torch.where(gains[:, :, None].any(1), _shift_hsv(images, gains), images)
    for sizes, filtered in ((jitter.blur, _mean), (jitter.median, _median)):
        for size in sorted(set(sizes[sizes > 0].tolist())):
            chosen = on_device(np.flatnonzero(sizes == size))  # found on the CPU: no waiting for the device
            images = images.index_copy(0, chosen, filtered(images[chosen], size))
    y, x, h, w = on_device(jitter.hole).T[..., None]  # each (B, 1)
    rows, columns = (torch.arange(size, device=images.device) for size in images.shape[1:3])
    high, wide = (rows >= y) & (rows < y + h), (columns >= x) & (columns < x + w)  # (B, H), (B, W)
    return images.masked_fill((high[:, :, None] & wide[:, None, :])[..., None], 0)


def _shift_hsv(images: Tensor, gains: Tensor) -> Tensor:
    """Add gains (B, 3, 1, 1) to hue, saturation and value of images (B, H, W, 3), in OpenCV's levels."""
    red, green, blue = images.float().unbind(-1)  # each (B, H, W)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    hue = torch.where(value == green, 2 * chroma + blue - red, 4 * chroma + red - green)
    hue = torch.where(value == red, green - blue, hue) * 30 / chroma.clamp(min=1)
    hue = (hue.round() + gains[:, 0]) % 180
    saturation = ((255 * chroma / value.clamp(min=1)).round() + gains[:, 1]).clamp(0, 255)
    value = (value + gains[:, 2]).clamp(0, 255)
    channels = []
    for sector in (5, 3, 1):  # a channel is full for two sixths of the circle, falls, is low, and rises
        place = (hue / 30 + sector) % 6
        fall = torch.minimum(place, 4 - place).clamp(0, 1)
        channels.append(value - value * saturation / 255 * fall)
    return torch.stack(channels, -1).round().byte()  # (B, H, W, 3)


def _mean(images: Tensor, size: int) -> Tensor:
    """Box blur of images (B, H, W, 3) uint8, the border mirrored, as cv2.blur."""
    padded = nn.functional.pad(images.permute(0, 3, 1, 2).float(), [size // 2] * 4, "reflect")
    return nn.functional.avg_pool2d(padded, size, 1).round().byte().permute(0, 2, 3, 1)


def _median(images: Tensor, size: int) -> Tensor:
    """Median blur of images (B, H, W, 3) uint8, the border repeated, as cv2.medianBlur."""
    padded = nn.functional.pad(images.permute(0, 3, 1, 2).float(), [size // 2] * 4, "replicate").byte()
    windows = padded.unfold(2, size, 1).unfold(3, size, 1).flatten(4)  # (B, 3, H, W, size * size)
    # bit by bit from the top: the largest level that no more than half of a window lie under. A GPU's sort
    # takes a block of threads a window, this reads all windows eight times
    found = torch.zeros_like(windows[..., 0])  # (B, 3, H, W)
    for bit in (128, 64, 32, 16, 8, 4, 2, 1):
        under = (windows < (found + bit)[..., None]).sum(-1)
        found = torch.where(under <= size * size // 2, found + bit, found)
    return found.permute(0, 2, 3, 1)
