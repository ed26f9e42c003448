"""Models against the authors' layouts and outputs, and what loading refuses."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from posebook import complexity, files, models
from posebook.models.layers import CBAM, CoordinateAttention

PARITY = Path(__file__).parent / "parity"
WEIGHTS = Path(__file__).parents[1] / "data" / "weights"


def drawn(layout: list) -> dict[str, torch.Tensor]:
    """The fixtures' weights: each key draws from a generator seeded by its own name."""
    state = {}
    for key, shape, _ in layout:
        rng, last = np.random.default_rng(zlib.crc32(key.encode())), key.split(".")[-1]
        if last == "num_batches_tracked":
            value = np.zeros(shape, np.int64)
        elif last == "running_mean" or last == "bias":
            value = 0.1 * rng.standard_normal(shape)
        elif last == "weight" and len(shape) >= 2:
            value = rng.standard_normal(shape) / math.sqrt(np.prod(shape[1:]))
        else:
            value = rng.uniform(0.5, 1.5, shape)
        state[key] = torch.as_tensor(value)
    return state


@pytest.mark.parametrize("name", ["starnet-pose-t", "starnet-pose-s"])
def test_parity_with_the_authors_code(name):
    """Same keys in the same order, and the same output within 1e-5 in float64.

    starnet-pose-s at these made-up weights passes twelve saturated gates and amplifies a relative change of
    1e-14 to 1: it passes only while every sum is taken in the authors' order.
    """
    facts, stored = json.loads((PARITY / f"{name}.json").read_text()), np.load(PARITY / f"{name}.npz")
    model = models.build(name, input_size=facts["input_size"])
    assert [[k, list(v.shape)] for k, v in model.state_dict().items()] == [
        entry[:2] for entry in facts["keys"]
    ]
    models.load_official(model.double(), drawn(facts["keys"])).eval()
    images = torch.as_tensor(np.random.default_rng(0).standard_normal((1, 3, *facts["input_size"])))
    with torch.no_grad():
        outputs = model(images)
    for index, output in enumerate(outputs):
        expected = stored[f"output{index}"]
        assert np.abs(output.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    "name, params, macs", [("starnet-pose-t", 3504155, 0.4323), ("starnet-pose-s", 6428403, 0.7608)]
)
def test_published_sizes(name, params, macs):
    counted = complexity.count(models.build(name), (256, 192))
    assert counted["params"] == params
    assert round(counted["macs"]["exact"] / 1e9, 4) == macs


def test_counting_leaves_the_model_as_it_was():
    model = models.build("starnet-pose-t", input_size=(64, 64)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    complexity.count(model, (64, 64))
    assert model.training and all(
        torch.equal(before[key], value) for key, value in model.state_dict().items()
    )


def test_imagenet_backbone_loads_and_changes_only_the_backbone(tmp_path):
    state = drawn(json.loads((PARITY / "starnet-s1-imagenet.json").read_text())["keys"])
    path = tmp_path / "starnet_s1.pth.tar"
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    model = models.build("starnet-pose-t")
    head = model.head.cls_x.weight.clone()
    models.load_backbone(model, path)
    key = "stages.3.3.g.conv.weight"
    assert torch.equal(model.backbone.state_dict()[key], state[key].float())
    assert torch.equal(model.head.cls_x.weight, head)


def test_imagenet_backbone_with_attention_keeps_the_attentions_start(tmp_path):
    layout = json.loads((PARITY / "starnet-s1-imagenet.json").read_text())["keys"]
    torch.save(drawn(layout), tmp_path / "s1.pth")
    model = models.build("starnet-pose-t", attention="coordinate")
    models.load_backbone(model, tmp_path / "s1.pth")
    assert model.backbone.stages[2][1].ca.conv_h.weight.abs().max() == 0
    with pytest.raises(ValueError, match="do not fit StarNet: missing stages.3.4"):
        models.load_backbone(models.build("starnet-pose-s"), tmp_path / "s1.pth")


@pytest.mark.parametrize("attention, extra", [("none", 0), ("coordinate", 35120), ("cbam", None)])
def test_attention_variants(attention, extra):
    model = models.build("starnet-pose-t", input_size=(64, 64), attention=attention)
    plain = models.build("starnet-pose-t", input_size=(64, 64))
    more = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in plain.parameters())
    assert more == extra if extra is not None else more > 0
    out = model(torch.randn(2, 3, 64, 64))
    (out.x.sum() + out.y.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_coordinate_attention_starts_as_a_factor_of_a_quarter():
    x = torch.randn(2, 32, 7, 5)
    assert torch.allclose(CoordinateAttention(32)(x), 0.25 * x)


def test_coordinate_attention_gates_rows_and_columns():
    """Against a loop over positions, from the module's own gates."""
    torch.manual_seed(0)
    block, x = CoordinateAttention(8).eval(), torch.randn(1, 8, 4, 3)
    torch.nn.init.normal_(block.conv_h.weight)
    torch.nn.init.normal_(block.conv_w.weight)

    def gate(conv, pooled):
        return torch.sigmoid(conv(torch.relu(block.bn(block.conv_reduce(pooled[:, :, None, None])))))[
            0, :, 0, 0
        ]

    out = block(x)
    for i in range(4):
        for j in range(3):
            expected = (
                x[0, :, i, j]
                * gate(block.conv_h, x[:, :, i].mean(-1))
                * gate(block.conv_w, x[:, :, :, j].mean(-1))
            )
            assert torch.allclose(out[0, :, i, j], expected, atol=1e-6)


def test_cbam_gates_lie_between_zero_and_one():
    x = torch.rand(2, 16, 6, 5) + 0.1
    ratio = CBAM(16)(x) / x
    assert ratio.min() > 0 and ratio.max() < 1


@pytest.mark.parametrize("size", [(128, 96), (64, 192)])
@pytest.mark.parametrize("skeleton, joints", [("coco", 17), ("lspet", 14)])
def test_output_shapes(size, skeleton, joints):
    out = models.build("starnet-pose-t", skeleton, size)(torch.randn(2, 3, *size))
    assert out.x.shape == (2, joints, 2 * size[1]) and out.y.shape == (2, joints, 2 * size[0])


@pytest.mark.parametrize(
    "call, message",
    [
        (dict(name="starnet-pose-x"), "unknown model 'starnet-pose-x'; did you mean .*starnet-pose-s"),
        (dict(name="starnet-pose-t", skeleton="coca"), "unknown skeleton 'coca'; did you mean coco"),
        (
            dict(name="starnet-pose-t", atention="cbam"),
            "unknown option of starnet-pose-t 'atention'; did you mean attention",
        ),
        (
            dict(name="starnet-pose-t", attention="se"),
            "unknown attention 'se'; one of none, coordinate, cbam",
        ),
        (dict(name="starnet-pose-t", input_size=(250, 192)), r"multiples of 32, not \(250, 192\)"),
    ],
)
def test_build_names_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        models.build(**call)


def test_loading_is_strict_and_leaves_the_model_untouched():
    model, other = (
        models.build("starnet-pose-t", input_size=(64, 64)),
        models.build("starnet-pose-s", input_size=(64, 64)),
    )
    before = model.head.cls_x.weight.clone()
    with pytest.raises(ValueError, match="do not fit StarNetPose: .*and .* more"):
        models.load_official(model, other.state_dict())
    state = model.state_dict()
    state["extra"] = torch.zeros(1)
    with pytest.raises(ValueError, match="left over extra"):
        models.load_official(model, state)
    joints = models.build("starnet-pose-t", "lspet", (64, 64)).state_dict()
    message = r"for 17 joints and are for 14: head.final_layer.weight is \(14, 192, 7, 7\), not \(17, 192"
    with pytest.raises(ValueError, match=message):
        models.load_official(model, joints)
    assert torch.equal(model.head.cls_x.weight, before)


class Evil:
    """Unpickled, it would run a command."""

    def __reduce__(self):
        return (print, ("unpickled code ran",))


def test_a_foreign_file_is_never_unpickled(tmp_path, capsys):
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="evil.pth cannot be read as weights"):
        models.read_checkpoint(tmp_path / "evil.pth")
    assert "unpickled code ran" not in capsys.readouterr().out


