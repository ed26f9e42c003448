"""How a training runs: device, precision, processes, signals. Nothing here affects the result."""

import os
import signal
import threading
from dataclasses import dataclass
from datetime import timedelta

import torch

from posebook.utils import unknown_name_error

SAVE_EVERY = 500  # steps between checkpoints within an epoch


PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class RuntimeConfig:
    """How a run is carried out, as far as it is no matter of the recipe."""

    device: str
    workers: int = 0  # loader processes
    precision: str = "float32"  # of PRECISIONS
    compile: bool = False
    grad_accum_steps: int = 1  # parts that each batch is processed in
    save_every: int = SAVE_EVERY  # steps
    accelerator: object = None  # accelerate's, where there are several processes

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return self.accelerator.num_processes if self.accelerator else 1

    @property
    def rank(self) -> int:
        """Which of them this is."""
        return self.accelerator.process_index if self.accelerator else 0

    def any_rank(self, here: bool) -> bool:
        """Whether something holds in any of the processes."""
        if not self.accelerator:
            return here
        return bool(self.accelerator.reduce(torch.tensor(float(here), device=self.device)))

    def barrier(self) -> None:
        """Until all processes are here."""
        if self.accelerator:
            self.accelerator.wait_for_everyone()


def make_runtime(config: "TrainConfig") -> RuntimeConfig:  # noqa: F821 (config.py imports this file)
    """The runtime settings of a TrainConfig; several processes if torchrun has started them.

    Raises ValueError before any work for an unknown precision, a device that is not there, and for counts
    below 1.
    """
    if config.precision not in PRECISIONS:
        raise unknown_name_error(config.precision, PRECISIONS, "precision")
    for name in ("grad_accum_steps", "save_every"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}, not a whole number from 1 on")
    check_device(config.device)
    accelerator, device = None, config.device
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

        patience = InitProcessGroupKwargs(
            timeout=timedelta(hours=12)
        )  # others wait while one packs or evaluates
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)  # HRFormer has some
        accelerator = Accelerator(cpu=torch.device(device).type == "cpu", kwargs_handlers=[patience, unused])
        device = str(accelerator.device)
    return RuntimeConfig(
        device=device,
        workers=config.workers,
        precision=config.precision,
        compile=config.compile,
        grad_accum_steps=config.grad_accum_steps,
        save_every=config.save_every,
        accelerator=accelerator,
    )


def check_device(device: str) -> None:
    """Raise ValueError for a device that PyTorch does not know or does not have."""
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}: use cpu, cuda, cuda:1, ...") from error
    if kind == "cuda" and not torch.cuda.is_available():
        built = "this PyTorch is built without CUDA" if not torch.version.cuda else "no GPU is found"
        raise ValueError(f"device {device} is not available ({built}): use --device cpu")


class SigtermGuard:
    """Whether SIGTERM has come; only a program's main thread can be told."""

    def __init__(self):
        self.triggered = False
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "triggered", True))

    def restore(self) -> None:
        """Put back who was told before."""
        if hasattr(self, "before"):
            signal.signal(signal.SIGTERM, self.before)
