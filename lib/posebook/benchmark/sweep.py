"""The benchmark of all models in all runtimes, for `notebooks/benchmark.ipynb`.

A row is one model with one input size, batch size and number of threads in one runtime (`form`). It contains
the times and the difference between the runtime's outputs and the model's own. If there are no times, `why`
is the reason.

1. All runtimes of a model are in memory at once because their rounds interleave. If a process needs more
   memory than there is, Linux kills it without a message. So the memory of a combination is estimated first,
   and a combination that does not fit is skipped with a reason.
2. Larger batches measure throughput. If one forward pass of a batch takes longer than MAX_PASS_SECONDS, the
   batch is skipped. It would take hours, and would show no more people per second than a smaller batch.
3. All models at all sizes take long. Finished combinations are saved, and an interrupted run resumes. A
   combination is measured again if the code, the packages or the machine have changed.
4. The weights are random, which does not affect the times. They depend on the seed only, so that all
   combinations of a model have the same weights.
5. If the outputs of a float32 runtime differ from the model's, the sweep stops. Any other failure becomes the
   reason of a row, and the sweep continues.
6. Waiting for a quiet machine (timing.quiet_timing) is limited to `max_wait` seconds for the entire sweep.
   Each combination may use an equal part of what is left.
"""

import hashlib
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from posebook import complexity, import_graph, models, records
from posebook.benchmark import memory, timing
from posebook.benchmark.energy import energy_meter, joules_per_person
from posebook.benchmark.rows import BASELINE, check_outputs, label, sweep_conditions
from posebook.inference import export, runtimes
from posebook.models.layers import PoseModel
from posebook.utils import atomic_write, check_name

MAX_PASS_SECONDS = 4.0  # of a batch of more than one image
PACKAGES = ("torch", "onnxruntime", "onnxscript", "openvino", "nncf")


@dataclass(frozen=True)
class SweepConfig:
    """What a sweep measures: every combination of model and input size, batch size and number of threads.

    inputs: pairs of a model's name and its input size (height, width). runtimes: names in
    runtimes.RUNTIMES; `eager fp32` is always measured. seconds: time for the timed forward passes of each
    row. max_wait: limit in seconds for waiting and repeating (choice 6). num_calibration: random images for
    the int8 ranges; enough to measure the speed, not the accuracy. seed: of the weights (choice 4). Raises
    ValueError for an unknown model or runtime.
    """

    inputs: Sequence[tuple[str, tuple[int, int]]]
    runtimes: Sequence[str]
    batches: Sequence[int] = (1,)
    threads: Sequence[int] = (1,)
    device: str = "cpu"
    seconds: float = 4.0
    max_wait: float = 0.0
    num_calibration: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name, _ in self.inputs:
            models.check_options(name, {})
        for name in self.runtimes:
            check_name(name, runtimes.RUNTIMES, "runtime")


def run_sweep(config: SweepConfig, unfinished: Path | None = None) -> tuple[list[dict], float]:
    """Measure every combination. Return the rows, and the seconds that a resumed run spent earlier.

    unfinished: folder of finished combinations for resuming (choice 3). The caller removes it at the end.
    Raises export.OutputMismatch, which names the row, if a float32 runtime is wrong (choice 5).
    """
    rows: list[dict] = []
    earlier, waited, previous_threads = 0.0, 0.0, torch.get_num_threads()
    jobs = [(*i, b, t) for i in config.inputs for b in config.batches for t in config.threads]
    try:
        with tempfile.TemporaryDirectory() as exported:
            for number, (name, size, batch, threads) in enumerate(tqdm(jobs, desc="time")):
                runtimes.use_threads(threads)
                key = {"model": name, "input_size": list(size), "batch": batch, "threads": threads}
                file = unfinished and unfinished / f"{name}-{_digest(key, config)}.json"
                if file and file.exists():
                    result = json.loads(file.read_text())
                    earlier += result["seconds"]
                else:
                    start = time.perf_counter()
                    wait = (config.max_wait - waited) / (len(jobs) - number)
                    measured, complete = _measure_job(key, config, Path(exported), wait)
                    seconds = time.perf_counter() - start
                    result = {"seconds": seconds, "rows": [key | row for row in measured]}
                    if file and complete:
                        file.parent.mkdir(parents=True, exist_ok=True)
                        with atomic_write(file) as temporary:
                            temporary.write_text(json.dumps(result))
                rows += result["rows"]
                waited += sweep_conditions(result["rows"])["waited_seconds"]
    finally:
        runtimes.use_threads(previous_threads)
    return rows, earlier


def _digest(key: dict, config: SweepConfig) -> str:
    """A hash of all that affects the rows of one combination: settings, machine, packages and code.

    The code includes that of the model's layers and all that the sweep imports.
    """
    with torch.device("meta"), complexity.SkipInit():
        model = models.build(key["model"])
    modules = {__name__} | {type(layer).__module__ for layer in model.modules()}
    code = import_graph.code_hash(sorted(name for name in modules if name.startswith("posebook.")))
    settings = asdict(config) | {"inputs": None, "batches": None, "threads": None}
    facts = [key, settings, records.machine(config.device), package_versions(), code]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def package_versions() -> dict[str, str | None]:
    """The versions of the packages that can change a time; None if a package is not installed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def _measure_job(key: dict, config: SweepConfig, folder: Path, max_wait: float) -> tuple[list[dict], bool]:
    """The rows of one combination, and whether it was measured. Otherwise all rows state the same reason."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = models.build(key["model"], input_size=tuple(key["input_size"])).eval()
        return measure_model(model, key["batch"], config, folder, max_wait), True
    except export.OutputMismatch as error:
        raise export.OutputMismatch(f"{label(key)}: {error}") from error
    except Exception as error:  # of the baseline, with which all others are compared
        return [
            {"form": name, "why": f"{BASELINE}: {failure_reason(error)}"} for name in _form_names(config)
        ], False


