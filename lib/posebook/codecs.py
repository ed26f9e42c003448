"""Targets and their inverses: every encode has its decode, and the two are tested against each other.

SimCC: Li et al., "SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation", ECCV
2022, section 3; the variant with one Gaussian a side is RTMPose's (Jiang et al., 2023), which StarNet-Pose
keeps. Heatmaps: Tompson et al., NeurIPS 2014; the quarter offset is from Newell et al., ECCV 2016; DARK is
Zhang et al., "Distribution-Aware Coordinate Representation for Human Pose Estimation", CVPR 2020, 3.2.

1. A SimCC bin b stands for the coordinate b / split_ratio: bin 0 is the center of pixel 0.
2. A joint outside the input has a target all the same (its Gaussian's tail); `inside` tells which joints
   may count in a loss.
3. mmpose moves a joint whose score is not above 0 to (-1, -1); we keep its position, so that a picture can
   be drawn and a net without a bias is not punished for the sign of its logits.
4. DARK smooths with OpenCV's Gaussian of the given kernel, as its authors' code does: sigma 2 for kernel 11.
   A peak on the border two cells wide stays where it is: it has no second difference.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class SimCC(NamedTuple):
    """Logits or targets of both axes: x (B, K, Wx), y (B, K, Wy), with Wx = W * split_ratio."""

    x: Tensor
    y: Tensor


def inside(keypoints: Tensor, input_size: tuple[int, int]) -> Tensor:
    """Which joints (..., K, 2) lie on the input's pixels; boolean (..., K). `input_size` is (H, W)."""
    height, width = input_size
    limit = keypoints.new_tensor([width - 0.5, height - 0.5])
    return ((keypoints >= -0.5) & (keypoints < limit)).all(-1)


def encode_simcc(
    keypoints: Tensor,
    input_size: tuple[int, int],
    split_ratio: float = 2.0,
    sigma: tuple[float, float] = (4.9, 5.66),
) -> SimCC:
    """One Gaussian a joint and axis, peak 1 at the joint's nearest bin (SimCC, equation 5, not normalized).

    keypoints: (..., K, 2) as (x, y) pixels of the input; input_size: (H, W); sigma: (x, y) in bins.
    Returns x (..., K, W * split_ratio) and y (..., K, H * split_ratio).
    """
    axes = []
    for axis, size in enumerate((input_size[1], input_size[0])):
        bins = round(size * split_ratio)
        # one line of the Gaussian, of which each joint's row is a piece: quicker by far than an exp a bin
        distance = torch.arange(-2 * bins, 2 * bins, device=keypoints.device, dtype=keypoints.dtype)
        line = (-(distance**2) / (2 * sigma[axis] ** 2)).clamp(min=-87).exp()  # (4 bins,); below, no float32
        center = (keypoints[..., axis] * split_ratio).round().clamp(-bins, 2 * bins)  # (..., K)
        axes.append(line.unfold(0, bins, 1)[2 * bins - center.long()])  # (..., K, bins)
    return SimCC(*axes)


def decode_simcc(simcc: SimCC, split_ratio: float = 2.0) -> tuple[Tensor, Tensor]:
    """The fullest bin of each axis: keypoints (B, K, 2) in input pixels and scores (B, K).

    The score is the smaller of the two maxima of the raw outputs, as mmpose has it.
    """
    (score_x, x), (score_y, y) = simcc.x.max(-1), simcc.y.max(-1)  # each (B, K)
    return torch.stack([x, y], -1) / split_ratio, torch.minimum(score_x, score_y)


def flip_simcc(simcc: SimCC, flip_indices: list[int]) -> SimCC:
    """Bring the outputs for a mirrored input back: bins of x reversed, left and right joints exchanged.

    A joint at x lies at W - 1 - x in the mirrored input, in bin 2 (W - 1 - x); reversed, it is read from
    bin 2x + 1. The half pixel is mmpose's, and official weights were measured with it.
    """
    return SimCC(simcc.x[:, flip_indices].flip(-1), simcc.y[:, flip_indices])


