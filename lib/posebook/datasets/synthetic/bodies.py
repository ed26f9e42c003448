"""A posed and dressed person: random build and clothes, joint positions and surfaces."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator

from posebook import skeletons
from posebook.datasets.synthetic.anatomy import (
    ARM,
    HIP,
    LEG,
    PAIRED,
    SHOULDER,
    SIDES,
    TABLE,
    TRUNK,
    rotate,
    rotation,
    smoothstep,
)
from posebook.datasets.synthetic.parts import foot, hand, head
from posebook.datasets.synthetic.surfaces import (
    HAIRS,
    SKINS,
    Loft,
    blend_frames,
    cloth_texture,
    interpolate_table,
    make_loft,
    random_color,
    random_crop,
    resample,
    tint,
    transform_loft,
    tube_surfaces,
)

KEYPOINTS = skeletons.get("coco").keypoints
JOINTS = (*KEYPOINTS, "head", "neck")  # COCO's joints and the two that only CrowdPose has
# Heights of the trunk's rings over stature; two rings at the waist are added.
TRUNK_HEIGHTS = np.concatenate(
    [np.linspace(0.470, 0.505, 4), np.linspace(0.52, 0.80, 19), np.linspace(0.812, 0.850, 7)]
)


@dataclass(frozen=True)
class Person:
    """A posed, dressed body: joints (19, 3) in meters in the order of JOINTS, and surfaces.

    `seat` is the height of the seat in meters and the yaw in degrees if the person sits, else None.
    `thickness` is the distance of the surface from the body that clothes and fat add, over stature.
    """

    joints: np.ndarray
    lofts: list[Loft]
    stature: float
    seat: tuple[float, float] | None
    thickness: float


@dataclass(frozen=True)
class Look:
    """Build and clothes. Lengths of sleeves and hems run from 0 (shoulder, hip) to 2 (wrist, ankle)."""

    stature: float  # meters
    girth: float  # factor, about 1
    trunk_shape: float  # 0 men's table, 1 women's table
    head: float  # factor of the head's size
    skin: np.ndarray
    hair: np.ndarray
    hair_style: str
    shirt: tuple[np.ndarray, str]  # color and pattern
    lower: tuple[np.ndarray, str]  # of trousers or skirt
    sleeve: float
    hem: float
    skirt: bool
    waist: float  # height over stature
    looseness: float
    shoe: np.ndarray
    beard: bool
    glasses: bool
    neckline: float  # height over stature


@dataclass(frozen=True)
class Spine:
    """The trunk axis: heights (U,) at rest over stature, centers (U, 3) in meters, frames (U, 3, 3).

    The origin of the centers is the middle of the hips.
    """

    heights: np.ndarray
    centers: np.ndarray
    frames: np.ndarray

    def at(self, height: float) -> np.ndarray:
        """The point (3,) of the axis at a height over stature at rest."""
        return np.array([np.interp(height, self.heights, column) for column in self.centers.T])


@dataclass(frozen=True)
class Materials:
    """Textures of one person; thickness of the clothes over stature; random `relief` (48, 48) of surfaces."""

    thickness: float
    relief: np.ndarray
    shirt: np.ndarray
    lower: np.ndarray
    skin: np.ndarray


@dataclass(frozen=True)
class Limbs:
    """Joint positions (3,) by name, and the frames (3, 3) of each segment for the left and the right side."""

    joints: dict[str, np.ndarray]
    frames: dict[str, list[np.ndarray]]

    def chains(self, *names: str) -> list[list[np.ndarray]]:
        """The positions of these joints for each side."""
        return [[self.joints[f"{side}_{name}"] for name in names] for side in SIDES]


def sample_look(rng: Generator) -> Look:
    """A random build and outfit; one person in seven is a child."""
    woman, child = rng.random() < 0.5, rng.random() < 0.14
    stature = (
        rng.uniform(1.05, 1.5) if child else rng.normal(1.64, 0.065) if woman else rng.normal(1.77, 0.07)
    )
    patterns = ["plain"] * 7 + ["hoops", "pinstripe", "check", "block", "dots", "blotch", "band"]
    skirt = woman and rng.random() < 0.3
    lower = random_color(rng, 0.7)
    if rng.random() < 0.4:  # denim
        lower = np.array([0.16, 0.22, 0.34]) * rng.uniform(0.5, 1.9)
    styles = {"short": 0.5, "bald": 0.1, "cap": 0.17, "crop": 0.17, "bob": 0.06}
    if woman:
        styles = {"short": 0.2, "long": 0.26, "tail": 0.2, "bun": 0.1, "bob": 0.12, "cap": 0.06}
        styles["scarf"] = 0.06
    # The order of the arguments is the order of the random numbers.
    return Look(
        stature=stature,
        girth=float(np.clip(rng.normal(1.02, 0.09), 0.86, 1.32)),
        trunk_shape=0.3 * rng.random() if child or not woman else rng.uniform(0.75, 1),
        head=1 + max(0, 1.55 - stature) * 0.55,
        skin=SKINS[rng.integers(len(SKINS))] * rng.uniform(0.92, 1.05),
        hair=HAIRS[rng.choice(8, p=[0.28, 0.22, 0.16, 0.12, 0.09, 0.04, 0.06, 0.03])],
        hair_style=str(rng.choice(list(styles), p=list(styles.values()))),
        shirt=(random_color(rng), str(rng.choice(patterns))),
        lower=(lower, str(rng.choice(["plain"] * 8 + ["pinstripe", "check", "dots", "blotch"]))),
        sleeve=float(rng.choice([0.02, 0.48, 0.6, 1.5, 1.93], p=[0.1, 0.25, 0.2, 0.08, 0.37])),
        hem=rng.uniform(0.35, 0.8) if rng.random() < 0.25 else 1.95,
        skirt=skirt,
        waist=float(rng.choice([0.555, 0.53, 0.605, 0.63])),
        looseness=rng.uniform(0.2, 1.3),
        shoe=random_color(rng, 0.7),
        beard=not woman and not child and rng.random() < 0.3,
        glasses=rng.random() < 0.15,
        neckline=rng.uniform(0.815, 0.845),
    )


def person(
    rng: Generator,
    look: Look,
    pose: dict[str, Any],
    yaw: float = 0.0,
    position: tuple[float, float] = (0.0, 0.0),
) -> Person:
    """Forward kinematics and surfaces of one body.

    `pose` is as returned by `anatomy.sample_pose`, `yaw` is in degrees, and `position` is x, z in meters. The
    lowest point of the body is on the floor, or `lift` meters above it.
    """
    pelvis = rotation("y", yaw) @ rotation("x", pose["pitch"])
    materials = sample_materials(rng, look)
    spine = bend_spine(look, pose, pelvis)
    limbs = pose_limbs(look, pose, pelvis, spine)
    lofts = [trunk_loft(look, spine, materials), *limb_lofts(look, limbs, materials)]
    if look.skirt:
        lofts.append(skirt_loft(look, limbs, pelvis, materials))
    surfaces, face_points = neck_and_head(rng, look, pose, spine)
    lofts += surfaces
    joints = limbs.joints | face_points | {"neck": spine.at(0.845)}

    # Move the body so that its lowest point is at the required height; all grids become views of one array.
    points = np.concatenate([loft.grid.reshape(-1, 3) for loft in lofts])  # (N, 3)
    shift = np.array([position[0], pose["lift"] - points[:, 1].min(), position[1]])
    points = (points + shift).astype(np.float32)
    ends = np.cumsum([loft.grid.shape[0] * loft.grid.shape[1] for loft in lofts])
    lofts = [
        Loft(part.reshape(loft.grid.shape), loft.normals, loft.colors, loft.gloss)
        for loft, part in zip(lofts, np.split(points, ends[:-1]), strict=True)
    ]
    seat = (shift[1] - 0.062 * look.stature * look.girth, yaw) if pose["family"] == "sit" else None
    ordered = np.stack([joints[name] for name in JOINTS]) + shift  # (19, 3)
    return Person(
        ordered, lofts, look.stature, seat, 1.6 * materials.thickness + 0.09 * max(0, look.girth - 1)
    )


def sample_materials(rng: Generator, look: Look) -> Materials:
    """Random textures of a given look."""
    relief = 0.05 * look.looseness * cv2.resize(random_crop(rng, "noise", (64, 48)), (48, 48))
    shirt = cloth_texture(rng, *look.shirt)[::-1]
    lower = cloth_texture(rng, *look.lower)
    skin = tint(look.skin, 1 + 0.03 * random_crop(rng, "noise", (64, 64)))
    return Materials(0.004 + 0.007 * look.looseness, relief, shirt, lower, skin)


def bend_spine(look: Look, pose: dict[str, Any], pelvis: np.ndarray) -> Spine:
    """The trunk axis, which turns smoothly from the frame of the pelvis to that of the chest."""
    heights = np.sort(np.append(TRUNK_HEIGHTS, look.waist + np.array([-0.004, 0.004])))
    total = rotation("y", pose["spine_twist"])
    total = rotate(total, z=-pose["spine_side"], x=pose["spine_flex"])
    vector = cv2.Rodrigues(total)[0][:, 0]
    # Most rings share a weight of 0 or 1, so each distinct weight is converted once.
    weights, level = np.unique(smoothstep((heights - 0.555) / 0.16), return_inverse=True)
    frames = pelvis @ np.stack([cv2.Rodrigues(vector * weight)[0] for weight in weights])[level]  # (U, 3, 3)
    steps = np.diff(heights, prepend=heights[0])[:, None] * frames[:, :, 1]
    centers = np.cumsum(steps, 0)
    centers -= Spine(heights, centers, frames).at(TABLE["hip_height"])
    centers *= look.stature
    return Spine(heights, centers, frames)


def pose_limbs(look: Look, pose: dict[str, Any], pelvis: np.ndarray, spine: Spine) -> Limbs:
    """Joint positions and segment frames of arms and legs by forward kinematics."""
    stature, chest = look.stature, spine.frames[-1]
    joints: dict[str, np.ndarray] = {}
    frames: dict[str, list[np.ndarray]] = {}
    for side, sign in SIDES.items():
        angle = {name: pose[f"{side}_{name}"] for name in PAIRED}
        raised = max(angle["shoulder_abduct"], angle["shoulder_flex"], 0) / 180
        shoulder = spine.at(TABLE["shoulder_height"] - 0.012) + chest @ [
            sign * (SHOULDER * (1 - 0.06 * look.trunk_shape) - 0.012 * raised) * stature,
            (0.012 + 0.04 * max(0, raised - 0.3)) * stature,
            0,
        ]
        hip = pelvis @ [sign * HIP * (1 + 0.04 * look.trunk_shape) * stature, 0, 0]
        upper_arm = rotate(chest, x=-angle["shoulder_flex"], z=sign * angle["shoulder_abduct"])
        upper_arm = rotate(upper_arm, y=sign * angle["shoulder_rotate"])
        forearm = rotate(upper_arm, x=-angle["elbow"])
        palm = rotate(forearm, y=sign * (angle["forearm_rotate"] - 60), x=-angle["wrist"])
        thigh = rotate(pelvis, x=-angle["hip_flex"], z=sign * angle["hip_abduct"])
        thigh = rotate(thigh, y=sign * angle["hip_rotate"])
        shank = rotate(thigh, x=angle["knee"])
        sole = rotate(shank, x=angle["ankle"])
        elbow = shoulder - upper_arm[:, 1] * (TABLE["upper_arm"] * stature)
        wrist = elbow - forearm[:, 1] * (TABLE["forearm"] * stature)
        knee = hip - thigh[:, 1] * (TABLE["thigh"] * stature)
        ankle = knee - shank[:, 1] * (TABLE["shank"] * stature)
        joints |= {f"{side}_shoulder": shoulder, f"{side}_elbow": elbow, f"{side}_wrist": wrist,
                   f"{side}_hip": hip, f"{side}_knee": knee, f"{side}_ankle": ankle}  # fmt: skip
        segments = {"upper_arm": upper_arm, "forearm": forearm, "hand": palm, "thigh": thigh, "shank": shank}
        for name, frame in (segments | {"foot": sole}).items():
            frames.setdefault(name, []).append(frame)
    return Limbs(joints, frames)


def trunk_loft(look: Look, spine: Spine, materials: Materials) -> Loft:
    """The trunk from the crotch to the neck, under its clothes."""
    heights = spine.heights
    profile = (1 - look.trunk_shape) * interpolate_table(TRUNK[0], heights)
    profile = profile + look.trunk_shape * interpolate_table(TRUNK[1], heights)  # (U, 3)
    girth = 1 + (look.girth - 1) * np.array([1, 1.6, 1.2])
    belly = 1 + max(0, look.girth - 1) * 1.5 * np.exp(-(((heights - 0.62) / 0.06) ** 2))
    profile = profile * np.where(heights[:, None] < 0.8, girth, 1)
    profile[:, 1] *= belly
    cloth = materials.thickness * np.clip((0.845 - heights) / 0.03, 0, 1) * (1 + 0.5 * (heights > look.waist))
    profile = profile + cloth[:, None]

    # Shirt above the waist, trousers or skirt below, skin above the neckline.
    rows = resample(heights, 96)
    throat = look.neckline - 0.03 * np.clip(np.sin(np.linspace(0, 2 * np.pi, 64)), 0, 1) ** 4
    paint = np.where((rows > look.waist)[:, None, None], materials.shirt, materials.lower).astype(float)
    paint[rows[:, None] > throat] = look.skin
    paint[abs(rows - look.waist) < 0.003] *= 0.7  # belt
    relief = cv2.resize(materials.relief, (25, len(heights))) * 0.5 * (heights < 0.80)[:, None]
    profile = profile * look.stature
    return make_loft(spine.centers, spine.frames, profile, paint, around=25, power=0.85, relief=relief)


def limb_lofts(look: Look, limbs: Limbs, materials: Materials) -> list[Loft]:
    """Arms, hands, legs and shoes. Sleeves and trouser legs are the same on both sides."""
    stature, thickness, skin = look.stature, materials.thickness, materials.skin
    sleeve_cloth, leg_cloth = materials.shirt[:64], materials.lower[:64]
    hem = -0.2 if look.skirt else look.hem  # no trouser leg under a skirt

    def paint_arm(rows: np.ndarray) -> np.ndarray:
        colors = np.where((rows < look.sleeve)[:, None, None], sleeve_cloth, skin)
        colors[abs(rows - look.sleeve) < 0.03] *= 0.75  # seam
        return colors

    def paint_leg(rows: np.ndarray) -> np.ndarray:
        return np.where((rows < hem)[:, None, None], leg_cloth, skin)

    arm_width = (0.9 + 0.1 * (1 - look.trunk_shape)) * (0.6 + 0.4 * look.girth)
    arm_table = add_clothes(ARM * [1, *[arm_width] * 3], look.sleeve, thickness * 0.9, 0.006 * look.looseness)
    leg_width = look.girth * (0.96 + 0.06 * look.trunk_shape)
    leg_table = add_clothes(LEG * [1, *[leg_width] * 3], hem, thickness * 0.7, 0.014 * look.looseness)
    frames = limbs.frames
    arms = limb_pair(
        limbs.chains("shoulder", "elbow", "wrist"), (frames["upper_arm"], frames["forearm"]), arm_table,
        [look.sleeve], paint_arm, stature, materials.relief * 0.6,
    )  # fmt: skip
    legs = limb_pair(
        limbs.chains("hip", "knee", "ankle"), (frames["thigh"], frames["shank"]), leg_table,
        [hem] if hem > 0 else [], paint_leg, stature, materials.relief * (hem > 1),
    )  # fmt: skip
    shoe, zones = foot()
    sole_color = 0.85 if look.shoe.sum() > 0.5 else 0.25
    shoe_colors = np.array([[sole_color] * 3, look.shoe, [0.8] * 3], np.float32)[zones]
    gloves = [(part.colors * look.skin).astype(np.float32) for part in hand(1)]
    lofts = []
    for number, (side, sign) in enumerate(SIDES.items()):
        lofts.append(arms[number])
        wrist, ankle = limbs.joints[f"{side}_wrist"], limbs.joints[f"{side}_ankle"]
        for part, colors in zip(hand(sign), gloves, strict=True):
            lofts.append(transform_loft(part, wrist, frames["hand"][number], stature, colors))
        lofts += [legs[number], transform_loft(shoe, ankle, frames["foot"][number], stature, shoe_colors)]
    return lofts


def add_clothes(table: np.ndarray, hem: float, thickness: float, flare: float) -> np.ndarray:
    """A limb's table, thickened by cloth from the trunk to `hem`; `flare` more at the hem."""
    positions = np.sort(np.concatenate([table[:, 0], [hem - 0.011, hem + 0.011]]))
    radii = interpolate_table(table, positions)
    growth = thickness * np.clip((positions + 0.15) * 3, 0.1, 1)
    growth = growth + flare * np.clip(positions / max(hem, 0.3), 0, 1)
    return np.column_stack([positions, radii + (growth * (positions < hem))[:, None]])


