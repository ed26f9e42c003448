"""Train a pose model: from a TrainConfig to weights and a record.

1. Everything that can be wrong is found in `prepare`, before any work.
2. The loop (loop.py) does not know datasets; evaluation does not know training.
3. With several processes (torchrun) the first one packs, evaluates and writes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from posebook import complexity, datasets, models, records
from posebook.datasets import PoseDataset, canvas_cache, combined
from posebook.datasets.canvas_cache import CanvasCache
from posebook.evaluation import bootstrap, evaluator, metrics, predictions
from posebook.models import transfer
from posebook.skeletons import joint_difference
from posebook.training import recipes
from posebook.training.checkpoints import TrainState
from posebook.training.config import TrainConfig
from posebook.training.data import TrainDataset
from posebook.training.loop import RunSpec, fit
from posebook.training.recipes import Recipe
from posebook.training.runtime import RuntimeConfig, make_runtime
from posebook.utils import sha256

# train and validation; ("train", "val") elsewhere
SPLITS = dict.fromkeys(["coco", "coco-mini"], ("train2017", "val2017")) | {"crowdpose": ("trainval", "test")}
MAX_HASHED_IMAGES = 20_000  # larger sets are whole official ones, whose splits have no image in common


@dataclass(frozen=True)
class PreparedRun:
    """A run with everything resolved: nothing of it can fail for a wrong name or a missing file any more."""

    config: TrainConfig
    recipe: Recipe
    runtime: RuntimeConfig
    metadata: records.RunMetadata
    name: str
    model: nn.Module
    initialization: str
    transferred: dict  # what `init` gave, tensor by tensor
    train_people: PoseDataset
    val_people: PoseDataset | None
    curve_people: PoseDataset | None  # whom the learning curve is measured on
    canvases: CanvasCache | None
    images: set[str]  # hashes of the images that the weights will have been trained on

    @property
    def record_path(self) -> Path:
        """Where the record will be; predictions are saved beside it."""
        return Path(self.config.out_dir) / "records" / f"{self.name}.json"

    @property
    def before_path(self) -> Path:
        """The same for the predictions of the initial weights."""
        return self.record_path.with_name(f"{self.name}.before.json")


def train(config: TrainConfig) -> dict:
    """Train a model, evaluate its averaged weights, and return the record.

    Weights and checkpoints go to OUT_DIR/runs/NAME-HASH/. The same config continues from its last
    checkpoint; one that differs in anything that affects the result, the code included, has another folder.
    Only the first of several processes returns a record; the others return {}. Raises ValueError before any
    work for an unknown name, for `init` of another model and for images that are in both splits,
    FileNotFoundError for a missing file, RuntimeError if another process trains in that folder,
    FloatingPointError for a loss of NaN, SystemExit(143) after SIGTERM.
    """
    run = prepare(config)
    before = evaluate_before(run)
    state, folder = fit(
        run.model,
        lambda wanted: make_dataset(run, wanted),
        run.recipe,
        run.runtime,
        run_spec(run),
        curve_metrics(run),
    )
    if run.runtime.rank > 0:
        return {}
    evaluated = evaluate_after(run, state, before)
    return build_record(run, state, evaluated, write_weights(run, state, folder))


def prepare(config: TrainConfig) -> PreparedRun:
    """Resolve recipe, data and model once; raises as `train` says."""
    models.check_options(config.model, config.options)
    if config.backbone and config.init:
        raise ValueError("a run starts from a backbone's weights or from a model's: name one of the two")
    if config.init:
        transfer.check_weights(config.init, config.model)
    recipe = recipes.get(config.profile, config.model, config.dataset, **config.recipe)
    runtime = make_runtime(config)
    metadata = records.RunMetadata(runtime.device)
    train_people, val_people, canvases = load_people(config, recipe)
    curve_people = val_people
    if config.hold_out:
        train_people, curve_people = combined.hold_out(train_people, config.hold_out)
    images = trained_images(train_people, val_people, config.init, canvases)
    torch.manual_seed(config.seed)
    model = models.build(config.model, train_people.skeleton, recipe.input_size, **config.options)
    initialization, transferred = initialize(model, config)
    usual = recipe.input_size == recipes.get(config.profile, config.model, config.dataset).input_size
    size = [] if usual else ["x".join(map(str, recipe.input_size))]
    last = f"{config.profile}-seed{config.seed}"
    name = config.name or run_name(config.model, config.options, train_people.name, size, config.init, last)
    return PreparedRun(
        config=config,
        recipe=recipe,
        runtime=runtime,
        metadata=metadata,
        name=name,
        model=model,
        initialization=initialization,
        transferred=transferred,
        train_people=train_people,
        val_people=val_people,
        curve_people=curve_people,
        canvases=canvases,
        images=images,
    )


def load_people(
    config: TrainConfig, recipe: Recipe
) -> tuple[PoseDataset, PoseDataset | None, CanvasCache | None]:
    """The people to train on, those to evaluate on, and the canvas cache if the config names one."""
    canvases, val_people = None, None
    if config.canvases:
        given = {name: getattr(config, name) for name in ("shares", "labels", "hold_out", "pack")}
        train_people, canvases = packed_people(config.canvases, recipe, given)
    else:
        train_people = load_split(
            config.dataset, config.data_root, None, config.shares, config.labels, train=True
        )
    if config.val_split != "none":
        val_people = load_split(config.dataset, config.data_root, config.val_split, train=False)
        for source in val_people.sources or (val_people,):
            metrics.check_dependencies(source)
        if fault := joint_difference(train_people.skeleton.keypoints, val_people.skeleton.keypoints):
            raise ValueError(f"{val_people.name} has other joints than {train_people.name}: {fault}")
    return train_people, val_people, canvases


def initialize(model: nn.Module, config: TrainConfig) -> tuple[str, dict]:
    """Load the backbone's or the model's initial weights, if any: what a record says of them."""
    if config.backbone:
        models.load_backbone(model, config.backbone)
        return f"backbone {Path(config.backbone).name} sha256 {sha256(config.backbone)}", {}
    if config.init:
        done = transfer.transfer_weights(model, config.init, config.model)
        print(f"{Path(config.init).name}: {done.summary()}")
        return f"weights {Path(config.init).name} sha256 {sha256(config.init)}", {"transfer": done.describe()}
    return "scratch", {}


def make_dataset(run: PreparedRun, wanted: bool) -> TrainDataset:
    """The training samples; canvases are packed first if the config asks for it and training is not over."""
    opened, runtime = run.canvases, run.runtime
    if run.config.pack and wanted and not opened:
        augmentations = (run.recipe.stage1, run.recipe.stage2)
        if runtime.rank > 0:  # the first process packs, the others open what it made
            runtime.barrier()
        opened = canvas_cache.open_or_create(
            run.train_people,
            Path(run.config.out_dir) / "packed",
            run.recipe.input_size,
            augmentations,
            run.config.pack,
        )
        if runtime.rank == 0:
            runtime.barrier()
    return TrainDataset(run.train_people, run.recipe, run.config.seed, opened)


def run_spec(run: PreparedRun) -> RunSpec:
    """The run's name, folder, and what makes it this run and no other."""
    config = run.config
    identity = {
        "model": config.model,
        "options": config.options,
        "data": run.train_people.sha256,
        "seed": config.seed,
        "initialization": run.initialization,
        "precision": config.precision,
        "packed": run.canvases.facts["format"] if run.canvases else config.pack,
        "processes": run.runtime.world_size,
        "grad_accum_steps": config.grad_accum_steps,
        "compile": config.compile,
    }
    if config.hold_out:
        identity["hold_out"] = config.hold_out
    if run.canvases:
        identity["canvases"] = run.canvases.digest
    return RunSpec(run.name, Path(config.out_dir), identity)


