"""The settings of one training run. Command line, papermill, ablation grid and Snakemake all create them."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from posebook.utils import unknown_name_error

SAVE_EVERY = 500  # optimizer steps between two checkpoints within an epoch


def option(default: Any, help: str) -> Any:
    """Return a dataclass field with a help text. If default is a type, each instance gets a new object."""
    if isinstance(default, type):
        return field(default_factory=default, metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a training run. The run's record stores them.

    Each field is an option of the command line.
    """

    model: str = option("starnet-pose-t", "one of posebook.models.names()")
    dataset: str = option(
        "synthetic",
        "one of datasets.names(), or several such as coco+lspet+synthetic, mapped to the COCO joints",
    )
    data_root: str | dict | None = option(
        None,
        "the dataset's folder; for several datasets coco=PATH,lspet=PATH; default: $POSEBOOK_DATA/NAME or "
        "data/NAME",
    )
    profile: str = option("demo", "selects the recipe: demo, fast, paper or overfit")
    device: str = option("cpu", "cpu, cuda, cuda:1, ...")
    seed: int = option(0, "random seed of the initialization, the sample order and the augmentation")
    out_dir: str = option("reports", "folder for records, checkpoints and weights")
    recipe: dict = option(dict, 'changed fields of the recipe, as JSON: {"epochs": 50}')
    options: dict = option(dict, 'keyword arguments of the model builder, as JSON: {"attention": "cbam"}')
    backbone: str | None = option(None, "ImageNet weights of the backbone's authors to start from")
    init: str | None = option(
        None, "weights of this model to start from; joints and input size may differ from this run's"
    )
    val_split: str | None = option(
        None, "the split to evaluate on, or none; default: the dataset's validation split"
    )
    shares: str | list | None = option(
        None,
        "fraction of an epoch for each of several datasets: 0.5,0.3,0.2; default: in proportion to size",
    )
    labels: str | dict | None = option(
        None, "files with additional joints for one of several datasets: lspet=FILE.json"
    )
    hold_out: float = option(
        0.0, "fraction of the training images that is not trained on but measures the learning curve"
    )
    canvases: str | None = option(None, "a canvas cache to train from without the dataset's files")
    pack: str | None = option(None, "jpeg or raw: write a canvas cache first and train from it")
    workers: int = option(0, "number of data loader processes")
    precision: str = option("float32", "precision of the forward pass: float32, bf16 or fp16")
    compile: bool = option(False, "use torch.compile")
    grad_accum_steps: int = option(1, "number of parts that each batch is split into (gradient accumulation)")
    save_every: int = option(SAVE_EVERY, "optimizer steps between two checkpoints")
    name: str | None = option(
        None, "name of the record; default: from model, dataset, init, profile and seed"
    )


def changed_fields(config: TrainConfig) -> dict[str, Any]:
    """The fields of a config that do not have their default, by name."""
    defaults = TrainConfig()
    names = [field.name for field in dataclasses.fields(config)]
    return {name: getattr(config, name) for name in names if getattr(config, name) != getattr(defaults, name)}


def make_config(*values: object, **settings: Any) -> TrainConfig:
    """Create a TrainConfig from its own fields and from recipe fields.

    make_config("lapx", epochs=2) is TrainConfig(model="lapx", recipe={"epochs": 2}). Raises ValueError for
    too many values, for a setting that is given twice, and, with close matches, for an unknown name.
    """
    from posebook.training.recipes import Recipe

    names = [field.name for field in dataclasses.fields(TrainConfig)]
    recipe_names = [field.name for field in dataclasses.fields(Recipe)]
    if len(values) > len(names):
        raise ValueError(f"make_config takes at most {len(names)} values without a name, not {len(values)}")
    positional = dict(zip(names, values, strict=False))
    if twice := positional.keys() & settings.keys():
        raise ValueError(f"{', '.join(sorted(twice))} is given twice: by position and by name")
    settings = positional | settings
    if unknown := [name for name in settings if name not in names + recipe_names]:
        raise unknown_name_error(unknown[0], names + recipe_names, "setting")
    own: dict[str, Any] = {name: value for name, value in settings.items() if name in names}
    changes = {name: value for name, value in settings.items() if name not in names}
    own["recipe"] = (own.get("recipe") or {}) | changes
    own["options"] = own.get("options") or {}
    return TrainConfig(**own)
