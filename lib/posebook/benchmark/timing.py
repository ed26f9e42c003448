"""How long a net takes, in a way that holds up: many forms side by side, in rounds, every sample kept.

1. Rounds: each form runs a few times, then the next, and all again, so that a clock that falls or another
   program hits all alike. Two forms are told apart by their ratio round by round, not by two medians.
2. Before it is timed a form runs until two neighboring groups of five forwards have the same median, or for
   as long as the StarNet-Pose authors warm up: 50 forwards (tools/benchmark_latency.py; they time 200, one by
   one from the host, and print the mean). Median, 90th and 99th percentile and every sample are kept here.
3. A layer's own time is its module's less its children's, timed from the host in eager mode. Multiply-adds
   and bytes (input, output, weights, each once) place it under a roofline (Williams et al., CACM 2009) whose
   two roofs are measured: a large matrix product, and a large copy.
4. Memory is that of a fresh process: resident pages after the runtime is imported are taken from those after
   some forwards (the LAPX document's "RAM" leaves the interpreter out and has the session's buffers in).
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

WARMUP, GROUP = 50, 5


def clock(device: str = "cpu") -> Callable[[], float]:
    """Milliseconds from the host, after the device has done all it was given."""
    if torch.device(device).type == "cpu":
        return lambda: 1000 * time.perf_counter()

    def now() -> float:
        torch.cuda.synchronize(device)
        return 1000 * time.perf_counter()

    return now


def warm_up(
    run: Callable, images: Tensor, now: Callable[[], float], warmup: int = WARMUP, seconds: float = 4.0
) -> float:
    """Run until it is steady (choice 2), for `seconds` at most; the last five forwards' median in ms."""
    samples, begun = [], now()
    while len(samples) < warmup and (len(samples) < 3 or now() - begun < 1000 * seconds):
        start = now()
        run(images)
        samples.append(now() - start)
        if len(samples) >= 3 * GROUP:
            before, last = np.median(samples[-2 * GROUP : -GROUP]), np.median(samples[-GROUP:])
            if abs(last - before) <= 0.03 * before:
                break
    return float(np.median(samples[-GROUP:]))


def interleaved_timing(
    runs: dict[str, Callable], images: Tensor, device: str = "cpu", count: int = 10, each: int = 20,
    seconds: float = 4.0, warmup: int = WARMUP,
) -> dict[str, list[list[float]]]:  # fmt: skip
    """Time forms on the same images: of each form `count` rounds of milliseconds.

    A round holds `each` forwards, or as many as fit where `count` rounds would take longer than `seconds`.
    """
    now, sizes = clock(device), {}
    for name, run in runs.items():
        took = warm_up(run, images, now, warmup, seconds)
        sizes[name] = max(1, min(each, int(1000 * seconds / count / took)))
    samples = {name: [] for name in runs}
    for _ in range(count):
        for name, run in runs.items():
            times = []
            for _ in range(sizes[name]):
                start = now()
                run(images)
                times.append(round(now() - start, 4))
            samples[name].append(times)
    return samples


def summarize(samples: list[list[float]]) -> dict:
    """Of one form's rounds: median, mean, p10, p90, p99, each round's median, their spread, and all samples.

    The spread is the rounds' largest median less their smallest, over the median of all.
    """
    flat = np.concatenate([np.asarray(part) for part in samples])
    p10, median, p90, p99 = np.percentile(flat, [10, 50, 90, 99])
    medians = [float(np.median(part)) for part in samples]
    return {
        "median": float(median),
        "mean": float(flat.mean()),
        "p10": float(p10),
        "p90": float(p90),
        "p99": float(p99),
        "rounds": medians,
        "spread": (max(medians) - min(medians)) / float(median),
        "samples": samples,
    }


def speedup(slow: dict, fast: dict) -> tuple[float, bool]:
    """How many times as fast, as the median over rounds of their ratio; and whether all rounds but one agree.

    Both are summaries of one `rounds`. With ten rounds, nine that agree by chance alone are one in 47.
    """
    ratios = np.array(slow["rounds"]) / np.array(fast["rounds"])
    agree = max((ratios > 1).sum(), (ratios < 1).sum())
    return float(np.median(ratios)), bool(agree >= len(ratios) - 1)


def machine_state() -> dict:
    """What else moves a timing: load, governor, clocks; None where the system is silent."""
    folder = Path("/sys/devices/system/cpu/cpu0/cpufreq")

    def said(name: str) -> str | None:
        try:
            return (folder / name).read_text().strip()
        except OSError:
            return None

    clocks = Path("/proc/cpuinfo")
    lines = clocks.read_text().splitlines() if clocks.exists() else []
    megahertz = [float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")]
    return {
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "cores": os.cpu_count(),
        "governor": said("scaling_governor"),
        "mhz": megahertz or None,
        "max_mhz": int(top) / 1000 if (top := said("cpuinfo_max_freq")) else None,
    }
