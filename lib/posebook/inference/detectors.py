"""Person detection with a third-party model, run by OpenVINO or ONNX Runtime.

1. The file is of any format in `detector_formats.SUPPORTED`. The format is recognized from the shapes and
   names of the inputs and outputs and from the metadata in the file.
2. OpenVINO runs the model if it is installed, because it is faster on CPUs. ONNX Runtime reads .onnx files
   only.
3. If the file leaves shapes open, one gray image is run to find them.
"""

import ast
import contextlib
import importlib.util
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posebook.inference import detector_files, detector_formats, runtimes

OPEN_SIDE = 640  # pixels of a side that the file leaves open, when the format is found
ONNX_DTYPES = {"float": "float32", "double": "float64"}  # names that differ from NumPy's


@dataclass(frozen=True)
class Session:
    """A loaded model. A side that the file leaves open is None. `run` maps inputs to outputs by name."""

    inputs: Mapping[str, tuple[int | None, ...]]
    outputs: Mapping[str, tuple[int | None, ...]]
    dtypes: Mapping[str, np.dtype]  # of the inputs
    metadata: Mapping[str, Any]
    run: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


class Detector:
    """A person detector. Call it with an RGB uint8 image (H, W, 3), also from several threads.

    The call returns boxes (N, 4) as x, y, width, height in image pixels, clipped to the image, and scores
    (N,), from the highest score.
    """

    def __init__(self, path: str | Path, threshold: float = 0.3, runtime: str | None = None):
        """Load a model from a file, or by its name in data/detectors.csv.

        Boxes with a score of at most `threshold` are dropped. runtime: openvino or onnxruntime; default:
        openvino if it is installed. Raises FileNotFoundError if the file does not exist, ValueError if it is
        not a person detector of a supported format, ModuleNotFoundError without a runtime, and the errors of
        `detector_files.resolve`.
        """
        self.path, self.threshold = detector_files.resolve(path), threshold
        self.runtime = runtime or ("openvino" if importlib.util.find_spec("openvino") else "onnxruntime")
        self.session = open_session(self.path, self.runtime)
        try:
            self.image_input, self.channels_last = _find_image(self.session.inputs)
            shape = self.session.inputs[self.image_input]
            self.size = shape[1:3] if self.channels_last else shape[2:]  # (height, width); None: open
            known = self.size[0] or OPEN_SIDE, self.size[1] or OPEN_SIDE
            self.format = detector_formats.recognize(
                known, self._output_shapes(known), self.session.metadata, self.channels_last
            )
            if self.session.dtypes[self.image_input].kind != "f" and self.format.std != 1.0:
                raise ValueError(f"its input is not float, but {self.format.name} needs normalized pixels")
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    def _output_shapes(self, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """The shapes of the outputs, from a run if the file leaves some open."""
        outputs = self.session.outputs
        fixed = {name: tuple(side for side in shape if side is not None) for name, shape in outputs.items()}
        if fixed == outputs:
            return fixed
        gray = np.full((*size, 3), detector_formats.PAD_VALUE, np.float32)
        try:
            return {name: output.shape for name, output in self._run(gray).items()}
        except Exception as error:  # neither runtime exports its exception classes
            raise ValueError(f"{self.runtime} cannot run it: {error}") from error

    def _run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs for an input image (H, W, 3). Other inputs, such as DETR's mask, are ones."""
        size = pixels.shape[:2]
        batch = (pixels if self.channels_last else pixels.transpose(2, 0, 1))[None]
        feed = {}
        for name, shape in self.session.inputs.items():
            value = batch if name == self.image_input else np.ones(_fill(shape, size))
            feed[name] = np.ascontiguousarray(value, self.session.dtypes[name])
        return self.session.run(feed)

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = image.shape[:2]
        open_size = self.format.open_size((rows, columns))
        size = self.size[0] or open_size[0], self.size[1] or open_size[1]
        pixels, scale, offset = detector_formats.prepare(image, size, self.format)
        corners, scores = self.format.read(self._run(pixels), size)
        corners, scores = corners[scores > self.threshold], scores[scores > self.threshold]
        corners = (corners.reshape(-1, 2, 2) - offset) / scale  # (N, 2 corners, 2)
        corners = corners.clip(0, (columns, rows)).reshape(-1, 4)
        visible = (corners[:, 2:] > corners[:, :2]).all(1)
        corners, scores = corners[visible], scores[visible]
        order = np.argsort(-scores, kind="stable")
        if self.format.nms is not None:
            order = detector_formats.suppress(corners, scores, self.format.nms)
        return np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])[order], scores[order]  # (N, 4)


def _fill(shape: tuple[int | None, ...], size: tuple[int, int]) -> list[int]:
    """The shape of an input that is not the image: open sides are those of the image, or 1 for the batch."""
    defaults = (1, 1, *size)[-len(shape) :]
    return [side or default for side, default in zip(shape, defaults, strict=True)]


