"""Lift one person in a video to 3D: `posebook lift VIDEO --weights ... --lifter-weights ...`.

A 2D pose model detects the person's joints in each frame; a lifter predicts their 3D positions.

1. One person is tracked: the largest box of the first frame with a box, then always the nearest box. The
   person is lost if the nearest box is farther away than the last box is long, times the frames since then.
2. The person is also lost in a frame if the model scores no joint 0.2 or more. Missing joints are
   interpolated over time, and the number of these frames is printed.
3. Only the image size of the camera is known. Poses are relative to the hip, in camera axes, meters.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from posebook import paths, skeletons
from posebook.evaluation import metrics
from posebook.inference import output, predict
from posebook.inference.video import Frames
from posebook.lifting import training
from posebook.lifting.camera import Camera
from posebook.lifting.clips import Clip, clip_inputs, fill_gaps
from posebook.lifting.models import Lifter
from posebook.lifting.skeleton import H36M, check_order, from_coco
from posebook.models.layers import PoseModel
from posebook.utils import sha256

LIFTER = paths.WEIGHTS / "lifter-motion.safetensors"


def nearest_box(boxes: np.ndarray, last: np.ndarray | None, gone: int = 1) -> int | None:
    """The index in boxes (N, 4) of the person with box `last`, `gone` frames ago; None if lost. Choice 1."""
    if not len(boxes):
        return None
    if last is None:
        return int((boxes[:, 2] * boxes[:, 3]).argmax())
    distance = np.hypot(*(boxes[:, :2] + boxes[:, 2:] / 2 - last[:2] - last[2:] / 2).T)  # (N,) of centers
    return int(distance.argmin()) if distance.min() <= gone * last[2:].max() else None


@dataclass(frozen=True)
class Track:
    """One person's 2D joints in all frames."""

    clip: Clip  # keypoints (T, 17, 3) in Human3.6M's order, gaps filled; pose None
    boxes: np.ndarray  # (T, 4) x, y, w, h; NaN if no box is the person's
    lost: np.ndarray  # (T,) bool: frames without the person


def _crop_person(
    frames: Frames, boxes: predict.BoxSource, input_size: tuple[int, int], udp: bool
) -> Iterator[predict.ImageCrops | None]:
    """For each frame the crop of the tracked person, None if lost. udp: see `predict.crop_boxes`.

    Raises ValueError if the images have several sizes.
    """
    last, gone, size = None, 1, None
    for path, image in tqdm(frames, "2D", frames.count, unit="frame"):
        candidates, scores = np.zeros((0, 4)), np.zeros(0)
        if image is not None:
            size = size or image.shape[:2]
            if image.shape[:2] != size:
                raise ValueError(f"{path} has {image.shape[:2]} pixels, but the frames before it {size}")
            candidates, scores = boxes(path, image)
        chosen = nearest_box(candidates, last, gone)
        if image is None or chosen is None:
            gone += last is not None
            yield None
            continue
        last, gone = candidates[chosen], 1
        crops = predict.crop_boxes(path, image, candidates[[chosen]], scores[[chosen]], input_size, udp)
        yield replace(crops, image=np.broadcast_to(np.uint8(0), image.shape))  # keeps only the shape


def track_person(
    frames: Frames,
    model: PoseModel,
    boxes: predict.BoxSource = predict.full_image_boxes,
    flip_test: bool = True,
    device: str = "cpu",
    batch_size: int = 32,
) -> Track:
    """Track one person and predict the 2D joints in each frame.

    Raises ValueError if the model's joints are neither COCO's nor Human3.6M's, if the images have several
    sizes, if no person is found, and if too many joints are missing (`clips.fill_gaps`).
    """
    is_coco = model.skeleton.keypoints == skeletons.get("coco").keypoints
    if not is_coco:
        check_order(model.skeleton.keypoints)
    model.to(device).eval()
    joints: list[np.ndarray] = []  # (17, 3) for each frame
    person_boxes: list[np.ndarray] = []  # (4,) for each frame
    pending: list[tuple[int, predict.ImageCrops]] = []  # crops without a prediction, with their frame

    def predict_pending() -> None:
        results = predict.predict_keypoints(model, [crops for _, crops in pending], flip_test, device)
        for (frame, _), (points, scores) in zip(pending, results, strict=True):
            if metrics.mean_scores(scores)[0] > 0:  # choice 2
                joints[frame] = np.concatenate([points[0], scores[0][:, None]], -1)
        pending.clear()

    size = None
    for frame, crops in enumerate(_crop_person(frames, boxes, model.input_size, model.udp)):
        joints.append(np.full((17, 3), np.nan))
        person_boxes.append(np.full(4, np.nan) if crops is None else crops.boxes[0])
        if crops is not None:
            pending.append((frame, crops))
            size = crops.image.shape[:2]
        if len(pending) == batch_size:
            predict_pending()
    if pending:
        predict_pending()
    keypoints, name = np.stack(joints), frames.source.name
    lost = np.asarray(np.isnan(keypoints).any((1, 2)))
    if lost.all() or size is None:
        raise ValueError(
            f"{name}: no person was found in any of {len(lost)} frames; if there is one, use other boxes (a "
            "detector, a file) or weights that were trained on such images"
        )
    keypoints = fill_gaps(from_coco(keypoints) if is_coco else keypoints, name)
    clip = Clip(name, "", keypoints, None, Camera(np.eye(3), np.zeros(3), size), frames.fps)
    return Track(clip, np.stack(person_boxes), lost)


