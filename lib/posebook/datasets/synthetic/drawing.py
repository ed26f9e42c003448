"""From a scene to a photograph: what is nearest at each pixel, then its light and shadow, then the camera.

1. Every surface is a loft: rings along a curve, sampled so densely on the picture that no pixel is
   missed, and kept by a depth buffer (a person's or a pole's); flat things (furniture, leaves, railings)
   are textured quads.
2. Drawn at 1.35 times the resolution and reduced by area. Light is one direction plus sky and ground; its
   shadows come from a depth map seen from the light, so people shade themselves, each other and the room.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from posebook.datasets.synthetic.rooms import draw_room, paint_over
from posebook.datasets.synthetic.scenes import SIZE, Camera, Scene
from posebook.datasets.synthetic.surfaces import Loft, Quad, library

SUPERSAMPLE, DENSITY = 1.35, 1.25
LARGE = (round(SIZE[0] * SUPERSAMPLE), round(SIZE[1] * SUPERSAMPLE))


@dataclass
class Buffers:
    """Per enlarged pixel color, normal (H, W, 3), depth, who (H, W): 0 room, -1 things, 1.. people."""

    color: np.ndarray
    normal: np.ndarray
    depth: np.ndarray
    who: np.ndarray
    gloss: np.ndarray


def flat(vector, shape) -> np.ndarray:
    """A picture (h, w, 3) of one value (3,)."""
    return cv2.merge([np.full(shape, value, np.float32) for value in vector])


def draw_quad(buffers: Buffers, camera: Camera, quad: Quad) -> None:
    """Draws one textured quad where it is nearer than what is there."""
    if ((camera.position - quad.corners[0]) @ quad.normal) <= 0:
        return
    seen = camera.project(quad.corners)
    if seen[:, 2].min() < 0.15:
        return
    x0, y0 = np.floor(seen[:, :2].min(0)).astype(int).clip(0)
    x1, y1 = np.ceil(seen[:, :2].max(0)).astype(int)
    x1, y1 = min(x1, LARGE[1] - 1), min(y1, LARGE[0] - 1)
    if x1 < x0 or y1 < y0:
        return
    h, w = quad.picture.shape[:2]
    source = np.array([(0, 0), (w, 0), (w, h), (0, h)], np.float32)
    target = (seen[:, :2] - (x0, y0)).astype(np.float32)
    size = (int(x1 - x0 + 1), int(y1 - y0 + 1))
    if abs(cv2.contourArea(target)) < 0.5:
        return
    matrix = cv2.getPerspectiveTransform(source, target)
    drawn = cv2.warpPerspective(quad.picture, matrix, size, flags=cv2.INTER_LINEAR)
    plane = np.linalg.solve(np.column_stack([target[:3], np.ones(3)]), 1 / seen[:3, 2])
    inverse = plane[0] * np.arange(size[0]) + plane[1] * np.arange(size[1])[:, None] + plane[2]
    depth = (1 / np.maximum(inverse, 1e-4)).astype(np.float32)
    window = np.s_[y0 : y1 + 1, x0 : x1 + 1]
    mask = (cv2.extractChannel(drawn, 3) > 127) & (depth < buffers.depth[window])
    colors = cv2.cvtColor(drawn, cv2.COLOR_BGRA2BGR) * np.float32(1 / 255)
    np.copyto(buffers.depth[window], depth, where=mask)
    paint_over(buffers.color[window], colors, mask)
    paint_over(buffers.normal[window], flat(quad.normal, mask.shape), mask)
    buffers.who[window][mask] = -1


def sampling(lofts: list[Loft], seen: np.ndarray) -> list[tuple]:
    """Per loft None where it is out of sight, else columns and rows to sample it at, and those rows' places.

    `seen` (N, 4) holds x, y, depth and facing of all points of all lofts; positions count rings.
    """
    x, y, z = (np.ascontiguousarray(seen[:, axis]) for axis in range(3))
    rings = [part.grid.shape[:2] for part in lofts]
    around = np.repeat([v for _, v in rings], [u for u, _ in rings])  # of each ring
    first = np.cumsum(around) - around
    begins = np.cumsum([0] + [u * v for u, v in rings])[:-1]
    (left, low, nearest), (right, high, _) = (
        [extreme.reduceat(values, begins) for values in (x, y, z)] for extreme in (np.minimum, np.maximum)
    )
    hidden = (nearest < 0.2) | (right < 0) | (high < 0) | (left > LARGE[1]) | (low > LARGE[0])
    # Longest step within any ring; longest step from each ring to the next.
    dx, dy = np.diff(x, append=x[-1:]), np.diff(y, append=y[-1:])
    steps = dx * dx + dy * dy
    steps[first + around - 1] = 0
    widest = np.sqrt(np.maximum.reduceat(steps, begins))
    ahead = np.minimum(np.arange(len(x)) + np.repeat(around, around), len(x) - 1)
    dx, dy = x[ahead] - x, y[ahead] - y
    lengths = np.sqrt(np.maximum.reduceat(dx * dx + dy * dy, first)) + np.float32(1e-3)
    result, ring = [], 0
    for number, (count, points) in enumerate(rings):
        between, ring = lengths[ring : ring + count - 1], ring + count
        if hidden[number]:
            result.append(None)
            continue
        traveled = np.zeros(count)
        np.cumsum(between, out=traveled[1:], dtype=np.float32)
        columns = min(max(int(widest[number] * (points - 1) * DENSITY), 8), 1600)
        rows = min(max(int(traveled[-1] * DENSITY), 4), 1600)
        # Rows equally far apart on the picture, whatever the rings' own spacing.
        level = np.arange(rows) * (traveled[-1] / (rows - 1))
        level[-1] = traveled[-1]
        result.append((columns, rows, np.interp(level, traveled, np.arange(count)).astype(np.float32)))
    return result


def draw_lofts(buffers: Buffers, camera: Camera, lofts: list[tuple[int, Loft]]) -> None:
    """Draws surfaces (owner, loft) together: samples each finer than a pixel, keeps the nearest sample."""
    if not lofts:
        return
    parts = [part for _, part in lofts]
    world = np.concatenate([part.grid.reshape(-1, 3) for part in parts])
    facing = camera.position.astype(np.float32) - world
    facing *= np.concatenate([part.normals.reshape(-1, 3) for part in parts])
    seen = np.column_stack([camera.project(world), facing[:, 0] + facing[:, 1] + facing[:, 2]])
    plan = sampling(parts, seen)
    seen = seen.astype(float)

    # Sample: depth (quarters of a millimeter) over the sample's number, smallest kept.
    starts = np.cumsum([0] + [entry[0] * entry[1] if entry else 0 for entry in plan])
    nearest = np.full(LARGE[0] * LARGE[1], np.iinfo(np.int64).max)
    end = 0
    for part, entry, start in zip(parts, plan, starts, strict=False):
        u, v = part.grid.shape[:2]
        begin, end = end, end + u * v
        if entry is None:
            continue
        columns, rows, at = entry
        grid = seen[begin:end].reshape(u, v * 4)
        below = np.minimum(at.astype(int), u - 2)
        weight = (at - below)[:, None]
        source = grid.take(below, 0)
        source *= 1 - weight
        above = grid.take(below + 1, 0)
        above *= weight
        source += above
        dense = cv2.resize(source.reshape(rows, v, 4), (columns, rows), interpolation=cv2.INTER_LINEAR)
        dense = dense.reshape(-1, 4)
        index = (dense[:, 3] > 0).nonzero()[0]
        dense = dense.take(index, 0)
        column, row = (np.rint(dense[:, axis]).astype(np.int32) for axis in (0, 1))
        # Read as unsigned, what is negative is too large.
        inside = (column.view(np.uint32) < LARGE[1]) & (row.view(np.uint32) < LARGE[0])
        row *= LARGE[1]
        row += column
        keys = (dense[:, 2] * 4000).astype(np.int64)
        keys <<= 32
        index += start
        keys |= index
        if not inside.all():
            row, keys = row[inside], keys[inside]
        np.minimum.at(nearest, row, keys)

    # Keep what is nearer than the room and the quads.
    pixels = (nearest < np.iinfo(np.int64).max).nonzero()[0]
    kept = nearest[pixels]
    depth = (kept >> 32) / np.float32(4000)
    front = depth < buffers.depth.reshape(-1)[pixels]
    pixels, samples = pixels[front], kept[front] & 0xFFFFFFFF
    buffers.depth.reshape(-1)[pixels] = depth[front]

    # Resolve: what surface each sample is of, where on it, and with what color and normal.
    part_of = (np.searchsorted(starts, samples, side="right") - 1).astype(np.int16)
    order = np.argsort(part_of, kind="stable")
    part_of, pixels, samples = part_of[order], pixels[order], samples[order]
    ends = np.searchsorted(part_of, np.arange(len(parts) + 1))
    samples -= starts[part_of]
    colors, normals = np.empty((len(pixels), 3), np.float32), np.empty((len(pixels), 3), np.float32)
    for number, part in enumerate(parts):
        chosen = slice(ends[number], ends[number + 1])
        if chosen.start == chosen.stop:
            continue
        columns, _, at = plan[number]
        row, column = np.divmod(samples[chosen].astype(np.int32), columns)
        u, v = part.grid.shape[:2]
        turned = (column.astype(np.float32) + np.float32(0.5)) * np.float32(v / columns) - np.float32(0.5)
        turned /= np.float32(v - 1)
        height = (at / (u - 1))[row]
        colors[chosen] = gather(part.colors, turned, height)
        normals[chosen] = gather(part.normals, turned, height)
    # Triples move faster as one item each.
    buffers.color.view("V12").reshape(-1)[pixels] = colors.view("V12").reshape(-1)
    buffers.normal.view("V12").reshape(-1)[pixels] = normals.view("V12").reshape(-1)
    buffers.who.reshape(-1)[pixels] = np.array([owner for owner, _ in lofts], np.int8)[part_of]
    buffers.gloss.reshape(-1)[pixels] = np.array([part.gloss for part in parts], np.float32)[part_of]


def gather(field, across, along) -> np.ndarray:
    """Bilinear values (N, 3) of a field (h, w, 3) at positions (N,) in [0, 1], in slices remap accepts."""
    x, y = across * np.float32(field.shape[1] - 1), along * np.float32(field.shape[0] - 1)
    parts = [
        cv2.remap(
            field, x[None, i : i + 30000], y[None, i : i + 30000], cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )[0]
        for i in range(0, len(x), 30000)
    ]  # fmt: skip
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def rasterize(scene: Scene) -> Buffers:
    """Draws room, things and people at SUPERSAMPLE times SIZE."""
    room = (cv2.resize(part, LARGE[::-1], interpolation=cv2.INTER_LINEAR) for part in draw_room(scene))
    buffers = Buffers(*room, np.zeros(LARGE, np.int8), np.zeros(LARGE, np.float32))
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
    eye = scene.camera.position.astype(np.float32)
    world = cv2.merge([ray * depth + one for ray, one in zip(scene.camera.rays(), eye, strict=True)])
    x, y, reach = (
        world @ (axis / np.float32(scale)) - np.float32(shift)
        for axis, scale, shift in zip(
            axes, (cell, cell, 1), (low[0] / cell - 1, low[1] / cell - 1, 0.07), strict=True
        )
    )
    blocker = cv2.remap(grid, y, x, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=1e3)
    share = (blocker > reach).astype(np.float32)
    return cv2.GaussianBlur(share, (0, 0), 1.6)


def openness(depth: np.ndarray) -> np.ndarray:
    """Ambient light (H, W) that arrives: less where the surroundings are nearer, within an arm's length."""
    closed, border = np.zeros(SIZE, np.float32), 9
    nearer, step = np.empty_like(closed), np.empty_like(closed)
    wide = cv2.copyMakeBorder(depth, border, border, border, border, cv2.BORDER_WRAP)
    for radius in (3, border):
        for dx, dy in ((radius, 0), (-radius, 0), (0, radius), (0, -radius)):
            y, x = border - dy, border - dx
            np.subtract(depth, wide[y : y + SIZE[0], x : x + SIZE[1]], out=nearer)
            np.multiply(nearer, 5, out=step)
            np.minimum(np.maximum(step, 0, out=step), 1, out=step)
            np.subtract(np.float32(1.6), np.multiply(nearer, 2, out=nearer), out=nearer)
            step *= np.minimum(np.maximum(nearer, 0, out=nearer), 1, out=nearer)
            closed += step
    return 1 - 0.07 * cv2.blur(closed, (5, 5))


