"""Human3.6M's seventeen joints as a tree: bones, mirror, graph, and how COCO's joints become these.

Ionescu et al., "Human3.6M", TPAMI 2014; which 17 of its 32 joints, in which order, as all lifters since
Pavllo et al., "3D human pose estimation in video", CVPR 2019, have them. Axes are B, F (frames), J, C.

1. Joint 9 is the nose, called neck in some codes, and joint 10 the top of the head.
2. COCO has no hip, spine, thorax or top of the head: the first three are means of what they lie between, the
   last lies beyond the eyes as far as these are from the nose, twice.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from posebook.skeletons import Skeleton, joint_difference
from posebook.skeletons import get as skeleton_of

_JOINTS = (
    "hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "spine",
    "thorax", "nose", "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow",
    "right_wrist",
)  # fmt: skip
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
BONES = tuple((parent, joint) for joint, parent in enumerate(PARENTS) if parent >= 0)  # 16 pairs
H36M = Skeleton("h36m", _JOINTS, BONES, (), None)


def mirror(x: Tensor | np.ndarray) -> Tensor | np.ndarray:
    """Poses (..., J, C) seen in a mirror: x negated, left and right joints exchanged. Its own inverse."""
    x = x[..., H36M.flip_indices, :]
    sign = [-1.0] + [1.0] * (x.shape[-1] - 1)
    return x * (x.new_tensor(sign) if isinstance(x, Tensor) else np.array(sign, x.dtype))


def bones(pose: Tensor) -> Tensor:
    """The lengths (..., 16) of the bones of poses (..., J, 3), in the order of BONES."""
    parents, joints = zip(*BONES, strict=True)
    return (pose[..., joints, :] - pose[..., parents, :]).norm(dim=-1)


def adjacency(links: Sequence[tuple[int, int]], nodes: int) -> Tensor:
    """A graph (N, N): each node linked to itself by 1, and to its neighbors by shares of another 1."""
    graph = torch.zeros(nodes, nodes)
    for a, b in links:
        graph[a, b] = graph[b, a] = 1.0
    return graph / graph.sum(1, keepdim=True) + torch.eye(nodes)


def from_coco(keypoints: np.ndarray) -> np.ndarray:
    """COCO's joints (..., 17, C), x and y first, as Human3.6M's (..., 17, C); choice 2."""
    index = {name: joint for joint, name in enumerate(skeleton_of("coco").keypoints)}
    part = {name: keypoints[..., joint, :] for name, joint in index.items()}

    def between(name: str) -> np.ndarray:
        return (part[f"left_{name}"] + part[f"right_{name}"]) / 2

    part["hip"], part["thorax"], eyes = between("hip"), between("shoulder"), between("eye")
    part["spine"] = (part["hip"] + part["thorax"]) / 2
    part["head"] = eyes.copy()
    part["head"][..., :2] += 2 * (eyes - part["nose"])[..., :2]
    return np.stack([part[name] for name in _JOINTS], -2)


def check_order(joints: Sequence[str]) -> None:
    """Raise ValueError where joints do not come in Human3.6M's order; offers `from_coco` for COCO's."""
    wrong = joint_difference(tuple(joints), _JOINTS)
    if wrong:
        coco = tuple(joints) == skeleton_of("coco").keypoints
        way = "posebook.lifting.skeleton.from_coco turns COCO's joints into these" if coco else "reorder them"
        raise ValueError(f"lifters take Human3.6M's joints in its order, and here {wrong}: {way}")
