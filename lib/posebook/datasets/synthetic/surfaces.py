"""Lofts (closed surfaces made of rings), quads (flat cut-outs), textures and colors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator

from posebook.datasets.synthetic.anatomy import rotation

SKINS = np.array([(255, 224, 196), (241, 194, 160), (224, 172, 125), (198, 134, 88), (150, 98, 62),
                  (112, 70, 46), (82, 52, 36), (236, 188, 170)]) / 255  # fmt: skip
HAIRS = np.array([(24, 20, 18), (46, 32, 24), (82, 54, 34), (134, 92, 52), (188, 148, 92), (142, 66, 34),
                  (150, 148, 146), (214, 210, 204)]) / 255  # fmt: skip


@dataclass(frozen=True)
class Loft:
    """A closed surface of U rings with V points each: points (U, V, 3) in meters, unit normals (U, V, 3).

    `colors` (h, w, 3) in [0, 1] cover the surface: rows along the curve, columns around the ring.
    """

    grid: np.ndarray
    normals: np.ndarray
    colors: np.ndarray
    gloss: float = 0.0


@dataclass(frozen=True)
class Quad:
    """A flat surface: corners (4, 3) in meters, normal (3,), RGBA texture (h, w, 4) uint8.

    The corners follow the texture's corners: top left, top right, bottom right, bottom left.
    """

    corners: np.ndarray
    normal: np.ndarray
    texture: np.ndarray


def make_loft(
    centers: np.ndarray, frames: np.ndarray, profile: np.ndarray, colors: np.ndarray,
    around: int = 17, power: float = 1.0, relief: np.ndarray | float = 0.0, gloss: float = 0.0,
) -> Loft:  # fmt: skip
    """A loft from ring centers (U, 3), ring frames (U, 3, 3) and a profile (U, 3).

    The profile holds half width, front depth and back depth. A `power` below 1 makes the rings squarer.
    `relief`, (U, around) or a number, scales the radii by 1 + relief.
    """
    grids, normals = tube_surfaces(centers[None], frames[None], profile, around, power, relief)
    return Loft(grids[0], normals[0], np.ascontiguousarray(colors, np.float32), gloss)


def tube_surfaces(
    centers: np.ndarray, frames: np.ndarray, profile: np.ndarray,
    around: int = 17, power: float = 1.0, relief: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Points and normals (N, U, around, 3) of N tubes that differ only in centers (N, U, 3) and frames."""
    x, z_front, z_back = unit_ring(around, power)
    scale = 1 + relief
    side = profile[:, :1] * x * scale
    depth = (profile[:, 1:2] * z_front + profile[:, 2:3] * z_back) * scale
    # The columns of a frame are its axes: x points to the side, z to the front. Arrays with the coordinate as
    # the first axis, (3, N, U, around), are faster here than (..., 3).
    frames = frames.transpose(2, 0, 1, 3)[..., None]  # (3, N, U, 3, 1)
    offsets = side * frames[..., 0, :] + depth * frames[..., 2, :]  # (3, N, U, around)
    grid = centers.transpose(2, 0, 1)[..., None] + offsets
    # Repeating x and y makes the three components of a cross product three consecutive planes.
    planes = grid[[0, 1, 2, 0, 1]]  # (5, N, U, around)
    along, across = np.empty_like(planes), np.empty_like(planes)
    np.subtract(planes[:, :, 2:], planes[:, :, :-2], out=along[:, :, 1:-1])
    np.subtract(planes[:, :, 1], planes[:, :, 0], out=along[:, :, 0])
    np.subtract(planes[:, :, -1], planes[:, :, -2], out=along[:, :, -1])
    np.subtract(planes[..., 2:], planes[..., :-2], out=across[..., 1:-1])
    across[..., 0] = across[..., -1] = planes[..., 1] - planes[..., -2]
    normals = across[1:4] * along[2:5]
    normals -= across[2:5] * along[1:4]
    normals /= np.sqrt(np.einsum("knuv,knuv->nuv", normals, normals)) + 1e-12
    for number in range(normals.shape[1]):  # the normals point outward, whatever the order of the rings
        if np.vdot(normals[:, number], offsets[:, number]) < 0:
            np.negative(normals[:, number], out=normals[:, number])
    points, normals = (np.ascontiguousarray(p.transpose(1, 2, 3, 0), np.float32) for p in (grid, normals))
    return points, normals