def limb_pair(
    chains: list[list[np.ndarray]],
    frames: tuple[list[np.ndarray], list[np.ndarray]],
    table: np.ndarray,
    hems: list[float],
    paint: Callable[[np.ndarray], np.ndarray],
    stature: float,
    relief: np.ndarray,
) -> list[Loft]:
    """A left and a right limb through three joints each, `chains` (2, 3, 3), in one computation.

    `frames` are those of the proximal and of the distal segments, (2, 2, 3, 3). `table` is like ARM or LEG.
    `hems` are positions that need sharp edges. `paint` returns the colors for positions along the limb.
    """
    positions = np.linspace(table[0, 0], table[-1, 0], 22)
    edges = [[hem - 0.012, hem + 0.012] for hem in hems]
    positions = np.sort(np.concatenate([positions, table[:2, 0] + 0.01, *edges]))
    inside, before = np.maximum(positions, 0)[:, None], np.minimum(positions, 0)[:, None]
    # Positions below 0 extend the first bone backward, into the trunk.
    centers = [
        np.where(inside < 1, a + inside * (b - a), b + (inside - 1) * (c - b)) + before * (b - a)
        for a, b, c in chains
    ]
    weight = smoothstep((positions - 1) / 0.3 + 0.5)  # elbow and knee bend over 0.3 of a bone
    blended = [blend_frames(first, second, weight) for first, second in zip(*frames, strict=True)]
    grids, normals = tube_surfaces(
        np.stack(centers),
        np.stack(blended),
        interpolate_table(table, positions) * stature,
        relief=relief[: len(positions), :17],
    )
    colors = np.ascontiguousarray(paint(resample(positions, 64)), np.float32)
    return [Loft(grid, normal, colors) for grid, normal in zip(grids, normals, strict=True)]


