"""Formats of detection models: the input that each needs, and how boxes of people are read from its outputs.

The authors' code is the source of each format's resizing, normalization and decoding:

- RTMDet: mmdet (mmdet/models/dense_heads/rtmdet_head.py, configs/rtmdet) and mmdeploy, which adds NMS and the
  outputs `dets` and `labels`.
- YOLOX: Megvii-BaseDetection/YOLOX (yolox/data/data_augment.py, yolox/utils/demo_utils.py), and mmdeploy.
- Ultralytics: ultralytics/ultralytics (ultralytics/data/augment.py, ultralytics/nn/backends).
- DETR, Deformable DETR, RT-DETR, D-FINE: the image processors of transformers. RF-DETR: Tau-J/rtmlib
  (rtmlib/tools/object_detection/rfdetr.py).
- SSD: TensorFlow's Object Detection API (exporter_main_v2.py); the model contains its own normalization.

1. The score of a box is that of the class person, whatever the scores of other classes are.
2. Readers return corners in pixels of the model's input. `Detector` maps them to the image.
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np

Outputs = Mapping[str, np.ndarray]
Size = tuple[int, int]  # (height, width)
Boxes = tuple[np.ndarray, np.ndarray]  # corners (N, 4) as x1, y1, x2, y2, and scores (N,)
Pixels = float | tuple[float, ...]  # a value for all channels, or one for each

STRIDES = (8, 16, 32)  # of the feature maps of RTMDet and YOLOX
PAD_VALUE = 114
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # mean and std of red, green, blue
RTMDET = ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395))  # mean and std of blue, green, red
SUPPORTED = (
    "RTMDet or YOLOX of mmdeploy",
    "raw RTMDet heads",
    "raw YOLOX",
    "Ultralytics YOLO",
    "DETR, RT-DETR, RF-DETR",
    "TensorFlow SSD",
)
MMDEPLOY_NAMES = ("dets", "labels")
DETR_NAMES = (("logits", "pred_boxes"), ("labels", "dets"))  # of transformers and of RF-DETR
SSD_NAMES = ("detection_boxes", "detection_classes", "detection_scores")
OUTPUT_NAMES = {*MMDEPLOY_NAMES, *DETR_NAMES[0], *SSD_NAMES}
COCO_CLASSES = 80  # in COCO's order, person is class 0
# By number of logits: person's index, whether a softmax includes "no object", mean and std. Models with the
# original ids of COCO have 91 logits, and DETR one more for "no object".
DETR_VARIANTS: dict[int, tuple[int, bool, Pixels, Pixels]] = {
    92: (1, True, *IMAGENET),  # DETR, YOLOS
    91: (1, False, *IMAGENET),  # Deformable DETR, Conditional DETR, RF-DETR
    80: (0, False, 0.0, 255.0),  # RT-DETR, D-FINE
}


@dataclass(frozen=True)
class Format:
    """One format. `read` takes the outputs and the input size, and returns corners (N, 4) and scores (N,)."""

    name: str
    read: Callable[[Outputs, Size], Boxes]
    resize: str  # corner: fit into the upper left corner; center: fit into the center; stretch
    mean: Pixels = 0.0  # of the channels in the model's order
    std: Pixels = 1.0
    bgr: bool = False
    nms: float | None = None  # IoU above which the box with the lower score is dropped; None: no NMS
    # the input size for an image size, if the model leaves it open
    open_size: Callable[[Size], Size] = lambda _: (640, 640)


def prepare(image: np.ndarray, size: Size, model_format: Format) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The model's input (H, W, 3) float32 for an RGB image, and scale (2,) and offset (2,) as x, y.

    A point p of the image is at p * scale + offset in the input.
    """
    (height, width), (rows, columns) = size, image.shape[:2]
    fitted = width, height
    if model_format.resize != "stretch":
        ratio = min(height / rows, width / columns)
        fitted = max(1, round(columns * ratio)), max(1, round(rows * ratio))
    left, top = (width - fitted[0]) // 2, (height - fitted[1]) // 2
    if model_format.resize == "corner":
        left, top = 0, 0
    canvas = np.full((height, width, 3), PAD_VALUE, np.uint8)
    canvas[top : top + fitted[1], left : left + fitted[0]] = cv2.resize(image, fitted)
    pixels = canvas[..., ::-1] if model_format.bgr else canvas
    mean, std = np.asarray(model_format.mean, np.float32), np.asarray(model_format.std, np.float32)
    return (pixels - mean) / std, np.array(fitted) / (columns, rows), np.array([left, top])


