"""What is in front of the camera: the camera itself, people at their places, things, a room and its light.

World: meters, x to the left of a camera that looks along +z, y up. Bodies: x to their left, z to their
front.
"""

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from posebook.datasets.synthetic.anatomy import sample_pose, turn
from posebook.datasets.synthetic.bodies import Person, person, sample_look
from posebook.datasets.synthetic.surfaces import Loft, Quad, box, color, crop, leaves, loft, surface, tint

SIZE = (240, 320)  # height, width of every picture


@dataclass(frozen=True)
class Camera:
    """A pinhole at `position` (meters); the rows of `rotation` are its right, down and forward."""

    position: np.ndarray
    rotation: np.ndarray
    focal: float
    center: tuple[float, float]

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) -> x, y in pixels (centers at integers) and depth in meters (..., 3)."""
        seen = (points - self.position.astype(points.dtype)) @ self.rotation.T.astype(points.dtype)
        scale = self.focal / np.maximum(seen[..., 2], 0.05)
        seen[..., 0] = seen[..., 0] * scale + self.center[0]
        seen[..., 1] = seen[..., 1] * scale + self.center[1]
        return seen

    def rays(self) -> list[np.ndarray]:
        """Per pixel the world vector that one meter of depth spans, as planes: x, y, z (SIZE) each."""
        right, down, forward = self.rotation.astype(np.float32)
        x = (np.arange(SIZE[1], dtype=np.float32) - np.float32(self.center[0])) / np.float32(self.focal)
        y = (np.arange(SIZE[0], dtype=np.float32) - np.float32(self.center[1])) / np.float32(self.focal)
        return [x * right[axis] + (y * down[axis] + forward[axis])[:, None] for axis in range(3)]

    def scaled(self, factor: float) -> "Camera":
        """The same view on a picture with `factor` times the pixels a side."""
        x, y = self.center
        center = ((x + 0.5) * factor - 0.5, (y + 0.5) * factor - 0.5)
        return replace(self, focal=self.focal * factor, center=center)


def look(height: float, pitch: float, roll: float, focal: float) -> Camera:
    """A camera above the origin that looks along +z; pitch down and roll in degrees, focal in pixels."""
    level = np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
    center = ((SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2)
    return Camera(np.array([0, height, 0.0]), turn("z", roll) @ turn("x", pitch) @ level, focal, center)


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


def pole(rng, x, z, height, radius) -> Loft:
    """An upright cylinder, or a bent trunk."""
    at = np.linspace(0, 1, 8)
    sway = rng.normal(0, 0.04, 2) * at[:, None] ** 2
    centers = np.column_stack([x + sway[:, 0], at * height, z + sway[:, 1]])
    paint = tint(color(rng, 0.8), 1 + 0.15 * crop(rng, "streak", (64, 16)))
    radius = np.full((8, 3), radius) * np.where(at == 1, 0.3, 1)[:, None]
    return loft(centers, np.broadcast_to(np.eye(3), (8, 3, 3)), radius, np.clip(paint, 0, 1), gloss=0.2)


def billboard(x, z, width, height, picture) -> Quad:
    """An upright cut-out that faces the camera's side."""
    near, far = x + width / 2, x - width / 2
    corners = [(near, height, z), (far, height, z), (far, 0.0, z), (near, 0.0, z)]
    return Quad(np.array(corners), np.array([0, 0.35, -0.94]), picture)


def railing(rng) -> np.ndarray:
    """A fence as a cut-out (96, 192, 4): bars or boards."""
    image = np.zeros((96, 192, 4), np.uint8)
    paint = (*(color(rng, 0.8) * 255).astype(int).tolist(), 255)
    step, width = int(rng.integers(12, 26)), int(rng.integers(2, 7))
    for x in range(0, 192, step):
        cv2.rectangle(image, (x, 0), (x + width, 95), paint, -1)
    for y in (2, int(rng.integers(40, 90))):
        cv2.rectangle(image, (0, y), (191, y + int(rng.integers(3, 7))), paint, -1)
    return image


def furniture(rng, x, z, yaw) -> list[Quad]:
    """A crate, cupboard or table that stands at (x, z)."""
    kind = rng.choice(["crate", "cupboard", "table", "bench"])
    wood = [surface(rng) for _ in range(2)]
    if kind == "crate":
        side = rng.uniform(0.3, 0.8)
        return box((x, 0, z), (side, side * rng.uniform(0.6, 1.3), side), yaw, wood)
    if kind == "cupboard":
        size = rng.uniform(0.5, 1.2), rng.uniform(0.9, 2.1), rng.uniform(0.3, 0.5)
        return box((x, 0, z), size, yaw, wood)
    return table(x, z, rng.uniform(0.7, 1.6), rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.8), yaw, wood)


def table(x, z, w, h, d, yaw, wood, back=0.0) -> list[Quad]:
    """A top on four legs; with `back` (meters) it is a chair whose back is at -z of its frame."""
    frame, quads = turn("y", yaw), []
    for sx in (-1, 1):
        for sz in (-1, 1):
            corner = np.array([x, 0, z]) + frame @ [sx * (w / 2 - 0.03), 0, sz * (d / 2 - 0.03)]
            quads += box(corner, (0.045, h, 0.045), yaw, wood)
    quads += box((x, h - 0.05, z), (w, 0.05, d), yaw, wood)
    if back:
        quads += box(np.array([x, h, z]) + frame @ [0, 0, -d / 2 + 0.02], (w, back, 0.04), yaw, wood)
    return quads


