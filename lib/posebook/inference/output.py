"""Write predictions: drawings of poses, COCO results and a CSV table, all files or none."""

import csv
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from posebook.evaluation import metrics
from posebook.inference.stages import StageTimes
from posebook.skeletons import Skeleton


@contextmanager
def staged_folder(target: str | Path) -> Iterator[Path]:
    """Yield an empty folder whose files are moved to the folder `target` when the block ends.

    If the block raises, `target` stays as it was. Files keep their names, because OpenCV chooses the format
    by the suffix. Raises NotADirectoryError if `target` cannot be a folder, and IsADirectoryError if there is
    a folder with the name of a file.
    """
    target = Path(target).absolute()
    parent = next(path for path in (target, *target.parents) if path.exists())
    if not parent.is_dir():
        raise NotADirectoryError(f"{parent} is a file: choose another folder")
    # On the same disk, so that files can be renamed.
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=parent, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        yield folder
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in files:
            if (target / path.relative_to(folder)).is_dir():
                raise IsADirectoryError(
                    f"{target / path.relative_to(folder)} is a folder: choose another place"
                )
        for path in files:
            destination = target / path.relative_to(folder)
            destination.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, destination)


def write_results(
    folder: Path, entries: Sequence[dict], joints: Sequence[str], labels: Mapping[str, Sequence]
) -> None:
    """Write predictions.json (COCO results), and predictions.csv with one row for each person and joint.

    labels: the first columns of the table, with one value for each entry.
    """
    (folder / "predictions.json").write_text(json.dumps(entries) + "\n")
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*labels, "joint", "x", "y", "score"])
        for entry, *values in zip(entries, *labels.values(), strict=True):
            triples = np.reshape(entry["keypoints"], (-1, 3)).tolist()  # (K, 3)
            writer.writerows([*values, joint, *triple] for joint, triple in zip(joints, triples, strict=True))


def draw_poses(
    image: np.ndarray, keypoints: np.ndarray, scores: np.ndarray, skeleton: Skeleton
) -> np.ndarray:
    """Return a copy of an image (H, W, 3) with poses (N, K, 2) drawn over it.

    scores is (N, K). Joints with a score under 0.2 are not drawn.
    """
    canvas, unit = image.copy(), max(1, round(max(image.shape[:2]) / 320))  # line width grows with the image
    colors = [tuple(int(code[i : i + 2], 16) for i in (1, 3, 5)) for code in skeleton.colors]
    bits = 4  # fractional bits of OpenCV's fixed-point coordinates, for subpixel positions
    near = np.nan_to_num(keypoints).clip(-1e6, 1e6)  # OpenCV's coordinates have 32 bits
    for points, visible in zip(
        (near * 2**bits).round().astype(int), scores >= metrics.JOINT_THRESHOLD, strict=True
    ):
        for a, b in skeleton.limbs:
            if visible[a] and visible[b]:
                # a wider white line first gives each limb an outline
                for color, width in (((255, 255, 255), 2 * unit + 2), (colors[b], 2 * unit)):
                    cv2.line(canvas, points[a].tolist(), points[b].tolist(), color, width, cv2.LINE_AA, bits)
        for joint in np.flatnonzero(visible):
            radius = unit * 2 << bits
            cv2.circle(canvas, points[joint].tolist(), radius, colors[joint], -1, cv2.LINE_AA, bits)
    return canvas


def write_overlay(
    path: Path,
    image: np.ndarray,
    keypoints: np.ndarray,
    scores: np.ndarray,
    skeleton: Skeleton,
    times: StageTimes,
) -> None:
    """Write an image with poses to `path`, whose suffix is the format."""
    with times.measure("draw"):
        path.parent.mkdir(exist_ok=True)
        drawn = draw_poses(image, keypoints, scores, skeleton)
        encoded, data = cv2.imencode(path.suffix, drawn[..., ::-1])
        if encoded:
            path.write_bytes(data.tobytes())
        else:
            height, width = drawn.shape[:2]
            print(f"not drawn: {path.name}, because {width} x {height} pixels are too many for {path.suffix}")
