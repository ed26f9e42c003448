"""Claims, findings and verdicts; every claim has a finding on its paper's page."""

import ast
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from helpers import ROOT
from posebook.papers import claims
from posebook.papers.claims import BASES, CLAIMS, VERDICTS, load_claims, make_finding

PAGES = sorted((ROOT / "notebooks" / "audit").glob("*.ipynb"))
LINES = pd.read_csv(CLAIMS, dtype=str, keep_default_na=False)


def sources(path: Path, kind: str) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def constants(path: Path) -> dict[str, list[str]]:
    """The paper, the links to evidence and all other texts in the code of a page."""
    found: dict[str, list[str]] = {"paper": [], "texts": [], "evidence": []}
    for node in ast.walk(ast.parse("\n".join(sources(path, "code")))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "claims.load_claims":
            found["paper"].append(node.args[0].value)
        elif isinstance(node, ast.Constant) and re.match(r"#\w|\.\./", str(node.value)):
            found["evidence"].append(node.value)
        elif isinstance(node, ast.Constant):
            found["texts"].append(str(node.value))
    return found


# transcribed claims and audit pages


def test_every_paper_has_one_page():
    papers = [paper for path in PAGES for paper in constants(path)["paper"]]
    assert sorted(papers) == sorted(LINES["paper"].unique())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_claim_is_shown_once_on_its_page_and_links_are_valid(path):
    page = constants(path)
    shown = [
        name
        for call in re.findall(r"verdict_cards\(.+?, found, (.+?)\)", "\n".join(sources(path, "code")))
        for name in (call if call.startswith('"') else page_variable(path, call)).strip('"').split()
    ]
    assert sorted(shown) == sorted(load_claims(page["paper"][0]))
    headings = re.findall(r"^#+ (.+)$", "\n".join(sources(path, "markdown")), re.MULTILINE)
    anchors = {"#" + heading.replace(" ", "-") for heading in headings}
    for link in page["evidence"]:
        assert link in anchors if link.startswith("#") else (path.parent / link).is_file(), link


def page_variable(path: Path, name: str) -> str:
    """The text that the code of a page assigns to a name."""
    return re.findall(rf'^{name} = "(.+)"$', "\n".join(sources(path, "code")), re.MULTILINE)[0]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_verdict_is_hard_coded(path):
    assert not [verdict for verdict in VERDICTS if f'"{verdict}"' in "\n".join(sources(path, "code"))]


def test_claims_are_complete():
    assert (LINES[["paper", "id", "where", "claim"]] != "").all(axis=None)
    assert not LINES.duplicated(["paper", "id"]).any()
    assert load_claims("LAPX")["row-3"].figures == {"channels": "190", "params": "2.25"}


def test_unknown_paper_and_duplicate_id_raise(tmp_path):
    with pytest.raises(ValueError, match="unknown paper 'LAPY'; did you mean LAPX"):
        load_claims("LAPY")
    twice = "paper,id,where,claim,figures\nA,one,1,x,\nA,one,2,y,a=1; b=2\n"
    (tmp_path / "claims.csv").write_text(twice)
    with pytest.raises(ValueError, match="claims.csv has duplicate ids for A: one"):
        load_claims("A", tmp_path / "claims.csv")


# verdicts


@pytest.mark.parametrize("why", ["", "no data"])
@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("holds", [True, False, None])
def test_verdict_follows_from_holds_and_basis(holds, basis, why):
    verdict = make_finding(holds, "1.0", "equal", "#Sizes", basis, why, decide="`make it`").verdict
    if holds is None:
        expected = "not tested" if why else "inconclusive"
    elif holds:
        expected = "self-consistent" if basis in ("text", "exact arithmetic") else "reproduced"
    else:
        expected = "contradicted" if basis in ("authors' code", "exact arithmetic") else "inconclusive"
    assert verdict == expected


def test_decided_finding_has_no_reason():
    found = make_finding(True, "1.0", "equal", "#Sizes", "run", "no data", "`make it`", ["a"])
    assert (found.why, found.decide, found.records) == ("", "", ("a",))


@pytest.mark.parametrize("holds, why", [(False, ""), (None, ""), (None, "no data")])
def test_undecided_finding_must_state_what_would_decide_it(holds, why):
    with pytest.raises(ValueError, match="'1.0' is .*: state what would decide the claim"):
        make_finding(holds, "1.0", "equal", "#Sizes", "run", why)


def test_unknown_basis_raises():
    with pytest.raises(ValueError, match="unknown basis 'runs'; did you mean run"):
        make_finding(True, "1.0", "equal", "#Sizes", "runs")


def test_make_findings_share_evidence_and_basis():
    found = claims.make_findings("#Sizes", "text", {"a": (True, "1", "equal"), "b": (True, "2", "more")})
    assert found["b"] == make_finding(True, "2", "more", "#Sizes", "text") and [*found] == ["a", "b"]


# stored verdicts


def test_every_claim_has_a_stored_verdict():
    verdicts = claims.load_verdicts()
    stored = [(verdict.paper, verdict.id) for verdict in verdicts]
    assert stored == list(zip(LINES["paper"], LINES["id"], strict=True)), "python -m posebook.report verdicts"
    assert {verdict.verdict for verdict in verdicts} == set(VERDICTS)
    assert [verdict.id for verdict in claims.load_verdicts("HoT")] == [*load_claims("HoT")]


def test_stored_verdicts_obey_the_rules():
    for verdict in claims.load_verdicts():
        finding = verdict.finding
        assert finding.basis in BASES and finding.rule and finding.found
        if verdict.verdict == "contradicted":
            assert finding.basis in ("authors' code", "exact arithmetic"), verdict.id
        if verdict.verdict in ("inconclusive", "not tested"):
            assert finding.decide, verdict.id
        assert bool(finding.why) == (verdict.verdict == "not tested"), verdict.id
        for name in finding.records:
            assert (ROOT / "data" / "measured" / f"{name}.json").is_file(), name


def test_stored_verdicts_survive_a_round_trip(tmp_path):
    verdicts = claims.load_verdicts()
    path = claims.save_verdicts(verdicts[::-1], tmp_path / "verdicts.json")
    assert claims.load_verdicts(path=path) == verdicts


# table, cards and record of a page


def findings() -> dict:
    known = dict.fromkeys(load_claims("HoT"), make_finding(True, "as printed <1>", "all", "#Sizes", "run"))
    where = "../tables/speed.ipynb"
    untested = make_finding(None, "-", "all", where, "text", "there is no record", "`make it`", ["a-record"])
    return known | {"extensive": untested}


def test_missing_or_additional_finding_raises():
    with pytest.raises(ValueError, match="without a finding, or findings without a claim: extensive"):
        claims.match_findings("HoT", {k: found for k, found in findings().items() if k != "extensive"})
    with pytest.raises(ValueError, match="without a claim: another"):
        claims.match_findings("HoT", findings() | {"another": findings()["extensive"]})


def test_record_counts_verdicts_and_gives_them_back():
    record = claims.audit_record("HoT", findings(), "audit-hot-demo")
    assert record["metrics"] == dict.fromkeys(VERDICTS, 0) | {"reproduced": 10, "not tested": 1}
    assert {v.id: v.finding for v in claims.recorded_verdicts(record)} == findings()
