"""Errors of `posebook predict`: one line, exit code 2, and no files."""

import json
import shutil
import struct
import zlib

import cv2
import numpy as np
import pytest

from posebook import cli
from posebook.inference import predict


def png(path, side: int):
    """A PNG file of a few bytes whose header states an image of side x side pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(100)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b""))
    return path


@pytest.fixture
def folder(tmp_path):
    """A folder of inputs with all kinds of faults, and one image."""
    path = tmp_path / "input"
    path.mkdir()
    (path / "text.mp4").write_text("not a video")
    cv2.VideoWriter(str(path / "none.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48)).release()
    png(path / "huge.png", 40_000)
    (path / "broken.jpg").write_text("not an image")
    (path / "empty").mkdir()
    cv2.imwrite(str(path / "a.png"), np.zeros((40, 30, 3), np.uint8))
    shutil.copy(path / "a.png", path / "caf\udce9.jpg")  # a name in Latin-1
    return path


@pytest.mark.parametrize(
    "words, message",
    [
        (["text.mp4"], "text.mp4 cannot be opened as a video: it is not a video"),
        (["none.avi"], "none.avi has no frame that OpenCV can decode"),
        (["gone.mp4"], "no video and no folder of frames at"),
        (["huge.png"], "huge.png is too large: OpenCV decodes at most 2^30 pixels, such as 32768 x 32768"),
        (["broken.jpg"], "no image could be read: "),
        (["broken.jpg", "huge.png"], "broken.jpg cannot be decoded as an image (and 1 other images)"),
        (["empty"], "no image in "),
        (["--camera", "99"], "camera 99 cannot be opened: connect it"),
        ([], "give images and folders, or one video, or --camera NUMBER"),
        (["caf\udce9.jpg"], "caf\\udce9.jpg' is not UTF-8: rename the file"),
        (["text.mp4", "none.avi"], "give images and folders, or one video, or --camera NUMBER"),
        (["a.png", "--camera", "0"], "give images and folders, or one video, or --camera NUMBER"),
        (["a.png", "--frames", "3"], "--frames is a positive number of frames of a video or camera"),
        (["none.avi", "--frames", "0"], "--frames is a positive number of frames of a video or camera"),
        (["--camera", "0", "--record"], "--boxes and --record need images or a video, not a camera"),
        (["a.png", "--out-dir", "text.mp4/out"], "text.mp4 is a file: choose another folder"),
    ],
)
def test_an_error_is_one_line_and_leaves_no_files(words, message, folder, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["predict", "--out-dir", "../out", "--runtime", "pytorch", *words])
    error = capfd.readouterr().err
    assert exit_info.value.code == 2 and error.count("\n") == 1
    assert error.startswith("error: ") and message in error
    assert sorted(tmp_path.rglob("*")) == before


def test_images_without_people_are_not_an_error(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    boxes = [{"file_name": "a.png", "bbox": [1, 2, 20, 30], "score": 0.9}]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    cv2.imwrite("b.png", np.zeros((40, 30, 3), np.uint8))
    cli.main(["predict", "a.png", "b.png", "--boxes", "../boxes.json", "--out-dir", "../one"])
    assert "1 people in 2 images, " in capsys.readouterr().out
    monkeypatch.setattr(
        predict, "full_image_boxes", lambda *_: (np.zeros((0, 4)), np.zeros(0))
    )  # as a detector that finds none
    cli.main(["predict", "a.png", "b.png", "--out-dir", "../none"])
    assert "0 people in 2 images, 0.0 people/s with pytorch" in capsys.readouterr().out
    assert json.loads((tmp_path / "none" / "predictions.json").read_text()) == []
    assert (tmp_path / "none" / "predictions.csv").read_text() == "file,person,joint,x,y,score\n"
    assert len(list((tmp_path / "none" / "overlays").iterdir())) == 2
