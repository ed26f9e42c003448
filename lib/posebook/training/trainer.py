"""Train a 2D pose model: from a TrainConfig to weights and a record. `train` is the entry point.

1. `prepare` finds every error in the settings and the data before any work starts.
2. The loop (loop.py) does not know datasets, and evaluation does not know training. This file connects them.
3. If torchrun starts several processes, only the first one packs canvases, evaluates and writes files.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from posebook import complexity, datasets, migration, models, records
from posebook.datasets import PoseDataset, canvas_cache, combined
from posebook.datasets.canvas_cache import CanvasCache
from posebook.evaluation import metrics
from posebook.models import transfer
from posebook.models.layers import PoseModel
from posebook.skeletons import joint_difference
from posebook.training import recipes, validation
from posebook.training.checkpoints import TrainState
from posebook.training.config import TrainConfig
from posebook.training.data import TrainDataset
from posebook.training.loop import RunSpec, fit, run_code_hash
from posebook.training.objectives import pose_loss
from posebook.training.recipes import Recipe
from posebook.training.runtime import RuntimeConfig, make_runtime, move_model
from posebook.utils import sha256

# Larger training sets than this, except a user's own, are official splits that share no image with the other.
MAX_HASHED_IMAGES = 20_000


@dataclass(frozen=True)
class PreparedRun:
    """A run whose settings are all checked and resolved: no name is unknown and no file is missing."""

    config: TrainConfig
    recipe: Recipe
    runtime: RuntimeConfig
    metadata: records.RunMetadata
    name: str
    model: PoseModel
    initialization: str  # the initial weights, as the record describes them
    transferred: dict  # the record's field `transfer`: tensors that come from `init`; {} without `init`
    train_set: PoseDataset
    val_set: PoseDataset | None
    curve_set: PoseDataset | None  # measures the learning curve: the held-out images, or val_set
    canvases: CanvasCache | None
    image_hashes: set[str]  # of the images that the final weights are trained on

    @property
    def record_path(self) -> Path:
        """Path of the record. Predictions are saved beside it."""
        return Path(self.config.out_dir) / "records" / f"{self.name}.json"

    @property
    def before_path(self) -> Path:
        """Path beside which the predictions of the initial weights are saved."""
        return self.record_path.with_name(f"{self.name}.before.json")


def train(config: TrainConfig) -> dict:
    """Train a model, evaluate its averaged weights, and return the record.

    Weights and checkpoints are written to OUT_DIR/runs/NAME-HASH/. The same config resumes from its last
    checkpoint. A change in anything that affects the result, including the code, leads to another folder.
    If there are several processes, only the first one returns a record; the others return {}.

    Raises ValueError before any work for an unknown name, for `init` weights of another model, and for images
    that are in both splits; FileNotFoundError for a missing file; BlockingIOError if another process trains
    in the same folder; FloatingPointError if the loss is not finite; SystemExit(143) after SIGTERM.
    """
    run = prepare(config)
    before = evaluate_before(run)
    state, folder = fit(
        run.model,
        lambda needed: make_dataset(run, needed),
        run.recipe,
        run.runtime,
        RunSpec(run.name, Path(config.out_dir), run_identity(run)),
        lambda model: validation.primary_metrics(model, run.curve_set, run.runtime),
    )
    if run.runtime.rank > 0:
        return {}
    evaluation = evaluate_after(run, state, before)
    weights = write_weights(run, state, folder)
    return build_record(run, state, evaluation, weights)


def prepare(config: TrainConfig) -> PreparedRun:
    """Resolve recipe, data and model. Raises the errors that `train` lists."""
    models.check_options(config.model, config.options)
    if config.backbone and config.init:
        raise ValueError("a run starts from backbone weights or from model weights: name one of the two")
    if config.init:
        transfer.check_weights(config.init, config.model)
    recipe = recipes.get(config.profile, config.model, config.dataset, **config.recipe)
    runtime = make_runtime(config)
    metadata = records.RunMetadata(runtime.device)
    train_set, val_set, canvases = load_datasets(config, recipe)
    curve_set = val_set
    if config.hold_out:
        train_set, curve_set = combined.hold_out(train_set, config.hold_out)
        if config.labels:  # a learning curve must not be measured on labels that a model has added
            annotated = load_split(config.dataset, config.data_root, None, config.shares, train=True)
            curve_set = combined.hold_out(annotated, config.hold_out)[1]
        if config.init:
            warn_about_earlier_images(curve_set, config.init)
    image_hashes = hash_training_images(train_set, val_set, config.init, canvases)
    torch.manual_seed(config.seed)
    model = models.build(config.model, train_set.skeleton, recipe.input_size, **config.options)
    initialization, transferred = initialize(model, config)
    return PreparedRun(
        config=config,
        recipe=recipe,
        runtime=runtime,
        metadata=metadata,
        name=config.name or run_name(config, train_set.name, recipe.input_size),
        model=model,
        initialization=initialization,
        transferred=transferred,
        train_set=train_set,
        val_set=val_set,
        curve_set=curve_set,
        canvases=canvases,
        image_hashes=image_hashes,
    )


def load_datasets(
    config: TrainConfig, recipe: Recipe
) -> tuple[PoseDataset, PoseDataset | None, CanvasCache | None]:
    """Return the training set, the validation set, and the canvas cache if the config names one."""
    canvases, val_set = None, None
    if config.canvases:
        canvases = open_canvases(config, recipe)
        train_set = canvases.dataset()
    else:
        train_set = load_split(
            config.dataset, config.data_root, None, config.shares, config.labels, train=True
        )
    if config.val_split != "none":
        val_set = load_split(config.dataset, config.data_root, config.val_split, train=False)
        for source in validation.sources_of(val_set):
            metrics.check_dependencies(source)
        if difference := joint_difference(train_set.skeleton.keypoints, val_set.skeleton.keypoints):
            raise ValueError(f"{val_set.name} has other joints than {train_set.name}: {difference}")
        if canvases and val_set.name != train_set.name:
            print(f"the canvases are of {train_set.name}, but the evaluation is on {val_set.name}")
    return train_set, val_set, canvases


def load_split(
    dataset: str,
    data_root: str | dict | None,
    split: str | None = None,
    shares: str | list[float] | None = None,
    labels: str | dict | None = None,
    *,
    train: bool,
) -> PoseDataset:
    """Load the training or validation split of one dataset, or of several joined by '+'.

    Arguments as in TrainConfig. Raises ValueError for arguments that do not suit the number of datasets, and
    the errors of `datasets.load` and `combined.load_combined`.
    """
    if "+" not in dataset:
        if shares or labels:
            raise ValueError(
                f"shares and labels belong to several sources, such as coco+lspet; the dataset is {dataset}"
            )
        if isinstance(data_root, dict):
            raise ValueError(f"data_root of one dataset must be a path, not {data_root}")
        return datasets.load(dataset, data_root, split or datasets.default_split(dataset, train))
    if split:
        raise ValueError(
            f"{dataset} has several sources, which are evaluated on their own validation splits: "
            "leave out val_split"
        )
    sources = combined.parse_sources(dataset, data_root, shares, labels)
    splits = [datasets.default_split(source.name, train) for source in sources]
    return combined.load_combined(
        [replace(source, split=split) for source, split in zip(sources, splits, strict=True)]
    )


def open_canvases(config: TrainConfig, recipe: Recipe) -> CanvasCache:
    """Open the config's canvas cache.

    Raises ValueError for settings that a cache already fixes, and if its canvases are too small for the
    recipe's input size or augmentation; FileNotFoundError.
    """
    for name in ("shares", "labels", "hold_out", "pack"):
        if getattr(config, name):
            raise ValueError(f"canvases are packed already, with their sources and shares: leave out {name}")
    path = Path(config.canvases or "")
    if not path.is_file():
        raise FileNotFoundError(f"no canvas cache at {path}")
    canvases = CanvasCache(path)
    canvases.check_compatible(recipe.input_size, (recipe.stage1, recipe.stage2))
    return canvases


def hash_training_images(
    train_set: PoseDataset, val_set: PoseDataset | None, init: str | None, canvases: CanvasCache | None
) -> set[str]:
    """Return hashes of the images that the final weights are trained on, including those of `init`.

    Sources with more than MAX_HASHED_IMAGES images are not hashed, except a user's own data. If canvases are
    given, the hashes come from the cache. Raises ValueError if a validation image is among the training
    images.
    """
    earlier = models.trained_images(init) if init else set()
    if canvases:
        current = set(canvases.image_hashes)
    else:
        sources = [source for source in train_set.sources or (train_set,) if is_hashed(source)]
        current = set(combined.image_hashes(person for source in sources for person in source.instances))
    if val_set and (current or earlier):
        val_images = combined.image_hashes(val_set.instances)
        combined.check_overlap(current, val_images, "this run")
        combined.check_overlap(earlier, val_images, Path(init).name if init else "")
    return current | earlier


def is_hashed(source: PoseDataset) -> bool:
    """Whether the images of a training set are compared with those of the validation set."""
    return (
        source.name.startswith("own-")
        or len({person.image for person in source.instances}) <= MAX_HASHED_IMAGES
    )


def warn_about_earlier_images(curve_set: PoseDataset, init: str) -> None:
    """Print how many held-out images the initial weights were trained on, if there are any."""
    if not (trained := models.trained_images(init)):
        return  # without reading the images
    images = combined.image_hashes(curve_set.instances)
    if seen := trained & set(images):
        print(
            f"{len(seen)} of {len(images)} held-out images are among those that {Path(init).name} was "
            "trained on: the learning curve is too high"
        )


def initialize(model: PoseModel, config: TrainConfig) -> tuple[str, dict]:
    """Load the initial weights, if any. Return `initialization` and `transferred` of PreparedRun."""
    if config.backbone:
        models.load_backbone(model, config.backbone)
        return f"backbone {Path(config.backbone).name} sha256 {sha256(config.backbone)}", {}
    if config.init:
        done = transfer.transfer_weights(model, config.init, config.model)
        print(f"{Path(config.init).name}: {done.summary()}")
        return f"weights {Path(config.init).name} sha256 {sha256(config.init)}", {"transfer": done.describe()}
    return "scratch", {}


def run_name(config: TrainConfig, dataset: str, input_size: tuple[int, int]) -> str:
    """Return the default name of a run.

    It contains the input size if this is not the recipe's. Initial weights are named by their file, or by the
    folder of the run that wrote them.
    """
    words = ["train", config.model, *(f"{key}={value}" for key, value in config.options.items()), dataset]
    if input_size != recipes.get(config.profile, config.model, config.dataset).input_size:
        words.append("x".join(map(str, input_size)))
    if config.init:
        file = Path(config.init)
        words.append(f"from-{file.absolute().parent.name if file.stem == 'weights' else file.stem}")
    return "-".join([*words, config.profile, f"seed{config.seed}"])


def make_dataset(run: PreparedRun, needed: bool) -> TrainDataset:
    """Return the training samples.

    If the config asks for packing, a canvas cache is written first, unless the samples are not `needed`,
    because training is already complete.
    """
    canvases, config, runtime = run.canvases, run.config, run.runtime
    if config.pack and needed and not canvases:
        if runtime.rank > 0:  # the first process writes the cache; then the others open it
            runtime.barrier()
        canvases = canvas_cache.open_or_create(
            run.train_set,
            Path(config.out_dir) / "packed",
            run.recipe.input_size,
            (run.recipe.stage1, run.recipe.stage2),
            config.pack,
        )
        if runtime.rank == 0:
            runtime.barrier()
    return TrainDataset(run.train_set, run.recipe, config.seed, canvases)


def run_identity(run: PreparedRun) -> dict:
    """Return everything, besides recipe and code, that affects the result of a run."""
    config = run.config
    identity = {
        "model": config.model,
        "options": config.options,
        "data": run.train_set.sha256,
        "seed": config.seed,
        "initialization": run.initialization,
        "precision": config.precision,
        "packed": run.canvases.facts["format"] if run.canvases else config.pack,
        "processes": run.runtime.world_size,
        "grad_accum_steps": config.grad_accum_steps,
        "compile": config.compile,
    }
    # absent if they have their defaults, so that the identity of other runs does not change
    if config.hold_out:
        identity["hold_out"] = config.hold_out
    if config.val_split:  # it measures the learning curve
        identity["val_split"] = config.val_split
    if run.canvases:
        identity["canvases"] = run.canvases.digest
    if any(source.name.startswith("own-") for source in run.train_set.sources or (run.train_set,)):
        identity["images"] = sorted(run.image_hashes)  # those of published datasets do not change
    return identity


def evaluate_before(run: PreparedRun) -> dict:
    """Return metrics of the initial weights; {} if there are none or if they are not evaluated."""
    if not (run.config.init and run.val_set and run.runtime.rank == 0):
        return {}
    move_model(run.model, run.runtime.device)
    fields = validation.evaluate_run(run.model, run.val_set, run.runtime, run.before_path)
    return {key: fields[key] for key in ("metrics", "interval", "metrics_without_flip") if key in fields}


def evaluate_after(run: PreparedRun, state: TrainState, before: dict) -> dict:
    """Return the record's fields on the averaged weights, and add the last point of the learning curve."""
    assert isinstance(state.ema, PoseModel)
    if run.curve_set is not run.val_set:  # otherwise the point is taken from the evaluation below
        state.curve[-1] |= validation.primary_metrics(state.ema, run.curve_set, run.runtime)
    if not run.val_set:
        return {
            "protocol": {"input_size": list(run.recipe.input_size)},
            "metrics": {},
            "not_evaluated": "no validation split (val_split none)",
        }
    fields = validation.evaluate_run(state.ema, run.val_set, run.runtime, run.record_path)
    if run.curve_set is run.val_set:
        without_flip = fields["metrics_without_flip"].items()
        state.curve[-1] |= {name: value for name, value in without_flip if validation.is_primary(name)}
    if run.config.init:
        change = validation.metric_change(run.val_set, run.before_path, run.record_path)
        fields |= {"before": before, "difference": change}
    return fields


