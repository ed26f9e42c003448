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
    parts: int = 1  # that a batch is taken in at first
    save_every: int = SAVE_EVERY  # steps
    accelerator: object = None  # accelerate's, where there are several processes

    @property
    def world(self) -> int:
        """How many processes train together."""
        return self.accelerator.num_processes if self.accelerator else 1

    @property
    def rank(self) -> int:
        """Which of them this is."""
        return self.accelerator.process_index if self.accelerator else 0

    def any(self, here: bool) -> bool:
        """Whether something holds in any of the processes."""
        if not self.accelerator:
            return here
        return bool(self.accelerator.reduce(torch.tensor(float(here), device=self.device)))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.accelerator:
            self.accelerator.wait_for_everyone()


def make_runtime(device: str, precision: str, **more: object) -> RuntimeConfig:
    """`How` a run is carried out; several processes where torchrun has started them.

    Raises ValueError for a precision it does not know and for no parts or steps, before any work.
    """
    if precision not in PRECISIONS:
        raise unknown_name_error(precision, PRECISIONS, "precision")
    for name in ("parts", "save_every"):
        if more.get(name, 1) < 1:
            raise ValueError(f"{name} is {more[name]}, not a whole number from 1 on")
    accelerator = None
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

        accelerator = Accelerator(
            cpu=torch.device(device).type == "cpu",
            kwargs_handlers=[
                InitProcessGroupKwargs(
                    timeout=timedelta(hours=12)
                ),  # others wait while one packs or evaluates
                DistributedDataParallelKwargs(find_unused_parameters=True),  # HRFormer has some
            ],
        )
        device = str(accelerator.device)
    return RuntimeConfig(device, precision=precision, accelerator=accelerator, **more)


class SigtermGuard:
    """Whether SIGTERM has come; only a program's main thread can be told."""

    def __init__(self):
        self.yes = False
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "yes", True))

    def over(self) -> None:
        """Put back who was told before."""
        if hasattr(self, "before"):
            signal.signal(signal.SIGTERM, self.before)
