"""Rendering: a depth buffer, then light and shadow, then the camera.

1. Lofts (people, poles) are sampled more densely than the pixels, so that no pixel is missed, and resolved by
   a depth buffer. Flat objects (furniture, leaves, railings) are textured quads.
2. Scenes are drawn at 1.35 times the resolution and reduced by area averaging. The light is one directional
   source plus sky and ground. Its shadows come from a depth map seen from the light, so people cast shadows
   on themselves, on each other and on the room.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from posebook.datasets.synthetic.rooms import copy_masked, draw_room
from posebook.datasets.synthetic.scenes import SIZE, Camera, Scene
from posebook.datasets.synthetic.surfaces import Loft, Quad, textures

SUPERSAMPLE = 1.35
LARGE = (round(SIZE[0] * SUPERSAMPLE), round(SIZE[1] * SUPERSAMPLE))  # height, width of the buffers
DENSITY = 1.25  # samples of a loft per pixel, in each direction
DEPTH_STEPS = 4000  # per meter: the depth buffer of lofts has a resolution of 0.25 mm
EMPTY = np.iinfo(np.int64).max  # of a depth buffer


@dataclass
class Buffers:
    """For each pixel of LARGE: color and normal (H, W, 3), depth in meters, owner and gloss (H, W).

    The owner is 0 for the room, -1 for objects, and n + 1 for person n.
    """

    color: np.ndarray
    normal: np.ndarray
    depth: np.ndarray
    owner: np.ndarray
    gloss: np.ndarray


@dataclass(frozen=True)
class SampleGrid:
    """A resampled loft: `columns` around each ring, and rows at these ring positions (R,)."""

    columns: int
    positions: np.ndarray

    @property
    def size(self) -> int:
        """The number of samples."""
        return self.columns * len(self.positions)


def rasterize(scene: Scene) -> Buffers:
    """Draw room, objects and people at SUPERSAMPLE times SIZE."""
    color, normal, depth = (cv2.resize(plane, LARGE[::-1]) for plane in draw_room(scene))
    buffers = Buffers(color, normal, depth, np.zeros(LARGE, np.int8), np.zeros(LARGE, np.float32))
    camera = scene.camera.scaled(SUPERSAMPLE)
    for quad in scene.quads:
        draw_quad(buffers, camera, quad)
    owned = [(-1, loft) for loft in scene.lofts]
    owned += [(number, loft) for number, person in enumerate(scene.people, 1) for loft in person.lofts]
    draw_lofts(buffers, camera, owned)
    return buffers


def draw_quad(buffers: Buffers, camera: Camera, quad: Quad) -> None:
    """Draw a textured quad where it is nearer than the present content."""
    if ((camera.position - quad.corners[0]) @ quad.normal) <= 0:
        return
    corners = camera.project(quad.corners)  # (4, 3)
    if corners[:, 2].min() < 0.15:
        return
    x0, y0 = np.floor(corners[:, :2].min(0)).astype(int).clip(0)
    x1, y1 = np.ceil(corners[:, :2].max(0)).astype(int)
    x1, y1 = min(x1, LARGE[1] - 1), min(y1, LARGE[0] - 1)
    if x1 < x0 or y1 < y0:
        return
    h, w = quad.texture.shape[:2]
    source = np.array([(0, 0), (w, 0), (w, h), (0, h)], np.float32)
    target = (corners[:, :2] - (x0, y0)).astype(np.float32)
    if abs(cv2.contourArea(target)) < 0.5:
        return
    matrix = cv2.getPerspectiveTransform(source, target)
    size = (int(x1 - x0 + 1), int(y1 - y0 + 1))
    warped = cv2.warpPerspective(quad.texture, matrix, size, flags=cv2.INTER_LINEAR)  # (h, w, 4)
    # The inverse depth of a plane is linear in the image coordinates.
    plane = np.linalg.solve(np.column_stack([target[:3], np.ones(3)]), 1 / corners[:3, 2])
    inverse = plane[0] * np.arange(size[0]) + plane[1] * np.arange(size[1])[:, None] + plane[2]
    depth = (1 / np.maximum(inverse, 1e-4)).astype(np.float32)
    window = np.s_[y0 : y1 + 1, x0 : x1 + 1]
    mask = (cv2.extractChannel(warped, 3) > 127) & (depth < buffers.depth[window])
    color = cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR) * np.float32(1 / 255)  # uint8 times float is float64
    normal = cv2.merge([np.full(mask.shape, value, np.float32) for value in quad.normal])
    np.copyto(buffers.depth[window], depth, where=mask)
    copy_masked(buffers.color[window], color, mask)
    copy_masked(buffers.normal[window], normal, mask)
    buffers.owner[window][mask] = -1


def draw_lofts(buffers: Buffers, camera: Camera, owned: list[tuple[int, Loft]]) -> None:
    """Draw lofts, given with their owners, where they are nearer than the present content."""
    if not owned:
        return
    lofts = [loft for _, loft in owned]
    points, facing = surface_points(lofts, camera)
    projected = np.column_stack([camera.project(points), facing])  # (N, 4)
    grids = plan_samples(lofts, projected)
    starts = np.cumsum([0] + [grid.size if grid else 0 for grid in grids])  # each loft's first sample
    nearest = nearest_samples(lofts, grids, starts, projected.astype(float))
    pixels = (nearest < EMPTY).nonzero()[0]
    keys = nearest[pixels]
    depth = (keys >> 32) / np.float32(DEPTH_STEPS)
    front = depth < buffers.depth.reshape(-1)[pixels]
    pixels, samples = pixels[front], keys[front] & 0xFFFFFFFF
    buffers.depth.reshape(-1)[pixels] = depth[front]

    # Sort the samples by loft, then look up color and normal of each.
    loft_index = (np.searchsorted(starts, samples, side="right") - 1).astype(np.int16)
    order = np.argsort(loft_index, kind="stable")
    loft_index, pixels, samples = loft_index[order], pixels[order], samples[order]
    ends = np.searchsorted(loft_index, np.arange(len(lofts) + 1))
    samples -= starts[loft_index]
    colors, normals = np.empty((len(pixels), 3), np.float32), np.empty((len(pixels), 3), np.float32)
    for number, (loft, grid) in enumerate(zip(lofts, grids, strict=True)):
        chosen = slice(ends[number], ends[number + 1])
        if grid is None or chosen.start == chosen.stop:
            continue
        row, column = np.divmod(samples[chosen].astype(np.int32), grid.columns)
        u, v = loft.grid.shape[:2]
        # The sample positions of cv2.resize, with pixel centers at half integers.
        across = (column.astype(np.float32) + 0.5) * np.float32(v / grid.columns)
        across = (across - 0.5) / np.float32(v - 1)
        along = (grid.positions / (u - 1))[row]
        colors[chosen] = interpolate_field(loft.colors, across, along)
        normals[chosen] = interpolate_field(loft.normals, across, along)
    # Assigning triples as single items of 12 bytes is faster.
    buffers.color.view("V12").reshape(-1)[pixels] = colors.view("V12").reshape(-1)
    buffers.normal.view("V12").reshape(-1)[pixels] = normals.view("V12").reshape(-1)
    buffers.owner.reshape(-1)[pixels] = np.array([owner for owner, _ in owned], np.int8)[loft_index]
    buffers.gloss.reshape(-1)[pixels] = np.array([loft.gloss for loft in lofts], np.float32)[loft_index]


def surface_points(lofts: list[Loft], camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """All points (N, 3) of these lofts, and a value (N,) that is positive if the surface faces the camera."""
    points = np.concatenate([loft.grid.reshape(-1, 3) for loft in lofts])
    facing = camera.position.astype(np.float32) - points
    facing *= np.concatenate([loft.normals.reshape(-1, 3) for loft in lofts])
    return points, facing[:, 0] + facing[:, 1] + facing[:, 2]


def plan_samples(lofts: list[Loft], projected: np.ndarray) -> list[SampleGrid | None]:
    """The sample grid of each loft, or None if the loft is outside the image or too close to the camera.

    `projected` (N, 4) holds x, y, depth and facing of all points of all lofts.
    """
    x, y, z = (np.ascontiguousarray(projected[:, axis]) for axis in range(3))
    shapes = [loft.grid.shape[:2] for loft in lofts]
    around = np.repeat([v for _, v in shapes], [u for u, _ in shapes])  # points of each ring
    first = np.cumsum(around) - around  # index of each ring's first point
    loft_starts = np.cumsum([0] + [u * v for u, v in shapes])[:-1]
    left, top, nearest = (np.minimum.reduceat(values, loft_starts) for values in (x, y, z))
    right, bottom = (np.maximum.reduceat(values, loft_starts) for values in (x, y))
    hidden = (nearest < 0.2) | (right < 0) | (bottom < 0) | (left > LARGE[1]) | (top > LARGE[0])
    # Longest step in pixels within the rings of each loft.
    dx, dy = np.diff(x, append=x[-1:]), np.diff(y, append=y[-1:])
    steps = dx * dx + dy * dy
    steps[first + around - 1] = 0  # the step from the end of a ring to the next ring
    widest = np.sqrt(np.maximum.reduceat(steps, loft_starts))
    # Longest step in pixels from each ring to the next.
    following = np.minimum(np.arange(len(x)) + np.repeat(around, around), len(x) - 1)
    dx, dy = x[following] - x, y[following] - y
    lengths = np.sqrt(np.maximum.reduceat(dx * dx + dy * dy, first)) + 1e-3
    grids: list[SampleGrid | None] = []
    ring = 0
    for number, (count, points) in enumerate(shapes):
        between, ring = lengths[ring : ring + count - 1], ring + count
        if hidden[number]:
            grids.append(None)
            continue
        traveled = np.zeros(count)
        np.cumsum(between, out=traveled[1:], dtype=np.float32)
        columns = min(max(int(widest[number] * (points - 1) * DENSITY), 8), 1600)
        rows = min(max(int(traveled[-1] * DENSITY), 4), 1600)
        # The rows are equally spaced in the image, whatever the spacing of the rings.
        level = np.arange(rows) * (traveled[-1] / (rows - 1))
        level[-1] = traveled[-1]
        grids.append(SampleGrid(columns, np.interp(level, traveled, np.arange(count)).astype(np.float32)))
    return grids


def nearest_samples(
    lofts: list[Loft], grids: list[SampleGrid | None], starts: np.ndarray, projected: np.ndarray
) -> np.ndarray:
    """For each pixel of LARGE (flat) the key of its nearest sample, EMPTY if there is none.

    A key holds the depth in DEPTH_STEPS in its upper 32 bits, and the number of the sample in its lower 32.
    `projected` (N, 4) is as in `plan_samples`, as float64.
    """
    nearest = np.full(LARGE[0] * LARGE[1], EMPTY)
    end = 0
    for loft, grid, start in zip(lofts, grids, starts[:-1], strict=True):
        u, v = loft.grid.shape[:2]
        begin, end = end, end + u * v
        if grid is None:
            continue
        rings = projected[begin:end].reshape(u, v * 4)
        # Linear interpolation between rings, then around each ring.
        below = np.minimum(grid.positions.astype(int), u - 2)
        weight = (grid.positions - below)[:, None]
        source = rings.take(below, 0)
        source *= 1 - weight
        above = rings.take(below + 1, 0)
        above *= weight
        source += above  # (rows, v * 4)
        size = (grid.columns, len(grid.positions))
        dense = cv2.resize(source.reshape(size[1], v, 4), size, interpolation=cv2.INTER_LINEAR)
        dense = dense.reshape(-1, 4)
        index = (dense[:, 3] > 0).nonzero()[0]  # samples that face the camera
        dense = dense.take(index, 0)
        column, row = (np.rint(dense[:, axis]).astype(np.int32) for axis in (0, 1))
        # Viewed as unsigned, negative positions are too large.
        inside = (column.view(np.uint32) < LARGE[1]) & (row.view(np.uint32) < LARGE[0])
        row *= LARGE[1]
        row += column
        keys = (dense[:, 2] * DEPTH_STEPS).astype(np.int64)
        keys <<= 32
        index += start
        keys |= index
        if not inside.all():
            row, keys = row[inside], keys[inside]
        np.minimum.at(nearest, row, keys)
    return nearest


def interpolate_field(field: np.ndarray, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Bilinear values (N, 3) of a field (h, w, 3) at positions (N,) in [0, 1]."""
    x, y = across * np.float32(field.shape[1] - 1), along * np.float32(field.shape[0] - 1)
    slices = [  # cv2.remap accepts at most 32767 columns
        cv2.remap(
            field, x[None, i : i + 30000], y[None, i : i + 30000], cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )[0]
        for i in range(0, len(x), 30000)
    ]  # fmt: skip
    return slices[0] if len(slices) == 1 else np.concatenate(slices)


