"""The benchmark of all models in all runtimes, for `notebooks/benchmark.ipynb`.

A row is one model with one input size, batch size and number of threads in one runtime (`form`). It contains
the times and the difference between the runtime's outputs and the model's own. If there are no times, `why`
is the reason.

1. All runtimes of a model are in memory at once because their rounds interleave. If a process needs more
   memory than there is, Linux kills it without a message. So the memory of a combination is estimated first,
   and a combination that does not fit is skipped with a reason.
2. Larger batches measure throughput. If one forward pass of a batch takes longer than a runtime is timed for,
   the batch is skipped. It would take hours, and would show no more people per second than a smaller batch.
3. All models at all sizes take long. Finished combinations are saved, and an interrupted run resumes. It
   does not resume after a change of this package's code, or on another machine.
"""

import hashlib
import json
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from posebook import codecs, complexity, models, records, transforms
from posebook.benchmark import memory, timing
from posebook.benchmark.energy import energy_meter, joules_per_person
from posebook.datasets import PoseDataset
from posebook.evaluation import evaluator, predictions
from posebook.inference import export, runtimes
from posebook.models.layers import PoseModel

BASELINE = "eager fp32"  # all other runtimes are compared with this one
NOISE_LIMIT = 0.1  # a timing with a larger spread (timing.summarize) is reported as noisy


def run_sweep(
    names: list[str],
    sizes: list[tuple[int, int]],
    runtime_names: list[str],
    batches: Sequence[int] = (1,),
    threads: Sequence[int] = (1,),
    device: str = "cpu",
    seconds: float = 4.0,
    num_calibration: int = 32,
    unfinished: Path | None = None,
) -> tuple[list[dict], float]:
    """Measure every combination. Return the rows, and the seconds that a resumed run spent earlier.

    The weights are random, which does not affect the times. There are more than eight parameters because the
    notebook passes its own ones.

    runtime_names: names in runtimes.RUNTIMES; `eager fp32` is always measured.
    seconds: time for the timed forward passes of each row.
    num_calibration: random images for the int8 ranges; enough to measure the speed, not the accuracy.
    unfinished: folder of finished combinations for resuming (choice 3). The caller removes it at the end.
    """
    rows: list[dict] = []
    earlier, previous_threads = 0.0, torch.get_num_threads()
    jobs = [(n, s, b, t) for n in names for s in sizes for b in batches for t in threads]
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py")))
    with tempfile.TemporaryDirectory() as exported:
        for name, size, batch, num_threads in tqdm(jobs, desc="time"):
            runtimes.use_threads(num_threads)
            key = {"model": name, "input_size": list(size), "batch": batch, "threads": num_threads}
            settings = [key, runtime_names, device, seconds, num_calibration, records.machine(device)]
            digest = hashlib.sha256(json.dumps(settings).encode() + code).hexdigest()[:16]
            file = unfinished and unfinished / f"{name}-{digest}.json"
            if file and file.exists():
                result = json.loads(file.read_text())
                earlier += result["seconds"]
            else:
                start, folder = time.perf_counter(), Path(exported, f"{name}-{size[0]}x{size[1]}")
                model = models.build(name, input_size=size).eval()
                measured = measure_model(
                    model, batch, runtime_names, device, seconds, num_calibration, folder
                )
                result = {
                    "seconds": time.perf_counter() - start,
                    "rows": [key | row for row in measured],
                }
                if file:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.with_suffix(".part").write_text(json.dumps(result))
                    file.with_suffix(".part").replace(file)
            rows += result["rows"]
    runtimes.use_threads(previous_threads)
    return rows, earlier


