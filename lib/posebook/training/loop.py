"""The training loop of all models: epochs, optimizer steps and resuming. `fit` is the entry point.

1. The loop is the same for 2D pose models and lifters. It gets a model, a function that makes the dataset, a
   recipe, and an objective, which computes the loss of a batch.
2. A run resumes exactly: sample order and augmentation depend only on (seed, epoch), and a checkpoint holds
   weights, their average, optimizer, loss scaler and random states.
"""

import copy
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from posebook import import_graph, migration
from posebook.training import checkpoints, recipes
from posebook.training.checkpoints import TrainState
from posebook.training.data import (
    EpochDataset,
    ResumableBatchSampler,
    TrainDataset,
    gpu_batches,
    make_loader,
    preload_canvases,
)
from posebook.training.objectives import Objective, pose_loss
from posebook.training.optimizer import lr_at_step, parameter_groups, update_ema
from posebook.training.recipes import BaseRecipe, Recipe
from posebook.training.runtime import RuntimeConfig, catch_sigterm, move_model

CHECK_EVERY = 20  # steps between two checks that losses are finite; each check waits for the device
MAX_LOADER_RESTARTS = 3


@dataclass(frozen=True)
class RunSpec:
    """The name of a run, the folder for its results, and its identity.

    identity: everything, besides recipe and code, that affects the result. A change of it is another run.
    """

    name: str
    out_dir: Path
    identity: dict


