"""The training loop: recipe in, record and weights out; stopped at any moment, it goes on where it was.

1. A checkpoint (checkpoints.py) is written every so many steps and at the end of every epoch; SIGTERM writes
   one and ends the run.
2. The average of the weights (mmengine's ExpMomentumEMA) is what is evaluated and kept.
3. A batch may be taken in parts and by several processes (torchrun): every part's loss is weighted by its
   people, so that the gradient is the whole batch's. Batch norm sees the parts one by one.
"""

import argparse
import copy
import hashlib
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from posebook import (
    checkpoints,
    codecs,
    complexity,
    datasets,
    evaluation,
    grid,
    losses,
    metrics,
    models,
    recipes,
    records,
    samples,
    transforms,
    uncertainty,
)
from posebook.checkpoints import Run
from posebook.commands import fails_in_one_line
from posebook.datasets import Persons, combined, packed
from posebook.datasets.packed import Packed
from posebook.files import sha256
from posebook.models import transfer
from posebook.names import near
from posebook.recipes import Recipe
from posebook.samples import Samples, Steps
from posebook.skeletons import difference

CHECK_EVERY = 20  # steps between looks at the loss for NaN: looking waits for the device
SAVE_EVERY = 500  # steps between checkpoints within an epoch
# A net, part of a batch and a recipe to the loss: a scalar, the mean over the part's samples.
Objective = Callable[[Callable, list[Tensor], object], Tensor]
PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# train and validation; ("train", "val") elsewhere
SPLITS = dict.fromkeys(["coco", "coco-mini"], ("train2017", "val2017")) | {"crowdpose": ("trainval", "test")}
HASHED_IMAGES = 20_000  # larger sets are whole official ones, whose splits have no image in common


def learning_rate(step: int, total: int, recipe: Recipe) -> float:
    """The rate at a step of `total`: linear warm-up, flat, then a cosine to final_rate of it, or drops."""
    peak = recipe.learning_rate * recipe.batch / recipe.base_batch
    if step < recipe.warmup_steps:
        return peak * max(1e-5, step / recipe.warmup_steps)
    if recipe.drops:
        return peak * recipe.drop ** sum(step / total * recipe.epochs >= epoch for epoch in recipe.drops)
    share = max(0.0, (step / total - recipe.cosine_from) / (1 - recipe.cosine_from))
    return peak * (recipe.final_rate + (1 - recipe.final_rate) * (1 + math.cos(math.pi * share)) / 2)


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict]:
    """Weights with decay; norms, biases and tables of positions without.

    layer_decay: the share of a layer's rate that the layer before it has; a group's is under `rate`.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for path, module in model.named_modules():
        norm = "Norm" in type(module).__name__
        for name, parameter in module.named_parameters(recurse=False):
            layer = model.layer_of(f"{path}.{name}") if layer_decay < 1 else 0
            plain = norm or name.endswith(("bias", "pos_embed"))
            groups.setdefault((layer, plain), []).append(parameter)
    last = max(layer for layer, _ in groups)
    return [
        {
            "params": groups[layer, plain],
            "weight_decay": 0.0 if plain else weight_decay,
            "rate": layer_decay ** (last - layer),
        }
        for layer, plain in sorted(groups)
    ]


@torch.no_grad()
def average(into: nn.Module, model: nn.Module, step: int, recipe: Recipe) -> None:
    """Move the averaged weights and buffers towards the model's; faster early on (ExpMomentumEMA)."""
    momentum = recipe.ema + (1 - recipe.ema) * math.exp(-(1 + step) / recipe.ema_warmup)
    old, new = ([*net.parameters(), *net.buffers()] for net in (into, model))
    floats = [i for i, value in enumerate(old) if value.is_floating_point()]
    torch._foreach_lerp_([old[i] for i in floats], [new[i] for i in floats], momentum)
    counts = [i for i, value in enumerate(old) if not value.is_floating_point()]
    if counts:  # of batches, in nets with batch norms
        torch._foreach_copy_([old[i] for i in counts], [new[i] for i in counts])


