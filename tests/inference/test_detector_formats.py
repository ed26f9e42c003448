"""Formats of detectors: each reader against plain loops, NMS, the model's input, and recognition."""

import math

import numpy as np
import pytest

from posebook.inference import detector_formats as formats

SIZE = (64, 96)  # height and width of the model's input
CELLS = [(stride, y, x) for stride in (8, 16, 32) for y in range(64 // stride) for x in range(96 // stride)]


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def read(shapes: dict, metadata: dict | None = None, size=SIZE, outputs: dict | None = None, **options):
    """Random outputs of these shapes, and what their format reads from them."""
    outputs = outputs or {name: draw(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    model_format = formats.recognize(size, shapes, metadata or {}, **options)
    corners, scores = model_format.read(outputs, size)
    assert corners.shape == (len(scores), 4)
    return model_format, outputs, corners, scores


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def around(cx: float, cy: float, w: float, h: float) -> list[float]:
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]


@pytest.mark.parametrize("classes", [1, 80])
@pytest.mark.parametrize("reverse", [False, True])
def test_raw_rtmdet_heads(classes, reverse):
    shapes = {}
    for channels in (classes, 4):
        for stride in (8, 16, 32):
            shapes[f"{channels}-{stride}"] = (1, channels, 64 // stride, 96 // stride)
    if reverse:
        shapes = dict(reversed(shapes.items()))
    _, outputs, corners, scores = read(shapes)
    expected = {}
    for stride, y, x in CELLS:
        left, top, right, bottom = (outputs[f"4-{stride}"][0, side, y, x] for side in range(4))
        score = sigmoid(outputs[f"{classes}-{stride}"][0, 0, y, x])
        expected[score] = [x * stride - left, y * stride - top, x * stride + right, y * stride + bottom]
    assert len(scores) == len(expected) == len(CELLS)
    for corner, score in zip(corners, scores, strict=True):
        (nearest,) = [value for key, value in expected.items() if abs(key - score) < 1e-9]
        assert corner == pytest.approx(nearest, abs=1e-4)


@pytest.mark.parametrize("classes", [1, 80])
def test_raw_yolox(classes):
    model_format, outputs, corners, scores = read({"output": (1, len(CELLS), 5 + classes)})
    assert model_format.name == "raw YOLOX"
    for i, (stride, y, x) in enumerate(CELLS):
        dx, dy, log_w, log_h, objectness, person = (float(v) for v in outputs["output"][0, i, :6])
        sides = math.exp(log_w) * stride, math.exp(log_h) * stride
        assert corners[i] == pytest.approx(around((x + dx) * stride, (y + dy) * stride, *sides), rel=1e-4)
        assert scores[i] == pytest.approx(objectness * person, rel=1e-5)


@pytest.mark.parametrize("tflite", [False, True])
@pytest.mark.parametrize("names, person", [(None, 0), ("{0: 'dog', 1: 'Person', 2: 'cat'}", 1)])
def test_ultralytics(names, person, tflite):
    classes = 3 if names else 80
    metadata = {"names": names, "task": "detect", "tflite": tflite}
    shapes = {"output0": (1, 4 + classes, len(CELLS))}
    model_format, outputs, corners, scores = read(shapes, metadata, channels_last=tflite)
    assert model_format.nms == 0.7 and model_format.resize == "center"
    for i, column in enumerate(outputs["output0"][0].T):
        cx, cy, w, h = column[:4] * ((96, 64, 96, 64) if tflite else 1)
        assert corners[i] == pytest.approx(around(cx, cy, w, h), rel=1e-4, abs=1e-4)
        assert scores[i] == column[4 + person]


@pytest.mark.parametrize("tflite, channels_last", [(False, False), (True, False), (True, True)])
def test_ultralytics_end_to_end(tflite, channels_last):
    rows = draw(1, 30, 6)
    rows[..., 5] = np.arange(30) % 3
    shapes, metadata = {"output0": rows.shape}, {"names": {"0": "dog", "1": "car", "2": "person"}}
    metadata["tflite"] = tflite
    options = {"outputs": {"output0": rows}, "channels_last": channels_last}
    model_format, _, corners, scores = read(shapes, metadata, **options)
    expected = [row for row in rows[0] if row[5] == 2]
    assert len(scores) == len(expected) == 10 and model_format.nms is None
    for corner, score, row in zip(corners, scores, expected, strict=True):
        assert corner == pytest.approx(row[:4] * ((96, 64, 96, 64) if channels_last else 1), rel=1e-6)
        assert score == row[4]


def test_names_of_classes_in_other_forms():
    shapes = {"output0": (1, 7, len(CELLS))}
    (listed, *_) = read(shapes, {"names": "['dog', 'person', 'cat']"})
    assert listed.name == "Ultralytics YOLO"
    with pytest.raises(ValueError, match="names of classes that cannot be read: dog, person"):
        read(shapes, {"names": "dog, person"})


def test_one_class_of_yolov5_is_refused():
    """It has as many columns as boxes of the end-to-end format."""
    with pytest.raises(ValueError, match="are of no supported format"):
        read({"output0": (1, 3 * len(CELLS), 6)}, {"names": "{0: 'person'}"})


@pytest.mark.parametrize("logits, boxes", [("logits", "pred_boxes"), ("labels", "dets")])
@pytest.mark.parametrize("count", [80, 91, 92])
def test_detr(count, logits, boxes):
    shapes = {logits: (1, 20, count), boxes: (1, 20, 4)}
    _, outputs, corners, scores = read(shapes)
    for i in range(20):
        values = [float(value) for value in outputs[logits][0, i]]
        if count == 92:  # the last one is "no object"
            expected = math.exp(values[1]) / sum(math.exp(value) for value in values)
        else:
            expected = sigmoid(values[0 if count == 80 else 1])
        assert scores[i] == pytest.approx(expected, rel=1e-5)
        cx, cy, w, h = outputs[boxes][0, i]
        assert corners[i] == pytest.approx(around(cx * 96, cy * 64, w * 96, h * 64), rel=1e-4, abs=1e-4)


def test_mmdeploy_and_ssd_return_their_persons():
    labels = np.array([[0, 3, 0, 1]])
    outputs = {"dets": draw(1, 4, 5), "labels": labels}
    shapes = {name: output.shape for name, output in outputs.items()}
    _, _, corners, scores = read(shapes, outputs=outputs)
    assert (corners == outputs["dets"][0, [0, 2], :4]).all() and (
        scores == outputs["dets"][0, [0, 2], 4]
    ).all()
    outputs = {
        "detection_boxes": draw(1, 4, 4),
        "detection_classes": labels.astype(np.float32),
        "detection_scores": draw(1, 4, seed=1),
        "num_detections": np.array([4.0]),
    }
    _, _, corners, scores = read({name: o.shape for name, o in outputs.items()}, outputs=outputs)
    y1, x1, y2, x2 = outputs["detection_boxes"][0, 3]
    assert corners == pytest.approx(np.array([[96 * x1, 64 * y1, 96 * x2, 64 * y2]]))
    assert scores == outputs["detection_scores"][0, 3:]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@pytest.mark.parametrize("threshold", [0.3, 0.65])
def test_nms_is_that_of_plain_loops(threshold):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 50, (60, 4))
    corners[:, 2:] = corners[:, :2] + rng.uniform(10, 60, (60, 2))
    scores = rng.random(60)
    expected: list[int] = []
    for index in sorted(range(60), key=lambda i: -scores[i]):
        if all(iou(corners[index], corners[other]) <= threshold for other in expected):
            expected.append(index)
    assert formats.suppress(corners, scores, threshold).tolist() == expected and 3 < len(expected) < 60
    assert formats.suppress(np.zeros((0, 4)), np.zeros(0), threshold).tolist() == []


@pytest.mark.parametrize("resize", ["corner", "center", "stretch"])
@pytest.mark.parametrize("shape", [(120, 80), (31, 200)])
def test_points_of_the_image_are_found_in_the_input(shape, resize):
    image = np.zeros((*shape, 3), np.uint8)
    y, x = shape[0] // 3, shape[1] // 4
    image[y : y + 12, x : x + 12] = 255
    model_format = formats.Format("made", formats._read_ssd, resize)
    pixels, scale, offset = formats.prepare(image, SIZE, model_format)
    assert pixels.shape == (*SIZE, 3) and pixels.dtype == np.float32
    rows, columns = np.nonzero(pixels[..., 0] > 200)
    middle = np.array([columns.mean(), rows.mean()]) + 0.5
    assert middle == pytest.approx(np.array([x + 6, y + 6]) * scale + offset, abs=0.7)
    padded = (pixels == 114).all(-1)
    if resize == "stretch":
        assert not padded.any()
    else:
        filled = np.nonzero(~padded.all(0))[0], np.nonzero(~padded.all(1))[0]
        for cells, side, start in zip(filled, SIZE[::-1], offset, strict=True):
            end = side - 1 - cells[-1]
            assert cells[0] == start and (end >= start if resize == "corner" else abs(end - start) <= 1)
        assert scale[0] == pytest.approx(scale[1], rel=0.05)


def test_channels_are_ordered_and_normalized():
    image = np.full((64, 96, 3), (10, 20, 30), np.uint8)
    cases = {
        "RTMDet of mmdeploy": [(v - m) / s for v, m, s in zip((30, 20, 10), *formats.RTMDET, strict=True)],
        "YOLOX of mmdeploy": [30, 20, 10],
    }
    for name, expected in cases.items():
        shapes = {"dets": (1, 9, 5), "labels": (1, 9)}
        model_format = formats.recognize(SIZE, shapes, {"yolox": name.startswith("YOLOX")})
        assert model_format.name == name
        assert formats.prepare(image, SIZE, model_format)[0][5, 5] == pytest.approx(expected, rel=1e-5)
    yolo = formats.recognize(SIZE, {"output0": (1, 84, len(CELLS))}, {})
    assert formats.prepare(image, SIZE, yolo)[0][5, 5] == pytest.approx([10 / 255, 20 / 255, 30 / 255])
    detr = formats.recognize(SIZE, {"logits": (1, 9, 91), "pred_boxes": (1, 9, 4)}, {})
    expected = [(v - m) / s for v, m, s in zip((10, 20, 30), *formats.IMAGENET, strict=True)]
    assert formats.prepare(image, SIZE, detr)[0][5, 5] == pytest.approx(expected, rel=1e-5)
    assert detr.open_size((480, 640)) == (800, 1067) and detr.open_size((400, 1000)) == (533, 1333)


@pytest.mark.parametrize(
    "shapes, metadata, message",
    [
        (
            {"scores": (1, 5), "boxes": (1, 5, 4)},
            {},
            r"scores \(1, 5\), boxes \(1, 5, 4\), are of no supported",
        ),
        ({"output0": (1, 7, 11)}, {}, "supported format: RTMDet or YOLOX of mmdeploy; raw RTMDet heads; raw"),
        (
            {"output": (1, 3 * len(CELLS), 7)},
            {"names": "{0: 'person', 1: 'dog'}"},
            "supported format",
        ),  # YOLOv5
        ({"output0": (1, 56, len(CELLS))}, {"task": "pose"}, "for the task pose, not for detection"),
        ({"output0": (1, 24, len(CELLS))}, {}, "detects 20 classes without names: only COCO's 80 or 1"),
        ({"output": (1, len(CELLS), 25)}, {}, "detects 20 classes without names"),
        ({"a": (1, 6, len(CELLS))}, {"names": "{0: 'cat', 1: 'dog'}"}, "no class person: .* 2 .*as cat, dog"),
        ({"a": (1, 300, 6)}, {"names": {0: "face"}}, "no class person: it detects 1 classes, such as face"),
        (
            {"logits": (1, 9, 366), "pred_boxes": (1, 9, 4)},
            {},
            "366 logits for each box: supported are COCO's",
        ),
        (
            {f"{c}{s}": (1, c, 64 // s, 96 // s) for c in (4, 20) for s in (8, 16, 32)},
            {},
            "detects 20 classes without names",
        ),
    ],
)
def test_other_models_are_rejected(shapes, metadata, message):
    with pytest.raises(ValueError, match=message):
        formats.recognize(SIZE, shapes, metadata)
