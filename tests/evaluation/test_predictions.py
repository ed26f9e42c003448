"""The flip test, crops, decoding and evaluation from the command line."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from posebook import cli, codecs, datasets, models, skeletons, transforms
from posebook.datasets import Person, PoseDataset
from posebook.evaluation import metrics, predictions
from posebook.inference import predict


def test_flip_test_does_not_change_a_mirror_symmetric_model():
    """If the output for a mirrored image is the mirrored output, the average is equal to the output."""

    class Symmetric(torch.nn.Module):
        skeleton = skeletons.get("coco")

        def forward(self, images):
            profile = images.mean((1, 2)).repeat_interleave(2, -1)  # (B, 2W)
            x = torch.stack([profile] * 17, 1)  # (B, 17, 2W)
            return codecs.SimCC(x, images.mean((1, 3)).repeat_interleave(2, -1)[:, None].repeat(1, 17, 1))

    model, images = Symmetric(), torch.randn(2, 3, 32, 64)
    once, twice = predictions.forward(model, images, False), predictions.forward(model, images, True)
    assert torch.allclose(once.x, twice.x, atol=1e-6) and torch.allclose(once.y, twice.y, atol=1e-6)


def test_crop_people_returns_the_crops_of_evaluation(small):
    dataset = datasets.load("synthetic", small, "val")
    crops, joints = predictions.crop_people(dataset.instances[:3], (64, 48))
    loaded = predictions.CropDataset(dataset, (64, 48))
    for i, person in enumerate(dataset.instances[:3]):
        image, matrix = loaded[i]
        assert (crops[i] == image.numpy()).all() and (joints[i, :, 2] == person.keypoints[:, 2]).all()
        back = transforms.apply_affine(transforms.invert(matrix), joints[i, :, :2])
        np.testing.assert_allclose(back, person.keypoints[:, :2], atol=1e-3)


def test_different_joints_raise():
    model = models.build("starnet-pose-t", "lspet", (64, 64))
    person = Person("nowhere.jpg", 1, 1, (0.0, 0.0, 9.0, 9.0), 81.0, np.zeros((17, 3)))
    dataset = PoseDataset("made", "val", skeletons.get("coco"), "0" * 64, (person,), None)
    with pytest.raises(
        ValueError,
        match="lspet joints, made has coco joints: the model's joint 0 is right_ankle, not nose",
    ):
        predictions.predict(model, dataset)


def test_command_line_writes_record_and_predictions(test_data, tmp_path):
    """Photographs, in annotated boxes and in boxes of a file, with weights trained on rendered images."""
    root = test_data / "coco_sample"
    truth = json.loads((root / "annotations" / "person_keypoints_val2017.json").read_text())
    boxes = [
        {"image_id": e["image_id"], "category_id": 1, "bbox": e["bbox"], "score": 0.9}
        for e in truth["annotations"]
        if not e["iscrowd"]
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes + boxes[:5]))  # five people are detected twice
    command = [sys.executable, "-m", "posebook.evaluation", "--weights", str(predict.SYNTHETIC_WEIGHTS)]
    command += ["--dataset", "coco", "--data-root", str(root), "--out-dir", str(tmp_path)]
    for options in ([], ["--boxes", str(tmp_path / "boxes.json")]):
        done = subprocess.run([*command, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    name = "evaluate-starnet-pose-t-coco-sample-128x96-demo-seed0"
    annotated, detected = (
        json.loads((tmp_path / "records" / f"{name}{end}.json").read_text()) for end in ("", "-detector")
    )
    assert annotated["protocol"]["boxes"] == "ground truth" and annotated["protocol"]["boxes_sha256"] is None
    assert detected["protocol"]["boxes"] == "detector: boxes.json"
    assert len(detected["protocol"]["boxes_sha256"]) == 64
    assert (annotated["protocol"]["nms"], detected["protocol"]["nms"]) == (None, "OKS 0.9")
    for record, end in ((annotated, ""), (detected, "-detector")):
        assert record["weights"]["trained_on"] == "synthetic" and 0 <= record["metrics"]["AP"] < 0.5
        stats = predictions.load_image_stats(tmp_path / "records" / f"{name}{end}.json")
        ap = metrics.weighted_metric(stats, np.ones((1, len(stats.images))))[0]
        assert ap == pytest.approx(record["metrics"]["AP"])
        assert record["interval"][0] <= ap <= record["interval"][1]
    assert annotated["dataset"]["sha256"] == detected["dataset"]["sha256"]


def test_evaluation_on_the_joints_that_two_sets_share(own, tmp_path):
    """`own` has 16 of COCO's joints in another order."""
    model = models.build("starnet-pose-t", input_size=(64, 64))
    models.save_weights(model, tmp_path / "coco.safetensors", "starnet-pose-t")
    command = ["evaluate", "--weights", str(tmp_path / "coco.safetensors"), "--dataset", "own"]
    command += ["--data-root", str(own), "--split", "val", "--out-dir", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(command)
    assert stopped.value.code == 2
    cli.main([*command, "--map-joints", "coco", "--name", "shared"])
    record = json.loads((tmp_path / "records" / "shared.json").read_text())
    assert record["dataset"]["persons"] == 24 and record["protocol"]["sigmas"] == "coco"
    assert record["breakdown"]["failures"]["all"]["people"] == 24
