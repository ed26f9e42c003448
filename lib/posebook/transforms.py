"""The geometry between image and model input, and the augmentations for training.

One affine matrix (2, 3) per sample combines flip, rotation, scale, shift and crop. It maps image pixels to
input pixels; pixel centers have integer coordinates. The same matrix transforms the keypoints.

1. The crop equals mmpose's TopdownAffine without UDP, and the HRNet code: the center of the box is mapped to
   (W / 2, H / 2) of the input, half a pixel from the input's center. A mirrored training crop is that crop
   mirrored, one pixel from mmpose's. Models that were trained with UDP (Huang
   et al., CVPR 2020) need its crop: the box has W - 1 by H - 1 pixels, and its center is the input's center.
2. Random values are drawn as in mmpose 1.x: normal, truncated at one standard deviation, times the range.
   ViTPose's code (mmpose 0.x) clips a normal value at two standard deviations instead, so that its angles
   have a standard deviation of about 38 instead of 22 degrees.
3. Half body, shift and HSV jitter have mmpose's defaults, which StarNet-Pose's config does not change. Two
   details differ. The shift is a fraction of the box after it has the input's aspect ratio; mmpose takes the
   annotated box, which is narrower for a standing person. The half-body crop is centered on the extent of the
   chosen joints; mmpose centers it on their mean.
4. On a CPU, OpenCV processes the samples one by one. On a GPU, the `*_batch` functions process a batch. Both
   use the same matrices and the same `Jitter`. These are drawn on the CPU, so that they are the same for all
   devices.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri
from torch import Tensor, nn

from posebook import codecs
from posebook.skeletons import Skeleton


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of training samples.

    The defaults are those of stage 1 of StarNet-Pose's training: from its config, or mmpose's defaults.
    """

    flip: float = 0.5  # probability; config: RandomFlip, horizontal
    half_body: float = 0.3  # probability; mmpose's default
    scale: tuple[float, float] = (0.6, 1.4)  # range of the factor on the box's size; config
    rotation: float = 80.0  # largest angle in degrees; config
    rotation_probability: float = 0.6  # mmpose's default
    shift: float = 0.16  # largest shift on each axis, as a fraction of the box; mmpose's default
    shift_probability: float = 0.3  # mmpose's default
    hsv: tuple[float, float, float] = (5, 30, 30)  # largest changes; YOLOXHSVRandomAug's defaults
    blur: float = 0.1  # probability of a mean filter; config
    median_blur: float = 0.1  # probability; config
    dropout: float = 1.0  # probability of one hole; config: CoarseDropout
    dropout_size: tuple[float, float] = (0.2, 0.4)  # sides of the hole, as fractions of the input's; config


MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)  # both of ImageNet, RGB on 0-255
PADDING = 1.25  # factor that enlarges a box
SMALL_IMAGE = 150_000  # pixels: up to this size `warp` is faster with a fourth channel
TAIL = ndtr(-1)  # probability that a normal value is below minus one standard deviation


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
    """`crop_affine_batch` for one box (x, y, w, h): an image-to-input matrix (2, 3)."""
    box, offset = np.array([bbox], float), np.array([shift])
    return crop_affine_batch(box, input_size, padding, scale, rotation, offset, flip, udp)[0]


