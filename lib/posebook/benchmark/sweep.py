"""Every model in every form: what `notebooks/benchmark.ipynb` measures, and what may be said of it.

A row is one model at one input size, batch and number of threads in one form: its times and how far its
answers are from the model's own, or, under `why`, the reason that there are none.

1. All forms of a net stand in memory at once, for their rounds interleave. On Linux a process that asks for
   more than there is gets killed, not told; so what a combination will hold is estimated first, and one that
   does not fit is left out and says so.
2. A larger batch is for throughput. Where one forward of it takes longer than a form is timed for, it is left
   out: it would tell no more of people a second than a smaller batch, and take hours.
3. All models at all sizes take long. What is finished is kept on the way, and a run that was stopped goes on;
   not after a change of the code, nor on another machine.
"""

import hashlib
import json
import re
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from posebook import codecs, complexity, models, records, transforms
from posebook.benchmark import memory, timing
from posebook.benchmark.energy import energy_meter, joules_per_person
from posebook.datasets import PoseDataset
from posebook.evaluation import evaluator, predictions
from posebook.inference import export, runtimes

BASELINE = "eager fp32"  # what every other form is held against
NOISE_LIMIT = 0.1  # spread of the rounds' medians, over their median, from which a timing is called noisy


def run_sweep(
    names: list[str],
    sizes: list[tuple[int, int]],
    wanted: list[str],
    batches: list[int] = (1,),
    threads: list[int] = (1,),
    device: str = "cpu",
    seconds: float = 4.0,
    calibration: int = 32,
    unfinished: Path | None = None,
) -> tuple[list[dict], float]:
    """Rows of every combination, and the seconds that those of an earlier, stopped run have taken.

    Weights are random, which moves no time. wanted: forms by name, `eager fp32` always among them; seconds:
    for each row's timed forwards; calibration: random pictures that int8 takes its ranges from, enough for
    its speed; unfinished: a folder where finished combinations wait for the same call (choice 3), to be
    removed by the caller when all is done.
    """
    found, earlier, before = [], 0.0, torch.get_num_threads()
    jobs = [(n, s, b, t) for n in names for s in sizes for b in batches for t in threads]
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py")))
    with tempfile.TemporaryDirectory() as exported:
        for name, size, batch, count in tqdm(jobs, desc="time"):
            runtimes.use_threads(count)
            about = {"model": name, "input_size": list(size), "batch": batch, "threads": count}
            asked = [about, wanted, device, seconds, calibration, records.machine(device)]
            digest = hashlib.sha256(json.dumps(asked).encode() + code).hexdigest()[:16]
            done = unfinished and unfinished / f"{name}-{digest}.json"
            if done and done.exists():
                kept = json.loads(done.read_text())
                earlier += kept["seconds"]
            else:
                start, own = time.perf_counter(), Path(exported, f"{name}-{size[0]}x{size[1]}")
                net = models.build(name, input_size=size).eval()
                rows = [
                    about | row
                    for row in measure_model(net, batch, wanted, device, seconds, calibration, own)
                ]
                kept = {"seconds": time.perf_counter() - start, "rows": rows}
                if done:
                    done.parent.mkdir(parents=True, exist_ok=True)
                    done.with_suffix(".part").write_text(json.dumps(kept))
                    done.with_suffix(".part").replace(done)
            found += kept["rows"]
    runtimes.use_threads(before)
    return found, earlier


