"""The settings of one training run, for the command line, papermill, the grid and Snakemake alike."""

import dataclasses
from dataclasses import dataclass, field

from posebook.training.runtime import SAVE_EVERY
from posebook.utils import unknown_name_error


def option(default: object, help: str) -> object:
    """A dataclass field with a help text; a type as default is called for each instance."""
    if isinstance(default, type):
        return field(default_factory=default, metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class TrainConfig:
    """What to train, on what, and how. The record of a run stores it.

    Each field is an option of the command line.
    """

    model: str = option("starnet-pose-t", "one of posebook.models.names()")
    dataset: str = option(
        "synthetic", "one of datasets.NAMES, or several as coco+lspet+synthetic, mapped to COCO's joints"
    )
    data_root: str | dict | None = option(
        None,
        "the dataset's folder, of several coco=PATH,lspet=PATH; default: $POSEBOOK_DATA/NAME or data/NAME",
    )
    profile: str = option("demo", "demo, fast, paper or overfit: where the recipe comes from")
    device: str = option("cpu", "cpu, cuda, cuda:1, ...")
    seed: int = option(0, "of the initialization, the order of the samples and the augmentation")
    out_dir: str = option("reports", "records, checkpoints and weights go here")
    recipe: dict = option(dict, 'changed fields of the recipe, as JSON: {"epochs": 50}')
    options: dict = option(dict, 'keyword arguments of the builder, as JSON: {"attention": "cbam"}')
    backbone: str | None = option(None, "the backbone authors' ImageNet file to start from")
    init: str | None = option(
        None, "weights of this model to start from, also with other joints or another input size"
    )
    val_split: str | None = option(
        None, "the split to evaluate on, or none; default: the dataset's validation split"
    )
    shares: str | list | None = option(
        None, "of an epoch, one for each of several sources: 0.5,0.3,0.2; default: their sizes"
    )
    labels: str | dict | None = option(None, "files of additional joints of a source: lspet=FILE.json")
    hold_out: float = option(0.0, "share of the training images that only measures the learning curve")
    canvases: str | None = option(None, "a canvas cache to train from without the dataset's files")
    pack: str | None = option(None, "jpeg or raw: write a canvas cache first and train from it")
    workers: int = option(0, "loader processes")
    precision: str = option("float32", "of the forward pass: float32, bf16 or fp16")
    compile: bool = option(False, "use torch.compile")
    grad_accum_steps: int = option(1, "parts that each batch is processed in")
    save_every: int = option(SAVE_EVERY, "steps between checkpoints")
    name: str | None = option(None, "of the record; default: from model, data, init, profile and seed")


def make_config(*values: object, **settings: object) -> TrainConfig:
    """A TrainConfig; settings that are no fields of it are fields of the recipe.

    make_config("lapx", epochs=2) is TrainConfig(model="lapx", recipe={"epochs": 2}). Raises ValueError that
    suggests close matches for a name that is neither.
    """
    from posebook.training.recipes import Recipe

    names = [one.name for one in dataclasses.fields(TrainConfig)]
    recipe_names = [one.name for one in dataclasses.fields(Recipe)]
    settings = dict(zip(names, values, strict=False)) | settings
    if unknown := [name for name in settings if name not in names + recipe_names]:
        raise unknown_name_error(unknown[0], names + recipe_names, "setting")
    own = {name: value for name, value in settings.items() if name in names}
    changes = {name: value for name, value in settings.items() if name not in names}
    own["recipe"] = (own.get("recipe") or {}) | changes
    own["options"] = own.get("options") or {}
    return TrainConfig(**own)
