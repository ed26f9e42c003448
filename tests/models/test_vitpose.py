"""ViTPose: experts, merging, positions, attention rollout, and comparison with transformers' version."""

import pytest
import torch

from posebook import complexity, models, skeletons
from posebook.explain import attribution
from posebook.models import vitpose
from posebook.models.transformer import Attention, DropPath


def small_model(name: str = "vitpose-plus-s", size: tuple[int, int] = (64, 48), **options) -> torch.nn.Module:
    """A model with two blocks and random parameters, in eval mode."""
    torch.manual_seed(0)
    model = models.build(name, input_size=size, depth=2, **options)
    for parameter in model.parameters():  # unlike the initialization, so that each part affects the output
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


# Millions of parameters and giga multiply-adds, measured on the authors' code. The multiply-adds include the
# products of attention, and norms, which account for 0.1 to 0.4 %.
SIZES = [
    ("vitpose-s", {}, 24.291, 5.61),
    ("vitpose-s", {"decoder": "simple"}, 21.723, 4.67),
    ("vitpose-b", {}, 89.995, 18.54),
    ("vitpose-b", {"decoder": "simple"}, 85.912, 17.49),
    ("vitpose-l", {}, 308.545, 61.62),
    ("vitpose-l", {"decoder": "simple"}, 303.453, 60.49),
    ("vitpose-h", {}, 637.209, 125.91),
    ("vitpose-h", {"decoder": "simple"}, 631.108, 124.70),
]


@pytest.mark.parametrize("name, options, params, giga", SIZES)
def test_sizes_match_the_authors_code(name, options, params, giga):
    with torch.device("meta"):
        counted = complexity.count(models.build(name, **options), (256, 192))
    assert round(counted["params"] / 1e6, 3) == params
    assert 0.996 * giga < counted["macs"]["exact"] / 1e9 < giga + 0.005


@pytest.mark.parametrize("size, params", [("s", 55.160), ("b", 146.423), ("l", 460.675), ("h", 930.917)])
def test_a_model_with_experts_costs_as_much_as_a_plain_one_for_one_dataset(size, params):
    """The authors' code runs all six experts for each image: 9.00 G instead of 5.61 G for S."""
    with torch.device("meta"):
        plus, plain = models.build(f"vitpose-plus-{size}"), models.build(f"vitpose-{size}")
        counted = complexity.count(plus, (256, 192))
        assert counted["macs"]["exact"] == complexity.count(plain, (256, 192))["macs"]["exact"]
    assert round(counted["params"] / 1e6, 3) == params


def test_merging_an_expert_is_exact():
    model, images = small_model().double(), torch.randn(2, 3, 64, 48, dtype=torch.double)
    for dataset, joints in enumerate(model.joints):
        skeleton = skeletons.get("coco") if joints == 17 else numbered_skeleton(joints)
        plain = vitpose.extract_dataset(model, dataset, skeleton)
        assert type(plain) is type(model) and not plain.experts
        assert torch.allclose(plain(images)[0], model(images, dataset)[0], rtol=0, atol=1e-12)
    assert not torch.allclose(model(images, 0)[0], model(images, 3)[0])  # both have 17 joints


def numbered_skeleton(joints: int) -> skeletons.Skeleton:
    """A skeleton with this number of joints and arbitrary names."""
    return skeletons.make_skeleton("numbered", [f"joint {k}" for k in range(joints)], [], [0.05] * joints)


def test_a_mixed_batch_gives_the_outputs_of_each_dataset():
    model, images = small_model(), torch.randn(4, 3, 64, 48)
    datasets = torch.tensor([2, 0, 5, 2])
    (maps,) = model(images, datasets)
    assert maps.shape == (4, 133, 16, 12)
    for row, dataset in enumerate(datasets.tolist()):
        expected = model(images[row : row + 1], dataset)[0]  # (1, K, 16, 12)
        assert torch.allclose(maps[row, : expected.shape[1]], expected[0], atol=1e-4)
        assert maps[row, expected.shape[1] :].abs().sum() == 0


def test_several_datasets_without_experts():
    model, images = small_model("vitpose-s", extra_num_joints=(14,)), torch.randn(2, 3, 64, 48)
    crowd = vitpose.extract_dataset(model, 1, skeletons.get("crowdpose"))
    assert torch.allclose(crowd(images)[0], model(images, 1)[0], atol=1e-5)
    assert torch.allclose(vitpose.extract_dataset(model)(images)[0], model(images)[0], atol=1e-5)
    (maps,) = model(images, torch.tensor([1, 0]))
    assert maps.shape[1] == 17 and maps[0, 14:].abs().sum() == 0
    assert torch.allclose(maps[:1, :14], model(images[:1], 1)[0], atol=1e-4)


