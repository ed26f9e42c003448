"""People with keypoints, from files on disk: one module a source, all of them giving `Persons`."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from posebook import paths
from posebook.skeletons import Skeleton
from posebook.utils import unknown_name_error

NAMES = ("coco", "coco-mini", "crowdpose", "mpii", "lspet", "synthetic", "synthetic-14", "own")  # of `load`
SAME_FOLDER = {"coco-mini": "coco", "synthetic-14": "synthetic"}  # whose files lie in another's


@dataclass(frozen=True)
class Person:
    """One annotated person. Points are pixels of the image, pixel centers at integers."""

    image: Path
    image_id: int
    id: int
    bbox: tuple[float, float, float, float]  # x, y, w, h
    area: float
    keypoints: np.ndarray = field(compare=False)  # (K, 3) x, y, v: 0 not labeled, 1 hidden, 2 seen
    score: float = 1.0  # of the box: 1 for ground truth
    head: float = math.nan  # MPII's head size in pixels


@dataclass(frozen=True)
class PoseDataset:
    """The people of one split, and what a record says of them."""

    name: str
    split: str
    skeleton: Skeleton
    sha256: str  # of the annotation file
    instances: tuple[Person, ...]
    annotations: Path
    skipped: tuple[str, ...] = ()  # broken or missing images, by name
    images: dict[int, Path] = field(default_factory=dict)  # all usable ones by id, those without people too
    boxes: str = "ground truth"  # or whose: a detector's file, by name
    boxes_sha256: str | None = None  # of that file
    # of people mapped onto other joints (combined.map_joints); () and None for others:
    file_joints: tuple[str, ...] = ()  # the annotation file's joints
    joint_map: tuple[int, ...] = ()  # (K,) index of each joint in file_joints, -1 for one that is not there
    mapped_metric: str | None = None  # metric_type before the mapping
    labels: str | None = None  # name and SHA-256 of the file of added labels (combined.add_labels)
    # of a combined dataset (combined.combine), whose `instances` are the sources' one after another:
    sources: tuple["PoseDataset", ...] = ()
    shares: tuple[float, ...] = ()  # each source's part of an epoch's samples; they sum to 1

    @property
    def metric_type(self) -> str:
        """The metric that scores the people: 'oks', 'crowd' (CrowdPose's OKS), 'pckh' (MPII's) or 'pck'.

        People mapped onto other joints keep the metric of their dataset. Combined people have none of their
        own: their sources are scored one by one.
        """
        named = {"crowdpose": "crowd", "mpii": "pckh"}.get(self.name.removesuffix("-sample"))
        return self.mapped_metric or named or ("pck" if self.skeleton.sigmas is None else "oks")

    def describe(self) -> dict:
        """What a record says of the data: no path of this machine."""
        facts = {
            "name": self.name,
            "split": self.split,
            "sha256": self.sha256,
            "persons": len(self.instances),
            "skipped_images": len(self.skipped),
        }
        if self.joint_map:
            facts["joints"] = sum(place >= 0 for place in self.joint_map)
        if self.labels:
            facts["labels"] = self.labels
        if self.sources:
            pairs = zip(self.sources, self.shares, strict=True)
            facts["sources"] = [source.describe() | {"share": round(share, 4)} for source, share in pairs]
        return facts


class DatasetMissing(FileNotFoundError):
    """No such dataset here; the message names the folder, the layout and how to get it."""


def missing_dataset(root: Path, wanted: str, layout: str, how: str) -> DatasetMissing:
    """The one form of the error for a dataset that is not there."""
    return DatasetMissing(f"{wanted} is not in {root}\nThe folder must hold: {layout}\nTo get it: {how}")


def read_image(path: str | Path) -> np.ndarray:
    """Decode an image as RGB uint8 (H, W, 3), its EXIF rotation ignored as annotators' tools did.

    Raises ValueError naming a file that is missing or cannot be decoded.
    """
    try:
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
    except FileNotFoundError as error:
        raise ValueError(f"no image at {path}") from error
    image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    if image is None:
        raise ValueError(f"{path} cannot be decoded as an image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # (H, W, 3)


def is_complete_jpeg(path: Path) -> bool:
    """Whether a JPEG has its end marker: OpenCV decodes a truncated one to gray without a word."""
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 4096))
        return b"\xff\xd9" in file.read()


def usable_images(
    folder: Path, names: list[str], limit: int | None = None
) -> tuple[set[str], tuple[str, ...]]:
    """Split image names into those whose file is there and whole, and the broken ones.

    limit: broken images that may be skipped, at least 5 and 1 % of all by default. Above it ValueError names
    the first ones: a dataset with that many holes is not the dataset.
    """
    present = set(os.listdir(folder)) if folder.is_dir() else set()
    broken = []
    for name in names:
        if name not in present and not ("/" in name and (folder / name).is_file()):
            broken.append(f"{name} (missing)")
        elif name.lower().endswith((".jpg", ".jpeg")) and not is_complete_jpeg(folder / name):
            broken.append(f"{name} (truncated)")
    limit = max(5, len(names) // 100) if limit is None else limit
    if len(broken) > limit:
        raise ValueError(
            f"{len(broken)} of {len(names)} images in {folder} are broken or missing, more than the {limit} "
            f"that may be skipped: {', '.join(broken[:5])}, ..."
            + (": is this the folder of another split?" if len(broken) == len(names) else "")
        )
    if broken:
        print(f"skipping {len(broken)} of {len(names)} images: {', '.join(broken[:5])}")
    return set(names) - {entry.rsplit(" ", 1)[0] for entry in broken}, tuple(broken)


def default_root(name: str) -> Path:
    """$POSEBOOK_DATA/NAME, or data/NAME of this checkout."""
    return Path(os.environ.get("POSEBOOK_DATA", paths.DATA)) / name


def load(name: str, root: str | Path | None = None, split: str | None = None) -> PoseDataset:
    """Load a dataset's people. root: the folder that holds its annotations, by default `default_root(name)`.

    coco and coco-mini: split train2017 or val2017; crowdpose: train, val, trainval or test; mpii, lspet and
    synthetic: train or val; synthetic-14, the same people with CrowdPose's joints: likewise; own, any
    COCO-format file: whatever its files are called. The default is what the dataset is evaluated on. Raises
    ValueError for a name or split it does not know and DatasetMissing for files.
    """
    from posebook.datasets import coco, crowdpose, custom, lspet, mpii

    loaders = dict(
        zip(
            NAMES,
            (
                coco.load,
                coco.load_mini,
                crowdpose.load,
                mpii.load,
                lspet.load,
                coco.load_synthetic,
                coco.load_synthetic_14,
                custom.load,
            ),
            strict=True,
        )
    )
    if name not in loaders:
        raise unknown_name_error(name, loaders, "dataset")
    root = Path(root) if root else default_root(SAME_FOLDER.get(name, name))
    return loaders[name](root, split) if split else loaders[name](root)


def load_combined(sources: Sequence, skeleton: str | Skeleton = "coco") -> PoseDataset:
    """Several datasets as one, see combined.py; `sources` are its `Source`s."""
    from posebook.datasets import combined

    return combined.load_combined(sources, skeleton)
