"""The audit of a paper: its claims, a finding for each claim, and the verdict that follows.

data/claims.csv has one line for each claim: paper, id, location in the text, the claim (a short quote or a
close paraphrase) and its printed numbers, 'name=value; name=value'. A page of notebooks/audit has a finding
for every claim of its paper. data/verdicts.json stores all findings (`load_verdicts`);
`python -m posebook.report verdicts` runs the pages and writes it.

A verdict is computed from the evidence by `make_finding`. It is one of five:

- reproduced: computed or measured here, and the result agrees with the claim under the stated rule.
- self-consistent: only the paper's own words and numbers were compared, and they agree. This does not mean
  that a run would give these numbers.
- contradicted: the authors' own code, or exact arithmetic on the printed numbers, shows otherwise.
- inconclusive: the evidence concerns the claim but does not decide it. `decide` states what would.
- not tested: nothing that was computed here concerns the claim. `why` states the reason, and `decide` what
  would test it.

1. A comparison of accuracies needs a 95 % interval, paired over images or over seeds. It is inconclusive if
   the interval contains the deciding value, or lies on the wrong side of it: a run is neither the authors'
   code nor exact arithmetic. A comparison of single printed runs is inconclusive, too. Whether a stated
   difference is that of two printed numbers is arithmetic.
2. No verdict rests on a design that this project chose because the paper does not publish it. A model with
   the layout and the output of the authors' released code counts as their code; tests check both.
3. A small study on the bundled synthetic data tests whether a method has the claimed effect under the
   conditions of the study. It never tests a printed number.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from posebook import paths
from posebook.evaluation import seeds
from posebook.papers import lifting_tables, studies, tables
from posebook.papers.cells import box_source
from posebook.papers.statuses import VERDICTS
from posebook.utils import atomic_write, check_name

CLAIMS = paths.DATA / "claims.csv"
VERDICT_FILE = paths.DATA / "verdicts.json"
REPRODUCED, CONSISTENT, CONTRADICTED, INCONCLUSIVE, UNTESTED = VERDICTS
BASES = {
    "authors' code": "the authors' released code, or a model with its layout and output",
    "exact arithmetic": "exact arithmetic on the printed numbers",
    "own code": "code of this project",
    "run": "runs with the paper's data and protocol",
    "study": "a small study on the bundled synthetic data",
    "text": "the paper's own words and numbers",
}
OWN_WORDS = ("exact arithmetic", "text")  # agreement shows only that the paper agrees with itself
CAN_CONTRADICT = ("authors' code", "exact arithmetic")


@dataclass(frozen=True)
class Claim:
    """A claim of a paper: its location, its text, and its printed numbers by name."""

    where: str
    text: str
    figures: dict[str, str]


@dataclass(frozen=True)
class Finding:
    """The result for one claim."""

    found: str
    verdict: str  # one of VERDICTS
    rule: str  # that determines the verdict, with its tolerance
    evidence: str  # '#anchor' of the page, or another page
    basis: str  # one of BASES
    why: str = ""  # the claim is not tested
    decide: str = ""  # what would decide or test it, with commands between backticks
    records: tuple[str, ...] = ()  # names of the records that were used


@dataclass(frozen=True)
class Verdict:
    """A stored finding with its paper and the id of its claim."""

    paper: str
    id: str
    finding: Finding

    @property
    def verdict(self) -> str:
        """One of VERDICTS."""
        return self.finding.verdict


def load_claims(paper: str, path: Path = CLAIMS) -> dict[str, Claim]:
    """A paper's claims by id, in the order of the file.

    Raises ValueError for an unknown paper or a duplicate id.
    """
    lines = pd.read_csv(paths.require(path), dtype=str, keep_default_na=False)
    check_name(paper, lines["paper"].unique(), "paper")
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


# findings


def make_finding(
    holds: bool | None,
    found: str,
    rule: str,
    evidence: str,
    basis: str,
    why: str = "",
    decide: str = "",
    records: Iterable[str] = (),
) -> Finding:
    """A finding whose verdict follows from `holds` and `basis` (see the module docstring).

    True gives reproduced, or self-consistent on a basis in OWN_WORDS. False gives contradicted on a basis in
    CAN_CONTRADICT, otherwise inconclusive. None gives not tested if `why` is stated, otherwise inconclusive.
    It has eight parameters because a stored finding has eight fields; the verdict replaces `holds`.
    Raises ValueError for an unknown basis, and if the verdict is inconclusive or not tested without `decide`.
    """
    check_name(basis, BASES, "basis")
    if holds is None:
        verdict = UNTESTED if why else INCONCLUSIVE
    elif holds:
        verdict = CONSISTENT if basis in OWN_WORDS else REPRODUCED
    else:
        verdict = CONTRADICTED if basis in CAN_CONTRADICT else INCONCLUSIVE
    if verdict not in (INCONCLUSIVE, UNTESTED):
        return Finding(found, verdict, rule, evidence, basis, records=tuple(records))
    if not decide:
        raise ValueError(f"{found!r} is {verdict}: state what would decide the claim (`decide`)")
    return Finding(found, verdict, rule, evidence, basis, why, decide, tuple(records))


def make_findings(
    evidence: str, basis: str, results: Mapping[str, tuple[bool, str, str]]
) -> dict[str, Finding]:
    """Findings with the same evidence and basis, from (holds, found, rule) by id of the claim."""
    return {name: make_finding(*result, evidence, basis) for name, result in results.items()}


def rounds_to(value: float, printed: str) -> bool:
    """Whether a value equals the printed one to its last digit, i.e. within half a unit of that digit."""
    return abs(value - float(printed)) <= _half_unit(printed) + 1e-9


def _half_unit(printed: str) -> float:
    """Half a unit of the last printed digit."""
    return 0.5 * 10.0 ** -len(printed.partition(".")[2])


def difference_agrees(minuend: str, subtrahend: str, printed: str) -> bool:
    """Whether two printed numbers can have the printed difference, given the rounding of all three."""
    tolerance = sum(map(_half_unit, (minuend, subtrahend, printed)))
    return abs(float(minuend) - float(subtrahend) - float(printed)) <= tolerance + 1e-9


def printed_interval(
    difference: float, deviation: str, runs: tuple[int, int], freedom: int
) -> tuple[float, float]:
    """The 95 % t interval of a difference of two printed means, given the printed deviation of one run.

    It is computed for the largest deviation that rounds to the printed one, so that no verdict depends on the
    rounding. runs: number of runs behind either mean. freedom: runs behind the deviation, less one.
    """
    largest = float(deviation) + _half_unit(deviation)
    half = seeds.half_width(largest * sum(1 / n for n in runs) ** 0.5, freedom)
    return difference - half, difference + half


def compare_seeds(
    records: Sequence[dict],
    arms: tuple[str, str],
    metrics: Mapping[str, str],
    evidence: str,
    *,
    deciding: float = 0.0,
    sign: int = 1,
    scale: float = 1.0,
    decide: str = "",
) -> Finding:
    """Whether one arm of a small study is ahead of another, by an interval over seeds (point 1).

    arms: names of the records with '*' for the number of the seed, the claimed winner first. metrics: the
    compared metrics and their units; the claim holds if every interval lies above `deciding`. sign: -1 for
    errors. scale: from the unit of the records to the stated one. decide: is appended to what would decide
    the claim; the command for missing runs if an arm has fewer than two. The keywords describe the metric,
    which is why there are more than eight parameters.
    """
    limits = ", ".join(dict.fromkeys(f"{deciding:g} {unit}" for unit in metrics.values()))
    rule = f"the 95 % interval of the gain over seeds lies above {limits}"
    runs = {arm: by_seed(records, arm) for arm in arms}
    names = [run["name"] for arm in arms for run in runs[arm].values()]
    if few := [arm for arm in arms if len(runs[arm]) < 2]:
        why = f"fewer than two archived runs of {' and '.join(few)}"
        return make_finding(None, why, rule, evidence, "study", why, decide or "several seeds of both", names)
    holds, below, parts, detectable = True, False, [], []
    for metric, unit in metrics.items():
        values = [[sign * scale * run["metrics"][metric] for run in runs[arm].values()] for arm in arms]
        result = seeds.difference(*values)
        holds &= result.low > deciding
        below |= result.high < deciding
        where = ", the opposite of the claim" if result.high < deciding else ""
        interval = f"95 % interval {result.low:+.1f} to {result.high:+.1f}{where}"
        parts.append(f"gain of {metric} {result.value:+.1f} {unit} ({interval})")
        detectable.append(f"{deciding + result.detectable:+.1f} {unit}")
    counts = " and ".join(str(len(runs[arm])) for arm in arms)
    needed = (
        f"more seeds; with {counts} seeds, a true gain of {' and '.join(detectable)} would be found in "
        f"{100 * seeds.POWER:.0f} % of such studies"
    )
    if below and decide:  # more seeds would not change an interval that lies below the limit
        needed, decide = decide, ""
    found = f"{'; '.join(parts)}; {counts} seeds"
    return make_finding(
        holds, found, rule, evidence, "study", "", f"{needed}{decide and '; ' + decide}", names
    )


def by_seed(records: Sequence[dict], names: str) -> dict[int, dict]:
    """The records with these names by seed, '*' standing for its number; the last record of each seed.

    A record with the name of a study's run or of a pruning variant counts only if it has its settings. Of
    records with different parameters, those with the most frequent ones count.
    """
    pattern = re.escape(names).replace(r"\*", r"\d+")
    runs = [
        record
        for record in studies.without_others(records)
        if lifting_tables.has_options_of_its_name(record)
        if re.fullmatch(pattern, record["name"])  # others may have no seed
    ]
    runs = lifting_tables.with_same_settings(runs)
    return {run["seed"]: run for run in sorted(runs, key=lambda run: run["seed"])}


def check_reproduced(cells: Sequence[Mapping], within: float, evidence: str) -> Finding:
    """Whether the 95 % intervals of measured accuracies lie within a tolerance of the printed values.

    cells: rows of tables.build_table. within: the tolerance in percentage points. A value that was measured
    with boxes of another source than the printed one decides nothing.
    """
    rule = f"the 95 % interval lies within {within:.1f} points of the printed value, with boxes of its source"
    if missing := [cell for cell in cells if not cell["measured"]]:
        printed = ", ".join(f"{cell['column']} {cell['published']}" for cell in cells)
        why = "no training with this data and protocol is on record"
        return make_finding(
            None, f"printed: {printed}", rule, evidence, "text", why, _missing_commands(missing)
        )
    intervals = [_interval(cell) for cell in cells]
    results = [f"{cell['row']}: {cell['measured']}, {cell['measured_boxes']} boxes" for cell in cells]
    names = [Path(cell["record"]).stem for cell in cells if cell["record"]]
    decide = (
        "archived predictions of the run, or several seeds" if None in intervals else "the authors' weights"
    )
    if other := [
        cell["row"] for cell in cells if box_source(cell["measured_boxes"]) != box_source(cell["boxes"])
    ]:
        decide = f"a measurement of {', '.join(other)} with the boxes of the paper"
    holds = not other and all(
        interval is not None
        and interval[0] >= float(cell["published"]) - within
        and interval[1] <= float(cell["published"]) + within
        for cell, interval in zip(cells, intervals, strict=True)
    )
    return make_finding(holds, "; ".join(results), rule, evidence, "run", "", decide, names)


def _interval(cell: Mapping) -> tuple[float, float] | None:
    """The 95 % interval of a measured cell: over images if it is stated, otherwise over seeds."""
    if not (text := cell["interval"] or cell["seed_interval"]):
        return None
    low, high = map(float, text.split(" to "))
    return low, high


def check_margin(table: pd.DataFrame, first: str, second: str, evidence: str) -> Finding | None:
    """Whether one row is ahead of another by at least half of the printed difference, paired over images.

    table: of tables.build_table. Returns None unless both rows were measured with the same boxes and their
    predictions are archived.
    """
    rows = table[table["record"] != ""].drop_duplicates("row").set_index("row")
    if (
        not {first, second} <= set(rows.index)
        or rows.at[first, "measured_boxes"] != rows.at[second, "measured_boxes"]
    ):
        return None
    pairs = tables.paired_differences(table[table["row"].isin([first, second])])
    if pairs.empty:
        return None
    pair = pairs.iloc[0]
    value, low, high = (pair[key] for key in ("difference", "low", "high"))
    if pair["row"] == second:
        value, low, high = -value, -high, -low
    published = table[table["column"] == pair["column"]].set_index("row")["published"].astype(float)
    printed = published[first] - published[second]
    found = f"{value:+.2f} measured (95 % interval {low:+.2f} to {high:+.2f}), {printed:+.2f} printed"
    rule = "the paired 95 % interval lies above half of the printed difference"
    names = [Path(rows.at[row, "record"]).stem for row in (first, second)]
    boxes = rows.at[first, "measured_boxes"]
    return make_finding(
        low > printed / 2,
        f"{found}, {boxes} boxes",
        rule,
        evidence,
        "run",
        "",
        "several seeds of both",
        names,
    )


def _missing_commands(cells: Sequence[Mapping]) -> str:
    """The commands that would measure these cells; for a cell without one, its missing weights or recipe."""
    commands = [f"`{cell['command']}`" for cell in cells if cell["command"]]
    missing = [f"weights or a recipe for {cell['row']}" for cell in cells if not cell["command"]]
    return "; ".join(dict.fromkeys(commands + missing))


# all findings of a paper, and of all papers


def match_findings(paper: str, findings: Mapping[str, Finding]) -> list[tuple[Claim, Finding]]:
    """Each claim with its finding; raises ValueError unless the ids of claims and findings are the same."""
    claims = load_claims(paper)
    if unmatched := sorted(claims.keys() ^ findings.keys()):
        raise ValueError(f"claims without a finding, or findings without a claim: {', '.join(unmatched)}")
    return [(claim, findings[name]) for name, claim in claims.items()]


def audit_record(paper: str, findings: Mapping[str, Finding], name: str) -> dict[str, Any]:
    """The fields of an audit page's record: the count of each verdict, and every finding in their order."""
    match_findings(paper, findings)
    verdicts = [finding.verdict for finding in findings.values()]
    return {
        "kind": "audit",
        "name": name,
        "model": paper,
        "dataset": None,
        "parameters": {},
        "protocol": {},
        "metrics": {verdict: verdicts.count(verdict) for verdict in VERDICTS},
        "findings": {key: asdict(findings[key]) for key in load_claims(paper)},
    }


