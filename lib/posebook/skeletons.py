"""Keypoint sets: names, left-right pairs, limbs, OKS sigmas and colors; the known ones, and one's own.

Sources: COCO (Lin et al., ECCV 2014; sigmas of the COCO keypoint evaluation), CrowdPose (Li et al., CVPR
2019; sigmas of its official evaluation), MPII (Andriluka et al., CVPR 2014; sigmas as mmpose lists them),
Leeds Sports Pose Extended (Johnson and Everingham, CVPR 2011).

1. LSPET is scored by PCK and publishes no sigmas: ours is None.
2. The upper body (used by half-body augmentation) is every joint from the shoulders up and the arms.
3. One's own joints have the sigmas their file gives, or all the mean of COCO's, 0.067; no upper body.
"""

import re
from dataclasses import asdict, dataclass

from posebook.utils import unknown_name_error

LEFT, RIGHT, MIDDLE = "#d1603d", "#2f6690", "#0b7a75"


@dataclass(frozen=True)
class Skeleton:
    """A keypoint set. Indices count from 0 in the order of `keypoints`."""

    name: str
    keypoints: tuple[str, ...]  # K names
    limbs: tuple[tuple[int, int], ...]  # pairs of joints a drawing connects
    upper_body: tuple[int, ...]
    sigmas: tuple[float, ...] | None  # K per-joint deviations of the OKS, None where the set has none

    @property
    def flip_pairs(self) -> tuple[tuple[int, int], ...]:
        """(left, right) index pairs that a mirror exchanges, found by name."""
        index = {name: i for i, name in enumerate(self.keypoints)}
        return tuple((i, index[mirrored(name)]) for name, i in index.items() if side(name) == "left")

    @property
    def flip_indices(self) -> list[int]:
        """Where to read each joint from in a mirrored picture; its own inverse."""
        order = list(range(len(self.keypoints)))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return order

    @property
    def colors(self) -> tuple[str, ...]:
        """One color a joint: the person's left, right, and the middle line."""
        colors = {"left": LEFT, "right": RIGHT, "": MIDDLE}
        return tuple(colors[side(name)] for name in self.keypoints)


_SIDE = re.compile(r"(?i:left|right)|(?<![a-zA-Z])[lrLR](?![a-zA-Z])")  # left_knee, kneeRight, L.knee, knee_r
_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}


def side(name: str) -> str:
    """'left' or 'right' as a joint's name says it, '' for one of the middle."""
    found = _SIDE.search(name)
    return {"l": "left", "r": "right"}[found.group()[0].lower()] if found else ""


def mirrored(name: str) -> str:
    """The name of the joint that a mirror puts in this one's place; the name itself for one of the middle."""

    def exchange(found: re.Match) -> str:
        word = found.group()
        other = _OTHER[word.lower()]
        return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other

    return _SIDE.sub(exchange, name, count=1)


def _limbs(keypoints: tuple[str, ...], spec: str) -> tuple[tuple[int, int], ...]:
    """Parse 'a-b c-d'; an 'l.' prefix stands for both sides."""
    pairs = []
    for limb in spec.split():
        for side in ("left_", "right_") if "l." in limb else ("",):
            pairs.append(tuple(keypoints.index(joint) for joint in limb.replace("l.", side).split("-")))
    return tuple(pairs)


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

_ARMS_AND_LEGS = "l.shoulder-l.elbow l.elbow-l.wrist l.hip-l.knee l.knee-l.ankle "

SKELETONS = {
    "coco": Skeleton(
        "coco",
        _COCO,
        _limbs(
            _COCO,
            _ARMS_AND_LEGS + "left_hip-right_hip left_shoulder-right_shoulder l.shoulder-l.hip "
            "left_eye-right_eye nose-l.eye l.eye-l.ear l.ear-l.shoulder",
        ),
        tuple(range(11)),
        _COCO_SIGMAS,
    ),
    "crowdpose": Skeleton(
        "crowdpose",
        _CROWDPOSE,
        _limbs(_CROWDPOSE, _ARMS_AND_LEGS + "head-neck neck-l.shoulder l.shoulder-l.hip left_hip-right_hip"),
        (0, 1, 2, 3, 4, 5, 12, 13),
        (*_COCO_SIGMAS[5:], 0.079, 0.079),
    ),
    "mpii": Skeleton(
        "mpii",
        _MPII,
        _limbs(
            _MPII,
            _ARMS_AND_LEGS
            + "pelvis-l.hip pelvis-thorax thorax-l.shoulder thorax-upper_neck upper_neck-head_top",
        ),
        tuple(range(7, 16)),
        _MPII_SIGMAS,
    ),
    "lspet": Skeleton(
        "lspet",
        _LSPET,
        _limbs(_LSPET, _ARMS_AND_LEGS + "head_top-neck neck-l.shoulder l.shoulder-l.hip left_hip-right_hip"),
        tuple(range(6, 14)),
        None,
    ),
}


def get(name: str) -> Skeleton:
    """Return the skeleton called `name`; raises ValueError naming the near ones."""
    if name not in SKELETONS:
        raise unknown_name_error(name, SKELETONS, "skeleton")
    return SKELETONS[name]


def make_skeleton(
    name: str, keypoints: list[str], limbs: list[list[int]], sigmas: list[float] | None
) -> Skeleton:
    """A skeleton of one's own. limbs: pairs that count from 0; sigmas: None for the default.

    Raises ValueError for names that repeat, a left joint without its right one, limbs or sigmas that do not
    fit.
    """
    names = tuple(keypoints)
    if not names or not all(isinstance(joint, str) and joint for joint in names):
        raise ValueError(f"{name}: the joints' names are {keypoints}, not texts")
    if len(set(names)) != len(names):
        raise ValueError(f"{name}: a joint's name appears twice in {', '.join(names)}")
    alone = [joint for joint in names if mirrored(joint) not in names]
    if alone:
        raise ValueError(f"{name}: {alone[0]} has no {mirrored(alone[0])} to change places with in a mirror")
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
    return Skeleton(name, names, tuple(map(tuple, limbs)), (), tuple(map(float, sigmas)))


def describe(skeleton: Skeleton) -> str | dict:
    """What a weights file says of its joints: a known set's name, or the set itself."""
    return skeleton.name if SKELETONS.get(skeleton.name) == skeleton else asdict(skeleton)


def from_description(facts: str | dict) -> Skeleton:
    """The skeleton that `describe` told of."""
    if isinstance(facts, str):
        return get(facts)
    return make_skeleton(facts["name"], facts["keypoints"], facts["limbs"], facts["sigmas"])


def joint_difference(found: tuple[str, ...], wanted: tuple[str, ...]) -> str | None:
    """How one order of joints differs from another, in words; None where it does not."""
    for place, (a, b) in enumerate(zip(found, wanted, strict=False)):
        if a != b:
            return f"joint {place} is {a}, not {b}"
    return f"{len(found)} joints, not {len(wanted)}" if len(found) != len(wanted) else None
