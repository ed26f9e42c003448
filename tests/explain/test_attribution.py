"""Attribution against sums and gradients computed by hand, on small untrained models."""

import warnings

import numpy as np
import pytest
import torch
from attribution_helpers import BINS, SIZE

from posebook import codecs
from posebook.explain import attribution


def test_target_is_the_log_probability_of_both_bins(model, images):
    joint = model.skeleton.keypoints.index("left_wrist")
    with torch.no_grad():
        value, output = attribution.JointTarget(model, "left_wrist")(images, BINS), model(images)
    for i, (x, y) in enumerate(BINS.tolist()):
        by_hand = 0.0
        for logits, chosen in ((output.x[i, joint], x), (output.y[i, joint], y)):
            powers = np.exp(10 * logits.double().numpy())
            by_hand += np.log(powers[chosen] / powers.sum())
        assert value[i].item() == pytest.approx(by_hand, abs=1e-4)
    assert value.shape == (2,)


def test_target_depends_only_on_the_logits_of_its_joint(model, images):
    other = model.skeleton.keypoints.index("nose")
    logits = {}
    handles = [
        layer.register_forward_hook(lambda _, inputs, output, axis=axis: logits.update({axis: output}))
        for axis, layer in (("x", model.head.cls_x), ("y", model.head.cls_y))
    ]
    value = attribution.JointTarget(model, "right_ankle")(images, BINS).sum()
    for handle in handles:
        handle.remove()
    for gradient in torch.autograd.grad(value, list(logits.values())):  # each (B, K, bins)
        assert (gradient[:, 16].abs().sum(-1) > 0).all()  # right_ankle is the last COCO joint
        assert gradient[:, other].abs().sum() == 0


def test_target_puts_the_model_into_eval_mode(model):
    model.train()
    attribution.JointTarget(model, "nose")
    assert not model.training


def test_bins_of_a_decoded_joint_are_the_maxima(model):
    output = codecs.SimCC(*torch.randn(2, 4, 17, 128, generator=torch.Generator().manual_seed(2)))
    points, _ = codecs.decode_simcc(output)  # (B, K, 2)
    bins = attribution.JointTarget(model, "nose").bins(points[:, 5])
    assert torch.equal(bins, torch.stack([output.x[:, 5].argmax(-1), output.y[:, 5].argmax(-1)], 1))


def test_bins_of_a_point_outside_are_at_the_border(model):
    points = torch.tensor([[-9.0, 400.0], [63.9, 10.26]])
    assert attribution.JointTarget(model, "nose").bins(points).tolist() == [[0, 127], [127, 21]]


CELLS = torch.tensor([[3, 9], [15, 0]])  # (B, 2): x and y of two images, in LAPX's 16 x 16 heatmap cells


def test_target_of_a_heatmap_model_is_the_value_of_its_cell(lapx, images):
    joint = lapx.skeleton.keypoints.index("left_knee")
    with torch.no_grad():
        values, maps = attribution.JointTarget(lapx, "left_knee")(images, CELLS), lapx(images)[-1]
    assert values.tolist() == [maps[i, joint, y, x].item() for i, (x, y) in enumerate(CELLS.tolist())]


@pytest.mark.parametrize(("fixture", "expected"), [("model", [63, 20]), ("lapx", [8, 2])])
def test_bins_follow_the_output_size_of_the_model(request, fixture, expected):
    target = attribution.JointTarget(request.getfixturevalue(fixture), "nose")
    assert target.bins(torch.tensor([[31.6, 10.0]])).tolist() == [expected]


def most_sensitive_target(model, images):
    """The target that differs most between the images and the baseline, and its difference (B,)."""
    best, difference = None, torch.zeros(2)
    for name in model.skeleton.keypoints:
        target = attribution.JointTarget(model, name)
        with torch.no_grad():
            change = target(images, BINS) - target(torch.zeros_like(images), BINS)
        if change.abs().min() > difference.abs().min():
            best, difference = target, change
    assert (difference.abs() > 0.1).all()
    return best, difference


def test_integrated_gradients_are_complete(model, images):
    target, difference = most_sensitive_target(model, images)
    attributions, delta = attribution.integrated_gradients(target, images, BINS, steps=48)
    assert attributions.shape == (2, *SIZE)
    torch.testing.assert_close(attributions.sum((1, 2)) - difference, delta, atol=1e-4, rtol=1e-3)
    assert (delta.abs() < 0.05 * difference.abs()).all()


def test_integrated_gradients_do_not_depend_on_the_internal_batch_size(model, images):
    target = attribution.JointTarget(model, "nose")
    large, _ = attribution.integrated_gradients(target, images, BINS, steps=8, internal_batch_size=64)
    small, _ = attribution.integrated_gradients(target, images, BINS, steps=8, internal_batch_size=3)
    torch.testing.assert_close(large, small, atol=1e-5, rtol=1e-3)