def measure_model(
    model: PoseModel,
    batch: int,
    runtime_names: list[str],
    device: str,
    seconds: float,
    num_calibration: int,
    folder: Path,
) -> list[dict]:
    """Time one model with one batch size in several runtimes, and return one row for each runtime."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, *model.input_size, generator=generator)
    calibration = torch.randn(max(num_calibration, batch), 3, *model.input_size, generator=generator)
    names = [BASELINE, *(name for name in runtime_names if name != BASELINE)]
    if reason := skip_reason(model, images, len(names), device, seconds):
        return [{"form": name, "why": reason} for name in names]
    rows: dict[str, dict] = {name: {"form": name} for name in names}
    runs: dict[str, runtimes.InferenceFn] = {}
    expected: list = []  # outputs of the baseline, which is the first runtime
    for name in names:
        try:
            run = runtimes.RUNTIMES[name](
                model, device=device, images=images, folder=folder, calibration=calibration
            )
            outputs = [x.float().cpu().clone() if isinstance(x, Tensor) else x for x in run(images)]
        except runtimes.Unavailable as error:
            rows[name]["why"] = str(error)
        except (MemoryError, torch.cuda.OutOfMemoryError):
            rows[name]["why"] = f"no memory for a batch of {batch}"
        except Exception as error:  # an error of a runtime does not stop the others
            rows[name]["why"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        else:
            runs[name] = run
            expected = outputs if name == BASELINE else expected
            rows[name]["difference"] = export.max_difference(expected, outputs)
    counts = complexity.count(model, model.input_size)
    meter = energy_meter(device)
    on_device = images.to(device)  # like the papers, the times exclude the transfer to the device
    for name, samples in timing.interleaved_timing(runs, on_device, device, seconds=seconds).items():
        row, timed = rows[name], timing.summarize(samples)
        row |= {"latency_ms": timed, "people_a_second": 1000 * batch / timed["median"]} | counts
        row["times"], row["told_apart"] = timing.speedup(rows[BASELINE]["latency_ms"], timed)
        if meter:
            row["joules_a_person"] = joules_per_person(runs[name], on_device, meter)
        if name in memory.RUNTIME_SCRIPTS:
            file = runtimes.onnx_file(model, images, folder)
            row["resident_mib"] = memory.resident_mib(name, file, torch.get_num_threads())
    rows[BASELINE]["activations_mib"] = memory.peak_activation_bytes(model, images) / 2**20
    return list(rows.values())


def skip_reason(
    model: PoseModel, images: Tensor, num_runtimes: int, device: str, seconds: float
) -> str | None:
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
        if (elapsed := time.perf_counter() - start) > seconds:
            return f"a batch of {batch} takes {elapsed:.1f} s, longer than each runtime is timed for"
    return None


def _timed_groups(rows: list[dict]) -> dict[tuple, list[dict]]:
    """Group the rows with times by model, input size, batch size and number of threads."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        if "latency_ms" in row:
            key = row["model"], tuple(row["input_size"]), row["batch"], row["threads"]
            groups.setdefault(key, []).append(row)
    return groups


def noise_warnings(rows: list[dict]) -> list[str]:
    """Warn about noisy rows, and about pairs of runtimes whose difference is not significant.

    The rows of one model, input size, batch size and number of threads are sorted by speed. Pairs are
    neighbors in this order.
    """
    warnings = []
    for (model, size, batch, threads), group in _timed_groups(rows).items():
        label = f"{model}, {size[0]} × {size[1]}, batch {batch}, {threads} thread{'s' * (threads > 1)}"
        for row in group:
            if (spread := row["latency_ms"]["spread"]) > NOISE_LIMIT:
                warnings.append(f"{label}: {row['form']} varies by {spread:.0%} between rounds")
        group = sorted(group, key=lambda row: row["latency_ms"]["median"])
        for fast, slow in zip(group, group[1:], strict=False):
            ratio, significant = timing.speedup(slow["latency_ms"], fast["latency_ms"])
            if not significant:
                pair = f"{fast['form']} and {slow['form']}"
                warnings.append(f"{label}: {pair} do not differ significantly (ratio {ratio:.2f})")
    return warnings


def fastest_rows(rows: list[dict], exact: bool = True) -> list[dict]:
    """Return the fastest row for each model, input size, batch size and number of threads.

    With exact, only rows count whose outputs agree with the model's to export.TOLERANCE, which excludes int8.
    """
    if exact:
        rows = [row for row in rows if "latency_ms" in row and row["difference"] <= export.TOLERANCE]
    return [min(group, key=lambda row: row["latency_ms"]["median"]) for group in _timed_groups(rows).values()]


def int8_accuracy(
    model: PoseModel, train: PoseDataset, val: PoseDataset, num_images: int = 32
) -> dict[str, float]:
    """AP of a model on `val` in OpenVINO as float32 and as int8: {"fp32", "int8"}.

    The int8 ranges are from the first num_images people of `train`. There is no flip test. Raises
    runtimes.Unavailable without OpenVINO or nncf.
    """
    crops = predictions.CropDataset(train, model.input_size)
    first = torch.stack([crops[index][0] for index in range(min(num_images, len(crops)))])  # (N, H, W, 3)
    images, calibration = torch.zeros(1, 3, *model.input_size), transforms.normalize(first)
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            "fp32": runtimes.openvino(model, "cpu", images, Path(folder)),
            "int8": runtimes.openvino_int8(model, "cpu", images, Path(folder), calibration),
        }
        return {
            name: evaluator.evaluate(RuntimeModel(model, run), val, flip_test=False)["AP"]
            for name, run in runs.items()
        }


class RuntimeModel(PoseModel):
    """A runtime with batch size 1 as a model, so that it can be evaluated like one."""

    def __init__(self, model: PoseModel, run: runtimes.InferenceFn):
        super().__init__(model.skeleton, model.input_size)
        self.run = run

    def forward(self, images: Tensor) -> codecs.SimCC | list[Tensor]:
        results = [[torch.as_tensor(output) for output in self.run(image[None])] for image in images]
        outputs = [torch.cat(stage) for stage in zip(*results, strict=True)]  # each (B, ...)
        return codecs.SimCC(*outputs) if outputs[0].ndim == 3 else outputs
