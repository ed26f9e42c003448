"""Folding and ONNX export: outputs agree with the model, and every error is raised."""

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
from posebook.complexity import SkipInit
from posebook.evaluation import predictions
from posebook.inference import export

SIZE = (64, 64)


def calibrated_model(name: str, size: tuple[int, int] = SIZE, **options) -> nn.Module:
    """A random model whose outputs depend on the image: its batch norms have the statistics of random input.

    The weights of the norms are halved. Otherwise a deep random model amplifies rounding errors.
    """
    torch.manual_seed(0)
    model = models.build(name, input_size=size, **options).train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = None  # use the cumulative mean
    with torch.no_grad():
        model(torch.randn(4, 3, *size))
        for norm in norms:
            norm.weight.mul_(0.5)
    return model.eval()


@pytest.mark.parametrize("name", ["starnet-pose-s", "amfacpose-r18", "lapx", "lite-hrnet-18", "lpn-50"])
def test_folded_model_gives_the_same_outputs(name):
    model, (a, b) = calibrated_model(name), torch.randn(2, 1, 3, *SIZE)
    folded = export.fold(model)
    with torch.no_grad():
        expected, other, actual = (list(m(x)) for m, x in ((model, a), (model, b), (folded, a)))
    error = export.max_difference(expected, actual)
    assert error <= export.TOLERANCE and 10 * error < export.max_difference(expected, other)
    before, after = (sum(isinstance(m, nn.BatchNorm2d) for m in each.modules()) for each in (model, folded))
    assert after < before / 2 and not any(p.requires_grad for p in folded.parameters())


def test_folding_does_not_change_the_model_and_precomputes_coordinates():
    model = calibrated_model("amfacpose-r18")
    state = copy.deepcopy(model.state_dict())
    folded = export.fold(model)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    classes = [type(module).__name__ for module in folded.modules()]
    assert "CoordConv2d" not in classes and classes.count("FixedSizeCoordConv") == 3


class ConvUsedTwice(nn.Module):
    """A convolution that runs twice, with a different norm after each call: nothing can be merged."""

    def __init__(self):
        super().__init__()
        self.input_size = SIZE
        self.conv, self.a, self.b = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return [self.a(y) + y + self.b(self.conv(x))]


class ConvOutputUsedTwice(ConvUsedTwice):
    """The convolution's output is used by the norm and by the sum: merging changes the sum."""

    def forward(self, x):
        y = self.conv(x)
        return [self.a(y) + y]


def test_fold_skips_or_rejects_norms_that_cannot_be_merged():
    folded = export.fold(ConvUsedTwice().eval())
    assert isinstance(folded.a, nn.BatchNorm2d)
    model = ConvOutputUsedTwice().eval()
    model.a.running_mean.fill_(1.0)
    with pytest.raises(
        ValueError, match="folding changed an output by .*: the model has a module that fold cannot merge"
    ):
        export.fold(model)


def test_difference_is_relative_for_small_outputs_and_infinite_for_invalid_ones():
    assert export.max_difference([np.array([10.0])], [np.array([10.5])]) == 0.5
    assert export.max_difference([np.array([0.01])], [np.array([0.015])]) == pytest.approx(0.5)
    assert export.max_difference([np.ones(2)], [np.array([1, np.nan])]) == float("inf")
    assert export.max_difference([np.ones(2)], [np.ones(3)]) == float("inf")


def test_file_suffix_must_be_onnx(tmp_path):
    with pytest.raises(ValueError, match="model.pt does not end in .onnx"):
        posebook.export(models.build("rtmpose-t", input_size=SIZE), tmp_path / "model.pt")


def test_batch_size_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="the batch size is -1: give a positive number, or 0"):
        posebook.export(models.build("rtmpose-t", input_size=SIZE), tmp_path / "model.onnx", batch=-1)


def test_no_file_remains_after_an_interruption(tmp_path, monkeypatch):
    """A cached file that was not checked would be used from then on."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "_check_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        posebook.export(models.build("rtmpose-t", input_size=SIZE), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_file_with_other_outputs_is_rejected_and_removed(tmp_path, monkeypatch):
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    class WrongSession(ort.InferenceSession):
        def run(self, *args):
            return [output + 1 for output in super().run(*args)]

    monkeypatch.setattr(ort, "InferenceSession", WrongSession)
    model = calibrated_model("rtmpose-t")
    with pytest.raises(export.OutputMismatch, match="the outputs of model.onnx differ from the model's by"):
        posebook.export(model, tmp_path / "model.onnx")
    with pytest.raises(export.OutputMismatch, match="model.onnx locates 100% of the joints elsewhere"):
        posebook.export(model, tmp_path / "model.onnx", batch=2, end_to_end=True)
    assert not list(tmp_path.iterdir())


def test_exported_mish_is_the_same_function():
    x = torch.cat([torch.linspace(-100, 100, 200_001), torch.tensor([0.0, -1e-30, 1e-30])])
    expected = nn.functional.mish(x.double())
    error = (export.SigmoidMish()(x) - expected).abs()
    assert (error <= 4e-6 * expected.abs() + 1e-35).all()  # as exact as torch's function in float32


def test_exported_mish_has_no_softplus(tmp_path):
    """ONNX Runtime's Softplus is slow. The exported file has the outputs of the model with nn.Mish."""
    onnx = pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    model, images = calibrated_model("amfacpose-r18"), torch.randn(1, 3, *SIZE)
    path = posebook.export(model, tmp_path / "model.onnx")
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert "Sigmoid" in operators and not operators & {"Mish", "Softplus"}
    actual = ort.InferenceSession(str(path)).run(None, {"images": images.numpy()})
    with torch.no_grad():
        assert export.max_difference(list(model(images)), actual) <= 1e-5
    assert any(isinstance(module, nn.Mish) for module in model.modules())


