"""Published and measured accuracy, and the command that shows both."""

import dataclasses
import json

import pytest
import torch

from helpers import ROOT, drawn
from posebook import cli
from posebook.evaluation import published_accuracy
from posebook.models import published

HRNET = published.find("hrnet-w32", "coco")  # AP 74.9 with a detector's boxes


def record(
    ap: float, boxes: str = "detector: x.json", decoding: str = "heatmap argmax, quarter offset"
) -> dict:
    protocol = {"boxes": boxes, "decoding": decoding, "flip_test": True}
    return {"metrics": {"AP": ap}, "protocol": protocol, "dataset": {"name": "coco", "split": "val2017"}}


@pytest.mark.parametrize(
    "ap, words", [(0.7453, "; within the tolerance of 0.5"), (0.7439, "; not within the tolerance of 0.5")]
)
def test_equal_protocols_give_a_verdict(ap, words):
    entry = published_accuracy.compare(HRNET, record(ap))
    assert entry["differences"] == [] and entry["published"] == 74.9
    text = published_accuracy.describe(entry)
    assert text.startswith(f"AP: published 74.9, measured {100 * ap:.2f}") and words in text


def test_other_protocols_give_none():
    entry = published_accuracy.compare(HRNET, record(0.749, "ground truth"))
    text = published_accuracy.describe(entry)
    assert "not comparable: published with detector boxes (person_detection_results/COCO_val2017" in text
    assert "measured with ground truth boxes" in text and "tolerance" not in text
    udp = published.find("vitpose-b", "coco")
    assert published_accuracy.differences(udp, record(0.757)) == ["published with UDP decoding"]
    assert published_accuracy.differences(udp, record(0.757, decoding="heatmap argmax, DARK, UDP")) == []
    dark = published.find("hrnet-w32", "coco-dark")
    assert published_accuracy.differences(dark, record(0.757)) == ["published with DARK decoding"]
    assert published_accuracy.differences(dark, record(0.757, decoding="heatmap argmax, DARK")) == []
    assert published_accuracy.differences(HRNET, record(0.757, decoding="heatmap argmax, DARK")) == [
        "published with default decoding"
    ]
    sample = record(0.749) | {"dataset": {"name": "coco-sample"}}
    assert published_accuracy.differences(HRNET, sample) == ["published on coco, measured on coco-sample"]
    train = record(0.749) | {"dataset": {"name": "coco", "split": "train2017"}}
    assert published_accuracy.differences(HRNET, train) == ["published on val2017, measured on train2017"]
    no_flip = record(0.749)
    no_flip["protocol"]["flip_test"] = False
    assert published_accuracy.differences(HRNET, no_flip) == ["published with flip test"]


def test_records_without_the_published_metric_have_no_entry():
    assert published_accuracy.compare(published.find("hrnet-w32", "mpii"), record(0.9)) is None
    assert published_accuracy.compare(dataclasses.replace(HRNET, value="", metric=""), record(0.9)) is None


def test_detected_boxes_are_used_if_they_are_published_and_there(tmp_path):
    assert published_accuracy.published_boxes(HRNET, tmp_path) is None
    path = tmp_path / published_accuracy.COCO_BOXES
    path.parent.mkdir()
    path.touch()
    assert published_accuracy.published_boxes(HRNET, tmp_path) == path
    assert published_accuracy.published_boxes(published.find("hrnet-w32", "mpii"), tmp_path) is None
    assert published_accuracy.published_boxes(published.find("starnet-pose-t", "coco"), tmp_path) is None


def test_evaluate_by_name_shows_and_records_both(small, tmp_path, monkeypatch, capsys):
    """The file is already in the cache, so no network is needed. The dataset is that of the weights."""
    monkeypatch.setenv("POSEBOOK_CACHE", str(tmp_path / "cache"))
    line = dataclasses.replace(
        published.find("lite-hrnet-18", "coco"), hash="", input_size=(64, 64), file="made.pth"
    )
    monkeypatch.setattr(published, "load_table", lambda: (line,))
    layout = json.loads((ROOT / "tests" / "parity" / "lite-hrnet-18.json").read_text())["keys"]
    (tmp_path / "cache").mkdir()
    torch.save({"state_dict": drawn(layout)}, tmp_path / "cache" / "made.pth")
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").symlink_to(small / "val")
    annotations = small / "annotations" / "person_keypoints_val.json"
    (root / "annotations" / "person_keypoints_val2017.json").symlink_to(annotations)
    arguments = ["--weights", "coco", "--model", "lite-hrnet-18", "--data-root", str(root)]
    cli.main(["evaluate", *arguments, "--out-dir", str(tmp_path), "--name", "made"])
    written = json.loads((tmp_path / "records" / "made.json").read_text())
    entry = written["published"]
    assert (entry["metric"], entry["published"]) == ("AP", 64.2)
    assert entry["measured"] == 100 * written["metrics"]["AP"] and entry["source"] == line.source
    assert "published on coco, measured on coco-sample" in entry["differences"]
    assert "AP: published 64.2, measured" in capsys.readouterr().out
    assert written["weights"]["trained_on"] == "coco" and written["model"] == "lite-hrnet-18"
