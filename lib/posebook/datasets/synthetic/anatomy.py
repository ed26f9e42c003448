"""Body proportions, joint ranges and poses of the synthetic people.

Proportions: R. Drillis and R. Contini, Body Segment Parameters (New York University, 1966): segment lengths
as fractions of stature, as printed in D. A. Winter, Biomechanics and Motor Control of Human Movement,
figure 4.1.
Joint ranges: American Academy of Orthopaedic Surgeons, Joint Motion: Method of Measuring and Recording
(1965).

Choices that the sources do not specify:
1. The table lists outer breadths. The joint centers lie inside the body: the shoulder at 0.104 and the hip at
   0.048 of stature from the midline. Girths, the trunk profile and the head shape are set by hand.
2. Children have the limb proportions of adults and a larger head. A raised arm lifts its shoulder, because
   the scapula rotates.
"""

from typing import Any

import numpy as np

# Drillis and Contini (1966): lengths and heights as fractions of stature.
TABLE = {
    "foot_height": 0.039, "shank": 0.246, "thigh": 0.245, "upper_arm": 0.186, "forearm": 0.146, "hand": 0.108,
    "foot_length": 0.152, "head": 0.130, "hip_height": 0.530, "shoulder_height": 0.818, "chin_height": 0.870,
    "eye_height": 0.936, "shoulder_breadth": 0.259, "hip_breadth": 0.191,
}  # fmt: skip
SHOULDER, HIP = 0.104, 0.048  # distance of the joint center from the midline, fraction of stature
# Trunk at rest for men and women, (2, 15, 4): height, half width, depth in front of and behind the spine, all
# as fractions of stature.
TRUNK = np.array([
    [[.470, .012, .010, .012], [.482, .060, .040, .050], [.505, .086, .052, .068], [.530, .094, .057, .070],
     [.565, .090, .058, .060], [.600, .083, .058, .052], [.630, .080, .058, .050], [.670, .085, .062, .056],
     [.720, .096, .067, .064], [.760, .104, .064, .066], [.790, .108, .054, .062], [.812, .100, .042, .054],
     [.828, .066, .034, .046], [.840, .042, .032, .039], [.850, .035, .031, .036]],
    [[.470, .012, .010, .012], [.482, .064, .040, .054], [.505, .092, .052, .074], [.530, .099, .057, .076],
     [.565, .092, .057, .064], [.600, .078, .053, .050], [.630, .070, .050, .046], [.670, .075, .058, .052],
     [.720, .085, .080, .058], [.760, .092, .064, .060], [.790, .097, .050, .056], [.812, .092, .039, .050],
     [.828, .058, .031, .042], [.840, .036, .028, .034], [.850, .030, .027, .032]],
])  # fmt: skip
# Limbs: position (0 proximal joint, 1 middle joint, 2 distal joint), half width, front depth, back depth.
LEG = np.array([
    [-.16, .012, .012, .012], [-.10, .040, .040, .042], [0, .050, .050, .054], [.25, .049, .051, .052],
    [.6, .042, .044, .043], [.88, .034, .036, .035], [1, .033, .037, .032], [1.12, .031, .032, .034],
    [1.32, .032, .029, .041], [1.55, .028, .026, .034], [1.8, .021, .021, .023], [2, .020, .021, .023],
    [2.1, .020, .020, .021]])  # fmt: skip
ARM = np.array([
    [-.13, .003, .003, .003], [-.11, .013, .014, .014], [-.06, .022, .024, .024], [.02, .028, .031, .031],
    [.2, .031, .034, .032], [.5, .027, .031, .029], [.85, .023, .024, .024], [1, .023, .022, .024],
    [1.2, .027, .024, .024], [1.5, .023, .021, .020], [1.85, .017, .014, .014],
    [2.04, .016, .012, .012]])  # fmt: skip
# Head, relative to its center: height, half width, front depth, back depth.
HEAD = np.array([
    [.065, .002, .002, .002], [.0635, .014, .016, .018], [.060, .022, .026, .028], [.048, .035, .040, .046],
    [.028, .0425, .049, .056], [.004, .0440, .0505, .058], [-.015, .0430, .0495, .050],
    [-.032, .0395, .049, .036], [-.046, .034, .048, .022], [-.057, .025, .046, .010],
    [-.0635, .012, .038, .002], [-.065, .002, .028, -.010]])  # fmt: skip
