"""Reliable timing of models: several runtimes side by side, in rounds, with all samples recorded.

1. Rounds: each runtime runs a few times, then the next one does. Each round has all runtimes, in a new
   random order. A change of the clock rate or a background process then affects all runtimes equally. Two
   runtimes are compared by their ratio in each round, not by their two medians. The threads of PyTorch and
   of ONNX Runtime wait actively for some time after their work, and the caches contain the data of the last
   runtime. So a runtime's turn begins with a pause of PAUSE seconds, and with untimed forward passes for
   equally long. Without them, the first pass of a turn took up to 1.8 times as long as the others. A forward
   pass that takes longer than LONG_PASS needs none: the effect is small beside it.
2. Before it is timed, a runtime runs until two consecutive groups of five forward passes have the same
   median, within 3 %. The limit is the warm-up of the StarNet-Pose authors, 50 forward passes
   (tools/benchmark_latency.py). They time 200 passes, one by one from the host, and print the mean. The
   summary here has the median, the 90th and 99th percentiles, and all samples.
3. The own time of a layer is its module's time minus its children's time, measured from the host in eager
   mode. Its multiply-adds and bytes (input, output and weights, each once) give its position under a roofline
   (Williams et al., CACM 2009). The two roofs are measured with a large matrix product and a large copy.
4. The times of a runtime are quiet if its rounds agree and the other processes use little of the processor
   meanwhile. Rounds agree if the interquartile range of their medians is at most ROUND_SPREAD of the overall
   median, and if the first forward pass of a round takes as long as the last one, up to ROUND_DRIFT: a
   runtime that disturbs the next one in every round does not change the medians of the rounds. On a loaded
   machine, `quiet_timing` waits, and repeats a measurement that is not quiet for each runtime.
5. Memory is measured in a new process: the resident size after some forward passes minus the resident size
   after the import of the runtime. The "RAM" of the LAPX document also excludes the interpreter and includes
   the session's buffers.
"""

import math
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

WARMUP, GROUP = 50, 5  # forward passes
PAUSE = 0.05  # seconds at the beginning of a turn
LONG_PASS = 0.1  # seconds
ROUND_SPREAD = 0.1  # the largest interquartile range of rounds that agree, relative to the median
ROUND_DRIFT = 0.15  # the largest difference of the first and the last pass of a round, relative to the last
QUIET_SHARE = 0.05  # the largest share of all cores that other processes use on a quiet machine


def clock(device: str = "cpu") -> Callable[[], float]:
    """Return a clock in milliseconds. On a GPU, it waits until the device has finished its work."""
    if torch.device(device).type == "cpu":
        return lambda: 1000 * time.perf_counter()

    def now() -> float:
        torch.cuda.synchronize(device)
        return 1000 * time.perf_counter()

    return now


def warm_up(
    run: Callable, images: Tensor, now: Callable[[], float], warmup: int = WARMUP, seconds: float = 4.0
) -> float:
    """Run until the times are stable (choice 2), and return the median of the last five in milliseconds.

    Stops after `warmup` forward passes, or after `seconds` and at least three passes.
    """
    samples: list[float] = []
    begin = now()
    while len(samples) < warmup and (len(samples) < 3 or now() - begin < 1000 * seconds):
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
    """Time functions on the same images: `count` rounds of samples in milliseconds for each function.

    A round has `each` timed forward passes, or fewer if `count` rounds would take longer than `seconds`, but
    at least three, or one if it takes longer than LONG_PASS (choice 1).
    """
    now = clock(device)
    timed_passes, untimed_passes = {}, {}
    for name, run in runs.items():
        milliseconds = warm_up(run, images, now, warmup, seconds)
        is_long = milliseconds > 1000 * LONG_PASS
        most = int(1000 * seconds / count / milliseconds)
        timed_passes[name] = min(each, max(1 if is_long else 3, most))
        untimed_passes[name] = 0 if is_long else math.ceil(1000 * PAUSE / milliseconds)
    samples: dict[str, list[list[float]]] = {name: [] for name in runs}
    shuffle = random.Random(0).shuffle
    for _ in range(count):
        shuffle(order := list(runs))
        for name in order:
            time.sleep(PAUSE)
            for _ in range(untimed_passes[name]):
                runs[name](images)
            times = []
            for _ in range(timed_passes[name]):
                start = now()
                runs[name](images)
                times.append(round(now() - start, 4))
            samples[name].append(times)
    return samples


