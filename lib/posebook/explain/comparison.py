"""Compare attribution methods: their maps for the same joints, six checks, and what the checks show.

1. A check compares a number with a limit; the margin is positive if the map passes:
   infidelity: below that of a random map of the same case;
   insertion: the mean of the insertion curve above that of the deletion curve;
   pointing: the maximum near the joint more often than by chance;
   on the person: a larger share of the positive attribution on the body than the body's share of the crop;
   like shuffled: a rank correlation with the map of the shuffled model below 0.5;
   sensitivity: a relative change below 0.5 if each value of the image changes by up to 0.05.
2. The joints of one person are averaged first. The 95 % interval of a margin is Student's t interval over
   people; a bootstrap of a few people would be too narrow. Pointing is yes or no: its interval is the exact
   binomial one over all cases (Clopper and Pearson, 1934). A method passes or fails a check only if the whole
   interval is on one side of 0; otherwise it is undecided.
3. The random map ("noise") is drawn by no method. It shows what a failure looks like.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from posebook.explain import attribution, faithfulness
from posebook.explain.attribution import JointTarget
from posebook.utils import unknown_name_error

METHODS = ("integrated gradients", "SmoothGrad", "Grad-CAM", "occlusion", "attention")
NOISE = "noise"
POINTING_RADIUS = 0.1  # of the image height
CHECKS = ("infidelity", "insertion", "pointing", "on the person", "like shuffled", "sensitivity")


def attribute(
    target: JointTarget,
    method: str,
    images: Tensor,
    bins: Tensor,
    steps: int = 32,
    batch_size: int = 32,
    layer: str | None = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """Maps (B, H, W) of a method, or new random ones for NOISE, and the convergence delta (B,) if any.

    The parameters are those of the functions in explain/attribution.py. Raises ValueError, with close
    matches, for an unknown method.
    """
    if method == "integrated gradients":
        return attribution.integrated_gradients(target, images, bins, steps, batch_size)
    if method == "SmoothGrad":
        return attribution.smooth_gradients(target, images, bins, samples=steps // 2, seed=seed), None
    if method == "Grad-CAM":
        return attribution.grad_cam(target, images, bins, layer), None
    if method == "occlusion":
        return attribution.occlusion_map(target, images, bins, images.shape[-2] // 8, batch_size), None
    if method == "attention":
        return attribution.rollout_map(target.model, images, bins / target.bins_per_pixel), None
    if method == NOISE:
        return torch.rand(len(images), *images.shape[-2:]).to(images), None
    raise unknown_name_error(method, METHODS, "method")


def check_maps(
    target: JointTarget,
    images: Tensor,
    bins: Tensor,
    maps: Tensor,
    shuffled: Tensor,
    body: Tensor,
    squares: tuple[Tensor, Tensor],
    again: Callable[[Tensor], Tensor],
) -> tuple[pd.DataFrame, tuple[np.ndarray, np.ndarray]]:
    """The numbers of all checks for the maps (B, H, W) of one method and joint, and both curves.

    shuffled: the maps of the model with shuffled weights. body (B, H, W): True on the person. squares: the
    result of faithfulness.random_occlusions. again: computes the maps from images. Returns one row for each
    image, and the deletion and insertion curves (B, steps + 1).
    """
    height = images.shape[-2]
    block = height // 16
    deletion, insertion = faithfulness.deletion_insertion(target, images, bins, maps, block)
    points = bins / target.bins_per_pixel
    columns = {
        "infidelity": faithfulness.infidelity(maps, *squares),
        "deletion": deletion.mean(1),
        "insertion": insertion.mean(1),
        "pointing": faithfulness.pointing_game(maps, points, POINTING_RADIUS * height, block).float(),
        "on the person": faithfulness.mass_in_mask(maps, body),
        "body": body.float().mean((1, 2)),
        "like shuffled": torch.tensor(faithfulness.rank_correlation(maps, shuffled)),
        "sensitivity": faithfulness.sensitivity(again, images, maps),
    }
    table = pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})
    return table, (deletion.cpu().numpy(), insertion.cpu().numpy())


def margins(cases: pd.DataFrame, input_size: tuple[int, int]) -> pd.DataFrame:
    """The margin of each case and check (item 1 of the module docstring).

    cases: rows of `check_maps` with the columns method, joint and person. They must include the method NOISE.
    """
    height, width = input_size
    chance = min(1.0, np.pi * (POINTING_RADIUS * height) ** 2 / (height * width))
    noise = cases[cases["method"] == NOISE].set_index(["joint", "person"])["infidelity"]
    same_case = pd.MultiIndex.from_frame(cases[["joint", "person"]])
    result = cases[["method", "joint", "person"]].copy()
    result["infidelity"] = noise.reindex(same_case).to_numpy() - cases["infidelity"]
    result["insertion"] = cases["insertion"] - cases["deletion"]
    result["pointing"] = cases["pointing"] - chance
    result["on the person"] = cases["on the person"] - cases["body"]
    result["like shuffled"] = 0.5 - cases["like shuffled"]
    result["sensitivity"] = 0.5 - cases["sensitivity"]
    return result


def margin_intervals(cases: pd.DataFrame, input_size: tuple[int, int]) -> pd.DataFrame:
    """(margin, low, high) of each method (rows) and check (columns), with 95 % intervals.

    cases: as for `margins`. low and high are NaN if fewer than two people have a margin.
    """
    table = margins(cases, input_size)
    result: dict[str, dict[str, tuple[float, float, float]]] = {check: {} for check in CHECKS}
    for method, rows in table.groupby("method", sort=False):
        people = rows.groupby("person")[list(CHECKS)].mean()
        for check in CHECKS:
            values = people[check].dropna().to_numpy(float)
            mean, low, high = values.mean() if len(values) else np.nan, np.nan, np.nan
            if check == "pointing":
                hits = cases.loc[rows.index, "pointing"]
                ends = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="exact")
                low, high = mean + ends.low - hits.mean(), mean + ends.high - hits.mean()
            elif len(values) > 1:
                half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
                low, high = mean - half, mean + half
            result[check][str(method)] = (float(mean), float(low), float(high))
    return pd.DataFrame(result)


def verdict(low: float, high: float) -> str:
    """What the interval of a margin shows: passes, fails or undecided."""
    if low > 0:
        return "passes"
    return "fails" if high < 0 else "undecided"
