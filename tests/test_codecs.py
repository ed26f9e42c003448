"""Codecs: decoding recovers the encoded joint, and vectorized code equals plain loops."""

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posebook import codecs, losses, skeletons

SIZE = (64, 96)
inside_x = st.floats(0, SIZE[1] - 1.25)
inside_y = st.floats(0, SIZE[0] - 1.25)


@settings(deadline=None, max_examples=100)
@given(inside_x, inside_y, st.sampled_from([1, 2, 3]))
def test_simcc_recovers_any_coordinate_within_half_a_bin(x, y, ratio):
    point = torch.tensor([[[x, y]]], dtype=torch.float64)
    decoded, _ = codecs.decode_simcc(codecs.encode_simcc(point, SIZE, ratio), ratio)
    assert (decoded - point).abs().max() <= 0.5 / ratio + 1e-5  # decoded coordinates are float32


@settings(deadline=None, max_examples=100)
@given(inside_x, inside_y)
def test_heatmap_recovers_any_coordinate_within_half_a_cell(x, y):
    point = torch.tensor([[[min(x, SIZE[1] - 6), min(y, SIZE[0] - 6)]]], dtype=torch.float64)
    decoded, score = codecs.decode_heatmap(codecs.encode_heatmap(point, SIZE))
    assert (decoded - point).abs().max() <= 2 + 1e-9
    assert score == pytest.approx(1)


def test_simcc_target_equals_the_formula():
    """Compared with a plain loop over joints, axes and bins."""
    points = torch.tensor([[[10.3, 20.8], [-4.0, 70.0]]], dtype=torch.float64)
    target = codecs.encode_simcc(points, SIZE, 2, (4.9, 5.66))
    for joint in range(2):
        for values, coordinate, sigma in (
            (target.x[0, joint], points[0, joint, 0].item(), 4.9),
            (target.y[0, joint], points[0, joint, 1].item(), 5.66),
        ):
            for b, value in enumerate(values.tolist()):
                assert value == pytest.approx(
                    math.exp(-((b - round(2 * coordinate)) ** 2) / (2 * sigma**2)), abs=1e-12
                )
    assert target.x.shape == (1, 2, 192) and target.y.shape == (1, 2, 128)


def test_heatmap_quarter_offset_points_to_the_higher_neighbor():
    heatmap = torch.zeros(1, 1, 8, 8)
    heatmap[0, 0, 3, 4] = 1.0
    heatmap[0, 0, 3, 5] = 0.5
    heatmap[0, 0, 2, 4] = 0.4
    decoded, score = codecs.decode_heatmap(heatmap)
    assert decoded.tolist() == [[[4 * 4.25, 4 * 2.75]]] and score.item() == 1.0
    corner = torch.zeros(1, 1, 8, 8)
    corner[0, 0, 0, 7] = 1.0
    assert codecs.decode_heatmap(corner)[0].tolist() == [[[28.0, 0.0]]]


def test_flip_mirrors_bins_and_joints_and_is_its_own_inverse():
    order = skeletons.get("coco").flip_indices
    simcc = codecs.SimCC(torch.randn(2, 17, 192), torch.randn(2, 17, 128))
    once = codecs.flip_simcc(simcc, order)
    assert all(torch.equal(a, b) for a, b in zip(codecs.flip_simcc(once, order), simcc, strict=True))
    assert torch.equal(once.x[:, 5], simcc.x[:, 6].flip(-1)) and torch.equal(once.y[:, 5], simcc.y[:, 6])