def _find_image(inputs: Mapping[str, tuple[int | None, ...]]) -> tuple[str, bool]:
    """The name of the image input, and whether its channels come last. Raises ValueError without one."""
    for name, shape in inputs.items():
        if len(shape) == 4 and (shape[1] in (3, None) or shape[3] == 3):
            return name, shape[3] == 3 and shape[1] != 3
    listed = ", ".join(f"{name} {shape}" for name, shape in inputs.items())
    raise ValueError(f"no input is an RGB image: {listed}")


def open_session(path: Path, runtime: str) -> Session:
    """Load a model. Raises ValueError if the runtime cannot load it or if the runtime is unknown."""
    openers = {"openvino": _open_openvino, "onnxruntime": _open_onnxruntime}
    if runtime not in openers:
        raise ValueError(f"unknown runtime {runtime!r}: use {' or '.join(openers)}")
    if importlib.util.find_spec(runtime) is None:
        raise ModuleNotFoundError(f"a detector needs openvino or onnxruntime: pip install {runtime}")
    if runtime == "onnxruntime" and path.suffix.lower() != ".onnx":
        raise ValueError(f"{path} needs OpenVINO: ONNX Runtime reads .onnx files only; pip install openvino")
    try:
        return openers[runtime](path)
    except Exception as error:  # neither runtime exports its exception classes
        raise ValueError(f"{runtime} cannot load {path}: {error}") from error


def _open_onnxruntime(path: Path) -> Session:
    import onnxruntime

    options = runtimes.onnxruntime_options()  # the cores are free for the pose network
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def shapes(nodes: list) -> dict[str, tuple[int | None, ...]]:
        return {n.name: tuple(side if isinstance(side, int) else None for side in n.shape) for n in nodes}

    outputs = shapes(session.get_outputs())
    return Session(
        shapes(session.get_inputs()),
        outputs,
        {node.name: _onnx_dtype(node.type) for node in session.get_inputs()},
        {"yolox": _is_yolox(path), **session.get_modelmeta().custom_metadata_map},
        lambda feed: dict(zip(outputs, session.run(list(outputs), feed), strict=True)),
    )


def _onnx_dtype(text: str) -> np.dtype:
    """The type of 'tensor(float)' and the like."""
    name = text.removeprefix("tensor(").removesuffix(")")
    return np.dtype(ONNX_DTYPES.get(name, name))


def _open_openvino(path: Path) -> Session:
    core = runtimes.openvino_core()
    model = core.read_model(str(path))
    # Some CPUs would compute in bfloat16, whose error is 2 for a coordinate above 512.
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", config)

    def shape(port: Any) -> tuple[int | None, ...]:
        return tuple(side.get_length() if side.is_static else None for side in port.partial_shape)

    def run(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = compiled.infer_new_request(feed)  # a request of its own: threads do not share one
        return {name: results[index] for index, name in enumerate(outputs)}

    outputs = {_port_name(port): shape(port) for port in compiled.outputs}
    inputs = {_port_name(port): shape(port) for port in compiled.inputs}
    dtypes = {_port_name(port): np.dtype(port.element_type.to_dtype()) for port in compiled.inputs}
    return Session(inputs, outputs, dtypes, _openvino_metadata(path, model), run)


def _port_name(port: Any) -> str:
    """OpenVINO may know several names of a tensor: the one that formats use, if any, or the first one."""
    names = port.get_names() or {f"tensor {port.get_index()}"}
    return min(names, key=lambda name: (name not in detector_formats.OUTPUT_NAMES, name))


def _openvino_metadata(path: Path, model: Any) -> dict[str, Any]:
    """The metadata of an .onnx, .xml or .tflite file, where Ultralytics writes the names of classes."""
    metadata: dict[str, Any] = {"yolox": _is_yolox(path), "tflite": path.suffix.lower() == ".tflite"}
    if metadata["tflite"] and zipfile.is_zipfile(path):  # appended to the file
        with zipfile.ZipFile(path) as archive, contextlib.suppress(ValueError, SyntaxError, TypeError):
            name = archive.namelist()[0]
            text = archive.read(name).decode()
            metadata |= json.loads(text) if name.endswith(".json") else ast.literal_eval(text)
    if model.has_rt_info(["model_info", "labels"]):
        labels = model.get_rt_info(["model_info", "labels"]).astype(str).split()
        metadata["names"] = dict(enumerate(labels))
    for key in ("names", "task"):
        if model.has_rt_info(["framework", key]):
            metadata[key] = model.get_rt_info(["framework", key]).astype(str)
    return metadata


def _is_yolox(path: Path) -> bool:
    """Whether a file of mmdeploy contains YOLOX, by the names of its layers in mmdet, or of file and folder.

    The outputs do not tell, but YOLOX takes pixels that are not normalized.
    """
    return (
        "yolox" in f"{path.parent.name}/{path.name}".lower() or b"multi_level_conv_cls" in path.read_bytes()
    )
