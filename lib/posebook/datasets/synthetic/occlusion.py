"""The split val_occluded: the validation images with a rectangle of another image over each person.

It measures how a model copes with hidden joints. CoarseDropout fills its holes with black in training; these
rectangles have the texture of another image, so that no model has been trained on their appearance.
"""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np

from posebook.datasets import read_image
from posebook.utils import atomic_write

SPLIT = "val_occluded"
SIDES = (0.3, 0.5)  # of the rectangle, as fractions of the sides of the person's box


def write_occluded(root: str | Path, seed: int = 0) -> Path:
    """Write ROOT/val_occluded/*.jpg and its annotation file (17 joints), and return the file's path.

    A visible joint (v = 2) under a rectangle becomes a hidden one (v = 1). Boxes and areas stay as they are.
    The same seed gives the same files. Raises FileNotFoundError if ROOT has no validation split.
    """
    root = Path(root)
    source = root / "annotations" / "person_keypoints_val.json"
    if not source.is_file():
        raise FileNotFoundError(f"no validation split in {root}: run posebook synthesize --root {root}")
    content = json.loads(source.read_text())
    names = [entry["file_name"] for entry in content["images"]]
    shutil.rmtree(root / SPLIT, ignore_errors=True)
    (root / SPLIT).mkdir()
    rng = np.random.default_rng(seed)
    for position, entry in enumerate(content["images"]):
        image = read_image(root / "val" / entry["file_name"])  # (H, W, 3)
        texture = read_image(root / "val" / names[(position + 1) % len(names)])  # (H, W, 3)
        people = [person for person in content["annotations"] if person["image_id"] == entry["id"]]
        for person in people:
            rectangle = sample_rectangle(rng, person["bbox"], image.shape[:2])
            cover(image, texture, rectangle, rng)
            for other in people:  # a rectangle may also cover a neighbor
                hide_joints(other, rectangle)
        cv2.imwrite(str(root / SPLIT / entry["file_name"]), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    content["info"] |= {"split": SPLIT, "occlusion_seed": seed, "occlusion_sides": list(SIDES)}
    target = root / "annotations" / f"person_keypoints_{SPLIT}.json"
    with atomic_write(target) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":")))
    return target


def sample_rectangle(
    rng: np.random.Generator, box: list[float], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """A random rectangle inside a box x, y, w, h: left, top, right, bottom in pixels of the image."""
    x, y, w, h = box
    width, height = rng.uniform(*SIDES, 2) * (w, h)
    left, top = x + rng.uniform() * (w - width), y + rng.uniform() * (h - height)
    left, right = np.clip(np.rint([left, left + width]).astype(int), 0, size[1])
    top, bottom = np.clip(np.rint([top, top + height]).astype(int), 0, size[0])
    left, top = min(left, right - 1), min(top, bottom - 1)  # at least one pixel
    return int(left), int(top), int(right), int(bottom)


def cover(
    image: np.ndarray, texture: np.ndarray, rectangle: tuple[int, int, int, int], rng: np.random.Generator
) -> None:
    """Copy a random part of a texture of the same size over a rectangle of an image, in place."""
    left, top, right, bottom = rectangle
    x = rng.integers(0, texture.shape[1] - (right - left) + 1)
    y = rng.integers(0, texture.shape[0] - (bottom - top) + 1)
    image[top:bottom, left:right] = texture[y : y + bottom - top, x : x + right - left]


def hide_joints(person: dict, rectangle: tuple[int, int, int, int]) -> None:
    """Mark the visible joints of a person under a rectangle as hidden, in place."""
    left, top, right, bottom = rectangle
    points = person["keypoints"]
    for i in range(0, len(points), 3):
        x, y = round(points[i]), round(points[i + 1])  # the pixel of the joint
        if points[i + 2] == 2 and left <= x < right and top <= y < bottom:
            points[i + 2] = 1
