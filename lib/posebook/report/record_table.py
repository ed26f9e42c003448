"""All recorded runs in one table."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML

from posebook.papers.cells import box_source
from posebook.papers.names import DATASETS, PAPERS, display_name_or_same

KINDS = {
    "train": "training",
    "evaluate": "evaluation",
    "lift": "training of a lifter",
    "starpose": "training of StarPose",
    "several": "training on two datasets",
    "throughput": "training speed",
    "predict": "prediction speed",
    "gpu-check": "check of a GPU",
}  # other kinds are words already
NOT_RUNS = ("audit", "dataset", "lessons")  # records of pages that count something, without a model
SIZES = {"persons": "people", "clips": "clips"}  # field of a dataset's description -> unit
MILLIMETERS = ("MPJPE", "P-MPJPE")


def record_rows(records: Sequence[dict]) -> pd.DataFrame:
    """One row per record of a run, the newest first, all columns as text.

    The metric is the first number of a record; a record with several groups of results has their count
    instead. The interval is over images. setup: what distinguishes runs of one model, see `_setup`. data: the
    dataset of the result, with its split and size.
    """
    rows = []
    runs = [record for record in records if record["kind"] not in NOT_RUNS]
    for record in sorted(runs, key=lambda record: record.get("started", ""), reverse=True):
        metric, value = _main_result(record["metrics"])
        interval, name = record.get("interval"), record.get("model") or ""
        started = datetime.fromisoformat(record["started"]) if record.get("started") else None
        rows.append(
            {
                "run": KINDS.get(record["kind"], record["kind"]),
                "model": PAPERS.get(name) or ", ".join(map(display_name_or_same, name.split(","))),
                "setup": _setup(record),
                "data": _data(record),
                "metric": metric,
                "value": value,
                "95 % interval": "{:.3f} to {:.3f}".format(*interval) if interval else "",
                "seed": "" if record.get("seed") is None else str(record["seed"]),
                "date": started.strftime("%Y-%m-%d") if started else "",
                "commit": ((record.get("code") or {}).get("commit") or "")[:7],
                "from": "archive" if record.get("kept") else "this machine",
            }
        )
    return pd.DataFrame(rows)


def _main_result(metrics: Any) -> tuple[str, str]:
    """Name and value of the first number among the metrics; otherwise the number of results, if any."""
    numbers = (
        [] if isinstance(metrics, list) else [v for v in metrics.items() if isinstance(v[1], int | float)]
    )
    if not numbers:
        return f"{len(metrics)} results" if metrics else "not evaluated", "–"
    name, value = numbers[0]
    if name.split()[0] in MILLIMETERS:
        return f"{name}, mm", f"{value:.1f}"
    return name.replace("_", " "), str(value) if isinstance(value, int) else f"{value:.3f}"


def _has_detected_boxes(record: dict) -> bool:
    return box_source((record.get("protocol") or {}).get("boxes") or "") == "detector"


def _setup(record: dict) -> str:
    """Weights or the run that used them, input size, a named runtime, and boxes that are not annotated."""
    weights = Path((record.get("weights") or {}).get("file") or "")
    name = weights.stem
    if name == "weights":
        name = weights.parent.name.rpartition("-")[0] or record["name"]  # a run's folder ends with a hash
    size = "×".join(map(str, (record.get("protocol") or {}).get("input_size") or []))
    runtime = (record.get("parameters") or {}).get("runtime") or ""
    boxes = "detector's boxes" if _has_detected_boxes(record) else ""
    return ", ".join(filter(None, [name, size, runtime, boxes]))


def _data(record: dict) -> str:
    """Name, split and size of the dataset of a record's result; of several datasets, names and size."""
    dataset = record.get("evaluated") or record.get("dataset")
    if not dataset:
        return ""
    sizes = SIZES | ({"persons": "detected boxes"} if _has_detected_boxes(record) else {})
    counted = next((f"{dataset[unit]:,} {word}" for unit, word in sizes.items() if unit in dataset), "")
    names = [DATASETS.get(name, name) for name in dataset["name"].split("+")]
    data = " + ".join(names) if len(names) > 1 else f"{names[0]} {dataset['split']}"
    return ", ".join(filter(None, [data, counted]))


def record_table(records: Sequence[dict]) -> HTML:
    """`record_rows` as a table that a page lets its reader filter and sort."""
    table = record_rows(records).style.hide(axis="index").to_html()
    return HTML(f'<div class="filter">{table}</div>')
