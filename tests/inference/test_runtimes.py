"""Cached files of the runtimes, devices, and what stays in float32 when OpenVINO makes 8 bits."""

import pytest
import torch

from posebook import models
from posebook.benchmark import crop_to_keypoints
from posebook.inference import export, runtimes

SIZE = (64, 64)


@pytest.mark.parametrize("name", ["starnet-pose-t", "rtmpose-t"])
def test_convolutions_and_star_products_are_quantized_but_no_depthwise_ones(name, tmp_path):
    pytest.importorskip("nncf")
    torch.manual_seed(0)
    model = models.build(name, input_size=SIZE).eval()
    source = runtimes.openvino_core().read_model(export.export(model, tmp_path / "model.onnx"))
    images = torch.randn(4, 3, *SIZE)
    runtimes.quantize(source, [image[None].numpy() for image in images], tmp_path / "int8.xml")
    rounded, swish = {}, []
    for op in runtimes.openvino_core().read_model(tmp_path / "int8.xml").get_ordered_ops():
        inputs = [value.get_node().get_type_name() for value in op.input_values()]
        rounded[op.get_type_name()] = rounded.get(op.get_type_name(), 0) + ("FakeQuantize" in inputs)
        swish += [inputs] * (op.get_type_name() == "Multiply" and "Sigmoid" in inputs)
    assert rounded["Convolution"] > 10 and rounded["MatMul"] > 1 and rounded["Multiply"] > 0
    assert rounded.get("GroupConvolution", 0) == rounded["Add"] == 0
    assert swish and not any("FakeQuantize" in inputs for inputs in swish)


@pytest.mark.parametrize("name", ["starnet-pose-t", "lapx"])  # SimCC and heatmaps
def test_decoding_is_found_in_a_file_from_crops_to_keypoints(name, tmp_path):
    model = models.build(name, input_size=SIZE).eval()
    file = export.export(model, tmp_path / "model.onnx", end_to_end=True)
    source = runtimes.openvino_core().read_model(file)
    kinds = {op.get_friendly_name(): op.get_type_name() for op in source.get_ordered_ops()}
    decoding = [kinds[name] for name in crop_to_keypoints._decoding(source)]
    assert "ReduceMin" in decoding and "Result" in decoding and "TopK" not in kinds.values()
    assert not {"Convolution", "GroupConvolution"} & set(decoding)


def test_cached_file_depends_on_the_code_of_the_model(monkeypatch):
    """Otherwise a change of a model's forward pass would have no effect on predictions."""
    model = models.build("rtmpose-t", input_size=SIZE)
    before = runtimes.model_hash(model)
    assert runtimes.model_hash(models.build("rtmpose-t", input_size=SIZE)) != before  # other weights
    assert runtimes.model_hash(model) == before
    getsource = runtimes.inspect.getsource
    monkeypatch.setattr(runtimes.inspect, "getsource", lambda module: getsource(module) + "# changed")
    assert runtimes.model_hash(model) != before


def test_onnxruntime_has_no_other_devices(tmp_path):
    pytest.importorskip("onnxruntime")
    model, images = models.build("rtmpose-t", input_size=SIZE), torch.zeros(1, 3, *SIZE)
    with pytest.raises(runtimes.Unavailable, match="ONNX Runtime runs here on cpu and cuda, not on mps"):
        runtimes.onnxruntime(model, "mps", images=images, folder=tmp_path)