def sources(net: nn.Module) -> str:
    """A hash of the code that decides a run's weights: of the zoo, only the files this net is made of."""
    package = Path(__file__).parent
    names = ["training", "samples", "recipes", "transforms", "codecs", "losses", "skeletons"]
    files = {package / f"{name}.py" for name in names} | set((package / "datasets").glob("*.py"))
    modules = {sys.modules[type(module).__module__] for module in net.modules()}
    files |= {Path(module.__file__) for module in modules if module.__name__.startswith("posebook.")}
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()


@dataclass(frozen=True)
class How:
    """How a run is carried out, as far as it is no matter of the recipe."""

    device: str
    workers: int = 0  # loader processes
    precision: str = "float32"  # of PRECISIONS
    compile: bool = False
    parts: int = 1  # that a batch is taken in at first
    save_every: int = SAVE_EVERY  # steps
    accelerator: object = None  # accelerate's, where there are several processes

    @property
    def world(self) -> int:
        """How many processes train together."""
        return self.accelerator.num_processes if self.accelerator else 1

    @property
    def rank(self) -> int:
        """Which of them this is."""
        return self.accelerator.process_index if self.accelerator else 0

    def any(self, here: bool) -> bool:
        """Whether something holds in any of the processes."""
        if not self.accelerator:
            return here
        return bool(self.accelerator.reduce(torch.tensor(float(here), device=self.device)))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.accelerator:
            self.accelerator.wait_for_everyone()


def how(device: str, precision: str, **more: object) -> How:
    """`How` a run is carried out; several processes where torchrun has started them.

    Raises ValueError for a precision it does not know and for no parts or steps, before any work.
    """
    if precision not in PRECISIONS:
        raise near(precision, PRECISIONS, "precision")
    for name in ("parts", "save_every"):
        if more.get(name, 1) < 1:
            raise ValueError(f"{name} is {more[name]}, not a whole number from 1 on")
    accelerator = None
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

        accelerator = Accelerator(
            cpu=torch.device(device).type == "cpu",
            kwargs_handlers=[
                InitProcessGroupKwargs(
                    timeout=timedelta(hours=12)
                ),  # others wait while one packs or evaluates
                DistributedDataParallelKwargs(find_unused_parameters=True),  # HRFormer has some
            ],
        )
        device = str(accelerator.device)
    return How(device, precision=precision, accelerator=accelerator, **more)


def loss_of(output: object, keypoints: Tensor, weights: Tensor, recipe: Recipe) -> Tensor:
    """The recipe's loss of a net's output against joints (B, K, 2) of its input, a scalar in float32."""
    size = recipe.input_size
    if not isinstance(output, codecs.SimCC):
        targets = codecs.encode_heatmap(keypoints, size, size[0] // output[-1].shape[-2])
        return losses.heatmap_mse([stage.float() for stage in output], targets, weights)
    output = codecs.SimCC(*(axis.float() for axis in output))
    targets = codecs.encode_simcc(keypoints, size, output.x.shape[-1] / size[1], recipes.sigma_for(recipe))
    if recipe.loss == "kl_discrete":
        return losses.kl_discrete(output, targets, weights, recipe.smoothing, recipe.temperature)
    return losses.simcc_kl(output, targets, weights, recipe.beta)


def pose_loss(net: nn.Module, batch: list[Tensor], recipe: Recipe) -> Tensor:
    """The recipe's loss of a net on images (B, H, W, 3) uint8, joints (B, K, 2) and weights (B, K).

    A net of several datasets also takes which of them each image is of, (B,).
    """
    images, keypoints, weights, *dataset = batch
    return loss_of(net(transforms.normalise(images), *dataset), keypoints, weights, recipe)


class Interrupted:
    """Whether SIGTERM has come; only a program's main thread can be told."""

    def __init__(self):
        self.yes = False
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "yes", True))

    def over(self) -> None:
        """Put back who was told before."""
        if hasattr(self, "before"):
            signal.signal(signal.SIGTERM, self.before)


