"""Widely used pose models for comparison: MoveNet and BlazePose, from their published .tflite files.

The files are not part of posebook. Users pass their paths, and OpenVINO loads them.

MoveNet (Google, Apache-2.0): input (1, 192, 192, 3) uint8 RGB; output (1, 1, 17, 3) with y, x and score of
COCO's joints, where y and x are fractions of the square crop. BlazePose (MediaPipe's pose landmark models,
Apache-2.0): input (1, 256, 256, 3) in 0..1; output (1, 195) with 39 landmarks of x, y, z, visibility and
presence. x, y and z are in input pixels; visibility and presence are logits.

1. Both models get the square crop of 1.25 times the person's box, one person per crop, like posebook's
   models. BlazePose expects a region that is centered on the hips and rotated upright, so this crop
   handicaps it.
2. OpenVINO computes them in float32, or in the 8 bits of their file, with PyTorch's number of threads, like
   posebook's models. Its default is bfloat16 on some CPUs, which changes the AP of MoveNet by 0.017
   (docs/experiments.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posebook import records, transforms
from posebook.datasets import PoseDataset, read_image
from posebook.evaluation import bootstrap, evaluator, metrics
from posebook.evaluation.metrics import ImageStats, Predictions
from posebook.inference import runtimes

TRAINED_ON = {"movenet_lightning_int8": "COCO and Active (model card)"}  # others: not published
MAGIC = b"TFL3"  # bytes 4 to 8 of a .tflite file
BLAZEPOSE_COCO = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)  # landmarks of COCO's joints


@dataclass(frozen=True)
class Peer:
    """A loaded model: `run` takes a crop (S, S, 3) uint8 RGB and returns points (17, 2) and scores (17,).

    Points are in crop pixels.
    """

    name: str
    side: int  # S, height and width of the input in pixels
    run: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def load_peer(path: str | Path) -> Peer:
    """Load a MoveNet or BlazePose file. The output shapes tell which of the two it is.

    Raises FileNotFoundError if the file does not exist, and ValueError if it contains another model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no model file at {path}")
    with path.open("rb") as file:
        if file.read(8)[4:] != MAGIC:  # OpenVINO would print lines of its own
            raise ValueError(f"{path} is not a .tflite file")
    try:
        compiled = runtimes.openvino_core().compile_model(str(path), "CPU", runtimes.openvino_settings())
    except RuntimeError as error:  # its lines are about OpenVINO's code
        raise ValueError(f"{path} cannot be read; it may be damaged") from error
    try:
        shapes = [tuple(output.shape) for output in compiled.outputs]
    except RuntimeError as error:  # of open sizes
        raise ValueError(
            f"{path.name} is not a supported model: the sizes of its outputs are open"
        ) from error

    # Both models place the center of the first pixel at 0.5, posebook at 0: hence the 0.5 below.
    def movenet(crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        joints = compiled(crop[None].astype(dtype))[0].reshape(17, 3)  # y, x, score
        return joints[:, 1::-1] * (width, height) - 0.5, joints[:, 2]  # (17, 2), (17,)

    def blazepose(crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        output = compiled(crop[None].astype(np.float32) / 255)[landmark_output]
        landmarks = output.reshape(39, 5)  # x, y, z, visibility, presence
        joints = landmarks[list(BLAZEPOSE_COCO)]  # (17, 5)
        return joints[:, :2] - 0.5, 1 / (1 + np.exp(-joints[:, 3]))  # (17, 2), (17,)

    if (1, 1, 17, 3) in shapes:
        dtype = compiled.input(0).element_type.to_dtype()
        run = movenet
    elif (1, 195) in shapes:
        landmark_output = shapes.index((1, 195))
        run = blazepose
    else:
        raise ValueError(f"{path.name} is neither MoveNet nor BlazePose: its outputs are {shapes}")
    _, height, width, _ = compiled.input(0).shape
    return Peer(path.stem, height, run)


def predict(peer: Peer, dataset: PoseDataset) -> Predictions:
    """Predict COCO's joints of every person, in pixels of the full image."""
    keypoints, scores = [], []
    for person in dataset.instances:
        matrix = transforms.crop_affine(person.bbox, (peer.side, peer.side))
        crop = transforms.warp(read_image(person.image), matrix, (peer.side, peer.side))  # (S, S, 3)
        points, score = peer.run(crop)
        keypoints.append(transforms.apply_affine(transforms.invert(matrix), points))
        scores.append(score)
    return Predictions(np.stack(keypoints), np.stack(scores), peer.name)


def evaluate_peer(
    path: str | Path, dataset: PoseDataset, profile: str = "demo"
) -> tuple[dict, Predictions, ImageStats]:
    """Evaluate a .tflite file without flip test: the record, the predictions and their image statistics.

    profile is only part of the record's name.
    """
    metadata, peer = records.RunMetadata(), load_peer(path)
    predictions = predict(peer, dataset)
    scores, stats = metrics.measure(dataset, predictions)
    size = (peer.side, peer.side)
    record = records.build(
        "evaluate",
        f"evaluate-{peer.name}-{dataset.name}-{peer.side}x{peer.side}-{profile}",
        metadata,
        model=peer.name,
        options={},
        dataset=dataset.describe(),
        profile=profile,
        parameters={"split": dataset.split, "runtime": "OpenVINO"},
        protocol=evaluator.protocol(dataset, size, False, predictions.decoding),
        metrics=scores,
        metrics_without_flip=scores,
        interval=bootstrap.interval(stats),
        weights=evaluator.weights_file_facts(path, TRAINED_ON.get(peer.name, "not published")),
        seed=0,
    )
    return record, predictions, stats
