"""The command that runs the audits and stores their verdicts."""

from posebook.papers import claims
from posebook.report import notebooks


def test_command_stores_the_verdicts_of_all_audits(tmp_path, monkeypatch, capsys):
    verdicts, path = claims.load_verdicts(), tmp_path / "verdicts.json"
    monkeypatch.setattr(notebooks, "run_audits", lambda: verdicts)
    save = claims.save_verdicts
    monkeypatch.setattr(claims, "save_verdicts", lambda found: save(found, path))
    notebooks.main(["verdicts"])
    assert claims.load_verdicts(path=path) == verdicts and str(path) in capsys.readouterr().out
