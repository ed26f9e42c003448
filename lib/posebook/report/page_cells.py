"""What a page shows of an executed notebook: its cells, with code to be folded, and its parameters."""

import ast
import re
import zlib
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

from posebook.report import running

MAX_SVG = 1_000_000  # characters
HIDDEN_TAGS = {"injected-parameters", "papermill-error-cell-tag", "colab"}


def read_notebook(path: Path, page: Path) -> NotebookNode:
    """A notebook without progress bars, widgets, and cells of papermill or Colab; its code can be folded.

    Lessons keep their code where it stands; their index is no lesson. The cell in which a notebook stopped
    keeps its progress.
    """
    notebook = nbformat.read(path, as_version=4)
    mark_unfinished(notebook)
    stopped = notebook.metadata.get("posebook", {}).get("stopped", {}).get("cell")
    notebook.cells = [cell for cell in notebook.cells if not HIDDEN_TAGS & set(tags(cell))]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if stopped and cell.execution_count == stopped:
                cell.outputs = with_progress(cell.outputs)
            cell.outputs = [prefer_svg(output) for output in cell.outputs if is_shown(output)]
    if page.parent.name != "learn" or page.stem == "index":
        notebook.cells = fold_code(notebook.cells)
    return notebook


def mark_unfinished(notebook: NotebookNode) -> None:
    """Mark a notebook as stopped if papermill ended, or has not ended yet, while a cell was running."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for number, cell in enumerate(code, 1):
        if cell.metadata.get("papermill", {}).get("status") == "running":
            cell.execution_count = number
            stopped = {"cell": number, "error": "the run was killed, or has not ended yet"}
            notebook.metadata.setdefault("posebook", NotebookNode())["stopped"] = stopped


def with_progress(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs whose streams, stderr too, are one text, with only the last state of each progress bar."""
    streams = [output for output in outputs if output.output_type == "stream"]
    text = running.without_progress("".join(output.text for output in streams))
    others = [output for output in outputs if output.output_type != "stream"]
    return [new_output("stream", name="stdout", text=text), *others] if text else others


def fold_code(cells: list[NotebookNode]) -> list[NotebookNode]:
    """Cells of a result page: the code without output joins the next code of its section that has output.

    The metadata `folded` of a cell contains the code to be folded below its output. The code at the end of a
    section, with no output after it, becomes a cell of its own. A section starts at a heading.
    """
    result: list[NotebookNode] = []
    waiting: list[str] = []

    def end_section() -> None:
        if waiting:
            result.append(new_code_cell(metadata={"folded": waiting.copy()}))
            waiting.clear()

    for cell in cells:
        if cell.cell_type == "markdown" and re.search(r"^#+ ", cell.source, re.MULTILINE):
            end_section()
        if cell.cell_type != "code" or {"parameters", "solution"} & set(tags(cell)):
            result.append(cell)
        elif cell.outputs:
            cell.metadata["folded"] = [*waiting, cell.source]
            waiting.clear()
            result.append(cell)
        elif cell.source.strip():
            waiting.append(cell.source)
    end_section()
    return result


def prefer_svg(output: dict) -> dict:
    """An output with only one version of a plot: the SVG, whose colors follow the color scheme of the page.

    An SVG of more than MAX_SVG characters that is also larger than the PNG is dropped.
    """
    data = output.get("data", {})
    if {"image/png", "image/svg+xml"} <= data.keys():
        size = len(data["image/svg+xml"])
        too_large = size > MAX_SVG and size > len(data["image/png"]) * 1.2
        del data["image/svg+xml" if too_large else "image/png"]
    if "image/svg+xml" in data:
        data["image/svg+xml"] = inline_svg(data["image/svg+xml"])
    return output


def inline_svg(svg: str) -> str:
    """The svg element of a file of matplotlib, to be part of a page, where ids must be unique.

    Ids without a reference are removed; the others start with a hash of the file. matplotlib's own rule for
    all elements is in style.css.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>\*{stroke.*?</style>", "", svg, flags=re.DOTALL)
    referenced = set(re.findall(r"""(?:url\(|href=")#([^")]+)""", svg))
    prefix = f"s{zlib.crc32(svg.encode()):08x}-"
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in referenced else "", svg)
    return re.sub(r"""(url\(|href=")#""", rf"\1#{prefix}", svg)


def is_shown(output: NotebookNode) -> bool:
    if output.output_type == "stream":
        return output.name == "stdout"
    return not any("widget" in mime_type for mime_type in output.get("data", {}))


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def first_heading(notebook: NotebookNode, page: Path) -> str:
    """The text of the notebook's first level-1 heading, for a page of a run with the name of its record.

    Raises ValueError if there is none.
    """
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (match := re.search(r"^# +(.+)$", cell.source, re.MULTILINE)):
            heading = match[1].replace("`", "").replace("*", "").strip()
            return f"{heading}: {page.stem}" if page.parent.name == "runs" else heading
    raise ValueError(f"{page}: the notebook has no level-1 heading")


def parameters(notebook: NotebookNode) -> list[dict]:
    """Name, value in this run and meaning of each parameter, by the tagged cell and papermill's metadata."""
    cell = next((cell for cell in notebook.cells if "parameters" in tags(cell)), None)
    if cell is None:
        return []
    injected = notebook.metadata.get("papermill", {}).get("parameters", {})
    lines = cell.source.splitlines()
    rows = []
    try:
        body = ast.parse(cell.source).body
    except SyntaxError:  # it stopped the notebook, and the page shows it there
        return []
    for node in body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if not (isinstance(target, ast.Name) and node.value and node.end_lineno):
                continue  # such as a, b = 1, 2: papermill cannot set it
            value = repr(injected[target.id]) if target.id in injected else ast.unparse(node.value)
            comment = lines[node.end_lineno - 1][node.end_col_offset :].strip().lstrip("# ")
            rows.append({"name": target.id, "value": value, "meaning": comment})
    return rows
