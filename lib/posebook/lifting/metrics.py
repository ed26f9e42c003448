"""Errors of lifted poses in millimeters, each frame counted once.

MPJPE and P-MPJPE: Ionescu et al., TPAMI 2014, and Martinez et al., ICCV 2017. MPJVE: Pavllo et al., CVPR
2019. Acceleration error: Kanazawa et al., CVPR 2019.

1. All are means over all joints, including the hip, whose error is zero by construction.
2. Velocity and acceleration are per frame, not per second, as the papers print them. They are computed within
   a clip, never across two clips.
3. Errors are averaged over the frames of an action's clips, then over the actions. Frames with unknown ground
   truth (NaN) are ignored, and so is each velocity or acceleration that needs one of them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

MM = 1000.0  # millimeters per meter


def mpjpe(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean distance of joints (..., J, 3) in meters, for each frame (...), in mm."""
    return MM * (predicted - truth).norm(dim=-1).mean(-1)


def procrustes_align(predicted: Tensor, truth: Tensor) -> Tensor:
    """Align poses (..., J, 3) with the truth by the best similarity transform of each frame.

    Umeyama, TPAMI 1991; reflections are excluded.
    """
    center, truth_center = predicted.mean(-2, keepdim=True), truth.mean(-2, keepdim=True)
    a, b = predicted - center, truth - truth_center
    u, s, v = torch.linalg.svd(a.transpose(-2, -1) @ b)  # (..., 3, 3), (..., 3), (..., 3, 3)
    sign = torch.ones_like(s)
    sign[..., -1] = torch.linalg.det(u @ v).sign()
    rotation = (u * sign[..., None, :]) @ v
    scale = (s * sign).sum(-1) / a.square().sum((-2, -1)).clamp(min=1e-12)
    return scale[..., None, None] * a @ rotation + truth_center


def p_mpjpe(predicted: Tensor, truth: Tensor) -> Tensor:
    """MPJPE after Procrustes alignment, for each frame (...), in mm."""
    return mpjpe(procrustes_align(predicted, truth), truth)


def mpjve(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean velocity error of clips (..., T, J, 3), for each step (..., T - 1), in mm per frame."""
    return mpjpe(predicted.diff(dim=-3), truth.diff(dim=-3))


def acceleration_error(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean acceleration error of clips (..., T, J, 3), for each frame (..., T - 2), in mm per frame^2."""
    return mpjpe(predicted.diff(n=2, dim=-3), truth.diff(n=2, dim=-3))


METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "MPJPE": mpjpe,
    "P-MPJPE": p_mpjpe,
    "MPJVE": mpjve,
    "ACC": acceleration_error,
}


def measure(predicted: list[Tensor], truth: list[Tensor], actions: list[str]) -> tuple[dict, dict]:
    """Metrics of clips (T, J, 3): {metric: mm}, the mean over actions, and {action: {metric: mm}}."""
    errors: dict[str, dict[str, list[Tensor]]] = {}
    for pose, true, action in zip(predicted, truth, actions, strict=True):
        action_errors = errors.setdefault(action, {name: [] for name in METRICS})
        known = true.isfinite().all(-1).all(-1)  # (T,)
        for name, metric in METRICS.items():
            values = metric(pose, torch.where(known[:, None, None], true, pose))
            span = len(known) - len(values) + 1  # frames that one value depends on
            action_errors[name].append(values[known.unfold(0, span, 1).all(-1)])
    by_action = {
        action: {name: float(torch.cat(values).mean()) for name, values in action_errors.items()}
        for action, action_errors in sorted(errors.items())
    }
    means = {name: sum(row[name] for row in by_action.values()) / len(by_action) for name in METRICS}
    return means, by_action
