"""Lifters, their hourglass, windows, metrics and training: parity, plain loops, and what each refuses."""

import dataclasses
import json
import re

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT, apart, drawn
from posebook import skeletons, utils
from posebook.complexity import SkipInit
from posebook.lifting import (
    camera,
    clips,
    complexity,
    key_mapping,
    metrics,
    models,
    pruning,
    recipes,
    skeleton,
    synthetic_motion,
    training,
    weights_io,
)

PARITY = ROOT / "tests" / "parity" / "lifting"
HOT = {"hot-mixste": 3, "hot-motionbert": 1}  # before which layer frames are pruned
SMALL = {"width": 16, "depth": 3, "heads": 2}


def small(name: str = "mixste", frames: int = 9, **options: object) -> models.Lifter:
    """A small lifter in eval mode whose every parameter shows in its answer."""
    torch.manual_seed(0)
    net = pruning.build_lifter(name, frames, **SMALL | options)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net.eval()


@pytest.fixture(scope="module")
def clip() -> clips.Clip:
    return synthetic_motion.make_clips(1, 60)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in PARITY.glob("*.json")))
def test_parity_with_the_authors_code(name):
    facts, stored = json.loads((PARITY / f"{name}.json").read_text()), np.load(PARITY / f"{name}.npz")
    prune = {HOT[name]: ("cluster", 81)} if name in HOT else None
    net = pruning.build_lifter(name.removeprefix("hot-"), prune=prune, recover="attend").double().eval()
    key_mapping.load_official(net, drawn(facts["keys"]))
    assert sum(parameter.numel() for parameter in net.parameters()) == facts["parameters"]
    x = torch.as_tensor(0.3 * np.random.default_rng(0).standard_normal(facts["input_shape"]))
    given = ({HOT[name]: torch.as_tensor(stored["index"]).long()},) if name in HOT else ()
    with torch.no_grad():
        assert apart([net(x, *given).numpy()], [stored["output0"]]) <= 1e-5
        if name in HOT:  # of the frames that chance and rounding do not decide, ours are the authors'
            ours = set(net.middle(x)[1][HOT[name]][0].tolist())
            assert len(ours & set(stored["index"][0].tolist())) >= 60


# As printed: parameters in millions, and twice the giga multiply-adds of linear layers.
COSTS = [
    ("mixste", {}, 33.784, 277.25),
    ("mixste", {"prune": {3: ("cluster", 81)}, "recover": "attend"}, 35.000, 167.51),
    ("mixste", {"prune": {7: ("cluster", 61)}, "recover": "keep"}, 33.784, 251.28),
    ("motionbert", {}, 16.002, 131.09),
    ("motionbert", {"prune": {1: ("cluster", 81)}, "recover": "attend"}, 16.348, 63.21),
    ("ktpformer", {}, 35.213, 277.24),
]


@pytest.mark.parametrize("name, options, params, flops", COSTS)
def test_costs_are_the_printed_ones(name, options, params, flops):
    with torch.device("meta"), SkipInit():
        counted = complexity.count(pruning.build_lifter(name, **options))
    assert round(counted["params"] / 1e6, 3) == params
    assert round(counted["flops"] / 1e9, 2) == flops
    assert counted["macs"] > counted["flops"] / 2  # attention's own products are only in the exact count


