"""ONNX detectors with known boxes, as each format encodes them."""

import math
from pathlib import Path

import numpy as np

SIZE = (64, 96)  # height and width of the input
PERSON, DUPLICATE, LOW = (8, 4, 40, 60, 0.9), (9, 5, 41, 61, 0.8), (50, 8, 70, 40, 0.1)  # corners and score


def save_model(path: Path, outputs: dict[str, np.ndarray], open_shapes=False, last=False, **metadata) -> Path:
    """Write a model that returns fixed outputs. last: the channels of its input come last, in uint8."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    dtype, shape = TensorProto.FLOAT, [1, 3, *SIZE]
    if last:
        dtype, shape = TensorProto.UINT8, [1, *SIZE, 3]
    inputs = [helper.make_tensor_value_info("images", dtype, shape)]
    values = {name: numpy_helper.from_array(value) for name, value in outputs.items()}
    nodes = [helper.make_node("Constant", [], [name], value=value) for name, value in values.items()]
    infos = [
        helper.make_tensor_value_info(
            name,
            value.data_type,
            [f"{name}{i}" for i in range(len(value.dims))] if open_shapes else value.dims,
        )
        for name, value in values.items()
    ]
    graph = helper.make_graph(nodes, "detector", inputs, infos)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def mmdeploy(boxes=(PERSON, LOW)) -> dict[str, np.ndarray]:
    rows = np.array([[*boxes, (50, 20, 90, 60, 0.8)]], np.float32)  # the last one is a dog
    return {"dets": rows, "labels": np.array([[0] * len(boxes) + [16]])}


def rtmdet() -> dict[str, np.ndarray]:
    """Each box comes from another cell; the other cells have a score near 0."""
    outputs = {}
    for kind, channels in (("0", 1), ("1", 4)):
        for stride in (8, 16, 32):
            outputs[f"head.{kind}.{stride}"] = np.full(
                (1, channels, 64 // stride, 96 // stride), -9, np.float32
            )
    for (x1, y1, x2, y2, score), (stride, y, x) in zip(
        (PERSON, DUPLICATE, LOW), ((8, 2, 3), (16, 1, 1), (32, 0, 2)), strict=True
    ):
        left, top = x * stride - x1, y * stride - y1
        outputs[f"head.1.{stride}"][0, :, y, x] = left, top, x2 - x * stride, y2 - y * stride
        outputs[f"head.0.{stride}"][0, 0, y, x] = math.log(score / (1 - score))
    return outputs


def yolox() -> dict[str, np.ndarray]:
    rows = np.zeros((1, 96 + 24 + 6, 85), np.float32)
    for row, (x1, y1, x2, y2, score) in zip((0, 1, 95), (PERSON, DUPLICATE, LOW), strict=True):
        x, y = row % 12, row // 12  # in the grid of stride 8
        sides = math.log((x2 - x1) / 8), math.log((y2 - y1) / 8)
        rows[0, row, :6] = (x1 + x2) / 16 - x, (y1 + y2) / 16 - y, *sides, 0.95, score / 0.95
    return {"output": rows}


def ultralytics() -> dict[str, np.ndarray]:
    columns = np.zeros((1, 6, 126), np.float32)
    for column, (x1, y1, x2, y2, score) in zip((0, 50, 125), (PERSON, DUPLICATE, LOW), strict=True):
        columns[0, :, column] = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.99, score  # a car, a person
    return {"output0": columns}


def end_to_end() -> dict[str, np.ndarray]:
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, :3] = [*PERSON, 1], [*LOW, 1], [50, 20, 90, 60, 0.8, 0]  # the last one is a car
    return {"output0": rows}


def detr(count: int) -> dict[str, np.ndarray]:
    logits, boxes = np.full((1, 9, count), -20, np.float32), np.zeros((1, 9, 4), np.float32)
    for row, (x1, y1, x2, y2, score) in enumerate((PERSON, LOW)):
        boxes[0, row] = (x1 + x2) / 2 / 96, (y1 + y2) / 2 / 64, (x2 - x1) / 96, (y2 - y1) / 64
        logits[0, row, 0 if count == 80 else 1] = math.log(score / (1 - score))
        if count == 92:
            logits[0, row, -1] = 0.0  # no object
    return {"logits": logits, "pred_boxes": boxes}


def ssd() -> dict[str, np.ndarray]:
    boxes = [[y1 / 64, x1 / 96, y2 / 64, x2 / 96] for x1, y1, x2, y2, _ in (PERSON, LOW, DUPLICATE)]
    return {
        "detection_boxes": np.array([boxes], np.float32),
        "detection_classes": np.array([[1, 1, 18]], np.float32),
        "detection_scores": np.array([[0.9, 0.1, 0.8]], np.float32),
    }
