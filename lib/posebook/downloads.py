"""Download one file with pooch: a transfer that can be continued, and a checked hash.

1. An interrupted transfer is kept as NAME.part and continues from there, also in a later call.
2. If no hash is published, the SHA-256 of the first download is written to hashes.json in the same folder,
   and later downloads must match it.
3. A published hash may be a prefix: mmpose's file names contain the first eight digits of the SHA-256.
"""

import functools
import hashlib
import json
import os
from pathlib import Path

from tqdm import tqdm

from posebook.utils import sha256

ATTEMPTS = 5  # interrupted transfers per file; each attempt continues where the last one stopped
BLOCK = 1 << 14  # bytes per write; an interrupted transfer loses at most one block


class MovedError(ConnectionError):
    """The server does not have the file, or sends a web page instead of it."""


def has_hash(path: Path, digest: str) -> bool:
    """Whether the hash of a file starts with `digest`, 'ALGORITHM:HEXADECIMAL DIGITS'."""
    algorithm, _, digits = digest.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest().startswith(digits)


def fetch(url: str, folder: Path, name: str | None = None, digest: str | None = None) -> Path:
    """Download a file to folder/name and check its hash. A file that is there is checked, not downloaded.

    name: default: the last part of the URL. digest: the published hash or its first digits, 'sha256:...' or
    'md5:...'. Raises ValueError for another hash, MovedError, and ConnectionError for a file that cannot be
    transferred.
    """
    import pooch  # an optional dependency, needed for downloads only

    folder.mkdir(parents=True, exist_ok=True)
    name, hash_file = name or url.rsplit("/", 1)[1], folder / "hashes.json"
    recorded = json.loads(hash_file.read_text()) if hash_file.is_file() else {}
    expected, existed = digest or recorded.get(name), (folder / name).is_file()
    pooch.get_logger().setLevel("ERROR")
    # pooch compares complete hashes only, so the hash is checked here.
    downloader = functools.partial(_resume, part=folder / f"{name}.part")
    path = Path(pooch.retrieve(url, None, name, folder, downloader=downloader))
    if expected and not has_hash(path, expected):
        origin = "published hash" if digest else f"hash of its first download, in {hash_file}"
        if existed:
            raise ValueError(
                f"{path} is not the expected file: its hash differs from the {origin} ({expected}); delete it"
            )
        path.unlink()
        raise ValueError(
            f"{url} is not the expected file: its hash differs from the {origin} ({expected}). The "
            "download was deleted; if the owners changed the file, report it in an issue"
        )
    if not expected:
        hash_file.write_text(json.dumps(recorded | {name: f"sha256:{sha256(path)}"}, indent=1) + "\n")
    return path


def _resume(url: str, target: str, _: object, part: Path) -> None:
    """Downloader for pooch. It appends to `part` and renames it to `target` when it is complete."""
    import requests

    reason = ""
    for _attempt in range(ATTEMPTS):
        try:
            total = _transfer(url, part)
        except requests.RequestException as error:
            reason = str(error)
            continue
        size = _size(part)
        if total is None or size == total:
            os.replace(part, target)
            return
        if size > total:
            part.unlink(missing_ok=True)
        reason = f"{size} of {total} bytes were received"
    if not _size(part):
        raise ConnectionError(f"{url}: no byte was received in {ATTEMPTS} attempts ({reason})")
    raise ConnectionError(
        f"{url}: the transfer stopped {ATTEMPTS} times ({reason}); the same command continues from {part}"
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _transfer(url: str, part: Path) -> int | None:
    """Append the missing bytes to `part`. Returns the size of the complete file, or None if unknown."""
    import requests

    start = _size(part)
    headers = {"Accept-Encoding": "identity"}  # of a compressed answer, Content-Length is another length
    headers |= {"Range": f"bytes={start}-"} if start else {}
    with requests.get(url, headers=headers, stream=True, timeout=30) as response:
        if response.status_code == 416:  # no bytes from `start` on: `part` is complete, or of another file
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            if total == str(start):
                return start
            part.unlink()
            return int(total) if total.isdecimal() else -1  # -1 equals no size: start again
        if response.status_code not in (200, 206):
            error = MovedError if response.status_code < 500 else ConnectionError
            raise error(f"{url}: the server responded {response.status_code} {response.reason}")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise MovedError(f"{url} is a web page, not the file: open it in a browser to see the reason")
        if response.status_code == 200:
            start = 0  # the server does not support ranges and sends the complete file
        length = response.headers.get("Content-Length")
        size = start + int(length) if length else None
        with (
            open(part, "ab" if start else "wb") as file,
            tqdm(total=size, initial=start, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            for block in response.iter_content(BLOCK):
                file.write(block)
                bar.update(len(block))
    return size
