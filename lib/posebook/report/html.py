"""Executed notebooks as HTML pages that stand alone.

nbconvert does the work, with the template beside this file. Added is what its exporter lacks: formulas as
MathML (no script from another host), links between notebooks that become links between pages, a text
alternative for every figure, a mark on the page of a notebook that stopped, and a refusal to write a page
that would load anything from elsewhere. search.js, beside the pages, holds their prose for the search;
plotly.min.js, where a page has a skeleton to turn, what draws it.
"""

import ast
import json
import os
import re
from itertools import count, groupby
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from jinja2 import pass_context
from latex2mathml.converter import convert as mathml
from nbconvert.exporters.html import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
GROUPS = {"audit": "Audits", "attribution": "Attribution of", "tables": "Tables", "learn": "Lessons"}
# what latex2mathml does not know -> what it does
SAME_IN_TEX = {r"\operatorname*": r"\mathrm", r"\arg": r"\mathrm{arg}\,", "{aligned}": "{align*}"}
LOADS = "img[src], script[src], link[href], iframe[src], source[src], video[src], audio[src], object[data]"
LIBRARY = "plotly.min.js"
# the colors of posebook.report.figures -> their names in style.css
PALETTE = {
    "#1f2933": "ink",
    "#66737f": "muted",
    "#e6eaee": "line",
    "#0b7a75": "accent",
    "#d1603d": "warm",
    "#e0a72e": "gold",
    "#2f6690": "blue",
}
COLOR = re.compile("|".join(PALETTE), re.IGNORECASE)
PUT_IN = {"injected-parameters", "papermill-error-cell-tag"}
NUMBER = re.compile(r"[−+-]?[\d.,]+\s*(%|M|G|ms|s)?|[–—-]|nan|NaN|None")


