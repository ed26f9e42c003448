"""The training loss of a model's output."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from posebook import codecs, losses, transforms
from posebook.training import recipes
from posebook.training.recipes import Recipe

# (model, part of a batch, recipe) -> loss: a scalar, the mean over the samples in this part. The recipe is of
# the class that the objective belongs to: this package's Recipe, or that of posebook.lifting.
Objective = Callable[[Callable[..., Any], list[Tensor], Any], Tensor]


def pose_loss(model: Callable[..., Any], batch: list[Tensor], recipe: Recipe) -> Tensor:
    """Return the recipe's loss, a float32 scalar, of a 2D pose model on a batch.

    batch: images (B, H, W, 3) uint8, keypoints (B, K, 2) in input pixels, weights (B, K), and, for a model
    of several datasets, the dataset index of each image (B,). Heatmap models have only one loss.
    """
    images, keypoints, weights, *dataset = batch
    output, size = model(transforms.normalize(images), *dataset), recipe.input_size
    if not isinstance(output, codecs.SimCC):
        heatmaps = codecs.encode_heatmap(keypoints, size, size[0] // output[-1].shape[-2])
        return losses.heatmap_mse([stage.float() for stage in output], heatmaps, weights)
    output = codecs.SimCC(*(axis.float() for axis in output))
    targets = codecs.encode_simcc(keypoints, size, output.x.shape[-1] / size[1], recipes.sigma_for(recipe))
    if recipe.loss == "kl_discrete":
        return losses.kl_discrete(output, targets, weights, recipe.label_smoothing, recipe.temperature)
    return losses.simcc_kl(output, targets, weights, recipe.beta)
