"""Loaders on real files, and what they say of broken ones."""

import json
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from posebook import datasets, transforms
from posebook.datasets import detector_boxes

COCO = "coco_sample"


def test_real_coco_people(test_data):
    people = datasets.load("coco", test_data / COCO, "val2017")
    assert len(people.instances) == 68 and people.skeleton.name == "coco" and len(people.sha256) == 64
    for person in people.instances:
        image = datasets.read_image(person.image)
        x, y, w, h = person.bbox
        assert 0 <= x < x + w <= image.shape[1] and 0 <= y < y + h <= image.shape[0]
        assert person.keypoints.shape == (17, 3) and (person.keypoints[:, 2] > 0).any()


def test_real_lspet_people(test_data):
    train, val = (datasets.load("lspet", test_data / "lspet", split) for split in ("train", "val"))
    assert (len(train.instances), len(val.instances)) == (3500, 500)
    assert {p.image.name for p in val.instances} == {f"im{n:05d}.jpg" for n in range(3501, 4001)}
    left, right = (train.skeleton.keypoints.index(f"{side}_shoulder") for side in ("left", "right"))
    first = np.mean([p.keypoints[9, 2] > 0 and p.keypoints[2, 2] > 0 for p in val.instances])
    assert (left, right) == (9, 8) and round(first, 2) == 0.74
    for person in val.instances[:50]:
        seen = person.keypoints[person.keypoints[:, 2] > 0, :2]
        x, y, w, h = person.bbox
        assert (seen.min(0) == (x, y)).all() and seen.max(0) == pytest.approx([x + w, y + h])


@pytest.mark.parametrize(
    "name, words",
    [
        ("coco", "person_keypoints_val2017.json"),
        ("coco-mini", "person_keypoints_val2017.json"),
        ("crowdpose", "crowdpose_test.json"),
        ("mpii", "mpii_val.json"),
        ("lspet", "joints.mat"),
        ("synthetic", "person_keypoints_val.json"),
        ("synthetic-14", "person_keypoints_14_val.json"),
    ],
)
def test_a_missing_dataset_says_where_what_and_how(tmp_path, name, words):
    with pytest.raises(datasets.DatasetMissing) as error:
        datasets.load(name, tmp_path)
    text = str(error.value)
    assert (
        str(tmp_path) in text
        and words in text
        and ("https://" in text or "http://" in text or "posebook " in text)
    )


def test_unknown_names_offer_the_near_ones(tmp_path):
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


def test_the_default_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("POSEBOOK_DATA", str(tmp_path))
    with pytest.raises(datasets.DatasetMissing, match=str(tmp_path / "lspet")):
        datasets.load("lspet")


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def test_broken_images_are_named_and_skipped(made, capsys):
    root = made()
    cut(root / "val" / "003.jpg")
    (root / "val" / "004.jpg").unlink()
    people = datasets.load("synthetic", root)
    assert len(people.instances) == 18 and people.describe()["skipped_images"] == 2
    said = capsys.readouterr().out
    assert "skipping 2 of 20 images" in said and "003.jpg (truncated)" in said and "004.jpg (missing)" in said


def test_too_many_broken_images_are_an_error(made):
    root = made()
    for i in range(1, 7):
        cut(root / "val" / f"{i:03d}.jpg")
    with pytest.raises(ValueError, match="6 of 20 images .* more than the 5 that may be skipped: 001.jpg"):
        datasets.load("synthetic", root)


def test_annotations_of_no_image(made, capsys):
    def orphan(content, count):
        for entry in content["annotations"][:count]:
            entry["image_id"] += 1000

    assert len(datasets.load("synthetic", made(lambda c: orphan(c, 2))).instances) == 18
    assert "annotation 1 (of image 1001, not in the file)" in capsys.readouterr().out
    with pytest.raises(ValueError, match="10 annotations point at no image, more than 5"):
        datasets.load("synthetic", made(lambda c: orphan(c, 10)))


def test_crowds_and_people_without_joints_do_not_count(made):
    def change(content):
        content["annotations"][0]["iscrowd"] = 1
        content["annotations"][1]["num_keypoints"] = 0

    assert len(datasets.load("synthetic", made(change)).instances) == 18


def test_files_that_are_no_annotations(made, tmp_path):
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


def test_images_that_cannot_be_read(tmp_path):
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


def test_a_copy_of_the_sample_at_another_root_reads_the_same(test_data, tmp_path):
    shutil.copytree(test_data / COCO, tmp_path / "elsewhere")
    a, b = (datasets.load("coco", root, "val2017") for root in (test_data / COCO, tmp_path / "elsewhere"))
    assert a.sha256 == b.sha256 and [p.id for p in a.instances] == [p.id for p in b.instances]


