"""Get a dataset: `posebook download coco|mpii|crowdpose|lspet`.

Archives are kept in ROOT/downloads, a broken transfer goes on where it stopped, and what is unpacked is moved
to where the loaders look for it. pooch checks the hashes.

1. A hash is known only where somebody citable published it: COCO's are those of PaddleDetection's download
   table (ppdet/utils/download.py). Of other files the SHA-256 of the first download is written to
   ROOT/downloads/hashes.json, and every later one is held to it.
2. What needs a login or a form is not fetched: the page, and the files to put where, are printed.
3. An archive is looked through before anything of it is written: a member that would leave the folder, or is
   a link, refuses the whole.
"""

import json
import os
import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from posebook.datasets import default_root
from posebook.utils import sha256, unknown_name_error

ATTEMPTS = 5  # transfers that may break off before a file is given up; each goes on where the last stopped
BLOCK = 1 << 14  # bytes written at once, and at most lost when a transfer breaks off


@dataclass(frozen=True)
class Archive:
    """A file to fetch, and the paths below ROOT that its content is moved to, found by their last part."""

    url: str
    places: tuple[str, ...]
    digest: str | None = None  # "md5:..." as published; None: nobody has


@dataclass(frozen=True)
class ByHand:
    """What the owners hand out themselves."""

    page: str
    places: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A dataset's archives and what has to be fetched by hand."""

    archives: tuple[Archive, ...]
    by_hand: tuple[ByHand, ...] = ()


_COCO = "http://images.cocodataset.org"
_MMPOSE = "https://download.openmmlab.com/mmpose/datasets"
SOURCES = {
    "coco": Source(
        (
            Archive(
                f"{_COCO}/annotations/annotations_trainval2017.zip",
                tuple(f"annotations/person_keypoints_{split}2017.json" for split in ("train", "val")),
                "md5:f4bbac642086de4f52a3fdda2de5fa2c",
            ),
            Archive(f"{_COCO}/zips/val2017.zip", ("val2017",), "md5:442b8da7639aecaf257c1dceb8ba8c80"),
            Archive(f"{_COCO}/zips/train2017.zip", ("train2017",), "md5:cced6f7f71b7629ddf16f17bbcfab6b2"),
        ),
        (
            ByHand(
                "https://github.com/leoxiaobin/deep-high-resolution-net.pytorch#data-preparation",
                ("person_detection_results/COCO_val2017_detections_AP_H_56_person.json",),
            ),
        ),
    ),
    "mpii": Source(
        (
            Archive(
                f"{_MMPOSE}/mpii_annotations.tar",
                tuple(
                    f"annotations/{name}" for name in ("mpii_train.json", "mpii_val.json", "mpii_gt_val.mat")
                ),
            ),
            Archive(
                "https://datasets.d2.mpi-inf.mpg.de/andriluka14cvpr/mpii_human_pose_v1.tar.gz", ("images",)
            ),
        )
    ),
    "crowdpose": Source(
        (
            Archive(
                f"{_MMPOSE}/crowdpose_annotations.tar",
                tuple(
                    f"annotations/mmpose_crowdpose_{split}.json"
                    for split in ("train", "val", "trainval", "test")
                ),
            ),
        ),
        (ByHand("https://github.com/Jeff-sjtu/CrowdPose", ("images/100000.jpg and 19,999 others",)),),
    ),
    "lspet": Source((Archive("http://sam.johnson.io/research/lspet_dataset.zip", ("images", "joints.mat")),)),
}


def get(name: str, root: str | Path | None = None, source: Source | None = None) -> list[str]:
    """Fetch and unpack what is not there yet; returns what must be fetched by hand, a line each.

    root: the dataset's folder, by default `default_root(name)`; source: other addresses than SOURCES'. Raises
    ValueError for a name it does not know and for a file that is not what it must be, ConnectionError for one
    that cannot be had.
    """
    if source is None and name not in SOURCES:
        raise unknown_name_error(name, SOURCES, "dataset to download")
    source, root = source or SOURCES[name], Path(root) if root else default_root(name)
    for archive in source.archives:
        absent = [place for place in archive.places if not (root / place).exists()]
        if absent:
            unpack(fetch(archive, root / "downloads"), absent, root)
    return [
        f"{place}, from {hand.page}"
        for hand in source.by_hand
        for place in hand.places
        if not (root / place.split(" ")[0]).exists()
    ]