def crop_affine_batch(
    boxes: np.ndarray,
    input_size: tuple[int, int],
    padding: ArrayLike,
    scale: ArrayLike,
    rotation: ArrayLike,
    shift: np.ndarray,
    flip: ArrayLike,
    udp: bool = False,
) -> np.ndarray:
    """Image-to-input matrices (B, 2, 3) that crop boxes (B, 4) to input_size (H, W).

    A box (x, y, w, h) is extended to the input's aspect ratio and enlarged by padding * scale about its
    center. shift (B, 2): offset of the center, as a fraction of the box enlarged by padding. rotation: in
    degrees, clockwise in the image. flip: whether the input is mirrored. padding, scale, rotation and flip
    are (B,) or one value. udp: whether the crops are those of UDP; choice 1.
    """
    height, width = input_size
    x, y, w, h = boxes.T
    box_width = np.maximum(w, h * width / height) * padding  # (B,)
    center_x = x + w / 2 + shift[:, 0] * box_width
    center_y = y + h / 2 + shift[:, 1] * box_width * height / width
    zoom = width / (box_width * scale)
    cosine, sine = zoom * np.cos(np.radians(rotation)), zoom * np.sin(np.radians(rotation))
    mirror = np.where(flip, -1.0, 1.0)
    matrices = np.stack([mirror * cosine, -mirror * sine, sine, cosine], 1).reshape(-1, 2, 2)  # (B, 2, 2)
    if udp:
        matrices *= [[(width - 1) / width], [(height - 1) / height]]
    centers = np.stack([center_x, center_y], 1)[..., None]  # (B, 2, 1)
    offsets = np.array([[width - udp], [height - udp]]) / 2 - matrices @ centers  # (B, 2, 1)
    if not udp:  # the negated row maps column x to W - x, but its mirror image is W - 1 - x
        offsets[:, 0, 0] -= flip
    return np.concatenate([matrices, offsets], 2)  # (B, 2, 3)


