"""Published weights by name: the table, downloads from a local server, and loading."""

import dataclasses
import hashlib
import json
import re
import socket

import pytest
import torch

from helpers import ROOT, drawn
from posebook import cli, downloads, models, skeletons
from posebook.inference import export
from posebook.lifting.models import LIFTERS
from posebook.models import published

pytest.importorskip("pooch")

TABLE = published.load_table()
LAYOUT = json.loads((ROOT / "tests" / "parity" / "lite-hrnet-18.json").read_text())["keys"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POSEBOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def checkpoint(file_server, tmp_path, monkeypatch):
    """The only line of the table: Lite-HRNet on COCO, in mmpose 1's layout, on the local server."""
    state = {
        f"head.{key[14:]}" if key.startswith("keypoint_head.") else key: v for key, v in drawn(LAYOUT).items()
    }
    torch.save({"meta": {"epoch": 210}, "state_dict": state}, tmp_path / "made.pth")
    file_server.content = (tmp_path / "made.pth").read_bytes()
    digest = hashlib.sha256(file_server.content).hexdigest()
    line = dataclasses.replace(
        published.find("lite-hrnet-18", "coco"),
        url=f"http://127.0.0.1:{file_server.server_port}/made.pth",
        file=f"lite-{digest[:8]}.pth",
        hash=f"sha256:{digest[:8]}",
    )
    monkeypatch.setattr(published, "load_table", lambda: (line,))
    return line


def change(monkeypatch, line, **fields) -> published.Checkpoint:
    changed = dataclasses.replace(line, **fields)
    monkeypatch.setattr(published, "load_table", lambda: (changed,))
    return changed


# the table


def test_each_line_has_a_name_a_place_and_a_source():
    assert (
        len({(line.model, line.weights) for line in TABLE})
        == len({line.file for line in TABLE})
        == len(TABLE)
    )
    for line in TABLE:
        assert bool(line.url) != bool(line.page) and (line.url or line.page).startswith("https://"), line
        assert re.search(r"[\w.-]+/[\w.-]+.* \S*@?[0-9a-f]{8}|huggingface.co/", line.source), line
        assert line.model in (*models.names(), *LIFTERS) and "." not in line.weights, line
        assert line.metric in ("AP", "PCKh@0.5", "MPJPE", "") and bool(line.metric) == bool(line.value), line
        assert re.fullmatch(r"|sha256:[0-9a-f]{8,64}|md5:[0-9a-f]{6,32}", line.hash), line


def test_hashes_of_mmpose_are_those_in_its_file_names():
    lines = [line for line in TABLE if line.url.startswith("https://download.openmmlab.com/")]
    assert len(lines) > 50
    for line in lines:
        assert line.url.endswith(f"/{line.file}") and line.source.startswith("open-mmlab/mmpose configs/")
        assert re.search(rf"-{line.hash.removeprefix('sha256:')}_20\d{{6}}\.pth$", line.url), line


def test_pose_models_state_their_protocol_and_can_be_built():
    lines = [line for line in TABLE if line.input_size]
    for line in lines:
        assert line.dataset in skeletons.SKELETONS and line.boxes in ("detector", "ground truth"), line
        assert line.flip_test == "yes" and line.decoding in ("", "UDP", "DARK"), line
        models.check_options(line.model, line.options)
    kinds = {(line.model, tuple(line.options.items()), line.dataset, line.input_size) for line in lines}
    special = {kind for kind in kinds if kind[1] or kind[3] not in ((256, 192), (384, 288), (256, 256))}
    with torch.device("meta"):
        for model, options, dataset, size in special:
            assert models.build(model, dataset, size, **dict(options)).input_size == size
    assert any(size == (320, 256) for *_, size in special)


# downloads


def test_a_file_is_downloaded_once_and_checked(file_server, checkpoint, cache):
    assert published.fetch(checkpoint) == cache / checkpoint.file
    assert published.fetch(checkpoint).read_bytes() == file_server.content and len(file_server.ranges) == 1
    assert published.folder() == cache


def test_default_folder(monkeypatch):
    monkeypatch.delenv("POSEBOOK_CACHE")
    assert published.folder() == ROOT / "data" / "checkpoints"


def test_wrong_hash(file_server, checkpoint, cache):
    file_server.content = b"another file"
    with pytest.raises(
        ValueError, match=r"made.pth is not the expected file: its hash differs from the published"
    ):
        published.fetch(checkpoint)
    assert not (cache / checkpoint.file).exists()
    (cache / checkpoint.file).write_bytes(b"saved by hand")
    message = (
        f"{checkpoint.file} is not the file of line lite-hrnet-18, coco of checkpoints.csv: its hash is not"
    )
    with pytest.raises(ValueError, match=message):
        published.fetch(checkpoint)
    assert (cache / checkpoint.file).read_bytes() == b"saved by hand"


def test_file_without_a_published_hash_must_stay_the_same(file_server, checkpoint, cache, monkeypatch):
    line = change(monkeypatch, checkpoint, hash="")
    published.fetch(line).unlink()
    file_server.content = b"another file"
    with pytest.raises(ValueError, match="differs from the hash of its first download, in .*hashes.json"):
        published.fetch(line)


def test_interrupted_download_continues(file_server, checkpoint, cache, monkeypatch):
    monkeypatch.setattr(downloads, "ATTEMPTS", 2)
    file_server.fault = "always interrupted"
    part = cache / f"{checkpoint.file}.part"
    message = rf"stopped 2 times .* continues from {part}; or save the file as {cache / checkpoint.file}$"
    with pytest.raises(ConnectionError, match=message):
        published.fetch(checkpoint)
    size = part.stat().st_size
    file_server.fault, file_server.ranges = "none", []
    assert published.fetch(checkpoint).is_file() and file_server.ranges == [f"bytes={size}-"]


@pytest.mark.parametrize("fault, words", [("missing", "responded 404"), ("page", "is a web page")])
def test_moved_url(file_server, checkpoint, cache, fault, words):
    file_server.fault = fault
    fix = f"correct the url in line lite-hrnet-18, coco of checkpoints.csv, or save the file as {cache}"
    with pytest.raises(ConnectionError, match=f"{words}.*; {fix}"):
        published.fetch(checkpoint)


def test_no_network(checkpoint, cache, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/made.pth"
    line = change(monkeypatch, checkpoint, url=url)
    message = (
        rf"made.pth: no byte was received in 5 attempts \(.*\); or save the file as {cache / line.file}$"
    )
    with pytest.raises(ConnectionError, match=message):
        published.fetch(line)
    line = change(monkeypatch, line, model="starnet-pose-t")
    with pytest.raises(
        ConnectionError, match="; bundled weights need no network: dropout-synthetic, photographs, synthetic$"
    ):
        published.fetch(line)


def test_file_on_a_page_is_named_with_its_place(cache):
    line = published.find("lite-hrnet-30", "coco-authors")
    message = rf"no {cache}/lite-hrnet-30-coco-authors.pth: download it by hand from https://drive.google"
    with pytest.raises(FileNotFoundError, match=message):
        published.fetch(line)


# names


def test_unknown_names(capsys):
    with pytest.raises(ValueError, match="unknown weights of rtmpose-t 'cocoo'; did you mean coco"):
        models.load("rtmpose-t", "cocoo")
    with pytest.raises(ValueError, match="no published weights of 'lap' are known"):
        models.load("lap")
    with pytest.raises(ValueError, match="weights 'coco' are given by name: also give the name of the model"):
        published.resolve("coco", None)
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--weights", "coco"])
    assert "error: weights 'coco' are given by name: also give" in capsys.readouterr().err
    with pytest.raises(ValueError, match="starnet_s1.pth.tar contains only a backbone"):
        models.load("starnet-pose-t", "imagenet")


def test_bundled_weights_have_names_and_need_no_network():
    model = models.load("starnet-pose-t", "synthetic")
    path = ROOT / "data" / "weights" / "starnet-pose-t-synthetic.safetensors"
    assert published.resolve(path, None) == published.resolve("synthetic", "starnet-pose-t") == path
    expected = models.load_weights(path).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


# loading


def test_load_builds_the_model_of_the_line(checkpoint, cache):
    model = models.load("lite-hrnet-18", "coco")
    weight = next(key for key, shape, _ in LAYOUT if len(shape) == 4)
    assert torch.equal(model.state_dict()[weight], drawn(LAYOUT)[weight].float()) and not model.training
    facts = models.describe_weights(cache / checkpoint.file)
    assert facts == {"model": "lite-hrnet-18", "skeleton": "coco", "trained_on": "coco"} | {
        "input_size": [256, 192],
        "options": {},
    }
    with pytest.raises(ValueError, match="holds weights of lite-hrnet-18, not of lite-hrnet-30"):
        models.load_weights(cache / checkpoint.file, "lite-hrnet-30")


def test_weights_trained_with_udp_keep_this_fact(checkpoint, cache, monkeypatch, tmp_path):
    assert not models.load("lite-hrnet-18").udp
    change(monkeypatch, checkpoint, decoding="UDP")
    model = models.load("lite-hrnet-18")
    models.save_weights(model, tmp_path / "saved.safetensors", "lite-hrnet-18", "coco")
    assert model.udp and models.load_weights(tmp_path / "saved.safetensors").udp
    with pytest.raises(ValueError, match="end-to-end export has no decoding for weights trained with UDP"):
        export.export(model, tmp_path / "model.onnx", end_to_end=True)


def test_checkpoint_of_another_model_or_joint_set(checkpoint, monkeypatch):
    change(monkeypatch, checkpoint, model="lite-hrnet-30")
    with pytest.raises(ValueError, match="weights do not fit LiteHRNet"):
        models.load("lite-hrnet-30")
    change(monkeypatch, checkpoint, model="hrnet-w32")
    with pytest.raises(ValueError, match=r"do not fit HRNet \(they belong to another model\)"):
        models.load("hrnet-w32")
    change(monkeypatch, checkpoint, dataset="mpii", weights="mpii")
    with pytest.raises(ValueError, match=r"do not fit LiteHRNet for 16 joints \(they are for 17\)"):
        models.load("lite-hrnet-18", "mpii")


def test_training_can_start_from_published_weights(checkpoint):
    from posebook.models import transfer

    path = published.fetch(checkpoint)
    model = models.build("lite-hrnet-18", "lspet", (64, 64))
    report = transfer.transfer_weights(model, path, "lite-hrnet-18")
    assert report.mapped == ["keypoint_head.final_layer.weight", "keypoint_head.final_layer.bias"]


def test_commands(checkpoint, cache, capsys):
    cli.main(["download", "weights", "lite-hrnet-18"])
    assert capsys.readouterr().out == f"{cache / checkpoint.file}\nlicense: Apache-2.0\n"
    cli.main(["download", "weights"])
    assert capsys.readouterr().out.split() == ["lite-hrnet-18", "coco", "AP", "64.2", checkpoint.url]
    for arguments, words in (
        (["download", "coco", "lapx"], "coco is a dataset: leave out lapx"),
        (["download", "weights", "lite-hrnet-18", "mpii"], "unknown weights of lite-hrnet-18 'mpii'"),
    ):
        with pytest.raises(SystemExit):
            cli.main(arguments)
        assert words in capsys.readouterr().err
