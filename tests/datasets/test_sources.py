"""Loaders on real files, and their error messages for invalid files."""

import importlib
import json
import math
import pkgutil
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from posebook import datasets, transforms
from posebook.datasets import coco, detector_boxes

COCO = "coco_sample"


def test_load_coco(test_data):
    dataset = datasets.load("coco", test_data / COCO, "val2017")
    assert len(dataset.instances) == 68 and dataset.skeleton.name == "coco" and len(dataset.sha256) == 64
    for person in dataset.instances:
        image = datasets.read_image(person.image)
        x, y, w, h = person.bbox
        assert 0 <= x < x + w <= image.shape[1] and 0 <= y < y + h <= image.shape[0]
        assert person.keypoints.shape == (17, 3) and (person.keypoints[:, 2] > 0).any()


def test_load_lspet(test_data):
    train, val = (datasets.load("lspet", test_data / "lspet", split) for split in ("train", "val"))
    assert (len(train.instances), len(val.instances)) == (3500, 500)
    assert {p.image.name for p in val.instances} == {f"im{n:05d}.jpg" for n in range(3501, 4001)}
    left, right = (train.skeleton.keypoints.index(f"{side}_shoulder") for side in ("left", "right"))
    labeled = np.mean([p.keypoints[9, 2] > 0 and p.keypoints[2, 2] > 0 for p in val.instances])
    assert (left, right) == (9, 8) and round(labeled, 2) == 0.74
    joints = scipy.io.loadmat(test_data / "lspet" / "joints.mat")["joints"]  # (14, 3, N)
    for person in val.instances[:50]:
        theirs = joints[:, :, int(person.image.stem[2:]) - 1]
        labeled = theirs[:, 2] > 0
        assert (person.keypoints[:, 2] > 0).tolist() == labeled.tolist()
        assert person.keypoints[labeled, :2] == pytest.approx(theirs[labeled, :2] - 1)  # MATLAB counts from 1
    for person in val.instances[:50]:
        seen = person.keypoints[person.keypoints[:, 2] > 0, :2]
        x, y, w, h = person.bbox
        assert (seen.min(0) == (x, y)).all() and seen.max(0) == pytest.approx([x + w, y + h])


FILES = {  # of annotations
    "coco": "person_keypoints_val2017.json",
    "coco-mini": "person_keypoints_val2017.json",
    "crowdpose": "crowdpose_test.json",
    "mpii": "mpii_val.json",
    "lspet": "joints.mat",
    "synthetic": "person_keypoints_val.json",
    "synthetic-14": "person_keypoints_14_val.json",
    "own": "annotations/val.json",
}


def test_every_loader_has_a_name():
    """Modules that `loaders` does not import are found too."""
    modules = [f"posebook.datasets.{module.name}" for module in pkgutil.iter_modules(datasets.__path__)]
    written = {getattr(importlib.import_module(name), "load", datasets.load) for name in modules}
    assert written - {datasets.load} <= set(datasets.loaders().values())


@pytest.mark.parametrize("name", datasets.names())
def test_error_for_a_missing_dataset_states_folder_file_and_source(tmp_path, name):
    with pytest.raises(datasets.DatasetMissing) as error:
        datasets.load(name, tmp_path)
    text = str(error.value)
    assert str(tmp_path) in text and FILES[name] in text
    assert re.search(r"https?://|posebook |\.ipynb", text)


def test_unknown_names_suggest_close_matches(tmp_path):
    with pytest.raises(ValueError, match="unknown dataset 'cocoa'; did you mean coco"):
        datasets.load("cocoa", tmp_path)
    with pytest.raises(ValueError, match="unknown split of coco 'val2014'; did you mean val2017"):
        datasets.load("coco", tmp_path, "val2014")
    with pytest.raises(ValueError, match="unknown split of crowdpose 'tests'; did you mean test"):
        datasets.load("crowdpose", tmp_path, "tests")
    with pytest.raises(ValueError, match="unknown split of mpii 'valid'; did you mean val"):
        datasets.load("mpii", tmp_path, "valid")
    with pytest.raises(ValueError, match="unknown split of synthetic-14 'valid'; did you mean val"):
        datasets.load("synthetic-14", tmp_path, "valid")
    with pytest.raises(ValueError, match="unknown split of lspet 'vall'; did you mean val"):
        datasets.load("lspet", tmp_path, "vall")


