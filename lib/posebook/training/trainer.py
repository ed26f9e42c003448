"""The training loop: recipe in, record and weights out; stopped at any moment, it goes on where it was.

1. A checkpoint (training/checkpoints.py) is written every so many steps and at the end of every epoch; SIGTERM writes
   one and ends the run.
2. The average of the weights (mmengine's ExpMomentumEMA) is what is evaluated and kept.
3. A batch may be taken in parts and by several processes (torchrun): every part's loss is weighted by its
   people, so that the gradient is the whole batch's. Batch norm sees the parts one by one.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from posebook import complexity, datasets, models, records
from posebook.cli import fails_in_one_line
from posebook.datasets import PoseDataset, canvas_cache, combined
from posebook.datasets.canvas_cache import CanvasCache
from posebook.evaluation import bootstrap, evaluator, metrics, predictions
from posebook.models import transfer
from posebook.papers import ablations
from posebook.skeletons import joint_difference
from posebook.training import recipes
from posebook.training.data import (
    TrainDataset,
)
from posebook.training.loop import fit
from posebook.training.recipes import Recipe
from posebook.training.runtime import PRECISIONS, SAVE_EVERY, RuntimeConfig, make_runtime
from posebook.utils import sha256

# train and validation; ("train", "val") elsewhere
SPLITS = dict.fromkeys(["coco", "coco-mini"], ("train2017", "val2017")) | {"crowdpose": ("trainval", "test")}
MAX_HASHED_IMAGES = 20_000  # larger sets are whole official ones, whose splits have no image in common


def load_split(
    dataset: str,
    data_root: str | dict | None,
    split: str | None = None,
    shares: str | list[float] | None = None,
    labels: str | dict | None = None,
    *,
    train: bool,
    skeleton: str = "coco",
) -> PoseDataset:
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
    train_people: PoseDataset,
    val_people: PoseDataset | None,
    init: str | None,
    canvases: CanvasCache | None = None,
) -> set[str]:
    """Hashes of the images that a run's weights will have been trained on, `init`'s among them.

    Training sets of more than HASHED_IMAGES images are not hashed. canvases: the file that holds the training
    images' hashes, where the images are not there. Raises ValueError where people to evaluate on are of them.
    """
    earlier, seen = models.trained_images(init) if init else set(), set()
    if len({person.image for person in train_people.persons}) <= MAX_HASHED_IMAGES:
        seen = set(canvases.image_hashes if canvases else combined.image_hashes(train_people.persons))
    if val_people and (seen or earlier):
        found = combined.image_hashes(val_people.persons)
        combined.check_overlap(seen, found, "this run")
        combined.check_overlap(earlier, found, Path(init).name if init else "")
    return seen | earlier


def packed_people(
    canvases: str | Path, recipe: Recipe, given: dict[str, object]
) -> tuple[PoseDataset, CanvasCache]:
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
    file = CanvasCache(path)
    file.serves(recipe.input_size, (recipe.stage1, recipe.stage2))
    return file.people(), file


def primary_metrics(
    net: nn.Module, people: PoseDataset, way: RuntimeConfig, workers: int
) -> dict[str, float]:
    """The metric of a learning curve, without flip test; one for each source."""
    scores = {}
    for source in people.sources or (people,):
        found = evaluator.evaluate(net, source, flip_test=False, device=way.device, workers=workers)
        prefix = f"{source.name} " if people.sources else ""
        scores |= {prefix + key: value for key, value in found.items() if key in metrics.PRIMARY_METRICS}
    return scores


def evaluate_run(net: nn.Module, people: PoseDataset, way: RuntimeConfig, workers: int, path: Path) -> dict:
    """A record's fields on the people to evaluate on; their predictions are saved beside PATH.

    Of several sources there are figures and a file of predictions for each, by its name.
    """
    fields = []
    for source in people.sources or (people,):
        single = evaluator.evaluate(net, source, flip_test=False, device=way.device, workers=workers)
        found = predictions.predict(net, source, flip_test=True, device=way.device, workers=workers)
        scores, units = metrics.measure(source, found)
        beside = path.with_name(f"{path.stem}.{source.name}.json") if people.sources else path
        predictions.save_predictions(beside, source, found, units)
        fields.append(
            {
                "protocol": evaluator.protocol(source, net.input_size, True, found.decoding),
                "evaluated": source.describe(),
                "metrics": scores,
                "interval": bootstrap.interval(units),
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


def gain(people: PoseDataset, before: Path, after: Path) -> dict:
    """The main metric's change between two evaluations on the same people, from their kept predictions.

    before, after: the records' paths, beside which `evaluate_run` has saved them. Value and 95 % interval are
    fractions; the interval is drawn over images, the same ones for both. Of sources: one each, by name.
    """

    def beside(path: Path, source: PoseDataset) -> Path:
        return path.with_name(f"{path.stem}.{source.name}.json") if people.sources else path

    found = {}
    for source in people.sources or (people,):
        units = [predictions.load_image_stats(beside(path, source)) for path in (before, after)]
        value, low, high = bootstrap.paired_difference(*units)
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
    models.check_options(model, options)
    if backbone and init:
        raise ValueError("a run starts from a backbone's weights or from a model's: name one of the two")
    if init:
        transfer.check_weights(init, model)
    recipe = recipes.get(profile, model, dataset, **changes)
    way = make_runtime(
        device, precision, workers=workers, compile=compile, parts=parts, save_every=save_every
    )
    watch = records.RunMetadata(way.device)
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
            metrics.check_dependencies(source)
        if fault := joint_difference(train_people.skeleton.keypoints, val_people.skeleton.keypoints):
            raise ValueError(f"{val_people.name} has other joints than {train_people.name}: {fault}")
    curve_people = val_people
    if hold_out:
        train_people, curve_people = combined.hold_out(train_people, hold_out)
    images = trained_images(train_people, val_people, init, file)
    torch.manual_seed(seed)
    net = models.build(model, train_people.skeleton, recipe.input_size, **options)
    initialization, transferred = "scratch", {}
    if backbone:
        models.load_backbone(net, backbone)
        initialization = f"backbone {Path(backbone).name} sha256 {sha256(backbone)}"
    if init:
        done = transfer.transfer_weights(net, init, model)
        print(f"{Path(init).name}: {done.summary()}")
        initialization = f"weights {Path(init).name} sha256 {sha256(init)}"
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

    def people(wanted: bool) -> TrainDataset:
        opened = file
        if pack and wanted and not file:
            augmentations = (recipe.stage1, recipe.stage2)
            if way.rank > 0:  # the first process packs, the others open what it made
                way.wait()
            opened = canvas_cache.open_or_create(
                train_people, Path(out_dir) / "packed", recipe.input_size, augmentations, pack
            )
            if way.rank == 0:
                way.wait()
        return TrainDataset(train_people, recipe, seed, opened)

    def score(net: nn.Module) -> dict:
        return primary_metrics(net, curve_people, way, workers) if curve_people else {}

    identity = {
        "model": model,
        "options": options,
        "data": train_people.sha256,
        "seed": seed,
        "initialization": initialization,
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
            run.curve[-1] |= {key: single[key] for key in primary_metric_names(single)}
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
            "initialization": initialization,
            "trained_on": train_people.name,
            "file": f"runs/{folder.name}/weights.safetensors",
        }
        | transferred,
        "seed": seed,
        **watch.stamp(run.seconds),
    }


def primary_metric_names(scores: dict[str, float]) -> list[str]:
    """Those keys that are a learning curve's metric, of one dataset or named by source."""
    return [
        key
        for key in scores
        if key in metrics.PRIMARY_METRICS or key.endswith(tuple(f" {m}" for m in metrics.PRIMARY_METRICS))
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
    parser.add_argument(
        "--pack", choices=canvas_cache.FORMATS, help="pack people's canvases first; default: no"
    )
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
        arguments |= ablations.get_row(row).settings(arguments["profile"])
    record = train(**arguments | changes)
    if not record:  # one of several processes, and not the one that writes
        return
    path = records.write(record, arguments["out_dir"])
    print({key: round(value, 4) for key, value in record["metrics"].items()}, path, sep="\n")
