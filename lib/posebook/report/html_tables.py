"""HTML tables: published beside measured values, and claims with their verdicts."""

import html
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import pandas as pd
from IPython.display import HTML

from posebook.papers import runs, tables
from posebook.papers.claims import BASES, VERDICTS, Claim, Finding, load_claims
from posebook.papers.names import PAPERS
from posebook.papers.statuses import BADGES, ELSEWHERE, NOT_RUN, PUBLISHED, STATUSES
from posebook.report import navigation
from posebook.report.colors import GRID, MUTED, STATUS_COLORS, VERDICT_COLORS

VERDICT_STYLE = " ".join(
    (
        ".audit th, .audit td {text-align: left; vertical-align: top; background: none}",
        ".audit th, .audit td {padding: 6px 12px 6px 0}",
        f".audit small {{display: block; color: {MUTED}; overflow-wrap: anywhere}}",
        ".audit td:nth-child(1) {min-width: 9em} .audit td:nth-child(n+2) {min-width: 15em; width: 42%}",
        ".verdict {color: #fff; border-radius: 4px; padding: 1px 7px; white-space: nowrap; font-size: 0.9em}",
        ".audit blockquote {margin: 1.2em 0 0.3em}",
        "@media (max-width: 50rem) {.audit thead {display: none}",
        "table.audit, .audit tbody {display: block}",
        f".audit tr {{display: block; padding: 8px 0; border-bottom: 1px solid {GRID}}}",
        ".audit tbody tr > td:nth-child(n) {display: block; width: auto; border: 0; padding: 1px 0}}",
    )
)


# Parts of `setting` with a column of their own, and its head.
SETTINGS = {"ImageNet pretraining": "ImageNet", "test-time augmentation": "TTA"}
# The first column stays visible while a narrow page is scrolled.
COMPARISON_CSS = f"""
.compare {{font-size: 0.78rem}}
.compare th, .compare td {{padding: 4px 6px 4px 0; text-align: right; vertical-align: top}}
.compare td {{white-space: nowrap}} .compare td:last-child {{white-space: normal}}
.compare thead th {{vertical-align: bottom; white-space: normal}}
.compare th:first-child, .compare .text {{text-align: left; white-space: normal}}
.compare th:first-child {{position: sticky; left: 0; min-width: 7em; max-width: 13em}}
.compare th:first-child {{background: var(--paper, var(--jp-layout-color0, white))}}
.compare .text, .compare td.words {{min-width: 2.4em; max-width: 16em}}
.compare small {{display: block; color: {MUTED}; white-space: normal}}
.notes {{color: {MUTED}; font-size: 0.85em; overflow-wrap: anywhere}} .notes p {{margin: 0 0 4px}}
@media (max-width: 40rem) {{.compare th:first-child {{max-width: 8em}}}}
"""


def comparison_table(table: pd.DataFrame) -> HTML:
    """A tables.build_table with one row for each model: the printed value above the measured one.

    A badge before the measured value states whether both agree; the reason is below it. GFLOPs are followed
    by the counter of the paper and the exact multiply-adds. Speeds and memory of another device are in a
    column of their own. Notes below the table state the origin of the values; the commands that measure
    missing ones are folded.
    """
    table, marks = _split_settings(table), dict[str, str]()  # origin of a measured value -> its letter
    rows = {name: table[table["row"] == name] for name in dict.fromkeys(table["row"])}
    columns = _columns(table, marks)
    heads = "".join(f"<th{kind}>{html.escape(head)}</th>" for head, kind, _ in columns)
    suffix, lines = _common_size(rows), []
    for name, cells in rows.items():
        values = "".join(f"<td{kind}>{cell_of(cells)}</td>" for _, kind, cell_of in columns)
        label = html.escape(name.removesuffix(suffix).replace("H2OT", PAPERS["H2OT"]))
        lines.append(f'<tr><th scope="row">{label}</th>{values}</tr>')
    first = "component" if (table["unit"] == "text").all() else "model"
    return HTML(
        f'<style>{COMPARISON_CSS}</style><div style="overflow-x: auto"><table class="compare">'
        f"<thead><tr><th>{first}</th>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        f"{_notes(table, marks)}"
    )


