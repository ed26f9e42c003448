"""A posed and dressed person: build and clothes drawn at random, then joints and surfaces."""

from dataclasses import dataclass

import cv2
import numpy as np

from posebook import skeletons
from posebook.datasets.synthetic.anatomy import ARM, HIP, LEG, PAIRED, SHOULDER, SIDES, TABLE, TRUNK, turn
from posebook.datasets.synthetic.parts import foot, hand, head
from posebook.datasets.synthetic.surfaces import (
    HAIRS,
    SKINS,
    Loft,
    blend,
    cloth,
    color,
    crop,
    loft,
    moved,
    rings,
    tint,
    tubes,
)

KEYPOINTS = skeletons.get("coco").keypoints
JOINTS = (*KEYPOINTS, "head", "neck")  # all that a body has: CrowdPose's two as well


@dataclass(frozen=True)
class Person:
    """A posed, dressed body: joints (19, 3) in meters as JOINTS has them, surfaces, its seat if it sits.

    `thickness` is how far cloth and fat lift the surface off the bones, over stature.
    """

    joints: np.ndarray
    lofts: list[Loft]
    stature: float
    seat: tuple | None
    thickness: float


@dataclass(frozen=True)
class Look:
    """Build and clothes. Lengths of sleeves and hems run from 0 (shoulder, hip) to 2 (wrist, ankle)."""

    stature: float
    girth: float
    shape: float
    head: float
    skin: np.ndarray
    hair: np.ndarray
    style: str
    shirt: tuple
    lower: tuple
    sleeve: float
    hem: float
    skirt: bool
    waist: float
    loose: float
    shoe: np.ndarray
    beard: bool
    glasses: bool
    neckline: float


def sample_look(rng: np.random.Generator) -> Look:
    """A random build (one person in seven a child) and outfit."""
    woman, child = rng.random() < 0.5, rng.random() < 0.14
    stature = (
        rng.uniform(1.05, 1.5) if child else rng.normal(1.64, 0.065) if woman else rng.normal(1.77, 0.07)
    )
    patterns = ["plain"] * 7 + ["hoops", "pinstripe", "check", "block", "dots", "blotch", "band"]
    skirt = woman and rng.random() < 0.3
    lower = color(rng, 0.7)
    if rng.random() < 0.4:
        lower = np.array([0.16, 0.22, 0.34]) * rng.uniform(0.5, 1.9)
    return Look(
        stature=stature,
        girth=float(np.clip(rng.normal(1.02, 0.09), 0.86, 1.32)),
        shape=0.3 * rng.random() if child or not woman else rng.uniform(0.75, 1),
        head=1 + max(0, 1.55 - stature) * 0.55,
        skin=SKINS[rng.integers(len(SKINS))] * rng.uniform(0.92, 1.05),
        hair=HAIRS[rng.choice(8, p=[0.28, 0.22, 0.16, 0.12, 0.09, 0.04, 0.06, 0.03])],
        style=str(
            rng.choice(
                ["short", "long", "tail", "bun", "bob", "cap", "scarf"],
                p=[0.2, 0.26, 0.2, 0.1, 0.12, 0.06, 0.06],
            )
            if woman
            else rng.choice(["short", "bald", "cap", "crop", "bob"], p=[0.5, 0.1, 0.17, 0.17, 0.06])
        ),
        shirt=(color(rng), str(rng.choice(patterns))),
        lower=(lower, str(rng.choice(["plain"] * 8 + ["pinstripe", "check", "dots", "blotch"]))),
        sleeve=float(rng.choice([0.02, 0.48, 0.6, 1.5, 1.93], p=[0.1, 0.25, 0.2, 0.08, 0.37])),
        hem=rng.uniform(0.35, 0.8) if rng.random() < 0.25 else 1.95,
        skirt=skirt,
        waist=float(rng.choice([0.555, 0.53, 0.605, 0.63])),
        loose=rng.uniform(0.2, 1.3),
        shoe=color(rng, 0.7),
        beard=not woman and not child and rng.random() < 0.3,
        glasses=rng.random() < 0.15,
        neckline=rng.uniform(0.815, 0.845),
    )


