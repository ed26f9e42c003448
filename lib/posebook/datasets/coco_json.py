"""Annotation files in COCO's format, checked entry by entry: a fault is told by file, entry and expectation.

1. What one stray entry may be (an annotation of no image, a box of no area, joints off the picture) is
   skipped and counted, up to the larger of 5 and 1 %; more of it is an error, because then the file is
   another one than was meant. Joints off the picture are kept: annotators do mark them (CrowdPose has 8).
2. What makes a file ambiguous is an error at once: ids used twice, numbers that are none, other joints.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posebook.datasets import Person, usable_images
from posebook.skeletons import Skeleton, joint_difference


@dataclass(frozen=True)
class Annotations:
    """A file's content: images by id, the other entries as they stand."""

    path: Path
    images: dict[int, dict]
    entries: list[dict]
    category: dict  # of people: keypoints and skeleton, where the file names them


def read_json(path: Path) -> object:
    """The content of a JSON file; ValueError says where one that is none, or was cut off, makes no sense."""
    try:
        text = path.read_text()
        return json.loads(text)
    except json.JSONDecodeError as error:
        cut = "" if text.rstrip().endswith(("}", "]")) else "; it ends unclosed: it was cut off"
        raise ValueError(
            f"{path} is not a COCO annotation file: {error.msg} at character {error.pos} of {len(text)}{cut}"
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not a COCO annotation file: {error}") from error


def read_annotations(path: Path) -> Annotations:
    """Read and check a file; raises ValueError naming the first entry that is not what it must be."""
    content = read_json(path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        raise ValueError(f"{path} is not a COCO annotation file: it has no lists images and annotations")
    images, seen = {}, set()
    for place, image in enumerate(content["images"]):
        what = f"{path}, image {place}"
        number, name = get_field(what, image, "id", int), get_field(what, image, "file_name", str)
        if number in images:
            raise ValueError(f"{what}: id {number} belongs to {images[number]['file_name']} already")
        if Path(name).is_absolute() or ".." in Path(name).parts or not name:
            raise ValueError(f"{what}: file_name {name!r} is not a path inside the images' folder")
        for side in ("width", "height"):
            if get_number(what, image, side) < 1:
                raise ValueError(f"{what}: {side} {image[side]}, not a positive number of pixels")
        images[number] = image
    for place, entry in enumerate(content["annotations"]):
        what = f"{path}, annotation at place {place}"
        number = get_field(what, entry, "id", int)
        if number in seen:
            raise ValueError(f"{what}: another annotation has id {number}; ids are used once")
        seen.add(number)
        get_field(what, entry, "image_id", int)
        if entry.get("iscrowd", 0) not in (0, 1):
            raise ValueError(f"{what}: iscrowd is {entry['iscrowd']!r}, not 0 or 1")
        if "num_keypoints" in entry:
            get_field(what, entry, "num_keypoints", int)
    categories = content.get("categories")
    named = [c for c in categories if isinstance(c, dict)] if isinstance(categories, list) else []
    with_joints = [c for c in named if isinstance(c.get("keypoints"), list)]
    return Annotations(path, images, content["annotations"], (with_joints or named or [{}])[0])


def get_field(what: str, entry: object, key: str, kind: type) -> object:
    """An entry's whole number or text; ValueError for anything else."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{what}: {key} is {value!r}, not {'a whole number' if kind is int else 'text'}")
    return value


def get_number(what: str, entry: dict, key: str, default: float | None = None) -> float:
    """An entry's number; ValueError for anything else."""
    return get_numbers(what, key, [entry.get(key, default)], 1)[0]


def get_numbers(what: str, key: str, values: object, count: int) -> list[float]:
    """The values, if they are `count` finite numbers; ValueError otherwise."""
    good = isinstance(values, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) and abs(v) < 1e9
        for v in values
    )
    if not good or len(values) != count:
        wanted = "a number" if count == 1 else f"{count} numbers"
        raise ValueError(f"{what}: {key} is {str(values)[:60]}, not {wanted}")
    return values


def check_skeleton(content: Annotations, skeleton: Skeleton) -> None:
    """Raise ValueError where the file names joints that are not the skeleton's, in its order."""
    joints = content.category.get("keypoints")
    if joints and (fault := joint_difference(tuple(joints), skeleton.keypoints)):
        raise ValueError(f"{content.path} has other joints than {skeleton.name}: {fault}")


def load_people(
    content: Annotations, folder: Path, skeleton: Skeleton, area: float | None = None
) -> tuple[tuple[Person, ...], dict[int, Path], tuple[str, ...]]:
    """The people of a file, its usable images by id, and what was skipped.

    A person counts who has a labeled joint and is no crowd. The box is clipped to the image. area: a
    person's area as a share of the box's, for files that do not give it; None: theirs, else the whole box.
    Raises ValueError naming the entry.
    """
    check_skeleton(content, skeleton)
    joints = len(skeleton.keypoints)
    names = sorted(image["file_name"] for image in content.images.values())
    usable, broken = usable_images(folder, names)
    found, orphans, flat, outside = [], [], [], []
    for entry in content.entries:
        what = f"annotation {entry['id']}"
        if entry.get("iscrowd", 0) or not entry.get("num_keypoints", 1):
            continue
        image = content.images.get(entry["image_id"])
        if image is None:
            orphans.append(f"{what} (of image {entry['image_id']}, not in the file)")
            continue
        keypoints = entry.get("keypoints")
        if isinstance(keypoints, list) and len(keypoints) != 3 * joints:
            raise ValueError(
                f"{content.path}, {what}: {len(keypoints)} numbers, not 3 for each of {joints} joints"
            )
        values = get_numbers(f"{content.path}, {what}", "keypoints", keypoints, 3 * joints)
        points = np.array(values, np.float64).reshape(joints, 3)  # (K, 3)
        if not np.isin(points[:, 2], (0, 1, 2)).all():
            raise ValueError(f"{content.path}, {what}: a visibility that is not 0, 1 or 2")
        labeled = points[points[:, 2] > 0, :2]
        if not len(labeled):
            continue
        x, y, w, h = get_numbers(f"{content.path}, {what}", "bbox", entry.get("bbox"), 4)
        x1, y1 = max(0.0, x), max(0.0, y)
        w, h = min(image["width"] - 1, x + w) - x1, min(image["height"] - 1, y + h) - y1
        if w <= 0 or h <= 0:
            flat.append(f"{what} (its box {entry['bbox']} has no area in its image)")
            continue
        if (labeled < -1).any() or (labeled > (image["width"] + 1, image["height"] + 1)).any():
            outside.append(f"{what} (of {image['width']} x {image['height']} image {image['file_name']})")
        if image["file_name"] not in usable:
            continue
        own = get_number(f"{content.path}, {what}", entry, "area", w * h) if area is None else area * w * h
        if own < 0:
            raise ValueError(f"{content.path}, {what}: area is {own}, not a number of pixels")
        found.append(
            Person(folder / image["file_name"], image["id"], entry["id"], (x1, y1, w, h), float(own), points)
        )
    _check_limit(
        content, orphans, "annotations point at no image", "skipping {} annotations that point at no image"
    )
    _check_limit(content, flat, "people have a box of no area", "skipping {} people whose box has no area")
    _check_limit(
        content, outside, "people have joints off their image", "{} people have joints off their image"
    )
    if not found:
        raise ValueError(f"{content.path} holds no person with keypoints and an image")
    files = {number: image["file_name"] for number, image in sorted(content.images.items())}
    images = {number: folder / name for number, name in files.items() if name in usable}
    return tuple(found), images, broken + tuple(orphans) + tuple(flat)


def _check_limit(content: Annotations, faults: list[str], what: str, said: str) -> None:
    """Say what was met, or raise where there is more of it than may be."""
    limit = max(5, len(content.entries) // 100)
    if len(faults) > limit:
        raise ValueError(f"{content.path}: {len(faults)} {what}, more than {limit}: {', '.join(faults[:3])}")
    if faults:
        print(f"{said.format(len(faults))}: {', '.join(faults[:3])}")
