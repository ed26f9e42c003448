"""Helpers for the tests of this folder."""

import base64
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers import ROOT

PROSE = r"""# A page: with a title

See [the speeds](tables/speed.ipynb), [a page that is not here](learn/none.ipynb) and
[the paper](https://example.org/paper).

## Loss

The divergence of two distributions. It is not symmetric.

$$D(p \,\|\, q) = \sum_i p_i \log \frac{p_i}{q_i}, \quad \hat x = \operatorname*{arg\,max}_i p_i$$

Here $p_i$ is the label's."""


PARAMETERS = """model = "starnet-pose-t"  # name of the model
seed = 0  # random seed"""


ROWS = [
    ["T", "72.00", "900 µs"],
    ["", "not measured", ""],
    ["S", "−1,072.5<sup>a</sup>", "3.5 ms"],
    ["L", "–", "1 s"],
    ["M", "8 ± 0.3", "12 ms"],
    ["all", "72.00", ""],
]


TABLE = "<style scoped>td {color: red}</style><table border='1'>"


TABLE += "<thead><tr><th></th><th>AP</th><th>time</th></tr></thead><tbody>"


TABLE += (
    "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in ROWS) + "</tbody></table>"
)


def image() -> str:
    _, png = cv2.imencode(".png", np.full((20, 900, 3), 200, np.uint8))
    return base64.b64encode(png.tobytes()).decode()


def executed_notebook() -> nbformat.NotebookNode:
    outputs = [
        new_output("stream", name="stderr", text="\r 10%|# | a progress bar"),
        new_output("stream", name="stdout", text="epoch 1 done"),
        new_output("display_data", {"image/png": image(), "text/plain": "<Figure>"}),
        new_output("display_data", {"text/html": TABLE, "text/plain": "net AP"}),
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "HBox()"}),
    ]
    notebook = new_notebook(
        cells=[
            new_markdown_cell(PROSE),
            new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            new_code_cell("seed = 7", metadata={"tags": ["injected-parameters"]}),
            new_code_cell("loss = kl(p, q)", outputs=outputs, execution_count=1),
            new_code_cell(
                "assert loss == 0.25",
                metadata={"tags": ["solution"]},
                outputs=[new_output("stream", name="stdout", text="a quarter")],
                execution_count=2,
            ),
        ]
    )
    notebook.metadata["papermill"] = {
        "parameters": {"seed": 7},
        "start_time": "2026-01-02T03:04:05",
        "duration": 3.2,
    }
    notebook.metadata["posebook"] = {
        "code": {"commit": "0123456789abcdef", "dirty": False, "version": "0.1.0"},
        "machine": {"device": "cpu: one", "platform": "Linux", "python": "3.11", "torch": "2.13.0"},
    }
    return notebook


def with_a_scene() -> nbformat.NotebookNode:
    """An executed notebook with the output of figures_3d.scene for a page."""
    from posebook.lifting import synthetic_motion
    from posebook.report import figures_3d

    (clip,) = synthetic_motion.make_clips(1, frames=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSEBOOK_STILL", "1")
        made = figures_3d.scene({"truth": clip.pose, "again": clip.pose}, clip.fps, clip.camera).data
    notebook = executed_notebook()
    shown = new_output("display_data", {"text/html": made, "text/plain": "<HTML>"})
    notebook.cells.insert(1, new_code_cell("scene()", outputs=[shown], execution_count=9))
    return notebook


def _run_snakemake(folder: Path, arguments: list[str], log: Path) -> None:
    """Run snakemake in this process, with its output in a file."""
    from snakemake import cli

    os.chdir(folder)
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
        cli.main(arguments)  # ends the process with snakemake's exit code


def snakemake(folder: Path, *arguments: str, target: str = "report") -> str:
    """The output of snakemake.

    A server process imports snakemake and PyTorch once and forks for each call, which saves 3 s each time.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["snakemake.cli", "posebook.papers.ablations"])
    with tempfile.TemporaryDirectory() as temporary:
        log = Path(temporary, "log")
        all_arguments = [target, "--cores", "2", "--nolock", *arguments]
        process = context.Process(target=_run_snakemake, args=(folder, all_arguments, log))
        process.start()
        process.join()
        output = log.read_text()
    assert process.exitcode == 0, output[-3000:]
    return output


def rules(folder: Path) -> list[str]:
    """The rules that would run now, one entry for each job."""
    return sorted(re.findall(r"^(?:local)?rule (\w+):", snakemake(folder, "--dry-run"), re.MULTILINE))


@contextmanager
def changed(path: Path):
    """Add a line to the file; afterwards, restore its content and time of modification."""
    before, stat = path.read_text(), path.stat()
    path.write_text(before + ("\n" if path.suffix == ".ipynb" else "\n# changed\n"))  # still JSON
    try:
        yield
    finally:
        path.write_text(before)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


# notebook execution


def execute(notebook: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "posebook.report", "execute", str(notebook), str(out), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