def limbs(points, upper, lower, table, hems, colors_at, size, relief) -> list[Loft]:
    """A pair of limbs through three joints each (2, 3, 3), upper and lower frames (2, 3, 3).

    `table` as LEG or ARM; colors from colors_at(positions along the limb).
    """
    at = np.linspace(table[0, 0], table[-1, 0], 22)
    at = np.sort(np.concatenate([at, table[:2, 0] + 0.01, *[[h - 0.012, h + 0.012] for h in hems]]))
    bone, before = np.maximum(at, 0)[:, None], np.minimum(at, 0)[:, None]
    weight = np.clip((at - 1) / 0.3 + 0.5, 0, 1)
    weight = weight * weight * (3 - 2 * weight)
    centers = [
        np.where(bone < 1, a + bone * (b - a), b + (bone - 1) * (c - b)) + before * (b - a)
        for a, b, c in points
    ]
    frames = [blend(first, second, weight) for first, second in zip(upper, lower, strict=True)]
    grids, normals = tubes(
        np.stack(centers), np.stack(frames), rings(table, at) * size, relief=relief[: len(at), :17]
    )
    rows = np.interp(np.linspace(0, len(at) - 1, 64), np.arange(len(at)), at)
    colors = np.ascontiguousarray(colors_at(rows), np.float32)
    return [Loft(grid, normal, colors) for grid, normal in zip(grids, normals, strict=True)]


def dressed(table, hem, thickness, flare) -> np.ndarray:
    """Thickens a limb's table by cloth down to `hem`, looser (by flare) towards it."""
    at = np.sort(np.concatenate([table[:, 0], [hem - 0.011, hem + 0.011]]))
    radii = rings(table, at)
    grow = thickness * np.clip((at + 0.15) * 3, 0.1, 1) + flare * np.clip(at / max(hem, 0.3), 0, 1)
    return np.column_stack([at, radii + (grow * (at < hem))[:, None]])