@lru_cache(maxsize=1)
def grain() -> np.ndarray:
    """Film grain that any window of SIZE that begins within (512, 512) can be cut from."""
    return np.pad(library()["grain"], ((0, SIZE[0]), (0, SIZE[1]), (0, 0)), mode="wrap")


@lru_cache(maxsize=1)
def off_center() -> np.ndarray:
    """Squared distance of each pixel (SIZE) from the middle, in widths and heights."""
    y, x = np.linspace(-0.5, 0.5, SIZE[0])[:, None], np.linspace(-0.5, 0.5, SIZE[1])
    return x**2 + y**2


PLAIN = {"sun": 0.9, "sky": 0.5, "warmth": 0, "exposure": 0, "blur": 0, "noise": 0, "vignette": 0,
         "saturation": 1, "seed": 0}  # fmt: skip


def expose(scene: Scene, buffers: Buffers) -> np.ndarray:
    """Lights the buffers and takes the photograph: RGB uint8 (H, W, 3)."""
    photo = PLAIN | scene.photo
    depth = cv2.resize(buffers.depth, SIZE[::-1], interpolation=cv2.INTER_NEAREST)
    share, ambient = (cv2.resize(part, LARGE[::-1]) for part in (shadows(scene, depth), openness(depth)))
    sunlit = np.maximum(buffers.normal @ scene.light.astype(np.float32), 0) * share
    sky = (0.62 + 0.38 * buffers.normal[..., 1]) * ambient
    sun = photo["sun"] * (1 + photo["warmth"] * np.array([1, 0, -1]))
    cool = photo["sky"] * (1 + (photo["warmth"] * np.array([-0.5, 0, 0.5]) + [-0.02, 0, 0.03]))
    light = cv2.merge(
        [
            cv2.addWeighted(sky, float(b), sunlit, float(a), 0)
            for a, b in zip(np.float32(sun), np.float32(cool), strict=True)
        ]
    )
    linear = cv2.multiply(cv2.multiply(buffers.color, buffers.color), light)
    glossy = np.flatnonzero(buffers.gloss > 0)
    half = scene.light + [0, 0, -1.0]
    shine = buffers.normal.reshape(-1, 3).take(glossy, 0) @ (half / np.linalg.norm(half)).astype(np.float32)
    shine = 0.5 * np.maximum(shine, 0) ** 16 * buffers.gloss.reshape(-1)[glossy] * share.reshape(-1)[glossy]
    linear.reshape(-1, 3)[glossy] += shine[:, None]
    image = cv2.resize(linear, SIZE[::-1], interpolation=cv2.INTER_AREA)
    if photo["blur"] > 0.25:
        image = cv2.GaussianBlur(image, (0, 0), photo["blur"])
    gain = -1.35 * 2.0 ** photo["exposure"] * (1 - photo["vignette"] * 2 * off_center())
    image = cv2.sqrt(1 - cv2.exp(cv2.multiply(image, cv2.merge([gain.astype(np.float32)] * 3))))
    saturate = photo["saturation"] * np.eye(3) + (1 - photo["saturation"]) / 3
    image = cv2.transform(image, 255 * 1.08 * saturate)
    y, x = np.random.default_rng(photo["seed"]).integers(0, 512, 2)
    speckle = grain()[y : y + SIZE[0], x : x + SIZE[1]]
    return cv2.addWeighted(image, 1, speckle, 255 * photo["noise"], 0, dtype=cv2.CV_8U)
