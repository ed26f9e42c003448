"""Energy per person, if the machine has an energy meter."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from posebook.benchmark import timing
from posebook.inference import runtimes

Meter = Callable[[], float]  # returns the energy used so far, in joules


def joules_per_person(
    run: runtimes.InferenceFn, images: Tensor, meter: Meter, seconds: float = 2.0
) -> float | None:
    """Joules per person of the entire processor or GPU, including its idle power.

    The forward passes are repeated for `seconds`, because NVML updates its counter only about ten times per
    second. None if the counter wrapped around meanwhile.
    """
    now, forwards = timing.clock(str(images.device)), 0
    start_joules, start = meter(), now()
    while now() - start < 1000 * seconds:
        run(images)
        forwards += 1
    used = meter() - start_joules
    return used / forwards / len(images) if used >= 0 else None


def energy_meter(device: str = "cpu", root: str | Path = "/sys/class/powercap") -> Meter | None:
    """Return the energy meter of a GPU (NVML) or of a processor (RAPL), or None if unavailable.

    A RAPL counter can wrap around between two readings. Their difference is then negative.
    """
    if torch.device(device).type == "cuda":
        try:
            import pynvml

            pynvml.nvmlInit()
            # by UUID, because NVML has its own order of devices and ignores CUDA_VISIBLE_DEVICES
            uuid = torch.cuda.get_device_properties(torch.device(device)).uuid
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except Exception:  # no package, no driver, or a GPU without this counter
            return None
        return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3  # NVML counts millijoules
    zones = sorted(Path(root).glob("intel-rapl:?"))
    # "psys" is the whole platform, which contains the packages
    zones = [zone for zone in zones if not _is_platform(zone)]
    counters = [zone / "energy_uj" for zone in zones]
    try:
        for counter in counters:
            int(counter.read_text())
    except OSError:  # often only root may read the counters
        return None
    return (lambda: sum(int(counter.read_text()) for counter in counters) / 1e6) if counters else None


def _is_platform(zone: Path) -> bool:
    name = zone / "name"
    return name.is_file() and name.read_text().strip() == "psys"
