"""A person detector that somebody else trained: an ONNX file, run by onnxruntime.

1. The file's outputs are those of mmdeploy's detectors (RTMDet and others): `dets` (1, N, 5) with x1, y1, x2,
   y2 and score in pixels of its input, and `labels` (1, N), 0 for a person.
2. The picture is scaled to fit the file's input, kept in its upper left corner and padded with gray, BGR,
   less the mean and over the deviation that RTMDet is trained with.
"""

from pathlib import Path

import cv2
import numpy as np

MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # of blue, green, red
PAD_VALUE = 114
SIZE = 640  # height and width where the file leaves them open


class Detector:
    """Call it with a picture, RGB uint8 (H, W, 3); it gives boxes (N, 4) as x, y, w, h and scores (N,)."""

    def __init__(self, path: str | Path, threshold: float = 0.3):
        """Raises FileNotFoundError, and ValueError for a file that is no such detector."""
        import onnxruntime  # only who detects needs it

        if not Path(path).is_file():
            raise FileNotFoundError(f"no detector at {path}")
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception for every cause, none of them exported
            raise ValueError(f"{path} is not a net that onnxruntime can run: {error}") from error
        names = {output.name for output in self.session.get_outputs()}
        if not {"dets", "labels"} <= names:
            raise ValueError(f"{path} gives {', '.join(sorted(names))}; a detector gives dets and labels")
        (self.input,) = self.session.get_inputs()
        height, width = self.input.shape[2:]
        self.size = (height if isinstance(height, int) else SIZE, width if isinstance(width, int) else SIZE)
        self.threshold = threshold

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = self.size
        zoom = min(height / image.shape[0], width / image.shape[1])
        small = cv2.resize(image, (round(image.shape[1] * zoom), round(image.shape[0] * zoom)))
        canvas = np.full((height, width, 3), PAD_VALUE, np.float32)
        canvas[: small.shape[0], : small.shape[1]] = small[..., ::-1]  # BGR
        canvas = ((canvas - MEAN) / STD).astype(np.float32).transpose(2, 0, 1)[None]  # (1, 3, H, W)
        dets, labels = self.session.run(["dets", "labels"], {self.input.name: canvas})
        people = dets[0][(labels[0] == 0) & (dets[0][:, 4] > self.threshold)]  # (N, 5)
        corners = people[:, :4] / zoom
        return np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]), people[:, 4]  # (N, 4), (N,)
