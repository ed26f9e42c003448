"""Annotations of a rendered scene, and the dataset's files in the COCO keypoint format.

The same people are written twice: with the 17 joints of COCO, and with the 14 joints of CrowdPose, whose head
is the crown of the skull and whose neck is the point where the neck leaves the trunk.

1. A joint is visible (v = 2) if, in most of the nine pixels around it, the front surface is nearer by no more
   than the flesh and clothes around that joint (TOLERANCE, fractions of stature). Otherwise it is hidden
   (v = 1). In a side view, the far hip is therefore hidden. Outside the image, v = x = y = 0.
2. `area` counts visible pixels. Polygons are outer contours, so holes are included. A person is not
   annotated, in either file, if less than MIN_VISIBLE of the silhouette is visible, if the area is below
   MIN_AREA pixels, or if fewer than two of COCO's joints are visible.
"""

import json
import multiprocessing
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from tqdm import tqdm

from posebook import skeletons
from posebook.datasets.synthetic import occlusion
from posebook.datasets.synthetic.bodies import JOINTS, KEYPOINTS, Person
from posebook.datasets.synthetic.drawing import LARGE, SUPERSAMPLE, Buffers, expose, rasterize, surface_points
from posebook.datasets.synthetic.scenes import SIZE, Camera, Scene, sample_scene
from posebook.utils import atomic_write

VERSION = "posebook-synthetic-1"  # raise it if the images of a seed change
SPLITS, JPEG_QUALITY = ("train", "val"), 92
DESCRIPTION = "people drawn by posebook"  # marks our annotation files; the same in all versions
MIN_VISIBLE, MIN_AREA = 0.15, 120
# In the order of JOINTS.
TOLERANCE = np.array([0.02] + [0.014] * 2 + [0.034] * 2 + [0.064] * 2 + [0.042] * 2 + [0.034] * 2
                     + [0.085] * 2 + [0.055] * 2 + [0.045] * 2 + [0.05, 0.045])  # fmt: skip
FILES = {"coco": "person_keypoints_{}.json", "crowdpose": "person_keypoints_14_{}.json"}  # by skeleton


def masks(buffers: Buffers, count: int) -> list[np.ndarray]:
    """Visible silhouettes (H, W) bool of the first `count` people at the resolution of the image."""
    large = [(buffers.owner == n + 1).view(np.uint8) * np.uint8(255) for n in range(count)]
    return [cv2.resize(mask, SIZE[::-1], interpolation=cv2.INTER_AREA) > 127 for mask in large]