def take_step(
    run: Run,
    net: nn.Module,
    batch: list[Tensor],
    people: int,
    recipe: Recipe,
    how: How,
    parts: int,
    objective: Objective = pose_loss,
) -> tuple[Tensor, int]:
    """Move the weights by one batch, taken in so many parts; in twice as many where the device has no room.

    batch: this process's tensors (B, ...), as the objective takes them; people: the batch's of all processes.
    Returns the loss and in how many parts it was had.
    """
    batch = [tensor.to(how.device, non_blocking=True) for tensor in batch]
    kind, narrow = torch.device(how.device).type, PRECISIONS[how.precision]

    def called(*inputs: Tensor) -> object:
        with torch.autocast(kind, narrow, enabled=narrow is not None):
            return net(*inputs)

    while True:
        run.optimiser.zero_grad(set_to_none=True)
        count = len(batch[0])
        loss, ends = torch.zeros((), device=how.device), range(0, count, math.ceil(count / parts))
        mean = None  # what a try without room left behind would take up the next one's
        try:
            for first in ends:
                part = [tensor[first : first + ends.step] for tensor in batch]
                last = first + ends.step >= count  # processes exchange gradients once a step
                with nullcontext() if last or how.world == 1 else net.no_sync():
                    mean = objective(called, part, recipe)
                    mean = mean * len(part[0]) * how.world / people  # processes' gradients are averaged
                    run.scaler.scale(mean).backward()
                loss += mean.detach()
            break
        except torch.OutOfMemoryError:
            if ends.step == 1 or how.world > 1:  # the other processes would wait for this one
                raise
            parts *= 2
        mean = None
        run.optimiser.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        tqdm.write(f"no room for {ends.step} people at once: taking each batch in {parts} parts from here on")
    if recipe.clip:
        run.scaler.unscale_(run.optimiser)
        nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip)
    run.scaler.step(run.optimiser)
    run.scaler.update()
    return loss, parts


def feed(people: Samples, first_step: int, how: How, whole: Tensor | None) -> Iterable[list[Tensor]]:
    """This process's share of every batch from a step to the end; `whole` as in samples.on_device."""
    steps, on_gpu = Steps(people, first_step, how.rank, how.world), how.device.startswith("cuda")
    if people.packed and on_gpu:
        return samples.on_device(people, steps, how.device, how.workers, whole)
    return samples.loaded(people, steps, how.workers, on_gpu)


def spread(run: Run, recipe: Recipe, epoch: int, how: How) -> nn.Module:
    """The net as an epoch trains it: LAPX's context set for it, and over all processes."""
    if hasattr(run.model, "set_context"):
        run.model.set_context(recipes.context_gain(epoch, recipe))
    net = torch.compile(run.model, dynamic=False) if how.compile else run.model
    # wrapped anew, for what learns may have changed
    return how.accelerator.prepare_model(net) if how.accelerator else net


def train_steps(
    run: Run, people: Samples, recipe: Recipe, how: How, folder: Path, bar: tqdm, objective: Objective
) -> Iterator[tuple[int, float]]:
    """Train to the end, yielding each epoch's number and mean loss when it is over.

    Raises FloatingPointError that names the step for a loss of NaN, and SystemExit(143) after SIGTERM, with
    a checkpoint written.
    """
    steps, stop = math.ceil(len(people) / recipe.batch), Interrupted()
    total, waiting, parts, lost, net = steps * recipe.epochs, [], how.parts, 0, None
    on_gpu = people.packed and how.device.startswith("cuda")
    whole = samples.whole_set(people.packed, how.device) if on_gpu else None
    try:
        while run.step < total:
            try:
                for batch in feed(people, run.step, how, whole):
                    if net is None or run.step % steps == 0:
                        net = spread(run, recipe, run.step // steps, how)
                        run.model.train()
                    for group in run.optimiser.param_groups:
                        group["lr"] = group["rate"] * learning_rate(run.step, total, recipe)
                    size = min(recipe.batch, len(people) - run.step % steps * recipe.batch)
                    shared = size * how.world if size < how.world else size  # then all take all of it
                    loss, parts = take_step(run, net, batch, shared, recipe, how, parts, objective)
                    average(run.ema, run.model, run.step, recipe)
                    waiting.append(loss)
                    run.step += 1
                    bar.update(size)
                    over, ended = run.step % steps == 0, stop.yes and not how.accelerator
                    if over or len(waiting) == CHECK_EVERY or run.step % how.save_every == 0 or ended:
                        run.losses, waiting = run.losses + finite(waiting, run.step), []
                        bar.set_postfix(loss=f"{run.losses[-1]:.5f}", refresh=False)
                        ended = ended or how.any(stop.yes)
                    if over:
                        mean, run.losses = float(np.mean(run.losses)), []
                        yield run.step // steps, mean
                        run.model.train()
                    elif (run.step % how.save_every == 0 or ended) and how.rank == 0:
                        run.save(folder)
                    if ended:
                        print(
                            f"stopped by SIGTERM after step {run.step}; the same command goes on from there"
                        )
                        raise SystemExit(143)
            except RuntimeError as error:
                lost += 1
                if not str(error).startswith("DataLoader worker (pid") or lost > 3 or how.world > 1:
                    raise
                # told by a signal, anywhere in a step: what the step left is thrown away
                before, enabled = run.seconds, run.scaler.is_enabled()
                run.scaler = torch.amp.GradScaler(torch.device(how.device).type, enabled=enabled)
                run.resume(folder)
                run.seconds, net = before, None
                waiting, bar.n = [], _people_seen(run.step, len(people), recipe)
                tqdm.write(
                    f"a loader process died ({str(error).splitlines()[0]}); "
                    f"others take its place, from step {run.step}"
                )
    finally:
        stop.over()


def _people_seen(step: int, people: int, recipe: Recipe) -> int:
    """How many samples the steps up to `step` have had."""
    epochs, steps = divmod(step, math.ceil(people / recipe.batch))
    return epochs * people + steps * recipe.batch


def finite(waiting: list[Tensor], step: int) -> list[float]:
    """The losses of the steps up to `step` as numbers; raises FloatingPointError naming one that is none."""
    values = torch.stack(waiting).tolist()
    for offset, value in enumerate(values):
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} at step {step - len(values) + offset + 1}")
    return values


