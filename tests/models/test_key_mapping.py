"""Keys of mmpose, against lists that follow its classes, and the outputs of models with converted weights."""

import json

import pytest
import torch
from mmpose_layouts import Layout, heatmap_head, hrnet, resnet, simcc_head, vision_transformer

from helpers import ROOT, drawn
from posebook import models
from posebook.models import key_mapping

PARITY = ROOT / "tests" / "parity"


def random_state(layout: Layout) -> dict[str, torch.Tensor]:
    return {
        key: value.float() if value.is_floating_point() else value
        for key, value in drawn([(key, shape, None) for key, shape in layout]).items()
    }


LAYOUTS = {
    "hrnet-w32": hrnet(32) + heatmap_head("head", 32, 0, 17),
    "hrnet-w48": hrnet(48) + heatmap_head("head", 48, 0, 17),
    "simplebaseline-50": resnet((3, 4, 6, 3)) + heatmap_head("head", 2048, 3, 17),
    "simplebaseline-101": resnet((3, 4, 23, 3)) + heatmap_head("head", 2048, 3, 17),
    "simplebaseline-152": resnet((3, 8, 36, 3)) + heatmap_head("head", 2048, 3, 17),
    "simcc-resnet50": resnet((3, 4, 6, 3)) + simcc_head(2048, 17, (256, 192), 2.0),
    "vitpose-s": vision_transformer(384, 12, 192, False) + heatmap_head("head", 384, 2, 17),
    "vitpose-b": vision_transformer(768, 12, 192, False) + heatmap_head("head", 768, 2, 17),
}


def shapes_of(name: str, **options: object) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = models.build(name, **options)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("name", LAYOUTS)
def test_each_key_of_mmpose_becomes_one_of_ours_with_its_shape(name, version):
    """Version 0 named the head of heatmap models keypoint_head."""
    own, old = shapes_of(name), "keypoint_head." if version == 0 and "simcc" not in name else "head."
    layout = [
        (key.replace("head.", old, 1) if key.startswith("head.") else key, s) for key, s in LAYOUTS[name]
    ]
    assert len({key for key, _ in layout}) == len(layout)
    state = {key: torch.empty(shape, device="meta") for key, shape in layout}
    mapped = key_mapping.remap_keys(state, own)
    assert {key: tuple(value.shape) for key, value in mapped.items()} == own


def test_simple_decoder_and_class_token_of_mmpose():
    layout = vision_transformer(384, 12, 192, True) + heatmap_head("head", 384, 0, 17, kernel=3)
    own = shapes_of("vitpose-s", decoder="simple")
    mapped = key_mapping.remap_keys(random_state(layout), own)
    assert {key: tuple(value.shape) for key, value in mapped.items()} == own
    assert not mapped["backbone.pos_embed"][:, 0].any()  # mmpretrain adds no class row to the patches


@pytest.mark.parametrize("name", ["lite-hrnet-18", "hf-hrnet-18", "hrformer-t"])
def test_new_name_of_the_head(name):
    """The fixtures have the keys of mmpose 0; version 1 renamed the head."""
    layout = json.loads((PARITY / f"{name}.json").read_text())["keys"]
    state = {key: torch.empty(shape, device="meta") for key, shape, _ in layout}
    renamed = {key.replace("keypoint_head.", "head."): value for key, value in state.items()}
    assert renamed.keys() != state.keys()
    assert key_mapping.remap_keys(renamed, state.keys()).keys() == state.keys()


@pytest.mark.parametrize(
    "name", ["rtmpose-t", "starnet-pose-t", "lapx", "lpn-50", "hrnet-w32", "vitpose-plus-s"]
)
def test_weights_in_our_layout_are_unchanged(name):
    own = shapes_of(name)
    state = {key: torch.empty(shape, device="meta") for key, shape in own.items()}
    assert key_mapping.remap_keys(state, own) is state
    incomplete = dict(list(state.items())[1:])
    assert key_mapping.remap_keys(incomplete, own).keys() == incomplete.keys()
    more = state | {"data_preprocessor.mean": torch.zeros(3)}
    assert key_mapping.remap_keys(more, own).keys() == own.keys()


@pytest.mark.parametrize("name", ["hrnet-w32", "simplebaseline-50", "simcc-resnet50"])
def test_converted_weights_give_the_same_output(name):
    """The unconverted model has each value where its module has the same name without mmpose's wrappers."""
    torch.manual_seed(0)
    size = (256, 192) if "simcc" in name else (64, 64)
    ours, converted = (models.build(name, input_size=size).eval() for _ in range(2))
    state = random_state(LAYOUTS[name])
    for key, value in ours.state_dict().items():
        is_head = key.split(".")[0] in ("final_layer", "deconv_layers", "mlp_head_x", "mlp_head_y")
        inner = "deconv_head." if "simcc" in name and not key.startswith("mlp") else ""
        value.copy_(state[f"head.{inner}{key}" if is_head else f"backbone.{key}"])
    models.load_official(converted, state)
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        for a, b in zip(ours(images), converted(images), strict=True):
            assert a.std() > 0 and torch.equal(a, b)


def test_converted_positions_give_the_same_output():
    """mmpretrain adds its table to the patches; our model adds its table and the class row."""
    torch.manual_seed(0)
    ours = models.build("vitpose-s", width=48, depth=2, heads=4).eval()
    layout = vision_transformer(48, 2, 192, False) + heatmap_head("head", 48, 2, 17)
    state = random_state(layout)
    converted = models.load_official(models.build("vitpose-s", width=48, depth=2, heads=4), state).eval()
    weights = converted.state_dict()
    class_row = torch.randn(1, 1, 48)
    table = torch.cat([class_row, state["backbone.pos_embed"] - class_row], 1)  # (1, 193, 48)
    models.load_official(ours, weights | {"backbone.pos_embed": table})
    images = torch.randn(1, 3, 256, 192)
    with torch.no_grad():
        (expected,), (output,) = ours(images), converted(images)
    assert (output - expected).abs().max() <= 1e-5 * expected.abs().max()
    block = ours.backbone.blocks[1]
    assert torch.equal(block.mlp.fc1.weight, state["backbone.layers.1.ffn.layers.0.0.weight"])
    assert torch.equal(block.norm2.bias, state["backbone.layers.1.ln2.bias"])
    assert torch.equal(ours.backbone.last_norm.weight, state["backbone.ln1.weight"])


def test_incomplete_weights_in_another_layout_are_refused():
    state = random_state(LAYOUTS["vitpose-s"])
    del state["backbone.pos_embed"]
    with pytest.raises(ValueError, match="the weights are incomplete: they have no backbone.pos_embed"):
        models.load_official(models.build("vitpose-s"), state)


def test_weights_of_another_width_are_not_said_to_have_other_joints():
    """All differing axes of HRNet-W48 are 1.5 times as long: 24 joints would explain them, too."""
    wide = models.build("hrnet-w48", "mpii").state_dict()
    with pytest.raises(ValueError, match="do not fit HRNet: "):
        models.load_official(models.build("hrnet-w32", "mpii"), wide)


def test_weights_of_another_model_or_for_other_joints_are_refused():
    message = r"do not fit HRNet \(they belong to another model\)"
    with pytest.raises(ValueError, match=message):
        models.load_official(models.build("hrnet-w32"), random_state(LAYOUTS["simplebaseline-50"]))
    with pytest.raises(
        ValueError, match=r"for 16 joints \(they are for 17\): final_layer.weight is \(17, 32"
    ):
        models.load_official(models.build("hrnet-w32", "mpii"), random_state(LAYOUTS["hrnet-w32"]))