def skirt_loft(look: Look, limbs: Limbs, pelvis: np.ndarray, materials: Materials) -> Loft:
    """A skirt around both thighs down to the hem."""
    stature, girth = look.stature, look.girth
    length = np.clip(look.hem if look.hem < 1 else 0.9 + 0.35 * look.looseness, 0.5, 1.35)
    positions = np.linspace(-0.25, length, 14)
    left, right = (
        np.stack([np.interp(positions, [0, 1, 2], axis) for axis in np.stack(chain).T], -1)
        for chain in limbs.chains("hip", "knee", "ankle")
    )  # (14, 3) each
    thighs = limbs.frames["thigh"]
    frames = blend_frames(pelvis, 0.5 * (thighs[0] + thighs[1]), np.clip((positions + 0.1) / 0.4, 0, 1))
    above = (np.minimum(positions, 0) * TABLE["thigh"] * stature)[:, None]
    centers = 0.5 * (left + right) + above * -pelvis[:, 1]
    apart = 0.5 * np.linalg.norm(left - right, axis=1)
    flare = np.clip(positions, 0, None) * 0.030 * look.looseness * stature
    stops = [-0.25, 0, 0.4, 1]
    width = apart + np.interp(positions, stops, [0.040, 0.058, 0.060, 0.052]) * girth * stature + flare
    depth = np.interp(positions, stops, [0.068, 0.080, 0.074, 0.062]) * girth * stature + flare * 1.2
    depth = depth + abs(((left - right) * frames[:, :, 2]).sum(-1)) / 2 * 0.8  # one leg in front of the other
    pleats = 0.05 * np.sin(np.linspace(0, 2 * np.pi, 33) * 8) * np.clip(positions, 0, 1)[:, None]
    pleats = pleats + 0.6 * cv2.resize(materials.relief, (33, 14))
    profile = np.stack([width, depth, depth], -1)
    return make_loft(centers, frames, profile, materials.lower[:64], around=33, relief=pleats)