def apply_affine(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (..., 2) through a (2, 3) matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def invert(matrix: np.ndarray) -> np.ndarray:
    """The inverse (2, 3) of an affine matrix (2, 3)."""
    return cv2.invertAffineTransform(matrix)


def from_canvas(matrices: np.ndarray, canvas_matrices: np.ndarray) -> np.ndarray:
    """Canvas-to-input matrices (B, 2, 3) from image-to-input and image-to-canvas matrices (B, 2, 3)."""
    linear = matrices[:, :, :2] @ np.linalg.inv(canvas_matrices[:, :, :2])  # (B, 2, 2)
    return np.concatenate([linear, matrices[:, :, 2:] - linear @ canvas_matrices[:, :, 2:]], 2)  # (B, 2, 3)


def warp(image: np.ndarray, matrix: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
    """Warp an image (H', W', 3) uint8 bilinearly to input_size, (H, W, 3). Pixels outside are black."""
    height, width = input_size
    if image.shape[0] * image.shape[1] > SMALL_IMAGE:
        return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
    image = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)  # (H', W', 4): OpenCV's warp takes a third less time
    return cv2.cvtColor(cv2.warpAffine(image, matrix, (width, height)), cv2.COLOR_RGBA2RGB)  # (H, W, 3)


def warp_batch(canvases: Tensor, matrices: Tensor, input_size: tuple[int, int]) -> Tensor:
    """`warp` for canvases (B, S, S, 3) uint8 on their device and matrices (B, 2, 3): (B, H, W, 3) uint8."""
    count, side, device = len(canvases), canvases.shape[1], canvases.device
    matrices = matrices.double()  # invert in float64; float32 is sufficient for pixel coordinates
    linear = torch.linalg.inv(matrices[:, :, :2])  # (B, 2, 2)
    inverse = torch.cat([linear, -linear @ matrices[:, :, 2:]], 2).float().to(device)  # (B, 2, 3)
    inverse = inverse[..., None, None]  # (B, 2, 3, 1, 1)
    rows, columns = (torch.arange(size, device=device, dtype=torch.float32) for size in input_size)
    x, y = (
        inverse[:, i, 0] * columns + inverse[:, i, 1] * rows[:, None] + inverse[:, i, 2] for i in (0, 1)
    )  # (B, H, W)
    pixels = canvases.reshape(count, side * side, 3)  # (B, S * S, 3)
    sample = torch.arange(count, device=device)[:, None, None]  # (B, 1, 1)
    out = torch.zeros(*x.shape, 3, device=device)  # (B, H, W, 3)
    for dy in (0, 1):  # each of the four neighbors of a position adds its bilinear share
        for dx in (0, 1):
            column, row = x.floor() + dx, y.floor() + dy
            weight = (1 - (x - column).abs()) * (1 - (y - row).abs())  # (B, H, W)
            weight *= (column >= 0) & (column < side) & (row >= 0) & (row < side)
            index = row.clamp(0, side - 1).long() * side + column.clamp(0, side - 1).long()
            out += weight[..., None] * pixels[sample, index]  # (B, H, W, 3)
    return out.round().byte()


def normalize(images: Tensor) -> Tensor:
    """RGB uint8 (B, H, W, 3) to float (B, 3, H, W), normalized with MEAN and STD."""
    mean, std = images.new_tensor([MEAN, STD], dtype=torch.float32)
    return ((images.float() - mean) / std).permute(0, 3, 1, 2)  # (B, 3, H, W)


def random_affine_batch(
    boxes: np.ndarray,
    keypoints: np.ndarray,
    skeleton: Skeleton,
    input_size: tuple[int, int],
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw training crops for boxes (B, 4) and keypoints (B, K, 3).

    Returns image-to-input matrices (B, 2, 3), and whether each one mirrors, (B,). Shift, scale and rotation
    are normal random numbers, truncated at one standard deviation.
    """
    draws = rng.random((len(boxes), 9))  # uniform; columns 0 to 3: shift x and y, scale, rotation
    normal = ndtri(TAIL + (1 - 2 * TAIL) * draws[:, :4])  # (B, 4), truncated at one standard deviation
    halves, valid = half_body_boxes(keypoints, skeleton, draws[:, 4] < 0.7)
    half = valid & (draws[:, 5] < augmentation.half_body)  # (B,)
    boxes = np.where(half[:, None], halves, boxes)  # (B, 4)
    shift = augmentation.shift * normal[:, :2] * (draws[:, 6:7] < augmentation.shift_probability)  # (B, 2)
    low, high = augmentation.scale
    scale = (low + high) / 2 + normal[:, 2] * (high - low) / 2
    rotation = augmentation.rotation * normal[:, 3] * (draws[:, 7] < augmentation.rotation_probability)
    flip = draws[:, 8] < augmentation.flip
    padding = np.where(half, 1.0, PADDING)  # a half-body box is already enlarged
    return crop_affine_batch(boxes, input_size, padding, scale, rotation, shift, flip), flip


def half_body_boxes(
    keypoints: np.ndarray, skeleton: Skeleton, prefer_upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of the labeled joints of the upper or lower body, enlarged by 1.5.

    keypoints: (B, K, 3). prefer_upper: (B,), which half to use if both are possible. Returns boxes (B, 4),
    and whether there is one, (B,): there is none for a person with fewer than 9 labeled joints, or with fewer
    than 2 of the upper and 3 of the lower body, or if the skeleton defines no upper body. All numbers are
    mmpose's defaults, which prefer the upper body with probability 0.7.
    """
    labeled = keypoints[..., 2] > 0  # (B, K)
    is_upper = np.isin(np.arange(labeled.shape[1]), skeleton.upper_body)  # (K,)
    upper, lower = labeled & is_upper, labeled & ~is_upper
    can_upper, can_lower = upper.sum(1) >= 2, lower.sum(1) >= 3  # (B,)
    valid = (labeled.sum(1) >= 9) & (can_upper | can_lower) & bool(skeleton.upper_body)
    take_upper = np.where(can_upper & can_lower, prefer_upper, can_upper)
    chosen = np.where(take_upper[:, None], upper, lower)[..., None]  # (B, K, 1)
    points = np.where(valid[:, None, None], keypoints[..., :2], 0.0)  # (B, K, 2)
    low = np.where(chosen, points, np.inf).min(1, initial=np.inf)  # (B, 2)
    high = np.where(chosen, points, -np.inf).max(1, initial=-np.inf)
    low, high = (np.where(valid[:, None], corner, 0.0) for corner in (low, high))
    sides = np.maximum(high - low, 1.0) * 1.5
    return np.hstack([(low + high - sides) / 2, sides]), valid


def flip_joints(keypoints: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Swap left and right joints (K, ...), because a mirrored left joint is a right joint."""
    return keypoints[skeleton.flip_indices]


def transform_keypoints(
    keypoints: Tensor, matrices: Tensor, flips: Tensor, skeleton: Skeleton, input_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Transform keypoints (B, K, 3) from images to inputs: points (B, K, 2) and weights (B, K).

    matrices: (B, 2, 3), image to input. flips: (B,), whether a matrix mirrors. A weight is 1 if the joint is
    labeled and inside the input, else 0.
    """
    points = keypoints[..., :2] @ matrices[:, :, :2].mT + matrices[:, None, :, 2]  # (B, K, 2)
    keypoints = torch.cat([points, keypoints[..., 2:]], -1)  # (B, K, 3)
    keypoints = torch.where(flips[:, None, None], keypoints[:, skeleton.flip_indices], keypoints)
    points = keypoints[..., :2].float()
    return points, ((keypoints[..., 2] > 0) & codecs.inside(points, input_size)).float()


class Jitter(NamedTuple):
    """The photometric augmentation and dropout of B inputs."""

    hsv_offsets: np.ndarray  # (B, 3) integers added to hue (modulo 180), saturation and value; 0 for none
    blur: np.ndarray  # (B,) kernel size of the mean filter: 3, 5 or 7; 0 for none
    median: np.ndarray  # (B,) kernel size of the median filter: 3, 5 or 7; 0 for none
    hole: np.ndarray  # (B, 4) y, x, height, width; height and width 0 for none


def draw_jitter(
    count: int, input_size: tuple[int, int], augmentation: Augmentation, rng: np.random.Generator
) -> Jitter:
    """Draw the photometric augmentation of `count` inputs of input_size (H, W)."""
    draws = rng.random((count, 15))  # one call, because calls take more time than the numbers
    # As in YOLOXHSVRandomAug, each channel changes with probability 0.5.
    hsv_offsets = np.trunc((2 * draws[:, :3] - 1) * augmentation.hsv * (draws[:, 3:6] < 0.5))  # (B, 3)
    kernel_sizes = 3 + 2 * (3 * draws[:, 6:8]).astype(int)  # (B, 2): 3, 5 or 7
    blur, median = (kernel_sizes * (draws[:, 8:10] < (augmentation.blur, augmentation.median_blur))).T
    low, high = augmentation.dropout_size
    sides = np.round((low + (high - low) * draws[:, 10:12]) * input_size)  # (B, 2)
    sides *= draws[:, 12:13] < augmentation.dropout
    corner = np.floor(draws[:, 13:15] * (input_size - sides + 1))  # (B, 2)
    return Jitter(hsv_offsets.astype(int), blur, median, np.hstack([corner, sides]).astype(int))


def apply_photometric(image: np.ndarray, jitter: Jitter, i: int = 0) -> np.ndarray:
    """Apply HSV jitter, blur, median blur and dropout, in this order, to an image (H, W, 3) uint8.

    i: index of the image in `jitter`. The image may be modified in place.
    """
    hue, saturation, value = jitter.hsv_offsets[i]
    blur, median = int(jitter.blur[i]), int(jitter.median[i])
    if hue or saturation or value:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        if hue:  # an angle in steps of two degrees, so it is modulo 180
            table = ((np.arange(256) + hue) % 180).astype(np.uint8)
            cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, 0), table), hsv, 0)
        # NumPy is faster on entire rows than on pixels of three channels.
        offsets = np.tile([0, saturation, value], image.shape[1])  # (W * 3,)
        rows = hsv.reshape(len(image), -1)  # (H, W * 3)
        # Clip before adding, because a sum of bytes would wrap around instead of stopping at 0 and 255.
        low, high = np.maximum(-offsets, 0).astype(np.uint8), np.minimum(255 - offsets, 255).astype(np.uint8)
        np.minimum(np.maximum(rows, low, out=rows), high, out=rows)
        rows += offsets.astype(np.uint8)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if blur:
        image = cv2.blur(image, (blur, blur))
    if median:
        image = cv2.medianBlur(image, median)
    y, x, h, w = jitter.hole[i]
    image[y : y + h, x : x + w] = 0
    return image


