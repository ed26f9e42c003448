"""The papers' modules against plain loops and known values, and the sizes of all ablations."""

import math

import numpy as np
import pytest
import torch

from helpers import ROOT, drawn
from posebook import complexity, models
from posebook.models import amfacpose, hrformer, lapx, lite_hrnet

GOLDEN = ROOT / "tests" / "parity" / "amfacpose-r18.golden.npz"


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def build_on_meta(name: str, skeleton: str, size: tuple[int, int], **options):
    with torch.device("meta"):
        return models.build(name, skeleton, size, **options)


# LAPX, table 3 (16 joints): keyword arguments of each row, number of parameters, and thop's total
PLAIN = {"attention": "none", "stem_attention": False, "neck": "none", "soft_gate": False}
ECA = PLAIN | {"attention": "eca_cbam"}
ROWS = {
    "1": (PLAIN | {"stages": 2, "width": 256}, 2297120, 2297120),
    "2": (PLAIN, 2258720, 2258720),
    "3": (PLAIN | {"stages": 4, "width": 180}, 2253709, 2253709),
    "4": (PLAIN | {"stages": 5, "width": 160}, 2230160, 2230160),
    "5": (PLAIN | {"attention": "cbam"}, 2275238, 2275238),
    "6": (ECA, 2259035, 2259035),
    "7": (PLAIN | {"soft_gate": True}, 2266832, 2258720),
    "8": (ECA | {"soft_gate": True}, 2267147, 2259035),
    "9": (ECA | {"stem_attention": True}, 2259140, 2259140),
    "10": (ECA | {"stem_attention": True, "soft_gate": True}, 2267252, 2259140),
    "11 to 14": ({}, 2311111, 2302997),
}


@pytest.mark.parametrize("row", ROWS)
def test_lapx_ablation_sizes(row):
    options, params, thop = ROWS[row]
    counted = complexity.count(build_on_meta("lapx", "mpii", (256, 256), **options), (256, 256))
    assert (counted["params"], counted["thop_params"]) == (params, thop)


def test_lap_has_its_published_size():
    assert complexity.count(build_on_meta("lap", "mpii", (256, 256)), (256, 256))["params"] == 2338570


# AMFACPose's cumulative ablation: millions of parameters and thop's giga multiply-adds
STEPS = ["afpn", "dgcb", "scrm", "se", "coordconv"]
SIZES = [
    (3.2671, 4.7348),
    (3.5394, 4.9945),
    (3.5645, 4.9952),
    (3.6061, 5.1655),
    (3.7814, 5.169),
    (3.7834, 5.2247),
]


@pytest.mark.parametrize("step", range(6))
def test_amfacpose_ablation_sizes(step):
    options = {name: number < step for number, name in enumerate(STEPS)}
    counted = complexity.count(build_on_meta("amfacpose-r34", "coco", (384, 288), **options), (384, 288))
    assert round(counted["params"] / 1e6, 4) == SIZES[step][0]
    assert round(complexity.in_tool_units(counted, "thop"), 4) == SIZES[step][1]


def test_amfacpose_with_fourteen_joints():
    model = build_on_meta("amfacpose-r34", "crowdpose", (384, 288))
    assert complexity.count(model, (384, 288))["params"] == 3778780


def test_amfacpose_golden_tensor():
    """The output is the one archived when the model was written, for generated weights and input."""
    model = models.build("amfacpose-r18", input_size=(64, 96)).double()
    layout = [(key, list(value.shape), "") for key, value in model.state_dict().items()]
    models.load_official(model, drawn(layout)).eval()
    images = torch.as_tensor(np.random.default_rng(0).standard_normal((1, 3, 64, 96)))
    with torch.no_grad():
        outputs, golden = model(images), np.load(GOLDEN)
    for output, name in zip(outputs, ("x", "y"), strict=True):
        assert np.abs(output.numpy() - golden[name]).max() <= 1e-5 * np.abs(golden[name]).max()


