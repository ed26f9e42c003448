"""Folding and export: the same answers, for every model; and each reason not to."""

import copy
import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import posebook
from helpers import ROOT
from posebook import models, transforms
from posebook.evaluation import predictions
from posebook.inference import export

SIZE = (64, 64)


def live(name: str, size: tuple[int, int] = SIZE, **options) -> nn.Module:
    """A net whose answers depend on the picture: its norms have the statistics of what passes through.

    Their weights are halved: a deep random net without that turns rounding into answers of its own.
    """
    torch.manual_seed(0)
    net = models.build(name, input_size=size, **options).train()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = None  # the mean over what it has seen
    with torch.no_grad():
        net(torch.randn(4, 3, *size))
        for norm in norms:
            norm.weight.mul_(0.5)
    return net.eval()


@pytest.mark.parametrize("name", ["starnet-pose-s", "amfacpose-r18", "lapx", "lite-hrnet-18", "lpn-50"])
def test_a_folded_net_gives_the_same_answers(name):
    net, (a, b) = live(name), torch.randn(2, 1, 3, *SIZE)
    folded = export.fold(net)
    with torch.no_grad():
        wanted, other, found = (export.output_list(m(x)) for m, x in ((net, a), (net, b), (folded, a)))
    error = export.max_difference(wanted, found)
    assert error <= export.TOLERANCE and 10 * error < export.max_difference(wanted, other)
    before, after = (sum(isinstance(m, nn.BatchNorm2d) for m in each.modules()) for each in (net, folded))
    assert after < before / 2 and not any(p.requires_grad for p in folded.parameters())


def test_folding_leaves_the_model_alone_and_precomputes_coordinates():
    net = live("amfacpose-r18")
    state = copy.deepcopy(net.state_dict())
    folded = export.fold(net)
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    kinds = [type(module).__name__ for module in folded.modules()]
    assert "CoordConv2d" not in kinds and kinds.count("FixedSizeCoordConv") == 3


class Twice(nn.Module):
    """A net whose one convolution has two norms after it, by turns: nothing that can be merged."""

    def __init__(self):
        super().__init__()
        self.input_size = SIZE
        self.conv, self.a, self.b = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return [self.a(y) + y + self.b(self.conv(x))]


class Shared(Twice):
    """The convolution's own answer is used beside its norm's: merged, it would be another."""

    def forward(self, x):
        y = self.conv(x)
        return [self.a(y) + y]


def test_what_cannot_be_merged_is_left_or_refused():
    folded = export.fold(Twice().eval())
    assert isinstance(folded.a, nn.BatchNorm2d)
    net = Shared().eval()
    net.a.running_mean.fill_(1.0)
    with pytest.raises(
        ValueError, match="folding moved an output by .*: this net has a part that fold cannot"
    ):
        export.fold(net)


def test_difference_is_relative_for_small_answers_and_infinite_for_none():
    assert export.max_difference([np.array([10.0])], [np.array([10.5])]) == 0.5
    assert export.max_difference([np.array([0.01])], [np.array([0.015])]) == pytest.approx(0.5)
    assert export.max_difference([np.ones(2)], [np.array([1, np.nan])]) == float("inf")
    assert export.max_difference([np.ones(2)], [np.ones(3)]) == float("inf")


def test_a_file_must_be_called_onnx(tmp_path):
    with pytest.raises(ValueError, match="net.pt does not end in .onnx"):
        posebook.export(models.build("rtmpose-t", input_size=SIZE), tmp_path / "net.pt")


def test_a_file_that_answers_otherwise_is_refused_and_removed(tmp_path, monkeypatch):
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    class Wrong:
        def __init__(self, *arguments, **how):
            self.session = real(*arguments, **how)

        def run(self, *arguments):
            return [part + 1 for part in self.session.run(*arguments)]

    real = ort.InferenceSession
    monkeypatch.setattr(ort, "InferenceSession", Wrong)
    with pytest.raises(ValueError, match="net.onnx answers otherwise than the model, by"):
        posebook.export(live("rtmpose-t"), tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


QUICK = ("starnet-pose-t", "rtmpose-t", "lpn-50", "simplebaseline-50", "simcc-resnet50")
# A ViT's blocks are alike: two of them show what twelve to 32 would, at half a gigabyte less.
SHALLOW = {name: {"depth": 2} for name in models.names() if name.startswith("vitpose")}
EVERY = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in models.names()]


@pytest.mark.parametrize("name", EVERY)
def test_every_model_exports(name, tmp_path):
    """export itself compares with the model and raises; here once more, on other pictures."""
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net = live(name, **SHALLOW.get(name, {}))
    path = posebook.export(net, tmp_path / "net.onnx")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images, others = torch.randn(2, 1, 3, *SIZE, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        wanted, other = export.output_list(net(images)), export.output_list(net(others))
    error = export.max_difference(wanted, session.run(None, {"images": images.numpy()}))
    assert error <= export.TOLERANCE and 10 * error < export.max_difference(wanted, other)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["input_size"]) == list(SIZE) and about["skeleton"] == "coco"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rtmpose-t", "lpn-50"])
def test_a_free_batch_and_the_whole_way_from_picture_to_joints(name, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    net = live(name)
    path = posebook.export(net, tmp_path / "whole.onnx", batch=None, whole=True)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 2, 5):
        crops = np.random.default_rng(count).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)
        keypoints, scores = session.run(None, {"crops": crops})
        with torch.no_grad():
            output = predictions.forward(net, transforms.normalize(torch.from_numpy(crops)), flip_test=False)
        wanted, score, _ = predictions.decode(output, SIZE)
        assert keypoints.shape == (count, 17, 2) and np.abs(scores - score.numpy()).max() <= 1e-4
        assert (np.abs(keypoints - wanted.numpy()).max(-1) < 1e-3).mean() > 0.9  # but for ties


@pytest.mark.slow
def test_the_readme_script_needs_onnxruntime_and_opencv_alone(tmp_path):
    """The script the README shows, as it stands there, on shipped weights and a drawn person."""
    pytest.importorskip("onnxruntime")
    readme = (ROOT / "README.md").read_text()
    script = next(
        block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if "InferenceSession" in block
    )
    assert len([line for line in script.splitlines() if line.strip()]) <= 15
    assert "posebook" not in script and "torch" not in script
    net = models.load_weights(ROOT / "data/weights/starnet-pose-t-synthetic.safetensors")
    posebook.export(net, tmp_path / "pose.onnx", whole=True)
    from posebook.datasets.synthetic import writing

    image, people = writing.render(3)
    x, y, w, h = max(people, key=lambda person: person["area"])["bbox"]
    cv2.imwrite(str(tmp_path / "people.jpg"), image[..., ::-1])
    script = re.sub(r"^x, y, w, h = .*$", f"x, y, w, h = {x}, {y}, {w}, {h}", script, flags=re.M)
    done = subprocess.run(
        [sys.executable, "-c", script + "\nprint(joints.tolist())"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = np.array(json.loads(done.stdout.strip().splitlines()[-1]))
    matrix = transforms.crop_affine((x, y, w, h), net.input_size)
    crop = transforms.warp(cv2.imread(str(tmp_path / "people.jpg"))[..., ::-1], matrix, net.input_size)
    with torch.no_grad():
        output = predictions.forward(net, transforms.normalize(torch.from_numpy(crop)[None]), flip_test=False)
    points = predictions.decode(output, net.input_size)[0][0].double().numpy()
    wanted = transforms.apply_affine(transforms.invert(matrix), points)
    assert found.shape == (17, 2) and np.median(np.abs(found - wanted)) < 0.5
