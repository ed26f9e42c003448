"""Energy per person, where the machine has a meter."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from posebook.benchmark import timing
from posebook.inference import runtimes

Meter = Callable[[], float]  # joules used so far


def joules_per_person(run: runtimes.InferenceFn, images: Tensor, meter: Meter, seconds: float = 2.0) -> float:
    """Joules for one person; the whole processor's or card's, idle draw included.

    Over seconds of forwards: NVML's counter moves every tenth of one or so.
    """
    now, forwards = timing.clock(str(images.device)), 0
    start, begun = meter(), now()
    while now() - begun < 1000 * seconds:
        run(images)
        forwards += 1
    return (meter() - start) / forwards / len(images)


def energy_meter(device: str = "cpu", root: str | Path = "/sys/class/powercap") -> Meter | None:
    """A meter of the energy used so far: NVML's of a GPU, RAPL's of a processor; None where neither tells.

    Over a difference of two readings: a RAPL counter that wraps between them makes it negative.
    """
    if torch.device(device).type == "cuda":
        try:
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(torch.device(device).index or 0)
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except Exception:  # no package, no driver, or a card that does not tell
            return None
        return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
    meters = [path / "energy_uj" for path in sorted(Path(root).glob("intel-rapl:?"))]
    try:
        for meter in meters:
            int(meter.read_text())
    except OSError:  # often for root alone
        return None
    return (lambda: sum(int(meter.read_text()) for meter in meters) / 1e6) if meters else None
