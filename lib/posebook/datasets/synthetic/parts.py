"""Parts of a person that keep their shape: hands and feet; the head, with its painted face, hair and hats."""

from functools import lru_cache

import cv2
import numpy as np

from posebook.datasets.synthetic.anatomy import HEAD, SIDES, TABLE
from posebook.datasets.synthetic.surfaces import Loft, color, crop, loft, moved, rings, tint

HEAD_AT, FACE = np.concatenate([HEAD[:3, 0], np.linspace(0.054, -0.052, 20), HEAD[-3:, 0]]), (112, 144)
HAIR_AT = np.concatenate([HEAD[:3, 0], np.linspace(0.055, -0.060, 20)])
IRISES = ((0.18, 0.11, 0.07), (0.25, 0.36, 0.46), (0.24, 0.3, 0.2))


@lru_cache(maxsize=2)
def hand(sign: int) -> list[Loft]:
    """Palm, fingers (slits painted) and thumb from the wrist along -y; colors are factors of the skin's."""
    profile = np.array([
        [-.01, .012, .010, .010], [0, .016, .012, .012], [.015, .021, .011, .012], [.035, .0245, .011, .011],
        [.052, .0245, .010, .009], [.07, .0225, .0075, .0075],
        [.09, .019, .006, .006], [.104, .011, .005, .005], [.108, .002, .002, .002]])  # fmt: skip
    at = profile[:, 0]
    curl = np.clip((at - 0.045) / 0.06, 0, 1) ** 1.5 * 0.03
    colors = np.ones((48, 48, 3))
    across = np.cos(np.linspace(0, 2 * np.pi, 48))
    colors[27:, np.min(abs(across[:, None] - [-0.45, 0, 0.45]), 1) < 0.07] *= 0.62
    centers = np.column_stack([0 * at, -at, curl])
    palm = loft(centers, np.tile(np.eye(3), (9, 1, 1)), profile[:, 1:], colors, power=0.7)
    along = np.linspace(0, 1, 6)[:, None]
    base, tip = np.array([-0.016 * sign, -0.018, 0.004]), np.array([-0.040 * sign, -0.062, 0.022])
    radius = np.array([0.006, 0.0095, 0.009, 0.008, 0.007, 0.001])
    thumb = loft(base + along * (tip - base), np.tile(np.eye(3), (6, 1, 1)), np.stack([radius] * 3, -1),
                 np.full((4, 4, 3), 0.97), around=9)  # fmt: skip
    return [palm, thumb]


@lru_cache(maxsize=1)
def foot() -> tuple[Loft, np.ndarray]:
    """A shoe about the ankle: its length and the height of the ankle over the sole are the table's.

    With it a map (32, 32) that is 1 where the shoe's own color goes, 0 on the sole, 2 on the laces.
    """
    at = np.array([-.036, -.034, -.026, -.010, .012, .035, .060, .085, .103, .113, .116])  # fmt: skip
    half = np.array([.004, .016, .023, .025, .025, .026, .030, .031, .026, .015, .003])  # fmt: skip
    high = np.array([.012, .036, .050, .055, .052, .041, .031, .025, .020, .015, .010])  # fmt: skip
    middle = high * 0.42
    # Rings stand upright: their "front" is up.
    upright = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]).T
    centers = np.column_stack([0 * at, middle - TABLE["foot_height"], at])
    zones, angle = np.ones((32, 32), int), np.linspace(0, 2 * np.pi, 32)
    zones[:, np.sin(angle) < -0.55] = 0
    zones[9:20:3, abs(angle - np.pi / 2) < 0.45] = 2
    profile = np.stack([half, high - middle, middle], -1)
    frames = np.tile(upright, (len(at), 1, 1))
    return loft(centers, frames, profile, np.ones((1, 1, 3)), power=0.75, gloss=0.25), zones


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
        centers = np.column_stack([0 * at + sign * 0.0455, -0.006 + 0.019 * at, -0.008 - 0.004 * at])
        shape = np.sqrt(np.clip(1 - at**2, 0.003, 1))[:, None] * [0.0055, 0.011, 0.011]
        parts.append(loft(centers, upright[:7], shape, white, around=11))
    return parts


def head(rng, middle, frame, look) -> tuple[list[Loft], dict]:
    """Head, ears and hair about `middle`; also where the five face keypoints and the crown lie."""
    size = look.stature * look.head
    skull, *ears = head_shape()
    ear_colors = (look.skin * [0.97, 0.9, 0.88]).astype(np.float32)[None, None]
    parts = [moved(skull, middle, frame, size, face(rng, look))]
    parts += [moved(ear, middle, frame, size, ear_colors) for ear in ears]
    place = lambda p: middle + frame @ (np.array(p) * size)  # noqa: E731
    points = {"nose": place((0, -0.016, 0.0585)), "head": place((0, HEAD[0, 0], 0))}
    for side, sign in SIDES.items():
        points[f"{side}_eye"] = place((sign * 0.0185, 0.001, 0.0455))
        points[f"{side}_ear"] = place((sign * 0.0450, -0.006, -0.004))
    return parts + hair(rng, place, frame, size, look), points


