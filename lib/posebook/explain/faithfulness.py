"""Checks of attribution maps: whether a map describes what the model really uses.

Infidelity and sensitivity: Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019,
definitions 2.1 and 3.1. Deletion and insertion: Petsiuk et al., "RISE", BMVC 2018, section 3.2. Pointing
game: Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, section 4.2.

Maps are (B, H, W), one number for each pixel at any scale. Maps, targets and bins are those of
explain/attribution.py. Removed pixels get the mean image color, 0 in normalized space.

1. Infidelity removes squares, the same in all colors. It fits one factor for each map before the comparison,
   so that the scale of a map does not count (the scale of Grad-CAM has no meaning). It is divided by the mean
   square of the decreases of the target: 0 is a map that predicts all decreases, 1 one that predicts none.
   captum's infidelity, divided in the same way, is the same number; here all maps share the forward passes.
2. Deletion and insertion remove or add blocks of `block` pixels, in the order of the map's sum in each block.
   Single pixels in the order of a gradient would find adversarial inputs instead of the evidence of the
   model. The curves are scaled from the gray image (0) to the full image (1). Insertion also starts from
   the gray image.
3. The pointing game counts a hit if the maximum of the map, smoothed over a block, is within `radius` pixels
   of the joint.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor

from posebook.explain.attribution import JointTarget


@torch.no_grad()
def random_occlusions(
    target: JointTarget, images: Tensor, bins: Tensor, window: int = 16, samples: int = 64, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Remove squares of `window` pixels at random locations, the same from all images (B, 3, H, W).

    Returns the masks of the squares (samples, H, W), 1 inside and 0 outside, and the decreases of the target
    (B, samples).
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = images.shape[-2:]
    masks = torch.zeros(samples, height, width, device=images.device)
    for mask in masks:
        # squares may extend beyond the border, so that all pixels are removed equally often
        row, column = (
            int(torch.randint(1 - window, length, (), generator=generator)) for length in (height, width)
        )
        mask[max(0, row) : row + window, max(0, column) : column + window] = 1
    full = target(images, bins)  # (B,)
    decreases = [full - target(images * (1 - mask), bins) for mask in masks]
    return masks, torch.stack(decreases, 1)  # (samples, H, W), (B, samples)


def infidelity(maps: Tensor, masks: Tensor, decreases: Tensor) -> Tensor:
    """Infidelity (B,) of maps, from the results of `random_occlusions`.

    0 is a perfect prediction of the decreases; 1 is that of a map of zeros.
    """
    predicted = torch.einsum("bhw,shw->bs", maps, masks)  # (B, samples): the map's sum in each square
    norm = predicted.square().sum(1, keepdim=True).clamp(min=1e-12)  # (B, 1), not 0 for a map of zeros
    factor = (predicted * decreases).sum(1, keepdim=True) / norm  # (B, 1), least squares
    return (factor * predicted - decreases).square().sum(1) / decreases.square().sum(1)


def sensitivity(
    explain: Callable[[Tensor], Tensor], images: Tensor, maps: Tensor, radius: float = 0.05, seed: int = 0
) -> Tensor:
    """Relative change (B,) of maps if each value of an image changes by up to `radius`; 0 is stable.

    explain: computes maps from images (B, 3, H, W). maps (B, H, W): those of `images`. captum's
    sensitivity_max with one random change is the same, but would compute `maps` again. The result is NaN for
    a map of zeros, for which a relative change is undefined.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = (2 * torch.rand(images.shape, generator=generator) - 1) * radius
    change = (explain(images + noise.to(images)) - maps).flatten(1).norm(dim=1)  # (B,)
    norm = maps.flatten(1).norm(dim=1)  # (B,)
    return torch.where(norm > 0, change / norm, torch.nan)


@torch.no_grad()
def deletion_insertion(
    target: JointTarget, images: Tensor, bins: Tensor, maps: Tensor, block: int = 8, steps: int = 16
) -> tuple[Tensor, Tensor]:
    """Deletion and insertion curves (B, steps + 1): the target while blocks are removed or added.

    The blocks with the highest attribution come first. 0 is the target of the gray image and 1 that of the
    full image. The area under a curve is its mean.
    """
    height, width = images.shape[-2:]
    sums = F.avg_pool2d(maps[:, None], block, ceil_mode=True)[:, 0]  # (B, h, w)
    rank = sums.flatten(1).argsort(1, descending=True).argsort(1)  # (B, h w): 0 is the highest
    order = rank.view(len(maps), 1, *sums.shape[1:]).float() / rank.shape[1]  # (B, 1, h, w), in [0, 1)
    order = F.interpolate(order, scale_factor=block)[..., :height, :width]  # (B, 1, H, W)
    shares = torch.linspace(0, 1, steps + 1).tolist()
    deletion = torch.stack([target(images * (order >= share), bins) for share in shares], 1)  # (B, steps + 1)
    insertion = torch.stack([target(images * (order < share), bins) for share in shares], 1)
    gray, full = insertion[:, :1], deletion[:, :1]
    return (deletion - gray) / (full - gray), (insertion - gray) / (full - gray)


def pointing_game(maps: Tensor, points: Tensor, radius: float, block: int = 8) -> Tensor:
    """Whether the maximum of each map, smoothed over a block, is within `radius` of its point (B, 2)."""
    half = block // 2
    smooth = F.avg_pool2d(maps[:, None], 2 * half + 1, 1, half, count_include_pad=False)  # (B, 1, H, W)
    peak = smooth.flatten(1).argmax(1)  # (B,)
    location = torch.stack([peak % maps.shape[-1], peak // maps.shape[-1]], 1)  # (B, 2)
    return (location - points).norm(dim=1) <= radius


def mass_in_mask(maps: Tensor, mask: Tensor) -> Tensor:
    """Share (B,) of the positive attribution inside a mask (B, H, W); NaN if there is none."""
    positive = maps.clamp(min=0)
    return (positive * mask).sum((1, 2)) / positive.sum((1, 2))


def concentration(maps: Tensor, points: Tensor, members: Tensor, radius: float, stride: int = 1) -> Tensor:
    """How many times more of a map lies near points than in a uniform map: (B,), NaN without points.

    maps (B, h, w), not negative; cell i is centered on pixel stride * i. points (B, K, 2) as (x, y) in
    pixels; members (B, K): which of them count. Near is within `radius` pixels.
    """
    rows, columns = torch.meshgrid(*map(torch.arange, maps.shape[1:]), indexing="ij")
    cells = stride * torch.stack([columns, rows], -1).to(points)  # (h, w, 2)
    distance = (cells - points[:, :, None, None]).norm(dim=-1)  # (B, K, h, w)
    near = ((distance < radius) & members[..., None, None]).any(1).to(maps)  # (B, h, w)
    return (maps * near).sum((1, 2)) / maps.sum((1, 2)) / near.mean((1, 2))


def rank_correlation(maps: Tensor, others: Tensor) -> list[float]:
    """Spearman's correlation of the absolute values of each pair of maps; 0 if one of them is constant."""
    pairs = zip(maps.abs().cpu().numpy(), others.abs().cpu().numpy(), strict=True)
    return [float(spearmanr(a, b, axis=None).statistic) if np.ptp(a) and np.ptp(b) else 0.0 for a, b in pairs]
