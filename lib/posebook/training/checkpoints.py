"""Files of a training run from which it can resume after an interruption at any time.

    RUN/lock                            locked while a process trains in this folder
    RUN/checkpoint-00001200.safetensors the state after step 1200; the last two are kept

1. A checkpoint is written to a temporary file, flushed and renamed, so that no partial file gets its name. If
   a file is damaged nevertheless, the previous one is used.
2. The lock is flock of the operating system. It is released when the process and its data loader processes
   have ended, in whatever way. Loader processes may need some seconds to notice, so the next run waits.
"""

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from posebook.utils import atomic_write

KEEP_LAST = 2  # checkpoints per run
LOCK_TIMEOUT = 10  # seconds


@dataclass
class TrainState:
    """Everything that changes during training."""

    model: nn.Module
    ema: nn.Module  # moving average of the weights
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    identity: dict  # the facts that identify the run; their hash is part of its folder's name
    step: int = 0  # optimizer steps done
    seconds: float = 0.0  # training time before `started`
    started: float = field(default_factory=time.perf_counter)
    losses: list[float] = field(default_factory=list)  # of the steps in the current epoch
    curve: list[dict] = field(default_factory=list)  # one entry per finished epoch

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors of the run by name, including the states of the random number generators."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in entry.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

    def save(self, folder: Path) -> None:
        """Write a checkpoint and delete all but the last two.

        Raises OSError if it cannot be written, and FloatingPointError if a weight is not finite. In both
        cases the previous checkpoint remains.
        """
        for name, value in self.model.named_parameters():
            if not value.isfinite().all():
                raise FloatingPointError(f"{name} is not finite after step {self.step}")
        facts = {
            "identity": self.identity,
            "step": self.step,
            "seconds": self.seconds + time.perf_counter() - self.started,
            "losses": self.losses,
            "curve": self.curve,
            "scaler": self.scaler.state_dict(),
        }
        path = folder / f"checkpoint-{self.step:08d}.safetensors"
        try:
            with atomic_write(path) as temporary:
                safetensors.torch.save_file(self.tensors(), temporary, {"run": json.dumps(facts)})
        except (OSError, safetensors.SafetensorError) as error:
            saved = list_checkpoints(folder)
            previous = f"the last checkpoint is {saved[-1].name}" if saved else "there is no checkpoint yet"
            raise OSError(
                f"cannot write the checkpoint of step {self.step} to {folder}: {error}; {previous}. "
                "Free some space, then run the same command again to resume"
            ) from error
        for old in list_checkpoints(folder)[:-KEEP_LAST]:
            old.unlink()

    def resume(self, folder: Path) -> bool:
        """Load the newest valid checkpoint of a folder. Return False if the folder has none.

        Prints a line for each checkpoint that is damaged or belongs to another run. Raises ValueError if
        there are only such checkpoints.
        """
        invalid = []
        for path in reversed(list_checkpoints(folder)):
            try:
                self._load(path)
            except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
                invalid.append(f"{path} is not a checkpoint of this run ({str(error).splitlines()[0]})")
                continue
            for line in invalid:
                print(f"{line}: using {path.name} instead")
            return True
        if invalid:
            raise ValueError(f"{invalid[0]}, and no earlier one is valid: move it away to start from scratch")
        return False

    def _load(self, path: Path) -> None:
        with safetensors.safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["run"])
        if facts["identity"] != self.identity:
            raise ValueError("it belongs to another run")
        tensors = safetensors.torch.load_file(path)
        for prefix, module in (("model.", self.model), ("ema.", self.ema)):
            own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            module.load_state_dict(own)
        state: dict[int, dict] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, entry = name.split(".")
                # The file stores contiguous tensors. A moment must have the memory format of its weight:
                # otherwise sums run in another order, and the resumed run is not bit-exact.
                layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
                state.setdefault(int(index), {})[entry] = value.contiguous(memory_format=layout)
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})
        self.scaler.load_state_dict(facts["scaler"])
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        self.step, self.seconds = facts["step"], facts["seconds"]
        self.losses, self.curve = facts["losses"], facts["curve"]


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a run's folder, oldest first."""
    return sorted(folder.glob("checkpoint-*.safetensors"))


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Lock a run's folder for this process. Raises BlockingIOError if another process trains in it."""
    with open(folder / "lock", "a+") as file:
        for attempt in range(LOCK_TIMEOUT + 1):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if attempt == LOCK_TIMEOUT:
                    file.seek(0)
                    raise BlockingIOError(
                        f"process {file.read().strip() or 'unknown'} is training in {folder}: "
                        "wait for it, or set another out_dir for this run"
                    ) from error
                time.sleep(1)
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node()}")
        file.flush()
        yield