def recorded_verdicts(record: Mapping) -> list[Verdict]:
    """The findings of an audit page's record."""
    return [Verdict(record["model"], name, _finding(line)) for name, line in record["findings"].items()]


def _finding(line: dict[str, Any]) -> Finding:
    return Finding(**line | {"records": tuple(line["records"])})


def load_verdicts(paper: str = "", path: Path = VERDICT_FILE) -> list[Verdict]:
    """The stored verdicts of a paper, or of all, in the order of data/claims.csv. Nothing is run."""
    lines = json.loads(paths.require(path).read_text(encoding="utf-8"))
    verdicts = [Verdict(line.pop("paper"), line.pop("id"), _finding(line)) for line in lines]
    return [verdict for verdict in verdicts if paper in ("", verdict.paper)]


def save_verdicts(verdicts: Sequence[Verdict], path: Path = VERDICT_FILE) -> Path:
    """Write verdicts to data/verdicts.json, in the order of data/claims.csv."""
    lines = pd.read_csv(paths.require(CLAIMS), dtype=str, keep_default_na=False)
    order = {key: number for number, key in enumerate(zip(lines["paper"], lines["id"], strict=True))}
    ordered = sorted(verdicts, key=lambda verdict: order[verdict.paper, verdict.id])
    content = [{"paper": v.paper, "id": v.id} | asdict(v.finding) for v in ordered]
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
