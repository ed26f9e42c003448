"""Pose prediction on the user's own images: `posebook predict IMAGES... --weights FILE --out-dir DIR`.

1. By default, the whole image is one person. Boxes can also come from a COCO results file or from a
   detector.
2. Threads read, crop and draw while the model runs. An image that cannot be read is reported and skipped.
3. Poses are written as COCO results (predictions.json) with the file name of each image and as a table
   (predictions.csv), and are drawn over the image. After an error, nothing is written.
4. `predict_video` does the same for videos and cameras.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from posebook import paths, transforms
from posebook.datasets import coco_json, read_image
from posebook.evaluation import metrics, predictions
from posebook.inference import output
from posebook.inference.detectors import Detector
from posebook.inference.stages import AHEAD, CORES, BoundedQueue, StageTimes, prefetch
from posebook.models.layers import PoseModel

MIN_SIDE = 1e-3  # pixels: smaller boxes are not used
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
DEFAULT_WEIGHTS = paths.WEIGHTS / "starnet-pose-t-photographs.safetensors"
SYNTHETIC_WEIGHTS = paths.WEIGHTS / "starnet-pose-t-synthetic.safetensors"  # better on rendered images

# from the path and the RGB pixels (H, W, 3) of an image to boxes (N, 4) as x, y, w, h and scores (N,)
BoxSource = Callable[[Path, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Settings:
    """How to predict images or a video."""

    flip_test: bool = True
    batch: int = 32  # people per forward pass; an image is never split, so it can be exceeded
    device: str = "cpu"
    overlays: bool = True


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

    Raises FileNotFoundError for a path that does not exist. Raises ValueError if there is no image, for a
    name that is not UTF-8, or if two images have the same name or overlay, because results are identified by
    name.
    """
    images: list[Path] = []
    for path in map(Path, sources):
        if path.is_dir():
            images += sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        elif not path.exists():
            raise FileNotFoundError(f"no image at {path}")
        else:
            images.append(path)
    for path in images:
        check_encoding(path)
    if not images:
        raise ValueError(
            f"no image in {', '.join(map(str, sources))}: supported are {', '.join(IMAGE_SUFFIXES)}"
        )
    for what, names in (
        ("name", [path.name for path in images]),
        ("overlay", [overlay_path("", path).name for path in images]),
    ):
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise ValueError(
                f"{count} images have the {what} {name}: results are identified by name, "
                "predict them separately"
            )
    return images


def check_encoding(path: Path) -> None:
    """Raise ValueError for a file name that is not UTF-8: neither OpenCV nor a CSV file can have it."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the file name {ascii(str(path))} is not UTF-8: rename the file") from error


def frame_path(number: int) -> Path:
    """The path that stands for a frame of a video. Frames are numbered from 1."""
    return Path(f"{number:06d}")


def overlay_path(out_dir: str | Path, image_path: Path) -> Path:
    """Path of the overlay of an image: its own name, with .jpg added if it is not a JPEG."""
    is_jpeg = image_path.suffix.lower() in (".jpg", ".jpeg")
    return Path(out_dir) / "overlays" / (image_path.name if is_jpeg else f"{image_path.name}.jpg")


def full_image_boxes(_: Path, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One person who fills the whole image."""
    height, width = image.shape[:2]
    return np.array([[0.0, 0.0, max(1, width - 1), max(1, height - 1)]]), np.ones(1)


