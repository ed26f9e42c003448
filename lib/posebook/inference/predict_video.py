"""Pose prediction on a video or a camera, with tracks: `posebook predict VIDEO` or `--camera 0`.

1. A thread per core detects and crops people while the model runs. Frames are tracked, smoothed and drawn in
   order.
2. Tracks use the predicted joints. Only the results are smoothed, so that smoothing cannot break a track.
3. Frames are numbered from 1. predictions.json has the frame as image_id, its time in seconds, and the track.
"""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from posebook.inference import output, smoothing, tracking, video
from posebook.inference.predict import (
    BoxSource,
    ImageCrops,
    Settings,
    find_people,
    frame_path,
    full_image_boxes,
    make_entries,
    predict_people,
)
from posebook.inference.stages import CORES, BoundedQueue, StageTimes, prefetch
from posebook.models.layers import PoseModel
from posebook.skeletons import Skeleton

COLUMNS = {"frame": "frame", "time": "time", "track": "track_id"}  # of predictions.csv -> of an entry


def predict_video(
    model: PoseModel,
    stream: video.Stream,
    out_dir: str | Path,
    boxes: BoxSource = full_image_boxes,
    settings: Settings | None = None,
    smooth: bool = True,
    times: StageTimes | None = None,
) -> list[dict]:
    """Predict all frames; write OUT_DIR/predictions.json, OUT_DIR/predictions.csv and OUT_DIR/overlay.mp4.

    smooth: filter each joint of a track over time. Returns the entries. Raises ValueError if there is no
    frame. After an error, OUT_DIR is unchanged.
    """
    settings, times = settings or Settings(), times or StageTimes()
    model.to(settings.device).eval()
    stamps: list[tuple[int, float]] = []  # number, from 1, and seconds of each frame that can be read
    entries: list[dict] = []

    def jobs() -> Iterator[Callable[[], ImageCrops]]:
        frames = iter(stream.frames)
        for number in itertools.count(1):
            with times.measure("read"):
                frame = next(frames, None)
            if frame is None:
                return
            seconds, image = frame
            if image is not None:
                stamps.append((number, seconds))
                yield partial(find_people, frame_path(number), image, boxes, model, times)

    follow = make_tracker(model.skeleton, smooth)
    with (
        output.staged_folder(out_dir) as folder,
        video.write_video(folder / "overlay.mp4", stream.fps) as add_frame,
        ThreadPoolExecutor(CORES) as pool,
        ThreadPoolExecutor(1) as drawing_pool,  # a single thread keeps the order of the frames
    ):
        drawing = BoundedQueue(drawing_pool)
        crops = (future.result() for future in prefetch(jobs(), pool))
        results = times.progress(predict_people(model, crops, settings, times), stream.count, "frame")
        for index, (image, points, scores) in enumerate(results):
            number, seconds = stamps[index]
            numbers, points = follow(points, image.boxes, seconds)
            facts = {"image_id": number, "frame": number, "time": round(seconds, 4)}
            entries += make_entries(image, points, scores, [facts | {"track_id": n} for n in numbers])
            if settings.overlays:
                drawing.submit(
                    _draw, add_frame, seconds, image, points, scores, numbers, model.skeleton, times
                )
        drawing.finish()
        if not stamps:
            raise ValueError(f"{stream.name}: no frame could be read")
        labels = {key: [entry[name] for entry in entries] for key, name in COLUMNS.items()}
        output.write_results(folder, entries, model.skeleton.keypoints, labels)
    times.finish()
    return entries


def make_tracker(
    skeleton: Skeleton, smooth: bool
) -> Callable[[np.ndarray, np.ndarray, float], tuple[list[int], np.ndarray]]:
    """Return a function that is called with each frame in order.

    It takes keypoints (N, K, 2), boxes (N, 4) and the time in seconds, and returns the numbers of the tracks
    and the keypoints, smoothed if `smooth` is set.
    """
    sigmas, new_numbers = tracking.track_sigmas(skeleton), itertools.count(1)
    tracks: list[tracking.Track] = []
    states: dict[int, smoothing.FilterState] = {}

    def follow(keypoints: np.ndarray, boxes: np.ndarray, seconds: float) -> tuple[list[int], np.ndarray]:
        nonlocal tracks, states
        areas = boxes[:, 2] * boxes[:, 3]  # (N,)
        numbers, tracks = tracking.update_tracks(tracks, keypoints, areas, sigmas, new_numbers)
        if not smooth:
            return numbers, keypoints
        for number, points, area in zip(numbers, keypoints, areas, strict=True):
            states[number] = smoothing.smooth(states.get(number), points, seconds, float(np.sqrt(area)))
        alive = {track.number for track in tracks}
        states = {number: state for number, state in states.items() if number in alive}
        smoothed = np.array([states[number].points for number in numbers]).reshape(keypoints.shape)
        return numbers, smoothed

    return follow


def _draw(
    add_frame: Callable[[float, np.ndarray], None],
    seconds: float,
    image: ImageCrops,
    points: np.ndarray,
    scores: np.ndarray,
    numbers: list[int],
    skeleton: Skeleton,
    times: StageTimes,
) -> None:
    """Add a frame with poses and the numbers of their tracks to a video."""
    with times.measure("draw"):
        drawn = output.draw_poses(image.image, points, scores, skeleton)
        unit = max(1, round(max(drawn.shape[:2]) / 640))
        for number, (x, y) in zip(numbers, image.boxes[:, :2], strict=True):
            corner = (int(max(x, 0)), int(max(y, 0)) + 14 * unit)
            for color, width in (((255, 255, 255), 3 * unit), ((0, 0, 0), unit)):  # white outline
                cv2.putText(drawn, str(number), corner, cv2.FONT_HERSHEY_SIMPLEX, unit / 2, color, width)
        add_frame(seconds, drawn)