@pytest.mark.parametrize("name", models.LIFTERS)
def test_a_lifter_is_its_parts_and_trains(name):
    net = small(name)
    x = torch.randn(2, 9, 17, net.channels)
    tokens = net.embed(x)
    assert tokens.shape == (2, 9, 17, net.width)
    for i in range(net.depth):
        tokens = net.layer(i, tokens)
    assert torch.equal(net.head(tokens), net(x)) and net(x).shape == (2, 9, 17, 3)
    for frames in (1, 4):  # from layer 1 on any number of frames will do
        assert net.layer(1, net.embed(x)[:, :frames]).shape == (2, frames, 17, net.width)
    net.train()(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_a_graph_convolution_is_its_sum():
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


def test_the_skeletons_graph():
    graph = skeleton.adjacency(skeleton.BONES, 17)
    assert torch.equal(graph.diagonal(), torch.ones(17))
    assert torch.allclose(graph.sum(1), torch.full((17,), 2.0))
    assert {(a, b) for a, b in graph.nonzero().tolist() if a < b} == {
        tuple(sorted(b)) for b in skeleton.BONES
    }


def test_ktpformer_takes_another_graph():
    links = recipes.NO_BONES
    net = small("ktpformer", links=links)
    assert torch.equal(net.kinematic.graph[0].graph, skeleton.adjacency(links, 17))
    joined = {0}  # a tree: sixteen links that reach every joint
    for _ in range(16):
        joined |= {b for a, b in links if a in joined} | {a for a, b in links if b in joined}
    assert joined == set(range(17)) and len(links) == 16
    assert not {tuple(sorted(link)) for link in links} & {tuple(sorted(bone)) for bone in skeleton.BONES}


def test_keeping_all_frames_changes_nothing():
    x = torch.randn(2, 9, 17, 2)
    net = small()
    for pruner in pruning.PRUNERS.values():
        for recover in ("keep", "interpolate"):
            wrapped = pruning.FramePruning(net, {1: pruner(9)}, recover).eval()
            assert torch.allclose(wrapped(x), net(x), atol=1e-5)


@pytest.mark.parametrize("name", pruning.PRUNERS)
def test_a_pruner_keeps_frames_in_order_and_without_chance(name):
    tokens, keypoints = torch.randn(3, 9, 17, 8), torch.randn(3, 9, 17, 2)
    pruner = pruning.PRUNERS[name](4)
    index = pruner(tokens, keypoints)
    assert index.shape == (3, 4) and (index.diff(dim=1) > 0).all() and index.max() < 9
    assert torch.equal(index, pruner(tokens, keypoints))
    if name != "uniform":  # on frames that are all alike, the earliest
        alike = tokens[:, :1].expand(-1, 9, -1, -1)
        still = keypoints[:, :1].expand(-1, 9, -1, -1)
        assert torch.equal(pruner(alike, still)[0], torch.arange(4))


def test_clusters_are_chosen_as_a_loop_would():
    torch.manual_seed(0)
    tokens = torch.randn(1, 12, 5, 8, dtype=torch.double)
    mean = tokens[0].mean(1)  # (F, C)
    apart = [[float((a - b).norm()) / 8**0.5 for b in mean] for a in mean]
    density = [np.exp(-np.mean(np.sort(np.square(row))[:2])) for row in apart]
    scores = []
    for i in range(12):
        denser = [apart[i][j] for j in range(12) if density[j] > density[i]]
        scores.append(density[i] * (min(denser) if denser else max(map(max, apart))))
    expected = sorted(np.argsort(scores)[::-1][:5].tolist())
    assert pruning.ClusterPruner(5)(tokens, tokens)[0].tolist() == expected
    assert 6 in pruning.ClusterPruner(3, center=True)(tokens, tokens)[0].tolist()


def test_motion_keeps_the_frames_that_jump():
    keypoints = torch.zeros(1, 10, 17, 2)
    keypoints[:, 4:] += 1.0
    keypoints[:, 7:] += 2.0
    assert pruning.MotionPruner(2)(keypoints, keypoints)[0].tolist() == [4, 7]


def test_uniform_frames_hold_both_ends():
    tokens = torch.zeros(1, 243, 1, 1)
    assert pruning.UniformPruner(81)(tokens, tokens)[0, [0, -1]].tolist() == [0, 242]
    assert pruning.UniformPruner(243)(tokens, tokens)[0].tolist() == list(range(243))
    assert pruning.UniformPruner(1)(tokens, tokens)[0].tolist() == [0]


@given(st.sets(st.integers(0, 19), min_size=1), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_interpolation_is_numpys(kept, seed):
    kept = sorted(kept)
    poses = torch.as_tensor(np.random.default_rng(seed).standard_normal((1, len(kept), 2, 3)))
    found = pruning.interpolate(poses, torch.tensor([kept]), 20)[0]  # (F, J, 3)
    for joint in range(2):
        for axis in range(3):
            expected = np.interp(np.arange(20), kept, poses[0, :, joint, axis].numpy())
            assert np.allclose(found[:, joint, axis].numpy(), expected)


def test_pruning_twice_keeps_the_numbers_of_the_frames():
    net = small(prune={1: ("uniform", 5), 2: ("uniform", 3)})
    x = torch.randn(2, 9, 17, 2)
    assert [kept[0].tolist() for kept in net.middle(x)[1].values()] == [[0, 2, 4, 6, 8], [0, 4, 8]]
    given = {1: torch.tensor([[0, 3, 4, 7, 8]] * 2), 2: torch.tensor([[1, 2, 4]] * 2)}
    assert net.middle(x, given)[1][2][0].tolist() == [3, 4, 8]


def test_given_frames_are_used_and_recovered_by_attention():
    """Against the queries' attention written out, joint by joint."""
    net = small(prune={1: ("cluster", 3)}, recover="attend", width=16)
    x, index = torch.randn(1, 9, 17, 2), torch.tensor([[1, 4, 6]])
    tokens, kept = net.middle(x, {1: index})
    assert kept[1].tolist() == [[1, 4, 6]]
    found, part = net.recover(tokens), net.recover
    q = part.q(part.queries[0]).unflatten(-1, (8, 2))  # (F, heads, 2)
    for joint in (0, 11):
        k, v = (layer(tokens[0, :, joint]).unflatten(-1, (8, 2)) for layer in (part.k, part.v))
        looks = (torch.einsum("fhc,ghc->hfg", q, k) / 2**0.5).softmax(-1)
        seen = torch.einsum("hfg,ghc->fhc", looks, v).flatten(1)
        assert torch.allclose(found[0, :, joint], part.queries[0] + part.proj(seen), atol=1e-4)


def test_what_the_hourglass_refuses():
    for prune, message in (
        ({1: ("cluster", 10)}, "cannot keep 10 frames before layer 1: only 9 are left"),
        ({1: ("uniform", 3), 2: ("uniform", 5)}, "cannot keep 5 frames before layer 2: only 3 are left"),
        ({1: ("uniform", 0)}, "cannot keep 0 frames"),
        ({3: ("uniform", 3)}, "no layer 3 to prune before: 0 to 2"),
        ({0: ("cluster", 3)}, "before layer 0, which is told each frame's time, only uniform"),
        ({1: ("clusters", 3)}, "unknown pruner 'clusters'; did you mean cluster"),
    ):
        with pytest.raises(ValueError, match=message):
            pruning.build_lifter("mixste", 9, prune, **SMALL)
    with pytest.raises(ValueError, match="recovered by attend, interpolate, keep, not 'guess'"):
        pruning.build_lifter("mixste", 9, {1: ("uniform", 3)}, "guess", **SMALL)
    with pytest.raises(ValueError, match="none left out of KTPFormer"):
        pruning.build_lifter("ktpformer", 9, {0: ("uniform", 3)}, **SMALL)
    with pytest.raises(ValueError, match="unknown lifter 'mixte'; did you mean mixste"):
        models.build_plain("mixte")


@pytest.mark.parametrize("length, frames", [(27, 9), (100, 27), (9, 9), (10, 9), (17, 9)])
def test_windows_count_every_frame_once(length, frames):
    counts = np.zeros(length)
    for start, counted in clips.window_starts(length, frames):
        assert len(counted) == frames and 0 <= start <= length - frames
        counts[start : start + frames] += counted
    assert (counts == 1).all()


def test_a_short_sequence_is_refused_or_padded(clip):
    with pytest.raises(ValueError, match="sequence has 5 frames and the window 9"):
        clips.window_starts(5, 9)
    ((start, counted),) = clips.window_starts(5, 9, pad=True)
    assert start == 0 and counted.tolist() == [True] * 5 + [False] * 4
    found = training.lift_sequence(small(), clips.clip_inputs(clip)[:5], pad=True)
    assert found.shape == (5, 17, 3)


def test_lost_joints_lie_between_their_neighbors(clip):
    keypoints = clip.keypoints.copy()
    keypoints[10:13, 5] = np.nan
    filled, lost = clips.fill_gaps(keypoints)
    assert lost == 3 and not np.isnan(filled).any() and (filled[10:13, 5, 2] == 0).all()
    step = (keypoints[13, 5, :2] - keypoints[9, 5, :2]) / 4
    assert np.allclose(filled[11, 5, :2], keypoints[9, 5, :2] + 2 * step)
    keypoints[:, 3] = np.nan
    with pytest.raises(ValueError, match="right_ankle was detected in no frame"):
        clips.fill_gaps(keypoints)
    keypoints = clip.keypoints.copy()
    keypoints[: len(keypoints) * 2 // 3] = np.nan
    with pytest.raises(ValueError, match="67% of its joints were not detected, more than half"):
        clips.fill_gaps(keypoints, "a film")


def test_another_order_of_joints_is_refused(clip):
    coco = skeletons.get("coco").keypoints
    with pytest.raises(ValueError, match="joint 0 is nose, not hip: .*from_coco turns COCO's"):
        clips.clip_inputs(dataclasses.replace(clip, joints=coco))
    with pytest.raises(ValueError, match="16 joints, not 17: reorder them"):
        skeleton.check_order(skeleton.H36M.keypoints[:16])


def test_cocos_joints_become_human36ms():
    coco = np.zeros((17, 2))
    names = skeletons.get("coco").keypoints
    for name, place in {"left_hip": (-1, 0), "right_hip": (1, 0), "left_shoulder": (-2, -4)}.items():
        coco[names.index(name)] = place
    coco[names.index("right_shoulder")], coco[names.index("nose")] = (2, -4), (0, -6)
    coco[names.index("left_eye")] = coco[names.index("right_eye")] = (0, -6.5)
    found = dict(zip(skeleton.H36M.keypoints, skeleton.from_coco(coco).tolist(), strict=True))
    assert found["hip"] == [0, 0] and found["thorax"] == [0, -4] and found["spine"] == [0, -2]
    assert found["nose"] == [0, -6] and found["head"] == [0, -7.5] and found["left_hip"] == [-1, 0]


def test_a_mirror_is_its_own_inverse(clip):
    x = clips.clip_inputs(clip, 3)
    assert torch.equal(skeleton.mirror(skeleton.mirror(x)), x)
    left, right = skeleton.H36M.keypoints.index("left_wrist"), skeleton.H36M.keypoints.index("right_wrist")
    assert skeleton.mirror(x)[0, left].tolist() == [-x[0, right, 0], *x[0, right, 1:].tolist()]


def test_projection_is_opencvs():
    points = np.random.default_rng(0).uniform(-1, 1, (20, 3)) + [0, 0, 4]
    radial, tangential = (-0.2, 0.25, -0.009), (-0.0009, -0.0014)
    view = camera.Camera(
        np.eye(3),
        np.zeros(3),
        (1000, 1000),
        np.array([1145.0, 1143]),
        np.array([512.0, 515]),
        radial,
        tangential,
    )
    matrix = np.array([[1145.0, 0, 512], [0, 1143, 515], [0, 0, 1]])
    bend = np.array([*radial[:2], *tangential, radial[2]])
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix, bend)[0][:, 0]
    assert np.allclose(view.project(points), expected)
    with pytest.raises(ValueError, match="this camera has no intrinsics"):
        dataclasses.replace(view, focal=None).project(points)


def test_a_root_is_solved_for_and_not_taken(clip):
    pose = torch.as_tensor(clip.pose - clip.pose[:, :1])
    rays = torch.as_tensor(clip.camera.rays(clip.camera.project(clip.pose)))
    found = camera.solve_root(pose, rays)
    assert torch.allclose(found, torch.as_tensor(clip.pose[:, 0]), atol=1e-6)
    weights_ = torch.ones(len(pose), 17, dtype=pose.dtype)
    rays[:, 3] += 0.5  # one joint seen elsewhere, and left out
    weights_[:, 3] = 0
    assert torch.allclose(camera.solve_root(pose, rays, weights_), found, atol=1e-6)


def turned(pose: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """A pose turned, scaled and moved."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    q *= np.sign(np.linalg.det(q))
    return 1.7 * pose @ torch.as_tensor(q, dtype=pose.dtype) + torch.as_tensor(rng.standard_normal(3))


def test_metrics_are_their_loops():
    torch.manual_seed(0)
    found, truth = torch.randn(2, 6, 17, 3, dtype=torch.double)
    for frame in range(6):
        errors = [float((found[frame, j] - truth[frame, j]).norm()) for j in range(17)]
        assert float(metrics.mpjpe(found, truth)[frame]) == pytest.approx(1000 * np.mean(errors))
    step = [
        np.mean(
            [float(((found[3, j] - found[2, j]) - (truth[3, j] - truth[2, j])).norm()) for j in range(17)]
        )
    ]
    assert float(metrics.mpjve(found, truth)[2]) == pytest.approx(1000 * step[0])
    bent = found[4] - 2 * found[3] + found[2] - (truth[4] - 2 * truth[3] + truth[2])
    assert float(metrics.acceleration_error(found, truth)[2]) == pytest.approx(
        1000 * float(bent.norm(dim=-1).mean())
    )


def test_a_similar_pose_has_no_error_after_alignment_and_a_mirrored_one_has():
    torch.manual_seed(0)
    truth = torch.randn(5, 17, 3, dtype=torch.double)
    assert metrics.p_mpjpe(turned(truth), truth).max() < 1e-6
    assert torch.allclose(metrics.p_mpjpe(turned(truth), truth * 2), torch.zeros(5).double(), atol=1e-6)
    assert metrics.p_mpjpe(truth * torch.tensor([-1.0, 1, 1]), truth).min() > 100
    found = truth + 0.1 * torch.randn_like(truth)
    best = metrics.p_mpjpe(found, truth)
    assert (best <= metrics.mpjpe(found - found.mean(1, True), truth - truth.mean(1, True)) * 1.2).all()
    assert torch.allclose(metrics.p_mpjpe(turned(found, 3), truth), best)


def test_errors_are_averaged_over_actions():
    truth = [torch.zeros(4, 17, 3), torch.zeros(8, 17, 3), torch.zeros(4, 17, 3)]
    found = [truth[0] + 1.0, truth[1] + 1.0, truth[2]]
    means, own = metrics.measure(found, truth, ["walk", "walk", "sit"])
    assert own["walk"]["MPJPE"] == pytest.approx(1000 * 3**0.5) and own["sit"]["MPJPE"] == 0
    assert means["MPJPE"] == pytest.approx(own["walk"]["MPJPE"] / 2)


def test_frames_of_an_unknown_truth_count_in_nothing():
    truth, found = torch.zeros(7, 17, 3), torch.randn(7, 17, 3)
    truth[3] = torch.nan
    means, _ = metrics.measure([found], [truth], ["all"])
    known = [0, 1, 2, 4, 5, 6]
    assert means["MPJPE"] == pytest.approx(float(metrics.mpjpe(found[known], truth[known]).mean()), rel=1e-5)
    steps = metrics.mpjve(found, torch.zeros(7, 17, 3))[[0, 1, 4, 5]]
    assert means["MPJVE"] == pytest.approx(float(steps.mean()), rel=1e-5)
    bends = metrics.acceleration_error(found, torch.zeros(7, 17, 3))[[0, 4]]
    assert means["ACC"] == pytest.approx(float(bends.mean()), rel=1e-5)


def test_the_loss_is_its_loop_and_leaves_out_what_does_not_count():
    torch.manual_seed(0)
    found, truth = torch.randn(2, 1, 5, 17, 3)
    counted = torch.tensor([[False, True, True, True, False]])
    recipe = recipes.get("demo", "mixste", scale=0.5)
    w, place, smooth, velocity, scaled = recipe.joints, [], [], [], []
    for f in (1, 2, 3):
        best = (found[0, f] * truth[0, f]).sum() / found[0, f].square().sum()
        for j in range(17):
            moved, true = found[0, f, j] - found[0, f - 1, j], truth[0, f, j] - truth[0, f - 1, j]
            place.append(w[j] * (found[0, f, j] - truth[0, f, j]).norm())
            smooth.append(w[j] * moved.square().mean())
            velocity.append((moved - true).norm())
            scaled.append((best * found[0, f, j] - truth[0, f, j]).norm())
    parts = [torch.stack(part).mean() for part in (place, smooth, velocity, scaled)]
    expected = parts[0] + 0.5 * parts[1] + 2 * parts[2] + 0.5 * parts[3]
    assert float(training.lifting_loss(found, truth, counted, recipe)) == pytest.approx(
        float(expected), rel=1e-5
    )
    other = found.clone()
    other[:, 4] += 9.0
    assert training.lifting_loss(other, truth, counted, recipe) == training.lifting_loss(
        found, truth, counted, recipe
    )


def test_squaring_scales_the_gradient_by_the_loss():
    """The authors' loss.backward(loss.detach()) is the gradient of half the square."""
    x = torch.randn(1, 4, 17, 3, requires_grad=True)
    truth, counted = torch.randn(1, 4, 17, 3), torch.ones(1, 4, dtype=torch.bool)
    plain, squared = recipes.get("demo", "mixste"), recipes.get("demo", "mixste", squared=True)
    value = training.lifting_loss(x, truth, counted, plain)
    value.backward(value.detach())
    theirs = x.grad.clone()
    x.grad = None
    training.lifting_loss(x, truth, counted, squared).backward()
    assert torch.allclose(x.grad, theirs, atol=1e-6)


def test_lifting_a_clip_puts_every_frame_in_its_place(clip):
    """A net that hands on what it is given gives the clip back, mirrored or not."""

    class Same(models.Lifter):
        def __init__(self):
            super().__init__(frames=9, joints=17, channels=2, width=1, depth=0)
            self.one = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            return torch.cat([x, x[..., :1].abs()], -1) * self.one

    x = clips.clip_inputs(clip)
    for flip in (False, True):
        found = training.lift_sequence(Same(), x, flip)
        assert found.shape == (len(x), 17, 3) and torch.allclose(found[..., :2], x - x[:, :1], atol=1e-6)


def test_paper_recipes_follow_their_codes():
    assert (
        recipes.get("paper", "mixste").learning_rate == 4e-5
        and recipes.get("paper", "mixste").batch_size == 4
    )
    assert recipes.get("paper", "ktpformer").epochs == 200 and not recipes.get("paper", "ktpformer").squared
    rates = [1e-5 * 0.99**epoch for epoch in range(3)]
    recipe = recipes.get("paper", "mixste", learning_rate=1e-5)
    from posebook.training import optimizer

    found = [optimizer.lr_at_step(epoch * 10, 1600, recipe) for epoch in range(3)]
    assert found == pytest.approx(rates)
    with pytest.raises(ValueError, match="unknown recipe field 'epoch'; did you mean epochs"):
        recipes.get("demo", "mixste", epoch=3)
    with pytest.raises(ValueError, match="unknown profile 'papers'; did you mean paper"):
        recipes.get("papers", "mixste")


def test_training_a_lifter_goes_on_where_it_was_and_writes_a_record(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SYNTHETIC_CLIPS", {"train": 3, "val": 2})
    some = {"epochs": 2, "batch_size": 8, "frames": 27, "evaluate_every": 1}
    record = training.train_lifter(
        profile="demo", out_dir=tmp_path, prune={1: ("uniform", 9)}, options=SMALL, **some
    )
    assert record["kind"] == "lift" and [point["epoch"] for point in record["curve"]] == [1, 2]
    assert record["metrics"].keys() == metrics.METRICS.keys() and record["evaluated"]["clips"] == 2
    assert record["complexity"]["flops"] > 0 and record["evaluated"]["frames"] == 486
    again = training.train_lifter(
        profile="demo", out_dir=tmp_path, prune={1: ("uniform", 9)}, options=SMALL, **some
    )
    assert again["weights"]["sha256"] == record["weights"]["sha256"]
    assert again["metrics"] == record["metrics"]


def test_what_training_refuses_before_any_work(tmp_path):
    for arguments, message in (
        ({"lifter": "mixte"}, "unknown lifter 'mixte'"),
        ({"dataset": "human"}, "unknown dataset 'human'"),
        ({"profile": "quick"}, "unknown profile 'quick'"),
        ({"recover": "keep"}, "answers for the kept frames alone"),
    ):
        with pytest.raises(ValueError, match=message):
            training.train_lifter(**arguments, out_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "path", sorted((ROOT / "data" / "weights").glob("lifter-*.safetensors")), ids=lambda path: path.stem
)
def test_a_shipped_lifter_is_as_good_as_its_card_says(path):
    """On four clips instead of forty, so within a fifth."""
    card = path.with_suffix(".md").read_text()
    assert utils.sha256(path) in card
    stated = float(re.search(r"\| MPJPE \| ([\d.]+)", card)[1])
    net = weights_io.load_weights(path)
    found = training.evaluate_lifter(net, synthetic_motion.load_split("val", 4, frames=243, fps=25.0))[0][
        "MPJPE"
    ]
    assert found == pytest.approx(stated, rel=0.2)
