"""Prediction on pictures: the joints an evaluation gives, broken pictures left out, boxes from elsewhere."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from posebook import datasets, models, skeletons
from posebook.datasets import detector_boxes
from posebook.evaluation import predictions
from posebook.inference import detectors, predict

WORDS = [sys.executable, "-m", "posebook", "predict"]


@pytest.fixture(scope="module")
def net():
    return models.load_weights(predict.DEFAULT_WEIGHTS)


@pytest.fixture
def pictures(tmp_path):
    """Six pictures of noise of two sizes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(1, 7):
        picture = np.random.default_rng(i).integers(0, 256, (60 + 20 * (i % 2), 80, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), picture)
    return folder


def test_the_joints_are_those_of_an_evaluation(net, test_data, tmp_path):
    """Real pictures and a real detector's boxes, through both ways."""
    folder = test_data / "samples" / "coco"
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").symlink_to(folder)
    (root / "annotations" / "person_keypoints_val2017.json").write_text(
        (folder / "test_coco.json").read_text()
    )
    file = folder / "test_coco_det_AP_H_56.json"
    people = detector_boxes.load_boxes(datasets.load("coco", root), file, 0.5)
    found = predictions.predict(net, people)
    paths = predict.list_images([folder])
    assert len(paths) == 4
    entries, failed = predict.predict_images(
        net, paths, tmp_path / "out", predict.file_boxes(file, paths, 0.5), batch=3
    )
    assert not failed and len(entries) == len(people.instances) > 8
    for person, points in zip(people.instances, found.keypoints, strict=True):
        (entry,) = [
            e
            for e in entries
            if e["image_id"] == person.image_id and np.allclose(e["bbox"], person.bbox, atol=0.01)
        ]
        assert np.array(entry["keypoints"]).reshape(-1, 3)[:, :2] == pytest.approx(points, abs=0.02)
    assert json.loads((tmp_path / "out" / "predictions.json").read_text()) == entries
    for path in paths:
        drawn = cv2.imread(str(tmp_path / "out" / "overlays" / f"{path.stem}.jpg"))
        assert drawn.shape == cv2.imread(str(path)).shape


def test_a_broken_picture_is_named_and_left_out(pictures, tmp_path):
    (pictures / "7.jpg").write_text("not a picture")
    (pictures / "notes.txt").write_text("not even called one")
    done = subprocess.run(
        [*WORDS, str(pictures), "--out-dir", str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "6 people on 6 images" in done.stdout
    assert "7.jpg cannot be decoded" in done.stderr
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [entry["file_name"] for entry in entries] == [f"{i}.png" for i in range(1, 7)]
    assert all(len(entry["keypoints"]) == 51 for entry in entries)


def test_no_picture_at_all(tmp_path):
    with pytest.raises(ValueError, match="no picture in .*: wanted are .jpg"):
        predict.list_images([tmp_path])


def test_pictures_of_one_name_are_refused_and_of_one_stem_drawn_apart(pictures, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "3.png").write_bytes((pictures / "3.png").read_bytes())
    with pytest.raises(ValueError, match="several pictures are called 3.png"):
        predict.list_images([pictures, tmp_path / "more"])
    assert predict.overlay_path("out", pictures / "3.png") != predict.overlay_path("out", pictures / "3.jpg")


def test_boxes_are_found_by_file_name_or_number(pictures, net, tmp_path):
    boxes = [
        {"file_name": "2.png", "bbox": [1, 2, 30, 40], "score": 0.9},
        {"image_id": 3, "bbox": [1, 2, 30, 40], "score": 0.8, "category_id": 1},
        {"image_id": 3, "bbox": [1, 2, 30, 40], "score": 0.1, "category_id": 1},
        {"image_id": 99, "bbox": [1, 2, 30, 40], "score": 0.8, "category_id": 1},
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    paths = predict.list_images([pictures])
    where = predict.file_boxes(tmp_path / "boxes.json", paths, 0.3)
    entries, _ = predict.predict_images(net, paths, tmp_path / "out", where, overlays=False)
    assert [(entry["file_name"], entry["image_id"]) for entry in entries] == [("2.png", 2), ("3.png", 3)]
    assert not (tmp_path / "out" / "overlays").exists()


@pytest.mark.parametrize(
    "content, words",
    [
        ({}, "is not a list of boxes"),
        ([{"bbox": [1, 2, 3], "image_id": 1}], "detection 0: bbox is .*, not 4 numbers"),
        (["box"], "detection 0: bbox is None"),
        ([{"bbox": [1, 2, 3, 4], "file_name": ["a"]}], "detection 0: neither a file_name nor an image_id"),
        ([{"bbox": [1, 2, 3, 4], "image_id": 70}], "has no box of any of the 6 pictures, such as 1.png"),
    ],
)
def test_boxes_that_are_none(pictures, tmp_path, content, words):
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        predict.file_boxes(tmp_path / "boxes.json", predict.list_images([pictures]))


def onnx_file(path, outputs=("dets", "labels")):
    """A detector that finds, whatever it sees, a person, a weak one, and a dog in its 64 x 96 input."""
    onnx = pytest.importorskip("onnx")
    dets = np.array([[[8, 4, 40, 60, 0.9], [0, 0, 9, 9, 0.1], [50, 20, 90, 60, 0.8]]], np.float32)
    constants = {outputs[0]: dets, outputs[1]: np.array([[0, 0, 16]])}
    nodes = [
        onnx.helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(value))
        for name, value in constants.items()
    ]
    given = onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 3, 64, 96])
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64)
    gives = [
        onnx.helper.make_tensor_value_info(name, kind, value.shape)
        for (name, value), kind in zip(constants.items(), kinds, strict=True)
    ]
    graph = onnx.helper.make_graph(nodes, "made", [given], gives)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def test_a_detectors_boxes_are_of_the_picture(tmp_path):
    pytest.importorskip("onnxruntime")
    found = detectors.Detector(onnx_file(tmp_path / "made.onnx"))
    assert found.size == (64, 96)
    boxes, scores = found(np.zeros((128, 100, 3), np.uint8))  # halved to fit 64 rows
    assert boxes.tolist() == [[16, 8, 64, 112]] and scores == pytest.approx([0.9])


def test_files_that_are_no_detector(tmp_path):
    pytest.importorskip("onnxruntime")
    with pytest.raises(FileNotFoundError, match="no detector at"):
        detectors.Detector(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ValueError, match="text.onnx is not a net that onnxruntime can run"):
        detectors.Detector(tmp_path / "text.onnx")
    other = onnx_file(tmp_path / "other.onnx", ("boxes", "classes"))
    with pytest.raises(ValueError, match="gives boxes, classes; a detector gives dets and labels"):
        detectors.Detector(other)


def test_a_pose_is_drawn_in_its_colors():
    skeleton = skeletons.get("lspet")
    people = np.random.default_rng(0).uniform(20, 80, (1, 14, 2))
    blank = np.zeros((100, 100, 3), np.uint8)
    drawn = predict.draw_poses(blank, people, np.ones((1, 14)), skeleton)
    assert blank.max() == 0 and drawn.max() == 255
    x, y = people[0, 0].round().astype(int)
    assert drawn[y, x].tolist() == [0x2F, 0x66, 0x90]  # a right ankle is blue
    assert predict.draw_poses(blank, people, np.zeros((1, 14)), skeleton).max() == 0  # nothing is sure
