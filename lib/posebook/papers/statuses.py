"""Whether a measured value agrees with the printed one.

1. A size or a cost is compared by the counter that the paper used (posebook.papers.size_trace). It agrees if
   this counter is posebook's own, which counts all parameters and the exact multiply-adds, and its result
   rounds or truncates to the printed digits. With another counter, it agrees by another convention. So does a
   result that only gives the printed digits without a last zero.
2. An accuracy or an error agrees if it rounds to the printed digits, with boxes of the printed source and
   with or without flip test as printed. With other boxes, or without the flip test although the value is
   printed with it, it agrees by another convention. Splits cannot differ: such records fill no cell.
3. A speed measured on another device neither agrees nor differs. On the device of the paper, point 2 holds.
"""

from collections.abc import Sequence

from posebook.papers.cells import format_like, roundings

AGREES, CONVENTION, DIFFERS = "agrees", "agrees by another convention", "differs"
ELSEWHERE, NOT_RUN, PUBLISHED = "measured on another device", "not run", "published only"
STATUSES = (AGREES, CONVENTION, DIFFERS, ELSEWHERE, NOT_RUN, PUBLISHED)
VERDICTS = ("reproduced", "self-consistent", "contradicted", "inconclusive", "not tested")  # of claims
BADGES = {AGREES: "=", CONVENTION: "≈", DIFFERS: "≠", NOT_RUN: "○"}
QUANTITIES = ("size", "FLOPs", "latency", "memory", "accuracy", "architecture", "other")
FITTED = ("amfacpose-r18", "amfacpose-r34")  # no code of the paper: widths fitted to its printed sizes


def quantity(column: str, unit: str) -> str:
    """Which of QUANTITIES a column contains."""
    starts = {"Params": "size", "GFLOPs": "FLOPs", "FLOPs": "FLOPs", "Latency": "latency", "FPS": "latency"}
    units = {"MB": "memory", "%": "accuracy", "mm": "accuracy", "epoch": "accuracy", "text": "architecture"}
    by_start = (name for start, name in starts.items() if column.startswith(start))
    return next(by_start, units.get(unit, "other"))


def size_status(printed: str, value: float, counter: str) -> dict[str, str]:
    """`status` and `reason` of a size or cost (point 1).

    counter: the counters that give the printed digits, "" if none does. posebook's own one is named 'all' or
    'exact'. value: the result of the first of them.
    """
    if not counter:
        return {"status": DIFFERS, "reason": _gap(value, printed)}
    own, how = counter.startswith(("all", "exact")), roundings(value, printed)
    if own and how:
        return {"status": AGREES, "reason": "" if "rounded" in how else "truncated"}
    notes = [] if own else [f"counter {counter}"]
    return _by("; ".join(notes if how else [*notes, "last zero ignored"]))


def _by(convention: str) -> dict[str, str]:
    return {"status": CONVENTION, "reason": convention}


def _gap(value: float, printed: str) -> str:
    """The difference to the printed value, with a sign and as many decimals."""
    gap = format_like(abs(value - float(printed)), printed)
    return f"{'+' if value > float(printed) else '−'}{gap}"


def accuracy_status(
    printed: str, value: float, conventions: Sequence[str] = (), other: str = "", other_convention: str = ""
) -> dict[str, str]:
    """`status` and `reason` of an accuracy or error (point 2).

    conventions: in what the measurement differs from the printed protocol. other: a second measurement as
    text, by other_convention.
    """
    if format_like(value, printed) == printed:
        return _by("; ".join(conventions)) if conventions else {"status": AGREES, "reason": ""}
    if other == printed:
        return _by(other_convention)
    return {"status": DIFFERS, "reason": "; ".join([_gap(value, printed), *conventions])}
