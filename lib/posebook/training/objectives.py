"""From a model's output to its loss."""

from collections.abc import Callable

from torch import Tensor, nn

from posebook import codecs, losses, transforms
from posebook.training import recipes
from posebook.training.recipes import Recipe

# A net, part of a batch and a recipe to the loss: a scalar, the mean over the part's samples.
Objective = Callable[[Callable, list[Tensor], object], Tensor]


def compute_loss(output: object, keypoints: Tensor, weights: Tensor, recipe: Recipe) -> Tensor:
    """The recipe's loss of a net's output against joints (B, K, 2) of its input, a scalar in float32."""
    size = recipe.input_size
    if not isinstance(output, codecs.SimCC):
        targets = codecs.encode_heatmap(keypoints, size, size[0] // output[-1].shape[-2])
        return losses.heatmap_mse([stage.float() for stage in output], targets, weights)
    output = codecs.SimCC(*(axis.float() for axis in output))
    targets = codecs.encode_simcc(keypoints, size, output.x.shape[-1] / size[1], recipes.sigma_for(recipe))
    if recipe.loss == "kl_discrete":
        return losses.kl_discrete(output, targets, weights, recipe.label_smoothing, recipe.temperature)
    return losses.simcc_kl(output, targets, weights, recipe.beta)


def pose_loss(net: nn.Module, batch: list[Tensor], recipe: Recipe) -> Tensor:
    """The recipe's loss of a net on images (B, H, W, 3) uint8, joints (B, K, 2) and weights (B, K).

    A net of several datasets also takes which of them each image is of, (B,).
    """
    images, keypoints, weights, *dataset = batch
    return compute_loss(net(transforms.normalize(images), *dataset), keypoints, weights, recipe)
