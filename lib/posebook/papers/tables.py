"""The papers' own numbers, and beside each of them what was measured here.

data/published/*.csv holds one line a cell, the value as printed (72.00 stays 72.00), with its source and
what is known of its protocol. A line's `model`, `options` and `recipe` say which posebook model would be
measured for it; whether posebook builds that model is asked of posebook.models.

1. A figure measured on one dataset never stands in a cell of another. A cell takes records of its very
   dataset and split (a part of COCO has another name), at its input size, of profile `paper`, from weights
   trained on that dataset, and if trained here by the very recipe of the row; of those, one with the boxes
   of the printed figure before one with other boxes, then the newest. Trainings that differ in nothing but
   the seed are one figure, their mean, with their standard deviation (of a sample).
2. Records hold accuracies as fractions; papers print percent. A measured figure is rounded to as many digits
   as the printed one.
3. Parameters, multiply-adds and the architecture are read from the model, built on the spot or for the page
   that counts them all; for a dataset of other joints the model has those.
4. A row printed without test-time augmentation takes a record's figure without flip test.
5. Latency is the median of the newest benchmark, on whatever machine that ran; `where` names it.
6. A lifter's cost is counted at its paper's size; its errors, millimeters in records and papers alike, come
   from trainings as in point 1, in whatever boxes: it sees joints.
"""

import functools
import itertools
import statistics
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from posebook import models
from posebook.evaluation import bootstrap, metrics, predictions
from posebook.lifting.models import LIFTERS
from posebook.models.layers import CoordinateAttention
from posebook.papers import ablations, lifting_tables
from posebook.papers.cells import (
    FOLDER,
    NO_FLIP_TEST,
    SIZE_COLUMNS,
    SPEED_COLUMNS,
    box_source,
    format_like,
    load_cells,
    parse_size,
    where_measured,
)
from posebook.papers.commands import BENCHMARK_COMMAND, measuring_command, training_cost
from posebook.papers.matching import config_key, matches, metric_value
from posebook.papers.size_trace import count

STATUSES = ("measured here", "not measured", "published")
EMPTY_CELL = dict.fromkeys(
    "measured status measured_boxes where interval spread other other_boxes record command cost".split(), ""
)  # what a cell says beside the printed figure


def build_table(paper: str, name: str, records: list[dict]) -> pd.DataFrame:
    """One published table, a line a cell, beside what was measured.

    Columns: row, backbone, setting, column, unit, published, measured (text or ""), status (one of STATUSES),
    boxes, boxes_basis, measured_boxes, where (device, date, seeds of the measurement), interval (95 %, of the
    main figure of one run), spread (of several), other and other_boxes (the figure in the other kind of
    boxes), record (its path), command, cost (of it, from the rate of a training on record), source.
    Raises ValueError for a paper or a table that is not there.
    """
    cells = load_cells()
    known = cells[["paper", "table"]].drop_duplicates()
    cells = cells[(cells["paper"] == paper) & (cells["table"] == name)]
    if cells.empty:
        raise ValueError(
            f"no table {name!r} of {paper!r}; there are {', '.join(known['paper'] + '/' + known['table'])}"
        )
    filled = [EMPTY_CELL | _measure_cell(cell, records) for cell in cells.to_dict("records")]
    kept = ["row", "backbone", "setting", "column", "unit", "value", "boxes", "boxes_basis", "source"]
    measured = pd.DataFrame(filled, columns=list(EMPTY_CELL))
    return cells[kept].rename(columns={"value": "published"}).reset_index(drop=True).join(measured)


def scorecard(records: list[dict]) -> pd.DataFrame:
    """How many published cells are measured: paper, table, cells and a count a status, a line a table."""
    lines = []
    for paper, name in load_cells()[["paper", "table"]].drop_duplicates().itertuples(index=False):
        status = build_table(paper, name, records)["status"]
        counts = {"published only" if s == "published" else s: int((status == s).sum()) for s in STATUSES}
        lines.append({"paper": paper, "table": name, "cells": len(status)} | counts)
    return pd.DataFrame(lines)


