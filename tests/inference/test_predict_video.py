"""Prediction on videos and cameras: tracks, smoothing, files, and what remains after an error."""

import csv
import json
import signal

import cv2
import numpy as np
import pytest

from posebook import cli, models
from posebook.inference import predict, predict_video, video
from posebook.lifting import synthetic_video

FRAMES = 10


@pytest.fixture(scope="module")
def model():
    return models.load_weights(predict.SYNTHETIC_WEIGHTS)


@pytest.fixture(scope="module")
def walk():
    return synthetic_video.walk(FRAMES)


@pytest.fixture(scope="module")
def files(walk, tmp_path_factory):
    """A video of two people, the walk and its mirror image side by side, and the file with their boxes."""
    folder = tmp_path_factory.mktemp("pair")
    images = np.concatenate([walk.images, walk.images[:, :, ::-1]], 2)
    path, boxes_path = synthetic_video.save(
        synthetic_video.SyntheticVideo(images, walk.boxes, walk.pose, walk.camera), folder
    )
    mirrored = walk.boxes.copy()
    mirrored[:, 0] = 2 * walk.images.shape[2] - 1 - walk.boxes[:, 0] - walk.boxes[:, 2]
    entries = []
    for frame, pair in enumerate(zip(walk.boxes, mirrored, strict=True), 1):
        pair = pair if frame % 2 else pair[::-1]  # in changing order
        entries += [{"image_id": frame, "category_id": 1, "bbox": box.tolist(), "score": 1} for box in pair]
    boxes_path.write_text(json.dumps(entries))
    return path, boxes_path


def run(model, files, out_dir, **options):
    frames = video.open_frames(files[0])
    boxes = predict.file_boxes(files[1], None)
    return predict_video.predict_video(model, video.video_stream(frames), out_dir, boxes, **options)


def test_boxes_do_not_depend_on_the_number_of_frames_in_the_header(files, tmp_path):
    """It is an estimate, and 1 in some files."""
    source = predict.file_boxes(files[1], None)
    for number in (1, FRAMES):
        assert len(source(predict.frame_path(number), np.zeros((2, 2, 3)))[0]) == 2
    (tmp_path / "boxes.json").write_text("[]")
    with pytest.raises(ValueError, match="boxes.json has no box of a frame"):
        predict.file_boxes(tmp_path / "boxes.json", None)


def test_two_people_are_tracked_and_all_files_agree(model, files, walk, tmp_path):
    entries = run(model, files, tmp_path, smooth=False)
    assert [entry["frame"] for entry in entries] == np.repeat(np.arange(1, FRAMES + 1), 2).tolist()
    assert all(entry["image_id"] == entry["frame"] for entry in entries)
    for entry in entries:
        assert entry["track_id"] == (1 if entry["bbox"][0] < walk.images.shape[2] else 2)
        assert entry["time"] == pytest.approx((entry["frame"] - 1) / synthetic_video.FPS)
    assert json.loads((tmp_path / "predictions.json").read_text()) == entries
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * FRAMES * 17 and list(rows[0]) == [
        "frame",
        "time",
        "track",
        "joint",
        "x",
        "y",
        "score",
    ]
    for row, entry in zip(rows[::17], entries, strict=True):
        assert row["joint"] == "nose" and int(row["track"]) == entry["track_id"]
        assert [float(row[name]) for name in ("x", "y", "score")] == entry["keypoints"][:3]
    shown = video.open_frames(tmp_path / "overlay.mp4")
    assert shown.fps == synthetic_video.FPS
    images = [image for _, image in shown]
    source = [image for _, image in video.open_frames(files[0])]
    assert len(images) == FRAMES and images[0].shape == source[0].shape
    assert all(np.abs(a.astype(int) - b).max() > 80 for a, b in zip(images, source, strict=True))


def test_smoothing_reduces_jitter_and_does_not_change_tracks(model, files, tmp_path):
    raw, smooth = (run(model, files, tmp_path / str(flag), smooth=flag) for flag in (False, True))
    assert [entry["track_id"] for entry in raw] == [entry["track_id"] for entry in smooth]
    assert raw[:2] == smooth[:2]  # the first frame has no history

    def acceleration(entries):
        points = np.array([entry["keypoints"] for entry in entries if entry["track_id"] == 1])
        return np.abs(np.diff(points.reshape(FRAMES, 17, 3)[..., :2], 2, axis=0)).mean()

    assert acceleration(smooth) < 0.8 * acceleration(raw)