def visible_share(person: Person, mask: np.ndarray, camera: Camera) -> float:
    """Share of the surface points inside the image and facing the camera that lie in the visible mask."""
    points, facing = surface_points(person.lofts, camera)
    projected = camera.project(points.take((facing > 0).nonzero()[0], 0))
    x, y = np.rint(projected[:, 0]).astype(int), np.rint(projected[:, 1]).astype(int)
    inside = (projected[:, 2] > 0.2) & (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
    return float(mask[y[inside], x[inside]].mean()) if inside.any() else 0.0


def project_joints(person: Person, buffers: Buffers, camera: Camera) -> np.ndarray:
    """Keypoints (19, 3) x, y, v of one person; v by the depth buffer (item 1 of the module docstring)."""
    projected = camera.project(person.joints)
    x, y, z = projected.T
    within = (z > 0) & (x >= -0.5) & (y >= -0.5) & (x < SIZE[1] - 0.5) & (y < SIZE[0] - 0.5)
    column, row = np.rint(camera.scaled(SUPERSAMPLE).project(person.joints)[:, :2]).T
    around = np.array([-1, 0, 1])
    column = (column.clip(0, LARGE[1] - 1)[:, None] + around).clip(0, LARGE[1] - 1).astype(int)  # (19, 3)
    row = (row.clip(0, LARGE[0] - 1)[:, None] + around).clip(0, LARGE[0] - 1).astype(int)
    depth = buffers.depth[row[:, :, None], column[:, None, :]]  # (19, 3, 3)
    # Fat and clothes lie over the trunk and the limbs (larger tolerances), not over nose and eyes.
    tolerance = TOLERANCE * person.stature + person.thickness * person.stature * (TOLERANCE > 0.03)
    clear = (depth > (z - tolerance)[:, None, None]).sum((1, 2)) >= 5
    points = np.column_stack([np.round(projected[:, :2], 2), np.where(clear, 2, 1)])
    return np.where(within[:, None], points, 0)


def annotate(scene: Scene, buffers: Buffers, keypoints: tuple[str, ...] = KEYPOINTS) -> list[dict[str, Any]]:
    """COCO annotations (without ids) with these joints; item 2 of the module docstring states for whom."""
    annotations = []
    for person, mask in zip(scene.people, masks(buffers, len(scene.people)), strict=True):
        area = int(mask.sum())
        points = project_joints(person, buffers, scene.camera)
        if (
            area < MIN_AREA
            or (points[: len(KEYPOINTS), 2] == 2).sum() < 2
            or visible_share(person, mask, scene.camera) < MIN_VISIBLE
        ):
            continue
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        everything = {
            "category_id": 1, "iscrowd": 0, "area": area, "num_keypoints": 0,
            "bbox": [int(x[0]), int(y[0]), int(x[-1] - x[0] + 1), int(y[-1] - y[0] + 1)],
            "keypoints": [int(v) if v == int(v) else float(v) for v in points.ravel()],
            "segmentation": [c.ravel().tolist() for c in contours if len(c) > 2],
        }  # fmt: skip
        annotations.append(select_keypoints(everything, keypoints))
    return annotations


def select_keypoints(annotation: dict[str, Any], keypoints: tuple[str, ...]) -> dict[str, Any]:
    """An annotation with these joints; the argument has all JOINTS."""
    points = np.array(annotation["keypoints"], object).reshape(len(JOINTS), 3)  # integers stay integers
    points = points[[JOINTS.index(name) for name in keypoints]]  # (K, 3)
    return annotation | {"num_keypoints": int((points[:, 2] > 0).sum()), "keypoints": points.ravel().tolist()}


def render(
    seed: int | np.random.SeedSequence | Generator, keypoints: tuple[str, ...] = KEYPOINTS
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """One random image, RGB uint8 (H, W, 3), and its annotations. The same seed gives the same image."""
    scene = sample_scene(np.random.default_rng(seed))
    buffers = rasterize(scene)
    return expose(scene, buffers), annotate(scene, buffers, keypoints)


def write_image(task: tuple[str, str, int, int]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Render an image to its file, and return its COCO entry and its annotations with all JOINTS.

    The task is root, split, number of the image and seed of the dataset. Each image has its own random
    stream, so it does not depend on the number of processes. Raise OSError if OpenCV cannot encode it.
    """
    root, split, number, seed = task
    image, annotations = render(np.random.SeedSequence((seed, SPLITS.index(split), number)), JOINTS)
    name = f"{number:06d}.jpg"
    ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise OSError(f"OpenCV could not encode {split}/{name}")
    (Path(root) / split / name).write_bytes(data.tobytes())
    return {"id": number + 1, "file_name": name, "height": SIZE[0], "width": SIZE[1]}, annotations


def generate(
    root: str | Path,
    train_images: int = 2000,
    val_images: int = 400,
    seed: int = 0,
    workers: int | None = None,
) -> None:
    """Write `root`/{train,val}/*.jpg and the annotations/person_keypoints_{train,val}.json of 17 joints.

    The same people with 14 joints are in annotations/person_keypoints_14_{train,val}.json.
    Return immediately if `root` already holds the same version, seed and counts. The images do not depend on
    `workers`, the number of processes (None: one per core). Annotation files are written last, each under a
    temporary name and then renamed, so an existing file is complete. An earlier dataset of this function is
    replaced, with its split of occluded people.

    Raises FileExistsError if `root` holds images or annotations that this function did not write.
    """
    root, counts = Path(root), {"train": train_images, "val": val_images}
    settings = {"version": VERSION, "seed": seed, "size": list(SIZE), "quality": JPEG_QUALITY}
    infos = {split: settings | {"split": split, "images": count} for split, count in counts.items()}
    folder = root / "annotations"
    files = {(split, name): folder / file.format(split) for split in SPLITS for name, file in FILES.items()}
    if all(read_info(path) == infos[split] for (split, _), path in files.items()):
        return
    check_own_files(root)
    folder.mkdir(parents=True, exist_ok=True)
    for path in [*files.values(), folder / FILES["coco"].format(occlusion.SPLIT)]:
        path.unlink(missing_ok=True)
    shutil.rmtree(root / occlusion.SPLIT, ignore_errors=True)
    tasks = []
    for split in SPLITS:
        (root / split).mkdir(parents=True, exist_ok=True)
        for old in (root / split).glob("*.jpg"):
            old.unlink()
        tasks += [(str(root), split, number, seed) for number in range(counts[split])]
    workers = min(workers or multiprocessing.cpu_count(), max(len(tasks), 1))
    progress = partial(tqdm, total=len(tasks), desc="rendering images", unit="image")
    if workers == 1:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            results = list(progress(map(write_image, tasks)))
        finally:
            cv2.setNumThreads(threads)  # of the caller
    else:
        # Spawned, not forked: forking is unsafe if the parent runs threads (a notebook, PyTorch).
        with multiprocessing.get_context("spawn").Pool(workers, cv2.setNumThreads, (1,)) as pool:
            results = list(progress(pool.imap(write_image, tasks, chunksize=8)))
    by_split = {"train": results[:train_images], "val": results[train_images:]}
    for (split, name), path in files.items():
        write_annotations(path, name, infos[split], by_split[split])


def check_own_files(root: Path) -> None:
    """Raise FileExistsError if `root` holds another dataset: generating would delete its images.

    Without annotations, which an interrupted rendering has not written yet, the size of the images decides.
    """
    annotations = sorted((root / "annotations").glob("*.json"))
    strangers = [path for path in annotations if DESCRIPTION not in path.read_text(errors="replace")]
    images = [path for split in SPLITS for path in sorted((root / split).glob("*.jpg"))]
    strangers += [path for path in images if len(path.stem) != 6 or not (annotations or has_own_size(path))]
    if strangers:
        raise FileExistsError(f"{root} holds another dataset ({strangers[0].name}): name an empty folder")


def has_own_size(path: Path) -> bool:
    """Whether an image has the size of a rendered one, or is empty because writing was interrupted."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size == SIZE[::-1]
    except OSError:
        return path.stat().st_size == 0


def write_annotations(path: Path, skeleton_name: str, info: dict[str, Any], results: list) -> None:
    """Write an annotation file with the joints of a skeleton; `results` are those of `write_image`."""
    skeleton = skeletons.get(skeleton_name)
    annotations: list[dict[str, Any]] = []
    for image, entries in results:
        annotations += [
            {"id": number, "image_id": image["id"]} | select_keypoints(entry, skeleton.keypoints)
            for number, entry in enumerate(entries, len(annotations) + 1)
        ]
    category = {"id": 1, "name": "person", "supercategory": "person", "keypoints": list(skeleton.keypoints),
                "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs]}  # fmt: skip
    content = {"info": {"description": DESCRIPTION, **info},
               "images": [image for image, _ in results], "annotations": annotations,
               "categories": [category]}  # fmt: skip
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":")))


def read_info(path: Path) -> dict[str, Any] | None:
    """The settings of an annotation file, or None if there is no complete file."""
    try:
        info = json.loads(path.read_text())["info"]
    except (OSError, ValueError, KeyError):
        return None
    return {key: value for key, value in info.items() if key != "description"}
