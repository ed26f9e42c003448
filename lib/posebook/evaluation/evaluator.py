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
    model: nn.Module, persons: PoseDataset, flip_test: bool = True, **how: object
) -> dict[str, float]:
    """Predict and score; `how`: batch, device, workers and dark of `predict`."""
    return metrics.score(persons, predict(model, persons, flip_test, **how))


def protocol(persons: PoseDataset, input_size: tuple[int, int], flip_test: bool, decoding: str) -> dict:
    """What a record says of how a figure was measured."""
    measured = metrics.metric_type(persons)
    oks, given = measured in ("oks", "crowd"), persons.boxes == "ground truth"
    names = {
        "oks": "OKS AP by pycocotools",
        "crowd": "OKS AP by pycocotools, CrowdPose's areas and 20 detections",
        "pckh": "PCKh, head size",
        "pck": "PCK, torso diagonal",
    }
    return {
        "input_size": list(input_size),
        "boxes": persons.boxes,
        "boxes_sha256": persons.boxes_sha256,
        "flip_test": flip_test,
        "decoding": decoding,
        "metric": names[measured],
        "sigmas": persons.skeleton.name if oks else None,
        "nms": f"OKS {metrics.NMS_THRESHOLD}" if oks and not given else None,
        "rescoring": f"mean of joint scores above {metrics.JOINT_THRESHOLD}" if oks else None,
        "evaluated_on": persons.split,
    }


def evaluate_weights(
    model: nn.Module,
    persons: PoseDataset,
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
    check_not_trained_on(weights, persons)
    watch, facts = records.RunMetadata(device), models.describe_weights(weights)
    how = {"device": device, "workers": workers, "dark": dark}
    single = metrics.score(persons, predict(model, persons, flip_test=False, **how))
    found = predict(model, persons, flip_test=True, **how)
    scores, units = metrics.measure(persons, found)
    height, width = model.input_size
    name = facts.get("model", name)
    words = ["evaluate", name, *(f"{k}={v}" for k, v in facts.get("options", {}).items()), persons.name]
    words += [f"{height}x{width}", profile, f"seed{seed}"]
    words += [] if persons.boxes == "ground truth" else ["detector"]
    fields = {
        "model": name,
        "options": facts.get("options", {}),
        "dataset": persons.describe(),
        "profile": profile,
        "parameters": {"split": persons.split, "device": device, "workers": workers, "dark": dark},
        "protocol": protocol(persons, model.input_size, True, found.decoding),
        "metrics": scores,
        "interval": bootstrap.interval(units),
        "metrics_without_flip": single,
        "complexity": complexity.count(model, model.input_size),
        "weights": {"sha256": sha256(weights), "trained_on": facts.get("trained_on", trained_on)},
        "seed": seed,
    }
    return records.build("evaluate", "-".join(words), watch, **fields), found, units
