"""Measure how long the lessons take: python workflow/time_lessons.py [LESSON ...], on an idle machine.

Each lesson of notebooks/learn/course.csv is executed once, one after another. The record `lessons` in
reports/records has the seconds of each, with the start of its kernel. It is written after each lesson: if the
script is stopped, the same command continues, if code and machine are still the same. With names, only these
lessons are measured again. Archive the record with `posebook records archive`. The duration is also written
into the lesson, as the last sentence of its **Requirements.**; a test compares these sentences with the
archived record.
"""

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pandas as pd

from posebook import paths, records
from posebook.report import notebooks

LEARN = paths.ROOT / "notebooks/learn"
REQUIREMENTS = re.compile(r"(\*\*Requirements\.\*\*.*?)(?:\nIt runs in about [^\n]*)?(?=\n\n|$)", re.DOTALL)


def lessons() -> list[str]:
    """The names of the lessons in reading order."""
    return list(pd.read_csv(LEARN / "course.csv")["lesson"])


def sentence(seconds: float, cores: int) -> str:
    """The duration as a lesson states it, rounded to five seconds, or to half minutes from one minute on."""
    if seconds < 57.5:
        return f"It runs in about {max(5, 5 * round(seconds / 5))} seconds on {cores} cores."
    minutes = round(seconds / 30) / 2
    return f"It runs in about {minutes:g} minute{'' if minutes == 1 else 's'} on {cores} cores."


def with_sentence(text: str, duration: str) -> str:
    """The first cell of a lesson with this sentence at the end of its requirements."""
    return REQUIREMENTS.sub(lambda match: f"{match[1]}\n{duration}", text, count=1)


def measure(lesson: str) -> float:
    """Execute a lesson in a temporary folder; the seconds that it takes."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        declared = notebooks.declared_parameters(LEARN / f"{lesson}.ipynb")
        parameters = {"out_dir": folder} if "out_dir" in declared else {}
        notebooks.execute(LEARN / f"{lesson}.ipynb", Path(folder, "executed.ipynb"), parameters)
        return round(time.perf_counter() - start, 1)


def main() -> None:
    if unknown := sorted(set(sys.argv[1:]) - set(lessons())):
        print(f"{', '.join(unknown)}: not in {LEARN.name}/course.csv", file=sys.stderr)
        sys.exit(2)
    run, cores = records.RunMetadata(), os.cpu_count() or 1
    path = paths.REPORTS / "records/lessons.json"
    earlier = json.loads(path.read_text()) if path.exists() else {}
    if (earlier.get("code"), earlier.get("machine")) != (run.code, records.machine()):
        earlier = {"metrics": {}, "wall_seconds": 0.0}  # one record, one commit, one machine
    durations = earlier["metrics"]
    for lesson in sys.argv[1:] or [lesson for lesson in lessons() if lesson not in durations]:
        durations[lesson] = measure(lesson)
        record = records.build(
            "lessons",
            "lessons",
            run,
            earlier["wall_seconds"],
            model=None,
            dataset={"name": "synthetic", "split": "val"},
            profile="demo",
            parameters={"cores": cores},
            protocol={"metric": "seconds of one execution, with the start of the kernel"},
            metrics={lesson: durations[lesson] for lesson in lessons() if lesson in durations},
            seed=None,
        )
        records.write(record, paths.REPORTS)
    for lesson, seconds in durations.items():
        notebook = nbformat.read(LEARN / f"{lesson}.ipynb", as_version=4)
        notebook.cells[0].source = with_sentence(notebook.cells[0].source, sentence(seconds, cores))
        nbformat.write(notebook, LEARN / f"{lesson}.ipynb")


if __name__ == "__main__":
    main()