@dataclass(frozen=True)
class LoopContext:
    """Everything that the functions of the loop share and that stays the same during a run."""

    dataset: EpochDataset
    recipe: BaseRecipe
    runtime: RuntimeConfig
    objective: Objective
    folder: Path  # of the checkpoints

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch. The last batch of an epoch may be smaller than the others."""
        return math.ceil(len(self.dataset) / self.recipe.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps_per_epoch * self.recipe.epochs

    def samples_seen(self, step: int) -> int:
        """Return the number of samples in the first `step` steps."""
        epochs, steps = divmod(step, self.steps_per_epoch)
        return epochs * len(self.dataset) + steps * self.recipe.batch_size


def fit(
    model: nn.Module,
    make_dataset: Callable[[bool], EpochDataset],
    recipe: BaseRecipe,
    runtime: RuntimeConfig,
    spec: RunSpec,
    score: Callable[[Any], dict],
    objective: Objective = pose_loss,
) -> tuple[TrainState, Path]:
    """Train a model to the end of its recipe, starting from the run's last checkpoint if there is one.

    make_dataset: returns the training samples; its argument is False if the training is already complete.
    score: returns metrics of the averaged weights for the learning curve; it is called every `evaluate_every`
    epochs, except after the last one. Returns the run's state and its folder, OUT_DIR/runs/NAME-HASH. Raises
    BlockingIOError if another process trains in this folder, and the errors of `train_epochs`.
    """
    move_model(model, runtime.device)
    torch.backends.cudnn.benchmark = True  # all batches have one shape, except the last of an epoch
    ema = copy.deepcopy(model).requires_grad_(False)
    code = run_code_hash(model, make_dataset, objective)
    identity = spec.identity | {"recipe": asdict(recipe), "code": code}
    identity = json.loads(json.dumps(identity))  # tuples become lists, as they are in a loaded checkpoint
    folder = Path(spec.out_dir) / "runs" / f"{spec.name}-{migration.identity_hash(identity)}"
    folder.mkdir(parents=True, exist_ok=True)
    state = TrainState(model, ema, make_optimizer(model, recipe), make_scaler(runtime), identity)
    with checkpoints.run_lock(folder) if runtime.rank == 0 else nullcontext():
        runtime.barrier()  # only the first process waits for the lock, and then for the last checkpoint
        resumed = state.resume(folder)
        runtime.barrier()  # no process may save before all have read the same checkpoint
        if resumed:
            print(f"resuming from step {state.step}, after {len(state.curve)} of {recipe.epochs} epochs")
        elif runtime.rank == 0:
            state.save(folder)  # before any work, so that a full disk is noticed now
        dataset = make_dataset(len(state.curve) < recipe.epochs)
        context = LoopContext(dataset, recipe, runtime, objective, folder)
        with tqdm(
            total=context.samples_seen(context.total_steps),
            initial=context.samples_seen(state.step),
            unit="sample",
            desc=spec.name,
            disable=runtime.rank > 0,
        ) as bar:
            for epoch, loss in train_epochs(state, context, bar):
                point = {"epoch": epoch, "loss": loss}
                if runtime.rank == 0 and epoch % recipe.evaluate_every == 0 and epoch < recipe.epochs:
                    point |= score(state.ema)
                    numbers = {k: v if isinstance(v, int) else f"{v:.4f}" for k, v in point.items()}
                    bar.write(" ".join(f"{key} {value}" for key, value in numbers.items()))
                state.curve.append(point)
                if runtime.rank == 0:
                    state.save(folder)
                runtime.barrier()  # wait for the evaluation in the first process
    return state, folder


def train_epochs(state: TrainState, context: LoopContext, bar: tqdm) -> Iterator[tuple[int, float]]:
    """Train to the end. Yield the number of each epoch, counted from 1, and its mean loss.

    If a data loader process dies, training continues from the last checkpoint with new ones, at most
    MAX_LOADER_RESTARTS times. Raises FloatingPointError with the step if the loss is not finite, and
    SystemExit(143) after SIGTERM, with a checkpoint written.
    """
    restarts = 0
    with catch_sigterm() as sigterm:
        while state.step < context.total_steps:
            try:
                yield from run_steps(state, context, bar, sigterm)
            except RuntimeError as error:
                restarts += 1
                worker_died = str(error).startswith("DataLoader worker (pid")
                if not worker_died or restarts > MAX_LOADER_RESTARTS or context.runtime.world_size > 1:
                    raise
                reload_checkpoint(state, context)
                bar.n = context.samples_seen(state.step)
                tqdm.write(
                    f"a data loader process died ({str(error).splitlines()[0]}); "
                    f"continuing from step {state.step} with new ones"
                )


def run_steps(
    state: TrainState, context: LoopContext, bar: tqdm, sigterm: list[int]
) -> Iterator[tuple[int, float]]:
    """Run all remaining steps: learning rate, optimizer step, moving average, progress and checkpoints.

    Yields as `train_epochs` does.
    """
    recipe, runtime, steps_per_epoch = context.recipe, context.runtime, context.steps_per_epoch
    grad_accum_steps, model = runtime.grad_accum_steps, None
    pending: list[Tensor] = []  # losses that have not been copied from the device yet
    for batch in batch_iterator(context.dataset, state.step, runtime):
        epoch, step_in_epoch = divmod(state.step, steps_per_epoch)
        if model is None or step_in_epoch == 0:  # the first step after resuming can be within an epoch
            model = wrap_model(state, recipe, epoch, runtime)
            state.model.train()
        for group in state.optimizer.param_groups:  # "rate": a layer's factor, from `parameter_groups`
            group["lr"] = group["rate"] * lr_at_step(state.step, context.total_steps, recipe)
        batch_size = min(recipe.batch_size, len(context.dataset) - step_in_epoch * recipe.batch_size)
        # If there are fewer samples than processes, each process gets all of them (ResumableBatchSampler).
        copies = runtime.world_size if batch_size < runtime.world_size else 1
        loss, grad_accum_steps = train_step(
            state, model, batch, batch_size * copies, recipe, runtime, grad_accum_steps, context.objective
        )
        update_ema(state.ema, state.model, state.step, recipe)
        pending.append(loss)
        state.step += 1
        bar.update(batch_size)

        epoch_ends = state.step % steps_per_epoch == 0
        save_due = state.step % runtime.save_every == 0
        stop = bool(sigterm) and runtime.world_size == 1  # several processes agree on it below
        if epoch_ends or save_due or stop or len(pending) == CHECK_EVERY:
            state.losses, pending = state.losses + check_finite(pending, state.step), []
            epochs = f"{epoch + 1}/{recipe.epochs}"
            bar.set_postfix(epoch=epochs, loss=f"{state.losses[-1]:.5f}", refresh=False)
            stop = stop or runtime.any_rank(bool(sigterm))
        if epoch_ends:
            mean, state.losses = float(np.mean(state.losses)), []
            yield epoch + 1, mean  # `fit` evaluates and saves
        elif (save_due or stop) and runtime.rank == 0:
            state.save(context.folder)
        if stop:
            print(f"stopped by SIGTERM after step {state.step}; run the same command again to resume")
            raise SystemExit(143)  # 128 + SIGTERM, as shells report it


def train_step(
    state: TrainState,
    model: Callable[..., Any],
    batch: list[Tensor],
    global_batch_size: int,
    recipe: BaseRecipe,
    runtime: RuntimeConfig,
    grad_accum_steps: int,
    objective: Objective = pose_loss,
) -> tuple[Tensor, int]:
    """Do one optimizer step, with gradient accumulation over `grad_accum_steps` parts of the batch.

    model: what `wrap_model` returns for state.model. batch: this process's tensors (B, ...), as the objective
    takes them. global_batch_size: number of samples in the batches of all processes. If the device runs out
    of memory, grad_accum_steps is doubled. Returns this process's loss, a scalar whose mean over the
    processes is the mean over all samples, and the grad_accum_steps used.
    """
    batch = [tensor.to(runtime.device, non_blocking=True) for tensor in batch]
    while True:
        state.optimizer.zero_grad(set_to_none=True)
        part_size = math.ceil(len(batch[0]) / grad_accum_steps)
        try:
            loss = accumulate_gradients(
                state.scaler, model, batch, part_size, global_batch_size, recipe, runtime, objective
            )
            break
        except torch.OutOfMemoryError:
            if part_size == 1 or runtime.world_size > 1:  # the other processes would wait forever
                raise
        # Not inside the except block, because there the exception still holds the failed attempt's tensors.
        grad_accum_steps *= 2
        state.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        tqdm.write(
            f"out of memory with {part_size} samples: from here on, grad_accum_steps is {grad_accum_steps}"
        )
    if recipe.max_grad_norm:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), recipe.max_grad_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return loss, grad_accum_steps


def accumulate_gradients(
    scaler: torch.amp.GradScaler,
    model: Callable[..., Any],
    batch: list[Tensor],
    part_size: int,
    global_batch_size: int,
    recipe: BaseRecipe,
    runtime: RuntimeConfig,
    objective: Objective,
) -> Tensor:
    """Run forward and backward passes over parts of a batch, of `part_size` samples. Return the loss.

    The other parameters and the loss are those of `train_step`.
    """

    def forward(*inputs: Tensor) -> Any:
        with runtime.autocast():
            return model(*inputs)

    num_samples = len(batch[0])
    total = torch.zeros((), device=runtime.device)
    for start in range(0, num_samples, part_size):
        part = [tensor[start : start + part_size] for tensor in batch]
        is_last = start + part_size >= num_samples
        # Processes exchange gradients only once per step, in the last backward pass.
        with nullcontext() if is_last else runtime.no_sync(model):
            loss = objective(forward, part, recipe)  # mean over the part
            # DDP averages gradients over processes; world_size turns this into the mean over all samples.
            loss = loss * len(part[0]) * runtime.world_size / global_batch_size
            scaler.scale(loss).backward()
        total += loss.detach()
    return total


def batch_iterator(dataset: EpochDataset, first_step: int, runtime: RuntimeConfig) -> Iterable[list[Tensor]]:
    """Return this process's part of every batch, from a step to the end of the run."""
    sampler = ResumableBatchSampler(dataset, first_step, runtime.rank, runtime.world_size)
    on_gpu = runtime.device_type == "cuda"
    if on_gpu and isinstance(dataset, TrainDataset) and dataset.canvases:
        preloaded = preload_canvases(dataset.canvases, runtime.device)
        return gpu_batches(dataset, sampler, runtime.device, runtime.workers, preloaded)
    return make_loader(dataset, sampler, runtime.workers, on_gpu)