def curve_metrics(run: PreparedRun):
    """A function from a model to a point of the learning curve."""
    people = run.curve_people
    return lambda model: primary_metrics(model, people, run.runtime) if people else {}


def evaluate_before(run: PreparedRun) -> dict:
    """Metrics of the weights that the run starts from, {} for a run from scratch or without an evaluation."""
    if not (run.config.init and run.val_people and run.runtime.rank == 0):
        return {}
    run.record_path.parent.mkdir(parents=True, exist_ok=True)
    run.model.to(run.runtime.device, memory_format=torch.channels_last)
    found = evaluate_run(run.model, run.val_people, run.runtime, run.before_path)
    return {key: found[key] for key in ("metrics", "interval", "metrics_without_flip") if key in found}


def evaluate_after(run: PreparedRun, state: TrainState, before: dict) -> dict:
    """A record's fields of the averaged weights; completes the learning curve."""
    run.record_path.parent.mkdir(parents=True, exist_ok=True)
    if run.curve_people is not run.val_people:
        state.curve[-1] |= primary_metrics(state.ema, run.curve_people, run.runtime)
    if not run.val_people:
        return {
            "protocol": {"input_size": list(run.recipe.input_size)},
            "metrics": {},
            "not_evaluated": "no validation split (val_split none)",
        }
    evaluated = evaluate_run(state.ema, run.val_people, run.runtime, run.record_path)
    if run.curve_people is run.val_people:
        single = evaluated["metrics_without_flip"]
        state.curve[-1] |= {key: single[key] for key in primary_metric_names(single)}
    if run.config.init:
        change = gain(run.val_people, run.before_path, run.record_path)
        evaluated |= {"before": before, "difference": change}
    return evaluated


