"""Pose models that users would otherwise pick: MoveNet and BlazePose, from their published .tflite files.

The files are not part of posebook; users pass their paths. OpenVINO reads them.

MoveNet (Google, Apache-2.0): input (1, 192, 192, 3) uint8 RGB; output (1, 1, 17, 3): y, x and score of COCO's
joints, as shares of the square. BlazePose (MediaPipe's pose landmark models, Apache-2.0): input
(1, 256, 256, 3) in 0..1; output (1, 195): 39 landmarks of x, y, z, visibility and presence, in pixels of the
input, the last two before a sigmoid.

1. Both get the square crop of 1.25 times the person's box, one person per crop, as posebook's models do.
   BlazePose expects a region that is centered on the hips and rotated upright, so this handicaps it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posebook import transforms
from posebook.datasets import PoseDataset, read_image
from posebook.evaluation.metrics import Predictions

BLAZEPOSE_COCO = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)  # landmarks of COCO's joints


@dataclass(frozen=True)
class Peer:
    """A loaded model: `run` takes a crop (S, S, 3) uint8 RGB and returns points (17, 2) and scores (17,)."""

    name: str
    side: int  # of the square input, in pixels
    run: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    size_bytes: int


def load_peer(path: str | Path) -> Peer:
    """Load a MoveNet or BlazePose file; which one it is shows in its outputs.

    Raises FileNotFoundError, and ValueError for a file of another model.
    """
    import openvino

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no model file at {path}")
    compiled = openvino.Core().compile_model(str(path), "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    _, height, width, _ = compiled.input(0).shape
    shapes = [tuple(output.shape) for output in compiled.outputs]
    name, size = path.stem, path.stat().st_size

    def movenet(crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = compiled(crop[None].astype(dtype))[0].reshape(17, 3)  # y, x, score
        return found[:, 1::-1] * (width, height) - 0.5, found[:, 2]

    def blazepose(crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        output = compiled(crop[None].astype(np.float32) / 255)[place]
        landmarks = output.reshape(39, 5)  # x, y, z, visibility, presence
        chosen = landmarks[list(BLAZEPOSE_COCO)]  # (17, 5)
        return chosen[:, :2] - 0.5, 1 / (1 + np.exp(-chosen[:, 3]))

    if (1, 1, 17, 3) in shapes:
        dtype = compiled.input(0).element_type.to_dtype()
        return Peer(name, height, movenet, size)
    if (1, 195) in shapes:
        place = shapes.index((1, 195))
        return Peer(name, height, blazepose, size)
    raise ValueError(f"{path.name} is neither MoveNet nor BlazePose: its outputs are {shapes}")


def predict(peer: Peer, people: PoseDataset) -> Predictions:
    """Joints of COCO's skeleton of every person, in pixels of their images."""
    keypoints, scores = [], []
    for person in people.instances:
        matrix = transforms.crop_affine(person.bbox, (peer.side, peer.side))
        crop = transforms.warp(read_image(person.image), matrix, (peer.side, peer.side))  # (S, S, 3)
        points, score = peer.run(crop)
        keypoints.append(transforms.apply_affine(transforms.invert(matrix), points))
        scores.append(score)
    return Predictions(np.stack(keypoints), np.stack(scores), peer.name)
