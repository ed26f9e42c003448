"""The embedded dataset: seeded pictures of articulated people in clutter, in the COCO keypoint layout.

Proportions: R. Drillis and R. Contini, Body Segment Parameters (New York University, 1966), segment
lengths as fractions of stature as drawn in D. A. Winter, Biomechanics and Motor Control of Human
Movement, figure 4.1.
Joint ranges: American Academy of Orthopaedic Surgeons, Joint Motion: Method of Measuring and Recording
(1965).

Choices made where these sources are silent:
1. The table's breadths are outer breadths; joint centres lie inside (shoulder 0.104, hip 0.048 of stature
   from the middle). Girths, the profile of the trunk and the shape of the head are set by hand.
2. Children keep the limb fractions and get a larger head. A raised arm lifts its shoulder (the scapula
   turns).
3. Every surface is a loft: rings along a curve, sampled so densely on the picture that no pixel is
   missed, and kept by a depth buffer (a person's or a pole's); flat things (furniture, leaves, railings)
   are textured quads.
4. Drawn at 1.35 times the resolution and reduced by area. Light is one direction plus sky and ground; its
   shadows come from a depth map seen from the light, so people shade themselves, each other and the room.
5. A joint is seen (v 2) when the surface in front of it is nearer by no more than the flesh and cloth
   around that joint (TOLERANCE, fractions of stature) in most of the nine pixels about it; else hidden (v
   1); outside the picture 0 with x = y = 0. Far hips of a side view are therefore hidden.
6. `area` counts visible pixels; polygons are outer contours, so holes are not cut out. People of whom
   less than MIN_VISIBLE shows (of their own silhouette) or under MIN_AREA pixels carry no annotation.
World: metres, x to the left of a camera that looks along +z, y up. Bodies: x to their left, z to their
front.
"""

import argparse
import json
import multiprocessing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from tqdm.auto import tqdm

from posebook import skeletons

VERSION = "posebook-synthetic-1"
SIZE, SUPERSAMPLE, DENSITY, JPEG_QUALITY = (240, 320), 1.35, 1.25, 92
MIN_VISIBLE, MIN_AREA = 0.15, 120
KEYPOINTS = skeletons.get("coco").keypoints

# ---------------------------------------------------------------- anthropometry
# Drillis and Contini (1966): lengths and heights over stature.
TABLE = {
    "foot_height": 0.039, "shank": 0.246, "thigh": 0.245, "upper_arm": 0.186, "forearm": 0.146, "hand": 0.108,
    "foot_length": 0.152, "head": 0.130, "hip_height": 0.530, "shoulder_height": 0.818, "chin_height": 0.870,
    "eye_height": 0.936, "shoulder_breadth": 0.259, "hip_breadth": 0.191,
}  # fmt: skip
SHOULDER, HIP = 0.104, 0.048
TOLERANCE = np.array([0.02] + [0.014] * 2 + [0.034] * 2 + [0.064] * 2 + [0.042] * 2 + [0.034] * 2
                     + [0.085] * 2 + [0.055] * 2 + [0.045] * 2)  # fmt: skip
# Trunk at rest, men and women: height, half width, depth before and behind the spine, all over stature.
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
# Limbs: position (0 proximal joint, 1 middle joint, 2 distal joint), half width, depth before, depth behind.
LEG = np.array([
    [-.16, .012, .012, .012], [-.10, .040, .040, .042], [0, .050, .050, .054], [.25, .049, .051, .052],
    [.6, .042, .044, .043], [.88, .034, .036, .035], [1, .033, .037, .032], [1.12, .031, .032, .034],
    [1.32, .032, .029, .041], [1.55, .028, .026, .034], [1.8, .021, .021, .023], [2, .020, .021, .023],
    [2.1, .020, .020, .021]])  # fmt: skip
ARM = np.array([
    [-.13, .003, .003, .003], [-.11, .013, .014, .014], [-.06, .022, .024, .024], [.02, .028, .031, .031],
    [.2, .031, .034, .032],
    [.5, .027, .031, .029], [.85, .023, .024, .024], [1, .023, .022, .024], [1.2, .027, .024, .024],
    [1.5, .023, .021, .020], [1.85, .017, .014, .014], [2.04, .016, .012, .012]])  # fmt: skip
# Head about its middle: height, half width, depth before, depth behind.
HEAD = np.array([
    [.065, .002, .002, .002], [.0635, .014, .016, .018], [.060, .022, .026, .028], [.048, .035, .040, .046],
    [.028, .0425, .049, .056], [.004, .0440, .0505, .058], [-.015, .0430, .0495, .050],
    [-.032, .0395, .049, .036], [-.046, .034, .048, .022], [-.057, .025, .046, .010],
    [-.0635, .012, .038, .002], [-.065, .002, .028, -.010]])  # fmt: skip
SIDES = {"left": 1, "right": -1}
_PAIRED = {
    "shoulder_flex": (-60, 180), "shoulder_abduct": (-30, 180), "shoulder_rotate": (-70, 90),
    "elbow": (0, 150),
    "forearm_rotate": (-80, 80), "wrist": (-70, 80), "hip_flex": (-30, 120), "hip_abduct": (-30, 45),
    "hip_rotate": (-45, 45), "knee": (0, 135), "ankle": (-20, 50),
}  # fmt: skip
# Ranges in degrees. Flexion, abduction, outward rotation and plantar flexion count positive.
LIMITS = {
    "spine_flex": (-25, 80), "spine_side": (-35, 35), "spine_twist": (-45, 45),
    "neck_flex": (-45, 45), "neck_side": (-45, 45), "neck_twist": (-60, 60),
    **{f"{side}_{name}": limits for side in SIDES for name, limits in _PAIRED.items()},
}  # fmt: skip

# ---------------------------------------------------------------- pose sampling
# Arms: flexion, abduction, outward rotation, elbow. Legs: flexion, abduction, knee. Means in degrees.
ARMS = {
    "hang": (4, 11, 0, 14), "akimbo": (-12, 48, -42, 92), "raised": (158, 14, 0, 18),
    "out": (6, 84, 10, 14),
    "wave": (6, 88, 80, 82), "reach": (80, 10, 0, 20), "folded": (34, 4, -52, 104),
    "face": (58, 14, -12, 136),
    "pocket": (-16, 20, -18, 46), "hold": (22, 8, -24, 82), "lap": (32, 8, -16, 48),
    "throw": (-14, 104, 78, 84),
    "swing_front": (44, 8, -12, 94), "swing_back": (-44, 14, 0, 88), "head": (128, 42, 10, 128),
    "walk_front": (24, 8, -6, 26), "walk_back": (-24, 10, 0, 18), "down": (64, 10, 0, 12),
}  # fmt: skip
LEGS = {
    "straight": (1, 5, 4), "relaxed": (10, 9, 22), "walk_front": (26, 3, 10), "walk_back": (-17, 3, 26),
    "run_front": (66, 3, 82), "run_back": (-16, 3, 42), "sit": (86, 9, 84), "squat": (104, 20, 122),
    "lunge_front": (78, 6, 80), "lunge_back": (-16, 5, 24), "kneel": (-4, 5, 96), "kick": (72, 6, 18),
    "tuck": (42, 12, 88), "astride": (4, 34, 8), "raised": (74, 12, 92), "fours": (88, 6, 90),
    "long": (80, 12, 22),
}  # fmt: skip
# Families: weight, arms (first side; second side), legs likewise, pelvis pitch, spine flexion, spread, lift.
FAMILIES = {
    "stand": (18, "hang hang hang pocket akimbo hold folded face", "hang hang pocket akimbo hold folded",
              "straight", "straight relaxed astride", 0, 2, 1, 0),
    "walk": (16, "walk_back hang hold", "walk_front walk_front face", "walk_front", "walk_back",
    2, 3, 1, 0),
    "run": (10, "swing_back", "swing_front", "run_front", "run_back", 8, 8, 1.2, 0.06),
    "sit": (10, "lap hold face hang", "lap hold folded reach", "sit", "sit sit long", -4, 8, 1, 0),
    "squat": (5, "reach hold lap down", "reach hold lap", "squat", "squat", 28, 16, 1, 0),
    "arms up": (8, "raised raised head out", "raised head wave out", "straight", "relaxed astride",
    0, -3, 1.2, 0),
    "wave": (7, "wave", "hang pocket akimbo", "straight", "relaxed straight", 0, 0, 1, 0),
    "jump": (7, "raised out swing_front", "raised out swing_back", "tuck astride run_back",
    "tuck astride straight",
             4, 4, 1.4, 0.35),
    "bend": (6, "down reach", "down lap", "straight relaxed", "relaxed straight", 42, 28, 1, 0),
    "lunge": (6, "out reach akimbo", "out reach raised", "lunge_front", "lunge_back", 6, 6, 1, 0),
    "throw": (6, "throw", "reach out", "lunge_back relaxed", "walk_front lunge_front", 4, 2, 1.2, 0),
    "kick": (5, "out swing_back", "out swing_front", "kick", "straight relaxed", -6, 4, 1.2, 0),
    "balance": (4, "out raised", "out raised akimbo", "raised", "straight", 0, 0, 1.2, 0),
    "kneel": (4, "lap reach hold", "down lap hold", "lunge_front", "kneel", 2, 6, 1, 0),
    "fours": (2, "reach", "reach", "fours", "fours", 78, 8, 0.8, 0),
    "floor": (3, "hang lap", "hang lap", "long tuck", "long tuck", -14, 16, 1, 0),
}  # fmt: skip


def sample_pose(rng: np.random.Generator, family: str | None = None) -> dict:
    """A possible pose: the angles of LIMITS in degrees, `family`, pelvis `pitch`, and `lift` in metres."""
    names = list(FAMILIES)
    weights = np.array([FAMILIES[name][0] for name in names], float)
    family = family or names[rng.choice(len(names), p=weights / weights.sum())]
    _, *styles, pitch, bend, spread, lift = FAMILIES[family]
    pitch += rng.normal(0, 4)
    vary = lambda mean, deviation: rng.normal(mean, deviation * spread)  # noqa: E731
    angles = {"spine_flex": vary(bend, 6), "spine_side": vary(0, 5), "spine_twist": vary(0, 9)}
    angles |= {"neck_flex": vary(4 - 0.6 * pitch, 11), "neck_side": vary(0, 7), "neck_twist": vary(0, 24)}
    sides = ["left", "right"] if rng.random() < 0.5 else ["right", "left"]
    for number, side in enumerate(sides):
        arm = ARMS[rng.choice(styles[number].split())]
        leg = LEGS[rng.choice(styles[2 + number].split())]
        flex, abduct, rotate, elbow = arm
        angles[f"{side}_shoulder_flex"] = vary(flex, 10)
        angles[f"{side}_shoulder_abduct"] = vary(abduct, 6)
        angles[f"{side}_shoulder_rotate"] = vary(rotate, 12)
        angles[f"{side}_elbow"] = vary(elbow, 11)
        angles[f"{side}_forearm_rotate"] = vary(-10, 30)
        angles[f"{side}_wrist"] = vary(8, 16)
        flex, knee = vary(leg[0], 6) + pitch, abs(vary(leg[2], 7))
        angles |= {f"{side}_hip_flex": flex, f"{side}_knee": knee, f"{side}_hip_abduct": vary(leg[1], 3)}
        angles[f"{side}_hip_rotate"] = vary(9, 9)
        # A foot that may bear weight lies flat; one in the air points a little.
        flat = flex - knee - pitch if leg[0] > -10 and not lift else 26
        angles[f"{side}_ankle"] = vary(flat, 4)
    pose = {name: float(min(max(value, LIMITS[name][0]), LIMITS[name][1])) for name, value in angles.items()}
    return pose | {"family": family, "pitch": pitch, "lift": lift * rng.uniform(0.3, 1.6)}


