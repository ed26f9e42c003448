"""Loaders on real files, and what they say of broken ones."""

import json
import shutil

import cv2
import numpy as np
import pytest

from posebook import datasets

COCO = "coco_sample"


def test_real_coco_people(test_data):
    people = datasets.load("coco", test_data / COCO, "val2017")
    assert len(people.persons) == 68 and people.skeleton.name == "coco" and len(people.sha256) == 64
    for person in people.persons:
        image = datasets.read_image(person.image)
        x, y, w, h = person.bbox
        assert 0 <= x < x + w <= image.shape[1] and 0 <= y < y + h <= image.shape[0]
        assert person.keypoints.shape == (17, 3) and (person.keypoints[:, 2] > 0).any()


def test_real_lspet_people(test_data):
    train, val = (datasets.load("lspet", test_data / "lspet", split) for split in ("train", "val"))
    assert (len(train.persons), len(val.persons)) == (3500, 500)
    assert {p.image.name for p in val.persons} == {f"im{n:05d}.jpg" for n in range(3501, 4001)}
    left, right = (train.skeleton.keypoints.index(f"{side}_shoulder") for side in ("left", "right"))
    first = np.mean([p.keypoints[9, 2] > 0 and p.keypoints[2, 2] > 0 for p in val.persons])
    assert (left, right) == (9, 8) and round(first, 2) == 0.74
    for person in val.persons[:50]:
        seen = person.keypoints[person.keypoints[:, 2] > 0, :2]
        x, y, w, h = person.bbox
        assert (seen.min(0) == (x, y)).all() and seen.max(0) == pytest.approx([x + w, y + h])


@pytest.mark.parametrize(
    "name, words", [("coco", "person_keypoints_val2017.json"), ("lspet", "joints.mat"), ("synthetic", "val")]
)
def test_a_missing_dataset_says_where_what_and_how(tmp_path, name, words):
    with pytest.raises(datasets.DatasetMissing) as error:
        datasets.load(name, tmp_path)
    text = str(error.value)
    assert (
        str(tmp_path) in text
        and words in text
        and ("https://" in text or "http://" in text or "python -m" in text)
    )


def test_unknown_names_offer_the_near_ones(tmp_path):
    with pytest.raises(ValueError, match="unknown dataset 'cocoa'; did you mean coco"):
        datasets.load("cocoa", tmp_path)
    with pytest.raises(ValueError, match="unknown split of coco 'val2014'; did you mean val2017"):
        datasets.load("coco", tmp_path, "val2014")
    with pytest.raises(ValueError, match="unknown split of lspet 'vall'; did you mean val"):
        datasets.load("lspet", tmp_path, "vall")


def test_the_default_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("POSEBOOK_DATA", str(tmp_path))
    with pytest.raises(datasets.DatasetMissing, match=str(tmp_path / "lspet")):
        datasets.load("lspet")


@pytest.fixture
def made(tmp_path):
    """Twenty pictures with a person each, in COCO's layout; returns root and the annotation's content."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val").mkdir()
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    for i in range(1, 21):
        name = f"{i:03d}.jpg"
        picture = np.random.default_rng(i).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "val" / name), picture)
        content["images"].append({"id": i, "file_name": name, "height": 60, "width": 80})
        content["annotations"].append(
            {"id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 40, 50], "area": 900.0, "iscrowd": 0}
            | {"num_keypoints": 17, "keypoints": [10, 20, 2] * 17}
        )

    def write(change=lambda content: None):
        change(content)
        (tmp_path / "annotations" / "person_keypoints_val.json").write_text(json.dumps(content))
        return tmp_path

    return write


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def test_broken_images_are_named_and_skipped(made, capsys):
    root = made()
    cut(root / "val" / "003.jpg")
    (root / "val" / "004.jpg").unlink()
    people = datasets.load("synthetic", root)
    assert len(people.persons) == 18 and people.describe()["skipped_images"] == 2
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

    assert len(datasets.load("synthetic", made(lambda c: orphan(c, 2))).persons) == 18
    assert "annotation 1 (of image 1001, not in the file)" in capsys.readouterr().out
    with pytest.raises(ValueError, match="10 annotations point at no image, more than 5"):
        datasets.load("synthetic", made(lambda c: orphan(c, 10)))


def test_crowds_and_people_without_joints_do_not_count(made):
    def change(content):
        content["annotations"][0]["iscrowd"] = 1
        content["annotations"][1]["num_keypoints"] = 0

    assert len(datasets.load("synthetic", made(change)).persons) == 18


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
    assert a.sha256 == b.sha256 and [p.id for p in a.persons] == [p.id for p in b.persons]
