"""The background of a scene: floor, walls with things on them, ceiling or sky."""

import cv2
import numpy as np

from posebook.datasets.synthetic.anatomy import turn
from posebook.datasets.synthetic.scenes import SIZE, Scene
from posebook.datasets.synthetic.surfaces import color, crop, library

FAR = 60  # meters: where the ground ends and the sky is


def wrap(x: np.ndarray, period: int) -> np.ndarray:
    """x modulo a power of two, to the bit what % gives, and many times as fast."""
    return x - np.floor(x * np.float32(1 / period)) * period


def paint_over(picture: np.ndarray, painted: np.ndarray, where: np.ndarray) -> None:
    """Copies `painted` into `picture` (h, w, 3) where a boolean mask (h, w) says so."""
    picture[:] = cv2.copyTo(painted, where.view(np.uint8), picture)


def wall_picture(rng, outdoor) -> np.ndarray:
    """A wall of 8 x 4 meters (256, 512, 3): paint, brick or boards with pictures, doors, windows, shelves."""
    kinds = (
        ["brick", "panel", "noise", "planks"]
        if outdoor
        else ["noise", "noise", "stripe", "panel", "brick", "tiles"]
    )
    name = rng.choice(kinds)
    base = (color(rng, 0.75) * 0.7 + 0.2).astype(np.float32)
    texture = np.float32(0.03 if name == "noise" else 0.09) * library()[name]
    texture = 1 + (texture + np.float32(0.03) * library()["noise"])
    half = cv2.merge([one * texture for one in base])
    image = cv2.hconcat([half, half])
    if rng.random() < 0.4:  # a dado
        image[150:].reshape(106, -1)[:] *= np.tile(rng.uniform(0.55, 1.0, 3), 512)
    image[246:] *= 0.55
    for _ in range(rng.integers(2, 9)):
        x, y, w, h = rng.integers(0, 470), rng.integers(20, 130), rng.integers(14, 70), rng.integers(16, 80)
        kind = rng.random()
        if kind < 0.2:
            y, w, h = 110, 52, 146
        patch = image[y : y + h, x : x + w]
        patch[:] = color(rng, 0.7) if kind > 0.35 else np.array([0.75, 0.85, 0.95]) * rng.uniform(0.5, 1.2)
        inner = patch[2:-2, 2:-2]
        if kind >= 0.35 and inner.size:
            inner[:] = color(rng) + 0.12 * crop(rng, "noise", inner.shape[:2])[..., None] * color(rng)
            canvas = np.ascontiguousarray(inner)
            for _ in range(3):
                point = (int(rng.integers(0, w)), int(rng.integers(0, h)))
                cv2.circle(canvas, point, int(rng.integers(2, 18)), color(rng).tolist(), -1)
            inner[:] = canvas
        elif kind >= 0.2:
            inner[:, w // 2 - 1 : w // 2 + 1] = 0.5
            inner[h // 2 - 1 : h // 2 + 1] = 0.5
    if rng.random() < 0.35 and not outdoor:
        for y in range(60, 200, 36):
            image[y : y + 3, 60:180] = 0.25
            for x in range(62, 176, 7):
                image[y - rng.integers(12, 28) : y, x : x + 6] = color(rng)
    return np.clip(image, 0.02, 1, out=image)


def draw_sky(rng, colors, up, horizon) -> None:
    """Sky with clouds, and hills or a wood before it, over the upper rows; `up` is the rise of their rays."""
    size = up.shape[::-1]
    zenith = np.float32([0.30, 0.50, 0.85]) * np.float32(rng.uniform(0.6, 1.1))
    cloud = cv2.resize(crop(rng, "noise", (120, 200)), size) * np.float32(rng.uniform(0, 0.4))
    cloud, root = np.clip(cloud, 0, 1), np.sqrt(np.clip(up / 0.6, 0, 1))
    sky = [low + (high - low) * root for low, high in zip(horizon, zenith, strict=True)]
    colors[:] = cv2.merge([one + cloud * (np.float32(0.95) - one) for one in sky])
    outline = crop(rng, "soft", (1, 200)) + np.float32(0.25) * crop(rng, "speckle", (1, 200))
    skyline = np.float32(0.05) * cv2.resize(outline, (size[0], 1)) + np.float32(rng.uniform(0.04, 0.18))
    leafy = cv2.resize(crop(rng, "speckle", (120, 250)), size)
    leafy = (1 + np.float32(0.18) * leafy) * (1 + np.float32(0.5) * up)
    green = np.float32([0.30, 0.40, 0.28]) * np.float32(rng.uniform(0.6, 1.3))
    paint_over(colors, cv2.merge([one * leafy for one in green]), up < skyline)


def draw_room(scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Floor, walls, ceiling or sky as color, normal (H, W, 3) and depth (H, W)."""
    planes, eye, room = scene.camera.rays(), float(scene.camera.position[1]), scene.room
    rays, up = cv2.merge(planes), planes[1]
    rng = np.random.default_rng(room.get("seed", 0))
    outdoor, wall = room.get("outdoor", True), room.get("wall")
    colors, depth = np.full((*SIZE, 3), 0.5, np.float32), np.full(SIZE, FAR, np.float32)
    ground = up < -1e-3
    np.minimum(-eye / np.minimum(up, -1e-3), FAR, out=depth, where=ground)
    # Which of these normals each pixel has: none, floor, ceiling, walls.
    directions, facing = [(0, 0, 0), (0, 1, 0), (0, -1, 0)], ground.astype(np.uint8)
    horizon = np.float32([0.80, 0.86, 0.93]) * np.float32(rng.uniform(0.75, 1.05))
    rows = ground.any(1)
    over, under = int((~ground).any(1).sum()), int(np.argmax(rows))
    if outdoor and over:
        draw_sky(rng, colors[:over], up[:over], horizon)

    name, base = floor_paint(rng, outdoor)
    scale = np.float32(256 / rng.uniform(1.6, 3.2))
    spin = turn("y", rng.uniform(0, 90)).astype(np.float32)
    if rows.any():
        far = depth[under:]
        where = cv2.multiply(rays[under:], cv2.merge([far * scale] * 3))
        across, along = where @ spin[0], where @ spin[2]
        grain = cv2.remap(
            library()[name], wrap(across, 256), wrap(along, 256), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
        )
        wide = [wrap(at * np.float32(0.23), 256) for at in (across, along)]
        stain = cv2.remap(library()["noise"], *wide, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        # Far texture is finer than a pixel: fade it out instead of letting it flicker.
        fade = np.clip(3.2 * scene.camera.focal * eye / scale / far**2, 0, 1)
        pattern = 1 + np.float32(0.08 if name == "noise" else 0.16) * grain * fade + np.float32(0.07) * stain
        if wall:
            painted = [one * pattern for one in base]
        else:
            haze = np.float32(0.6) * (far / FAR) ** 1.5
            pattern *= 1 - haze
            painted = [
                one * pattern + haze * dim for one, dim in zip(base, horizon * np.float32(0.8), strict=True)
            ]
        paint_over(colors[under:], cv2.merge(painted), ground[under:])
    if not wall:
        return colors, np.float32(directions).take(facing, 0), depth

    if room["ceiling"]:
        distance = (room["height"] - eye) / np.maximum(up, 1e-3)
        closer = (up > 1e-3) & (distance < FAR)
        np.copyto(depth, distance, where=closer)
        plaster = base * np.float32(0.2) + np.float32(0.68)
        paint_over(colors, cv2.merge([np.full(SIZE, one) for one in plaster]), closer)
        facing[closer] = 2
    side = rng.choice([-1, 1])
    walls = (
        (turn("y", room["skew"]) @ [0, 0, 1.0], wall, 0.0),
        (turn("y", room["skew"]) @ [side, 0, 0], wall * rng.uniform(0.45, 1.0) + 1.2, 0.37),
    )
    texture = wall_picture(rng, outdoor)
    for normal, distance, shift in walls:
        normal = normal.astype(np.float32)
        t = np.float32(distance) / np.maximum(rays @ normal, 1e-3)
        level = eye + t * up
        hit = (t < depth) & (level < room["height"]) & (level > -0.05)
        if not hit.any():
            continue
        y, x = np.flatnonzero(hit.any(1)), np.flatnonzero(hit.any(0))
        window = np.s_[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
        along = (rays @ np.cross(normal, [0, 1.0, 0]).astype(np.float32))[window]
        u = wrap(t[window] * along * 64 + np.float32(shift * 512), 512)
        v = np.clip(255 - level[window] * 64, 0, 255)
        painted = cv2.remap(texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        paint_over(colors[window], painted, np.ascontiguousarray(hit[window]))
        np.copyto(depth, t, where=hit)
        facing[hit] = len(directions)
        directions.append(-normal)
    return colors, np.float32(directions).take(facing, 0), depth


def floor_paint(rng, outdoor) -> tuple[str, np.ndarray]:
    """The floor's texture and its color (3,)."""
    kinds = (
        ["grass", "grass", "asphalt", "tiles", "noise"]
        if outdoor
        else ["planks", "planks", "tiles", "check", "noise", "asphalt"]
    )
    name = str(rng.choice(kinds))
    base = {"grass": (0.28, 0.40, 0.16), "planks": (0.55, 0.38, 0.24)}.get(name)
    if base is not None:
        return name, np.float32(base) * np.float32(rng.uniform(0.6, 1.3))
    if outdoor:
        return name, np.float32([0.5, 0.48, 0.45]) * np.float32(rng.uniform(0.5, 1.4))
    return name, color(rng, 0.85).astype(np.float32) * 0.6 + np.float32([0.16, 0.16, 0.15])