def test_flipped_back_heatmaps_have_the_same_peak_cell():
    """A heatmap and the flipped-back heatmap of the mirrored joints have their peaks in the same cells."""
    order = skeletons.get("coco").flip_indices
    points = torch.stack([torch.arange(17) * 4.0 + 8, torch.arange(17) * 5.0 + 4], -1)[None]  # (1, 17, 2)
    mirrored = points[:, order].clone()
    mirrored[..., 0] = 95 - mirrored[..., 0]
    original, flipped = (codecs.encode_heatmap(p, (128, 96)) for p in (points, mirrored))
    back = codecs.flip_heatmap(flipped, order)
    assert (back[..., 1:].flatten(2).argmax(-1) == original[..., 1:].flatten(2).argmax(-1)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_first_maximum_is_the_first_of_equal_ones(dtype):
    values = torch.randint(0, 3, (20, 5, 30), generator=torch.Generator().manual_seed(0)).to(dtype)
    maximum, index = codecs.first_maximum(values)
    for row, value, place in zip(values.flatten(0, 1), maximum.flatten(), index.flatten(), strict=True):
        assert value == max(row.tolist()) and place == row.tolist().index(value)
    maximum, index = codecs.first_maximum(torch.tensor([1.0, torch.nan, 2.0], dtype=dtype))
    assert maximum.isnan() and index == 2


def test_score_is_the_smaller_maximum():
    simcc = codecs.SimCC(torch.tensor([[[0.1, 0.9, 0.2]]]), torch.tensor([[[0.3, 0.4]]]))
    points, score = codecs.decode_simcc(simcc)
    assert points.tolist() == [[[0.5, 0.5]]] and score.item() == pytest.approx(0.4)


def test_inside_includes_whole_border_pixels():
    points = torch.tensor([[-0.5, 0.0], [-0.6, 0.0], [95.4, 63.4], [95.5, 0.0], [0.0, 63.5]])
    assert codecs.inside(points, SIZE).tolist() == [True, False, True, False, False]


def test_kl_equals_a_plain_loop():
    torch.manual_seed(0)
    target = codecs.encode_simcc(torch.rand(2, 3, 2, dtype=torch.float64) * 20, (24, 32))
    logits = codecs.SimCC(*(torch.randn_like(axis) for axis in target))
    weights = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    total = 0.0
    for logit, goal in zip(logits, target, strict=True):
        for b in range(2):
            for k in range(3):
                q = [math.exp(10 * v) for v in goal[b, k].tolist()]
                p = [math.exp(10 * v) for v in logit[b, k].tolist()]
                q, p = [v / sum(q) for v in q], [v / sum(p) for v in p]
                divergence = sum(a * math.log(a / c) for a, c in zip(q, p, strict=True)) / len(q)
                total += divergence * weights[b, k].item() / 6
    assert losses.simcc_kl(logits, target, weights).item() == pytest.approx(total, rel=1e-9)


def test_kl_is_zero_at_the_target_and_ignores_unlabeled_joints():
    target = codecs.encode_simcc(torch.tensor([[[5.0, 6.0], [7.0, 8.0]]]), (24, 32))
    assert losses.simcc_kl(target, target, torch.ones(1, 2)).item() == pytest.approx(0, abs=1e-7)
    other = codecs.SimCC(target.x.clone(), target.y.clone())
    other.x[:, 1] = torch.randn(64)
    assert losses.simcc_kl(other, target, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0, abs=1e-7)


def gaussian(x: float, y: float, width: int = 48, height: int = 64, sigma: float = 2.0) -> torch.Tensor:
    """A heatmap (1, 1, h, w) with a Gaussian whose peak may lie between cells."""
    rows, columns = torch.arange(height).double(), torch.arange(width).double()
    return torch.exp(-((columns - x) ** 2 + (rows[:, None] - y) ** 2) / (2 * sigma**2))[None, None]


@settings(deadline=None, max_examples=100)
@given(st.floats(8, 39), st.floats(8, 55))
def test_dark_finds_the_peak_between_cells(x, y):
    decoded, score = codecs.decode_dark(gaussian(x, y), stride=1)
    assert (decoded[0, 0] - torch.tensor([x, y])).abs().max() < 0.03
    assert 0.9 < score.item() <= 1


def test_dark_is_more_accurate_than_the_quarter_offset():
    generator = torch.Generator().manual_seed(0)
    points = 8 + 30 * torch.rand(50, 2, generator=generator).double()
    maps = torch.cat([gaussian(x, y) for x, y in points.tolist()])  # (50, 1, h, w)
    errors = {
        decode.__name__: (decode(maps, 4)[0][:, 0] - 4 * points).norm(dim=1).mean().item()
        for decode in (codecs.decode_dark, codecs.decode_heatmap)
    }
    assert errors["decode_dark"] < 0.1 < 0.3 < errors["decode_heatmap"]


@pytest.mark.parametrize("x, y", [(0, 0), (1, 30), (47, 63), (20, 62)])
def test_dark_does_not_refine_a_peak_on_the_border(x, y):
    assert codecs.decode_dark(gaussian(x, y), 4)[0].tolist() == [[[4 * x, 4 * y]]]


def test_dark_of_a_constant_map_is_finite():
    decoded, _ = codecs.decode_dark(torch.zeros(1, 2, 16, 12))
    assert torch.isfinite(decoded).all()


def udp_refined(heatmap: np.ndarray) -> np.ndarray:
    """One map's keypoint in cells: refine_keypoints_dark_udp, mmpose/codecs/utils/refinement.py@0b9a7cfc."""
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    padded = cv2.GaussianBlur(np.pad(heatmap, 5), (11, 11), 0)[5:-5, 5:-5]
    padded = np.log(np.clip(padded * (heatmap.max() / padded.max()), 1e-3, 50))
    cell = np.pad(padded, 1, mode="edge")[y : y + 3, x : x + 3]  # rows and columns around the peak
    first = np.array([cell[1, 2] - cell[1, 0], cell[2, 1] - cell[0, 1]]) / 2
    xx, yy = cell[1, 2] - 2 * cell[1, 1] + cell[1, 0], cell[2, 1] - 2 * cell[1, 1] + cell[0, 1]
    xy = (cell[2, 2] - cell[1, 2] - cell[2, 1] + 2 * cell[1, 1] - cell[1, 0] - cell[0, 1] + cell[0, 0]) / 2
    return np.array([x, y]) - np.linalg.solve([[xx, xy], [xy, yy]], first)


def udp_maps(points: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Gaussians (1, K, h, w) whose first and last cells are the first and last pixels of the input (H, W)."""
    (height, width), rows, columns = size, size[0] // 4, size[1] // 4
    x, y = points[:, 0] / (width - 1) * (columns - 1), points[:, 1] / (height - 1) * (rows - 1)
    dx2 = (torch.arange(columns) - torch.tensor(x)[:, None]) ** 2
    dy2 = (torch.arange(rows) - torch.tensor(y)[:, None]) ** 2
    return torch.exp(-(dy2[:, :, None] + dx2[:, None]) / 8)[None].float()


def test_udp_against_a_loop_with_the_steps_of_mmpose():
    rng = np.random.default_rng(0)
    size = (64, 48)
    points = np.concatenate([rng.uniform([0, 0], [47, 63], (30, 2)), [[0, 0], [47, 63], [0, 31.5]]])
    maps = udp_maps(points, size) + 0.02 * torch.tensor(rng.uniform(size=(1, 33, 16, 12))).float()
    keypoints, scores = codecs.decode_udp(maps, size)
    expected = np.array([udp_refined(heatmap) for heatmap in maps[0].numpy()]) * [47 / 11, 63 / 15]
    np.testing.assert_allclose(keypoints[0].numpy(), expected, atol=2e-2)
    assert torch.equal(scores, maps.amax((-2, -1)))
    for value in (1.0, 0.0, -1.0):
        assert torch.isfinite(codecs.decode_udp(torch.full((1, 2, 16, 12), value), size)[0]).all()


def test_udp_recovers_the_whole_input_and_needs_no_shift_for_the_flip_test():
    size = (256, 192)
    points = np.random.default_rng(0).uniform([24, 24], [167, 231], (17, 2))  # away from the border
    maps = udp_maps(points, size)
    keypoints, _ = codecs.decode_udp(maps, size)
    assert np.abs(keypoints[0].numpy() - points).max() < 1e-3
    mirrored = udp_maps(np.stack([191 - points[:, 0], points[:, 1]], 1), size)
    back = codecs.flip_heatmap(mirrored, list(range(17)), shift=False)
    assert torch.allclose(back, maps, atol=1e-5)


def test_heatmap_target_equals_the_formula():
    points = torch.tensor([[[10.3, 20.8], [41.0, 62.9]]], dtype=torch.float64)
    maps = codecs.encode_heatmap(points, (64, 48))
    assert maps.shape == (1, 2, 16, 12)
    for k, (x, y) in enumerate(points[0].tolist()):
        for row in range(16):
            for column in range(12):
                square = (column - round(x / 4)) ** 2 + (row - round(y / 4)) ** 2
                assert maps[0, k, row, column].item() == pytest.approx(math.exp(-square / (2 * 2.0**2)))