def test_a_mixed_batch_trains_only_the_experts_of_its_datasets():
    model = small_model().train()
    model(torch.randn(2, 3, 64, 48), torch.tensor([1, 4]))[0].square().sum().backward()
    gradients = [expert.weight.grad for expert in model.backbone.blocks[0].mlp.experts]
    assert [number for number, g in enumerate(gradients) if g is not None and g.any()] == [1, 4]


def test_positions_are_the_table_for_its_grid_and_interpolated_for_others():
    backbone = small_model("vitpose-s").backbone
    table = backbone.pos_embed[:, 1:] + backbone.pos_embed[:, :1]
    assert torch.equal(backbone.positions((16, 12)), table)
    with torch.no_grad():  # a table that increases with the row
        rows = torch.arange(16.0).repeat_interleave(12)
        backbone.pos_embed[:] = torch.cat([torch.zeros(1), rows])[None, :, None]
    middle = backbone.positions((32, 24)).unflatten(1, (32, 24))[0, 8:24, 12, 0]
    assert torch.allclose(middle, (torch.arange(8, 24) + 0.5) / 2 - 0.5, atol=0.05)


@pytest.mark.parametrize("name, kernel", [("vitpose-s", 16), ("vitpose-plus-s", 14)])
def test_a_backbone_is_initialized_from_a_masked_autoencoder(name, kernel, tmp_path):
    """Positions are resized, a patch kernel of 14 is padded, and experts are slices of their layer."""
    model = small_model(name)
    layout = small_model("vitpose-s").backbone.state_dict()
    state = {key: torch.randn(value.shape) for key, value in layout.items() if "last_norm" not in key}
    state |= {
        "pos_embed": torch.randn(1, 197, 384),
        "cls_token": torch.zeros(1, 1, 384),
        "norm.weight": torch.ones(384),
        "patch_embed.proj.weight": torch.randn(384, 3, kernel, kernel),
    }
    torch.save({"model": state}, tmp_path / "mae.pth")
    models.load_backbone(model, tmp_path / "mae.pth")
    loaded = model.backbone.state_dict()
    assert torch.equal(loaded["blocks.1.attn.qkv.weight"], state["blocks.1.attn.qkv.weight"])
    edge = (16 - kernel) // 2
    patch_kernel = loaded["patch_embed.proj.weight"][..., edge : 16 - edge, edge : 16 - edge]
    assert torch.equal(patch_kernel, state["patch_embed.proj.weight"])
    assert torch.equal(loaded["pos_embed"][:, 0], state["pos_embed"][:, 0])
    assert loaded["pos_embed"].shape[1] == 193
    layers = ["fc2", "experts.3"] if "plus" in name else ["fc2"]
    rows = torch.cat([loaded[f"blocks.0.mlp.{layer}.weight"] for layer in layers])
    assert torch.equal(rows, state["blocks.0.mlp.fc2.weight"])


@pytest.mark.parametrize("missing", ["patch_embed.proj.weight", "blocks.1.mlp.fc2.weight"])
def test_an_incomplete_masked_autoencoder_is_refused(missing, tmp_path):
    model = small_model("vitpose-plus-s")
    state = model.backbone.state_dict() | {"pos_embed": torch.zeros(1, 197, 384)}
    del state[missing]
    torch.save({"model": state}, tmp_path / "mae.pth")
    with pytest.raises(ValueError, match=f"mae.pth is incomplete: it has no {missing}"):
        models.load_backbone(model, tmp_path / "mae.pth")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"width": 100, "heads": 3}, "a width of 100 cannot be divided into 3 heads"),
        ({"drop_path": 1.0}, "dropped with a probability from 0 to below 1, not 1.0"),
    ],
)
def test_options_that_cannot_be_computed_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        models.build("vitpose-s", "coco", (64, 64), **options)


def test_drop_path_preserves_the_mean():
    x, path = torch.ones(20000, 1), DropPath(0.25).train()
    torch.manual_seed(0)
    assert path(x).unique().tolist() == pytest.approx([0, 4 / 3])
    assert path(x).mean() == pytest.approx(1, abs=0.02) and torch.equal(path.eval()(x), x)


