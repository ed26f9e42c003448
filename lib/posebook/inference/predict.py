"""Pose prediction on the user's own images: `posebook predict IMAGES... --weights FILE --out-dir DIR`.

1. By default, the whole image is one person. Boxes can also come from a COCO results file or from an ONNX
   detector.
2. Threads read, crop and draw while the model runs. An image that cannot be read is reported and skipped.
3. Poses are written as COCO results (predictions.json) with the file name of each image, and are drawn over
   the image.
"""

import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from posebook import paths, transforms
from posebook.datasets import coco_json, read_image
from posebook.evaluation import metrics, predictions
from posebook.inference.detectors import Detector
from posebook.models.layers import PoseModel
from posebook.skeletons import Skeleton
from posebook.utils import atomic_write

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
DEFAULT_WEIGHTS = paths.WEIGHTS / "starnet-pose-t-photographs.safetensors"
SYNTHETIC_WEIGHTS = paths.WEIGHTS / "starnet-pose-t-synthetic.safetensors"  # better on rendered images

# from the path and the RGB pixels (H, W, 3) of an image to boxes (N, 4) as x, y, w, h and scores (N,)
BoxSource = Callable[[Path, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class ImageCrops:
    """An image, the boxes of its people, and their crops."""

    path: Path
    image: np.ndarray  # (H, W, 3)
    boxes: np.ndarray  # (N, 4) x, y, w, h
    scores: np.ndarray  # (N,)
    crops: np.ndarray  # (N, h, w, 3)
    matrices: np.ndarray  # (N, 2, 3) from image to crop


def list_images(sources: list[str | Path]) -> list[Path]:
    """List the images among files and folders. The images of a folder are sorted by name.

    Raises FileNotFoundError for a path that does not exist. Raises ValueError if there is no image, or if two
    images have the same name, because results are identified by name.
    """
    images: list[Path] = []
    for path in map(Path, sources):
        if path.is_dir():
            images += sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        elif not path.exists():
            raise FileNotFoundError(f"no image at {path}")
        else:
            images.append(path)
    if not images:
        raise ValueError(
            f"no image in {', '.join(map(str, sources))}: supported are {', '.join(IMAGE_SUFFIXES)}"
        )
    name, count = Counter(path.name for path in images).most_common(1)[0]
    if count > 1:
        raise ValueError(
            f"{count} images have the name {name}: results are identified by name, predict them separately"
        )
    return images


def overlay_path(out_dir: str | Path, image_path: Path) -> Path:
    """Path of the overlay of an image: its own name, with .jpg added if it is not a JPEG."""
    is_jpeg = image_path.suffix.lower() in (".jpg", ".jpeg")
    return Path(out_dir) / "overlays" / (image_path.name if is_jpeg else f"{image_path.name}.jpg")


def full_image_boxes(_: Path, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One person who fills the whole image."""
    return np.array([[0.0, 0.0, image.shape[1] - 1, image.shape[0] - 1]]), np.ones(1)


def file_boxes(path: str | Path, image_paths: list[Path], threshold: float = 0.0) -> BoxSource:
    """Boxes from a COCO results file.

    An entry belongs to the image of its file_name or, without one, to the image whose file name is its
    image_id. Boxes with a score of at most `threshold` are dropped. Raises ValueError for an invalid entry,
    or if the file has no box of these images.
    """
    content = coco_json.read_json(Path(path))
    if not isinstance(content, list):
        raise ValueError(f"{path} is not a file of detections: it is not a list of boxes")
    file_names: dict[str | int, str] = {image.name: image.name for image in image_paths}
    file_names |= {int(image.stem): image.name for image in image_paths if image.stem.isdecimal()}
    rows_by_name: dict[str, list[list[float]]] = {}
    for index, entry in enumerate(content):
        label = f"{path}, detection {index}"
        box = coco_json.get_numbers(label, "bbox", entry.get("bbox") if isinstance(entry, dict) else None, 4)
        score = coco_json.get_number(label, entry, "score", 1.0)
        key = entry.get("file_name", entry.get("image_id"))
        if not isinstance(key, str | int):
            raise ValueError(f"{label}: neither file_name nor image_id identifies the image")
        name = file_names.get(key)
        if name and score > threshold and box[2] > 0 and box[3] > 0 and entry.get("category_id", 1) == 1:
            rows_by_name.setdefault(name, []).append([*box, score])
    if not rows_by_name:
        raise ValueError(
            f"{path} has no box of any of the {len(image_paths)} images, such as {image_paths[0].name}"
        )

    def boxes(image_path: Path, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.array(rows_by_name.get(image_path.name, [])).reshape(-1, 5)
        return rows[:, :4], rows[:, 4]

    return boxes


def detector_boxes(detector: Detector) -> BoxSource:
    """Boxes from a detector."""
    return lambda _, image: detector(image)


def load_crops(path: Path, boxes: BoxSource, input_size: tuple[int, int], udp: bool = False) -> ImageCrops:
    """Read an image, get its boxes and crop them. Raises ValueError if the image cannot be read."""
    image = read_image(path)
    return crop_boxes(path, image, *boxes(path, image), input_size, udp)


def crop_boxes(
    path: Path,
    image: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    input_size: tuple[int, int],
    udp: bool = False,
) -> ImageCrops:
    """Crop boxes (N, 4) with scores (N,) from an image (H, W, 3). udp: `model.udp` of the model."""
    matrices = np.array([transforms.crop_affine(tuple(box), input_size, udp=udp) for box in boxes])
    matrices = matrices.reshape(-1, 2, 3)
    crops = [transforms.warp(image, matrix, input_size) for matrix in matrices]
    stacked = np.stack(crops) if crops else np.zeros((0, *input_size, 3), np.uint8)
    return ImageCrops(path, image, boxes, scores, stacked, matrices)


def prefetch(
    jobs: Sequence[Callable[[], ImageCrops]], pool: ThreadPoolExecutor, count: int
) -> Iterator[Future]:
    """Yield the futures of the jobs in order. At most `count` jobs are started ahead of the consumer."""
    pending: deque[Future] = deque()
    for job in jobs:
        pending.append(pool.submit(job))
        if len(pending) >= count:
            yield pending.popleft()
    yield from pending


@torch.no_grad()
def predict_keypoints(
    model: PoseModel, images: list[ImageCrops], flip_test: bool, device: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Predict the people of all images in one forward pass.

    Returns keypoints (N, K, 2) in image pixels and scores (N, K) for each image.
    """
    num_joints = len(model.skeleton.keypoints)
    crops = torch.from_numpy(np.concatenate([image.crops for image in images]))  # (B, H, W, 3)
    points, scores = np.zeros((0, num_joints, 2)), np.zeros((0, num_joints))
    if len(crops):
        output = predictions.forward(model, transforms.normalize(crops.to(device)), flip_test)
        keypoints, confidences, _ = predictions.decode(output, model.input_size, udp=model.udp)
        points, scores = keypoints.double().cpu().numpy(), confidences.cpu().numpy()
    result, start = [], 0
    for image in images:
        end = start + len(image.boxes)
        in_image = [
            transforms.apply_affine(transforms.invert(matrix), person)
            for matrix, person in zip(image.matrices, points[start:end], strict=True)
        ]
        result.append((np.array(in_image).reshape(-1, num_joints, 2), scores[start:end]))
        start = end
    return result


def draw_poses(
    image: np.ndarray, keypoints: np.ndarray, scores: np.ndarray, skeleton: Skeleton
) -> np.ndarray:
    """Return a copy of an image (H, W, 3) with poses (N, K, 2) drawn over it.

    scores is (N, K). Joints with a score under 0.2 are not drawn.
    """
    canvas, unit = image.copy(), max(1, round(max(image.shape[:2]) / 320))  # line width grows with the image
    colors = [tuple(int(code[i : i + 2], 16) for i in (1, 3, 5)) for code in skeleton.colors]
    bits = 4  # fractional bits of OpenCV's fixed-point coordinates, for subpixel positions
    for points, visible in zip(
        (keypoints * 2**bits).round().astype(int), scores >= metrics.JOINT_THRESHOLD, strict=True
    ):
        for a, b in skeleton.limbs:
            if visible[a] and visible[b]:
                # a wider white line first gives each limb an outline
                for color, width in (((255, 255, 255), 2 * unit + 2), (colors[b], 2 * unit)):
                    cv2.line(canvas, points[a].tolist(), points[b].tolist(), color, width, cv2.LINE_AA, bits)
        for joint in np.flatnonzero(visible):
            radius = unit * 2 << bits
            cv2.circle(canvas, points[joint].tolist(), radius, colors[joint], -1, cv2.LINE_AA, bits)
    return canvas


def predict_images(
    model: PoseModel,
    image_paths: list[Path],
    out_dir: str | Path,
    boxes: BoxSource = full_image_boxes,
    flip_test: bool = True,
    batch: int = 32,
    device: str = "cpu",
    overlays: bool = True,
) -> tuple[list[dict], list[str]]:
    """Predict all images and write OUT_DIR/predictions.json and OUT_DIR/overlays/.

    batch: number of people for each forward pass; an image is never split, so it can be exceeded. Returns the
    entries, and one message for each image that could not be read. The image_id of an entry is the number in
    the file name if all file names are numbers. Otherwise it is the position of the image, from 1.
    """
    out_dir, cores = Path(out_dir), os.cpu_count() or 1
    (out_dir / "overlays" if overlays else out_dir).mkdir(parents=True, exist_ok=True)
    model.to(device).eval()
    numeric = all(path.stem.isdecimal() for path in image_paths)
    image_ids = {path: int(path.stem) if numeric else i for i, path in enumerate(image_paths, 1)}
    entries: list[dict] = []
    failed: list[str] = []
    ready: list[ImageCrops] = []
    drawing: deque[Future] = deque()

    def flush() -> None:
        for image, (points, scores) in zip(
            ready, predict_keypoints(model, ready, flip_test, device), strict=True
        ):
            entries.extend(_entries(image, image_ids[image.path], points, scores))
            if overlays:
                target = overlay_path(out_dir, image.path)
                drawing.append(
                    pool.submit(_write_overlay, target, image.image, points, scores, model.skeleton)
                )
        ready.clear()
        while len(drawing) > 4 * cores:  # bounds the memory of images that wait to be drawn
            drawing.popleft().result()

    jobs = [partial(load_crops, path, boxes, model.input_size, model.udp) for path in image_paths]
    with ThreadPoolExecutor(cores) as pool:
        for path, future in zip(
            tqdm(image_paths, desc="predict", unit="image"), prefetch(jobs, pool, 4 * cores), strict=True
        ):
            try:
                ready.append(future.result())
            except ValueError as error:
                failed.append(f"{path}: {error}")
            if sum(len(image.boxes) for image in ready) >= batch or len(ready) >= 4 * cores:
                flush()
        if ready:
            flush()
        for future in drawing:
            future.result()
    with atomic_write(out_dir / "predictions.json") as temporary:
        temporary.write_text(json.dumps(entries) + "\n")
    return entries, failed


def _entries(image: ImageCrops, image_id: int, points: np.ndarray, scores: np.ndarray) -> list[dict]:
    """COCO result entries of an image's people."""
    totals = image.scores * metrics.mean_scores(scores)
    triples = np.concatenate([points.round(2), scores[..., None].round(4)], -1)  # (N, K, 3)
    return [
        {
            "image_id": image_id,
            "file_name": image.path.name,
            "category_id": 1,
            "bbox": [round(float(side), 2) for side in box],
            "keypoints": [float(value) for value in person.ravel()],
            "score": float(total),
        }
        for box, person, total in zip(image.boxes, triples, totals, strict=True)
    ]


def _write_overlay(
    path: Path, image: np.ndarray, points: np.ndarray, scores: np.ndarray, skeleton: Skeleton
) -> None:
    cv2.imwrite(str(path), draw_poses(image, points, scores, skeleton)[..., ::-1])
