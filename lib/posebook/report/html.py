"""Export executed notebooks to self-contained HTML pages.

nbconvert converts them with the template beside this file. This module adds what its exporter lacks: formulas
as MathML (no script from another host), links between pages instead of notebooks, a text alternative for
every image, a mark on the page of a notebook that stopped, and an error for a page that would load anything
from another host. Beside the pages, search.js contains their text for the search. plotly.min.js draws the 3D
figures, if a page has any.
"""

import json
import os
import re
import tempfile
from itertools import chain, count
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag
from jinja2 import pass_context
from latex2mathml.converter import convert as mathml
from nbconvert.exporters.html import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from tqdm import tqdm

from posebook.report import navigation
from posebook.report.page_cells import first_heading, parameters, read_notebook

HERE = Path(__file__).resolve().parent
# Commands that latex2mathml does not support -> equivalent ones.
TEX_SUBSTITUTES = {r"\operatorname*": r"\mathrm", r"\arg": r"\mathrm{arg}\,", "{aligned}": "{align*}"}
LOADS = "img[src], script[src], link[href], iframe[src], source[src], video[src], audio[src], object[data]"
LIBRARY = "plotly.min.js"
# Colors of posebook.report.colors -> their names in style.css. Importing that module would import torch.
PALETTE = {
    "#1f2933": "ink",
    "#000000": "ink",
    "#66737f": "muted",
    "#e6eaee": "line",
    "#0b7a75": "accent",
    "#d1603d": "warm",
    "#e0a72e": "gold",
    "#2f6690": "blue",
}
COLOR = re.compile("|".join(PALETTE), re.IGNORECASE)
WIDE_PLOT = 480  # points; the text of wider plots is too small on a phone
NUMBER = re.compile(r"[−+-]?[\d.,]+\s*(%|M|G|ms|s)?|[–—-]|nan|NaN|None")


