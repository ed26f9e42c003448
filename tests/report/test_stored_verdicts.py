"""The command that runs the audits and stores their verdicts."""

import pytest

from helpers import ROOT
from posebook.papers import claims
from posebook.report import notebooks


def test_command_stores_the_verdicts_of_all_audits(tmp_path, monkeypatch, capsys):
    verdicts, path = claims.load_verdicts(), tmp_path / "verdicts.json"
    monkeypatch.setattr(notebooks, "run_audits", lambda: verdicts)
    save = claims.save_verdicts
    monkeypatch.setattr(claims, "save_verdicts", lambda found: save(found, path))
    notebooks.main(["verdicts"])
    assert claims.load_verdicts(path=path) == verdicts and str(path) in capsys.readouterr().out


@pytest.mark.slow
def test_audits_give_the_stored_verdicts():
    """Executes the evidence of every claim, with the archived records only."""
    people = ROOT / "data" / "synthetic"
    if not (people / "val").is_dir():
        pytest.skip("no synthetic people: run `make reproduce` first")
    computed = {(verdict.paper, verdict.id): verdict.finding for verdict in notebooks.run_audits(people)}
    stored = {(verdict.paper, verdict.id): verdict.finding for verdict in claims.load_verdicts()}
    changed = {key for key in stored.keys() | computed.keys() if stored.get(key) != computed.get(key)}
    assert not changed, "run python -m posebook.report verdicts"
