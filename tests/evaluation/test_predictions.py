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


class Made(torch.nn.Module):
    """Each joint has its own factor of the image's means; heatmap models return two stages."""

    skeleton = skeletons.get("coco")

    def __init__(self, heatmaps, udp):
        super().__init__()
        self.heatmaps, self.udp = heatmaps, udp

    def forward(self, images):
        factors = torch.arange(1.0, 18)[:, None]
        if self.heatmaps:
            return [torch.zeros(len(images), 17, 2, 2), factors[..., None] * images[:, :1, ::4, ::4]]
        profiles = images.mean((1, 2)), images.mean((1, 3))
        return codecs.SimCC(*(factors * p.repeat_interleave(2, -1)[:, None] for p in profiles))


@pytest.mark.parametrize("heatmaps, udp", [(False, False), (True, False), (True, True)])
def test_flip_test_is_the_mean_with_the_mirrored_output_of_the_other_side(heatmaps, udp):
    model, images = Made(heatmaps, udp), torch.randn(2, 3, 32, 64)
    plain, mirrored = model(images), model(images.flip(-1))
    result = predictions.forward(model, images, True)
    names = model.skeleton.keypoints
    for k, name in enumerate(names):
        pair = names.index(skeletons.mirrored(name))
        if not heatmaps:
            expected = (plain.x[:, k] + mirrored.x[:, pair].flip(-1)) / 2
            torch.testing.assert_close(result.x[:, k], expected)
            torch.testing.assert_close(result.y[:, k], (plain.y[:, k] + mirrored.y[:, pair]) / 2)
            continue
        for column in range(16):
            other = 15 - column if udp else 15 - max(column - 1, 0)
            expected = (plain[-1][:, k, :, column] + mirrored[-1][:, pair, :, other]) / 2
            torch.testing.assert_close(result[:, k, :, column], expected)


def test_dark_decodes_heatmaps_only():
    columns, rows = torch.arange(12.0), torch.arange(16.0)[:, None]
    maps = torch.exp(-((columns - 5.3) ** 2 + (rows - 7.4) ** 2) / 8)[None, None]
    points, _, name = predictions.decode(maps, (64, 48), dark=True)
    assert name == "heatmap argmax, DARK" and points[0, 0].tolist() == pytest.approx([21.2, 29.6], abs=0.2)
    simcc = codecs.SimCC(torch.zeros(1, 1, 96), torch.zeros(1, 1, 128))
    with pytest.raises(ValueError, match="DARK decodes heatmaps; this model returns SimCC"):
        predictions.decode(simcc, (64, 48), dark=True)


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
