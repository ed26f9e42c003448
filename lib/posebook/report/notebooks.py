"""Notebooks into pages: run one, export executed ones to HTML, print the report's headline; pages on paper.

    python -m posebook.report execute notebooks/train.ipynb reports/executed/train.ipynb -p profile demo
    python -m posebook.report export reports/html reports/executed/index.ipynb reports/executed/train.ipynb
    python -m posebook.report headline reports/executed reports/html/index.html
    python -m posebook.report pdf reports/html/attribution.html attribution.pdf
    python -m posebook.report screenshots reports/html docs

Run from the repository's root, which is the working directory of every notebook.
"""

import argparse
import difflib
import json
import os
import sys
import threading
import time
from pathlib import Path

from posebook import paths


def execute(notebook: Path, out: Path, parameters: dict) -> None:
    """Run a notebook with papermill; its progress bars appear in this terminal.

    When a cell fails, or its kernel dies, it prints the traceback and exits with status 1; what ran till
    then is kept beside OUT with `.failed` in its name, to be shown as a page that says where it stopped. A
    parameter that the notebook does not have ends it with status 2.
    """
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # this environment's kernel, not the user's own
    os.environ["POSEBOOK_STILL"] = "1"  # a page has no sliders
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "10")  # a log file wants a line now and then
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from posebook import records

    known = list(papermill.inspect_notebook(str(notebook)))
    for name in parameters.keys() - set(known):
        near = difflib.get_close_matches(name, known) or known
        print(f"{notebook} has no parameter {name!r}; it has {', '.join(near)}", file=sys.stderr)
        sys.exit(2)
    out.parent.mkdir(parents=True, exist_ok=True)
    failed = out.with_suffix(".failed.ipynb")
    started, about = time.perf_counter(), {"code": records.code_version(), "machine": records.machine()}
    try:
        executed = papermill.execute_notebook(
            notebook,
            out,
            parameters,
            kernel_name="python3",
            cwd=paths.ROOT,
            stderr_file=sys.stderr,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # it warns of its local port at every start
        )
    except (PapermillExecutionError, DeadKernelError) as error:
        stopped = nbformat.read(out, as_version=4)
        number = max(cell.get("execution_count") or 0 for cell in stopped.cells)
        words = f"{error.ename}: {error.evalue}" if isinstance(error, PapermillExecutionError) else str(error)
        stopped.metadata["posebook"] = about | {"stopped": {"cell": number, "error": words}}
        nbformat.write(stopped, failed)
        out.unlink()
        print(f"\n{notebook} failed; what ran till then: {failed}\n{error}", file=sys.stderr)
        sys.exit(1)
    executed.metadata["posebook"] = about
    papermill.iorw.write_ipynb(executed, str(out))
    failed.unlink(missing_ok=True)
    print(f"{notebook}: done in {time.perf_counter() - started:.0f} s", file=sys.stderr)


def headline(executed: Path, index: Path) -> None:
    """Print where the report is, its first figures (the cell tagged `headline`), and what stopped."""
    print(f"\nThe report: {index.resolve().as_uri()}")
    front = executed / "index.ipynb"
    for cell in load(front)["cells"] if front.exists() else []:
        if "headline" in cell["metadata"].get("tags", []):
            for output in cell["outputs"]:
                print("".join(output["data"]["text/markdown"]).replace("**", ""))
    for failed in sorted(executed.rglob("*.failed.ipynb")):
        where = load(failed)["metadata"]["posebook"]["stopped"]
        print(f"\nSTOPPED in cell {where['cell']}: {failed}\n  {where['error']}", file=sys.stderr)


def load(notebook: Path) -> dict:
    return json.loads(notebook.read_text(encoding="utf-8"))


def leave_with_parent() -> None:
    """End this process, and with it the kernel, once its parent is gone.

    Whoever kills `make reproduce` and starts it again must not find the first training still running.
    """
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("execute", help="run a notebook")
    one.add_argument("notebook", type=Path)
    one.add_argument("out", type=Path)
    one.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    many = commands.add_parser("export", help="make pages of executed notebooks, in the order given")
    many.add_argument("html", type=Path, help="folder of the pages")
    many.add_argument("executed", type=Path, nargs="+")
    last = commands.add_parser("headline", help="print where the report is and its first figures")
    last.add_argument("executed", type=Path, help="folder of the executed notebooks")
    last.add_argument("index", type=Path, help="the page of its index.ipynb")
    paper = commands.add_parser("pdf", help="print a page by way of chromium")
    paper.add_argument("page", type=Path)
    paper.add_argument("out", type=Path)
    seen = commands.add_parser("screenshots", help="the README's pictures, by way of chromium")
    seen.add_argument("html", type=Path, help="folder of the pages")
    seen.add_argument("folder", type=Path, help="where the pictures go")
    chosen = parser.parse_args(arguments)
    if chosen.command == "execute":
        import yaml

        leave_with_parent()
        execute(chosen.notebook, chosen.out, {name: yaml.safe_load(text) for name, text in chosen.parameter})
    elif chosen.command == "export":
        from posebook.report import html

        html.export(chosen.executed, chosen.html)
    elif chosen.command == "headline":
        headline(chosen.executed, chosen.index)
    else:
        from posebook.report import browser

        if chosen.command == "pdf":
            browser.pdf(chosen.page, chosen.out)
        else:
            browser.screenshots(chosen.html, chosen.folder)
