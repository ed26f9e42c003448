"""A pinhole camera: world to pixels, pixels to a lifter's input, and the 3D position of a lifted pose.

Units are meters and pixels. Camera axes are x right, y down, z forward.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """One view. Rotation (3, 3) and translation (3,) map world to camera coordinates."""

    rotation: np.ndarray
    translation: np.ndarray
    size: tuple[int, int]  # (height, width) of its images
    focal: np.ndarray | None = None  # (2,) pixels; None if unknown
    center: np.ndarray | None = None  # (2,) x, y in pixels
    radial: tuple[float, ...] = ()  # coefficients of r^2, r^4, r^6
    tangential: tuple[float, float] = (0.0, 0.0)

    def intrinsics(self) -> tuple[np.ndarray, np.ndarray]:
        """Focal lengths and center; raises ValueError if the camera has none."""
        if self.focal is None or self.center is None:
            raise ValueError(
                "this camera has no intrinsics (focal length and center): poses can be lifted, but neither "
                "projected nor located in camera space; give Camera(focal=..., center=...)"
            )
        return np.asarray(self.focal), np.asarray(self.center)

    def world_to_camera(self, world: np.ndarray) -> np.ndarray:
        """World points (..., 3) in camera axes."""
        return world @ np.asarray(self.rotation).T + self.translation

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) in camera axes to pixels (..., 2), with lens distortion."""
        focal, center = self.intrinsics()
        xy = points[..., :2] / points[..., 2:]
        r2 = (xy**2).sum(-1, keepdims=True)
        radial = 1 + sum(k * r2 ** (power + 1) for power, k in enumerate(self.radial))
        p = np.array(self.tangential[::-1])  # OpenCV's p2, p1
        xy = xy * (radial + 2 * (xy * p).sum(-1, keepdims=True)) + p * r2
        return xy * focal + center

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """The viewing directions x/z, y/z (..., 2) of pixels (..., 2); ignores lens distortion."""
        focal, center = self.intrinsics()
        return (pixels - center) / focal

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) as lifters take them: x from -1 to 1 across the image, y on the same scale."""
        height, width = self.size
        return pixels / width * 2 - np.array([1, height / width])


def solve_root(pose: Tensor, rays: Tensor) -> Tensor:
    """The root position (..., 3) in camera axes, meters, at which a pose best matches its 2D joints.

    pose: (..., J, 3) relative to its root; rays: (..., J, 2) from `Camera.rays`. A joint p at root r projects
    to u if (p + r)_xy = u (p + r)_z. This is linear in r: least squares over the joints gives a 3 x 3 system
    per frame. Needs no ground truth.
    """
    # rows (1, 0, -u_x) and (0, 1, -u_y) of each joint, right-hand side u z - xy
    eye = torch.eye(2, dtype=pose.dtype, device=pose.device).expand(*rays.shape[:-1], 2, 2)
    rows = torch.cat([eye, -rays[..., None]], -1)  # (..., J, 2, 3)
    target = rays * pose[..., 2:] - pose[..., :2]  # (..., J, 2)
    normal = (rows[..., :, None] * rows[..., None, :]).sum((-4, -3))  # (..., 3, 3)
    right = (rows * target[..., None]).sum((-3, -2))  # (..., 3)
    return torch.linalg.solve(normal, right)
