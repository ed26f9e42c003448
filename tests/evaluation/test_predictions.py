"""The flip test, decoding, and the way from a person to its predicted joints."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from posebook import codecs, datasets, models, skeletons, transforms
from posebook.datasets import Person, PoseDataset
from posebook.evaluation import metrics, predictions
from posebook.inference import predict


def test_flip_test_of_a_mirror_symmetric_net_changes_nothing():
    """A net that answers to a mirrored picture with the mirrored answer gains nothing from the average."""

    class Symmetric(torch.nn.Module):
        skeleton = skeletons.get("coco")

        def forward(self, images):
            profile = images.mean((1, 2)).repeat_interleave(2, -1)  # (B, 2W)
            x = torch.stack([profile] * 17, 1)  # (B, 17, 2W)
            return codecs.SimCC(x, images.mean((1, 3)).repeat_interleave(2, -1)[:, None].repeat(1, 17, 1))

    net, images = Symmetric(), torch.randn(2, 3, 32, 64)
    once, twice = predictions.forward(net, images, False), predictions.forward(net, images, True)
    assert torch.allclose(once.x, twice.x, atol=1e-6) and torch.allclose(once.y, twice.y, atol=1e-6)


def test_a_few_crops_are_those_of_evaluation(small):
    people = datasets.load("synthetic", small, "val")
    views, joints = predictions.crop_people(people.instances[:3], (64, 48))
    loaded = predictions.CropDataset(people, (64, 48))
    for i, person in enumerate(people.instances[:3]):
        picture, matrix = loaded[i]
        assert (views[i] == picture.numpy()).all() and (joints[i, :, 2] == person.keypoints[:, 2]).all()
        back = transforms.apply_affine(transforms.invert(matrix), joints[i, :, :2])
        np.testing.assert_allclose(back, person.keypoints[:, :2], atol=1e-3)


def test_joints_that_are_not_the_models_are_refused():
    model = models.build("starnet-pose-t", "lspet", (64, 64))
    person = Person("nowhere.jpg", 1, 1, (0.0, 0.0, 9.0, 9.0), 81.0, np.zeros((17, 3)))
    people = PoseDataset("made", "val", skeletons.get("coco"), "0" * 64, (person,), None)
    with pytest.raises(
        ValueError,
        match="lspet joints, made has coco joints: the model's joint 0 is right_ankle, not nose",
    ):
        predictions.predict(model, people)


def test_the_command_line_writes_record_and_predictions(test_data, tmp_path):
    """Real photographs, in annotated boxes and in those of a file; the weights know rendered people only."""
    root = test_data / "coco_sample"
    truth = json.loads((root / "annotations" / "person_keypoints_val2017.json").read_text())
    boxes = [
        {"image_id": e["image_id"], "category_id": 1, "bbox": e["bbox"], "score": 0.9}
        for e in truth["annotations"]
        if not e["iscrowd"]
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes + boxes[:5]))  # five people are found twice
    command = [sys.executable, "-m", "posebook.evaluation", "--weights", str(predict.DEFAULT_WEIGHTS)]
    command += ["--dataset", "coco", "--data-root", str(root), "--out-dir", str(tmp_path)]
    for more in ([], ["--boxes", str(tmp_path / "boxes.json")]):
        done = subprocess.run([*command, *more], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    name = "evaluate-starnet-pose-t-coco-sample-128x96-demo-seed0"
    given, found = (
        json.loads((tmp_path / "records" / f"{name}{end}.json").read_text()) for end in ("", "-detector")
    )
    assert given["protocol"]["boxes"] == "ground truth" and given["protocol"]["boxes_sha256"] is None
    assert (
        found["protocol"]["boxes"] == "detector: boxes.json" and len(found["protocol"]["boxes_sha256"]) == 64
    )
    assert (given["protocol"]["nms"], found["protocol"]["nms"]) == (None, "OKS 0.9")
    for record, end in ((given, ""), (found, "-detector")):
        assert record["weights"]["trained_on"] == "synthetic" and 0 <= record["metrics"]["AP"] < 0.5
        units = predictions.load_image_stats(tmp_path / "records" / f"{name}{end}.json")
        whole = metrics.weighted_metric(units, np.ones((1, len(units.images))))[0]
        assert whole == pytest.approx(record["metrics"]["AP"])
        assert record["interval"][0] <= whole <= record["interval"][1]
    assert given["dataset"]["sha256"] == found["dataset"]["sha256"]
