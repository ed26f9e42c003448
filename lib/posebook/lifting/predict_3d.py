"""From a video to 3D: `posebook lift VIDEO --weights ... --lifter-weights ...`.

A net of pictures sees one person's joints frame by frame; a lifter tells where they are in space.

1. One person is followed: the largest box of the first frame that has any, then the one nearest to the last.
   Where even that is farther off than the last box is long, times the frames gone by, the person is lost.
2. So is, in a frame, whoever has no joint that the net scores 0.2 or more. Lost joints are put between those
   before and after, and it is said how many there were.
3. Nothing is known of the camera but the picture's size: poses are relative to the hip, in its axes, meters.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from torch import nn
from tqdm import tqdm

from posebook import paths, skeletons
from posebook.datasets import read_image
from posebook.evaluation import metrics
from posebook.inference import predict
from posebook.lifting import training
from posebook.lifting.camera import Camera
from posebook.lifting.clips import Clip, clip_inputs, fill_gaps
from posebook.lifting.models import Lifter
from posebook.lifting.skeleton import H36M, check_order, from_coco
from posebook.utils import sha256

LIFTER = paths.WEIGHTS / "lifter-motion.safetensors"
FPS = 25.0  # of a folder of frames, which does not say it


@dataclass(frozen=True)
class Frames:
    """A video's frames, or a folder's pictures in the order of their numbers; can be iterated again."""

    source: Path
    pictures: tuple[Path, ...]  # of a folder; of a video what its frames are called, as many as it claims
    fps: float

    def __iter__(self) -> Iterator[tuple[Path, np.ndarray | None]]:
        """Each frame's name and RGB uint8 (H, W, 3), None where a picture cannot be read."""
        if self.source.is_dir():
            for path in self.pictures:
                try:
                    yield path, read_image(path)
                except ValueError as error:
                    print(f"left out: {error}")
                    yield path, None
            return
        video, number = cv2.VideoCapture(str(self.source)), 0
        while (read := video.read())[0]:
            number += 1
            yield Path(f"{number:06d}"), cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
        video.release()
        if number < 0.98 * len(self.pictures):
            print(f"{self.source.name} ends after {number} of {len(self.pictures)} frames: it is cut off")


def open_frames(source: str | Path) -> Frames:
    """The frames of a video file or of a folder.

    Raises FileNotFoundError where there is none, ValueError for a folder without pictures and for what
    OpenCV cannot open as a video.
    """
    source = Path(source)
    if source.is_dir():
        return Frames(source, tuple(sorted(predict.list_images([source]), key=_numbered)), FPS)
    if not source.is_file():
        raise FileNotFoundError(f"no video and no folder of frames at {source}")
    video = cv2.VideoCapture(str(source))
    opened = video.isOpened() and video.read()[0]
    count, fps = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), video.get(cv2.CAP_PROP_FPS)
    video.release()
    if not opened:
        raise ValueError(
            f"{source} cannot be opened as a video: it is none, or OpenCV does not know how it is encoded; "
            "a folder with its frames as pictures will do as well"
        )
    return Frames(source, tuple(Path(f"{n:06d}") for n in range(1, max(count, 1) + 1)), fps or FPS)


def _numbered(path: Path) -> list[str | int]:
    """A key by which frame 2 comes before frame 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]


def nearest_box(boxes: np.ndarray, last: np.ndarray | None, gone: int = 1) -> int | None:
    """Which of boxes (N, 4) is the person whose box was `last` so many frames ago; None: nobody. Choice 1."""
    if not len(boxes):
        return None
    if last is None:
        return int((boxes[:, 2] * boxes[:, 3]).argmax())
    apart = np.hypot(*(boxes[:, :2] + boxes[:, 2:] / 2 - last[:2] - last[2:] / 2).T)  # (N,)
    return int(apart.argmin()) if apart.min() <= gone * last[2:].max() else None


@dataclass(frozen=True)
class Track:
    """One person's 2D joints through all frames."""

    clip: Clip  # keypoints (T, 17, 3) in Human3.6M's order, none of them lost any more; pose None
    boxes: np.ndarray  # (T, 4) x, y, w, h; NaN where no box was the person's
    lost: np.ndarray  # (T,) bool: frames without the person


