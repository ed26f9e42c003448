"""MoveNet and BlazePose: joint order and position in the crop, for fake models and published files."""

import types

import cv2
import numpy as np
import pytest

from posebook import cli, records, skeletons
from posebook.datasets import Person, PoseDataset, coco
from posebook.evaluation import bootstrap, metrics, predictions
from posebook.inference import runtimes, tflite


class FakeModel:
    """A compiled model that returns fixed outputs and stores its last input."""

    def __init__(self, side: int, outputs: list[np.ndarray], dtype=np.uint8):
        self.side, self.results, self.dtype = side, outputs, dtype
        self.outputs = [types.SimpleNamespace(shape=output.shape) for output in outputs]

    def input(self, _: int):
        element_type = types.SimpleNamespace(to_dtype=lambda: self.dtype)
        return types.SimpleNamespace(shape=(1, self.side, self.side, 3), element_type=element_type)

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        self.images = images
        return self.results


def load_fake(model: FakeModel, tmp_path, monkeypatch) -> tflite.Peer:
    """Load a fake model as a peer."""
    core = types.SimpleNamespace(compile_model=lambda *_: model)
    monkeypatch.setattr(runtimes, "openvino_core", lambda: core)
    path = tmp_path / "model.tflite"
    path.write_bytes(b"0123" + tflite.MAGIC + b"89")
    peer = tflite.load_peer(path)
    assert (peer.name, peer.side) == ("model", model.side)
    return peer


def test_movenet_outputs_are_y_x_score_as_fractions_of_the_crop(tmp_path, monkeypatch):
    output = np.random.default_rng(0).random((1, 1, 17, 3)).astype(np.float32)
    model = FakeModel(192, [output])
    crop = np.random.default_rng(1).integers(0, 256, (192, 192, 3), dtype=np.uint8)
    points, scores = load_fake(model, tmp_path, monkeypatch).run(crop)
    assert model.images.dtype == np.uint8 and (model.images == crop).all()
    for joint in range(17):
        y, x, score = output[0, 0, joint]
        assert (
            points[joint] == pytest.approx([192 * x - 0.5, 192 * y - 0.5], abs=1e-4)
            and scores[joint] == score
        )


def test_blazepose_outputs_are_pixels_and_logits_of_39_landmarks(tmp_path, monkeypatch):
    output = np.random.default_rng(0).normal(100, 50, (1, 195)).astype(np.float32)
    output.reshape(39, 5)[:, 3] = np.linspace(-4, 4, 39)
    model = FakeModel(256, [np.zeros((1, 1), np.float32), output], np.float32)
    crop = np.full((256, 256, 3), 51, np.uint8)
    points, scores = load_fake(model, tmp_path, monkeypatch).run(crop)
    assert model.images.dtype == np.float32 and model.images == pytest.approx(0.2)
    landmarks = output.reshape(39, 5)
    for joint, landmark in enumerate(tflite.BLAZEPOSE_COCO):
        assert points[joint] == pytest.approx(landmarks[landmark, :2] - 0.5)
        assert scores[joint] == pytest.approx(1 / (1 + np.exp(-landmarks[landmark, 3])))


def test_points_are_mapped_back_to_the_image(tmp_path):
    """The fake model locates the bright spot of the crop. Its position in the image is known."""
    image = np.zeros((300, 400, 3), np.uint8)
    cv2.circle(image, (230, 140), 6, (255, 255, 255), -1)
    cv2.imwrite(str(tmp_path / "spot.png"), image)
    box = (150.0, 60.0, 120.0, 180.0)
    person = Person(tmp_path / "spot.png", 1, 1, box, 1.0, np.zeros((17, 3)))

    def run(crop):
        weights = crop[..., 0].astype(float)
        y, x = np.indices(weights.shape)
        spot = np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()
        return np.tile(spot, (17, 1)), np.ones(17)

    dataset = PoseDataset("spots", "val", skeletons.get("coco"), "0" * 64, (person,) * 2, None)
    result = tflite.predict(tflite.Peer("spot", 192, run), dataset)
    assert result.keypoints.shape == (2, 17, 2) and result.scores.shape == (2, 17)
    assert result.decoding == "spot"
    np.testing.assert_allclose(result.keypoints, np.broadcast_to((230, 140), (2, 17, 2)), atol=0.2)


def test_other_files_are_rejected(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    with pytest.raises(FileNotFoundError, match="no model file at .*none.tflite"):
        tflite.load_peer(tmp_path / "none.tflite")
    (tmp_path / "text.tflite").write_text("not a model")
    with pytest.raises(ValueError, match=r"text\.tflite is not a \.tflite file"):
        tflite.load_peer(tmp_path / "text.tflite")
    (tmp_path / "damaged.tflite").write_bytes(b"0123" + tflite.MAGIC)
    with pytest.raises(ValueError, match=r"damaged\.tflite cannot be read; it may be damaged"):
        tflite.load_peer(tmp_path / "damaged.tflite")
    model = FakeModel(64, [np.zeros((1, 10), np.float32)])
    message = r"model.tflite is neither MoveNet nor BlazePose: its outputs are \[\(1, 10\)\]"
    with pytest.raises(ValueError, match=message):
        load_fake(model, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "name, min_ap",
    [("movenet_lightning_int8", 0.2), ("pose_landmark_lite", 0.1), ("pose_landmark_full", 0.1)],
)
def test_published_files_predict_real_people(test_data, name, min_ap):
    pytest.importorskip("openvino")
    path = test_data / "peers" / f"{name}.tflite"
    dataset = coco.load(test_data / "coco_sample", "val2017")
    result = tflite.predict(tflite.load_peer(path), dataset)
    assert min_ap < metrics.score(dataset, result)["AP"] < 0.8
    assert (0 <= result.scores).all() and (result.scores <= 1).all()


def test_evaluate_command_writes_a_record_of_a_published_file(test_data, tmp_path):
    path = test_data / "peers" / "movenet_lightning_int8.tflite"
    root = str(test_data / "coco_sample")
    options = ["--dataset", "coco", "--data-root", root, "--profile", "photographs", "--name", "movenet"]
    cli.main(["evaluate", "--weights", str(path), *options, "--out-dir", str(tmp_path)])
    (record,) = records.load(tmp_path / "records")
    assert record["name"] == "movenet" and record["metrics"]["AP"] > 0.2
    assert record["protocol"]["flip_test"] is False and record["protocol"]["input_size"] == [192, 192]
    assert record["weights"]["file"] == path.name and record["weights"]["bytes"] == path.stat().st_size
    assert record["weights"]["bundled"] is False and record["weights"]["trained_on"].startswith("COCO and")
    stats = predictions.load_image_stats(tmp_path / "records" / "movenet.json")
    assert bootstrap.paired_difference(stats, stats)[0] == 0