# ---------------------------------------------------------------- camera
@dataclass(frozen=True)
class Camera:
    """A pinhole at `position` (metres); the rows of `rotation` are its right, down and forward."""

    position: np.ndarray
    rotation: np.ndarray
    focal: float
    centre: tuple[float, float]

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) -> x, y in pixels (centres at integers) and depth in metres (..., 3)."""
        seen = (points - self.position.astype(points.dtype)) @ self.rotation.T.astype(points.dtype)
        scale = self.focal / np.maximum(seen[..., 2], 0.05)
        seen[..., 0] = seen[..., 0] * scale + self.centre[0]
        seen[..., 1] = seen[..., 1] * scale + self.centre[1]
        return seen

    def rays(self, size: tuple[int, int]) -> np.ndarray:
        """Per pixel the world vector that one metre of depth spans: (H, W, 3)."""
        right, down, forward = self.rotation.astype(np.float32)
        x = (np.arange(size[1], dtype=np.float32) - np.float32(self.centre[0])) / np.float32(self.focal)
        y = (np.arange(size[0], dtype=np.float32) - np.float32(self.centre[1])) / np.float32(self.focal)
        return (x[:, None] * right)[None] + (y[:, None] * down + forward)[:, None]

    def scaled(self, factor: float) -> "Camera":
        """The same view on a picture with `factor` times the pixels a side."""
        x, y = self.centre
        centre = ((x + 0.5) * factor - 0.5, (y + 0.5) * factor - 0.5)
        return Camera(self.position, self.rotation, self.focal * factor, centre)


def look(height: float, pitch: float, roll: float, focal: float, size: tuple[int, int]) -> Camera:
    """A camera above the origin that looks along +z; pitch down and roll in degrees."""
    level = np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
    centre = ((size[1] - 1) / 2, (size[0] - 1) / 2)
    return Camera(np.array([0, height, 0.0]), turn("z", roll) @ turn("x", pitch) @ level, focal, centre)


def turn(axis: str, degrees: float) -> np.ndarray:
    """Rotation matrix (3, 3) about one axis, right-handed."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
    return matrix


# ---------------------------------------------------------------- primitives
@dataclass(frozen=True)
class Loft:
    """A closed surface: points (U, V, 3), ring by ring; normals alike; colours (h, w, 3) in [0, 1]."""

    grid: np.ndarray
    normals: np.ndarray
    colours: np.ndarray
    gloss: float = 0.0


@dataclass(frozen=True)
class Quad:
    """A flat thing: corners (4, 3) in order, normal, picture (h, w, 4) uint8 whose alpha cuts it out."""

    corners: np.ndarray
    normal: np.ndarray
    picture: np.ndarray


def loft(centres, frames, profile, colours, around=17, power=1.0, relief=0.0, gloss=0.0) -> Loft:
    """Rings of half width, front and back depth (U, 3) about centres (U, 3) in frames (U, 3, 3) -> Loft.

    `power` under 1 squares the rings; `relief` (U, around) or a number scales radii by 1 + relief.
    """
    c, ahead, behind = ring_shape(around, power)
    scale = 1 + relief
    side = profile[:, :1] * c * scale
    depth = (profile[:, 1:2] * ahead + profile[:, 2:3] * behind) * scale
    # A frame's columns: x to the side, z to the front. Planes (3, U, around) are quicker than triples.
    frames, planes = frames.transpose(1, 0, 2), centres.T[:, :, None]
    out = side * frames[:, :, :1] + depth * frames[:, :, 2:]
    grid = planes + out
    along, across = np.empty_like(grid), np.empty_like(grid)
    np.subtract(grid[:, 2:], grid[:, :-2], out=along[:, 1:-1])
    along[:, 0], along[:, -1] = grid[:, 1] - grid[:, 0], grid[:, -1] - grid[:, -2]
    np.subtract(grid[:, :, 2:], grid[:, :, :-2], out=across[:, :, 1:-1])
    across[:, :, 0] = across[:, :, -1] = grid[:, :, 1] - grid[:, :, -2]
    (ax, ay, az), (bx, by, bz) = across, along
    normals = np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])
    normals /= np.sqrt(np.einsum("kuv,kuv->uv", normals, normals)) + 1e-12
    if np.vdot(normals, out) < 0:
        normals = -normals
    pack = lambda p: np.ascontiguousarray(p.transpose(1, 2, 0), np.float32)  # noqa: E731
    return Loft(pack(grid), pack(normals), np.ascontiguousarray(colours, np.float32), gloss)


