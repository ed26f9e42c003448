"""The checks of an attribution, against captum's, plain loops, and maps known to be right or wrong."""

import numpy as np
import pytest
import torch
from torch import nn

from posebook import codecs, skeletons
from posebook.explain import attribution, faithfulness

SIZE = (32, 24)
POINT = torch.tensor([[9.0, 20.0]])  # where the toy net looks


class Corner(nn.Module):
    """Nothing of it is unknown: the logit of a joint's bins is the sum of the picture near POINT."""

    skeleton, input_size = skeletons.get("coco"), SIZE

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.01))

    def forward(self, images):
        seen = self.gain * images[:, :, 17:24, 6:13].sum((1, 2, 3))  # (B,)
        hot_x, hot_y = nn.functional.one_hot(torch.tensor([18, 40]), 64).float()
        return codecs.SimCC(*(seen[:, None, None] * hot.expand(1, 17, 64) for hot in (hot_x, hot_y)))


@pytest.fixture(scope="module")
def case():
    """A target, two pictures, their bins, and the map that is right: what each pixel adds."""
    target = attribution.JointTarget(Corner(), "nose", beta=1.0)
    images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0)) + 0.5
    bins = torch.tensor([[18, 40]]).expand(2, 2)
    right = torch.zeros(2, *SIZE)
    right[:, 17:24, 6:13] = images[:, :, 17:24, 6:13].sum(1)
    return target, images, bins, right


def test_infidelity_is_captums_over_that_of_a_map_of_zeros(case):
    from captum.metrics import infidelity

    target, images, bins, right = case
    maps = right + torch.rand(right.shape, generator=torch.Generator().manual_seed(1))
    taken, lost = faithfulness.random_occlusions(target, images, bins, window=8, samples=20)
    for i in range(2):
        turn = iter([*taken, *taken])

        def take(pictures, turn=turn):
            where = next(turn).expand_as(pictures)
            return where, pictures * (1 - where)

        numbers = [
            infidelity(
                target,
                take,
                images[i : i + 1],
                values[i : i + 1, None].expand(-1, 3, -1, -1) / 3,
                additional_forward_args=bins[i : i + 1],
                n_perturb_samples=20,
                max_examples_per_batch=1,
                normalize=True,
            )
            for values in (maps, torch.zeros_like(maps))
        ]
        found = faithfulness.infidelity(maps, taken, lost)[i]
        assert found.item() == pytest.approx((numbers[0] / numbers[1]).item(), rel=1e-3)


def test_the_right_map_is_faithful_and_a_wrong_one_is_not(case):
    target, images, bins, right = case
    taken, lost = faithfulness.random_occlusions(target, images, bins, window=8, samples=64)
    wrong = right.flip(1, 2)
    assert (faithfulness.infidelity(right, taken, lost) < 0.05).all()
    assert (faithfulness.infidelity(wrong, taken, lost) > 0.5).all()
    torch.testing.assert_close(faithfulness.infidelity(torch.zeros_like(right), taken, lost), torch.ones(2))
    for maps, low, high in ((right, 0, 0.2), (wrong, 0.3, 1)):
        gone, come = faithfulness.deletion_insertion(target, images, bins, maps, block=2, steps=16)
        assert (low <= gone.mean(1)).all() and (gone.mean(1) <= high).all()
        torch.testing.assert_close(come[:, -1], torch.ones(2))
        torch.testing.assert_close(gone[:, -1], torch.zeros(2))
    points = POINT.expand(2, 2)
    assert faithfulness.pointing_game(right, points, radius=6).all()
    assert not faithfulness.pointing_game(wrong, points, radius=6).any()


def test_squares_take_all_pixels_alike(case):
    taken, _ = faithfulness.random_occlusions(*case[:3], window=8, samples=3000)
    chances = taken.mean(0)
    assert chances.max() - chances.min() < 0.05
    assert chances.mean().item() == pytest.approx(64 / ((32 + 7) * (24 + 7)), rel=0.1)


def test_curves_take_whole_blocks_in_the_maps_order(case):
    target, images, bins, right = case
    maps = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(2))
    gone, come = faithfulness.deletion_insertion(
        target, images, bins, maps, block=5, steps=7
    )  # blocks that do not divide
    with torch.no_grad():
        for i in range(2):
            blocks = [(r, c) for r in range(0, 32, 5) for c in range(0, 24, 5)]
            order = sorted(blocks, key=lambda b: -maps[i, b[0] : b[0] + 5, b[1] : b[1] + 5].mean().item())
            ends = [target(images[i : i + 1] * scale, bins[:1]).item() for scale in (0, 1)]
            for step in range(8):
                kept = torch.ones(SIZE)
                for row, column in order[: int(np.ceil(step / 7 * len(order) - 1e-6))]:
                    kept[row : row + 5, column : column + 5] = 0
                for mask, curve in ((kept, gone), (1 - kept, come)):
                    value = target(images[i : i + 1] * mask, bins[:1]).item()
                    scaled = (value - ends[0]) / (ends[1] - ends[0])
                    assert curve[i, step].item() == pytest.approx(scaled, abs=1e-4)


def test_sensitivity_is_the_largest_move_over_the_maps_norm(case):
    images = case[1]
    draw = torch.Generator().manual_seed(7)
    moves = [(2 * torch.rand(images.shape, generator=draw) - 1) * 0.05 for _ in range(3)]
    found = faithfulness.sensitivity(lambda p: p.sum(1), images, images.sum(1), samples=3, seed=7)
    for i in range(2):
        far = max(move[i].sum(0).norm().item() for move in moves)
        assert found[i].item() == pytest.approx(far / images[i].sum(0).norm().item(), rel=1e-4)
    still = torch.ones(2, *SIZE)
    assert faithfulness.sensitivity(lambda p: still, images, still).tolist() == [0, 0]


def test_share_is_that_of_the_positive_part():
    maps = torch.tensor([[[3.0, -9.0], [1.0, 0.0]]])
    mask = torch.tensor([[[True, True], [False, False]]])
    assert faithfulness.mass_in_mask(maps, mask).item() == 0.75
    assert faithfulness.mass_in_mask(-maps.abs(), mask).isnan().all()


def test_likeness_looks_at_ranks_without_signs():
    maps = torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(3)) - 0.5
    assert faithfulness.rank_correlation(maps, -3 * maps) == [pytest.approx(1)]
    assert faithfulness.rank_correlation(maps, torch.zeros_like(maps)) == [0.0]
