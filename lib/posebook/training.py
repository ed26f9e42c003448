"""The training loop: recipe in, record and weights out; killed at any moment, it goes on where it was.

1. Everybody's augmentation of an epoch is drawn from (seed, epoch), and so is the epoch's order, so that a
   resumed run, or one with other loader processes, sees the same pictures.
2. A checkpoint is one safetensors file, written to a temporary name and renamed, at the end of every epoch.
3. The average of the weights (mmengine's ExpMomentumEMA) is what is evaluated and kept.
"""

import argparse
import copy
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from posebook import (
    codecs,
    complexity,
    datasets,
    evaluation,
    losses,
    metrics,
    models,
    recipes,
    records,
    transforms,
    uncertainty,
)
from posebook.datasets import Persons, read_image
from posebook.datasets.packed import Packed
from posebook.files import sha256
from posebook.recipes import Recipe

CHECK_EVERY = 20  # steps between looks at the loss for NaN: looking waits for the device
# train and validation; ("train", "val") elsewhere
SPLITS = dict.fromkeys(["coco", "coco-mini"], ("train2017", "val2017")) | {"crowdpose": ("trainval", "test")}


class Samples(Dataset):
    """Augmented training samples, asked for by (epoch, person index); from `packed`, or from the pictures."""

    def __init__(
        self,
        persons: Persons,
        recipe: Recipe,
        input_size: tuple[int, int],
        seed: int,
        packed: Packed | None = None,
    ):
        self.persons, self.recipe, self.input_size, self.seed = persons, recipe, input_size, seed
        self.packed, self.epoch = packed, -1
        self.boxes = np.array([person.bbox for person in persons.persons])  # (N, 4)
        self.keypoints = np.array([person.keypoints for person in persons.persons])  # (N, K, 3)

    def _draw(self, epoch: int) -> None:
        """Draw an epoch's augmentation of everybody: one by one they would cost half as much as the warps."""
        skeleton, size = self.persons.skeleton, self.input_size
        late = epoch >= self.recipe.epochs - self.recipe.stage2_epochs
        augmentation = self.recipe.stage2 if late else self.recipe.stage1
        rng = np.random.default_rng((self.seed, epoch, 1))  # 1: not the order's own numbers
        self.matrices, flips = transforms.random_affine_batch(
            self.boxes, self.keypoints, skeleton, size, augmentation, rng
        )
        self.jitter = transforms.draw_jitter(len(self.boxes), size, augmentation, rng)
        arrays = map(torch.from_numpy, (self.keypoints, self.matrices, flips))
        self.points, self.weights = transforms.joints_batch(*arrays, skeleton, size)  # (N, K, 2), (N, K)
        self.epoch = epoch
        np.empty(1 << 24)  # glibc keeps freed blocks up to the largest it saw freed: no page faults then

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Input (H, W, 3) uint8, joints (K, 2) in its pixels, and weights (K,): 1 labelled and inside."""
        epoch, index = key
        if epoch != self.epoch:
            self._draw(epoch)
        matrix = self.matrices[index]
        if self.packed:
            picture, placed = self.packed[index]
            matrix = transforms.compose(matrix, transforms.invert(placed))
        else:
            picture = read_image(self.persons.persons[index].image)
        image = transforms.warp(picture, matrix, self.input_size)
        image = transforms.photometric(image, self.jitter, index)
        return torch.from_numpy(image), self.points[index], self.weights[index]


def batches(people: int, recipe: Recipe, seed: int, first_step: int) -> Iterator[list[tuple[int, int]]]:
    """(epoch, person) keys of every batch from first_step to the end; each epoch holds every person once."""
    steps = math.ceil(people / recipe.batch)
    for epoch in range(first_step // steps, recipe.epochs):
        order = np.random.default_rng((seed, epoch)).permutation(people)
        for step in range(first_step % steps if epoch == first_step // steps else 0, steps):
            yield [(epoch, int(i)) for i in order[step * recipe.batch : (step + 1) * recipe.batch]]


def learning_rate(step: int, total: int, recipe: Recipe) -> float:
    """The rate at a step of `total`: linear warm-up, flat, then a cosine to final_rate of it."""
    peak = recipe.learning_rate * recipe.batch / recipe.base_batch
    if step < recipe.warmup_steps:
        return peak * max(1e-5, step / recipe.warmup_steps)
    share = max(0.0, (step / total - recipe.cosine_from) / (1 - recipe.cosine_from))
    return peak * (recipe.final_rate + (1 - recipe.final_rate) * (1 + math.cos(math.pi * share)) / 2)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weights with decay; norms and biases without."""
    plain, decayed = [], []
    for module in model.modules():
        norm = "Norm" in type(module).__name__
        for name, parameter in module.named_parameters(recurse=False):
            (plain if norm or name.endswith("bias") else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


@torch.no_grad()
def average(into: nn.Module, model: nn.Module, step: int, recipe: Recipe) -> None:
    """Move the averaged weights and buffers towards the model's; faster early on (ExpMomentumEMA)."""
    momentum = recipe.ema + (1 - recipe.ema) * math.exp(-(1 + step) / recipe.ema_warmup)
    old, new = list(into.state_dict().values()), list(model.state_dict().values())
    floats = [i for i, value in enumerate(old) if value.is_floating_point()]
    torch._foreach_lerp_([old[i] for i in floats], [new[i] for i in floats], momentum)
    for i, value in enumerate(old):
        if not value.is_floating_point():
            value.copy_(new[i])


def sources(net: nn.Module) -> str:
    """A hash of the code that decides a run's weights: of the zoo, only the files this net is made of."""
    package = Path(__file__).parent
    names = ["training", "recipes", "transforms", "codecs", "losses", "skeletons"]
    files = {package / f"{name}.py" for name in names} | set((package / "datasets").glob("*.py"))
    modules = {sys.modules[type(module).__module__] for module in net.modules()}
    files |= {Path(module.__file__) for module in modules if module.__name__.startswith("posebook.")}
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()


@dataclass
class Run:
    """All that changes while a net is trained."""

    model: nn.Module
    ema: nn.Module
    optimiser: torch.optim.Optimizer
    identity: dict  # what makes it this run and no other; its hash names the run's folder
    step: int = 0
    seconds: float = 0.0
    curve: list[dict] = None

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the run by name."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        for index, entry in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in entry.items()}
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

    def save(self, path: Path) -> None:
        """Write the checkpoint whole or not at all."""
        facts = {"identity": self.identity, "step": self.step, "seconds": self.seconds, "curve": self.curve}
        temporary = path.with_suffix(".tmp")
        safetensors.torch.save_file(self.state(), temporary, {"run": json.dumps(facts)})
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)

    def resume(self, path: Path) -> None:
        """Take up a checkpoint; raises ValueError where it is none."""
        try:
            with safetensors.safe_open(path, "pt") as file:
                facts = json.loads((file.metadata() or {})["run"])
            tensors = safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{path} is no checkpoint of a training run ({error}); move it away to start anew"
            ) from error
        for prefix, module in (("model.", self.model), ("ema.", self.ema)):
            own = {
                name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)
            }
            module.load_state_dict(own)
        state: dict[int, dict] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, index, entry = name.split(".")
                layout = (
                    torch.channels_last if value.ndim == 4 else torch.contiguous_format
                )  # the weights' own
                state.setdefault(int(index), {})[entry] = value.contiguous(memory_format=layout)
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": state})
        self.step, self.seconds, self.curve = facts["step"], facts["seconds"], facts["curve"]


