"""One model for several keypoint sets: ViTPose++'s experiment on the bundled synthetic data.

Three methods to learn 17 and 14 joints from the same samples (Xu et al., "ViTPose++", TPAMI 2024):
separate: one plain model per set; decoders: one model with a decoder per set; experts: in addition, a part of
each feed-forward layer belongs to one set.

1. Every second training image has COCO's 17 joints, the others CrowdPose's 14, so no image is used with both.
   All validation images are evaluated with both.
2. A model of both sets mixes them in its batches and takes as many steps as the two separate models together.
3. Each set is evaluated with the plain model that is merged for it, and the multiply-adds of that model are
   counted. AP is near zero for such a small model after so short a training. Therefore PCK@0.1 is reported as
   well: the fraction of labeled joints with an error of at most a tenth of the box's longer side.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from posebook import complexity, datasets, models, records
from posebook.datasets import PoseDataset, combined
from posebook.evaluation import metrics, predictions
from posebook.evaluation.metrics import Predictions
from posebook.models import vitpose
from posebook.models.layers import PoseModel
from posebook.training import loop, recipes, runtime
from posebook.training.checkpoints import TrainState
from posebook.training.config import TrainConfig
from posebook.training.data import EpochDataset, Key, TrainDataset
from posebook.training.recipes import Recipe
from posebook.training.runtime import RuntimeConfig
from posebook.utils import check_name

METHODS, DATASETS, MODEL = ("separate", "decoders", "experts"), ("synthetic", "synthetic-14"), "vitpose-s"
MODEL_OPTIONS: dict[str, Any] = {"width": 96, "depth": 4, "heads": 4, "drop_path": 0.0, "decoder": "simple"}
RECIPE: dict[str, Any] = {  # changes to profile demo
    "epochs": 4,
    "learning_rate": 2e-3,
    "warmup_steps": 300,
    "evaluate_every": 4,
    "cosine_start": 0.5,
    "min_lr_ratio": 0.05,
    "ema_momentum": 0.002,
    "ema_warmup": 200.0,
}
PCK_THRESHOLD = 0.1  # of a box's longer side
PROTOCOL = {
    "boxes": "ground truth",
    "flip_test": False,
    "metric": f"joints within {PCK_THRESHOLD} of the box's longer side; OKS AP by pycocotools",
}


def split_by_image(sets: Sequence[PoseDataset]) -> list[PoseDataset]:
    """Give each set its own images: of two sets over the same images, each keeps every second image."""
    return [
        replace(one, instances=tuple(p for p in one.instances if p.image_id % len(sets) == number))
        for number, one in enumerate(sets)
    ]


class ConcatPoseDataset(Dataset):
    """Training samples of several sets, padded to the largest number of joints."""

    def __init__(self, sets: Sequence[TrainDataset]):
        self.sets, self.recipe, self.seed = sets, sets[0].recipe, sets[0].seed
        self.ends = np.cumsum([len(one) for one in sets])
        self.num_joints = max(len(one.dataset.skeleton.keypoints) for one in sets)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor, Tensor, int]:
        """Return image (H, W, 3), keypoints (K, 2), weights (K,) and the set's index.

        Joints that the set does not have get weight 0.
        """
        epoch, index = key
        number = int(np.searchsorted(self.ends, index, side="right"))
        start = int(self.ends[number]) - len(self.sets[number])
        image, points, weights = self.sets[number][epoch, index - start]
        missing = self.num_joints - len(points)
        points = functional.pad(points, (0, 0, 0, missing))  # (K, 2)
        return image, points, functional.pad(weights, (0, missing)), number


def metric_name(metric: str, dataset: PoseDataset) -> str:
    """Return a metric's name with the number of joints."""
    return f"{metric}, {len(dataset.skeleton.keypoints)} joints"


def pck(dataset: PoseDataset, predicted: Predictions, threshold: float = PCK_THRESHOLD) -> float:
    """Return the fraction of labeled joints whose error is at most `threshold` of their box's longer side."""
    truth = np.stack([person.keypoints for person in dataset.instances])  # (N, K, 3)
    sides = np.array([max(person.bbox[2:]) for person in dataset.instances])  # (N,)
    errors = np.linalg.norm(predicted.keypoints - truth[..., :2], axis=2) / sides[:, None]  # (N, K)
    return float((errors <= threshold)[truth[..., 2] > 0].mean())


def median_baseline(train_set: PoseDataset, val_set: PoseDataset) -> Predictions:
    """Predict each joint at its median location in the training boxes. A useful model must be better."""

    def centers_and_sides(dataset: PoseDataset) -> tuple[np.ndarray, np.ndarray]:
        box = np.array([person.bbox for person in dataset.instances])[:, None]  # (N, 1, 4)
        return box[..., :2] + box[..., 2:] / 2, box[..., 2:].max(2, keepdims=True)  # (N, 1, 2), (N, 1, 1)

    truth = np.stack([person.keypoints for person in train_set.instances])  # (N, K, 3)
    center, side = centers_and_sides(train_set)
    relative = np.where(truth[..., 2:] > 0, (truth[..., :2] - center) / side, np.nan)  # (N, K, 2)
    center, side = centers_and_sides(val_set)
    points = center + side * np.nanmedian(relative, 0)  # (N, K, 2)
    return Predictions(points, np.ones(points.shape[:2]))


def evaluate_dataset(model: PoseModel, dataset: PoseDataset, device: str = "cpu") -> dict[str, float]:
    """Return PCK@0.1 and AP of a plain model on its set, without flip test."""
    predicted = predictions.predict(model, dataset, flip_test=False, device=device)
    scores = {"PCK@0.1": pck(dataset, predicted), "AP": metrics.score(dataset, predicted)["AP"]}
    return {metric_name(metric, dataset): value for metric, value in scores.items()}