def draw_frames(frames: Frames, track: Track, count: int = 6) -> dict[int, np.ndarray]:
    """Up to `count` frames with the person, evenly spaced, with the 2D joints: {index: (H, W, 3)}."""
    found = np.flatnonzero(~track.lost)
    chosen = set(found[np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)].tolist())
    drawn: dict[int, np.ndarray] = {}
    for index, (_, image) in enumerate(frames):
        if index in chosen and image is not None:
            points = track.clip.keypoints[index]
            drawn[index] = output.draw_poses(image, points[None, :, :2], points[None, :, 2], H36M)
        if len(drawn) == len(chosen):
            break
    return drawn


def lift_clip(lifter: Lifter, clip: Clip, flip_test: bool = True, device: str = "cpu") -> np.ndarray:
    """Lift a clip to poses (T, 17, 3) relative to the hip, in camera axes, meters.

    flip_test: average with the prediction for the mirrored clip. Raises ValueError if the clip is shorter
    than the lifter's window.
    """
    return training.lift_sequence(lifter.to(device), clip_inputs(clip, lifter.channels), flip_test).numpy()


def write_poses(out_dir: str | Path, track: Track, pose: np.ndarray, facts: dict) -> Path:
    """Write OUT_DIR/poses3d.npz, and poses3d.json for use without NumPy; returns the first.

    The JSON file also has the size of the images and the meaning of the axes.

    pose: (T, 17, 3); facts: further entries of the JSON file, such as the models.
    """
    out_dir, clip = Path(out_dir), track.clip
    out_dir.mkdir(parents=True, exist_ok=True)
    pose, keypoints = pose.round(4), clip.keypoints.round(3)
    np.savez_compressed(
        out_dir / "poses3d.npz",
        pose=pose, keypoints=keypoints, lost=track.lost, joints=np.array(clip.joints), fps=clip.fps,
    )  # fmt: skip
    content = {
        "source": clip.name,
        "fps": clip.fps,
        "size": list(clip.camera.size),
        "joints": clip.joints,
        "axes": "x right, y down, z away from the camera; meters from the hip",
    } | facts
    content |= {"pose": pose.tolist(), "keypoints": keypoints.tolist(), "lost": track.lost.tolist()}
    (out_dir / "poses3d.json").write_text(json.dumps(content) + "\n")
    return out_dir / "poses3d.npz"


def lift_video(
    frames: Frames,
    model: PoseModel,
    lifter: Lifter,
    boxes: predict.BoxSource,
    flip_test: bool,
    device: str,
    out_dir: str | Path,
    weights: tuple[str, str],
) -> tuple[Track, Path]:
    """Track one person in a video, write the 3D poses and some frames with the 2D joints drawn on them.

    weights: the files of the 2D model and of the lifter; their hashes are stored. Returns the track and the
    path of poses3d.npz.
    """
    track = track_person(frames, model, boxes, flip_test, device)
    pose = lift_clip(lifter, track.clip, flip_test, device)
    facts = {"weights": sha256(weights[0]), "lifter_weights": sha256(weights[1])}
    path = write_poses(out_dir, track, pose, facts)
    overlays = Path(out_dir) / "overlays"
    shutil.rmtree(overlays, ignore_errors=True)  # of another video
    overlays.mkdir()
    for index, image in draw_frames(frames, track).items():
        target = overlays / f"{predict.frame_path(index + 1)}.jpg"
        cv2.imwrite(str(target), image[..., ::-1])
    return track, path
