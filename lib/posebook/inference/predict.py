"""Predict on one's own pictures: `posebook predict PICTURES... --weights ... --out-dir
...`.

1. People are the whole picture by default, the boxes of a COCO results file, or what an ONNX detector finds.
2. Threads read, crop and draw while the net runs; a picture that cannot be read is named and left out.
3. Joints are written as COCO results (predictions.json) with each picture's file name, and drawn over it.
"""

import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from posebook import paths, transforms
from posebook.datasets import coco_json, read_image
from posebook.evaluation import metrics, predictions
from posebook.inference.detectors import Detector
from posebook.skeletons import Skeleton

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
DEFAULT_WEIGHTS = paths.WEIGHTS / "starnet-pose-t-synthetic.safetensors"

BoxSource = Callable[
    [Path, np.ndarray], tuple[np.ndarray, np.ndarray]
]  # boxes (N, 4) and scores (N,) of a picture


@dataclass(frozen=True)
class ImageCrops:
    """A picture that was read, its people, and their crops."""

    path: Path
    image: np.ndarray  # (H, W, 3)
    boxes: np.ndarray  # (N, 4) x, y, w, h
    scores: np.ndarray  # (N,)
    crops: np.ndarray  # (N, h, w, 3)
    matrices: np.ndarray  # (N, 2, 3) image to crop


def list_images(paths: list[str | Path]) -> list[Path]:
    """The pictures among files and folders, folders in the order of names.

    Raises FileNotFoundError for a path that does not exist, and ValueError if there is no image or if two
    have the same name: results go by name.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        elif not path.exists():
            raise FileNotFoundError(f"no image at {path}")
        else:
            found.append(path)
    if not found:
        raise ValueError(
            f"no picture in {', '.join(map(str, paths))}: wanted are {', '.join(IMAGE_SUFFIXES)}"
        )
    twice = [name for name, count in Counter(path.name for path in found).items() if count > 1]
    if twice:
        raise ValueError(f"several pictures are called {twice[0]}: results go by name, predict them apart")
    return found


def overlay_path(out_dir: str | Path, picture: Path) -> Path:
    """Where the drawing over a picture goes: its own name, with .jpg added where it is no JPEG."""
    name = picture.name if picture.suffix.lower() in (".jpg", ".jpeg") else f"{picture.name}.jpg"
    return Path(out_dir) / "overlays" / name


def full_image_boxes(_: Path, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One person, as large as the picture."""
    return np.array([[0.0, 0.0, image.shape[1] - 1, image.shape[0] - 1]]), np.ones(1)