def test_coordconv_uses_the_coordinates():
    layer = amfacpose.CoordConv2d(1, 1, 1, 1)
    with torch.no_grad():
        layer.gain.copy_(torch.tensor([2.0, 3.0]))
        layer.shift.copy_(torch.tensor([0.5, -1.0]))
        layer.conv.weight.copy_(torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1, 1))
        out = layer(torch.full((1, 1, 4, 3), 7.0))
    for i in range(4):
        for j in range(3):
            x, y = 2 * (2 * j / 2 - 1) + 0.5, 3 * (2 * i / 3 - 1) - 1
            assert math.isclose(float(out[0, 0, i, j]), 7 + 10 * x + 100 * y, rel_tol=1e-5)


def test_scrm_multiplies_by_channel_and_spatial_gates():
    block, x = amfacpose.SCRM(6).eval(), torch.randn(1, 6, 5, 4)
    with torch.no_grad():
        out, spatial = block(x), torch.sigmoid(block.spatial(x))
        means = [float(x[0, c].mean()) for c in range(6)]
        w = block.channel[0].weight.flatten().tolist()
    for c in range(6):
        neighbors = [means[n] if 0 <= n < 6 else 0.0 for n in (c - 1, c, c + 1)]
        z = sum(a * b for a, b in zip(w, neighbors, strict=True)) / math.sqrt(1 + block.channel[1].eps)
        expected = x[0, c] * spatial[0, c] / (1 + math.exp(-z))
        assert torch.allclose(out[0, c], expected, atol=1e-6)


def test_dgcb_multiplies_its_two_gates():
    block, x = amfacpose.DGCB(8), torch.rand(1, 8, 3, 3)
    for gate in (block.context, block.gate):
        torch.nn.init.zeros_(gate[2].weight)
        torch.nn.init.zeros_(gate[2].bias)
    assert torch.allclose(block(x), 0.25 * x)


def test_modulation_changes_the_output_of_the_pyramid():
    refined = amfacpose.AFPN((8, 16), 12, True, "refined").eval()
    mask = amfacpose.AFPN((8, 16), 12, True, "mask").eval()
    mask.load_state_dict(refined.state_dict())
    features = [torch.randn(1, 8, 8, 6), torch.randn(1, 16, 4, 3)]
    assert refined(features).shape == mask(features).shape == (1, 12, 8, 6)
    assert not torch.allclose(refined(features), mask(features))


def test_eca_is_a_convolution_along_the_channels():
    block, x = lapx.ECA(10), torch.randn(1, 10, 4, 3)
    w = block.conv.weight.flatten().tolist()
    pooled = [float(x[0, c].mean() + x[0, c].max()) for c in range(10)]
    out = block(x)
    for c in range(10):
        z = sum(w[n + 3] * pooled[c + n] for n in range(-3, 4) if 0 <= c + n < 10)
        assert torch.allclose(out[0, c], x[0, c] / (1 + math.exp(-z)), atol=1e-6)


def test_nonlocal_block_against_a_plain_loop():
    block, x = lapx.NonLocal(16), torch.randn(1, 16, 3, 2)
    torch.nn.init.constant_(block.gamma, 0.3)
    with torch.no_grad():
        q, k, v = (f(x)[0].flatten(1).T.tolist() for f in (block.theta, block.phi, block.g))  # (6, 2) each
        out, rows = block(x), []
        for i in range(6):
            scores = [math.exp(sum(a * b for a, b in zip(q[i], k[j], strict=True))) for j in range(6)]
            rows.append([sum(s * v[j][c] for j, s in enumerate(scores)) / sum(scores) for c in range(2)])
        y = torch.tensor(rows).T.reshape(1, 2, 3, 2)
        assert torch.allclose(out, x + 0.3 * block.out_proj(y), atol=1e-5)
        assert torch.allclose(block.attention(x).sum(-1), torch.ones(1, 6))


