"""See why: any net here as a captum target, for one joint at a time, and the maps that captum draws of it.

Integrated gradients: Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017, equation 1.
Grad-CAM: Selvaraju et al., ICCV 2017, equations 1 and 2. Occlusion: Zeiler and Fergus, ECCV 2014, 4.2.
SmoothGrad: Smilkov et al., 2017. The net that knows nothing: Adebayo et al., "Sanity Checks for Saliency
Maps", NeurIPS 2018, section 3. Captum's code for all but the last. What a map is worth:
explain/faithfulness.py.

1. The target of a coordinate classifier is the log-probability of one x bin plus that of one y bin: of the
   joint being at that place, since SimCC's axes are independent given the picture. Of a heatmap net it is the
   map's value at one cell; its coordinates are the soft-argmax. The place is chosen beforehand and stays
   where it is while the input changes; an argmax inside the target would ask about another place at every
   step.
2. The probabilities are those of the loss: softmax at inverse temperature beta, 10; the soft-argmax takes it
   too.
3. The baseline is zero in normalized space, the mean picture: black is a color that trousers have, and
   nothing black could receive any attribution from a black baseline.
4. Every stride of these nets is a convolution centered on pixel 0, so cell i of a layer of stride s is
   centered on pixel s * i. Grad-CAM's map is stretched that way; resized as a picture it would lie half a
   cell off. ViTPose's patches of 16, padded by 2, are centered on 16 i + 5.5, its decoder's cells on s * i
   + s/2 - 2.5.
5. A group of pixels that is taken away (occlusion, body parts) takes the mean picture's gray.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from posebook.codecs import SimCC
from posebook.models.transformer import Attention
from posebook.skeletons import Skeleton, side
from posebook.utils import unknown_name_error

# What Grad-CAM looks at where no layer is named: the last features that all joints share.
LAYERS = {
    "StarNetPose": "backbone.stages.3",
    "RTMPose": "backbone.stage4",
    "AMFACPose": "stages.3",
    "LAPX": "backbone_attention.2",
    "ViTPose": "backbone",
}
PARTS = ("background", "head", "trunk", "left arm", "right arm", "left leg", "right leg")


def bins_at(points: Tensor, input_size: tuple[int, int], per_pixel: float = 2.0) -> Tensor:
    """The x and y bins, or cells, that hold points (..., 2), given as (x, y) pixels of the input (H, W).

    per_pixel: bins a pixel, SimCC's split ratio; of a heatmap 1 / stride. Of a decoded joint these are the
    fullest bins; of an annotated one, the right ones. A point outside the input takes the bin at the edge.
    """
    last = [round(side * per_pixel) - 1 for side in (input_size[1], input_size[0])]
    bins = (points * per_pixel).round().long()
    return bins.clamp(min=torch.zeros_like(bins), max=torch.tensor(last, device=bins.device))  # (..., 2)


def log_prob_at(output: SimCC | list[Tensor], bins: Tensor, beta: float = 10.0, axes: str = "xy") -> Tensor:
    """How much a net holds each joint to be in the given bins, or cells: (B, K).

    output: what a model gives; bins (B, K, 2) as (x, y). Of SimCC the log-probability, summed over `axes`; of
    heatmaps the last map's height at the cell.
    """
    if isinstance(output, SimCC):
        chosen = [(getattr(output, axis), bins[..., i, None]) for i, axis in enumerate("xy") if axis in axes]
        return sum(torch.log_softmax(beta * line, -1).gather(2, at)[..., 0] for line, at in chosen)
    cells = bins[..., 1] * output[-1].shape[-1] + bins[..., 0]  # (B, K): counted along the rows
    return output[-1].flatten(2).gather(2, cells[..., None])[..., 0]


class JointTarget(nn.Module):
    """One number an image: how much a net believes a joint to be in the given bins, or where it is.

    model: any of the zoo; put into eval mode, so that the points of a path do not share batch statistics.
    joint: its name. what: 'place', which is the log-probability of the bins (SimCC) or the height of the map
    at the cell (heatmaps); 'x' or 'y', the log-probability of that axis' bin (SimCC) or the soft-argmax
    coordinate in pixels of the input (heatmaps). Raises ValueError, with the near names, for a joint or a
    target it does not know.
    """

    def __init__(self, model: nn.Module, joint: str, beta: float = 10.0, what: str = "place"):
        super().__init__()
        if joint not in model.skeleton.keypoints:
            raise unknown_name_error(joint, model.skeleton.keypoints, f"joint of {model.skeleton.name}")
        if what not in ("place", "x", "y"):
            raise unknown_name_error(what, ("place", "x", "y"), "target")
        self.model, self.joint = model.eval(), model.skeleton.keypoints.index(joint)
        self.beta, self.what = beta, what

    def forward(self, images: Tensor, bins: Tensor) -> Tensor:
        """images (B, 3, H, W) normalized and bins (B, 2) as (x, y), or cells, to numbers (B,)."""
        output, one = self.model(images), slice(self.joint, self.joint + 1)
        simcc = isinstance(output, SimCC)
        output = SimCC(*(line[:, one] for line in output)) if simcc else [output[-1][:, one]]
        if simcc or self.what == "place":
            axes = "xy" if self.what == "place" else self.what
            return log_prob_at(output, bins[:, None], self.beta, axes)[:, 0]
        line = marginals(output, self.beta)["xy".index(self.what)][:, 0]  # (B, w) or (B, h)
        cells = torch.arange(line.shape[1], device=line.device, dtype=line.dtype)
        return line @ cells * (images.shape[-1] // output[0].shape[-1])  # (B,)

    @cached_property
    def per_pixel(self) -> float:
        """Bins, or cells, a pixel of the input: what the model gives for a blank one tells."""
        height, width = self.model.input_size
        with torch.no_grad():
            output = self.model(next(self.model.parameters()).new_zeros(1, 3, height, width))
        return (output.x if isinstance(output, SimCC) else output[-1]).shape[-1] / width

    def bins(self, points: Tensor) -> Tensor:
        """The bins or cells of points (..., 2) in pixels of the input, as this model has them."""
        return bins_at(points, self.model.input_size, self.per_pixel)


def marginals(output: SimCC | list[Tensor], beta: float = 10.0) -> tuple[Tensor, Tensor]:
    """Where a net believes each joint to be, as chances over columns (B, K, Wx) and over rows (B, K, Wy).

    output: what a model gives. Of heatmaps the softmax over the last map's cells, summed along each axis.
    """
    if isinstance(output, SimCC):
        return tuple(torch.softmax(beta * line, -1) for line in output)
    maps = torch.softmax(beta * output[-1].flatten(2), -1).view_as(output[-1])  # (B, K, h, w)
    return maps.sum(2), maps.sum(3)  # (B, K, w), (B, K, h)


def entropy(output: SimCC | list[Tensor], beta: float = 10.0) -> Tensor:
    """How wide these beliefs are, (B, K): both axes' entropy over that of a uniform one, 0 to 1."""
    chances = marginals(output, beta)
    wide = sum(torch.special.entr(line).sum(-1) for line in chances)  # (B, K)
    return wide / sum(np.log(line.shape[-1]) for line in chances)


