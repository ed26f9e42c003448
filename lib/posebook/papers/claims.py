"""The audit of a paper: its claims, what was found of each here, and the verdict that follows.

data/claims.csv holds a line a claim: paper, id, where it stands in the text, the claim (quoted shortly or
paraphrased closely) and its figures as printed, 'name=value; name=value'. A page of notebooks/audit has a
finding for every claim of its paper.

1. A verdict follows from whether the claim holds, and that is computed. Where it is not known (no record, no
   data, a text of which something is lost) the claim cannot be tested here, and the finding says why, and
   what would test it.
2. `basis` says what stands against the claim: a net that was built, a run on record, or nothing but figures
   of the authors themselves. Of the last, "confirmed" means that the text agrees with itself.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from posebook import paths
from posebook.utils import unknown_name_error

CLAIMS = paths.DATA / "claims.csv"
CONFIRMED, DIFFERS, UNTESTED = VERDICTS = ("confirmed", "differs", "cannot be tested here")
BASES = {"net": "computed on the net", "run": "measured in a run", "text": "the authors' own figures"}


@dataclass(frozen=True)
class Claim:
    """What a paper says: where, in which words, and its printed figures by name."""

    where: str
    text: str
    figures: dict[str, str]


@dataclass(frozen=True)
class Finding:
    """What was found of a claim; `why` it cannot be tested here and what `would` test it, or both empty."""

    found: str
    verdict: str  # of VERDICTS
    rule: str  # by which the verdict follows, its tolerance with it
    evidence: str  # '#anchor' of the page, or another page
    basis: str  # of BASES
    why: str = ""
    would: str = ""  # commands between backticks


def load_claims(paper: str, path: Path = CLAIMS) -> dict[str, Claim]:
    """A paper's claims by id, in the file's order; ValueError for an unknown paper or an id used twice."""
    lines = pd.read_csv(path, dtype=str, keep_default_na=False)
    if paper not in set(lines["paper"]):
        raise unknown_name_error(paper, lines["paper"].unique(), "paper")
    lines = lines[lines["paper"] == paper]
    if twice := sorted(lines["id"][lines["id"].duplicated()]):
        raise ValueError(f"{path.name} has {', '.join(twice)} of {paper} twice")
    pairs = [dict(p.split("=", 1) for p in text.split("; ") if p) for text in lines["figures"]]
    rows = zip(lines["id"], lines["where"], lines["claim"], pairs, strict=True)
    return {name: Claim(where, text, figures) for name, where, text, figures in rows}


def rounds_to(value: float, printed: str) -> bool:
    """Whether a value is the printed one to its last digit: no more than half of that digit away."""
    return abs(value - float(printed)) <= 0.5 * 10.0 ** -len(printed.partition(".")[2]) + 1e-9


def make_finding(
    holds: bool | None, found: str, rule: str, evidence: str, basis: str = "net", why="", would=""
) -> Finding:
    """A finding whose verdict follows from `holds`; for None, not known, `why` and `would` must be given.

    Raises ValueError where they are not, and for a basis that is none of BASES.
    """
    if basis not in BASES:
        raise unknown_name_error(basis, BASES, "basis")
    if holds is None and not (why and would):
        raise ValueError(f"{found!r} cannot be tested: say `why`, and what `would` test it")
    verdict = UNTESTED if holds is None else CONFIRMED if holds else DIFFERS
    return Finding(found, verdict, rule, evidence, basis, *((why, would) if holds is None else ()))


def check_reproduced(cells: list[dict], within: float, evidence: str) -> Finding:
    """Whether accuracies, lines of tables.build_table, are within so many points of the printed ones."""
    rule = f"within {within:.1f} points of the printed"
    if empty := [cell for cell in cells if not cell["measured"]]:
        printed = ", ".join(f"{cell['column']} {cell['published']}" for cell in cells)
        return make_finding(
            None, f"printed: {printed}", rule, evidence, "text", "not measured", _missing_commands(empty)
        )
    holds = all(abs(float(cell["measured"]) - float(cell["published"])) <= within for cell in cells)
    said = "; ".join(f"{cell['row']}: {cell['measured']}, {cell['measured_boxes']} boxes" for cell in cells)
    return make_finding(holds, said, rule, evidence, "run")


def check_margin(first: dict, second: dict, evidence: str, known: str = "") -> Finding:
    """Whether a cell of a tables.build_table is ahead of another by half at least of what the printed two
    are.

    Both measured in the same boxes; known: what else bears on it, told while they are not.
    """
    printed = float(first["published"]) - float(second["published"])
    rule = "by at least half of that, both measured in the same boxes"
    a, b = ({cell[f"{kind}_boxes"]: cell[kind] for kind in ("other", "measured")} for cell in (first, second))
    for boxes in sorted(a.keys() & b.keys() - {""}):
        gain = float(a[boxes]) - float(b[boxes])
        told = f"{gain:+.2f} for the printed {printed:+.2f}, {boxes} boxes"
        return make_finding(gain >= printed / 2, told, rule, evidence, "run")
    told, why = f"printed: {printed:+.2f}{known}", "not measured, both in the same boxes"
    return make_finding(None, told, rule, evidence, "text", why, _missing_commands([first, second]))


def _missing_commands(cells: list[dict]) -> str:
    """The commands that would fill cells which are not measured."""
    lacking = [f"weights or a recipe of {cell['row']}" for cell in cells if not cell["command"]]
    costs = [f"`{cell['command']}` {cell['cost']}".strip() for cell in cells if cell["command"]]
    return "; ".join(dict.fromkeys(costs + lacking))


def match_findings(paper: str, findings: dict[str, Finding]) -> list[tuple[Claim, Finding]]:
    """Claims beside their findings; ValueError unless every claim has one, and nothing else."""
    known = load_claims(paper)
    if wrong := sorted(known.keys() ^ findings.keys()):
        raise ValueError(f"claims without a finding, or findings without a claim: {', '.join(wrong)}")
    return [(claim, findings[name]) for name, claim in known.items()]


def tally(counts: dict[str, int]) -> list[str]:
    """How many claims have which verdict, in words: '8 confirmed', '6 differ', ..."""
    return [f"{n} {verdict if n == 1 or verdict != DIFFERS else 'differ'}" for verdict, n in counts.items()]


def audit_record(paper: str, findings: dict[str, Finding], name: str) -> dict:
    """The fields of a page's record: how many claims have which verdict, and every finding."""
    verdicts = [found.verdict for _, found in match_findings(paper, findings)]
    about = {"kind": "audit", "name": name, "model": paper, "dataset": None, "parameters": {}, "protocol": {}}
    return about | {
        "metrics": {verdict: verdicts.count(verdict) for verdict in VERDICTS},
        "findings": {key: asdict(found) for key, found in findings.items()},
    }
