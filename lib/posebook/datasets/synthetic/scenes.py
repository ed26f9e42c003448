"""The content of an image: the camera, people, objects, a room and its light.

World axes in meters: x to the left of a camera that looks along +z, y up. Body axes: x to the person's left,
y up, z to the front.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator

from posebook.datasets.synthetic import bodies
from posebook.datasets.synthetic.anatomy import rotation, sample_pose
from posebook.datasets.synthetic.bodies import Person, sample_look
from posebook.datasets.synthetic.surfaces import (
    Loft,
    Quad,
    box,
    furniture_texture,
    make_loft,
    plant_texture,
    random_color,
    random_crop,
    tint,
)

SIZE = (240, 320)  # height, width of every image
Spots = list[tuple[float, float]]  # x, z of people on the floor


@dataclass(frozen=True)
class Camera:
    """A pinhole camera at `position` (meters); the rows of `rotation` are its right, down and forward axes.

    `focal` and `center` (x, y) are in pixels.
    """

    position: np.ndarray
    rotation: np.ndarray
    focal: float
    center: tuple[float, float]

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) -> x, y in pixels (pixel centers at integers), depth in meters."""
        projected = (points - self.position.astype(points.dtype)) @ self.rotation.T.astype(points.dtype)
        scale = self.focal / np.maximum(projected[..., 2], 0.05)  # points behind the camera stay finite
        projected[..., 0] = projected[..., 0] * scale + self.center[0]
        projected[..., 1] = projected[..., 1] * scale + self.center[1]
        return projected

    def rays(self) -> list[np.ndarray]:
        """The world vector that each pixel spans per meter of depth, as three planes x, y, z of SIZE."""
        right, down, forward = self.rotation.astype(np.float32)
        x = (np.arange(SIZE[1], dtype=np.float32) - np.float32(self.center[0])) / np.float32(self.focal)
        y = (np.arange(SIZE[0], dtype=np.float32) - np.float32(self.center[1])) / np.float32(self.focal)
        return [x * right[axis] + (y * down[axis] + forward[axis])[:, None] for axis in range(3)]

    def scaled(self, factor: float) -> "Camera":
        """The same view at `factor` times the resolution."""
        x, y = self.center
        center = ((x + 0.5) * factor - 0.5, (y + 0.5) * factor - 0.5)
        return replace(self, focal=self.focal * factor, center=center)


