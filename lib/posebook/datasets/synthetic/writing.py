"""Annotations of a drawn scene, and the dataset's files in the COCO keypoint layout.

The same people are written twice: with COCO's 17 joints, and with the 14 of CrowdPose, whose head is the
crown of the skull and whose neck is where that leaves the trunk.

1. A joint is seen (v 2) when the surface in front of it is nearer by no more than the flesh and cloth
   around that joint (TOLERANCE, fractions of stature) in most of the nine pixels about it; else hidden (v
   1); outside the picture 0 with x = y = 0. Far hips of a side view are therefore hidden.
2. `area` counts visible pixels; polygons are outer contours, so holes are not cut out. People of whom
   less than MIN_VISIBLE shows (of their own silhouette), under MIN_AREA pixels or fewer than two of COCO's
   joints carry no annotation, in neither file.
"""

import json
import multiprocessing
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from posebook import skeletons
from posebook.datasets.synthetic.bodies import JOINTS, KEYPOINTS, Person
from posebook.datasets.synthetic.drawing import LARGE, SUPERSAMPLE, Buffers, expose, rasterize
from posebook.datasets.synthetic.scenes import SIZE, Camera, Scene, sample_scene

VERSION, SPLITS, JPEG_QUALITY = "posebook-synthetic-1", ("train", "val"), 92
MIN_VISIBLE, MIN_AREA = 0.15, 120
TOLERANCE = np.array([0.02] + [0.014] * 2 + [0.034] * 2 + [0.064] * 2 + [0.042] * 2 + [0.034] * 2
                     + [0.085] * 2 + [0.055] * 2 + [0.045] * 2 + [0.05, 0.045])  # fmt: skip
FILES = {"coco": "person_keypoints_{}.json", "crowdpose": "person_keypoints_14_{}.json"}  # by skeleton


def masks(buffers: Buffers, people: int) -> list[np.ndarray]:
    """Visible silhouette (H, W) bool of each person at the picture's resolution."""
    whole = [(buffers.who == n + 1).view(np.uint8) * np.uint8(255) for n in range(people)]
    return [cv2.resize(part, SIZE[::-1], interpolation=cv2.INTER_AREA) > 127 for part in whole]


