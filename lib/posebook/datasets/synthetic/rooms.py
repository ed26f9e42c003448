"""The background of a scene: floor, walls with objects on them, ceiling or sky."""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.random import Generator

from posebook.datasets.synthetic.anatomy import rotation
from posebook.datasets.synthetic.scenes import SIZE, Scene
from posebook.datasets.synthetic.surfaces import multiply_color, random_color, random_crop, textures

FAR = 60  # meters: distance at which the ground ends and the sky begins


@dataclass
class Background:
    """Color (H, W, 3), depth (H, W) in meters, and the index (H, W) of each pixel's normal in `normals`."""

    color: np.ndarray = field(default_factory=lambda: np.full((*SIZE, 3), 0.5, np.float32))
    depth: np.ndarray = field(default_factory=lambda: np.full(SIZE, FAR, np.float32))
    normal_index: np.ndarray = field(default_factory=lambda: np.zeros(SIZE, np.uint8))
    normals: list = field(default_factory=lambda: [(0, 0, 0), (0, 1, 0), (0, -1, 0)])  # none, floor, ceiling


def wrap(x: np.ndarray, period: int) -> np.ndarray:
    """x modulo a power of two: bit for bit the result of %, but many times faster."""
    return x - np.floor(x * (1 / period)) * period


def tile(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values of a texture that repeats every 256 texels, at positions x, y (h, w) in texels."""
    return cv2.remap(
        textures()[name], wrap(x, 256), wrap(y, 256), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    )


def copy_masked(image: np.ndarray, new: np.ndarray, mask: np.ndarray) -> None:
    """Copy `new` into `image` (h, w, 3) in place where the boolean mask (h, w) is true."""
    image[:] = cv2.copyTo(new, mask.view(np.uint8), image)


def draw_room(scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Color and normal (H, W, 3) and depth (H, W) of floor, walls, and ceiling or sky."""
    room, planes = scene.room, scene.camera.rays()
    rays, up = cv2.merge(planes), planes[1]  # (H, W, 3), (H, W)
    rng = np.random.default_rng(room.get("seed", 0))
    outdoor, wall = room.get("outdoor", True), room.get("wall")
    background = Background()
    ground = up < -1e-3
    horizon = np.array([0.80, 0.86, 0.93], np.float32) * rng.uniform(0.75, 1.05)
    sky_rows = int((~ground).any(1).sum())
    if outdoor and sky_rows:
        draw_sky(rng, background.color[:sky_rows], up[:sky_rows], horizon)
    floor = draw_floor(rng, background, scene, rays, None if wall else horizon)
    if wall:
        if room["ceiling"]:
            draw_ceiling(background, up, room["height"] - float(scene.camera.position[1]), floor)
        draw_walls(rng, background, scene, rays)
    normals = np.array(background.normals, np.float32).take(background.normal_index, 0)  # (H, W, 3)
    return background.color, normals, background.depth


def draw_sky(rng: Generator, color: np.ndarray, up: np.ndarray, horizon: np.ndarray) -> None:
    """Draw a cloudy sky above hills or trees into the upper rows of the image, color (h, w, 3).

    `up` (h, w) is the y component of each pixel's ray, `horizon` (3,) the color of the sky at the horizon.
    """
    size = up.shape[::-1]
    zenith = np.array([0.30, 0.50, 0.85], np.float32) * rng.uniform(0.6, 1.1)
    cloud = cv2.resize(random_crop(rng, "noise", (120, 200)), size) * rng.uniform(0, 0.4)
    cloud, root = np.clip(cloud, 0, 1), np.sqrt(np.clip(up / 0.6, 0, 1))
    sky = [low + (high - low) * root for low, high in zip(horizon, zenith, strict=True)]
    color[:] = cv2.merge([channel + cloud * (0.95 - channel) for channel in sky])
    outline = random_crop(rng, "soft", (1, 200)) + 0.25 * random_crop(rng, "speckle", (1, 200))
    skyline = 0.05 * cv2.resize(outline, (size[0], 1)) + rng.uniform(0.04, 0.18)
    leaves = cv2.resize(random_crop(rng, "speckle", (120, 250)), size)
    leaves = (1 + 0.18 * leaves) * (1 + 0.5 * up)
    green = np.array([0.30, 0.40, 0.28], np.float32) * rng.uniform(0.6, 1.3)
    copy_masked(color, multiply_color(green, leaves), up < skyline)


def draw_floor(
    rng: Generator, background: Background, scene: Scene, rays: np.ndarray, horizon: np.ndarray | None
) -> np.ndarray:
    """Draw the floor and return its color (3,). If `horizon` is a color, distant ground fades into it."""
    up, eye_height = rays[..., 1], float(scene.camera.position[1])
    ground = up < -1e-3
    np.minimum(-eye_height / np.minimum(up, -1e-3), FAR, out=background.depth, where=ground)
    background.normal_index[ground] = 1
    rows = ground.any(1)
    first = int(np.argmax(rows))  # the floor covers the rows from here on
    name, base = floor_material(rng, scene.room.get("outdoor", True))
    scale = np.float32(256 / rng.uniform(1.6, 3.2))  # texels per meter
    spin = rotation("y", rng.uniform(0, 90)).astype(np.float32)
    if not rows.any():
        return base
    depth = background.depth[first:]
    texels = cv2.multiply(rays[first:], cv2.merge([depth * scale] * 3))  # (h, w, 3)
    x, y = texels @ spin[0], texels @ spin[2]
    grain = tile(name, x, y)
    stain = tile("noise", x * 0.23, y * 0.23)
    # Distant texture is finer than a pixel: fade it out to avoid aliasing.
    fade = np.clip(3.2 * scene.camera.focal * eye_height / scale / depth**2, 0, 1)
    pattern = 1 + (0.08 if name == "noise" else 0.16) * grain * fade + 0.07 * stain
    if horizon is None:
        color = multiply_color(base, pattern)
    else:
        haze = 0.6 * (depth / FAR) ** 1.5
        pattern *= 1 - haze
        far_color = horizon * 0.8
        color = cv2.merge([near * pattern + haze * far for near, far in zip(base, far_color, strict=True)])
    copy_masked(background.color[first:], color, ground[first:])
    return base


def draw_ceiling(background: Background, up: np.ndarray, height: float, floor: np.ndarray) -> None:
    """Draw a ceiling `height` meters above the camera, slightly tinted by the color of the floor (3,)."""
    distance = height / np.maximum(up, 1e-3)
    closer = (up > 1e-3) & (distance < FAR)
    np.copyto(background.depth, distance, where=closer)
    plaster = floor * 0.2 + 0.68
    copy_masked(background.color, cv2.merge([np.full(SIZE, channel) for channel in plaster]), closer)
    background.normal_index[closer] = 2


def draw_walls(rng: Generator, background: Background, scene: Scene, rays: np.ndarray) -> None:
    """Draw a back wall and a side wall where they are closer than floor and ceiling."""
    room, eye_height = scene.room, float(scene.camera.position[1])
    side = rng.choice([-1, 1])
    frame = rotation("y", room["skew"])
    walls = (  # direction, distance in meters, offset in the texture
        (frame @ [0, 0, 1.0], room["wall"], 0.0),
        (frame @ [side, 0, 0], room["wall"] * rng.uniform(0.45, 1.0) + 1.2, 0.37),
    )
    texture = wall_texture(rng, room.get("outdoor", True))
    for direction, distance, offset in walls:
        direction = direction.astype(np.float32)
        depth = np.float32(distance) / np.maximum(rays @ direction, 1e-3)
        level = eye_height + depth * rays[..., 1]  # height above the floor
        hit = (depth < background.depth) & (level < room["height"]) & (level > -0.05)
        if not hit.any():
            continue
        y, x = np.flatnonzero(hit.any(1)), np.flatnonzero(hit.any(0))
        window = np.s_[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
        along = (rays @ np.cross(direction, [0, 1.0, 0]).astype(np.float32))[window]
        # 64 texels per meter; the texture covers 8 x 4 meters.
        u = wrap(depth[window] * along * 64 + np.float32(offset * 512), 512)
        v = np.clip(255 - level[window] * 64, 0, 255)
        color = cv2.remap(texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        copy_masked(background.color[window], color, np.ascontiguousarray(hit[window]))
        np.copyto(background.depth, depth, where=hit)
        background.normal_index[hit] = len(background.normals)
        background.normals.append(-direction)


def floor_material(rng: Generator, outdoor: bool) -> tuple[str, np.ndarray]:
    """The texture name and the color (3,) of the floor."""
    outside, inside = "grass grass asphalt tiles noise", "planks planks tiles check noise asphalt"
    name = str(rng.choice((outside if outdoor else inside).split()))
    base = {"grass": (0.28, 0.40, 0.16), "planks": (0.55, 0.38, 0.24)}.get(name)
    if base is not None:
        return name, np.array(base, np.float32) * rng.uniform(0.6, 1.3)
    if outdoor:
        return name, np.array([0.5, 0.48, 0.45], np.float32) * rng.uniform(0.5, 1.4)
    return name, random_color(rng, 0.85).astype(np.float32) * 0.6 + np.array([0.16, 0.16, 0.15], np.float32)


def wall_texture(rng: Generator, outdoor: bool) -> np.ndarray:
    """A wall of 8 x 4 meters (256, 512, 3): paint, brick or boards with pictures, doors, windows, shelves."""
    outside, inside = "brick panel noise planks", "noise noise stripe panel brick tiles"
    name = rng.choice((outside if outdoor else inside).split())
    base = (random_color(rng, 0.75) * 0.7 + 0.2).astype(np.float32)
    pattern = (0.03 if name == "noise" else 0.09) * textures()[name]
    pattern = 1 + (pattern + 0.03 * textures()["noise"])
    half = multiply_color(base, pattern)  # (256, 256, 3)
    image: np.ndarray = cv2.hconcat([half, half])
    if rng.random() < 0.4:  # another color on the lower part
        image[150:].reshape(106, -1)[:] *= np.tile(rng.uniform(0.55, 1.0, 3), 512)
    image[246:] *= 0.55  # baseboard
    for _ in range(rng.integers(2, 9)):
        draw_wall_object(rng, image)
    if rng.random() < 0.35 and not outdoor:  # shelves with books
        for y in range(60, 200, 36):
            image[y : y + 3, 60:180] = 0.25
            for x in range(62, 176, 7):
                image[y - rng.integers(12, 28) : y, x : x + 6] = random_color(rng)
    return np.clip(image, 0.02, 1, out=image)


def draw_wall_object(rng: Generator, wall: np.ndarray) -> None:
    """Draw a framed picture, a window or a door onto a wall (256, 512, 3), at a random position."""
    ranges = (0, 470), (20, 130), (14, 70), (16, 80)
    x, y, w, h = (int(rng.integers(low, high)) for low, high in ranges)
    choice = rng.random()
    is_door, is_picture = choice < 0.2, choice >= 0.35
    if is_door:
        y, w, h = 110, 52, 146
    patch = wall[y : y + h, x : x + w]
    glass = np.array([0.75, 0.85, 0.95])
    patch[:] = random_color(rng, 0.7) if is_picture else glass * rng.uniform(0.5, 1.2)
    inner = patch[2:-2, 2:-2]
    if is_picture and inner.size:
        base = random_color(rng)
        noise = random_crop(rng, "noise", inner.shape[:2])[..., None]
        # A new array, because OpenCV draws only into contiguous ones.
        canvas = (base + 0.12 * noise * random_color(rng)).astype(np.float32)
        for _ in range(3):
            point = (int(rng.integers(0, w)), int(rng.integers(0, h)))
            cv2.circle(canvas, point, int(rng.integers(2, 18)), random_color(rng).tolist(), -1)
        inner[:] = canvas
    elif not is_door and not is_picture:  # window bars
        inner[:, w // 2 - 1 : w // 2 + 1] = 0.5
        inner[h // 2 - 1 : h // 2 + 1] = 0.5
