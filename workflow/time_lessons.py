"""Measure how long the lessons take: python workflow/time_lessons.py, on an idle machine.

Each lesson of notebooks/learn/course.csv is executed once, one after another. The record `lessons` in
reports/records has the seconds of each, with the start of its kernel. Archive it with
`posebook records archive`. The duration is also written into the lesson, as the last sentence of its
**Requirements.**; a test compares these sentences with the archived record.
"""

import os
import re
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


def main() -> None:
    run, durations = records.RunMetadata(), {}
    cores = os.cpu_count() or 1
    for lesson in lessons():
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            declared = notebooks.declared_parameters(LEARN / f"{lesson}.ipynb")
            parameters = {"out_dir": folder} if "out_dir" in declared else {}
            notebooks.execute(LEARN / f"{lesson}.ipynb", Path(folder, "executed.ipynb"), parameters)
        durations[lesson] = round(time.perf_counter() - start, 1)
    record = records.build(
        "lessons",
        "lessons",
        run,
        model=None,
        dataset={"name": "synthetic", "split": "val"},
        profile="demo",
        parameters={"cores": cores},
        protocol={"metric": "seconds of one execution, with the start of the kernel"},
        metrics=durations,
        seed=None,
    )
    print(records.write(record))
    for lesson, seconds in durations.items():
        notebook = nbformat.read(LEARN / f"{lesson}.ipynb", as_version=4)
        notebook.cells[0].source = with_sentence(notebook.cells[0].source, sentence(seconds, cores))
        nbformat.write(notebook, LEARN / f"{lesson}.ipynb")


if __name__ == "__main__":
    main()
