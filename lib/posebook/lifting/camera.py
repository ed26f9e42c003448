"""A pinhole camera: from the world to pixels and to what a lifter is given, and back to a root in space.

Units are meters and pixels; camera axes are x right, y down, z forward.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """One view. Rotation (3, 3) takes world to camera axes; translation (3,) is the world's origin there."""

    rotation: np.ndarray
    translation: np.ndarray
    size: tuple[int, int]  # (height, width) of its pictures
    focal: np.ndarray | None = None  # (2,) pixels; None where nobody measured it
    center: np.ndarray | None = None  # (2,) x, y in pixels
    radial: tuple[float, ...] = ()  # of r^2, r^4, r^6
    tangential: tuple[float, float] = (0.0, 0.0)

    def intrinsics(self) -> tuple[np.ndarray, np.ndarray]:
        """Focal lengths and center; raises ValueError where the camera has none."""
        if self.focal is None or self.center is None:
            raise ValueError(
                "this camera has no intrinsics (focal length and center): poses can be lifted, "
                "but neither projected nor placed in the room; give Camera(focal=..., center=...)"
            )
        return np.asarray(self.focal), np.asarray(self.center)

    def see(self, world: np.ndarray) -> np.ndarray:
        """World points (..., 3) in camera axes."""
        return world @ np.asarray(self.rotation).T + self.translation

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) in camera axes to pixels (..., 2), lens distortion included."""
        focal, center = self.intrinsics()
        xy = points[..., :2] / points[..., 2:]
        r2 = (xy**2).sum(-1, keepdims=True)
        bend = 1 + sum(k * r2 ** (power + 1) for power, k in enumerate(self.radial))
        p = np.array(self.tangential[::-1])  # as OpenCV counts them
        xy = xy * (bend + 2 * (xy * p).sum(-1, keepdims=True)) + p * r2
        return xy * focal + center

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """The directions x/z, y/z (..., 2) that pixels (..., 2) look along, distortion left aside."""
        focal, center = self.intrinsics()
        return (pixels - center) / focal

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) as lifters take them: x from -1 to 1 across the picture, y on the same scale."""
        height, width = self.size
        return pixels / width * 2 - np.array([1, height / width])


def solve_root(pose: Tensor, rays: Tensor, weights: Tensor | None = None) -> Tensor:
    """Where a pose must be to be seen as it was: the root (..., 3) in camera axes, meters.

    pose (..., J, 3) relative to its root; rays (..., J, 2) as `Camera.rays` gives them; weights (..., J).
    A joint p + r is seen at u where (p + r)_xy = u (p + r)_z, which is linear in r: least squares over the
    joints, a 3 x 3 system a frame. No ground truth is asked.
    """
    u, z = rays, pose[..., 2:]
    weights = torch.ones_like(u[..., :1]) if weights is None else weights[..., None]
    # rows (1, 0, -u_x) and (0, 1, -u_y) of each joint, against u z - xy
    eye = torch.eye(2, dtype=pose.dtype, device=pose.device).expand(*u.shape[:-1], 2, 2)
    rows = torch.cat([eye, -u[..., None]], -1)  # (..., J, 2, 3)
    wanted = u * z - pose[..., :2]  # (..., J, 2)
    normal = (weights[..., None, None] * rows[..., :, :, None] * rows[..., :, None, :]).sum((-4, -3))
    right = (weights[..., None] * rows * wanted[..., None]).sum((-3, -2))  # (..., 3)
    return torch.linalg.solve(normal, right)