def test_a_checkpoint_contains_the_nonlocal_gain(tmp_path):
    images = torch.randn(1, 3, 64, 64)
    outputs = {}
    for gain in (0.0, 5.0):
        model = models.build("lapx", input_size=(64, 64)).eval()
        torch.manual_seed(1)
        for value in model.parameters():
            torch.nn.init.normal_(value, std=0.3)
        model.set_nonlocal_gain(gain)
        models.save_weights(model, tmp_path / "w.safetensors", "lapx")
        loaded = models.load_weights(tmp_path / "w.safetensors")
        with torch.no_grad():
            outputs[gain] = model(images)[-1]
            assert torch.equal(loaded(images)[-1], outputs[gain])
    assert not torch.allclose(outputs[0.0], outputs[5.0], rtol=1e-3)


def test_phases_of_lapx_training():
    model = models.build("lapx", input_size=(64, 64))
    branches = [module for module in model.modules() if isinstance(module, lapx.NonLocal)]
    assert len(branches) == 2
    for gain, weights_learn, gain_learns in ((0.0, False, False), (0.1, True, False), (None, True, True)):
        model.set_nonlocal_gain(gain)
        for branch in branches:
            assert branch.theta.weight.requires_grad == weights_learn
            assert branch.gamma.requires_grad == gain_learns
    assert all(float(branch.gamma.detach()) == pytest.approx(0.1) for branch in branches)


def test_lapx_accepts_sides_whose_halves_are_odd():
    model = models.build("lapx", input_size=(96, 72)).eval()
    with torch.no_grad():
        assert [tuple(m.shape) for m in model(torch.randn(1, 3, 96, 72))] == [(1, 17, 24, 18)] * 3


def test_soft_gates_initially_disable_the_shortcut():
    block, x = lapx.Bottleneck(8, 4, soft_gate=True).eval(), torch.randn(1, 8, 5, 5)
    with torch.no_grad():
        without = block(x)
        block.alpha.fill_(1.0)
        assert torch.allclose(block(x) - without, x, atol=1e-6)


def test_attention_stays_within_windows():
    """A change in one window of an unpadded map does not change the other windows."""
    block, x = hrformer.LocalAttention(6, 2), torch.randn(1, 14, 14, 6)
    changed = x.clone()
    changed[0, 8, 3] += 1
    is_changed = (block(changed) - block(x)).detach().abs().amax(-1)[0] > 1e-7
    assert is_changed[7:, :7].all() and not is_changed[:7].any() and not is_changed[7:, 7:].any()


def test_window_attention_against_a_plain_loop():
    block, x = hrformer.WindowAttention(4, 2), torch.randn(49, 1, 4)
    with torch.no_grad():
        q, k, v = (f(x)[:, 0] for f in (block.q_proj, block.k_proj, block.v_proj))
        out, rows = block(x)[:, 0], []
        for i in range(49):
            row = []
            for head in (slice(0, 2), slice(2, 4)):
                weights = [math.exp(float(q[i, head] @ k[j, head]) / math.sqrt(2)) for j in range(49)]
                row.append(sum(w * v[j, head] for j, w in enumerate(weights)) / sum(weights))
            rows.append(torch.cat(row))
        assert torch.allclose(out, block.out_proj(torch.stack(rows)), atol=1e-5)


def test_channel_shuffle_interleaves_the_halves():
    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert lite_hrnet.channel_shuffle(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_fusion_counts_the_first_branch_twice():
    """The result of the released code if all exchanges are the identity and the branches have one size."""
    a, b, identity = torch.rand(1, 1, 2, 2), torch.rand(1, 1, 2, 2), torch.nn.Identity()
    rows = torch.nn.ModuleList([torch.nn.ModuleList([None, identity]), torch.nn.ModuleList([identity, None])])
    first, second = lite_hrnet.fuse(rows, [a, b], identity)
    assert torch.allclose(first, 2 * a + b) and torch.allclose(second, 2 * first + b)