def build_models(method: str, sets: Sequence[PoseDataset], recipe: Recipe) -> tuple[list[PoseModel], dict]:
    """Return a method's untrained models, one for both sets or one per set, and the builder's options."""
    size, skeletons = recipe.input_size, [one.skeleton for one in sets]
    if method == "separate":
        return [models.build(MODEL, skeleton, size, **MODEL_OPTIONS) for skeleton in skeletons], MODEL_OPTIONS
    options = MODEL_OPTIONS | {
        "extra_num_joints": tuple(len(skeleton.keypoints) for skeleton in skeletons[1:]),
        "expert_dim": MODEL_OPTIONS["width"] // 2 if method == "experts" else 0,  # half, as in ViTPose++-S
    }
    return [models.build(MODEL, skeletons[0], size, **options)], options


def plain_models(model: nn.Module, sets: Sequence[PoseDataset]) -> list[PoseModel]:
    """Return the plain models that a model consists of: itself, or the one merged for each of its sets."""
    assert isinstance(model, vitpose.ViTPose)
    if len(model.joints) == 1:
        return [model]
    return [vitpose.extract_dataset(model, number, one.skeleton) for number, one in enumerate(sets)]


def fit_model(
    model: PoseModel,
    train_sets: Sequence[PoseDataset],
    val_sets: Sequence[PoseDataset],
    recipe: Recipe,
    runtime: RuntimeConfig,
    spec: loop.RunSpec,
) -> tuple[TrainState, Path, dict[str, float]]:
    """Train a model on its sets. Return the run's state, its folder, and metrics on the validation sets."""
    spec = replace(spec, identity=spec.identity | {"data": [one.sha256 for one in train_sets]})

    def make_dataset(_: bool) -> EpochDataset:
        samples = [TrainDataset(one, recipe, spec.identity["seed"]) for one in train_sets]
        return ConcatPoseDataset(samples) if len(samples) > 1 else samples[0]

    def score(model: nn.Module) -> dict[str, float]:
        scores: dict[str, float] = {}
        for plain, val_set in zip(plain_models(model, val_sets), val_sets, strict=True):
            scores |= evaluate_dataset(plain, val_set, runtime.device)
        return scores

    state, folder = loop.fit(model, make_dataset, recipe, runtime, spec, score)
    return state, folder, score(state.ema)


def write_weights(model: PoseModel, folder: Path, train_sets: Sequence[PoseDataset], options: dict) -> dict:
    """Write the weights of a model into the run's folder and return the record's field about them."""
    path, trained_on = folder / "weights.safetensors", "+".join(one.name for one in train_sets)
    images = set(combined.image_hashes(person for one in train_sets for person in one.instances))
    digest = models.save_weights(model, path, MODEL, trained_on, images=images, **options)
    return records.weights_facts(path, digest, "scratch", trained_on)


def train(
    method: str = "experts",
    data_root: str | None = None,
    seed: int = 0,
    out_dir: str = "reports",
    device: str = "cpu",
    **changes: object,
) -> dict:
    """Train one method's models on both sets, evaluate the merged plain models, and return the record.

    changes: recipe fields. The same call resumes an interrupted run. Raises ValueError for unknown names.
    """
    recipe = recipes.get("demo", MODEL, DATASETS[0], **RECIPE | changes)
    check_name(method, METHODS, "method")
    settings, metadata = runtime.make_runtime(TrainConfig(device=device)), records.RunMetadata(device)
    train_sets = split_by_image([datasets.load(name, data_root, "train") for name in DATASETS])
    val_sets = [datasets.load(name, data_root, "val") for name in DATASETS]
    torch.manual_seed(seed)
    trained, options = build_models(method, train_sets, recipe)
    scores: dict[str, float] = {}
    states: list[TrainState] = []
    merged: list[PoseModel] = []
    for number, model in enumerate(trained):
        own = slice(None) if len(trained) == 1 else slice(number, number + 1)
        name = "-".join(["several", method, *(one.name for one in train_sets[own]), f"seed{seed}"])
        spec = loop.RunSpec(name, Path(out_dir), {"way": method, "net": MODEL_OPTIONS, "seed": seed})
        state, folder, own_scores = fit_model(model, train_sets[own], val_sets[own], recipe, settings, spec)
        scores |= own_scores
        states.append(state)
        merged += plain_models(state.ema.cpu(), val_sets[own])
        weights = write_weights(cast(PoseModel, state.ema), folder, train_sets[own], options)
    guess = {
        metric_name("PCK@0.1", val_set): pck(val_set, median_baseline(train_set, val_set))
        for train_set, val_set in zip(train_sets, val_sets, strict=True)
    }
    return records.build(
        "several",
        f"several-{method}-seed{seed}",
        metadata,
        sum(state.seconds for state in states),
        model=MODEL,
        options=options,
        dataset=train_sets[0].describe(),
        datasets=[one.describe() for one in train_sets],
        profile="demo",
        parameters=states[0].identity["recipe"] | {"way": method, "device": device},
        protocol=PROTOCOL | {"input_size": list(recipe.input_size)},
        evaluated=val_sets[0].describe(),
        metrics=scores,
        guess=guess,
        complexity={
            "trained": [complexity.count(model, recipe.input_size) for model in trained],
            "merged": [complexity.count(model, recipe.input_size) for model in merged],
        },
        curves=[state.curve for state in states],
        weights=weights,  # of the last model
        seed=seed,
    )
