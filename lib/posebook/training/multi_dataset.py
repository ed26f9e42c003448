"""One net for several keypoint sets: ViTPose++'s question, asked of the embedded data with 17 and 14 joints.

Three ways to learn both sets, by the same samples of each:
separate: two plain nets, one a set; decoders: one net with a decoder a set; experts: that, and of each
feed-forward a part of its own a set (Xu et al., "ViTPose++", TPAMI 2024).

1. Every second training picture has COCO's 17 joints, the others CrowdPose's 14: no picture is learned with
   both. All of the validation pictures are looked at with both.
2. A net of both sets mixes them in its batches and takes as many steps as the two separate ones together.
3. A set is measured by the plain net that is merged for it, and its multiply-adds are counted. A net this
   small, trained this shortly, has next to no AP: besides it the share of labeled joints that lie within a
   tenth of the box's longer side of their place, PCK@0.1.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from posebook import complexity, datasets, models, records
from posebook.datasets import PoseDataset
from posebook.evaluation import metrics, predictions
from posebook.evaluation.metrics import Predictions
from posebook.models import vitpose
from posebook.training import loop, recipes, runtime
from posebook.training.checkpoints import TrainState
from posebook.training.config import TrainConfig
from posebook.training.data import TrainDataset
from posebook.training.recipes import Recipe
from posebook.training.runtime import RuntimeConfig
from posebook.utils import unknown_name_error

METHODS, DATASETS, MODEL = ("separate", "decoders", "experts"), ("synthetic", "synthetic-14"), "vitpose-s"
MODEL_OPTIONS = {"width": 96, "depth": 4, "heads": 4, "drop_path": 0.0, "decoder": "simple"}
RECIPE = {"epochs": 4, "learning_rate": 2e-3, "warmup_steps": 300, "evaluate_every": 4}
RECIPE |= {
    "cosine_start": 0.5,
    "min_lr_ratio": 0.05,
    "ema_momentum": 0.002,
    "ema_warmup": 200.0,
}  # else profile demo's
PCK_THRESHOLD = 0.1  # of a box's longer side


def split_by_image(whole: Sequence[PoseDataset]) -> list[PoseDataset]:
    """Of sets over the same pictures a share each, no picture in two of them: every second one, of two."""
    return [
        replace(people, instances=tuple(p for p in people.instances if p.image_id % len(whole) == number))
        for number, people in enumerate(whole)
    ]


class ConcatPoseDataset(Dataset):
    """Training samples of several sets as those of one, with as many joints as the largest has."""

    packed = None

    def __init__(self, sets: Sequence[TrainDataset]):
        self.sets, self.recipe, self.seed = sets, sets[0].recipe, sets[0].seed
        self.ends = np.cumsum([len(people) for people in sets])
        self.joints = max(len(people.dataset.skeleton.keypoints) for people in sets)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, int]:
        """Image (H, W, 3), joints (K, 2), weights (K,), 0 for those the set lacks, and the set's number."""
        epoch, index = key
        number = int(np.searchsorted(self.ends, index, side="right"))
        own = index - (self.ends[number] - len(self.sets[number]))
        image, points, weights = self.sets[number][epoch, int(own)]
        lacking = self.joints - len(points)
        return (
            image,
            functional.pad(points, (0, 0, 0, lacking)),
            functional.pad(weights, (0, lacking)),
            number,
        )


def metric_name(metric: str, dataset: PoseDataset) -> str:
    """A metric's name with the set's joints."""
    return f"{metric}, {len(dataset.skeleton.keypoints)} joints"


def pck(dataset: PoseDataset, found: Predictions, limit: float = PCK_THRESHOLD) -> float:
    """The share of labeled joints no farther from their place than `limit` of their box's longer side."""
    truth = np.stack([person.keypoints for person in dataset.instances])  # (N, K, 3)
    sides = np.array([max(person.bbox[2:]) for person in dataset.instances])  # (N,)
    away = np.linalg.norm(found.keypoints - truth[..., :2], axis=2) / sides[:, None]  # (N, K)
    return float((away <= limit)[truth[..., 2] > 0].mean())


def median_baseline(learned: PoseDataset, asked: PoseDataset) -> Predictions:
    """Each joint at the median of its places in the boxes learned from: what a net must do better than."""

    def boxes(dataset: PoseDataset) -> tuple[np.ndarray, np.ndarray]:
        box = np.array([person.bbox for person in dataset.instances])[:, None]  # (N, 1, 4)
        return box[..., :2] + box[..., 2:] / 2, box[..., 2:].max(2, keepdims=True)  # (N, 1, 2), (N, 1, 1)

    truth = np.stack([person.keypoints for person in learned.instances])  # (N, K, 3)
    middle, side = boxes(learned)
    places = np.where(truth[..., 2:] > 0, (truth[..., :2] - middle) / side, np.nan)  # (N, K, 2)
    middle, side = boxes(asked)
    points = middle + side * np.nanmedian(places, 0)  # (N, K, 2)
    return Predictions(points, np.ones(points.shape[:2]))


