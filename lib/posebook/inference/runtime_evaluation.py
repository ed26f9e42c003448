"""Evaluate weights in a runtime, such as OpenVINO int8, and how much they lose against float32.

1. The ranges of 8 bits are from people of the training split, spread evenly over it. An image to evaluate on
   is never used.
2. The same weights are evaluated in PyTorch on the same images. The difference has a paired interval over
   images (evaluation/bootstrap.py).
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posebook import records, transforms
from posebook.datasets import PoseDataset, combined
from posebook.evaluation import bootstrap, error_analysis, evaluator, metrics, predictions
from posebook.evaluation.metrics import ImageStats, Predictions
from posebook.inference import runtimes
from posebook.inference.runtime_model import RuntimeModel
from posebook.models.layers import PoseModel
from posebook.utils import check_name

NUM_CALIBRATION = 128  # people whose crops give the ranges of 8 bits


def make_runtime_model(
    runtime: str, model: PoseModel, calibration: PoseDataset, num_people: int, folder: Path
) -> RuntimeModel:
    """A model in a runtime on the CPU; folder: for its files.

    calibration: num_people of its people, evenly spread, give the ranges of 8 bits. Raises ValueError for an
    unknown runtime, and runtimes.Unavailable.
    """
    check_name(runtime, runtimes.RUNTIMES, "runtime")
    crops = predictions.CropDataset(calibration, model.input_size, model.udp)
    indices = np.linspace(0, len(crops) - 1, min(num_people, len(crops))).astype(int).tolist()
    images = transforms.normalize(torch.stack([crops[index][0] for index in indices]))  # (N, 3, H, W)
    run = runtimes.RUNTIMES[runtime](
        model, device="cpu", images=images[:1], folder=folder, calibration=images
    )
    return RuntimeModel(model, run, batch=1)


def evaluate_runtime(
    runtime: str, model: PoseModel, dataset: PoseDataset, calibration: PoseDataset, **options: Any
) -> tuple[dict, Predictions, ImageStats]:
    """Evaluate weights in a runtime and in PyTorch: the runtime's record, predictions and image statistics.

    calibration: the training split of the dataset. options: those of `evaluator.evaluate_weights`. The
    record's entry `float32` contains the metrics in PyTorch and the `difference` of the runtime's primary
    metric from it, with its interval. Raises ValueError if calibration and dataset share an image, or if the
    runtime is unknown or unavailable.
    """
    metadata = records.RunMetadata(options.get("device", "cpu"))
    hashes = combined.image_hashes(calibration.instances).keys()
    if hashes & combined.image_hashes(dataset.instances).keys():
        raise ValueError(f"{dataset.split} has images of the training split: evaluate on another split")
    with tempfile.TemporaryDirectory() as folder:
        try:
            quantized = make_runtime_model(runtime, model, calibration, NUM_CALIBRATION, Path(folder))
        except runtimes.Unavailable as error:
            raise ValueError(f"{runtime} cannot be used here: {error}") from error
        record, _, float_stats = evaluator.evaluate_weights(model, dataset, **options)
        fields, results, stats = evaluator.measure(quantized, dataset, dark=options.get("dark", False))
    float32 = {name: record[name] for name in ("metrics", "metrics_without_flip", "interval")}
    float32["difference"] = bootstrap.paired_difference(float_stats, stats)
    record["parameters"]["runtime"] = runtime
    record["name"] += "-" + runtime.replace(" ", "-").lower()
    record |= fields | {
        "float32": float32,
        "calibration": calibration.describe() | {"used": min(NUM_CALIBRATION, len(calibration.instances))},
    }
    if "breakdown" in record:
        record["breakdown"] = error_analysis.breakdown(dataset, results)
    return record | metadata.stamp(), results, stats


def describe(record: dict) -> str:
    """One line of text for a record of `evaluate_runtime`."""
    name, value = next(iter(record["metrics"].items()))
    difference, low, high = record["float32"]["difference"]
    return (
        f"{name} in {record['parameters']['runtime']}: {value:.3f}; minus float32: {difference:+.4f}, "
        f"95 % interval {low:+.4f} to {high:+.4f}"
    )


def int8_accuracy(
    model: PoseModel, train: PoseDataset, val: PoseDataset, num_people: int = 32
) -> dict[str, float]:
    """AP of a model on `val` in OpenVINO as float32 and as int8, without flip test.

    Keys: fp32, int8, and low and high, the 95 % interval of fp32 minus int8, paired by image. num_people of
    `train` give the int8 ranges. Raises runtimes.Unavailable without OpenVINO or nncf.
    """
    results, stats = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("fp32", "int8"):
            one = make_runtime_model(f"OpenVINO {name}", model, train, num_people, Path(folder))
            scores, stats[name] = metrics.measure(val, predictions.predict(one, val, flip_test=False))
            results[name] = scores["AP"]
    _, low, high = bootstrap.paired_difference(stats["int8"], stats["fp32"])
    return results | {"low": low, "high": high}
