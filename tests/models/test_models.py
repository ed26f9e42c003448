"""Models against the authors' layouts and outputs, and the errors of building and loading."""

import importlib
import json
import pkgutil

import numpy as np
import pytest
import safetensors.torch
import torch

from helpers import ROOT, apart, drawn
from posebook import complexity, models, utils
from posebook.models import starnet_pose
from posebook.models.layers import CBAM, CoordinateAttention, PoseModel

PARITY = ROOT / "tests" / "parity"
WEIGHTS = ROOT / "data" / "weights"

# The models whose authors' code was run to record the fixtures.
PUBLISHED_CODE = sorted(path.stem for path in PARITY.glob("*.json") if not path.stem.endswith("imagenet"))


def load_fixture(name: str) -> tuple[torch.nn.Module, dict]:
    """The model with the fixture's weights, in double precision and eval mode, and the fixture's facts."""
    facts = {"num_keypoints": 17, "input_size": [256, 192]}
    facts |= json.loads((PARITY / f"{name}.json").read_text())
    skeleton = {17: "coco", 16: "mpii"}[facts["num_keypoints"]]
    name, options = {"vitpose-s-simple": ("vitpose-s", {"decoder": "simple"})}.get(name, (name, {}))
    model = models.build(name, skeleton, facts["input_size"], **options).double()
    constants = {key: value for key, value in model.named_buffers() if key.endswith("_index")}
    return models.load_official(model, drawn(facts["keys"]) | constants).eval(), facts


@pytest.mark.parametrize("name", PUBLISHED_CODE)
def test_parity_with_the_authors_code(name):
    """The keys and shapes are the same, and the output differs by at most 1e-5 in float64.

    With the generated weights, starnet-pose-s has twelve saturated gates, which amplify a change of 1e-14 to
    the size of the output. It therefore matches only on a machine that adds in the same order as the one that
    recorded the fixture. On other machines the test verifies this amplification and is skipped. The fixture
    of starnet-pose-t and the loop over coordinate attention cover the parts of starnet-pose-s.
    """
    model, facts = load_fixture(name)
    theirs = {key: shape for key, shape, _ in facts["keys"]}
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == theirs
    images = torch.as_tensor(np.random.default_rng(0).standard_normal((1, 3, *facts["input_size"])))
    stored = np.load(PARITY / f"{name}.npz")
    expected = [stored[f"output{index}"] for index in range(len(stored.files))]
    with torch.no_grad():
        outputs = [output.numpy() for output in model(images)]
        shifted = outputs
        if name == "starnet-pose-s":
            shifted = [output.numpy() for output in model(images + 1e-14)]
    assert [output.shape for output in outputs] == [output.shape for output in expected]
    if apart(outputs, expected) > 1e-5 and apart(outputs, shifted) > 0.1:
        pytest.skip("this processor adds in another order, which these weights amplify to another output")
    assert apart(outputs, expected) <= 1e-5


