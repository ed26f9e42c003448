"""The rows of a benchmark: which may be compared, which is the fastest, and how reliable they are.

`sweep` measures the rows. A row has `latency_ms` if it was timed, otherwise `why`.
"""

import itertools

from posebook.benchmark import timing
from posebook.inference import export, runtimes

BASELINE = "eager fp32"  # all other runtimes are compared with this one


def label(row: dict) -> str:
    """The combination that a row belongs to, as text."""
    height, width = row["input_size"]
    threads = f"{row['threads']} thread{'s' * (row['threads'] > 1)}"
    return f"{row['model']}, {height}×{width}, batch {row['batch']}, {threads}"


def is_correct(row: dict) -> bool:
    """Whether a row's outputs are the baseline's; always true for runtimes with a lower precision."""
    return not runtimes.is_float32(row["form"]) or row["difference"] <= export.TOLERANCE


def check_outputs(row: dict, where: str = "") -> None:
    """Raise export.OutputMismatch if the outputs of a float32 row differ from the baseline's.

    Such a runtime does not run this model, so its times are worthless. where: the start of the message.
    """
    if not is_correct(row):
        raise export.OutputMismatch(
            f"{where}{row['form']} differs from {BASELINE} by {row['difference']:.1e}, more than "
            f"{export.TOLERANCE:.0e}: repair the export of this model, or leave out this runtime"
        )


def is_quiet(row: dict) -> bool:
    """Whether the times of a row are quiet (timing.py, choice 4). Old records state it for all runtimes."""
    return row.get("quiet", row.get("conditions", {}).get("quiet", False))


def _timed_groups(rows: list[dict]) -> list[list[dict]]:
    """Group the rows with times by model, input size, batch size and number of threads."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        if "latency_ms" in row:
            key = row["model"], tuple(row["input_size"]), row["batch"], row["threads"]
            groups.setdefault(key, []).append(row)
    return list(groups.values())


def noise_warnings(rows: list[dict]) -> list[str]:
    """Warn about noisy rows, and about pairs of runtimes whose difference is not significant.

    The rows of one model, input size, batch size and number of threads are sorted by speed. Pairs are
    neighbors in this order.
    """
    warnings = []
    for group in _timed_groups(rows):
        for row in group:
            if (spread := row["latency_ms"]["spread"]) > timing.ROUND_SPREAD:
                warnings.append(f"{label(row)}: {row['form']} varies by {spread:.0%} between rounds")
            if abs(drift := row["latency_ms"].get("drift", 0)) > timing.ROUND_DRIFT:
                pair = "the first and the last pass of a round"
                warnings.append(f"{label(row)}: {row['form']} varies by {abs(drift):.0%} between {pair}")
        group = sorted(group, key=lambda row: row["latency_ms"]["median"])
        for fast, slow in zip(group, group[1:], strict=False):
            ratio, significant = timing.speedup(slow["latency_ms"], fast["latency_ms"])
            if not significant:
                pair = f"{fast['form']} and {slow['form']}"
                warnings.append(f"{label(fast)}: {pair} do not differ significantly (ratio {ratio:.2f})")
    return warnings


def fastest_rows(rows: list[dict]) -> list[dict]:
    """Return the fastest row for each model, input size, batch size and number of threads.

    Only runtimes that compute in float32 count. Raises export.OutputMismatch if the outputs of one of them
    differ from the baseline's.
    """
    groups = _timed_groups([row for row in rows if runtimes.is_float32(row["form"])])
    for row in itertools.chain(*groups):
        check_outputs(row, f"{label(row)}: ")
    return [min(group, key=lambda row: row["latency_ms"]["median"]) for group in groups]


def sweep_conditions(rows: list[dict]) -> dict:
    """The conditions of a whole sweep, from those of its combinations; it is quiet if all of them are."""
    found = [group[0]["conditions"] for group in _timed_groups(rows)]
    shares = [conditions["others_share"] for conditions in found if conditions["others_share"] is not None]
    return {
        "quiet": bool(found) and all(conditions["quiet"] for conditions in found),
        "quiet_combinations": sum(conditions["quiet"] for conditions in found),
        "combinations": len(found),
        "waited_seconds": round(sum(conditions["waited_seconds"] for conditions in found), 1),
        "load_before": found[0]["load_before"] if found else None,
        "load_after": found[-1]["load_after"] if found else None,
        "others_share": max(shares, default=None),
    }