SIDES = {"left": 1, "right": -1}  # and the sign of their x in the body's frame
PAIRED = {
    "shoulder_flex": (-60, 180), "shoulder_abduct": (-30, 180), "shoulder_rotate": (-70, 90),
    "elbow": (0, 150), "forearm_rotate": (-80, 80), "wrist": (-70, 80), "hip_flex": (-30, 120),
    "hip_abduct": (-30, 45), "hip_rotate": (-45, 45), "knee": (0, 135), "ankle": (-20, 50),
}  # fmt: skip
ARM_ANGLES = ("shoulder_flex", "shoulder_abduct", "shoulder_rotate", "elbow", "forearm_rotate", "wrist")
# Joint ranges in degrees. Flexion, abduction, outward rotation and plantar flexion are positive.
LIMITS = {
    "spine_flex": (-25, 80), "spine_side": (-35, 35), "spine_twist": (-45, 45),
    "neck_flex": (-45, 45), "neck_side": (-45, 45), "neck_twist": (-60, 60),
    **{f"{side}_{name}": limits for side in SIDES for name, limits in PAIRED.items()},
}  # fmt: skip

# Mean angles in degrees. Arms: shoulder flexion, abduction, outward rotation, elbow flexion.
# Legs: hip flexion, hip abduction, knee flexion.
ARMS = {
    "hang": (4, 11, 0, 14), "akimbo": (-12, 48, -42, 92), "raised": (158, 14, 0, 18),
    "out": (6, 84, 10, 14), "wave": (6, 88, 80, 82), "reach": (80, 10, 0, 20), "folded": (34, 4, -52, 104),
    "face": (58, 14, -12, 136), "pocket": (-16, 20, -18, 46), "hold": (22, 8, -24, 82),
    "lap": (32, 8, -16, 48), "throw": (-14, 104, 78, 84), "swing_front": (44, 8, -12, 94),
    "swing_back": (-44, 14, 0, 88), "head": (128, 42, 10, 128),
    "walk_front": (24, 8, -6, 26), "walk_back": (-24, 10, 0, 18), "down": (64, 10, 0, 12),
}  # fmt: skip
LEGS = {
    "straight": (1, 5, 4), "relaxed": (10, 9, 22), "walk_front": (26, 3, 10), "walk_back": (-17, 3, 26),
    "run_front": (66, 3, 82), "run_back": (-16, 3, 42), "sit": (86, 9, 84), "squat": (104, 20, 122),
    "lunge_front": (78, 6, 80), "lunge_back": (-16, 5, 24), "kneel": (-4, 5, 96), "kick": (72, 6, 18),
    "tuck": (42, 12, 88), "astride": (4, 34, 8), "raised": (74, 12, 92), "fours": (88, 6, 90),
    "long": (80, 12, 22),
}  # fmt: skip
# Pose families: sampling weight; names from ARMS for one arm and for the other; names from LEGS for one leg
# and for the other; mean pelvis pitch and spine flexion (degrees); factor of all standard deviations; mean
# height of the lowest point above the floor (meters).
FAMILIES: dict[str, tuple[int, str, str, str, str, float, float, float, float]] = {
    "stand": (18, "hang hang hang pocket akimbo hold folded face", "hang hang pocket akimbo hold folded",
              "straight", "straight relaxed astride", 0, 2, 1, 0),
    "walk": (16, "walk_back hang hold", "walk_front walk_front face", "walk_front", "walk_back", 2, 3, 1, 0),
    "run": (10, "swing_back", "swing_front", "run_front", "run_back", 8, 8, 1.2, 0.06),
    "sit": (10, "lap hold face hang", "lap hold folded reach", "sit", "sit sit long", -4, 8, 1, 0),
    "squat": (5, "reach hold lap down", "reach hold lap", "squat", "squat", 28, 16, 1, 0),
    "arms up": (8, "raised raised head out", "raised head wave out", "straight", "relaxed astride",
                0, -3, 1.2, 0),
    "wave": (7, "wave", "hang pocket akimbo", "straight", "relaxed straight", 0, 0, 1, 0),
    "jump": (7, "raised out swing_front", "raised out swing_back", "tuck astride run_back",
             "tuck astride straight", 4, 4, 1.4, 0.35),
    "bend": (6, "down reach", "down lap", "straight relaxed", "relaxed straight", 42, 28, 1, 0),
    "lunge": (6, "out reach akimbo", "out reach raised", "lunge_front", "lunge_back", 6, 6, 1, 0),
    "throw": (6, "throw", "reach out", "lunge_back relaxed", "walk_front lunge_front", 4, 2, 1.2, 0),
    "kick": (5, "out swing_back", "out swing_front", "kick", "straight relaxed", -6, 4, 1.2, 0),
    "balance": (4, "out raised", "out raised akimbo", "raised", "straight", 0, 0, 1.2, 0),
    "kneel": (4, "lap reach hold", "down lap hold", "lunge_front", "kneel", 2, 6, 1, 0),
    "fours": (2, "reach", "reach", "fours", "fours", 78, 8, 0.8, 0),
    "floor": (3, "hang lap", "hang lap", "long tuck", "long tuck", -14, 16, 1, 0),
}  # fmt: skip