def file_boxes(path: str | Path, pictures: list[Path], threshold: float = 0.0) -> BoxSource:
    """The boxes of a COCO results file, by an entry's file_name or by the number that a picture is called.

    Raises ValueError for an entry that is no box, and for a file of other pictures.
    """
    content = coco_json.read_json(Path(path))
    if not isinstance(content, list):
        raise ValueError(f"{path} is not a file of detections: it is not a list of boxes")
    names = {picture.name: picture.name for picture in pictures}
    names |= {int(p.stem): p.name for p in pictures if p.stem.isdecimal()}
    by_name: dict[str, list[list[float]]] = {}
    for place, entry in enumerate(content):
        what = f"{path}, detection {place}"
        box = coco_json.get_numbers(what, "bbox", entry.get("bbox") if isinstance(entry, dict) else None, 4)
        score = coco_json.get_number(what, entry, "score", 1.0)
        called = entry.get("file_name", entry.get("image_id"))
        if not isinstance(called, str | int):
            raise ValueError(f"{what}: neither a file_name nor an image_id says which picture it is of")
        name = names.get(called)
        if name and score > threshold and box[2] > 0 and box[3] > 0 and entry.get("category_id", 1) == 1:
            by_name.setdefault(name, []).append([*box, score])
    if not by_name:
        raise ValueError(
            f"{path} has no box of any of the {len(pictures)} pictures, such as {pictures[0].name}"
        )

    def boxes(picture: Path, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.array(by_name.get(picture.name, np.zeros((0, 5)))).reshape(-1, 5)
        return rows[:, :4], rows[:, 4]

    return boxes


def detector_boxes(detector: Detector) -> BoxSource:
    """The boxes that a detector finds on a picture."""
    return lambda _, image: detector(image)


def load_crops(path: Path, boxes: BoxSource, input_size: tuple[int, int]) -> ImageCrops:
    """Read a picture, find its people and crop them; ValueError for one that cannot be read."""
    image = read_image(path)
    return crop_boxes(path, image, *boxes(path, image), input_size)


def crop_boxes(
    path: Path, image: np.ndarray, where: np.ndarray, scores: np.ndarray, input_size: tuple[int, int]
) -> ImageCrops:
    """A picture (H, W, 3) with the crops of its people, whose boxes (N, 4) and scores (N,) are known."""
    matrices = np.array([transforms.crop_affine(tuple(box), input_size) for box in where]).reshape(-1, 2, 3)
    crops = [transforms.warp(image, matrix, input_size) for matrix in matrices]
    stacked = np.stack(crops) if crops else np.zeros((0, *input_size, 3), np.uint8)
    return ImageCrops(path, image, where, scores, stacked, matrices)


def prefetch(work: list[Callable[[], ImageCrops]], pool: ThreadPoolExecutor, count: int) -> Iterator[Future]:
    """Futures of the work in its order, never more than `count` of them begun and not yet taken."""
    waiting: deque[Future] = deque()
    for job in work:
        waiting.append(pool.submit(job))
        if len(waiting) >= count:
            yield waiting.popleft()
    yield from waiting


@torch.no_grad()
def predict_keypoints(
    model: nn.Module, pictures: list[ImageCrops], flip_test: bool, device: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Keypoints (N, K, 2) in pixels and scores (N, K) of each picture's people, all in one forward."""
    count = len(model.skeleton.keypoints)
    images = torch.from_numpy(np.concatenate([picture.crops for picture in pictures]))  # (B, H, W, 3)
    points, scores = np.zeros((0, count, 2)), np.zeros((0, count))
    if len(images):
        output = predictions.forward(model, transforms.normalize(images.to(device)), flip_test)
        found, sure, _ = predictions.decode(output, model.input_size)
        points, scores = found.double().cpu().numpy(), sure.cpu().numpy()
    result, start = [], 0
    for picture in pictures:
        end = start + len(picture.boxes)
        back = [
            transforms.apply_affine(transforms.invert(matrix), person)
            for matrix, person in zip(picture.matrices, points[start:end], strict=True)
        ]
        result.append((np.array(back).reshape(-1, count, 2), scores[start:end]))
        start = end
    return result


def draw_poses(image: np.ndarray, people: np.ndarray, scores: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """The picture (H, W, 3) with poses (N, K, 2) over it; a joint scored under 0.2 is left out."""
    canvas, thick = image.copy(), max(1, round(max(image.shape[:2]) / 320))
    colors = [tuple(int(code[i : i + 2], 16) for i in (1, 3, 5)) for code in skeleton.colors]
    sub = 4  # bits of a pixel's parts, so that lines end between pixels
    for points, sure in zip(
        (people * 2**sub).round().astype(int), scores >= metrics.JOINT_THRESHOLD, strict=True
    ):
        for a, b in skeleton.limbs:
            if sure[a] and sure[b]:
                for color, width in (((255, 255, 255), 2 * thick + 2), (colors[b], 2 * thick)):
                    cv2.line(canvas, points[a].tolist(), points[b].tolist(), color, width, cv2.LINE_AA, sub)
        for joint in np.flatnonzero(sure):
            radius = thick * 2 << sub
            cv2.circle(canvas, points[joint].tolist(), radius, colors[joint], -1, cv2.LINE_AA, sub)
    return canvas


def predict_images(
    model: nn.Module,
    pictures: list[Path],
    out_dir: str | Path,
    boxes: BoxSource = full_image_boxes,
    flip_test: bool = True,
    batch: int = 32,
    device: str = "cpu",
    overlays: bool = True,
) -> tuple[list[dict], list[str]]:
    """Predict, write OUT_DIR/predictions.json and OUT_DIR/overlays/, and return the entries and what failed.

    An entry's image_id is the number that the picture is called, or its place, from 1.
    """
    out_dir, cores = Path(out_dir), os.cpu_count() or 1
    (out_dir / "overlays" if overlays else out_dir).mkdir(parents=True, exist_ok=True)
    model.to(device).eval()
    numbered = all(path.stem.isdecimal() for path in pictures)
    numbers = {path: int(path.stem) if numbered else place for place, path in enumerate(pictures, 1)}
    entries, failed, ready, drawn = [], [], [], deque()

    def finish() -> None:
        for picture, (points, scores) in zip(
            ready, predict_keypoints(model, ready, flip_test, device), strict=True
        ):
            entries.extend(_entries(picture, numbers[picture.path], points, scores))
            if overlays:
                target = overlay_path(out_dir, picture.path)
                drawn.append(pool.submit(_write, target, picture.image, points, scores, model.skeleton))
        ready.clear()
        while len(drawn) > 4 * cores:  # so that pictures waiting to be drawn do not fill the memory
            drawn.popleft().result()

    work = [lambda path=path: load_crops(path, boxes, model.input_size) for path in pictures]
    with ThreadPoolExecutor(cores) as pool:
        for path, future in zip(
            tqdm(pictures, desc="predict", unit="picture"), prefetch(work, pool, 4 * cores), strict=True
        ):
            try:
                ready.append(future.result())
            except ValueError as error:
                failed.append(f"{path}: {error}")
            if sum(len(picture.boxes) for picture in ready) >= batch or len(ready) >= 4 * cores:
                finish()
        if ready:
            finish()
        for future in drawn:
            future.result()
    temporary = out_dir / "predictions.json.tmp"
    temporary.write_text(json.dumps(entries) + "\n")
    temporary.replace(out_dir / "predictions.json")
    return entries, failed


def _entries(picture: ImageCrops, number: int, points: np.ndarray, scores: np.ndarray) -> list[dict]:
    """COCO's result entries of a picture's people."""
    totals = picture.scores * metrics.mean_scores(scores)
    triples = np.concatenate([points.round(2), scores[..., None].round(4)], -1)  # (N, K, 3)
    return [
        {
            "image_id": number,
            "file_name": picture.path.name,
            "category_id": 1,
            "bbox": [round(float(side), 2) for side in box],
            "keypoints": [float(value) for value in person.ravel()],
            "score": float(total),
        }
        for box, person, total in zip(picture.boxes, triples, totals, strict=True)
    ]


def _write(
    target: Path, image: np.ndarray, points: np.ndarray, scores: np.ndarray, skeleton: Skeleton
) -> None:
    cv2.imwrite(str(target), draw_poses(image, points, scores, skeleton)[..., ::-1])
