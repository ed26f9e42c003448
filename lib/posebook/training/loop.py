"""The training loop: one optimizer step, the epochs, and resuming."""

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from posebook import import_graph, migration, models
from posebook.training import checkpoints, recipes
from posebook.training.checkpoints import TrainState
from posebook.training.data import (
    ResumableBatchSampler,
    TrainDataset,
    gpu_batches,
    make_loader,
    preload_canvases,
)
from posebook.training.objectives import Objective, pose_loss
from posebook.training.optimizer import lr_at_step, parameter_groups, update_ema
from posebook.training.recipes import Recipe
from posebook.training.runtime import PRECISIONS, RuntimeConfig, SigtermGuard

CHECK_EVERY = 20  # steps between looks at the loss for NaN: looking waits for the device


def run_code_hash(net: nn.Module, *functions: Callable) -> str:
    """A hash of the code that decides a run's weights.

    That is the loop, the modules of these functions (the objective, what makes the dataset), the files of the
    model's layers, and everything that any of them imports.
    """
    modules = {__name__, *(function.__module__ for function in functions)}
    modules |= {type(layer).__module__ for layer in net.modules()}
    return import_graph.code_hash(sorted(name for name in modules if name.startswith("posebook.")))


def train_step(
    state: TrainState,
    model: nn.Module,
    batch: list[Tensor],
    global_batch_size: int,
    recipe: Recipe,
    runtime: RuntimeConfig,
    parts: int,
    objective: Objective = pose_loss,
) -> tuple[Tensor, int]:
    """One optimizer step with gradient accumulation over `parts` of the batch.

    If the device runs out of memory, the batch is processed in twice as many parts. batch: this process's
    tensors (B, ...), as the objective takes them; global_batch_size: people in the batches of all
    processes. Returns the loss, a scalar, and the number of parts.
    """
    batch = [tensor.to(runtime.device, non_blocking=True) for tensor in batch]
    kind, narrow = torch.device(runtime.device).type, PRECISIONS[runtime.precision]

    def called(*inputs: Tensor) -> object:
        with torch.autocast(kind, narrow, enabled=narrow is not None):
            return model(*inputs)

    while True:
        state.optimizer.zero_grad(set_to_none=True)
        count = len(batch[0])
        loss, ends = torch.zeros((), device=runtime.device), range(0, count, math.ceil(count / parts))
        mean = None  # what a try without room left behind would take up the next one's
        try:
            for first in ends:
                part = [tensor[first : first + ends.step] for tensor in batch]
                last = first + ends.step >= count  # processes exchange gradients once a step
                with nullcontext() if last or runtime.world_size == 1 else model.no_sync():
                    mean = objective(called, part, recipe)
                    mean = (
                        mean * len(part[0]) * runtime.world_size / global_batch_size
                    )  # processes' gradients are averaged
                    state.scaler.scale(mean).backward()
                loss += mean.detach()
            break
        except torch.OutOfMemoryError:
            if ends.step == 1 or runtime.world_size > 1:  # the other processes would wait for this one
                raise
            parts *= 2
        mean = None
        state.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        tqdm.write(f"no room for {ends.step} people at once: taking each batch in {parts} parts from here on")
    if recipe.max_grad_norm:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), recipe.max_grad_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return loss, parts


def batch_iterator(dataset: TrainDataset, first_step: int, runtime: RuntimeConfig) -> Iterable[list[Tensor]]:
    """This process's share of every batch from a step to the end."""
    sampler = ResumableBatchSampler(dataset, first_step, runtime.rank, runtime.world_size)
    on_gpu = runtime.device.startswith("cuda")
    if dataset.packed and on_gpu:
        canvases = preload_canvases(dataset.packed, runtime.device)
        return gpu_batches(dataset, sampler, runtime.device, runtime.workers, canvases)
    return make_loader(dataset, sampler, runtime.workers, on_gpu)


def wrap_model(state: TrainState, recipe: Recipe, epoch: int, runtime: RuntimeConfig) -> nn.Module:
    """The model as one epoch trains it: LAPX's gain set, compiled, shared by all processes."""
    if hasattr(state.model, "set_nonlocal_gain"):
        state.model.set_nonlocal_gain(recipes.nonlocal_gain_at(epoch, recipe))
    model = torch.compile(state.model, dynamic=False) if runtime.compile else state.model
    # wrapped anew, for what learns may have changed
    return runtime.accelerator.prepare_model(model) if runtime.accelerator else model


