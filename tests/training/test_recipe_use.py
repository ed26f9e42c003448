"""What a training makes of a recipe: augmentation of each stage, joint weights, loss and optimizer."""

import numpy as np
import pytest
import torch

from posebook import codecs, datasets, losses, models, skeletons
from posebook.training import data, loop, objectives, recipes


def test_the_last_epochs_use_the_second_stage(small):
    stages = {"stage1": {"dropout": 1.0, "flip": 1.0}, "stage2": {"dropout": 0.0, "flip": 0.0}}
    recipe = recipes.get("fast", input_size=[64, 64], epochs=5, stage2_epochs=2, **stages)
    samples = data.TrainDataset(datasets.load("synthetic", small, "train"), recipe, 0)
    for epoch in range(5):
        samples.draw(epoch)
        assert set(samples.jitter.hole[:, 2] > 0) == {epoch < 3}
        assert set(np.linalg.det(samples.matrices[:, :, :2]) < 0) == {epoch < 3}


def test_samples_have_the_joint_weights_of_the_recipe(small):
    recipe = recipes.get("fast", "amfacpose-r18", input_size=[64, 64])
    samples = data.TrainDataset(datasets.load("synthetic", small, "train"), recipe, 0)
    samples.draw(0)
    for name, weight in (("nose", 1.0), ("left_wrist", 1.5), ("right_knee", 1.2)):
        weights = samples.weights[:, skeletons.get("coco").keypoints.index(name)]
        assert (weights > 0).any() and set(np.round(weights[weights > 0].tolist(), 5)) == {weight}


@pytest.mark.parametrize("name, sigma_y", [("starnet-pose-t", 5.66 / 2), ("amfacpose-r18", 4.9 / 2)])
def test_pose_loss_uses_every_field_of_the_recipe(name, sigma_y):
    torch.manual_seed(0)
    changes = {"input_size": [64, 64], "beta": 7.0, "label_smoothing": 0.2, "temperature": 0.7}
    recipe = recipes.get("paper", name, "coco", **changes)
    logits = codecs.SimCC(torch.randn(3, 17, 128), torch.randn(3, 17, 128))
    points, weights = 64 * torch.rand(3, 17, 2), torch.rand(3, 17)
    batch = [torch.zeros(3, 64, 64, 3, dtype=torch.uint8), points, weights]
    found = objectives.pose_loss(lambda images: logits, batch, recipe)
    target = codecs.encode_simcc(points, (64, 64), 2.0, (4.9 / 3**0.5, sigma_y))
    if name.startswith("starnet"):
        expected = losses.simcc_kl(logits, target, weights, 7.0)
    else:
        expected = losses.kl_discrete(logits, target, weights, 0.2, 0.7)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name, kind", [("lapx", torch.optim.Adam), ("starnet-pose-t", torch.optim.AdamW)])
def test_optimizer_is_that_of_the_recipe(name, kind):
    recipe = recipes.get("paper", name, "coco")
    made = loop.make_optimizer(models.build(name, input_size=(64, 64)), recipe)
    assert type(made) is kind
    assert {group["weight_decay"] for group in made.param_groups} == {0.0, recipe.weight_decay}