def write_weights(run: PreparedRun, state: TrainState, folder: Path) -> dict:
    """Write the averaged weights into the run's folder; what the record says of them."""
    path, config = folder / "weights.safetensors", run.config
    digest = models.save_weights(
        state.ema.cpu(), path, config.model, run.train_people.name, images=run.images, **config.options
    )
    return records.weights_facts(path, digest, run.initialization, run.train_people.name) | run.transferred


def build_record(run: PreparedRun, state: TrainState, evaluated: dict, weights: dict) -> dict:
    """The record of a finished run."""
    config, runtime = run.config, run.runtime
    parameters = state.identity["recipe"] | {
        "dataset": config.dataset,
        "device": runtime.device,
        "workers": config.workers,
        "processes": runtime.world_size,
        "precision": config.precision,
        "compile": config.compile,
        "grad_accum_steps": config.grad_accum_steps,
        "pack": run.canvases.facts["format"] if run.canvases else config.pack,
        "hold_out": config.hold_out,
    }
    if run.canvases:
        parameters["canvases"] = run.canvases.path.name
    return records.build(
        "train",
        run.name,
        run.metadata,
        state.seconds,
        model=config.model,
        options=config.options,
        dataset=run.train_people.describe(),
        profile=config.profile,
        parameters=parameters,
        **evaluated,
        complexity=complexity.count(state.ema, run.recipe.input_size),
        curve=state.curve,
        curve_measured_on=run.curve_people.describe() if run.curve_people else None,
        weights=weights,
        seed=config.seed,
        config=without_paths(config),
    )


def without_paths(config: TrainConfig) -> dict:
    """The config as a record stores it: no path of this machine, file names only."""
    facts = asdict(config)
    for name in ("backbone", "init", "canvases"):
        facts[name] = Path(facts[name]).name if facts[name] else None
    for name in ("data_root", "labels", "out_dir"):
        del facts[name]
    return facts


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
    if len({person.image for person in train_people.instances}) <= MAX_HASHED_IMAGES:
        seen = set(canvases.image_hashes if canvases else combined.image_hashes(train_people.instances))
    if val_people and (seen or earlier):
        found = combined.image_hashes(val_people.instances)
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
    file.check_compatible(recipe.input_size, (recipe.stage1, recipe.stage2))
    return file.dataset(), file


def primary_metrics(net: nn.Module, people: PoseDataset, runtime: RuntimeConfig) -> dict[str, float]:
    """The metric of a learning curve, without flip test; one for each source."""
    scores = {}
    for source in people.sources or (people,):
        found = evaluator.evaluate(
            net, source, flip_test=False, device=runtime.device, workers=runtime.workers
        )
        prefix = f"{source.name} " if people.sources else ""
        scores |= {prefix + key: value for key, value in found.items() if key in metrics.PRIMARY_METRICS}
    return scores


def evaluate_run(net: nn.Module, people: PoseDataset, runtime: RuntimeConfig, path: Path) -> dict:
    """A record's fields on the people to evaluate on; their predictions are saved beside PATH.

    Of several sources there are figures and a file of predictions for each, by its name.
    """
    fields = []
    for source in people.sources or (people,):
        single = evaluator.evaluate(
            net, source, flip_test=False, device=runtime.device, workers=runtime.workers
        )
        found = predictions.predict(
            net, source, flip_test=True, device=runtime.device, workers=runtime.workers
        )
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


def primary_metric_names(scores: dict[str, float]) -> list[str]:
    """Those keys that are a learning curve's metric, of one dataset or named by source."""
    return [
        key
        for key in scores
        if key in metrics.PRIMARY_METRICS or key.endswith(tuple(f" {m}" for m in metrics.PRIMARY_METRICS))
    ]
