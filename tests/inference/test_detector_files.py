"""Detectors by name: the table, downloads of files and archives from a local server, and commands."""

import dataclasses
import hashlib
import io
import re
import zipfile

import pytest

from posebook import cli
from posebook.inference import detector_files

pytest.importorskip("pooch")
TABLE = detector_files.load_table()
CONTENT = b"an ONNX file"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POSEBOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["made.onnx", "made.zip"])
def line(request, file_server, monkeypatch):
    """The only line of the table: a file, or an archive of mmdeploy, on the local server."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("20230831/made/end2end.onnx", CONTENT)
        archive.writestr("20230831/made/pipeline.json", "{}")
    file_server.content = CONTENT if request.param == "made.onnx" else buffer.getvalue()
    made = dataclasses.replace(
        TABLE[0],
        name="made",
        file="made.onnx",
        url=f"http://127.0.0.1:{file_server.server_port}/{request.param}",
        hash=f"sha256:{hashlib.sha256(CONTENT).hexdigest()[:12]}",
    )
    monkeypatch.setattr(detector_files, "load_table", lambda: (made,))
    return made


def test_each_line_has_a_permissive_license_and_a_source():
    assert len({line.name for line in TABLE}) == len({line.file for line in TABLE}) == len(TABLE) > 4
    for line in TABLE:
        assert line.url.startswith("https://") and line.file.endswith(".onnx"), line
        assert line.url.endswith((".onnx", ".zip")) and line.license in ("Apache-2.0", "MIT"), line
        assert re.fullmatch(r"[\w.-]+/[\w.-]+ \S+@[0-9a-f]{8}", line.source), line
        assert re.fullmatch(r"|sha256:[0-9a-f]{8,64}", line.hash), line
        assert "/" not in line.name and "." not in line.name and re.fullmatch(r"|\d+x\d+", line.input_size)
        # the format of these files is recognized by their name
        assert ("yolox" in line.file) == ("YOLOX" in line.format), line


def test_a_detector_is_downloaded_once_and_checked(line, file_server, cache):
    path = detector_files.resolve("made")
    assert path == cache / "made.onnx" and path.read_bytes() == CONTENT
    assert [file.name for file in cache.iterdir() if file.name != "hashes.json"] == ["made.onnx"]
    assert detector_files.resolve("made") == path and len(file_server.ranges) == 1
    path.write_bytes(b"another file")
    with pytest.raises(ValueError, match="made.onnx is not the detector made: its hash is not sha256:"):
        detector_files.resolve("made")


def test_without_the_file_the_error_says_where_to_put_it(line, file_server, cache):
    file_server.fault = "missing"
    saved = cache / line.url.rsplit("/", 1)[1]
    fix = "; correct the url in line made of detectors.csv"
    with pytest.raises(ConnectionError, match=f"responded 404.*{fix}; or save {line.url} as {saved}$"):
        detector_files.resolve("made")
    saved.write_bytes(file_server.content)  # as the error says
    assert detector_files.resolve("made").read_bytes() == CONTENT


def test_unknown_names_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match="unknown detector 'yolox-tini'; did you mean yolox-tiny"):
        detector_files.resolve("yolox-tini")
    for path in (tmp_path / "gone", "gone.onnx"):
        with pytest.raises(FileNotFoundError, match=f"no detector at {path}"):
            detector_files.resolve(path)
    (tmp_path / "there").write_bytes(CONTENT)
    assert detector_files.resolve(tmp_path / "there") == tmp_path / "there"


def test_command_lists_and_downloads(line, cache, capsys):
    cli.main(["download", "detector", "made"])
    assert capsys.readouterr().out.splitlines() == [str(cache / "made.onnx"), "license: Apache-2.0"]
    cli.main(["download", "detector"])
    assert capsys.readouterr().out.split() == ["made", *TABLE[0].format.split(), "Apache-2.0", line.url]
