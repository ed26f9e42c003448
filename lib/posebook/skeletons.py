"""Keypoint sets: names, left-right pairs, limbs, OKS sigmas and colours.

Sources: COCO (Lin et al., ECCV 2014; sigmas of the COCO keypoint evaluation), CrowdPose (Li et al., CVPR
2019; sigmas of its official evaluation), MPII (Andriluka et al., CVPR 2014; sigmas as mmpose lists them),
Leeds Sports Pose Extended (Johnson and Everingham, CVPR 2011).

1. LSPET is scored by PCK and publishes no sigmas: ours is None.
2. The upper body (used by half-body augmentation) is every joint from the shoulders up and the arms.
"""

from dataclasses import dataclass

from posebook.names import near

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
        return tuple(
            (i, index["right" + name.removeprefix("left")])
            for name, i in index.items()
            if name.startswith("left")
        )

    @property
    def flip_indices(self) -> list[int]:
        """Where to read each joint from in a mirrored picture; its own inverse."""
        order = list(range(len(self.keypoints)))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return order

    @property
    def colours(self) -> tuple[str, ...]:
        """One colour a joint: the person's left, right, and the middle line."""
        side = {"left": LEFT, "right": RIGHT}
        return tuple(side.get(name.split("_")[0], MIDDLE) for name in self.keypoints)


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
_CROWDPOSE = (*_COCO[5:], "head_top", "neck")
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
        _limbs(
            _CROWDPOSE, _ARMS_AND_LEGS + "head_top-neck neck-l.shoulder l.shoulder-l.hip left_hip-right_hip"
        ),
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
        raise near(name, SKELETONS, "skeleton")
    return SKELETONS[name]
