"""Stores the people of a dataset as cropped canvases in one file, so that training does not open the images.

A canvas is a square of the image around a person's box. It contains nearly all augmented crops of the person.

1. Extent: that of a crop around the box's center, at the largest scale and the least favorable rotation.
   Pixels beyond it are black, like pixels outside the image. A shifted crop or a half-body crop, which have
   another center, can contain such pixels.
2. Resolution: at most `DENSITY` canvas pixels per input pixel at scale 1. A person with fewer pixels is
   copied without resampling, so a crop from the canvas equals the crop from the image except for rounding. A
   person with more pixels is reduced with area averaging, which avoids aliasing, to the largest canvas side.
3. Smaller canvases are stored with their own side. In a tensor, each is in the upper left corner of a square.

    MAGIC | length of the index (8 bytes) | SHA-256 of the index | index | canvases
    index = one line of JSON (settings and source facts) | one ENTRY per person | `_encode_people`

If the settings or the source of a file differ from the requested ones, it is written again. A damaged or
foreign file raises an error and is never overwritten.

The people in the file are sufficient for training without annotations and images (`CanvasCache.dataset`). If
only 64 MiB can be copied to a machine, about 1,350 people fit as JPEG canvases for inputs of 256x192 with
StarNet-Pose's augmentation, and about 1,590 with the weaker one of profile demo (49.5 and 42.1 kB per person,
measured on 1,242 people of COCO's photographs).
"""

import hashlib
import io
import itertools
import json
import math
import os
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from posebook import skeletons
from posebook.datasets import Person, PoseDataset, combined, read_image
from posebook.transforms import PADDING, Augmentation
from posebook.utils import atomic_write, sha256

VERSION = 2  # version 1 did not store people
MAGIC = b"posepack"
HEADER_SIZE = len(MAGIC) + 8 + 32
ENTRY = np.dtype(  # position of a canvas in the file, CRC-32 of these bytes, side n, image-to-canvas matrix
    [("offset", "<u8"), ("length", "<u8"), ("crc", "<u4"), ("side", "<u4"), ("matrix", "<f8", (2, 3))]
)
DENSITY = 1.25  # canvas pixels per input pixel at scale 1
QUALITY = 95  # of JPEG
FORMATS = ("jpeg", "raw")
_STORED_FIELDS = (  # fields of PoseDataset that are stored unchanged
    "name", "split", "sha256", "skipped", "boxes", "boxes_sha256", "file_joints", "joint_map",
    "mapped_metric", "labels", "shares",
)  # fmt: skip


def canvas_reach(input_size: tuple[int, int], augmentations: tuple[Augmentation, ...]) -> float:
    """Half the side of a canvas, in pixels of the input (H, W) at scale 1, for the largest crop."""
    height, width = input_size
    extents = []
    for augmentation in augmentations:
        angles = np.radians(np.linspace(0, min(augmentation.rotation, 90), 91))  # symmetric beyond 90 degrees
        horizontal = width * np.cos(angles) + height * np.sin(angles)  # bounding box of the rotated crop
        vertical = height * np.cos(angles) + width * np.sin(angles)
        extents.append(max(augmentation.scale) * max(horizontal.max(), vertical.max()) / 2)
    return float(max(extents))