def encode_heatmap(
    keypoints: Tensor, input_size: tuple[int, int], stride: int = 4, sigma: float = 2.0
) -> Tensor:
    """One Gaussian a joint on a grid of input_size / stride: (..., K, H / stride, W / stride).

    keypoints: (..., K, 2) as (x, y) pixels of the input; sigma in cells. The peak, 1, sits on the nearest
    cell, cell (i, j) standing for the input pixel (stride * j, stride * i), as in the HRNet code.
    """
    height, width = input_size[0] // stride, input_size[1] // stride
    center = (keypoints / stride).round()  # (..., K, 2)
    rows = torch.arange(height, device=keypoints.device, dtype=keypoints.dtype)
    columns = torch.arange(width, device=keypoints.device, dtype=keypoints.dtype)
    dx2 = (columns - center[..., 0, None]) ** 2  # (..., K, w)
    dy2 = (rows - center[..., 1, None]) ** 2  # (..., K, h)
    return torch.exp(-(dx2[..., None, :] + dy2[..., :, None]) / (2 * sigma**2))  # (..., K, h, w)


def flip_heatmap(heatmaps: Tensor, flip_indices: list[int]) -> Tensor:
    """Bring the heatmaps (B, K, h, w) for a mirrored input back: columns reversed, left and right exchanged.

    A cell stands for its upper left pixel, so that reversed columns lie most of a cell too far left; they are
    moved one to the right, the first one kept (the HRNet code's SHIFT_HEATMAP), which leaves a quarter cell.
    """
    mirrored = heatmaps[:, flip_indices].flip(-1)
    return torch.cat([mirrored[..., :1], mirrored[..., :-1]], -1)  # (B, K, h, w)


def decode_heatmap(heatmaps: Tensor, stride: int = 4) -> tuple[Tensor, Tensor]:
    """The highest cell, moved a quarter cell towards its higher neighbor on each axis.

    heatmaps: (B, K, h, w). Returns keypoints (B, K, 2) in input pixels and scores (B, K), the peak's value.
    """
    height, width = heatmaps.shape[-2:]
    scores, x, y = _peak(heatmaps)  # each (B, K)
    # towards the higher neighbor, and only where both neighbors exist
    dx = torch.sign(_at(heatmaps, x + 1, y) - _at(heatmaps, x - 1, y)) * ((x > 0) & (x < width - 1))
    dy = torch.sign(_at(heatmaps, x, y + 1) - _at(heatmaps, x, y - 1)) * ((y > 0) & (y < height - 1))
    return torch.stack([x + 0.25 * dx, y + 0.25 * dy], -1) * stride, scores


def _peak(heatmaps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The highest cell of each map (B, K, h, w): value, column and row, each (B, K)."""
    scores, index = heatmaps.flatten(-2).max(-1)  # (B, K)
    return scores, index % heatmaps.shape[-1], index // heatmaps.shape[-1]


def _at(heatmaps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Values (B, K) at cells, clamped to the border, so that a border cell has no higher outer neighbor."""
    height, width = heatmaps.shape[-2:]
    cell = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return heatmaps.flatten(-2).gather(-1, cell[..., None]).squeeze(-1)  # (B, K)


def decode_dark(heatmaps: Tensor, stride: int = 4, kernel: int = 11) -> tuple[Tensor, Tensor]:
    """The highest cell, moved to where a Gaussian fitted to the smoothed map has its peak (DARK, equation 9).

    heatmaps: (B, K, h, w); kernel: the smoothing's side in cells. Returns keypoints (B, K, 2) in input pixels
    and scores (B, K), the peak's value before smoothing.
    """
    height, width = heatmaps.shape[-2:]
    scores, x, y = _peak(heatmaps)  # each (B, K)
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8  # OpenCV's for a kernel of this side
    line = torch.arange(kernel, dtype=heatmaps.dtype, device=heatmaps.device) - kernel // 2
    weights = torch.softmax(-(line**2) / (2 * sigma**2), 0)  # (kernel,)
    maps = heatmaps.reshape(-1, 1, height, width)  # (B * K, 1, h, w)
    maps = nn.functional.conv2d(maps, weights[None, None, :, None], padding=(kernel // 2, 0))
    maps = nn.functional.conv2d(maps, weights[None, None, None, :], padding=(0, kernel // 2))
    smooth = maps.reshape(heatmaps.shape).clamp(min=1e-10).log()  # (B, K, h, w)

    def at(dx: int, dy: int) -> Tensor:
        return _at(smooth, x + dx, y + dy)

    first_x, first_y = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    xx = (at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4
    yy = (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4
    xy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    determinant = xx * yy - xy**2
    inner = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2) & (determinant != 0)
    safe = torch.where(inner, determinant, 1.0)
    moved = torch.stack([xy * first_y - yy * first_x, xy * first_x - xx * first_y], -1) / safe[..., None]
    offset = torch.where(inner[..., None], moved, 0.0)  # (B, K, 2)
    return (torch.stack([x, y], -1) + offset) * stride, scores