def architecture(model: nn.Module) -> dict[str, str]:
    """Component -> what the live modules hold, in the words of the StarNet-Pose document's table."""
    convolution, activation = model.backbone.stem
    kernel, stride = convolution.conv.kernel_size, convolution.conv.stride[0]
    norm = "-BN" if isinstance(convolution.bn, nn.BatchNorm2d) else ""
    parts = {"Stem": f"{kernel[0]}×{kernel[1]} Conv{norm}-{type(activation).__name__}, stride {stride}"}
    for number, (down, *blocks) in enumerate(model.backbone.stages, 1):
        gated = [isinstance(block.ca, CoordinateAttention) for block in blocks]
        attention = "CA enabled" if all(gated) else "CA in some blocks" if any(gated) else "no CA"
        parts[f"Stage {number}"] = f"{down.conv.out_channels} ch, depth {len(blocks)}, {attention}"
    head = model.head
    with torch.no_grad():
        coding = type(model.eval()(torch.zeros(1, 3, *model.input_size))).__name__
    parts["Head"] = f"{type(head).__name__} ({coding}), in-ch {head.final_layer.in_channels}"
    return parts


def _measured(measured: str, where: str, **more: str) -> dict[str, str]:
    return {"measured": measured, "status": "measured here", "where": where} | more


def _measure_cell(cell: dict, records: list[dict]) -> dict[str, str]:
    """What `table` says of one cell beside the printed figure; EMPTY holds what is left out."""
    if cell["model"] in LIFTERS:
        return _lifter_cell(cell, records)
    if cell["model"] not in models.names():
        return {"status": "published"}
    size = parse_size(cell["input_size"])
    if cell["unit"] == "text":
        return _measured(_architecture(cell["model"], size)[cell["row"]], "read from the built model")
    if cell["column"] in SIZE_COLUMNS:
        counted = count(cell, records)
        value = counted["params"] / 1e6 if cell["column"] == "Params (M)" else counted["macs"]["exact"] / 1e9
        return _measured(format_like(value, cell["value"]), SIZE_COLUMNS[cell["column"]])
    if cell["column"] in SPEED_COLUMNS:
        return _speed_cell(cell, size, records)
    return _accuracy_cell(cell, size, records)


def _lifter_cell(cell: dict, records: list[dict]) -> dict[str, str]:
    """The same of a lifter's cell: point 6 of the file's docstring."""
    if (cost := lifting_tables.counted_cost(cell)) is not None:
        return _measured(format_like(cost, cell["value"]), lifting_tables.COSTS[cell["column"]])
    runs = lifting_tables.matching_runs(cell, records)
    if not runs:
        return {"status": "not measured", "command": lifting_tables.training_command(cell)}
    figures, newest = [run["metrics"][cell["column"]] for run in runs.values()], [*runs.values()][-1]
    where = f"{where_measured(newest)}, with flip test, {_seeds(runs)}, weights: scratch"
    more = {"record": newest.get("path", "")}
    if len(runs) > 1:
        more["spread"] = f"± {format_like(statistics.stdev(figures), cell['value'])}, {len(runs)} runs"
    return _measured(format_like(statistics.mean(figures), cell["value"]), where, **more)


def _seeds(runs: dict[int, object]) -> str:
    """'seed 0', or 'seeds 0, 1, 2', of runs by their seeds."""
    return f"seed{'s' * (len(runs) > 1)} {', '.join(map(str, sorted(runs)))}"