def track_person(
    film: Frames,
    net: nn.Module,
    boxes: predict.BoxSource = predict.full_image_boxes,
    flip_test: bool = True,
    device: str = "cpu",
    batch: int = 32,
) -> Track:
    """Follow one person and find its joints in every frame.

    Raises ValueError for a net of other joints than COCO's or Human3.6M's, for frames of several sizes, where
    nobody was found, and where too much was lost (`data.fill_gaps`).
    """
    names = net.skeleton.keypoints
    if names != skeletons.get("coco").keypoints:
        check_order(names)
    net.to(device).eval()
    found, where, waiting = (
        [],
        [],
        [],
    )  # keypoints (17, 3) and boxes (4,) of each frame; pictures, not yet seen
    last, gone, size = None, 1, None

    def look() -> None:
        for (number, _), (points, scores) in zip(
            waiting,
            predict.predict_keypoints(net, [picture for _, picture in waiting], flip_test, device),
            strict=True,
        ):
            if metrics.mean_scores(scores)[0] > 0:  # choice 2
                found[number] = np.concatenate([points[0], scores[0][:, None]], -1)
        waiting.clear()

    for number, (path, image) in enumerate(tqdm(film, "2D", len(film.pictures), unit="frame")):
        found.append(np.full((17, 3), np.nan))
        where.append(np.full(4, np.nan))
        size = size or (None if image is None else image.shape[:2])
        if image is not None and image.shape[:2] != size:
            raise ValueError(f"{path} is of {image.shape[:2]} pixels, and the frames before it of {size}")
        seen, sure = boxes(path, image) if image is not None else (np.zeros((0, 4)), np.zeros(0))
        chosen = nearest_box(seen, last, gone)
        if chosen is None:
            gone += last is not None
            continue
        where[-1], last, gone = seen[chosen], seen[chosen], 1
        picture = predict.crop_boxes(path, image, seen[[chosen]], sure[[chosen]], net.input_size)
        waiting.append((number, replace(picture, image=image[:0])))  # the whole frame is no longer wanted
        if len(waiting) == batch:
            look()
    if waiting:
        look()
    keypoints, lost = np.stack(found), np.isnan(found).any((1, 2))
    if lost.all():
        raise ValueError(
            f"{film.source.name}: no person was found in any of {len(lost)} frames; if there is one, "
            "other boxes (a detector, a file) or weights that know such pictures may find it"
        )
    if names == skeletons.get("coco").keypoints:
        keypoints = from_coco(keypoints)
    keypoints, _ = fill_gaps(keypoints, film.source.name)
    camera = Camera(np.eye(3), np.zeros(3), size)
    return Track(Clip(film.source.name, "", keypoints, None, camera, film.fps), np.stack(where), lost)


def draw_frames(film: Frames, tracked: Track, count: int = 6) -> dict[int, np.ndarray]:
    """The 2D joints over so many frames (H, W, 3), evenly spread among those with the person, by number."""
    seen = np.flatnonzero(~tracked.lost)
    wanted = set(seen[np.linspace(0, len(seen) - 1, min(count, len(seen))).round().astype(int)].tolist())
    found = {}
    for number, (_, image) in enumerate(film):
        if number in wanted:
            points = tracked.clip.keypoints[number]
            found[number] = predict.draw_poses(image, points[None, :, :2], points[None, :, 2], H36M)
        if len(found) == len(wanted):
            break
    return found


def lift_clip(lifter: Lifter, clip: Clip, flip_test: bool = True, device: str = "cpu") -> np.ndarray:
    """Poses (T, 17, 3) of a clip, relative to the hip, in the camera's axes, meters.

    flip_test: the mean of what is found as it is and in a mirror. Raises ValueError for a clip that is
    shorter than the lifter's window.
    """
    x = clip_inputs(clip, lifter.channels)
    if len(x) < lifter.frames:
        raise ValueError(
            f"{clip.name} has {len(x)} frames, and the lifter's window is of {lifter.frames}: take a longer "
            "video, or a lifter of a shorter window"
        )
    return training.lift_sequence(lifter.to(device), x, flip_test).numpy()


def write_poses(out_dir: str | Path, tracked: Track, pose: np.ndarray, about: dict) -> Path:
    """Write OUT_DIR/poses3d.npz and the same as poses3d.json, for who has no NumPy; returns the first.

    pose (T, 17, 3); about: what is to be said of the nets.
    """
    out_dir, clip = Path(out_dir), tracked.clip
    out_dir.mkdir(parents=True, exist_ok=True)
    arrays = {"pose": pose.round(4), "keypoints": clip.keypoints.round(3), "lost": tracked.lost}
    np.savez_compressed(out_dir / "poses3d.npz", **arrays, joints=np.array(clip.joints), fps=clip.fps)
    facts = {
        "source": clip.name,
        "fps": clip.fps,
        "size": list(clip.camera.size),
        "joints": clip.joints,
        "axes": "x right, y down, z away from the camera; meters from the hip",
    }
    content = facts | about | {name: values.tolist() for name, values in arrays.items()}
    (out_dir / "poses3d.json").write_text(json.dumps(content) + "\n")
    return out_dir / "poses3d.npz"


def lift_video(
    film: Frames,
    model: nn.Module,
    lifter: Lifter,
    boxes: predict.BoxSource,
    flip_test: bool,
    device: str,
    out_dir: str | Path,
    weights: tuple[str, str],
) -> tuple[Track, Path]:
    """Follow one person through a video and write the 3D poses and some frames with the 2D joints drawn
    over them.

    weights: the files of the 2D model and of the lifter, whose hashes are stored. Returns the track and
    poses3d.npz.
    """
    tracked = track_person(film, model, boxes, flip_test, device)
    pose = lift_clip(lifter, tracked.clip, flip_test, device)
    path = write_poses(
        out_dir, tracked, pose, {"weights": sha256(weights[0]), "lifter_weights": sha256(weights[1])}
    )
    for number, image in draw_frames(film, tracked).items():
        target = Path(out_dir) / "overlays" / f"{number + 1:06d}.jpg"
        target.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(target), image[..., ::-1])
    return tracked, path
