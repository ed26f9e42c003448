"""Attribution against sums and gradients made by hand, on small untrained nets."""

import warnings

import numpy as np
import pytest
import torch
from attribution_helpers import BINS, SIZE

from posebook import codecs
from posebook.explain import attribution


def test_target_is_the_log_probability_of_both_bins(net, images):
    joint = net.skeleton.keypoints.index("left_wrist")
    with torch.no_grad():
        found, output = attribution.JointTarget(net, "left_wrist")(images, BINS), net(images)
    for i, (x, y) in enumerate(BINS.tolist()):
        by_hand = 0.0
        for row, chosen in ((output.x[i, joint], x), (output.y[i, joint], y)):
            powers = np.exp(10 * row.double().numpy())
            by_hand += np.log(powers[chosen] / powers.sum())
        assert found[i].item() == pytest.approx(by_hand, abs=1e-4)
    assert found.shape == (2,)


def test_target_reaches_the_classifier_of_its_joint(net, images):
    other = net.skeleton.keypoints.index("nose")
    logits = {}
    handles = [
        layer.register_forward_hook(lambda _, inputs, output, axis=axis: logits.update({axis: output}))
        for axis, layer in (("x", net.head.cls_x), ("y", net.head.cls_y))
    ]
    value = attribution.JointTarget(net, "right_ankle")(images, BINS).sum()
    for handle in handles:
        handle.remove()
    for gradient in torch.autograd.grad(value, list(logits.values())):  # each (B, K, bins)
        assert (gradient[:, 16].abs().sum(-1) > 0).all()  # right_ankle is COCO's last
        assert gradient[:, other].abs().sum() == 0


def test_target_puts_the_model_into_eval_mode(net):
    net.train()
    attribution.JointTarget(net, "nose")
    assert not net.training


def test_bins_of_a_decoded_joint_are_the_fullest():
    output = codecs.SimCC(*torch.randn(2, 4, 17, 128, generator=torch.Generator().manual_seed(2)))
    points, _ = codecs.decode_simcc(output)  # (B, K, 2)
    bins = attribution.bins_at(points[:, 5], SIZE)
    assert torch.equal(bins, torch.stack([output.x[:, 5].argmax(-1), output.y[:, 5].argmax(-1)], 1))


def test_bins_of_a_point_outside_are_at_the_edge():
    points = torch.tensor([[-9.0, 400.0], [63.9, 10.26]])
    assert attribution.bins_at(points, (96, 64)).tolist() == [[0, 191], [127, 21]]


CELLS = torch.tensor([[3, 9], [15, 0]])  # (B, 2): x and y of two images, of LAPX's 16 x 16


def test_target_of_a_heatmap_net_is_the_height_of_its_cell(lapx, images):
    joint = lapx.skeleton.keypoints.index("left_knee")
    with torch.no_grad():
        found, maps = attribution.JointTarget(lapx, "left_knee")(images, CELLS), lapx(images)[-1]
    assert found.tolist() == [maps[i, joint, y, x].item() for i, (x, y) in enumerate(CELLS.tolist())]


@pytest.mark.parametrize("axis", ["x", "y"])
def test_coordinate_of_a_heatmap_net_is_its_soft_argmax(lapx, images, axis):
    joint = lapx.skeleton.keypoints.index("nose")
    with torch.no_grad():
        found, maps = attribution.JointTarget(lapx, "nose", what=axis)(images, CELLS), lapx(images)[-1]
    for i in range(2):
        powers = np.exp(10 * maps[i, joint].double().numpy())  # (h, w)
        rows, columns = np.indices(powers.shape)
        by_hand = 4 * (powers * {"x": columns, "y": rows}[axis]).sum() / powers.sum()
        assert found[i].item() == pytest.approx(by_hand, abs=1e-3)


def test_an_axis_of_a_classifier_is_its_part_of_the_whole(net, images):
    with torch.no_grad():
        whole, x, y = (
            attribution.JointTarget(net, "nose", what=what)(images, BINS) for what in ("place", "x", "y")
        )
    torch.testing.assert_close(x + y, whole)


@pytest.mark.parametrize(("which", "expected"), [("net", [63, 20]), ("lapx", [8, 2])])
def test_bins_follow_what_the_model_gives(request, which, expected):
    target = attribution.JointTarget(request.getfixturevalue(which), "nose")
    assert target.bins(torch.tensor([[31.6, 10.0]])).tolist() == [expected]


