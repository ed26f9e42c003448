"""What a training run keeps on disk, so that it can be stopped at any moment and go on where it was.

    RUN/lock                            held while a process trains here
    RUN/checkpoint-00001200.safetensors the state after so many steps; the last two are kept

1. A checkpoint is written to a temporary name, flushed and renamed: there is none that is half there. Should
   the disk have torn one all the same, the one before it is used.
2. The lock is the operating system's (flock): it is gone when its process and those of its loader are,
   however they ended; a loader's notice after some seconds, which are waited for.
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

KEEP_LAST = 2
LOCK_TIMEOUT = 10  # seconds that a lock is waited for


@dataclass
class TrainState:
    """All that changes while a net is trained."""

    model: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    identity: dict  # what makes it this run and no other; its hash names the run's folder
    step: int = 0
    seconds: float = 0.0  # of training before `started`
    started: float = field(default_factory=time.perf_counter)
    losses: list[float] = field(default_factory=list)  # of the epoch under way
    curve: list[dict] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """Where the net is."""
        return next(self.model.parameters()).device

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the run by name, the random states among them."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in entry.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

    def save(self, folder: Path) -> None:
        """Write a checkpoint whole or not at all, and remove all but the last two.

        Raises OSError where it cannot be written, and FloatingPointError for weights that are not finite,
        from which no run could go on; the one before stands.
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
        temporary = path.with_suffix(".tmp")
        try:
            safetensors.torch.save_file(self.state(), temporary, {"run": json.dumps(facts)})
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except (OSError, safetensors.SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            kept = list_checkpoints(folder)
            before = f"{kept[-1].name} stands" if kept else "there is none before it"
            raise OSError(
                f"the checkpoint of step {self.step} cannot be written to {folder}: {error}; {before}. "
                "With room made, the same command continues from there"
            ) from error
        for old in list_checkpoints(folder)[:-KEEP_LAST]:
            old.unlink()

    def resume(self, folder: Path) -> bool:
        """Take up the newest whole checkpoint; False where there is none.

        Says of a torn or foreign one that it is passed over; raises ValueError where no other is left.
        """
        torn = []
        for path in reversed(list_checkpoints(folder)):
            try:
                self._take(path)
            except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
                torn.append(f"{path} is no checkpoint of this run ({str(error).splitlines()[0]})")
                continue
            for line in torn:
                print(f"{line}: going on from {path.name}")
            return True
        if torn:
            raise ValueError(f"{torn[0]}, and none before it is; move it away to start anew")
        return False

    def _take(self, path: Path) -> None:
        with safetensors.safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["run"])
        if facts["identity"] != self.identity:
            raise ValueError("it is of another run")
        tensors = safetensors.torch.load_file(path)
        for prefix, module in (("model.", self.model), ("ema.", self.ema)):
            own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            module.load_state_dict(own)
        state: dict[int, dict] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, entry = name.split(".")
                # a moment lies in memory as its weight does, or sums are taken in another order
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
    """The checkpoints of a run's folder, oldest first."""
    return sorted(folder.glob("checkpoint-*.safetensors"))


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold a run's folder for this process; raises RuntimeError where another one trains in it."""
    with open(folder / "lock", "a+") as file:
        for attempt in range(LOCK_TIMEOUT + 1):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if attempt == LOCK_TIMEOUT:
                    file.seek(0)
                    raise RuntimeError(
                        f"{folder} is being trained in by process {file.read().strip() or 'unknown'}: "
                        "wait for it, or give this run another out_dir"
                    ) from error
                time.sleep(1)
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node()}")
        file.flush()
        yield
