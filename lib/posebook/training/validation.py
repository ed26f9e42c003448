"""Metrics of a training run on its validation data: one dataset, or each source of a combined one."""

from pathlib import Path

from posebook.datasets import PoseDataset
from posebook.evaluation import bootstrap, evaluator, metrics, predictions
from posebook.models.layers import PoseModel
from posebook.training.runtime import RuntimeConfig


def sources_of(dataset: PoseDataset) -> tuple[PoseDataset, ...]:
    """Return the datasets that are evaluated one by one: the sources of a combined one, or itself."""
    return dataset.sources or (dataset,)


def predictions_path(path: Path, dataset: PoseDataset, source: PoseDataset) -> Path:
    """Return the path beside which the predictions on a source are saved; `path` is the record's."""
    return path.with_name(f"{path.stem}.{source.name}.json") if dataset.sources else path


def primary_metrics(
    model: PoseModel, dataset: PoseDataset | None, runtime: RuntimeConfig
) -> dict[str, float]:
    """Return a point of the learning curve: the primary metric without flip test, for each source.

    Without a dataset, the result is empty.
    """
    if not dataset:
        return {}
    scores: dict[str, float] = {}
    for source in sources_of(dataset):
        prefix = f"{source.name} " if dataset.sources else ""
        measured = evaluator.evaluate(
            model, source, flip_test=False, device=runtime.device, workers=runtime.workers
        )
        scores |= {prefix + key: value for key, value in measured.items() if is_primary(key)}
    return scores


def is_primary(name: str) -> bool:
    """Return whether a metric, with or without the name of its source, belongs to the learning curve."""
    return name.rpartition(" ")[2] in metrics.PRIMARY_METRICS


def evaluate_run(model: PoseModel, dataset: PoseDataset, runtime: RuntimeConfig, path: Path) -> dict:
    """Return a record's fields for the validation data. Predictions are saved beside `path`.

    For a combined dataset, each source has its own metrics and its own file of predictions.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    evaluations: list[dict] = []
    for source in sources_of(dataset):
        fields, predicted, stats = evaluator.measure(model, source, runtime.device, runtime.workers)
        predictions.save_predictions(predictions_path(path, dataset, source), source, predicted, stats)
        evaluations.append(fields | {"evaluated": source.describe()})
    if not dataset.sources:
        return evaluations[0]

    def by_source(field: str) -> dict[str, float]:
        return {
            f"{one['evaluated']['name']} {name}": value
            for one in evaluations
            for name, value in one[field].items()
        }

    return {
        "protocol": evaluations[0]["protocol"]
        | {"metric": "each source's own", "evaluated_on": dataset.split},
        "evaluated": dataset.describe(),
        "metrics": by_source("metrics"),
        "metrics_without_flip": by_source("metrics_without_flip"),
        "evaluations": evaluations,
    }


def metric_change(dataset: PoseDataset, before: Path, after: Path) -> dict:
    """Return the change of the primary metric between two evaluations, computed from saved predictions.

    before, after: the paths that `evaluate_run` was called with. Value and 95 % interval are fractions. The
    bootstrap draws the same images for both evaluations. For a combined dataset: one entry per source.
    """
    changes = {}
    for source in sources_of(dataset):
        old, new = (
            predictions.load_image_stats(predictions_path(path, dataset, source)) for path in (before, after)
        )
        value, low, high = bootstrap.paired_difference(old, new)
        changes[source.name] = {"value": value, "interval": [low, high], "images": len(old.images)}
    return changes if dataset.sources else changes[dataset.name]
