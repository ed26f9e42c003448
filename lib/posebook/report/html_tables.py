"""HTML tables: published beside measured values, and claims with their verdicts."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from posebook.papers.claims import BASES, VERDICTS, Claim, Finding, load_claims, tally
from posebook.papers.tables import STATUSES
from posebook.report.colors import GRID, MUTED, STATUS_COLORS, VERDICT_COLORS

if TYPE_CHECKING:
    from IPython.display import HTML

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


def comparison_table(table: pd.DataFrame) -> HTML:
    """A tables.build_table in the layout of the paper.

    Below each printed row of a model that posebook builds is a row of measured values, colored by status.
    Notes below the table state the origin of each value and the commands that measure missing ones.
    """
    from IPython.display import HTML

    marks: dict[str, str] = {}  # origin of a measured value -> letter of its note
    columns = list(dict.fromkeys(table["column"]))
    text_columns = [name for name in ("backbone", "setting") if _varies(table[name])]
    text_columns += ["boxes"] if table["boxes"].any() else []
    order = ["", "values", *columns, *text_columns]
    lines, styles = [], []
    for row in dict.fromkeys(table["row"]):
        cells = table[table["row"] == row]
        printed = {"": row, "values": "published"}
        printed |= {name: _first_text(cells[name]) for name in text_columns}
        lines.append(printed | dict(zip(cells["column"], map(html.escape, cells["published"]), strict=True)))
        styles.append({"": "font-weight: 600"})
        if (cells["status"] == "published").all():
            continue
        measured = {"values": "posebook", "boxes": _first_text(cells["measured_boxes"])}
        style = dict.fromkeys(["values", "boxes"], f"color: {MUTED}")
        for cell in cells.to_dict("records"):
            measured[cell["column"]] = _marked(cell, marks)
            weight = "font-weight: 600" if cell["measured"] else "font-size: 0.85em"
            style[cell["column"]] = f"color: {STATUS_COLORS[cell['status']]}; {weight}"
        lines.append(measured)
        styles.append(style)
        if cells["other"].any():  # the same model with the other source of boxes
            other = dict(zip(cells["column"], map(html.escape, cells["other"]), strict=True))
            lines.append({"values": "posebook", "boxes": _first_text(cells["other_boxes"])} | other)
            styles.append(dict.fromkeys(order, f"color: {MUTED}"))
    frame, css = (pd.DataFrame([dict.fromkeys(order, "") | row for row in r])[order] for r in (lines, styles))
    styler = frame.style.hide(axis="index").apply(lambda _: css, axis=None)
    styler.set_table_styles(_table_styles(frame, right=len(text_columns)))
    return HTML(f'<div style="overflow-x: auto">{styler.to_html()}</div>{_notes(table, marks)}')


def verdict_table(audited: Sequence[tuple[Claim, Finding]]) -> HTML:
    """Claims with their verdicts and findings, one row each, below the counts; as cards on narrow pages."""
    from IPython.display import HTML

    verdicts = [finding.verdict for _, finding in audited]
    texts = tally({verdict: verdicts.count(verdict) for verdict in VERDICTS})
    counts = " ".join(_badge(v, t) for v, t in zip(VERDICTS, texts, strict=True) if v in verdicts)
    lines = []
    for claim, finding in audited:
        target = finding.evidence.rpartition("/")[2].removesuffix(".ipynb").strip("#")
        link = f'<a href="{finding.evidence}">{re.sub("[-_]", " ", target)}</a>'
        cells = (
            f"{_badge(finding.verdict)}<small>evidence: {link}</small>",
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
    from IPython.display import HTML

    claims = load_claims(paper)
    cards = [
        f"<blockquote>{_html(claims[key].text)} <small>{_html(claims[key].where)}</small></blockquote>"
        f"<div>{_badge(findings[key].verdict)} {_result(findings[key])}</div>"
        for key in ids.split()
    ]
    return HTML(f'<style>{VERDICT_STYLE}</style><div class="audit">{"".join(cards)}</div>')


def _badge(verdict: str, text: str = "") -> str:
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


def _first_text(values: pd.Series) -> str:
    """The first text that is not empty, as HTML."""
    return html.escape(next(filter(None, values), ""))


def _marked(cell: dict, marks: dict[str, str]) -> str:
    """The measured value with the letter of the note on its origin, or the status."""
    if not cell["measured"]:
        return cell["status"]
    mark = marks.setdefault(cell["where"], _letters(len(marks)))
    spread = cell["spread"] or cell["interval"]
    below = f"<br><small>{spread}</small>" if spread else ""
    return f"{html.escape(cell['measured'])}<sup>{mark}</sup>{below}"


def _notes(table: pd.DataFrame, marks: dict[str, str]) -> str:
    """The notes below a table: counts, origins of measured values, commands, settings, sources of boxes."""
    counts = table["status"].value_counts()
    statuses = [f'<b style="color: {STATUS_COLORS[s]}">{counts.get(s, 0)} {s}</b>' for s in STATUSES]
    notes = [f"{len(table)} cells: {', '.join(statuses)}."]
    notes += [f"<sup>{mark}</sup> {html.escape(where)}." for where, mark in marks.items()]
    if table["interval"].any():
        notes.append("Below a value: its 95 % bootstrap interval over images.")
    if table["spread"].any():
        notes.append("Mean ± standard deviation over runs with different seeds.")
    commands = [
        f"<code>{html.escape(command)}</code>{html.escape(cost and ', ' + cost)}"
        for (command, cost), _ in table[table["command"] != ""].groupby(["command", "cost"], sort=False)
    ]
    if len(commands) > 3:
        lines = "<br>".join(commands)
        notes.append(
            f"<details><summary>{len(commands)} commands for missing values</summary>{lines}</details>"
        )
    else:
        notes += [f"Command for missing values: {command}" for command in commands]
    for setting, part in table[table["setting"] != ""].groupby("setting", sort=False):
        if not _varies(table["setting"]):
            columns = ", ".join(dict.fromkeys(part["column"]))
            notes.append(f"Printed {html.escape(columns)}: {html.escape(setting)}.")
    known = table[table["boxes"] != ""].drop_duplicates(["boxes", "boxes_basis"])
    for boxes, basis in zip(known["boxes"], known["boxes_basis"], strict=True):
        notes.append(f"Boxes ({html.escape(boxes)}): {html.escape(basis)}.")
    notes += [f"Source: {html.escape(source)}." for source in table["source"].unique()]
    style = f"color: {MUTED}; font-size: 0.85em; overflow-wrap: anywhere"
    return f'<div style="{style}">{"<br>".join(notes)}</div>'


def _table_styles(frame: pd.DataFrame, right: int) -> list[dict]:
    """CSS of a table: thin lines between rows, text in the first two and the last `right` columns."""
    starts = [f"tbody tr:nth-child({n}) td" for n, row in enumerate(frame[""], 1) if row and n > 1]
    columns = ["nth-child(-n+2)"] + [f"nth-last-child(-n+{right})"] * bool(right)
    text_cells = ", ".join(f"{cell}:{column}" for cell in ("th", "td") for column in columns)
    return [
        {"selector": "", "props": "border-collapse: collapse; font-size: 0.92em"},
        {"selector": "th", "props": f"text-align: right; border-bottom: 1.5px solid {MUTED}"},
        {"selector": "td", "props": "text-align: right; white-space: nowrap; background: none"},
        {"selector": "th, td", "props": "padding: 3px 9px"},
        {"selector": text_cells, "props": "text-align: left; white-space: normal"},
        {"selector": text_cells, "props": "min-width: 6em; max-width: 13em"},
        {"selector": ", ".join(starts), "props": f"border-top: 1px solid {GRID}"},
    ]
