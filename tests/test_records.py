"""The ledger: whole files, kept on purpose, and what it refuses."""

import json
import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest

from posebook import migration, paths, records, utils

RECORD = {
    "kind": "train",
    "name": "a-run",
    "model": "starnet-pose-t",
    "dataset": {"name": "synthetic"},
    "profile": "demo",
    "parameters": {},
    "protocol": {},
    "metrics": {"AP": 0.5},
    "seed": 0,
}


def test_write_then_load(tmp_path):
    path = records.write(RECORD, tmp_path)
    (found,) = records.load(tmp_path / "records")
    assert found == RECORD | {"schema": migration.SCHEMA, "path": str(path), "kept": False}
    assert records.load(tmp_path / "nowhere") == []


def test_a_record_without_its_fields_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a record needs metrics, seed"):
        records.write({k: v for k, v in RECORD.items() if k not in ("metrics", "seed")}, tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_a_file_that_is_no_record_is_named(tmp_path):
    (tmp_path / "torn.json").write_text('{"kind": "train", ')
    with pytest.raises(ValueError, match="torn.json cannot be read as a record"):
        records.load(tmp_path)
    (tmp_path / "torn.json").write_text('{"kind": "train"}')
    with pytest.raises(ValueError, match="torn.json cannot be read as a record: a record needs dataset"):
        records.load(tmp_path)


def test_keep_copies_into_the_kept_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "ARCHIVE", tmp_path / "measured")
    kept = records.archive(records.write(RECORD, tmp_path))
    assert json.loads(kept.read_text())["metrics"] == {"AP": 0.5}
    assert records.load(tmp_path / "measured")[0]["kept"]
    with pytest.raises(FileNotFoundError, match="no record at"):
        records.archive(tmp_path / "records" / "other.json")


def test_archiving_an_archived_record_keeps_its_predictions(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "ARCHIVE", tmp_path / "measured")
    path = records.write(RECORD, tmp_path)
    path.with_suffix(".npz").write_bytes(b"predictions")
    path.with_name("broken.json").write_text("[]")  # another record does not matter
    kept = records.archive(records.archive(path))
    assert kept.is_file() and kept.with_suffix(".npz").read_bytes() == b"predictions"
    with pytest.raises(ValueError, match=r"broken\.json cannot be read as a record"):
        records.archive(path.with_name("broken.json"))


def test_predictions_on_each_source_are_archived(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "ARCHIVE", tmp_path / "measured")
    sources = [{"name": "coco"}, {"name": "lspet"}]
    path = records.write(RECORD | {"dataset": {"name": "coco+lspet", "sources": sources}}, tmp_path)
    for source in ("coco", "lspet", "before"):
        path.with_name(f"a-run.{source}.npz").write_text(source)
    records.archive(path)
    assert {file.name for file in (tmp_path / "measured").iterdir()} == {
        "a-run.json",
        "a-run.coco.npz",
        "a-run.lspet.npz",
    }


def test_files_of_a_killed_process_are_removed(tmp_path):
    path = tmp_path / "a.pack"
    recent, old, other = (tmp_path / f"{name}.host.1.tmp" for name in ("a.pack", "a.pack", "b.pack"))
    old = old.with_name("a.pack.host.2.tmp")
    for file in (recent, old, other):
        file.touch()
    for file in (old, other):
        os.utime(file, (0, 0))
    with utils.atomic_write(path) as temporary:
        temporary.touch()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pack", recent.name, other.name]


def _many(task):
    folder, writer = task
    for turn in range(20):
        records.write(RECORD | {"name": f"run-{writer % 4}", "metrics": {"AP": writer, "turn": turn}}, folder)


def test_writers_never_leave_half_a_record(tmp_path):
    with multiprocessing.get_context("fork").Pool(8) as pool:
        pool.map(_many, [(tmp_path, writer) for writer in range(8)])
    found = records.load(tmp_path / "records")
    assert sorted(r["name"] for r in found) == [f"run-{i}" for i in range(4)]
    assert all(r["metrics"]["turn"] == 19 for r in found)
    assert not list(tmp_path.rglob("*.tmp"))


def _own(task):
    folder, writer = task
    for turn in range(4):  # beside its own, a long one that all write
        records.write(RECORD | {"name": f"run-{writer}-{turn}", "metrics": {"AP": turn}}, folder)
        records.write(RECORD | {"name": "shared", "curve": [writer] * 10_000}, folder)


def test_a_reader_sees_whole_records_only_while_32_processes_write(tmp_path):
    seen, looks = 0, 0
    with multiprocessing.get_context("fork").Pool(32) as pool:
        writing = pool.map_async(_own, [(tmp_path, writer) for writer in range(32)], chunksize=1)
        while not writing.ready():
            found = records.load(tmp_path / "records")  # raises for half a record
            assert len(found) >= seen, "a record has gone"
            seen, looks = len(found), looks + 1
        writing.get()
    found = {record["name"]: record for record in records.load(tmp_path / "records")}
    assert found.keys() == {"shared"} | {f"run-{writer}-{turn}" for writer in range(32) for turn in range(4)}
    assert len(set(found["shared"]["curve"])) == 1 and looks > 1
    assert all(path.suffix == ".json" for path in (tmp_path / "records").iterdir())


def test_writers_of_one_record_on_two_machines_do_not_share_a_file(tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(records.os, "replace", lambda temporary, path: used.append(temporary))
    for host in ("node1", "node2"):  # one process id on both
        monkeypatch.setattr(records.platform, "node", lambda host=host: host)
        records.write(RECORD, tmp_path)
    assert used[0] != used[1] and all(path.suffix != ".json" for path in used)


def test_a_stamp_says_where_and_with_which_code():
    stamp = records.RunMetadata().stamp(earlier_seconds=100)
    assert stamp["wall_seconds"] >= 100 and stamp["peak_memory_mib"] > 50
    assert stamp["machine"]["device"].startswith("cpu: ") and stamp["machine"]["torch"]
    head = subprocess.run(["git", "-C", str(paths.ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    assert stamp["code"]["commit"] == (head.stdout.strip() or None)


def test_the_peak_memory_of_a_process_is_its_own():
    """A child of a process that has held much starts from nothing; getrusage would give the parent's peak."""
    held = np.ones(100_000_000)  # 800 MB; a child that imports torch takes about 250
    del held
    here = records.peak_memory()
    told = "from posebook import migration, records; print(records.peak_memory())"
    there = int(
        subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout
    )
    assert here > 800e6 > there > 50e6


def test_dirty_means_lib_or_notebooks_differ(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.py").write_text("a = 1\n")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text("elsewhere\n")
    assert records.code_version()["dirty"] is False
    (tmp_path / "lib" / "a.py").write_text("a = 2\n")
    assert records.code_version()["dirty"] is True


def test_kept_records_name_no_path_of_a_machine():
    kept = records.load(records.ARCHIVE)
    for record in kept:
        text = json.dumps({key: value for key, value in record.items() if key != "path"})
        assert "/home" not in text and "/work" not in text and "/tmp" not in text and "/root" not in text