def fit(
    name: str,
    net: nn.Module,
    people: Callable[[bool], Samples],
    recipe: Recipe,
    way: How,
    out_dir: str | Path,
    identity: dict,
    score: Callable[[nn.Module], dict],
    objective: Objective = pose_loss,
) -> tuple[Run, Path]:
    """Train a net to its recipe's end, from its last checkpoint where there is one.

    people: makes the samples, told whether any are still to be trained on; identity: what makes it this run;
    score: metrics of the averaged weights for the curve, every `evaluate_every` epochs. Returns the run and
    its folder, OUT_DIR/runs/NAME-HASH; raises as `train` does.
    """
    net.to(way.device, memory_format=torch.channels_last)  # 1.5 times as many people a second on a CPU
    torch.backends.cudnn.benchmark = True  # all batches but an epoch's last are of one shape
    ema = copy.deepcopy(net).requires_grad_(False)
    # as a checkpoint gives it back
    identity = json.loads(json.dumps(identity | {"recipe": asdict(recipe), "code": sources(net)}))
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
    folder = Path(out_dir) / "runs" / f"{name}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    optimiser = kind(parameter_groups(net, recipe.weight_decay, recipe.layer_decay), lr=0.0, fused=True)
    scaler = torch.amp.GradScaler(torch.device(way.device).type, enabled=way.precision == "fp16")
    run = Run(net, ema, optimiser, scaler, identity)
    with checkpoints.locked(folder) if way.rank == 0 else nullcontext():
        going_on = run.resume(folder)
        way.wait()
        if going_on:
            print(f"going on from step {run.step}, after {len(run.curve)} epochs of {recipe.epochs}")
        elif way.rank == 0:  # before any work: a full disk shows now
            run.save(folder)
        samples = people(len(run.curve) < recipe.epochs)
        bar = tqdm(
            total=len(samples) * recipe.epochs,
            initial=_people_seen(run.step, len(samples), recipe),
            unit="person",
            desc=name,
            disable=way.rank > 0,
        )
        with bar:
            for epoch, loss in train_steps(run, samples, recipe, way, folder, bar, objective):
                point = {"epoch": epoch, "loss": loss}
                if way.rank == 0 and epoch % recipe.evaluate_every == 0 and epoch < recipe.epochs:
                    point |= score(run.ema)
                    bar.write(" ".join(f"{key} {value:.4f}" for key, value in point.items()))
                run.curve.append(point)
                if way.rank == 0:
                    run.save(folder)
                way.wait()
    return run, folder


