"""Downloads from a server that interrupts transfers, sends wrong lengths, pages or malicious archives."""

import io
import json
import tarfile
import zipfile
from hashlib import md5

import pytest

from posebook.datasets import download

pytest.importorskip("pooch")


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


GOOD = zipped(**{"inner/images/im00001.jpg": b"x" * 50_000, "inner/joints.mat": b"joints"})


@pytest.fixture
def server(file_server):
    file_server.content = GOOD
    return file_server


def get(server, root, digest=None) -> list[str]:
    """Download lspet from the test's server."""
    url = f"http://127.0.0.1:{server.server_port}/lspet.zip"
    with pytest.MonkeyPatch.context() as patch:
        archive = download.Archive(url, ("images", "joints.mat"), digest)
        patch.setitem(download.SOURCES, "lspet", (archive,))
        return download.get("lspet", root)


@pytest.mark.parametrize("fault", ["none", "interrupted", "no ranges"])
def test_download_is_complete(server, tmp_path, fault):
    server.fault = fault
    digest = "md5:" + md5(GOOD).hexdigest()
    assert get(server, tmp_path, digest) == []
    assert (tmp_path / "images" / "im00001.jpg").read_bytes() == b"x" * 50_000
    assert (tmp_path / "joints.mat").read_bytes() == b"joints"
    assert sorted(p.name for p in (tmp_path / "downloads").iterdir()) == ["lspet.zip"]
    if fault == "interrupted":
        first, second, third = server.ranges
        assert first is None and 0 < int(second[6:-1]) < int(third[6:-1]) < len(GOOD)
    count = len(server.ranges)
    get(server, tmp_path, digest)
    assert len(server.ranges) == count  # nothing is downloaded again


def test_the_next_call_continues_the_transfer(server, tmp_path):
    server.fault = "always interrupted"
    server.content = zipped(**{"images/1.jpg": bytes(10_000_000), "joints.mat": b""})  # too long for 5 halves
    with pytest.raises(ConnectionError, match="the transfer stopped 5 times .* the same command continues"):
        get(server, tmp_path)
    part = tmp_path / "downloads" / "lspet.zip.part"
    had = part.stat().st_size
    assert 0 < had < len(server.content)
    server.fault, server.ranges = "none", []
    get(server, tmp_path)
    assert server.ranges == [f"bytes={had}-"] and (tmp_path / "joints.mat").is_file()


def test_a_part_longer_than_the_file_is_downloaded_again(server, tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "lspet.zip.part").write_bytes(bytes(len(GOOD) + 5))
    get(server, tmp_path, "md5:" + md5(GOOD).hexdigest())
    assert server.ranges == [f"bytes={len(GOOD) + 5}-", None] and (tmp_path / "joints.mat").is_file()


@pytest.mark.parametrize(
    "fault, kind, words",
    [
        ("length too large", ConnectionError, "stopped 5 times"),
        ("length too small", ValueError, "hash differs"),
    ],
)
def test_a_wrong_content_length_is_detected(server, tmp_path, fault, kind, words):
    server.fault = fault
    with pytest.raises(kind, match=words):
        get(server, tmp_path, "md5:" + md5(GOOD).hexdigest())
    assert not (tmp_path / "joints.mat").exists()


@pytest.mark.parametrize(
    "fault, words", [("page", "is a web page, not the file"), ("missing", "the server responded 404")]
)
def test_pages_and_missing_files_are_rejected(server, tmp_path, fault, words):
    server.fault = fault
    with pytest.raises((ConnectionError, ValueError), match=words):
        get(server, tmp_path)
    assert not (tmp_path / "joints.mat").exists()


def test_a_file_with_a_wrong_published_hash_is_rejected(server, tmp_path):
    server.content = zipped(**{"images/im00001.jpg": b"other", "joints.mat": b"other"})
    with pytest.raises(ValueError, match="its hash differs from the published hash .md5:.* was deleted"):
        get(server, tmp_path, "md5:" + md5(GOOD).hexdigest())
    assert not (tmp_path / "images").exists() and not (tmp_path / "downloads" / "lspet.zip").exists()


def test_a_later_download_must_match_the_first(server, tmp_path):
    get(server, tmp_path)
    hash_file = tmp_path / "downloads" / "hashes.json"
    assert json.loads(hash_file.read_text())["lspet.zip"].startswith("sha256:")
    for path in (tmp_path / "downloads" / "lspet.zip", tmp_path / "joints.mat"):
        path.unlink()
    server.content = zipped(**{"images/im00001.jpg": b"other", "joints.mat": b"other"})
    with pytest.raises(ValueError, match="differs from the hash of its first download, in .*hashes.json"):
        get(server, tmp_path)


def tarred(member: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(member)
    return buffer.getvalue()


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


@pytest.mark.parametrize(
    "content, words",
    [
        (zipped(**{"images/a.jpg": b"", "../../evil": b"!"}), "member '../../evil' would be written outside"),
        (zipped(**{"/etc/evil": b"!"}), "member '/etc/evil' would be written outside"),
        (zipped(**{"..\\evil": b"!"}), "would be written outside"),
        (tarred(tarfile.TarInfo("../evil")), "member '../evil' would be written outside"),
        (tarred(link("images", "/etc")), "member 'images' is a link or a device"),
        (b"not an archive", "is neither a zip nor a tar archive"),
        (GOOD[: len(GOOD) // 2], "is neither a zip nor a tar archive"),
        (zipped(**{"pictures/a.jpg": b""}), "holds no images"),
    ],
)
def test_invalid_archives_are_not_unpacked(server, tmp_path, content, words):
    server.content, root = content, tmp_path / "inner" / "lspet"
    with pytest.raises(ValueError, match=words):
        get(server, root)
    assert not list(tmp_path.rglob("evil")) and not (root / "images").exists()
    assert {p.name for p in (root / "downloads").iterdir()} == {"lspet.zip", "hashes.json"}


def test_missing_files_to_fetch_by_hand_are_listed(tmp_path, monkeypatch):
    monkeypatch.setitem(download.SOURCES, "any", ())
    monkeypatch.setitem(download.BY_HAND, "any", ("images/1.jpg and others", "https://example.org/form"))
    assert download.get("any", tmp_path) == ["images/1.jpg and others, from https://example.org/form"]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").touch()
    assert download.get("any", tmp_path) == []


def test_unknown_names_suggest_close_matches(tmp_path):
    with pytest.raises(ValueError, match="unknown dataset to download 'coko'; did you mean coco"):
        download.get("coko", tmp_path)