def person(rng: np.random.Generator, look: Look, pose: dict, yaw: float = 0.0, place=(0.0, 0.0)) -> Person:
    """Forward kinematics and surfaces of one body on (or, jumping, over) the floor at `place` (x, z)."""
    tall = look.stature
    pelvis = turn("y", yaw) @ turn("x", pose["pitch"])
    relief = 0.05 * look.loose * cv2.resize(crop(rng, "noise", (64, 48)), (48, 48))
    cover = 0.004 + 0.007 * look.loose

    # Trunk: rings follow a spine that turns smoothly from the pelvis to the chest.
    heights = np.sort(np.append(HEIGHTS, look.waist + np.array([-0.004, 0.004])))
    bend = np.clip((heights - 0.555) / 0.16, 0, 1)
    bend = bend * bend * (3 - 2 * bend)
    twisted = turn("y", pose["spine_twist"]) @ turn("z", -pose["spine_side"]) @ turn("x", pose["spine_flex"])
    vector = cv2.Rodrigues(twisted)[0][:, 0]
    bends, level = np.unique(bend, return_inverse=True)
    turned = pelvis @ np.stack([cv2.Rodrigues(vector * w)[0] for w in bends])[level]
    steps = np.diff(heights, prepend=heights[0])[:, None] * turned[:, :, 1]
    spine = np.cumsum(steps, 0)
    spine -= np.array([np.interp(TABLE["hip_height"], heights, column) for column in spine.T])
    spine *= tall
    chest = turned[-1]

    def on_spine(height):
        return np.array([np.interp(height, heights, column) for column in spine.T])

    shirt = cloth(rng, *look.shirt)[::-1]
    lower = cloth(rng, *look.lower)
    trunk_relief = cv2.resize(relief, (25, len(heights))) * 0.5 * (heights < 0.80)[:, None]
    lofts = [
        loft(
            spine, turned, trunk_profile(look, heights, cover) * tall,
            trunk_paint(look, heights, shirt, lower), around=25, power=0.85, relief=trunk_relief,
        )
    ]  # fmt: skip

    # Joints of arms and legs, and the frames of their segments.
    joints, frames = {}, {}
    for side, sign in SIDES.items():
        angle = {name: pose[f"{side}_{name}"] for name in PAIRED}
        raised = max(angle["shoulder_abduct"], angle["shoulder_flex"], 0) / 180
        shoulder = on_spine(TABLE["shoulder_height"] - 0.012) + chest @ [
            sign * (SHOULDER * (1 - 0.06 * look.shape) - 0.012 * raised) * tall,
            (0.012 + 0.04 * max(0, raised - 0.3)) * tall,
            0,
        ]
        upper = chest @ turn("x", -angle["shoulder_flex"]) @ turn("z", sign * angle["shoulder_abduct"])
        upper = upper @ turn("y", sign * angle["shoulder_rotate"])
        fore = upper @ turn("x", -angle["elbow"])
        palm = fore @ turn("y", sign * (angle["forearm_rotate"] - 60)) @ turn("x", -angle["wrist"])
        elbow = shoulder - upper[:, 1] * (TABLE["upper_arm"] * tall)
        wrist = elbow - fore[:, 1] * (TABLE["forearm"] * tall)
        hip = pelvis @ [sign * HIP * (1 + 0.04 * look.shape) * tall, 0, 0]
        thigh = pelvis @ turn("x", -angle["hip_flex"]) @ turn("z", sign * angle["hip_abduct"])
        thigh = thigh @ turn("y", sign * angle["hip_rotate"])
        shank = thigh @ turn("x", angle["knee"])
        knee = hip - thigh[:, 1] * (TABLE["thigh"] * tall)
        ankle = knee - shank[:, 1] * (TABLE["shank"] * tall)
        joints |= {f"{side}_shoulder": shoulder, f"{side}_elbow": elbow, f"{side}_wrist": wrist,
                   f"{side}_hip": hip, f"{side}_knee": knee, f"{side}_ankle": ankle}  # fmt: skip
        frames[side] = upper, fore, palm, thigh, shank, shank @ turn("x", angle["ankle"])
    uppers, fores, palms, thighs, shanks, soles = zip(*frames.values(), strict=True)

    def chain(*names):
        return [[joints[f"{side}_{name}"] for name in names] for side in SIDES]

    # Their surfaces: sleeves and trouser legs are the same on both sides.
    sleeve_cloth, leg_cloth = shirt[:64], lower[:64]
    skin = tint(look.skin, 1 + 0.03 * crop(rng, "noise", (64, 64)))
    hem = -0.2 if look.skirt else look.hem

    def paint_arm(s):
        colors = np.where((s < look.sleeve)[:, None, None], sleeve_cloth, skin)
        colors[abs(s - look.sleeve) < 0.03] *= 1 - 0.25
        return colors

    def paint_leg(s):
        return np.where((s < hem)[:, None, None], leg_cloth, skin)

    thin = (0.9 + 0.1 * (1 - look.shape)) * (0.6 + 0.4 * look.girth)
    arm_table = dressed(ARM * [1, thin, thin, thin], look.sleeve, cover * 0.9, 0.006 * look.loose)
    thick = look.girth * (0.96 + 0.06 * look.shape)
    leg_table = dressed(LEG * [1, thick, thick, thick], hem, cover * 0.7, 0.014 * look.loose)
    arms = limbs(
        chain("shoulder", "elbow", "wrist"), uppers, fores, arm_table, [look.sleeve], paint_arm, tall,
        relief * 0.6,
    )  # fmt: skip
    legs = limbs(
        chain("hip", "knee", "ankle"), thighs, shanks, leg_table, [hem] if hem > 0 else [], paint_leg, tall,
        relief * (hem > 1),
    )  # fmt: skip
    shoe = np.float32([[0.85 if look.shoe.sum() > 0.5 else 0.25] * 3, look.shoe, [0.8] * 3])[foot()[1]]
    gloves = [(part.colors * look.skin).astype(np.float32) for part in hand(1)]
    for number, (side, sign) in enumerate(SIDES.items()):
        lofts.append(arms[number])
        for part, glove in zip(hand(sign), gloves, strict=True):
            lofts.append(moved(part, joints[f"{side}_wrist"], palms[number], tall, glove))
        lofts += [legs[number], moved(foot()[0], joints[f"{side}_ankle"], soles[number], tall, shoe)]
    if look.skirt:
        lofts.append(skirt(joints, thighs, pelvis, look, leg_cloth, relief))

    # Neck and head.
    neck = chest @ turn("x", 0.5 * pose["neck_flex"] + 8)
    skull = (
        chest @ turn("y", pose["neck_twist"]) @ turn("z", -pose["neck_side"]) @ turn("x", pose["neck_flex"])
    )
    middle = (
        on_spine(0.845) + neck[:, 1] * (0.088 + 0.065 * (look.head - 1)) * tall + skull[:, 2] * 0.008 * tall
    )
    bottom = on_spine(0.835) - neck[:, 1] * 0.015 * tall
    top = middle - skull[:, 1] * 0.015 * tall - skull[:, 2] * 0.012 * tall
    width = np.linspace(0.034, 0.031, 8) * (1 - 0.12 * look.shape) * (0.5 + 0.5 * look.girth) * tall
    along = np.linspace(0, 1, 8)
    lofts.append(
        loft(
            bottom + along[:, None] * (top - bottom), blend(chest, skull, along), np.stack([width] * 3, -1),
            np.broadcast_to(look.skin * 0.96, (4, 4, 3)),
        )
    )  # fmt: skip
    surfaces, points = head(rng, middle, skull, look)
    lofts += surfaces
    joints |= points | {"neck": on_spine(0.845)}

    # Set it on the floor by its lowest point; the surfaces become views of one array.
    grid = np.concatenate([part.grid.reshape(-1, 3) for part in lofts])
    shift = np.array([place[0], pose["lift"] - grid[:, 1].min(), place[1]])
    grid = (grid + shift).astype(np.float32)
    ends = np.cumsum([part.grid.shape[0] * part.grid.shape[1] for part in lofts])
    placed = [
        Loft(points.reshape(part.grid.shape), part.normals, part.colors, part.gloss)
        for part, points in zip(lofts, np.split(grid, ends[:-1]), strict=True)
    ]
    seat = (shift[1] - 0.062 * tall * look.girth, yaw) if pose["family"] == "sit" else None
    ordered = np.stack([joints[name] for name in JOINTS]) + shift
    return Person(ordered, placed, tall, seat, 1.6 * cover + 0.09 * max(0, look.girth - 1))


