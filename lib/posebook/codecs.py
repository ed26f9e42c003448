"""Encodes keypoints as training targets and decodes model outputs to keypoints.

SimCC: Li et al., "SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation", ECCV
2022, section 3. The variant with a Gaussian width per axis is from RTMPose (Jiang et al., 2023) and is also
used by StarNet-Pose. Heatmaps: Tompson et al., NeurIPS 2014. The quarter offset is from Newell et al., ECCV
2016. DARK: Zhang et al., "Distribution-Aware Coordinate Representation for Human Pose Estimation", CVPR 2020,
section 3.2.

1. SimCC bin b represents the coordinate b / split_ratio: bin 0 is the center of pixel 0.
2. A joint outside the input also has a target, the tail of its Gaussian. `inside` tells which joints may
   count in a loss: those inside the input. The authors' codes also train on joints up to three standard
   deviations outside.
3. mmpose moves a joint with a score of 0 or less to (-1, -1). We keep its position, so that it can be drawn,
   and so that the sign of the logits has no effect for a model without a bias.
4. DARK for UDP (Huang et al., "The Devil Is in the Details: Delving into Unbiased Data Processing for Human
   Pose Estimation", CVPR 2020) is that of mmpose's UDPHeatmap: the first and the last cell represent the
   first and the last pixel of the input, second differences reach one cell, and border cells are repeated.
5. DARK smooths with OpenCV's Gaussian of 11 cells, whose sigma is 2, as the authors' code does. A peak within
   two cells of the border is not refined, because its second differences are undefined.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class SimCC(NamedTuple):
    """Logits or targets of both axes: x (B, K, Wx), y (B, K, Wy), with Wx = W * split_ratio."""

    x: Tensor
    y: Tensor


def inside(keypoints: Tensor, input_size: tuple[int, int]) -> Tensor:
    """Whether keypoints (..., K, 2) are inside the input's pixels, boolean (..., K). input_size: (H, W)."""
    height, width = input_size
    # A pixel extends half a pixel from its center, and the first center is (0, 0).
    limit = keypoints.new_tensor([width - 0.5, height - 0.5])
    return ((keypoints >= -0.5) & (keypoints < limit)).all(-1)


def encode_simcc(
    keypoints: Tensor,
    input_size: tuple[int, int],
    split_ratio: float = 2.0,
    sigma: tuple[float, float] = (4.9, 5.66),
) -> SimCC:
    """One Gaussian per joint and axis, with peak 1 at the nearest bin (SimCC, equation 5, not normalized).

    keypoints: (..., K, 2) as (x, y) in input pixels. input_size: (H, W). sigma: (x, y) in bins; the default
    is StarNet-Pose's for 256x192. Returns x (..., K, W * split_ratio) and y (..., K, H * split_ratio).
    """
    axes = []
    for axis, size in enumerate((input_size[1], input_size[0])):
        bins = round(size * split_ratio)
        # Each joint's target is a window of one long Gaussian. This is much faster than an exp per bin.
        distance = torch.arange(-2 * bins, 2 * bins, device=keypoints.device, dtype=keypoints.dtype)
        # Below exp(-87), float32 numbers are denormal, and exp takes ten times as long on a CPU.
        gaussian = (-(distance**2) / (2 * sigma[axis] ** 2)).clamp(min=-87).exp()  # (4 * bins,)
        center = (keypoints[..., axis] * split_ratio).round().clamp(-bins, 2 * bins)  # (..., K)
        windows = gaussian.unfold(0, bins, 1)  # (3 * bins + 1, bins); window s has its peak at 2 * bins - s
        axes.append(windows[2 * bins - center.long()])  # (..., K, bins)
    return SimCC(*axes)


def first_maximum(values: Tensor) -> tuple[Tensor, Tensor]:
    """The maxima of values (..., N) and their first indices, each (...). The index of NaN is N - 1.

    Without NaN, these are the results of `values.max(-1)`. Exported files contain this form because OpenVINO
    has no fast operation for the index of a maximum (docs/experiments.md).
    """
    last = values.shape[-1] - 1
    maximum = values.amax(-1)  # (...)
    positions = torch.arange(last + 1, device=values.device, dtype=torch.float32)  # (N,)
    first = torch.where(values == maximum[..., None], positions, float(last)).amin(-1)  # (...)
    return maximum, first.long()


