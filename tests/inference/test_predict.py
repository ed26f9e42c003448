"""Prediction on images: same joints as an evaluation, broken images, boxes from files."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from posebook import datasets, models, skeletons, transforms
from posebook.datasets import detector_boxes
from posebook.evaluation import predictions
from posebook.inference import output, predict

COMMAND = [sys.executable, "-m", "posebook", "predict"]


@pytest.fixture(scope="module")
def model():
    return models.load_weights(predict.SYNTHETIC_WEIGHTS)


@pytest.fixture
def image_dir(tmp_path):
    """A folder of six noise images with two sizes."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(1, 7):
        image = np.random.default_rng(i).integers(0, 256, (60 + 20 * (i % 2), 80, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), image)
    return folder


def test_joints_are_the_same_as_in_an_evaluation(model, test_data, tmp_path):
    """Both functions get the same real images and boxes of a real detector."""
    folder = test_data / "samples" / "coco"
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").symlink_to(folder)
    (root / "annotations" / "person_keypoints_val2017.json").write_text(
        (folder / "test_coco.json").read_text()
    )
    file = folder / "test_coco_det_AP_H_56.json"
    dataset = detector_boxes.load_boxes(datasets.load("coco", root), file, 0.5)
    expected = predictions.predict(model, dataset)
    paths = predict.list_images([folder])
    assert len(paths) == 4
    entries, failed = predict.predict_images(
        model, paths, tmp_path / "out", predict.file_boxes(file, paths, 0.5), predict.Settings(batch=3)
    )
    assert not failed and len(entries) == len(dataset.instances) > 8
    for person, points in zip(dataset.instances, expected.keypoints, strict=True):
        (entry,) = [
            e
            for e in entries
            if e["image_id"] == person.image_id and np.allclose(e["bbox"], person.bbox, atol=0.01)
        ]
        assert np.array(entry["keypoints"]).reshape(-1, 3)[:, :2] == pytest.approx(points, abs=0.02)
    assert json.loads((tmp_path / "out" / "predictions.json").read_text()) == entries
    for path in paths:
        overlay = cv2.imread(str(tmp_path / "out" / "overlays" / f"{path.stem}.jpg"))
        assert overlay.shape == cv2.imread(str(path)).shape


def test_photograph_is_turned_upright(model, tmp_path):
    """EXIF orientation 6: the camera stored the image turned to the left by a quarter."""
    image = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / "phone.jpg"
    Image.fromarray(np.rot90(image)).save(path, exif=exif, quality=100)
    assert datasets.read_image(path).shape == (64, 96, 3)  # as annotation tools read it
    assert np.abs(datasets.read_image(path, upright=True).astype(int) - image).mean() < 8
    entries, _ = predict.predict_images(model, [path], tmp_path / "out")
    assert entries[0]["bbox"] == [0, 0, 63, 95]