def neck_and_head(
    rng: Generator, look: Look, pose: dict[str, Any], spine: Spine
) -> tuple[list[Loft], dict[str, np.ndarray]]:
    """Surfaces of neck and head, and the positions of the face keypoints and the crown."""
    stature, chest = look.stature, spine.frames[-1]
    neck = rotate(chest, x=0.5 * pose["neck_flex"] + 8)
    skull = rotate(chest, y=pose["neck_twist"], z=-pose["neck_side"], x=pose["neck_flex"])
    center = spine.at(0.845) + neck[:, 1] * (0.088 + 0.065 * (look.head - 1)) * stature
    center = center + skull[:, 2] * 0.008 * stature
    bottom = spine.at(0.835) - neck[:, 1] * 0.015 * stature
    top = center - skull[:, 1] * 0.015 * stature - skull[:, 2] * 0.012 * stature
    along = np.linspace(0, 1, 8)
    radius = np.linspace(0.034, 0.031, 8) * (1 - 0.12 * look.trunk_shape) * (0.5 + 0.5 * look.girth) * stature
    neck_loft = make_loft(
        bottom + along[:, None] * (top - bottom), blend_frames(chest, skull, along),
        np.stack([radius] * 3, -1), np.broadcast_to(look.skin * 0.96, (4, 4, 3)),
    )  # fmt: skip
    lofts, points = head(rng, center, skull, look)
    return [neck_loft, *lofts], points