def test_entropy_is_1_if_uniform_and_0_if_certain():
    flat, sharp = torch.zeros(1, 2, 32), 100 * torch.eye(32)[None, 3:5]
    for output, expected in (
        (codecs.SimCC(flat, flat), 1),
        (codecs.SimCC(sharp, sharp), 0),
        (codecs.SimCC(flat, sharp), 0.5),
        ([sharp.view(1, 2, 4, 8), flat.view(1, 2, 4, 8)], 1),  # only the last stage counts
    ):
        torch.testing.assert_close(
            attribution.entropy(output), torch.full((1, 2), float(expected)), atol=1e-5, rtol=0
        )


def test_marginals_of_a_heatmap_are_its_sums_along_the_axes(lapx, images):
    with torch.no_grad():
        maps = lapx(images)
    columns, rows = attribution.marginals(maps)
    expected = np.exp(10 * maps[-1].double().numpy())
    expected /= expected.sum((2, 3), keepdims=True)
    np.testing.assert_allclose(columns.numpy(), expected.sum(2), atol=1e-5)
    np.testing.assert_allclose(rows.numpy(), expected.sum(3), atol=1e-5)


def test_too_little_memory_halves_the_batch_with_a_warning():
    batch_sizes = []

    def call(batch_size: int) -> str:
        batch_sizes.append(batch_size)
        if batch_size > 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return "done"

    with pytest.warns(UserWarning) as warned:
        assert attribution.retry_on_oom(call, 16) == "done"
    assert str(warned[0].message) == "not enough memory: continuing with a batch of 8 images"
    assert batch_sizes == [16, 8, 4]
    with pytest.raises(MemoryError, match="none"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attribution.retry_on_oom(lambda _: (_ for _ in ()).throw(MemoryError("none")), 4)
    with pytest.raises(RuntimeError, match="shapes"):  # other errors are not hidden
        attribution.retry_on_oom(lambda _: (_ for _ in ()).throw(RuntimeError("shapes")), 4)


def test_grad_cam_equals_a_computation_with_autograd(model, images):
    activations = {}
    handle = model.backbone.stages[2].register_forward_hook(
        lambda _, inputs, output: activations.update(features=output)
    )
    target = attribution.JointTarget(model, "left_knee")
    value = target(images, BINS).sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(value, activations["features"])  # (B, C, 4, 4)
    channels = gradient.mean((2, 3), keepdim=True)
    cells = torch.relu((channels * activations["features"]).sum(1)).detach().numpy()  # (B, 4, 4)
    maps = attribution.grad_cam(target, images, BINS, layer="backbone.stages.2").numpy()
    centers = np.arange(4) * 16
    for image in range(2):
        rows = np.stack(
            [np.interp(np.arange(64), centers, column) for column in cells[image].T], 1
        )  # (64, 4)
        by_hand = np.stack([np.interp(np.arange(64), centers, row) for row in rows])  # (64, 64)
        np.testing.assert_allclose(maps[image], by_hand, atol=1e-5 * cells.max(), rtol=1e-4)
    assert cells.max() > 0


def test_grad_cam_works_on_frozen_weights(model, images):
    target = attribution.JointTarget(model, "nose")
    trainable = attribution.grad_cam(target, images, BINS)
    model.requires_grad_(False)
    try:
        torch.testing.assert_close(attribution.grad_cam(target, images, BINS), trainable)
    finally:
        model.requires_grad_(True)


class Limited(torch.nn.Module):
    """A model that has memory for a number of images at a time, and counts them."""

    def __init__(self, model, most: int):
        super().__init__()
        self.model, self.skeleton, self.input_size = model, model.skeleton, model.input_size
        self.most, self.counts = most, []

    def forward(self, images):
        self.counts.append(len(images))
        if len(images) > self.most:
            raise MemoryError(f"no memory for {len(images)} images")
        return self.model(images)


@pytest.mark.parametrize(
    "method",
    [
        lambda target, images, bins, batch: attribution.integrated_gradients(target, images, bins, 8, batch)[
            0
        ],
        lambda target, images, bins, batch: attribution.occlusion_map(target, images, bins, 32, batch),
    ],
    ids=["integrated gradients", "occlusion"],
)
def test_batches_fit_into_memory_also_if_there_are_more_images(model, method):
    """Six images, memory for four: the maps are those of a large memory."""
    images = torch.randn(6, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    bins, limited = BINS.repeat(3, 1), Limited(model, 4)
    with pytest.warns(UserWarning, match="continuing with a batch of 4 images"):
        maps = method(attribution.JointTarget(limited, "nose"), images, bins, 8)
    assert max(limited.counts[1:]) <= 4
    expected = method(attribution.JointTarget(model, "nose"), images, bins, 64)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5)
