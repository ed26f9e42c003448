"""Attribution maps for single joints: any model of the library as a captum target.

Integrated gradients: Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017, equation 1.
Grad-CAM: Selvaraju et al., ICCV 2017, equations 1 and 2. Occlusion: Zeiler and Fergus, ECCV 2014, section
4.2. SmoothGrad: Smilkov et al., 2017. Shuffled weights: Adebayo et al., "Sanity Checks for Saliency Maps",
NeurIPS 2018, section 3. All but the last use captum's code. explain/faithfulness.py checks the maps.

1. The target of a SimCC model is the log-probability of one x bin plus that of one y bin. This is the
   log-probability that the joint is at this location, because SimCC's axes are independent given the image.
   The target of a heatmap model is the value of the heatmap at one cell. The location is chosen beforehand
   and stays fixed while the input changes; with an argmax in the target, each step could explain a different
   location.
2. The probabilities are those of the loss, a softmax with inverse temperature beta = 10.
3. The baseline is zero in normalized space, the mean image color. With a black baseline, black pixels (black
   trousers, for example) could not receive any attribution.
4. The downsampling layers of StarNet-Pose, RTMPose, AMFACPose, HRNet and its relatives are convolutions
   centered on pixel 0, so cell i of a layer with stride s is centered on pixel s * i. The Grad-CAM map is
   upsampled accordingly; a plain image resize would shift it by half a cell. LAPX halves its maps by pooling
   from stride 2 on: s * i + s/2 - 1. The patches of ViTPose (16 pixels, padding 2) are centered on
   16 i + 5.5, and the cells of its decoder on s * i + s/2 - 2.5. Transposed convolutions, as in
   SimpleBaseline, shift the cells too; this is not corrected for.
5. Removed pixels (occlusion, body parts) get the mean image color.
"""

import copy
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from posebook.codecs import SimCC
from posebook.complexity import recorded_calls
from posebook.models.layers import PoseModel
from posebook.models.transformer import Attention
from posebook.skeletons import Skeleton, side
from posebook.utils import check_name

# The default layers of Grad-CAM: the last features that all joints share.
LAYERS = {
    "StarNetPose": "backbone.stages.3",
    "RTMPose": "backbone.stage4",
    "AMFACPose": "stages.3",
    "LAPX": "backbone_attention.2",
    "ViTPose": "backbone",
}
PARTS = ("background", "head", "trunk", "left arm", "right arm", "left leg", "right leg")
T = TypeVar("T")


def log_prob_at(output: SimCC | list[Tensor], bins: Tensor, beta: float = 10.0) -> Tensor:
    """Log-probability (B, K) of each joint at the given bins (B, K, 2), as (x, y), summed over both axes.

    For heatmaps, the value of the last stage's heatmap at the given cell, without `beta`.
    """
    if isinstance(output, SimCC):
        log_probs = [
            torch.log_softmax(beta * logits, -1).gather(2, bins[..., axis, None])
            for axis, logits in enumerate(output)
        ]  # (B, K, 1) each
        return torch.cat(log_probs, 2).sum(2)  # (B, K)
    cells = bins[..., 1] * output[-1].shape[-1] + bins[..., 0]  # (B, K), row-major
    return output[-1].flatten(2).gather(2, cells[..., None])[..., 0]


class JointTarget(nn.Module):
    """The scalar that is explained: one number for each image, for one joint.

    It is `log_prob_at` the given bins. model: put into eval mode, because the points of an integration path
    must not share batch statistics. joint: its name. Raises ValueError, with close matches, for an unknown
    joint.
    """

    def __init__(self, model: PoseModel, joint: str, beta: float = 10.0):
        super().__init__()
        check_name(joint, model.skeleton.keypoints, f"joint of {model.skeleton.name}")
        self.model, self.joint, self.beta = model.eval(), model.skeleton.keypoints.index(joint), beta

    def forward(self, images: Tensor, bins: Tensor) -> Tensor:
        """Numbers (B,) for normalized images (B, 3, H, W) and bins or cells (B, 2) as (x, y)."""
        output, joint = self.model(images), slice(self.joint, self.joint + 1)
        is_simcc = isinstance(output, SimCC)
        output = SimCC(*(logits[:, joint] for logits in output)) if is_simcc else [output[-1][:, joint]]
        return log_prob_at(output, bins[:, None], self.beta)[:, 0]  # (B,)

    @functools.cached_property
    def bins_per_pixel(self) -> float:
        """Bins (or cells) for each pixel of the input, measured on the output for a blank image."""
        height, width = self.model.input_size
        with torch.no_grad():
            output = self.model(next(self.model.parameters()).new_zeros(1, 3, height, width))
        return (output.x if isinstance(output, SimCC) else output[-1]).shape[-1] / width

    def bins(self, points: Tensor) -> Tensor:
        """The x and y bins (or heatmap cells) of points (..., 2), given as (x, y) in pixels of the input.

        A point outside of the input gets the bins at the border.
        """
        last = [round(length * self.bins_per_pixel) - 1 for length in reversed(self.model.input_size)]
        sides = torch.tensor(self.model.input_size[::-1], dtype=torch.float32, device=points.device)
        scale = torch.full_like(sides, self.bins_per_pixel)  # (2,)
        if self.model.udp:  # the centers of the first and last cells are those of the first and last pixels
            scale = (sides * self.bins_per_pixel - 1) / (sides - 1)
        bins = (points * scale).round().long()
        return bins.clamp(min=torch.zeros_like(bins), max=torch.tensor(last, device=bins.device))  # (..., 2)