def measure_model(
    net: nn.Module, batch: int, wanted: list[str], device: str, seconds: float, calibration: int, folder: Path
) -> list[dict]:
    """Rows of one model and batch, a form each, timed together."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, *net.input_size, generator=generator)
    pictures = torch.randn(max(calibration, batch), 3, *net.input_size, generator=generator)
    names = [BASELINE, *(form for form in wanted if form != BASELINE)]
    if reason := skip_reason(net, images, len(names), device, seconds):
        return [{"form": form, "why": reason} for form in names]
    runs, rows, given = {}, {}, {}
    for form in names:
        rows[form] = {"form": form}
        try:
            run = runtimes.RUNTIMES[form](
                net, device=device, images=images, folder=folder, calibration=pictures
            )
            answers = [
                part.float().cpu().clone() if isinstance(part, Tensor) else part for part in run(images)
            ]
        except runtimes.Unavailable as reason:
            rows[form]["why"] = str(reason)
        except (MemoryError, torch.cuda.OutOfMemoryError):
            rows[form]["why"] = f"no memory for a batch of {batch}"
        except Exception as error:  # a runtime's own; the other forms go on
            rows[form]["why"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        else:
            runs[form], given[form] = run, answers
            rows[form]["difference"] = export.max_difference(given[BASELINE], answers)
    counted = complexity.count(net, net.input_size)
    meter = energy_meter(device)
    there = images.to(device)  # as the papers time theirs: the upload is not the net's
    for form, samples in timing.interleaved_timing(runs, there, device, seconds=seconds).items():
        timed = timing.summarize(samples)
        rows[form] |= {"latency_ms": timed, "people_a_second": 1000 * batch / timed["median"]} | counted
        rows[form]["times"], rows[form]["told_apart"] = timing.speedup(rows[BASELINE]["latency_ms"], timed)
        if meter:
            rows[form]["joules_a_person"] = joules_per_person(runs[form], there, meter)
        if form in memory.RUNTIME_SCRIPTS:
            file = runtimes.onnx_file(net, images, folder)
            rows[form]["resident_mib"] = memory.resident_mib(form, file, torch.get_num_threads())
    rows[BASELINE]["activations_mib"] = memory.peak_activation_bytes(net, images) / 2**20
    return list(rows.values())


def skip_reason(net: nn.Module, images: Tensor, count: int, device: str, seconds: float) -> str | None:
    """Why `count` forms of a net are not tried with these images (choices 1, 2); None where they are."""
    batch, meminfo = len(images), Path("/proc/meminfo")
    if torch.device(device).type == "cpu" and meminfo.exists():
        weights = 4 * sum(parameter.numel() for parameter in net.parameters())
        # a copy a form, four more while one is exported or quantized; runtimes keep buffers of their own
        need = (count + 4) * weights + 4 * batch * memory.peak_activation_bytes(net, images[:1])
        free = int(re.search(r"MemAvailable:\s*(\d+) kB", meminfo.read_text())[1]) * 1024
        if need > free:
            return f"no memory for a batch of {batch}: {need / 2**30:.1f} GiB, {free / 2**30:.1f} are free"
    if batch > 1:
        try:
            run = runtimes.eager(net, device)
            run(images[:1])[0].cpu()  # a first call is no measure
            start = time.perf_counter()
            run(images)[0].cpu()
        except (MemoryError, torch.cuda.OutOfMemoryError):
            return f"no memory for a batch of {batch}"
        if (took := time.perf_counter() - start) > seconds:
            return f"a forward of a batch of {batch} takes {took:.1f} s, longer than a form is timed for"
    return None


def noise_warnings(rows: list[dict]) -> list[str]:
    """What a reader has to know before comparing: rows too noisy, and pairs that cannot be told apart.

    Pairs are neighbors in speed among the forms of one model, size, batch and number of threads.
    """
    said, groups = [], {}
    for row in rows:
        if "latency_ms" in row:
            key = row["model"], tuple(row["input_size"]), row["batch"], row["threads"]
            groups.setdefault(key, []).append(row)
    for (model, size, batch, threads), group in groups.items():
        where = f"{model}, {size[0]} × {size[1]}, batch {batch}, {threads} thread{'s' * (threads > 1)}"
        for row in group:
            if (spread := row["latency_ms"]["spread"]) > NOISE_LIMIT:
                said.append(f"{where}: {row['form']} differs by {spread:.0%} from round to round")
        group = sorted(group, key=lambda row: row["latency_ms"]["median"])
        for fast, slow in zip(group, group[1:], strict=False):
            times, apart = timing.speedup(slow["latency_ms"], fast["latency_ms"])
            if not apart:
                pair = f"{fast['form']} and {slow['form']}"
                said.append(f"{where}: {pair} cannot be told apart (a ratio of {times:.2f})")
    return said


def fastest_rows(rows: list[dict], exact: bool = True) -> list[dict]:
    """Of each model, size, batch and number of threads the quickest row.

    exact: of those whose answers are the model's to deploy.TOLERANCE, so that int8 is never best in silence.
    """
    groups = {}
    for row in rows:
        if "latency_ms" in row and (not exact or row["difference"] <= export.TOLERANCE):
            key = row["model"], tuple(row["input_size"]), row["batch"], row["threads"]
            groups.setdefault(key, []).append(row)
    return [min(group, key=lambda row: row["latency_ms"]["median"]) for group in groups.values()]


def int8_accuracy(
    net: nn.Module, train: PoseDataset, val: PoseDataset, pictures: int = 32
) -> dict[str, float]:
    """AP of a net on `val` in OpenVINO as float32 and as int8, whose ranges are from some people of `train`.

    Without flip test. Raises forms.Unavailable without OpenVINO or nncf.
    """
    crops, found = predictions.CropDataset(train, net.input_size), {}
    seen = torch.stack([crops[index][0] for index in range(min(pictures, len(crops)))])  # (N, H, W, 3)
    given = {"images": torch.zeros(1, 3, *net.input_size), "calibration": transforms.normalize(seen)}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in {"fp32": runtimes.openvino, "int8": runtimes.openvino_int8}.items():
            form = RuntimeModel(net, make(net, device="cpu", folder=Path(folder), **given))
            found[name] = evaluator.evaluate(form, val, flip_test=False)["AP"]
    return found


class RuntimeModel(nn.Module):
    """A form, made for batches of one, as a model that can be evaluated as any other."""

    def __init__(self, model: nn.Module, run: runtimes.InferenceFn):
        super().__init__()
        self.skeleton, self.input_size, self.run = model.skeleton, model.input_size, run

    def forward(self, images: Tensor) -> codecs.SimCC | list[Tensor]:
        answers = [[torch.as_tensor(part) for part in self.run(image[None])] for image in images]
        parts = [torch.cat(part) for part in zip(*answers, strict=True)]  # each (B, ...)
        return codecs.SimCC(*parts) if parts[0].ndim == 3 else parts
