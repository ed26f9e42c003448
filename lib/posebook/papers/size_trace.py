"""Printed parameters and GFLOPs, each traced to the counter that reproduces it; and the papers' errata.

1. A counter reproduces a printed number if it rounds or truncates to it at the printed digits. A trailing
   zero may be ignored (0.360 also matches as 0.36).
2. If several counters reproduce a number, those are named that give most numbers of the same system (its
   sizes and variants together) in the same paper in all digits, then up to a last zero, because one tool
   counted them all. Counters that give equally many are all named.
3. data/errata.csv lists what a paper says, what contradicts it, and which models to build as evidence.
"""

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from posebook import complexity, models, paths
from posebook.papers.cells import (
    SIZE_COLUMNS,
    load_cells,
    parse_options,
    parse_size,
    roundings,
    skeleton_name,
)

ERRATA = paths.DATA / "errata.csv"
KEYS = ["paper", "row", "model", "options", "input_size", "dataset"]
PARAMS = {"params": "all", "thop_params": "thop's total"}


def printed_sizes() -> pd.DataFrame:
    """The printed sizes of all models that posebook builds: KEYS, `Params (M)`, `GFLOPs`, by row."""
    cells = load_cells()
    cells = cells[cells["model"].isin(models.names()) & cells["column"].isin(SIZE_COLUMNS)]
    table = cells.groupby([*KEYS, "column"], sort=False)["value"].first().unstack("column", fill_value="")
    return table.reset_index().rename_axis(columns=None)


def count_all() -> list[dict]:
    """`count` of every model that has a printed size or is in the errata, each built once."""
    cells = [*printed_sizes().to_dict("records"), *(cell for line in _errata() for cell in line["cells"])]
    distinct = {tuple(_count_key(cell).values()): cell for cell in cells}
    return [count(cell) for cell in tqdm(distinct.values(), desc="count", unit="model")]


def size_table(records: list[dict], printed: pd.DataFrame | None = None) -> pd.DataFrame:
    """The printed sizes beside the result of each counter; all of them, or those in `printed`.

    Further columns: `params` and `thop_params` in millions; one for each convention of complexity.UNITS, in
    giga as its tool prints it; `params by` and `GFLOPs by`: the counters that reproduce the printed number,
    "" if there is none.
    """
    table = printed_sizes() if printed is None else printed
    counts = [count(cell, records) for cell in table.to_dict("records")]
    for name in PARAMS:
        table[name] = [counted[name] / 1e6 for counted in counts]
    for convention in complexity.UNITS:
        table[convention] = [complexity.in_tool_units(counted, convention) for counted in counts]
    table["params by"] = _matching_counters(table, "Params (M)", PARAMS)
    table["GFLOPs by"] = _matching_counters(table, "GFLOPs", {name: name for name in complexity.UNITS})
    return table


def traced_sizes(paper: str, names: Iterable[str], records: list[dict]) -> dict[tuple[str, ...], dict]:
    """The lines of `size_table` for the systems of some models in one paper, by the values of KEYS."""
    systems, table = {_builder(name) for name in names}, printed_sizes()
    same = (table["paper"] == paper) & table["model"].map(lambda name: _builder(name) in systems)
    lines = size_table(records, table[same].copy()).to_dict("records") if same.any() else []
    return {tuple(line[key] for key in KEYS): line for line in lines}


def paper_counter(line: dict, column: str) -> tuple[str, float, float]:
    """Of a line of `size_table`: the counters that give the printed number, their result, and the exact one.

    column: one of SIZE_COLUMNS. Without such a counter, the text is empty and both results are the exact one.
    """
    by = line["params by" if column == "Params (M)" else "GFLOPs by"]
    first = by.partition(" or ")[0].removesuffix(", truncated")
    exact = line["params" if column == "Params (M)" else "exact"]
    names = {title: name for name, title in PARAMS.items()}
    return by, line[names.get(first, first)] if by else exact, exact


def explain_gflops(line: dict) -> tuple[float, str]:
    """How the printed GFLOPs of a line of `size_table` come about: the matching counter's result, and a note.

    The note is 'rounded', 'truncated', 'last zero ignored' (4.70 only matches as 4.7), 'unexplained' (by no
    counter: the result is NaN), or 'not printed'. Of several counters, the result is that of the first.
    """
    if not line["GFLOPs"] or not line["GFLOPs by"]:
        return float("nan"), "unexplained" if line["GFLOPs"] else "not printed"
    name, _, operation = line["GFLOPs by"].partition(" or ")[0].partition(", ")
    if not roundings(line[name], line["GFLOPs"]):
        return line[name], "last zero ignored"
    return line[name], "truncated" if operation else "rounded"


