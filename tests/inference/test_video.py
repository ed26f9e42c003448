"""Reading videos and cameras, and writing videos. A file is opened like a camera."""

import signal
import time

import cv2
import numpy as np
import pytest

from posebook.inference import video


@pytest.fixture
def clip(tmp_path):
    """A video of 12 gray frames of 48 x 64 pixels at 12 frames per second, frame i has the value 20 i."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12, (64, 48))
    for i in range(12):
        writer.write(np.full((48, 64, 3), 20 * i, np.uint8))
    writer.release()
    return path


def test_frames_of_a_video_have_the_time_of_its_frame_rate(clip):
    stream = video.video_stream(video.open_frames(clip))
    assert stream.fps == 12 and stream.count == 12 and stream.name == "clip.avi"
    times, images = zip(*stream.frames, strict=True)
    assert times == pytest.approx(np.arange(12) / 12)
    assert [image.mean() for image in images] == pytest.approx(20 * np.arange(12), abs=2)
    short = video.video_stream(video.open_frames(clip), limit=5)
    assert short.count == 5 and len(list(short.frames)) == 5


@pytest.mark.parametrize(
    "stated, used", [(30.0, 30.0), (0.0, 25.0), (1000.0, 25.0), (90_000.0, 25.0), (float("nan"), 25.0)]
)
def test_impossible_frame_rate_counts_as_unknown(clip, monkeypatch, stated, used):
    capture = cv2.VideoCapture

    class Capture:
        """A capture that states another frame rate. A subclass of OpenCV's class would crash Python."""

        def __init__(self, source):
            self.capture = capture(source)

        def __getattr__(self, name):
            return getattr(self.capture, name)

        def get(self, prop):
            return stated if prop == cv2.CAP_PROP_FPS else self.capture.get(prop)

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    assert video.open_frames(clip).fps == used and video.camera_stream(str(clip)).fps == used


def test_a_frame_that_cannot_be_decoded_is_skipped(clip, capsys):
    content = clip.read_bytes()
    starts = [i for i in range(len(content)) if content.startswith(b"\xff\xd8\xff", i)]  # of each JPEG
    end = starts[5] - 8  # of the fifth frame's data
    clip.write_bytes(content[: starts[4]] + bytes(end - starts[4]) + content[end:])
    frames = list(video.open_frames(clip))
    assert len(frames) == 12 and [i for i, (_, image) in enumerate(frames) if image is None] == [4]
    assert [path.name for path, _ in frames] == [f"{number:06d}" for number in range(1, 13)]
    assert "frame 5 of clip.avi cannot be decoded" in capsys.readouterr().out
    readable = [
        time for time, image in video.video_stream(video.open_frames(clip)).frames if image is not None
    ]
    assert readable == pytest.approx(np.delete(np.arange(12), 4) / 12)


@pytest.mark.parametrize("fps", [119.1234, 238.534, 66.123, 59.94])
def test_a_video_is_written_at_any_frame_rate(tmp_path, fps):
    with video.write_video(tmp_path / "out.mp4", fps) as add:
        for number in range(8):
            add(number / fps, np.full((48, 64, 3), 30 * number, np.uint8))
    frames = video.open_frames(tmp_path / "out.mp4")
    assert frames.fps == pytest.approx(fps, rel=0.01) and len(list(frames)) == 8


def test_files_that_are_not_videos(tmp_path, capfd):
    with pytest.raises(FileNotFoundError, match="no video and no folder of frames at .*gone.mp4"):
        video.open_frames(tmp_path / "gone.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(ValueError, match="text.mp4 cannot be opened as a video"):
        video.open_frames(tmp_path / "text.mp4")
    cv2.VideoWriter(str(tmp_path / "none.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48)).release()
    with pytest.raises(ValueError, match="none.avi has no frame that OpenCV can decode"):
        video.open_frames(tmp_path / "none.avi")
    with pytest.raises(ValueError, match="camera 99 cannot be opened: connect it, close other programs"):
        video.camera_stream(99)
    assert capfd.readouterr().err == ""  # OpenCV and FFmpeg print nothing


def test_a_camera_reads_the_clock(clip):
    start, times = time.monotonic(), []
    for seconds, image in video.camera_stream(str(clip)).frames:
        assert image.shape == (48, 64, 3)
        times.append(seconds)
        time.sleep(0.01)
    assert len(times) == 12 and times[0] == 0 and times[-1] <= time.monotonic() - start
    assert min(np.diff(times)) >= 0.01


@pytest.fixture
def interrupts():
    """Python's handler of Ctrl+C, which a process started in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_a_camera_ends_after_a_number_of_frames_or_with_an_interrupt(clip):
    assert len(list(video.camera_stream(str(clip), limit=4).frames)) == 4
    count = 0
    for _ in video.camera_stream(str(clip)).frames:
        count += 1
        if count == 5:
            signal.raise_signal(signal.SIGINT)
    assert count == 5 and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):  # the second interrupt aborts
        for _ in video.camera_stream(str(clip)).frames:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_a_written_video_shows_each_frame_at_its_time(tmp_path, size):
    path = tmp_path / "out.mp4"
    stamps = [0.0, 0.1, 0.11, 0.5, 0.6]  # at 10 frames per second: the third is early, the fourth late
    with video.write_video(path, 10) as add:
        for i, seconds in enumerate(stamps):
            add(seconds, np.full((*size, 3), 50 * i, np.uint8))
    frames = video.open_frames(path)
    values = [round(image.mean() / 50) for _, image in frames]
    assert values == [0, 1, 2, 2, 2, 3, 4] and frames.fps == 10
    with video.write_video(tmp_path / "none.mp4", 10):
        pass
    assert not (tmp_path / "none.mp4").exists()


def test_a_video_that_cannot_be_written(tmp_path):
    with (
        pytest.raises(ValueError, match="OpenCV cannot write a video of 4 x 4 pixels: use --no-overlays"),
        video.write_video(tmp_path / "gone" / "out.mp4", 25) as add,
    ):
        add(0.0, np.zeros((4, 4, 3), np.uint8))