# Sizes of the authors' code: parameters, then giga multiply-adds as each tool prints them.
SIZES = [
    ("starnet-pose-t", (256, 192), 3504155, {"exact": 0.4323, "fvcore": 0.4349, "thop": 0.4374}),
    ("starnet-pose-s", (256, 192), 6428403, {"exact": 0.7608, "fvcore": 0.7646, "thop": 0.7678}),
    ("rtmpose-t", (256, 192), 3337007, {"exact": 0.3548, "fvcore": 0.3588, "thop": 0.3623, "mmcv": 0.3586}),
    ("rtmpose-s", (256, 192), 5473251, {"exact": 0.6764, "fvcore": 0.6822, "thop": 0.6874, "mmcv": 0.6820}),
    ("lpn-50", (256, 192), 2911153, {"exact": 1.0697, "thop": 1.1150, "hrnet": 1.0080}),
    ("lpn-101", (256, 192), 5353458, {"exact": 1.5069, "thop": 1.5613, "hrnet": 1.4143}),
    ("lpn-152", (256, 192), 7377459, {"exact": 1.9462, "thop": 2.0120, "hrnet": 1.8225}),
    ("simplebaseline-50", (256, 192), 33999697, {"exact": 5.4264, "thop": 9.7019, "hrnet": 8.9912}),
    ("simplebaseline-152", (384, 288), 68635473, {"exact": 28.5734, "fvcore": 28.6775, "hrnet": 35.4705}),
    ("simcc-resnet50", (384, 288), 43290769, {"exact": 12.3673, "fvcore": 12.4209, "hrnet": 20.2306}),
    ("simcc-hrnet-w48", (384, 288), 70564049, {"exact": 35.4251, "fvcore": 35.5466, "hrnet": 32.8821}),
    ("hrnet-w32", (256, 192), 28536113, {"exact": 7.6450, "fvcore": 7.6853, "hrnet": 7.1200}),
    ("hrnet-w48", (384, 288), 63595745, {"exact": 35.3066, "mmcv": 35.4844, "hrnet": 32.8818}),
    ("lite-hrnet-18", (256, 192), 1130769, {"exact": 0.2423, "mmcv": 0.2660, "torchstat": 0.2052}),
    ("lite-hrnet-30", (384, 288), 1763717, {"exact": 0.8685, "mmcv": 0.9532, "torchstat": 0.7178}),
    ("hrformer-t", (256, 192), 2524759, {"exact": 1.4853, "thop": 1.3733, "mmcv": 1.3438, "hrnet": 1.2315}),
    ("hrformer-t", (384, 288), 2524759, {"exact": 3.2903, "thop": 3.0636, "mmcv": 2.9971, "hrnet": 3.2040}),
    ("hf-hrnet-18", (256, 192), 4575073, {"exact": 0.6445, "thop": 0.7252, "mmcv": 0.7076}),
    ("hf-hrnet-30", (384, 288), 7426657, {"exact": 2.3472, "thop": 2.6455, "torchstat": 2.2044}),
    ("lapx", (256, 192), 2312154, {"exact": 2.5117, "thop": 2.5870, "mmcv": 2.5856, "torchstat": 2.4550}),
    ("lapx", (384, 288), 2312154, {"exact": 5.6499, "fvcore": 5.7433, "thop": 5.8193}),
    ("lap", (256, 192), 2339340, {"exact": 2.7071, "fvcore": 2.7453, "thop": 2.7770}),
    ("amfacpose-r34", (384, 288), 3783436, {"exact": 4.9438, "fvcore": 5.0994, "thop": 5.2247}),
    ("amfacpose-r18", (256, 256), 2428260, {"exact": 1.7704, "fvcore": 1.8265, "thop": 1.8681}),
]  # fmt: skip


@pytest.mark.parametrize("name, size, params, giga", SIZES)
def test_sizes_match_the_authors_code(name, size, params, giga):
    with torch.device("meta"):
        counted = complexity.count(models.build(name, input_size=size), size)
    assert counted["params"] == params
    assert {tool: round(complexity.in_tool_units(counted, tool), 4) for tool in giga} == giga