def seat(rng, who: Person, x, z) -> list[Quad]:
    """What somebody who sits at (x, z) sits on: a chair, a stool or a box."""
    level, yaw = who.seat
    forward, deep = turn("y", yaw)[:, 2], 0.27 * who.stature
    x, z = x + forward[0] * 0.07 * who.stature, z + forward[2] * 0.07 * who.stature
    if rng.random() < 0.6:
        wood = [surface(rng)]
        return table(x, z, deep, level, deep, yaw, wood, rng.choice([0, 0.26]) * who.stature)
    size = rng.uniform(0.45, 1.2), level, deep
    return box((x, 0, z), size, yaw, [surface(rng)])


def sample_scene(rng: np.random.Generator) -> Scene:
    """A random scene of one to four people."""
    height, width = SIZE
    focal = float(height / 2 / np.tan(np.radians(rng.uniform(28, 62)) / 2))
    eye = rng.choice(
        [rng.uniform(0.9, 1.8), rng.uniform(0.25, 0.9), rng.uniform(1.8, 3.6)], p=[0.65, 0.15, 0.2]
    )
    tall = float(np.exp(rng.uniform(np.log(0.30), np.log(1.45)))) * height
    main = max(1.3, focal * 1.7 / tall)
    # Pitch so that the main person's middle falls near the middle of the picture.
    offset = rng.normal(0, 0.07) * height
    pitch = np.degrees(np.arctan2(eye - rng.uniform(0.75, 1.0), main)) + np.degrees(np.arctan(offset / focal))
    camera = look(eye, pitch, rng.normal(0, 2.5), focal)
    spots, people = [], []  # spots: x, z of each person
    for number in range(rng.choice([1, 2, 3, 4], p=[0.36, 0.32, 0.2, 0.12])):
        for _ in range(12):
            depth = main if number == 0 else min(max(1.3, main * rng.uniform(0.75, 2.0)), focal * 1.7 / 55)
            reach = 0.5 * width / focal * depth
            if number == 0 or rng.random() < 0.5:
                x = rng.uniform(-0.75, 0.75) * reach
            else:
                x = spots[0][0] * depth / main + rng.normal(0, 0.45)
            if all(np.hypot(x - sx, depth - sz) > 0.75 for sx, sz in spots) and abs(x) < 1.02 * reach:
                spots.append((x, depth))
                people.append(person(rng, sample_look(rng), sample_pose(rng), rng.uniform(0, 360), spots[-1]))
                break

    quads, lofts = [], []
    for (x, z), who in zip(spots, people, strict=True):
        if who.seat:
            quads += seat(rng, who, x, z)
    far = max(z for _, z in spots)
    outdoor = rng.random() < 0.45

    def free(x, z, gap):
        return all(np.hypot(x - sx, z - sz) > gap for sx, sz in spots)

    for _ in range(rng.integers(2, 8)):
        z = rng.uniform(main * 0.9, far + 3.5)
        x = rng.uniform(-1.1, 1.1) * 0.5 * width / focal * z
        if free(x, z, 1.25):
            add_thing(rng, x, z, outdoor, quads, lofts)
    if rng.random() < 0.42:  # something in front of somebody
        x, z = spots[rng.integers(len(spots))]
        near = rng.uniform(0.5, 0.82)
        ox, oz = x * near + rng.normal(0, 0.28) * z / main, z * near
        if z - oz < 0.5 or not free(ox, oz, 0.5):
            oz = max(0.9, z - 0.65)
            ox = x * oz / z
        if free(ox, oz, 0.55):
            add_occluder(rng, ox, oz, quads, lofts)
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


def add_thing(rng, x, z, outdoor, quads, lofts) -> None:
    """Adds a bush, tree, pole, potted plant or piece of furniture at (x, z)."""
    kind = rng.random()
    if outdoor and kind < 0.55:
        tree = rng.random() < 0.5
        high = rng.uniform(2.2, 5) if tree else rng.uniform(0.5, 1.4)
        wide = high * rng.uniform(0.8, 1.2)
        quads.append(billboard(x, z + 1, wide, high, leaves(int(rng.integers(0, 4)) + 8 * tree)))
    elif kind < 0.65:
        lofts.append(pole(rng, x, z, rng.uniform(1.5, 4), rng.uniform(0.03, 0.16)))
    elif kind < 0.75:
        quads.append(billboard(x, z, 0.8, rng.uniform(0.6, 1.5), leaves(int(rng.integers(4, 8)))))
    else:
        quads.extend(furniture(rng, x, z, rng.uniform(0, 360)))


def add_occluder(rng, x, z, quads, lofts) -> None:
    """Adds a low wall, pole, plant or railing at (x, z), before somebody."""
    kind = rng.random()
    if kind < 0.3:
        size = rng.uniform(0.4, 1.2), rng.uniform(0.4, 1.1), 0.3
        quads.extend(box((x, 0, z), size, rng.uniform(-25, 25), [surface(rng)]))
    elif kind < 0.5:
        lofts.append(pole(rng, x + 0.15, z, 4, rng.uniform(0.03, 0.10)))
    elif kind < 0.75:
        tall = rng.uniform(0.7, 1.5)
        quads.append(billboard(x, z, tall * rng.uniform(0.6, 1), tall, leaves(int(rng.integers(0, 8)))))
    else:
        quads.append(billboard(x, z, 2.6, rng.uniform(0.7, 1.1), railing(rng)))
