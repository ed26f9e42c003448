"""Attribution against sums and gradients made by hand, on a small untrained net."""

import numpy as np
import pytest
import torch

from posebook import codecs, explain, models
from posebook.models.starnet_pose import StarNet

SIZE = (64, 64)
BINS = torch.tensor([[40, 90], [100, 7]])  # (B, 2): x and y of two images


@pytest.fixture(scope="module")
def net():
    """A net whose answers differ from picture to picture, though nobody trained it.

    Without biases all features vanish on the mean picture, where ScaleNorm then jumps: no integral converges.
    """
    torch.manual_seed(0)
    net = models.build("starnet-pose-t", input_size=SIZE)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
            elif name.endswith("bias"):
                parameter.normal_(std=0.3)
    return net.eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def test_target_is_the_log_probability_of_both_bins(net, images):
    joint = net.skeleton.keypoints.index("left_wrist")
    with torch.no_grad():
        found, output = explain.JointTarget(net, "left_wrist")(images, BINS), net(images)
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
    value = explain.JointTarget(net, "right_ankle")(images, BINS).sum()
    for handle in handles:
        handle.remove()
    for gradient in torch.autograd.grad(value, list(logits.values())):  # each (B, K, bins)
        assert (gradient[:, 16].abs().sum(-1) > 0).all()  # right_ankle is COCO's last
        assert gradient[:, other].abs().sum() == 0


def test_target_puts_the_model_into_eval_mode(net):
    net.train()
    explain.JointTarget(net, "nose")
    assert not net.training


def test_bins_of_a_decoded_joint_are_the_fullest():
    output = codecs.SimCC(*torch.randn(2, 4, 17, 128, generator=torch.Generator().manual_seed(2)))
    points, _ = codecs.decode_simcc(output)  # (B, K, 2)
    bins = explain.bins_at(points[:, 5], SIZE)
    assert torch.equal(bins, torch.stack([output.x[:, 5].argmax(-1), output.y[:, 5].argmax(-1)], 1))


def test_bins_of_a_point_outside_are_at_the_edge():
    points = torch.tensor([[-9.0, 400.0], [63.9, 10.26]])
    assert explain.bins_at(points, (96, 64)).tolist() == [[0, 191], [127, 21]]


def test_integrated_gradients_are_complete(net, images):
    joint, difference = "", torch.zeros(2)
    for name in net.skeleton.keypoints:  # the one that the pictures move most
        target = explain.JointTarget(net, name)
        with torch.no_grad():
            moved = target(images, BINS) - target(torch.zeros_like(images), BINS)
        if moved.abs().min() > difference.abs().min():
            joint, difference = name, moved
    attributions, delta = explain.integrated_gradients(net, images, joint, BINS, steps=48)
    assert attributions.shape == (2, *SIZE)
    assert (difference.abs() > 0.1).all(), "nothing to attribute would prove nothing"
    torch.testing.assert_close(attributions.sum((1, 2)) - difference, delta, atol=1e-4, rtol=1e-3)
    assert (delta.abs() < 0.05 * difference.abs()).all()


def test_integrated_gradients_do_not_depend_on_the_batches_within(net, images):
    whole, _ = explain.integrated_gradients(net, images, "nose", BINS, steps=8, internal_batch_size=64)
    parts, _ = explain.integrated_gradients(net, images, "nose", BINS, steps=8, internal_batch_size=3)
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-3)


def test_grad_cam_is_what_autograd_gives(net, images):
    kept = {}
    handle = net.backbone.stages[2].register_forward_hook(
        lambda _, inputs, output: kept.update(features=output)
    )
    value = explain.JointTarget(net, "left_knee")(images, BINS).sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(value, kept["features"])  # (B, C, 4, 4)
    channels = gradient.mean((2, 3), keepdim=True)
    cells = torch.relu((channels * kept["features"]).sum(1)).detach().numpy()  # (B, 4, 4)
    found = explain.grad_cam(net, images, "left_knee", BINS, layer="backbone.stages.2").numpy()
    centres = np.arange(4) * 16
    for image in range(2):
        rows = np.stack(
            [np.interp(np.arange(64), centres, column) for column in cells[image].T], 1
        )  # (64, 4)
        by_hand = np.stack([np.interp(np.arange(64), centres, row) for row in rows])  # (64, 64)
        np.testing.assert_allclose(found[image], by_hand, atol=1e-5 * cells.max(), rtol=1e-4)
    assert cells.max() > 0


def test_grad_cam_works_on_frozen_weights(net, images):
    free = explain.grad_cam(net, images, "nose", BINS)
    net.requires_grad_(False)
    try:
        torch.testing.assert_close(explain.grad_cam(net, images, "nose", BINS), free)
    finally:
        net.requires_grad_(True)


def test_a_cell_is_centred_on_a_multiple_of_its_stride():
    net = StarNet(8, (0, 0, 0, 0), "none", ())  # five strided convolutions and no block
    image = torch.randn(1, 3, 160, 160, requires_grad=True)
    net.eval()(image)[0, :, 2, 3].sum().backward()
    rows, columns = (image.grad[0].abs().sum(0).sum(axis).nonzero().squeeze(1) for axis in (1, 0))
    assert (rows.min() + rows.max()) / 2 == 2 * 32
    assert (columns.min() + columns.max()) / 2 == 3 * 32


def test_randomised_shuffles_a_copy(net, images):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    other = explain.randomised(net, seed=3)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} of the original changed"
    for (name, mine), theirs in zip(net.named_parameters(), other.parameters(), strict=True):
        if name.endswith("f1.conv.bias"):
            assert torch.equal(mine.sort().values, theirs.sort().values), (
                f"{name} holds other values than before"
            )
        if mine.ndim > 1:
            assert not torch.equal(mine, theirs), f"{name} is as it was"
    again = explain.randomised(net, seed=3)
    with torch.no_grad():
        assert torch.equal(other(images).x, again(images).x)
        assert not torch.allclose(other(images).x, net(images).x)


def test_unknown_names_offer_near_ones(net, images):
    with pytest.raises(ValueError, match=r"layer of StarNetPose 'backbone.stage.3'.*backbone\.stages\.3"):
        explain.grad_cam(net, images, "nose", BINS, layer="backbone.stage.3")
    with pytest.raises(ValueError, match=r"joint of coco 'left_wirst'.*left_wrist"):
        explain.integrated_gradients(net, images, "left_wirst", BINS)


def test_heatmap_nets_are_refused(images):
    target = explain.JointTarget(models.build("lpn-50", input_size=SIZE), "nose")
    with pytest.raises(TypeError, match="LPN gives heatmaps; only coordinate classifiers so far"):
        target(images, BINS)