def direct_light(scene: Scene, depth: np.ndarray) -> np.ndarray:
    """Share of direct light (H, W) that reaches each pixel of a depth map (H, W), with soft shadow edges."""
    solids = [
        cv2.resize(loft.grid, (24, 30)).reshape(-1, 3) for person in scene.people for loft in person.lofts
    ]
    solids += [cv2.resize(loft.grid, (16, 96)).reshape(-1, 3) for loft in scene.lofts]
    solids += [
        cv2.resize(quad.corners[[0, 1, 3, 2]].reshape(2, 2, 3).astype(np.float32), (20, 20)).reshape(-1, 3)
        for quad in scene.quads
    ]
    points = np.concatenate(solids).astype(np.float32)
    side = np.cross(scene.light, [0.3, 0.2, 0.9])
    side /= np.linalg.norm(side)
    # Axes of the shadow map: two across the light, one along it, away from the source.
    axes = np.stack([side, np.cross(scene.light, side), -scene.light]).astype(np.float32)
    projected = axes @ points.T  # (3, N)
    low = projected[:2].min(1, keepdims=True)
    cell = 0.04  # meters
    cells = ((projected[:2] - low) / cell).astype(np.int32) + 1
    shape = np.minimum(cells.max(1) + 2, 600)
    inside = (cells[0] < shape[0]) & (cells[1] < shape[1])
    shadow_map = np.full(shape[0] * shape[1], 1e3, np.float32)
    np.minimum.at(shadow_map, (cells[0] * shape[1] + cells[1])[inside], projected[2][inside])
    # The erosion closes gaps between the points.
    shadow_map = cv2.erode(shadow_map.reshape(shape), np.ones((3, 3), np.uint8))
    eye = scene.camera.position.astype(np.float32)
    world = cv2.merge([ray * depth + one for ray, one in zip(scene.camera.rays(), eye, strict=True)])
    bias = 0.07  # meters: keeps a surface from shading itself
    shifts = (low[0, 0] / cell - 1, low[1, 0] / cell - 1, bias)
    x, y, reach = (
        world @ (axis / np.float32(scale)) - np.float32(shift)
        for axis, scale, shift in zip(axes, (cell, cell, 1), shifts, strict=True)
    )
    blocker = cv2.remap(shadow_map, y, x, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=1e3)
    return cv2.GaussianBlur((blocker > reach).astype(np.float32), (0, 0), 1.6)


