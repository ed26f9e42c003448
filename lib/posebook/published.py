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
6. A lifter's cost is counted at its paper's size; its errors, millimetres in records and papers alike, come
   from trainings as in point 1, in whatever boxes: it sees joints.
"""

import functools
import inspect
import itertools
import json
import statistics
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from posebook import complexity, datasets, evaluation, grid, metrics, models, recipes, skeletons, uncertainty
from posebook.lifting import papers
from posebook.lifting.models import ZOO as LIFTERS
from posebook.models.layers import CoordinateAttention
from posebook.recipes import Recipe

FOLDER = Path(__file__).resolve().parents[2] / "data" / "published"
STATUSES = ("measured here", "not measured", "published")
SIZE = {
    "Params (M)": "parameters of the built model",
    "GFLOPs": "multiply-adds of convolutions, linear layers and matrix products, norms and pooling left out",
}
SPEED = ("Latency (ms)", "FPS")
EMPTY = dict.fromkeys(
    "measured status measured_boxes where interval spread other other_boxes record command cost".split(), ""
)  # what a cell says beside the printed figure
PLAIN = "test-time augmentation: no"  # in the setting of a row
COCO_BOXES = "data/coco/person_detection_results/COCO_val2017_detections_AP_H_56_person.json"
# Who are trained on; COCO: with a labelled joint, no crowds. Of COCO-mini and of CrowdPose's trainval as many
# a picture as in the whole of COCO (118,287 pictures) and in CrowdPose's val (7,074 people in 2,000).
PEOPLE = {"coco": 149813, "mpii": 22246}
PEOPLE |= {"coco-mini": 149813 * 5000 // 118287, "crowdpose": 7074 * 12000 // 2000}
NO_PUBLIC_WEIGHTS = ("lap",)
_BENCHMARK = "papermill notebooks/benchmark.ipynb reports/executed/benchmark.ipynb -p model all"


def load(folder: str | Path = FOLDER) -> pd.DataFrame:
    """Every published cell as text, one line each, over all papers of the folder."""
    sheets = [
        pd.read_csv(path, dtype=str, keep_default_na=False) for path in sorted(Path(folder).glob("*.csv"))
    ]
    if not sheets:
        raise FileNotFoundError(f"no published numbers in {folder}: it holds one CSV file a paper")
    return pd.concat(sheets, ignore_index=True)


def table(paper: str, name: str, records: list[dict]) -> pd.DataFrame:
    """One published table, a line a cell, beside what was measured.

    Columns: row, backbone, setting, column, unit, published, measured (text or ""), status (one of STATUSES),
    boxes, boxes_basis, measured_boxes, where (device, date, seeds of the measurement), interval (95 %, of the
    main figure of one run), spread (of several), other and other_boxes (the figure in the other kind of
    boxes), record (its path), command, cost (of it, from the rate of a training on record), source.
    Raises ValueError for a paper or a table that is not there.
    """
    cells = load()
    known = cells[["paper", "table"]].drop_duplicates()
    cells = cells[(cells["paper"] == paper) & (cells["table"] == name)]
    if cells.empty:
        raise ValueError(
            f"no table {name!r} of {paper!r}; there are {', '.join(known['paper'] + '/' + known['table'])}"
        )
    filled = [EMPTY | _fill(cell, records) for cell in cells.to_dict("records")]
    kept = ["row", "backbone", "setting", "column", "unit", "value", "boxes", "boxes_basis", "source"]
    measured = pd.DataFrame(filled, columns=list(EMPTY))
    return cells[kept].rename(columns={"value": "published"}).reset_index(drop=True).join(measured)


def scorecard(records: list[dict]) -> pd.DataFrame:
    """How many published cells are measured: paper, table, cells and a count a status, a line a table."""
    lines = []
    for paper, name in load()[["paper", "table"]].drop_duplicates().itertuples(index=False):
        status = table(paper, name, records)["status"]
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


def _here(measured: str, where: str, **more: str) -> dict[str, str]:
    return {"measured": measured, "status": "measured here", "where": where} | more


def _fill(cell: dict, records: list[dict]) -> dict[str, str]:
    """What `table` says of one cell beside the printed figure; EMPTY holds what is left out."""
    if cell["model"] in LIFTERS:
        return _lifted(cell, records)
    if cell["model"] not in models.names():
        return {"status": "published"}
    size = _size(cell["input_size"])
    if cell["unit"] == "text":
        return _here(_parts(cell["model"], size)[cell["row"]], "read from the built model")
    if cell["column"] in SIZE:
        counted = count(cell, records)
        value = counted["params"] / 1e6 if cell["column"] == "Params (M)" else counted["macs"]["exact"] / 1e9
        return _here(_like(value, cell["value"]), SIZE[cell["column"]])
    if cell["column"] in SPEED:
        return _speed(cell, size, records)
    return _accuracy(cell, size, records)


def _lifted(cell: dict, records: list[dict]) -> dict[str, str]:
    """The same of a lifter's cell: point 6 of the file's docstring."""
    if (cost := papers.cost(cell)) is not None:
        return _here(_like(cost, cell["value"]), papers.COSTS[cell["column"]])
    runs = papers.runs(cell, records)
    if not runs:
        return {"status": "not measured", "command": papers.command(cell)}
    figures, newest = [run["metrics"][cell["column"]] for run in runs.values()], [*runs.values()][-1]
    where = f"{where_measured(newest)}, with flip test, {_seeds(runs)}, weights: scratch"
    more = {"record": newest.get("path", "")}
    if len(runs) > 1:
        more["spread"] = f"± {_like(statistics.stdev(figures), cell['value'])}, {len(runs)} runs"
    return _here(_like(statistics.mean(figures), cell["value"]), where, **more)


def _seeds(runs: dict[int, object]) -> str:
    """'seed 0', or 'seeds 0, 1, 2', of runs by their seeds."""
    return f"seed{'s' * (len(runs) > 1)} {', '.join(map(str, sorted(runs)))}"


def _speed(cell: dict, size: tuple[int, int], records: list[dict]) -> dict[str, str]:
    runs = [
        (record, run)
        for record in records
        if record["kind"] == "benchmark"
        for run in record["metrics"]
        if run["model"] == cell["model"] and tuple(run["input_size"]) == size and run["batch"] == 1
        if run["form"] == "eager fp32" and "latency_ms" in run
    ]
    if not runs:
        return {"status": "not measured", "command": _BENCHMARK}
    record, run = max(runs, key=lambda pair: (pair[0].get("started", ""), pair[1]["threads"]))
    latency = run["latency_ms"]
    value = latency["median"] if cell["column"] == "Latency (ms)" else 1000 / latency["median"]
    spread = f"median, 10th to 90th percentile {latency['p10']:.2f} to {latency['p90']:.2f} ms"
    where = f"{cell['model']} on {where_measured(record)}: {run['form']}, {run['threads']} threads, {spread}"
    return _here(_like(value, cell["value"]), where)


def _accuracy(cell: dict, size: tuple[int, int], records: list[dict]) -> dict[str, str]:
    found = [record for record in records if _matches(cell, size, record)]
    plain = PLAIN in cell["setting"]
    found = [(r, value) for r in found if (value := _metric(cell["column"], r, plain)) is not None]
    if not found:
        command = _command(cell)
        status = "not measured" if command else "published"
        return {"status": status, "command": command, "cost": _cost(cell, records)}

    def rank(pair: tuple[dict, float]) -> tuple[bool, str]:
        return _whose(pair[0]["protocol"]["boxes"]) == _whose(cell["boxes"]), pair[0].get("started", "")

    record, value = max(found, key=rank)
    boxes = record["protocol"]["boxes"]
    others = [pair for pair in found if _whose(pair[0]["protocol"]["boxes"]) != _whose(boxes)]
    flip = "with" if record["protocol"]["flip_test"] and not plain else "without"
    weights = record.get("weights", {}).get("initialisation", "not said")
    alike = [pair for pair in sorted(found, key=rank) if _but_for_seed(pair[0]) == _but_for_seed(record)]
    runs = {r["seed"]: figure for r, figure in alike}  # of each seed the newest
    where = f"{where_measured(record)}, {flip} flip test, {_seeds(runs)}, weights: {weights}"
    more = {"measured_boxes": boxes, "record": record.get("path", "")}
    if len(runs) > 1:
        value = statistics.mean(runs.values())
        more["spread"] = f"± {_like(statistics.stdev(runs.values()), cell['value'])}, {len(runs)} runs"
    elif cell["column"] == next(iter(record["metrics"])) and "interval" in record and not plain:
        more["interval"] = " to ".join(_like(100 * end, cell["value"]) for end in record["interval"])
    if others:
        other, figure = max(others, key=rank)
        more |= {"other": _like(figure, cell["value"]), "other_boxes": other["protocol"]["boxes"]}
    return _here(_like(value, cell["value"]), where, **more)


def _whose(boxes: str) -> str:
    """'ground' or 'detector': the first word of what says whose boxes they are."""
    return boxes.replace(",", " ").replace(":", " ").split(" ")[0]


def _but_for_seed(record: dict) -> tuple:
    """What trainings of one figure have in common; an evaluation of given weights is one of its own."""
    training = record["kind"] == "train" or record["name"]
    how = [record["parameters"].get(name) for name in ("precision", "pack", "processes")]
    start = record.get("weights", {}).get("initialisation")
    return training, _whose(record["protocol"]["boxes"]), start, record["dataset"]["sha256"], *how


def _matches(cell: dict, size: tuple[int, int], record: dict) -> bool:
    """Whether a record measures this cell: point 1 of the file's docstring."""
    kind = record["kind"] if "not_evaluated" not in record else None
    if kind not in ("train", "evaluate") or record["model"] != cell["model"] or record["profile"] != "paper":
        return False
    if kind == "train":
        learnt_on = record["dataset"]["name"]
        if not _trained_by(_recipe(cell), record["parameters"]):
            return False
        if record.get("weights", {}).get("initialisation", "").startswith("weights"):  # and so trained longer
            return False
    else:  # weights from elsewhere: what they were trained on is all that the record says
        learnt_on = record.get("weights", {}).get("trained_on")
        if cell["recipe"]:
            return False
    data, protocol = record.get("evaluated", record["dataset"]), record["protocol"]
    return (
        learnt_on == data["name"] == cell["dataset"]
        and data["split"] == cell["split"]
        and tuple(protocol["input_size"]) == size
        and _settled(cell["model"], record.get("options", {}))
        == _settled(cell["model"], _options(cell["options"]))
    )


