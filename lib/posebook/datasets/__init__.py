"""2D pose datasets on disk. Each source has its own module; all modules return a `PoseDataset`."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from posebook import paths
from posebook.skeletons import Skeleton
from posebook.utils import check_name

SAME_FOLDER = {"coco-mini": "coco", "synthetic-14": "synthetic"}  # datasets in the folder of another dataset


@dataclass(frozen=True)
class Person:
    """One annotated person. Coordinates are image pixels; the center of the first pixel is (0, 0)."""

    image: Path
    image_id: int
    id: int
    bbox: tuple[float, float, float, float]  # x, y, w, h
    area: float
    keypoints: np.ndarray = field(compare=False)  # (K, 3) x, y, v: 0 not labeled, 1 hidden, 2 visible
    score: float = 1.0  # of the box; 1 for ground truth
    head: float = math.nan  # MPII's head size in pixels


@dataclass(frozen=True)
class PoseDataset:
    """The annotated people of one split, and the facts about the data that a record stores."""

    name: str
    split: str
    skeleton: Skeleton
    sha256: str  # of the annotation file
    instances: tuple[Person, ...]
    annotations: Path
    skipped: tuple[str, ...] = ()  # skipped images and annotations, with the reason
    images: dict[int, Path] = field(default_factory=dict)  # usable images by id, also those without people
    boxes: str = "ground truth"  # or the name of a detector's results file
    boxes_sha256: str | None = None  # of the detector's results file
    # Set by combined.map_joints only:
    file_joints: tuple[str, ...] = ()  # joints of the annotation file
    joint_map: tuple[int, ...] = ()  # (K,) index of each joint in file_joints, or -1 if it is missing there
    mapped_metric: str | None = None  # metric_type before the mapping
    # Set by combined.add_labels only:
    labels: str | None = None  # name and SHA-256 of the file of added labels
    # Set by combined.combine only; `instances` then holds the sources' instances one after another:
    sources: tuple["PoseDataset", ...] = ()
    shares: tuple[float, ...] = ()  # fraction of an epoch's samples that each source provides; the sum is 1

    @property
    def metric_type(self) -> str:
        """The metric of this dataset: 'oks', 'crowd' (CrowdPose's OKS), 'pckh' (MPII's) or 'pck'.

        Mapping the joints does not change the metric. A combined dataset has no metric of its own: each
        source is evaluated separately.
        """
        named = {"crowdpose": "crowd", "mpii": "pckh"}.get(self.name.removesuffix("-sample"))
        return self.mapped_metric or named or ("pck" if self.skeleton.sigmas is None else "oks")

    def describe(self) -> dict:
        """The facts about the data that a record stores. They contain no path of this machine."""
        facts = {
            "name": self.name,
            "split": self.split,
            "sha256": self.sha256,
            "persons": len(self.instances),
            "skipped_images": len(self.skipped),
        }
        if self.joint_map:
            facts["joints"] = sum(index >= 0 for index in self.joint_map)
        if self.labels:
            facts["labels"] = self.labels
        if self.sources:
            pairs = zip(self.sources, self.shares, strict=True)
            facts["sources"] = [source.describe() | {"share": round(share, 4)} for source, share in pairs]
        return facts


class DatasetMissing(FileNotFoundError):
    """A dataset is not on disk. The message states the folder, its layout and how to get the files."""


def missing_dataset(root: Path, missing: str, layout: str, instructions: str) -> DatasetMissing:
    """Create the error for a dataset, split or file that is not in `root`."""
    return DatasetMissing(
        f"{missing} is not in {root}\nThe folder must hold: {layout}\nTo get it: {instructions}"
    )


def read_image(path: str | Path, upright: bool = False) -> np.ndarray:
    """Decode an image as RGB uint8 (H, W, 3).

    upright: turn the image as its EXIF data say, for a user's photographs. By default they are ignored,
    because annotation tools ignore them too. Raises ValueError if the file is missing, cannot be read or
    decoded, or is too large for OpenCV.
    """
    flags = cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
    except FileNotFoundError as error:
        raise ValueError(f"no image at {path}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    try:
        image = cv2.imdecode(data, flags) if data.size else None
    except cv2.error as error:  # broken files give None; only the limits of the size raise
        raise ValueError(
            f"{path} is too large: OpenCV decodes at most 2^30 pixels, such as 32768 x 32768; scale it down, "
            "or set OPENCV_IO_MAX_IMAGE_PIXELS"
        ) from error
    if image is None:
        raise ValueError(f"{path} cannot be decoded as an image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # (H, W, 3)


def is_complete_jpeg(path: Path) -> bool:
    """Whether a JPEG has its end marker. OpenCV decodes a truncated JPEG without an error, partly gray.

    Also True for an image of another format.
    """
    with open(path, "rb") as file:
        if file.read(2) != b"\xff\xd8":  # the first bytes of every JPEG
            return path.stat().st_size > 0
        file.seek(0, os.SEEK_END)
        file.seek(max(2, file.tell() - 4096))
        if b"\xff\xd9" in file.read():
            return True
        file.seek(0)  # much may follow the marker, such as the video of a motion photo
        data, position = file.read(), 2
    while data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] != b"\xda":
        position += 2 + int.from_bytes(data[position + 2 : position + 4])  # skip thumbnails in the header
    return b"\xff\xd9" in data[position:]


def skip_limit(count: int) -> int:
    """How many of `count` images or annotations may be skipped: 5 or 1 %, whichever is larger."""
    return max(5, count // 100)


def usable_images(folder: Path, names: list[str]) -> tuple[set[str], tuple[str, ...]]:
    """Split image names into those with a complete file, and the missing or truncated ones with the reason.

    Raises ValueError if there are more missing or truncated images than `skip_limit` allows.
    """
    present = set(os.listdir(folder)) if folder.is_dir() else set()
    broken = []
    for name in names:
        # One directory listing is faster than one lookup per file; it does not show files in subfolders.
        if name not in present and not ("/" in name and (folder / name).is_file()):
            broken.append(f"{name} (missing)")
        elif name.lower().endswith((".jpg", ".jpeg")) and not is_complete_jpeg(folder / name):
            broken.append(f"{name} (truncated)")
    if len(broken) > skip_limit(len(names)):
        raise ValueError(
            f"{len(broken)} of {len(names)} images in {folder} are broken or missing, more than the "
            f"{skip_limit(len(names))} that may be skipped: {', '.join(broken[:5])}, ..."
            + (": is this the folder of another split?" if len(broken) == len(names) else "")
        )
    if broken:
        print(f"skipping {len(broken)} of {len(names)} images: {', '.join(broken[:5])}")
    return set(names) - {entry.rsplit(" ", 1)[0] for entry in broken}, tuple(broken)


def default_root(name: str) -> Path:
    """The default folder of a dataset: $POSEBOOK_DATA/NAME, or data/NAME in this checkout."""
    return Path(os.environ.get("POSEBOOK_DATA", paths.DATA)) / name


def loaders() -> dict[str, Callable[..., PoseDataset]]:
    """The function that loads each dataset, by name. To add a dataset, add a line."""
    from posebook.datasets import coco, crowdpose, custom, lspet, mpii

    return {
        "coco": coco.load,
        "coco-mini": coco.load_mini,
        "crowdpose": crowdpose.load,
        "mpii": mpii.load,
        "lspet": lspet.load,
        "synthetic": partial(coco.load_rendered, "synthetic"),
        "synthetic-14": partial(coco.load_rendered, "synthetic-14"),
        "own": custom.load,
    }


def names() -> list[str]:
    """The names of all datasets, in the order of `loaders`."""
    return list(loaders())


def default_split(name: str, train: bool) -> str:
    """The name of a dataset's training split, or of the split for evaluation."""
    if name in ("coco", "coco-mini"):
        return "train2017" if train else "val2017"
    if name == "crowdpose":
        return "trainval" if train else "test"
    return "train" if train else "val"


def load(name: str, root: str | Path | None = None, split: str | None = None) -> PoseDataset:
    """Load one split of a dataset.

    root: the folder with the annotations; default: `default_root(name)`. split: train2017 or val2017 for coco
    and coco-mini; train, val, trainval or test for crowdpose; train or val for mpii, lspet, synthetic, and
    synthetic-14 (the images of synthetic with CrowdPose's joints); any annotation file's name for own (a file
    in COCO format). The default is the split for evaluation. Raises ValueError for an unknown name or split,
    and DatasetMissing if files are missing.
    """
    check_name(name, names(), "dataset")
    root = Path(root) if root else default_root(SAME_FOLDER.get(name, name))
    return loaders()[name](root, split) if split else loaders()[name](root)


def load_combined(sources: Sequence, skeleton: str | Skeleton = "coco") -> PoseDataset:
    """Load several datasets as one. sources: `combined.Source` objects; see `combined.load_combined`."""
    from posebook.datasets import combined

    return combined.load_combined(sources, skeleton)
