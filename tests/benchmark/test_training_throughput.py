"""Both pipelines make the same kind of batches, and from the same draws the same samples."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from posebook import transforms
from posebook.benchmark import training_throughput
from posebook.datasets import canvas_cache, lspet
from posebook.training import data, recipes

SIZE = (128, 96)


@pytest.fixture(scope="module")
def people(test_data):
    whole = lspet.load(test_data / "lspet", "val")
    return replace(whole, instances=whole.instances[:12])


def test_plain_and_packed_batches_are_alike_where_nothing_is_drawn(people, tmp_path):
    recipe = recipes.get("overfit", batch_size=5, input_size=[128, 96], stage1={"flip": 0})
    canvases = canvas_cache.open_or_create(people, tmp_path, SIZE, (recipe.stage1,), "raw")
    both = training_throughput.pipelines(people, {"raw": canvases}, recipe, 0)
    plain, quick = both["plain"](), both["raw"]()
    for size in (5, 5, 2, 5):  # an epoch, and on
        a, b = next(plain), next(quick)
        for one, other in zip(a, b, strict=True):
            assert one.shape == other.shape and one.dtype == other.dtype and len(one) == size
        # plain goes to HSV and back where nothing is to be changed, and some canvases are shrunk
        assert (a[0].float() - b[0].float()).abs().mean() < 3
        weights = a[3]
        assert torch.equal(weights, b[3]) and 0 < weights.mean() <= 1
        for x, y in ((a[1], b[1]), (a[2], b[2])):
            labeled = weights > 0
            assert torch.allclose(x[labeled], y[labeled], atol=1e-6)


def test_one_draw_is_colored_alike(people, monkeypatch):
    """Plain's formulas against `photometric`, on the same draws."""
    recipe = recipes.get("fast", stage1={"blur": 0.5, "median_blur": 0.5}, input_size=list(SIZE))
    plain = training_throughput.ReferenceDataset(people, recipe, 0)
    quick = data.TrainDataset(people, recipe, 0)
    quick.draw(0)
    for index in range(12):
        jitter = [field[index : index + 1] for field in quick.jitter]
        drawn = transforms.Jitter(*jitter)
        matrix, image = quick.matrices[index], quick[0, index][0].numpy()
        flipped = np.linalg.det(matrix[:, :2]) < 0
        with monkeypatch.context() as patch:
            patch.setattr(transforms, "random_affine", lambda *_, m=matrix, f=flipped: (m, f))
            patch.setattr(transforms, "draw_jitter", lambda *_, d=drawn: d)
            found, _, _, weights = plain[0, index]
        if drawn.hsv_offsets.any():
            assert (found == image).all()
        assert (weights == quick.weights[index].numpy()).all()


def test_ways_are_timed_in_turns(people, tmp_path):
    recipe = recipes.get("fast", batch_size=4, input_size=list(SIZE))
    canvases = canvas_cache.open_or_create(people, tmp_path, SIZE, (recipe.stage1,), "raw")
    ways = training_throughput.pipelines(people, {"raw": canvases}, recipe, 0)
    found = training_throughput.measure_pipelines(ways, rounds=2, seconds=0.1)
    assert list(found) == ["plain", "pictures", "raw"]
    assert all(len(values) == 2 and min(values) > 0 for values in found.values())


def test_steps_are_timed_one_change_after_the_other(people):
    recipe = recipes.get("fast", batch_size=2, input_size=[64, 64])
    found = training_throughput.step_rates(
        "starnet-pose-t", people.skeleton, recipe, "cpu", "bf16", rounds=2, steps=1
    )
    assert list(found) == ["as built", "+ channels last", "+ fused optimizer", "+ bf16"]
    assert all(len(values) == 2 and min(values) > 0 for values in found.values())


def test_the_pieces_of_a_sample_are_timed(people, tmp_path):
    recipe = recipes.get("fast", input_size=list(SIZE))
    canvases = canvas_cache.open_or_create(people, tmp_path, SIZE, (recipe.stage1,), "raw")
    found = training_throughput.profile_stages(people, canvases, recipe, 8)
    assert len(found) == 7 and min(found.values()) > 0
    assert found["fetch the canvas"] < found["decode the picture"]
