"""Downloads from a server that breaks off, lies, answers with pages, and sends poisoned archives."""

import http.server
import io
import json
import tarfile
import threading
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


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the server's `content`, badly in the way its `manner` says; keeps what was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        content, manner = self.server.content, self.server.manner
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and manner != "no ranges" else 0
        if manner == "missing":
            self.send_error(404)
            return
        if wanted and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "text/html" if manner == "page" else "application/zip")
        said = {"says more": len(body) + 1000, "says less": len(body) - 1000}.get(manner, len(body))
        self.send_header("Content-Length", str(said))
        self.end_headers()
        cut = manner == "breaks off always" or (
            manner in ("breaks off", "no ranges") and len(self.server.asked) < 3
        )
        try:
            self.wfile.write(body[: len(body) // 2] if cut else body)
        except (BrokenPipeError, ConnectionResetError):  # the client had all it was told to expect
            pass
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.content, found.manner, found.asked = GOOD, "well", []
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def source(server, digest=None, places=("images", "joints.mat")) -> download.Source:
    url = f"http://127.0.0.1:{server.server_port}/lspet.zip"
    return download.Source((download.Archive(url, places, digest),))


@pytest.mark.parametrize("manner", ["well", "breaks off", "no ranges"])
def test_a_dataset_arrives_whole(server, tmp_path, manner):
    server.manner = manner
    digest = "md5:" + md5(GOOD).hexdigest()
    assert download.get("lspet", tmp_path, source(server, digest)) == []
    assert (tmp_path / "images" / "im00001.jpg").read_bytes() == b"x" * 50_000
    assert (tmp_path / "joints.mat").read_bytes() == b"joints"
    assert sorted(p.name for p in (tmp_path / "downloads").iterdir()) == ["lspet.zip"]
    if manner == "breaks off":
        first, second, third = server.asked
        assert first is None and 0 < int(second[6:-1]) < int(third[6:-1]) < len(GOOD)
    count = len(server.asked)
    download.get("lspet", tmp_path, source(server, digest))
    assert len(server.asked) == count  # nothing is fetched twice


def test_the_next_call_goes_on_from_what_is_there(server, tmp_path):
    server.manner = "breaks off always"
    server.content = zipped(**{"images/1.jpg": bytes(10_000_000), "joints.mat": b""})  # many halvings long
    with pytest.raises(ConnectionError, match="broke off 5 times .* the same command goes on"):
        download.get("lspet", tmp_path, source(server))
    part = tmp_path / "downloads" / "lspet.zip.part"
    had = part.stat().st_size
    assert 0 < had < len(server.content)
    server.manner, server.asked = "well", []
    download.get("lspet", tmp_path, source(server))
    assert server.asked == [f"bytes={had}-"] and (tmp_path / "joints.mat").is_file()


def test_a_part_longer_than_the_file_is_begun_anew(server, tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "lspet.zip.part").write_bytes(bytes(len(GOOD) + 5))
    download.get("lspet", tmp_path, source(server, "md5:" + md5(GOOD).hexdigest()))
    assert server.asked == [f"bytes={len(GOOD) + 5}-", None] and (tmp_path / "joints.mat").is_file()


@pytest.mark.parametrize("manner", ["says more", "says less"])
def test_a_server_that_lies_about_the_length(server, tmp_path, manner):
    server.manner = manner
    with pytest.raises(
        (ConnectionError, ValueError), match="broke off 5 times|is neither|is broken|hash is not"
    ):
        download.get("lspet", tmp_path, source(server, "md5:" + md5(GOOD).hexdigest()))
    assert not (tmp_path / "joints.mat").exists()


@pytest.mark.parametrize(
    "manner, words", [("page", "answers with a web page"), ("missing", "the server answers 404")]
)
def test_a_page_is_not_the_file(server, tmp_path, manner, words):
    server.manner = manner
    with pytest.raises((ConnectionError, ValueError), match=words):
        download.get("lspet", tmp_path, source(server))
    assert not (tmp_path / "joints.mat").exists()


def test_another_file_than_was_published_is_refused(server, tmp_path):
    server.content = zipped(**{"images/im00001.jpg": b"other", "joints.mat": b"other"})
    with pytest.raises(ValueError, match="its hash is not the one published .md5:.* It was not kept"):
        download.get("lspet", tmp_path, source(server, "md5:" + md5(GOOD).hexdigest()))
    assert not (tmp_path / "images").exists() and not (tmp_path / "downloads" / "lspet.zip").exists()


def test_a_later_download_is_held_to_the_first(server, tmp_path):
    download.get("lspet", tmp_path, source(server))
    ledger = tmp_path / "downloads" / "hashes.json"
    assert json.loads(ledger.read_text())["lspet.zip"].startswith("sha256:")
    for path in (tmp_path / "downloads" / "lspet.zip", tmp_path / "joints.mat"):
        path.unlink()
    server.content = zipped(**{"images/im00001.jpg": b"other", "joints.mat": b"other"})
    with pytest.raises(ValueError, match="is not the one of its first download, in .*hashes.json"):
        download.get("lspet", tmp_path, source(server))


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
def test_archives_that_are_not_unpacked(server, tmp_path, content, words):
    server.content, root = content, tmp_path / "inner" / "lspet"
    with pytest.raises(ValueError, match=words):
        download.get("lspet", root, source(server))
    assert not list(tmp_path.rglob("evil")) and not (root / "images").exists()
    assert {p.name for p in (root / "downloads").iterdir()} == {"lspet.zip", "hashes.json"}


def test_what_must_be_fetched_by_hand_is_said(tmp_path):
    by_hand = download.Source(
        (), (download.ByHand("https://example.org/form", ("images/1.jpg and others",)),)
    )
    assert download.get("any", tmp_path, by_hand) == [
        "images/1.jpg and others, from https://example.org/form"
    ]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").touch()
    assert download.get("any", tmp_path, by_hand) == []


def test_unknown_names_offer_the_near_ones(tmp_path):
    with pytest.raises(ValueError, match="unknown dataset to download 'coko'; did you mean coco"):
        download.get("coko", tmp_path)
