"""Rigid parts of a person: hands, shoes and the head with its painted face, hair and headwear."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.random import Generator

from posebook.datasets.synthetic.anatomy import HEAD, SIDES, TABLE
from posebook.datasets.synthetic.surfaces import (
    Loft,
    interpolate_table,
    make_loft,
    multiply_color,
    random_color,
    random_crop,
    resample,
    tint,
    transform_loft,
)

if TYPE_CHECKING:  # bodies imports this module
    from posebook.datasets.synthetic.bodies import Look

HEAD_HEIGHTS = np.concatenate([HEAD[:3, 0], np.linspace(0.054, -0.052, 20), HEAD[-3:, 0]])
HAIR_HEIGHTS = np.concatenate([HEAD[:3, 0], np.linspace(0.055, -0.060, 20)])
FACE_SIZE = (112, 144)  # height, width of the head's texture
IRISES = ((0.18, 0.11, 0.07), (0.25, 0.36, 0.46), (0.24, 0.3, 0.2))


@dataclass(frozen=True)
class HeadPlacement:
    """Position of a head: its center in meters, its frame (3, 3), and the factor from stature 1 to meters."""

    center: np.ndarray
    frame: np.ndarray
    size: float

    def to_world(self, point: tuple[float, float, float]) -> np.ndarray:
        """A point of the template head (3,) in meters."""
        return self.center + self.frame @ (np.array(point) * self.size)


@lru_cache(maxsize=2)
def hand(sign: int) -> list[Loft]:
    """Palm with fingers, and thumb, from the wrist along -y; colors are factors of the skin color.

    `sign` is that of SIDES. The gaps between the fingers are painted.
    """
    profile = np.array([
        [-.01, .012, .010, .010], [0, .016, .012, .012], [.015, .021, .011, .012], [.035, .0245, .011, .011],
        [.052, .0245, .010, .009], [.07, .0225, .0075, .0075],
        [.09, .019, .006, .006], [.104, .011, .005, .005], [.108, .002, .002, .002]])  # fmt: skip
    positions = profile[:, 0]
    curl = np.clip((positions - 0.045) / 0.06, 0, 1) ** 1.5 * 0.03
    colors = np.ones((48, 48, 3))
    across = np.cos(np.linspace(0, 2 * np.pi, 48))
    colors[27:, np.min(abs(across[:, None] - [-0.45, 0, 0.45]), 1) < 0.07] *= 0.62
    centers = np.column_stack([0 * positions, -positions, curl])
    palm = make_loft(centers, np.tile(np.eye(3), (9, 1, 1)), profile[:, 1:], colors, power=0.7)
    along = np.linspace(0, 1, 6)[:, None]
    base, tip = np.array([-0.016 * sign, -0.018, 0.004]), np.array([-0.040 * sign, -0.062, 0.022])
    radius = np.array([0.006, 0.0095, 0.009, 0.008, 0.007, 0.001])
    thumb = make_loft(base + along * (tip - base), np.tile(np.eye(3), (6, 1, 1)), np.stack([radius] * 3, -1),
                      np.full((4, 4, 3), 0.97), around=9)  # fmt: skip
    return [palm, thumb]


@lru_cache(maxsize=1)
def foot() -> tuple[Loft, np.ndarray]:
    """A shoe relative to the ankle; its length and the height of the ankle above the sole are those of TABLE.

    Also returns the zone of each texel, (32, 32) int: 0 sole, 1 shoe, 2 laces.
    """
    positions = np.array([-.036, -.034, -.026, -.010, .012, .035, .060, .085, .103, .113, .116])  # fmt: skip
    half_width = np.array([.004, .016, .023, .025, .025, .026, .030, .031, .026, .015, .003])  # fmt: skip
    height = np.array([.012, .036, .050, .055, .052, .041, .031, .025, .020, .015, .010])  # fmt: skip
    middle = height * 0.42
    # The rings are upright: their front axis points up.
    upright = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]).T
    centers = np.column_stack([0 * positions, middle - TABLE["foot_height"], positions])
    zones, angle = np.ones((32, 32), int), np.linspace(0, 2 * np.pi, 32)
    zones[:, np.sin(angle) < -0.55] = 0
    zones[9:20:3, abs(angle - np.pi / 2) < 0.45] = 2
    profile = np.stack([half_width, height - middle, middle], -1)
    frames = np.tile(upright, (len(positions), 1, 1))
    return make_loft(centers, frames, profile, np.ones((1, 1, 3)), power=0.75, gloss=0.25), zones


@lru_cache(maxsize=1)
def face_regions() -> tuple[dict[str, tuple[np.ndarray, ...]], np.ndarray]:
    """Texel indices of each facial feature on the head's texture, and the blush to add, (*FACE_SIZE, 3)."""
    y = resample(HEAD_HEIGHTS, FACE_SIZE[0])[:, None]
    angle = np.linspace(0, 2 * np.pi, FACE_SIZE[1])
    front, x = np.sin(angle)[None], interpolate_table(HEAD, y[:, 0])[:, :1] * np.cos(angle)

    def ellipse(cx, cy, rx, ry):
        """A mask on both sides of the face, because x counts by its absolute value."""
        return (((abs(x) - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1) & (front > 0)

    lips = ellipse(0, -0.0365, 0.0145, 0.0042)
    blush = np.exp(-(((abs(x) - 0.024) / 0.012) ** 2) - ((y + 0.02) / 0.012) ** 2) * (front > 0)
    masks = {
        "jaw": (y < -0.026) & (front > -0.1) | (abs(x) > 0.036) & (y < -0.005) & (abs(front - 0.2) < 0.25),
        "scalp": (y > 0.036 - 0.02 * np.clip(0.3 - front, 0, 1)) | (y > -0.03) & (front < -0.05),
        "lips": lips, "mouth": lips & (abs(y + 0.0365) < 0.0012),
        "lids": ellipse(0.0185, 0.002, 0.0105, 0.0062),
        "white": ellipse(0.0185, 0.001, 0.0085, 0.0040), "iris": ellipse(0.0185, 0.001, 0.0042, 0.0042),
        "lashes": ellipse(0.0185, 0.0055, 0.0095, 0.0017), "brows": ellipse(0.019, 0.0135, 0.0125, 0.0027),
        "nostrils": ellipse(0.004, -0.0235, 0.0030, 0.0018),
        "glasses": ellipse(0.0185, 0.001, 0.0150, 0.0115) & ~ellipse(0.0185, 0.001, 0.0125, 0.009),
    }  # fmt: skip
    blush = (blush[..., None] * np.array([0.05, -0.02, -0.02])).astype(np.float32)
    return {name: np.nonzero(mask) for name, mask in masks.items()}, blush


@lru_cache(maxsize=1)
def head_template() -> list[Loft]:
    """Skull with nose, brow and chin, and both ears, relative to the center of the head, for stature 1."""
    profile, angle = interpolate_table(HEAD, HEAD_HEIGHTS), np.linspace(0, 2 * np.pi, 41)
    x, y = profile[:, :1] * np.cos(angle), HEAD_HEIGHTS[:, None]

    def bump(cx, cy, rx, ry):
        return np.exp(-(((abs(x) - cx) / rx) ** 2) - ((y - cy) / ry) ** 2) * (np.sin(angle) > 0.3)

    relief = 0.26 * bump(0, -0.016, 0.0065, 0.0065) + 0.15 * bump(0, -0.004, 0.006, 0.011)  # nose
    relief += 0.05 * bump(0, -0.036, 0.012, 0.007) + 0.04 * bump(0, -0.055, 0.012, 0.008)  # lips, chin
    relief -= 0.06 * bump(0.019, 0.001, 0.009, 0.006)  # eye sockets
    upright = np.tile(np.eye(3), (len(HEAD_HEIGHTS), 1, 1))
    white = np.ones((1, 1, 3))
    lofts = [make_loft(y * [0, 1.0, 0], upright, profile, white, around=41, relief=relief, gloss=0.08)]
    steps = np.linspace(-1, 1, 7)
    for sign in SIDES.values():
        centers = np.column_stack([0 * steps + sign * 0.0455, -0.006 + 0.019 * steps, -0.008 - 0.004 * steps])
        ear = np.sqrt(np.clip(1 - steps**2, 0.003, 1))[:, None] * [0.0055, 0.011, 0.011]
        lofts.append(make_loft(centers, upright[:7], ear, white, around=11))
    return lofts


def head(
    rng: Generator, center: np.ndarray, frame: np.ndarray, look: "Look"
) -> tuple[list[Loft], dict[str, np.ndarray]]:
    """Head, ears and hair around `center`, and the positions of the five face keypoints and the crown."""
    placement = HeadPlacement(center, frame, look.stature * look.head)
    skull, *ears = head_template()
    ear_colors = (look.skin * [0.97, 0.9, 0.88]).astype(np.float32)[None, None]
    lofts = [transform_loft(skull, center, frame, placement.size, face_texture(rng, look))]
    lofts += [transform_loft(ear, center, frame, placement.size, ear_colors) for ear in ears]
    points = {
        "nose": placement.to_world((0, -0.016, 0.0585)),
        "head": placement.to_world((0, HEAD[0, 0], 0)),
    }
    for side, sign in SIDES.items():
        points[f"{side}_eye"] = placement.to_world((sign * 0.0185, 0.001, 0.0455))
        points[f"{side}_ear"] = placement.to_world((sign * 0.0450, -0.006, -0.004))
    return lofts + hair(rng, placement, look), points


def face_texture(rng: Generator, look: "Look") -> np.ndarray:
    """Colors of the head (*FACE_SIZE, 3): skin, facial features, beard, cropped hair and glasses."""
    regions, blush = face_regions()
    field = 1 + 0.025 * random_crop(rng, "noise", FACE_SIZE)
    paint = multiply_color(look.skin.astype(np.float32), field)
    paint += blush
    if look.beard:
        paint[regions["jaw"]] = 0.45 * paint[regions["jaw"]] + 0.55 * look.hair
    if look.hair_style == "crop":
        paint[regions["scalp"]] = 0.25 * paint[regions["scalp"]] + 0.75 * look.hair
    paint[regions["lips"]] = look.skin * [0.82, 0.52, 0.5]
    paint[regions["mouth"]] *= 0.45
    paint[regions["lids"]] *= 0.72
    paint[regions["white"]] = 0.9
    paint[regions["iris"]] = IRISES[rng.choice(3, p=[0.65, 0.2, 0.15])]
    paint[regions["lashes"]] *= 0.4
    paint[regions["brows"]] = 0.3 * look.skin + 0.7 * np.minimum(look.hair, 0.4)
    paint[regions["nostrils"]] *= 0.45
    if look.glasses:
        paint[regions["glasses"]] = 0.08
    return np.minimum(paint, 1, out=paint)


def hair(rng: Generator, placement: HeadPlacement, look: "Look") -> list[Loft]:
    """A shell over the skull that is raised where hair grows, and hanging hair; also caps and scarves."""
    style = look.hair_style
    if style in ("bald", "crop"):
        return []
    covered = style in ("cap", "scarf")
    base = random_color(rng, 0.4) if covered else look.hair
    streaks = 1 + (0.05 if covered else 0.22) * random_crop(rng, "streak", (96, 96))
    colors = np.clip(tint(base, streaks).astype(np.float32), 0.02, 1)
    edge = hairline(rng, style)
    coverage = np.clip((HAIR_HEIGHTS[:, None] - edge) / 0.007 + 0.5, 0, 1)  # (heights, directions)
    thickness = {"cap": 0.09, "scarf": 0.10, "short": 0.12, "bob": 0.15}.get(style, 0.11)
    thickness *= rng.uniform(0.85, 1.25)
    roughness = cv2.resize(random_crop(rng, "noise", (64, 64)), (41, len(HAIR_HEIGHTS)))
    # Where there is no hair, the shell lies inside the skull.
    relief = -0.12 + coverage * (0.12 + thickness + 0.03 * (not covered) * roughness)
    up, size = placement.frame[:, 1], placement.size
    lift = np.clip(HAIR_HEIGHTS / 0.065, 0, 1)[:, None] ** 2 * thickness * 0.05 * size * up
    centers = placement.center + HAIR_HEIGHTS[:, None] * up * size + lift
    frames = np.broadcast_to(placement.frame, (len(centers), 3, 3))
    shell = make_loft(
        centers, frames, interpolate_table(HEAD, HAIR_HEIGHTS) * size, colors,
        around=41, relief=relief, gloss=0.0 if covered else 0.12,
    )  # fmt: skip
    lofts = [shell]
    if (strand := hair_strand(rng, style)) is not None:
        points, profile = strand
        centers = np.stack([placement.to_world(point) for point in points])
        gloss = 0.0 if covered else 0.1
        lofts.append(
            make_loft(centers, frames[: len(centers)], np.array(profile) * size, colors, gloss=gloss)
        )
    if style == "cap":
        centers = np.stack([placement.to_world((0, 0.024 - 0.003 * h, 0.030)) for h in (0, 0.5, 1, 1.5)])
        brim = [(0.01, 0.01, 0.01), (0.042, 0.064, 0.03), (0.042, 0.064, 0.03), (0.01, 0.01, 0.01)]
        plain = np.broadcast_to(base * 0.9, (4, 4, 3))
        lofts.append(make_loft(centers, frames[:4], np.array(brim) * size, plain))
    return lofts


def hairline(rng: Generator, style: str) -> np.ndarray:
    """Height of the lower edge of the hair or headwear for each of 41 directions around the head."""
    angle = np.linspace(0, 2 * np.pi, 41)
    side, front = np.cos(angle), np.sin(angle)
    # From back to front: nape, behind the ears, temples, forehead.
    edge = np.interp(front, [-1, -0.35, -0.05, 0.25, 0.6, 1], [-0.046, -0.040, -0.004, 0.008, 0.028, 0.036])
    edge = edge + 0.004 * np.sin(5 * angle + rng.uniform(0, 6))
    if style == "cap":
        return np.interp(front, [-1, -0.3, 0.3, 1], [0.002, 0.010, 0.020, 0.024])
    if style == "scarf":
        return np.interp(front, [-1, 0.35, 0.6, 0.8, 1], [-0.2, -0.2, -0.05, 0.022, 0.033])
    return edge + 0.006 * side * rng.choice([-1, 1])  # parted on one side


def hair_strand(rng: Generator, style: str) -> tuple[list, list] | None:
    """Centers and profile rows of hair or cloth outside the shell; None if there is none."""
    if style in ("long", "bob", "scarf"):
        # The length of long hair is drawn for all three styles: the random stream must not change.
        bottom = {"long": rng.uniform(-0.19, -0.09), "bob": -0.062, "scarf": -0.085}[style]
        heights = np.linspace(0.02, bottom, 9)
        widths = np.sin(np.linspace(0.9, 2.75, 9)) ** 0.6
        return (
            [(0, height, -0.012 - 0.014 * k / 8) for k, height in enumerate(heights)],
            [(0.052 * w + 0.002, 0.006 * w, 0.050 * w) for w in widths],
        )
    if style == "tail":
        return (
            [(0, 0.03 - 0.11 * d, -0.052 - 0.05 * np.sin(2.2 * d)) for d in np.linspace(0, 1, 8)],
            [(w, w, w) for w in (0.006, 0.014, 0.019, 0.021, 0.020, 0.017, 0.011, 0.002)],
        )
    if style == "bun":
        steps = np.linspace(-1, 1, 8)
        return (
            [(0, 0.045 + 0.024 * step, -0.052) for step in steps],
            [(0.025 * w, 0.025 * w, 0.025 * w) for w in np.sqrt(1.01 - steps**2)],
        )
    return None