def _recipe(cell: dict) -> Recipe | None:
    """What a cell's net is trained by; None where its paper's recipe is not here."""
    if cell["dataset"] not in recipes.PAPER.get(cell["model"], {}):
        return None
    changes: dict[str, object] = {"input_size": _size(cell["input_size"])}
    for path, value in _pairs(cell["recipe"]).items():
        *stage, field = path.split(".")
        (changes.setdefault(stage[0], {}) if stage else changes)[field] = json.loads(value)
    return recipes.get("paper", cell["model"], cell["dataset"], **changes)


def _trained_by(recipe: Recipe | None, parameters: dict) -> bool:
    """Whether a record's parameters are a recipe's; how often it was evaluated on the way is no matter.

    A field that is younger than the record is passed over.
    """
    if recipe is None:
        return False
    wanted = json.loads(json.dumps(asdict(recipe)))  # tuples as records have them
    del wanted["evaluate_every"]
    return all(parameters.get(name, value) == value for name, value in wanted.items())


def _metric(column: str, record: dict, plain: bool) -> float | None:
    """The record's figure for a published column, in the paper's unit; None where it has none."""
    if column.startswith("Best AP"):
        scored = [entry for entry in record.get("curve", []) if entry.get("AP") is not None]
        if not scored:
            return None
        best = max(scored, key=lambda entry: entry["AP"])
        return best["epoch"] if column == "Best AP epoch" else 100 * best["AP"]
    flipped = record["protocol"]["flip_test"]
    value = record["metrics_without_flip" if plain and flipped else "metrics"].get(column)
    return None if value is None else 100 * value


