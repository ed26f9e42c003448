"""Train in this process, or with torchrun in several processes or on several machines.

The processes that torchrun starts run `python -m posebook.training` with the same TrainConfig.
"""

import ctypes
import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from posebook.training import trainer
from posebook.training.config import TrainConfig, changed_fields


def train(config: TrainConfig, torchrun: str = "") -> dict:
    """Train with `trainer.train`, in this process or in those that torchrun starts, and return the record.

    torchrun: options of torchrun, such as "--nproc-per-node 2", or a whole command that contains the word
    torchrun, such as "srun --nodes 2 torchrun --nnodes 2 ..."; "" for this process. What the processes print
    is printed here too, and their result is read from the record that they write. SIGTERM is passed on to
    them. Raises the errors of `trainer.train`, and RuntimeError if torchrun fails.
    """
    if not torchrun:
        return trainer.train(config)
    words = shlex.split(torchrun)
    words = words if "torchrun" in words else ["torchrun", *words]
    place = words.index("torchrun")
    words[place : place + 1] = [sys.executable, "-m", "torch.distributed.run"]
    lines = run_command([*words, "-m", "posebook.training", *command_line(config)])
    paths = [line for line in lines if line.endswith(".json") and Path(line).is_file()]
    if not paths:
        raise RuntimeError("torchrun ended without a record; its messages are above")
    return json.loads(Path(paths[-1]).read_text())


def command_line(config: TrainConfig) -> list[str]:
    """The options of `posebook train` that give this config; defaults are left out."""
    words, defaults = [], TrainConfig()
    for name, value in changed_fields(config).items():
        words.append("--" + name.replace("_", "-"))
        if isinstance(getattr(defaults, name), dict):
            words.append(json.dumps(value))
        elif isinstance(value, dict):
            words.append(",".join(f"{key}={part}" for key, part in value.items()))
        elif isinstance(value, list):
            words.append(",".join(map(str, value)))
        elif value is not True:
            words.append(str(value))
    return words


def run_command(words: list[str]) -> list[str]:
    """Run a command, print its output as it appears, and return the lines of its output.

    The command gets SIGTERM if this process gets it or, on Linux, if this process ends in any way. Raises
    RuntimeError if the command fails.
    """
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=end_with_parent if sys.platform == "linux" else None,
    )
    assert process.stdout
    previous = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    output = b""
    try:
        while part := process.stdout.read1():  # type: ignore[attr-defined]  # a BufferedReader
            sys.stdout.write(part.decode(errors="replace"))
            output += part
    except BaseException:  # such as KeyboardInterrupt
        process.terminate()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    if status := process.wait():
        raise RuntimeError(f"{shlex.join(words[:6])} ... failed with status {status}; its messages are above")
    return output.decode(errors="replace").splitlines()


def end_with_parent() -> None:
    """Let the kernel send SIGTERM to this process when its parent ends (prctl, PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