def test_environment_sets_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("POSEBOOK_DATA", str(tmp_path))
    with pytest.raises(datasets.DatasetMissing, match=str(tmp_path / "lspet")):
        datasets.load("lspet")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def test_broken_images_are_reported_and_skipped(made, capsys):
    root = made()
    truncate(root / "val" / "003.jpg")
    (root / "val" / "004.jpg").unlink()
    dataset = datasets.load("synthetic", root)
    assert len(dataset.instances) == 18 and dataset.describe()["skipped_images"] == 2
    output = capsys.readouterr().out
    assert (
        "skipping 2 of 20 images" in output
        and "003.jpg (truncated)" in output
        and "004.jpg (missing)" in output
    )


def test_too_many_broken_images_are_an_error(made):
    root = made()
    for i in range(1, 7):
        truncate(root / "val" / f"{i:03d}.jpg")
    with pytest.raises(ValueError, match="6 of 20 images .* more than the 5 that may be skipped: 001.jpg"):
        datasets.load("synthetic", root)


def test_annotations_of_unknown_images(made, capsys):
    def orphan(content, count):
        for entry in content["annotations"][:count]:
            entry["image_id"] += 1000

    assert len(datasets.load("synthetic", made(lambda c: orphan(c, 2))).instances) == 18
    assert "annotation 1 (image 1001)" in capsys.readouterr().out
    with pytest.raises(ValueError, match="10 annotations of images that are not in the file, more than 5"):
        datasets.load("synthetic", made(lambda c: orphan(c, 10)))


def test_crowds_and_people_without_joints_are_not_used(made):
    def change(content):
        content["annotations"][0]["iscrowd"] = 1
        content["annotations"][1]["num_keypoints"] = 0

    assert len(datasets.load("synthetic", made(change)).instances) == 18


def test_invalid_annotation_files_are_rejected(made, tmp_path):
    root = made()
    path = root / "annotations" / "person_keypoints_val.json"
    path.write_text(path.read_text()[:500])
    with pytest.raises(ValueError, match="person_keypoints_val.json is not a COCO annotation file"):
        datasets.load("synthetic", root)
    made(lambda content: content["annotations"][4].update(keypoints=[1, 2, 2] * 14))
    with pytest.raises(ValueError, match="annotation 5: 42 numbers, not 3 for each of 17 joints"):
        datasets.load("synthetic", root)
    made(lambda content: content["annotations"].clear())
    with pytest.raises(ValueError, match="holds no person"):
        datasets.load("synthetic", root)
    (tmp_path / "images").mkdir()
    (tmp_path / "joints.mat").write_text("not MATLAB's")
    with pytest.raises(ValueError, match="is not LSPET's joints.mat"):
        datasets.load("lspet", tmp_path)