def test_counting_does_not_change_the_model():
    model = models.build("starnet-pose-t", input_size=(64, 64)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    complexity.count(model, (64, 64))
    assert model.training and all(
        torch.equal(before[key], value) for key, value in model.state_dict().items()
    )


def test_loading_an_imagenet_backbone_changes_only_the_backbone(tmp_path):
    state = drawn(json.loads((PARITY / "starnet-s1-imagenet.json").read_text())["keys"])
    path = tmp_path / "starnet_s1.pth.tar"
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    model = models.build("starnet-pose-t")
    head = model.head.cls_x.weight.clone()
    models.load_backbone(model, path)
    key = "stages.3.3.g.conv.weight"
    assert torch.equal(model.backbone.state_dict()[key], state[key].float())
    assert torch.equal(model.head.cls_x.weight, head)


def test_attention_keeps_its_initialization_when_a_backbone_is_loaded(tmp_path):
    layout = json.loads((PARITY / "starnet-s1-imagenet.json").read_text())["keys"]
    torch.save(drawn(layout), tmp_path / "s1.pth")
    model = models.build("starnet-pose-t", attention="coordinate")
    models.load_backbone(model, tmp_path / "s1.pth")
    assert model.backbone.stages[2][1].ca.conv_h.weight.abs().max() == 0
    with pytest.raises(ValueError, match="do not fit StarNet: missing stages.3.4"):
        models.load_backbone(models.build("starnet-pose-s"), tmp_path / "s1.pth")
    with pytest.raises(ValueError, match="LAPX has no backbone to load s1.pth into"):
        models.load_backbone(models.build("lapx"), tmp_path / "s1.pth")


@pytest.mark.parametrize("attention, extra", [("none", 0), ("coordinate", 35120), ("cbam", None)])
def test_attention_variants(attention, extra):
    model = models.build("starnet-pose-t", input_size=(64, 64), attention=attention)
    plain = models.build("starnet-pose-t", input_size=(64, 64))
    added = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in plain.parameters())
    assert added == extra if extra is not None else added > 0
    out = model(torch.randn(2, 3, 64, 64))
    (out.x.sum() + out.y.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_coordinate_attention_initially_multiplies_by_a_quarter():
    x = torch.randn(2, 32, 7, 5)
    assert torch.allclose(CoordinateAttention(32)(x), 0.25 * x)


def test_coordinate_attention_gates_rows_and_columns():
    """The output equals a loop over positions with the gates of the module."""
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


def test_cbam_gates_are_between_zero_and_one():
    x = torch.rand(2, 16, 6, 5) + 0.1
    ratio = CBAM(16)(x) / x
    assert ratio.min() > 0 and ratio.max() < 1


def test_every_model_class_has_a_name():
    """Modules that no other module imports are found too."""
    for module in pkgutil.iter_modules(models.__path__):
        importlib.import_module(f"posebook.models.{module.name}")
    named = {getattr(builder, "func", builder) for builder in models.MODELS.values()}
    assert {
        cls for cls in PoseModel.__subclasses__() if cls.__module__.startswith("posebook.models.")
    } == named


LARGE = ("101", "152", "w48", "resnet50", "vitpose-b", "vitpose-l", "vitpose-h", "plus")
SMALL = [name for name in models.names() if not any(part in name for part in LARGE)]
UNUSED = ("relative_position_bias_table",)  # HRFormer's weights contain it, but the model does not use it


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("skeleton, size", [("coco", (128, 96)), ("mpii", (64, 128))])
def test_output_shapes_and_gradients(name, skeleton, size):
    torch.manual_seed(0)
    model = models.build(name, skeleton, size)
    joints, outputs = len(model.skeleton.keypoints), model(torch.randn(2, 3, *size))
    if hasattr(outputs, "x"):
        assert outputs.x.shape == (2, joints, 2 * size[1]) and outputs.y.shape == (2, joints, 2 * size[0])
    else:
        assert all(maps.shape == (2, joints, size[0] // 4, size[1] // 4) for maps in outputs)
    sum(output.square().sum() for output in outputs).backward()
    without = [key for key, value in model.named_parameters() if value.grad is None]
    assert all(key.endswith(UNUSED) for key in without)


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
        (dict(name="rtmpose-t", input_size=(256, 190)), r"RTMPose needs .* of 32, not \(256, 190\)"),
        (dict(name="hrnet-w32", input_size=(0, 64)), r"HRNet needs .* of 32, not \(0, 64\)"),
        (dict(name="lapx", input_size=(256, 190)), r"LAPX needs .* of 4, not \(256, 190\)"),
        (dict(name="lapx", input_size=(256, 48)), r"LAPX needs sides of at least 64, not \(256, 48\)"),
        (dict(name="lapx", attention="se"), "unknown attention 'se'; one of none, cbam, eca_cbam"),
        (dict(name="lapx", neck="nl"), "unknown neck 'nl'; one of none, eca, cbam, nonlocal"),
        (dict(name="lapx", attention="none"), "stem_attention=True needs an attention"),
        (dict(name="amfacpose-r34", input_size=(256, 200)), r"AMFACPose needs .* of 16, not \(256, 200\)"),
        (dict(name="amfacpose-r34", depth=50), "depth 18 or 34, not 50"),
        (dict(name="amfacpose-r34", modulate="both"), "unknown modulate 'both'; one of refined, mask"),
        (dict(name="amfacpose-r34", afpn=False), "dgcb refines the scales of the pyramid, so it needs afpn"),
        (dict(name="lpn-50", depth=34), "LPN has depth 50, 101 or 152, not 34"),
        (dict(name="simplebaseline-50", depth=18), "depth 50, 101 or 152, not 18"),
        (dict(name="lite-hrnet-18", depth=24), "Lite-HRNet has depth 18 or 30, not 24"),
        (dict(name="hf-hrnet-18", depth=24), "HF-HRNet has depth 18 or 30, not 24"),
    ],
)
def test_errors_of_build(call, message):
    with pytest.raises(ValueError, match=message):
        models.build(**call)


def test_loading_is_strict_and_leaves_the_model_unchanged():
    model = models.build("starnet-pose-t", input_size=(64, 64))
    other = models.build("starnet-pose-s", input_size=(64, 64))
    before = model.head.cls_x.weight.clone()
    rtmpose = models.build("rtmpose-t", input_size=(64, 64)).state_dict()
    with pytest.raises(ValueError, match=r"do not fit StarNetPose \(they belong to another model\): missing"):
        models.load_official(model, rtmpose)
    with pytest.raises(ValueError, match="do not fit StarNetPose: .*and .* more"):
        models.load_official(model, other.state_dict())
    state = model.state_dict()
    state["extra"] = torch.zeros(1)
    with pytest.raises(ValueError, match="unexpected extra"):
        models.load_official(model, state)
    joints = models.build("starnet-pose-t", "lspet", (64, 64)).state_dict()
    message = (
        r"for 17 joints \(they are for 14\): head.final_layer.weight is \(14, 192, 7, 7\), not \(17, 192"
    )
    with pytest.raises(ValueError, match=message):
        models.load_official(model, joints)
    assert torch.equal(model.head.cls_x.weight, before)


class Evil:
    """An object that runs a command when it is unpickled."""

    def __reduce__(self):
        return (print, ("unpickled code ran",))


def test_no_code_of_a_checkpoint_is_executed(tmp_path, capsys):
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="evil.pth cannot be read as weights"):
        models.read_checkpoint(tmp_path / "evil.pth")
    assert "unpickled code ran" not in capsys.readouterr().out