def ambient_light(depth: np.ndarray) -> np.ndarray:
    """Share of ambient light (H, W) of each pixel: less where nearby pixels are nearer by up to 0.8 m."""
    occlusion, border = np.zeros(SIZE, np.float32), 9
    nearer, step = np.empty_like(occlusion), np.empty_like(occlusion)
    wide = cv2.copyMakeBorder(depth, border, border, border, border, cv2.BORDER_WRAP)
    for radius in (3, border):
        for dx, dy in ((radius, 0), (-radius, 0), (0, radius), (0, -radius)):
            y, x = border - dy, border - dx
            np.subtract(depth, wide[y : y + SIZE[0], x : x + SIZE[1]], out=nearer)
            np.multiply(nearer, 5, out=step)
            np.minimum(np.maximum(step, 0, out=step), 1, out=step)
            # Occlusion is full at depth differences of 0.2 to 0.3 m and falls to zero at 0 and at 0.8 m.
            np.subtract(1.6, np.multiply(nearer, 2, out=nearer), out=nearer)
            step *= np.minimum(np.maximum(nearer, 0, out=nearer), 1, out=nearer)
            occlusion += step
    return 1 - 0.07 * cv2.blur(occlusion, (5, 5))


DEFAULT_PHOTO = {"sun": 0.9, "sky": 0.5, "warmth": 0, "exposure": 0, "blur": 0, "noise": 0, "vignette": 0,
                 "saturation": 1, "seed": 0}  # fmt: skip