# Of the trunk's rings, over stature, before those at the waist.
HEIGHTS = np.concatenate(
    [np.linspace(0.470, 0.505, 4), np.linspace(0.52, 0.80, 19), np.linspace(0.812, 0.850, 7)]
)


def trunk_profile(look: Look, heights: np.ndarray, cover: float) -> np.ndarray:
    """Half width, depth before and behind the spine (U, 3) over stature, under cloth of thickness `cover`."""
    profile = (1 - look.shape) * rings(TRUNK[0], heights) + look.shape * rings(TRUNK[1], heights)
    girth = 1 + (look.girth - 1) * np.array([1, 1.6, 1.2])
    belly = 1 + max(0, look.girth - 1) * 1.5 * np.exp(-(((heights - 0.62) / 0.06) ** 2))
    profile = profile * np.where(heights[:, None] < 0.8, girth, 1)
    profile[:, 1] *= belly
    loose = cover * np.clip((0.845 - heights) / 0.03, 0, 1) * (1 + 0.5 * (heights > look.waist))
    return profile + loose[:, None]


def trunk_paint(look: Look, heights: np.ndarray, shirt: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Colors (96, 64, 3) of the trunk: shirt over trousers or skirt, and skin above the neckline."""
    rows = np.interp(np.linspace(0, len(heights) - 1, 96), np.arange(len(heights)), heights)
    throat = look.neckline - 0.03 * np.clip(np.sin(np.linspace(0, 2 * np.pi, 64)), 0, 1) ** 4
    paint = np.where((rows > look.waist)[:, None, None], shirt, lower).astype(float)
    paint[rows[:, None] > throat] = look.skin
    paint[abs(rows - look.waist) < 0.003] *= 1 - 0.3
    return paint


def skirt(joints, thighs, pelvis, look, colors, relief) -> Loft:
    """A skirt about both thighs, as long as the hem says (0 hip, 2 ankle)."""
    tall = look.stature
    length = np.clip(look.hem if look.hem < 1 else 0.9 + 0.35 * look.loose, 0.5, 1.35)
    at = np.linspace(-0.25, length, 14)

    def path(side):
        points = np.stack([joints[f"{side}_{name}"] for name in ("hip", "knee", "ankle")])
        return np.stack([np.interp(at, [0, 1, 2], c) for c in points.T], -1)

    left, right = path("left"), path("right")
    turned = blend(pelvis, 0.5 * (thighs[0] + thighs[1]), np.clip((at + 0.1) / 0.4, 0, 1))
    centers = 0.5 * (left + right) + (np.minimum(at, 0) * 0.245 * tall)[:, None] * -pelvis[:, 1]
    apart = 0.5 * np.linalg.norm(left - right, axis=1)
    flare = np.clip(at, 0, None) * 0.030 * look.loose * tall
    stops = [-0.25, 0, 0.4, 1]
    width = apart + np.interp(at, stops, [0.040, 0.058, 0.060, 0.052]) * look.girth * tall + flare
    depth = np.interp(at, stops, [0.068, 0.080, 0.074, 0.062]) * look.girth * tall + flare * 1.2
    depth = depth + abs(((left - right) * turned[:, :, 2]).sum(-1)) / 2 * 0.8
    pleats = 0.05 * np.sin(np.linspace(0, 2 * np.pi, 33) * 8) * np.clip(at, 0, 1)[:, None]
    pleats = pleats + 0.6 * cv2.resize(relief, (33, 14))
    profile = np.stack([width, depth, depth], -1)
    return loft(centers, turned, profile, colors, around=33, relief=pleats)