def _size(text: str) -> tuple[int, int]:
    """'256x192' as (height, width)."""
    height, width = text.split("x")
    return int(height), int(width)


def count(cell: dict, records: list[dict] = ()) -> dict:
    """What complexity.count says of the net a printed size belongs to.

    Taken from a record of kind `complexity` that this very code wrote, where there is one: building and
    counting some forty nets takes half a minute. cell: a line of `load`, of which model, options, input_size
    and dataset count; for another dataset than COCO the net has that one's joints.
    """
    key = {name: cell[name] for name in ("model", "options", "input_size")} | {"skeleton": skeleton(cell)}
    for record in records:
        if record["kind"] == "complexity" and record["parameters"]["code"] == complexity.code():
            for row in record["metrics"]:
                if key.items() <= row.items():
                    return row
    return key | _count(*key.values())


def skeleton(cell: dict) -> str:
    """The keypoint set of a cell's dataset; COCO's where it names none."""
    return cell["dataset"] if cell["dataset"] in skeletons.SKELETONS else "coco"


@functools.cache
def _count(model: str, options: str, input_size: str, skeleton: str) -> dict:
    """Parameters and multiply-adds of a model of the zoo."""
    with torch.device("meta"), complexity.Unstarted():
        net = models.build(model, skeleton, _size(input_size), **_options(options))
    return complexity.count(net, net.input_size)


