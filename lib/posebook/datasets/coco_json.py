"""Reads annotation files in COCO's format and checks every entry.

1. A few entries may be unusable: an annotation of an unknown image, or a box without area. They are skipped
   and reported. More of them than `skip_limit` allows are an error, because it is then probably the wrong
   file. Joints outside the image are reported and counted in the same way, but not skipped: annotators label
   such joints (CrowdPose has 8).
2. Ambiguous content is an error at once: ids that occur twice, values that are not numbers, other joints.
3. Every error names the file, the entry and the expected value.
4. The people are the annotations of the category that names joints; those of other categories, such as cars,
   are not read. Several categories may name joints if these are the same.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from posebook.datasets import Person, PoseDataset, skip_limit, usable_images
from posebook.skeletons import Skeleton, joint_difference
from posebook.utils import sha256

T = TypeVar("T")


@dataclass(frozen=True)
class Annotations:
    """The checked content of an annotation file."""

    path: Path
    images: dict[int, dict]  # image entries by id
    entries: list[dict]  # annotations
    category: dict  # of people: `keypoints` and `skeleton` if the file names them; may be empty


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises ValueError with the position of a syntax error."""
    try:
        text = path.read_text()
        return json.loads(text)
    except json.JSONDecodeError as error:
        cut = "" if text.rstrip().endswith(("}", "]")) else "; the end of the file is missing"
        raise ValueError(
            f"{path} is not a COCO annotation file: {error.msg} at character {error.pos} of {len(text)}{cut}"
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not a COCO annotation file: {error}") from error


def read_annotations(path: Path) -> Annotations:
    """Read and check an annotation file. Raises ValueError for the first invalid entry."""
    content = read_json(path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        raise ValueError(f"{path} is not a COCO annotation file: it has no lists images and annotations")
    images: dict[int, dict] = {}
    for index, image in enumerate(content["images"]):
        context = f"{path}, image {index}"
        image_id, name = get_field(context, image, "id", int), get_field(context, image, "file_name", str)
        if image_id in images:
            raise ValueError(f"{context}: {images[image_id]['file_name']} already has the id {image_id}")
        if Path(name).is_absolute() or ".." in Path(name).parts or not name:
            raise ValueError(f"{context}: file_name {name!r} is not a path inside the image folder")
        for side in ("width", "height"):
            if get_number(context, image, side) < 1:
                raise ValueError(f"{context}: {side} is {image[side]}, not a positive number of pixels")
        images[image_id] = image
    category, entries = select_people(path, content)
    ids = set()
    for index, entry in enumerate(entries):
        context = f"{path}, annotation at index {index}"
        entry_id = get_field(context, entry, "id", int)
        if entry_id in ids:
            raise ValueError(f"{context}: another annotation already has the id {entry_id}")
        ids.add(entry_id)
        get_field(context, entry, "image_id", int)
        if entry.get("iscrowd", 0) not in (0, 1):
            raise ValueError(f"{context}: iscrowd is {entry['iscrowd']!r}, not 0 or 1")
        if "num_keypoints" in entry:
            get_field(context, entry, "num_keypoints", int)
    return Annotations(path, images, entries, category)


def select_people(path: Path, content: dict) -> tuple[dict, list]:
    """The category of people ({} if the file has none) and the annotations of people (choice 4).

    Raises ValueError if two categories name different joints.
    """
    categories = content.get("categories")
    valid = [c for c in categories if isinstance(c, dict)] if isinstance(categories, list) else []
    with_joints = [c for c in valid if isinstance(c.get("keypoints"), list)]
    if not with_joints:
        return (valid or [{}])[0], content["annotations"]
    for other in with_joints[1:]:
        if other["keypoints"] != with_joints[0]["keypoints"]:
            names = " and ".join(str(category.get("name")) for category in (with_joints[0], other))
            raise ValueError(f"{path}: the categories {names} have different joints; write a file for each")
    others = [c.get("id") for c in valid if c not in with_joints]
    entries = [
        entry
        for entry in content["annotations"]
        if not (isinstance(entry, dict) and "category_id" in entry and entry["category_id"] in others)
    ]
    return with_joints[0], entries


def get_field(context: str, entry: object, key: str, expected: type[T]) -> T:
    """An entry's integer or string. Raises ValueError, which starts with `context`, for any other value."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, expected) or isinstance(value, bool):  # in Python, a bool is an int
        raise ValueError(
            f"{context}: {key} is {value!r}, not {'an integer' if expected is int else 'a string'}"
        )
    return value


def get_number(context: str, entry: dict, key: str, default: float | None = None) -> float:
    """An entry's number. Raises ValueError, which starts with `context`, for any other value."""
    return get_numbers(context, key, [entry.get(key, default)], 1)[0]


def get_numbers(context: str, key: str, values: object, count: int) -> list[float]:
    """`values` if they are `count` finite numbers below 1e9. Raises ValueError otherwise."""
    if isinstance(values, list) and len(values) == count:
        if all(
            isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) and abs(v) < 1e9
            for v in values
        ):
            return values
    if count == 1 and isinstance(values, list) and len(values) == 1:
        raise ValueError(f"{context}: {key} is {str(values[0])[:60]}, not a number")
    raise ValueError(f"{context}: {key} is {str(values)[:60]}, not {count} numbers")


def make_dataset(
    content: Annotations,
    name: str,
    split: str,
    folder: Path,
    skeleton: Skeleton,
    *,
    num_images: int | None = None,
    area_ratio: float | None = None,
) -> PoseDataset:
    """Make a dataset of all people with a labeled joint who are not a crowd.

    folder: of the images. num_images: size of the official split; a smaller file is named NAME-sample.
    area_ratio: a person's area as a fraction of the box, for files without areas; None uses the file's area,
    or the box if an entry has none or 0. Raises ValueError for an invalid entry, and if the joints are not
    the skeleton's.
    """
    joints = content.category.get("keypoints")
    if joints and (difference := joint_difference(tuple(joints), skeleton.keypoints)):
        raise ValueError(f"{content.path} has other joints than {skeleton.name}: {difference}")
    usable, broken = usable_images(folder, sorted(image["file_name"] for image in content.images.values()))
    images = {
        image_id: folder / image["file_name"]
        for image_id, image in sorted(content.images.items())
        if image["file_name"] in usable
    }
    faults = _Faults([], [], [])
    people = (_read_person(content, entry, images, skeleton, area_ratio, faults) for entry in content.entries)
    instances = tuple(person for person in people if person)
    faults.check(content)
    if not instances:
        raise ValueError(f"{content.path} holds no person with keypoints and an image")
    if num_images and len(content.images) != num_images:
        name += "-sample"
    skipped = (*broken, *faults.unknown_image, *faults.empty_box)
    return PoseDataset(name, split, skeleton, sha256(content.path), instances, content.path, skipped, images)


@dataclass(frozen=True)
class _Faults:
    """Descriptions of unusual annotations, collected while a file is read."""

    unknown_image: list[str]
    empty_box: list[str]
    outside: list[str]

    def check(self, content: Annotations) -> None:
        """Print the faults. Raise ValueError if there are more of one type than `skip_limit` allows."""
        limit = skip_limit(len(content.entries))
        for faults, description, action in (
            (self.unknown_image, "annotations of images that are not in the file", "skipping "),
            (self.empty_box, "people with a box without area", "skipping "),
            (self.outside, "people with joints outside the image", ""),
        ):
            text = f"{len(faults)} {description}"
            if len(faults) > limit:
                raise ValueError(f"{content.path}: {text}, more than {limit}: {', '.join(faults[:3])}")
            if faults:
                print(f"{action}{text}: {', '.join(faults[:3])}")


def _read_person(
    content: Annotations,
    entry: dict,
    images: dict[int, Path],
    skeleton: Skeleton,
    area_ratio: float | None,
    faults: _Faults,
) -> Person | None:
    """The person of an annotation, or None if it is not used. Unusual annotations are added to `faults`."""
    if entry.get("iscrowd", 0) or not entry.get("num_keypoints", 1):
        return None
    what = f"annotation {entry['id']}"
    context, image = f"{content.path}, {what}", content.images.get(entry["image_id"])
    if image is None:
        faults.unknown_image.append(f"{what} (image {entry['image_id']})")
        return None
    joints, keypoints = len(skeleton.keypoints), entry.get("keypoints")
    if isinstance(keypoints, list) and len(keypoints) != 3 * joints:
        raise ValueError(f"{context}: {len(keypoints)} numbers, not 3 for each of {joints} joints")
    values = get_numbers(context, "keypoints", keypoints, 3 * joints)
    points = np.array(values, np.float64).reshape(joints, 3)  # (K, 3)
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        raise ValueError(f"{context}: a visibility is not 0, 1 or 2")
    labeled = points[points[:, 2] > 0, :2]  # (L, 2)
    if not len(labeled):
        return None
    x, y, w, h = get_numbers(context, "bbox", entry.get("bbox"), 4)
    x1, y1 = max(0.0, x), max(0.0, y)
    w, h = min(image["width"] - 1, x + w) - x1, min(image["height"] - 1, y + h) - y1
    if w <= 0 or h <= 0:
        faults.empty_box.append(f"{what} (box {entry['bbox']} has no area inside its image)")
        return None
    size = (image["width"], image["height"])
    if (labeled < -1).any() or (labeled > np.add(size, 1)).any():  # one pixel tolerance
        faults.outside.append(f"{what} ({size[0]} x {size[1]} image {image['file_name']})")
    if image["id"] not in images:
        return None
    area = get_number(context, entry, "area", 0) if area_ratio is None else area_ratio * w * h
    if area < 0:
        raise ValueError(f"{context}: area is {area}, not a number of pixels")
    area = area or w * h
    return Person(images[image["id"]], image["id"], entry["id"], (x1, y1, w, h), float(area), points)
