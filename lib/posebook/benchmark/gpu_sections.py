"""The measurements of `gpu_check`, each a function that runs in a process of its own.

1. People and canvases are random, so that no file is needed and all machines do the same work.
2. The phases of a step are measured on the device's own timeline, by an event after each phase. Nothing waits
   for the device meanwhile. If the device waits for the host, this time counts to the phase that is late.
3. The device is busy while a kernel runs or memory is copied. PyTorch's profiler measures this time in extra
   steps, because it slows down the host. `busy` is this time divided by that of a step without the profiler.
4. Agreement is the difference between the gradients of a training step on the device and on the CPU in
   float32, relative to the norm of the latter. All layers add their rounding errors to the gradient.
"""

import copy
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posebook import import_graph, models
from posebook.benchmark import stand_ins, sweep, training_throughput
from posebook.benchmark.energy import energy_meter
from posebook.benchmark.random_people import random_people
from posebook.training import data, loop, recipes
from posebook.training.checkpoints import TrainState
from posebook.training.data import ResumableBatchSampler, TrainDataset
from posebook.training.objectives import pose_loss
from posebook.training.optimizer import update_ema
from posebook.training.recipes import Recipe
from posebook.training.runtime import PRECISIONS, RuntimeConfig, move_model

DIE_AT = 14  # step in which the training of `resume` is killed
# In the process of a section, the stand-ins come before all other imports.
SCRIPT = """
import json, sys
from posebook.benchmark import stand_ins
stand_ins.install()
from posebook.benchmark import gpu_sections
function, arguments = json.loads(sys.argv[1])
device = gpu_sections.torch.device(arguments.get("settings", arguments)["device"])
if device.index:  # events and waits belong to the current device
    gpu_sections.torch.cuda.set_device(device)
print(json.dumps(getattr(gpu_sections, function)(**arguments)))
"""


def command(function: str, **arguments: object) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment that call a function of this module in a new process."""
    path = [str(import_graph.PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    return [sys.executable, "-c", SCRIPT, json.dumps([function, arguments])], environment


def make_recipe(model: str, settings: dict) -> Recipe:
    """Return the recipe of the model's paper on COCO, with the input and batch size of the settings."""
    recipe = recipes.get("paper", model, "coco", input_size=list(settings["input_size"]))
    return replace(recipe, batch_size=settings["batch_size"] or recipe.batch_size)


def make_state(model: str, recipe: Recipe, config: RuntimeConfig) -> TrainState:
    """Return a model with random weights of seed 0 on the device, in training mode, and its optimizer."""
    torch.manual_seed(0)
    built = models.build(model, "coco", recipe.input_size).train()
    move_model(built, config.device)
    optimizer = loop.make_optimizer(built, recipe)
    return TrainState(built, copy.deepcopy(built), optimizer, loop.make_scaler(config), {})


class Timeline:
    """The seconds of each phase; choice 2. `mark` ends a phase."""

    def __init__(self, device: str):
        self.cuda, self.marks = torch.device(device).type == "cuda", list[tuple[str, Any]]()

    def mark(self, phase: str) -> None:
        moment: Any = time.perf_counter()
        if self.cuda:
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        self.marks.append((phase, moment))

    def seconds(self) -> dict[str, float]:
        """Return the sum of each phase. Call it after the device has finished."""
        totals: dict[str, float] = {}
        for (_, start), (phase, end) in itertools.pairwise(self.marks):
            span = start.elapsed_time(end) / 1000 if self.cuda else end - start
            totals[phase] = totals.get(phase, 0.0) + span
        return totals