def marginals(output: SimCC | list[Tensor], beta: float = 10.0) -> tuple[Tensor, Tensor]:
    """Probability of each joint over columns (B, K, Wx) and over rows (B, K, Wy).

    For heatmaps, the softmax over the cells of the last stage, summed along each axis.
    """
    if isinstance(output, SimCC):
        return torch.softmax(beta * output.x, -1), torch.softmax(beta * output.y, -1)
    maps = torch.softmax(beta * output[-1].flatten(2), -1).view_as(output[-1])  # (B, K, h, w)
    return maps.sum(2), maps.sum(3)  # (B, K, w), (B, K, h)


def entropy(output: SimCC | list[Tensor], beta: float = 10.0) -> Tensor:
    """Entropy (B, K) of both `marginals`, divided by that of uniform ones: 0 (certain) to 1 (unknown)."""
    columns, rows = marginals(output, beta)
    total = torch.special.entr(columns).sum(-1) + torch.special.entr(rows).sum(-1)  # (B, K)
    return total / (np.log(columns.shape[-1]) + np.log(rows.shape[-1]))


def find_layer(model: nn.Module, layer: str | None = None) -> nn.Module:
    """The submodule with this dotted name, or the default in LAYERS.

    Raises ValueError, with close matches, for an unknown name, and for a model without a default layer.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    layer = layer or LAYERS.get(type(model).__name__)
    if layer is None:
        raise ValueError(f"{type(model).__name__} has no default layer: name one, such as {[*modules][-1]}")
    check_name(layer, modules, f"layer of {type(model).__name__}")
    return modules[layer]


@torch.no_grad()
def capture_activations(
    model: nn.Module, images: Tensor, layers: Sequence[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """{layer: (first input, output)} of each named layer in one forward pass on images (B, 3, H, W).

    Puts the model into eval mode. Raises ValueError, with close matches, for an unknown layer.
    """
    names = {find_layer(model, layer): layer for layer in layers}
    with recorded_calls(names) as calls:
        model.eval()(images)
    return {names[module]: (inputs[0], output) for module, inputs, output in calls}


def retry_on_oom(call: Callable[[int], T], batch_size: int) -> T:
    """call(batch_size), repeated with half the batch size and a warning as long as memory does not suffice.

    Raises the error if memory does not suffice for a batch of one.
    """
    while True:
        try:
            return call(batch_size)
        except (MemoryError, RuntimeError) as error:  # PyTorch raises RuntimeError on GPU and on CPU
            out_of_memory = isinstance(error, MemoryError) or "memory" in str(error).lower()
            if batch_size == 1 or not out_of_memory:
                raise
        batch_size //= 2
        warnings.warn(f"not enough memory: continuing with a batch of {batch_size} images", stacklevel=2)


def in_batches(
    attribute: Callable[[Tensor, Tensor, int], T], images: Tensor, bins: Tensor, batch_size: int
) -> list[T]:
    """attribute(images, bins, batch size) for parts of at most `batch_size` images, as `retry_on_oom`."""

    def call(size: int) -> list[T]:
        parts = zip(images.split(size), bins.split(size), strict=True)
        return [attribute(part, places, size) for part, places in parts]

    return retry_on_oom(call, batch_size)


def integrated_gradients(
    target: JointTarget, images: Tensor, bins: Tensor, steps: int = 64, internal_batch_size: int = 32
) -> tuple[Tensor, Tensor]:
    """Contribution of each pixel to the target, relative to the mean image color.

    images (B, 3, H, W) normalized, bins (B, 2) as (x, y). steps: points of the Gauss-Legendre rule.
    internal_batch_size: number of images in one forward pass. Returns attributions (B, H, W), summed over the
    colors, and the convergence delta (B,): the sum of the attributions minus the difference of the target, 0
    for an exact integral.
    """
    from captum.attr import IntegratedGradients

    def attribute(images: Tensor, bins: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
        return IntegratedGradients(target).attribute(
            images,
            additional_forward_args=bins,
            n_steps=steps,
            internal_batch_size=batch_size,  # captum needs one step of all its images at least
            return_convergence_delta=True,
        )

    attributions, deltas = zip(*in_batches(attribute, images, bins, internal_batch_size), strict=True)
    return torch.cat(attributions).sum(1).detach(), torch.cat(deltas).detach()  # (B, H, W), (B,)


def smooth_gradients(
    target: JointTarget, images: Tensor, bins: Tensor, noise: float = 0.3, samples: int = 16, seed: int = 0
) -> Tensor:
    """Gradient times input (B, H, W), averaged over noisy copies of the images (SmoothGrad).

    images (B, 3, H, W) normalized, bins (B, 2) as (x, y). noise: standard deviation in normalized units; that
    of an image is about 1. samples: copies of each image. The noise comes from torch's global generator,
    whose state is restored.
    """
    from captum.attr import InputXGradient, NoiseTunnel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        attributions = NoiseTunnel(InputXGradient(target)).attribute(
            images,
            nt_samples=samples,
            nt_samples_batch_size=1,
            stdevs=noise,
            additional_forward_args=bins,
        )
    return attributions.sum(1).detach()  # (B, H, W)


def grad_cam(target: JointTarget, images: Tensor, bins: Tensor, layer: str | None = None) -> Tensor:
    """Where the features of a layer increase the target: (B, H, W), not negative, linear between cells.

    images (B, 3, H, W) normalized, bins (B, 2) as (x, y). layer: dotted name of a submodule; None for the
    default in LAYERS. Raises ValueError, with close matches, for an unknown layer.
    """
    from captum.attr import LayerGradCam

    module = find_layer(target.model, layer)
    images = images.detach().clone().requires_grad_()  # builds a graph even if the weights are frozen
    method = LayerGradCam(target, module)
    cells = method.attribute(images, additional_forward_args=bins, relu_attributions=True)  # (B, 1, h, w)
    first = first_cell_center(target.model, images.shape[-1] // cells.shape[-1])
    return upsample_centered(cells.detach(), images.shape[-2:], first).squeeze(1)  # (B, H, W)


def first_cell_center(model: nn.Module, stride: int) -> float:
    """The pixel on which cell 0 of a layer with this stride is centered, on both axes (choice 4)."""
    shift = {"ViTPose": -2.5, "LAPX": -1.0}.get(type(model).__name__)
    return 0.0 if shift is None else stride / 2 + shift


@torch.no_grad()
def attention_rollout(model: nn.Module, images: Tensor) -> Tensor:
    """The share of each output token's information that comes from each patch: (B, N, N), rows sum to 1.

    Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, equation 1: the output of a
    block is half its input token and half the tokens that it attends to, averaged over the heads. images
    (B, 3, H, W) normalized. Tokens are patches in row-major order. Raises ValueError for a model without
    attention among tokens.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Attention)}
    if not layers:
        raise ValueError(f"{type(model).__name__} has no attention among tokens to follow")

    def mixing(layer: str, tokens: Tensor) -> Tensor:
        weights = layers[layer].weights(tokens).mean(1)  # (B, N, N)
        return (weights + torch.eye(weights.shape[-1], device=weights.device)) / 2

    activations = capture_activations(model, images, list(layers))
    steps = (mixing(layer, tokens) for layer, (tokens, _) in activations.items())  # in order of the blocks
    return functools.reduce(lambda flow, step: step @ flow, steps)  # (B, N, N)