def test_the_random_state_of_a_training_script_is_ignored(tmp_path):
    """KTPFormer's files contain one; no NumPy object is built for it."""
    content = {"epoch": 3, "random_state": np.random.RandomState(0), "optimizer": {"state": {}}}
    torch.save(content | {"model_pos": {"module.weight": torch.ones(2)}}, tmp_path / "best.bin")
    assert models.read_checkpoint(tmp_path / "best.bin")["weight"].tolist() == [1, 1]


def test_files_that_are_not_weights(tmp_path):
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>404</html>")
    with pytest.raises(ValueError, match="page.pth cannot be read as weights: it is a web page"):
        models.read_checkpoint(tmp_path / "page.pth")
    model = models.build("starnet-pose-t", input_size=(64, 64))
    models.save_weights(model, tmp_path / "complete.safetensors", "starnet-pose-t")
    (tmp_path / "truncated.safetensors").write_bytes((tmp_path / "complete.safetensors").read_bytes()[:5000])
    with pytest.raises(ValueError, match="truncated.safetensors cannot be read as weights"):
        models.load_weights(tmp_path / "truncated.safetensors")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        models.load_weights(tmp_path / "absent.safetensors")
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "nameless.safetensors")
    with pytest.raises(ValueError, match="does not say which model it contains; give the name of the model"):
        models.load_weights(tmp_path / "nameless.safetensors")
    with pytest.raises(ValueError, match="holds weights of starnet-pose-t, not of starnet-pose-s"):
        models.load_weights(tmp_path / "complete.safetensors", "starnet-pose-s")


