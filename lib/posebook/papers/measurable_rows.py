"""The rows of the papers' tables that can be measured on this machine, as notebook runs.

1. Published weights that are named after their dataset in data/checkpoints.csv are downloaded and evaluated
   on each dataset that exists in data/. So are files in data/checkpoints that are named MODEL-DATASET-HxW. On
   COCO they are also evaluated with a detector's boxes if that file exists.
2. With a GPU, each model with a paper's recipe is trained on each dataset of its paper that exists in data/.
   StarNet-Pose and ViTPose start from pretrained backbones in their papers. Without that file they are not
   trained.

Ablations and trainings on COCO-mini are the rows of data/grid.csv, in ablations.py. All paths are relative to
the repository.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posebook.datasets.detector_boxes import COCO_BOXES
from posebook.models import published
from posebook.papers.ablations import BACKBONES
from posebook.papers.runs import NotebookRun, training
from posebook.training import recipes
from posebook.training.config import TrainConfig

OWN_FILE = re.compile(r"(.+)-(coco|crowdpose|mpii)-(\d+)x(\d+)\.(?:pth|pt|pth\.tar|safetensors)")
BACKBONE_FILES = {
    "starnet-pose-t": "starnet_s1.pth.tar",
    "starnet-pose-s": "starnet_s3.pth.tar",
    "vitpose-s": "mae_pretrain_vit_small.pth",
    "vitpose-b": "mae_pretrain_vit_base.pth",
    "vitpose-l": "mae_pretrain_vit_large.pth",
    "vitpose-h": "mae_pretrain_vit_huge.pth",
}


def runs(device: str) -> dict[str, NotebookRun]:
    """The name of each record and the run that writes it.

    A run with the parameter `boxes` also writes NAME-detector.
    """
    named = dict(_evaluations(device))
    return named if device == "cpu" else named | dict(_trainings(device))


def _folder(dataset: str) -> Path | None:
    """The folder of a dataset if it exists here."""
    folder = Path("data", dataset)
    return folder if (folder / "annotations").is_dir() else None


def _evaluations(device: str) -> Iterator[tuple[str, NotebookRun]]:
    for model, dataset, size, own, parameters in [*_published_weights(), *_own_weights()]:
        if folder := _folder(dataset):
            name = f"evaluate-{model}-{dataset}-{size}-paper-seed0"
            parameters |= {"model": model, "dataset": dataset, "data_root": str(folder), "name": name}
            parameters |= {"profile": "paper", "device": device}
            boxes = str(folder / COCO_BOXES)
            if dataset == "coco" and Path(boxes).is_file():
                yield name, NotebookRun("evaluate", parameters | {"boxes": boxes}, (*own, boxes))
            else:
                yield name, NotebookRun("evaluate", parameters, own)


# model, dataset, HxW, files, parameters
Weights = Iterator[tuple[str, str, str, tuple[str, ...], dict[str, Any]]]


def _published_weights() -> Weights:
    for line in published.load_table():
        if line.weights == line.dataset and line.input_size:
            if line.url or (published.folder() / line.file).is_file():
                size = "x".join(map(str, line.input_size))
                yield line.model, line.dataset, size, (), {"weights": line.weights}


def _own_weights() -> Weights:
    for path in sorted(BACKBONES.glob("*")):
        if match := OWN_FILE.fullmatch(path.name):
            model, dataset, height, width = match.groups()
            parameters = {"trained_on": dataset, "input_size": [int(height), int(width)]}
            yield model, dataset, f"{height}x{width}", (str(path),), {"weights": str(path)} | parameters


def _trainings(device: str) -> Iterator[tuple[str, NotebookRun]]:
    for model, model_recipes in recipes.PAPER.items():
        backbone = BACKBONES / BACKBONE_FILES[model] if model in BACKBONE_FILES else None
        if backbone and not backbone.is_file():
            continue
        for dataset in model_recipes:
            if folder := _folder(dataset):
                name = f"train-{model}-{dataset}-paper-seed0"
                config = TrainConfig(
                    model=model,
                    dataset=dataset,
                    data_root=str(folder),
                    backbone=str(backbone) if backbone else None,
                    profile="paper",
                    device=device,
                    pack="jpeg",  # a GPU would wait for the decoding of full images
                    name=name,
                )
                yield name, training(config)