def training_steps(model: str, settings: dict, compile: bool, timeline: Timeline) -> Iterator[int]:
    """Do one training step after the other, marked on the timeline. Yield the number of people of each."""
    recipe, device = make_recipe(model, settings), settings["device"]
    config = RuntimeConfig(device, precision="bf16", compile=compile)
    state = make_state(model, recipe, config)
    # The last epoch, because LAPX's non-local branches are trained there.
    forward = loop.wrap_model(state, recipe, recipe.epochs - 1, config)
    people = max(1, settings["people"] // recipe.batch_size) * recipe.batch_size  # all batches have one size
    dataset, canvases = random_people(people, recipe)
    endless = replace(recipe, epochs=10**9)
    samples: Any = TrainDataset(dataset, endless, 0, canvases)  # type: ignore[arg-type]  # same interface
    batches = data.gpu_batches(samples, ResumableBatchSampler(samples, 0), device, 0, canvases.tensor(device))

    def objective(model: Callable, batch: list[Tensor], recipe: Recipe) -> Tensor:
        loss = pose_loss(model, batch, recipe)
        timeline.mark("forward")
        return loss

    state.optimizer.register_step_pre_hook(lambda *_: timeline.mark("backward"))
    for group in state.optimizer.param_groups:
        group["lr"] = 1e-4
    for batch in batches:
        timeline.mark("data")
        loop.train_step(state, forward, batch, len(batch[0]), recipe, config, 1, objective)
        update_ema(state.ema, state.model, state.step, recipe)
        timeline.mark("optimizer")
        yield len(batch[0])


def train_speed(model: str, settings: dict, compile: bool = False) -> dict:
    """Return people per second of training, shares of the phases, the device's busy share, and energy."""
    device, seconds = settings["device"], settings["seconds"]
    torch.backends.cudnn.benchmark = True  # as in `loop.fit`
    timeline, meter = Timeline(device), energy_meter(device)
    steps = training_steps(model, settings, compile, timeline)
    wait = training_throughput.synchronize
    for _ in range(5):  # the first step compiles and chooses kernels
        start, num_people = time.perf_counter(), next(steps)
        wait()
    count = max(2, int(seconds / (time.perf_counter() - start)))
    timeline.marks.clear()
    timeline.mark("start")
    start, joules = time.perf_counter(), meter and meter()
    for _ in range(count):
        next(steps)
    wait()
    elapsed = time.perf_counter() - start
    used = meter() - joules if meter and joules is not None else None
    phases = timeline.seconds()
    busy = kernel_seconds(lambda: next(steps))
    return {
        "people_per_second": num_people * count / elapsed,
        "batch_size": num_people,
        "input_size": settings["input_size"],
        "milliseconds_per_step": 1000 * elapsed / count,
        "phases": {name: value / sum(phases.values()) for name, value in phases.items()},
        "busy": busy and min(1.0, busy * count / elapsed),
        "joules_per_person": used and used / (num_people * count),
        "peak_mib": torch.cuda.max_memory_allocated(device) / 2**20 if timeline.cuda else None,
    }


def kernel_seconds(step: Callable, count: int = 5) -> float | None:
    """Return the seconds per step in which the device works (choice 3); None if CUPTI is unavailable."""
    activity = torch.profiler.ProfilerActivity.CUDA
    if activity not in torch.profiler.supported_activities():
        return None
    with torch.profiler.profile(activities=[activity]) as profiler:
        for _ in range(count):
            step()
        training_throughput.synchronize()
    work = [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events() or ()
        if event.device_type == torch.autograd.DeviceType.CUDA
        and not getattr(event, "is_user_annotation", False)  # a named range, not work
    ]
    return union_length(work) / 1e6 / count if work else None  # from microseconds


def union_length(intervals: list[tuple[float, float]]) -> float:
    """Return the length of the union of intervals (start, end)."""
    total, reached = 0.0, -float("inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def sample_speed(settings: dict) -> dict:
    """Return people per second of preparing samples on the device, without training.

    held: canvases are in the device's memory. raw, jpeg: one loader process per core sends them, for a
    dataset that does not fit there; jpeg needs OpenCV, which decodes them.
    """
    device, workers = settings["device"], os.cpu_count() or 1
    recipe = replace(make_recipe(settings["models"][0], settings), epochs=10**9)
    people = max(settings["people"], recipe.batch_size)

    def start(held: bool = False, jpeg: bool = False) -> Callable[[], Iterator]:
        dataset, canvases = random_people(people, recipe, jpeg)
        samples: Any = TrainDataset(dataset, recipe, 0, canvases)  # type: ignore[arg-type]  # same interface
        sampler = ResumableBatchSampler(samples, 0)
        return lambda: data.gpu_batches(
            samples, sampler, device, workers, canvases.tensor(device) if held else None
        )

    starters = {"held": start(held=True), "raw": start()}
    if not stand_ins.is_stand_in("cv2"):
        starters["jpeg"] = start(jpeg=True)
    rates = training_throughput.measure_pipelines(starters, 1, settings["seconds"])
    return {name: values[0] for name, values in rates.items()} | {"workers": workers}


def latency(model: str, settings: dict) -> dict:
    """Return milliseconds and, with a meter, joules of one image in each runtime, or why it has none."""
    torch.backends.cudnn.allow_tf32 = False  # fp32 is float32; TF32 has fewer digits
    config = sweep.SweepConfig(
        [(model, tuple(settings["input_size"]))], settings["runtimes"], device=settings["device"],
        seconds=settings["seconds"],
    )  # fmt: skip
    rows, _ = sweep.run_sweep(config)
    return {
        row["form"]: {"milliseconds": row["latency_ms"]["median"], "joules": row.get("joules_a_person")}
        if "latency_ms" in row
        else {"why": row["why"]}
        for row in rows
    }


def agreement(settings: dict) -> dict:
    """Return the relative difference of the gradient in each precision; choice 4."""
    torch.backends.cudnn.allow_tf32 = False
    found = {}
    for model in settings["models"]:
        recipe = make_recipe(model, settings | {"batch_size": 8})
        expected = gradient(model, recipe, RuntimeConfig("cpu"))
        for precision in PRECISIONS:
            actual = gradient(model, recipe, RuntimeConfig(settings["device"], precision=precision))
            found[f"{model} {precision}"] = float((actual - expected).norm() / expected.norm())
    return found


def gradient(model: str, recipe: Recipe, config: RuntimeConfig) -> Tensor:
    """Return the gradient of one training step on random images, float64 on the CPU."""
    state, rng = make_state(model, recipe, config), torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, *recipe.input_size, 3), dtype=torch.uint8, generator=rng)
    points = torch.rand(8, 17, 2, generator=rng) * torch.tensor(recipe.input_size[::-1])  # (B, K, 2)
    forward = loop.wrap_model(state, recipe, recipe.epochs - 1, config)
    for _ in range(10):  # with fp16, the scaler starts too high and skips steps
        loop.train_step(state, forward, [images, points, torch.ones(8, 17)], 8, recipe, config, 1)
        grads = [p.grad.double().cpu().flatten() for p in state.model.parameters() if p.grad is not None]
        if torch.cat(grads).isfinite().all():
            break
    return torch.cat(grads)