def face(rng, look) -> np.ndarray:
    """Colors of the head's surface (FACE, 3): skin, features, beard, cropped hair, glasses."""
    spots = face_spots()
    field = 1 + np.float32(0.025) * crop(rng, "noise", FACE)
    paint = cv2.merge([one * field for one in look.skin.astype(np.float32)])
    paint += spots["blush"]
    if look.beard:
        paint[spots["jaw"]] = 0.45 * paint[spots["jaw"]] + 0.55 * look.hair
    if look.style == "crop":
        paint[spots["scalp"]] = 0.25 * paint[spots["scalp"]] + 0.75 * look.hair
    paint[spots["lips"]] = look.skin * [0.82, 0.52, 0.5]
    paint[spots["mouth"]] *= 0.45
    paint[spots["lids"]] *= 0.72
    paint[spots["white"]] = 0.9
    paint[spots["iris"]] = IRISES[rng.choice(3, p=[0.65, 0.2, 0.15])]
    paint[spots["lashes"]] *= 0.4
    paint[spots["brows"]] = 0.3 * look.skin + 0.7 * np.minimum(look.hair, 0.4)
    paint[spots["nostrils"]] *= 0.45
    if look.glasses:
        paint[spots["glasses"]] = 0.08
    return np.minimum(paint, 1, out=paint)


def hair(rng, place, frame, size, look) -> list[Loft]:
    """A shell over the skull, lifted where hair grows, and what hangs from it; also caps and scarves."""
    style = look.style
    if style in ("bald", "crop"):
        return []
    covered = style in ("cap", "scarf")
    base = color(rng, 0.4) if covered else look.hair
    streaks = 1 + (0.05 if covered else 0.22) * crop(rng, "streak", (96, 96))
    colors = np.clip(tint(base, streaks).astype(np.float32), np.float32(0.02), 1)
    angle = np.linspace(0, 2 * np.pi, 41)
    lateral, ahead = np.cos(angle), np.sin(angle)
    # Where hair ends, by direction: brow, temples, behind the ears, nape.
    edge = np.interp(ahead, [-1, -0.35, -0.05, 0.25, 0.6, 1], [-0.046, -0.040, -0.004, 0.008, 0.028, 0.036])
    edge = edge + 0.004 * np.sin(5 * angle + rng.uniform(0, 6))
    if not covered:
        edge = edge + 0.006 * lateral * rng.choice([-1, 1])
    if style == "cap":
        edge = np.interp(ahead, [-1, -0.3, 0.3, 1], [0.002, 0.010, 0.020, 0.024])
    if style == "scarf":
        edge = np.interp(ahead, [-1, 0.35, 0.6, 0.8, 1], [-0.2, -0.2, -0.05, 0.022, 0.033])
    grows = np.clip((HAIR_AT[:, None] - edge) / 0.007 + 0.5, 0, 1)
    thick = {"cap": 0.09, "scarf": 0.10, "short": 0.12, "bob": 0.15}.get(style, 0.11)
    thick *= rng.uniform(0.85, 1.25)
    rough = cv2.resize(crop(rng, "noise", (64, 64)), (41, len(HAIR_AT)))
    relief = -0.12 + grows * (0.12 + thick + 0.03 * (not covered) * rough)
    lift = np.clip(HAIR_AT / 0.065, 0, 1)[:, None] ** 2 * thick * 0.05 * size * frame[:, 1]
    parts = []

    def add(centers, profile, **shape):
        frames = np.broadcast_to(frame, (len(centers), 3, 3))
        parts.append(loft(centers, frames, np.asarray(profile) * size, colors, **shape))

    def strand(points, profile):
        add(np.stack([place(p) for p in points]), profile, gloss=0.0 if covered else 0.1)

    add(
        place((0, 0, 0)) + HAIR_AT[:, None] * frame[:, 1] * size + lift, rings(HEAD, HAIR_AT),
        around=41, relief=relief, gloss=0.0 if covered else 0.12,
    )  # fmt: skip
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
        colors = np.broadcast_to(base * 0.9, (4, 4, 3))
        brim = [(0.01, 0.01, 0.01), (0.042, 0.064, 0.03), (0.042, 0.064, 0.03), (0.01, 0.01, 0.01)]
        add(np.stack([place((0, 0.024 - 0.003 * h, 0.030)) for h in (0, 0.5, 1, 1.5)]), brim)
    return parts
