"""The split val_occluded: rectangles over people, and the joints under them."""

import json
import shutil

import cv2
import numpy as np
import pytest

from posebook import cli, datasets
from posebook.datasets.synthetic import occlusion, writing


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    writing.generate(folder, 1, 6, workers=1)
    occlusion.write_occluded(folder)
    return folder


def test_joints_under_changed_pixels_become_hidden(root):
    """A visible joint stays visible only outside all rectangles; no joint becomes visible."""
    plain, occluded = (datasets.load("synthetic", root, split) for split in ("val", "val_occluded"))
    assert len(plain.instances) == len(occluded.instances) > 3
    hidden = 0
    for before, after in zip(plain.instances, occluded.instances, strict=True):
        assert before.bbox == after.bbox and before.area == after.area
        np.testing.assert_array_equal(before.keypoints[:, :2], after.keypoints[:, :2])
        old, new = (cv2.imread(str(person.image)).astype(int) for person in (before, after))
        covered = np.abs(old - new).max(-1) > 40  # more than JPEG's errors
        for (x, y, v), (_, _, w) in zip(before.keypoints, after.keypoints, strict=True):
            if v != w:
                assert (v, w) == (2, 1)
                hidden += 1
                row, column = round(y), round(x)
                assert covered[max(0, row - 8) : row + 9, max(0, column - 8) : column + 9].any()
    assert hidden > 3


def test_same_seed_writes_the_same_files(root, tmp_path):
    shutil.copytree(root, tmp_path / "again")
    path = occlusion.write_occluded(tmp_path / "again")
    assert path.read_bytes() == (root / "annotations" / path.name).read_bytes()
    for image in (root / "val_occluded").iterdir():
        assert image.read_bytes() == (tmp_path / "again" / "val_occluded" / image.name).read_bytes()
    occlusion.write_occluded(tmp_path / "again", seed=1)
    assert path.read_bytes() != (root / "annotations" / path.name).read_bytes()


def test_rectangles_lie_in_the_box_and_in_the_image():
    rng = np.random.default_rng(0)
    for _ in range(200):
        w, h = rng.uniform(5, 300, 2)
        box = [rng.uniform(0, 320 - 5), rng.uniform(0, 240 - 5), w, h]
        left, top, right, bottom = occlusion.sample_rectangle(rng, box, (240, 320))
        assert 0 <= left < right <= 320 and 0 <= top < bottom <= 240
        assert left >= round(box[0]) - 1 and right <= box[0] + w + 1


def test_command_writes_the_split(tmp_path, root):
    """`posebook synthesize --occluded` renders nothing again if the images are there."""
    info = json.loads((root / "annotations/person_keypoints_val.json").read_text())["info"]
    shutil.copytree(root, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "val_occluded")
    counts = ["--train-images", "1", "--val-images", str(info["images"])]
    cli.main(["synthesize", "--root", str(tmp_path / "copy"), *counts, "--occluded"])
    assert len(list((tmp_path / "copy" / "val_occluded").iterdir())) == info["images"]


def test_missing_validation_split_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no validation split in .*: run posebook synthesize --root"):
        occlusion.write_occluded(tmp_path)