def verdict_table(audited: Sequence[tuple[Claim, Finding]]) -> HTML:
    """Claims with their verdicts and findings, one row each, below the counts; as cards on narrow pages."""
    number = Counter(finding.verdict for _, finding in audited)
    counts = " ".join(_verdict_badge(v, f"{number[v]} {v}") for v in VERDICTS if v in number)
    lines = []
    for claim, finding in audited:
        page, _, section = finding.evidence.partition("#")
        title = section.replace("-", " ") or navigation.notebook_title(page.removeprefix("../"))
        link = f'<a href="{finding.evidence}">{html.escape(title)}</a>'
        cells = (
            f"{_verdict_badge(finding.verdict)}<small>evidence: {link}</small>",
            f"{_html(claim.text)}<small>{_html(claim.where)}</small>",
            _result(finding),
        )
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = "".join(f"<th>{head}</th>" for head in ("verdict", "claim of the paper", "result"))
    return HTML(
        f"<style>{VERDICT_STYLE}</style><p>{len(audited)} claims: {counts}</p>"
        f'<div style="overflow-x: auto"><table class="audit"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def verdict_cards(paper: str, findings: Mapping[str, Finding], ids: str) -> HTML:
    """Some claims of a paper, each quoted above its verdict and finding. ids: separated by spaces."""
    claims = load_claims(paper)
    cards = [
        f"<blockquote>{_html(claims[key].text)} <small>{_html(claims[key].where)}</small></blockquote>"
        f"<div>{_verdict_badge(findings[key].verdict)} {_result(findings[key])}</div>"
        for key in ids.split()
    ]
    return HTML(f'<style>{VERDICT_STYLE}</style><div class="audit">{"".join(cards)}</div>')


def _verdict_badge(verdict: str, text: str = "") -> str:
    """A verdict, or another text about it, on the color of the verdict."""
    return f'<b class="verdict" style="background: {VERDICT_COLORS[verdict]}">{text or verdict}</b>'


def _result(finding: Finding) -> str:
    """What was found, by which rule, on which basis, and what would decide the claim."""
    reason = f" Not tested, because {_html(finding.why)}." if finding.why else ""
    records = f"; records: {', '.join(finding.records)}" if finding.records else ""
    details = f"<small>Rule: {_html(finding.rule)}. Basis: {BASES[finding.basis]}{records}.{reason}</small>"
    if finding.decide:
        head = "what would test it" if finding.why else "what would decide it"
        details += f"<details><summary>{head}</summary>{_html(finding.decide)}</details>"
    return f"{_html(finding.found)}{details}"


def _html(text: str) -> str:
    """Text as HTML, with text between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def _letters(number: int) -> str:
    """The mark of note `number`: a, b, ..., z, aa, bb, ..."""
    return chr(ord("a") + number % 26) * (number // 26 + 1)


def _varies(values: pd.Series) -> bool:
    """Whether the texts that are not empty differ."""
    return values[values != ""].nunique() > 1


def _split_settings(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column for each of SETTINGS; `setting` has the other parts."""
    table = table.assign(**dict.fromkeys(SETTINGS, ""))
    for row, setting in table["setting"].items():
        parts = dict(part.partition(": ")[::2] for part in setting.split("; "))
        for name in SETTINGS:
            table.loc[row, name] = parts.pop(name, "")
        table.loc[row, "setting"] = "; ".join(": ".join(filter(None, part)) for part in parts.items())
    return table


Column = tuple[str, str, Callable[[pd.DataFrame], str]]


def _columns(table: pd.DataFrame, marks: dict[str, str]) -> list[Column]:
    """The columns of a comparison: head, attribute of the cells, function that writes one model's cell."""
    columns: list[Column] = []
    names = list(dict.fromkeys(table["column"]))
    for name in names:
        cells = table[table["column"] == name]
        columns.append((_head(name, names, cells), "", partial(_value, column=name, marks=marks)))
        if name == "GFLOPs" and cells["exact"].any():
            columns.append(("counter", ' class="text"', _counter))
            columns.append(("exact GMACs", "", _exact))
    for device in table.loc[table["status"] == ELSEWHERE, "device"].unique():
        head = f"measured on {device.removeprefix('cpu: ').replace('(R)', '')}"
        columns.append((head, "", partial(_speeds, device=device, marks=marks)))
    for name in ("backbone", *SETTINGS, "setting", "boxes"):
        if _varies(_untimed(table)[name]) or (name == "boxes" and table[name].any()):
            columns.append((SETTINGS.get(name, name), ' class="text"', partial(_words, name=name)))
    return columns


def _head(column: str, columns: Sequence[str], cells: pd.DataFrame) -> str:
    """The name of a column without that of another column before it: 'PCKh@0.5 knee' -> 'knee'.

    For speeds, the name of the device is added if the column does not contain it.
    """
    starts = [other for other in columns if column.startswith(f"{other} ")]
    head = column.removeprefix(max(starts, key=len, default="")).strip()
    if (cells["quantity"] == "latency").all() and "," not in column and cells["setting"].nunique() == 1:
        head += f", {cells['setting'].iloc[0].partition(',')[0]}".removesuffix(", ")
    return head


def _common_size(names: Iterable[str]) -> str:
    """The input size that all names end with, such as ', 256×192'; "" if there is none."""
    ends = {end for name in names for end in re.findall(r", \d+×\d+$", name) or [""]}
    return ends.pop() if len(ends) == 1 else ""


def badge(status: str, reason: str = "") -> str:
    """The sign of a status, with its words for screen readers and in a tooltip."""
    words, color = html.escape(f"{status}: {reason}" if reason else status), STATUS_COLORS[status]
    return f'<b role="img" aria-label="{words}" title="{words}" style="color: {color}">{BADGES[status]}</b>'


def _value(cells: pd.DataFrame, column: str, marks: dict[str, str]) -> str:
    """The printed value of one model, above the measured one with its badge and reason."""
    cells = cells[cells["column"] == column]
    if cells.empty:
        return ""
    cell = cells.iloc[0]
    printed, measured, status = html.escape(cell["published"]), html.escape(cell["measured"]), cell["status"]
    if status in (PUBLISHED, ELSEWHERE):
        return printed
    sign = badge(status, cell["reason"])
    if status == NOT_RUN or (cell["unit"] == "text" and measured == printed):
        return f"{printed} <br>{sign}"
    below = [cell["spread"] or cell["interval"], "fitted" if cell["fitted"] else ""]
    if column != "GFLOPs":  # which have it in the column `counter`
        below.append(cell["reason"].removeprefix("counter "))
    if cell["other"]:
        below.append(f"{cell['other_boxes'].partition(':')[0]}: {cell['other']}")
    small = "".join(f"<small>{html.escape(text)}</small>" for text in below if text)
    # sizes and texts have the same origin in all rows
    mark = "" if cell["exact"] or cell["unit"] == "text" else _mark(cell["where"], marks)
    measured = run_link(cell["record"], measured)
    return f"{printed} <br>{sign} {measured}{mark} {small}"


def run_link(record: str, text: str = "") -> str:
    """Text as a link from a page of tables to the run that wrote a record, if that run has a page.

    record: path or name. text: HTML; "" for the name of the record.
    """
    text, page = text or html.escape(record), runs.page_of(record)
    return f'<a href="../runs/{html.escape(page.name)}">{text}</a>' if page else text


def _mark(where: str, marks: dict[str, str]) -> str:
    """The letter of the note on the origin of a value."""
    return f"<sup>{marks.setdefault(where, _letters(len(marks)))}</sup>"


def _counter(cells: pd.DataFrame) -> str:
    """Which counter gives the printed GFLOPs of one model, or by how much they differ."""
    cells = cells[(cells["column"] == "GFLOPs") & (cells["measured"] != "")]
    return html.escape(_first(cells["reason"]).removeprefix("counter ") or _first(cells["counter"]))


def _exact(cells: pd.DataFrame) -> str:
    return _first(cells.loc[cells["column"] == "GFLOPs", "exact"])


def _speeds(cells: pd.DataFrame, device: str, marks: dict[str, str]) -> str:
    """The measured speeds and memory of one model on one device, each once."""
    units = {"Latency": "ms", "FPS": "FPS", "RAM": "MB"}
    texts: dict[tuple[str, str], str] = {}  # by unit and origin; of one value, the text with more decimals
    for cell in cells[cells["device"] == device].to_dict("records"):
        key = units[re.split("[ ,]", cell["column"])[0]], cell["where"]
        texts[key] = max(texts.get(key, ""), cell["measured"], key=len)
    return " <br>".join(f"{text} {unit}{_mark(where, marks)}" for (unit, where), text in texts.items())


def _words(cells: pd.DataFrame, name: str) -> str:
    """A text of one model; for boxes, also those of the measurement if they differ."""
    text = _first(_untimed(cells)[name])
    if name == "backbone" and cells["row"].iloc[0].startswith(text):  # the row is named after it
        return ""
    text = text.partition(",")[0] if name == "boxes" else text  # _protocol has the complete text
    measured = _first(cells["measured_boxes"]).partition(":")[0] if name == "boxes" else ""
    here = "" if measured in ("", text) else f" <br><small>here: {html.escape(measured)}</small>"
    return html.escape(text) + here


def _untimed(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells except speeds and memory, whose settings do not describe the row."""
    return cells[~cells["quantity"].isin(["latency", "memory"])]


def _first(texts: pd.Series) -> str:
    """The first text that is not empty."""
    return next(filter(None, texts), "")


def _notes(table: pd.DataFrame, marks: dict[str, str]) -> str:
    """The notes below a table: counts and origins of values; folded, the protocol and the commands."""
    counts = table["status"].value_counts()
    signs = {status: f"{badge(status)} " if status in BADGES else "" for status in STATUSES}
    texts = ", ".join(f"{signs[status]}{counts[status]} {status}" for status in STATUSES if status in counts)
    notes = [f"{len(table)} cells: {texts}."]
    notes += [f"<sup>{mark}</sup> {html.escape(where)}." for where, mark in marks.items()]
    if table["interval"].any():
        notes.append("Below a value: its 95 % bootstrap interval over images.")
    if table["spread"].any():
        notes.append("Mean ± standard deviation over runs with different seeds.")
    if table["fitted"].any():
        notes.append(
            "fitted: the model was built to have these printed sizes. Their agreement is no evidence."
        )
    missing = table[table["command"] != ""].groupby(["command", "cost"], sort=False)["row"]
    commands = [
        f"{html.escape(', '.join(dict.fromkeys(names)))}: <code>{html.escape(command)}</code>"
        + html.escape(cost and f", {cost}")
        for (command, cost), names in missing
    ]
    folds = _fold("Differences of measured models on the same images", _differences(table), " open")
    folds += _fold("Protocol and source", map(html.escape, _protocol(table)))
    folds += _fold("How to measure the missing values", commands)
    return f'<div class="notes">{"".join(f"<p>{note}</p>" for note in notes)}{folds}</div>'


def _differences(table: pd.DataFrame) -> list[str]:
    """Paired differences between measured rows, in points, with their 95 % intervals over images."""
    return [
        f"{html.escape(line['column'])}, {html.escape(line['row'])} minus {html.escape(line['less'])}: "
        f"{line['difference']:+.2f}, 95 % interval {line['low']:+.2f} to {line['high']:+.2f}"
        for line in tables.paired_differences(table).to_dict("records")
    ]


def _protocol(table: pd.DataFrame) -> list[str]:
    """How sizes are counted, and what is known about the protocol and the source of the printed values."""
    sized = table[table["exact"] != ""].drop_duplicates("column")
    lines = [f"{column}: {where}" for column, where in zip(sized["column"], sized["where"], strict=True)]
    for name in ("setting", *SETTINGS):
        for text, part in table[table[name] != ""].groupby(name, sort=False):
            label = "" if name == "setting" else f"{name} ({SETTINGS[name]}) "
            lines.append(f"{', '.join(dict.fromkeys(part['column']))}: {label}{text}")
    known = table[table["boxes"] != ""].drop_duplicates(["boxes", "boxes_basis"])
    lines += [
        f"boxes, {boxes}: {basis}" for boxes, basis in zip(known["boxes"], known["boxes_basis"], strict=True)
    ]
    return lines + [f"source: {source}" for source in table["source"].unique()]


def _fold(title: str, lines: Iterable[str], is_open: str = "") -> str:
    """A folded list of lines of HTML; nothing without lines."""
    text = "<br>".join(lines)
    return f"<details{is_open}><summary>{title}</summary>{text}</details>" if text else ""
