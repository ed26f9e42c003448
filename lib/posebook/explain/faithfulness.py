"""What an attribution is worth: checks that a map can fail.

Infidelity and sensitivity: Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019,
definitions 2.1 and 3.1. Deletion and insertion: Petsiuk et al., "RISE", BMVC
2018, section 3.2. Pointing game: Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016,
section 4.2.

Maps are (B, H, W): a number a pixel, of whatever scale, as explain/attribution.py makes them; the target
and its bins too are explain/attribution.py's. What is taken away takes the mean picture's gray, 0 in
normalized space.

1. Infidelity takes squares away, the same in all colors, and fits one factor a map before it compares: a
   map's scale (Grad-CAM's means nothing) is not held against it. It is divided by the mean square of what the
   target lost, so that 0 is a map that foretells every loss and 1 one that foretells nothing. Captum's,
   divided so, is the same number; here all maps share the forward passes.
2. Deletion and insertion take blocks of `block` pixels, by the map's sum in them: single pixels in order of a
   gradient find the net's blind spots, not its reasons. Curves are scaled from the gray picture (0) to the
   whole one (1), insertion starts from the gray picture too.
3. The pointing game's hit is a maximum, smoothed over a block, within `radius` pixels of the joint.
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
    """Take squares of `window` pixels at random places away, the same from all pictures (B, 3, H, W).

    Returns where they were, (samples, H, W) of 1 and 0, and what the target lost by each, (B, samples).
    """
    draw = torch.Generator().manual_seed(seed)
    height, width = images.shape[-2:]
    taken = torch.zeros(samples, height, width, device=images.device)
    for one in taken:  # squares may hang over the edge, so that all pixels are taken alike
        row, column = (int(torch.randint(1 - window, side, (), generator=draw)) for side in (height, width))
        one[max(0, row) : row + window, max(0, column) : column + window] = 1
    whole = target(images, bins)
    lost = [whole - target(images * (1 - one), bins) for one in taken]
    return taken, torch.stack(lost, 1)  # (samples, H, W), (B, samples)


def infidelity(maps: Tensor, taken: Tensor, lost: Tensor) -> Tensor:
    """How badly maps foretell what `squares` found, (B,): 0 exactly, 1 no better than a map of zeros."""
    told = torch.einsum("bhw,shw->bs", maps, taken)  # (B, samples): the map's sum in each square
    factor = (told * lost).sum(1, keepdim=True) / told.square().sum(1, keepdim=True).clamp(min=1e-12)
    return (factor * told - lost).square().sum(1) / lost.square().sum(1)


def sensitivity(
    explain: Callable[[Tensor], Tensor],
    images: Tensor,
    maps: Tensor,
    radius: float = 0.05,
    samples: int = 4,
    seed: int = 0,
) -> Tensor:
    """How far maps (B, H, W) move, over their norm, when a picture's numbers move by up to `radius`: (B,).

    explain: pictures (B, 3, H, W) to maps, those of `images` given. The largest of `samples` tries (captum's
    sensitivity_max, which would make the given ones again); 0 is a map that holds.
    """
    draw = torch.Generator().manual_seed(seed)
    moves = [(2 * torch.rand(images.shape, generator=draw) - 1) * radius for _ in range(samples)]
    moved = [(explain(images + move.to(images)) - maps).flatten(1).norm(dim=1) for move in moves]  # (B,) each
    return torch.stack(moved).amax(0) / maps.flatten(1).norm(dim=1)


@torch.no_grad()
def deletion_insertion(
    target: JointTarget, images: Tensor, bins: Tensor, maps: Tensor, block: int = 8, steps: int = 16
) -> tuple[Tensor, Tensor]:
    """Deletion and insertion, each (B, steps + 1): the target while blocks go, or come, highest first.

    0 is the target of the gray picture and 1 that of the whole one; the area under a curve is its mean.
    """
    height, width = images.shape[-2:]
    sums = F.avg_pool2d(maps[:, None], block, ceil_mode=True)[:, 0]  # (B, h, w)
    rank = sums.flatten(1).argsort(1, descending=True).argsort(1)  # (B, h w): 0 is the highest
    first = rank.view(len(maps), 1, *sums.shape[1:]).float() / rank.shape[1]  # (B, 1, h, w), in [0, 1)
    first = F.interpolate(first, scale_factor=block)[..., :height, :width]  # (B, 1, H, W)
    shares = torch.linspace(0, 1, steps + 1).tolist()
    without = torch.stack([target(images * (first >= share), bins) for share in shares], 1)  # (B, steps + 1)
    only = torch.stack([target(images * (first < share), bins) for share in shares], 1)
    gray, whole = only[:, :1], without[:, :1]
    return (without - gray) / (whole - gray), (only - gray) / (whole - gray)


def pointing_game(maps: Tensor, points: Tensor, radius: float, block: int = 8) -> Tensor:
    """Whether each map's maximum, smoothed over a block, is within `radius` of its point (B, 2): (B,)."""
    around = block // 2
    smooth = F.avg_pool2d(maps[:, None], 2 * around + 1, 1, around, count_include_pad=False)  # (B, 1, H, W)
    peak = smooth.flatten(1).argmax(1)  # (B,)
    found = torch.stack([peak % maps.shape[-1], peak // maps.shape[-1]], 1)  # (B, 2)
    return (found - points).norm(dim=1) <= radius


def mass_in_mask(maps: Tensor, mask: Tensor) -> Tensor:
    """How much of the positive attribution lies where mask (B, H, W) is true: (B,); nan where none is."""
    gain = maps.clamp(min=0)
    return (gain * mask).sum((1, 2)) / gain.sum((1, 2))


def rank_correlation(maps: Tensor, others: Tensor) -> list[float]:
    """Spearman's correlation of every map with another net's, without signs; 0 where a map is constant."""
    pairs = zip(maps.abs().cpu().numpy(), others.abs().cpu().numpy(), strict=True)
    return [float(spearmanr(a, b, axis=None).statistic) if np.ptp(a) and np.ptp(b) else 0.0 for a, b in pairs]