class MathRenderer(IPythonRenderer):
    """Render Markdown with formulas as MathML."""

    def block_math(self, body: str) -> str:
        return f'<div class="math">{formula_mathml(body, "block")}</div>'

    def inline_math(self, body: str) -> str:
        return formula_mathml(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")


def formula_mathml(tex: str, display: str) -> str:
    """TeX as MathML; raises ValueError for commands that latex2mathml does not support."""
    supported = tex.strip()
    for command, substitute in TEX_SUBSTITUTES.items():
        supported = supported.replace(command, substitute)
    formula = mathml(supported, display=display)
    if "\\" in formula or "<mi>&</mi>" in formula:  # latex2mathml copies unknown commands
        raise ValueError(f"a formula that cannot be converted to MathML: {tex.strip()}")
    return formula


class PageExporter(HTMLExporter):
    """nbconvert's HTML exporter with the template of this folder and MathRenderer."""

    @pass_context
    def markdown2html(self, context, source):
        renderer = MathRenderer(
            escape=False,
            attachments=context.get("cell", {}).get("attachments", {}),
            exclude_anchor_links=True,
        )
        return MarkdownWithMath(renderer=renderer).render(source)

    @property
    def default_config(self):
        config = super().default_config
        # Without script and widget types: their text or image is shown instead.
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
    """Write a page under `html` for every executed notebook, with links to all pages.

    The common folder of the notebooks is the root of the pages; X.failed.ipynb becomes the page X. Raises
    ValueError for a page that would load anything from another host.
    """
    root = Path(os.path.commonpath([path.parent for path in executed]))
    paths = {page_path(path.relative_to(root)): path for path in executed}
    notebooks = {page: read_notebook(paths[page], page) for page in navigation.in_order(paths)}
    titles = {page: first_heading(notebook, page) for page, notebook in notebooks.items()}
    stopped = {page for page, nb in notebooks.items() if "stopped" in nb.metadata.get("posebook", {})}
    exporter = PageExporter(template_name="template", extra_template_basedirs=[str(HERE)])
    entries, has_scene = [], False
    for page, notebook in tqdm(notebooks.items(), desc="pages", unit="page"):
        context = page_context(page, notebook, titles, stopped)
        text, _ = exporter.from_notebook_node(notebook, {"page": context})
        soup = postprocess_html(text, page, titles)
        entries += search_entries(soup, page)
        has_scene = has_scene or bool(soup.select("figure.scene"))
        target = html / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(str(soup), encoding="utf-8")
    # A script instead of JSON, because a page opened from disk cannot read other types of files.
    index = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
    (html / "search.js").write_text(f"window.posebookPassages = {index};\n", encoding="utf-8")
    if has_scene:  # one file for all pages, because it is larger than the pages
        from plotly.offline import get_plotlyjs

        (html / LIBRARY).write_text(get_plotlyjs(), encoding="utf-8")


def convert(executed: Path, out: Path) -> None:
    """Write an executed notebook as one self-contained HTML file, or as a PDF if `out` ends in .pdf.

    A PDF needs Chromium; 3D figures are images. Raises the errors of `export`.
    """
    with tempfile.TemporaryDirectory() as folder:
        export([executed], Path(folder))
        page = Path(folder, page_path(Path(executed.name)))
        if out.suffix == ".pdf":
            from posebook.report import browser  # imports OpenCV

            browser.pdf(page, out)
            return
        index = Path(folder, "search.js").read_text(encoding="utf-8").replace("</", "<\\/")
        text = page.read_text(encoding="utf-8").replace("</body>", f"<script>{index}</script></body>")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")


def page_path(notebook: Path) -> Path:
    return notebook.with_name(notebook.name.removesuffix(".ipynb").removesuffix(".failed") + ".html")


def page_context(page: Path, notebook: NotebookNode, titles: dict[Path, str], stopped: set[Path]) -> dict:
    """The variables of the template for a page, besides its cells."""
    groups = navigation.page_groups(page, titles, stopped)
    order = list(titles)
    position = order.index(page)
    neighbors = {
        name: {"title": titles[order[i]], "href": os.path.relpath(order[i], page.parent)}
        for name, i in (("previous", position - 1), ("next", position + 1))
        if 0 <= i < len(order)
    }
    run = notebook.metadata.get("papermill", {})
    return {
        "title": titles[page],
        "home": os.path.relpath("index.html", page.parent) if Path("index.html") in titles else "#page",
        "groups": groups,
        "search": os.path.relpath("search.js", page.parent),
        "style": (HERE / "template" / "style.css").read_text(encoding="utf-8"),
        "script": (HERE / "template" / "page.js").read_text(encoding="utf-8"),
        "parameters": parameters(notebook),
        "started": (run.get("start_time") or "")[:16].replace("T", " "),
        "seconds": run.get("duration"),
        "resumes": page.parent.name == "runs" or page.stem == "train",
        **notebook.metadata.get("posebook", {}),
        **neighbors,
    }


def postprocess_html(text: str, page: Path, titles: dict[Path, str]) -> BeautifulSoup:
    """Set the links and heading ids of a page, its text alternatives, and the layout and colors of tables.

    Raises ValueError if the page would load anything.
    """
    soup = BeautifulSoup(text, "html.parser")
    for element in soup.select(LOADS):
        url = str(element.get("src") or element.get("href") or element.get("data") or "")
        if not url.startswith("data:"):
            raise ValueError(f"{page}: <{element.name}> would load {url[:100]}")
    _link_pages(soup, page, titles)
    used = {element["id"] for element in soup.select("[id]")}
    for heading in soup.select("main :is(h1, h2, h3)"):
        name = "-".join(heading.get_text().split())  # as in JupyterLab
        numbered = (f"{name}-{number}" for number in count(2))
        heading["id"] = next(candidate for candidate in chain([name], numbered) if candidate not in used)
        used.add(heading["id"])
    for scene in soup.select("figure.scene"):  # written by posebook.report.figures_3d
        scene["data-library"] = os.path.relpath(LIBRARY, page.parent)
    for image in soup.select("img"):
        image["alt"] = image.get("alt") or alt_text(image)
    for figure in soup.select("figure:has(> svg)"):
        plot = figure.svg
        assert plot is not None  # by the selector
        plot.attrs |= {"role": "img", "aria-label": plot.get("aria-label") or alt_text(plot)}
        width = re.fullmatch(r"([\d.]+)(pt|px)?", str(plot.get("width", "")))
        if width and float(width[1]) > WIDE_PLOT:  # scrolls on narrow pages
            figure.attrs |= {"class": "wide", "tabindex": "0"}
    for style in soup.select("style[scoped]"):  # pandas repeats it with every frame
        style.decompose()
    for table in soup.select("table"):
        style_table(table, soup)
    for element in soup.select("main pre"):  # scrolls if it is wider than the page, also by keyboard
        element["tabindex"] = "0"
    for element in soup.select("main style"):
        element.string = themed_css(element.text)
    for element in soup.select("main [style]"):
        element["style"] = themed_css(str(element["style"]))
    return soup


def _link_pages(soup: BeautifulSoup, page: Path, titles: dict[Path, str]) -> None:
    """Replace links to notebooks by links to pages, or by their text if the report has no such page."""
    for element in soup.select("main a[href]"):
        path, _, fragment = str(element["href"]).partition("#")
        if "://" in path or not path.endswith((".ipynb", ".html")):
            continue
        target = Path(os.path.normpath(page.parent / path)).with_suffix(".html")
        if target in titles:
            element["href"] = os.path.relpath(target, page.parent) + (f"#{fragment}" if fragment else "")
        else:
            element.unwrap()


def search_entries(soup: BeautifulSoup, page: Path) -> list[dict]:
    """The search index of a page: one entry for each heading, with the text below it and a link."""
    entries: list[dict] = []
    for block in soup.select("main .prose > *"):
        text = " ".join(block.get_text(" ").split())
        if block.name in ("h1", "h2", "h3"):
            href = page.as_posix() + (f"#{block['id']}" if entries else "")
            title = entries[0]["heading"] if entries else text
            entries.append({"page": title, "heading": text, "href": href, "text": ""})
        elif entries:
            entries[-1]["text"] += f"{text} "
    return entries


def themed_css(css: str) -> str:
    """Replace the colors of posebook.report.colors by CSS variables, which differ between light and dark."""
    return COLOR.sub(lambda match: f"var(--{PALETTE[match[0].lower()]})", css)


def alt_text(image: Tag) -> str:
    """A text alternative: the heading above the image and the first sentence of the paragraph before it."""
    heading, prose = image.find_previous(["h1", "h2", "h3"]), image.find_previous("p")
    texts = [" ".join(element.get_text(" ").split()) for element in (heading, prose) if element]
    if len(texts) > 1:
        texts[1] = re.split(r"(?<=[.:?!])\s", texts[1])[0]
    return ". ".join(text.rstrip(".:") for text in texts) or "figure"


def style_table(table: Any, soup: BeautifulSoup) -> None:
    """Put a table into a scrolling box and mark the columns that contain numbers or long texts.

    A last row of totals becomes the foot of the table, which keeps its position when the table is sorted.
    """
    box = table.parent
    if "overflow" in box.get("style", ""):  # a box from the notebook
        del box["style"]
    else:
        box = table.wrap(soup.new_tag("div"))
    heading = table.find_previous(["h1", "h2", "h3"])
    label = f"table: {heading.get_text()}" if heading else "table"
    box.attrs |= {"class": "scroll", "tabindex": "0", "role": "group", "aria-label": label}
    del table["border"]
    for cell in table.select("thead th"):
        if not cell.get_text().strip():
            if len(table.select("thead tr")) > 1:  # another line of the head names the column
                cell.name = "td"
            else:
                cell.clear()
                cell.append(soup.new_tag("span", attrs={"class": "unseen"}, string="name"))
    rows = [row.find_all(["th", "td"]) for row in table.select("tr")]
    if rows and rows[-1] and rows[-1][0].get_text().strip() == "all":
        foot = soup.new_tag("tfoot")
        foot.append(rows[-1][0].parent.extract())
        table.append(foot)
    for column in range(max(map(len, rows), default=0)):
        cells = [row[column] for row in rows if len(row) == len(rows[-1]) and column < len(row)]
        texts = [cell.get_text(" ").strip() for cell in cells if cell.name == "td"]
        if any(texts) and all(NUMBER.fullmatch(text) for text in texts if text):
            css_class = "number"  # aligned to the right
        elif any(len(text) > 24 for text in texts):
            css_class = "words"  # with a minimum width
        else:
            continue
        for cell in cells:
            cell["class"] = [*cell.get("class", []), css_class]
