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
    run: TrainState,
    net: nn.Module,
    batch: list[Tensor],
    people: int,
    recipe: Recipe,
    runtime: RuntimeConfig,
    parts: int,
    objective: Objective = pose_loss,
) -> tuple[Tensor, int]:
    """Move the weights by one batch, taken in so many parts; in twice as many where the device has no room.

    batch: this process's tensors (B, ...), as the objective takes them; people: the batch's of all processes.
    Returns the loss and in how many parts it was had.
    """
    batch = [tensor.to(runtime.device, non_blocking=True) for tensor in batch]
    kind, narrow = torch.device(runtime.device).type, PRECISIONS[runtime.precision]

    def called(*inputs: Tensor) -> object:
        with torch.autocast(kind, narrow, enabled=narrow is not None):
            return net(*inputs)

    while True:
        run.optimizer.zero_grad(set_to_none=True)
        count = len(batch[0])
        loss, ends = torch.zeros((), device=runtime.device), range(0, count, math.ceil(count / parts))
        mean = None  # what a try without room left behind would take up the next one's
        try:
            for first in ends:
                part = [tensor[first : first + ends.step] for tensor in batch]
                last = first + ends.step >= count  # processes exchange gradients once a step
                with nullcontext() if last or runtime.world_size == 1 else net.no_sync():
                    mean = objective(called, part, recipe)
                    mean = (
                        mean * len(part[0]) * runtime.world_size / people
                    )  # processes' gradients are averaged
                    run.scaler.scale(mean).backward()
                loss += mean.detach()
            break
        except torch.OutOfMemoryError:
            if ends.step == 1 or runtime.world_size > 1:  # the other processes would wait for this one
                raise
            parts *= 2
        mean = None
        run.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        tqdm.write(f"no room for {ends.step} people at once: taking each batch in {parts} parts from here on")
    if recipe.max_grad_norm:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.model.parameters(), recipe.max_grad_norm)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    return loss, parts


def batch_iterator(
    people: TrainDataset, first_step: int, runtime: RuntimeConfig, whole: Tensor | None
) -> Iterable[list[Tensor]]:
    """This process's share of every batch from a step to the end; `whole` as in data.gpu_batches."""
    steps, on_gpu = (
        ResumableBatchSampler(people, first_step, runtime.rank, runtime.world_size),
        runtime.device.startswith("cuda"),
    )
    if people.packed and on_gpu:
        return gpu_batches(people, steps, runtime.device, runtime.workers, whole)
    return make_loader(people, steps, runtime.workers, on_gpu)


def wrap_model(run: TrainState, recipe: Recipe, epoch: int, runtime: RuntimeConfig) -> nn.Module:
    """The net as an epoch trains it: LAPX's context set for it, and over all processes."""
    if hasattr(run.model, "set_context"):
        run.model.set_context(recipes.nonlocal_gain_at(epoch, recipe))
    net = torch.compile(run.model, dynamic=False) if runtime.compile else run.model
    # wrapped anew, for what learns may have changed
    return runtime.accelerator.prepare_model(net) if runtime.accelerator else net


def train_epochs(
    run: TrainState,
    people: TrainDataset,
    recipe: Recipe,
    runtime: RuntimeConfig,
    folder: Path,
    bar: tqdm,
    objective: Objective,
) -> Iterator[tuple[int, float]]:
    """Train to the end, yielding each epoch's number and mean loss when it is over.

    Raises FloatingPointError that names the step for a loss of NaN, and SystemExit(143) after SIGTERM, with
    a checkpoint written.
    """
    steps, stop = math.ceil(len(people) / recipe.batch_size), SigtermGuard()
    total, waiting, parts, lost, net = steps * recipe.epochs, [], runtime.grad_accum_steps, 0, None
    on_gpu = people.packed and runtime.device.startswith("cuda")
    whole = preload_canvases(people.packed, runtime.device) if on_gpu else None
    try:
        while run.step < total:
            try:
                for batch in batch_iterator(people, run.step, runtime, whole):
                    if net is None or run.step % steps == 0:
                        net = wrap_model(run, recipe, run.step // steps, runtime)
                        run.model.train()
                    for group in run.optimizer.param_groups:
                        group["lr"] = group["rate"] * lr_at_step(run.step, total, recipe)
                    size = min(recipe.batch_size, len(people) - run.step % steps * recipe.batch_size)
                    shared = (
                        size * runtime.world_size if size < runtime.world_size else size
                    )  # then all take all of it
                    loss, parts = train_step(run, net, batch, shared, recipe, runtime, parts, objective)
                    update_ema(run.ema, run.model, run.step, recipe)
                    waiting.append(loss)
                    run.step += 1
                    bar.update(size)
                    over, ended = run.step % steps == 0, stop.triggered and not runtime.accelerator
                    if over or len(waiting) == CHECK_EVERY or run.step % runtime.save_every == 0 or ended:
                        run.losses, waiting = run.losses + check_finite(waiting, run.step), []
                        bar.set_postfix(loss=f"{run.losses[-1]:.5f}", refresh=False)
                        ended = ended or runtime.any_rank(stop.triggered)
                    if over:
                        mean, run.losses = float(np.mean(run.losses)), []
                        yield run.step // steps, mean
                        run.model.train()
                    elif (run.step % runtime.save_every == 0 or ended) and runtime.rank == 0:
                        run.save(folder)
                    if ended:
                        print(
                            f"stopped by SIGTERM after step {run.step}; the same command goes on from there"
                        )
                        raise SystemExit(143)
            except RuntimeError as error:
                lost += 1
                if not str(error).startswith("DataLoader worker (pid") or lost > 3 or runtime.world_size > 1:
                    raise
                # told by a signal, anywhere in a step: what the step left is thrown away
                before, enabled = run.seconds, run.scaler.is_enabled()
                run.scaler = torch.amp.GradScaler(torch.device(runtime.device).type, enabled=enabled)
                run.resume(folder)
                run.seconds, net = before, None
                waiting, bar.n = [], samples_seen(run.step, len(people), recipe)
                tqdm.write(
                    f"a loader process died ({str(error).splitlines()[0]}); "
                    f"others take its place, from step {run.step}"
                )
    finally:
        stop.restore()


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

    identity = checkpoints.read_identity(checkpoint)
    if "model" not in identity:
        raise ValueError(f"{checkpoint} is not a checkpoint of a pose model")
    identity = migration.migrate_identity(identity)
    with torch.device("meta"):
        model = models.build(
            identity["model"], input_size=identity["recipe"]["input_size"], **identity["options"]
        )
    return migration.migrate_checkpoint(checkpoint, run_code_hash(model, trainer.make_dataset, pose_loss))