def share_seen(who: Person, mask: np.ndarray, camera: Camera) -> float:
    """Share of the surface that faces the camera, inside the picture, that shows."""
    points = np.concatenate([part.grid.reshape(-1, 3) for part in who.lofts])
    facing = camera.position.astype(np.float32) - points
    facing *= np.concatenate([part.normals.reshape(-1, 3) for part in who.lofts])
    seen = camera.project(points.take((facing[:, 0] + facing[:, 1] + facing[:, 2] > 0).nonzero()[0], 0))
    x, y = np.rint(seen[:, 0]).astype(int), np.rint(seen[:, 1]).astype(int)
    inside = (seen[:, 2] > 0.2) & (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
    return float(mask[y[inside], x[inside]].mean()) if inside.any() else 0.0


def visibility(who: Person, buffers: Buffers, camera: Camera) -> np.ndarray:
    """Keypoints (19, 3) x, y, v of one person by the depth buffer; choice 1 of the module."""
    seen = camera.project(who.joints)
    x, y, z = seen.T
    within = (z > 0) & (x >= -0.5) & (y >= -0.5) & (x < SIZE[1] - 0.5) & (y < SIZE[0] - 0.5)
    column, row = np.rint(camera.scaled(SUPERSAMPLE).project(who.joints)[:, :2]).T
    around = np.array([-1, 0, 1])
    column = (column.clip(0, LARGE[1] - 1)[:, None] + around).clip(0, LARGE[1] - 1).astype(int)  # (19, 3)
    row = (row.clip(0, LARGE[0] - 1)[:, None] + around).clip(0, LARGE[0] - 1).astype(int)
    depth = buffers.depth[row[:, :, None], column[:, None, :]]  # (19, 3, 3)
    tolerance = TOLERANCE * who.stature + who.thickness * who.stature * (TOLERANCE > 0.03)
    clear = (depth > (z - tolerance)[:, None, None]).sum((1, 2)) >= 5
    points = np.column_stack([np.round(seen[:, :2], 2), np.where(clear, 2, 1)])
    return np.where(within[:, None], points, 0)


def annotate(scene: Scene, buffers: Buffers, keypoints: tuple[str, ...] = KEYPOINTS) -> list[dict]:
    """COCO annotations (without ids), with these joints, of the people who show; choice 2 of the module."""
    annotations = []
    for who, mask in zip(scene.people, masks(buffers, len(scene.people)), strict=True):
        area = int(mask.sum())
        points = visibility(who, buffers, scene.camera)
        if (
            area < MIN_AREA
            or (points[: len(KEYPOINTS), 2] == 2).sum() < 2
            or share_seen(who, mask, scene.camera) < MIN_VISIBLE
        ):
            continue
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        points = points[[JOINTS.index(name) for name in keypoints]]  # (K, 3)
        annotations.append({
            "category_id": 1, "iscrowd": 0, "area": area, "num_keypoints": int((points[:, 2] > 0).sum()),
            "bbox": [int(x[0]), int(y[0]), int(x[-1] - x[0] + 1), int(y[-1] - y[0] + 1)],
            "keypoints": [int(v) if v == int(v) else float(v) for v in points.ravel()],
            "segmentation": [c.ravel().tolist() for c in contours if len(c) > 2],
        })  # fmt: skip
    return annotations


def render(
    rng: np.random.Generator | int, keypoints: tuple[str, ...] = KEYPOINTS
) -> tuple[np.ndarray, list[dict]]:
    """One random picture: RGB uint8 (H, W, 3) and its annotations; the same seed gives the same picture."""
    scene = sample_scene(np.random.default_rng(rng))
    buffers = rasterize(scene)
    return expose(scene, buffers), annotate(scene, buffers, keypoints)


def narrowed(who: dict, keypoints: tuple[str, ...]) -> dict:
    """An annotation of all JOINTS with these alone."""
    points = np.array(who["keypoints"], object).reshape(len(JOINTS), 3)  # whole numbers stay whole
    points = points[[JOINTS.index(name) for name in keypoints]]  # (K, 3)
    return who | {"num_keypoints": int((points[:, 2] > 0).sum()), "keypoints": points.ravel().tolist()}


def write_image(task: tuple) -> tuple[dict, list[dict]]:
    """Draws image `number` of a split to its file; the seed of each image is its own, whoever draws it.

    Returns the image's entry and the annotations of its people, with all JOINTS.
    """
    root, split, number, seed = task
    cv2.setNumThreads(1)
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
    """Writes `root`/{train,val}/*.jpg and `root`/annotations/person_keypoints_{train,val}.json, and the same
    people with 14 joints as person_keypoints_14_{train,val}.json.

    Returns at once where root already holds the same version, seed and counts. The pictures do not depend on
    `workers` (processes; all cores when None). Annotations are written last, by renaming complete files.
    """
    root, counts = Path(root), {"train": train_images, "val": val_images}
    settings = {"version": VERSION, "seed": seed, "size": list(SIZE), "quality": JPEG_QUALITY}
    folder = root / "annotations"
    files = {(split, name): folder / form.format(split) for split in SPLITS for name, form in FILES.items()}
    wanted = {split: settings | {"split": split, "images": count} for split, count in counts.items()}
    if all(_info(path) == wanted[split] for (split, _), path in files.items()):
        return
    for path in files.values():
        path.unlink(missing_ok=True)
    tasks = []
    for split in SPLITS:
        (root / split).mkdir(parents=True, exist_ok=True)
        for old in (root / split).glob("*.jpg"):
            old.unlink()
        tasks += [(str(root), split, number, seed) for number in range(counts[split])]
    folder.mkdir(exist_ok=True)
    workers = min(workers or multiprocessing.cpu_count(), max(len(tasks), 1))
    bar = {"total": len(tasks), "desc": "drawing people", "unit": "image"}
    if workers == 1:
        results = list(tqdm(map(write_image, tasks), **bar))
    else:
        # Spawned, not forked: a parent that runs threads (a notebook, PyTorch) must not be forked.
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            results = list(tqdm(pool.imap(write_image, tasks, chunksize=8), **bar))
    begins = {"train": 0, "val": train_images}
    for (split, name), path in files.items():
        keypoints, images, annotations = skeletons.get(name).keypoints, [], []
        for image, people in results[begins[split] : begins[split] + counts[split]]:
            images.append(image)
            annotations += [
                {"id": len(annotations) + n + 1, "image_id": image["id"]} | narrowed(who, keypoints)
                for n, who in enumerate(people)
            ]
        category = {"id": 1, "name": "person", "supercategory": "person", "keypoints": list(keypoints),
                    "skeleton": [[a + 1, b + 1] for a, b in skeletons.get(name).limbs]}  # fmt: skip
        content = {"info": {"description": "people drawn by posebook", **wanted[split]}, "images": images,
                   "annotations": annotations, "categories": [category]}  # fmt: skip
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(content, separators=(",", ":")))
        partial.replace(path)


def _info(path: Path) -> dict | None:
    """The settings an annotation file was made with, or None where there is no complete one."""
    try:
        info = json.loads(path.read_text())["info"]
    except (OSError, ValueError, KeyError):
        return None
    return {key: value for key, value in info.items() if key != "description"}