def test_saving_and_loading_preserve_the_model(tmp_path):
    model = models.build("starnet-pose-t", "lspet", (64, 96), attention="cbam").eval()
    digest = models.save_weights(
        model, tmp_path / "w.safetensors", "starnet-pose-t", "lspet", attention="cbam"
    )
    loaded, images = models.load_weights(tmp_path / "w.safetensors"), torch.randn(1, 3, 64, 96)
    assert torch.equal(loaded(images).x, model(images).x) and loaded.skeleton.name == "lspet"
    assert digest == utils.sha256(tmp_path / "w.safetensors")
    facts = models.describe_weights(tmp_path / "w.safetensors")
    assert facts["trained_on"] == "lspet" and facts["options"] == {"attention": "cbam"}


def test_authors_files_load_with_a_model_name(tmp_path):
    state = drawn(json.loads((PARITY / "starnet-pose-t.json").read_text())["keys"])
    torch.save({"state_dict": state, "meta": {"epoch": 210}}, tmp_path / "best.pth")
    model = models.load_weights(tmp_path / "best.pth", "starnet-pose-t")
    assert torch.equal(model.head.cls_x.weight, state["head.cls_x.weight"].float())
    assert models.describe_weights(tmp_path / "best.pth") == {}


SHIPPED = sorted(path.name.removesuffix(".golden.safetensors") for path in WEIGHTS.glob("*.golden.*"))


@pytest.mark.parametrize("name", SHIPPED)
def test_golden_tensors_of_the_shipped_weights(name):
    """The output is the one archived with the weights, for the archived input."""
    golden = safetensors.torch.load_file(WEIGHTS / f"{name}.golden.safetensors")
    with torch.no_grad():
        out = models.load_weights(WEIGHTS / f"{name}.safetensors")(golden.pop("images"))
    outputs = out._asdict() if hasattr(out, "_asdict") else {"heatmap": out[-1]}
    assert outputs.keys() == golden.keys()
    for key, archived in golden.items():
        assert (outputs[key] - archived).abs().max() <= 1e-3 and archived.abs().max() > 0.2


def test_shipped_weights_are_small_and_have_cards():
    """At most 8 MB per file and 40 MB in total. Each card contains the hash of its file."""
    shipped = sorted((*WEIGHTS.glob("*-synthetic.safetensors"), *WEIGHTS.glob("*-photographs.safetensors")))
    assert [path.stem for path in shipped] == SHIPPED
    assert max(path.stat().st_size for path in shipped) <= 8e6
    assert sum(path.stat().st_size for path in shipped) <= 40e6
    for path in shipped:
        assert utils.sha256(path) in path.with_suffix(".md").read_text()


def test_star_block_equals_its_formula():
    """Coordinate attention comes before the second depthwise convolution."""
    torch.manual_seed(0)
    block, x = starnet_pose.StarBlock(8, CoordinateAttention).eval(), torch.randn(1, 8, 9, 7)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        y = block.dwconv(x)
        y = block.g(block.f1(y).clamp(0, 6) * block.f2(y))
        torch.testing.assert_close(block(x), x + block.dwconv2(block.ca(y)))
        assert not torch.allclose(block(x), x + block.ca(block.dwconv2(y)), atol=1e-4)
