"""Evaluate a model: metrics, protocol and record."""

import argparse
from pathlib import Path

from torch import nn

from posebook import complexity, datasets, models, records
from posebook.cli import fails_in_one_line
from posebook.datasets import PoseDataset, detector_boxes
from posebook.evaluation import bootstrap, metrics
from posebook.evaluation.metrics import ImageStats, Predictions
from posebook.evaluation.predictions import check_not_trained_on, predict, save_predictions
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
    written = {
        "kind": "evaluate",
        "name": "-".join(words),
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
        **watch.stamp(),
    }
    return written, found, units


@fails_in_one_line
def main() -> None:
    """Evaluate from the command line; writes the record and its predictions, and says where."""
    parser = argparse.ArgumentParser(prog="python -m posebook.evaluation", description="Evaluate weights.")
    parser.add_argument("--weights", required=True, help="as training writes them, or the authors' file")
    parser.add_argument("--model", help=f"of weights that do not say it: {', '.join(models.names())}")
    parser.add_argument("--input-size", type=int, nargs=2, default=(256, 192), help="likewise: height, width")
    parser.add_argument("--trained-on", help="likewise: the dataset; coco for the authors'")
    parser.add_argument("--dataset", default="synthetic", help=", ".join(datasets.NAMES))
    parser.add_argument("--data-root", help="its own folder; default $POSEBOOK_DATA/NAME or data/NAME")
    parser.add_argument("--split", help="default: what the dataset is evaluated on")
    parser.add_argument("--boxes", help="a detector's file of boxes; default: the annotated boxes")
    parser.add_argument("--dark", action="store_true", help="decode heatmaps by DARK")
    parser.add_argument("--profile", default="demo", help="names the record")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--workers", type=int, default=0, help="loader processes")
    parser.add_argument("--out-dir", default="reports")
    told = parser.parse_args()
    people = datasets.load(told.dataset, told.data_root, told.split)
    people = detector_boxes.load_boxes(people, told.boxes) if told.boxes else people
    model = models.load_weights(told.weights, told.model, tuple(told.input_size))
    how = {name: getattr(told, name) for name in ("trained_on", "profile", "device", "workers", "dark")}
    written, found, units = evaluate_weights(model, people, told.weights, told.model, **how)
    path = records.write(written, told.out_dir)
    save_predictions(path, people, found, units)
    print({key: round(value, 4) for key, value in written["metrics"].items()}, path, sep="\n")
