"""Evaluate a model: metrics, protocol and record."""

from pathlib import Path

from torch import nn

from posebook import complexity, models, records
from posebook.datasets import PoseDataset
from posebook.evaluation import bootstrap, metrics
from posebook.evaluation.metrics import ImageStats, Predictions
from posebook.evaluation.predictions import check_not_trained_on, predict
from posebook.utils import sha256


def evaluate(
    model: nn.Module, dataset: PoseDataset, flip_test: bool = True, **how: object
) -> dict[str, float]:
    """Predict and score; `how`: batch, device, workers and dark of `predict`."""
    return metrics.score(dataset, predict(model, dataset, flip_test, **how))


def protocol(dataset: PoseDataset, input_size: tuple[int, int], flip_test: bool, decoding: str) -> dict:
    """What a record says of how a figure was measured."""
    measured = metrics.metric_type(dataset)
    oks, given = measured in ("oks", "crowd"), dataset.boxes == "ground truth"
    names = {
        "oks": "OKS AP by pycocotools",
        "crowd": "OKS AP by pycocotools, CrowdPose's areas and 20 detections",
        "pckh": "PCKh, head size",
        "pck": "PCK, torso diagonal",
    }
    return {
        "input_size": list(input_size),
        "boxes": dataset.boxes,
        "boxes_sha256": dataset.boxes_sha256,
        "flip_test": flip_test,
        "decoding": decoding,
        "metric": names[measured],
        "sigmas": dataset.skeleton.name if oks else None,
        "nms": f"OKS {metrics.NMS_THRESHOLD}" if oks and not given else None,
        "rescoring": f"mean of joint scores above {metrics.JOINT_THRESHOLD}" if oks else None,
        "evaluated_on": dataset.split,
    }


def evaluate_weights(
    model: nn.Module,
    dataset: PoseDataset,
    weights: str | Path,
    name: str | None = None,
    trained_on: str | None = None,
    profile: str = "demo",
    device: str = "cpu",
    seed: int = 0,
    workers: int = 0,
    dark: bool = False,
) -> tuple[dict, Predictions, ImageStats]:
    """Measure a model of a weights file with and without flip test: the record, predictions, and their units.

    name and trained_on: the model, and the dataset, of weights that do not say it themselves; profile and
    seed only name the record. Raises ValueError, before any work, for people whose images the weights were
    trained on.
    """
    check_not_trained_on(weights, dataset)
    watch, facts = records.RunMetadata(device), models.describe_weights(weights)
    how = {"device": device, "workers": workers, "dark": dark}
    single = metrics.score(dataset, predict(model, dataset, flip_test=False, **how))
    found = predict(model, dataset, flip_test=True, **how)
    scores, units = metrics.measure(dataset, found)
    height, width = model.input_size
    name = facts.get("model", name)
    words = ["evaluate", name, *(f"{k}={v}" for k, v in facts.get("options", {}).items()), dataset.name]
    words += [f"{height}x{width}", profile, f"seed{seed}"]
    words += [] if dataset.boxes == "ground truth" else ["detector"]
    fields = {
        "model": name,
        "options": facts.get("options", {}),
        "dataset": dataset.describe(),
        "profile": profile,
        "parameters": {"split": dataset.split, "device": device, "workers": workers, "dark": dark},
        "protocol": protocol(dataset, model.input_size, True, found.decoding),
        "metrics": scores,
        "interval": bootstrap.interval(units),
        "metrics_without_flip": single,
        "complexity": complexity.count(model, model.input_size),
        "weights": {"sha256": sha256(weights), "trained_on": facts.get("trained_on", trained_on)},
        "seed": seed,
    }
    return records.build("evaluate", "-".join(words), watch, **fields), found, units