def load_split(
    dataset: str,
    data_root: str | dict | None,
    split: str | None = None,
    shares: str | list[float] | None = None,
    labels: str | dict | None = None,
    *,
    train: bool,
    skeleton: str = "coco",
) -> Persons:
    """The people to train on, or to evaluate on, of one dataset or of several joined by '+'."""
    side = 0 if train else 1
    if "+" not in dataset:
        if shares or labels:
            raise ValueError(
                f"shares and labels belong to several sources, such as coco+lspet; here is {dataset}"
            )
        return datasets.load(dataset, data_root, split or SPLITS.get(dataset, ("train", "val"))[side])
    if split:
        raise ValueError(f"{dataset} has several sources, which are evaluated on their own validation splits")
    sources = combined.parse_sources(dataset, data_root, shares if train else None, labels if train else None)
    splits = [SPLITS.get(source.name, ("train", "val"))[side] for source in sources]
    return combined.load_combined(
        [replace(source, split=one) for source, one in zip(sources, splits, strict=True)], skeleton
    )


def trained_images(
    train_people: Persons, val_people: Persons | None, init: str | None, canvases: Packed | None = None
) -> set[str]:
    """Hashes of the images that a run's weights will have been trained on, `init`'s among them.

    Training sets of more than HASHED_IMAGES images are not hashed. canvases: the file that holds the training
    images' hashes, where the images are not there. Raises ValueError where people to evaluate on are of them.
    """
    earlier, seen = models.trained_images(init) if init else set(), set()
    if len({person.image for person in train_people.persons}) <= HASHED_IMAGES:
        seen = set(canvases.image_hashes if canvases else combined.image_hashes(train_people.persons))
    if val_people and (seen or earlier):
        found = combined.image_hashes(val_people.persons)
        combined.check_overlap(seen, found, "this run")
        combined.check_overlap(earlier, found, Path(init).name if init else "")
    return seen | earlier


def packed_people(canvases: str | Path, recipe: Recipe, given: dict[str, object]) -> tuple[Persons, Packed]:
    """The people to train on of a file of canvases, and that file.

    given: settings that have no meaning with it, by name. Raises ValueError for one of these that is set, and
    for canvases that do not serve the recipe; FileNotFoundError.
    """
    for name, value in given.items():
        if value:
            raise ValueError(f"canvases are packed already, with their sources and shares: leave out {name}")
    path = Path(canvases)
    if not path.is_file():
        raise FileNotFoundError(f"no file of canvases at {path}")
    file = Packed(path)
    file.serves(recipe.input_size, (recipe.stage1, recipe.stage2))
    return file.people(), file


def main_metrics(net: nn.Module, people: Persons, way: How, workers: int) -> dict[str, float]:
    """The metric of a learning curve, without flip test; one for each source."""
    scores = {}
    for source in people.sources or (people,):
        found = evaluation.evaluate(net, source, flip_test=False, device=way.device, workers=workers)
        prefix = f"{source.name} " if people.sources else ""
        scores |= {prefix + key: value for key, value in found.items() if key in metrics.MAIN}
    return scores


def evaluate_run(net: nn.Module, people: Persons, way: How, workers: int, path: Path) -> dict:
    """A record's fields on the people to evaluate on; their predictions are saved beside PATH.

    Of several sources there are figures and a file of predictions for each, by its name.
    """
    fields = []
    for source in people.sources or (people,):
        single = evaluation.evaluate(net, source, flip_test=False, device=way.device, workers=workers)
        found = evaluation.predict(net, source, flip_test=True, device=way.device, workers=workers)
        scores, units = metrics.measure(source, found)
        beside = path.with_name(f"{path.stem}.{source.name}.json") if people.sources else path
        evaluation.save(beside, source, found, units)
        fields.append(
            {
                "protocol": evaluation.protocol(source, net.input_size, True, found.decoding),
                "evaluated": source.describe(),
                "metrics": scores,
                "interval": uncertainty.interval(units),
                "metrics_without_flip": single,
            }
        )
    if not people.sources:
        return fields[0]

    def named(key: str) -> dict:
        return {
            f"{one['evaluated']['name']} {name}": value for one in fields for name, value in one[key].items()
        }

    return {
        "protocol": fields[0]["protocol"] | {"metric": "each source's own", "evaluated_on": people.split},
        "evaluated": people.describe(),
        "metrics": named("metrics"),
        "metrics_without_flip": named("metrics_without_flip"),
        "evaluations": fields,
    }


