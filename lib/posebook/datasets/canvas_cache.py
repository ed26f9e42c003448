"""People as ready-cut canvases in one file, so that an epoch opens no picture of the dataset.

A canvas is a square of the picture about a person's box: what nearly every augmented crop of it shows.

1. How far a canvas reaches: as the largest scale's crop does at its widest rotation. What a shift on top of
   both uncovers is black, as the outside of a picture is, and so is what of a half body's crop, about the
   joints of that half, lies beyond.
2. How dense it is: `DENSITY` pixels for a pixel of the input at scale 1. A person who has fewer pixels keeps
   the picture's own, cut out without resampling (the crop is then the picture's, to the bit but for
   rounding); one who has more is shrunk by areas, so that nothing aliases, to the square's full side.
3. A smaller cut is stored as it is; as a part of one tensor it lies in the upper left of its square.

    MAGIC | length of the index (8 bytes) | SHA-256 of the index | index | entries
    index = one line of JSON, the settings and the source | an ENTRY a person | the people, as `_people_bytes`

A file is written to another name and renamed; when its settings or its source are no longer those asked for,
it is made again. A file that is torn or not ours is refused, never overwritten.

The people in the file are enough to train without annotations and images (`Packed.people`). For a machine to
which only 64 MiB can be carried: about 1,350 people fit as JPEG canvases for inputs of 256x192 with the
augmentation of STARNET_POSE, and about 1,590 with the milder one of profile demo (49.5 and 42.1 kB a person,
measured on 1,242 people of COCO's photographs).
"""

import hashlib
import io
import json
import math
import os
import zlib
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from posebook import skeletons
from posebook.datasets import Person, PoseDataset, combined, read_image
from posebook.transforms import PADDING, Augmentation
from posebook.utils import sha256

VERSION = 2  # 1 held no people
MAGIC = b"posepack"
ENTRY = np.dtype(
    [("offset", "<u8"), ("length", "<u8"), ("crc", "<u4"), ("side", "<u4"), ("matrix", "<f8", (2, 3))]
)
DENSITY = 1.25  # canvas pixels a pixel of the input at scale 1
QUALITY = 95  # of a JPEG
FORMATS = ("jpeg", "raw")


def canvas_reach(input_size: tuple[int, int], augmentations: tuple[Augmentation, ...]) -> float:
    """Half a canvas' side in pixels of the input (H, W) at scale 1: the largest crop's extent."""
    height, width = input_size
    extents = []
    for augmentation in augmentations:
        angles = np.radians(np.linspace(0, min(augmentation.rotation, 90), 91))
        across = width * np.cos(angles) + height * np.sin(angles)  # a turned crop's
        upright = height * np.cos(angles) + width * np.sin(angles)
        extents.append(max(augmentation.scale) * max(across.max(), upright.max()) / 2)
    return float(max(extents))


