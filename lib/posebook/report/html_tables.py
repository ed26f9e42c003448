"""HTML tables: published beside measured values, and claims with their verdicts."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from posebook.papers.claims import BASES, VERDICTS, Claim, Finding, tally
from posebook.papers.tables import STATUSES
from posebook.report.colors import GRID, MUTED, STATUS_COLORS, VERDICT_COLORS

if TYPE_CHECKING:
    from IPython.display import HTML


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
    """Claims with their findings and verdicts, one row each, below the counts; as cards on narrow pages."""
    from IPython.display import HTML

    verdicts = [finding.verdict for _, finding in audited]
    texts = tally({verdict: verdicts.count(verdict) for verdict in VERDICTS})
    counts = [f'<b style="color: {VERDICT_COLORS[v]}">{t}</b>' for v, t in zip(VERDICTS, texts, strict=True)]
    lines = []
    for claim, finding in audited:
        would = f"<details><summary>how to test it</summary>{_html(finding.would)}</details>"
        target = finding.evidence.rpartition("/")[2].removesuffix(".ipynb").strip("#")
        cells = (
            f"{_html(claim.text)}<small>{_html(claim.where)}</small>",
            f"{_html(finding.found)}<small>{_html(finding.rule)}; {BASES[finding.basis]}</small>",
            f'<b style="color: {VERDICT_COLORS[finding.verdict]}">{finding.verdict}</b>'
            f"<small>{_html(finding.why)}{would if finding.would else ''}</small>",
            f'<a href="{finding.evidence}">{re.sub("[-_]", " ", target)}</a>',
        )
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = "".join(f"<th>{head}</th>" for head in ("claim", "result here", "verdict", "evidence"))
    rules = (
        ".audit th, .audit td {text-align: left; vertical-align: top; background: none}",
        ".audit th, .audit td {padding: 6px 12px 6px 0}",
        f".audit small {{display: block; color: {MUTED}; overflow-wrap: anywhere}}",
        ".audit td {min-width: 6em} .audit td:nth-child(-n+2) {min-width: 15em; width: 34%}",
        ".audit td:nth-child(3) {min-width: 12em}",
        "@media (max-width: 50rem) {.audit thead {display: none} .audit, .audit tbody {display: block}",
        f".audit tr {{display: block; padding: 8px 0; border-bottom: 1px solid {GRID}}}",
        ".audit tbody tr > td:nth-child(n) {display: block; width: auto; border: 0; padding: 1px 0}}",
    )
    table = f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return HTML(
        f"<style>{' '.join(rules)}</style><p>{len(audited)} claims: {', '.join(counts)}.</p>"
        f'<div style="overflow-x: auto"><table class="audit">{table}</table></div>'
    )


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
