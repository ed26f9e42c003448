"""Printed parameters and GFLOPs, each traced to the counter that gives it; and the papers' errata.

1. A printed figure is traced by rounding or by cutting off at the digits it has, a zero at its end aside
   (0.360 is taken as 0.36 too).
2. Among the counters that give a figure, those are named that give most of the figures of the same system,
   its sizes and variants together, in the same paper: one tool counted them all.
3. data/errata.csv holds what a paper says, what contradicts it, and which nets to build as evidence.
"""

from collections import Counter
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from posebook import complexity, models, published

ERRATA = Path(__file__).resolve().parents[2] / "data" / "errata.csv"
KEYS = ["paper", "row", "model", "options", "input_size", "dataset"]
PARAMS = {"params": "all", "thop_params": "thop's total"}


def printed() -> pd.DataFrame:
    """Every printed size of a net that posebook builds, a line a row: KEYS, `Params (M)`, `GFLOPs`."""
    cells = published.load()
    cells = cells[cells["model"].isin(models.names()) & cells["column"].isin(published.SIZE)]
    table = cells.groupby([*KEYS, "column"], sort=False)["value"].first().unstack("column", fill_value="")
    return table.reset_index().rename_axis(columns=None)


def counts() -> list[dict]:
    """What each counter says of every net with a printed size or in the errata, each built once."""
    lines = [*printed().to_dict("records"), *(net for line in _errata() for net in line["nets"])]
    distinct = {(n["model"], n["options"], n["input_size"], published.skeleton(n)): n for n in lines}
    return [published.count(net) for net in tqdm(distinct.values(), desc="count", unit="net")]


def table(records: list[dict]) -> pd.DataFrame:
    """`printed` beside what each counter gives.

    Further columns: `params` and `thop_params` in millions; one a convention of complexity.UNITS, in giga as
    its tool prints it; `params by` and `GFLOPs by`: what gives the printed figure, "" where nothing does.
    """
    lines = printed()
    found = [published.count(line, records) for line in lines.to_dict("records")]
    for name in PARAMS:
        lines[name] = [counted[name] / 1e6 for counted in found]
    for convention in complexity.UNITS:
        lines[convention] = [complexity.printed(counted, convention) for counted in found]
    lines["params by"] = _traced(lines, "Params (M)", PARAMS)
    lines["GFLOPs by"] = _traced(lines, "GFLOPs", {name: name for name in complexity.UNITS})
    return lines


def _traced(table: pd.DataFrame, column: str, counters: dict[str, str]) -> list[str]:
    """What gives each printed figure of a column, from the columns named in `counters`; choices 1 and 2."""
    lines = table.to_dict("records")
    each = [
        complexity.traced(line[column], {name: line[key] for key, name in counters.items()}) for line in lines
    ]
    systems = [(line["paper"], _system(line["model"])) for line in lines]
    explains = Counter((system, way) for system, ways in zip(systems, each, strict=True) for way in ways)
    said = []
    for system, ways in zip(systems, each, strict=True):
        most = max((explains[system, way] for way in ways), default=0)
        best = [way for way in ways if explains[system, way] == most]
        rounded = [name for name, how in best if how == "rounded"]
        cut = [f"{name}, cut off" for name, how in best if how == "cut off" and name not in rounded]
        said.append(" or ".join(rounded + cut))
    return said


def _system(model: str) -> type:
    """The class that a name of the zoo builds."""
    entry = models.ZOO[model]
    return entry.func if isinstance(entry, partial) else entry


def _errata() -> list[dict]:
    """The lines of data/errata.csv, their nets read: 'model options size skeleton | ...' ('-' for none)."""
    lines = pd.read_csv(ERRATA, dtype=str, keep_default_na=False).to_dict("records")
    for line in lines:
        line["nets"] = []
        for text in filter(None, map(str.strip, line["builds"].split("|"))):
            model, options, size, dataset = text.split()
            options = "" if options == "-" else options
            line["nets"].append({"model": model, "options": options, "input_size": size, "dataset": dataset})
    return lines


def errata(records: list[dict]) -> pd.DataFrame:
    """Where a paper contradicts itself or its code: paper, subject, says, but, and what the nets measure."""
    lines = []
    for line in _errata():
        measured = []
        for net in line["nets"]:
            counted = published.count(net, records)
            giga = {name: complexity.printed(counted, name) for name in line["counters"].split()}
            figures = ", ".join(f"{name} {value:.3f} G" for name, value in giga.items())
            what = " ".join(filter(None, [net["model"], net["options"], net["input_size"]]))
            parts = f"{counted['params']:,} parameters ({counted['thop_params']:,} by thop)"
            measured.append(f"{what}: {parts}" + (f"; {figures}" if figures else ""))
        lines.append(
            {key: line[key] for key in ("paper", "subject", "says", "but")}
            | {"measured here": "\n".join(measured)}
        )
    return pd.DataFrame(lines)
