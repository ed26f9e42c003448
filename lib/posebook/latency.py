"""How long a net takes, in a way that holds up: many forms side by side, in rounds, every sample kept.

1. Rounds: each form runs a few times, then the next, and all again, so that a clock that falls or another
   program hits all alike. Two forms are told apart by their ratio round by round, not by two medians.
2. Before it is timed a form runs until two neighbouring groups of five forwards have the same median, or for
   as long as the StarNet-Pose authors warm up: 50 forwards (tools/benchmark_latency.py; they time 200, one by
   one from the host, and print the mean). Median, 90th and 99th percentile and every sample are kept here.
3. A layer's own time is its module's less its children's, timed from the host in eager mode. Multiply-adds
   and bytes (input, output, weights, each once) place it under a roofline (Williams et al., CACM 2009) whose
   two roofs are measured: a large matrix product, and a large copy.
4. Memory is that of a fresh process: resident pages after the runtime is imported are taken from those after
   some forwards (the LAPX document's "RAM" leaves the interpreter out and has the session's buffers in).
"""

import os
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WARMUP, GROUP = 50, 5
Meter = Callable[[], float]  # joules used so far


def clock(device: str = "cpu") -> Callable[[], float]:
    """Milliseconds from the host, after the device has done all it was given."""
    if torch.device(device).type == "cpu":
        return lambda: 1000 * time.perf_counter()

    def now() -> float:
        torch.cuda.synchronize(device)
        return 1000 * time.perf_counter()

    return now


