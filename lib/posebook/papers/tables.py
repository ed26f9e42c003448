"""The papers' published results, each beside the value measured here.

data/published/*.csv has one line for each cell: the value as printed (72.00 stays 72.00), its source, and
what is known about its protocol. `model`, `options` and `recipe` of a line name the posebook model that
measures it. Whether posebook builds that model is looked up in posebook.models.

1. A value measured on one dataset never fills a cell of another. A record fills a cell only if it was
   evaluated on the cell's dataset and split (a subset of COCO has another name), at its input size, with
   profile `paper`, and with weights trained on that dataset; a model trained here must have used the recipe
   of the row, as the record of its training states. Records with the same source of boxes as the printed
   value are preferred, then newer records. Trainings that differ only in the seed are reported as their mean,
   with the sample standard deviation.
2. Records store accuracies as fractions, papers print percent. A measured value is rounded to as many
   decimals as the printed one.
3. Parameters, multiply-adds and the architecture are read from the built model, or from the record of the
   complexity page. The model has the joints of the cell's dataset.
4. A row printed without test-time augmentation takes the result without flip test.
5. Speeds and memory come from benchmark records (posebook.papers.speeds); `device` names the machine.
6. The cost of a lifter is counted at the size of its paper. Its errors are in millimeters in records and
   papers. They come from trainings as in point 1, except that boxes do not matter: the input is 2D joints.
7. posebook.papers.statuses states when a measured value agrees with the printed one.
"""

import functools
import itertools
import statistics
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from posebook import models
from posebook.evaluation import bootstrap, metrics, predictions, seeds
from posebook.lifting.models import LIFTERS
from posebook.models.layers import CoordinateAttention, PoseModel
from posebook.papers import ablations, lifting_tables, speeds, statuses
from posebook.papers.cells import (
    NO_FLIP_TEST,
    SIZE_COLUMNS,
    box_source,
    format_like,
    load_cells,
    parse_size,
    where_measured,
)
from posebook.papers.commands import measuring_command, training_cost
from posebook.papers.matching import config_key, matches, metric_value
from posebook.papers.names import DATASETS, display_name_or_same, display_size
from posebook.papers.size_trace import KEYS, paper_counter, traced_sizes

# The columns that build_table adds to the printed ones.
EMPTY_CELL = dict.fromkeys(
    "measured status reason counter exact fitted measured_boxes device where interval spread "
    "seed_interval other other_boxes record command cost".split(),
    "",
)


def build_table(paper: str, name: str, records: list[dict]) -> pd.DataFrame:
    """One published table beside the measured values, one row for each cell.

    Columns, all text and "" if missing: row, backbone, setting, model, input_size, column, unit, quantity
    (one of statuses.QUANTITIES), published, measured, status (one of statuses.STATUSES), reason (of the
    status), counter (that gives the printed size), exact (parameters or multiply-adds by posebook's own
    count), fitted ("yes" for a size that the model was fitted to), boxes, boxes_basis, measured_boxes, device
    (of a speed), where (device, date and seeds of the measurement), interval (95 %, only for the main metric
    of a single run), spread and seed_interval (over several runs, the latter not rounded), other and
    other_boxes (the result with the other source of boxes), record (its path), command (that measures the
    cell), cost (of the command, estimated from a recorded training), source.
    Raises ValueError for an unknown paper or table.
    """
    cells = load_cells()
    known = cells[["paper", "table"]].drop_duplicates()
    cells = cells[(cells["paper"] == paper) & (cells["table"] == name)]
    if cells.empty:
        raise ValueError(
            f"no table {name!r} of {paper!r}; known: {', '.join(known['paper'] + '/' + known['table'])}"
        )
    sized = cells.loc[cells["column"].isin(SIZE_COLUMNS) & cells["model"].isin(models.names()), "model"]
    sizes = traced_sizes(paper, set(sized), records)
    filled = [EMPTY_CELL | _measure_cell(cell, records, sizes) for cell in cells.to_dict("records")]
    columns = "row backbone setting model input_size column unit value boxes boxes_basis source".split()
    table = cells[columns].rename(columns={"value": "published"}).reset_index(drop=True)
    table["quantity"] = list(map(statuses.quantity, table["column"], table["unit"]))
    return table.join(pd.DataFrame(filled, columns=list(EMPTY_CELL)))


