"""The evaluation of a runtime: calibration, the record, and the loss against PyTorch."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import ROOT
from posebook import cli, datasets, models, transforms
from posebook.evaluation import metrics
from posebook.evaluation.predictions import CropDataset, predict
from posebook.inference import runtime_evaluation, runtimes
from posebook.inference.predict import SYNTHETIC_WEIGHTS

pytest.importorskip("pycocotools")


@pytest.fixture
def splits(small):
    """The training and the validation split of the small dataset."""
    return tuple(datasets.load("synthetic", small, split) for split in ("train", "val"))


@pytest.fixture
def seen(monkeypatch):
    """Add the runtimes `exact` and `shifted int8`, which is wrong by a bin; returns their calibrations."""
    calibrations = []

    def exact(model, device, images, folder, calibration):
        calibrations.append(calibration)
        return runtimes.eager(model, device)

    def shifted(model, device, **arguments):
        run = exact(model, device, **arguments)
        return lambda images: [output.roll(24, -1) for output in run(images)]

    monkeypatch.setitem(runtimes.RUNTIMES, "exact", exact)
    monkeypatch.setitem(runtimes.RUNTIMES, "shifted int8", shifted)
    return calibrations


def test_calibration_is_spread_over_the_training_split(splits, seen, tmp_path):
    train, _ = splits
    model = models.build("starnet-pose-t", input_size=(64, 64))
    runtime_evaluation.make_runtime_model("exact", model, train, 3, tmp_path)
    crops, last = CropDataset(train, (64, 64)), len(train.instances) - 1
    expected = torch.stack([crops[index][0] for index in (0, last // 2, last)])  # (3, H, W, 3)
    assert seen[0].shape == (3, 3, 64, 64) and torch.equal(seen[0], transforms.normalize(expected))
    runtime_evaluation.make_runtime_model("exact", model, train, 10**6, tmp_path)
    assert len(seen[1]) == len(train.instances)


def test_record_contains_the_loss_against_float32(small, seen, tmp_path, capsys):
    def evaluate(*words):
        common = ["--weights", str(SYNTHETIC_WEIGHTS), "--dataset", "synthetic", "--data-root", str(small)]
        cli.main(["evaluate", *common, "--out-dir", str(tmp_path), "--name", "one", *words])
        return json.loads((tmp_path / "records" / "one.json").read_text())

    plain, exact = evaluate(), evaluate("--runtime", "exact")
    assert "exact" in capsys.readouterr().out and exact["parameters"]["runtime"] == "exact"
    for name in ("metrics", "metrics_without_flip", "interval"):
        assert exact[name] == plain[name] == exact["float32"][name]
    assert exact["float32"]["difference"] == [0, 0, 0]
    assert exact["calibration"]["split"] == "train" and exact["calibration"]["used"] == len(seen[0])
    assert exact["complexity"] == plain["complexity"] and exact["weights"] == plain["weights"]


def test_difference_from_float32_of_a_wrong_runtime(splits, seen, tmp_path):
    """The annotations are the predictions in float32, whose AP is therefore 1."""
    train, val = splits
    model, content = models.load_weights(SYNTHETIC_WEIGHTS), json.loads(val.annotations.read_text())
    points = {p.id: x for p, x in zip(val.instances, predict(model, val).keypoints, strict=True)}
    for entry in content["annotations"]:
        joints = np.concatenate([points[entry["id"]], np.full((17, 1), 2)], 1)  # (17, 3)
        entry["keypoints"] = joints.ravel().tolist()
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    val = replace(val, annotations=tmp_path / "annotations.json")
    record, results, stats = runtime_evaluation.evaluate_runtime(
        "shifted int8", model, val, train, weights=SYNTHETIC_WEIGHTS
    )
    difference, low, high = record["float32"]["difference"]
    assert record["float32"]["metrics"]["AP"] == pytest.approx(1.0) and record["metrics"]["AP"] < 0.9
    assert difference == pytest.approx(record["metrics"]["AP"] - 1.0) and low <= difference <= high < 0
    assert record["metrics"] == metrics.score(val, results) and len(stats.images) == 24
    assert record["interval"] != record["float32"]["interval"]
    assert record["name"].endswith("-demo-seed0-shifted-int8")
    start = (
        f"AP in shifted int8: {record['metrics']['AP']:.3f}; minus float32: {difference:+.4f}, 95 % interval"
    )
    assert runtime_evaluation.describe(record).startswith(start)


def test_errors_before_the_evaluation(splits, seen, monkeypatch, capsys, tmp_path):
    train, val = splits
    model = models.build("starnet-pose-t", input_size=(64, 64))

    def unavailable(*_, **__):
        raise runtimes.Unavailable("nncf is not installed: pip install nncf")

    monkeypatch.setitem(runtimes.RUNTIMES, "missing int8", unavailable)
    with pytest.raises(
        ValueError, match="^train has images of the training split: evaluate on another split$"
    ):
        runtime_evaluation.evaluate_runtime("exact", model, train, train)
    with pytest.raises(ValueError, match="unknown runtime 'exakt'; did you mean exact"):
        runtime_evaluation.evaluate_runtime("exakt", model, val, train)
    with pytest.raises(ValueError, match="^missing int8 cannot be used here: nncf is not installed: pip"):
        runtime_evaluation.evaluate_runtime("missing int8", model, val, train)


def test_tflite_files_have_no_other_runtime(small, tmp_path, capsys):
    words = ["evaluate", "--weights", "a.tflite", "--dataset", "synthetic", "--data-root", str(small)]
    with pytest.raises(SystemExit):
        cli.main([*words, "--runtime", "OpenVINO int8", "--out-dir", str(tmp_path)])
    assert capsys.readouterr().err == "error: .tflite files always run in OpenVINO: leave out --runtime\n"


@pytest.mark.slow
def test_int8_accuracy_is_close_to_float32(tmp_path):
    """With shipped weights, on the rendered people of 40 images."""
    for module in ("openvino", "nncf"):
        pytest.importorskip(module)
    from posebook.datasets.synthetic import writing

    writing.generate(tmp_path, train_images=20, val_images=40, workers=1)
    model = models.load_weights(ROOT / "data/weights/starnet-pose-t-synthetic.safetensors")
    train, val = (datasets.load("synthetic", tmp_path, split) for split in ("train", "val"))
    ap = runtime_evaluation.int8_accuracy(model, train, val, num_people=32)
    assert ap["fp32"] > 0.2 and abs(ap["fp32"] - ap["int8"]) < 0.1
    assert -0.1 < ap["low"] <= ap["fp32"] - ap["int8"] <= ap["high"] < 0.1