@lru_cache(maxsize=32)
def ring_shape(around: int, power: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit ring: x, z where it is in front, z where it is behind (around,); power under 1 squares it."""
    angle = np.linspace(0, 2 * np.pi, around)
    c, s = np.cos(angle), np.sin(angle)
    c, s = np.sign(c) * abs(c) ** power, np.sign(s) * abs(s) ** power
    return c, np.maximum(s, 0), np.minimum(s, 0)


def rings(table: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Columns 1.. of a table at positions of its first column: (len(at), columns - 1)."""
    order = np.argsort(table[:, 0])
    return np.stack([np.interp(at, table[order, 0], column) for column in table[order, 1:].T], -1)


def box(centre, size, yaw, pictures) -> list[Quad]:
    """Five faces (no bottom) of a box whose floor middle is `centre`; size is width, height, depth."""
    w, h, d = np.array(size) / 2
    frame = turn("y", yaw)
    faces = []
    for number, (axis, u, v) in enumerate([((0, 0, 1), w, d), ((1, 0, 0), d, w), ((0, 0, -1), w, d),
                                           ((-1, 0, 0), d, w)]):  # fmt: skip
        normal = np.array(axis, float)
        across = np.cross([0, 1.0, 0], normal) * u
        up = np.array([0, h, 0])
        middle = normal * v
        faces.append(
            (
                middle - across + up,
                middle + across + up,
                middle + across - up,
                middle - across - up,
                normal,
                pictures[number % len(pictures)],
            )
        )
    top = [np.array(p) for p in ((-w, h, -d), (w, h, -d), (w, h, d), (-w, h, d))]
    faces.append((*top, np.array([0, 1.0, 0]), pictures[0]))
    origin = np.array(centre) + [0, h, 0]
    return [Quad(np.stack(f[:4]) @ frame.T + origin, frame @ f[4], f[5]) for f in faces]


# ---------------------------------------------------------------- surfaces: textures and colours
SKINS = np.array([(255, 224, 196), (241, 194, 160), (224, 172, 125), (198, 134, 88), (150, 98, 62),
(112, 70, 46),
                  (82, 52, 36), (236, 188, 170)]) / 255  # fmt: skip
HAIRS = np.array([(24, 20, 18), (46, 32, 24), (82, 54, 34), (134, 92, 52), (188, 148, 92), (142, 66, 34),
                  (150, 148, 146), (214, 210, 204)]) / 255  # fmt: skip


@lru_cache(maxsize=1)
def library() -> dict:
    """Grey textures (256, 256) about 0, that tile, and noise; the same in every run, whatever the seed."""
    rng = np.random.default_rng(0)

    def noise(cells, octaves=4):
        total = np.zeros((256, 256), np.float32)
        for octave in range(octaves):
            n = min(cells * 2**octave, 256)
            tile = np.pad(rng.normal(size=(n, n)).astype(np.float32), 2, mode="wrap")
            k = 256 // n
            total += (
                cv2.resize(tile, None, fx=k, fy=k, interpolation=cv2.INTER_CUBIC)[
                    2 * k : -2 * k, 2 * k : -2 * k
                ]
                / 2**octave
            )
        return total / total.std()

    y, x = np.mgrid[:256, :256]
    fields = {"noise": noise(4), "soft": noise(4, 2), "speckle": noise(64, 3), "fine": noise(128, 2)}
    fields["streak"] = np.roll(cv2.blur(fields["fine"], (1, 31), borderType=cv2.BORDER_REFLECT), 40, 0) * 3
    board = rng.normal(size=(8, 3))[y // 32, ((x + (y // 32 % 2) * 60) // 86).clip(0, 2)]
    fields["planks"] = board * 0.6 + fields["streak"].T * 0.4 - 2.2 * ((y % 32) < 1.5)
    fields["tiles"] = (
        rng.normal(size=(4, 4))[y // 64, x // 64] * 0.25
        + fields["noise"] * 0.3
        - 2 * ((y % 64 < 2) | (x % 64 < 2))
    )
    shifted = (x + (y // 16 % 2) * 16) % 256
    fields["brick"] = (
        rng.normal(size=(16, 8))[y // 16, shifted // 32] * 0.6
        + fields["speckle"] * 0.4
        - 2.0 * ((y % 16 < 2) | (shifted % 32 < 2))
    )
    fields["check"] = 2.0 * ((y // 64 + x // 64) % 2) - 1 + fields["noise"] * 0.2
    fields["grass"] = fields["streak"] * 0.6 + fields["noise"] * 0.5 + fields["fine"] * 0.4
    fields["asphalt"] = fields["fine"] * 0.6 + fields["noise"] * 0.5
    fields["panel"] = -2.0 * (x % 64 < 2) + 0.25 * fields["streak"]
    fields["stripe"] = 1.2 * ((x // 32) % 2) - 0.6 + 0.1 * fields["fine"]
    fields["grain"] = rng.normal(size=(512, 512, 3)).astype(np.float32)
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in fields.items()}


def crop(rng, name, shape) -> np.ndarray:
    """A random window (h, w) of a library field, h and w at most 256."""
    field_ = library()[name]
    y, x = rng.integers(0, 257 - shape[0]), rng.integers(0, 257 - shape[1])
    return field_[y : y + shape[0], x : x + shape[1]]


def colour(rng, muted=0.5) -> np.ndarray:
    """A random surface colour (3,) in [0, 1]; dull, dark and pale ones are as frequent as strong ones."""
    hue, value = rng.uniform(0, 180), rng.uniform(0.08, 0.95)
    saturation = rng.uniform(0, 0.25) if rng.random() < muted else rng.uniform(0.35, 0.9)
    pixel = np.array([[[hue, saturation * 255, value * 255]]], np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] / 255


def cloth(rng, base, pattern, shape=(64, 64)) -> np.ndarray:
    """Woven colours (h, w, 3): a pattern, and folds as soft light and dark."""
    rows, columns = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)
    second = np.clip(colour(rng), 0.03, 0.95)
    period = rng.integers(6, 18)
    mask = {
        "plain": lambda: 0.0,
        "hoops": lambda: rows // (period / 2) % 2,
        "pinstripe": lambda: columns % 8 < 1,
        "check": lambda: 0.5 * (rows // 5 % 2) + 0.5 * (columns // 5 % 2),
        "block": lambda: rows < shape[0] * 0.72,
        "dots": lambda: (rows % 8 - 4) ** 2 + (columns % 8 - 4) ** 2 < 6,
        "blotch": lambda: crop(rng, "noise", shape) > 0.3,
        "band": lambda: abs(rows - shape[0] * 0.66) < 5,
    }[pattern]() + np.zeros(shape, np.float32)
    base, second = base.astype(np.float32), second.astype(np.float32)
    weave = 1 + 0.05 * crop(rng, "noise", shape) + 0.03 * crop(rng, "fine", shape)
    return (base + mask[..., None].astype(np.float32) * (second - base)) * weave[..., None]


@lru_cache(maxsize=16)
def leaves(kind: int) -> np.ndarray:
    """Cut-out greenery (160, 160, 4) uint8: 0-3 bushes, 4-7 potted plants with long leaves, 8-11 trees."""
    rng = np.random.default_rng(kind)
    image = np.zeros((160, 160, 4), np.uint8)
    green = np.array([rng.uniform(30, 90), rng.uniform(80, 140), rng.uniform(25, 60)])
    if kind >= 8:
        cv2.fillPoly(image, [np.array([[72, 160], [76, 70], [84, 70], [90, 160]])], (84, 62, 46, 255))
    for step in range(60 if 4 <= kind < 8 else 420):
        shade = green * rng.uniform(0.45, 1.35) * (0.7 + 0.5 * step / 420)
        paint = (*np.clip(shade, 0, 255).tolist(), 255)
        if 4 <= kind < 8:
            angle = rng.uniform(-1.2, 1.2)
            tip = np.array([80 + 78 * np.sin(angle), 150 - 140 * np.cos(angle) * rng.uniform(0.5, 1)])
            middle = np.array([80 + 30 * np.sin(angle), 95])
            width = np.array([rng.uniform(3, 7), 0])
            cv2.fillPoly(
                image, [np.array([[80, 158], middle - width, tip, middle + width]).astype(int)], paint
            )
            continue
        radius = np.sqrt(rng.random())
        angle = rng.uniform(0, 2 * np.pi)
        middle = (58 if kind >= 8 else 96) + radius * np.sin(angle) * (54 if kind >= 8 else 62)
        point = (int(80 + radius * np.cos(angle) * 70), int(middle))
        cv2.ellipse(
            image,
            point,
            (int(rng.integers(3, 9)), int(rng.integers(2, 5))),
            rng.uniform(0, 180),
            0,
            360,
            paint,
            -1,
        )
    return image


def surface(rng, shape=(48, 48)) -> np.ndarray:
    """Opaque furniture colours (h, w, 4) uint8: wood, painted, cardboard or striped."""
    base, name = colour(rng, 0.6), rng.choice(["streak", "noise", "planks", "panel", "speckle"])
    if rng.random() < 0.4:
        base = np.array([0.55, 0.38, 0.22]) * rng.uniform(0.4, 1.5)
    image = base * (1 + 0.12 * crop(rng, name, shape)[..., None])
    image[[0, -1]] *= 0.6
    image[:, [0, -1]] *= 0.6
    return np.dstack([np.clip(image * 255, 0, 255), np.full(shape, 255)]).astype(np.uint8)


# ---------------------------------------------------------------- a person
@dataclass(frozen=True)
class Person:
    """A posed, dressed body: joints (17, 3) in metres in COCO order, surfaces, and its seat if it sits."""

    joints: np.ndarray
    lofts: list[Loft]
    stature: float
    segments: dict
    seat: tuple | None = None
    thickness: float = 0.0


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
    lower = colour(rng, 0.7)
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
        shirt=(colour(rng), str(rng.choice(patterns))),
        lower=(lower, str(rng.choice(["plain"] * 8 + ["pinstripe", "check", "dots", "blotch"]))),
        sleeve=float(rng.choice([0.02, 0.48, 0.6, 1.5, 1.93], p=[0.1, 0.25, 0.2, 0.08, 0.37])),
        hem=rng.uniform(0.35, 0.8) if rng.random() < 0.25 else 1.95,
        skirt=skirt,
        waist=float(rng.choice([0.555, 0.53, 0.605, 0.63])),
        loose=rng.uniform(0.2, 1.3),
        shoe=colour(rng, 0.7),
        beard=not woman and not child and rng.random() < 0.3,
        glasses=rng.random() < 0.15,
        neckline=rng.uniform(0.815, 0.845),
    )


def blend(first, second, weight) -> np.ndarray:
    """Frames between two rotations for weights (N,): (N, 3, 3), columns scaled back to length 1."""
    mixed = first + weight[:, None, None] * (second - first)
    return mixed / (np.linalg.norm(mixed, axis=1, keepdims=True) + 1e-9)


def limb(points, upper, lower, table, hems, colours_at, size, relief) -> Loft:
    """A limb through three joints (3, 3): `table` as LEG or ARM; colours from colours_at(positions)."""
    at = np.linspace(table[0, 0], table[-1, 0], 22)
    at = np.sort(np.concatenate([at, table[:2, 0] + 0.01, *[[h - 0.012, h + 0.012] for h in hems]]))
    bone = np.clip(at, 0, None)[:, None]
    centres = np.where(
        bone < 1, points[0] + bone * (points[1] - points[0]), points[1] + (bone - 1) * (points[2] - points[1])
    )
    centres = centres + np.minimum(at, 0)[:, None] * (points[1] - points[0])
    weight = np.clip((at - 1) / 0.3 + 0.5, 0, 1)
    frames = blend(upper, lower, weight * weight * (3 - 2 * weight))
    rows = np.interp(np.linspace(0, len(at) - 1, 64), np.arange(len(at)), at)
    return loft(centres, frames, rings(table, at) * size, colours_at(rows), relief=relief[: len(at), :17])


def dressed(table, hem, thickness, flare) -> np.ndarray:
    """Thickens a limb's table by cloth down to `hem`, looser (by flare) towards it."""
    at = np.sort(np.concatenate([table[:, 0], [hem - 0.011, hem + 0.011]]))
    radii = rings(table, at)
    grow = thickness * np.clip((at + 0.15) * 3, 0.1, 1) + flare * np.clip(at / max(hem, 0.3), 0, 1)
    return np.column_stack([at, radii + (grow * (at < hem))[:, None]])


def person(rng: np.random.Generator, look_: Look, pose: dict, yaw: float = 0.0, place=(0.0, 0.0)) -> Person:
    """Forward kinematics and surfaces of one body on (or, jumping, over) the floor at `place` (x, z)."""
    tall = look_.stature
    t = {name: fraction * tall for name, fraction in TABLE.items()}
    pelvis = turn("y", yaw) @ turn("x", pose["pitch"])
    lofts: list[Loft] = []
    joints, frames = {}, {}
    relief = 0.05 * look_.loose * cv2.resize(crop(rng, "noise", (64, 48)), (48, 48))

    # Trunk: rings follow a spine that turns smoothly from the pelvis to the chest.
    heights = np.concatenate(
        [np.linspace(0.470, 0.505, 4), np.linspace(0.52, 0.80, 19), np.linspace(0.812, 0.850, 7)]
    )
    heights = np.sort(np.append(heights, look_.waist + np.array([-0.004, 0.004])))
    profile = (1 - look_.shape) * rings(TRUNK[0], heights) + look_.shape * rings(TRUNK[1], heights)
    girth = 1 + (look_.girth - 1) * np.array([1, 1.6, 1.2])
    belly = 1 + max(0, look_.girth - 1) * 1.5 * np.exp(-(((heights - 0.62) / 0.06) ** 2))
    profile = profile * np.where(heights[:, None] < 0.8, girth, 1)
    profile[:, 1] *= belly
    cloth_ = 0.004 + 0.007 * look_.loose
    profile += (cloth_ * np.clip((0.845 - heights) / 0.03, 0, 1) * (1 + 0.5 * (heights > look_.waist)))[
        :, None
    ]
    bend = np.clip((heights - 0.555) / 0.16, 0, 1)
    bend = bend * bend * (3 - 2 * bend)
    chest_local = (
        turn("y", pose["spine_twist"]) @ turn("z", -pose["spine_side"]) @ turn("x", pose["spine_flex"])
    )
    vector = cv2.Rodrigues(chest_local)[0][:, 0]
    turned = np.stack([pelvis @ cv2.Rodrigues(vector * w)[0] for w in bend])
    steps = np.diff(heights, prepend=heights[0])[:, None] * turned[:, :, 1]
    spine = np.cumsum(steps, 0)
    spine -= np.array([np.interp(TABLE["hip_height"], heights, column) for column in spine.T])
    spine *= tall
    chest = turned[-1]

    def on_spine(height):
        return np.array([np.interp(height, heights, column) for column in spine.T])

    rows = np.interp(np.linspace(0, len(heights) - 1, 96), np.arange(len(heights)), heights)
    columns = np.linspace(0, 2 * np.pi, 64)
    shirt = cloth(rng, *look_.shirt, (96, 64))[::-1]
    lower = cloth(rng, *look_.lower, (96, 64))
    throat = look_.neckline - 0.03 * np.clip(np.sin(columns), 0, 1) ** 4
    paint = np.where((rows > look_.waist)[:, None, None], shirt, lower)
    paint = np.where((rows[:, None] > throat)[..., None], look_.skin, paint)
    paint *= 1 - 0.3 * (abs(rows - look_.waist) < 0.003)[:, None, None]
    trunk_relief = cv2.resize(relief, (25, len(heights))) * 0.5 * (heights < 0.80)[:, None]
    lofts.append(loft(spine, turned, profile * tall, paint, around=25, power=0.85, relief=trunk_relief))

    # Arms and legs.
    sleeve_cloth, leg_cloth = shirt[:64], lower[:64]
    skin = look_.skin * (1 + 0.03 * crop(rng, "noise", (64, 64))[..., None])
    thin = 0.9 + 0.1 * (1 - look_.shape)
    hem = -0.2 if look_.skirt else look_.hem
    arm_table = dressed(
        ARM * [1, *[thin * (0.6 + 0.4 * look_.girth)] * 3], look_.sleeve, cloth_ * 0.9, 0.006 * look_.loose
    )
    leg_table = dressed(
        LEG * [1, *[look_.girth * (0.96 + 0.06 * look_.shape)] * 3], hem, cloth_ * 0.7, 0.014 * look_.loose
    )
    sole, lace = 0.85 if look_.shoe.sum() > 0.5 else 0.25, 0.8
    shoe = np.choose(
        foot().colours.astype(int), [np.float32(sole), look_.shoe.astype(np.float32), np.float32(lace)]
    )
    for side, sign in SIDES.items():
        angle = {name: pose[f"{side}_{name}"] for name in _PAIRED}
        raised = max(angle["shoulder_abduct"], angle["shoulder_flex"], 0) / 180
        shoulder = on_spine(TABLE["shoulder_height"] - 0.012) + chest @ [
            sign * (SHOULDER * (1 - 0.06 * look_.shape) - 0.012 * raised) * tall,
            (0.012 + 0.04 * max(0, raised - 0.3)) * tall,
            0,
        ]
        upper = chest @ turn("x", -angle["shoulder_flex"]) @ turn("z", sign * angle["shoulder_abduct"])
        upper = upper @ turn("y", sign * angle["shoulder_rotate"])
        lower_ = upper @ turn("x", -angle["elbow"])
        elbow = shoulder - upper[:, 1] * t["upper_arm"]
        wrist = elbow - lower_[:, 1] * t["forearm"]

        def paint_arm(s):
            colours = np.where((s < look_.sleeve)[:, None, None], sleeve_cloth, skin)
            return colours * (1 - 0.25 * (abs(s - look_.sleeve) < 0.03))[:, None, None]

        lofts.append(
            limb(
                np.stack([shoulder, elbow, wrist]),
                upper,
                lower_,
                arm_table,
                [look_.sleeve],
                paint_arm,
                tall,
                relief * 0.6,
            )
        )
        palm = lower_ @ turn("y", sign * (angle["forearm_rotate"] - 60)) @ turn("x", -angle["wrist"])
        lofts += [moved(part, wrist, palm, tall, look_.skin) for part in hand(sign)]
        hip = pelvis @ [sign * HIP * (1 + 0.04 * look_.shape) * tall, 0, 0]
        thigh = (
            pelvis
            @ turn("x", -angle["hip_flex"])
            @ turn("z", sign * angle["hip_abduct"])
            @ turn("y", sign * angle["hip_rotate"])
        )
        shank = thigh @ turn("x", angle["knee"])
        knee = hip - thigh[:, 1] * t["thigh"]
        ankle = knee - shank[:, 1] * t["shank"]
        paint_leg = lambda s: np.where((s < hem)[:, None, None], leg_cloth, skin)  # noqa: E731
        lofts.append(
            limb(
                np.stack([hip, knee, ankle]),
                thigh,
                shank,
                leg_table,
                [hem] if hem > 0 else [],
                paint_leg,
                tall,
                relief * (hem > 1),
            )
        )
        lofts.append(replace(moved(foot(), ankle, shank @ turn("x", angle["ankle"]), tall, 1), colours=shoe))
        joints |= {f"{side}_shoulder": shoulder, f"{side}_elbow": elbow, f"{side}_wrist": wrist,
                   f"{side}_hip": hip, f"{side}_knee": knee, f"{side}_ankle": ankle}  # fmt: skip
        frames[side] = thigh
    if look_.skirt:
        lofts.append(skirt(joints, frames, pelvis, look_, tall, leg_cloth, relief))

    # Neck and head.
    nape = on_spine(0.835)
    neck = chest @ turn("x", 0.5 * pose["neck_flex"] + 8)
    skull = (
        chest @ turn("y", pose["neck_twist"]) @ turn("z", -pose["neck_side"]) @ turn("x", pose["neck_flex"])
    )
    middle = (
        on_spine(0.845) + neck[:, 1] * (0.088 + 0.065 * (look_.head - 1)) * tall + skull[:, 2] * 0.008 * tall
    )
    bottom, top = (
        nape - neck[:, 1] * 0.015 * tall,
        middle - skull[:, 1] * 0.015 * tall - skull[:, 2] * 0.012 * tall,
    )
    width = np.linspace(0.034, 0.031, 8) * (1 - 0.12 * look_.shape) * (0.5 + 0.5 * look_.girth) * tall
    lofts.append(
        loft(
            bottom + np.linspace(0, 1, 8)[:, None] * (top - bottom),
            blend(chest, skull, np.linspace(0, 1, 8)),
            np.stack([width] * 3, -1),
            np.broadcast_to(look_.skin * 0.96, (4, 4, 3)),
        )
    )
    face, points = head_lofts(rng, middle, skull, look_)
    lofts += face
    joints |= points

    # Set it on the floor by its lowest point.
    low = min(part.grid[..., 1].min() for part in lofts)
    shift = np.array([place[0], pose["lift"] - low, place[1]])
    lofts = [
        Loft((part.grid + shift).astype(np.float32), part.normals, part.colours, part.gloss) for part in lofts
    ]
    ordered = np.stack([joints[name] for name in KEYPOINTS]) + shift
    seat = None
    if pose["family"] == "sit":
        seat = (shift[1] - 0.062 * tall * look_.girth, yaw)
    return Person(ordered, lofts, tall, t, seat, 1.6 * cloth_ + 0.09 * max(0, look_.girth - 1))


def moved(part: Loft, origin, frame, size, colours) -> Loft:
    """A rigid part, modelled once about the origin for stature 1, turned, scaled and put at `origin`."""
    frame = frame.astype(np.float32)
    grid = part.grid @ (frame.T * np.float32(size)) + origin.astype(np.float32)
    return Loft(grid, part.normals @ frame.T, (part.colours * colours).astype(np.float32), part.gloss)


@lru_cache(maxsize=2)
def hand(sign: int) -> list[Loft]:
    """Palm, fingers (slits painted) and thumb from the wrist along -y; colours are factors of the skin's."""
    profile = np.array([
        [-.01, .012, .010, .010], [0, .016, .012, .012], [.015, .021, .011, .012], [.035, .0245, .011, .011],
        [.052, .0245, .010, .009], [.07, .0225, .0075, .0075],
        [.09, .019, .006, .006], [.104, .011, .005, .005], [.108, .002, .002, .002]])  # fmt: skip
    at = profile[:, 0]
    curl = np.clip((at - 0.045) / 0.06, 0, 1) ** 1.5 * 0.03
    colours = np.ones((48, 48, 3))
    across = np.cos(np.linspace(0, 2 * np.pi, 48))
    colours[27:, np.min(abs(across[:, None] - [-0.45, 0, 0.45]), 1) < 0.07] *= 0.62
    centres = np.column_stack([0 * at, -at, curl])
    palm = loft(centres, np.tile(np.eye(3), (9, 1, 1)), profile[:, 1:], colours, power=0.7)
    along = np.linspace(0, 1, 6)[:, None]
    base, tip = np.array([-0.016 * sign, -0.018, 0.004]), np.array([-0.040 * sign, -0.062, 0.022])
    radius = np.array([0.006, 0.0095, 0.009, 0.008, 0.007, 0.001])
    thumb = loft(base + along * (tip - base), np.tile(np.eye(3), (6, 1, 1)), np.stack([radius] * 3, -1),
                 np.full((4, 4, 3), 0.97), around=9)  # fmt: skip
    return [palm, thumb]


@lru_cache(maxsize=1)
def foot() -> Loft:
    """A shoe about the ankle: its length and the height of the ankle over the sole are the table's.

    Its colours are 1 where the shoe's own colour goes, 0 on the sole, 2 on the laces.
    """
    at = np.array([-.036, -.034, -.026, -.010, .012, .035, .060, .085, .103, .113, .116])  # fmt: skip
    half = np.array([.004, .016, .023, .025, .025, .026, .030, .031, .026, .015, .003])  # fmt: skip
    high = np.array([.012, .036, .050, .055, .052, .041, .031, .025, .020, .015, .010])  # fmt: skip
    middle = high * 0.42
    # Rings stand upright: their "front" is up.
    upright = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]).T
    centres = np.column_stack([0 * at, middle - TABLE["foot_height"], at])
    colours, angle = np.ones((32, 32, 3)), np.linspace(0, 2 * np.pi, 32)
    colours[:, np.sin(angle) < -0.55] = 0
    colours[9:20:3, abs(angle - np.pi / 2) < 0.45] = 2
    profile = np.stack([half, high - middle, middle], -1)
    return loft(centres, np.tile(upright, (len(at), 1, 1)), profile, colours, power=0.75, gloss=0.25)


def skirt(joints, frames, pelvis, look_, tall, colours, relief) -> Loft:
    """A skirt about both thighs, as long as the hem says (0 hip, 2 ankle)."""
    length = np.clip(look_.hem if look_.hem < 1 else 0.9 + 0.35 * look_.loose, 0.5, 1.35)
    at = np.linspace(-0.25, length, 14)
    left, right = (
        np.stack([joints[f"{side}_{name}"] for name in ("hip", "knee", "ankle")]) for side in SIDES
    )
    path = lambda p: np.stack([np.interp(at, [0, 1, 2], c) for c in p.T], -1)  # noqa: E731
    left, right = path(left), path(right)
    down = 0.5 * (frames["left"] + frames["right"])
    weight = np.clip((at + 0.1) / 0.4, 0, 1)
    turned = blend(pelvis, down, weight)
    centres = 0.5 * (left + right) + (np.minimum(at, 0) * 0.245 * tall)[:, None] * -pelvis[:, 1]
    centres += np.clip(at - 1, 0, None)[:, None] * 0
    apart = 0.5 * np.linalg.norm(left - right, axis=1)
    flare = np.clip(at, 0, None) * 0.030 * look_.loose * tall
    width = (
        apart + np.interp(at, [-0.25, 0, 0.4, 1], [0.040, 0.058, 0.060, 0.052]) * look_.girth * tall + flare
    )
    depth = np.interp(at, [-0.25, 0, 0.4, 1], [0.068, 0.080, 0.074, 0.062]) * look_.girth * tall + flare * 1.2
    between = abs(((left - right) * turned[:, :, 2]).sum(-1)) / 2
    pleats = 0.05 * np.sin(np.linspace(0, 2 * np.pi, 33) * 8) * np.clip(at, 0, 1)[:, None] + 0.6 * cv2.resize(
        relief, (33, 14)
    )
    profile = np.stack([width, depth + between * 0.8, depth + between * 0.8], -1)
    return loft(centres, turned, profile, colours, around=33, relief=pleats)


HEAD_AT, FACE = np.concatenate([HEAD[:3, 0], np.linspace(0.054, -0.052, 20), HEAD[-3:, 0]]), (112, 144)


@lru_cache(maxsize=1)
def face_spots() -> dict:
    """Where a face's features lie on the head's picture (FACE): masks, and the blush."""
    y = np.interp(np.linspace(0, len(HEAD_AT) - 1, FACE[0]), np.arange(len(HEAD_AT)), HEAD_AT)[:, None]
    angle = np.linspace(0, 2 * np.pi, FACE[1])
    ahead, x = np.sin(angle)[None], rings(HEAD, y[:, 0])[:, :1] * np.cos(angle)

    def spot(cx, cy, sx, sy):
        return (((abs(x) - cx) / sx) ** 2 + ((y - cy) / sy) ** 2 < 1) & (ahead > 0)

    lips = spot(0, -0.0365, 0.0145, 0.0042)
    blush = np.exp(-(((abs(x) - 0.024) / 0.012) ** 2) - ((y + 0.02) / 0.012) ** 2) * (ahead > 0)
    masks_ = {
        "jaw": (y < -0.026) & (ahead > -0.1) | (abs(x) > 0.036) & (y < -0.005) & (abs(ahead - 0.2) < 0.25),
        "scalp": (y > 0.036 - 0.02 * np.clip(0.3 - ahead, 0, 1)) | (y > -0.03) & (ahead < -0.05),
        "lips": lips, "mouth": lips & (abs(y + 0.0365) < 0.0012), "lids": spot(0.0185, 0.002, 0.0105, 0.0062),
        "white": spot(0.0185, 0.001, 0.0085, 0.0040), "iris": spot(0.0185, 0.001, 0.0042, 0.0042),
        "lashes": spot(0.0185, 0.0055, 0.0095, 0.0017), "brows": spot(0.019, 0.0135, 0.0125, 0.0027),
        "nostrils": spot(0.004, -0.0235, 0.0030, 0.0018),
        "glasses": spot(0.0185, 0.001, 0.0150, 0.0115) & ~spot(0.0185, 0.001, 0.0125, 0.009),
    }  # fmt: skip
    blush = (blush[..., None] * np.array([0.05, -0.02, -0.02])).astype(np.float32)
    return {name: np.nonzero(mask) for name, mask in masks_.items()} | {"blush": blush}


@lru_cache(maxsize=1)
def head_shape() -> list[Loft]:
    """Skull with nose, brow and chin, and both ears, about the head's middle for stature 1."""
    profile, angle, y = rings(HEAD, HEAD_AT), np.linspace(0, 2 * np.pi, 41), HEAD_AT[:, None]
    x = profile[:, :1] * np.cos(angle)
    parts = []

    def bump(cx, cy, sx, sy):
        return np.exp(-(((abs(x) - cx) / sx) ** 2) - ((y - cy) / sy) ** 2) * (np.sin(angle) > 0.3)

    relief = 0.26 * bump(0, -0.016, 0.0065, 0.0065) + 0.15 * bump(0, -0.004, 0.006, 0.011)
    relief += 0.05 * bump(0, -0.036, 0.012, 0.007) + 0.04 * bump(0, -0.055, 0.012, 0.008)
    relief -= 0.06 * bump(0.019, 0.001, 0.009, 0.006)
    upright = np.tile(np.eye(3), (len(HEAD_AT), 1, 1))
    white = np.ones((1, 1, 3))
    parts.append(loft(y * [0, 1.0, 0], upright, profile, white, around=41, relief=relief, gloss=0.08))
    at = np.linspace(-1, 1, 7)
    for sign in SIDES.values():
        centres = np.column_stack([0 * at + sign * 0.0455, -0.006 + 0.019 * at, -0.008 - 0.004 * at])
        shape = np.sqrt(np.clip(1 - at**2, 0.003, 1))[:, None] * [0.0055, 0.011, 0.011]
        parts.append(loft(centres, upright[:7], shape, white, around=11))
    return parts


def head_lofts(rng, middle, frame, look_) -> tuple[list[Loft], dict]:
    """Head, ears and hair about `middle`; also where the five face keypoints lie."""
    size = look_.stature * look_.head
    spots = face_spots()
    paint = look_.skin.astype(np.float32) * (1 + np.float32(0.025) * crop(rng, "noise", FACE)[..., None])
    paint += spots["blush"]
    if look_.beard:
        paint[spots["jaw"]] = 0.45 * paint[spots["jaw"]] + 0.55 * look_.hair
    if look_.style == "crop":
        paint[spots["scalp"]] = 0.25 * paint[spots["scalp"]] + 0.75 * look_.hair
    paint[spots["lips"]] = look_.skin * [0.82, 0.52, 0.5]
    paint[spots["mouth"]] *= 0.45
    paint[spots["lids"]] *= 0.72
    paint[spots["white"]] = 0.9
    paint[spots["iris"]] = [(0.18, 0.11, 0.07), (0.25, 0.36, 0.46), (0.24, 0.3, 0.2)][
        rng.choice(3, p=[0.65, 0.2, 0.15])
    ]
    paint[spots["lashes"]] *= 0.4
    paint[spots["brows"]] = 0.3 * look_.skin + 0.7 * np.minimum(look_.hair, 0.4)
    paint[spots["nostrils"]] *= 0.45
    if look_.glasses:
        paint[spots["glasses"]] = 0.08
    skull, *ears = head_shape()
    parts = [moved(skull, middle, frame, size, np.minimum(paint, 1))]
    parts += [moved(ear, middle, frame, size, look_.skin * [0.97, 0.9, 0.88]) for ear in ears]
    place = lambda p: middle + frame @ (np.array(p) * size)  # noqa: E731
    points = {"nose": place((0, -0.016, 0.0585))}
    for side, sign in SIDES.items():
        points[f"{side}_eye"] = place((sign * 0.0185, 0.001, 0.0455))
        points[f"{side}_ear"] = place((sign * 0.0450, -0.006, -0.004))
    return parts + hair_lofts(rng, place, frame, size, look_), points


def hair_lofts(rng, place, frame, size, look_) -> list[Loft]:
    """A shell over the skull, lifted where hair grows, and what hangs from it; also caps and scarves."""
    style = look_.style
    if style in ("bald", "crop"):
        return []
    covered = style in ("cap", "scarf")
    base = colour(rng, 0.4) if covered else look_.hair
    streaks = 1 + (0.05 if covered else 0.22) * crop(rng, "streak", (96, 96))[..., None]
    colours = np.clip(base * streaks, 0.02, 1)
    at = np.concatenate([HEAD[:3, 0], np.linspace(0.055, -0.060, 20)])
    angle = np.linspace(0, 2 * np.pi, 41)
    lateral, ahead = np.cos(angle), np.sin(angle)
    # Where hair ends, by direction: brow, temples, behind the ears, nape.
    edge = np.interp(ahead, [-1, -0.35, -0.05, 0.25, 0.6, 1], [-0.046, -0.040, -0.004, 0.008, 0.028, 0.036])
    edge = (
        edge
        + 0.004 * np.sin(5 * angle + rng.uniform(0, 6))
        + (0.006 * lateral * rng.choice([-1, 1]) if not covered else 0)
    )
    if style == "cap":
        edge = np.interp(ahead, [-1, -0.3, 0.3, 1], [0.002, 0.010, 0.020, 0.024])
    if style in ("scarf",):
        edge = np.interp(ahead, [-1, 0.35, 0.6, 0.8, 1], [-0.2, -0.2, -0.05, 0.022, 0.033])
    grows = np.clip((at[:, None] - edge) / 0.007 + 0.5, 0, 1)
    thick = {"cap": 0.09, "scarf": 0.10, "short": 0.12, "bob": 0.15}.get(style, 0.11) * rng.uniform(
        0.85, 1.25
    )
    relief = -0.12 + grows * (
        0.12 + thick + 0.03 * (not covered) * cv2.resize(crop(rng, "noise", (64, 64)), (41, len(at)))
    )
    lift = np.clip(at / 0.065, 0, 1)[:, None] ** 2 * thick * 0.05 * size * frame[:, 1]
    centres = place((0, 0, 0)) + at[:, None] * frame[:, 1] * size + lift
    parts = [
        loft(
            centres,
            np.broadcast_to(frame, (len(at), 3, 3)),
            rings(HEAD, at) * size,
            colours,
            around=41,
            relief=relief,
            gloss=0.0 if covered else 0.12,
        )
    ]

    def strand(points, shapes):
        points = np.stack([place(p) for p in points])
        many = np.broadcast_to(frame, (len(points), 3, 3))
        parts.append(loft(points, many, np.array(shapes) * size, colours, gloss=0.0 if covered else 0.1))

    if style in ("long", "bob", "scarf"):
        low = {"long": rng.uniform(-0.19, -0.09), "bob": -0.062, "scarf": -0.085}[style]
        drop = np.linspace(0.02, low, 9)
        full = np.sin(np.linspace(0.9, 2.75, 9)) ** 0.6
        strand(
            [(0, d, -0.012 - 0.014 * k / 8) for k, d in enumerate(drop)],
            [(0.052 * f + 0.002, 0.006 * f, 0.050 * f) for f in full],
        )
    if style == "tail":
        drop = np.linspace(0, 1, 8)
        strand(
            [(0, 0.03 - 0.11 * d, -0.052 - 0.05 * np.sin(2.2 * d)) for d in drop],
            [(w, w, w) for w in (0.006, 0.014, 0.019, 0.021, 0.020, 0.017, 0.011, 0.002)],
        )
    if style == "bun":
        ball = np.linspace(-1, 1, 8)
        strand(
            [(0, 0.045 + 0.024 * b, -0.052) for b in ball],
            [(0.025 * w, 0.025 * w, 0.025 * w) for w in np.sqrt(1.01 - ball**2)],
        )
    if style == "cap":
        parts.append(
            loft(
                np.stack([place((0, 0.024 - 0.003 * h, 0.030)) for h in (0, 0.5, 1, 1.5)]),
                np.broadcast_to(frame, (4, 3, 3)),
                np.array([(0.01, 0.01, 0.01), (0.042, 0.064, 0.03), (0.042, 0.064, 0.03), (0.01, 0.01, 0.01)])
                * size,
                np.broadcast_to(base * 0.9, (4, 4, 3)),
            )
        )
    return parts


# ---------------------------------------------------------------- scene
@dataclass(frozen=True)
class Scene:
    """What is drawn: a camera, people, poles (lofts), quads, a room, a light, and how it is exposed."""

    camera: Camera
    people: list[Person]
    lofts: list[Loft] = field(default_factory=list)
    quads: list[Quad] = field(default_factory=list)
    room: dict = field(default_factory=dict)
    light: np.ndarray = field(default_factory=lambda: np.array([0.4, 0.8, -0.45]))
    photo: dict = field(default_factory=dict)


def pole(rng, x, z, base, height, radius) -> Loft:
    """An upright cylinder, or a bent trunk."""
    at = np.linspace(0, 1, 8)
    sway = rng.normal(0, 0.04, 2) * at[:, None] ** 2
    centres = np.column_stack([x + sway[:, 0], base + at * height, z + sway[:, 1]])
    paint = colour(rng, 0.8) * (1 + 0.15 * crop(rng, "streak", (64, 16))[..., None])
    radius = np.full((8, 3), radius) * np.where(at == 1, 0.3, 1)[:, None]
    return loft(centres, np.broadcast_to(np.eye(3), (8, 3, 3)), radius, np.clip(paint, 0, 1), gloss=0.2)


def billboard(x, z, width, height, picture, base=0.0) -> Quad:
    """An upright cut-out that faces the camera's side."""
    corners = [
        (x + width / 2, base + height, z),
        (x - width / 2, base + height, z),
        (x - width / 2, base, z),
        (x + width / 2, base, z),
    ]
    return Quad(np.array(corners), np.array([0, 0.35, -0.94]), picture)


def railing(rng) -> np.ndarray:
    """A fence as a cut-out (96, 192, 4): bars or boards."""
    image = np.zeros((96, 192, 4), np.uint8)
    paint = (*(colour(rng, 0.8) * 255).astype(int).tolist(), 255)
    step, width = int(rng.integers(12, 26)), int(rng.integers(2, 7))
    for x in range(0, 192, step):
        cv2.rectangle(image, (x, 0), (x + width, 95), paint, -1)
    for y in (2, int(rng.integers(40, 90))):
        cv2.rectangle(image, (0, y), (191, y + int(rng.integers(3, 7))), paint, -1)
    return image


def furniture(rng, x, z, yaw) -> list[Quad]:
    """A crate, cupboard, table, chair or low wall that stands at (x, z)."""
    kind = rng.choice(["crate", "cupboard", "table", "bench"])
    wood = [surface(rng) for _ in range(2)]
    if kind == "crate":
        side = rng.uniform(0.3, 0.8)
        return box((x, 0, z), (side, side * rng.uniform(0.6, 1.3), side), yaw, wood)
    if kind == "cupboard":
        return box(
            (x, 0, z), (rng.uniform(0.5, 1.2), rng.uniform(0.9, 2.1), rng.uniform(0.3, 0.5)), yaw, wood
        )
    w, h, d = rng.uniform(0.7, 1.6), rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.8)
    return table(x, z, w, h, d, yaw, wood)


def table(x, z, w, h, d, yaw, wood, back=0.0) -> list[Quad]:
    """A top on four legs; with `back` (metres) it is a chair whose back is at -z of its frame."""
    frame, quads = turn("y", yaw), []
    for sx in (-1, 1):
        for sz in (-1, 1):
            corner = np.array([x, 0, z]) + frame @ [sx * (w / 2 - 0.03), 0, sz * (d / 2 - 0.03)]
            quads += box(corner, (0.045, h, 0.045), yaw, wood)
    quads += box((x, h - 0.05, z), (w, 0.05, d), yaw, wood)
    if back:
        quads += box(np.array([x, h, z]) + frame @ [0, 0, -d / 2 + 0.02], (w, back, 0.04), yaw, wood)
    return quads


def sample_scene(rng: np.random.Generator, size: tuple[int, int] = SIZE) -> Scene:
    """A random scene of one to four people for a picture of `size` (height, width)."""
    height, width = size
    focal = float(height / 2 / np.tan(np.radians(rng.uniform(28, 62)) / 2))
    eye = rng.choice(
        [rng.uniform(0.9, 1.8), rng.uniform(0.25, 0.9), rng.uniform(1.8, 3.6)], p=[0.65, 0.15, 0.2]
    )
    tall = float(np.exp(rng.uniform(np.log(0.30), np.log(1.45)))) * height
    main = max(1.3, focal * 1.7 / tall)
    # Pitch so that the main person's middle falls near the middle of the picture.
    offset = rng.normal(0, 0.07) * height
    pitch = np.degrees(np.arctan2(eye - rng.uniform(0.75, 1.0), main)) + np.degrees(np.arctan(offset / focal))
    camera = look(eye, pitch, rng.normal(0, 2.5), focal, size)
    count = rng.choice([1, 2, 3, 4], p=[0.36, 0.32, 0.2, 0.12])
    spots, people = [], []
    for number in range(count):
        for _ in range(12):
            depth = main if number == 0 else min(max(1.3, main * rng.uniform(0.75, 2.0)), focal * 1.7 / 55)
            reach = 0.5 * width / focal * depth
            x = (
                rng.uniform(-0.75, 0.75) * reach
                if number == 0 or rng.random() < 0.5
                else spots[0][0] * depth / main + rng.normal(0, 0.45)
            )
            if all(np.hypot(x - sx, depth - sz) > 0.75 for sx, sz in spots) and abs(x) < 1.02 * reach:
                spots.append((x, depth))
                break
        else:
            continue
        people.append(person(rng, sample_look(rng), sample_pose(rng), rng.uniform(0, 360), spots[-1]))

    quads, lofts = [], []
    for (x, z), who in zip(spots, people, strict=True):
        if who.seat:
            level, yaw = who.seat
            forward = turn("y", yaw)[:, 2]
            x, z = x + forward[0] * 0.07 * who.stature, z + forward[2] * 0.07 * who.stature
            if rng.random() < 0.6:
                wood = [surface(rng)]
                quads += table(
                    x,
                    z,
                    0.27 * who.stature,
                    level,
                    0.27 * who.stature,
                    yaw,
                    wood,
                    rng.choice([0, 0.26]) * who.stature,
                )
            else:
                quads += box(
                    (x, 0, z), (rng.uniform(0.45, 1.2), level, 0.27 * who.stature), yaw, [surface(rng)]
                )
    far = max(z for _, z in spots)
    free = lambda x, z, gap: all(np.hypot(x - sx, z - sz) > gap for sx, sz in spots)  # noqa: E731
    outdoor = rng.random() < 0.45
    for _ in range(rng.integers(2, 8)):
        z = rng.uniform(main * 0.9, far + 3.5)
        x = rng.uniform(-1.1, 1.1) * 0.5 * width / focal * z
        if not free(x, z, 1.25):
            continue
        kind = rng.random()
        if outdoor and kind < 0.55:
            tree = rng.random() < 0.5
            high = rng.uniform(2.2, 5) if tree else rng.uniform(0.5, 1.4)
            quads.append(
                billboard(
                    x, z + 1, high * rng.uniform(0.8, 1.2), high, leaves(int(rng.integers(0, 4)) + 8 * tree)
                )
            )
        elif kind < 0.65:
            lofts.append(pole(rng, x, z, 0, rng.uniform(1.5, 4), rng.uniform(0.03, 0.16)))
        elif kind < 0.75:
            quads.append(billboard(x, z, 0.8, rng.uniform(0.6, 1.5), leaves(int(rng.integers(4, 8)))))
        else:
            quads += furniture(rng, x, z, rng.uniform(0, 360))
    if rng.random() < 0.42:
        x, z = spots[rng.integers(len(spots))]
        near = rng.uniform(0.5, 0.82)
        ox, oz = x * near + rng.normal(0, 0.28) * z / main, z * near
        if z - oz < 0.5 or not free(ox, oz, 0.5):
            oz = max(0.9, z - 0.65)
            ox = x * oz / z
        if free(ox, oz, 0.55):
            kind = rng.random()
            if kind < 0.3:
                quads += box(
                    (ox, 0, oz),
                    (rng.uniform(0.4, 1.2), rng.uniform(0.4, 1.1), 0.3),
                    rng.uniform(-25, 25),
                    [surface(rng)],
                )
            elif kind < 0.5:
                lofts.append(pole(rng, ox + 0.15, oz, 0, 4, rng.uniform(0.03, 0.10)))
            elif kind < 0.75:
                tall = rng.uniform(0.7, 1.5)
                quads.append(
                    billboard(ox, oz, tall * rng.uniform(0.6, 1), tall, leaves(int(rng.integers(0, 8))))
                )
            else:
                quads.append(billboard(ox, oz, 2.6, rng.uniform(0.7, 1.1), railing(rng)))
    room = {
        "outdoor": outdoor,
        "wall": far + rng.uniform(1.0, 4.0) if not outdoor or rng.random() < 0.4 else None,
        "skew": rng.uniform(-24, 24),
        "height": rng.uniform(2.5, 3.4) if not outdoor else rng.uniform(2.2, 7),
        "ceiling": not outdoor,
        "seed": int(rng.integers(1 << 31)),
    }
    around = rng.uniform(0, 2 * np.pi)
    light = np.array(
        [np.sin(around), rng.uniform(0.55, 1.6), -abs(np.cos(around)) if rng.random() < 0.7 else 0.8]
    )
    photo = {
        "sun": rng.uniform(0.5, 1.25),
        "sky": rng.uniform(0.35, 0.75),
        "warmth": rng.normal(0, 0.09),
        "exposure": rng.normal(0, 0.16),
        "blur": max(0, rng.normal(0.2, 0.35)),
        "noise": abs(rng.normal(0, 0.012)) + 0.004,
        "vignette": rng.uniform(0, 0.35),
        "saturation": rng.uniform(0.75, 1.15),
        "seed": int(rng.integers(1 << 31)),
    }
    return Scene(camera, people, lofts, quads, room, light / np.linalg.norm(light), photo)


# ---------------------------------------------------------------- drawing
@dataclass
class Buffers:
    """Per enlarged pixel colour, normal (H, W, 3), depth, who (H, W): 0 room, -1 things, 1.. people."""

    colour: np.ndarray
    normal: np.ndarray
    depth: np.ndarray
    who: np.ndarray
    gloss: np.ndarray


def wall_picture(rng, outdoor) -> np.ndarray:
    """A wall of 8 x 4 metres (256, 512, 3): paint, brick or boards with pictures, doors, windows, shelves."""
    name = rng.choice(
        ["brick", "panel", "noise", "planks"]
        if outdoor
        else ["noise", "noise", "stripe", "panel", "brick", "tiles"]
    )
    base = (colour(rng, 0.75) * 0.7 + 0.2).astype(np.float32)
    texture = (
        np.float32(0.03 if name == "noise" else 0.09) * library()[name]
        + np.float32(0.03) * library()["noise"]
    )
    image = np.tile(base * (1 + texture[..., None]), (1, 2, 1))
    if rng.random() < 0.4:
        image[150:] *= rng.uniform(0.55, 1.0, 3)
    image[246:] *= 0.55
    for _ in range(rng.integers(2, 9)):
        x, y, w, h = rng.integers(0, 470), rng.integers(20, 130), rng.integers(14, 70), rng.integers(16, 80)
        kind = rng.random()
        if kind < 0.2:
            y, w, h = 110, 52, 146
        patch = image[y : y + h, x : x + w]
        patch[:] = colour(rng, 0.7) if kind > 0.35 else np.array([0.75, 0.85, 0.95]) * rng.uniform(0.5, 1.2)
        inner = patch[2:-2, 2:-2]
        if kind >= 0.35 and inner.size:
            inner[:] = colour(rng) + 0.12 * crop(rng, "noise", inner.shape[:2])[..., None] * colour(rng)
            for _ in range(3):
                point = (int(rng.integers(0, w)), int(rng.integers(0, h)))
                canvas = np.ascontiguousarray(inner)
                cv2.circle(canvas, point, int(rng.integers(2, 18)), colour(rng).tolist(), -1)
                inner[:] = canvas
        elif kind >= 0.2:
            inner[:, w // 2 - 1 : w // 2 + 1] = 0.5
            inner[h // 2 - 1 : h // 2 + 1] = 0.5
    if rng.random() < 0.35 and not outdoor:
        for y in range(60, 200, 36):
            image[y : y + 3, 60:180] = 0.25
            for x in range(62, 176, 7):
                image[y - rng.integers(12, 28) : y, x : x + 6] = colour(rng)
    return np.clip(image, 0.02, 1, out=image)


def draw_room(scene: Scene, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Floor, walls, ceiling or sky as colour, normal (H, W, 3) and depth (H, W)."""
    rays, eye, room = scene.camera.rays(size), float(scene.camera.position[1]), scene.room
    rng = np.random.default_rng(room.get("seed", 0))
    outdoor, up = room.get("outdoor", True), rays[..., 1]
    shade = lambda *values: np.array(values, np.float32)  # noqa: E731
    colours, normals = np.full((*size, 3), 0.5, np.float32), np.zeros((*size, 3), np.float32)
    depth = np.full(size, 60, np.float32)
    ground = up < -1e-3
    np.minimum(-eye / np.minimum(up, -1e-3), 60, out=depth, where=ground)
    normals[..., 1] = ground
    horizon = shade(0.80, 0.86, 0.93) * np.float32(rng.uniform(0.75, 1.05))
    over, under = int((~ground).any(1).sum()), int(np.argmax(ground.any(1)))

    if outdoor and over:  # sky with clouds, and hills or a wood before it
        zenith = shade(0.30, 0.50, 0.85) * np.float32(rng.uniform(0.6, 1.1))
        window, rise = (size[1], over), np.clip(up[:over] / 0.6, 0, 1)
        cloud = np.clip(
            cv2.resize(crop(rng, "noise", (120, 200)), window) * np.float32(rng.uniform(0, 0.4)), 0, 1
        )
        sky = horizon + (zenith - horizon) * np.sqrt(rise)[..., None]
        sky += cloud[..., None] * (np.float32(0.95) - sky)
        outline = crop(rng, "soft", (1, 200)) + np.float32(0.25) * crop(rng, "speckle", (1, 200))
        skyline = np.float32(0.05) * cv2.resize(outline, (size[1], 1)) + np.float32(rng.uniform(0.04, 0.18))
        leafy = cv2.resize(crop(rng, "speckle", (120, 250)), window)
        wood = (
            shade(0.30, 0.40, 0.28)
            * np.float32(rng.uniform(0.6, 1.3))
            * ((1 + np.float32(0.18) * leafy) * (1 + np.float32(0.5) * up[:over]))[..., None]
        )
        colours[:over] = np.where((up[:over] < skyline)[..., None], wood, sky)
    kinds = (
        ["grass", "grass", "asphalt", "tiles", "noise"]
        if outdoor
        else ["planks", "planks", "tiles", "check", "noise", "asphalt"]
    )
    name = rng.choice(kinds)
    base = {"grass": shade(0.28, 0.40, 0.16), "planks": shade(0.55, 0.38, 0.24)}.get(name)
    base = (
        colour(rng, 0.85).astype(np.float32) * 0.6 + shade(0.16, 0.16, 0.15)
        if base is None and not outdoor
        else shade(0.5, 0.48, 0.45) * np.float32(rng.uniform(0.5, 1.4))
        if base is None
        else base * np.float32(rng.uniform(0.6, 1.3))
    )
    scale = np.float32(256 / rng.uniform(1.6, 3.2))
    spin = turn("y", rng.uniform(0, 90)).astype(np.float32)
    if ground.any():
        where = rays[under:] * (depth[under:] * scale)[..., None]
        tile = [(where @ spin[axis]) % 256 for axis in (0, 2)]
        grain = cv2.remap(library()[name], *tile, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        wide = [(where @ spin[axis] * np.float32(0.23)) % 256 for axis in (0, 2)]
        stain = cv2.remap(library()["noise"], *wide, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        # Far texture is finer than a pixel: fade it out instead of letting it flicker.
        fade = np.clip(3.2 * scene.camera.focal * eye / scale / depth[under:] ** 2, 0, 1)
        pattern = 1 + np.float32(0.08 if name == "noise" else 0.16) * grain * fade + np.float32(0.07) * stain
        if not room.get("wall"):
            haze = np.float32(0.6) * (depth[under:] / 60) ** 1.5
            painted = base * (pattern * (1 - haze))[..., None] + haze[..., None] * (horizon * np.float32(0.8))
        else:
            painted = base * pattern[..., None]
        np.copyto(colours[under:], painted, where=ground[under:, :, None])
    if not room.get("wall"):
        return colours, normals, depth

    walls = [(turn("y", room["skew"]) @ [0, 0, 1.0], room["wall"], 0.0)]
    side = rng.choice([-1, 1])
    walls.append((turn("y", room["skew"]) @ [side, 0, 0], room["wall"] * rng.uniform(0.45, 1.0) + 1.2, 0.37))
    if room["ceiling"]:
        distance = (room["height"] - eye) / np.maximum(up, 1e-3)
        closer = (up > 1e-3) & (distance < 60)
        depth[closer] = distance[closer]
        colours[closer] = base * np.float32(0.2) + np.float32(0.68)
        normals[closer] = (0, -1, 0)
    texture = wall_picture(rng, outdoor)
    for normal, distance, shift in walls:
        normal = normal.astype(np.float32)
        t = np.float32(distance) / np.maximum(rays @ normal, 1e-3)
        level = eye + t * up
        hit = (t < depth) & (level < room["height"]) & (level > -0.05)
        if not hit.any():
            continue
        along = np.cross(normal, [0, 1.0, 0]).astype(np.float32)
        u = (t * (rays @ along) * 64 + np.float32(shift * 512)) % 512
        v = np.clip(255 - level * 64, 0, 255)
        painted = cv2.remap(texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        np.copyto(colours, painted, where=hit[..., None])
        np.copyto(depth, t, where=hit)
        normals[hit] = -normal
    return colours, normals, depth


def draw_quad(buffers: Buffers, camera: Camera, quad: Quad) -> None:
    """Draws one textured quad where it is nearer than what is there."""
    if ((camera.position - quad.corners[0]) @ quad.normal) <= 0:
        return
    seen = camera.project(quad.corners)
    height, width = buffers.depth.shape
    if seen[:, 2].min() < 0.15:
        return
    x0, y0 = np.floor(seen[:, :2].min(0)).astype(int).clip(0)
    x1, y1 = np.ceil(seen[:, :2].max(0)).astype(int)
    x1, y1 = min(x1, width - 1), min(y1, height - 1)
    if x1 < x0 or y1 < y0:
        return
    h, w = quad.picture.shape[:2]
    source = np.array([(0, 0), (w, 0), (w, h), (0, h)], np.float32)
    target = (seen[:, :2] - (x0, y0)).astype(np.float32)
    shape = (int(x1 - x0 + 1), int(y1 - y0 + 1))
    if abs(cv2.contourArea(target)) < 0.5:
        return
    drawn = cv2.warpPerspective(
        quad.picture, cv2.getPerspectiveTransform(source, target), shape, flags=cv2.INTER_LINEAR
    )
    plane = np.linalg.solve(np.column_stack([target[:3], np.ones(3)]), 1 / seen[:3, 2])
    inverse = plane[0] * np.arange(shape[0]) + plane[1] * np.arange(shape[1])[:, None] + plane[2]
    depth = (1 / np.maximum(inverse, 1e-4)).astype(np.float32)
    window = np.s_[y0 : y1 + 1, x0 : x1 + 1]
    mask = (drawn[..., 3] > 127) & (depth < buffers.depth[window])
    np.copyto(buffers.depth[window], depth, where=mask)
    np.copyto(buffers.colour[window], drawn[..., :3] * np.float32(1 / 255), where=mask[..., None])
    np.copyto(buffers.normal[window], quad.normal.astype(np.float32), where=mask[..., None])
    buffers.who[window][mask] = -1


def draw_lofts(buffers: Buffers, camera: Camera, lofts: list[tuple[int, Loft]]) -> None:
    """Draws surfaces (owner, loft) together: samples each finer than a pixel, keeps the nearest sample."""
    height, width = buffers.depth.shape
    nearest = np.full(height * width, np.iinfo(np.int64).max)
    kept, start = [], 0
    if not lofts:
        return
    bounds = np.cumsum([0] + [part.grid.shape[0] * part.grid.shape[1] for _, part in lofts])
    world = np.concatenate([part.grid.reshape(-1, 3) for _, part in lofts])
    facing = (camera.position.astype(np.float32) - world) * np.concatenate(
        [part.normals.reshape(-1, 3) for _, part in lofts]
    )
    projected = np.column_stack([camera.project(world), facing.sum(-1)])
    for (owner, part), begin, end in zip(lofts, bounds[:-1], bounds[1:], strict=True):
        seen = projected[begin:end].reshape(*part.grid.shape[:2], 4)
        if seen[..., 2].min() < 0.2:
            continue
        x, y = seen[..., 0], seen[..., 1]
        if x.max() < 0 or y.max() < 0 or x.min() > width or y.min() > height:
            continue
        dx, dy = np.diff(x, axis=0), np.diff(y, axis=0)
        lengths = np.sqrt((dx * dx + dy * dy).max(1)) + 1e-3
        dx, dy = np.diff(x, axis=1), np.diff(y, axis=1)
        columns = np.sqrt((dx * dx + dy * dy).max()) * (seen.shape[1] - 1)
        travelled = np.concatenate([[0], np.cumsum(lengths)])
        shape = (min(max(int(columns * DENSITY), 8), 1600), min(max(int(travelled[-1] * DENSITY), 4), 1600))
        # Rows equally far apart on the picture, whatever the rings' own spacing; columns by plain resizing.
        at = np.interp(np.linspace(0, travelled[-1], shape[1]), travelled, np.arange(len(travelled))).astype(
            np.float32
        )
        first = np.minimum(at.astype(int), len(seen) - 2)
        weight = (at - first)[:, None, None]
        source = seen[first] * (1 - weight) + seen[first + 1] * weight
        dense = cv2.resize(source, shape, interpolation=cv2.INTER_LINEAR).reshape(-1, 4)
        index = np.flatnonzero(dense[:, 3] > 0)
        dense = dense[index]
        column, row = np.rint(dense[:, 0]).astype(np.int32), np.rint(dense[:, 1]).astype(np.int32)
        inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        if not inside.all():
            index, dense, column, row = index[inside], dense[inside], column[inside], row[inside]
        keys = (dense[:, 2] * np.float32(4000)).astype(np.int64) << 32 | (index + start)
        np.minimum.at(nearest, row * width + column, keys)
        kept.append((owner, part, shape, start, at / (len(seen) - 1)))
        start += shape[0] * shape[1]
    pixels = np.flatnonzero(nearest < np.iinfo(np.int64).max)
    depth = (nearest[pixels] >> 32) / np.float32(4000)
    front = depth < buffers.depth.reshape(-1)[pixels]
    pixels, depth = pixels[front], depth[front]
    samples = (nearest[pixels] & 0xFFFFFFFF).astype(np.int64)
    buffers.depth.reshape(-1)[pixels] = depth
    order = np.searchsorted([entry[3] for entry in kept], samples, side="right") - 1
    for number, (owner, part, shape, begin, heights) in enumerate(kept):
        chosen = np.flatnonzero(order == number)
        if not len(chosen):
            continue
        sample, pixel = samples[chosen] - begin, pixels[chosen]
        row, column = np.divmod(sample, shape[0])
        around = part.grid.shape[1]
        turned = (
            (column[:, None].astype(np.float32) + np.float32(0.5)) * np.float32(around / shape[0])
            - np.float32(0.5)
        ) / np.float32(around - 1)
        for buffer, values in ((buffers.colour, part.colours), (buffers.normal, part.normals)):
            h, w = values.shape[:2]
            buffer.reshape(-1, 3)[pixel] = gather(
                values, turned * np.float32(w - 1), heights[row][:, None] * np.float32(h - 1)
            )
        buffers.who.reshape(-1)[pixel] = owner
        buffers.gloss.reshape(-1)[pixel] = part.gloss


def gather(values, x, y) -> np.ndarray:
    """Bilinear values (N, 3) of a field (h, w, 3) at float positions (N, 1), in slices that remap accepts."""
    parts = [
        cv2.remap(
            values, x[i : i + 30000], y[i : i + 30000], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        for i in range(0, len(x), 30000)
    ]
    return np.concatenate(parts).reshape(-1, 3)


def rasterise(scene: Scene, size: tuple[int, int] = SIZE) -> Buffers:
    """Draws room, things and people at SUPERSAMPLE times `size`."""
    large = (round(size[0] * SUPERSAMPLE), round(size[1] * SUPERSAMPLE))
    colours, normals, depth = (
        cv2.resize(part, large[::-1], interpolation=cv2.INTER_LINEAR) for part in draw_room(scene, size)
    )
    buffers = Buffers(colours, normals, depth, np.zeros(large, np.int8), np.zeros(large, np.float32))
    camera = scene.camera.scaled(SUPERSAMPLE)
    for quad in scene.quads:
        draw_quad(buffers, camera, quad)
    owned = [(number + 1, part) for number, who in enumerate(scene.people) for part in who.lofts]
    draw_lofts(buffers, camera, [(-1, part) for part in scene.lofts] + owned)
    return buffers


def shadows(scene: Scene, depth: np.ndarray) -> np.ndarray:
    """Share of direct light (H, W) that arrives at each pixel of a depth map (H, W), soft-edged."""
    solid = [cv2.resize(part.grid, (24, 30)).reshape(-1, 3) for who in scene.people for part in who.lofts]
    solid += [cv2.resize(part.grid, (16, 96)).reshape(-1, 3) for part in scene.lofts]
    solid += [
        cv2.resize(quad.corners[[0, 1, 3, 2]].reshape(2, 2, 3).astype(np.float32), (20, 20)).reshape(-1, 3)
        for quad in scene.quads
    ]
    points = np.concatenate(solid).astype(np.float32)
    side = np.cross(scene.light, [0.3, 0.2, 0.9])
    side /= np.linalg.norm(side)
    axes = np.stack([side, np.cross(scene.light, side), -scene.light]).astype(np.float32)
    seen = axes @ points.T
    low = seen[:2].min(1, keepdims=True)
    cell = 0.04
    where = ((seen[:2] - low) / cell).astype(np.int32) + 1
    shape = np.minimum(where.max(1) + 2, 600)
    inside = (where[0] < shape[0]) & (where[1] < shape[1])
    low = low[:, 0]
    grid = np.full(shape[0] * shape[1], 1e3, np.float32)
    np.minimum.at(grid, (where[0] * shape[1] + where[1])[inside], seen[2][inside])
    grid = cv2.erode(grid.reshape(shape), np.ones((3, 3), np.uint8))
    world = scene.camera.rays(depth.shape) * depth[..., None] + scene.camera.position.astype(np.float32)
    x, y, reach = (
        world @ (axis / np.float32(scale)) - np.float32(shift)
        for axis, scale, shift in zip(
            axes, (cell, cell, 1), (low[0] / cell - 1, low[1] / cell - 1, 0.07), strict=True
        )
    )
    blocker = cv2.remap(grid, y, x, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=1e3)
    share = (blocker > reach).astype(np.float32)
    return cv2.GaussianBlur(share, (0, 0), 1.6)


def expose(scene: Scene, buffers: Buffers, size: tuple[int, int]) -> np.ndarray:
    """Lights the buffers and takes the photograph: RGB uint8 (H, W, 3)."""
    photo = {
        "sun": 0.9,
        "sky": 0.5,
        "warmth": 0,
        "exposure": 0,
        "blur": 0,
        "noise": 0,
        "vignette": 0,
        "saturation": 1,
        "seed": 0,
    } | scene.photo
    large = buffers.depth.shape
    depth = cv2.resize(buffers.depth, size[::-1], interpolation=cv2.INTER_NEAREST)
    share = shadows(scene, depth)
    # Ambient occlusion: how much nearer the surroundings are, within an arm's length.
    closed = np.zeros(size, np.float32)
    for radius in (3, 9):
        for dx, dy in ((radius, 0), (-radius, 0), (0, radius), (0, -radius)):
            nearer = depth - np.roll(depth, (dy, dx), (0, 1))
            closed += np.clip(nearer * 5, 0, 1) * np.clip(1.6 - nearer * 2, 0, 1)
    open_ = 1 - 0.07 * cv2.blur(closed, (5, 5))
    share, open_ = (cv2.resize(part, large[::-1]) for part in (share, open_))
    sunlit = np.maximum(buffers.normal @ scene.light.astype(np.float32), 0) * share
    sky = (0.62 + 0.38 * buffers.normal[..., 1]) * open_
    warm, cool = (
        photo["warmth"] * np.array([1, 0, -1]),
        photo["warmth"] * np.array([-0.5, 0, 0.5]) + [-0.02, 0, 0.03],
    )
    mixing = np.stack([photo["sun"] * (1 + warm), photo["sky"] * (1 + cool)], -1)
    light = cv2.transform(cv2.merge([sunlit, sky]), mixing)
    linear = cv2.multiply(cv2.multiply(buffers.colour, buffers.colour), light)
    glossy = np.flatnonzero(buffers.gloss)
    half = scene.light + [0, 0, -1.0]
    shine = (
        np.maximum(
            buffers.normal.reshape(-1, 3)[glossy] @ (half / np.linalg.norm(half)).astype(np.float32), 0
        )
        ** 16
    )
    linear.reshape(-1, 3)[glossy] += (
        0.5 * shine * buffers.gloss.reshape(-1)[glossy] * share.reshape(-1)[glossy]
    )[:, None]
    image = cv2.resize(linear, size[::-1], interpolation=cv2.INTER_AREA)
    if photo["blur"] > 0.25:
        image = cv2.GaussianBlur(image, (0, 0), photo["blur"])
    y, x = np.linspace(-0.5, 0.5, size[0])[:, None], np.linspace(-0.5, 0.5, size[1])
    gain = (-1.35 * 2.0 ** photo["exposure"] * (1 - photo["vignette"] * 2 * (x**2 + y**2))).astype(np.float32)
    image = cv2.sqrt(1 - cv2.exp(image * gain[..., None]))
    saturate = photo["saturation"] * np.eye(3) + (1 - photo["saturation"]) / 3
    image = cv2.transform(image, 255 * 1.08 * saturate)
    oy, ox = np.random.default_rng(photo["seed"]).integers(0, 512, 2)
    grain = library()["grain"][(oy + np.arange(size[0])) % 512][:, (ox + np.arange(size[1])) % 512]
    return cv2.addWeighted(image, 1, grain, 255 * photo["noise"], 0, dtype=cv2.CV_8U)


# ---------------------------------------------------------------- annotation
def masks(buffers: Buffers, people: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Visible silhouette (H, W) bool of each person at the picture's resolution."""
    whole = [
        cv2.resize((buffers.who == n + 1).astype(np.uint8) * 255, size[::-1], interpolation=cv2.INTER_AREA)
        for n in range(people)
    ]
    return [part > 127 for part in whole]


def share_seen(who: Person, mask: np.ndarray, camera: Camera) -> float:
    """Share of the surface that faces the camera, inside the picture, that shows."""
    points = np.concatenate([part.grid.reshape(-1, 3) for part in who.lofts])
    normals = np.concatenate([part.normals.reshape(-1, 3) for part in who.lofts])
    points = points[((camera.position.astype(np.float32) - points) * normals).sum(-1) > 0]
    seen = camera.project(points)
    x, y = np.rint(seen[:, 0]).astype(int), np.rint(seen[:, 1]).astype(int)
    inside = (seen[:, 2] > 0.2) & (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
    return float(mask[y[inside], x[inside]].mean()) if inside.any() else 0.0


def visibility(who: Person, buffers: Buffers, camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """Keypoints (17, 3) x, y, v of one person by the depth buffer; choice 5 of the module."""
    seen = camera.project(who.joints)
    large = camera.scaled(SUPERSAMPLE).project(who.joints)
    depth = cv2.copyMakeBorder(buffers.depth, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    tolerance = TOLERANCE * who.stature + who.thickness * who.stature * (TOLERANCE > 0.03)
    points = np.zeros((len(KEYPOINTS), 3))
    for number, (x, y, z) in enumerate(seen):
        if z <= 0 or not (-0.5 <= x < size[1] - 0.5 and -0.5 <= y < size[0] - 0.5):
            continue
        column = min(max(round(float(large[number, 0])), 0), depth.shape[1] - 3)
        row = min(max(round(float(large[number, 1])), 0), depth.shape[0] - 3)
        clear = (depth[row : row + 3, column : column + 3] > z - tolerance[number]).sum() >= 5
        points[number] = round(x, 2), round(y, 2), 2 if clear else 1
    return points


def annotate(scene: Scene, buffers: Buffers, size: tuple[int, int] = SIZE) -> list[dict]:
    """COCO annotations (without ids) of the people who show; choice 6 of the module."""
    annotations = []
    for who, mask in zip(scene.people, masks(buffers, len(scene.people), size), strict=True):
        area = int(mask.sum())
        points = visibility(who, buffers, scene.camera, size)
        if (
            area < MIN_AREA
            or (points[:, 2] == 2).sum() < 2
            or share_seen(who, mask, scene.camera) < MIN_VISIBLE
        ):
            continue
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        annotations.append({
            "category_id": 1, "iscrowd": 0, "area": area, "num_keypoints": int((points[:, 2] > 0).sum()),
            "bbox": [int(x[0]), int(y[0]), int(x[-1] - x[0] + 1), int(y[-1] - y[0] + 1)],
            "keypoints": [int(v) if v == int(v) else float(v) for v in points.ravel()],
            "segmentation": [c.ravel().tolist() for c in contours if len(c) > 2],
        })  # fmt: skip
    return annotations


def render(rng: np.random.Generator | int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, list[dict]]:
    """One random picture: RGB uint8 (H, W, 3) and its annotations; the same seed gives the same picture."""
    scene = sample_scene(np.random.default_rng(rng), size)
    buffers = rasterise(scene, size)
    return expose(scene, buffers, size), annotate(scene, buffers, size)


# ---------------------------------------------------------------- writing
SPLITS = ("train", "val")


def _write(task: tuple) -> tuple[dict, list[dict]]:
    """Draws image `number` of a split to its file; the seed of each image is its own, whoever draws it."""
    root, split, number, seed, size = task
    cv2.setNumThreads(1)
    image, annotations = render(np.random.SeedSequence((seed, SPLITS.index(split), number)), size)
    name = f"{number:06d}.jpg"
    ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise OSError(f"OpenCV could not encode {split}/{name}")
    (Path(root) / split / name).write_bytes(data.tobytes())
    return {"id": number + 1, "file_name": name, "height": size[0], "width": size[1]}, annotations


def generate(
    root: str | Path,
    train_images: int = 2000,
    val_images: int = 400,
    seed: int = 0,
    workers: int | None = None,
) -> None:
    """Writes `root`/{train,val}/*.jpg and `root`/annotations/person_keypoints_{train,val}.json.

    Returns at once where root already holds the same version, seed and counts. The pictures do not depend on
    `workers` (processes; all cores when None). Annotations are written last, by renaming complete files.
    """
    root, counts = Path(root), {"train": train_images, "val": val_images}
    settings = {"version": VERSION, "seed": seed, "size": list(SIZE), "quality": JPEG_QUALITY}
    files = {split: root / "annotations" / f"person_keypoints_{split}.json" for split in SPLITS}
    wanted = {split: settings | {"split": split, "images": count} for split, count in counts.items()}
    if all(_info(files[split]) == wanted[split] for split in SPLITS):
        return
    tasks = []
    for split in SPLITS:
        files[split].unlink(missing_ok=True)
        (root / split).mkdir(parents=True, exist_ok=True)
        for old in (root / split).glob("*.jpg"):
            old.unlink()
        tasks += [(str(root), split, number, seed, SIZE) for number in range(counts[split])]
    files["train"].parent.mkdir(exist_ok=True)
    workers = min(workers or multiprocessing.cpu_count(), max(len(tasks), 1))
    bar = {"total": len(tasks), "desc": "drawing people", "unit": "image"}
    if workers == 1:
        results = list(tqdm(map(_write, tasks), **bar))
    else:
        # Spawned, not forked: a parent that runs threads (a notebook, PyTorch) must not be forked.
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            results = list(tqdm(pool.imap(_write, tasks, chunksize=8), **bar))
    skeleton = skeletons.get("coco")
    category = {"id": 1, "name": "person", "supercategory": "person", "keypoints": list(skeleton.keypoints),
                "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs]}  # fmt: skip
    for split, begin in (("train", 0), ("val", train_images)):
        images, annotations = [], []
        for image, people in results[begin : begin + counts[split]]:
            images.append(image)
            annotations += [
                {"id": len(annotations) + n + 1, "image_id": image["id"]} | who
                for n, who in enumerate(people)
            ]
        content = {"info": {"description": "people drawn by posebook", **wanted[split]}, "images": images,
                   "annotations": annotations, "categories": [category]}  # fmt: skip
        partial = files[split].with_suffix(".partial")
        partial.write_text(json.dumps(content, separators=(",", ":")))
        partial.replace(files[split])


def _info(path: Path) -> dict | None:
    """The settings an annotation file was made with, or None where there is no complete one."""
    try:
        info = json.loads(path.read_text())["info"]
    except (OSError, ValueError, KeyError):
        return None
    return {key: value for key, value in info.items() if key != "description"}


def main() -> None:
    """python -m posebook.datasets.synthetic"""
    parser = argparse.ArgumentParser(description="Draw the embedded dataset.")
    parser.add_argument("--root", default="data/synthetic")
    parser.add_argument("--train-images", type=int, default=2000)
    parser.add_argument("--val-images", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=None)
    arguments = parser.parse_args()
    generate(arguments.root, arguments.train_images, arguments.val_images, arguments.seed, arguments.workers)


if __name__ == "__main__":
    main()