def test_a_video_without_people_has_valid_results(model, files, tmp_path):
    no_people = lambda *_: (np.zeros((0, 4)), np.zeros(0))  # noqa: E731
    stream = video.video_stream(video.open_frames(files[0]))
    assert predict_video.predict_video(model, stream, tmp_path, no_people) == []
    assert json.loads((tmp_path / "predictions.json").read_text()) == []
    assert (tmp_path / "predictions.csv").read_text().split() == ["frame,time,track,joint,x,y,score"]
    assert len(list(video.open_frames(tmp_path / "overlay.mp4"))) == FRAMES


def test_after_an_error_nothing_remains(model, files, tmp_path):
    def failing(path, image):
        if int(path.stem) == 7:
            raise RuntimeError("the detector failed")
        return predict.full_image_boxes(path, image)

    frames = video.open_frames(files[0])
    settings = predict.Settings(batch=2)
    (tmp_path / "predictions.json").write_text("earlier results")
    for out_dir in (tmp_path, tmp_path / "new" / "folder"):
        with pytest.raises(RuntimeError, match="the detector failed"):
            predict_video.predict_video(model, video.video_stream(frames), out_dir, failing, settings)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.json"]
    assert (tmp_path / "predictions.json").read_text() == "earlier results"
    empty = video.Stream("camera 0", [], 25.0, None)
    with pytest.raises(ValueError, match="camera 0: no frame could be read"):
        predict_video.predict_video(model, empty, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_command_predicts_a_video_and_records_the_speed(files, tmp_path, capsys):
    words = ["predict", str(files[0]), "--boxes", str(files[1]), "--out-dir", str(tmp_path), "--record"]
    cli.main([*words, "--weights", str(predict.SYNTHETIC_WEIGHTS), "--runtime", "pytorch", "--frames", "6"])
    output = capsys.readouterr().out
    assert "12 poses of 2 tracks in 6 frames, " in output and " people/s with pytorch: " in output
    record = json.loads((tmp_path / "records" / "predict-starnet-pose-t-pytorch.json").read_text())
    assert record["kind"] == "predict" and record["dataset"]["images"] == 6
    assert record["dataset"]["persons"] == 12 and record["parameters"]["smooth"]
    metrics = record["metrics"]
    assert metrics["people_per_second"] == pytest.approx(2 * metrics["images_per_second"])
    assert metrics["stage_milliseconds"].keys() == {"read", "detect", "crop", "network", "decode", "draw"}
    assert all(value > 0 for value in metrics["stage_milliseconds"].values())
    assert str(tmp_path) not in json.dumps(record) and str(files[0]) not in json.dumps(record)


def test_a_camera_is_read_until_its_end_or_a_number_of_frames(files, tmp_path, capsys):
    """A file opens like a camera."""
    words = ["predict", "--camera", str(files[0]), "--weights", str(predict.SYNTHETIC_WEIGHTS), "--no-flip"]
    cli.main([*words, "--runtime", "pytorch", "--frames", "4", "--out-dir", str(tmp_path)])
    assert "4 poses of 1 tracks in 4 frames" in capsys.readouterr().out
    times = [entry["time"] for entry in json.loads((tmp_path / "predictions.json").read_text())]
    assert times[0] == 0 and all(np.diff(times) > 0)
    assert cv2.VideoCapture(str(tmp_path / "overlay.mp4")).isOpened()


def test_an_interrupt_ends_a_camera_and_results_are_written(files, tmp_path, monkeypatch):
    def interrupting(path, image):
        if int(path.stem) == 2:
            signal.raise_signal(signal.SIGINT)
        return np.array([[0, 0, image.shape[1] - 1, image.shape[0] - 1.0]]), np.ones(1)

    monkeypatch.setattr(predict, "full_image_boxes", interrupting)
    words = ["predict", "--camera", str(files[0]), "--weights", str(predict.SYNTHETIC_WEIGHTS), "--no-flip"]
    cli.main([*words, "--runtime", "pytorch", "--out-dir", str(tmp_path)])
    frames = [entry["frame"] for entry in json.loads((tmp_path / "predictions.json").read_text())]
    assert frames == list(range(1, len(frames) + 1)) and 2 <= len(frames) <= FRAMES
