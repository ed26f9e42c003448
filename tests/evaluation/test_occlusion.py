"""Squares over people, and the joints that models find despite them."""

import numpy as np
import pytest
import torch

from posebook import codecs, models, transforms
from posebook.evaluation import occlusion
from posebook.explain import attribution

SIZE = (64, 32)


@pytest.fixture(scope="module")
def pair() -> dict:
    torch.manual_seed(0)
    return {name: models.build("starnet-pose-t", input_size=SIZE).eval() for name in ("a", "b")}


@pytest.fixture(scope="module")
def people() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    joints = np.concatenate([rng.uniform(0, 32, (6, 17, 2)), rng.integers(0, 3, (6, 17, 1))], 2)
    return rng.integers(0, 255, (6, *SIZE, 3), np.uint8), joints


def test_square_covers_its_pixels_only():
    image, other = np.full((20, 30, 3), 200, np.uint8), np.full((20, 30, 3), 9, np.uint8)
    changed = occlusion.cover(image, np.array([4.0, 10.0]), 6)
    assert (changed[7:13, 1:7] == occlusion.BLACK).all() and (changed == occlusion.BLACK).sum() == 6 * 6 * 3
    assert (image == 200).all()
    covered = occlusion.cover(image, np.array([0.0, 0.0]), 6, other) == 9
    assert covered.sum() == 3 * 3 * 3  # cut at the border
    assert (occlusion.cover(image, np.array([4.0, 10.0]), 0) == image).all()


def test_predictions_do_not_depend_on_the_batch(pair, people):
    model, images = pair["a"], np.tile(people[0], (12, 1, 1, 1))  # more than one batch
    points, entropies = occlusion.predict_with_entropy(model, images)
    assert points.shape == (72, 17, 2) and ((entropies > 0) & (entropies <= 1)).all()
    np.testing.assert_allclose(entropies[:6], entropies[66:], rtol=1e-4)


def test_comparison_against_a_loop(pair, people):
    images, joints = people
    table, differences = occlusion.compare(pair, images, joints, [0.0, 0.5], seed=3)
    centers = np.random.default_rng(3).uniform([0, 0], [32, 64], (6, 2))
    counts = {"covered": [], "free": []}
    for i in range(6):
        image = occlusion.cover(images[i], centers[i], 32, images[(i - 3) % 6])
        found = [occlusion.predict_with_entropy(pair[name], image[None])[0][0] for name in pair]
        for k in range(17):
            if joints[i, k, 2] == 2:
                under = (np.abs(joints[i, k, :2] - centers[i]) < 16).all()
                near = [np.linalg.norm(points[k] - joints[i, k, :2]) < 6.4 for points in found]
                counts["covered" if under else "free"].append(near)
    for group, near in counts.items():  # noqa: B007 (the queries use it)
        shown = table.query(
            "square == 'another image' and side == 0.5 and joints == @group and what == 'found'"
        )
        assert shown["value"].tolist() == pytest.approx(np.mean(near, 0).tolist())
        assert set(shown["count"]) == {len(near)} and (shown["low"] <= shown["value"]).all()
        change = differences.query("square == 'another image' and side == 0.5 and joints == @group")
        assert change["difference"].item() == pytest.approx(100 * np.subtract(*np.mean(near, 0)[::-1]))
    assert set(differences.query("side == 0")["joints"]) == {"free"}  # no joint is covered


def test_models_with_different_inputs_cannot_be_compared(pair, people):
    other = models.build("starnet-pose-t", input_size=(128, 96))
    with pytest.raises(ValueError, match="different input sizes or joints"):
        occlusion.compare(pair | {"c": other}, *people, [0.5])


def test_entropy_is_that_of_the_whole_output(pair, people):
    with torch.no_grad():
        output = pair["a"](transforms.normalize(torch.from_numpy(people[0])))
    expected = attribution.entropy(output).numpy()
    np.testing.assert_allclose(occlusion.predict_with_entropy(pair["a"], people[0])[1], expected, rtol=1e-5)


def test_heatmap_models_are_measured_as_they_predict():
    """The last stage's heatmaps."""
    model = models.build("lapx", input_size=(64, 64), width=16).eval()
    images = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    points, entropy = occlusion.predict_with_entropy(model, images)
    with torch.no_grad():
        heatmaps = model(transforms.normalize(torch.from_numpy(images)))[-1]
    np.testing.assert_allclose(points, codecs.decode_heatmap(heatmaps, 4)[0], atol=1e-4)
    assert entropy.shape == (2, 17) and ((entropy > 0) & (entropy <= 1)).all()