def expose(scene: Scene, buffers: Buffers) -> np.ndarray:
    """Light the buffers and take the photograph: RGB uint8 (H, W, 3)."""
    photo = DEFAULT_PHOTO | scene.photo
    depth = cv2.resize(buffers.depth, SIZE[::-1], interpolation=cv2.INTER_NEAREST)
    direct, ambient = (
        cv2.resize(share, LARGE[::-1]) for share in (direct_light(scene, depth), ambient_light(depth))
    )
    sunlit = np.maximum(buffers.normal @ scene.light.astype(np.float32), 0) * direct
    skylit = (0.62 + 0.38 * buffers.normal[..., 1]) * ambient
    sun = photo["sun"] * (1 + photo["warmth"] * np.array([1, 0, -1]))
    sky = photo["sky"] * (1 + (photo["warmth"] * np.array([-0.5, 0, 0.5]) + [-0.02, 0, 0.03]))
    light = cv2.merge(
        [
            cv2.addWeighted(skylit, float(b), sunlit, float(a), 0)
            for a, b in zip(sun.astype(np.float32), sky.astype(np.float32), strict=True)
        ]
    )
    # Colors are converted to linear intensities by squaring, and back by a square root.
    linear = cv2.multiply(cv2.multiply(buffers.color, buffers.color), light)
    glossy = np.flatnonzero(buffers.gloss > 0)
    half = scene.light + [0, 0, -1.0]  # between the light and the direction to the camera (Blinn)
    shine = buffers.normal.reshape(-1, 3).take(glossy, 0) @ (half / np.linalg.norm(half)).astype(np.float32)
    shine = 0.5 * np.maximum(shine, 0) ** 16 * buffers.gloss.reshape(-1)[glossy] * direct.reshape(-1)[glossy]
    linear.reshape(-1, 3)[glossy] += shine[:, None]
    image = cv2.resize(linear, SIZE[::-1], interpolation=cv2.INTER_AREA)
    if photo["blur"] > 0.25:
        image = cv2.GaussianBlur(image, (0, 0), photo["blur"])
    y, x = np.linspace(-0.5, 0.5, SIZE[0])[:, None], np.linspace(-0.5, 0.5, SIZE[1])  # from the center
    gain = -1.35 * 2.0 ** photo["exposure"] * (1 - photo["vignette"] * 2 * (x**2 + y**2))
    # A film-like response: 1 - exp(-exposure).
    image = cv2.sqrt(1 - cv2.exp(cv2.multiply(image, cv2.merge([gain.astype(np.float32)] * 3))))
    saturate = photo["saturation"] * np.eye(3) + (1 - photo["saturation"]) / 3
    image = cv2.transform(image, 255 * 1.08 * saturate)
    row, column = np.random.default_rng(photo["seed"]).integers(0, 512, 2)
    noise = textures()["grain"].take(range(row, row + SIZE[0]), 0, mode="wrap")
    noise = noise.take(range(column, column + SIZE[1]), 1, mode="wrap")  # (H, W, 3)
    return cv2.addWeighted(image, 1, noise, 255 * photo["noise"], 0, dtype=cv2.CV_8U)