def test_unreadable_images_are_rejected(tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(ValueError, match="text.jpg cannot be decoded"):
        datasets.read_image(tmp_path / "text.jpg")
    with pytest.raises(ValueError, match="no image at .*absent.jpg"):
        datasets.read_image(tmp_path / "absent.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match="empty.jpg cannot be decoded"):
        datasets.read_image(tmp_path / "empty.jpg")


def test_read_image_is_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((4, 5, 3), (0, 0, 255), np.uint8))
    assert datasets.read_image(tmp_path / "red.png")[0, 0].tolist() == [255, 0, 0]


def test_a_copy_at_another_root_gives_the_same_dataset(test_data, tmp_path):
    shutil.copytree(test_data / COCO, tmp_path / "elsewhere")
    a, b = (datasets.load("coco", root, "val2017") for root in (test_data / COCO, tmp_path / "elsewhere"))
    assert a.sha256 == b.sha256 and [p.id for p in a.instances] == [p.id for p in b.instances]


def copy_samples(test_data: Path, name: str, annotation: str, to: Path) -> Path:
    """Copy a flat folder of samples to the layout of the full dataset."""
    (to / "annotations").mkdir(parents=True)
    (to / "images").mkdir()
    for path in (test_data / "samples" / name).glob("*.jpg"):
        shutil.copy(path, to / "images")
    shutil.copy(test_data / "samples" / name / f"test_{name}.json", to / "annotations" / annotation)
    return to


def test_load_crowdpose(test_data, tmp_path):
    root = copy_samples(test_data, "crowdpose", "mmpose_crowdpose_test.json", tmp_path / "crowdpose")
    dataset = datasets.load("crowdpose", root)
    assert dataset.name == "crowdpose-sample" and len(dataset.instances) == 4 and len(dataset.images) == 2
    for person in dataset.instances:
        assert person.keypoints.shape == (14, 3) and datasets.read_image(person.image).ndim == 3
        assert person.area == pytest.approx(0.53 * person.bbox[2] * person.bbox[3])
    (root / "annotations" / "mmpose_crowdpose_test.json").rename(root / "annotations/crowdpose_test.json")
    assert datasets.load("crowdpose", root).sha256 == dataset.sha256  # the authors' name of the file


def test_crowdpose_without_crowd_index_is_rejected_before_any_work(test_data, tmp_path):
    root = copy_samples(test_data, "crowdpose", "crowdpose_test.json", tmp_path / "crowdpose")
    path = root / "annotations" / "crowdpose_test.json"
    content = json.loads(path.read_text())
    number = content["images"][1]["id"]
    del content["images"][1]["crowdIndex"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"crowdpose_test.json, image {number}: no crowdIndex, by which"):
        datasets.load("crowdpose", root)


def test_load_mpii(test_data, tmp_path):
    root = copy_samples(test_data, "mpii", "mpii_val.json", tmp_path / "mpii")
    dataset = datasets.load("mpii", root)
    assert len(dataset.instances) == 5 and all(math.isnan(person.head) for person in dataset.instances)
    content = json.loads((root / "annotations" / "mpii_val.json").read_text())
    for entry, person in zip(content, dataset.instances, strict=True):
        labeled = person.keypoints[:, 2] > 0
        assert labeled.tolist() == [v == 1 for v in entry["joints_vis"]]
        moved = np.array(entry["joints"])[labeled] - 1
        assert person.keypoints[labeled, :2] == pytest.approx(moved)  # MATLAB's coordinates start at 1
        x, y, w, h = person.bbox
        assert w == h == pytest.approx(200 * entry["scale"])
        assert y + h / 2 == pytest.approx(entry["center"][1] + 15 * entry["scale"] - 1)
        matrix = transforms.crop_affine(person.bbox, (256, 256))  # the crop contains the body
        inside = transforms.apply_affine(matrix, person.keypoints[labeled, :2])
        assert ((inside > 0) & (inside < 256)).mean() > 0.9
    boxes = np.zeros((2, 2, 5))
    boxes[1] = [[30.0] * 5, [40.0] * 5]  # diagonals of 50 pixels
    scipy.io.savemat(root / "annotations" / "mpii_gt_val.mat", {"headboxes_src": boxes})
    assert [person.head for person in datasets.load("mpii", root).instances] == pytest.approx([30.0] * 5)
    scipy.io.savemat(root / "annotations" / "mpii_gt_val.mat", {"headboxes_src": boxes[..., :3]})
    with pytest.raises(ValueError, match=r"head boxes of shape \(2, 2, 3\), not \(2, 2, 5\): another split"):
        datasets.load("mpii", root)
    (root / "annotations" / "mpii_gt_val.mat").write_text("<html>")
    with pytest.raises(ValueError, match="is not MPII's mpii_gt_val.mat"):
        datasets.load("mpii", root)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda people: people[1].pop("scale"), "person 1: image, center"),
        (lambda people: people[1].update(joints=[[1, 2]] * 15), "person 1: .15, 2. joints"),
        (lambda people: people[1].update(scale=-1), "person 1: a value is not finite, or the scale"),
        (lambda people: people[1].update(center=[float("nan"), 1]), "person 1: a value is not finite"),
        (lambda people: people[1].update(image="../x.jpg"), "person 1: image '../x.jpg' is not a file name"),
        (lambda people: people.clear(), "is not a list of people"),
    ],
)
def test_invalid_mpii_entries_are_rejected(test_data, tmp_path, change, words):
    root = copy_samples(test_data, "mpii", "mpii_val.json", tmp_path / "mpii")
    path = root / "annotations" / "mpii_val.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        datasets.load("mpii", root)