def test_files_that_are_no_weights(tmp_path):
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>404</html>")
    with pytest.raises(ValueError, match="page.pth cannot be read as weights: it is a web page"):
        models.read_checkpoint(tmp_path / "page.pth")
    model = models.build("starnet-pose-t", input_size=(64, 64))
    models.save_weights(model, tmp_path / "whole.safetensors", "starnet-pose-t")
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:5000])
    with pytest.raises(ValueError, match="torn.safetensors cannot be read as weights"):
        models.load_weights(tmp_path / "torn.safetensors")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        models.load_weights(tmp_path / "absent.safetensors")
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "nameless.safetensors")
    with pytest.raises(ValueError, match="does not say which model it is: name one"):
        models.load_weights(tmp_path / "nameless.safetensors")
    with pytest.raises(ValueError, match="holds weights of starnet-pose-t, not of starnet-pose-s"):
        models.load_weights(tmp_path / "whole.safetensors", "starnet-pose-s")


def test_save_and_load_give_the_same_net(tmp_path):
    model = models.build("starnet-pose-t", "lspet", (64, 96), attention="cbam").eval()
    digest = models.save_weights(
        model, tmp_path / "w.safetensors", "starnet-pose-t", "lspet", attention="cbam"
    )
    again, images = models.load_weights(tmp_path / "w.safetensors"), torch.randn(1, 3, 64, 96)
    assert torch.equal(again(images).x, model(images).x) and again.skeleton.name == "lspet"
    assert digest == files.sha256(tmp_path / "w.safetensors")
    said = models.describe_weights(tmp_path / "w.safetensors")
    assert said["trained_on"] == "lspet" and said["options"] == {"attention": "cbam"}


def test_authors_files_load_by_name(tmp_path):
    state = drawn(json.loads((PARITY / "starnet-pose-t.json").read_text())["keys"])
    torch.save({"state_dict": state, "meta": {"epoch": 210}}, tmp_path / "best.pth")
    model = models.load_weights(tmp_path / "best.pth", "starnet-pose-t")
    assert torch.equal(model.head.cls_x.weight, state["head.cls_x.weight"].float())
    assert models.describe_weights(tmp_path / "best.pth") == {}


def test_golden_tensors_of_the_shipped_weights():
    """What the shipped net answered when it was kept, to an input kept with it."""
    path = WEIGHTS / "starnet-pose-t-synthetic.safetensors"
    golden = safetensors.torch.load_file(WEIGHTS / "starnet-pose-t-synthetic.golden.safetensors")
    assert path.stat().st_size <= 8e6
    with torch.no_grad():
        out = models.load_weights(path, "starnet-pose-t")(golden["images"])
    assert (out.x - golden["x"]).abs().max() <= 1e-3 and (out.y - golden["y"]).abs().max() <= 1e-3
    assert golden["x"].abs().max() > 0.2