@lru_cache(maxsize=32)
def unit_ring(around: int, power: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A closed unit ring: x, z of the front half and z of the back half, (around,) each; zero elsewhere."""
    angle = np.linspace(0, 2 * np.pi, around)
    x, z = np.cos(angle), np.sin(angle)
    x, z = np.sign(x) * abs(x) ** power, np.sign(z) * abs(z) ** power
    return x, np.maximum(z, 0), np.minimum(z, 0)


def interpolate_table(table: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The other columns (P, C - 1) of a table (N, C) at positions (P,) of its monotonic first column."""
    if table[0, 0] > table[-1, 0]:
        table = table[::-1]
    return np.column_stack([np.interp(positions, table[:, 0], column) for column in table.T[1:]])


def resample(values: np.ndarray, count: int) -> np.ndarray:
    """Linear interpolation of values (N,) at `count` evenly spaced indices."""
    return np.interp(np.linspace(0, len(values) - 1, count), np.arange(len(values)), values)


def blend_frames(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Frames (N, 3, 3) between two rotations for weights (N,), with columns of length 1."""
    mixed = first + weight[:, None, None] * (second - first)
    return mixed / (np.sqrt((mixed * mixed).sum(1, keepdims=True)) + 1e-9)


def transform_loft(
    loft: Loft, origin: np.ndarray, frame: np.ndarray, size: float, colors: np.ndarray
) -> Loft:
    """Scale, rotate and move a template (modeled at the origin for stature 1), and give it colors."""
    frame, shape = frame.astype(np.float32), loft.grid.shape
    grid = loft.grid.reshape(-1, 3) @ (frame.T * np.float32(size)) + origin.astype(np.float32)
    normals = loft.normals.reshape(-1, 3) @ frame.T
    return Loft(grid.reshape(shape), normals.reshape(shape), colors, loft.gloss)


def box(center, size, yaw: float, textures: list[np.ndarray]) -> list[Quad]:
    """Five faces (without the bottom) of a box. `center` is the center of the bottom, in meters.

    `size` is width, height and depth in meters. The faces use the textures in turn; the top uses the first.
    """
    w, h, d = np.array(size) / 2
    frame, origin = rotation("y", yaw), np.array(center) + [0, h, 0]
    up = np.array([0, h, 0])
    faces = []
    for axis, half_width, half_depth in (
        ((0.0, 0, 1), w, d), ((1.0, 0, 0), d, w), ((0.0, 0, -1), w, d), ((-1.0, 0, 0), d, w),
    ):  # fmt: skip
        normal = np.array(axis)
        across, middle = np.cross([0, 1.0, 0], normal) * half_width, normal * half_depth
        faces.append(
            ([middle - across + up, middle + across + up, middle + across - up, middle - across - up], normal)
        )
    top = [np.array(corner) for corner in ((-w, h, -d), (w, h, -d), (w, h, d), (-w, h, d))]
    faces.append((top, np.array([0, 1.0, 0])))
    return [
        Quad(np.stack(corners) @ frame.T + origin, frame @ normal, textures[number % 4 % len(textures)])
        for number, (corners, normal) in enumerate(faces)
    ]


@lru_cache(maxsize=1)
def textures() -> dict[str, np.ndarray]:
    """Tileable gray textures (256, 256) around 0 and film grain (512, 512, 3); equal for every seed."""
    rng = np.random.default_rng(0)

    def noise(cells: int, octaves: int) -> np.ndarray:
        total = np.zeros((256, 256), np.float32)
        for octave in range(octaves):
            n = min(cells * 2**octave, 256)
            # A margin of two wrapped cells makes the enlarged noise tileable.
            tile = np.pad(rng.normal(size=(n, n)).astype(np.float32), 2, mode="wrap")
            k = 256 // n
            enlarged = cv2.resize(tile, None, fx=k, fy=k, interpolation=cv2.INTER_CUBIC)
            total += enlarged[2 * k : -2 * k, 2 * k : -2 * k] / 2**octave
        return total / total.std()

    y, x = np.mgrid[:256, :256]
    fields = {"noise": noise(4, 4), "soft": noise(4, 2), "speckle": noise(64, 3), "fine": noise(128, 2)}
    fields["streak"] = np.roll(cv2.blur(fields["fine"], (1, 31), borderType=cv2.BORDER_REFLECT), 40, 0) * 3
    board = rng.normal(size=(8, 3))[y // 32, ((x + (y // 32 % 2) * 60) // 86).clip(0, 2)]
    fields["planks"] = board * 0.6 + fields["streak"].T * 0.4 - 2.2 * ((y % 32) < 1.5)
    tile, joint = rng.normal(size=(4, 4))[y // 64, x // 64], (y % 64 < 2) | (x % 64 < 2)
    fields["tiles"] = tile * 0.25 + fields["noise"] * 0.3 - 2 * joint
    shifted = (x + (y // 16 % 2) * 16) % 256  # every second row of bricks is shifted by half a brick
    brick, joint = rng.normal(size=(16, 8))[y // 16, shifted // 32], (y % 16 < 2) | (shifted % 32 < 2)
    fields["brick"] = brick * 0.6 + fields["speckle"] * 0.4 - 2.0 * joint
    fields["check"] = 2.0 * ((y // 64 + x // 64) % 2) - 1 + fields["noise"] * 0.2
    fields["grass"] = fields["streak"] * 0.6 + fields["noise"] * 0.5 + fields["fine"] * 0.4
    fields["asphalt"] = fields["fine"] * 0.6 + fields["noise"] * 0.5
    fields["panel"] = -2.0 * (x % 64 < 2) + 0.25 * fields["streak"]
    fields["stripe"] = 1.2 * ((x // 32) % 2) - 0.6 + 0.1 * fields["fine"]
    fields["grain"] = rng.normal(size=(512, 512, 3)).astype(np.float32)
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in fields.items()}


def random_crop(rng: Generator, name: str, shape: tuple[int, int]) -> np.ndarray:
    """A random window (h, w) of a texture; h and w are at most 256."""
    y, x = rng.integers(0, 257 - shape[0]), rng.integers(0, 257 - shape[1])
    return textures()[name][y : y + shape[0], x : x + shape[1]]


def random_color(rng: Generator, muted: float = 0.5) -> np.ndarray:
    """A random surface color (3,) in [0, 1]. `muted` is the probability of a low saturation."""
    hue, value = rng.uniform(0, 180), rng.uniform(0.08, 0.95)
    saturation = rng.uniform(0, 0.25) if rng.random() < muted else rng.uniform(0.35, 0.9)
    pixel = np.array([[[hue, saturation * 255, value * 255]]], np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] / 255


def tint(base: np.ndarray, field: np.ndarray) -> np.ndarray:
    """A float64 image (h, w, 3) of one color (3,) multiplied by a field (h, w)."""
    return np.ascontiguousarray((base[:, None, None] * field).transpose(1, 2, 0))


def multiply_color(base: np.ndarray, field: np.ndarray) -> np.ndarray:
    """The image (h, w, 3) of `tint`, in the precision of the arguments and faster."""
    return cv2.merge([channel * field for channel in base])


def cloth_texture(rng: Generator, base: np.ndarray, pattern: str) -> np.ndarray:
    """Cloth colors (96, 64, 3): a pattern of two colors, with folds as soft light and dark areas."""
    shape = (96, 64)
    rows, columns = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)
    second = np.clip(random_color(rng), 0.03, 0.95)
    period = rng.integers(6, 18)
    patterns: dict[str, Callable[[], Any]] = {
        "plain": lambda: 0.0,
        "hoops": lambda: rows // (period / 2) % 2,
        "pinstripe": lambda: columns % 8 < 1,
        "check": lambda: 0.5 * (rows // 5 % 2) + 0.5 * (columns // 5 % 2),
        "block": lambda: rows < shape[0] * 0.72,
        "dots": lambda: (rows % 8 - 4) ** 2 + (columns % 8 - 4) ** 2 < 6,
        "blotch": lambda: random_crop(rng, "noise", shape) > 0.3,
        "band": lambda: abs(rows - shape[0] * 0.66) < 5,
    }
    mask = (patterns[pattern]() + np.zeros(shape, np.float32)).astype(np.float32)
    base, second = base.astype(np.float32), second.astype(np.float32)
    weave = 1 + 0.05 * random_crop(rng, "noise", shape) + 0.03 * random_crop(rng, "fine", shape)
    return cv2.merge([(one + mask * (other - one)) * weave for one, other in zip(base, second, strict=True)])


@lru_cache(maxsize=16)
def plant_texture(variant: int) -> np.ndarray:
    """Cut-out of a plant (160, 160, 4) uint8. Variants: 0-3 bushes, 4-7 potted plants, 8-11 trees."""
    rng = np.random.default_rng(variant)
    image = np.zeros((160, 160, 4), np.uint8)
    green = np.array([rng.uniform(30, 90), rng.uniform(80, 140), rng.uniform(25, 60)])
    is_potted, is_tree = 4 <= variant < 8, variant >= 8
    if is_tree:
        cv2.fillPoly(image, [np.array([[72, 160], [76, 70], [84, 70], [90, 160]])], (84, 62, 46, 255))
    center_y, radius_y = (58, 54) if is_tree else (96, 62)
    for step in range(60 if is_potted else 420):
        shade = green * rng.uniform(0.45, 1.35) * (0.7 + 0.5 * step / 420)
        paint = (*np.clip(shade, 0, 255).tolist(), 255)
        if is_potted:  # a long leaf
            angle = rng.uniform(-1.2, 1.2)
            tip = np.array([80 + 78 * np.sin(angle), 150 - 140 * np.cos(angle) * rng.uniform(0.5, 1)])
            middle = np.array([80 + 30 * np.sin(angle), 95])
            width = np.array([rng.uniform(3, 7), 0])
            outline = np.array([[80, 158], middle - width, tip, middle + width]).astype(int)
            cv2.fillPoly(image, [outline], paint)
            continue
        radius = np.sqrt(rng.random())
        angle = rng.uniform(0, 2 * np.pi)
        center = int(80 + radius * np.cos(angle) * 70), int(center_y + radius * np.sin(angle) * radius_y)
        axes = int(rng.integers(3, 9)), int(rng.integers(2, 5))
        cv2.ellipse(image, center, axes, rng.uniform(0, 180), 0, 360, paint, -1)
    return image


def furniture_texture(rng: Generator, shape: tuple[int, int] = (48, 48)) -> np.ndarray:
    """Opaque furniture colors (h, w, 4) uint8: wood, painted, cardboard or striped."""
    base, name = random_color(rng, 0.6), rng.choice(["streak", "noise", "planks", "panel", "speckle"])
    if rng.random() < 0.4:
        base = np.array([0.55, 0.38, 0.22]) * rng.uniform(0.4, 1.5)
    image = tint(base, 1 + 0.12 * random_crop(rng, name, shape))
    image[[0, -1]] *= 0.6
    image[:, [0, -1]] *= 0.6
    return np.dstack([np.clip(image * 255, 0, 255), np.full(shape, 255)]).astype(np.uint8)
