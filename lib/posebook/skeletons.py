"""Keypoint sets with joint names, left-right pairs, limbs, OKS sigmas and colors: known sets and your own.

Sources: COCO (Lin et al., ECCV 2014; sigmas of the COCO keypoint evaluation), CrowdPose (Li et al., CVPR
2019; sigmas of its official evaluation), MPII (Andriluka et al., CVPR 2014; sigmas as mmpose lists them),
Leeds Sports Pose Extended (Johnson and Everingham, CVPR 2011).

1. LSPET is evaluated with PCK and publishes no sigmas, so they are None.
2. The upper body (for half-body augmentation) consists of the arms and all joints from the shoulders up.
3. Your own joints have the sigmas from their file, or 0.067 for all joints, the mean of COCO's sigmas. They
   have no upper body, because the file does not describe it.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from posebook.utils import check_name

LEFT, RIGHT, MIDDLE = "#d1603d", "#2f6690", "#0b7a75"  # drawing colors of the person's sides


@dataclass(frozen=True)
class Skeleton:
    """A keypoint set. Indices start at 0 and follow the order of `keypoints`."""

    name: str
    keypoints: tuple[str, ...]  # K names
    limbs: tuple[tuple[int, int], ...]  # pairs of joint indices that are connected in drawings
    upper_body: tuple[int, ...]  # joint indices (choice 2); empty if unknown
    sigmas: tuple[float, ...] | None  # K standard deviations for OKS; None if the set has none

    @property
    def flip_pairs(self) -> tuple[tuple[int, int], ...]:
        """Index pairs (left, right) that are swapped in a mirrored image, found by name."""
        counterparts = enumerate(self.flip_indices)
        return tuple((i, j) for i, j in counterparts if side(self.keypoints[i]) == "left")

    @property
    def flip_indices(self) -> list[int]:
        """The index of each joint's counterpart in a mirrored image. The permutation is its own inverse."""
        return [self.keypoints.index(mirrored(name)) for name in self.keypoints]

    @property
    def colors(self) -> tuple[str, ...]:
        """One color per joint: LEFT, RIGHT or MIDDLE."""
        colors = {"left": LEFT, "right": RIGHT, "": MIDDLE}
        return tuple(colors[side(name)] for name in self.keypoints)


_SIDE = re.compile(r"(?i:left|right)|(?<![a-zA-Z])[lrLR](?![a-zA-Z])")  # left_knee, kneeRight, L.knee, knee_r
_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}


def side(name: str) -> str:
    """The side in a joint's name: 'left', 'right', or '' for a joint in the middle."""
    match = _SIDE.search(name)
    return {"l": "left", "r": "right"}[match.group()[0].lower()] if match else ""


def mirrored(name: str) -> str:
    """The name of a joint's left or right counterpart. A joint in the middle keeps its name."""

    def swap(match: re.Match) -> str:
        word = match.group()
        other = _OTHER[word.lower()]
        return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other

    return _SIDE.sub(swap, name, count=1)


def _from_names(
    name: str,
    keypoints: tuple[str, ...],
    limbs: str,
    upper_body: Iterable[int],
    sigmas: tuple[float, ...] | None,
) -> Skeleton:
    """Create a skeleton from joint names. limbs: 'a-b c-d ...', in addition to _ARMS_AND_LEGS.

    The prefix 'l.' stands for both sides: 'nose-l.eye' is 'nose-left_eye nose-right_eye'.
    """
    pairs: list[tuple[int, int]] = []
    for limb in f"{_ARMS_AND_LEGS} {limbs}".split():
        for prefix in ("left_", "right_") if "l." in limb else ("",):
            start, end = limb.replace("l.", prefix).split("-")
            pairs.append((keypoints.index(start), keypoints.index(end)))
    return Skeleton(name, keypoints, tuple(pairs), tuple(upper_body), sigmas)


_COCO = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee",
    "left_ankle", "right_ankle",
)  # fmt: skip
_CROWDPOSE = (*_COCO[5:], "head", "neck")
_MPII = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax",
    "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
    "left_wrist",
)  # fmt: skip
_LSPET = (*_MPII[:6], *_MPII[10:], "neck", "head_top")

_COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
    0.089, 0.089,
)  # fmt: skip
_MPII_SIGMAS = (
    0.089, 0.083, 0.107, 0.107, 0.083, 0.089, 0.026, 0.026, 0.026, 0.026, 0.062, 0.072, 0.179, 0.179, 0.072,
    0.062,
)  # fmt: skip

