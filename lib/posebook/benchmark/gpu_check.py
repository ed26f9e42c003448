"""A check of a GPU in at most ten minutes: speed, latency, energy, agreement with the CPU, and resuming.

1. Each section runs in a process of its own, with a time limit. If one fails, crashes or hangs, the others
   still run, and the record states the reason.
2. GOALS are set by this project and are not measurements. On a CPU, the gradient of LAPX in
   bf16 and fp16 differs from float32 by about half of TOLERANCES, more than that of StarNet-Pose.
3. Hours are those of the schedule of the model's paper on COCO: epochs x people / people per second.
"""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from posebook import records
from posebook.benchmark import gpu_sections, stand_ins
from posebook.training import recipes

TOTAL = 590.0  # seconds for all sections
COCO_PEOPLE = 149_813  # of train2017
GOALS = {"starnet-pose-t": 10_000, "lapx": 2_500}  # people per second of training
BUSY_GOAL = 0.9
LATENCY_GOAL = 0.5  # milliseconds of the fastest runtime of StarNet-Pose-T
TOLERANCES = {"float32": 1e-3, "bf16": 0.5, "fp16": 0.15}  # of the gradient, relative to its norm
RESUME_TOLERANCE = 0.01  # relative to the change of the weights


@dataclass(frozen=True)
class Settings:
    """Sizes of the check. batch_size 0: that of the model's paper."""

    device: str = "cuda"
    models: tuple[str, ...] = ("starnet-pose-t", "lapx")
    input_size: tuple[int, int] = (256, 192)
    people: int = 1024
    batch_size: int = 0
    seconds: float = 5.0  # of each speed
    compile: bool = True
    runtimes: tuple[str, ...] = ("eager fp32", "eager fp16", "torch.compile fp32", "CUDA graph fp16")


# Tries the check itself on a CPU.
TINY = Settings("cpu", ("starnet-pose-t",), (64, 64), 16, 8, 0.1, False, ("eager fp32", "CUDA graph fp16"))


class Row(NamedTuple):
    """One line of the table. met: whether the goal is met; None without a goal or without a value."""

    what: str
    value: str
    goal: str = ""
    met: bool | None = None


def sections(settings: Settings) -> dict[str, tuple[float, str, dict]]:
    """Return the sections by name: time limit in seconds, function of `gpu_sections`, arguments."""
    found: dict[str, tuple[float, str, dict]] = {}
    for name in settings.models:
        found[f"train {name}"] = 60, "train_speed", {"model": name}
    for name in settings.models:
        found[f"latency {name}"] = 90, "latency", {"model": name}
    for name, limit in (("sample_speed", 60), ("agreement", 60), ("resume", 90)):
        found[name.replace("_", " ")] = limit, name, {}
    for name in settings.models if settings.compile else ():  # last, because compilation is slow
        found[f"train {name}, compiled"] = 120, "train_speed", {"model": name, "compile": True}
    return found


def run(settings: Settings, out_dir: str | Path = "reports") -> dict:
    """Run all sections, print a table, and return the record, which is written to OUT_DIR/records/."""
    metadata, start = records.RunMetadata(settings.device), time.monotonic()
    results: dict[str, dict] = {}
    for name, (limit, function, arguments) in sections(settings).items():
        begin = time.monotonic()
        try:
            left = min(limit, start + TOTAL - begin)
            results[name] = in_new_process(function, left, settings=asdict(settings), **arguments)
        except RuntimeError as error:
            results[name] = {"failed": str(error)}
        print(f"{name}: {results[name].get('failed', 'done')} ({time.monotonic() - begin:.0f} s)", flush=True)
    rows = table(results)
    if settings == TINY:
        print("tiny sizes: these numbers only try the check and are not comparable with the goals")
    print(as_text(rows), *bottlenecks(results), sep="\n")
    missing = [name for name in stand_ins.PACKAGES if stand_ins.is_stand_in(name)]
    if missing:
        print(f"stand-ins replaced packages that are not installed here: {', '.join(missing)}")
    record = records.build(
        "gpu-check",
        f"gpu-check-{settings.device.replace(':', '')}",
        metadata,
        model=None,
        dataset={"name": "random", "split": "train", "persons": settings.people},
        profile="paper",
        parameters=asdict(settings) | {"missing_packages": missing},
        protocol={"input_size": list(settings.input_size)},
        metrics={"goals_met": sum(row.met is True for row in rows), "sections": results},
        seed=0,
    )
    print(records.write(record, out_dir))
    return record


