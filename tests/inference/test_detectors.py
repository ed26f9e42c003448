"""Detectors of all formats in both runtimes: known boxes, real photographs, and errors in one line."""

import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import detector_helpers as made
import numpy as np
import pytest

from posebook.datasets import read_image
from posebook.inference import detectors
from posebook.inference.detectors import Detector

pytest.importorskip("onnx")
RUNTIMES = ["onnxruntime", "openvino"]
NAMES = {"names": "{0: 'car', 1: 'person'}", "task": "detect"}
MODELS = {
    "RTMDet of mmdeploy": (made.mmdeploy(), {}),
    "YOLOX of mmdeploy": (made.mmdeploy(), {}),
    "raw RTMDet heads": (made.rtmdet(), {}),
    "raw YOLOX": (made.yolox(), {}),
    "Ultralytics YOLO": (made.ultralytics(), NAMES),
    "Ultralytics YOLO, end to end": (made.end_to_end(), NAMES),
    "DETR": (made.detr(92), {}),
    "DETR with sigmoid": (made.detr(91), {}),
    "TensorFlow SSD": (made.ssd(), {"last": True}),
}


@pytest.mark.parametrize("open_shapes", [False, True])
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", MODELS)
def test_known_boxes_are_found(name, runtime, open_shapes, tmp_path):
    """The image is 128 x 160. It is halved to 64 x 80 in the input of 64 x 96, or stretched to the input."""
    pytest.importorskip(runtime)
    outputs, options = MODELS[name]
    file = tmp_path / ("yolox_tiny.onnx" if name.startswith("YOLOX") else "made.onnx")
    detector = Detector(made.save_model(file, outputs, open_shapes, **options), runtime=runtime)
    assert detector.format.name == name and detector.size == made.SIZE and detector.runtime == runtime
    boxes, scores = detector(np.zeros((128, 160, 3), np.uint8))
    x1, y1, x2, y2, score = made.PERSON
    expected = {
        "corner": [2 * x1, 2 * y1, 2 * (x2 - x1), 2 * (y2 - y1)],
        "center": [2 * (x1 - 8), 2 * y1, 2 * (x2 - x1), 2 * (y2 - y1)],
        "stretch": [x1 * 160 / 96, 2 * y1, (x2 - x1) * 160 / 96, 2 * (y2 - y1)],
    }[detector.format.resize]
    assert boxes == pytest.approx(np.array([expected]), abs=1e-3) and scores == pytest.approx(
        [score], abs=1e-5
    )


