"""One predicted joint of one person: pose, distributions or heatmap, and attribution map."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from posebook import transforms
from posebook.codecs import SimCC
from posebook.datasets import Person
from posebook.evaluation import metrics, predictions
from posebook.explain import attribution, comparison
from posebook.models.layers import PoseModel
from posebook.report import figures


def explain_joint(
    model: PoseModel,
    person: Person,
    joint: str,
    method: str = "Grad-CAM",
    steps: int = 16,
    upright: bool = False,
) -> Figure:
    """Predict a person without flip test, and draw one joint: pose, distributions or heatmap, attribution.

    method, steps: as for explain.comparison.attribute, which explains the predicted location. upright: turn
    the image as its EXIF data say. Raises ValueError, with close matches, for an unknown joint or method.
    """
    target = attribution.JointTarget(model, joint)
    (image,), _ = predictions.crop_people([person], model.input_size, model.udp, upright)  # (H, W, 3)
    inputs, k = transforms.normalize(torch.from_numpy(image[None])), target.joint  # (1, 3, H, W)
    with torch.no_grad():
        output = model(inputs)
    heatmaps = None if isinstance(output, SimCC) else output[-1]  # of the last stage
    points, scores, _ = predictions.decode(
        output, model.input_size, model.dark, model.udp
    )  # (1, K, 2), (1, K)
    values, _ = comparison.attribute(target, method, inputs, target.bins(points[:, k]), steps)

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 4.4))
    threshold = metrics.JOINT_THRESHOLD
    figures.draw_pose(left, image, points[0].numpy(), model.skeleton, scores[0].numpy(), threshold)
    x, y = (line[0, k].numpy() for line in attribution.marginals(output))
    figures.simcc_marginals(middle, image, x, y, (points[0, k, 0].item(), points[0, k, 1].item()))
    if heatmaps is not None:
        heatmap_overlay(middle, heatmaps[0, k].numpy(), model.input_size)
    middle.set_xlabel(f"{joint.replace('_', ' ')}, score {scores[0, k]:.2f}")
    figures.attribution_overlay(right, image, values[0].numpy())
    left.set_title("predicted pose")
    right.set_title(f"attribution, {method}")
    return figure


def heatmap_overlay(ax: Axes, heatmap: np.ndarray, input_size: tuple[int, int]) -> Axes:
    """A heatmap (h, w) over the crop (H, W) in `ax`: cell i is centered on pixel i H / h, as for decoding."""
    (height, width), limits = input_size, ax.axis()
    half = height / heatmap.shape[0] / 2
    extent = (-half, width - half, height - half, -half)
    opacity = np.clip(heatmap / (heatmap.max() or 1), 0, 1) * 0.8
    ax.imshow(np.clip(heatmap, 0, None), extent=extent, cmap="magma", vmin=0, alpha=opacity)
    ax.axis(limits)
    return ax
