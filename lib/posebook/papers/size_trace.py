"""Printed parameters and GFLOPs, each traced to the counter that gives it; and the papers' errata.

1. A printed figure is traced by rounding or by cutting off at the digits it has, a zero at its end aside
   (0.360 is taken as 0.36 too).
2. Among the counters that give a figure, those are named that give most of the figures of the same system,
   its sizes and variants together, in the same paper: one tool counted them all. Rounding comes before
   cutting off.
3. data/errata.csv holds what a paper says, what contradicts it, and which nets to build as evidence.
"""

import functools
from collections import Counter
from functools import partial

import pandas as pd
import torch
from tqdm import tqdm

from posebook import complexity, models, paths
from posebook.papers.cells import SIZE_COLUMNS, load_cells, parse_options, parse_size, skeleton_name

ERRATA = paths.DATA / "errata.csv"
KEYS = ["paper", "row", "model", "options", "input_size", "dataset"]
PARAMS = {"params": "all", "thop_params": "thop's total"}


def printed_sizes() -> pd.DataFrame:
    """Every printed size of a net that posebook builds, a line a row: KEYS, `Params (M)`, `GFLOPs`."""
    cells = load_cells()
    cells = cells[cells["model"].isin(models.names()) & cells["column"].isin(SIZE_COLUMNS)]
    table = cells.groupby([*KEYS, "column"], sort=False)["value"].first().unstack("column", fill_value="")
    return table.reset_index().rename_axis(columns=None)


def count_all() -> list[dict]:
    """What each counter says of every net with a printed size or in the errata, each built once."""
    lines = [*printed_sizes().to_dict("records"), *(net for line in _errata() for net in line["nets"])]
    distinct = {(n["model"], n["options"], n["input_size"], skeleton_name(n)): n for n in lines}
    return [count(net) for net in tqdm(distinct.values(), desc="count", unit="net")]


def size_table(records: list[dict]) -> pd.DataFrame:
    """`printed` beside what each counter gives.

    Further columns: `params` and `thop_params` in millions; one a convention of complexity.UNITS, in giga as
    its tool prints it; `params by` and `GFLOPs by`: what gives the printed figure, "" where nothing does.
    """
    lines = printed_sizes()
    found = [count(line, records) for line in lines.to_dict("records")]
    for name in PARAMS:
        lines[name] = [counted[name] / 1e6 for counted in found]
    for convention in complexity.UNITS:
        lines[convention] = [complexity.in_tool_units(counted, convention) for counted in found]
    lines["params by"] = _matching_counters(lines, "Params (M)", PARAMS)
    lines["GFLOPs by"] = _matching_counters(lines, "GFLOPs", {name: name for name in complexity.UNITS})
    return lines


def _matching_counters(table: pd.DataFrame, column: str, counters: dict[str, str]) -> list[str]:
    """What gives each printed figure of a column, from the columns named in `counters`; choices 1 and 2."""
    lines = table.to_dict("records")
    each = [
        complexity.matching_counters(line[column], {name: line[key] for key, name in counters.items()})
        for line in lines
    ]
    systems = [(line["paper"], _model_class(line["model"])) for line in lines]
    explains = Counter((system, way) for system, ways in zip(systems, each, strict=True) for way in ways)
    said = []
    for system, ways in zip(systems, each, strict=True):
        most = max((explains[system, way] for way in ways), default=0)
        best = [way for way in ways if explains[system, way] == most]
        rounded = [name for name, how in best if how == "rounded"]
        cut = [f"{name}, cut off" for name, how in best if how == "cut off"]
        said.append("all" if "all" in rounded else " or ".join(rounded or cut))
    return said


def _model_class(model: str) -> type:
    """The class that a name of the zoo builds."""
    entry = models.MODELS[model]
    return entry.func if isinstance(entry, partial) else entry


def _errata() -> list[dict]:
    """The lines of data/errata.csv; `builds` is 'label: model options size dataset | ...', '-' for none."""
    lines = pd.read_csv(ERRATA, dtype=str, keep_default_na=False).to_dict("records")
    for line in lines:
        line["nets"] = []
        for text in filter(None, map(str.strip, line["builds"].split("|"))):
            label, _, net = text.partition(": ")
            model, options, size, dataset = net.split()
            options = "" if options == "-" else options
            keys = {"model": model, "options": options, "input_size": size, "dataset": dataset}
            line["nets"].append(keys | {"label": label})
    return lines


def errata(records: list[dict]) -> list[str]:
    """Where a paper contradicts itself or its code, a Markdown paragraph each, with what was measured."""
    paragraphs = []
    for line in _errata():
        measured = []
        for net in line["nets"]:
            counted = count(net, records)
            giga = [f"{c} {complexity.in_tool_units(counted, c):.3f} G" for c in line["counters"].split()]
            bare = counted["params"] - counted["thop_params"]
            left_out = f", of which thop leaves out {bare:,}" if bare else ""
            measured.append(f"{net['label']}: {counted['params']:,} parameters{left_out}; {', '.join(giga)}")
        evidence = f" *Measured here:* {' — '.join(measured)}." if measured else ""
        paragraphs.append(f"**{line['paper']}, {line['subject']}.** {line['says']} {line['but']}{evidence}")
    return paragraphs


def count(cell: dict, records: list[dict] = ()) -> dict:
    """What complexity.count says of the net a printed size belongs to.

    Taken from a record of kind `complexity` that this very code wrote, where there is one: building and
    counting some forty nets takes half a minute. cell: a line of `load`, of which model, options, input_size
    and dataset count; for another dataset than COCO the net has that one's joints.
    """
    key = {name: cell[name] for name in ("model", "options", "input_size")} | {
        "skeleton": skeleton_name(cell)
    }
    for record in records:
        if record["kind"] == "complexity" and record["parameters"]["code"] == complexity.code_hash():
            for row in record["metrics"]:
                if key.items() <= row.items():
                    return row
    return key | _count(*key.values())


@functools.cache
def _count(model: str, options: str, input_size: str, skeleton: str) -> dict:
    """Parameters and multiply-adds of a model of the zoo."""
    with torch.device("meta"), complexity.SkipInit():
        net = models.build(model, skeleton, parse_size(input_size), **parse_options(options))
    return complexity.count(net, net.input_size)