def decode_simcc(simcc: SimCC, split_ratio: float = 2.0) -> tuple[Tensor, Tensor]:
    """The highest bin of each axis: keypoints (B, K, 2) in input pixels, and scores (B, K).

    The score is the smaller of the maxima of the raw outputs of both axes, as in mmpose.
    """
    (score_x, x), (score_y, y) = first_maximum(simcc.x), first_maximum(simcc.y)  # each (B, K)
    return torch.stack([x, y], -1) / split_ratio, torch.minimum(score_x, score_y)


def flip_simcc(simcc: SimCC, flip_indices: list[int]) -> SimCC:
    """Flip back the outputs for a mirrored input: reverse the bins of x, and swap left and right joints.

    A joint at x is at W - 1 - x in the mirrored input, in bin 2 (W - 1 - x). After the reversal, it is in bin
    2x + 1. mmpose has the same offset of half a pixel, and official weights were evaluated with it.
    """
    return SimCC(simcc.x[:, flip_indices].flip(-1), simcc.y[:, flip_indices])


def encode_heatmap(
    keypoints: Tensor, input_size: tuple[int, int], stride: int = 4, sigma: float = 2.0
) -> Tensor:
    """Heatmaps (..., K, h, w) with one Gaussian per joint; h and w are H / stride and W / stride.

    keypoints: (..., K, 2) as (x, y) in input pixels. sigma: in cells. The peak, 1, is at the nearest cell.
    The cell in row i and column j represents the input pixel (x, y) = (stride * j, stride * i), as in the
    HRNet code.
    """
    height, width = input_size[0] // stride, input_size[1] // stride
    center = (keypoints / stride).round()  # (..., K, 2)
    rows = torch.arange(height, device=keypoints.device, dtype=keypoints.dtype)
    columns = torch.arange(width, device=keypoints.device, dtype=keypoints.dtype)
    dx2 = (columns - center[..., 0, None]) ** 2  # (..., K, w)
    dy2 = (rows - center[..., 1, None]) ** 2  # (..., K, h)
    return torch.exp(-(dx2[..., None, :] + dy2[..., :, None]) / (2 * sigma**2))  # (..., K, h, w)


def flip_heatmap(heatmaps: Tensor, flip_indices: list[int], shift: bool = True) -> Tensor:
    """Flip back the heatmaps (B, K, h, w) for a mirrored input: reverse columns, swap left and right joints.

    A cell represents its upper left pixel, so the reversed columns are three quarters of a cell too far left
    (for stride 4). They are moved one cell to the right, and the first column is repeated (SHIFT_HEATMAP in
    the HRNet code). An offset of a quarter cell remains. With UDP, the cells are already aligned: shift is
    False.
    """
    mirrored = heatmaps[:, flip_indices].flip(-1)  # (B, K, h, w)
    if not shift:
        return mirrored
    return torch.cat([mirrored[..., :1], mirrored[..., :-1]], -1)  # (B, K, h, w)


def decode_heatmap(heatmaps: Tensor, stride: int = 4) -> tuple[Tensor, Tensor]:
    """The highest cell, moved by a quarter cell toward its higher neighbor on each axis.

    heatmaps: (B, K, h, w). Returns keypoints (B, K, 2) in input pixels, and scores (B, K), the peak's value.
    """
    height, width = heatmaps.shape[-2:]
    scores, x, y = _peak(heatmaps)  # each (B, K)
    # Toward the higher neighbor, only if both neighbors exist.
    dx = torch.sign(_at(heatmaps, x + 1, y) - _at(heatmaps, x - 1, y)) * ((x > 0) & (x < width - 1))
    dy = torch.sign(_at(heatmaps, x, y + 1) - _at(heatmaps, x, y - 1)) * ((y > 0) & (y < height - 1))
    return torch.stack([x + 0.25 * dx, y + 0.25 * dy], -1) * stride, scores


