"""Evaluation with the boxes of a detector: AP of boxes, and a record with both sources of boxes."""

import json
from dataclasses import replace

import detector_helpers as made
import numpy as np
import pytest

from posebook import cli, datasets
from posebook.inference import detector_evaluation
from posebook.inference.predict import SYNTHETIC_WEIGHTS

pytest.importorskip("onnx")
pytest.importorskip("pycocotools")
SIZE = (48, 64)  # height and width of the images of `small`


@pytest.fixture
def dataset(small):
    return datasets.load("synthetic", small, "val")


def entries(dataset, box, score=0.9) -> list[dict]:
    return [
        {"image_id": image_id, "category_id": 1, "bbox": list(box), "score": score}
        for image_id in dataset.images
    ]


def test_ap_of_boxes(dataset):
    """All people of `small` have the box 4, 4, 40, 40."""
    perfect = entries(dataset, (4, 4, 40, 40))
    assert detector_evaluation.box_metrics(dataset, perfect) == pytest.approx({"AP": 1.0, "AP50": 1.0})
    narrow = entries(dataset, (4, 4, 0.72 * 40, 40))  # an IoU of 0.72, above 5 of the 10 thresholds
    assert detector_evaluation.box_metrics(dataset, narrow) == pytest.approx({"AP": 0.5, "AP50": 1.0})
    half = perfect[:12]  # the highest recall is 0.5: the precision is 1 at 51 of 101 recalls
    assert detector_evaluation.box_metrics(dataset, half)["AP50"] == pytest.approx(51 / 101)
    wrong = perfect + entries(dataset, (0, 0, 5, 5), 0.95)  # half of the boxes, and those with higher scores
    assert detector_evaluation.box_metrics(dataset, wrong)["AP50"] == pytest.approx(0.5)


def test_evaluate_writes_both_sources_of_boxes(dataset, small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(made, "SIZE", SIZE)
    path = made.save_model(
        tmp_path / "made.onnx", made.mmdeploy(((4, 4, 44, 44, 0.9), (0, 0, 9, 9, 0.2), (0, 0, 9, 9, 0.04)))
    )
    out = ["--out-dir", str(tmp_path / "out")]
    common = [
        "evaluate",
        "--weights",
        str(SYNTHETIC_WEIGHTS),
        "--dataset",
        "synthetic",
        "--data-root",
        str(small),
    ]
    cli.main([*common, *out, "--detector", str(path)])
    assert "made: AP50 of its boxes 1.000; AP of poses" in capsys.readouterr().out
    boxes = tmp_path / "out" / "detections" / "made-synthetic-val.json"
    written = json.loads(boxes.read_text())
    assert [entry["image_id"] for entry in written] == sorted(dataset.images)  # once in each image
    assert np.array([entry["bbox"] for entry in written]) == pytest.approx(np.array([[4, 4, 40, 40]] * 24))
    (file,) = (tmp_path / "out" / "records").glob("*.json")
    record = json.loads(file.read_text())
    assert record["name"].endswith("-detector-made") and file.with_suffix(".npz").is_file()
    assert record["protocol"]["boxes"] == "detector: made-synthetic-val.json"
    facts = record["detector"]
    assert facts["box_metrics"] == pytest.approx({"AP": 1.0, "AP50": 1.0, "threshold": 0.05})
    assert facts["format"] == "RTMDet of mmdeploy" and (facts["boxes"], facts["threshold"]) == (24, 0.3)
    cli.main([*common, *out, "--name", "annotated"])  # equals the part of the record
    annotated = json.loads((tmp_path / "out" / "records" / "annotated.json").read_text())
    assert facts["annotated_boxes"]["metrics"] == annotated["metrics"]
    cli.main([*common, *out, "--boxes", str(boxes), "--name", "boxes"])  # and the same boxes from the file
    assert (
        json.loads((tmp_path / "out" / "records" / "boxes.json").read_text())["metrics"] == record["metrics"]
    )


def test_datasets_and_detectors_without_boxes(dataset, tmp_path):
    path = made.save_model(tmp_path / "none.onnx", made.mmdeploy(((0, 0, 9, 9, 0.2),)))
    with pytest.raises(ValueError, match="none.onnx finds no person in 24 images of synthetic"):
        detector_evaluation.detect(path, dataset, tmp_path)
    with pytest.raises(ValueError, match="synthetic is scored on annotated boxes only: .*, such as coco"):
        detector_evaluation.detect(path, replace(dataset, mapped_metric="pck"), tmp_path)