def apply_photometric_batch(images: Tensor, jitter: Jitter) -> Tensor:
    """`apply_photometric` for images (B, H, W, 3) uint8 on their device; the same shape."""

    def on_device(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(images.device)

    if jitter.hsv_offsets.any():
        offsets = on_device(jitter.hsv_offsets)[:, :, None, None]  # (B, 3, 1, 1)
        # An image without a change stays as it is, because HSV and back is not exact.
        changed = offsets.any(1)[..., None]  # (B, 1, 1, 1)
        images = torch.where(changed, _shift_hsv(images, offsets), images)
    for sizes, filtered in ((jitter.blur, _mean), (jitter.median, _median)):
        for size in sorted(set(sizes[sizes > 0].tolist())):
            chosen = on_device(np.flatnonzero(sizes == size))  # computed on the CPU to avoid a GPU sync
            images = images.index_copy(0, chosen, filtered(images[chosen], size))
    y, x, h, w = on_device(jitter.hole).T[..., None]  # each (B, 1)
    rows, columns = (torch.arange(size, device=images.device) for size in images.shape[1:3])
    in_rows, in_columns = (rows >= y) & (rows < y + h), (columns >= x) & (columns < x + w)  # (B, H), (B, W)
    return images.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[..., None], 0)


def _shift_hsv(images: Tensor, offsets: Tensor) -> Tensor:
    """Add offsets (B, 3, 1, 1) to hue, saturation and value of images (B, H, W, 3) uint8.

    The ranges are OpenCV's: hue 0 to 180, so a sector of the color circle (60 degrees) is 30.
    """
    red, green, blue = images.float().unbind(-1)  # each (B, H, W)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    hue = torch.where(value == green, 2 * chroma + blue - red, 4 * chroma + red - green)
    hue = torch.where(value == red, green - blue, hue) * 30 / chroma.clamp(min=1)
    hue = (hue.round() + offsets[:, 0]) % 180
    saturation = ((255 * chroma / value.clamp(min=1)).round() + offsets[:, 1]).clamp(0, 255)
    value = (value + offsets[:, 2]).clamp(0, 255)
    channels = []
    # Red, green and blue are each at the maximum in two of the six sectors of the color circle.
    for sector in (5, 3, 1):  # of red, green and blue
        position = (hue / 30 + sector) % 6
        reduction = torch.minimum(position, 4 - position).clamp(0, 1)
        channels.append(value - value * saturation / 255 * reduction)
    return torch.stack(channels, -1).round().byte()  # (B, H, W, 3)