def scorecard(records: list[dict]) -> pd.DataFrame:
    """How many published cells have each status: paper, table, quantity, status, count and fitted.

    fitted: how many of the cells are sizes that the model was fitted to, so that their agreement is no
    evidence. The rows are in the order of statuses.STATUSES within each table and quantity.
    """
    pairs = load_cells()[["paper", "table"]].drop_duplicates().itertuples(index=False)
    built = [build_table(paper, name, records).assign(paper=paper, table=name) for paper, name in pairs]
    cells = pd.concat(built)
    cells = cells.sort_values("status", key=lambda texts: texts.map(statuses.STATUSES.index), kind="stable")
    groups = cells.groupby(["paper", "table", "quantity", "status"], sort=False)["fitted"]
    counts = groups.agg(count="size", fitted=lambda texts: int((texts != "").sum()))
    return counts.reset_index().sort_values(["paper", "table", "quantity"], kind="stable", ignore_index=True)


def architecture(model: PoseModel) -> dict[str, str]:
    """Each component of a StarNet-Pose as built, described in the words of the authors' table."""
    backbone: Any = model.backbone  # torch types every submodule as Tensor | Module
    head: Any = model.head
    convolution, activation = backbone.stem
    kernel, stride = convolution.conv.kernel_size, convolution.conv.stride[0]
    norm = "-BN" if isinstance(convolution.bn, nn.BatchNorm2d) else ""
    components = {"Stem": f"{kernel[0]}×{kernel[1]} Conv{norm}-{type(activation).__name__}, stride {stride}"}
    for number, (down, *blocks) in enumerate(backbone.stages, 1):
        gated = [isinstance(block.ca, CoordinateAttention) for block in blocks]
        attention = "CA enabled" if all(gated) else "CA in some blocks" if any(gated) else "no CA"
        components[f"Stage {number}"] = f"{down.conv.out_channels} ch, depth {len(blocks)}, {attention}"
    with torch.no_grad():
        output = model.eval()(torch.zeros(1, 3, *model.input_size))
    in_channels = head.final_layer.in_channels
    components["Head"] = f"{type(head).__name__} ({type(output).__name__}), in-ch {in_channels}"
    return components


@functools.cache
def _built_architecture(name: str, size: tuple[int, int]) -> dict[str, str]:
    return architecture(models.build(name, input_size=size))


def _measure_cell(cell: dict, records: list[dict], sizes: dict[tuple[str, ...], dict]) -> dict[str, str]:
    """The columns that build_table adds for one cell; columns left out are empty. sizes: of traced_sizes."""
    if cell["model"] in LIFTERS:
        return _lifter_cell(cell, records)
    if speeds.quantity(cell):
        return speeds.measure_cell(cell, records)
    if cell["model"] not in models.names():
        return {"status": statuses.PUBLISHED, "reason": "posebook does not build this model"}
    size = parse_size(cell["input_size"])
    if cell["unit"] == "text":
        built = _built_architecture(cell["model"], size)[cell["row"]]
        status = statuses.AGREES if built == cell["value"] else statuses.DIFFERS
        return {"measured": built, "status": status, "where": "read from the built model"}
    if cell["column"] in SIZE_COLUMNS:
        return _size_cell(cell, sizes[tuple(cell[key] for key in KEYS)])
    return _accuracy_cell(cell, size, records)


def _size_cell(cell: dict, line: dict) -> dict[str, str]:
    """`_measure_cell` for parameters or GFLOPs. line: of size_table."""
    printed, (counter, value, exact) = cell["value"], paper_counter(line, cell["column"])
    fitted = {"fitted": "yes"} if cell["model"] in statuses.FITTED else {}
    # a truncated value needs its further digits
    text = f"{value:.4f}" if counter.endswith("truncated") else format_like(value, printed)
    more = {"counter": counter, "exact": f"{exact:.4f}", "where": SIZE_COLUMNS[cell["column"]]}
    return {"measured": text} | statuses.size_status(printed, value, counter) | more | fitted


def _lifter_cell(cell: dict, records: list[dict]) -> dict[str, str]:
    """`_measure_cell` for a lifter (point 6)."""
    printed = cell["value"]
    if (cost := lifting_tables.counted_cost(cell)) is not None:
        value, exact = cost
        text = format_like(value, printed)
        counter = "linear layers" if text == printed else ""
        more = {"counter": counter, "exact": format_like(exact, printed)}
        more["where"] = lifting_tables.COSTS[cell["column"]]
        return {"measured": text} | statuses.size_status(printed, value, counter) | more
    runs = lifting_tables.matching_runs(cell, records)
    if not runs:
        return {"status": statuses.NOT_RUN, "command": lifting_tables.training_command(cell)}
    values = [run["metrics"][cell["column"]] for run in runs.values()]
    newest = max(runs.values(), key=lambda run: run["started"])
    where = f"{where_measured(newest)}, with flip test, {_seeds(runs)}, weights: scratch"
    mean = statistics.mean(values)
    more = {"where": where, "record": newest.get("path", "")} | _spread(values, printed)
    return {"measured": format_like(mean, printed)} | statuses.accuracy_status(printed, mean) | more