def _speed_cell(cell: dict, size: tuple[int, int], records: list[dict]) -> dict[str, str]:
    runs = [
        (record, run)
        for record in records
        if record["kind"] == "benchmark"
        for run in record["metrics"]
        if run["model"] == cell["model"] and tuple(run["input_size"]) == size and run["batch"] == 1
        if run["form"] == "eager fp32" and "latency_ms" in run
    ]
    if not runs:
        return {"status": "not measured", "command": BENCHMARK_COMMAND}
    record, run = max(runs, key=lambda pair: (pair[0].get("started", ""), pair[1]["threads"]))
    latency = run["latency_ms"]
    value = latency["median"] if cell["column"] == "Latency (ms)" else 1000 / latency["median"]
    spread = f"median, 10th to 90th percentile {latency['p10']:.2f} to {latency['p90']:.2f} ms"
    where = f"{cell['model']} on {where_measured(record)}: {run['form']}, {run['threads']} threads, {spread}"
    return _measured(format_like(value, cell["value"]), where)


def _accuracy_cell(cell: dict, size: tuple[int, int], records: list[dict]) -> dict[str, str]:
    found = [record for record in records if matches(cell, size, record)]
    plain = NO_FLIP_TEST in cell["setting"]
    found = [(r, value) for r in found if (value := metric_value(cell["column"], r, plain)) is not None]
    if not found:
        command = measuring_command(cell)
        status = "not measured" if command else "published"
        return {"status": status, "command": command, "cost": training_cost(cell, records)}

    def rank(pair: tuple[dict, float]) -> tuple[bool, str]:
        return box_source(pair[0]["protocol"]["boxes"]) == box_source(cell["boxes"]), pair[0].get(
            "started", ""
        )

    record, value = max(found, key=rank)
    boxes = record["protocol"]["boxes"]
    others = [pair for pair in found if box_source(pair[0]["protocol"]["boxes"]) != box_source(boxes)]
    flip = "with" if record["protocol"]["flip_test"] and not plain else "without"
    weights = record.get("weights", {}).get("initialization", "not said")
    alike = [pair for pair in sorted(found, key=rank) if config_key(pair[0]) == config_key(record)]
    runs = {r["seed"]: figure for r, figure in alike}  # of each seed the newest
    where = f"{where_measured(record)}, {flip} flip test, {_seeds(runs)}, weights: {weights}"
    more = {"measured_boxes": boxes, "record": record.get("path", "")}
    if len(runs) > 1:
        value = statistics.mean(runs.values())
        more["spread"] = f"± {format_like(statistics.stdev(runs.values()), cell['value'])}, {len(runs)} runs"
    elif cell["column"] == next(iter(record["metrics"])) and "interval" in record and not plain:
        more["interval"] = " to ".join(format_like(100 * end, cell["value"]) for end in record["interval"])
    if others:
        other, figure = max(others, key=rank)
        more |= {"other": format_like(figure, cell["value"]), "other_boxes": other["protocol"]["boxes"]}
    return _measured(format_like(value, cell["value"]), where, **more)


@functools.cache
def _architecture(name: str, size: tuple[int, int]) -> dict[str, str]:
    """Architecture of a model of the zoo."""
    return architecture(models.build(name, input_size=size))


def paired_differences(table: pd.DataFrame) -> pd.DataFrame:
    """Every two measured rows of a `table`, paired image by image: the difference and its 95 % interval.

    Columns: row, less, column, difference, low, high, in points, by the predictions that are kept: those with
    flip test, and of a row of several runs the newest run's. Rows whose predictions are not kept, or were
    made on other images, are not paired. The interval tells whether the difference is one of the nets or of
    the images that happen to be in the split.
    """
    kept = table[(table["record"] != "") & table["column"].isin(metrics.PRIMARY_METRICS)]
    plain = kept["setting"].str.contains(
        NO_FLIP_TEST
    )  # the same record stands in a row with augmentation too
    kept = pd.concat([kept[~plain], kept[plain]]).drop_duplicates("record")
    lines = []
    for (_, a), (_, b) in itertools.combinations(kept.iterrows(), 2):
        try:
            units = [predictions.load_image_stats(Path(cell["record"])) for cell in (b, a)]
            points = [100 * value for value in bootstrap.paired_difference(*units)]
        except (FileNotFoundError, ValueError):
            continue
        lines.append([a["row"], b["row"], a["column"], *points])
    return pd.DataFrame(lines, columns=["row", "less", "column", "difference", "low", "high"])


