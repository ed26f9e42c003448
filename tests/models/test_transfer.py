"""Weights for other joints and input sizes: what is copied, mapped, interpolated and rejected."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from posebook import codecs, models, skeletons, transforms
from posebook.datasets import coco
from posebook.evaluation import predictions
from posebook.inference import predict
from posebook.models import transfer

COCO = skeletons.get("coco")


def shuffled(skeleton: skeletons.Skeleton, seed: int = 0) -> skeletons.Skeleton:
    """The same joints in another order."""
    order = np.random.default_rng(seed).permutation(len(skeleton.keypoints))
    return skeletons.make_skeleton("shuffled", [skeleton.keypoints[i] for i in order], [], None)


def random_model(name: str, skeleton, size, seed: int = 1, **options) -> nn.Module:
    """A model with random tensors, so that equal tensors must have been transferred."""
    torch.manual_seed(seed)
    with torch.device("meta"):
        model = models.build(name, skeleton, size, **options).eval()
    model.to_empty(device="cpu")
    for value in model.state_dict().values():
        value.uniform_(0.5, 1.5) if value.is_floating_point() else value.zero_()
    return model


def save(model: nn.Module, folder, name: str, **options):
    path = folder / f"{name}.safetensors"
    models.save_weights(model, path, name, **options)
    return path


@pytest.mark.parametrize("name", ["starnet-pose-t", "lapx", "lpn-50"])
def test_tensors_of_the_same_shape_are_copied(name, tmp_path):
    old, new = random_model(name, "coco", (64, 64)), random_model(name, "coco", (64, 64), 2)
    report = transfer.transfer_weights(new, save(old, tmp_path, name), name)
    for key, value in old.state_dict().items():
        assert torch.equal(value, new.state_dict()[key]), key
    described = {"copied": len(old.state_dict()), "mapped": [], "interpolated": [], "initialized": []}
    assert report.describe() == described
    assert report.summary() == (
        f"copied {len(old.state_dict())} tensors, mapped 0 by joint name, interpolated 0 to the input size, "
        "initialized nothing"
    )


@pytest.mark.parametrize("name", ["starnet-pose-t", "lapx", "simcc-resnet50"])
def test_joints_are_mapped_by_name_in_any_order(name, tmp_path):
    """The output of a joint does not depend on its index."""
    old, other = random_model(name, "coco", (64, 64)), shuffled(COCO)
    new = random_model(name, other, (64, 64), 2)
    report = transfer.transfer_weights(new, save(old, tmp_path, name), name)
    assert report.mapped and not report.interpolated and not report.initialized
    order = [COCO.keypoints.index(joint) for joint in other.keypoints]
    key = next(key for key in report.mapped if key.endswith("weight"))
    before, after = old.state_dict()[key], new.state_dict()[key]
    axis = next(axis for axis in range(before.ndim) if before.shape[axis] == 17)
    for index, source in enumerate(order):
        assert torch.equal(after.select(axis, index), before.select(axis, source))
    assert len(report.copied) + len(report.mapped) == len(new.state_dict())


def test_joints_missing_in_the_weights_keep_their_initialization(tmp_path):
    old = random_model("starnet-pose-t", "coco", (64, 64))
    new = random_model("starnet-pose-t", "crowdpose", (64, 64), 2)
    start = {key: value.clone() for key, value in new.state_dict().items()}
    report = transfer.transfer_weights(new, save(old, tmp_path, "starnet-pose-t"), "starnet-pose-t")
    assert report.mapped == ["head.final_layer.weight", "head.final_layer.bias"]
    assert report.initialized == report.describe()["initialized"] == ["head", "neck"]
    assert report.summary().endswith(
        "mapped 2 by joint name, interpolated 0 to the input size, initialized head, neck"
    )
    for key in report.mapped:
        for index, joint in enumerate(new.skeleton.keypoints):
            common = joint in COCO.keypoints
            expected = old.state_dict()[key][COCO.keypoints.index(joint)] if common else start[key][index]
            assert torch.equal(new.state_dict()[key][index], expected)


class Table(nn.Module):
    """A model with a tensor (K, cells) that depends on the joints and on the input size."""

    udp = dark = False

    def __init__(self, skeleton, input_size):
        super().__init__()
        self.skeleton, self.input_size = skeleton, tuple(input_size)
        height, width = input_size
        self.table = nn.Parameter(torch.rand(len(skeleton.keypoints), height // 4 * (width // 4)))
        self.column = nn.Parameter(torch.rand(height))


def test_a_tensor_of_joints_and_input_size_is_mapped_and_interpolated(tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "table", Table)
    old = Table(COCO, (32, 16))
    old.table.data[:] = torch.arange(17.0)[:, None]  # constant over the cells
    new = Table(skeletons.get("crowdpose"), (64, 48))
    start = new.table.detach().clone()
    report = transfer.transfer_weights(new, save(old, tmp_path, "table"), "table")
    assert report.mapped == ["table"] and report.interpolated == ["table", "column"] and not report.copied
    scale = 8 * 4 / (16 * 12)  # the model sums over the cells
    for index, joint in enumerate(new.skeleton.keypoints):
        row = new.table[index].detach()
        if joint in COCO.keypoints:
            torch.testing.assert_close(row, torch.full_like(row, COCO.keypoints.index(joint) * scale))
        else:
            assert torch.equal(row, start[index])


@pytest.mark.parametrize("size", [(64, 48), (32, 16), (48, 96), (16, 16)])
def test_a_constant_field_stays_constant(size):
    old, constant = (32, 32), 0.75
    cells = (size[0] // 4) * (size[1] // 4)
    for shape, axis, grows, length in [
        ((5, 64), 1, (True, True), cells),
        ((64,), 0, (True, True), cells),
        ((32, 7), 0, (True, False), size[0]),
        ((64,), 0, (False, True), 2 * size[1]),
    ]:
        result = transfer._interpolate("x", torch.full(shape, constant), axis, length, old, size, grows)
        assert result.shape == tuple(length if a == axis else n for a, n in enumerate(shape))
        scale = 64 / cells if axis else 1
        torch.testing.assert_close(result, torch.full_like(result, constant * scale))


def test_a_grid_is_interpolated_over_rows_and_columns():
    """A ramp along the columns stays a ramp between the centers of the outer cells; all rows stay equal."""
    ramp = torch.arange(4.0).repeat(8, 1)  # (8, 4) cells of 4 pixels
    result = transfer._interpolate("x", ramp.flatten(), 0, 16 * 8, (32, 16), (64, 32), (True, True)).view(
        16, 8
    )
    expected = ((torch.arange(8.0) + 0.5) / 2 - 0.5).clamp(0, 3)
    torch.testing.assert_close(result, expected.repeat(16, 1))


def test_bins_are_interpolated_along_their_side_even_if_a_grid_has_as_many_cells(tmp_path):
    """At 128x96 there are 192 bins in x, and also 16x12 cells of 8 pixels."""
    old = random_model("starnet-pose-t", "coco", (128, 96))
    old.head.cls_x.weight.data[:] = torch.arange(192.0)[:, None]
    new = random_model("starnet-pose-t", "coco", (128, 128), 2)
    transfer.transfer_weights(new, save(old, tmp_path, "starnet-pose-t"), "starnet-pose-t")
    steps = new.head.cls_x.weight.detach().diff(dim=0)[2:-2]  # the ends are clamped
    torch.testing.assert_close(steps, torch.full_like(steps, 0.75), atol=1e-3, rtol=0)


def test_starnet_pose_at_twice_the_size_peaks_at_twice_the_coordinates(test_data, tmp_path):
    """Test of the head on enlarged maps: the backbone's maps of a larger image would differ."""
    old = models.load_weights(predict.SYNTHETIC_WEIGHTS)
    height, width = old.input_size
    new = models.build("starnet-pose-t", old.skeleton, (2 * height, 2 * width)).eval()
    report = transfer.transfer_weights(new, predict.SYNTHETIC_WEIGHTS, "starnet-pose-t")
    assert set(report.interpolated) == {"head.mlp.1.weight", "head.cls_x.weight", "head.cls_y.weight"}
    assert not report.mapped and not report.initialized
    instances = coco.load(test_data / "coco_sample", "val2017").instances[:12]
    images = transforms.normalize(torch.from_numpy(predictions.crop_people(instances, old.input_size)[0]))
    with torch.no_grad():
        maps = old.backbone(images)  # (B, C, h, w)
        once = predictions.decode(old.head(maps), old.input_size)[0]
        joints = old.head.final_layer(maps)  # (B, K, h, w)
        joints = nn.functional.interpolate(joints, scale_factor=2, mode="nearest").flatten(2)
        tokens = new.head.gau(new.head.mlp(joints))
        output = codecs.SimCC(new.head.cls_x(tokens), new.head.cls_y(tokens))
        twice = predictions.decode(output, new.input_size)[0]
    distances = (twice - (2 * once + 0.5)).norm(dim=-1)  # (B, K) pixels of 256 x 192
    assert distances.median() < 8
    distances_to_others = (twice - (2 * once.roll(1, 0) + 0.5)).norm(dim=-1)
    assert distances_to_others.median() > 4 * distances.median()


