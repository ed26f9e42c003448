"""How far lifted poses are from the truth, in millimeters; every real frame once.

MPJPE and P-MPJPE as in Ionescu et al., TPAMI 2014, and Martinez et al., ICCV 2017; MPJVE as in Pavllo et al.,
CVPR 2019; acceleration error as in Kanazawa et al., CVPR 2019.

1. All are means over all joints, the hip among them, whose error is zero by construction.
2. Velocity and acceleration are per frame, not per second, as printed in the papers; they are taken within a
   clip, never from one to the next.
3. Errors are averaged over the frames of an action's clips, then over the actions. Frames whose truth is not
   known (NaN) count in none, nor does a step from or to one.
"""

from collections.abc import Callable

import torch
from torch import Tensor

MM = 1000.0


def mpjpe(found: Tensor, truth: Tensor) -> Tensor:
    """The mean distance of joints (..., J, 3) in meters, by the frame (...), in mm."""
    return MM * (found - truth).norm(dim=-1).mean(-1)


def procrustes_align(found: Tensor, truth: Tensor) -> Tensor:
    """Poses (..., J, 3) moved, turned and scaled onto the truth, frame by frame, as close as can be.

    Umeyama, TPAMI 1991; a mirror image is not allowed.
    """
    center, other = found.mean(-2, keepdim=True), truth.mean(-2, keepdim=True)
    a, b = found - center, truth - other
    u, s, v = torch.linalg.svd(a.transpose(-2, -1) @ b)  # (..., 3, 3), (..., 3), (..., 3, 3)
    sign = torch.ones_like(s)
    sign[..., -1] = torch.linalg.det(u @ v).sign()
    turn = (u * sign[..., None, :]) @ v
    scale = (s * sign).sum(-1) / a.square().sum((-2, -1)).clamp(min=1e-12)
    return scale[..., None, None] * a @ turn + other


def p_mpjpe(found: Tensor, truth: Tensor) -> Tensor:
    """MPJPE after each frame's best similarity transform, by the frame (...), in mm."""
    return mpjpe(procrustes_align(found, truth), truth)


def mpjve(found: Tensor, truth: Tensor) -> Tensor:
    """The mean error of velocity of clips (..., T, J, 3), by the step (..., T - 1), in mm a frame."""
    return mpjpe(found.diff(dim=-3), truth.diff(dim=-3))


def acceleration_error(found: Tensor, truth: Tensor) -> Tensor:
    """The mean error of acceleration of clips (..., T, J, 3), by the frame (..., T - 2), in mm a frame^2."""
    return mpjpe(found.diff(n=2, dim=-3), truth.diff(n=2, dim=-3))


METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "MPJPE": mpjpe,
    "P-MPJPE": p_mpjpe,
    "MPJVE": mpjve,
    "ACC": acceleration_error,
}


def measure(found: list[Tensor], truth: list[Tensor], actions: list[str]) -> tuple[dict, dict]:
    """Metrics of whole clips (T, J, 3), each frame once: the mean over actions, and each action's own.

    Returns {metric: mm} and {action: {metric: mm}}.
    """
    errors: dict[str, dict[str, list[Tensor]]] = {}
    for pose, true, action in zip(found, truth, actions, strict=True):
        mine = errors.setdefault(action, {name: [] for name in METRICS})
        known = true.isfinite().all(-1).all(-1)  # (T,)
        for name, metric in METRICS.items():
            values = metric(pose, torch.where(known[:, None, None], true, pose))
            span = len(known) - len(values) + 1  # frames that one value is of
            mine[name].append(values[known.unfold(0, span, 1).all(-1)])
    actions_own = {
        action: {name: float(torch.cat(values).mean()) for name, values in mine.items()}
        for action, mine in sorted(errors.items())
    }
    means = {name: sum(own[name] for own in actions_own.values()) / len(actions_own) for name in METRICS}
    return means, actions_own