def gain(people: Persons, before: Path, after: Path) -> dict:
    """The main metric's change between two evaluations on the same people, from their kept predictions.

    before, after: the records' paths, beside which `evaluate_run` has saved them. Value and 95 % interval are
    fractions; the interval is drawn over images, the same ones for both. Of sources: one each, by name.
    """

    def beside(path: Path, source: Persons) -> Path:
        return path.with_name(f"{path.stem}.{source.name}.json") if people.sources else path

    found = {}
    for source in people.sources or (people,):
        units = [evaluation.load_units(beside(path, source)) for path in (before, after)]
        value, low, high = uncertainty.difference(*units)
        found[source.name] = {"value": value, "interval": [low, high], "images": len(units[0].images)}
    return found if people.sources else found[people.name]


def run_name(model: str, options: dict, data: str, more: Sequence[str], init: str | None, last: str) -> str:
    """A run's default name, with its initial weights: by their file's name, or by the folder of their run."""
    words = ["train", model, *(f"{key}={value}" for key, value in options.items()), data, *more]
    if init:
        file = Path(init)
        words.append(f"from-{file.absolute().parent.name if file.stem == 'weights' else file.stem}")
    return "-".join([*words, last])


def train(
    model: str = "starnet-pose-t",
    dataset: str = "synthetic",
    data_root: str | dict | None = None,
    profile: str = "demo",
    device: str = "cpu",
    seed: int = 0,
    out_dir: str = "reports",
    options: dict | None = None,
    backbone: str | None = None,
    val_split: str | None = None,
    workers: int = 0,
    init: str | None = None,
    precision: str = "float32",
    compile: bool = False,
    parts: int = 1,
    save_every: int = SAVE_EVERY,
    pack: str | None = None,
    name: str | None = None,
    shares: str | list[float] | None = None,
    labels: str | dict | None = None,
    hold_out: float = 0.0,
    canvases: str | None = None,
    **changes: object,
) -> dict:
    """Train a model on a dataset, evaluate its averaged weights, and return the record.

    dataset: one of datasets.NAMES, or several joined by '+', whose joints are mapped onto COCO's; data_root:
    its folder, of several 'coco=PATH,lspet=PATH'; shares: of an epoch, one for each of several; labels: files
    of additional joints, 'lspet=PATH' (datasets/combined.py). hold_out: the share of the training images that
    is not trained on, on which the learning curve is then measured.
    options: the builder's keyword arguments; backbone: the backbone authors' ImageNet file, or init: weights
    of this model to start from, also with other joints or another input size: then they are evaluated before
    training too, and the record holds the difference; val_split: the split to evaluate on, 'none' for no
    evaluation; precision: float32, bf16 or fp16 in the forward pass; compile: by torch.compile; parts: that
    each batch is taken in, for one that does not fit; save_every: steps between checkpoints; pack: the form,
    jpeg or raw, in which canvases are packed first and read from then on, on a GPU by the batch; canvases:
    such a file, to train on its people without the dataset's annotations and images (dataset is then what is
    evaluated on); name: of the record; changes: fields of the profile's recipe to set otherwise, such as
    epochs, batch or input_size. Weights and checkpoints go to OUT_DIR/runs/NAME-HASH/; the same call goes on
    from there, and a call that differs in anything but the device that moves the weights, the code included,
    has another folder.
    Raises ValueError before any work for a name it does not know, for `init` of another model and for images
    that are in both splits, FileNotFoundError for an `init` that is not there, RuntimeError where another
    process trains in that folder, FloatingPointError for a loss of NaN, SystemExit(143) after SIGTERM.
    """
    options = options or {}
    models.check(model, options)
    if backbone and init:
        raise ValueError("a run starts from a backbone's weights or from a model's: name one of the two")
    if init:
        transfer.check_weights(init, model)
    recipe = recipes.get(profile, model, dataset, **changes)
    way = how(device, precision, workers=workers, compile=compile, parts=parts, save_every=save_every)
    watch = records.Stopwatch(way.device)
    file, val_people = None, None
    if canvases:
        given = {"shares": shares, "labels": labels, "hold_out": hold_out, "pack": pack}
        train_people, file = packed_people(canvases, recipe, given)
        pack = file.facts["format"]
    else:
        train_people = load_split(dataset, data_root, None, shares, labels, train=True)
    if val_split != "none":
        val_people = load_split(dataset, data_root, val_split, train=False)
        for source in val_people.sources or (val_people,):
            metrics.ready(source)
        if fault := difference(train_people.skeleton.keypoints, val_people.skeleton.keypoints):
            raise ValueError(f"{val_people.name} has other joints than {train_people.name}: {fault}")
    curve_people = val_people
    if hold_out:
        train_people, curve_people = combined.hold_out(train_people, hold_out)
    images = trained_images(train_people, val_people, init, file)
    torch.manual_seed(seed)
    net = models.build(model, train_people.skeleton, recipe.input_size, **options)
    initialisation, transferred = "scratch", {}
    if backbone:
        models.load_backbone(net, backbone)
        initialisation = f"backbone {Path(backbone).name} sha256 {sha256(backbone)}"
    if init:
        done = transfer.transfer_weights(net, init, model)
        print(f"{Path(init).name}: {done.summary()}")
        initialisation = f"weights {Path(init).name} sha256 {sha256(init)}"
        transferred = {"transfer": done.describe()}
    usual = recipe.input_size == recipes.get(profile, model, dataset).input_size
    size = [] if usual else ["x".join(map(str, recipe.input_size))]
    name = name or run_name(model, options, train_people.name, size, init, f"{profile}-seed{seed}")
    ledger = Path(out_dir) / "records"
    before, start = ledger / f"{name}.before.json", {}
    if init and val_people and way.rank == 0:
        ledger.mkdir(parents=True, exist_ok=True)
        net.to(way.device, memory_format=torch.channels_last)
        found = evaluate_run(net, val_people, way, workers, before)
        start = {key: found[key] for key in ("metrics", "interval", "metrics_without_flip") if key in found}

    def people(wanted: bool) -> Samples:
        opened = file
        if pack and wanted and not file:
            augmentations = (recipe.stage1, recipe.stage2)
            if way.rank > 0:  # the first process packs, the others open what it made
                way.wait()
            opened = packed.open_or_pack(
                train_people, Path(out_dir) / "packed", recipe.input_size, augmentations, pack
            )
            if way.rank == 0:
                way.wait()
        return Samples(train_people, recipe, seed, opened)

    def score(net: nn.Module) -> dict:
        return main_metrics(net, curve_people, way, workers) if curve_people else {}

    identity = {
        "model": model,
        "options": options,
        "data": train_people.sha256,
        "seed": seed,
        "initialisation": initialisation,
        "precision": precision,
        "packed": pack,
        "processes": way.world,
        "parts": parts,
        "compile": compile,
    }
    if hold_out:
        identity["hold_out"] = hold_out
    if file:
        identity["canvases"] = file.digest
    run, folder = fit(name, net, people, recipe, way, out_dir, identity, score)
    if way.rank > 0:  # the first process writes the record
        return {}
    ledger.mkdir(exist_ok=True)
    if curve_people is not val_people:
        run.curve[-1] |= score(run.ema)
    evaluated, change = {"protocol": {"input_size": list(recipe.input_size)}, "metrics": {}}, {}
    evaluated["not_evaluated"] = "no validation split (val_split none)"
    if val_people:
        evaluated = evaluate_run(run.ema, val_people, way, workers, ledger / f"{name}.json")
        if curve_people is val_people:
            single = evaluated["metrics_without_flip"]
            run.curve[-1] |= {key: single[key] for key in main_metrics_of(single)}
        if init:
            change = {"before": start, "difference": gain(val_people, before, ledger / f"{name}.json")}
    weights = folder / "weights.safetensors"
    digest = models.save_weights(run.ema.cpu(), weights, model, train_people.name, images=images, **options)
    return {
        "kind": "train",
        "name": name,
        "model": model,
        "options": options,
        "dataset": train_people.describe(),
        "profile": profile,
        "parameters": run.identity["recipe"]
        | {"dataset": dataset, "device": way.device, "workers": workers, "processes": way.world}
        | {"precision": precision, "compile": compile, "parts": parts, "pack": pack, "hold_out": hold_out}
        | ({"canvases": file.path.name} if file else {}),
        **evaluated,
        **change,
        "complexity": complexity.count(run.ema, recipe.input_size),
        "curve": run.curve,
        "curve_measured_on": curve_people.describe() if curve_people else None,
        "weights": {
            "sha256": digest,
            "initialisation": initialisation,
            "trained_on": train_people.name,
            "file": f"runs/{folder.name}/weights.safetensors",
        }
        | transferred,
        "seed": seed,
        **watch.stamp(run.seconds),
    }