def write_weights(run: PreparedRun, state: TrainState, folder: Path) -> dict:
    """Write the averaged weights into the run's folder and return the record's field about them."""
    assert isinstance(state.ema, PoseModel)
    path, config = folder / "weights.safetensors", run.config
    digest = models.save_weights(
        state.ema.cpu(), path, config.model, run.train_set.name, images=run.image_hashes, **config.options
    )
    return records.weights_facts(path, digest, run.initialization, run.train_set.name) | run.transferred


def build_record(run: PreparedRun, state: TrainState, evaluation: dict, weights: dict) -> dict:
    """Return the record of a finished run."""
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
        dataset=run.train_set.describe(),
        profile=config.profile,
        parameters=parameters,
        **evaluation,
        complexity=complexity.count(state.ema, run.recipe.input_size),
        curve=state.curve,
        curve_measured_on=run.curve_set.describe() if run.curve_set else None,
        weights=weights,
        seed=config.seed,
        config=without_paths(config),
    )


def without_paths(config: TrainConfig) -> dict:
    """Return the config as a record stores it: file names without folders, so no path of this machine."""
    facts = asdict(config)
    for name in ("backbone", "init", "canvases"):
        facts[name] = Path(facts[name]).name if facts[name] else None
    for name in ("data_root", "labels", "out_dir"):
        del facts[name]
    return facts


def migrate_run(checkpoint: Path) -> Path:
    """Rewrite a checkpoint that an earlier version wrote, so that the present code resumes from it.

    Returns the new file. Raises ValueError if the checkpoint is not one of a 2D pose model.
    """
    identity = migration.read_run(checkpoint)["identity"]
    if "model" not in identity:
        raise ValueError(f"{checkpoint} is not a checkpoint of a pose model")
    identity = migration.migrate_identity(identity)
    with torch.device("meta"):  # only the classes of the layers matter for the hash
        model = models.build(
            identity["model"], input_size=identity["recipe"]["input_size"], **identity["options"]
        )
    return migration.migrate_checkpoint(checkpoint, run_code_hash(model, make_dataset, pose_loss))