def published_speeds(folder: str | Path = FOLDER) -> pd.DataFrame:
    """The papers' own speeds: paper, row, model, input_size, device, fps, Params (M), GFLOPs and AP.

    A device is named as its column is; the StarNet-Pose document has one. Where a row stands for a flip test,
    which takes two forwards, `forwards` is 2. What a document does not give of a row is empty.
    """
    cells, rows = load_cells(folder), []
    timed = cells[(cells["table"] == "speed") & cells["column"].str.startswith("FPS")]
    for cell in timed.to_dict("records"):
        names = cell["row"], f"{cell['paper']}, {cell['row']}"
        same = cells[(cells["paper"] == cell["paper"]) & cells["row"].isin(names)]
        about = {
            column: float(values.iloc[0])
            for column in ("Params (M)", "GFLOPs", "AP")
            if len(values := same[same["column"] == column]["value"])
        }
        known = same[same["model"] != ""]
        of = (
            dict(zip(("model", "input_size"), known[["model", "input_size"]].iloc[0], strict=True))
            if len(known)
            else {}
        )
        twice = same["setting"].str.contains("test-time augmentation: yes").any()
        rows.append(
            {"paper": cell["paper"], "row": cell["row"], "model": "", "input_size": cell["input_size"]}
            | of
            | {"device": cell["column"].partition(", ")[2] or "RTX 5090", "fps": float(cell["value"])}
            | {"forwards": 1 + int(twice)}
            | about
        )
    return pd.DataFrame(rows)


def occlusion_sweep(records: list[dict]) -> pd.DataFrame:
    """The runs of the grid's occlusion_sweep, a line each; no figures of it are published.

    Columns: run, first and last (probability of CoarseDropout in the two stages), AP in percent (text, ""
    where not measured), interval, spread, where, command.
    """
    lines = []
    for run in ablations.rows().values():
        if run.table == "occlusion_sweep":
            first, last = (run.changes[stage]["dropout"] for stage in ("stage1", "stage2"))
            cell = dict(model=run.model, dataset=run.dataset, split="val2017", input_size="256x192")
            cell |= dict(paper=run.paper, table=run.table, row=run.row, boxes="ground truth", setting="")
            cell |= dict(options=";".join(f"{name}={value}" for name, value in run.options.items()))
            cell |= dict(recipe=f"stage1.dropout={first};stage2.dropout={last}", column="AP", value="0.00")
            found = EMPTY_CELL | _accuracy_cell(cell, parse_size(cell["input_size"]), records)
            command = "" if found["measured"] else f"make grid PROFILE=paper ROWS={run.id}"
            figures = [found[name] for name in ("measured", "interval", "spread", "where")]
            lines.append([run.id, first, last, *figures, command])
    columns = ["run", "first", "last", "AP", "interval", "spread", "where", "command"]
    return pd.DataFrame(lines, columns=columns)


def all_accuracies(records: list[dict]) -> pd.DataFrame:
    """Every accuracy on record, whatever the data, a line each: what was run, on what, and the figure."""
    lines = []
    for record in records:
        if record["kind"] not in ("train", "evaluate") or "not_evaluated" in record:
            continue
        data, protocol = record.get("evaluated", record["dataset"]), record["protocol"]
        metric = next(iter(record["metrics"]))  # a dataset's main figure comes first
        plain = record.get("metrics_without_flip", {}) if protocol["flip_test"] else record["metrics"]
        flipped = record["metrics"] if protocol["flip_test"] else {}
        lines.append(
            {
                "record": record["name"],
                "model": record["model"],
                "measured on": f"{data['name']} {data['split']}, {data['persons']:,} people",
                "boxes": protocol["boxes"],
                "input": "×".join(map(str, protocol["input_size"])),
                "metric": metric,
                "with flip test": flipped.get(metric),
                "without": plain.get(metric),
                "profile": record["profile"],
                "seed": record["seed"],
                "where": where_measured(record),
            }
        )
    return pd.DataFrame(lines)