def _seeds(runs: Iterable[int]) -> str:
    """'seed 0', or 'seeds 0, 1, 2'."""
    seeds = sorted(runs)
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _spread(values: Collection[float], printed: str) -> dict[str, str]:
    """The columns `spread` and `seed_interval` for the results of several runs; nothing for a single run."""
    if len(values) < 2:
        return {}
    mean, deviation, count = statistics.mean(values), statistics.stdev(values), len(values)
    half = seeds.half_width(deviation / count**0.5, count - 1)
    return {
        "spread": f"± {format_like(deviation, printed)}, {count} runs",
        "seed_interval": f"{mean - half} to {mean + half}",
    }


def _weights_hash(record: dict) -> str | None:
    return record.get("weights", {}).get("sha256")


def _accuracy_cell(cell: dict, size: tuple[int, int], records: list[dict]) -> dict[str, str]:
    """`_measure_cell` for an accuracy (points 1, 2 and 4). Learning curves are measured without flip test."""
    no_flip_test, of_curve = NO_FLIP_TEST in cell["setting"], cell["column"].startswith("Best AP")
    matching = [record for record in records if matches(cell, size, record)]
    trained = {_weights_hash(record) for record in matching if record["kind"] == "train"}
    results = [
        (record, value)
        for record in matching
        # The recipe of weights that posebook trained is known from the record of their training.
        if not record.get("weights", {}).get("trained_here") or _weights_hash(record) in trained
        if (value := metric_value(cell["column"], record, no_flip_test)) is not None
    ]
    if not results:
        command = measuring_command(cell)
        missing = {"status": statuses.NOT_RUN if command else statuses.PUBLISHED, "command": command}
        return missing | {"cost": training_cost(cell, records)}

    def source(record: dict) -> str:
        return box_source(record["protocol"]["boxes"])

    def priority(result: tuple[dict, float]) -> tuple[bool, str]:
        return source(result[0]) == box_source(cell["boxes"]), result[0].get("started", "")

    results.sort(key=priority)
    record, value = max(results, key=priority)  # the first of several with the same priority
    others = [result for result in results if source(result[0]) != source(record)]
    same_config = [result for result in results if config_key(result[0]) == config_key(record)]
    values = {run["seed"]: result for run, result in same_config}  # the newest run of each seed
    flip_test = record["protocol"]["flip_test"] and not no_flip_test and not of_curve
    flip = "with" if flip_test else "without"
    weights = record.get("weights", {}).get("initialization", "unknown")
    where = f"{where_measured(record)}, {flip} flip test, {_seeds(values)}, weights: {weights}"
    more = {"measured_boxes": record["protocol"]["boxes"], "record": record.get("path", ""), "where": where}
    if len(values) > 1:
        value = statistics.mean(values.values())
        more |= _spread(values.values(), cell["value"])
    elif cell["column"] == next(iter(record["metrics"])) and "interval" in record and not no_flip_test:
        more["interval"] = " to ".join(format_like(100 * end, cell["value"]) for end in record["interval"])
    if others:
        other, other_value = max(others, key=priority)
        more |= {"other": format_like(other_value, cell["value"]), "other_boxes": other["protocol"]["boxes"]}
    conventions = [] if flip_test or no_flip_test else ["without flip test"]
    if source(record) != box_source(cell["boxes"]):
        conventions.insert(0, _boxes_note(more["measured_boxes"], cell["boxes"]))
    second = (more["other"], _boxes_note(more["other_boxes"], cell["boxes"])) if others else ("", "")
    status = statuses.accuracy_status(cell["value"], value, conventions, *second)
    return {"measured": format_like(value, cell["value"])} | status | more


def _boxes_note(measured: str, printed: str) -> str:
    """The boxes of a measurement that are not those of the printed value."""
    note = " (not stated in the paper)" if printed.startswith("not stated") else ""
    return f"boxes: {measured.partition(':')[0]}{note}"