def in_new_process(function: str, limit: float, **arguments: object) -> dict:
    """Return the result of a function of `gpu_sections`. Raises RuntimeError with the reason if it fails."""
    if limit <= 0:
        raise RuntimeError("no time was left")
    words, environment = gpu_sections.command(function, **arguments)
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        words, env=environment, text=True, stdout=pipe, stderr=pipe, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not finished after {limit:.0f} s") from None
    finally:
        with suppress(ProcessLookupError):  # also its loader and compiler processes
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        raise RuntimeError((errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1][:300])
    return json.loads(output.splitlines()[-1])


def table(results: dict[str, dict]) -> list[Row]:
    """Return what was measured beside the goals."""
    rows = []
    for section, result in results.items():
        kind, _, rest = section.partition(" ")
        if "failed" in result:
            rows.append(Row(section, f"failed: {result['failed']}"))
        elif kind == "train":
            rows += _training_rows(section, result, rest.split(",")[0])
        elif kind == "latency":
            rows += _latency_rows(section, result, rest)
        elif kind == "sample":
            rows += [
                Row(f"samples, {name}", f"{result[name]:,.0f} people/s")
                for name in ("held", "raw", "jpeg")
                if name in result
            ]
        elif kind == "agreement":
            for name, value in result.items():
                limit = TOLERANCES[name.split()[1]]
                rows.append(Row(f"gradient {name}", f"{value:.1e}", f"up to {limit:g}", value <= limit))
        else:
            value, limit = result["difference"], RESUME_TOLERANCE
            rows.append(Row("resume after kill -9", f"{value:.1e}", f"up to {limit:g}", value <= limit))
    return rows


def _training_rows(section: str, result: dict, model: str) -> list[Row]:
    """Speed, hours, busy share and energy of a training."""
    speed, goal, busy = result["people_per_second"], GOALS[model], result["busy"]
    recipe = recipes.get("paper", model)
    rows = [Row(section, f"{speed:,.0f} people/s", f"{goal:,}", speed >= goal)]
    if tuple(result["input_size"]) == recipe.input_size:
        hours = recipe.epochs * COCO_PEOPLE / speed / 3600
        rows.append(Row(f"{section}: paper's schedule on COCO", f"{hours:,.1f} hours"))
    if busy is None:
        rows.append(Row(f"{section}: device busy", "not measured: no CUDA device, or no CUPTI"))
    else:
        rows.append(Row(f"{section}: device busy", f"{busy:.0%}", f"over {BUSY_GOAL:.0%}", busy > BUSY_GOAL))
    joules = result["joules_per_person"]
    energy = (
        "not measured: no meter (pip install nvidia-ml-py)" if joules is None else f"{joules:.3f} J/person"
    )
    rows.append(Row(f"{section}: energy", energy))
    return rows


def _latency_rows(section: str, result: dict, model: str) -> list[Row]:
    """Latency and energy of one image in each runtime. The goal is for the fastest one of StarNet-Pose-T."""
    timed = {name: row["milliseconds"] for name, row in result.items() if "milliseconds" in row}
    rows = []
    for name, row in result.items():
        value = row.get("why") or f"{row['milliseconds']:.2f} ms"
        if row.get("joules") is not None:
            value += f", {row['joules']:.3f} J"
        rows.append(Row(f"{section}, {name}", value))
        if model == "starnet-pose-t" and timed and name == min(timed, key=timed.__getitem__):
            rows[-1] = rows[-1]._replace(goal=f"under {LATENCY_GOAL} ms", met=timed[name] < LATENCY_GOAL)
    return rows


def as_text(rows: list[Row]) -> str:
    """Return the table as aligned text."""
    verdicts = {True: "met", False: "missed", None: ""}
    lines = [("", "measured", "goal", ""), *((r.what, r.value, r.goal, verdicts[r.met]) for r in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    padded = ([text.ljust(width) for text, width in zip(line, [*widths, 0], strict=True)] for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in padded)


def bottlenecks(results: dict[str, dict]) -> list[str]:
    """Return a line for each training that names what limits its speed."""
    lines = []
    for section, result in results.items():
        if "phases" not in result:
            continue
        phases, busy = result["phases"], result["busy"]
        shares = ", ".join(f"{name} {share:.0%}" for name, share in phases.items())
        longest = max(phases, key=phases.__getitem__)
        if busy is None:
            cause = f"the longest phase is {longest}"
        elif busy > BUSY_GOAL:
            cause = f"the device's work limits the speed, most in {longest}"
        else:
            cause = (
                f"the device waits for the host {1 - busy:.0%} of the time; the longest phase is {longest}"
            )
        lines.append(f"{section}: {cause} ({shares})")
    return lines