def _form_names(config: SweepConfig) -> list[str]:
    """The runtimes to measure; the baseline is the first one."""
    return [BASELINE, *(name for name in config.runtimes if name != BASELINE)]


def failure_reason(error: Exception) -> str:
    """The first line of an error."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return "no memory for this batch"
    if isinstance(error, runtimes.Unavailable):
        return str(error)
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def measure_model(
    model: PoseModel, batch: int, config: SweepConfig, folder: Path, max_wait: float = 0.0
) -> list[dict]:
    """Time one model with one batch size in several runtimes, and return one row for each runtime.

    folder: for exported files. Raises export.OutputMismatch (choice 5), and any error of the baseline.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, *model.input_size, generator=generator)
    names = _form_names(config)
    if reason := skip_reason(model, images, len(names), config.device):
        return [{"form": name, "why": reason} for name in names]
    calibration = torch.randn(max(config.num_calibration, batch), *images.shape[1:], generator=generator)
    runs, rows = _prepare(model, images, config, folder, calibration)
    on_device = images.to(config.device)  # like the papers, the times exclude the transfer to the device
    samples, conditions = timing.quiet_timing(
        lambda: timing.interleaved_timing(runs, on_device, config.device, seconds=config.seconds), max_wait
    )
    counts, meter = complexity.count(model, model.input_size), energy_meter(config.device)
    for name, times in samples.items():
        row, timed = rows[name], timing.summarize(times)
        row |= {"latency_ms": timed, "people_a_second": 1000 * batch / timed["median"]} | counts
        row |= {"conditions": conditions, "quiet": timing.is_quiet(timed, conditions["others_share"])}
        row["times"], row["told_apart"] = timing.speedup(rows[BASELINE]["latency_ms"], timed)
        if meter:
            row["joules_a_person"] = joules_per_person(runs[name], on_device, meter)
        if name in memory.RUNTIME_SCRIPTS:
            file = runtimes.onnx_file(model, images, folder)
            with suppress(subprocess.CalledProcessError):  # such as for lack of memory: the time remains
                row["resident_mib"] = memory.resident_mib(name, file, torch.get_num_threads())
    rows[BASELINE]["activations_mib"] = memory.peak_activation_bytes(model, images) / 2**20
    return list(rows.values())


def _prepare(
    model: PoseModel, images: Tensor, config: SweepConfig, folder: Path, calibration: Tensor
) -> tuple[dict[str, runtimes.InferenceFn], dict[str, dict]]:
    """The runtimes that work, and a row for each runtime with the difference of its outputs or the reason."""
    runs: dict[str, runtimes.InferenceFn] = {}
    rows: dict[str, dict] = {}
    expected: list = []  # outputs of the baseline, which is the first runtime
    for name in _form_names(config):
        row = rows[name] = {"form": name}
        try:
            run = runtimes.RUNTIMES[name](
                model, device=config.device, images=images, folder=folder, calibration=calibration
            )
            outputs = [x.float().cpu().clone() if isinstance(x, Tensor) else x for x in run(images)]
        except export.OutputMismatch as error:
            raise export.OutputMismatch(f"{name}: {error}") from error
        except Exception as error:  # an error of another runtime than the baseline does not stop the others
            if name == BASELINE:
                raise
            row["why"] = failure_reason(error)
            continue
        expected = outputs if name == BASELINE else expected
        row["difference"] = export.max_difference(expected, outputs)
        check_outputs(row)
        runs[name] = run
    return runs, rows


def skip_reason(model: PoseModel, images: Tensor, num_runtimes: int, device: str) -> str | None:
    """Return why a model is not measured with these images (choices 1 and 2), or None if it is."""
    batch, meminfo = len(images), Path("/proc/meminfo")
    if torch.device(device).type == "cpu" and meminfo.exists():
        weights = 4 * sum(parameter.numel() for parameter in model.parameters())
        # Each runtime copies the weights, and an export or a quantization needs four more copies. The factor
        # 4 of the activations is for the buffers that runtimes allocate.
        required = (num_runtimes + 4) * weights + 4 * batch * memory.peak_activation_bytes(model, images[:1])
        available = re.search(r"MemAvailable:\s*(\d+) kB", meminfo.read_text())
        assert available
        free = int(available[1]) * 1024
        if required > free:
            gib = f"{required / 2**30:.1f} GiB are required, {free / 2**30:.1f} GiB are free"
            return f"no memory for a batch of {batch}: {gib}"
    if batch > 1:
        try:
            run = runtimes.eager(model, device)
            run(images[:1])[0].cpu()  # the first call is slower and is not timed
            start = time.perf_counter()
            run(images)[0].cpu()
        except (MemoryError, torch.cuda.OutOfMemoryError):
            return f"no memory for a batch of {batch}"
        if (elapsed := time.perf_counter() - start) > MAX_PASS_SECONDS:
            return f"a batch of {batch} takes {elapsed:.1f} s, more than {MAX_PASS_SECONDS:.0f} s"
    return None