def summarize(samples: list[list[float]]) -> dict:
    """Summarize one function's rounds: median, mean, p10, p90, p99, medians of the rounds, spread and drift.

    The spread is the interquartile range of the medians of the rounds, divided by the median of all samples.
    The drift is the median over rounds of the first sample divided by the last one, minus 1. The summary also
    contains the samples.
    """
    flat = np.concatenate([np.asarray(times) for times in samples])
    p10, median, p90, p99 = np.percentile(flat, [10, 50, 90, 99])
    medians = [float(np.median(times)) for times in samples]
    lower, upper = np.percentile(medians, [25, 75])
    return {
        "median": float(median),
        "mean": float(flat.mean()),
        "p10": float(p10),
        "p90": float(p90),
        "p99": float(p99),
        "rounds": medians,
        "spread": float((upper - lower) / median),
        "drift": float(np.median([times[0] / times[-1] for times in samples]) - 1),
        "samples": samples,
    }


def is_quiet(summary: dict, others_share: float | None) -> bool:
    """Whether one function's times are quiet (choice 4). An unknown share of other processes counts as 0."""
    agree = summary["spread"] <= ROUND_SPREAD and abs(summary["drift"]) <= ROUND_DRIFT
    return agree and (others_share or 0.0) <= QUIET_SHARE


def speedup(slow: dict, fast: dict) -> tuple[float, bool]:
    """Return how many times faster `fast` is, and whether the difference is significant.

    Both are summaries with the same number of rounds. The factor is the median of the ratios of the rounds.
    The difference is significant if all rounds but one have the same sign. With ten rounds, this happens by
    chance in 1 of 47 cases.
    """
    ratios = np.array(slow["rounds"]) / np.array(fast["rounds"])
    same_sign = max((ratios > 1).sum(), (ratios < 1).sum())
    return float(np.median(ratios)), bool(same_sign >= len(ratios) - 1)


def others_cpu_seconds(stat: Path = Path("/proc/stat")) -> float | None:
    """Seconds of processor time, over all cores, that other processes have used; None if unavailable.

    The time includes that of other virtual machines ("steal"). Only the difference of two readings has a
    meaning.
    """
    if not stat.exists():
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, stat.read_text().split()[1:9])
    own = os.times()
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK") - own.user - own.system


def quiet_timing(
    measure: Callable[[], dict[str, list[list[float]]]],
    max_wait: float,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    others: Callable[[], float | None] = others_cpu_seconds,
) -> tuple[dict[str, list[list[float]]], dict]:
    """Wait until the machine is quiet, measure, and repeat until the measurement is quiet (choice 4).

    Of several attempts, the one is kept with the fewest functions that are not quiet, then the one whose
    rounds agree best. Waiting and repeating end after max_wait
    seconds; a started attempt is completed. Returns the samples and the conditions: `attempts`,
    `waited_seconds` (all but the kept attempt), `load_before` and `load_after` (the system's load average),
    `others_share` (of all cores, used by other processes during the kept attempt), and `quiet`.
    """

    def watch(action: Callable) -> tuple[Any, float | None, float]:
        """The result, the share of the cores that others used meanwhile, and the seconds."""
        begin, used = now(), others()
        result = action()
        seconds = now() - begin
        share = None if used is None else ((others() or 0.0) - used) / (seconds * (os.cpu_count() or 1))
        return result, share and round(max(0.0, share), 3), seconds

    start, load_before, attempts, best = now(), load_average(), 0, None
    while True:
        while now() - start < max_wait and (watch(lambda: sleep(0.25))[1] or 0.0) > QUIET_SHARE:
            pass
        samples, share, seconds = watch(measure)
        attempts += 1
        summaries = [summarize(times) for times in samples.values()]
        noisy = sum(not is_quiet(summary, share) for summary in summaries)
        spread = max((summary["spread"] for summary in summaries), default=0.0)
        if best is None or (noisy, spread) < best[0]:
            best = (noisy, spread), samples, share, seconds
        if not noisy or now() - start - seconds >= max_wait:
            break
    (noisy, _), samples, share, seconds = best
    return samples, {
        "attempts": attempts,
        "waited_seconds": round(now() - start - seconds, 1),
        "load_before": load_before,
        "load_after": load_average(),
        "others_share": share,
        "quiet": not noisy,
    }


def load_average() -> float | None:
    """The system's load average over one minute; None if unavailable."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def machine_state() -> dict:
    """State of the machine that affects timings: load, governor, clock rates; None if unavailable."""
    folder = Path("/sys/devices/system/cpu/cpu0/cpufreq")

    def read(name: str) -> str | None:
        try:
            return (folder / name).read_text().strip()
        except OSError:
            return None

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    megahertz = [float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")]
    return {
        "load": load_average(),
        "cores": os.cpu_count(),
        "governor": read("scaling_governor"),
        "mhz": megahertz or None,
        "max_mhz": int(kilohertz) / 1000 if (kilohertz := read("cpuinfo_max_freq")) else None,
    }
