"""What a lifter costs for one window, exactly and as its papers print it."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from posebook.lifting.models import Lifter


def count(lifter: Lifter) -> dict:
    """{"params", "macs", "flops"} of one window of lifter.frames frames; the lifter stays as it was.

    macs: every multiply-add of linear layers and matrix products, attention's among them; flops: twice the
    multiply-adds of linear layers alone (there is no convolution), which is what HoT's and KTPFormer's
    tables print.
    """
    tensors = (*lifter.named_parameters(), *lifter.named_buffers())
    meta = {name: value.detach().to("meta") for name, value in tensors}
    training, linear = lifter.training, []
    lifter.eval()

    def look(module: nn.Linear, inputs: tuple, output: torch.Tensor) -> None:
        linear.append(output.numel() * module.in_features)

    handles = [m.register_forward_hook(look) for m in lifter.modules() if isinstance(m, nn.Linear)]
    x = torch.empty(1, lifter.frames, lifter.joints, lifter.channels, device="meta")
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            torch.func.functional_call(lifter, meta, (x,))
    finally:
        lifter.train(training)
        for handle in handles:
            handle.remove()
    return {
        "params": sum(parameter.numel() for parameter in lifter.parameters()),
        "macs": counter.get_total_flops() // 2,
        "flops": 2 * sum(linear),
    }
