"""The papers' published speeds and memory, and the rows of benchmark records that measure them.

1. A cell is measured by a row of its model and input size with batch size 1, in ONNX Runtime if the paper
   used this runtime, otherwise in eager PyTorch. Rows with more threads are preferred, so that models are
   compared with equal threads; then rows measured on a quiet machine, or else those whose rounds agree best;
   then newer records. The machine can be any; it is always named beside the value.
2. A float32 row whose outputs differ from the model's measures nothing.
3. The LAPX document counts two forward passes, one with the flipped image, in the speeds that its authors
   measured for rows with test-time augmentation. The value measured here then counts two as well. Speeds that
   the document takes from other papers are counted as one.
4. RAM is what one model adds to a process with ONNX Runtime loaded (benchmark/timing.py, choice 5), in MB of
   10^6 bytes. The document excludes the interpreter in the same way.
"""

import functools
import itertools
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from posebook import models
from posebook.benchmark.rows import BASELINE, is_correct, is_quiet
from posebook.papers import statuses
from posebook.papers.cells import FOLDER, format_like, load_cells, parse_size, where_measured
from posebook.papers.names import display_name

QUANTITIES = ("Latency (ms)", "FPS", "RAM (MB)")
COMMAND = "posebook benchmark --published"
ONNX_RUNTIME = "ONNX Runtime fp32"
AUGMENTED = "test-time augmentation: yes"


def quantity(cell: dict) -> str:
    """The one of QUANTITIES that a cell's column holds, without its device; "" for other columns."""
    name = cell["column"].partition(", ")[0]
    return name if name in QUANTITIES else ""


def cell_runtime(cell: dict) -> str:
    """The runtime that measures a cell (choice 1)."""
    return ONNX_RUNTIME if "RAM" in cell["column"] or "ONNX Runtime" in cell["setting"] else BASELINE


@functools.cache
def _augmented_rows() -> frozenset[tuple[str, str]]:
    cells = load_cells()
    cells = cells[cells["setting"].str.contains(AUGMENTED)]
    return frozenset(zip(cells["paper"], cells["row"], strict=True))


def forward_passes(cell: dict) -> int:
    """How many forward passes a published speed stands for (choice 3)."""
    augmented = (cell["paper"], cell["row"]) in _augmented_rows()
    own = cell["setting"].startswith("measured by the authors")
    return 2 if augmented and own and quantity(cell) != "RAM (MB)" else 1


def find_rows(
    records: Iterable[dict], model: str, size: tuple[int, int], form: str
) -> list[tuple[dict, dict]]:
    """The benchmark records and their timed rows of one model in one runtime at batch size 1, the best first.

    Best: choice 1 of the module's docstring. Rows with other outputs than the model's are included.
    """
    found = [
        (record, row)
        for record in records
        if record["kind"] == "benchmark"
        for row in record["metrics"]
        if (row["model"], tuple(row["input_size"]), row["batch"], row["form"]) == (model, size, 1, form)
        if "latency_ms" in row
    ]

    def priority(pair: tuple[dict, dict]) -> tuple[bool, int, bool, float, str]:
        record, row = pair
        quiet = is_quiet(row)
        agreement = 0.0 if quiet else -row["latency_ms"].get("spread", 0.0)
        return is_correct(row), row["threads"], quiet, agreement, record.get("started", "")

    return sorted(found, key=priority, reverse=True)


def best_rows(
    records: Iterable[dict], model: str, size: tuple[int, int], form: str
) -> dict[tuple[str, int], dict]:
    """The best row of `find_rows` for each device and number of threads, without rows of other outputs."""
    best: dict[tuple[str, int], dict] = {}
    for record, row in find_rows(records, model, size, form):
        if is_correct(row):
            best.setdefault((record["machine"]["device"], row["threads"]), row)
    return best


def is_separated(fast: dict, slow: dict) -> bool:
    """Whether the ranges of two latencies, 10th to 90th percentile, do not overlap, and `fast` is faster."""
    return fast["p90"] < slow["p10"]


def order_text(latencies: dict[str, dict]) -> str:
    """Names from the fastest to the slowest. latencies: of timing.summarize, not empty.

    ' < ' stands between groups if all ranges on its left are below all ranges on its right.
    """
    names = sorted(latencies, key=lambda name: latencies[name]["median"])
    groups = [[names[0]]]
    for position, name in enumerate(names[1:], 1):
        pairs = itertools.product(names[:position], names[position:])
        if all(is_separated(latencies[fast], latencies[slow]) for fast, slow in pairs):
            groups.append([])
        groups[-1].append(name)
    texts = [f"{' and '.join(group)} (not separated)" if group[1:] else group[0] for group in groups]
    return " < ".join(texts)


