"""Downloads a dataset: `posebook download coco|mpii|crowdpose|lspet`.

Archives go to ROOT/downloads; downloads.py continues interrupted transfers and checks hashes. Unpacked files
are moved to where the loaders expect them.

1. Only COCO's archives have a published hash that can be cited: PaddleDetection's download table
   (ppdet/utils/download.py).
2. Files that need a login or a form are not downloaded. The page and the target paths are printed.
3. All members of an archive are checked before any is written. If one would be written outside the folder or
   is a link, nothing is unpacked.
"""

import os
import shutil
import stat
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from posebook import downloads
from posebook.datasets import default_root
from posebook.datasets.detector_boxes import COCO_BOXES
from posebook.utils import check_name


@dataclass(frozen=True)
class Archive:
    """An archive to download. Its files or folders are moved to the paths `targets` below ROOT.

    In the archive, a target is found by the last part of its path.
    """

    url: str
    targets: tuple[str, ...]
    digest: str | None = None  # "md5:..." if a hash is published


def _annotations(*names: str) -> tuple[str, ...]:
    return tuple(f"annotations/{name}" for name in names)


_COCO = "http://images.cocodataset.org"
_MMPOSE = "https://download.openmmlab.com/mmpose/datasets"
_COCO_FILES = [f"person_keypoints_{split}2017.json" for split in ("train", "val")]
_CROWDPOSE_FILES = [f"mmpose_crowdpose_{split}.json" for split in ("train", "val", "trainval", "test")]
_MPII_FILES = ("mpii_train.json", "mpii_val.json", "mpii_gt_val.mat")
_MPII_IMAGES = "https://datasets.d2.mpi-inf.mpg.de/andriluka14cvpr/mpii_human_pose_v1.tar.gz"
SOURCES = {
    "coco": (
        Archive(
            f"{_COCO}/annotations/annotations_trainval2017.zip",
            _annotations(*_COCO_FILES),
            "md5:f4bbac642086de4f52a3fdda2de5fa2c",
        ),
        Archive(f"{_COCO}/zips/val2017.zip", ("val2017",), "md5:442b8da7639aecaf257c1dceb8ba8c80"),
        Archive(f"{_COCO}/zips/train2017.zip", ("train2017",), "md5:cced6f7f71b7629ddf16f17bbcfab6b2"),
    ),
    "mpii": (
        Archive(f"{_MMPOSE}/mpii_annotations.tar", _annotations(*_MPII_FILES)),
        Archive(_MPII_IMAGES, ("images",)),
    ),
    "crowdpose": (Archive(f"{_MMPOSE}/crowdpose_annotations.tar", _annotations(*_CROWDPOSE_FILES)),),
    "lspet": (Archive("http://sam.johnson.io/research/lspet_dataset.zip", ("images", "joints.mat")),),
}
# A file that the owners provide on a web page only, and the page. The file may end with " and N others".
BY_HAND = {
    "coco": (COCO_BOXES, "https://github.com/leoxiaobin/deep-high-resolution-net.pytorch#data-preparation"),
    "crowdpose": ("images/100000.jpg and 19,999 others", "https://github.com/Jeff-sjtu/CrowdPose"),
}


def get(name: str, root: str | Path | None = None) -> list[str]:
    """Download and unpack the missing files. Returns one line for each file that must be fetched by hand.

    root: the dataset's folder; default: `default_root(name)`. Raises ValueError for an unknown name or an
    invalid file, and ConnectionError for a file that cannot be transferred.
    """
    check_name(name, SOURCES, "dataset to download")
    root = Path(root) if root else default_root(name)
    for archive in SOURCES[name]:
        missing = [target for target in archive.targets if not (root / target).exists()]
        if missing:
            unpack(downloads.fetch(archive.url, root / "downloads", digest=archive.digest), missing, root)
    if name not in BY_HAND:
        return []
    file, page = BY_HAND[name]
    return [] if (root / file.split(" ")[0]).exists() else [f"{file}, from {page}"]


def unpack(path: Path, targets: list[str], root: Path) -> None:
    """Unpack an archive next to itself, then move the file or folder for each target to ROOT/target.

    Raises ValueError for a file that is not an archive, an archive with a member outside its folder or a
    link, and an archive without one of the targets.
    """
    folder = path.parent / f"{path.name}.unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as zipped:
                entries = zipped.infolist()
                for entry in entries:
                    _check_member(path, entry.filename, stat.S_ISLNK(entry.external_attr >> 16))
                for entry in tqdm(entries, desc=f"unpack {path.name}", delay=2):
                    zipped.extract(entry, folder)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as tarred:
                members = tarred.getmembers()
                for member in members:
                    _check_member(path, member.name, not (member.isfile() or member.isdir()))
                for member in tqdm(members, desc=f"unpack {path.name}", delay=2):
                    tarred.extract(member, folder, filter="data")
        else:
            raise ValueError(f"{path} is neither a zip nor a tar archive: delete it and download again")
        for target in targets:
            name = PurePosixPath(target).name
            matches = sorted(folder.rglob(name), key=lambda match: len(match.parts))
            if not matches:
                raise ValueError(f"{path} holds no {name}")
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            os.replace(matches[0], root / target)  # the match in the uppermost folder
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path} is broken: {error}; delete it and download again") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_member(archive: Path, name: str, is_special: bool) -> None:
    """Raise ValueError if a member would be written outside the folder, or is not a plain file or folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name or is_special:
        reason = "is a link or a device" if is_special else "would be written outside its folder"
        raise ValueError(f"{archive} is not unpacked: its member {name!r} {reason}")