def train_steps(
    run: Run, loader: DataLoader, recipe: Recipe, steps: int, device: str, bar: tqdm
) -> Iterator[int]:
    """Train to the end, yielding each epoch's number and mean loss when it is over."""
    total, waiting, epoch_losses = steps * recipe.epochs, [], []
    sigma = recipes.sigma_for(run.model.input_size, recipe)
    for images, keypoints, weights in loader:
        run.model.train()
        rate = learning_rate(run.step, total, recipe)
        for group in run.optimiser.param_groups:
            group["lr"] = rate
        keypoints, weights = keypoints.to(device), weights.to(device)
        output, size = run.model(transforms.normalise(images.to(device))), run.model.input_size
        if isinstance(output, codecs.SimCC):
            targets = codecs.encode_simcc(keypoints, size, output.x.shape[-1] / size[1], sigma)
            loss = losses.simcc_kl(output, targets, weights, recipe.beta)
        else:
            targets = codecs.encode_heatmap(keypoints, size, size[0] // output[-1].shape[-2])
            loss = losses.heatmap_mse(output, targets, weights)
        run.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        run.optimiser.step()
        average(run.ema, run.model, run.step, recipe)
        waiting.append(loss.detach())
        run.step += 1
        bar.update(len(images))
        over = run.step % steps == 0
        if over or len(waiting) == CHECK_EVERY:
            values = torch.stack(waiting).tolist()
            for offset, value in enumerate(values):
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"the loss is {value} at step {run.step - len(values) + offset + 1}"
                    )
            epoch_losses, waiting = epoch_losses + values, []
            bar.set_postfix(loss=f"{values[-1]:.5f}", refresh=False)
        if over:
            yield run.step // steps, float(np.mean(epoch_losses))
            epoch_losses = []