def paired_differences(table: pd.DataFrame) -> pd.DataFrame:
    """The difference between every two measured rows of a `build_table`, paired by image, with 95 % interval.

    Columns: row, less, column, difference, low, high, in points (row minus less). The differences come from
    the archived predictions, which are those with flip test and, for a row of several runs, those of the
    newest run. Rows are skipped if their predictions are not archived or were made on other images. The
    interval tells whether a difference is due to the models or to the choice of images in the split.
    """
    rows = table[(table["record"] != "") & table["column"].isin(metrics.PRIMARY_METRICS)]
    # One record can fill a row with augmentation and one without. The former is kept: it has the flip test.
    no_flip_test = rows["setting"].str.contains(NO_FLIP_TEST)
    rows = pd.concat([rows[~no_flip_test], rows[no_flip_test]]).drop_duplicates("record")
    lines = []
    for (_, first), (_, second) in itertools.combinations(rows.iterrows(), 2):
        try:
            subtrahend = predictions.load_image_stats(Path(second["record"]))
            minuend = predictions.load_image_stats(Path(first["record"]))
            points = [100 * value for value in bootstrap.paired_difference(subtrahend, minuend)]
        except (FileNotFoundError, ValueError):
            continue
        lines.append([first["row"], second["row"], first["column"], *points])
    return pd.DataFrame(lines, columns=["row", "less", "column", "difference", "low", "high"])


def occlusion_sweep(records: list[dict]) -> pd.DataFrame:
    """The runs of the grid's occlusion_sweep, for which no results are published, one row each.

    Columns: run, first and last (probability of CoarseDropout in the two stages), AP in percent (text, "" if
    not measured), interval, spread, where, command.
    """
    lines = []
    for run in ablations.rows().values():
        if run.table == "occlusion_sweep":
            first, last = (run.changes[stage]["dropout"] for stage in ("stage1", "stage2"))
            cell = {"paper": run.paper, "table": run.table, "row": run.row, "column": "AP", "setting": ""}
            cell |= {"model": run.model, "dataset": run.dataset, "split": "val2017", "input_size": "256x192"}
            cell |= {"options": ";".join(f"{name}={value}" for name, value in run.options.items())}
            cell |= {"recipe": f"stage1.dropout={first};stage2.dropout={last}", "boxes": "ground truth"}
            cell["value"] = "0.00"  # nothing is printed: the number of decimals
            cell["pretrained"] = run.backbone
            filled = EMPTY_CELL | _accuracy_cell(cell, parse_size(cell["input_size"]), records)
            command = "" if filled["measured"] else f"make grid PROFILE=paper ROWS={run.id}"
            texts = [filled[name] for name in ("measured", "interval", "spread", "where")]
            lines.append([run.id, first, last, *texts, command])
    columns = ["run", "first", "last", "AP", "interval", "spread", "where", "command"]
    return pd.DataFrame(lines, columns=columns)


def all_accuracies(records: list[dict]) -> pd.DataFrame:
    """Every recorded accuracy, on any data, one row each: what was run, on what, and the result."""
    lines = []
    for record in records:
        if record["kind"] not in ("train", "evaluate") or "not_evaluated" in record:
            continue
        data, protocol = record.get("evaluated", record["dataset"]), record["protocol"]
        metric = next(iter(record["metrics"]))  # the main metric of a dataset comes first
        counted = "people" if box_source(protocol["boxes"]) == "ground" else "boxes"
        runtime, weights = record["parameters"].get("runtime"), record.get("weights", {})
        start = weights.get("initialization", "").partition(" sha256 ")[0].removesuffix(".safetensors")
        file = weights.get("file", "")  # weights.safetensors is the name in each folder of a run
        file = record["name"] if file == "weights.safetensors" else file
        source = f"{record['name']}, from {start}" if start else file
        name = DATASETS.get(data["name"], data["name"])
        if protocol["flip_test"]:
            flipped, unflipped = record["metrics"], record.get("metrics_without_flip", {})
        else:
            flipped, unflipped = {}, record["metrics"]
        lines.append(
            {
                "model": display_name_or_same(record["model"]),
                "weights": source.removesuffix(".safetensors") + (f", {runtime}" if runtime else ""),
                "measured on": f"{name} {data['split']}, {data['persons']:,} {counted}",
                "boxes": protocol["boxes"].partition(":")[0],
                "input": display_size(protocol["input_size"]),
                "metric": metric,
                "with flip test": flipped.get(metric),
                "without": unflipped.get(metric),
                "95 % interval": " to ".join(f"{end:.3f}" for end in record.get("interval") or ()),
                "profile": record["profile"],
                "seed": record["seed"],
            }
        )
    return pd.DataFrame(lines)