@functools.cache
def _parts(name: str, size: tuple[int, int]) -> dict[str, str]:
    """Architecture of a model of the zoo."""
    return architecture(models.build(name, input_size=size))


def _settled(name: str, options: dict) -> dict[str, str]:
    """A model's options with the builder's own values for those left out, as text."""
    signature = inspect.signature(models.ZOO[name]).parameters.values()
    given = {p.name: p.default for p in signature if p.default is not p.empty} | options
    return {key: str(tuple(value) if isinstance(value, list) else value) for key, value in given.items()}


def _pairs(text: str) -> dict[str, str]:
    """'a=1;b=2' as a dictionary of texts."""
    return dict(pair.split("=", 1) for pair in text.split(";") if pair)


def _options(text: str) -> dict[str, object]:
    """'a=1;b=true;c=cbam' as a builder's keyword arguments."""
    plain = {"true": True, "false": False}
    return {
        key: int(value) if value.isdigit() else plain.get(value, value) for key, value in _pairs(text).items()
    }


def _like(value: float, printed: str) -> str:
    """A number with as many digits after the point as the printed one."""
    return f"{value:.{len(printed.partition('.')[2])}f}"


def _command(cell: dict) -> str:
    """What would measure an accuracy, or "" where posebook cannot train the net or read the data.

    A run of the grid is asked for by its name; a net whose paper's recipe is here is trained; of another,
    the authors' weights are evaluated.
    """
    if cell["dataset"] not in datasets.NAMES:
        return ""
    if runs := _runs(cell):
        return f"make grid PROFILE=paper ROWS={','.join(runs)}"
    if _recipe(cell):
        return _training_command(cell)
    if cell["options"] or cell["recipe"] or cell["model"] in NO_PUBLIC_WEIGHTS:
        return ""
    size, data = [int(side) for side in cell["input_size"].split("x")], cell["dataset"]
    boxes = f" -p boxes {COCO_BOXES}" if data == "coco" and _whose(cell["boxes"]) == "detector" else ""
    return (
        f"papermill notebooks/evaluate.ipynb reports/executed/{cell['model']}.ipynb -p model {cell['model']} "
        f"-p weights AUTHORS_FILE -y 'input_size: {size}' -p trained_on {data} -p dataset {data} "
        f"-p data_root data/{data} -p profile paper{boxes}"
    )


def _runs(cell: dict) -> list[str]:
    """The runs of the grid that make a cell's row, by their ids."""
    printed = (cell["paper"], cell["table"], cell["row"])
    return [run.id for run in grid.rows().values() if (run.paper, run.table, run.row) == printed]


def _cost(cell: dict, records: list[dict]) -> str:
    """How long the trainings that a cell's row is made of would take, from the rate of one on record.

    Taken as in proportion to the multiply-adds of a person's input; a GPU's record before a CPU's, then one
    of the same net, then the newest. "" where no training is on record, none would measure the cell, or how
    many would learn from is not known.
    """
    recipe = _recipe(cell)
    runs = [r for r in records if r["kind"] == "train" and r.get("wall_seconds") and r.get("complexity")]
    if not runs or recipe is None or cell["dataset"] not in PEOPLE:
        return ""

    def rank(run: dict) -> tuple[bool, bool, str]:
        same = run["model"] == cell["model"]
        return run["machine"]["device"].startswith("cuda"), same, run.get("started", "")

    run = max(runs, key=rank)
    rate = run["dataset"]["persons"] * run["parameters"]["epochs"] / run["wall_seconds"]
    work = count(cell, records)["macs"]["exact"] / run["complexity"]["macs"]["exact"]
    epochs = recipe.epochs * max(1, len(_runs(cell)))
    hours = epochs * PEOPLE[cell["dataset"]] * work / rate / 3600
    return (
        f"about {hours:,.0f} hours at the {rate:.0f} people a second of {run['name']}, {where_measured(run)}"
    )


