"""Models in exported runtimes: padded batches, the same joints as PyTorch, and the choice of a runtime."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from posebook import models, transforms
from posebook.evaluation import predictions
from posebook.inference import predict, runtime_model, runtimes
from posebook.inference.runtime_model import RuntimeModel, open_runtime
from posebook.lifting import synthetic_video

SIZE = (64, 64)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return models.build("starnet-pose-t", input_size=SIZE).eval()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POSEBOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "exported"


def fixed_batch(model, batch: int):
    """A runtime that accepts only one batch size, and counts its calls."""
    calls = []

    def run(images):
        assert images.shape == (batch, 3, *model.input_size)
        calls.append(images)
        with torch.no_grad():
            return [output.numpy() for output in model(images)]

    return run, calls


@pytest.mark.parametrize("name", ["starnet-pose-t", "lite-hrnet-18"])
@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_batches_are_split_and_padded(name, count):
    torch.manual_seed(0)
    source = models.build(name, input_size=SIZE).eval()
    run, calls = fixed_batch(source, 4)
    images = torch.randn(count, 3, *SIZE)
    with torch.no_grad():
        expected, actual = source(images), RuntimeModel(source, run, 4)(images)
    assert type(actual) is type(expected) and len(calls) == -(-count // 4)
    for one, other in zip(expected, actual, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert all((padding == 0).all() for padding in calls[-1][count - 4 * (len(calls) - 1) :])


@pytest.mark.parametrize("udp", [False, True])
def test_crops_flip_test_and_decoding_are_those_of_the_weights(udp):
    torch.manual_seed(0)
    source = models.build("lite-hrnet-18", input_size=SIZE).eval()
    source.udp = udp
    other = RuntimeModel(source, fixed_batch(source, 4)[0], 4)
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    boxes = np.array([[10, 5, 40, 70], [50, 20, 60, 60], [0, 0, 119, 89.0]])
    crops = predict.crop_boxes("a", image, boxes, np.ones(3), SIZE, other.udp)
    (expected,), (actual,) = (predict.predict_keypoints(m, [crops], True, "cpu") for m in (source, other))
    assert actual[0] == pytest.approx(expected[0], abs=1e-3)
    other.udp = not udp
    (changed,) = predict.predict_keypoints(other, [crops], True, "cpu")
    assert np.abs(changed[0] - expected[0]).max() > 0.1


@pytest.fixture(scope="module")
def exported_folder(tmp_path_factory):
    """The first runtime exports the model, the second one uses the file."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_exported_runtimes_predict_the_same_joints(name, exported_folder, monkeypatch):
    """Equal within 1e-3 pixels. Only if two bins are equal up to rounding may another one be the highest."""
    for module in (name, "onnxscript", "onnxruntime"):
        pytest.importorskip(module)
    monkeypatch.setenv("POSEBOOK_CACHE", str(exported_folder))
    source = models.load_weights(predict.SYNTHETIC_WEIGHTS)
    exported, chosen = open_runtime(source, name)
    assert chosen == name and isinstance(exported, RuntimeModel)
    (file,) = (exported_folder / "exported").glob("*.onnx")
    walk = synthetic_video.walk(1)
    boxes = walk.boxes + np.random.default_rng(0).uniform(-6, 6, (runtime_model.BATCH + 2, 4))
    crops = predict.crop_boxes("a", walk.images[0], boxes, np.ones(len(boxes)), source.input_size)
    images = transforms.normalize(torch.from_numpy(crops.crops))
    with torch.no_grad():
        outputs = [predictions.forward(m, images, flip_test=True) for m in (source, exported)]
    rounding = max((one - other).abs().max() for one, other in zip(*outputs, strict=True))
    assert rounding < 1e-4
    expected, actual = (predictions.decode(output, source.input_size)[0] for output in outputs)  # (B, K, 2)
    for axis, marginals in enumerate(outputs[0]):  # x and y, each (B, K, bins)
        best = marginals.topk(2, -1).values
        tied = best[..., 0] - best[..., 1] <= 2 * rounding  # (B, K)
        moved = (expected - actual)[..., axis].abs() > 1e-3
        assert not (moved & ~tied).any() and tied.float().mean() < 0.05
    before = file.stat().st_mtime_ns
    _, again = open_runtime(source, "auto", count=1)  # few images, but the file exists
    assert again == "openvino" and file.stat().st_mtime_ns == before


def unavailable(*_, **__):
    raise runtimes.Unavailable("it is not installed: pip install it")


def test_auto_takes_the_first_runtime_that_is_installed(model, cache, monkeypatch):
    run = fixed_batch(model, runtime_model.BATCH)[0]
    monkeypatch.setattr(runtimes, "onnxruntime", lambda *_, **__: run)
    monkeypatch.setattr(runtimes, "openvino", lambda *_, **__: run)
    many = runtime_model.EXPORT_FROM
    assert [open_runtime(model, count=count)[1] for count in (None, many, many - 1)] == [
        "openvino", "openvino", "pytorch"
    ]  # fmt: skip
    assert open_runtime(model, device="cuda")[1] == "pytorch"
    assert open_runtime(model, "pytorch") == (model, "pytorch")
    monkeypatch.setattr(runtimes, "openvino", unavailable)
    assert open_runtime(model)[1] == "onnxruntime"
    monkeypatch.setattr(runtimes, "onnxruntime", unavailable)
    assert open_runtime(model) == (model, "pytorch")
    assert not cache.exists()
    with pytest.raises(ValueError, match="openvino cannot run this model: it is not installed: pip install"):
        open_runtime(model, "openvino")


def test_auto_uses_pytorch_if_a_file_is_damaged_or_a_folder_cannot_be_written(
    model, cache, monkeypatch, capsys
):
    def damaged(*_, **__):
        raise RuntimeError("the file is damaged\nand more")

    def locked(*_, **__):
        raise PermissionError("no permission")

    monkeypatch.setattr(runtimes, "openvino", damaged)
    monkeypatch.setattr(runtimes, "onnxruntime", locked)
    assert open_runtime(model) == (model, "pytorch")
    assert capsys.readouterr().out.splitlines() == [
        "openvino is not used: the file is damaged", "onnxruntime is not used: no permission"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="^openvino cannot run this model: the file is damaged$"):
        open_runtime(model, "openvino")


def test_outputs_in_bfloat16_are_returned_in_float32(model):
    def run(images):
        with torch.no_grad():
            return [output.bfloat16() for output in model(images)]

    assert {output.dtype for output in RuntimeModel(model, run, 2)(torch.zeros(2, 3, *SIZE))} == {
        torch.float32
    }


def test_two_openvino_models_leave_a_signal_stack_that_can_be_used(exported_folder, monkeypatch):
    """A new process, because a signal that finds no stack ends it."""
    for module in ("openvino", "onnxscript", "onnxruntime"):
        pytest.importorskip(module)
    code = """
import signal
from posebook import models
from posebook.inference import predict
from posebook.inference.runtime_model import open_runtime

signal.signal(signal.SIGINT, lambda *_: print("handled"))
model = models.load_weights(predict.SYNTHETIC_WEIGHTS)
first, second = open_runtime(model, "openvino"), open_runtime(model, "openvino")
del first
del second
signal.raise_signal(signal.SIGINT)
"""
    monkeypatch.setenv("POSEBOOK_CACHE", str(exported_folder))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("handled\n"), done.stderr
