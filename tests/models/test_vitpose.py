"""ViTPose's own: experts, merging, positions, and what transformers' version says of the same weights."""

import pytest
import torch

from posebook import complexity, models, skeletons
from posebook.explain import attribution
from posebook.models import vitpose
from posebook.models.transformer import Attention, DropPath


def small(name: str = "vitpose-plus-s", size: tuple[int, int] = (64, 48), **options) -> torch.nn.Module:
    """A shallow net whose norms have seen something, in eval mode."""
    torch.manual_seed(0)
    net = models.build(name, input_size=size, depth=2, **options)
    for parameter in net.parameters():  # far from their start, so that every part shows in the answer
        torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


# Parameters and giga multiply-adds, as measured of the authors' code: with attention's products, and with
# norms, which make up 0.1 to 0.4 %.
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
def test_sizes_are_those_of_the_authors_code(name, options, params, giga):
    with torch.device("meta"):
        counted = complexity.count(models.build(name, **options), (256, 192))
    assert round(counted["params"] / 1e6, 3) == params
    assert 0.996 * giga < counted["macs"]["exact"] / 1e9 < giga + 0.005


@pytest.mark.parametrize("size, params", [("s", 55.160), ("b", 146.423), ("l", 460.675), ("h", 930.917)])
def test_a_net_with_experts_costs_one_dataset_what_a_plain_one_costs(size, params):
    """The authors' code runs all six experts for every picture: 9.00 G where 5.61 do, for S."""
    with torch.device("meta"):
        plus, plain = models.build(f"vitpose-plus-{size}"), models.build(f"vitpose-{size}")
        counted = complexity.count(plus, (256, 192))
        assert counted["macs"]["exact"] == complexity.count(plain, (256, 192))["macs"]["exact"]
    assert round(counted["params"] / 1e6, 3) == params


def test_merging_an_expert_is_exact():
    net, images = small().double(), torch.randn(2, 3, 64, 48, dtype=torch.double)
    for dataset, joints in enumerate(net.joints):
        skeleton = skeletons.get("coco") if joints == 17 else numbered(joints)
        plain = vitpose.extract_dataset(net, dataset, skeleton)
        assert type(plain) is type(net) and not plain.experts
        assert torch.allclose(plain(images)[0], net(images, dataset)[0], rtol=0, atol=1e-12)
    assert not torch.allclose(net(images, 0)[0], net(images, 3)[0])  # both of 17 joints


def numbered(joints: int) -> skeletons.Skeleton:
    """So many joints without a meaning."""
    return skeletons.make_skeleton("numbered", [f"joint {k}" for k in range(joints)], [], [0.05] * joints)


def test_a_mixed_batch_is_each_of_its_datasets_alone():
    net, images = small(), torch.randn(4, 3, 64, 48)
    which = torch.tensor([2, 0, 5, 2])
    (maps,) = net(images, which)
    assert maps.shape == (4, 133, 16, 12)
    for row, dataset in enumerate(which.tolist()):
        alone = net(images[row : row + 1], dataset)[0]  # (1, K, 16, 12)
        assert torch.allclose(maps[row, : alone.shape[1]], alone[0], atol=1e-4)
        assert maps[row, alone.shape[1] :].abs().sum() == 0


def test_decoders_without_experts_are_several_datasets_too():
    net, images = small("vitpose-s", extra_num_joints=(14,)), torch.randn(2, 3, 64, 48)
    crowd = vitpose.extract_dataset(net, 1, skeletons.get("crowdpose"))
    assert torch.allclose(crowd(images)[0], net(images, 1)[0], atol=1e-5)
    assert torch.allclose(vitpose.extract_dataset(net)(images)[0], net(images)[0], atol=1e-5)
    (maps,) = net(images, torch.tensor([1, 0]))
    assert maps.shape[1] == 17 and maps[0, 14:].abs().sum() == 0
    assert torch.allclose(maps[:1, :14], net(images[:1], 1)[0], atol=1e-4)


def test_a_mixed_batch_teaches_only_the_experts_it_has():
    net = small().train()
    net(torch.randn(2, 3, 64, 48), torch.tensor([1, 4]))[0].square().sum().backward()
    gradients = [expert.weight.grad for expert in net.backbone.blocks[0].mlp.experts]
    assert [number for number, g in enumerate(gradients) if g is not None and g.any()] == [1, 4]


def test_positions_are_the_table_at_its_own_grid_and_smooth_between():
    backbone = small("vitpose-s").backbone
    table = backbone.pos_embed[:, 1:] + backbone.pos_embed[:, :1]
    assert torch.equal(backbone.positions((16, 12)), table)
    with torch.no_grad():  # a table that rises by the row
        rows = torch.arange(16.0).repeat_interleave(12)
        backbone.pos_embed[:] = torch.cat([torch.zeros(1), rows])[None, :, None]
    found = backbone.positions((32, 24)).unflatten(1, (32, 24))[0, 8:24, 12, 0]
    assert torch.allclose(found, (torch.arange(8, 24) + 0.5) / 2 - 0.5, atol=0.05)


