"""Cost of a lifter for one window: exact, and as the papers count it."""

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from posebook.complexity import record_calls
from posebook.lifting.models import Lifter


def count(lifter: Lifter) -> dict[str, int]:
    """{"params", "macs", "flops"} for one window of lifter.frames frames; the lifter stays unchanged.

    macs: all multiply-adds of linear layers and matrix products, including attention. flops: twice the
    multiply-adds of linear layers alone, which is what HoT's and KTPFormer's tables print. Lifters have no
    convolutions.
    """
    linear = [module for module in lifter.modules() if isinstance(module, nn.Linear)]
    with FlopCounterMode(display=False) as counter:
        calls = record_calls(lifter, linear, (1, lifter.frames, lifter.joints, lifter.channels))
    return {
        "params": sum(parameter.numel() for parameter in lifter.parameters()),
        "macs": counter.get_total_flops() // 2,
        "flops": 2 * sum(output.numel() * module.in_features for module, _, output in calls),
    }