QUICK = ("starnet-pose-t", "rtmpose-t", "simplebaseline-50")
# The blocks of a ViT are identical: two instead of 12 to 32 of them save half a gigabyte.
SHALLOW = {name: {"depth": 2} for name in models.names() if name.startswith("vitpose")}
# These have the layers of a smaller model, more often or with more channels. Each takes up to a minute.
LARGER = ("lpn-101", "lpn-152", "simplebaseline-101", "simplebaseline-152", "simcc-hrnet-w48", "hrnet-w48")
LARGER += ("lite-hrnet-30", "hf-hrnet-30", "vitpose-l", "vitpose-h", "vitpose-plus-l", "vitpose-plus-h")
SMALLER = [name for name in models.names() if name not in LARGER]
MODELS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SMALLER]


@pytest.mark.parametrize("name", LARGER)
def test_larger_models_have_the_layers_of_a_smaller_one(name):
    def layers(name: str) -> set[type]:
        with torch.device("meta"), SkipInit():
            return {type(layer) for layer in models.build(name).modules()}

    family = name.rstrip("0123456789hl")
    assert any(layers(name) == layers(other) for other in SMALLER if other.startswith(family))


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model_exports(name, tmp_path):
    """export compares the file with the model itself. This test compares them on other images."""
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = calibrated_model(name, **SHALLOW.get(name, {}))
    path = posebook.export(model, tmp_path / "model.onnx")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images, others = torch.randn(2, 1, 3, *SIZE, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        expected, other = list(model(images)), list(model(others))
    error = export.max_difference(expected, session.run(None, {"images": images.numpy()}))
    assert error <= export.TOLERANCE and 10 * error < export.max_difference(expected, other)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["input_size"]) == list(SIZE) and metadata["skeleton"] == "coco"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rtmpose-t", "lpn-50"])
def test_free_batch_size_and_end_to_end_export(name, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    model = calibrated_model(name)
    path = posebook.export(model, tmp_path / "pose.onnx", batch=None, end_to_end=True)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 2, 5):
        crops = np.random.default_rng(count).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)
        keypoints, scores = session.run(None, {"crops": crops})
        with torch.no_grad():
            images = transforms.normalize(torch.from_numpy(crops))
            output = predictions.forward(model, images, flip_test=False)
        expected, score, _ = predictions.decode(output, SIZE)
        assert keypoints.shape == (count, 17, 2) and np.abs(scores - score.numpy()).max() <= 1e-4
        assert (np.abs(keypoints - expected.numpy()).max(-1) < 1e-3).mean() > 0.9  # the others are ties


@pytest.mark.slow
def test_readme_script_needs_only_onnxruntime_and_opencv(tmp_path):
    """Run the script from the README unchanged, with shipped weights and a rendered person."""
    pytest.importorskip("onnxruntime")
    readme = (ROOT / "docs" / "export.md").read_text()
    script = next(
        block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if "InferenceSession" in block
    )
    assert len([line for line in script.splitlines() if line.strip()]) <= 15
    assert "posebook" not in script and "torch" not in script
    model = models.load_weights(ROOT / "data/weights/starnet-pose-t-synthetic.safetensors")
    posebook.export(model, tmp_path / "pose.onnx", end_to_end=True)
    from posebook.datasets.synthetic import writing

    image, people = writing.render(3)
    x, y, w, h = max(people, key=lambda person: person["area"])["bbox"]
    cv2.imwrite(str(tmp_path / "people.jpg"), image[..., ::-1])
    script = re.sub(r"^x, y, w, h = .*$", f"x, y, w, h = {x}, {y}, {w}, {h}", script, flags=re.M)
    process = subprocess.run(
        [sys.executable, "-c", script + "\nprint(joints.tolist())"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    actual = np.array(json.loads(process.stdout.strip().splitlines()[-1]))
    matrix = transforms.crop_affine((x, y, w, h), model.input_size)
    crop = transforms.warp(cv2.imread(str(tmp_path / "people.jpg"))[..., ::-1], matrix, model.input_size)
    with torch.no_grad():
        images = transforms.normalize(torch.from_numpy(crop)[None])
        output = predictions.forward(model, images, flip_test=False)
    points = predictions.decode(output, model.input_size)[0][0].double().numpy()
    expected = transforms.apply_affine(transforms.invert(matrix), points)
    assert actual.shape == (17, 2) and np.median(np.abs(actual - expected)) < 0.5


def test_share_of_moved_joints_counts_either_axis_and_nan():
    expected = torch.zeros(2, 5, 2)
    actual = expected.numpy().copy()
    assert export.moved_joints(expected, actual) == 0
    actual[0, 1, 0], actual[0, 2, 1], actual[1, 3] = -0.5, 1e-3, np.nan
    actual[1, 4] = export.TOLERANCE / 2
    assert export.moved_joints(expected, actual) == pytest.approx(0.3)