def train_epochs(
    state: TrainState,
    dataset: TrainDataset,
    recipe: Recipe,
    runtime: RuntimeConfig,
    folder: Path,
    bar: tqdm,
    objective: Objective,
) -> Iterator[tuple[int, float]]:
    """Train to the end, yielding each epoch's number and mean loss when it is over.

    A loader process that dies is replaced, up to three times, from the last checkpoint. Raises
    FloatingPointError that names the step for a loss of NaN, and SystemExit(143) after SIGTERM, with a
    checkpoint written.
    """
    stop, lost = SigtermGuard(), 0
    try:
        while state.step < math.ceil(len(dataset) / recipe.batch_size) * recipe.epochs:
            try:
                yield from run_steps(state, dataset, recipe, runtime, folder, bar, objective, stop)
            except RuntimeError as error:
                lost += 1
                if not str(error).startswith("DataLoader worker (pid") or lost > 3 or runtime.world_size > 1:
                    raise
                reload_checkpoint(state, folder, runtime)
                bar.n = samples_seen(state.step, len(dataset), recipe)
                tqdm.write(
                    f"a loader process died ({str(error).splitlines()[0]}); "
                    f"others take its place, from step {state.step}"
                )
    finally:
        stop.restore()


def run_steps(
    state: TrainState,
    dataset: TrainDataset,
    recipe: Recipe,
    runtime: RuntimeConfig,
    folder: Path,
    bar: tqdm,
    objective: Objective,
    stop: SigtermGuard,
) -> Iterator[tuple[int, float]]:
    """The steps from the state's on: learning rate, step, moving average, progress, checkpoints."""
    steps_per_epoch = math.ceil(len(dataset) / recipe.batch_size)
    total, parts, model = steps_per_epoch * recipe.epochs, runtime.grad_accum_steps, None
    pending: list[Tensor] = []  # losses that have not been copied from the device yet
    for batch in batch_iterator(dataset, state.step, runtime):
        if model is None or state.step % steps_per_epoch == 0:
            model = wrap_model(state, recipe, state.step // steps_per_epoch, runtime)
            state.model.train()
        for group in state.optimizer.param_groups:
            group["lr"] = group["rate"] * lr_at_step(state.step, total, recipe)
        size = min(recipe.batch_size, len(dataset) - state.step % steps_per_epoch * recipe.batch_size)
        # a batch of fewer people than processes is given to each of them whole
        shared = size * runtime.world_size if size < runtime.world_size else size
        loss, parts = train_step(state, model, batch, shared, recipe, runtime, parts, objective)
        update_ema(state.ema, state.model, state.step, recipe)
        pending.append(loss)
        state.step += 1
        bar.update(size)
        epoch_ends, save_due = state.step % steps_per_epoch == 0, state.step % runtime.save_every == 0
        stopped = stop.triggered and not runtime.accelerator  # with several processes all must agree
        if epoch_ends or save_due or stopped or len(pending) == CHECK_EVERY:
            state.losses, pending = state.losses + check_finite(pending, state.step), []
            bar.set_postfix(loss=f"{state.losses[-1]:.5f}", refresh=False)
            stopped = stopped or runtime.any_rank(stop.triggered)
        if epoch_ends:
            mean, state.losses = float(np.mean(state.losses)), []
            yield state.step // steps_per_epoch, mean
            state.model.train()
        elif (save_due or stopped) and runtime.rank == 0:
            state.save(folder)
        if stopped:
            print(f"stopped by SIGTERM after step {state.step}; the same command continues from there")
            raise SystemExit(143)


def reload_checkpoint(state: TrainState, folder: Path, runtime: RuntimeConfig) -> None:
    """Go back to the last checkpoint, because a step may have been interrupted; its time still counts."""
    seconds = state.seconds
    state.scaler = make_scaler(runtime)
    state.resume(folder)
    state.seconds = seconds


def samples_seen(step: int, people: int, recipe: Recipe) -> int:
    """How many samples the steps up to `step` have had."""
    epochs, steps = divmod(step, math.ceil(people / recipe.batch_size))
    return epochs * people + steps * recipe.batch_size


def check_finite(waiting: list[Tensor], step: int) -> list[float]:
    """The losses of the steps up to `step` as numbers; raises FloatingPointError naming one that is none."""
    values = torch.stack(waiting).tolist()
    for offset, value in enumerate(values):
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} at step {step - len(values) + offset + 1}")
    return values