def cut_canvas(
    image: np.ndarray, person: Person, input_size: tuple[int, int], reach: float, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a person's canvas from an image (H', W', 3) uint8.

    reach: from `canvas_reach`. side: the largest side. Returns the canvas (n, n, 3) with n <= side, and the
    matrix (2, 3) from image pixels to canvas pixels.
    """
    height, width = input_size
    x, y, w, h = person.bbox
    box_width = max(w, h * width / height) * PADDING
    square = max(1, round(2 * reach * box_width / width))  # side in image pixels
    left, top = round(x + w / 2 - square / 2), round(y + h / 2 - square / 2)
    visible = image[max(top, 0) : max(top + square, 0), max(left, 0) : max(left + square, 0)]
    canvas: np.ndarray = np.zeros((square, square, 3), np.uint8)
    if visible.size:  # a box outside the image has a black canvas
        row, column = max(-top, 0), max(-left, 0)
        canvas[row : row + visible.shape[0], column : column + visible.shape[1]] = visible
    if square > side:
        canvas = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)  # (side, side, 3)
    zoom = len(canvas) / square
    # Resizing preserves the outer corners of the image, which are half a pixel from the pixel centers.
    shift = zoom * (0.5 - np.array([left, top])) - 0.5
    return canvas, np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])


def open_or_create(
    dataset: PoseDataset,
    folder: str | Path,
    input_size: tuple[int, int],
    augmentations: tuple[Augmentation, ...],
    format: str = "jpeg",
) -> "CanvasCache":
    """Open the canvas cache of a dataset in `folder`. Write it if it is missing or its source has changed.

    augmentations: all augmentations that the canvases are for. format: 'jpeg', which is small, or 'raw',
    which is fast and shared in memory by all processes. Raises ValueError for another format, and for an
    existing file that is damaged or not a canvas cache.
    """
    if format not in FORMATS:
        raise ValueError(f"the format of canvases is {' or '.join(FORMATS)}, not {format!r}")
    reach = canvas_reach(input_size, augmentations)
    settings = {
        "version": VERSION,
        "format": format,
        "quality": QUALITY if format == "jpeg" else None,
        "input_size": list(input_size),
        "reach": reach,
        "side": 8 * math.ceil(2 * reach * DENSITY / 8),  # a multiple of 8, the block size of JPEG
    }
    facts = settings | _source_facts(dataset)
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
    path = Path(folder) / f"{dataset.name}-{dataset.split}-{digest}.pack"
    if path.exists():
        cache = CanvasCache(path)
        if cache.facts == facts:
            return cache
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_cache(path, dataset, facts)
    return CanvasCache(path)


def _source_facts(dataset: PoseDataset) -> dict:
    """The facts by which `open_or_create` notices that the people or their images have changed."""
    boxes = np.array([person.bbox for person in dataset.instances], "<f8")  # (N, 4)
    keypoints = np.array([person.keypoints for person in dataset.instances], "<f8")  # (N, K, 3)
    numbers = _number_images(dataset)
    # Size and time are compared, because hashing the images of a large dataset takes minutes.
    images = [[file.name, (stat := file.stat()).st_size, stat.st_mtime_ns] for file in numbers]
    order = [numbers[person.image] for person in dataset.instances]
    return {
        "data": dataset.sha256,
        "name": dataset.name,
        "split": dataset.split,
        "persons": len(dataset.instances),
        "boxes": hashlib.sha256(boxes.tobytes()).hexdigest(),
        "keypoints": hashlib.sha256(keypoints.tobytes()).hexdigest(),
        "images": hashlib.sha256(json.dumps([images, order]).encode()).hexdigest(),
    }


def _number_images(dataset: PoseDataset) -> dict[Path, int]:
    """Number the image files in the order of their first person."""
    return {file: i for i, file in enumerate(dict.fromkeys(person.image for person in dataset.instances))}


def _encode_people(dataset: PoseDataset) -> bytes:
    """The people as a compressed .npz: one array per field of Person, and JSON with images and datasets.

    Images are stored as names and hashes, as in `combined.image_hashes`.
    """
    numbers = _number_images(dataset)
    facts = {
        "images": [[file.name, sha256(file)[: combined.HASH_LENGTH]] for file in numbers],
        "dataset": _dataset_facts(dataset),
        "sources": [
            _dataset_facts(source) | {"persons": len(source.instances)} for source in dataset.sources
        ],
    }
    arrays: dict[str, Any] = {
        name: np.array([getattr(person, name) for person in dataset.instances])
        for name in ("id", "image_id", "bbox", "area", "keypoints", "score", "head")
    }
    arrays["image"] = np.array([numbers[person.image] for person in dataset.instances])
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _dataset_facts(dataset: PoseDataset) -> dict:
    """The stored fields of a dataset without its people, for JSON."""
    facts = {name: getattr(dataset, name) for name in _STORED_FIELDS}
    return facts | {"skeleton": skeletons.describe(dataset.skeleton)}


def _restore_dataset(
    facts: dict, instances: tuple[Person, ...], path: Path, sources: tuple[PoseDataset, ...] = ()
) -> PoseDataset:
    """The inverse of `_dataset_facts`. path: of the cache, which replaces the annotation file."""
    values: dict[str, Any] = {
        name: tuple(facts[name]) if isinstance(facts[name], list) else facts[name] for name in _STORED_FIELDS
    }
    skeleton = skeletons.from_description(facts["skeleton"])
    return PoseDataset(instances=instances, annotations=path, skeleton=skeleton, sources=sources, **values)


def _write_cache(path: Path, dataset: PoseDataset, facts: dict) -> None:
    """Write a canvas cache. The index is written last, because it contains the offsets of all canvases."""
    entries = np.zeros(len(dataset.instances), ENTRY)
    line, people = json.dumps(facts).encode() + b"\n", _encode_people(dataset)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.seek(HEADER_SIZE + len(line) + entries.nbytes + len(people))
        progress = enumerate(tqdm(dataset.instances, desc=f"packing {path.name}", unit="person"))
        # Neighbors often share an image, which is then decoded once.
        for image_path, group in itertools.groupby(progress, lambda pair: pair[1].image):
            image = read_image(image_path)
            for i, person in group:
                canvas, matrix = cut_canvas(image, person, facts["input_size"], facts["reach"], facts["side"])
                encoded = _encode_canvas(canvas, facts["format"])
                entries[i] = (file.tell(), len(encoded), zlib.crc32(encoded), len(canvas), matrix)
                file.write(encoded)
        index = line + entries.tobytes() + people
        file.seek(0)
        file.write(MAGIC + len(index).to_bytes(8, "little") + hashlib.sha256(index).digest() + index)


def _encode_canvas(canvas: np.ndarray, format: str) -> bytes:
    if format == "raw":
        return canvas.tobytes()
    bgr = cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


class CanvasCache:
    """An opened canvas cache: cache[i] is the canvas (n, n, 3) of person i, len(cache) the number of people.

    facts: the settings and the source. side: S, the largest side of a canvas. matrices: (N, 2, 3), from image
    pixels to canvas pixels. digest: SHA-256 of the index, which contains the checksums of the canvases.
    Raises ValueError for a file that is damaged or not a canvas cache.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with open(self.path, "rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError(f"{path} is not a canvas cache")
            length, digest = int.from_bytes(file.read(8), "little"), file.read(32)
            size = os.fstat(file.fileno()).st_size
            index = file.read(min(length, size))  # a damaged length must not allocate more than the file
        if hashlib.sha256(index).digest() != digest:
            raise ValueError(f"{path} is damaged: the hash of its index is wrong; delete it to pack again")
        line, rest = index.split(b"\n", 1)
        self.facts = json.loads(line)
        self.digest = digest.hex()
        nbytes = self.facts["persons"] * ENTRY.itemsize
        self._entries, self._people = np.frombuffer(rest[:nbytes], ENTRY), rest[nbytes:]
        end = HEADER_SIZE + length + int(self._entries["length"].sum())
        if size != end:
            raise ValueError(f"{path} is damaged: it has {size} bytes, not {end}; delete it to pack again")
        self.side, self.matrices = self.facts["side"], self._entries["matrix"]
        # Mode "c" (copy on write): torch requires writable memory, although nothing is written.
        self._bytes = np.memmap(self.path, np.uint8, "c")
        self._checked = np.zeros(len(self), bool)

    def __reduce__(self) -> tuple:
        """Pickle the path only: data loader processes open the file and share its memory pages."""
        return CanvasCache, (self.path,)

    def __len__(self) -> int:
        return len(self._entries)

    def check_compatible(self, input_size: tuple[int, int], augmentations: tuple[Augmentation, ...]) -> None:
        """Raise ValueError if the canvases are for another input size or too small for the augmentations."""
        height, width = self.facts["input_size"]
        if (height, width) != tuple(input_size):
            raise ValueError(
                f"{self.path.name} holds canvases for inputs of {height}x{width}, not of "
                f"{input_size[0]}x{input_size[1]}: pack them for that size"
            )
        needed = canvas_reach(input_size, augmentations)
        if self.facts["reach"] < needed - 1e-6:  # machines may round the last digit differently
            raise ValueError(
                f"{self.path.name} holds canvases that reach {self.facts['reach']:.1f} pixels; this recipe's "
                f"augmentation needs {needed:.1f}: pack them for it"
            )

    def _decode_people(self) -> tuple[dict[str, np.ndarray], dict]:
        """The inverse of `_encode_people`: arrays by field name, and the JSON.

        Raises ValueError for a file of version 1.
        """
        if self.facts["version"] != VERSION:
            raise ValueError(
                f"{self.path.name} was packed by an earlier version and holds no people: pack it again"
            )
        with np.load(io.BytesIO(self._people)) as stored:
            arrays = dict(stored)
        return arrays, json.loads(arrays.pop("facts").tobytes())

    @property
    def image_hashes(self) -> dict[str, str]:
        """The people's images as returned by `combined.image_hashes`, {hash: file name}."""
        return {digest: name for name, digest in self._decode_people()[1]["images"]}

    def dataset(self) -> PoseDataset:
        """The packed people with their sources and shares, for training only.

        Their images are file names without a folder, because only the canvases are available. Raises
        ValueError for a file of version 1.
        """
        arrays, facts = self._decode_people()
        names = [Path(name) for name, _ in facts["images"]]
        # tolist() converts to Python numbers; keypoints remain arrays.
        columns: dict[str, Any] = {
            name: values.tolist() for name, values in arrays.items() if name != "keypoints"
        }
        columns["image"] = [names[number] for number in columns["image"]]
        columns["bbox"] = map(tuple, columns["bbox"])
        columns["keypoints"] = arrays["keypoints"]
        rows = zip(*columns.values(), strict=True)
        instances = tuple(Person(**dict(zip(columns, row, strict=True))) for row in rows)
        sources, first = [], 0
        for source in facts["sources"]:
            part = instances[first : first + source["persons"]]
            sources.append(_restore_dataset(source, part, self.path))
            first += source["persons"]
        return _restore_dataset(facts["dataset"], instances, self.path, tuple(sources))

    def __getitem__(self, i: int) -> np.ndarray:
        """The canvas (n, n, 3), uint8 RGB, whose matrix is matrices[i]. It must not be modified.

        Raises ValueError if the canvas is damaged.
        """
        offset, length, crc, n, _ = self._entries[i]
        encoded = self._bytes[offset : offset + length]
        if not self._checked[i]:  # once per process: the check takes a third of the time of the warp
            if zlib.crc32(encoded.data) != crc:
                raise ValueError(f"{self.path} is damaged: the hash of canvas {i} is wrong; delete it")
            self._checked[i] = True
        if self.facts["format"] == "raw":
            return encoded.reshape(n, n, 3)
        canvas = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)  # (n, n, 3)
        assert canvas is not None  # its CRC is correct
        return canvas

    def tensor(self, device: str) -> Tensor:
        """All canvases on a device, (N, S, S, 3) uint8, black beyond their own sides."""
        squares = torch.zeros(len(self), self.side, self.side, 3, dtype=torch.uint8, device=device)
        for i, square in enumerate(tqdm(squares, desc=f"loading {self.path.name}", unit="person")):
            canvas = torch.from_numpy(np.asarray(self[i]))
            square[: len(canvas), : len(canvas)] = canvas
        return squares