def resume(settings: dict) -> dict:
    """Kill a short training (kill -9), resume it, and compare its weights with those of one that ran through.

    Returns the norm of their difference, relative to what the training changed. Raises RuntimeError if the
    second start does not resume.
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = {"device": settings["device"], "input_size": settings["input_size"]}
        for name, die_at in (("whole", 0), ("killed", DIE_AT), ("killed", 0)):
            words, environment = command(
                "short_training", folder=f"{folder}/{name}", die_at=die_at, **arguments
            )
            done = subprocess.run(words, env=environment, capture_output=True, text=True)
            if done.returncode != (-signal.SIGKILL if die_at else 0):
                raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
        if "resuming from step" not in done.stdout:
            raise RuntimeError("the killed training started from the beginning instead of its checkpoint")
        start, whole = torch.load(f"{folder}/whole/weights.pt")
        _, resumed = torch.load(f"{folder}/killed/weights.pt")
    return {"difference": float((resumed - whole).norm() / (whole - start).norm())}


def short_training(folder: str, device: str, input_size: list[int], die_at: int) -> dict:
    """Train for 24 steps; save the first and the last weights. die_at: the step that kills this process."""
    recipe = recipes.get("overfit", batch_size=8, epochs=3, input_size=input_size)
    dataset, canvases = random_people(64, recipe)
    torch.manual_seed(0)
    model = models.build("starnet-pose-t", "coco", recipe.input_size)
    start, calls = flat(model), itertools.count(1)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS is deterministic with it only
    torch.use_deterministic_algorithms(True, warn_only=True)

    def make_dataset(needed: bool) -> Any:
        torch.backends.cudnn.benchmark = False  # the choice of kernels would differ between two processes
        return TrainDataset(dataset, recipe, 0, canvases)  # type: ignore[arg-type]  # same interface

    def objective(model: Callable, batch: list[Tensor], recipe: Recipe) -> Tensor:
        if next(calls) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return pose_loss(model, batch, recipe)

    spec = loop.RunSpec("resume", Path(folder), {})
    config = RuntimeConfig(device, save_every=5)
    state, _ = loop.fit(model, make_dataset, recipe, config, spec, lambda model: {}, objective)
    torch.save((start, flat(state.model)), f"{folder}/weights.pt")
    return {"steps": state.step}


def flat(model: torch.nn.Module) -> Tensor:
    """Return all weights of a model as one vector on the CPU."""
    return torch.cat([parameter.detach().cpu().flatten() for parameter in model.parameters()])