def laid_out(test_data: Path, name: str, annotation: str, to: Path) -> Path:
    """A flat folder of samples in the layout of the whole dataset."""
    (to / "annotations").mkdir(parents=True)
    (to / "images").mkdir()
    for path in (test_data / "samples" / name).glob("*.jpg"):
        shutil.copy(path, to / "images")
    shutil.copy(test_data / "samples" / name / f"test_{name}.json", to / "annotations" / annotation)
    return to


def test_real_crowdpose_people(test_data, tmp_path):
    root = laid_out(test_data, "crowdpose", "mmpose_crowdpose_test.json", tmp_path / "crowdpose")
    people = datasets.load("crowdpose", root)
    assert people.name == "crowdpose-sample" and len(people.instances) == 4 and len(people.images) == 2
    for person in people.instances:
        assert person.keypoints.shape == (14, 3) and datasets.read_image(person.image).ndim == 3
        assert person.area == pytest.approx(0.53 * person.bbox[2] * person.bbox[3])
    (root / "annotations" / "mmpose_crowdpose_test.json").rename(root / "annotations/crowdpose_test.json")
    assert datasets.load("crowdpose", root).sha256 == people.sha256  # the authors' own name for the file


def test_real_mpii_people(test_data, tmp_path):
    root = laid_out(test_data, "mpii", "mpii_val.json", tmp_path / "mpii")
    people = datasets.load("mpii", root)
    assert len(people.instances) == 5 and all(math.isnan(person.head) for person in people.instances)
    content = json.loads((root / "annotations" / "mpii_val.json").read_text())
    for entry, person in zip(content, people.instances, strict=True):
        labeled = person.keypoints[:, 2] > 0
        assert labeled.tolist() == [v == 1 for v in entry["joints_vis"]]
        moved = np.array(entry["joints"])[labeled] - 1
        assert person.keypoints[labeled, :2] == pytest.approx(moved)  # MATLAB counts from 1
        x, y, w, h = person.bbox
        assert w == h == pytest.approx(200 * entry["scale"])
        assert y + h / 2 == pytest.approx(entry["center"][1] + 15 * entry["scale"] - 1)
        matrix = transforms.crop_affine(person.bbox, (256, 256))  # the crop holds the body
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
        (lambda people: people[1].pop("scale"), "person 1: not image, center"),
        (lambda people: people[1].update(joints=[[1, 2]] * 15), "person 1: .15, 2. joints"),
        (lambda people: people[1].update(scale=-1), "person 1: a number that is none, or a scale"),
        (lambda people: people[1].update(center=[float("nan"), 1]), "person 1: a number that is none"),
        (lambda people: people[1].update(image="../x.jpg"), "person 1: image '../x.jpg' is not a file name"),
        (lambda people: people.clear(), "is not a list of people"),
    ],
)
def test_mpii_entries_that_are_none(test_data, tmp_path, change, words):
    root = laid_out(test_data, "mpii", "mpii_val.json", tmp_path / "mpii")
    path = root / "annotations" / "mpii_val.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        datasets.load("mpii", root)


def test_a_real_detectors_boxes(test_data, tmp_path, capsys):
    root = laid_out(test_data, "coco", "person_keypoints_val2017.json", tmp_path / "coco")
    (root / "images").rename(root / "val2017")
    people = datasets.load("coco", root)
    file = test_data / "samples" / "coco" / "test_coco_det_AP_H_56.json"
    found = detector_boxes.load_boxes(people, file)
    assert len(found.instances) > len(people.instances) and found.sha256 == people.sha256
    assert found.boxes == "detector: test_coco_det_AP_H_56.json" and len(found.boxes_sha256) == 64
    assert {p.image for p in found.instances} <= {p.image for p in people.instances}
    assert 0 < len(detector_boxes.load_boxes(people, file, 0.9).instances) < len(found.instances)
    best = [p for p in found.instances if p.score > 0.9]
    for person in people.instances:  # most annotated people have a box near theirs
        x, y, w, h = person.bbox
        near = [max(abs(a - b) for a, b in zip(p.bbox, person.bbox, strict=True)) for p in best]
        if w * h > 96**2 and min(near) < 0.1 * max(w, h):
            break
    else:
        raise AssertionError("no box lies near anybody")

    other = json.loads(file.read_text())
    for entry in other:
        entry["image_id"] += 5_000_000
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(
        ValueError, match="other.json is of other images: .* are not in person_keypoints_val2017"
    ):
        detector_boxes.load_boxes(people, tmp_path / "other.json")
    (tmp_path / "one.json").write_text(json.dumps([*json.loads(file.read_text())[:4], other[0]]))
    detector_boxes.load_boxes(people, tmp_path / "one.json")
    said = capsys.readouterr().out
    assert (
        "leaving out 1 boxes on images that are not in" in said and "images have no box in one.json" in said
    )
    with pytest.raises(FileNotFoundError, match="no detections at"):
        detector_boxes.load_boxes(people, tmp_path / "absent.json")