def sample_pose(rng: np.random.Generator, family: str | None = None) -> dict[str, Any]:
    """A random pose within the joint ranges, of a given or a random family.

    Returns the angles of LIMITS and the pelvis `pitch` in degrees, `lift` in meters (height of the lowest
    point above the floor), and the name of the `family`.
    """
    names = list(FAMILIES)
    weights = np.array([FAMILIES[name][0] for name in names], float)
    family = family or names[rng.choice(len(names), p=weights / weights.sum())]
    _, *styles, pitch, bend, spread, lift = FAMILIES[family]
    pitch += rng.normal(0, 4)

    def vary(mean: float, deviation: float) -> float:
        return rng.normal(mean, deviation * spread)

    angles = {"spine_flex": vary(bend, 6), "spine_side": vary(0, 5), "spine_twist": vary(0, 9)}
    # The head partly compensates for the pitch of the pelvis.
    angles |= {"neck_flex": vary(4 - 0.6 * pitch, 11), "neck_side": vary(0, 7), "neck_twist": vary(0, 24)}
    sides = ["left", "right"] if rng.random() < 0.5 else ["right", "left"]
    for side, arm_styles, leg_styles in zip(sides, styles[:2], styles[2:], strict=True):
        arm = ARMS[rng.choice(arm_styles.split())]
        leg = LEGS[rng.choice(leg_styles.split())]
        for name, mean, deviation in zip(ARM_ANGLES, (*arm, -10, 8), (10, 6, 12, 11, 30, 16), strict=True):
            angles[f"{side}_{name}"] = vary(mean, deviation)
        flex, knee = vary(leg[0], 6) + pitch, abs(vary(leg[2], 7))
        angles |= {f"{side}_hip_flex": flex, f"{side}_knee": knee, f"{side}_hip_abduct": vary(leg[1], 3)}
        angles[f"{side}_hip_rotate"] = vary(9, 9)
        # A foot that may bear weight is level. A foot in the air is plantar-flexed.
        ankle = flex - knee - pitch if leg[0] > -10 and not lift else 26
        angles[f"{side}_ankle"] = vary(ankle, 4)
    pose = {name: float(min(max(value, LIMITS[name][0]), LIMITS[name][1])) for name, value in angles.items()}
    return pose | {"family": family, "pitch": pitch, "lift": lift * rng.uniform(0.3, 1.6)}


def rotation(axis: str, degrees: float) -> np.ndarray:
    """Rotation matrix (3, 3) about the axis "x", "y" or "z", right-handed."""
    angle = np.radians(degrees)
    c, s = np.cos(angle), np.sin(angle)
    if axis == "x":
        return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
    if axis == "y":
        return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def rotate(frame: np.ndarray, **degrees: float) -> np.ndarray:
    """Turn a frame (3, 3) about its own axes in the order of the arguments: rotate(frame, x=90, z=45)."""
    for axis, angle in degrees.items():
        frame = frame @ rotation(axis, angle)
    return frame


def smoothstep(x: np.ndarray) -> np.ndarray:
    """3x^2 - 2x^3 of x clipped to [0, 1]: a step with zero slope at both ends."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)