def test_the_position_table_of_vitpose_is_copied(tmp_path):
    """The model resizes its grid in each forward pass, so the table is the same at any input size."""
    old = random_model("vitpose-s", "coco", (64, 64), depth=1)
    new = random_model("vitpose-s", "lspet", (128, 96), 2, depth=1)
    report = transfer.transfer_weights(new, save(old, tmp_path, "vitpose-s", depth=1), "vitpose-s")
    assert torch.equal(old.backbone.pos_embed, new.backbone.pos_embed) and not report.interpolated
    assert "backbone.pos_embed" in report.copied and report.initialized == ["neck", "head_top"]


def test_the_classifiers_of_simcc_resnet50_are_interpolated(tmp_path):
    old = random_model("simcc-resnet50", "coco", (64, 64))
    old.mlp_head_x.weight.data.fill_(0.5)
    new = random_model("simcc-resnet50", "coco", (128, 64), 2)
    report = transfer.transfer_weights(new, save(old, tmp_path, "simcc-resnet50"), "simcc-resnet50")
    assert report.interpolated == ["mlp_head_x.weight", "mlp_head_y.weight", "mlp_head_y.bias"]
    assert "mlp_head_x.bias" in report.copied
    torch.testing.assert_close(new.mlp_head_x.weight.detach(), torch.full((128, 512), 0.25))