def make_camera(height: float, pitch: float, roll: float, focal: float) -> Camera:
    """A camera `height` meters above the origin that looks along +z.

    `pitch` (positive downward) and `roll` are in degrees, `focal` is in pixels.
    """
    level = np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
    center = ((SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2)
    turned = rotation("z", roll) @ rotation("x", pitch) @ level
    return Camera(np.array([0, height, 0.0]), turned, focal, center)


@dataclass(frozen=True)
class Scene:
    """A camera, people, objects (lofts and quads), a room, the direction to the light, and photo settings.

    `sample_room` and `sample_photo` list the keys of `room` and `photo`. All keys of `photo` have defaults. A
    room with a `wall` also needs skew, height and ceiling; the other keys have defaults.
    """

    camera: Camera
    people: list[Person]
    lofts: list[Loft] = field(default_factory=list)
    quads: list[Quad] = field(default_factory=list)
    room: dict[str, Any] = field(default_factory=dict)
    light: np.ndarray = field(default_factory=lambda: np.array([0.4, 0.8, -0.45]))
    photo: dict[str, Any] = field(default_factory=dict)


def sample_scene(rng: Generator) -> Scene:
    """A random scene with one to four people."""
    camera, main = sample_camera(rng)
    spots, people = place_people(rng, camera, main)
    objects: list[Loft | Quad] = []
    for (x, z), person in zip(spots, people, strict=True):
        if person.seat:
            objects += make_seat(rng, person, x, z)
    far = max(z for _, z in spots)
    outdoor = rng.random() < 0.45
    objects += place_objects(rng, camera, main, spots, outdoor)
    room = sample_room(rng, outdoor, far)
    light, photo = sample_light(rng), sample_photo(rng)
    lofts = [thing for thing in objects if isinstance(thing, Loft)]
    quads = [thing for thing in objects if isinstance(thing, Quad)]
    return Scene(camera, people, lofts, quads, room, light, photo)


def sample_camera(rng: Generator) -> tuple[Camera, float]:
    """A random camera, and the distance in meters at which a person is 0.3 to 1.45 image heights tall."""
    height = SIZE[0]
    focal = float(height / 2 / np.tan(np.radians(rng.uniform(28, 62)) / 2))
    eye = rng.choice(
        [rng.uniform(0.9, 1.8), rng.uniform(0.25, 0.9), rng.uniform(1.8, 3.6)], p=[0.65, 0.15, 0.2]
    )
    person_height = float(np.exp(rng.uniform(np.log(0.30), np.log(1.45)))) * height  # pixels
    distance = max(1.3, focal * 1.7 / person_height)
    # The pitch moves the middle of the main person near the middle of the image.
    offset = rng.normal(0, 0.07) * height
    pitch = np.arctan2(eye - rng.uniform(0.75, 1.0), distance)
    pitch = np.degrees(pitch) + np.degrees(np.arctan(offset / focal))
    return make_camera(eye, pitch, rng.normal(0, 2.5), focal), distance


def place_people(rng: Generator, camera: Camera, main: float) -> tuple[Spots, list[Person]]:
    """The x, z on the floor of one to four random people, and the people; the first is at z = `main`."""
    focal = camera.focal
    spots: Spots = []
    people = []
    for number in range(rng.choice([1, 2, 3, 4], p=[0.36, 0.32, 0.2, 0.12])):
        for _ in range(12):  # attempts; the person is left out if all fail
            # At most as far as a person of 1.7 m is 55 pixels tall.
            depth = main if number == 0 else min(max(1.3, main * rng.uniform(0.75, 2.0)), focal * 1.7 / 55)
            reach = 0.5 * SIZE[1] / focal * depth  # half the width of the field of view
            if number == 0 or rng.random() < 0.5:
                x = rng.uniform(-0.75, 0.75) * reach
            else:  # close to the main person in the image
                x = spots[0][0] * depth / main + rng.normal(0, 0.45)
            if is_free(spots, x, depth, 0.75) and abs(x) < 1.02 * reach:
                spots.append((x, depth))
                look, pose = sample_look(rng), sample_pose(rng)
                people.append(bodies.person(rng, look, pose, rng.uniform(0, 360), (x, depth)))
                break
    return spots, people


def is_free(spots: Spots, x: float, z: float, gap: float) -> bool:
    """Whether every person is more than `gap` meters away from (x, z)."""
    return all(np.hypot(x - spot_x, z - spot_z) > gap for spot_x, spot_z in spots)


def place_objects(
    rng: Generator, camera: Camera, main: float, spots: Spots, outdoor: bool
) -> list[Loft | Quad]:
    """Objects beside and behind the people, and sometimes one in front of a person."""
    far = max(z for _, z in spots)
    objects: list[Loft | Quad] = []
    for _ in range(rng.integers(2, 8)):
        z = rng.uniform(main * 0.9, far + 3.5)
        x = rng.uniform(-1.1, 1.1) * 0.5 * SIZE[1] / camera.focal * z
        if is_free(spots, x, z, 1.25):
            objects += make_object(rng, x, z, outdoor)
    if rng.random() < 0.42:  # an object in front of a person
        person_x, person_z = spots[rng.integers(len(spots))]
        nearness = rng.uniform(0.5, 0.82)
        x, z = person_x * nearness + rng.normal(0, 0.28) * person_z / main, person_z * nearness
        if person_z - z < 0.5 or not is_free(spots, x, z, 0.5):
            z = max(0.9, person_z - 0.65)
            x = person_x * z / person_z
        if is_free(spots, x, z, 0.55):
            objects += make_occluder(rng, x, z)
    return objects


def sample_room(rng: Generator, outdoor: bool, far: float) -> dict[str, Any]:
    """A random room or outdoor place; lengths in meters, skew of the walls in degrees."""
    return {
        "outdoor": outdoor,
        "wall": far + rng.uniform(1.0, 4.0) if not outdoor or rng.random() < 0.4 else None,
        "skew": rng.uniform(-24, 24),
        "height": rng.uniform(2.5, 3.4) if not outdoor else rng.uniform(2.2, 7),
        "ceiling": not outdoor,
        "seed": int(rng.integers(1 << 31)),
    }


def sample_light(rng: Generator) -> np.ndarray:
    """A random unit vector (3,) toward the light, mostly from the camera's side."""
    azimuth = rng.uniform(0, 2 * np.pi)
    light = np.array(
        [np.sin(azimuth), rng.uniform(0.55, 1.6), -abs(np.cos(azimuth)) if rng.random() < 0.7 else 0.8]
    )
    return light / np.linalg.norm(light)


def sample_photo(rng: Generator) -> dict[str, Any]:
    """Random light intensities and settings of the camera."""
    return {
        "sun": rng.uniform(0.5, 1.25),
        "sky": rng.uniform(0.35, 0.75),
        "warmth": rng.normal(0, 0.09),
        "exposure": rng.normal(0, 0.16),  # stops
        "blur": max(0, rng.normal(0.2, 0.35)),  # standard deviation, pixels
        "noise": abs(rng.normal(0, 0.012)) + 0.004,  # standard deviation, of the full range
        "vignette": rng.uniform(0, 0.35),
        "saturation": rng.uniform(0.75, 1.15),
        "seed": int(rng.integers(1 << 31)),
    }


def make_object(rng: Generator, x: float, z: float, outdoor: bool) -> list[Loft | Quad]:
    """A bush, tree, pole, potted plant or piece of furniture at (x, z)."""
    choice = rng.random()
    if outdoor and choice < 0.55:
        tree = rng.random() < 0.5
        height = rng.uniform(2.2, 5) if tree else rng.uniform(0.5, 1.4)
        width = height * rng.uniform(0.8, 1.2)
        return [make_billboard(x, z + 1, width, height, plant_texture(int(rng.integers(0, 4)) + 8 * tree))]
    if choice < 0.65:
        return [make_pole(rng, x, z, rng.uniform(1.5, 4), rng.uniform(0.03, 0.16))]
    if choice < 0.75:
        height = rng.uniform(0.6, 1.5)
        return [make_billboard(x, z, 0.8, height, plant_texture(int(rng.integers(4, 8))))]
    return [*make_furniture(rng, x, z, rng.uniform(0, 360))]


def make_occluder(rng: Generator, x: float, z: float) -> list[Loft | Quad]:
    """A low wall, pole, plant or railing at (x, z), in front of a person."""
    choice = rng.random()
    if choice < 0.3:
        size = rng.uniform(0.4, 1.2), rng.uniform(0.4, 1.1), 0.3
        return [*box((x, 0, z), size, rng.uniform(-25, 25), [furniture_texture(rng)])]
    if choice < 0.5:
        return [make_pole(rng, x + 0.15, z, 4, rng.uniform(0.03, 0.10))]
    if choice < 0.75:
        height = rng.uniform(0.7, 1.5)
        width = height * rng.uniform(0.6, 1)
        return [make_billboard(x, z, width, height, plant_texture(int(rng.integers(0, 8))))]
    return [make_billboard(x, z, 2.6, rng.uniform(0.7, 1.1), railing_texture(rng))]


def make_pole(rng: Generator, x: float, z: float, height: float, radius: float) -> Loft:
    """A slightly bent upright cylinder."""
    steps = np.linspace(0, 1, 8)
    sway = rng.normal(0, 0.04, 2) * steps[:, None] ** 2
    centers = np.column_stack([x + sway[:, 0], steps * height, z + sway[:, 1]])
    paint = tint(random_color(rng, 0.8), 1 + 0.15 * random_crop(rng, "streak", (64, 16)))
    profile = np.full((8, 3), radius) * np.where(steps == 1, 0.3, 1)[:, None]
    frames = np.broadcast_to(np.eye(3), (8, 3, 3))
    return make_loft(centers, frames, profile, np.clip(paint, 0, 1), gloss=0.2)


def make_billboard(x: float, z: float, width: float, height: float, texture: np.ndarray) -> Quad:
    """An upright cut-out that faces the camera."""
    left, right = x + width / 2, x - width / 2
    corners = [(left, height, z), (right, height, z), (right, 0.0, z), (left, 0.0, z)]
    return Quad(np.array(corners), np.array([0, 0.35, -0.94]), texture)  # tilted up to receive more light


def railing_texture(rng: Generator) -> np.ndarray:
    """Cut-out of a fence (96, 192, 4) uint8 with bars or boards."""
    image = np.zeros((96, 192, 4), np.uint8)
    paint = (*(random_color(rng, 0.8) * 255).astype(int).tolist(), 255)
    step, width = int(rng.integers(12, 26)), int(rng.integers(2, 7))
    for x in range(0, 192, step):
        cv2.rectangle(image, (x, 0), (x + width, 95), paint, -1)
    for y in (2, int(rng.integers(40, 90))):
        cv2.rectangle(image, (0, y), (191, y + int(rng.integers(3, 7))), paint, -1)
    return image


def make_furniture(rng: Generator, x: float, z: float, yaw: float) -> list[Quad]:
    """A crate, cupboard, table or bench that stands at (x, z)."""
    name = rng.choice(["crate", "cupboard", "table", "bench"])
    textures = [furniture_texture(rng) for _ in range(2)]
    if name == "crate":
        side = rng.uniform(0.3, 0.8)
        return box((x, 0, z), (side, side * rng.uniform(0.6, 1.3), side), yaw, textures)
    if name == "cupboard":
        size = rng.uniform(0.5, 1.2), rng.uniform(0.9, 2.1), rng.uniform(0.3, 0.5)
        return box((x, 0, z), size, yaw, textures)
    size = rng.uniform(0.7, 1.6), rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.8)
    return make_table(x, z, size, yaw, textures)


