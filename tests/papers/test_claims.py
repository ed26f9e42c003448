"""Claims, findings and verdicts; every claim has a finding on its paper's page."""

import ast
import json
import re
import subprocess
import sys

import nbformat
import pandas as pd
import pytest

from helpers import ROOT
from posebook.papers.claims import (
    CLAIMS,
    UNTESTED,
    VERDICTS,
    audit_record,
    check_margin,
    check_reproduced,
    load_claims,
    make_finding,
    match_findings,
    rounds_to,
    tally,
)
from posebook.report import html_tables

PAGES = sorted((ROOT / "notebooks" / "audit").glob("*.ipynb"))
LINES = pd.read_csv(CLAIMS, dtype=str, keep_default_na=False)


def sources(path, kind: str) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def written(path) -> dict[str, list[str]]:
    """The paper, the ids of findings and the links to evidence in the code of a page."""
    said = {"paper": [], "ids": [], "evidence": []}
    for node in ast.walk(ast.parse("\n".join(sources(path, "code")))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "claims.load_claims":
            said["paper"].append(node.args[0].value)
        elif isinstance(node, ast.Constant) and re.match(r"#\w|\.\./", str(node.value)):
            said["evidence"].append(node.value)
        elif isinstance(node, ast.Constant):
            said["ids"].append(node.value)
    return said


def cell(row="net", measured="", boxes="", other="", other_boxes="", published="70.0", command="make it"):
    known = dict(row=row, column="AP", published=published, measured=measured, measured_boxes=boxes)
    return known | dict(other=other, other_boxes=other_boxes, command=command, cost="")


# transcribed claims and audit pages


def test_every_paper_has_one_page():
    papers = [paper for path in PAGES for paper in written(path)["paper"]]
    assert sorted(papers) == sorted(LINES["paper"].unique())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_claim_is_on_its_page_and_links_are_valid(path):
    page = written(path)
    assert set(load_claims(page["paper"][0])) <= set(page["ids"])
    headings = re.findall(r"^#+ (.+)$", "\n".join(sources(path, "markdown")), re.MULTILINE)
    anchors = {"#" + heading.replace(" ", "-") for heading in headings}
    for link in page["evidence"]:
        assert link in anchors if link.startswith("#") else (path.parent / link).is_file(), link


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_quoted_claims_match_transcription(path):
    claims = load_claims(written(path)["paper"][0]).values()
    quoted = [source[2:] for source in sources(path, "markdown") if source.startswith("> ")]
    assert quoted and set(quoted) <= {f"{claim.text} ({claim.where})" for claim in claims}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_verdict_is_hard_coded(path):
    assert not [verdict for verdict in VERDICTS if f'"{verdict}"' in "\n".join(sources(path, "code"))]


def test_claims_are_complete():
    assert (LINES[["paper", "id", "where", "claim"]] != "").all(axis=None)
    assert not LINES.duplicated(["paper", "id"]).any()
    for paper in LINES["paper"].unique():
        assert 8 <= len(load_claims(paper)) <= 25
    assert load_claims("LAPX")["row-3"].figures == {"channels": "190", "params": "2.25"}


def test_unknown_paper_and_duplicate_id_raise(tmp_path):
    with pytest.raises(ValueError, match="unknown paper 'LAPY'; did you mean LAPX"):
        load_claims("LAPY")
    twice = "paper,id,where,claim,figures\nA,one,1,x,\nA,one,2,y,a=1; b=2\n"
    (tmp_path / "claims.csv").write_text(twice)
    with pytest.raises(ValueError, match="claims.csv has duplicate ids for A: one"):
        load_claims("A", tmp_path / "claims.csv")


# verdicts


@pytest.mark.parametrize("holds, verdict", [(True, "confirmed"), (False, "differs"), (None, UNTESTED)])
def test_verdict_follows_from_holds(holds, verdict):
    found = make_finding(holds, "1.0", "to the digit", "#Sizes", why="no record", would="`make it`")
    assert found.verdict == verdict
    assert (found.why, found.would) == (("no record", "`make it`") if holds is None else ("", ""))


@pytest.mark.parametrize("known", [{}, {"why": "no record"}, {"would": "`make it`"}])
def test_untested_finding_requires_reason_and_method(known):
    with pytest.raises(ValueError, match="cannot be tested: state the reason"):
        make_finding(None, "1.0", "to the digit", "#Sizes", **known)


def test_unknown_basis_raises():
    with pytest.raises(ValueError, match="unknown basis 'nets'; did you mean net"):
        make_finding(True, "1.0", "to the digit", "#Sizes", "nets")


@pytest.mark.parametrize(
    "value, printed, same",
    [(3.504155, "3.504", True), (2.3111, "2.30", False), (2.3111, "2.3", True), (0.25, "1.0", False)]
    + [(2.35, "2.3", True), (2.35, "2.4", True), (2.3501, "2.3", False), (210, "210", True)],
)
def test_rounds_to(value, printed, same):
    assert rounds_to(value, printed) is same


def test_check_reproduced_requires_all_cells():
    empty = check_reproduced([cell(measured="70.2", boxes="detector"), cell("other")], 1.0, "#A")
    assert (empty.verdict, empty.would) == (UNTESTED, "`make it`")
    near, far = (check_reproduced([cell(measured=m, boxes="detector")], 1.0, "#A") for m in ("70.9", "68.9"))
    assert (near.verdict, far.verdict) == ("confirmed", "differs")
    assert near.found == "net: 70.9, detector boxes" and near.basis == "run"


def test_check_margin_requires_same_boxes():
    first = cell("a", "72.0", "ground truth", "69.0", "detector", published="72.0")
    second = cell("b", "68.0", "detector", published="68.0")
    found = check_margin(first, second, "#A")
    assert (found.verdict, found.found) == ("differs", "+1.00 measured, +4.00 printed, detector boxes")
    assert check_margin(first | {"other": "70.0"}, second, "#A").verdict == "confirmed"
    alone = check_margin(first | {"other": "", "other_boxes": ""}, second, "#A", ", one run each")
    assert (alone.verdict, alone.found) == (UNTESTED, "printed: +4.00, one run each")


def test_cell_without_command_states_what_is_missing():
    found = check_margin(cell("a"), cell("b", command=""), "#A")
    assert found.would == "`make it`; weights or a recipe for b"


@pytest.mark.parametrize("differ, words", [(0, "0 differ"), (1, "1 differs"), (6, "6 differ")])
def test_tally(differ, words):
    assert tally({"confirmed": 1, "differs": differ}) == ["1 confirmed", words]


# table and record of a page


def findings(paper="LAPX") -> dict:
    known = dict.fromkeys(load_claims(paper), make_finding(True, "as printed <1>", "all", "#Sizes"))
    untested = make_finding(None, "-", "all", "../tables/speed.ipynb", "run", "no record", "`make it`")
    return known | {"m2": untested}


def test_missing_or_additional_finding_raises():
    with pytest.raises(ValueError, match="without a finding, or findings without a claim: m2"):
        match_findings("LAPX", {name: found for name, found in findings().items() if name != "m2"})
    with pytest.raises(ValueError, match="without a claim: m3"):
        match_findings("LAPX", findings() | {"m3": findings()["m2"]})


def test_record_counts_verdicts():
    record = audit_record("LAPX", findings(), "audit-lapx-demo")
    assert record["metrics"] == {"confirmed": 21, "differs": 0, UNTESTED: 1}
    assert record["findings"]["m2"]["why"] == "no record"


def test_verdict_table():
    shown = html_tables.verdict_table(match_findings("LAPX", findings())).data
    assert shown.count("<tr>") == 1 + len(findings())
    assert "as printed &lt;1&gt;" in shown and "<code>make it</code>" in shown
    assert '<a href="#Sizes">Sizes</a>' in shown and '<a href="../tables/speed.ipynb">speed</a>' in shown
    assert ">21 confirmed<" in shown and f">1 {UNTESTED}<" in shown


@pytest.mark.slow
def test_page_without_records_states_what_is_missing(tmp_path):
    page, out = ROOT / "notebooks/audit/starnet_pose.ipynb", tmp_path / "page.ipynb"
    command = [
        sys.executable,
        "-m",
        "posebook.report",
        "execute",
        str(page),
        str(out),
        "-p",
        "out_dir",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "records/audit-starnet_pose-demo.json").read_text())["findings"]
    assert found["params"]["verdict"] == found["fps"]["verdict"] == "confirmed"
    for name in ("ap", "gain-t", "occlusion", "faster", "ultrafast"):
        assert found[name]["verdict"] == UNTESTED and found[name]["why"] and found[name]["would"]
    (table,) = (c for c in nbformat.read(out, as_version=4).cells if "summary = display" in c.source)
    assert "20 claims" in table.outputs[0].data["text/html"]  # updated by the last cell
