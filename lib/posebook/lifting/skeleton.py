"""The seventeen Human3.6M joints as a tree: bones, mirroring, graph, and conversion from COCO's joints.

Ionescu et al., "Human3.6M", TPAMI 2014. The choice and order of 17 of its 32 joints is the one that lifters
use since Pavllo et al., "3D human pose estimation in video", CVPR 2019. Axes are B, F (frames), J, C.

1. Joint 9 is the nose, which some codebases call neck. Joint 10 is the top of the head.
2. COCO has no hip center, spine, thorax or top of the head. The first three are means of the joints around
   them. The last lies beyond the midpoint of the eyes, at twice the distance from the nose to this midpoint.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from posebook.skeletons import Skeleton, joint_difference
from posebook.skeletons import get as get_skeleton

Poses = TypeVar("Poses", Tensor, np.ndarray)

_JOINTS = (
    "hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "spine",
    "thorax", "nose", "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow",
    "right_wrist",
)  # fmt: skip
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
BONES = tuple((parent, joint) for joint, parent in enumerate(PARENTS) if parent >= 0)  # 16 pairs
H36M = Skeleton("h36m", _JOINTS, BONES, (), None)


def mirror(x: Poses) -> Poses:
    """Mirror poses (..., J, C): negate x and exchange left and right joints. Its own inverse."""
    x = x[..., H36M.flip_indices, :]
    sign = [-1.0] + [1.0] * (x.shape[-1] - 1)
    return x * (x.new_tensor(sign) if isinstance(x, Tensor) else np.array(sign, x.dtype))


def bones(pose: Tensor) -> Tensor:
    """The bone lengths (..., 16) of poses (..., J, 3), in the order of BONES."""
    parents, joints = zip(*BONES, strict=True)
    return (pose[..., joints, :] - pose[..., parents, :]).norm(dim=-1)


def adjacency(links: Sequence[Sequence[int]], nodes: int) -> Tensor:
    """The adjacency matrix (N, N) of an undirected graph, normalized by rows, plus the identity.

    The row of a node without links is that of the identity.
    """
    graph = torch.zeros(nodes, nodes)
    for a, b in links:
        graph[a, b] = graph[b, a] = 1.0
    return graph / graph.sum(1, keepdim=True).clamp(min=1) + torch.eye(nodes)


def from_coco(keypoints: np.ndarray) -> np.ndarray:
    """Convert COCO joints (..., 17, C), x and y first, to Human3.6M joints (..., 17, C); choice 2."""
    joints = {name: keypoints[..., i, :] for i, name in enumerate(get_skeleton("coco").keypoints)}

    def center(name: str) -> np.ndarray:
        return (joints[f"left_{name}"] + joints[f"right_{name}"]) / 2

    joints["hip"], joints["thorax"], eyes = center("hip"), center("shoulder"), center("eye")
    joints["spine"] = (joints["hip"] + joints["thorax"]) / 2
    joints["head"] = eyes.copy()
    joints["head"][..., :2] += 2 * (eyes - joints["nose"])[..., :2]  # not the score
    return np.stack([joints[name] for name in _JOINTS], -2)


def check_order(joints: Sequence[str]) -> None:
    """Raise ValueError if joints are not in Human3.6M's order; for COCO's joints it suggests `from_coco`."""
    if difference := joint_difference(tuple(joints), _JOINTS):
        is_coco = tuple(joints) == get_skeleton("coco").keypoints
        fix = "convert them with posebook.lifting.skeleton.from_coco" if is_coco else "reorder them"
        raise ValueError(f"lifters need Human3.6M's 17 joints in its order, but {difference}: {fix}")