def recognize(
    size: Size,
    shapes: Mapping[str, tuple[int, ...]],
    metadata: Mapping[str, Any],
    channels_last: bool = False,
) -> Format:
    """The format of a model, from its input, the shapes of its outputs and the metadata of its file.

    metadata: Ultralytics' `names` and `task`; whether the file is `tflite`; whether a file of mmdeploy
    contains `yolox`. Raises ValueError for an unknown format and for a model without the class person.
    """
    if (task := metadata.get("task", "detect")) != "detect":
        raise ValueError(f"the model is for the task {task}, not for detection")
    if set(MMDEPLOY_NAMES) <= shapes.keys() and shapes["dets"][-1] == 5:
        if metadata.get("yolox"):
            return Format("YOLOX of mmdeploy", _read_mmdeploy, "corner", bgr=True)
        return Format("RTMDet of mmdeploy", _read_mmdeploy, "corner", *RTMDET, bgr=True)
    for logits, boxes in DETR_NAMES:
        if {logits, boxes} <= shapes.keys() and len(shapes[logits]) == 3:
            return _detr(logits, boxes, shapes[logits][-1])
    if set(SSD_NAMES) <= shapes.keys():
        return Format("TensorFlow SSD", _read_ssd, "stretch")
    channels = {shape[1] for shape in shapes.values() if len(shape) == 4} - {4}
    if len(shapes) == 2 * len(STRIDES) and len(channels) == 1:
        reader = partial(_read_rtmdet, person=find_person(None, channels.pop()))
        return Format("raw RTMDet heads", reader, "corner", *RTMDET, bgr=True, nms=0.65)
    first = next(iter(shapes.values()))
    if len(shapes) == 1 and len(first) == 3:
        names, cells = metadata.get("names"), sum((size[0] // s) * (size[1] // s) for s in STRIDES)
        names = _parse_names(names)
        if first[1] == cells and not names:
            reader = partial(_read_yolox, person=find_person(None, first[2] - 5))
            return Format("raw YOLOX", reader, "corner", bgr=True, nms=0.45)
        # Ultralytics' boxes are fractions of the input in .tflite files, except for one of its exporters.
        scale = size[::-1] * 2 if metadata.get("tflite") else (1, 1, 1, 1)
        if first[2] == 6 and first[1] % cells:  # one class of YOLOv5 has 6 numbers for each cell and anchor
            scale = scale if channels_last else (1, 1, 1, 1)
            reader = partial(_read_end_to_end, person=find_person(names, COCO_CLASSES), scale=scale)
            return Format("Ultralytics YOLO, end to end", reader, "center", std=255.0)
        if first[1] == 4 + len(names) if names else first[2] == cells:
            reader = partial(_read_ultralytics, person=find_person(names, first[1] - 4), scale=scale)
            return Format("Ultralytics YOLO", reader, "center", std=255.0, nms=0.7)
    listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    raise ValueError(f"its outputs, {listed}, are of no supported format: {'; '.join(SUPPORTED)}")


def _parse_names(names: Any) -> dict[Any, str] | None:
    """Ultralytics' names of classes, a dictionary or list or its text. Raises ValueError for other text."""
    if isinstance(names, str):
        try:
            names = ast.literal_eval(names)
        except (SyntaxError, ValueError) as error:
            raise ValueError(
                f"its metadata has names of classes that cannot be read: {names[:40]}"
            ) from error
    return dict(enumerate(names)) if isinstance(names, list | tuple) else names


def find_person(names: Mapping[Any, str] | None, count: int) -> int:
    """The index of the class person among the names of classes, or among `count` classes without names.

    Raises ValueError if there is none.
    """
    if names:
        for index, name in names.items():
            if name.lower() == "person":
                return int(index)
        some = ", ".join(list(names.values())[:3])
        raise ValueError(f"the model has no class person: it detects {len(names)} classes, such as {some}")
    if count not in (1, COCO_CLASSES):
        raise ValueError(
            f"the model detects {count} classes without names: only COCO's {COCO_CLASSES} or 1 are supported"
        )
    return 0


def suppress(corners: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """NMS: indices of the remaining boxes, from the highest score. corners: (N, 4), scores: (N,).

    A box is dropped if its IoU with a remaining box of a higher score is above `threshold`. All boxes have an
    area, and all scores are positive.
    """
    boxes = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])  # (N, 4) xywh
    return np.array(cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), 0.0, threshold), int)


def _detr(logits: str, boxes: str, count: int) -> Format:
    if count not in DETR_VARIANTS:
        raise ValueError(
            f"the model has {count} logits for each box: supported are COCO's 80, 91, or 92 with no object"
        )
    person, softmax, mean, std = DETR_VARIANTS[count]
    reader = partial(_read_detr, logits=logits, boxes=boxes, person=person, softmax=softmax)
    name = "DETR" if softmax else "DETR with sigmoid"
    if count == COCO_CLASSES:
        return Format(name, reader, "stretch", mean, std)
    return Format(name, reader, "stretch", mean, std, open_size=_detr_size)


