"""Records: what was measured, on which data, with which code.

Each run writes one JSON file to OUT_DIR/records/. `archive` copies a selected record to data/measured/, where
it is committed. Tables read both folders. A record identifies a dataset by name and hash, never by a path.
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
from posebook.utils import atomic_write

ARCHIVE = paths.MEASURED
FIELDS = {"kind", "name", "model", "dataset", "profile", "parameters", "protocol", "metrics", "seed"}


def code_version() -> dict:
    """The git commit, whether lib/ or notebooks/ differ from it, and the package version.

    Unknown values are None.
    """

    def git(*arguments: str) -> str | None:
        try:
            command = ["git", "-C", str(paths.ROOT), *arguments]
            result = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return result.stdout.strip()

    commit = git("rev-parse", "HEAD")
    status = git("status", "--porcelain", "--", "lib", "notebooks") if commit else None
    try:
        release = version("posebook")
    except PackageNotFoundError:  # run from a clone that is not installed
        release = None
    return {"commit": commit, "dirty": bool(status) if commit else None, "version": release}


def machine(device: str = "cpu") -> dict:
    """Device, operating system, and the versions that can change a result."""
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
    """The name of the processor, as the operating system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def peak_memory() -> int:
    """Peak resident memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, getrusage includes the parent's peak, which survives fork and exec
        peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        assert peak, "Linux reports VmHWM for every process"
        return int(peak[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


class RunMetadata:
    """Start time, duration, code version, machine and peak memory of a run.

    Create it when the run starts and call `stamp` at its end.
    """

    def __init__(self, device: str = "cpu"):
        self.device, self.started, self.start = device, datetime.now(UTC), time.perf_counter()
        self.code = code_version()  # read now: the files may change during the run

    def stamp(self, earlier_seconds: float = 0.0) -> dict:
        """The record fields that describe the run. earlier_seconds: duration before the run was resumed."""
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
    """Build a record from the fields of the measurement and those of `RunMetadata.stamp`.

    earlier_seconds: duration before the run was resumed.
    """
    return {"kind": kind, "name": name, **fields, **metadata.stamp(earlier_seconds)}


def weights_facts(path: Path, digest: str, initialization: str, trained_on: str) -> dict:
    """The `weights` field of a record, for a weights file in the folder of a run."""
    return {
        "sha256": digest,
        "initialization": initialization,
        "trained_on": trained_on,
        "file": f"runs/{path.parent.name}/{path.name}",
    }


def check_fields(record: dict) -> None:
    """Raise ValueError if a record lacks one of FIELDS."""
    if missing := FIELDS - record.keys():
        raise ValueError(f"a record needs {', '.join(sorted(missing))}")


def write(record: dict, out_dir: str | Path = "reports") -> Path:
    """Write a record to OUT_DIR/records/NAME.json. Raises ValueError if a field of FIELDS is missing."""
    check_fields(record)
    folder = Path(out_dir) / "records"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record['name']}.json"
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({"schema": migration.SCHEMA} | record, indent=1) + "\n")
    return path


def load(*folders: str | Path) -> list[dict]:
    """Read all records of the folders, archived ones first. A missing folder counts as empty.

    The default folders are data/measured and reports/records of the repository. Each record also gets its
    `path`, and `kept`: whether it is archived. Raises ValueError that names a file that cannot be read.
    """
    records = []
    for folder in map(Path, folders or (ARCHIVE, paths.REPORTS / "records")):
        for path in sorted(folder.glob("*.json")):
            records.append(read(path) | {"path": str(path), "kept": folder.resolve() == ARCHIVE})
    return records


def read(path: Path) -> dict:
    """A record in the current schema. Raises ValueError that names the file if it cannot be read."""
    try:
        record = json.loads(path.read_text())
        check_fields(record)
        return migration.migrate_record(record)
    except (ValueError, AttributeError) as error:  # e.g. a JSON list, which has no fields
        raise ValueError(f"{path} cannot be read as a record: {error}") from error


def archive(path: str | Path) -> Path:
    """Copy a record and its predictions, of each source of a combination, to data/measured/.

    Returns the new path. Raises FileNotFoundError if there is no record, ValueError if it cannot be read.
    """
    path, target = Path(path), ARCHIVE / Path(path).name
    if not path.is_file():
        raise FileNotFoundError(f"no record at {path}")
    record = read(path)
    if path.resolve() == target.resolve():
        return target
    ARCHIVE.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    sources = [f".{source['name']}" for source in (record["dataset"] or {}).get("sources", [])]
    for end in ("", *sources):  # confidence intervals are computed from the predictions
        predictions = path.with_name(f"{path.stem}{end}.npz")
        (ARCHIVE / predictions.name).unlink(missing_ok=True)
        if predictions.is_file():
            shutil.copy(predictions, ARCHIVE)
    return target