def moved_most(net, images):
    """The target that the pictures move most, and by how much: nothing to attribute would prove nothing."""
    best, difference = None, torch.zeros(2)
    for name in net.skeleton.keypoints:
        target = attribution.JointTarget(net, name)
        with torch.no_grad():
            moved = target(images, BINS) - target(torch.zeros_like(images), BINS)
        if moved.abs().min() > difference.abs().min():
            best, difference = target, moved
    assert (difference.abs() > 0.1).all()
    return best, difference


def test_integrated_gradients_are_complete(net, images):
    target, difference = moved_most(net, images)
    attributions, delta = attribution.integrated_gradients(target, images, BINS, steps=48)
    assert attributions.shape == (2, *SIZE)
    torch.testing.assert_close(attributions.sum((1, 2)) - difference, delta, atol=1e-4, rtol=1e-3)
    assert (delta.abs() < 0.05 * difference.abs()).all()


def test_integrated_gradients_do_not_depend_on_the_batches_within(net, images):
    target = attribution.JointTarget(net, "nose")
    whole, _ = attribution.integrated_gradients(target, images, BINS, steps=8, internal_batch_size=64)
    parts, _ = attribution.integrated_gradients(target, images, BINS, steps=8, internal_batch_size=3)
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-3)


def test_entropy_is_1_where_nothing_is_known_and_0_where_all_is():
    flat, sharp = torch.zeros(1, 2, 32), 100 * torch.eye(32)[None, 3:5]
    for output, expected in (
        (codecs.SimCC(flat, flat), 1),
        (codecs.SimCC(sharp, sharp), 0),
        (codecs.SimCC(flat, sharp), 0.5),
        ([sharp.view(1, 2, 4, 8), flat.view(1, 2, 4, 8)], 1),  # the last stage counts
    ):
        torch.testing.assert_close(
            attribution.entropy(output), torch.full((1, 2), float(expected)), atol=1e-5, rtol=0
        )


def test_beliefs_of_a_heatmap_are_its_sums_along_the_axes(lapx, images):
    with torch.no_grad():
        maps = lapx(images)
    columns, rows = attribution.marginals(maps)
    whole = np.exp(10 * maps[-1].double().numpy())
    whole /= whole.sum((2, 3), keepdims=True)
    np.testing.assert_allclose(columns.numpy(), whole.sum(2), atol=1e-5)
    np.testing.assert_allclose(rows.numpy(), whole.sum(3), atol=1e-5)


def test_too_little_memory_means_smaller_steps_and_a_word():
    tried = []

    def call(batch: int) -> str:
        tried.append(batch)
        if batch > 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return "done"

    with pytest.warns(UserWarning) as said:
        assert attribution.retry_on_oom(call, 16) == "done"
    assert str(said[0].message) == "not enough memory: going on with 8 pictures at once"
    assert tried == [16, 8, 4]
    with pytest.raises(MemoryError, match="none"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attribution.retry_on_oom(lambda batch: (_ for _ in ()).throw(MemoryError("none")), 4)
    with pytest.raises(RuntimeError, match="shapes"):  # another error is nobody's to hide
        attribution.retry_on_oom(lambda batch: (_ for _ in ()).throw(RuntimeError("shapes")), 4)


def test_grad_cam_is_what_autograd_gives(net, images):
    kept = {}
    handle = net.backbone.stages[2].register_forward_hook(
        lambda _, inputs, output: kept.update(features=output)
    )
    target = attribution.JointTarget(net, "left_knee")
    value = target(images, BINS).sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(value, kept["features"])  # (B, C, 4, 4)
    channels = gradient.mean((2, 3), keepdim=True)
    cells = torch.relu((channels * kept["features"]).sum(1)).detach().numpy()  # (B, 4, 4)
    found = attribution.grad_cam(target, images, BINS, layer="backbone.stages.2").numpy()
    centers = np.arange(4) * 16
    for image in range(2):
        rows = np.stack(
            [np.interp(np.arange(64), centers, column) for column in cells[image].T], 1
        )  # (64, 4)
        by_hand = np.stack([np.interp(np.arange(64), centers, row) for row in rows])  # (64, 64)
        np.testing.assert_allclose(found[image], by_hand, atol=1e-5 * cells.max(), rtol=1e-4)
    assert cells.max() > 0


def test_grad_cam_works_on_frozen_weights(net, images):
    target = attribution.JointTarget(net, "nose")
    free = attribution.grad_cam(target, images, BINS)
    net.requires_grad_(False)
    try:
        torch.testing.assert_close(attribution.grad_cam(target, images, BINS), free)
    finally:
        net.requires_grad_(True)