def fetch(archive: Archive, folder: Path) -> Path:
    """The archive in `folder`, its hash checked; a part that is there already is not fetched again."""
    import pooch  # only who downloads needs it

    folder.mkdir(parents=True, exist_ok=True)
    name, ledger = archive.url.rsplit("/", 1)[1], folder / "hashes.json"
    seen = json.loads(ledger.read_text()) if ledger.is_file() else {}
    known = archive.digest or seen.get(name)
    pooch.get_logger().setLevel("ERROR")
    try:
        path = Path(pooch.retrieve(archive.url, known, name, folder, downloader=_resume))
    except ValueError as error:
        if "hash" not in str(error):
            raise
        origin = "published" if archive.digest else f"of its first download, in {ledger}"
        raise ValueError(
            f"{archive.url} is not the file it should be: its hash is not the one {origin} ({known}). "
            "It was not kept; if the owners changed it, say so in an issue"
        ) from error
    if not known:
        ledger.write_text(json.dumps(seen | {name: f"sha256:{sha256(path)}"}, indent=1) + "\n")
    return path


def _resume(url: str, target: str, _: object) -> None:
    """pooch's downloader: into NAME.part beside the target, from its end on, then renamed to the target."""
    import requests

    part = Path(target).parent / (url.rsplit("/", 1)[1] + ".part")
    reason = ""
    for _attempt in range(ATTEMPTS):
        have = part.stat().st_size if part.exists() else 0
        try:
            total = _transfer(requests, url, part, have)
        except requests.RequestException as error:
            reason = str(error)
            continue
        size = part.stat().st_size if part.exists() else 0
        if total is None or size == total:
            os.replace(part, target)
            return
        if size > total:
            part.unlink(missing_ok=True)
        reason = f"{size} bytes came of {total}"
    raise ConnectionError(
        f"{url} broke off {ATTEMPTS} times ({reason}); the same command goes on from what is in {part}"
    )


def _transfer(requests: object, url: str, part: Path, have: int) -> int | None:
    """Append what the server has beyond `have` bytes; returns how long the whole file is, if it says so."""
    asked = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=asked, stream=True, timeout=30) as answer:
        if answer.status_code == 416:  # nothing beyond: what is there is all, or of another file
            whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if whole == str(have):
                return have
            part.unlink()
            return int(whole) if whole.isdecimal() else -1
        if answer.status_code not in (200, 206):
            raise ConnectionError(f"{url}: the server answers {answer.status_code} {answer.reason}")
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise ValueError(
                f"{url} answers with a web page, not with the file: open it in a browser to see why"
            )
        if answer.status_code == 200:
            have = 0  # the server knows no ranges: from the start
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            for block in answer.iter_content(BLOCK):
                file.write(block)
                bar.update(len(block))
    return total


def unpack(path: Path, places: list[str], root: Path) -> None:
    """Unpack an archive beside itself and move what stands for each of `places` there.

    Raises ValueError for a file that is no archive, holds a member that leaves the folder or is a link, or
    lacks one of the places.
    """
    folder = path.parent / f"{path.name}.unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in tqdm(_safe_zip(archive), desc=f"unpack {path.name}", delay=2):
                    archive.extract(member, folder)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                for member in tqdm(_safe_tar(archive), desc=f"unpack {path.name}", delay=2):
                    archive.extract(member, folder, filter="data")
        else:
            raise ValueError(f"{path} is neither a zip nor a tar archive: delete it and download again")
        for place in places:
            name = PurePosixPath(place).name
            found = sorted(folder.rglob(name), key=lambda inner: len(inner.parts))
            if not found:
                raise ValueError(f"{path} holds no {name}")
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            os.replace(found[0], root / place)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path} is broken: {error}; delete it and download again") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _safe_zip(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    for member in archive.infolist():
        link = (member.external_attr >> 16) & 0o170000 == 0o120000
        _stays(archive.filename, member.filename, link)
    return archive.infolist()


def _safe_tar(archive: tarfile.TarFile) -> list[tarfile.TarInfo]:
    members = archive.getmembers()
    for member in members:
        _stays(archive.name, member.name, not (member.isfile() or member.isdir()))
    return members


def _stays(archive: str | None, name: str, special: bool) -> None:
    """Raise ValueError for a member that would leave the folder, or is no plain file or folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name or special:
        what = "is a link or a device" if special else "would be written outside its folder"
        raise ValueError(f"{archive} is not unpacked: its member {name!r} {what}")