def test_boxes_are_clipped_to_the_image_and_sorted(tmp_path):
    boxes = (
        (-5, -5, 20, 20, 0.5),
        (60, 40, 99, 70, 0.7),
        (90, 0, 96, 64, 0.9),
    )  # the last one in the padding
    detector = Detector(made.save_model(tmp_path / "made.onnx", made.mmdeploy(boxes)))
    found, scores = detector(np.zeros((64, 80, 3), np.uint8))
    assert found.tolist() == [[60, 40, 20, 24], [0, 0, 20, 20]] and scores == pytest.approx([0.7, 0.5])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_pixels_reach_the_model_as_it_needs_them(runtime, tmp_path):
    """The model returns the mean of its red pixels' channels as the score of a box."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("ReduceMean", ["images"], ["channels"], axes=[0, 2, 3], keepdims=0),
        helper.make_node("Concat", ["corners", "first"], ["row"], axis=0),
        helper.make_node("Gather", ["channels", "last"], ["first"]),
        helper.make_node("Reshape", ["row", "shape"], ["output0"]),
    ]
    nodes = [nodes[0], nodes[2], nodes[1], nodes[3]]
    arrays = {
        "corners": np.array([8, 4, 40, 60], np.float32),
        "last": np.array([0, 1]),
        "shape": np.array([1, 1, 6]),
    }
    infos = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, *made.SIZE]),
        helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 1, 6]),
    ]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "mean", infos[:1], infos[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "mean.onnx")
    pytest.importorskip(runtime)
    detector = Detector(tmp_path / "mean.onnx", runtime=runtime)
    red = np.zeros((64, 96, 3), np.uint8)
    red[..., 0] = 204
    boxes, scores = detector(red)  # red is the score, green the class
    assert boxes.tolist() == [[8, 4, 32, 56]] and scores == pytest.approx([0.8], abs=1e-4)
    red[..., 1] = 255  # class 1
    assert len(detector(red)[0]) == 0


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_people_of_real_photographs_are_found(runtime, test_data):
    """Each large and complete annotated person has a box with an IoU above 0.5, in nine of ten cases."""
    pytest.importorskip(runtime)
    detector = Detector(test_data / "peers" / "rtmdet_nano_person.onnx", runtime=runtime)
    assert detector.format.name == "raw RTMDet heads" and detector.size == (640, 640)
    root = test_data / "coco_cut"
    content = json.loads((root / "annotations" / "person_keypoints_val2017.json").read_text())
    files = {image["id"]: root / "val2017" / image["file_name"] for image in content["images"][:24]}
    found = {image_id: detector(read_image(file)) for image_id, file in files.items()}
    overlaps = []
    for person in content["annotations"]:
        if person["image_id"] in files and person["num_keypoints"] > 10 and person["area"] > 96**2:
            boxes, scores = found[person["image_id"]]
            assert (scores > 0.3).all() and (np.diff(scores) <= 0).all()
            overlaps.append(max((overlap(person["bbox"], box) for box in boxes), default=0))
    assert len(overlaps) > 10 and np.mean(np.array(overlaps) > 0.5) >= 0.9


def overlap(a, b) -> float:
    """IoU of two boxes x, y, w, h."""
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def test_threads_share_a_detector(test_data):
    detector = Detector(test_data / "peers" / "rtmdet_nano_person.onnx")
    files = sorted((test_data / "coco_cut" / "val2017").glob("*.jpg"))[:4]
    images = [read_image(file) for file in files]
    alone = [detector(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for (boxes, scores), (same_boxes, same_scores) in zip(pool.map(detector, images), alone, strict=True):
            assert (boxes == same_boxes).all() and (scores == same_scores).all()


def test_openvino_reads_ir_with_the_labels_of_ultralytics(tmp_path):
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().read_model(made.save_model(tmp_path / "made.onnx", made.ultralytics()))
    model.set_rt_info(["traffic_light", "person"], ["model_info", "labels"])
    openvino.save_model(model, tmp_path / "made.xml", compress_to_fp16=False)
    detector = Detector(tmp_path / "made.xml")
    assert detector.runtime == "openvino" and detector(np.zeros((64, 96, 3), np.uint8))[1] == pytest.approx(
        [0.9]
    )
    model.set_rt_info(["traffic_light", "dog"], ["model_info", "labels"])
    openvino.save_model(model, tmp_path / "dogs.xml", compress_to_fp16=False)
    with pytest.raises(ValueError, match="dogs.xml: the model has no class person: it detects 2 classes"):
        Detector(tmp_path / "dogs.xml")
    with pytest.raises(ValueError, match="made.xml needs OpenVINO: ONNX Runtime reads .onnx files only"):
        Detector(tmp_path / "made.xml", runtime="onnxruntime")


def test_default_runtime(tmp_path, monkeypatch):
    path = made.save_model(tmp_path / "made.onnx", made.mmdeploy())
    pytest.importorskip("openvino")
    assert Detector(path).runtime == "openvino"
    real = detectors.importlib.util.find_spec
    monkeypatch.setattr(detectors.importlib.util, "find_spec", lambda n: None if n == "openvino" else real(n))
    assert Detector(path).runtime == "onnxruntime"
    monkeypatch.setattr(detectors.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match="needs openvino or onnxruntime: pip install onnxruntime"):
        Detector(path)
    with pytest.raises(ValueError, match="unknown runtime 'onnx': use openvino or onnxruntime"):
        Detector(path, runtime="onnx")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_files_that_are_not_a_person_detector(runtime, tmp_path):
    pytest.importorskip(runtime)

    def message(path: Path) -> str:
        with pytest.raises(ValueError) as error:
            Detector(path, runtime=runtime)
        return str(error.value)

    (tmp_path / "text.onnx").write_text("hello")
    assert f"{runtime} cannot load {tmp_path}/text.onnx: " in message(tmp_path / "text.onnx")
    other = made.save_model(tmp_path / "other.onnx", {"a": np.zeros((1, 7), np.float32)}, open_shapes=True)
    text = message(other)
    assert text.startswith(f"{other}: its outputs, a (1, 7), are of no supported format: RTMDet or YOLOX of")
    assert "\n" not in text
    pose = made.save_model(tmp_path / "pose.onnx", made.ultralytics(), task="pose")
    assert message(pose) == f"{pose}: the model is for the task pose, not for detection"
    bytes_ = made.save_model(tmp_path / "bytes.onnx", made.mmdeploy(), last=True)
    assert "its input is not float, but RTMDet of mmdeploy needs normalized pixels" in message(bytes_)


def test_a_published_pose_model_is_rejected(test_data):
    pytest.importorskip("openvino")
    with pytest.raises(
        ValueError, match=r"int8.tflite: its outputs, .* \(1, 1, 17, 3\), are of no supported"
    ):
        Detector(test_data / "peers" / "movenet_lightning_int8.tflite")


def test_inputs_that_are_not_an_image():
    shapes = {"mask": (1, 64, 64), "images": (None, None, None, None)}
    assert detectors._find_image(shapes) == ("images", False)
    assert detectors._find_image({"images": (1, 320, 320, 3)}) == ("images", True)
    with pytest.raises(ValueError, match=r"no input is an RGB image: x \(1, 1, 64, 64\), y \(1, 3\)"):
        detectors._find_image({"x": (1, 1, 64, 64), "y": (1, 3)})


def fake_session(monkeypatch, tmp_path, run) -> Path:
    """DETR as optimum exports it: open sizes, and a mask of the pixels. Returns the path of its file."""
    dtypes = {"pixel_values": np.dtype("float32"), "pixel_mask": np.dtype("int64")}
    inputs = {"pixel_values": (None,) * 4, "pixel_mask": (None, 64, 64)}
    outputs = {"logits": (None, 9, 92), "pred_boxes": (None, 9, 4)}
    session = detectors.Session(inputs, outputs, dtypes, {}, run)
    monkeypatch.setattr(detectors, "open_session", lambda *_: session)
    (tmp_path / "detr.onnx").touch()
    return tmp_path / "detr.onnx"


def test_detr_with_open_size_and_mask(tmp_path, monkeypatch):
    fed = []
    path = fake_session(monkeypatch, tmp_path, lambda feed: fed.append(feed) or made.detr(92))
    boxes, _ = Detector(path)(np.zeros((600, 300, 3), np.uint8))
    assert fed[-1]["pixel_values"].shape == (1, 3, 1333, 666) and fed[-1]["pixel_values"].dtype == np.float32
    assert fed[-1]["pixel_mask"].dtype == np.int64 and (fed[-1]["pixel_mask"] == np.ones((1, 64, 64))).all()
    x1, y1, x2, y2, _ = made.PERSON
    expected = [x1 * 300 / 96, y1 * 600 / 64, (x2 - x1) * 300 / 96, (y2 - y1) * 600 / 64]
    assert boxes == pytest.approx(np.array([expected]), abs=0.01)


def test_model_that_cannot_be_run(tmp_path, monkeypatch):
    def run(_):
        raise RuntimeError("no such operator")

    path = fake_session(monkeypatch, tmp_path, run)
    with pytest.raises(ValueError, match="detr.onnx: onnxruntime cannot run it: no such operator"):
        Detector(path, runtime="onnxruntime")


def test_metadata_of_a_file(tmp_path):
    class Model:
        def has_rt_info(self, _):
            return False

    for name, text in (
        ("metadata.json", '{"names": {"0": "person"}}'),
        ("meta.txt", "{'names': {0: 'person'}}"),
    ):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(b"flatbuffer")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, text)
        metadata = detectors._openvino_metadata(path, Model())
        assert metadata["tflite"] and list(metadata["names"].values()) == ["person"]
    (tmp_path / "plain.tflite").write_bytes(b"flatbuffer")
    assert detectors._openvino_metadata(tmp_path / "plain.tflite", Model()) == {
        "yolox": False,
        "tflite": True,
    }
    (tmp_path / "end2end.onnx").write_bytes(b"...bbox_head.multi_level_conv_cls.0.weight...")
    assert detectors._is_yolox(tmp_path / "end2end.onnx")