class Prose(IPythonRenderer):
    """Markdown with its formulas turned into MathML."""

    def block_math(self, body: str) -> str:
        return f'<div class="math">{formula_mathml(body, "block")}</div>'

    def inline_math(self, body: str) -> str:
        return formula_mathml(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")


def formula_mathml(tex: str, display: str) -> str:
    """TeX as MathML; raises ValueError for what latex2mathml would print as it stands."""
    known = tex.strip()
    for name, same in SAME_IN_TEX.items():
        known = known.replace(name, same)
    made = mathml(known, display=display)
    if "\\" in made or "<mi>&</mi>" in made:
        raise ValueError(f"a formula that MathML cannot show: {tex.strip()}")
    return made


class PageExporter(HTMLExporter):
    """nbconvert's HTML with this folder's template and the prose above."""

    @pass_context
    def markdown2html(self, context, source):
        renderer = Prose(
            escape=False,
            attachments=context.get("cell", {}).get("attachments", {}),
            exclude_anchor_links=True,
        )
        return MarkdownWithMath(renderer=renderer).render(source)

    @property
    def default_config(self):
        config = super().default_config
        # Without the script and widget types: their text or picture is shown in their place.
        config.NbConvertBase.display_data_priority = [
            "text/html",
            "text/markdown",
            "image/svg+xml",
            "image/png",
            "image/jpeg",
            "text/latex",
            "text/plain",
        ]
        return config


def export(executed: list[Path], html: Path) -> None:
    """Write a page under `html` for every executed notebook, each linked to all of them in the order given.

    The notebooks' common folder is the root of the pages; X.failed.ipynb becomes the page X. Raises
    ValueError for a page that would load something from another host.
    """
    root = Path(os.path.commonpath([path.parent for path in executed]))
    notebooks = {page_of(path.relative_to(root)): read_notebook(path) for path in executed}
    titles = {page: title(notebook, page) for page, notebook in notebooks.items()}
    stopped = {page for page, book in notebooks.items() if "stopped" in book.metadata.get("posebook", {})}
    exporter = PageExporter(template_name="template", extra_template_basedirs=[str(HERE)])
    found, turns = [], False
    for page, notebook in tqdm(notebooks.items(), desc="pages", unit="page"):
        text, _ = exporter.from_notebook_node(
            notebook, {"page": page_context(page, notebook, titles, stopped)}
        )
        soup = postprocess_html(text, page, titles)
        found += search_entries(soup, page)
        turns = turns or bool(soup.select("figure.scene"))
        target = html / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(str(soup), encoding="utf-8")
    # A script, since a page opened from a disk may read no other file.
    words = f"window.posebookPassages = {json.dumps(found, ensure_ascii=False, separators=(',', ':'))};\n"
    (html / "search.js").write_text(words, encoding="utf-8")
    if turns:  # once for all pages: it is larger than all of them
        from plotly.offline import get_plotlyjs

        (html / LIBRARY).write_text(get_plotlyjs(), encoding="utf-8")


def page_of(notebook: Path) -> Path:
    return notebook.with_name(notebook.name.removesuffix(".ipynb").removesuffix(".failed") + ".html")


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook without what no reader wants: progress bars, widgets, papermill's cells, larger pictures."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not PUT_IN & set(tags(cell))]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [pick_smaller_format(output) for output in cell.outputs if is_shown(output)]
    return notebook


def pick_smaller_format(output: dict) -> dict:
    """An output whose picture has the form that takes fewer bytes, where it came as pixels and as vectors."""
    data = output.get("data", {})
    if {"image/png", "image/svg+xml"} <= data.keys():
        vectors = len(data["image/svg+xml"].encode()) * 4 / 3  # as the page holds them, in base 64
        del data["image/png" if vectors < len(data["image/png"]) else "image/svg+xml"]
    return output


def is_shown(output: dict) -> bool:
    if output.output_type == "stream":
        return output.name == "stdout"
    return not any("widget" in kind for kind in output.get("data", {}))


def tags(cell: dict) -> list[str]:
    return cell.metadata.get("tags", [])


def title(notebook: dict, page: Path) -> str:
    """The first heading of the notebook."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^# +(.+)$", cell.source, re.MULTILINE)):
            return found[1].replace("`", "").replace("*", "").strip()
    raise ValueError(f"{page}: no heading of the first level")


def short(page: Path, heading: str) -> str:
    """A page's name in the list of pages: a table's file name, a net's, or the heading up to its colon."""
    if page.parent.name == "attribution":
        return page.stem
    if page.parent.name == "tables":
        paper = heading.split(":")[0]
        if page.stem.startswith(paper.lower()):
            return paper + page.stem[len(paper) :].replace("_", " ")
        return page.stem.replace("_", " ").capitalize()
    return heading.split(":")[0]


def page_context(page: Path, notebook: dict, titles: dict[Path, str], stopped: set[Path]) -> dict:
    """What the template says of a page beyond its cells."""
    pages = list(titles)
    place = pages.index(page)
    link = {other: os.path.relpath(other, page.parent) for other in pages}
    neighbor = {
        name: {"title": short(pages[i], titles[pages[i]]), "href": link[pages[i]]}
        for name, i in (("previous", place - 1), ("next", place + 1))
        if 0 <= i < len(pages)
    }
    groups = [
        {
            "title": GROUPS.get(folder, ""),
            "pages": [
                {
                    "title": short(other, titles[other]),
                    "href": link[other],
                    "here": other == page,
                    "stopped": other in stopped,
                }
                for other in members
            ],
        }
        for folder, members in ((f, list(m)) for f, m in groupby(pages, lambda other: str(other.parent)))
    ]
    run = notebook.metadata.get("papermill", {})
    return {
        "title": titles[page],
        "home": link[pages[0]],
        "groups": groups,
        "search": os.path.relpath("search.js", page.parent),
        "style": (HERE / "template" / "style.css").read_text(encoding="utf-8"),
        "script": (HERE / "template" / "page.js").read_text(encoding="utf-8"),
        "parameters": parameters(notebook),
        "started": (run.get("start_time") or "")[:16].replace("T", " "),
        "seconds": run.get("duration"),
        **notebook.metadata.get("posebook", {}),
        **neighbor,
    }


def parameters(notebook: dict) -> list[dict]:
    """Name, value in this run and meaning of each parameter: the tagged cell, and what papermill put in."""
    cell = next((cell for cell in notebook.cells if "parameters" in tags(cell)), None)
    if cell is None:
        return []
    given = notebook.metadata.get("papermill", {}).get("parameters", {})
    lines = cell.source.splitlines()
    found = []
    try:
        body = ast.parse(cell.source).body
    except SyntaxError:  # which stopped the notebook, and is shown there
        return []
    for node in body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            name = (node.targets[0] if isinstance(node, ast.Assign) else node.target).id
            value = repr(given[name]) if name in given else ast.unparse(node.value)
            comment = lines[node.end_lineno - 1][node.end_col_offset :].strip().lstrip("# ")
            found.append({"name": name, "value": value, "meaning": comment})
    return found


def postprocess_html(text: str, page: Path, titles: dict[Path, str]) -> BeautifulSoup:
    """Links to pages and to headings, scrolling tables, text alternatives; refuses what would be loaded."""
    soup = BeautifulSoup(text, "html.parser")
    for element in soup.select(LOADS):
        target = element.get("src") or element.get("href") or element.get("data") or ""
        if not target.startswith("data:"):
            raise ValueError(f"{page}: <{element.name}> would load {target[:100]}")
    for element in soup.select("main a[href]"):
        path, _, fragment = element["href"].partition("#")
        if "://" in path or not path.endswith((".ipynb", ".html")):
            continue
        target = Path(os.path.normpath(page.parent / path)).with_suffix(".html")
        if target in titles:
            element["href"] = os.path.relpath(target, page.parent) + (f"#{fragment}" if fragment else "")
        else:  # a notebook that this report does not hold
            element.unwrap()
    taken = {element["id"] for element in soup.select("[id]")}
    for heading in soup.select("main :is(h1, h2, h3)"):
        name = "-".join(heading.get_text().split())  # as JupyterLab names it
        again = (f"{name}-{number}" for number in count(2))
        heading["id"] = name if name not in taken else next(free for free in again if free not in taken)
        taken.add(heading["id"])
    for scene in soup.select(
        "figure.scene"
    ):  # posebook.report.figures_3d's, which the page's script brings to life
        scene["data-library"] = os.path.relpath(LIBRARY, page.parent)
    for image in soup.select("img"):
        image["alt"] = image.get("alt") or alt_text(image)
    for style in soup.select("style[scoped]"):  # pandas repeats it with every frame
        style.decompose()
    for table in soup.select("table"):
        style_table(table, soup)
    for element in soup.select("main pre"):  # may be wider than the page, and scrolls then
        element["tabindex"] = "0"
    for element in soup.select("main style"):
        element.string = themed_css(element.text)
    for element in soup.select("main [style]"):
        element["style"] = themed_css(element["style"])
    return soup


def search_entries(soup: BeautifulSoup, page: Path) -> list[dict]:
    """What the search looks through: a page's prose, a passage a heading, with the link to it."""
    found = []
    for block in soup.select("main .prose > *"):
        words = " ".join(block.get_text(" ").split())
        if block.name in ("h1", "h2", "h3"):
            href = page.as_posix() + (f"#{block['id']}" if found else "")
            found.append(
                {"page": found[0]["heading"] if found else words, "heading": words, "href": href, "text": ""}
            )
        elif found:
            found[-1]["text"] += f"{words} "
    return found


def themed_css(css: str) -> str:
    """The colors of posebook.report.figures as the page's own, which turn light on a dark screen."""
    return COLOR.sub(lambda found: f"var(--{PALETTE[found[0].lower()]})", css)


def alt_text(image) -> str:
    """The heading a picture stands under and the first sentence of the prose before it."""
    heading, prose = image.find_previous(["h1", "h2", "h3"]), image.find_previous("p")
    words = [" ".join(element.get_text(" ").split()) for element in (heading, prose) if element]
    if len(words) > 1:
        words[1] = re.split(r"(?<=[.:?!])\s", words[1])[0]
    return ". ".join(word.rstrip(".:") for word in words) or "figure"


def style_table(table, soup) -> None:
    """A table in a box that scrolls by itself, columns of figures to the right, columns of sentences wide.

    A last line of sums becomes the table's foot, which stays where it is when the table is sorted.
    """
    box = table.parent
    if "overflow" in box.get("style", ""):  # the notebook brought its own box
        del box["style"]
    else:
        box = table.wrap(soup.new_tag("div"))
    heading = table.find_previous(["h1", "h2", "h3"])
    named = f"table: {heading.get_text()}" if heading else "table"
    box.attrs |= {"class": "scroll", "tabindex": "0", "role": "group", "aria-label": named}
    del table["border"]
    for cell in table.select("thead th"):
        if not cell.get_text().strip():
            if len(table.select("thead tr")) > 1:  # the other line names the column
                cell.name = "td"
            else:
                cell["aria-label"] = "name"
    rows = [row.find_all(["th", "td"]) for row in table.select("tr")]
    if rows and rows[-1] and rows[-1][0].get_text().strip() == "all":
        foot = soup.new_tag("tfoot")
        foot.append(rows[-1][0].parent.extract())
        table.append(foot)
    for column in range(max(map(len, rows), default=0)):
        cells = [row[column] for row in rows if len(row) == len(rows[-1]) and column < len(row)]
        words = [cell.get_text(" ").strip() for cell in cells if cell.name == "td"]
        if any(map(str.strip, words)) and all(NUMBER.fullmatch(word) for word in words if word):
            kind = "number"
        elif any(len(word) > 24 for word in words):
            kind = "words"
        else:
            continue
        for cell in cells:
            cell["class"] = [*cell.get("class", []), kind]
