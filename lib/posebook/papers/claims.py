"""The audit of a paper: its claims, the finding for each claim, and the resulting verdict.

data/claims.csv has one line for each claim: paper, id, location in the text, the claim (a short quote or a
close paraphrase) and its printed numbers, 'name=value; name=value'. A page of notebooks/audit has a finding
for every claim of its paper.

1. The verdict follows from whether the claim holds, which is computed. If this is unknown (no record, no
   data, or part of the text is lost), the claim cannot be tested here. The finding then states the reason
   and what would test the claim.
2. `basis` states the evidence: a built model, a recorded run, or only the authors' own numbers. In the last
   case, "confirmed" means that the text agrees with itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from posebook import paths
from posebook.utils import unknown_name_error

CLAIMS = paths.DATA / "claims.csv"
CONFIRMED, DIFFERS, UNTESTED = VERDICTS = ("confirmed", "differs", "cannot be tested here")
BASES = {"net": "computed on the model", "run": "measured in a run", "text": "the authors' own numbers"}


@dataclass(frozen=True)
class Claim:
    """A claim of a paper: its location, its text, and its printed numbers by name."""

    where: str
    text: str
    figures: dict[str, str]


@dataclass(frozen=True)
class Finding:
    """The result for one claim. `why` and `would` are set only if the claim cannot be tested."""

    found: str
    verdict: str  # one of VERDICTS
    rule: str  # that determines the verdict, with its tolerance
    evidence: str  # '#anchor' of the page, or another page
    basis: str  # one of BASES
    why: str = ""  # the claim cannot be tested
    would: str = ""  # what would test it, with commands between backticks


def load_claims(paper: str, path: Path = CLAIMS) -> dict[str, Claim]:
    """A paper's claims by id, in the order of the file.

    Raises ValueError for an unknown paper or a duplicate id.
    """
    lines = pd.read_csv(paths.require(path), dtype=str, keep_default_na=False)
    if paper not in set(lines["paper"]):
        raise unknown_name_error(paper, lines["paper"].unique(), "paper")
    lines = lines[lines["paper"] == paper]
    if duplicates := sorted(lines["id"][lines["id"].duplicated()]):
        raise ValueError(f"{path.name} has duplicate ids for {paper}: {', '.join(duplicates)}")
    return {
        line["id"]: Claim(
            line["where"],
            line["claim"],
            dict(pair.split("=", 1) for pair in line["figures"].split("; ") if pair),
        )
        for line in lines.to_dict("records")
    }


def rounds_to(value: float, printed: str) -> bool:
    """Whether a value equals the printed one to its last digit, i.e. within half a unit of that digit."""
    return abs(value - float(printed)) <= 0.5 * 10.0 ** -len(printed.partition(".")[2]) + 1e-9


def make_finding(
    holds: bool | None,
    found: str,
    rule: str,
    evidence: str,
    basis: str = "net",
    why: str = "",
    would: str = "",
) -> Finding:
    """A finding whose verdict follows from `holds`. None means unknown and requires `why` and `would`.

    Raises ValueError if these are missing, or if the basis is not one of BASES.
    """
    if basis not in BASES:
        raise unknown_name_error(basis, BASES, "basis")
    if holds is None and not (why and would):
        raise ValueError(f"{found!r} cannot be tested: state the reason (`why`) and what `would` test it")
    if holds is None:
        return Finding(found, UNTESTED, rule, evidence, basis, why, would)
    return Finding(found, CONFIRMED if holds else DIFFERS, rule, evidence, basis)


def check_reproduced(cells: Sequence[Mapping], within: float, evidence: str) -> Finding:
    """Whether measured accuracies are within a tolerance of the printed ones.

    cells: rows of tables.build_table. within: the tolerance in percentage points.
    """
    rule = f"within {within:.1f} points of the printed value"
    if missing := [cell for cell in cells if not cell["measured"]]:
        printed = ", ".join(f"{cell['column']} {cell['published']}" for cell in cells)
        commands = _missing_commands(missing)
        return make_finding(None, f"printed: {printed}", rule, evidence, "text", "not measured", commands)
    holds = all(abs(float(cell["measured"]) - float(cell["published"])) <= within for cell in cells)
    results = (f"{cell['row']}: {cell['measured']}, {cell['measured_boxes']} boxes" for cell in cells)
    return make_finding(holds, "; ".join(results), rule, evidence, "run")


def check_margin(first: Mapping, second: Mapping, evidence: str, note: str = "") -> Finding:
    """Whether one cell is ahead of another by at least half of the printed difference.

    first, second: rows of tables.build_table. Only measurements with the same boxes are compared. note: is
    appended to the printed difference while there is no such measurement.
    """
    printed = float(first["published"]) - float(second["published"])
    rule = "at least half of the printed difference, both measured with the same boxes"
    a, b = ({cell[f"{key}_boxes"]: cell[key] for key in ("other", "measured")} for cell in (first, second))
    for boxes in sorted(a.keys() & b.keys() - {""}):  # the first source of boxes decides
        gain = float(a[boxes]) - float(b[boxes])
        result = f"{gain:+.2f} measured, {printed:+.2f} printed, {boxes} boxes"
        return make_finding(gain >= printed / 2, result, rule, evidence, "run")
    reason, commands = "not both measured with the same boxes", _missing_commands([first, second])
    return make_finding(None, f"printed: {printed:+.2f}{note}", rule, evidence, "text", reason, commands)


def _missing_commands(cells: Sequence[Mapping]) -> str:
    """The commands that would measure these cells; for a cell without one, its missing weights or recipe."""
    commands = [f"`{cell['command']}` {cell['cost']}".strip() for cell in cells if cell["command"]]
    missing = [f"weights or a recipe for {cell['row']}" for cell in cells if not cell["command"]]
    return "; ".join(dict.fromkeys(commands + missing))


def match_findings(paper: str, findings: dict[str, Finding]) -> list[tuple[Claim, Finding]]:
    """Each claim with its finding; raises ValueError unless the ids of claims and findings are the same."""
    claims = load_claims(paper)
    if unmatched := sorted(claims.keys() ^ findings.keys()):
        raise ValueError(f"claims without a finding, or findings without a claim: {', '.join(unmatched)}")
    return [(claim, findings[name]) for name, claim in claims.items()]


def tally(counts: dict[str, int]) -> list[str]:
    """The number of claims with each verdict in words: '8 confirmed', '6 differ', ..."""
    return [f"{n} {verdict if n == 1 or verdict != DIFFERS else 'differ'}" for verdict, n in counts.items()]


def audit_record(paper: str, findings: dict[str, Finding], name: str) -> dict[str, Any]:
    """The fields of an audit page's record: the count of each verdict, and every finding."""
    verdicts = [finding.verdict for _, finding in match_findings(paper, findings)]
    return {
        "kind": "audit",
        "name": name,
        "model": paper,
        "dataset": None,
        "parameters": {},
        "protocol": {},
        "metrics": {verdict: verdicts.count(verdict) for verdict in VERDICTS},
        "findings": {key: asdict(finding) for key, finding in findings.items()},
    }