def train(
    model: str = "starnet-pose-t",
    dataset: str = "synthetic",
    data_root: str | None = None,
    profile: str = "demo",
    device: str = "cpu",
    seed: int = 0,
    out_dir: str = "reports",
    options: dict | None = None,
    backbone: str | None = None,
    val_split: str | None = None,
    workers: int = 0,
    init: str | None = None,
    **changes: object,
) -> dict:
    """Train a model on a dataset, evaluate its averaged weights, and return the record.

    options: the builder's keyword arguments; backbone: the backbone authors' ImageNet file, or init: weights
    to start from, of this model, these joints and this input size; val_split: the split to evaluate on;
    changes: fields of the profile's recipe to set otherwise, such as epochs, batch or input_size. Weights and
    checkpoint go to OUT_DIR/runs/NAME-HASH/; the same call goes on from there, and a call that differs in
    anything that moves the weights, the code included, has another folder.
    Raises ValueError before any work for a name it does not know, FloatingPointError for a loss of NaN.
    """
    options = options or {}
    models.check(model, options)
    if backbone and init:
        raise ValueError("a run starts from a backbone's weights or from a model's: name one of the two")
    if profile == "paper" and model not in recipes.PAPER_MODELS:
        raise ValueError(
            f"profile paper is the recipe of {', '.join(recipes.PAPER_MODELS)}; name another for {model}"
        )
    recipe = recipes.get(profile, **changes)
    watch = records.Stopwatch(device)
    train_split, default_split = SPLITS.get(dataset, ("train", "val"))
    train_people = datasets.load(dataset, data_root, train_split)
    val_people = datasets.load(dataset, data_root, val_split or default_split)
    metrics.ready(val_people)
    torch.manual_seed(seed)
    net = models.build(model, train_people.skeleton, recipe.input_size, **options)
    initialisation = "scratch"
    if backbone:
        models.load_backbone(net, backbone)
        initialisation = f"backbone {Path(backbone).name} sha256 {sha256(backbone)}"
    if init:
        models.load_official(net, models.load_weights(init, model).state_dict())
        initialisation = f"weights {Path(init).name} sha256 {sha256(init)}"
    name = "-".join(
        ["train", model, *(f"{k}={v}" for k, v in options.items()), train_people.name, profile, f"seed{seed}"]
    )
    net.to(device, memory_format=torch.channels_last)  # 1.5 times as many people a second on a CPU
    ema = copy.deepcopy(net).requires_grad_(False)
    identity = {
        "model": model,
        "options": options,
        "data": train_people.sha256,
        "recipe": json.loads(json.dumps(asdict(recipe))),
        "seed": seed,
        "initialisation": initialisation,
        "code": sources(net),
    }
    run_name = f"{name}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]}"
    folder = Path(out_dir) / "runs" / run_name
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = torch.optim.AdamW(parameter_groups(net, recipe.weight_decay), lr=0.0, fused=True)
    run = Run(net, ema, optimiser, identity, curve=[])
    checkpoint = folder / "checkpoint.safetensors"
    if checkpoint.exists():
        run.resume(checkpoint)
        print(f"going on from epoch {len(run.curve)} of {recipe.epochs}")
    earlier = run.seconds
    people = len(train_people.persons)
    steps = math.ceil(people / recipe.batch)
    cv2.setNumThreads(0)  # loader processes and torch share the cores already
    loader = DataLoader(
        Samples(train_people, recipe, recipe.input_size, seed),
        batch_sampler=_Steps(people, recipe, seed, run.step),
        num_workers=workers,
        pin_memory=device.startswith("cuda"),
    )
    how = {"device": device, "workers": workers}
    with tqdm(total=people * recipe.epochs, initial=people * len(run.curve), unit="person", desc=name) as bar:
        for epoch, loss in train_steps(run, loader, recipe, steps, device, bar):
            point = {"epoch": epoch, "loss": loss}
            if epoch % recipe.evaluate_every == 0 and epoch < recipe.epochs:
                scores = evaluation.evaluate(run.ema, val_people, flip_test=False, **how)
                point |= {key: value for key, value in scores.items() if key in metrics.MAIN}
                bar.write(" ".join(f"{key} {value:.4f}" for key, value in point.items()))
            run.curve.append(point)
            run.seconds = earlier + watch.stamp()["wall_seconds"]
            run.save(checkpoint)
    single = evaluation.evaluate(run.ema, val_people, flip_test=False, **how)
    found = evaluation.predict(run.ema, val_people, flip_test=True, **how)
    scores, units = metrics.measure(val_people, found)
    ledger = Path(out_dir) / "records"
    ledger.mkdir(exist_ok=True)
    evaluation.save(ledger / f"{name}.json", val_people, found, units)
    run.curve[-1] |= {key: value for key, value in single.items() if key in metrics.MAIN}
    weights = folder / "weights.safetensors"
    digest = models.save_weights(run.ema.cpu(), weights, model, train_people.name, **options)
    return {
        "kind": "train",
        "name": name,
        "model": model,
        "options": options,
        "dataset": train_people.describe(),
        "profile": profile,
        "parameters": identity["recipe"] | {"dataset": dataset, "device": device, "workers": workers},
        "protocol": evaluation.protocol(val_people, recipe.input_size, True, found.decoding),
        "evaluated": val_people.describe(),
        "metrics": scores,
        "interval": uncertainty.interval(units),
        "metrics_without_flip": single,
        "complexity": complexity.count(run.ema, recipe.input_size),
        "curve": run.curve,
        "weights": {
            "sha256": digest,
            "initialisation": initialisation,
            "trained_on": train_people.name,
            "file": f"runs/{run_name}/weights.safetensors",
        },
        "seed": seed,
        **watch.stamp(earlier),
    }