def rollout_map(model: nn.Module, images: Tensor, points: Tensor) -> Tensor:
    """Where the patch at a point (B, 2) of each image has its information from: (B, H, W).

    Computed by `attention_rollout`; raises the same ValueError.
    """
    flow = attention_rollout(model, images)  # (B, N, N)
    height, width = images.shape[-2:]
    stride = round((height * width / flow.shape[-1]) ** 0.5)
    first = first_cell_center(model, stride)
    cells = ((points - first) / stride).round().long()  # (B, 2)
    column, row = cells[:, 0].clamp(0, width // stride - 1), cells[:, 1].clamp(0, height // stride - 1)
    token = row * (width // stride) + column  # (B,)
    sources = flow[torch.arange(len(flow), device=flow.device), token]  # (B, N)
    grid = sources.unflatten(1, (1, height // stride, -1))  # (B, 1, h, w)
    return upsample_centered(grid, (height, width), first).squeeze(1)  # (B, H, W)


@torch.no_grad()
def occlusion_map(
    target: JointTarget, images: Tensor, bins: Tensor, window: int = 16, batch_size: int = 32
) -> Tensor:
    """How much the target decreases if a square of `window` x `window` pixels is occluded: (B, H, W).

    images (B, 3, H, W) normalized, bins (B, 2) as (x, y). The square moves by half its side. The value of a
    pixel is the mean over the squares that cover it. batch_size: number of images in one forward pass.
    """
    from captum.attr import Occlusion

    def attribute(images: Tensor, bins: Tensor, batch_size: int) -> Tensor:
        return Occlusion(target).attribute(
            images,
            sliding_window_shapes=(3, window, window),
            strides=(3, max(1, window // 2), max(1, window // 2)),
            baselines=0,
            additional_forward_args=bins,
            perturbations_per_eval=batch_size // len(images),  # of each image
        )

    attributions = torch.cat(in_batches(attribute, images, bins, batch_size))  # (B, 3, H, W)
    return attributions[:, 0]  # (B, H, W); the same for all colors


@torch.no_grad()
def part_ablation(model: nn.Module, images: Tensor, bins: Tensor, part_map: Tensor) -> Tensor:
    """How much the target of each joint decreases if a body part is removed: (B, K, len(PARTS)).

    images (B, 3, H, W) normalized, bins (B, K, 2): the location of each joint. part_map (B, H, W): an index
    into PARTS for each pixel, from `body_part_masks`. A part that is not in the image gives NaN. captum's
    FeatureAblation does the same for one joint; here all joints share the forward passes.
    """
    full, decreases = log_prob_at(model(images), bins), []
    for part in range(len(PARTS)):
        rest = (part_map != part)[:, None]  # (B, 1, H, W)
        decrease = full - log_prob_at(model(images * rest), bins)  # (B, K)
        decreases.append(decrease.masked_fill(rest.flatten(1).all(1, keepdim=True), torch.nan))
    return torch.stack(decreases, 2)  # (B, K, parts)


def body_part_masks(keypoints: np.ndarray, skeleton: Skeleton, input_size: tuple[int, int]) -> np.ndarray:
    """An index into PARTS for each pixel (H, W), drawn from joints (K, 3) as (x, y, v) in input pixels.

    Limbs are thick lines; trunk and head are the convex hulls of their joints with a thick outline.
    Thicknesses are relative to the longer side of the body. Joints that are not labeled (v 0) are ignored.
    Arms are drawn last, because they usually cover other parts.
    """
    result = np.zeros(input_size, np.uint8)
    points = np.round(keypoints[:, :2]).astype(np.int32)  # (K, 2)
    labeled = keypoints[:, 2] > 0  # (K,)
    size = np.ptp(keypoints[labeled, :2], axis=0).max() if labeled.any() else 0  # the longer side, pixels

    def matches(k: int, words: Sequence[str]) -> bool:
        return labeled[k] and any(word in skeleton.keypoints[k] for word in words)

    def draw_hull(words: Sequence[str], part: str, thickness: float) -> None:
        chosen = [k for k in range(len(points)) if matches(k, words)]
        if chosen:
            outline = cv2.convexHull(points[chosen])
            cv2.fillConvexPoly(result, outline, PARTS.index(part))
            cv2.polylines(result, [outline], True, PARTS.index(part), max(1, round(thickness * size)))

    def draw_limbs(words: Sequence[str], limb: str, thickness: float) -> None:
        for a, b in skeleton.limbs:
            sides = {side(skeleton.keypoints[a]), side(skeleton.keypoints[b])}
            if matches(a, words) and matches(b, words) and len(sides) == 1 and "" not in sides:
                part = PARTS.index(f"{sides.pop()} {limb}")
                cv2.line(
                    result, points[a].tolist(), points[b].tolist(), part, max(1, round(thickness * size))
                )

    draw_hull(("shoulder", "hip", "neck", "thorax", "pelvis"), "trunk", 0.06)
    draw_limbs(("hip", "knee", "ankle"), "leg", 0.10)
    draw_hull(("nose", "eye", "ear", "head", "neck"), "head", 0.10)
    draw_limbs(("shoulder", "elbow", "wrist"), "arm", 0.07)
    return result


def upsample_centered(cells: Tensor, input_size: Sequence[int], first: float = 0.0) -> Tensor:
    """Upsample a map (B, 1, h, w) linearly to an input (H, W), with cell i centered on pixel first + i H / h.

    A pixel before the first or after the last center gets the value of that cell. Returns (B, 1, H, W).
    """
    weights = []
    for length, count in zip(input_size, cells.shape[-2:], strict=True):
        position = (torch.arange(length, device=cells.device) - first) / (length // count)  # in cells
        distance = (position.clamp(0, count - 1)[:, None] - torch.arange(count, device=cells.device)).abs()
        weights.append((1 - distance).clamp(min=0).to(cells.dtype))  # (H, h), (W, w)
    return weights[0] @ cells @ weights[1].T


def shuffle_weights(model: nn.Module, seed: int) -> nn.Module:
    """A copy of the model in which the values of each weight tensor are shuffled.

    The copy has the same value distribution, but nothing learned. It keeps the buffers (batch norm
    statistics).
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in shuffled.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return shuffled