def make_table(
    x: float, z: float, size: tuple[float, float, float], yaw: float, textures: list, back: float = 0.0
) -> list[Quad]:
    """A table top on four legs. `size` is width, height and depth in meters.

    If `back` (meters) is not 0, the result is a chair with a back of this height on the -z side of its frame.
    """
    width, height, depth = size
    frame, origin = rotation("y", yaw), np.array([x, 0, z])
    quads = []
    for side in (-1, 1):
        for end in (-1, 1):
            corner = origin + frame @ [side * (width / 2 - 0.03), 0, end * (depth / 2 - 0.03)]
            quads += box(corner, (0.045, height, 0.045), yaw, textures)
    quads += box((x, height - 0.05, z), (width, 0.05, depth), yaw, textures)
    if back:
        center = np.array([x, height, z]) + frame @ [0, 0, -depth / 2 + 0.02]
        quads += box(center, (width, back, 0.04), yaw, textures)
    return quads


def make_seat(rng: Generator, person: Person, x: float, z: float) -> list[Quad]:
    """The seat of a person who sits at (x, z): a chair, a stool or a box."""
    assert person.seat is not None
    height, yaw = person.seat
    forward, depth = rotation("y", yaw)[:, 2], 0.27 * person.stature
    x, z = x + forward[0] * 0.07 * person.stature, z + forward[2] * 0.07 * person.stature
    if rng.random() < 0.6:
        textures = [furniture_texture(rng)]
        back = rng.choice([0, 0.26]) * person.stature
        return make_table(x, z, (depth, height, depth), yaw, textures, back)
    width = rng.uniform(0.45, 1.2)
    return box((x, 0, z), (width, height, depth), yaw, [furniture_texture(rng)])