def wrap_model(
    state: TrainState, recipe: BaseRecipe, epoch: int, runtime: RuntimeConfig
) -> Callable[..., Any]:
    """Set LAPX's non-local gain for an epoch, and return the model, compiled and distributed if required.

    Each epoch needs a new wrapper, because the gain decides which parameters are trained.
    """
    set_gain = getattr(state.model, "set_nonlocal_gain", None)
    if set_gain:
        assert isinstance(recipe, Recipe)
        set_gain(recipes.nonlocal_gain_at(epoch, recipe))
    model = torch.compile(state.model, dynamic=False) if runtime.compile else state.model
    return runtime.accelerator.prepare_model(model) if runtime.accelerator else model


def reload_checkpoint(state: TrainState, context: LoopContext) -> None:
    """Return to the last checkpoint after an interrupted step. The time of the lost steps still counts."""
    seconds = state.seconds  # the checkpoint's value includes time since state.started, counted again later
    state.scaler = make_scaler(context.runtime)  # the old one may be in the middle of the step
    state.resume(context.folder)
    state.seconds = seconds


def check_finite(losses: list[Tensor], step: int) -> list[float]:
    """Return the losses of the steps up to `step` as numbers.

    Raises FloatingPointError with the step of the first loss that is not finite.
    """
    values = torch.stack(losses).tolist()
    for value_step, value in enumerate(values, step - len(values) + 1):
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} at step {value_step}")
    return values


def make_optimizer(model: nn.Module, recipe: BaseRecipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer. The loop sets the learning rate at every step."""
    optimizer_class = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    groups = parameter_groups(model, recipe.weight_decay, recipe.layer_decay)
    return optimizer_class(groups, lr=0.0, fused=True)


def make_scaler(runtime: RuntimeConfig) -> torch.amp.GradScaler:
    """Return the loss scaler. It does nothing, except for precision fp16."""
    return torch.amp.GradScaler(runtime.device_type, enabled=runtime.precision == "fp16")


def run_code_hash(model: nn.Module, *functions: Callable) -> str:
    """Return a hash of the code that affects a run's weights.

    It covers the loop, the modules of the functions (make_dataset and the objective), the modules of the
    model's layers, and everything that these import.
    """
    modules = {__name__, *(function.__module__ for function in functions)}
    modules |= {type(layer).__module__ for layer in model.modules()}
    return import_graph.code_hash(sorted(name for name in modules if name.startswith("posebook.")))