def _matching_counters(table: pd.DataFrame, column: str, counters: dict[str, str]) -> list[str]:
    """The counters that reproduce each printed number of a column, as text (points 1 and 2).

    counters: the columns with the results of the counters, and the name of each in the text.
    """
    lines = table.to_dict("records")
    matches = [
        matching_counters(line[column], {name: line[key] for key, name in counters.items()}) for line in lines
    ]
    systems = [(line["paper"], _builder(line["model"])) for line in lines]
    in_all_digits: Counter = Counter()
    up_to_zero: Counter = Counter()
    for system, line, found in zip(systems, lines, matches, strict=True):
        up_to_zero.update((system, name) for name in {name for name, _ in found})
        in_all_digits.update(
            (system, name)
            for key, name in counters.items()
            if line[column] and roundings(line[key], line[column])
        )
    texts = []
    for system, found in zip(systems, matches, strict=True):
        numbers = {name: (in_all_digits[system, name], up_to_zero[system, name]) for name, _ in found}
        best = [match for match in found if numbers[match[0]] == max(numbers.values())]
        rounded = [name for name, operation in best if operation == "rounded"]
        truncated = [f"{name}, truncated" for name, _ in best if name not in rounded]
        texts.append("all" if "all" in rounded else " or ".join(rounded + truncated))
    return texts


def matching_counters(printed: str, totals: dict[str, float]) -> list[tuple[str, str]]:
    """Which totals give a number (point 1): sorted pairs (name, "rounded") and (name, "truncated")."""
    padded = len(printed.partition(".")[2]) > 1 and printed.endswith("0")
    texts = {printed, printed[:-1]} if padded else {printed} - {""}
    pairs = itertools.product(totals.items(), texts)
    return sorted({(name, how) for (name, total), text in pairs for how in roundings(total, text)})


def _builder(name: str) -> object:
    """The class that builds a model, the same for all sizes of a system."""
    entry = models.MODELS[name]
    return entry.func if isinstance(entry, functools.partial) else entry


def _errata() -> list[dict[str, Any]]:
    """The lines of data/errata.csv, with the models to build as `cells`, each with a `label`.

    The column `builds` is 'label: model options size dataset | ...', with '-' for no options.
    """
    lines = pd.read_csv(paths.require(ERRATA), dtype=str, keep_default_na=False).to_dict("records")
    for line in lines:
        line["cells"] = []
        for text in filter(None, map(str.strip, line["builds"].split("|"))):
            label, _, words = text.partition(": ")
            model, options, size, dataset = words.split()
            options = "" if options == "-" else options
            cell = {"model": model, "options": options, "input_size": size, "dataset": dataset}
            line["cells"].append(cell | {"label": label})
    return lines


def errata(records: list[dict]) -> list[str]:
    """Contradictions within a paper or with its code: a Markdown paragraph each, with measurements."""
    paragraphs = []
    for line in _errata():
        measured = []
        for cell in line["cells"]:
            counted = count(cell, records)
            giga = [f"{c} {complexity.in_tool_units(counted, c):.3f} G" for c in line["counters"].split()]
            omitted = counted["params"] - counted["thop_params"]
            note = f", {omitted:,} of them not counted by thop" if omitted else ""
            measured.append(f"{cell['label']}: {counted['params']:,} parameters{note}; {', '.join(giga)}")
        evidence = f" *Measured here:* {' — '.join(measured)}." if measured else ""
        text = f"**{line['paper']}, {line['subject']}.** {line['says']} {line['but']}{evidence}"
        paragraphs.append(re.sub(r"(?<=\d)x(?=\d)", "×", text))
    return paragraphs


def _count_key(cell: dict) -> dict[str, str]:
    return {name: cell[name] for name in ("model", "options", "input_size")} | {
        "skeleton": skeleton_name(cell)
    }


def count(cell: dict, records: Sequence[dict] = ()) -> dict:
    """The result of complexity.count for the model of a printed size.

    The result is taken from a record of kind `complexity` if one was written by the current code, because
    building and counting about forty models takes half a minute. cell: a row of `load_cells`; only its model,
    options, input_size and dataset are used. The model has the joints of that dataset.
    """
    key = _count_key(cell)
    for record in records:
        if record["kind"] == "complexity" and record["parameters"]["code"] == complexity.code_hash():
            for row in record["metrics"]:
                if key.items() <= row.items():
                    return row
    return key | _count(*key.values())


@functools.cache
def _count(model_name: str, options: str, input_size: str, skeleton: str) -> dict:
    # The meta device allocates no memory, and SkipInit saves the time of initialization.
    with torch.device("meta"), complexity.SkipInit():
        model = models.build(model_name, skeleton, parse_size(input_size), **parse_options(options))
    return complexity.count(model, model.input_size)
