"""Training throughput: all pipelines make equivalent batches, and timings have the expected form."""

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
def dataset(test_data):
    full = lspet.load(test_data / "lspet", "val")
    return replace(full, instances=full.instances[:12])


def test_plain_and_cached_batches_are_equivalent_without_augmentation(dataset, tmp_path):
    recipe = recipes.get("overfit", batch_size=5, input_size=[128, 96], stage1={"flip": 0})
    canvases = canvas_cache.open_or_create(dataset, tmp_path, SIZE, (recipe.stage1,), "raw")
    starters = training_throughput.pipelines(dataset, {"raw": canvases}, recipe, 0)
    plain, cached = starters["plain"](), starters["raw"]()
    for size in (5, 5, 2, 5):  # one epoch, and the first batch of the next
        a, b = next(plain), next(cached)
        for x, y in zip(a, b, strict=True):
            assert x.shape == y.shape and x.dtype == y.dtype and len(x) == size
        # images differ a little: plain converts to HSV and back, and some canvases are smaller than the image
        assert (a[0].float() - b[0].float()).abs().mean() < 3
        weights = a[3]
        assert torch.equal(weights, b[3]) and 0 < weights.mean() <= 1
        for x, y in ((a[1], b[1]), (a[2], b[2])):
            labeled = weights > 0
            assert torch.allclose(x[labeled], y[labeled], atol=1e-6)


def test_same_draw_gives_the_same_image(dataset, monkeypatch):
    """Compare the plain pipeline with `apply_photometric` on the same random draws."""
    recipe = recipes.get("fast", stage1={"blur": 0.5, "median_blur": 0.5}, input_size=list(SIZE))
    plain = training_throughput.ReferenceDataset(dataset, recipe, 0)
    samples = data.TrainDataset(dataset, recipe, 0)
    samples.draw(0)
    for index in range(12):
        jitter = [field[index : index + 1] for field in samples.jitter]
        drawn = transforms.Jitter(*jitter)
        matrix, image = samples.matrices[index], samples[0, index][0].numpy()
        flipped = np.linalg.det(matrix[:, :2]) < 0
        with monkeypatch.context() as patch:
            patch.setattr(transforms, "random_affine_batch", lambda *_, m=matrix, f=flipped: ([m], [f]))
            patch.setattr(transforms, "draw_jitter", lambda *_, d=drawn: d)
            plain_image, _, _, weights = plain[0, index]
        if drawn.hsv_offsets.any():
            assert (plain_image == image).all()
        assert (weights == samples.weights[index].numpy()).all()


def test_pipelines_are_measured_in_every_round(dataset, tmp_path):
    recipe = recipes.get("fast", batch_size=4, input_size=list(SIZE))
    canvases = canvas_cache.open_or_create(dataset, tmp_path, SIZE, (recipe.stage1,), "raw")
    starters = training_throughput.pipelines(dataset, {"raw": canvases}, recipe, 0)
    rates = training_throughput.measure_pipelines(starters, rounds=2, seconds=0.1)
    assert list(rates) == ["plain", "pictures", "raw"]
    assert all(len(values) == 2 and min(values) > 0 for values in rates.values())


def test_every_step_variant_is_measured(dataset):
    recipe = recipes.get("fast", batch_size=2, input_size=[64, 64])
    rates = training_throughput.step_rates(
        "starnet-pose-t", dataset.skeleton, recipe, "cpu", "bf16", rounds=2, steps=1
    )
    assert list(rates) == ["as built", "+ channels last", "+ fused optimizer", "+ bf16"]
    assert all(len(values) == 2 and min(values) > 0 for values in rates.values())


def test_stages_of_a_sample_are_timed(dataset, tmp_path):
    recipe = recipes.get("fast", input_size=list(SIZE))
    canvases = canvas_cache.open_or_create(dataset, tmp_path, SIZE, (recipe.stage1,), "raw")
    microseconds = training_throughput.profile_stages(dataset, canvases, recipe, 8)
    assert len(microseconds) == 7 and min(microseconds.values()) > 0
    assert microseconds["fetch the canvas"] < microseconds["decode the picture"]
