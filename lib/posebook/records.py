"""The ledger: what was measured, on what, with which code.

A run writes a JSON file into OUT/records/, whole or not at all; `archive` copies it into data/measured/, on
purpose, to be committed. Tables read both. Records name datasets by name and hash, never by a path.
"""

import json
import os
import platform
import re
import resource
import shutil
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from posebook import migration, paths

ARCHIVE = paths.MEASURED
FIELDS = {"kind", "name", "model", "dataset", "profile", "parameters", "protocol", "metrics", "seed"}


def code_version() -> dict:
    """Commit, whether lib/ or notebooks/ differ from it, and the package's version."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(paths.ROOT), *arguments], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    status = git("status", "--porcelain", "--", "lib", "notebooks") if commit else None
    try:
        release = version("posebook")
    except PackageNotFoundError:  # run from a checkout that was not installed
        release = None
    return {"commit": commit, "dirty": bool(status) if commit else None, "version": release}


def machine(device: str = "cpu") -> dict:
    """Device, operating system and the versions that can move a figure."""
    if torch.device(device).type == "cuda":
        name = f"cuda: {torch.cuda.get_device_name(device)}"
    else:
        name = f"{device}: {_processor()} ({os.cpu_count()} cores)"
    return {
        "device": name,
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """The processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def peak_memory() -> int:
    """The most memory this process has held, bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's getrusage tells the parent's peak too, carried over fork and exec
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


class RunMetadata:
    """Started with a run; tells what every record says of it: start, time, code, machine, peak memory."""

    def __init__(self, device: str = "cpu"):
        self.device, self.started, self.start = device, datetime.now(UTC), time.perf_counter()
        self.code = code_version()  # the tree may change while the run goes on

    def stamp(self, earlier_seconds: float = 0.0) -> dict:
        """The fields of a record that belong to the run itself; earlier_seconds: before a resume."""
        fields = {
            "started": self.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "wall_seconds": round(earlier_seconds + time.perf_counter() - self.start, 1),
            "peak_memory_mib": round(peak_memory() / 2**20),
            "code": self.code,
            "machine": machine(self.device),
        }
        if torch.device(self.device).type == "cuda":
            fields["peak_device_memory_mib"] = round(torch.cuda.max_memory_allocated(self.device) / 2**20)
        return fields


def build(
    kind: str, name: str, metadata: RunMetadata, earlier_seconds: float = 0.0, **fields: object
) -> dict:
    """A record: its kind and name, the fields of the measurement, and those of the run itself.

    earlier_seconds: of a resumed run, before it was stopped. Raises ValueError for missing fields.
    """
    record = {"kind": kind, "name": name, **fields, **metadata.stamp(earlier_seconds)}
    check_fields(record)
    return record


def weights_facts(path: Path, digest: str, initialization: str, trained_on: str) -> dict:
    """What a record says of weights in a run's folder."""
    return {
        "sha256": digest,
        "initialization": initialization,
        "trained_on": trained_on,
        "file": f"runs/{path.parent.name}/{path.name}",
    }


def check_fields(record: dict) -> None:
    """Raise ValueError for a record without one of FIELDS."""
    if missing := FIELDS - record.keys():
        raise ValueError(f"a record needs {', '.join(sorted(missing))}")


def write(record: dict, out_dir: str | Path = "reports") -> Path:
    """Write a record to OUT_DIR/records/NAME.json, whole or not at all; ValueError for missing fields."""
    check_fields(record)
    folder = Path(out_dir) / "records"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record['name']}.json"
    # The machine's name too: on a shared folder another machine's process may have the same number.
    temporary = path.with_suffix(f".{platform.node()}.{os.getpid()}.tmp")
    with temporary.open("w") as file:
        file.write(json.dumps({"schema": migration.SCHEMA} | record, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())  # else a machine that is lost may leave the name with nothing behind it
    os.replace(temporary, path)
    return path


def load(*folders: str | Path) -> list[dict]:
    """Records of the folders, kept ones first, each with its `path` and whether it is `kept`.

    Without folders: data/measured and reports/records of this checkout. A missing folder holds none.
    Raises ValueError naming a file that is not a record.
    """
    found = []
    for folder in map(Path, folders or (ARCHIVE, paths.REPORTS / "records")):
        for path in sorted(folder.glob("*.json")):
            try:
                record = json.loads(path.read_text())
                missing = FIELDS - record.keys()
            except (json.JSONDecodeError, AttributeError) as error:
                raise ValueError(f"{path} is not a record: {error}") from error
            if missing:
                raise ValueError(f"{path} is not a record: it lacks {', '.join(sorted(missing))}")
            try:
                record = migration.migrate_record(record)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            found.append(record | {"path": str(path), "kept": folder.resolve() == ARCHIVE})
    return found


def archive(path: str | Path) -> Path:
    """Copy a record into data/measured/, to be committed; returns where it lies now."""
    path = Path(path)
    record = next((r for r in load(path.parent) if Path(r["path"]) == path), None)
    if record is None:
        raise FileNotFoundError(f"no record at {path}")
    ARCHIVE.mkdir(parents=True, exist_ok=True)
    kept = ARCHIVE / path.name
    kept.write_text(path.read_text())
    predictions = path.with_suffix(".npz")  # what its intervals are drawn from
    kept.with_suffix(".npz").unlink(missing_ok=True)
    if predictions.is_file():
        shutil.copy(predictions, ARCHIVE)
    return kept
