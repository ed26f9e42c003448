"""Cost of a lifter for one window: exact, and as the papers count it."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from posebook.lifting.models import Lifter


def count(lifter: Lifter) -> dict[str, int]:
    """{"params", "macs", "flops"} for one window of lifter.frames frames; does not change the lifter.

    macs: all multiply-adds of linear layers and matrix products, including attention. flops: twice the
    multiply-adds of linear layers alone, which is what HoT's and KTPFormer's tables print. Lifters have no
    convolutions.
    """
    tensors = (*lifter.named_parameters(), *lifter.named_buffers())
    meta = {name: value.detach().to("meta") for name, value in tensors}
    training, linear = lifter.training, []
    lifter.eval()

    def count_linear(module: nn.Linear, _: tuple, output: torch.Tensor) -> None:
        linear.append(output.numel() * module.in_features)

    handles = [m.register_forward_hook(count_linear) for m in lifter.modules() if isinstance(m, nn.Linear)]
    x = torch.empty(1, lifter.frames, lifter.joints, lifter.channels, device="meta")
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            torch.func.functional_call(lifter, meta, (x,))
    finally:
        lifter.train(training)
        for handle in handles:
            handle.remove()
    params = sum(parameter.numel() for parameter in lifter.parameters())
    return {"params": params, "macs": counter.get_total_flops() // 2, "flops": 2 * sum(linear)}
