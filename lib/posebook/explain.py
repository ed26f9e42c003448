"""See why: a SimCC net as a captum target, for one joint at a time.

Integrated gradients: Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017, equation 1.
Grad-CAM: Selvaraju et al., ICCV 2017, equations 1 and 2. The test with weights that know nothing: Adebayo et
al., "Sanity Checks for Saliency Maps", NeurIPS 2018, section 3. Captum's code for the first two.

1. The target is the log-probability of one x bin plus that of one y bin: of the joint being at that place,
   since SimCC's axes are independent given the picture. The bins are chosen beforehand and stay where they
   are while the input changes; an argmax inside the target would ask about another place at every step.
2. The probabilities are those of the loss: softmax at inverse temperature beta, 10.
3. The baseline of integrated gradients is zero in normalised space, the mean picture: black is a colour that
   trousers have, and nothing black could receive any attribution from a black baseline.
4. Every stride of these nets is a convolution centred on pixel 0, so cell i of a stage of stride s is centred
   on pixel s * i. Grad-CAM's map is stretched that way; resized as a picture it would lie half a cell off.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posebook.codecs import SimCC
from posebook.names import near


def bins_at(points: Tensor, input_size: tuple[int, int], split_ratio: float = 2.0) -> Tensor:
    """The x and y bins (B, 2) that hold points (B, 2), given as (x, y) pixels of the input (H, W).

    Of a decoded joint these are the fullest bins; of an annotated one, the right ones. A point outside the
    input takes the bin at the edge.
    """
    last = [round(side * split_ratio) - 1 for side in (input_size[1], input_size[0])]
    bins = (points * split_ratio).round().long()
    return bins.clamp(min=torch.zeros_like(bins), max=torch.tensor(last, device=bins.device))  # (B, 2)


class JointTarget(nn.Module):
    """One number an image: the log-probability that a joint lies in the given bins.

    model: gives SimCC logits x (B, K, Wx) and y (B, K, Wy); put into eval mode, so that the points of a path
    do not share batch statistics. joint: its name. Raises ValueError, with the near names, for another one.
    """

    def __init__(self, model: nn.Module, joint: str, beta: float = 10.0):
        super().__init__()
        if joint not in model.skeleton.keypoints:
            raise near(joint, model.skeleton.keypoints, f"joint of {model.skeleton.name}")
        self.model, self.joint, self.beta = model.eval(), model.skeleton.keypoints.index(joint), beta

    def forward(self, images: Tensor, bins: Tensor) -> Tensor:
        """images (B, 3, H, W) normalised and bins (B, 2) as (x, y) to log-probabilities (B,)."""
        output, total = self.model(images), 0.0
        if not isinstance(output, SimCC):
            raise TypeError(f"{type(self.model).__name__} gives heatmaps; only coordinate classifiers so far")
        for logits, chosen in zip(output, bins.unbind(1), strict=True):
            logs = torch.log_softmax(self.beta * logits[:, self.joint], -1)  # (B, bins)
            total = total + logs.gather(1, chosen[:, None]).squeeze(1)  # (B,)
        return total


def integrated_gradients(
    model: nn.Module, images: Tensor, joint: str, bins: Tensor, steps: int = 64, internal_batch_size: int = 32
) -> tuple[Tensor, Tensor]:
    """How much each pixel adds to the log-probability of a joint's bins, against the mean picture.

    images (B, 3, H, W) normalised, bins (B, 2) as (x, y). Returns attributions (B, H, W), the colours summed,
    and the convergence delta (B,): their sum minus the target's difference, 0 for an exact integral.
    steps: points of the Gauss-Legendre rule; internal_batch_size: how many go through the net at once.
    """
    from captum.attr import IntegratedGradients

    attributions, delta = IntegratedGradients(JointTarget(model, joint)).attribute(
        images,
        additional_forward_args=bins,
        n_steps=steps,
        internal_batch_size=max(internal_batch_size, len(images)),
        return_convergence_delta=True,
    )
    return attributions.sum(1).detach(), delta.detach()  # (B, H, W), (B,)


def grad_cam(
    model: nn.Module, images: Tensor, joint: str, bins: Tensor, layer: str = "backbone.stages.3"
) -> Tensor:
    """Where a layer's features speak for a joint's bins: (B, H, W), none below 0, linear between its cells.

    images (B, 3, H, W) normalised, bins (B, 2) as (x, y). layer: a submodule's dotted name, by default the
    last stage; raises ValueError, with the near names, where there is none.
    """
    from captum.attr import LayerGradCam

    modules = dict(model.named_modules())
    if layer not in modules:
        raise near(layer, filter(None, modules), f"layer of {type(model).__name__}")
    images = images.detach().clone().requires_grad_()  # a graph to follow even where the weights are frozen
    method = LayerGradCam(JointTarget(model, joint), modules[layer])
    cells = method.attribute(images, additional_forward_args=bins, relu_attributions=True)  # (B, 1, h, w)
    return stretch(cells.detach(), images.shape[-2:]).squeeze(1)  # (B, H, W)


def stretch(cells: Tensor, input_size: tuple[int, int]) -> Tensor:
    """Spread a map (B, 1, h, w) over an input (H, W), cell i centred on pixel i * H / h: (B, 1, H, W)."""
    (height, width), (h, w) = input_size, cells.shape[-2:]
    spans = ((h - 1) * (height // h) + 1, (w - 1) * (width // w) + 1)  # from the first centre to the last
    inner = F.interpolate(cells, spans, mode="bilinear", align_corners=True)
    return F.pad(inner, (0, width - spans[1], 0, height - spans[0]), mode="replicate")


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """A copy of the model with the values of every weight tensor shuffled: same values, nothing learnt.

    The model itself stays as it is. Buffers (batch norm's statistics) are kept.
    """
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return other