def _training_command(cell: dict) -> str:
    """What would measure an accuracy: a training run of profile paper."""
    root = f"data/{cell['dataset'].removesuffix('-mini')}"
    words = [
        f"python -m posebook.training --model {cell['model']} --dataset {cell['dataset']} --data-root {root}"
    ]
    words += ["--profile paper --device cuda"]
    if cell["pretrained"]:
        words += [f"--backbone {grid.BACKBONES / cell['pretrained']}"]
    if cell["options"]:
        words += [f"--options '{json.dumps(_options(cell['options']))}'"]
    size = _size(cell["input_size"])
    if size != recipes.get("paper", cell["model"], cell["dataset"]).input_size:
        words += [f"--set '{json.dumps({'input_size': size})}'"]
    return " ".join(words)


def where_measured(record: dict) -> str:
    """Device and day of a record."""
    device = record.get("machine", {}).get("device", "an unnamed device")
    return f"{device}, {record.get('started', 'undated')[:10]}"


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Every two measured rows of a `table`, paired image by image: the difference and its 95 % interval.

    Columns: row, less, column, difference, low, high, in points, by the predictions that are kept: those with
    flip test, and of a row of several runs the newest run's. Rows whose predictions are not kept, or were
    made on other images, are not paired. The interval tells whether the difference is one of the nets or of
    the images that happen to be in the split.
    """
    kept = table[(table["record"] != "") & table["column"].isin(metrics.MAIN)]
    plain = kept["setting"].str.contains(PLAIN)  # the same record stands in a row with augmentation too
    kept = pd.concat([kept[~plain], kept[plain]]).drop_duplicates("record")
    lines = []
    for (_, a), (_, b) in itertools.combinations(kept.iterrows(), 2):
        try:
            units = [evaluation.load_units(Path(cell["record"])) for cell in (b, a)]
            points = [100 * value for value in uncertainty.difference(*units)]
        except (FileNotFoundError, ValueError):
            continue
        lines.append([a["row"], b["row"], a["column"], *points])
    return pd.DataFrame(lines, columns=["row", "less", "column", "difference", "low", "high"])


def speeds(folder: str | Path = FOLDER) -> pd.DataFrame:
    """The papers' own speeds: paper, row, model, input_size, device, fps, Params (M), GFLOPs and AP.

    A device is named as its column is; the StarNet-Pose document has one. Where a row stands for a flip test,
    which takes two forwards, `forwards` is 2. What a document does not give of a row is empty.
    """
    cells, rows = load(folder), []
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


def sweep(records: list[dict]) -> pd.DataFrame:
    """The runs of the grid's occlusion_sweep, a line each; no figures of it are published.

    Columns: run, first and last (probability of CoarseDropout in the two stages), AP in percent (text, ""
    where not measured), interval, spread, where, command.
    """
    lines = []
    for run in grid.rows().values():
        if run.table == "occlusion_sweep":
            first, last = (run.changes[stage]["dropout"] for stage in ("stage1", "stage2"))
            cell = dict(model=run.model, dataset=run.dataset, split="val2017", input_size="256x192")
            cell |= dict(paper=run.paper, table=run.table, row=run.row, boxes="ground truth", setting="")
            cell |= dict(options=";".join(f"{name}={value}" for name, value in run.options.items()))
            cell |= dict(recipe=f"stage1.dropout={first};stage2.dropout={last}", column="AP", value="0.00")
            found = EMPTY | _accuracy(cell, _size(cell["input_size"]), records)
            command = "" if found["measured"] else f"make grid PROFILE=paper ROWS={run.id}"
            figures = [found[name] for name in ("measured", "interval", "spread", "where")]
            lines.append([run.id, first, last, *figures, command])
    columns = ["run", "first", "last", "AP", "interval", "spread", "where", "command"]
    return pd.DataFrame(lines, columns=columns)


def accuracies(records: list[dict]) -> pd.DataFrame:
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