def _mean(images: Tensor, size: int) -> Tensor:
    """Box blur of images (B, H, W, 3) uint8 with a reflected border, as cv2.blur."""
    padded = nn.functional.pad(images.permute(0, 3, 1, 2).float(), [size // 2] * 4, "reflect")
    blurred = nn.functional.avg_pool2d(padded, size, 1)  # (B, 3, H, W)
    return blurred.round().byte().permute(0, 2, 3, 1)  # (B, H, W, 3)


def _median(images: Tensor, size: int) -> Tensor:
    """Median blur of images (B, H, W, 3) uint8 with a repeated border, as cv2.medianBlur."""
    padded = nn.functional.pad(images.permute(0, 3, 1, 2).float(), [size // 2] * 4, "replicate").byte()
    windows = padded.unfold(2, size, 1).unfold(3, size, 1).flatten(4)  # (B, 3, H, W, size * size)
    # The median is the largest value with at most half of the window below it. This bitwise search reads all
    # windows eight times. A sort on a GPU would need a block of threads per window.
    median = torch.zeros_like(windows[..., 0])  # (B, 3, H, W)
    for bit in (128, 64, 32, 16, 8, 4, 2, 1):
        smaller = (windows < (median + bit)[..., None]).sum(-1)
        median = torch.where(smaller <= size * size // 2, median + bit, median)
    return median.permute(0, 2, 3, 1)  # (B, H, W, 3)