def evaluate_dataset(plain: nn.Module, people: PoseDataset, device: str = "cpu") -> dict[str, float]:
    """PCK@0.1 and AP of a plain net on its set, without flip test, each named with the set's joints."""
    found = predictions.predict(plain, people, flip_test=False, device=device)
    both = {"PCK@0.1": pck(people, found), "AP": metrics.score(people, found)["AP"]}
    return {metric_name(metric, people): value for metric, value in both.items()}


def build_models(way: str, sets: Sequence[PoseDataset], recipe: Recipe) -> tuple[list[nn.Module], dict]:
    """The nets of a way, untrained, one for both sets or one for each, and the builder's options."""
    size, skeletons = recipe.input_size, [people.skeleton for people in sets]
    if way == "separate":
        return [models.build(MODEL, skeleton, size, **MODEL_OPTIONS) for skeleton in skeletons], MODEL_OPTIONS
    options = MODEL_OPTIONS | {
        "extra_num_joints": tuple(len(skeleton.keypoints) for skeleton in skeletons[1:])
    }
    options |= {
        "expert_dim": MODEL_OPTIONS["width"] // 2 if way == "experts" else 0
    }  # half, as in ViTPose++-S
    return [models.build(MODEL, skeletons[0], size, **options)], options


def plain_models(net: nn.Module, sets: Sequence[PoseDataset]) -> list[nn.Module]:
    """The plain nets that a net is: itself, or what is merged for each of its sets."""
    if len(net.joints) == 1:
        return [net]
    return [vitpose.extract_dataset(net, number, people.skeleton) for number, people in enumerate(sets)]


def fit_model(
    name: str,
    net: nn.Module,
    sets: Sequence[PoseDataset],
    asked: Sequence[PoseDataset],
    recipe: Recipe,
    how: RuntimeConfig,
    out_dir: str | Path,
    identity: dict,
) -> tuple[TrainState, Path, dict[str, float]]:
    """Train a net on its sets by loop.fit; the run, its folder, and the scores on those asked for."""

    def people(_: bool) -> TrainDataset | ConcatPoseDataset:
        samples = [TrainDataset(people, recipe, identity["seed"]) for people in sets]
        return ConcatPoseDataset(samples) if len(samples) > 1 else samples[0]

    def score(net: nn.Module) -> dict[str, float]:
        found = {}
        for one, people in zip(plain_models(net, asked), asked, strict=True):
            found |= evaluate_dataset(one, people, how.device)
        return found

    identity = identity | {"data": [people.sha256 for people in sets]}
    run, folder = loop.fit(net, people, recipe, how, loop.RunSpec(name, Path(out_dir), identity), score)
    return run, folder, score(run.ema)


def train(
    way: str = "experts",
    data_root: str | None = None,
    seed: int = 0,
    out_dir: str = "reports",
    device: str = "cpu",
    **changes: object,
) -> dict:
    """Train one way's nets on both sets, measure what they are merged into, and return the record.

    changes: fields of the recipe to set otherwise, such as epochs. Goes on where the same call was stopped;
    raises ValueError before any work for a name it does not know.
    """
    recipe = recipes.get("demo", MODEL, DATASETS[0], **RECIPE | changes)
    if way not in METHODS:
        raise unknown_name_error(way, METHODS, "way")
    how, watch = runtime.make_runtime(TrainConfig(device=device)), records.RunMetadata(device)
    sets = split_by_image([datasets.load(name, data_root, "train") for name in DATASETS])
    asked = [datasets.load(name, data_root, "val") for name in DATASETS]
    torch.manual_seed(seed)
    (nets, options), scores, runs, merged = build_models(way, sets, recipe), {}, [], []
    for number, net in enumerate(nets):
        own = slice(None) if len(nets) == 1 else slice(number, number + 1)
        name = "-".join(["several", way, *(people.name for people in sets[own]), f"seed{seed}"])
        identity = {"way": way, "net": MODEL_OPTIONS, "seed": seed}
        run, folder, found = fit_model(name, net, sets[own], asked[own], recipe, how, out_dir, identity)
        scores |= found
        runs.append(run)
        merged += plain_models(run.ema.cpu(), asked[own])
        weights = folder / "weights.safetensors"
        digest = models.save_weights(run.ema, weights, MODEL, DATASETS[0], **options)
    fields = {
        "model": MODEL,
        "options": options,
        "dataset": sets[0].describe(),
        "datasets": [people.describe() for people in sets],
        "profile": "demo",
        "parameters": runs[0].identity["recipe"] | {"way": way, "device": device},
        "protocol": {"input_size": list(recipe.input_size), "boxes": "ground truth", "flip_test": False}
        | {"metric": f"joints within {PCK_THRESHOLD} of the box's longer side; OKS AP by pycocotools"},
        "evaluated": asked[0].describe(),
        "metrics": scores,
        "guess": {
            metric_name("PCK@0.1", two): pck(two, median_baseline(one, two))
            for one, two in zip(sets, asked, strict=True)
        },
        "complexity": {
            what: [complexity.count(net, recipe.input_size) for net in those]
            for what, those in (("trained", nets), ("merged", merged))
        },
        "curves": [run.curve for run in runs],
        "weights": records.weights_facts(weights, digest, "scratch", DATASETS[0]),  # of the last net
        "seed": seed,
    }
    seconds = sum(run.seconds for run in runs)
    return records.build("several", f"several-{way}-seed{seed}", watch, seconds, **fields)