def _peak(heatmaps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value, column and row of the highest cell of each map (B, K, h, w), each (B, K)."""
    scores, index = first_maximum(heatmaps.flatten(-2))  # (B, K)
    return scores, index % heatmaps.shape[-1], index // heatmaps.shape[-1]


def _at(heatmaps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Values (B, K) at cells x, y (B, K). Cells outside the map have the value of the border cell."""
    height, width = heatmaps.shape[-2:]
    cell = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return heatmaps.flatten(-2).gather(-1, cell[..., None]).squeeze(-1)  # (B, K)


def decode_dark(heatmaps: Tensor, stride: int = 4) -> tuple[Tensor, Tensor]:
    """The highest cell, moved to the peak of a Gaussian fitted to the smoothed map (DARK, equation 9).

    heatmaps: (B, K, h, w). Returns keypoints (B, K, 2) in input pixels, and scores (B, K), the peak's value
    before smoothing.
    """
    height, width = heatmaps.shape[-2:]
    scores, x, y = _peak(heatmaps)  # each (B, K)
    log_maps = _smooth(heatmaps).clamp(min=1e-10).log()  # (B, K, h, w)

    def at(dx: int, dy: int) -> Tensor:
        return _at(log_maps, x + dx, y + dy)

    # First and second derivatives at the peak, by the differences of DARK's code, which reach two cells in xx
    # and yy. Newton's step for the log of a Gaussian leads to its center.
    first_x, first_y = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    xx = (at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4
    yy = (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4
    xy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    valid = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    offset = torch.where(valid[..., None], _newton_step(first_x, first_y, xx, yy, xy), 0.0)  # (B, K, 2)
    return (torch.stack([x, y], -1) + offset) * stride, scores


def decode_udp(heatmaps: Tensor, input_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """As `decode_dark`, for a model that was trained with UDP; choice 4. input_size: (H, W)."""
    scores, x, y = _peak(heatmaps)  # each (B, K)
    maps = _smooth(heatmaps)
    maps = maps * (scores / maps.amax((-2, -1)).clamp(min=1e-12))[..., None, None]
    log_maps = maps.clamp(1e-3, 50).log()  # (B, K, h, w); mmpose's limits

    def at(dx: int, dy: int) -> Tensor:
        return _at(log_maps, x + dx, y + dy)

    first_x, first_y = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    xx = at(1, 0) - 2 * at(0, 0) + at(-1, 0)
    yy = at(0, 1) - 2 * at(0, 0) + at(0, -1)
    xy = (at(1, 1) - at(1, 0) - at(0, 1) + 2 * at(0, 0) - at(-1, 0) - at(0, -1) + at(-1, -1)) / 2
    cells = torch.stack([x, y], -1) + _newton_step(first_x, first_y, xx, yy, xy)  # (B, K, 2)
    (height, width), (rows, columns) = input_size, heatmaps.shape[-2:]
    return cells * cells.new_tensor([(width - 1) / (columns - 1), (height - 1) / (rows - 1)]), scores


def _smooth(heatmaps: Tensor) -> Tensor:
    """Heatmaps (B, K, h, w) after a Gaussian filter; choice 5."""
    offsets = torch.arange(-5, 6, dtype=heatmaps.dtype, device=heatmaps.device)
    weights = torch.softmax(-(offsets**2) / (2 * 2.0**2), 0)  # (11,), a normalized Gaussian
    maps = heatmaps.flatten(0, 1)[:, None]  # (B * K, 1, h, w)
    maps = nn.functional.conv2d(maps, weights[None, None, :, None], padding=(5, 0))
    maps = nn.functional.conv2d(maps, weights[None, None, None, :], padding=(0, 5))
    return maps.reshape(heatmaps.shape)


def _newton_step(first_x: Tensor, first_y: Tensor, xx: Tensor, yy: Tensor, xy: Tensor) -> Tensor:
    """Newton's step (B, K, 2) from first and second derivatives; zero if these have no inverse."""
    determinant = xx * yy - xy**2
    safe = torch.where(determinant != 0, determinant, 1.0)  # avoids a division by zero
    step = torch.stack([xy * first_y - yy * first_x, xy * first_x - xx * first_y], -1) / safe[..., None]
    return torch.where((determinant != 0)[..., None], step, 0.0)