@dataclass(frozen=True)
class RunSpec:
    """A run's name, the folder for its results, and what makes it this run and no other."""

    name: str
    out_dir: Path
    identity: dict


def fit(
    model: nn.Module,
    make_dataset: Callable[[bool], TrainDataset],
    recipe: Recipe,
    runtime: RuntimeConfig,
    spec: RunSpec,
    score: Callable[[nn.Module], dict],
    objective: Objective = pose_loss,
) -> tuple[TrainState, Path]:
    """Train a model to its recipe's end, from its last checkpoint if there is one.

    make_dataset: returns the samples; its argument says whether any are still to be trained on. score:
    metrics of the averaged weights for the learning curve, every `evaluate_every` epochs. Returns the run's
    state and its folder, OUT_DIR/runs/NAME-HASH; raises as trainer.train does.
    """
    model.to(runtime.device, memory_format=torch.channels_last)  # 1.5 times as many people/s on a CPU
    torch.backends.cudnn.benchmark = True  # all batches but an epoch's last have one shape
    ema = copy.deepcopy(model).requires_grad_(False)
    facts = spec.identity | {"recipe": asdict(recipe), "code": run_code_hash(model, make_dataset, objective)}
    identity = json.loads(json.dumps(facts))  # tuples become lists, as a checkpoint returns them
    folder = run_folder(spec, identity)
    folder.mkdir(parents=True, exist_ok=True)
    state = TrainState(model, ema, make_optimizer(model, recipe), make_scaler(runtime), identity)
    with checkpoints.run_lock(folder) if runtime.rank == 0 else nullcontext():
        resumed = state.resume(folder)
        runtime.barrier()
        if resumed:
            print(f"going on from step {state.step}, after {len(state.curve)} epochs of {recipe.epochs}")
        elif runtime.rank == 0:  # before any work: a full disk shows now
            state.save(folder)
        dataset = make_dataset(len(state.curve) < recipe.epochs)
        with progress_bar(spec.name, state, len(dataset), recipe, runtime) as bar:
            for epoch, loss in train_epochs(state, dataset, recipe, runtime, folder, bar, objective):
                point = {"epoch": epoch, "loss": loss}
                if runtime.rank == 0 and epoch % recipe.evaluate_every == 0 and epoch < recipe.epochs:
                    point |= score(state.ema)
                    bar.write(" ".join(f"{key} {value:.4f}" for key, value in point.items()))
                state.curve.append(point)
                if runtime.rank == 0:
                    state.save(folder)
                runtime.barrier()
    return state, folder


def run_folder(spec: RunSpec, identity: dict) -> Path:
    """OUT_DIR/runs/NAME-HASH, with the hash of the whole identity."""
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
    return Path(spec.out_dir) / "runs" / f"{spec.name}-{digest}"


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer; the loop sets the learning rate at every step."""
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(parameter_groups(model, recipe.weight_decay, recipe.layer_decay), lr=0.0, fused=True)


def make_scaler(runtime: RuntimeConfig) -> torch.amp.GradScaler:
    """The loss scaler, which does something in fp16 only."""
    return torch.amp.GradScaler(torch.device(runtime.device).type, enabled=runtime.precision == "fp16")


def progress_bar(name: str, state: TrainState, people: int, recipe: Recipe, runtime: RuntimeConfig) -> tqdm:
    """Samples seen of all that the recipe asks for; silent in all processes but the first."""
    seen = samples_seen(state.step, people, recipe)
    return tqdm(
        total=people * recipe.epochs, initial=seen, unit="person", desc=name, disable=runtime.rank > 0
    )


def migrate_run(checkpoint: Path) -> Path:
    """Rewrite a checkpoint of a pose model, written by an earlier version, so that today's code continues
    from it.

    Returns the new file. Raises ValueError for a checkpoint of another kind of run.
    """
    from posebook.training import trainer

    identity = migration.read_run(checkpoint)["identity"]
    if "model" not in identity:
        raise ValueError(f"{checkpoint} is not a checkpoint of a pose model")
    identity = migration.migrate_identity(identity)
    with torch.device("meta"):
        model = models.build(
            identity["model"], input_size=identity["recipe"]["input_size"], **identity["options"]
        )
    return migration.migrate_checkpoint(checkpoint, run_code_hash(model, trainer.make_dataset, pose_loss))