_ARMS_AND_LEGS = "l.shoulder-l.elbow l.elbow-l.wrist l.hip-l.knee l.knee-l.ankle"

SKELETONS = {
    skeleton.name: skeleton
    for skeleton in (
        _from_names(
            "coco",
            _COCO,
            "left_hip-right_hip left_shoulder-right_shoulder l.shoulder-l.hip left_eye-right_eye nose-l.eye "
            "l.eye-l.ear l.ear-l.shoulder",
            range(11),
            _COCO_SIGMAS,
        ),
        _from_names(
            "crowdpose",
            _CROWDPOSE,
            "head-neck neck-l.shoulder l.shoulder-l.hip left_hip-right_hip",
            (0, 1, 2, 3, 4, 5, 12, 13),
            (*_COCO_SIGMAS[5:], 0.079, 0.079),
        ),
        _from_names(
            "mpii",
            _MPII,
            "pelvis-l.hip pelvis-thorax thorax-l.shoulder thorax-upper_neck upper_neck-head_top",
            range(7, 16),
            _MPII_SIGMAS,
        ),
        _from_names(
            "lspet",
            _LSPET,
            "head_top-neck neck-l.shoulder l.shoulder-l.hip left_hip-right_hip",
            range(6, 14),
            None,
        ),
    )
}


def get(name: str) -> Skeleton:
    """The known skeleton `name`. Raises ValueError with suggestions for an unknown name."""
    check_name(name, SKELETONS, "skeleton")
    return SKELETONS[name]


def make_skeleton(
    name: str, keypoints: list[str], limbs: list[list[int]], sigmas: list[float] | None
) -> Skeleton:
    """Create and check a skeleton. limbs: pairs of indices from 0. sigmas: None for 0.067 (choice 3).

    Raises ValueError for duplicate names, a left or right joint without its counterpart, and limbs or sigmas
    that do not match the joints.
    """
    names = tuple(keypoints)
    if not names or not all(isinstance(joint, str) and joint for joint in names):
        raise ValueError(f"{name}: the joint names are {keypoints}, not strings")
    if len(set(names)) != len(names):
        raise ValueError(f"{name}: a joint name occurs twice in {', '.join(names)}")
    unpaired = [joint for joint in names if mirrored(joint) not in names]
    if unpaired:
        raise ValueError(f"{name}: {unpaired[0]} has no counterpart {mirrored(unpaired[0])}")
    joints = len(names)
    if not all(isinstance(limb, list | tuple) and len(limb) == 2 for limb in limbs) or not all(
        isinstance(end, int) and 0 <= end < joints for limb in limbs for end in limb
    ):
        raise ValueError(f"{name}: limbs are {limbs}, not pairs of the {joints} joints")
    if sigmas is None:
        sigmas = [sum(_COCO_SIGMAS) / len(_COCO_SIGMAS)] * joints
    if (
        not isinstance(sigmas, list | tuple)
        or len(sigmas) != joints
        or not all(isinstance(s, int | float) and s > 0 for s in sigmas)
    ):
        raise ValueError(f"{name}: sigmas are {sigmas}, not a positive number for each of {joints} joints")
    return Skeleton(name, names, tuple((start, end) for start, end in limbs), (), tuple(map(float, sigmas)))


def describe(skeleton: Skeleton) -> str | dict:
    """The form of a skeleton in files: the name of a known skeleton, or all fields of another one."""
    return skeleton.name if SKELETONS.get(skeleton.name) == skeleton else asdict(skeleton)


def from_description(facts: str | dict) -> Skeleton:
    """The inverse of `describe`, for known skeletons and those of `make_skeleton`. Raises their errors."""
    if isinstance(facts, str):
        return get(facts)
    return make_skeleton(facts["name"], facts["keypoints"], facts["limbs"], facts["sigmas"])


def joint_difference(names: tuple[str, ...], expected: tuple[str, ...]) -> str | None:
    """A description of the first difference between two lists of joints, or None if they are equal."""
    for i, (a, b) in enumerate(zip(names, expected, strict=False)):
        if a != b:
            return f"joint {i} is {a}, not {b}"
    return f"{len(names)} joints, not {len(expected)}" if len(names) != len(expected) else None
