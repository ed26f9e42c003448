"""The stored verdicts are those of the audits, which need the rendered people of `make reproduce`."""

import pytest

from helpers import ROOT
from posebook.papers import claims
from posebook.report import notebooks

pytestmark = pytest.mark.pages


def test_audits_give_the_stored_verdicts():
    """Executes the evidence of every claim, with the archived records only."""
    people = ROOT / "data" / "synthetic"
    assert (people / "val").is_dir(), "no synthetic people: run `make reproduce` first"
    computed = {(verdict.paper, verdict.id): verdict.finding for verdict in notebooks.run_audits(people)}
    stored = {(verdict.paper, verdict.id): verdict.finding for verdict in claims.load_verdicts()}
    changed = {key for key in stored.keys() | computed.keys() if stored.get(key) != computed.get(key)}
    assert not changed, "run python -m posebook.report verdicts"
