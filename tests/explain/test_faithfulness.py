"""Faithfulness measures against captum, plain loops, and maps known to be correct or wrong."""

import numpy as np
import pytest
import torch
from torch import nn

from posebook import codecs, skeletons
from posebook.explain import attribution, faithfulness

SIZE = (32, 24)
POINT = torch.tensor([[9.0, 20.0]])  # center of the region that the toy model uses


class SumOfRegion(nn.Module):
    """A model with a known explanation: the logit of a joint's bins is the sum of the image near POINT."""

    skeleton, input_size = skeletons.get("coco"), SIZE

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.01))

    def forward(self, images):
        logit = self.gain * images[:, :, 17:24, 6:13].sum((1, 2, 3))  # (B,)
        hot_x, hot_y = nn.functional.one_hot(torch.tensor([18, 40]), 64).float()
        return codecs.SimCC(*(logit[:, None, None] * hot.expand(1, 17, 64) for hot in (hot_x, hot_y)))


@pytest.fixture(scope="module")
def case():
    """A target, two images, their bins, and the correct map: the contribution of each pixel."""
    target = attribution.JointTarget(SumOfRegion(), "nose", beta=1.0)
    images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0)) + 0.5
    bins = torch.tensor([[18, 40]]).expand(2, 2)
    correct = torch.zeros(2, *SIZE)
    correct[:, 17:24, 6:13] = images[:, :, 17:24, 6:13].sum(1)
    return target, images, bins, correct


def test_infidelity_is_captums_divided_by_that_of_a_map_of_zeros(case):
    from captum.metrics import infidelity

    target, images, bins, correct = case
    maps = correct + torch.rand(correct.shape, generator=torch.Generator().manual_seed(1))
    masks, decreases = faithfulness.random_occlusions(target, images, bins, window=8, samples=20)
    for i in range(2):
        mask_iterator = iter([*masks, *masks])

        def perturb(inputs, mask_iterator=mask_iterator):
            mask = next(mask_iterator).expand_as(inputs)
            return mask, inputs * (1 - mask)

        by_captum = [
            infidelity(
                target,
                perturb,
                images[i : i + 1],
                values[i : i + 1, None].expand(-1, 3, -1, -1) / 3,
                additional_forward_args=bins[i : i + 1],
                n_perturb_samples=20,
                max_examples_per_batch=1,
                normalize=True,
            )
            for values in (maps, torch.zeros_like(maps))
        ]
        value = faithfulness.infidelity(maps, masks, decreases)[i]
        assert value.item() == pytest.approx((by_captum[0] / by_captum[1]).item(), rel=1e-3)


def test_the_correct_map_is_faithful_and_a_wrong_one_is_not(case):
    target, images, bins, correct = case
    masks, decreases = faithfulness.random_occlusions(target, images, bins, window=8, samples=64)
    wrong = correct.flip(1, 2)
    assert (faithfulness.infidelity(correct, masks, decreases) < 0.05).all()
    assert (faithfulness.infidelity(wrong, masks, decreases) > 0.5).all()
    zeros = torch.zeros_like(correct)
    torch.testing.assert_close(faithfulness.infidelity(zeros, masks, decreases), torch.ones(2))
    for maps, low, high in ((correct, 0, 0.2), (wrong, 0.3, 1)):
        deletion, insertion = faithfulness.deletion_insertion(target, images, bins, maps, block=2, steps=16)
        assert (low <= deletion.mean(1)).all() and (deletion.mean(1) <= high).all()
        torch.testing.assert_close(insertion[:, -1], torch.ones(2))
        torch.testing.assert_close(deletion[:, -1], torch.zeros(2))
    points = POINT.expand(2, 2)
    assert faithfulness.pointing_game(correct, points, radius=6).all()
    assert not faithfulness.pointing_game(wrong, points, radius=6).any()


def test_random_occlusions_cover_all_pixels_equally(case):
    masks, _ = faithfulness.random_occlusions(*case[:3], window=8, samples=3000)
    coverage = masks.mean(0)
    assert coverage.max() - coverage.min() < 0.05
    assert coverage.mean().item() == pytest.approx(64 / ((32 + 7) * (24 + 7)), rel=0.1)


def test_curves_use_blocks_in_the_order_of_the_map(case):
    target, images, bins, correct = case
    maps = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(2))
    deletion, insertion = faithfulness.deletion_insertion(
        target, images, bins, maps, block=5, steps=7
    )  # the block size does not divide the image size
    with torch.no_grad():
        for i in range(2):
            blocks = [(r, c) for r in range(0, 32, 5) for c in range(0, 24, 5)]
            order = sorted(blocks, key=lambda b: -maps[i, b[0] : b[0] + 5, b[1] : b[1] + 5].mean().item())
            ends = [target(images[i : i + 1] * scale, bins[:1]).item() for scale in (0, 1)]
            for step in range(8):
                rest = torch.ones(SIZE)
                for row, column in order[: int(np.ceil(step / 7 * len(order) - 1e-6))]:
                    rest[row : row + 5, column : column + 5] = 0
                for mask, curve in ((rest, deletion), (1 - rest, insertion)):
                    value = target(images[i : i + 1] * mask, bins[:1]).item()
                    scaled = (value - ends[0]) / (ends[1] - ends[0])
                    assert curve[i, step].item() == pytest.approx(scaled, abs=1e-4)


def test_sensitivity_is_the_relative_change(case):
    images = case[1]
    generator = torch.Generator().manual_seed(7)
    noise = (2 * torch.rand(images.shape, generator=generator) - 1) * 0.05
    values = faithfulness.sensitivity(lambda inputs: inputs.sum(1), images, images.sum(1), seed=7)
    for i in range(2):
        change = noise[i].sum(0).norm().item()
        assert values[i].item() == pytest.approx(change / images[i].sum(0).norm().item(), rel=1e-4)
    constant = torch.ones(2, *SIZE)
    assert faithfulness.sensitivity(lambda _: constant, images, constant).tolist() == [0, 0]
    zeros = torch.zeros(2, *SIZE)
    assert faithfulness.sensitivity(lambda inputs: inputs.sum(1), images, zeros).isnan().all()


def test_mass_in_mask_counts_positive_values_only():
    maps = torch.tensor([[[3.0, -9.0], [1.0, 0.0]]])
    mask = torch.tensor([[[True, True], [False, False]]])
    assert faithfulness.mass_in_mask(maps, mask).item() == 0.75
    assert faithfulness.mass_in_mask(-maps.abs(), mask).isnan().all()


def test_concentration_is_one_for_a_uniform_map_and_counts_overlaps_once():
    points = torch.tensor([[[8.0, 4.0], [8.0, 4.0], [20.0, 12.0]]]).expand(3, 3, 2)
    members = torch.tensor([[True, True, False], [True, True, False], [False, False, False]])
    maps = torch.ones(3, 4, 6)  # cells of 4 pixels
    maps[1] = 0
    maps[1, 1, 2] = 0.5  # on the first point
    uniform, focused, none = faithfulness.concentration(maps, points, members, radius=5, stride=4).tolist()
    assert uniform == pytest.approx(1) and focused == pytest.approx(24 / 5)  # the cell and its four neighbors
    assert np.isnan(none)


def test_rank_correlation_ignores_signs():
    maps = torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(3)) - 0.5
    assert faithfulness.rank_correlation(maps, -3 * maps) == [pytest.approx(1)]
    assert faithfulness.rank_correlation(maps, torch.zeros_like(maps)) == [0.0]