def _detr_size(shape: Size) -> Size:
    """DETR's input size: the shorter side has 800 pixels, but the longer one at most 1333."""
    ratio = min(800 / min(shape), 1333 / max(shape))
    return max(1, round(shape[0] * ratio)), max(1, round(shape[1] * ratio))


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def _corners(centers: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Corners (N, 4) of boxes with centers (N, 2) and sides (N, 2)."""
    return np.hstack([centers - sides / 2, centers + sides / 2])


def _read_mmdeploy(outputs: Outputs, _: Size) -> Boxes:
    """`dets` (1, N, 5): corners and score. `labels` (1, N): 0 for a person."""
    persons = outputs["dets"][0][outputs["labels"][0] == 0]  # (N, 5)
    return persons[:, :4], persons[:, 4]


def _read_rtmdet(outputs: Outputs, size: Size, person: int) -> Boxes:
    """Logits (1, C, h, w), and distances (1, 4, h, w) of the left, upper, right and lower side in pixels.

    The distances start at the cell's upper left corner. The order of the outputs does not matter.
    """
    corners, scores = [], []
    for logits in (output for output in outputs.values() if output.shape[1] != 4):
        (distances,) = (o[0] for o in outputs.values() if o.shape[1:] == (4, *logits.shape[2:]))  # (4, h, w)
        y, x = np.mgrid[: logits.shape[2], : logits.shape[3]] * (size[0] / logits.shape[2])  # (h, w)
        left, top, right, bottom = distances
        corners.append(np.stack([x - left, y - top, x + right, y + bottom], -1).reshape(-1, 4))
        scores.append(_sigmoid(logits[0, person]).ravel())
    return np.concatenate(corners), np.concatenate(scores)  # (N, 4), (N,)


def _read_yolox(outputs: Outputs, size: Size, person: int) -> Boxes:
    """(1, N, 5 + C): offset from the cell and logarithm of the sides, in strides; objectness; classes."""
    (rows,) = (output[0] for output in outputs.values())  # (N, 5 + C)
    grids = [np.mgrid[: size[0] // stride, : size[1] // stride] for stride in STRIDES]
    cells = np.concatenate([grid[::-1].reshape(2, -1).T for grid in grids])  # (N, 2) x, y
    strides = np.repeat(STRIDES, [grid[0].size for grid in grids])[:, None]  # (N, 1)
    corners = _corners((rows[:, :2] + cells) * strides, np.exp(rows[:, 2:4]) * strides)
    return corners, rows[:, 4] * rows[:, 5 + person]


def _read_ultralytics(outputs: Outputs, _: Size, person: int, scale: tuple[int, ...]) -> Boxes:
    """(1, 4 + C, N): center, sides, classes. scale: (4,), 1 if they are in pixels."""
    (columns,) = (output[0] for output in outputs.values())  # (4 + C, N)
    boxes = columns[:4].T * scale  # (N, 4)
    return _corners(boxes[:, :2], boxes[:, 2:]), columns[4 + person]


def _read_end_to_end(outputs: Outputs, _: Size, person: int, scale: tuple[int, ...]) -> Boxes:
    """(1, N, 6): corners, score, class; NMS is in the model."""
    (rows,) = (output[0] for output in outputs.values())  # (N, 6)
    persons = rows[rows[:, 5].round() == person]
    return persons[:, :4] * scale, persons[:, 4]


def _read_detr(outputs: Outputs, size: Size, logits: str, boxes: str, person: int, softmax: bool) -> Boxes:
    """Logits (1, N, C), and boxes (1, N, 4): center and sides as fractions of the input."""
    values, pixels = outputs[logits][0], outputs[boxes][0] * (size[::-1] * 2)  # (N, C), (N, 4)
    if softmax:
        exponentials = np.exp(values - values.max(1, keepdims=True))
        scores = exponentials[:, person] / exponentials.sum(1)
    else:
        scores = _sigmoid(values[:, person])
    return _corners(pixels[:, :2], pixels[:, 2:]), scores


def _read_ssd(outputs: Outputs, size: Size) -> Boxes:
    """Boxes (1, N, 4) as y1, x1, y2, x2 in fractions of the input; classes (1, N), 1 for a person."""
    persons = outputs["detection_classes"][0].round() == 1  # (N,)
    boxes = outputs["detection_boxes"][0][persons][:, [1, 0, 3, 2]] * (size[::-1] * 2)  # (N, 4)
    return boxes, outputs["detection_scores"][0][persons]