def settle(
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


def rounds(
    runs: dict[str, Callable], images: Tensor, device: str = "cpu", count: int = 10, each: int = 20,
    seconds: float = 4.0, warmup: int = WARMUP,
) -> dict[str, list[list[float]]]:  # fmt: skip
    """Time forms on the same images: of each form `count` rounds of milliseconds.

    A round holds `each` forwards, or as many as fit where `count` rounds would take longer than `seconds`.
    """
    now, sizes = clock(device), {}
    for name, run in runs.items():
        took = settle(run, images, now, warmup, seconds)
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


def summary(samples: list[list[float]]) -> dict:
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


def ratio(slow: dict, fast: dict) -> tuple[float, bool]:
    """How many times as fast, as the median over rounds of their ratio; and whether all rounds but one agree.

    Both are summaries of one `rounds`. With ten rounds, nine that agree by chance alone are one in 47.
    """
    ratios = np.array(slow["rounds"]) / np.array(fast["rounds"])
    agree = max((ratios > 1).sum(), (ratios < 1).sum())
    return float(np.median(ratios)), bool(agree >= len(ratios) - 1)


def surroundings() -> dict:
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


def joules(device: str = "cpu", root: str | Path = "/sys/class/powercap") -> Meter | None:
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


class _Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive while a net runs, its weights and input left out."""

    def __init__(self, known: list[Tensor]):
        super().__init__()
        self.seen = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if (
                isinstance(tensor, Tensor)
                and (pointer := tensor.untyped_storage().data_ptr()) not in self.seen
            ):
                self.seen.add(pointer)
                storage = tensor.untyped_storage()
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, pointer, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _gone(self, pointer: int, size: int) -> None:
        self.seen.discard(pointer)
        self.now -= size


@torch.no_grad()
def activations(model: nn.Module, images: Tensor) -> int:
    """Bytes of the largest set of tensors alive at once in a forward, weights and input left out."""
    known = [*model.parameters(), *model.buffers(), images]
    with _Alive(known) as alive:
        model.eval()(images)
    return alive.peak


RESIDENT = """
import os, sys
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
path, threads = sys.argv[1], int(sys.argv[2])
{load}
before = resident()
{make}
for _ in range(10):
    {run}
print(resident() - before)
"""
RUNTIMES = {
    "ONNX Runtime fp32": {
        "load": "import numpy, onnxruntime",
        "make": "options = onnxruntime.SessionOptions(); options.intra_op_num_threads = threads\n"
        "net = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])\n"
        "given = {i.name: numpy.zeros(i.shape, 'float32') for i in net.get_inputs()}",
        "run": "net.run(None, given)",
    },
    "OpenVINO fp32": {
        "load": "import numpy, openvino\n"
        "core = openvino.Core()\n"
        "core.get_property('CPU', 'DEVICE_ARCHITECTURE')",
        "make": "net = core.compile_model(path, 'CPU', {'PERFORMANCE_HINT': 'LATENCY', "
        "'INFERENCE_NUM_THREADS': threads, 'INFERENCE_PRECISION_HINT': 'f32'}).create_infer_request()\n"
        "given = {0: numpy.zeros(tuple(net.model_inputs[0].shape), 'float32')}",
        "run": "net.infer(given)",
    },
}


def resident(form: str, onnx: str | Path, threads: int) -> float | None:
    """MiB of a fresh process that holds one ONNX file in a runtime, less the runtime's own (choice 4).

    None on systems that keep no /proc.
    """
    if not Path("/proc/self/statm").exists():
        return None
    script = RESIDENT.format(**RUNTIMES[form])
    done = subprocess.run(
        [sys.executable, "-c", script, str(onnx), str(threads)], capture_output=True, text=True, check=True
    )
    return int(done.stdout) / 2**20


def kind(module: nn.Module) -> str:
    """What sort of work a module does itself, for the sums over layers."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)):
        if module.groups == module.in_channels > 1:
            return "depthwise"
        return "1x1" if max(module.kernel_size) == 1 else "other convolutions"
    if isinstance(module, nn.Linear):
        return "linear"
    if "Norm" in type(module).__name__:
        return "norms"
    return (
        "activations" if not list(module.children()) and list(module.parameters()) == [] else "between layers"
    )


@torch.no_grad()
def layers(model: nn.Module, images: Tensor, device: str = "cpu", runs: int = 10) -> list[dict]:
    """Each module's own time in eager mode: {"name", "kind", "of", "ms", "macs", "bytes"}, in order of use.

    `of` is the module's class; macs and bytes are those of convolutions and linear layers, 0 of the others.
    """
    model, images, now = model.to(device).eval(), images.to(device), clock(device)
    names = {module: name for name, module in model.named_modules()}
    rows, stack = {}, []

    def begin(module: nn.Module, inputs: tuple) -> None:
        stack.append([now(), 0.0])

    def end(module: nn.Module, inputs: tuple, output: object) -> None:
        start, below = stack.pop()
        took = now() - start
        if stack:
            stack[-1][1] += took
        rows[module] = rows.get(module, 0.0) + took - below
        if hasattr(module, "weight") and kind(module) != "norms":
            used = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
            macs, weights = used.numel() * module.weight[0].numel(), module.weight.numel()
            size = inputs[0].element_size() * (inputs[0].numel() + output.numel() + weights)
            costs[module] = macs, size

    costs, totals = {}, []
    hooks = [h for m in names for h in (m.register_forward_pre_hook(begin), m.register_forward_hook(end))]
    for _ in range(runs + 2):
        rows.clear()
        model(images)
        totals.append(dict(rows))
    for hook in hooks:
        hook.remove()
    return [
        {
            "name": names[module],
            "kind": kind(module),
            "of": type(module).__name__,
            "ms": float(np.median([total[module] for total in totals[2:]])),
            "macs": costs.get(module, (0, 0))[0],
            "bytes": costs.get(module, (0, 0))[1],
        }
        for module in totals[-1]
    ]


def roofs(device: str = "cpu", side: int = 1024, mebibytes: int = 256) -> dict[str, float]:
    """This machine's roofs with PyTorch's threads, the best of several: gmacs and gbytes a second."""
    now = clock(device)
    a, b = torch.rand(2, side, side, device=device)
    source = torch.zeros(mebibytes * 2**18, device=device)  # float32
    target = torch.empty_like(source)

    def best(job: Callable, amount: float) -> float:
        times = []
        for _ in range(8):
            start = now()
            job()
            times.append(now() - start)
        return amount / min(times) / 1e6

    return {
        "gmacs": best(lambda: a @ b, side**3),
        "gbytes": best(lambda: target.copy_(source), 2 * source.nbytes),
    }