def test_broken_image_is_reported_and_skipped(image_dir, tmp_path):
    (image_dir / "7.jpg").write_text("not an image")
    (image_dir / "notes.txt").write_text("no image suffix either")
    process = subprocess.run(
        [*COMMAND, str(image_dir), "--out-dir", str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert "6 people in 6 images" in process.stdout
    assert "without --boxes or --detector, each image or frame counts as one person" in process.stdout
    assert "7.jpg cannot be decoded" in process.stderr
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [entry["file_name"] for entry in entries] == [f"{i}.png" for i in range(1, 7)]
    assert all(len(entry["keypoints"]) == 51 for entry in entries)


def test_folder_without_images(tmp_path):
    with pytest.raises(ValueError, match="no image in .*: supported are .jpg"):
        predict.list_images([tmp_path])


def test_same_name_is_rejected_and_same_stem_has_two_overlays(image_dir, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "3.png").write_bytes((image_dir / "3.png").read_bytes())
    with pytest.raises(ValueError, match="2 images have the name 3.png"):
        predict.list_images([image_dir, tmp_path / "more"])
    assert predict.overlay_path("out", image_dir / "3.png") != predict.overlay_path(
        "out", image_dir / "3.jpg"
    )
    (tmp_path / "more" / "3.png").rename(tmp_path / "more" / "3.png.jpg")
    with pytest.raises(ValueError, match=r"2 images have the overlay 3\.png\.jpg"):
        predict.list_images([image_dir, tmp_path / "more"])


def test_folder_with_a_name_like_an_image_is_not_an_image(image_dir, tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "a.png").write_bytes((image_dir / "3.png").read_bytes())
    assert [path.name for path in predict.list_images([tmp_path])] == ["a.png"]


def test_numbers_that_two_images_have_are_no_ids(image_dir, model, tmp_path):
    for name in ("1.png", "01.png"):
        (tmp_path / name).write_bytes((image_dir / "3.png").read_bytes())
    paths = predict.list_images([tmp_path])
    entries, _ = predict.predict_images(
        model, paths, tmp_path / "out", settings=predict.Settings(overlays=False)
    )
    assert [(entry["file_name"], entry["image_id"]) for entry in entries] == [("01.png", 1), ("1.png", 2)]
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([{"image_id": 1, "bbox": [1, 2, 30, 40], "score": 1}]))
    with pytest.raises(ValueError, match="detection 0: several images have the number 1: give the file_name"):
        predict.file_boxes(boxes, paths)


def test_image_of_one_pixel_has_finite_keypoints(model, tmp_path):
    cv2.imwrite(str(tmp_path / "dot.png"), np.zeros((1, 1, 3), np.uint8))
    entries, failed = predict.predict_images(model, [tmp_path / "dot.png"], tmp_path / "out")
    assert not failed and np.isfinite(entries[0]["keypoints"]).all()


def test_image_that_cannot_be_read_is_skipped(image_dir, model, tmp_path, monkeypatch):
    denied = image_dir / "2.png"
    read_bytes = Path.read_bytes

    def read(path):
        """As for a user without the permission; the tests may run as root."""
        if path == denied:
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    entries, failed = predict.predict_images(
        model, [image_dir / "1.png", denied], tmp_path / "out", settings=predict.Settings(overlays=False)
    )
    assert [entry["file_name"] for entry in entries] == ["1.png"]
    assert failed == [f"{denied} cannot be read: Permission denied"]


def test_overlay_that_cannot_be_written_is_reported(model, tmp_path, capsys):
    """A JPEG has at most 65,535 pixels on a side."""
    cv2.imwrite(str(tmp_path / "long.png"), np.zeros((2, 70_000, 3), np.uint8))
    entries, failed = predict.predict_images(model, [tmp_path / "long.png"], tmp_path / "out")
    assert len(entries) == 1 and not failed
    assert (
        "not drawn: long.png.jpg, because 70000 x 2 pixels are too many for .jpg" in capsys.readouterr().out
    )


def test_heatmaps_are_decoded_as_the_weights_were_evaluated():
    model = models.build("hrnet-w32", input_size=(64, 64)).eval()
    crops = predict.crop_boxes(
        Path(), np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8),
        np.array([[5.0, 5, 50, 70]]), np.ones(1), model.input_size,
    )  # fmt: skip
    ((plain, _),) = predict.predict_keypoints(model, [crops], True, "cpu")
    model.dark = True
    ((dark, _),) = predict.predict_keypoints(model, [crops], True, "cpu")
    with torch.no_grad():
        output = predictions.forward(model, transforms.normalize(torch.from_numpy(crops.crops)), True)
    expected = predictions.decode(output, model.input_size, dark=True)[0][0].double().numpy()
    assert np.abs(dark - plain).max() > 0.1
    inverse = transforms.invert(crops.matrices[0])
    np.testing.assert_allclose(dark[0], transforms.apply_affine(inverse, expected))


def test_boxes_are_matched_by_file_name_or_image_id(image_dir, model, tmp_path):
    boxes = [
        {"file_name": "2.png", "bbox": [1, 2, 30, 40], "score": 0.9},
        {"image_id": 3, "bbox": [1, 2, 30, 40], "score": 0.8, "category_id": 1},
        {"image_id": 3, "bbox": [1, 2, 30, 40], "score": 0.1, "category_id": 1},
        {"image_id": 99, "bbox": [1, 2, 30, 40], "score": 0.8, "category_id": 1},
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    paths = predict.list_images([image_dir])
    source = predict.file_boxes(tmp_path / "boxes.json", paths, 0.3)
    entries, _ = predict.predict_images(
        model, paths, tmp_path / "out", source, predict.Settings(overlays=False)
    )
    assert [(entry["file_name"], entry["image_id"]) for entry in entries] == [("2.png", 2), ("3.png", 3)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "predictions.csv",
        "predictions.json",
    ]
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["person"]) for row in rows[::17]] == [("2.png", "1"), ("3.png", "1")]
    assert [row["joint"] for row in rows[:17]] == list(model.skeleton.keypoints)
    values = [float(row[name]) for row in rows for name in ("x", "y", "score")]
    assert values == entries[0]["keypoints"] + entries[1]["keypoints"]


@pytest.mark.parametrize(
    "content, message",
    [
        ({}, "is not a list of boxes"),
        ([{"bbox": [1, 2, 3], "image_id": 1}], "detection 0: bbox is .*, not 4 numbers"),
        (["box"], "detection 0: bbox is None"),
        ([{"bbox": [1, 2, 3, 4], "file_name": ["a"]}], "detection 0: neither file_name nor image_id"),
        ([{"bbox": [1, 2, 3, 4], "image_id": 70}], "has no box of any of the 6 images, such as 1.png"),
    ],
)
def test_invalid_boxes_are_rejected(image_dir, tmp_path, content, message):
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        predict.file_boxes(tmp_path / "boxes.json", predict.list_images([image_dir]))


def test_pose_is_drawn_in_the_colors_of_its_skeleton():
    skeleton = skeletons.get("lspet")
    keypoints = np.random.default_rng(0).uniform(20, 80, (1, 14, 2))
    blank = np.zeros((100, 100, 3), np.uint8)
    drawn = output.draw_poses(blank, keypoints, np.ones((1, 14)), skeleton)
    assert blank.max() == 0 and drawn.max() == 255
    x, y = keypoints[0, 0].round().astype(int)
    assert drawn[y, x].tolist() == [0x2F, 0x66, 0x90]  # a right ankle is blue
    assert output.draw_poses(blank, keypoints, np.zeros((1, 14)), skeleton).max() == 0  # no joint is visible
