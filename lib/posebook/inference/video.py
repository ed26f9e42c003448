"""Read frames of a video, of a folder of images, or of a camera, and write a video.

1. The number of frames in a video's header is an estimate: frames are read until OpenCV finds no other one.
   Up to MAX_DAMAGED consecutive frames that cannot be decoded are skipped.
2. A frame of a video has the time (number of frames before it) / (frame rate). A camera delivers frames at
   irregular intervals: the clock is read with each frame.
3. Ctrl+C ends a camera's frames like the end of a video, so that results are written. A second one aborts.
4. Videos are written as MPEG-4 Part 2, the only codec for .mp4 files that all builds of OpenCV contain. Video
   players show it, most browsers do not.
"""

import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from posebook.datasets import read_image
from posebook.inference.predict import check_encoding, frame_path, list_images

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")
MAX_DAMAGED = 25
FPS = 25.0  # of a folder of images, and of a video or camera whose frame rate is unknown
# FFmpeg's own messages are off. OpenCV reads this once, when the first video of a process is opened.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def is_video(path: str | Path) -> bool:
    """Whether a path has the suffix of a video file."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def _open_capture(source: int | str) -> cv2.VideoCapture:
    """Open a camera or file without OpenCV's own messages on stderr; an error is reported by the caller."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)
    try:
        return cv2.VideoCapture(source)
    finally:
        cv2.utils.logging.setLogLevel(level)


@dataclass(frozen=True)
class Frames:
    """The frames of a video, or the images of a folder in numerical order. It can be iterated repeatedly.

    count: of frames; of a video, as its header states. images: the files of a folder.
    """

    source: Path
    count: int
    fps: float
    images: tuple[Path, ...] = ()

    def __iter__(self) -> Iterator[tuple[Path, np.ndarray | None]]:
        """Each frame's name and RGB uint8 image (H, W, 3), None if it cannot be read."""
        if self.source.is_dir():
            for path in self.images:
                try:
                    yield path, read_image(path, upright=True)
                except ValueError as error:
                    print(f"skipped: {error}")
                    yield path, None
            return
        video, number, damaged = _open_capture(str(self.source)), 0, 0
        while damaged <= MAX_DAMAGED:
            found, frame = video.read()
            if not found:  # the end, or a frame that cannot be decoded
                damaged += 1
                continue
            for _ in range(damaged):
                number += 1
                print(f"skipped: frame {number} of {self.source.name} cannot be decoded")
                yield frame_path(number), None
            number, damaged = number + 1, 0
            yield frame_path(number), cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        video.release()
        if number < 0.98 * self.count:  # headers are often wrong by a few frames
            print(f"{self.source.name} ends after {number} of {self.count} frames: it is truncated")


def open_frames(source: str | Path) -> Frames:
    """The frames of a video file or of a folder of images.

    Raises FileNotFoundError if it does not exist, ValueError for a folder without images, for a file that
    OpenCV cannot open as a video, and for a video without frames.
    """
    source = Path(source)
    if source.is_dir():
        images = tuple(sorted(list_images([source]), key=_number_key))
        return Frames(source, len(images), FPS, images)
    if not source.is_file():
        raise FileNotFoundError(f"no video and no folder of frames at {source}")
    check_encoding(source)
    video = _open_capture(str(source))
    opened, has_frame = video.isOpened(), video.read()[0]
    count, fps = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), video.get(cv2.CAP_PROP_FPS)
    video.release()
    if not opened:
        raise ValueError(
            f"{source} cannot be opened as a video: it is not a video, or OpenCV does not support its codec; "
            "you can give a folder with its frames as images instead"
        )
    if not has_frame:
        raise ValueError(f"{source} has no frame that OpenCV can decode: check that a player shows it")
    return Frames(source, max(count, 1), _frame_rate(fps))


def _frame_rate(stated: float) -> float:
    """A frame rate as OpenCV states it, or FPS if it is unknown.

    Some files state an unknown rate as 0, 90,000, or, if a browser recorded them, as 1000.
    """
    return stated if 1 <= stated < 1000 else FPS


def _number_key(path: Path) -> list[str | int]:
    """A sort key that puts frame 2 before frame 10."""
    return [int(text) if text.isdecimal() else text for text in re.split(r"(\d+)", path.name)]


@dataclass(frozen=True)
class Stream:
    """Frames with their times, to be read once."""

    name: str
    # Seconds since the first frame, and RGB uint8 (H, W, 3), or None for a frame that cannot be read.
    frames: Iterable[tuple[float, np.ndarray | None]]
    fps: float  # of a video that shows the result
    count: int | None  # estimated number of frames, None if unknown


def video_stream(frames: Frames, limit: int | None = None) -> Stream:
    """The frames of a video, the first `limit` if it is given."""
    timed = ((index / frames.fps, image) for index, (_, image) in enumerate(frames))
    count = min(frames.count, limit or frames.count)
    return Stream(frames.source.name, itertools.islice(timed, limit), frames.fps, count)


def camera_stream(device: int | str, limit: int | None = None) -> Stream:
    """The frames of a camera until Ctrl+C, or until `limit` frames.

    device: number, or the path or URL of a device. Raises ValueError if it cannot be opened.
    """
    camera = _open_capture(device)
    if not camera.isOpened():
        raise ValueError(
            f"camera {device} cannot be opened: connect it, close other programs that use it, or "
            "give another number; the first camera is 0"
        )

    def frames() -> Iterator[tuple[float, np.ndarray]]:
        stopped, start = threading.Event(), None
        previous = signal.getsignal(signal.SIGINT)

        def stop(*_: object) -> None:
            stopped.set()
            signal.signal(signal.SIGINT, previous)

        signal.signal(signal.SIGINT, stop)
        try:
            while not stopped.is_set() and (read := camera.read())[0]:
                now = time.monotonic()
                start = now if start is None else start
                yield now - start, cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
        finally:
            signal.signal(signal.SIGINT, previous)
            camera.release()

    fps = _frame_rate(camera.get(cv2.CAP_PROP_FPS))
    return Stream(f"camera {device}", itertools.islice(frames(), limit), fps, limit)


@contextmanager
def write_video(path: Path, fps: float) -> Iterator[Callable[[float, np.ndarray], None]]:
    """Yield a function that adds a frame: its time in seconds, and an RGB uint8 image (H, W, 3).

    The file is created with the first frame. It has a constant frame rate: before a frame that comes late,
    the last one is repeated, and a frame that comes early is left out. Raises ValueError if OpenCV cannot
    write the video.
    """
    fps = round(fps, 3 if fps < 65 else 0)  # MPEG-4 stores a rate as a fraction of two numbers below 65,536
    writer, written = None, 0
    last: np.ndarray

    def add(seconds: float, image: np.ndarray) -> None:
        nonlocal writer, written, last
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if writer is None:
            size = (image.shape[1], image.shape[0])
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
            if not writer.isOpened():
                raise ValueError(
                    f"OpenCV cannot write a video of {size[0]} x {size[1]} pixels: use --no-overlays"
                )
        for position in range(written, round(seconds * fps) + 1):
            writer.write(image if position == round(seconds * fps) else last)
            written += 1
        last = image

    try:
        yield add
    finally:
        if writer is not None:
            writer.release()
