"""What everything is made of: closed surfaces of rings (lofts), flat cut-outs (quads), textures, colors."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from posebook.datasets.synthetic.anatomy import turn

SKINS = np.array([(255, 224, 196), (241, 194, 160), (224, 172, 125), (198, 134, 88), (150, 98, 62),
                  (112, 70, 46), (82, 52, 36), (236, 188, 170)]) / 255  # fmt: skip
HAIRS = np.array([(24, 20, 18), (46, 32, 24), (82, 54, 34), (134, 92, 52), (188, 148, 92), (142, 66, 34),
                  (150, 148, 146), (214, 210, 204)]) / 255  # fmt: skip


@dataclass(frozen=True)
class Loft:
    """A closed surface: points (U, V, 3), ring by ring; normals alike; colors (h, w, 3) in [0, 1]."""

    grid: np.ndarray
    normals: np.ndarray
    colors: np.ndarray
    gloss: float = 0.0


@dataclass(frozen=True)
class Quad:
    """A flat thing: corners (4, 3) in order, normal, picture (h, w, 4) uint8 whose alpha cuts it out."""

    corners: np.ndarray
    normal: np.ndarray
    picture: np.ndarray


def loft(centers, frames, profile, colors, around=17, power=1.0, relief=0.0, gloss=0.0) -> Loft:
    """Rings of half width, front and back depth (U, 3) about centers (U, 3) in frames (U, 3, 3) -> Loft.

    `power` under 1 squares the rings; `relief` (U, around) or a number scales radii by 1 + relief.
    """
    grids, normals = tubes(centers[None], frames[None], profile, around, power, relief)
    return Loft(grids[0], normals[0], np.ascontiguousarray(colors, np.float32), gloss)


def tubes(centers, frames, profile, around=17, power=1.0, relief=0.0) -> tuple[np.ndarray, np.ndarray]:
    """Points and normals (N, U, around, 3) of N tubes that differ by centers (N, U, 3) and frames only."""
    c, ahead, behind = ring_shape(around, power)
    scale = 1 + relief
    side = profile[:, :1] * c * scale
    depth = (profile[:, 1:2] * ahead + profile[:, 2:3] * behind) * scale
    # A frame's columns: x to the side, z to the front. Planes (3, N, U, around) are quicker than triples.
    frames = frames.transpose(2, 0, 1, 3)[..., None]  # (3, N, U, 3, 1)
    out = side * frames[..., 0, :] + depth * frames[..., 2, :]  # (3, N, U, around)
    grid = centers.transpose(2, 0, 1)[..., None] + out
    planes = grid[[0, 1, 2, 0, 1]]  # so that a cross product is three operations
    along, across = np.empty_like(planes), np.empty_like(planes)
    np.subtract(planes[:, :, 2:], planes[:, :, :-2], out=along[:, :, 1:-1])
    np.subtract(planes[:, :, 1], planes[:, :, 0], out=along[:, :, 0])
    np.subtract(planes[:, :, -1], planes[:, :, -2], out=along[:, :, -1])
    np.subtract(planes[..., 2:], planes[..., :-2], out=across[..., 1:-1])
    across[..., 0] = across[..., -1] = planes[..., 1] - planes[..., -2]
    normals = across[1:4] * along[2:5]
    normals -= across[2:5] * along[1:4]
    normals /= np.sqrt(np.einsum("knuv,knuv->nuv", normals, normals)) + 1e-12
    for number in range(normals.shape[1]):  # outwards, whichever way the rings run
        if np.vdot(normals[:, number], out[:, number]) < 0:
            np.negative(normals[:, number], out=normals[:, number])
    return tuple(np.ascontiguousarray(p.transpose(1, 2, 3, 0), np.float32) for p in (grid, normals))


@lru_cache(maxsize=32)
def ring_shape(around: int, power: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit ring: x, z where it is in front, z where it is behind (around,); power under 1 squares it."""
    angle = np.linspace(0, 2 * np.pi, around)
    c, s = np.cos(angle), np.sin(angle)
    c, s = np.sign(c) * abs(c) ** power, np.sign(s) * abs(s) ** power
    return c, np.maximum(s, 0), np.minimum(s, 0)


def rings(table: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Columns 1.. of a table at positions of its first column, sorted either way: (len(at), columns - 1)."""
    if table[0, 0] > table[-1, 0]:
        table = table[::-1]
    return np.column_stack([np.interp(at, table[:, 0], column) for column in table.T[1:]])


def blend(first, second, weight) -> np.ndarray:
    """Frames between two rotations for weights (N,): (N, 3, 3), columns scaled back to length 1."""
    mixed = first + weight[:, None, None] * (second - first)
    return mixed / (np.sqrt((mixed * mixed).sum(1, keepdims=True)) + 1e-9)


def moved(part: Loft, origin, frame, size, colors) -> Loft:
    """A rigid part, modelled about the origin for stature 1, turned, scaled, painted, put at `origin`."""
    frame, shape = frame.astype(np.float32), part.grid.shape
    grid = part.grid.reshape(-1, 3) @ (frame.T * np.float32(size)) + origin.astype(np.float32)
    normals = part.normals.reshape(-1, 3) @ frame.T
    return Loft(grid.reshape(shape), normals.reshape(shape), colors, part.gloss)


def box(center, size, yaw, pictures) -> list[Quad]:
    """Five faces (no bottom) of a box whose floor middle is `center`; size is width, height, depth."""
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
    origin = np.array(center) + [0, h, 0]
    return [Quad(np.stack(f[:4]) @ frame.T + origin, frame @ f[4], f[5]) for f in faces]


@lru_cache(maxsize=1)
def library() -> dict:
    """Gray textures (256, 256) about 0, that tile, and noise; the same in every run, whatever the seed."""
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


def color(rng, muted=0.5) -> np.ndarray:
    """A random surface color (3,) in [0, 1]; dull, dark and pale ones are as frequent as strong ones."""
    hue, value = rng.uniform(0, 180), rng.uniform(0.08, 0.95)
    saturation = rng.uniform(0, 0.25) if rng.random() < muted else rng.uniform(0.35, 0.9)
    pixel = np.array([[[hue, saturation * 255, value * 255]]], np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] / 255


def tint(base, field) -> np.ndarray:
    """A picture (h, w, 3) of one color (3,), lighter and darker by a field (h, w); double precision."""
    return np.ascontiguousarray((base[:, None, None] * field).transpose(1, 2, 0))


def cloth(rng, base, pattern, shape=(96, 64)) -> np.ndarray:
    """Woven colors (h, w, 3): a pattern, and folds as soft light and dark."""
    rows, columns = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)
    second = np.clip(color(rng), 0.03, 0.95)
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
    mask = mask.astype(np.float32)
    base, second = base.astype(np.float32), second.astype(np.float32)
    weave = 1 + 0.05 * crop(rng, "noise", shape) + 0.03 * crop(rng, "fine", shape)
    return cv2.merge([(one + mask * (other - one)) * weave for one, other in zip(base, second, strict=True)])


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
    """Opaque furniture colors (h, w, 4) uint8: wood, painted, cardboard or striped."""
    base, name = color(rng, 0.6), rng.choice(["streak", "noise", "planks", "panel", "speckle"])
    if rng.random() < 0.4:
        base = np.array([0.55, 0.38, 0.22]) * rng.uniform(0.4, 1.5)
    image = tint(base, 1 + 0.12 * crop(rng, name, shape))
    image[[0, -1]] *= 0.6
    image[:, [0, -1]] *= 0.6
    return np.dstack([np.clip(image * 255, 0, 255), np.full(shape, 255)]).astype(np.uint8)