def find_layer(model: nn.Module, layer: str | None = None) -> nn.Module:
    """The submodule of this dotted name, None for the one in LAYERS; ValueError with near names for none."""
    modules = {name: module for name, module in model.named_modules() if name}
    layer = layer or LAYERS.get(type(model).__name__, "")
    if layer not in modules:
        raise unknown_name_error(layer, modules, f"layer of {type(model).__name__}")
    return modules[layer]


@torch.no_grad()
def capture_activations(
    model: nn.Module, images: Tensor, layers: Sequence[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """What goes into each of these layers and what comes out, by their dotted names, in one pass of images.

    Raises ValueError, with the near names, for a layer that is not there.
    """
    kept = {}
    hooks = [
        module.register_forward_hook(
            lambda _, inputs, output, layer=layer: kept.update({layer: (inputs[0], output)})
        )
        for layer, module in [(layer, find_layer(model, layer)) for layer in layers]
    ]
    try:
        model.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
    return kept


def retry_on_oom(call: Callable[[int], object], batch: int) -> object:
    """call(batch); with half the batch, and a warning that says so, for as long as memory does not suffice.

    Raises the last error where one at a time is too much.
    """
    while True:
        try:
            return call(batch)
        except (MemoryError, RuntimeError) as error:  # torch's, on a GPU and on a CPU, are RuntimeErrors
            words = str(error).lower()
            if batch == 1 or not (isinstance(error, MemoryError) or "memory" in words):
                raise
        batch //= 2
        warnings.warn(f"not enough memory: going on with {batch} pictures at once", stacklevel=2)


def integrated_gradients(
    target: JointTarget, images: Tensor, bins: Tensor, steps: int = 64, internal_batch_size: int = 32
) -> tuple[Tensor, Tensor]:
    """How much each pixel adds to the target, against the mean picture.

    images (B, 3, H, W) normalized, bins (B, 2) as (x, y). Returns attributions (B, H, W), the colors summed,
    and the convergence delta (B,): their sum minus the target's difference, 0 for an exact integral.
    steps: points of the Gauss-Legendre rule; internal_batch_size: how many go through the net at once.
    """
    from captum.attr import IntegratedGradients

    attributions, delta = retry_on_oom(
        lambda batch: IntegratedGradients(target).attribute(
            images,
            additional_forward_args=bins,
            n_steps=steps,
            internal_batch_size=max(batch, len(images)),
            return_convergence_delta=True,
        ),
        internal_batch_size,
    )
    return attributions.sum(1).detach(), delta.detach()  # (B, H, W), (B,)


def smooth_gradients(
    target: JointTarget, images: Tensor, bins: Tensor, noise: float = 0.3, samples: int = 16, seed: int = 0
) -> Tensor:
    """Gradient times input, (B, H, W), averaged over noisy copies of the pictures (SmoothGrad).

    noise: the deviation in normalized units, of which a picture's own is about 1. Draws from torch's global
    generator, which is put back.
    """
    from captum.attr import InputXGradient, NoiseTunnel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = NoiseTunnel(InputXGradient(target)).attribute(
            images,
            nt_samples=samples,
            nt_samples_batch_size=1,
            stdevs=noise,
            additional_forward_args=bins,
        )
    return found.sum(1).detach()  # (B, H, W)


def grad_cam(target: JointTarget, images: Tensor, bins: Tensor, layer: str | None = None) -> Tensor:
    """Where a layer's features speak for the target: (B, H, W), none below 0, linear between its cells.

    images (B, 3, H, W) normalized, bins (B, 2) as (x, y). layer: a submodule's dotted name, None for the one
    in LAYERS; raises ValueError, with the near names, where there is none.
    """
    from captum.attr import LayerGradCam

    module = find_layer(target.model, layer)
    images = images.detach().clone().requires_grad_()  # a graph to follow even where the weights are frozen
    method = LayerGradCam(target, module)
    cells = method.attribute(images, additional_forward_args=bins, relu_attributions=True)  # (B, 1, h, w)
    first = first_cell_center(target.model, images.shape[-1] // cells.shape[-1])
    return upsample_centered(cells.detach(), images.shape[-2:], first).squeeze(1)  # (B, H, W)


def first_cell_center(model: nn.Module, stride: int) -> float:
    """The pixel that cell 0 of a layer of this stride is centered on, on both axes; choice 4."""
    return stride / 2 - 2.5 if type(model).__name__ == "ViTPose" else 0.0


@torch.no_grad()
def attention_rollout(model: nn.Module, images: Tensor) -> Tensor:
    """How much of each token's information, after all blocks, began in each patch: (B, N, N), rows sum to 1.

    Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, equation 1: a block hands on
    half of what a token was and half of what it attends to, the mean over heads. images (B, 3, H, W)
    normalized; tokens are patches, row by row. Raises ValueError for a net that is no plain transformer.
    """
    layers = [name for name, module in model.named_modules() if isinstance(module, Attention)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no attention among tokens to follow")
    flow = None
    for layer, (tokens, _) in capture_activations(model, images, layers).items():
        weights = find_layer(model, layer).weights(tokens).mean(1)  # (B, N, N)
        step = (weights + torch.eye(weights.shape[-1], device=weights.device)) / 2
        flow = step if flow is None else step @ flow  # (B, N, N)
    return flow


def rollout_map(model: nn.Module, images: Tensor, points: Tensor) -> Tensor:
    """Where, by `rollout`, the patch under a point (B, 2) of each image has its information from: (B, H, W).

    Raises ValueError as `rollout` does.
    """
    flow = attention_rollout(model, images)  # (B, N, N)
    height, width = images.shape[-2:]
    stride = round((height * width / flow.shape[-1]) ** 0.5)
    first = first_cell_center(model, stride)
    cells = ((points - first) / stride).round().long()
    column, row = cells[:, 0].clamp(0, width // stride - 1), cells[:, 1].clamp(0, height // stride - 1)
    token = row * (width // stride) + column  # (B,)
    rows = flow[torch.arange(len(flow), device=flow.device), token]  # (B, N)
    return upsample_centered(rows.unflatten(1, (1, height // stride, -1)), (height, width), first).squeeze(1)


@torch.no_grad()
def occlusion_map(
    target: JointTarget, images: Tensor, bins: Tensor, window: int = 16, batch: int = 32
) -> Tensor:
    """How much the target falls where a square of `window` pixels is taken away: (B, H, W).

    The square moves by half its side; a pixel has the mean over the squares that cover it.
    """
    from captum.attr import Occlusion

    found = retry_on_oom(
        lambda at_once: Occlusion(target).attribute(
            images,
            sliding_window_shapes=(3, window, window),
            strides=(3, max(1, window // 2), max(1, window // 2)),
            baselines=0,
            additional_forward_args=bins,
            perturbations_per_eval=at_once,
        ),
        batch,
    )
    return found[:, 0]  # (B, H, W); the same in all colors


@torch.no_grad()
def part_ablation(model: nn.Module, images: Tensor, bins: Tensor, parts: Tensor) -> Tensor:
    """What every joint loses when a part of the picture is taken away: (B, K, len(PARTS)), nan if not there.

    bins (B, K, 2): where the joints are asked about; parts (B, H, W): a number of PARTS a pixel, as
    `body_parts` gives it. Captum's FeatureAblation is the same for one joint; here all share a pass.
    """
    whole, losses = log_prob_at(model(images), bins), []
    for part in range(len(PARTS)):
        kept = (parts != part)[:, None]  # (B, 1, H, W)
        lost = whole - log_prob_at(model(images * kept), bins)  # (B, K)
        losses.append(lost.masked_fill(kept.flatten(1).all(1, keepdim=True), torch.nan))
    return torch.stack(losses, 2)  # (B, K, parts)


def body_part_masks(keypoints: np.ndarray, skeleton: Skeleton, input_size: tuple[int, int]) -> np.ndarray:
    """Which part of PARTS lies at each pixel (H, W), drawn from joints (K, 3) as (x, y, v) of the input.

    Limbs are strips, trunk and head the hulls of their joints, made wider; in widths of the body's own size.
    Joints that are not labeled (v 0) draw nothing. Arms lie over the rest, as they mostly do.
    """
    drawn = np.zeros(input_size, np.uint8)
    points = np.round(keypoints[:, :2]).astype(np.int32)
    labeled = keypoints[:, 2] > 0
    size = np.ptp(keypoints[labeled, :2], axis=0).max() if labeled.any() else 0  # the longer side, pixels

    def known(k: int, words: Sequence[str]) -> bool:
        return labeled[k] and any(word in skeleton.keypoints[k] for word in words)

    def hull(words: Sequence[str], part: str, width: float) -> None:
        chosen = [k for k in range(len(points)) if known(k, words)]
        if chosen:
            outline = cv2.convexHull(points[chosen])
            cv2.fillConvexPoly(drawn, outline, PARTS.index(part))
            cv2.polylines(drawn, [outline], True, PARTS.index(part), max(1, round(width * size)))

    def strips(words: Sequence[str], limb: str, width: float) -> None:
        for a, b in skeleton.limbs:
            hands = {side(skeleton.keypoints[a]), side(skeleton.keypoints[b])}
            if known(a, words) and known(b, words) and len(hands) == 1 and "" not in hands:
                part = PARTS.index(f"{hands.pop()} {limb}")
                cv2.line(drawn, points[a].tolist(), points[b].tolist(), part, max(1, round(width * size)))

    hull(("shoulder", "hip", "neck", "thorax", "pelvis"), "trunk", 0.06)
    strips(("hip", "knee", "ankle"), "leg", 0.10)
    hull(("nose", "eye", "ear", "head", "neck"), "head", 0.10)
    strips(("shoulder", "elbow", "wrist"), "arm", 0.07)
    return drawn


def upsample_centered(cells: Tensor, input_size: tuple[int, int], first: float = 0.0) -> Tensor:
    """Spread a map (B, 1, h, w) over an input (H, W), cell i centered on pixel first + i H / h: (B, 1, H, W).

    Linear between centers; a pixel beyond the first or the last has that one's value.
    """
    shares = []
    for side_, count in zip(input_size, cells.shape[-2:], strict=True):
        numbers = torch.arange(count, device=cells.device)
        at = (torch.arange(side_, device=cells.device) - first) / (side_ // count)
        near_each = (1 - (at.clamp(0, count - 1)[:, None] - numbers).abs()).clamp(min=0)
        shares.append(near_each.to(cells.dtype))  # (H, h), (W, w)
    return shares[0] @ cells @ shares[1].T


def shuffle_weights(model: nn.Module, seed: int) -> nn.Module:
    """A copy of the model with the values of every weight tensor shuffled: same values, nothing learned.

    The model itself stays as it is. Buffers (batch norm's statistics) are kept.
    """
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return other