def test_attention_uses_its_attention_weights():
    torch.manual_seed(0)
    attention, x = Attention(24, 3), torch.randn(2, 7, 24)
    values = attention.split(x)[2]  # (B, heads, N, C / heads)
    mixed = attention.proj((attention.weights(x) @ values).transpose(1, 2).flatten(2))
    assert torch.allclose(mixed, attention(x), atol=1e-5)


def test_attention_rollout_is_a_distribution_over_patches():
    model, images = small_model("vitpose-s"), torch.randn(2, 3, 64, 48)
    flow = attribution.attention_rollout(model, images)
    assert flow.shape == (2, 12, 12) and torch.allclose(flow.sum(-1), torch.ones(2, 12), atol=1e-5)
    for block in model.backbone.blocks:  # without keys, each token attends equally to all tokens
        torch.nn.init.zeros_(block.attn.qkv.weight)
    even = torch.full((12, 12), 1 / 12) / 2 + torch.eye(12) / 2
    assert torch.allclose(attribution.attention_rollout(model, images)[0], even @ even, atol=1e-5)
    with pytest.raises(ValueError, match="StarNetPose has no attention among tokens to follow"):
        attribution.attention_rollout(models.build("starnet-pose-t", input_size=(64, 64)), images)


def test_the_rollout_map_of_a_patch_is_its_row_of_the_rollout():
    model, images = small_model("vitpose-s"), torch.randn(2, 3, 64, 48)
    flow = attribution.attention_rollout(model, images)  # (2, 12, 12): patches of 16, 4 rows of 3
    points = torch.tensor([[21.5, 37.5], [0.0, 0.0]])  # the center of row 2, column 1, and the first patch
    result = attribution.rollout_map(model, images, points)
    assert result.shape == (2, 64, 48)
    for image, token in enumerate((2 * 3 + 1, 0)):
        rows = flow[image, token].unflatten(0, (4, 3))
        assert result[image, -1, -1] == pytest.approx(float(rows[-1, -1]), rel=1e-4)  # beyond the last center
        middle = result[image, 5:7, 21:23].mean()  # half a pixel around the center of row 0, column 1
        near = (31 * rows[0, 1] + (rows[0, 0] + rows[0, 2]) / 2) / 32
        assert middle == pytest.approx(float((31 * near + rows[1, 1]) / 32), rel=0.03)
    with pytest.raises(ValueError, match="no attention among tokens"):
        attribution.rollout_map(models.build("starnet-pose-t", input_size=(64, 64)), images, points)


def test_errors_of_vitpose():
    with pytest.raises(ValueError, match="decoder classic or simple, not 'deep'"):
        models.build("vitpose-s", decoder="deep")
    with pytest.raises(ValueError, match=r"multiples of 16, not \(250, 192\)"):
        models.build("vitpose-s", input_size=(250, 192))
    with pytest.raises(ValueError, match="dataset 1 of this model has 14 joints; coco has 17"):
        vitpose.extract_dataset(small_model(), 1)
    with pytest.raises(ValueError, match="this model has datasets 0 to 5, not 9"):
        vitpose.extract_dataset(small_model(), 9)
    with pytest.raises(
        ValueError, match="nothing to merge: these weights have neither experts nor further decoders"
    ):
        vitpose.merge_experts(small_model("vitpose-s").state_dict())
    with pytest.raises(ValueError, match="no decoder for dataset 7"):
        vitpose.merge_experts(small_model().state_dict(), 7)


@pytest.mark.parametrize("experts", [1, 6])
def test_transformers_version_gives_the_same_maps(experts):
    """The weights of transformers, with the authors' key names and merged experts, give the same outputs."""
    transformers = pytest.importorskip("transformers")
    backbone = transformers.VitPoseBackboneConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_experts=experts, part_features=16,
        layer_norm_eps=1e-6, out_indices=[2],
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.VitPoseForPoseEstimation(
        transformers.VitPoseConfig(
            backbone_config=backbone, num_labels=17, use_simple_decoder=False, scale_factor=4
        )
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    images = torch.randn(2, 3, 256, 192)
    options = {} if experts == 1 else {"dataset_index": torch.zeros(2).long()}
    with torch.no_grad():
        expected = theirs(images, **options).heatmaps
    ours = models.build("vitpose-s", width=48, depth=2, heads=4)
    models.load_official(ours, theirs.state_dict())
    with torch.no_grad():
        output = ours.eval()(images)[0]
    assert (output - expected).abs().max() <= 1e-5 * expected.abs().max()
