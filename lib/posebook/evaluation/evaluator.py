"""Evaluate a model: metrics, evaluation protocol and record."""

from pathlib import Path

from posebook import complexity, models, paths, records
from posebook.datasets import PoseDataset
from posebook.evaluation import bootstrap, error_analysis, metrics
from posebook.evaluation.metrics import ImageStats, Predictions
from posebook.evaluation.predictions import check_not_trained_on, predict
from posebook.models import published
from posebook.models.layers import PoseModel
from posebook.utils import sha256

METRIC_NAMES = {
    "oks": "OKS AP by pycocotools",
    "crowd": "OKS AP by pycocotools, CrowdPose's areas and 20 detections",
    "pckh": "PCKh, head size",
    "pck": "PCK, torso diagonal",
}


def evaluate(
    model: PoseModel,
    dataset: PoseDataset,
    flip_test: bool = True,
    batch_size: int = 64,
    device: str = "cpu",
    workers: int = 0,
    dark: bool = False,
) -> dict[str, float]:
    """The metrics of a model on a dataset; the options are those of `predict`."""
    return metrics.score(dataset, predict(model, dataset, flip_test, batch_size, device, workers, dark))


def measure(
    model: PoseModel, dataset: PoseDataset, device: str = "cpu", workers: int = 0, dark: bool = False
) -> tuple[dict, Predictions, ImageStats]:
    """The record's fields about the accuracy, the predictions with flip test, and their image statistics.

    device, workers, dark: as in `predict`.
    """
    without_flip = evaluate(model, dataset, flip_test=False, device=device, workers=workers, dark=dark)
    predictions = predict(model, dataset, device=device, workers=workers, dark=dark)
    scores, stats = metrics.measure(dataset, predictions)
    fields = {
        "protocol": protocol(dataset, model.input_size, True, predictions.decoding),
        "metrics": scores,
        "interval": bootstrap.interval(stats),
        "metrics_without_flip": without_flip,
    }
    return fields, predictions, stats


def protocol(dataset: PoseDataset, input_size: tuple[int, int], flip_test: bool, decoding: str) -> dict:
    """The record's description of how a metric was measured."""
    uses_oks = dataset.metric_type in ("oks", "crowd")
    return {
        "input_size": list(input_size),
        "boxes": dataset.boxes,
        "boxes_sha256": dataset.boxes_sha256,
        "flip_test": flip_test,
        "decoding": decoding,
        "metric": METRIC_NAMES[dataset.metric_type],
        "sigmas": dataset.skeleton.name if uses_oks else None,
        "nms": f"OKS {metrics.NMS_THRESHOLD}" if uses_oks and dataset.boxes != "ground truth" else None,
        "rescoring": f"mean of joint scores above {metrics.JOINT_THRESHOLD}" if uses_oks else None,
        "evaluated_on": dataset.split,
    }


def weights_file_facts(path: str | Path, trained_on: str | None) -> dict:
    """The `weights` field of an evaluation's record."""
    path = Path(path)
    return {
        "sha256": sha256(path),
        "trained_on": trained_on,
        "file": path.name,
        "bytes": path.stat().st_size,
        "bundled": path.resolve().parent == paths.WEIGHTS,
        # Whether a training of posebook wrote the file: its recipe is that of the training's record.
        "trained_here": published.find_by_file(path) is None and bool(models.describe_weights(path)),
    }


def evaluate_weights(
    model: PoseModel,
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
    """Evaluate a model with and without flip test: the record, the predictions and their image statistics.

    weights: the file that the model was loaded from. name, trained_on: the model and the dataset, for a file
    that does not contain them. profile and seed are only part of the record's name. device, workers, dark: as
    in `predict`. (More than eight parameters: they are the options of `posebook evaluate`.)

    Raises ValueError, before any other work, if the weights were trained on images of the dataset or if the
    name of the model is unknown.
    """
    check_not_trained_on(weights, dataset)
    metadata, facts = records.RunMetadata(device), models.describe_weights(weights)
    name, options = facts.get("model", name), facts.get("options", {})
    if name is None:
        raise ValueError(f"{Path(weights).name} does not contain the name of its model: pass it as name")
    fields, predictions, stats = measure(model, dataset, device, workers, dark)
    height, width = model.input_size
    record_name = ["evaluate", name, *(f"{key}={value}" for key, value in options.items()), dataset.name]
    record_name += [f"{height}x{width}", profile, f"seed{seed}"]
    record_name += [] if dataset.boxes == "ground truth" else ["detector"]
    record = records.build(
        "evaluate",
        "-".join(record_name),
        metadata,
        model=name,
        options=options,
        dataset=dataset.describe(),
        profile=profile,
        parameters={"split": dataset.split, "device": device, "workers": workers, "dark": dark or model.dark},
        **fields,
        complexity=complexity.count(model, model.input_size),
        weights=weights_file_facts(weights, facts.get("trained_on", trained_on)),
        seed=seed,
    )
    if dataset.metric_type == "oks" and dataset.boxes == "ground truth":
        record["breakdown"] = error_analysis.breakdown(dataset, predictions)
    return record, predictions, stats