def test_lapx_does_not_depend_on_the_input_size(tmp_path):
    old, new = random_model("lapx", "coco", (64, 64)), random_model("lapx", "coco", (128, 96), 2)
    report = transfer.transfer_weights(new, save(old, tmp_path, "lapx"), "lapx")
    assert len(report.copied) == len(old.state_dict())


def test_amfacpose_is_rejected_for_other_joints_and_sizes(tmp_path):
    path = save(random_model("amfacpose-r18", "coco", (64, 64)), tmp_path, "amfacpose-r18")
    transfer.transfer_weights(random_model("amfacpose-r18", "coco", (64, 64)), path, "amfacpose-r18")
    joints = "neck.fuse.0.weight cannot be mapped by joint name: it has 136 slices for 17 joints"
    side = (
        "mlp_y.0.weight cannot be interpolated from input 64x64 to 128x64: its inputs along one side have "
        "several features per position"
    )
    for skeleton, size, message in (("lspet", (64, 64), joints), ("coco", (128, 64), side)):
        with pytest.raises(ValueError, match=message):
            transfer.transfer_weights(random_model("amfacpose-r18", skeleton, size), path, "amfacpose-r18")


def test_unsuitable_weights_are_rejected_and_leave_the_model_unchanged(tmp_path):
    old = random_model("starnet-pose-t", "coco", (64, 64))
    path = save(old, tmp_path, "starnet-pose-t")
    hands = skeletons.make_skeleton("hand", ["wrist", "thumb"], [], None)
    cases = [
        (
            random_model("starnet-pose-s", "coco", (64, 64)),
            "starnet-pose-s",
            path,
            "holds weights of starnet-pose-t, not of",
        ),
        (
            random_model("starnet-pose-t", hands, (64, 64)),
            "starnet-pose-t",
            path,
            "has none of the joints wrist, thumb",
        ),
    ]
    state = safetensors.torch.load_file(path)
    facts = models.describe_weights(path)
    state["head.cls_x.weight"] = state["head.cls_x.weight"][:-1].clone()
    damaged = tmp_path / "damaged.safetensors"
    safetensors.torch.save_file(state, damaged, {"posebook": json.dumps(facts)})
    cases.append(
        (
            random_model("starnet-pose-t", "coco", (64, 64)),
            "starnet-pose-t",
            damaged,
            "damaged.safetensors is damaged",
        )
    )
    deeper = random_model("starnet-pose-t", "coco", (64, 64), depths=(1, 1, 1, 1))
    cases.append((deeper, "starnet-pose-t", path, "the weights do not fit StarNetPose"))
    for model, name, file, message in cases:
        start = {key: value.clone() for key, value in model.state_dict().items()}
        with pytest.raises(ValueError, match=message):
            transfer.transfer_weights(model, file, name)
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in start.items())
    with pytest.raises(FileNotFoundError):
        transfer.transfer_weights(old, tmp_path / "none.safetensors", "starnet-pose-t")


def test_authors_files_must_fit_as_they_are(tmp_path):
    old, new = random_model("lpn-50", "coco", (64, 64)), random_model("lpn-50", "coco", (64, 64), 2)
    path = tmp_path / "authors.pth"
    torch.save(old.state_dict(), path)
    report = transfer.transfer_weights(new, path, "lpn-50")
    assert len(report.copied) == len(new.state_dict()) and torch.equal(
        old.final_layer.weight, new.final_layer.weight
    )
    with pytest.raises(ValueError, match=r"for 14 joints \(they are for 17\)"):
        transfer.transfer_weights(random_model("lpn-50", "lspet", (64, 64)), path, "lpn-50")
