"""Run notebooks, export them to HTML pages, print the report's headline, convert notebooks, store verdicts.

    python -m posebook.report execute notebooks/train.ipynb reports/executed/train.ipynb -p profile demo
    python -m posebook.report export reports/html reports/executed/index.ipynb reports/executed/train.ipynb
    python -m posebook.report headline reports/executed reports/html/index.html
    python -m posebook.report convert trained.ipynb trained.html
    python -m posebook.report pdf reports/html/attribution.html attribution.pdf
    python -m posebook.report screenshots reports/html docs
    python -m posebook.report verdicts

Run these commands from the root of the repository, which is the working directory of every notebook.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from posebook import paths
from posebook.report import running

if TYPE_CHECKING:
    from posebook.papers.claims import Verdict


def execute(notebook: Path, out: Path, parameters: dict) -> None:
    """Run a notebook with papermill; its progress bars and messages appear in this terminal.

    If a cell fails or the kernel dies, print the traceback and exit with status 1. The notebook with the
    outputs so far is then saved beside `out` with `.failed` in its name; its page shows where it stopped.
    Exit with status 2 for a parameter that the notebook does not have, or a value of another type.
    """
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # not a kernel of the user
    os.environ["POSEBOOK_STILL"] = "1"  # pages cannot show widgets
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "10")  # seconds; keeps log files short
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from posebook import records

    try:
        running.check_parameters(declared_parameters(notebook), parameters)
    except ValueError as error:
        print(f"{notebook}: {error}", file=sys.stderr)
        sys.exit(2)
    out.parent.mkdir(parents=True, exist_ok=True)
    failed = out.with_suffix(".failed.ipynb")
    start, metadata = time.perf_counter(), {"code": records.code_version(), "machine": records.machine()}
    try:
        executed = papermill.execute_notebook(
            notebook,
            out,
            parameters,
            kernel_name="python3",
            kernel_manager_class=kernel_class(),
            cwd=paths.ROOT,
            stderr_file=sys.stderr,
            coalesce_streams=True,  # keep only the last state of a progress bar
            # By default, the kernel warns about its local port at every start.
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
    except (PapermillExecutionError, DeadKernelError) as error:
        stopped = nbformat.read(out, as_version=4)
        cell = max(cell.get("execution_count") or 0 for cell in stopped.cells)
        text = f"{error.ename}: {error.evalue}" if isinstance(error, PapermillExecutionError) else str(error)
        stopped.metadata["posebook"] = metadata | {"stopped": {"cell": cell, "error": text}}
        nbformat.write(stopped, failed)
        out.unlink()
        print(f"\n{notebook} failed; its outputs so far: {failed}\n{error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(f"{out} cannot be written: {error}. Run the same command again to continue.", file=sys.stderr)
        sys.exit(1)
    executed.metadata["posebook"] = metadata
    papermill.iorw.write_ipynb(executed, str(out))
    failed.unlink(missing_ok=True)
    print(f"{notebook}: done in {time.perf_counter() - start:.0f} s", file=sys.stderr)


def declared_parameters(notebook: Path) -> dict[str, Any]:
    """The parameters that a notebook declares, with their default values."""
    cells = [cell for cell in _load(notebook)["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    return running.assigned_values("\n".join("".join(cell["source"]) for cell in cells))


def kernel_class() -> type:
    """A class of kernels that get SIGTERM in place of this process, for example at the end of a time limit.

    A training then writes a checkpoint, its cell stops, and `execute` saves the notebook.
    """
    from jupyter_client.manager import AsyncKernelManager

    class Kernel(AsyncKernelManager):
        # The type hints of the base class are those of its synchronous parent.
        async def start_kernel(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
            await super().start_kernel(*args, **kwargs)
            if threading.current_thread() is threading.main_thread():
                pid = self.provisioner.pid  # type: ignore[union-attr]  # a local kernel has started
                signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))

    return Kernel


def run_audits(data_root: Path = paths.DATA / "synthetic") -> "list[Verdict]":
    """Run all notebooks of notebooks/audit with the archived records only, and return their verdicts."""
    from posebook import records
    from posebook.papers import claims

    with tempfile.TemporaryDirectory() as folder:
        settings = {"out_dir": folder, "data_root": str(data_root)}
        for page in sorted((paths.ROOT / "notebooks" / "audit").glob("*.ipynb")):
            declared = declared_parameters(page)
            execute(
                page, Path(folder, page.name), {name: settings[name] for name in settings if name in declared}
            )
        audits = records.load(Path(folder, "records"))
    return [verdict for audit in audits for verdict in claims.recorded_verdicts(audit)]


def headline(executed: Path, index: Path) -> None:
    """Print the address of the report, its headline (the cell tagged so), and the notebooks that stopped."""
    print(f"\nThe report: {index.resolve().as_uri()}")
    front = executed / "index.ipynb"
    for cell in _load(front)["cells"] if front.exists() else []:
        if "headline" in cell["metadata"].get("tags", []):
            for output in cell["outputs"]:
                print("".join(output["data"]["text/markdown"]).replace("**", ""))
    for failed in sorted(executed.rglob("*.failed.ipynb")):
        stopped = _load(failed)["metadata"]["posebook"]["stopped"]
        print(f"\nSTOPPED in cell {stopped['cell']}: {failed}\n  {stopped['error']}", file=sys.stderr)


def expand_folders(executed: list[Path]) -> list[Path]:
    """Notebooks, with those of a folder instead of the folder; of NAME and NAME.failed, the newer one."""
    result = [path for path in executed if path.suffix == ".ipynb"]
    for folder in (path for path in executed if path.suffix != ".ipynb"):
        by_time = sorted(folder.glob("*.ipynb"), key=lambda path: path.stat().st_mtime)
        newest = {path.name.replace(".failed.ipynb", ".ipynb"): path for path in by_time}
        result += [newest[name] for name in sorted(newest)]
    return result


def _load(notebook: Path) -> dict:
    return json.loads(notebook.read_text(encoding="utf-8"))


def exit_with_parent() -> None:
    """End this process, and with it the kernel, when its parent process ends.

    Otherwise, a training would continue after `make reproduce` was killed, next to the one of a new start.
    """
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)  # sys.exit would only end this thread

    threading.Thread(target=watch, daemon=True).start()


def _stop(message: str) -> NoReturn:
    """End the command with one line and exit code 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("execute", help="run a notebook")
    command.add_argument("notebook", type=Path)
    command.add_argument("out", type=Path)
    command.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    command = commands.add_parser("export", help="write pages of executed notebooks, in the order given")
    command.add_argument("html", type=Path, help="folder of the pages")
    command.add_argument("executed", type=Path, nargs="+", help="executed notebooks, or folders of them")
    command = commands.add_parser("headline", help="print the address of the report and its headline")
    command.add_argument("executed", type=Path, help="folder of the executed notebooks")
    command.add_argument("index", type=Path, help="the page of its index.ipynb")
    command = commands.add_parser("convert", help="write one executed notebook as one HTML or PDF file")
    command.add_argument("notebook", type=Path, help="the executed notebook")
    command.add_argument("out", type=Path, help="NAME.html or NAME.pdf; a PDF needs Chromium")
    command = commands.add_parser("pdf", help="print a page to PDF with Chromium")
    command.add_argument("page", type=Path)
    command.add_argument("out", type=Path)
    command = commands.add_parser("screenshots", help="take the README's screenshots with Chromium")
    command.add_argument("html", type=Path, help="folder of the pages")
    command.add_argument("folder", type=Path, help="folder to write the images to")
    commands.add_parser("verdicts", help="run the audits with archived records, write data/verdicts.json")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """The command line of `python -m posebook.report`."""
    args = _make_parser().parse_args(arguments)
    if args.command == "convert" and args.out.suffix not in (".html", ".pdf"):
        _stop(f"{args.out} must end in .html or .pdf")
    if args.command in ("execute", "convert", "export"):
        for path in args.executed if args.command == "export" else [args.notebook]:
            if path.suffix == ".ipynb" and not path.exists():  # a folder of runs need not exist
                _stop(f"no notebook at {path}")
    if args.command == "execute":
        from posebook.papers.runs import parse_value

        exit_with_parent()
        try:
            parameters = {name: parse_value(text) for name, text in args.parameter}
        except ValueError as error:
            _stop(str(error))
        execute(args.notebook, args.out, parameters)
    elif args.command in ("export", "convert"):
        from posebook.report import html

        try:
            if args.command == "convert":
                html.convert(args.notebook, args.out)
            elif executed := expand_folders(args.executed):
                html.export(executed, args.html)
            else:
                _stop(f"no notebook in {', '.join(map(str, args.executed))}")
        except ValueError as error:
            _stop(str(error))
    elif args.command == "verdicts":
        from posebook.papers import claims

        print(claims.save_verdicts(run_audits()))
    elif args.command == "headline":
        headline(args.executed, args.index)
    else:
        from posebook.report import browser

        if args.command == "pdf":
            browser.pdf(args.page, args.out)
        else:
            browser.screenshots(args.html, args.folder)