@pytest.mark.parametrize("name, kernel", [("vitpose-s", 16), ("vitpose-plus-s", 14)])
def test_a_masked_autoencoders_weights_start_a_backbone(name, kernel, tmp_path):
    """Positions resized, a patch kernel of 14 padded, experts cut from the layer they are a part of."""
    net = small(name)
    own = small("vitpose-s").backbone.state_dict()
    file = {key: torch.randn(value.shape) for key, value in own.items() if "last_norm" not in key}
    file |= {
        "pos_embed": torch.randn(1, 197, 384),
        "cls_token": torch.zeros(1, 1, 384),
        "norm.weight": torch.ones(384),
    }
    file["patch_embed.proj.weight"] = torch.randn(384, 3, kernel, kernel)
    torch.save({"model": file}, tmp_path / "mae.pth")
    models.load_backbone(net, tmp_path / "mae.pth")
    found = net.backbone.state_dict()
    assert torch.equal(found["blocks.1.attn.qkv.weight"], file["blocks.1.attn.qkv.weight"])
    edge = (16 - kernel) // 2
    assert torch.equal(
        found["patch_embed.proj.weight"][..., edge : 16 - edge, edge : 16 - edge],
        file["patch_embed.proj.weight"],
    )
    assert (
        torch.equal(found["pos_embed"][:, 0], file["pos_embed"][:, 0]) and found["pos_embed"].shape[1] == 193
    )
    whole = file["blocks.0.mlp.fc2.weight"]
    parts = ["fc2", "experts.3"] if "plus" in name else ["fc2"]
    assert torch.equal(torch.cat([found[f"blocks.0.mlp.{part}.weight"] for part in parts]), whole)


def test_a_dropped_path_is_made_up_for():
    x, path = torch.ones(20000, 1), DropPath(0.25).train()
    torch.manual_seed(0)
    assert path(x).unique().tolist() == pytest.approx([0, 4 / 3])
    assert path(x).mean() == pytest.approx(1, abs=0.02) and torch.equal(path.eval()(x), x)


def test_attention_weights_are_those_it_uses():
    torch.manual_seed(0)
    attention, x = Attention(24, 3), torch.randn(2, 7, 24)
    values = attention.split(x)[2]  # (B, heads, N, C / heads)
    mixed = attention.proj((attention.weights(x) @ values).transpose(1, 2).flatten(2))
    assert torch.allclose(mixed, attention(x), atol=1e-5)


def test_attention_rolled_out_is_a_distribution_over_patches():
    net, images = small("vitpose-s"), torch.randn(2, 3, 64, 48)
    flow = attribution.attention_rollout(net, images)
    assert flow.shape == (2, 12, 12) and torch.allclose(flow.sum(-1), torch.ones(2, 12), atol=1e-5)
    for block in net.backbone.blocks:  # with no keys each token looks at all alike
        torch.nn.init.zeros_(block.attn.qkv.weight)
    even = torch.full((12, 12), 1 / 12) / 2 + torch.eye(12) / 2
    assert torch.allclose(attribution.attention_rollout(net, images)[0], even @ even, atol=1e-5)
    with pytest.raises(ValueError, match="StarNetPose has no attention among tokens to follow"):
        attribution.attention_rollout(models.build("starnet-pose-t", input_size=(64, 64)), images)


def test_what_a_patch_looks_at_is_its_row_of_the_rollout():
    net, images = small("vitpose-s"), torch.randn(2, 3, 64, 48)
    flow = attribution.attention_rollout(net, images)  # (2, 12, 12): patches of 16, 4 rows of 3
    points = torch.tensor([[21.5, 37.5], [0.0, 0.0]])  # the centers of row 2, column 1, and about the first
    found = attribution.rollout_map(net, images, points)
    assert found.shape == (2, 64, 48)
    for image, token in enumerate((2 * 3 + 1, 0)):
        rows = flow[image, token].unflatten(0, (4, 3))
        assert found[image, -1, -1] == pytest.approx(float(rows[-1, -1]), rel=1e-4)  # beyond the last center
        middle = found[image, 5:7, 21:23].mean()  # about the center of row 0, column 1, half a pixel off
        near = (31 * rows[0, 1] + (rows[0, 0] + rows[0, 2]) / 2) / 32
        assert middle == pytest.approx(float((31 * near + rows[1, 1]) / 32), rel=0.03)
    with pytest.raises(ValueError, match="no attention among tokens"):
        attribution.rollout_map(models.build("starnet-pose-t", input_size=(64, 64)), images, points)


def test_what_vitpose_refuses():
    with pytest.raises(ValueError, match="decoder classic or simple, not 'deep'"):
        models.build("vitpose-s", decoder="deep")
    with pytest.raises(ValueError, match=r"multiples of 16, not \(250, 192\)"):
        models.build("vitpose-s", input_size=(250, 192))
    with pytest.raises(ValueError, match="dataset 1 of this net has 14 joints; coco has 17"):
        vitpose.extract_dataset(small(), 1)
    with pytest.raises(ValueError, match="neither experts nor further decoders: there is nothing to merge"):
        vitpose.merge_experts(small("vitpose-s").state_dict())
    with pytest.raises(ValueError, match="no decoder for dataset 7"):
        vitpose.merge_experts(small().state_dict(), 7)


@pytest.mark.parametrize("experts", [1, 6])
def test_transformers_version_gives_the_same_maps(experts):
    """Their weights under the authors' names, and with experts merged, give their answers."""
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
    images, which = (
        torch.randn(2, 3, 256, 192),
        {} if experts == 1 else {"dataset_index": torch.zeros(2).long()},
    )
    with torch.no_grad():
        wanted = theirs(images, **which).heatmaps
    state = vitpose.remap_keys(theirs.state_dict())
    ours = models.build("vitpose-s", width=48, depth=2, heads=4)
    models.load_official(ours, state if experts == 1 else vitpose.merge_experts(state))
    with torch.no_grad():
        found = ours.eval()(images)[0]
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