class _Steps:
    """`batches` as the batch sampler a DataLoader wants."""

    def __init__(self, *arguments: object):
        self.arguments = arguments

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return batches(*self.arguments)


def main() -> None:
    """Train from the command line; writes the record and says where."""
    parser = argparse.ArgumentParser(
        prog="python -m posebook.training", description=train.__doc__.splitlines()[0]
    )
    parser.add_argument("--model", default="starnet-pose-t", help=", ".join(models.names()))
    parser.add_argument("--dataset", default="synthetic", help=", ".join(datasets.NAMES))
    parser.add_argument(
        "--data-root", help="the dataset's own folder; default $POSEBOOK_DATA/NAME or data/NAME"
    )
    parser.add_argument("--profile", default="demo", help=", ".join(recipes.PROFILES))
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out-dir", default="reports")
    parser.add_argument("--backbone", help="the backbone authors' ImageNet file; default: from scratch")
    parser.add_argument("--init", help="weights of this model to start from; default: from scratch")
    parser.add_argument(
        "--val-split", help="the split to evaluate on; default: the dataset's validation split"
    )
    parser.add_argument("--workers", type=int, default=0, help="loader processes")
    parser.add_argument(
        "--options", type=json.loads, default={}, help='the builder\'s, as JSON: {"attention": "cbam"}'
    )
    parser.add_argument("--set", type=json.loads, default={}, help='recipe fields, as JSON: {"epochs": 50}')
    arguments = vars(parser.parse_args())
    changes = arguments.pop("set")
    record = train(**arguments, **changes)
    path = records.write(record, arguments["out_dir"])
    print({key: round(value, 4) for key, value in record["metrics"].items()}, path, sep="\n")


if __name__ == "__main__":
    main()
