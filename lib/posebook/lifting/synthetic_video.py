"""A made-up film: one person of the embedded pictures walks a circle before the camera.

So that a video can be lifted where nobody has one at hand, and what comes out be held against the truth:
the joints are known in space. Frames are drawn as the embedded pictures are, one person in one room.

1. The angles of hip, knee and ankle over a stride are set by hand after the usual plots of level walking
   (Winter, "Biomechanics and Motor Control of Human Movement"); arms swing against them. The walker moves on
   evenly, about as fast as the strides are long: a standing foot slides a little.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from posebook.datasets.synthetic import anatomy, bodies, drawing, scenes, writing
from posebook.datasets.synthetic.drawing import expose
from posebook.lifting.camera import Camera
from posebook.lifting.skeleton import from_coco

FPS = 25.0
STRIDES = 0.9  # two steps each, in a second
RADIUS = 1.1  # meters
DISTANCE = 4.5  # meters from the camera to the middle of the circle
START = np.pi - 0.4  # radians: the walker comes towards the camera first
# Degrees over a stride from the heel's touching the ground, evenly spaced: flexion.
HIP = (26, 20, 9, -3, -13, -6, 14, 27)
KNEE = (5, 16, 9, 6, 14, 48, 58, 22)
ANKLE = (0, 4, -3, -8, -4, 18, 4, 0)
STRIDE = 0.68  # of stature


@dataclass(frozen=True)
class SyntheticVideo:
    """What was drawn, and the truth of it."""

    pictures: np.ndarray  # (T, H, W, 3) RGB uint8
    boxes: np.ndarray  # (T, 4) x, y, w, h of the walker, pixels
    pose: np.ndarray  # (T, 17, 3): Human3.6M's joints, made of COCO's, in the camera's axes, meters
    camera: Camera
    fps: float = FPS


def pose(stride: float) -> dict:
    """The angles of a walker after so many strides, as `synthetic.person` takes them, in degrees."""
    angles = dict.fromkeys(anatomy.LIMITS, 0.0) | {"spine_flex": 3.0, "neck_flex": 4.0}
    for side, ahead in (("left", stride % 1), ("right", (stride + 0.5) % 1)):
        hip, knee, ankle = (np.interp(ahead * 8, range(9), (*keys, keys[0])) for keys in (HIP, KNEE, ANKLE))
        swing = np.cos(2 * np.pi * ahead)  # the leg's way ahead, and the arm's way back
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
    """So many frames of a walk, 25 a second; the same seed is the same walker in the same room."""
    about = bodies.sample_look(np.random.default_rng(seed))
    seen = scenes.make_camera(1.35, 8.0, 0.0, 390.0)
    speed = STRIDE * about.stature * STRIDES  # meters a second
    room = {"outdoor": False, "wall": 7.0, "skew": 9.0, "height": 2.9, "ceiling": True, "seed": seed}
    pictures, boxes, joints = [], [], []
    for frame in range(frames):
        at = frame / FPS
        around = START + speed * at / RADIUS  # radians of the circle
        place = RADIUS * np.cos(around), DISTANCE + RADIUS * np.sin(around)
        yaw = -np.degrees(around)  # along the circle: x falls first
        who = bodies.person(np.random.default_rng(seed + 1), about, pose(STRIDES * at), yaw, place)
        scene = scenes.Scene(seen, [who], room=room, photo={"noise": 0.006, "seed": frame})
        buffers = drawing.rasterize(scene)
        pictures.append(expose(scene, buffers))
        (mask,) = writing.masks(buffers, 1)
        y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append((x[0], y[0], x[-1] - x[0] + 1, y[-1] - y[0] + 1))
        joints.append(who.joints[:17])
    turned = seen.rotation
    focal, center = np.full(2, seen.focal), np.array(seen.center)
    camera = Camera(turned, -turned @ seen.position, scenes.SIZE, focal, center)
    points = camera.see(np.stack(joints))  # (T, 17, 3)
    truth, eyes = from_coco(points), points[:, 1:3].mean(1)
    truth[:, 10] = eyes + 2 * (eyes - points[:, 0])  # which `from_coco` does on a picture alone
    return SyntheticVideo(np.stack(pictures), np.array(boxes, float), truth, camera)


def save(film: SyntheticVideo, folder: str | Path) -> tuple[Path, Path]:
    """Write FOLDER/walk.avi and FOLDER/boxes.json, the walker's box in each frame as detectors write them."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    video, boxes = folder / "walk.avi", folder / "boxes.json"
    height, width = film.pictures.shape[1:3]
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), film.fps, (width, height))
    if not writer.isOpened():
        raise OSError(f"OpenCV cannot write {video}")
    for picture in film.pictures:
        writer.write(picture[..., ::-1])
    writer.release()
    entries = [
        {"image_id": number, "category_id": 1, "bbox": box, "score": 1.0}
        for number, box in enumerate(film.boxes.tolist(), 1)
    ]
    boxes.write_text(json.dumps(entries))
    return video, boxes