def main_metrics_of(scores: dict[str, float]) -> list[str]:
    """Those keys that are a learning curve's metric, of one dataset or named by source."""
    return [
        key for key in scores if key in metrics.MAIN or key.endswith(tuple(f" {m}" for m in metrics.MAIN))
    ]


@fails_in_one_line
def main() -> None:
    """Train from the command line; writes the record and says where."""
    parser = argparse.ArgumentParser(
        prog="python -m posebook.training", description=train.__doc__.splitlines()[0]
    )
    parser.add_argument("--model", default="starnet-pose-t", help=", ".join(models.names()))
    parser.add_argument(
        "--dataset", default="synthetic", help=", ".join(datasets.NAMES) + "; several: coco+lspet+synthetic"
    )
    parser.add_argument(
        "--grid", metavar="ID", help="a row of data/grid.csv, instead of model, options, dataset, seed, name"
    )
    parser.add_argument(
        "--data-root",
        help="the dataset's own folder, of several coco=PATH,lspet=PATH; "
        "default $POSEBOOK_DATA/NAME or data/NAME",
    )
    parser.add_argument("--shares", help="of several sources: 0.5,0.3,0.2; default: by their sizes")
    parser.add_argument("--labels", help="additional joints of a source: lspet=FILE.json")
    parser.add_argument("--hold-out", type=float, default=0.0, help="share of images for the learning curve")
    parser.add_argument("--profile", default="demo", help=", ".join(recipes.PROFILES))
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out-dir", default="reports")
    parser.add_argument("--backbone", help="the backbone authors' ImageNet file; default: from scratch")
    parser.add_argument("--init", help="weights of this model to start from; default: from scratch")
    parser.add_argument(
        "--val-split", help="the split to evaluate on, or none; default: the dataset's validation split"
    )
    parser.add_argument("--workers", type=int, default=0, help="loader processes")
    parser.add_argument(
        "--precision", default="float32", help="of the forward pass: " + ", ".join(PRECISIONS)
    )
    parser.add_argument("--compile", action="store_true", help="by torch.compile")
    parser.add_argument("--parts", type=int, default=1, help="that each batch is taken in; default: whole")
    parser.add_argument("--save-every", type=int, default=SAVE_EVERY, help="steps between checkpoints")
    parser.add_argument("--pack", choices=packed.FORMATS, help="pack people's canvases first; default: no")
    parser.add_argument(
        "--canvases", metavar="FILE", help="train on the people of a packed file, without the dataset's files"
    )
    parser.add_argument("--name", help="of the record; default: from model, data, init, profile and seed")
    parser.add_argument(
        "--options", type=json.loads, default={}, help='the builder\'s, as JSON: {"attention": "cbam"}'
    )
    parser.add_argument("--set", type=json.loads, default={}, help='recipe fields, as JSON: {"epochs": 50}')
    arguments = vars(parser.parse_args())
    changes = arguments.pop("set")
    if row := arguments.pop("grid"):
        given = [
            name
            for name in ("model", "dataset", "seed", "name", "options")
            if arguments[name] != parser.get_default(name)
        ]
        if given or changes:
            parser.error(f"--grid says it all: leave out --{(given or ['set'])[0]}")
        arguments |= grid.get(row).settings(arguments["profile"])
    record = train(**arguments | changes)
    if not record:  # one of several processes, and not the one that writes
        return
    path = records.write(record, arguments["out_dir"])
    print({key: round(value, 4) for key, value in record["metrics"].items()}, path, sep="\n")


if __name__ == "__main__":
    main()
