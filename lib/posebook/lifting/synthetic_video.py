"""A synthetic video: a rendered person walks in a circle in front of the camera.

It is a video to lift if you have none, and it has ground truth: the 3D joints are known. The frames are
rendered like the bundled synthetic images, with one person in one room.

1. The angles of hip, knee and ankle over a stride are set by hand after the usual plots of level walking
   (Winter, "Biomechanics and Motor Control of Human Movement"). The arms swing in the opposite direction. The
   walker moves at a constant speed that only roughly matches the stride length, so a standing foot slides a
   little.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from posebook.datasets.synthetic import anatomy, bodies, drawing, scenes, writing
from posebook.lifting.camera import Camera
from posebook.lifting.skeleton import from_coco

FPS = 25.0
STRIDES = 0.9  # per second, two steps each
RADIUS = 1.1  # meters
DISTANCE = 4.5  # meters from the camera to the center of the circle
START = np.pi - 0.4  # radians: the walker comes towards the camera first
# Flexion in degrees at equal intervals over a stride that starts with heel contact.
HIP = (26, 20, 9, -3, -13, -6, 14, 27)
KNEE = (5, 16, 9, 6, 14, 48, 58, 22)
ANKLE = (0, 4, -3, -8, -4, 18, 4, 0)
STRIDE = 0.68  # of stature


@dataclass(frozen=True)
class SyntheticVideo:
    """The rendered frames and their ground truth."""

    images: np.ndarray  # (T, H, W, 3) RGB uint8
    boxes: np.ndarray  # (T, 4) x, y, w, h of the walker, pixels
    pose: np.ndarray  # (T, 17, 3): Human3.6M's joints, converted from COCO's, in camera axes, meters
    camera: Camera
    fps: float = FPS


def pose(stride: float) -> dict:
    """The joint angles of the walker after a number of strides, in degrees, for `bodies.person`."""
    angles = dict.fromkeys(anatomy.LIMITS, 0.0) | {"spine_flex": 3.0, "neck_flex": 4.0}
    for side, phase in (("left", stride % 1), ("right", (stride + 0.5) % 1)):
        hip, knee, ankle = (np.interp(phase * 8, range(9), (*keys, keys[0])) for keys in (HIP, KNEE, ANKLE))
        swing = np.cos(2 * np.pi * phase)  # positive while the leg is ahead and the arm is back
        angles |= {f"{side}_hip_flex": hip, f"{side}_knee": knee, f"{side}_ankle": ankle}
        angles |= {f"{side}_shoulder_flex": 4 - 22 * swing, f"{side}_elbow": 24 - 10 * swing}
        angles |= {f"{side}_shoulder_abduct": 9.0, f"{side}_hip_abduct": 3.0, f"{side}_hip_rotate": 6.0}
    return angles | {
        "family": "walk",
        "pitch": 2.0,
        "lift": 0.0,
        "spine_twist": 6 * np.cos(2 * np.pi * stride),
    }


def walk(frames: int = 81, seed: int = 0) -> SyntheticVideo:
    """Render a walk at 25 frames per second; the seed determines the walker and the room."""
    look = bodies.sample_look(np.random.default_rng(seed))
    view = scenes.make_camera(1.35, 8.0, 0.0, 390.0)
    speed = STRIDE * look.stature * STRIDES  # meters a second
    room = {"outdoor": False, "wall": 7.0, "skew": 9.0, "height": 2.9, "ceiling": True, "seed": seed}
    images, boxes, joints = [], [], []
    for frame in range(frames):
        seconds = frame / FPS
        angle = START + speed * seconds / RADIUS  # on the circle, radians
        position = RADIUS * np.cos(angle), DISTANCE + RADIUS * np.sin(angle)
        yaw = -np.degrees(angle)  # tangential to the circle
        person = bodies.person(np.random.default_rng(seed + 1), look, pose(STRIDES * seconds), yaw, position)
        scene = scenes.Scene(view, [person], room=room, photo={"noise": 0.006, "seed": frame})
        buffers = drawing.rasterize(scene)
        images.append(drawing.expose(scene, buffers))
        (mask,) = writing.masks(buffers, 1)
        y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append((x[0], y[0], x[-1] - x[0] + 1, y[-1] - y[0] + 1))
        joints.append(person.joints[:17])
    focal, center = np.full(2, view.focal), np.array(view.center)
    camera = Camera(view.rotation, -view.rotation @ view.position, scenes.SIZE, focal, center)
    points = camera.world_to_camera(np.stack(joints))  # (T, 17, 3)
    truth, eyes = from_coco(points), points[:, 1:3].mean(1)
    truth[:, 10] = eyes + 2 * (eyes - points[:, 0])  # `from_coco` does this only for x and y
    return SyntheticVideo(np.stack(images), np.array(boxes, float), truth, camera)


def save(video: SyntheticVideo, folder: str | Path) -> tuple[Path, Path]:
    """Write FOLDER/walk.avi and FOLDER/boxes.json, the walker's boxes in COCO's results format."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    video_path, boxes_path = folder / "walk.avi", folder / "boxes.json"
    height, width = video.images.shape[1:3]
    writer = cv2.VideoWriter(str(video_path), cv2.VideoWriter.fourcc(*"MJPG"), video.fps, (width, height))
    if not writer.isOpened():
        raise OSError(f"OpenCV cannot write {video_path}")
    for image in video.images:
        writer.write(image[..., ::-1])
    writer.release()
    entries = [
        {"image_id": number, "category_id": 1, "bbox": box, "score": 1.0}
        for number, box in enumerate(video.boxes.tolist(), 1)
    ]
    boxes_path.write_text(json.dumps(entries))
    return video_path, boxes_path