def measure_cell(cell: dict, records: Iterable[dict]) -> dict[str, str]:
    """The columns of tables.build_table for a speed or memory cell; columns left out are empty."""
    if cell["model"] not in models.names():
        built = f"posebook does not build {cell['row'].partition(', ')[0]}"
        unstated = "the document does not state the input size"
        return {"status": statuses.PUBLISHED, "reason": built if cell["input_size"] else unstated}
    form, size = cell_runtime(cell), parse_size(cell["input_size"])
    is_memory = quantity(cell) == "RAM (MB)"
    rows = find_rows(records, cell["model"], size, form)
    if is_memory:
        rows = [(record, row) for record, row in rows if row.get("resident_mib") is not None]
    not_run = {"status": statuses.NOT_RUN, "command": COMMAND}
    if not rows:
        return not_run | {"reason": f"no benchmark of {cell['model']} at this size in {form}"}
    record, row = rows[0]
    if not is_correct(row):
        why = f"the recorded outputs in {form} differ from the model's by {row['difference']:.1e}"
        return not_run | {"reason": why}
    forwards, latency = forward_passes(cell), row["latency_ms"]
    milliseconds = forwards * latency["median"]
    values = {"Latency (ms)": milliseconds, "FPS": 1000 / milliseconds}
    values["RAM (MB)"] = (row.get("resident_mib") or 0.0) * 2**20 / 1e6
    # a value printed without decimals, such as 17 frames a second, is measured to one
    text = format_like(values[quantity(cell)], cell["value"] if "." in cell["value"] else "0.0")
    spread = f"median; one forward pass takes {latency['p10']:.2f} to {latency['p90']:.2f} ms (10th to 90th "
    spread += "percentile)" + ", two are counted" * (forwards == 2)
    threads = f"{row['threads']} thread{'s' * (row['threads'] > 1)}"
    where = f"{display_name(cell['model'])} on {where_measured(record)}: {form}, {threads}, "
    where += "resident memory" if is_memory else spread
    where += ", not from a quiet measurement" * (not is_quiet(row))
    device = record["machine"]["device"]
    printed_on = cell["column"].partition(", ")[2] or cell["setting"].partition(",")[0]
    status = {"status": statuses.ELSEWHERE}
    if printed_on and device_name(printed_on) == device_name(device):
        status = statuses.accuracy_status(cell["value"], values[quantity(cell)])
    return {"measured": text, "device": device, "where": where} | status


def device_name(text: str) -> str:
    """The name of a device as papers print it, from that in a record: "cuda: NVIDIA GeForce RTX 4090"."""
    return text.rpartition(": ")[2].partition(" (")[0].removeprefix("NVIDIA ").removeprefix("GeForce ")


def unmeasured_inputs(rows: list[dict]) -> dict[tuple[str, ...], list[tuple[str, tuple[int, int]]]]:
    """Models and input sizes of published cells that no row covers, grouped by the runtimes to measure."""
    covered = {(row["model"], tuple(row["input_size"]), row["form"]) for row in rows if row["batch"] == 1}
    needed: dict[tuple[str, tuple[int, int]], set[str]] = {}
    for cell in load_cells().to_dict("records"):
        if quantity(cell) and cell["model"] in models.names():
            key = cell["model"], parse_size(cell["input_size"])
            if (*key, form := cell_runtime(cell)) not in covered:
                needed.setdefault(key, set()).add(form)
    groups: dict[tuple[str, ...], list[tuple[str, tuple[int, int]]]] = {}
    for key, forms in needed.items():
        groups.setdefault(tuple(sorted(forms)), []).append(key)
    return groups


def published_speeds(folder: str | Path = FOLDER) -> pd.DataFrame:
    """The papers' own frames per second: paper, row, model, input_size, device, fps, forwards, and the sizes.

    The name of a column states the device, except in the StarNet-Pose document, which has a single one. The
    sizes and AP (Params (M), GFLOPs and AP) come from other tables of the paper; missing ones are NaN.
    """
    cells, rows = load_cells(folder), []
    timed = cells[(cells["table"] == "speed") & cells["column"].str.startswith("FPS")]
    for cell in timed.to_dict("records"):
        row = {name: cell[name] for name in ("paper", "row", "model", "input_size")}
        row |= {"device": cell["column"].partition(", ")[2] or "RTX 5090", "fps": float(cell["value"])}
        row["forwards"] = forward_passes(cell)
        names = cell["row"], f"{cell['paper']}, {cell['row']}"
        same = cells[(cells["paper"] == cell["paper"]) & cells["row"].isin(names)]
        for column in ("Params (M)", "GFLOPs", "AP"):
            if len(values := same.loc[same["column"] == column, "value"]):
                row[column] = float(values.iloc[0])
        rows.append(row)
    return pd.DataFrame(rows)
