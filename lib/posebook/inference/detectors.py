"""Person detection with a third-party ONNX model, run by onnxruntime.

1. The model has the outputs of mmdeploy's detectors (RTMDet and others): `dets` (1, N, 5) with x1, y1, x2, y2
   and score, in pixels of the model input, and `labels` (1, N) with 0 for a person.
2. The image is scaled to fit the model input, placed in its upper left corner, and padded with gray. It is
   then converted to BGR and normalized with the mean and standard deviation of RTMDet's training.
"""

from pathlib import Path

import cv2
import numpy as np

MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # of blue, green, red
PAD_VALUE = 114
DEFAULT_SIZE = 640  # height or width in pixels, if the model leaves it dynamic


class Detector:
    """A person detector. Call it with an RGB uint8 image (H, W, 3).

    The call returns boxes (N, 4) as x, y, width, height in image pixels, and scores (N,).
    """

    def __init__(self, path: str | Path, threshold: float = 0.3):
        """Load an ONNX model. Boxes with a score of at most `threshold` are dropped.

        Raises FileNotFoundError if the file does not exist, and ValueError if it is not a detector.
        """
        import onnxruntime  # an optional dependency

        if not Path(path).is_file():
            raise FileNotFoundError(f"no detector at {path}")
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime does not export its exception classes
            raise ValueError(f"onnxruntime cannot load {path}: {error}") from error
        names = {output.name for output in self.session.get_outputs()}
        if not {"dets", "labels"} <= names:
            raise ValueError(
                f"{path} has the outputs {', '.join(sorted(names))}; a detector has dets and labels"
            )
        (self.input,) = self.session.get_inputs()
        height, width = (side if isinstance(side, int) else DEFAULT_SIZE for side in self.input.shape[2:])
        self.size = height, width
        self.threshold = threshold

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = self.size
        scale = min(height / image.shape[0], width / image.shape[1])
        resized = cv2.resize(image, (round(image.shape[1] * scale), round(image.shape[0] * scale)))
        canvas = np.full((height, width, 3), PAD_VALUE, np.float32)
        canvas[: resized.shape[0], : resized.shape[1]] = resized[..., ::-1]  # RGB to BGR
        canvas = ((canvas - MEAN) / STD).astype(np.float32).transpose(2, 0, 1)[None]  # (1, 3, H, W)
        dets, labels = self.session.run(["dets", "labels"], {self.input.name: canvas})
        persons = dets[0][(labels[0] == 0) & (dets[0][:, 4] > self.threshold)]  # (N, 5)
        corners = persons[:, :4] / scale
        return np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]), persons[:, 4]  # (N, 4), (N,)