def file_boxes(path: str | Path, image_paths: list[Path] | None, threshold: float = 0.0) -> BoxSource:
    """Boxes from a COCO results file.

    An entry belongs to the image of its file_name or, without one, to the image whose file name is its
    image_id. image_paths: the images; None for a video, whose frames have their number as image_id. Boxes
    with a score of at most `threshold`, or a side of at most MIN_SIDE, are dropped. Raises ValueError for an
    invalid entry, for an image_id that is the number of several images, or if the file has no box of these
    images.
    """
    content = coco_json.read_json(Path(path))
    if not isinstance(content, list):
        raise ValueError(f"{path} is not a file of detections: it is not a list of boxes")
    images = image_paths or []
    file_names: dict[str | int, str] = {image.name: image.name for image in images}
    file_names |= {int(image.stem): image.name for image in images if image.stem.isdecimal()}
    numbers: Counter[str | int] = Counter(int(image.stem) for image in images if image.stem.isdecimal())
    rows_by_name: dict[str, list[list[float]]] = {}
    for index, entry in enumerate(content):
        label = f"{path}, detection {index}"
        box = coco_json.get_numbers(label, "bbox", entry.get("bbox") if isinstance(entry, dict) else None, 4)
        score = coco_json.get_number(label, entry, "score", 1.0)
        key = entry.get("file_name", entry.get("image_id"))
        if not isinstance(key, str | int):
            raise ValueError(f"{label}: neither file_name nor image_id identifies the image")
        name = file_names.get(key)
        if image_paths is None and str(key).isdecimal():
            name = frame_path(int(key)).name
        if numbers[key] > 1:
            raise ValueError(f"{label}: several images have the number {key}: give the file_name instead")
        if name and score > threshold and min(box[2:]) > MIN_SIDE and entry.get("category_id", 1) == 1:
            rows_by_name.setdefault(name, []).append([*box, score])
    if not rows_by_name:
        wanted = "a frame"
        if image_paths:
            wanted = f"any of the {len(image_paths)} images, such as {image_paths[0].name}"
        raise ValueError(f"{path} has no box of {wanted}")

    def boxes(image_path: Path, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.array(rows_by_name.get(image_path.name, [])).reshape(-1, 5)
        return rows[:, :4], rows[:, 4]

    return boxes


def detector_boxes(detector: Detector) -> BoxSource:
    """Boxes from a detector."""
    return lambda _, image: detector(image)


def load_crops(path: Path, boxes: BoxSource, model: PoseModel, times: StageTimes) -> ImageCrops:
    """Read an image, get its boxes and crop them. Raises ValueError if the image cannot be read."""
    with times.measure("read"):
        image = read_image(path, upright=True)
    return find_people(path, image, boxes, model, times)


def find_people(
    path: Path, image: np.ndarray, boxes: BoxSource, model: PoseModel, times: StageTimes
) -> ImageCrops:
    """Get the boxes of an image (H, W, 3) and crop them for a model."""
    with times.measure("detect"):
        found, scores = boxes(path, image)
    with times.measure("crop"):
        return crop_boxes(path, image, found, scores, model.input_size, model.udp)


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


@torch.no_grad()
def predict_keypoints(
    model: PoseModel,
    images: list[ImageCrops],
    flip_test: bool,
    device: str,
    times: StageTimes | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Predict the people of all images in one forward pass.

    Returns keypoints (N, K, 2) in image pixels and scores (N, K) for each image.
    """
    times, num_joints = times or StageTimes(), len(model.skeleton.keypoints)
    crops = torch.from_numpy(np.concatenate([image.crops for image in images]))  # (B, H, W, 3)
    points, scores = np.zeros((0, num_joints, 2)), np.zeros((0, num_joints))
    if len(crops):
        with times.measure("network"):
            outputs = predictions.forward(model, transforms.normalize(crops.to(device)), flip_test)
            if torch.device(device).type == "cuda":
                torch.cuda.synchronize(device)  # otherwise the time would count as decoding
        with times.measure("decode"):
            keypoints, confidences, _ = predictions.decode(outputs, model.input_size, model.dark, model.udp)
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


def predict_boxes(
    model: PoseModel, image: np.ndarray, boxes: np.ndarray, flip_test: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Predict people in boxes (N, 4) of one image (H, W, 3) on the CPU: (N, K, 2) in its pixels, (N, K)."""
    crops = crop_boxes(Path(), image, boxes, np.ones(len(boxes)), model.input_size, model.udp)
    return predict_keypoints(model, [crops], flip_test, "cpu")[0]


def predict_people(
    model: PoseModel, images: Iterable[ImageCrops], settings: Settings, times: StageTimes
) -> Iterator[tuple[ImageCrops, np.ndarray, np.ndarray]]:
    """Predict in batches, and yield each image with its keypoints (N, K, 2) and scores (N, K), in order."""
    for batch in _batches(images, settings.batch):
        results = predict_keypoints(model, batch, settings.flip_test, settings.device, times)
        for image, (points, scores) in zip(batch, results, strict=True):
            yield image, points, scores


def _batches(images: Iterable[ImageCrops], people: int) -> Iterator[list[ImageCrops]]:
    """Images in groups of at least `people` people, or of AHEAD images, which bounds the memory."""
    ready: list[ImageCrops] = []
    for image in images:
        ready.append(image)
        if sum(len(waiting.boxes) for waiting in ready) >= people or len(ready) >= AHEAD:
            yield ready
            ready = []
    if ready:
        yield ready


def predict_images(
    model: PoseModel,
    image_paths: list[Path],
    out_dir: str | Path,
    boxes: BoxSource = full_image_boxes,
    settings: Settings | None = None,
    times: StageTimes | None = None,
) -> tuple[list[dict], list[str]]:
    """Predict all images; write OUT_DIR/predictions.json, OUT_DIR/predictions.csv and OUT_DIR/overlays/.

    Returns the entries, and one message for each image that could not be read. The image_id of an entry is
    the number in the file name if all file names are different numbers. Otherwise it is the position of the
    image, from 1. Raises ValueError if no image could be read. After an error, OUT_DIR is unchanged.
    """
    settings, times = settings or Settings(), times or StageTimes()
    model.to(settings.device).eval()
    different = {int(path.stem) for path in image_paths if path.stem.isdecimal()}
    numeric = len(different) == len(image_paths)
    image_ids = {path: int(path.stem) if numeric else i for i, path in enumerate(image_paths, 1)}
    entries: list[dict] = []
    numbers: list[int] = []  # of each entry's person in its image, from 1
    failed: list[str] = []
    jobs = [partial(load_crops, path, boxes, model, times) for path in image_paths]
    with output.staged_folder(out_dir) as folder, ThreadPoolExecutor(CORES) as pool:
        drawing = BoundedQueue(pool)
        crops = _readable(image_paths, prefetch(jobs, pool), failed)
        results = predict_people(model, crops, settings, times)
        for image, points, scores in times.progress(results, len(image_paths), "image"):
            facts = {"image_id": image_ids[image.path], "file_name": image.path.name}
            entries += make_entries(image, points, scores, [facts] * len(points))
            numbers += range(1, len(points) + 1)
            if settings.overlays:
                target = overlay_path(folder, image.path)
                drawing.submit(
                    output.write_overlay, target, image.image, points, scores, model.skeleton, times
                )
        drawing.finish()
        if len(failed) == len(image_paths):
            rest = f" (and {len(failed) - 1} other images)" if len(failed) > 1 else ""
            raise ValueError(f"no image could be read: {failed[0]}{rest}")
        labels = {"file": [entry["file_name"] for entry in entries], "person": numbers}
        output.write_results(folder, entries, model.skeleton.keypoints, labels)
    times.finish()
    return entries, failed


def _readable(paths: Iterable[Path], futures: Iterable[Future], failed: list[str]) -> Iterator[ImageCrops]:
    """The images that could be read. Adds a message to `failed` for each other one."""
    for path, future in zip(paths, futures, strict=True):
        try:
            image = future.result()
        except ValueError as error:
            failed.append(str(error) if str(path) in str(error) else f"{path}: {error}")
        else:
            yield image


def make_entries(
    image: ImageCrops, points: np.ndarray, scores: np.ndarray, facts: Sequence[dict]
) -> list[dict]:
    """COCO result entries of an image's people: keypoints (N, K, 2), scores (N, K), and N further fields."""
    totals = image.scores * metrics.mean_scores(scores)
    triples = np.concatenate([points.round(2), scores[..., None].astype(float).round(4)], -1)  # (N, K, 3)
    return [
        fields
        | {
            "category_id": 1,
            "bbox": [round(float(side), 2) for side in box],
            "keypoints": [float(value) for value in person.ravel()],
            "score": float(total),
        }
        for fields, box, person, total in zip(facts, image.boxes, triples, totals, strict=True)
    ]