def test_boxes_of_a_real_detector(test_data, tmp_path, capsys):
    root = copy_samples(test_data, "coco", "person_keypoints_val2017.json", tmp_path / "coco")
    (root / "images").rename(root / "val2017")
    dataset = datasets.load("coco", root)
    file = test_data / "samples" / "coco" / "test_coco_det_AP_H_56.json"
    detections = detector_boxes.load_boxes(dataset, file)
    assert len(detections.instances) > len(dataset.instances) and detections.sha256 == dataset.sha256
    assert detections.boxes == "detector: test_coco_det_AP_H_56.json" and len(detections.boxes_sha256) == 64
    assert {p.image for p in detections.instances} <= {p.image for p in dataset.instances}
    assert 0 < len(detector_boxes.load_boxes(dataset, file, 0.9).instances) < len(detections.instances)
    best = [p for p in detections.instances if p.score > 0.9]
    for person in dataset.instances:  # at least one large person has a close box
        x, y, w, h = person.bbox
        near = [max(abs(a - b) for a, b in zip(p.bbox, person.bbox, strict=True)) for p in best]
        if w * h > 96**2 and min(near) < 0.1 * max(w, h):
            break
    else:
        raise AssertionError("no box is close to a person")

    other = json.loads(file.read_text())
    for entry in other:
        entry["image_id"] += 5_000_000
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(
        ValueError, match="other.json belongs to other images: .* are not in person_keypoints_val2017"
    ):
        detector_boxes.load_boxes(dataset, tmp_path / "other.json")
    (tmp_path / "one.json").write_text(json.dumps([*json.loads(file.read_text())[:4], other[0]]))
    detector_boxes.load_boxes(dataset, tmp_path / "one.json")
    output = capsys.readouterr().out
    assert (
        "skipping 1 boxes on images that are not in" in output and "images have no box in one.json" in output
    )
    with pytest.raises(FileNotFoundError, match="no detections at"):
        detector_boxes.load_boxes(dataset, tmp_path / "absent.json")


def test_coco_mini_of_another_file_names_it(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "person_keypoints_val2017.json").write_text("[]")
    with pytest.raises(ValueError, match="person_keypoints_val2017.json is not a COCO annotation file"):
        datasets.load("coco-mini", tmp_path)


def test_coco_mini_is_the_first_images(small, tmp_path, monkeypatch):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").symlink_to(small / "val")
    theirs = small / "annotations/person_keypoints_val.json"
    shutil.copy(theirs, tmp_path / "annotations/person_keypoints_val2017.json")
    monkeypatch.setitem(coco.MINI, "val2017", 7)
    first = sorted(image["id"] for image in json.loads(theirs.read_text())["images"])[:7]
    for _ in range(2):  # writes the reduced file, then reads it
        dataset = datasets.load("coco-mini", tmp_path)
        assert sorted(dataset.images) == first and dataset.name == "coco-mini"
        assert {person.image_id for person in dataset.instances} == set(first)