def cut_canvas(
    image: np.ndarray, person: Person, input_size: tuple[int, int], reach: float, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a person's square from an image (H', W', 3): canvas (n, n, 3), n <= side, and its matrix (2, 3).

    The matrix leads from image pixels to canvas pixels.
    """
    height, width = input_size
    x, y, w, h = person.bbox
    box_width = max(w, h * width / height) * PADDING
    square = max(1, round(2 * reach * box_width / width))  # the cut's side in pixels of the image
    left, top = round(x + w / 2 - square / 2), round(y + h / 2 - square / 2)
    found = image[max(top, 0) : max(top + square, 0), max(left, 0) : max(left + square, 0)]
    cut = np.zeros((square, square, 3), np.uint8)
    if found.size:
        row, column = max(-top, 0), max(-left, 0)
        cut[row : row + found.shape[0], column : column + found.shape[1]] = found
    if square > side:
        cut = cv2.resize(cut, (side, side), interpolation=cv2.INTER_AREA)  # (side, side, 3)
    zoom = len(cut) / square
    shift = zoom * (0.5 - np.array([left, top])) - 0.5  # the corners of the outer pixels stay corners
    return cut, np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])


def open_or_create(
    dataset: PoseDataset,
    folder: str | Path,
    input_size: tuple[int, int],
    augmentations: tuple[Augmentation, ...],
    format: str = "jpeg",
) -> "CanvasCache":
    """The canvases of `persons` in a file of `folder`, made where there is none or its source has changed.

    augmentations: all that the canvases must serve; format: 'jpeg', small, or 'raw', which is quick and whose
    memory processes share. Raises ValueError for another format, and for a file that is there and torn or not
    one of these.
    """
    if format not in FORMATS:
        raise ValueError(f"canvases are packed as {' or '.join(FORMATS)}, not as {format!r}")
    half = canvas_reach(input_size, augmentations)
    side = 8 * math.ceil(2 * half * DENSITY / 8)
    settings = {
        "version": VERSION,
        "format": format,
        "quality": QUALITY if format == "jpeg" else None,
        "input_size": list(input_size),
        "reach": half,
        "side": side,
    }
    facts = settings | _source_facts(dataset)
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
    path = Path(folder) / f"{dataset.name}-{dataset.split}-{digest}.pack"
    if path.exists():
        packed = CanvasCache(path)
        if packed.facts == facts:
            return packed
    Path(folder).mkdir(parents=True, exist_ok=True)
    _write_cache(path, dataset, facts)
    return CanvasCache(path)


def _source_facts(dataset: PoseDataset) -> dict:
    """What tells these people and their pictures from others."""
    boxes = np.array([person.bbox for person in dataset.instances], "<f8")  # (N, 4)
    joints = np.array([person.keypoints for person in dataset.instances], "<f8")  # (N, K, 3)
    files = [person.image for person in dataset.instances]
    images = []
    for file in dict.fromkeys(files):
        facts = file.stat()
        images.append([file.name, facts.st_size, facts.st_mtime_ns])
    which = {file: number for number, file in enumerate(dict.fromkeys(files))}
    return {
        "data": dataset.sha256,
        "name": dataset.name,
        "split": dataset.split,
        "persons": len(dataset.instances),
        "boxes": hashlib.sha256(boxes.tobytes()).hexdigest(),
        "keypoints": hashlib.sha256(joints.tobytes()).hexdigest(),
        "images": hashlib.sha256(json.dumps([images, [which[file] for file in files]]).encode()).hexdigest(),
    }


def _people_bytes(dataset: PoseDataset) -> bytes:
    """People as a compressed .npz: an array of each field, and JSON of the images and of what `Persons` says.

    Images are names and hashes (`combined.image_hashes`), in the order of their first person. Boxes and
    keypoints are stored exactly.
    """
    files = {file: number for number, file in enumerate(dict.fromkeys(p.image for p in dataset.instances))}
    facts = {
        "images": [[file.name, sha256(file)[: combined.HASH_LENGTH]] for file in files],
        "dataset": _describe(dataset),
        "sources": [_describe(source) | {"persons": len(source.instances)} for source in dataset.sources],
    }
    arrays = {
        name: np.array([getattr(person, name) for person in dataset.instances])
        for name in ("id", "image_id", "bbox", "area", "keypoints", "score", "head")
    }
    arrays["image"] = np.array([files[person.image] for person in dataset.instances])
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


FACTS = ("name", "split", "sha256", "skipped", "boxes", "boxes_sha256", "file_joints", "joint_map")
FACTS += ("mapped_metric", "labels", "shares")  # the fields of `Persons` that are kept as they are


def _describe(dataset: PoseDataset) -> dict:
    """The fields of `Persons` that are no people, as JSON has them."""
    return {name: getattr(dataset, name) for name in FACTS} | {
        "skeleton": skeletons.describe(dataset.skeleton)
    }


def _described(facts: dict, persons: tuple[Person, ...], path: Path, sources: tuple = ()) -> PoseDataset:
    """`Persons` of what `_describe` gave; its annotations are the cache file at `path`."""
    values = {name: tuple(value) if isinstance(value := facts[name], list) else value for name in FACTS}
    skeleton = skeletons.from_description(facts["skeleton"])
    return PoseDataset(instances=persons, annotations=path, skeleton=skeleton, sources=sources, **values)


def _write_cache(path: Path, dataset: PoseDataset, facts: dict) -> None:
    """Write the file: entries as they come, the index, whose length is known before, at the end."""
    side, people = facts["side"], dataset.instances
    index = np.zeros(len(people), ENTRY)
    text, stored = json.dumps(facts).encode() + b"\n", _people_bytes(dataset)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.seek(len(MAGIC) + 8 + 32 + len(text) + index.nbytes + len(stored))
            last, image = None, None
            for number, person in enumerate(tqdm(people, desc=f"packing {path.name}", unit="person")):
                if person.image != last:  # neighbors share a picture
                    last, image = person.image, read_image(person.image)
                cut, matrix = cut_canvas(image, person, facts["input_size"], facts["reach"], side)
                if facts["format"] == "jpeg":
                    bgr = cv2.cvtColor(cut, cv2.COLOR_RGB2BGR)
                    entry = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
                else:
                    entry = cut.tobytes()
                index[number] = (file.tell(), len(entry), zlib.crc32(entry), len(cut), matrix)
                file.write(entry)
            body = text + index.tobytes() + stored
            file.seek(0)
            file.write(MAGIC + len(body).to_bytes(8, "little") + hashlib.sha256(body).digest() + body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class CanvasCache:
    """A file of canvases: packed[i] is person i's (n, n, 3), len(packed) the number of people.

    facts: the settings and the source; side: S, of the square that holds a canvas; matrices: (N, 2, 3), from
    image pixels to canvas pixels. Raises ValueError for a file that is torn or none of these.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with open(self.path, "rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError(f"{path} is no file of packed canvases")
            length, digest = int.from_bytes(file.read(8), "little"), file.read(32)
            size = os.fstat(file.fileno()).st_size
            body = file.read(min(length, size))
        if hashlib.sha256(body).digest() != digest:
            raise ValueError(f"{path} is damaged: its index is not what was written; delete it to pack again")
        text, table = body.split(b"\n", 1)
        self.facts = json.loads(text)
        self.digest = digest.hex()  # of the index, and with it of what is stored
        nbytes = self.facts["persons"] * ENTRY.itemsize
        self._index, self._stored = np.frombuffer(table[:nbytes], ENTRY), table[nbytes:]
        end = len(MAGIC) + 8 + 32 + length + int(self._index["length"].sum())
        if size != end:
            raise ValueError(f"{path} is torn: {size} bytes, not {end}; delete it to pack again")
        self.side, self.matrices = self.facts["side"], self._index["matrix"]
        # copy on write: torch wants memory it may write to, and nobody does
        self._bytes = np.memmap(self.path, np.uint8, "c")
        self._checked = np.zeros(len(self), bool)

    def __reduce__(self) -> tuple:
        """Loader processes open the file themselves, and share the pages."""
        return CanvasCache, (self.path,)

    def __len__(self) -> int:
        return len(self._index)

    def serves(self, input_size: tuple[int, int], augmentations: tuple[Augmentation, ...]) -> None:
        """Raise ValueError where the canvases are for another input size or for milder augmentations."""
        height, width = self.facts["input_size"]
        if (height, width) != tuple(input_size):
            raise ValueError(
                f"{self.path.name} holds canvases for inputs of {height}x{width}, not of "
                f"{input_size[0]}x{input_size[1]}: pack them for that size"
            )
        wanted = canvas_reach(input_size, augmentations)
        if self.facts["reach"] < wanted - 1e-6:
            raise ValueError(
                f"{self.path.name} holds canvases that reach {self.facts['reach']:.1f} pixels; this recipe's "
                f"augmentation needs {wanted:.1f}: pack them for it"
            )

    def _read(self) -> tuple[dict[str, np.ndarray], dict]:
        """What `_people_bytes` stored: arrays by name, and the facts."""
        if self.facts["version"] != VERSION:
            raise ValueError(
                f"{self.path.name} was packed by an earlier version and holds no people: pack it again"
            )
        with np.load(io.BytesIO(self._stored)) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return arrays, json.loads(arrays.pop("facts").tobytes())

    @property
    def image_hashes(self) -> dict[str, str]:
        """Hashes of the images that the people are of, as `combined.image_hashes`: {hash: file name}."""
        return {digest: name for name, digest in self._read()[1]["images"]}

    def people(self) -> PoseDataset:
        """The people that were packed, exactly; sources and shares too.

        Their images are file names without a folder: only the canvases are there. They are for training and
        not for evaluation. Raises ValueError for a file of a version that stored no people.
        """
        arrays, facts = self._read()
        names = [Path(name) for name, _ in facts["images"]]
        persons = tuple(
            Person(names[image], number, own, tuple(box), area, keypoints, score, head)
            for image, number, own, box, area, keypoints, score, head in zip(
                arrays["image"].tolist(),
                arrays["image_id"].tolist(),
                arrays["id"].tolist(),
                arrays["bbox"].tolist(),
                arrays["area"].tolist(),
                arrays["keypoints"],
                arrays["score"].tolist(),
                arrays["head"].tolist(),
                strict=True,
            )
        )
        sources, first = [], 0
        for source in facts["sources"]:
            sources.append(_described(source, persons[first : first + source["persons"]], self.path))
            first += source["persons"]
        return _described(facts["dataset"], persons, self.path, tuple(sources))

    def __getitem__(self, i: int) -> np.ndarray:
        """Canvas (n, n, 3) uint8 RGB, n <= side, whose matrix is matrices[i].

        Not to be written to. Raises ValueError for an entry that is damaged.
        """
        offset, length, _, n, _ = self._index[i]
        entry = self._bytes[offset : offset + length]
        self._check(i, entry)
        if self.facts["format"] == "jpeg":
            return cv2.imdecode(entry, cv2.IMREAD_COLOR_RGB)  # (n, n, 3)
        return entry.reshape(n, n, 3)

    def _check(self, i: int, entry: np.ndarray) -> None:
        if not self._checked[i]:  # once a process: it takes a third as long as the warp
            if zlib.crc32(entry) != self._index["crc"][i]:
                raise ValueError(f"{self.path} is damaged: entry {i} is not what was written; delete it")
            self._checked[i] = True

    def tensor(self, device: str) -> Tensor:
        """All squares on a device, (N, S, S, 3) uint8: N * S * S * 3 bytes."""
        whole = torch.zeros(len(self), self.side, self.side, 3, dtype=torch.uint8, device=device)
        for i, square in enumerate(tqdm(whole, desc=f"holding {self.path.name}", unit="person")):
            cut = torch.from_numpy(np.asarray(self[i]))
            square[: len(cut), : len(cut)] = cut
        return whole
