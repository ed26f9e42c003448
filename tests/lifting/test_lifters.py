"""Lifters, frame pruning, costs and windows: parity with the authors' code, loops, and errors."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifting_helpers import SMALL

from helpers import ROOT, apart, drawn
from posebook import skeletons
from posebook.complexity import SkipInit
from posebook.lifting import clips, complexity, key_mapping, models, pruning, recipes, skeleton
from posebook.models import load_official

PARITY = ROOT / "tests" / "parity" / "lifting"


HOT = {"hot-mixste": 3, "hot-motionbert": 1}  # the layer before which frames are pruned


def small(name: str = "mixste", frames: int = 9, **options: object) -> models.Lifter:
    """A small lifter in eval mode with random parameters, so that each one affects the output."""
    torch.manual_seed(0)
    model = pruning.build_lifter(name, frames, **SMALL | options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in PARITY.glob("*.json")))
def test_parity_with_the_authors_code(name):
    facts, stored = json.loads((PARITY / f"{name}.json").read_text()), np.load(PARITY / f"{name}.npz")
    prune = {HOT[name]: ("cluster", 81)} if name in HOT else None
    model = pruning.build_lifter(name.removeprefix("hot-"), prune=prune, recover="attend").double().eval()
    load_official(model, key_mapping.remap_keys(drawn(facts["keys"]), name in HOT))
    assert sum(parameter.numel() for parameter in model.parameters()) == facts["parameters"]
    x = torch.as_tensor(0.3 * np.random.default_rng(0).standard_normal(facts["input_shape"]))
    given = ({HOT[name]: torch.as_tensor(stored["index"]).long()},) if name in HOT else ()
    with torch.no_grad():
        assert apart([model(x, *given).numpy()], [stored["output0"]]) <= 1e-5
        if name in HOT:  # the other frames depend on random tie-breaking and rounding
            ours = set(model.middle(x)[1][HOT[name]][0].tolist())
            assert len(ours & set(stored["index"][0].tolist())) >= 60


# From the papers: parameters in millions, and twice the multiply-adds of linear layers in 10^9.
COSTS = [
    ("mixste", {}, 33.784, 277.25),
    ("mixste", {"prune": {3: ("cluster", 81)}, "recover": "attend"}, 35.000, 167.51),
    ("mixste", {"prune": {7: ("cluster", 61)}, "recover": "keep"}, 33.784, 251.28),
    ("motionbert", {}, 16.002, 131.09),
    ("motionbert", {"prune": {1: ("cluster", 81)}, "recover": "attend"}, 16.348, 63.21),
    ("ktpformer", {}, 35.213, 277.24),
]


@pytest.mark.parametrize("name, options, params, flops", COSTS)
def test_costs_match_the_papers(name, options, params, flops):
    with torch.device("meta"), SkipInit():
        counted = complexity.count(pruning.build_lifter(name, **options))
    assert round(counted["params"] / 1e6, 3) == params
    assert round(counted["flops"] / 1e9, 2) == flops
    assert counted["macs"] > counted["flops"] / 2  # only macs include the products within attention


@pytest.mark.parametrize("name", models.LIFTERS)
def test_a_lifter_composes_its_layers_and_trains(name):
    model = small(name)
    x = torch.randn(2, 9, 17, model.channels)
    tokens = model.embed(x)
    assert tokens.shape == (2, 9, 17, model.width)
    for i in range(model.depth):
        tokens = model.layer(i, tokens)
    assert torch.equal(model.head(tokens), model(x)) and model(x).shape == (2, 9, 17, 3)
    for frames in (1, 4):  # layers from 1 on accept any number of frames
        assert model.layer(1, model.embed(x)[:, :frames]).shape == (2, frames, 17, model.width)
    model.train()(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_graph_convolution_matches_a_loop():
    """Against a loop over nodes and neighbors, in double precision."""
    torch.manual_seed(0)
    conv = models.GraphConv(skeleton.adjacency(skeleton.BONES, 17), 2, 5).double().eval()
    for parameter in conv.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(1, 17, 2, dtype=torch.double)
    links = conv.links()
    assert torch.equal(links, links.T)
    for node in range(17):
        total = conv.bias.clone()
        for other in range(17):
            weight = conv.weights[0] if other == node else conv.weights[1]
            total = total + links[node, other] * conv.modulation[other] * (x[0, other] @ weight)
        expected = torch.relu(total / (1 + 1e-5) ** 0.5 * conv.norm.weight + conv.norm.bias)
        assert torch.allclose(conv(x)[0, node], expected)


def test_the_skeleton_graph_is_normalized():
    graph = skeleton.adjacency(skeleton.BONES, 17)
    assert torch.equal(graph.diagonal(), torch.ones(17))
    assert torch.allclose(graph.sum(1), torch.full((17,), 2.0))
    assert {(a, b) for a, b in graph.nonzero().tolist() if a < b} == {
        tuple(sorted(b)) for b in skeleton.BONES
    }


def test_ktpformer_accepts_another_graph():
    links = recipes.NO_BONES
    model = small("ktpformer", links=links)
    assert torch.equal(model.kinematic.graph[0].graph, skeleton.adjacency(links, 17))
    joined = {0}  # a tree: sixteen links that reach every joint
    for _ in range(16):
        joined |= {b for a, b in links if a in joined} | {a for a, b in links if b in joined}
    assert joined == set(range(17)) and len(links) == 16
    assert not {tuple(sorted(link)) for link in links} & {tuple(sorted(bone)) for bone in skeleton.BONES}


def test_keeping_all_frames_changes_nothing():
    x = torch.randn(2, 9, 17, 2)
    model = small()
    for pruner in pruning.PRUNERS.values():
        for recover in ("keep", "interpolate"):
            wrapped = pruning.FramePruning(model, {1: pruner(9)}, recover).eval()
            assert torch.allclose(wrapped(x), model(x), atol=1e-5)


@pytest.mark.parametrize("name", pruning.PRUNERS)
def test_pruners_are_deterministic_and_keep_the_order(name):
    tokens, keypoints = torch.randn(3, 9, 17, 8), torch.randn(3, 9, 17, 2)
    pruner = pruning.PRUNERS[name](4)
    index = pruner(tokens, keypoints)
    assert index.shape == (3, 4) and (index.diff(dim=1) > 0).all() and index.max() < 9
    assert torch.equal(index, pruner(tokens, keypoints))
    if name != "uniform":  # of equal frames the earliest are kept
        alike = tokens[:, :1].expand(-1, 9, -1, -1)
        still = keypoints[:, :1].expand(-1, 9, -1, -1)
        assert torch.equal(pruner(alike, still)[0], torch.arange(4))


def test_cluster_pruning_matches_a_loop():
    torch.manual_seed(0)
    tokens = torch.randn(1, 12, 5, 8, dtype=torch.double)
    mean = tokens[0].mean(1)  # (F, C)
    apart = [[float((a - b).norm()) / 8**0.5 for b in mean] for a in mean]
    density = [np.exp(-np.mean(np.sort(np.square(row))[:2])) for row in apart]
    scores = []
    for i in range(12):
        near = [abs(density[j] - density[i]) <= 1e-6 for j in range(12)]
        denser = [apart[i][j] for j in range(12) if (j < i if near[j] else density[j] > density[i])]
        scores.append(density[i] * (min(denser) if denser else max(map(max, apart))))
    expected = sorted(np.argsort(scores)[::-1][:5].tolist())
    assert pruning.ClusterPruner(5)(tokens, tokens)[0].tolist() == expected
    assert 6 in pruning.ClusterPruner(3, center=True)(tokens, tokens)[0].tolist()


@pytest.mark.parametrize("frames", [9, 30])  # torch.cdist computes more than 25 frames in another way
def test_cluster_pruning_keeps_one_of_two_frames_that_are_alike(frames):
    """Two frames that are nearest to each other have the same density; the earlier one counts as denser."""
    torch.manual_seed(0)
    tokens = torch.randn(1, frames, 1, 8)
    tokens[0, 5] = tokens[0, 2] + 0.001  # the densest frames
    kept = pruning.ClusterPruner(3)(tokens, tokens)[0].tolist()
    assert 2 in kept and 5 not in kept


def test_motion_pruning_keeps_frames_after_a_jump():
    keypoints = torch.zeros(1, 10, 17, 2)
    keypoints[:, 4:] += 1.0
    keypoints[:, 7:] += 2.0
    assert pruning.MotionPruner(2)(keypoints, keypoints)[0].tolist() == [4, 7]


def test_uniform_pruning_keeps_both_ends():
    tokens = torch.zeros(1, 243, 1, 1)
    assert pruning.UniformPruner(81)(tokens, tokens)[0, [0, -1]].tolist() == [0, 242]
    assert pruning.UniformPruner(243)(tokens, tokens)[0].tolist() == list(range(243))
    assert pruning.UniformPruner(1)(tokens, tokens)[0].tolist() == [0]


@given(st.sets(st.integers(0, 19), min_size=1), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_interpolation_matches_numpy(kept, seed):
    kept = sorted(kept)
    poses = torch.as_tensor(np.random.default_rng(seed).standard_normal((1, len(kept), 2, 3)))
    result = pruning.interpolate(poses, torch.tensor([kept]), 20)[0]  # (F, J, 3)
    for joint in range(2):
        for axis in range(3):
            expected = np.interp(np.arange(20), kept, poses[0, :, joint, axis].numpy())
            assert np.allclose(result[:, joint, axis].numpy(), expected)


def test_two_prunings_return_original_frame_indices():
    model = small(prune={1: ("uniform", 5), 2: ("uniform", 3)})
    x = torch.randn(2, 9, 17, 2)
    assert [kept[0].tolist() for kept in model.middle(x)[1].values()] == [[0, 2, 4, 6, 8], [0, 4, 8]]
    given = {1: torch.tensor([[0, 3, 4, 7, 8]] * 2), 2: torch.tensor([[1, 2, 4]] * 2)}
    assert model.middle(x, given)[1][2][0].tolist() == [3, 4, 8]


def test_given_frames_are_recovered_by_attention():
    """Compare with explicit attention for single joints."""
    model = small(prune={1: ("cluster", 3)}, recover="attend", width=16)
    x, index = torch.randn(1, 9, 17, 2), torch.tensor([[1, 4, 6]])
    tokens, kept = model.middle(x, {1: index})
    assert kept[1].tolist() == [[1, 4, 6]]
    result, recovery = model.recover(tokens), model.recover
    q = recovery.q(recovery.queries[0]).unflatten(-1, (8, 2))  # (F, heads, 2)
    for joint in (0, 11):
        k, v = (layer(tokens[0, :, joint]).unflatten(-1, (8, 2)) for layer in (recovery.k, recovery.v))
        looks = (torch.einsum("fhc,ghc->hfg", q, k) / 2**0.5).softmax(-1)
        seen = torch.einsum("hfg,ghc->fhc", looks, v).flatten(1)
        assert torch.allclose(result[0, :, joint], recovery.queries[0] + recovery.proj(seen), atol=1e-4)


def test_motionbert_can_be_pruned_before_its_first_layer():
    """It adds the temporal positions before its layers, unlike MixSTE."""
    lifter = pruning.build_lifter("motionbert", 27, {0: ("cluster", 9)}, **recipes.SMALL_MOTIONBERT)
    assert lifter(torch.zeros(1, 27, 17, 3)).shape == (1, 27, 17, 3)


def test_small_lifters_have_similar_sizes():
    for name in models.LIFTERS:
        small = recipes.SMALL_MOTIONBERT if name == "motionbert" else recipes.SMALL_MODEL
        lifter = models.build_plain(name, 27, **small)
        assert 50_000 < sum(parameter.numel() for parameter in lifter.parameters()) < 150_000


def test_invalid_prunings():
    for prune, message in (
        ({1: ("cluster", 10)}, "cannot keep 10 frames before layer 1: it gets 9"),
        ({1: ("uniform", 3), 2: ("uniform", 5)}, "cannot keep 5 frames before layer 2: it gets 3"),
        ({1: ("uniform", 0)}, "cannot keep 0 frames"),
        ({3: ("uniform", 3)}, "cannot prune before layer 3: layers are 0 to 2"),
        ({0: ("cluster", 3)}, "before it only the uniform pruner is possible"),
        ({1: ("clusters", 3)}, "unknown pruner 'clusters'; did you mean cluster"),
        ({"a": 1}, r'pruners by layer have the form \{"3": \["cluster", 81\]\}, not \{"a": 1\}'),
        ({1: 9}, r'have the form .*, not \{"1": 9\}'),
    ):
        with pytest.raises(ValueError, match=message):
            pruning.build_lifter("mixste", 9, prune, **SMALL)
    with pytest.raises(ValueError, match="recover is one of attend, interpolate, keep, not 'guess'"):
        pruning.build_lifter("mixste", 9, {1: ("uniform", 3)}, "guess", **SMALL)
    with pytest.raises(ValueError, match="has 8 heads: the width 36 is no multiple"):
        pruning.build_lifter("mixste", 9, {1: ("uniform", 3)}, "attend", **SMALL | {"width": 36})
    model = pruning.build_lifter("mixste", 9, {1: ("uniform", 3)}, "attend", **SMALL)
    with pytest.raises(ValueError, match="recovery by attention is for 9 frames, not 7"):
        model(torch.zeros(1, 7, 17, 2))
    with pytest.raises(ValueError, match="KTPFormer needs all frames"):
        pruning.build_lifter("ktpformer", 9, {0: ("uniform", 3)}, **SMALL)
    with pytest.raises(ValueError, match="unknown lifter 'mixte'; did you mean mixste"):
        models.build_plain("mixte")


@pytest.mark.parametrize("length, frames", [(27, 9), (100, 27), (9, 9), (10, 9), (17, 9)])
def test_windows_count_each_frame_once(length, frames):
    counts = np.zeros(length)
    for start, counted in clips.window_starts(length, frames):
        assert len(counted) == frames and 0 <= start <= length - frames
        counts[start : start + frames] += counted
    assert (counts == 1).all()


def test_a_sequence_shorter_than_the_window():
    with pytest.raises(ValueError, match="sequence has 5 frames, fewer than the lifter's window of 9"):
        clips.window_starts(5, 9)


def test_missing_joints_are_interpolated(clip):
    keypoints = clip.keypoints.copy()
    keypoints[10:13, 5] = np.nan
    filled = clips.fill_gaps(keypoints)
    assert not np.isnan(filled).any() and (filled[10:13, 5, 2] == 0).all()
    step = (keypoints[13, 5, :2] - keypoints[9, 5, :2]) / 4
    assert np.allclose(filled[11, 5, :2], keypoints[9, 5, :2] + 2 * step)
    keypoints[:, 3] = np.nan
    with pytest.raises(ValueError, match="right_ankle was detected in no frame"):
        clips.fill_gaps(keypoints)
    keypoints = clip.keypoints.copy()
    keypoints[: len(keypoints) * 2 // 3] = np.nan
    with pytest.raises(ValueError, match="67% of its joints were not detected, more than half"):
        clips.fill_gaps(keypoints, "a video")


def test_another_joint_order_is_refused(clip):
    coco = skeletons.get("coco").keypoints
    with pytest.raises(
        ValueError, match="joint 0 is nose, not hip: .*with posebook.lifting.skeleton.from_coco"
    ):
        clips.clip_inputs(dataclasses.replace(clip, joints=coco))
    with pytest.raises(ValueError, match="16 joints, not 17: reorder them"):
        skeleton.check_order(skeleton.H36M.keypoints[:16])


def test_attended_pruning_keeps_the_frames_that_a_loop_finds():
    torch.manual_seed(0)
    tokens = torch.randn(1, 9, 5, 8, dtype=torch.double)
    mean, received = tokens[0].mean(1), np.zeros(9)
    for row in mean:
        powers = np.array([math.exp(float(row @ other) / 8**0.5) for other in mean])
        received += powers / powers.sum()
    expected = sorted(np.argsort(-received)[:4].tolist())
    assert pruning.AttentionPruner(4)(tokens, tokens)[0].tolist() == expected != [0, 1, 2, 3]
