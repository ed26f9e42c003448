"""Parameters and multiply-adds of a model, counted without running it on data."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count(model: nn.Module, input_size: tuple[int, int]) -> dict:
    """{"params": int, "macs": {"exact": int}} for one image of input_size (height, width).

    exact: multiply-adds of convolutions, linear layers and matrix products, by torch's own counter on the
    meta device, where no fused kernel hides a product.
    """
    params = sum(parameter.numel() for parameter in model.parameters())
    meta = {name: value.to("meta") for name, value in (*model.named_parameters(), *model.named_buffers())}
    training = model.training
    model.eval()
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            torch.func.functional_call(model, meta, (torch.empty(1, 3, *input_size, device="meta"),))
    finally:
        model.train(training)
    return {"params": params, "macs": {"exact": counter.get_total_flops() // 2}}
