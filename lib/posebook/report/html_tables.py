"""HTML tables: published beside measured, and claims with their verdicts."""

import html
import re
from collections.abc import Sequence

import pandas as pd

from posebook.papers.claims import BASES, VERDICTS, Claim, Finding, tally
from posebook.papers.tables import STATUSES
from posebook.report.colors import GRID, MUTED, STATUS_COLORS, VERDICT_COLORS


def comparison_table(table: pd.DataFrame) -> "HTML":  # noqa: F821
    """A tables.build_table laid out as the paper has it, as HTML.

    Under each printed row of a model that posebook builds stands what was measured, colored by status;
    beneath, where each figure comes from and how to get the missing ones.
    """
    from IPython.display import HTML

    marks: dict[str, str] = {}  # where a figure was measured -> its letter
    columns = list(dict.fromkeys(table["column"]))
    words = [name for name in ("backbone", "setting") if _varies(table[name])]
    words += ["boxes"] if table["boxes"].any() else []
    order = ["", "figures", *columns, *words]
    lines, colors = [], []
    for row in dict.fromkeys(table["row"]):
        cells = table[table["row"] == row]
        printed = {"": row, "figures": "published"} | {name: _first_text(cells[name]) for name in words}
        lines.append(printed | dict(zip(cells["column"], map(html.escape, cells["published"]), strict=True)))
        colors.append({"": "font-weight: 600"})
        if (cells["status"] == "published").all():
            continue
        ours = {"figures": "posebook", "boxes": _first_text(cells["measured_boxes"])}
        shade = dict.fromkeys(["figures", "boxes"], f"color: {MUTED}")
        for cell in cells.to_dict("records"):
            ours[cell["column"]] = _marked(cell, marks)
            weight = "font-weight: 600" if cell["measured"] else "font-size: 0.85em"
            shade[cell["column"]] = f"color: {STATUS_COLORS[cell['status']]}; {weight}"
        lines.append(ours)
        colors.append(shade)
        if cells["other"].any():  # the same net in the other kind of boxes
            lines.append({"figures": "posebook", "boxes": _first_text(cells["other_boxes"])})
            lines[-1] |= dict(zip(cells["column"], map(html.escape, cells["other"]), strict=True))
            colors.append(dict.fromkeys(order, f"color: {MUTED}"))
    frame, styles = (
        pd.DataFrame([dict.fromkeys(order, "") | row for row in r])[order] for r in (lines, colors)
    )
    styler = frame.style.hide(axis="index").apply(lambda _: styles, axis=None)
    styler.set_table_styles(_table_styles(frame, right=len(words)))
    return HTML(f'<div style="overflow-x: auto">{styler.to_html()}</div>{_notes(table, marks)}')


def verdict_table(audited: Sequence[tuple[Claim, Finding]]) -> "HTML":  # noqa: F821
    """Claims with what was found and the verdict, a row each, their count above; on a narrow page cards."""
    from IPython.display import HTML

    given = [found.verdict for _, found in audited]
    words = tally({verdict: given.count(verdict) for verdict in VERDICTS})
    counts = [f'<b style="color: {VERDICT_COLORS[v]}">{w}</b>' for v, w in zip(VERDICTS, words, strict=True)]
    lines = []
    for claim, found in audited:
        would = f"<details><summary>what would test it</summary>{_html(found.would)}</details>"
        place = found.evidence.rpartition("/")[2].removesuffix(".ipynb").strip("#")
        cells = (
            f"{_html(claim.text)}<small>{_html(claim.where)}</small>",
            f"{_html(found.found)}<small>{_html(found.rule)}; {BASES[found.basis]}</small>",
            f'<b style="color: {VERDICT_COLORS[found.verdict]}">{found.verdict}</b>'
            f"<small>{_html(found.why)}{would if found.would else ''}</small>",
            f'<a href="{found.evidence}">{re.sub("[-_]", " ", place)}</a>',
        )
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = "".join(f"<th>{head}</th>" for head in ("the claim", "found here", "verdict", "evidence"))
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
    """Text as HTML, what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def _varies(values: pd.Series) -> bool:
    """Whether there are two different texts among those that are not empty."""
    return values[values != ""].nunique() > 1


def _first_text(values: pd.Series) -> str:
    """The first text that is not empty."""
    return html.escape(next(filter(None, values), ""))


def _marked(cell: dict, marks: dict[str, str]) -> str:
    """The measured figure with the letter of the note that says where it was measured, or the status."""
    if not cell["measured"]:
        return cell["status"]
    mark = marks.setdefault(cell["where"], chr(ord("a") + len(marks)))
    spread = cell["spread"] or cell["interval"]
    beneath = f"<br><small>{spread}</small>" if spread else ""
    return f"{html.escape(cell['measured'])}<sup>{mark}</sup>{beneath}"


def _notes(table: pd.DataFrame, marks: dict[str, str]) -> str:
    """The lines beneath a table: counts, where measured, commands, settings, box sources."""
    counts = table["status"].value_counts()
    shown = [f'<b style="color: {STATUS_COLORS[s]}">{counts.get(s, 0)} {s}</b>' for s in STATUSES]
    notes = [f"{len(table)} cells: {', '.join(shown)}."]
    notes += [f"<sup>{mark}</sup> {html.escape(where)}." for where, mark in marks.items()]
    if table["interval"].any():
        notes.append("Beneath a figure: its 95 % interval over images drawn again.")
    if table["spread"].any():
        notes.append("Mean ± standard deviation over runs of as many seeds.")
    commands = [
        f"<code>{html.escape(command)}</code>{html.escape(cost and ', ' + cost)}"
        for (command, cost), _ in table[table["command"] != ""].groupby(["command", "cost"], sort=False)
    ]
    if len(commands) > 3:
        lines = "<br>".join(commands)
        notes.append(
            f"<details><summary>To measure the rest: {len(commands)} commands</summary>{lines}</details>"
        )
    else:
        notes += [f"To measure: {command}" for command in commands]
    for setting, part in table[table["setting"] != ""].groupby("setting", sort=False):
        if not _varies(table["setting"]):
            columns = ", ".join(dict.fromkeys(part["column"]))
            notes.append(f"Printed {html.escape(columns)}: {html.escape(setting)}.")
    known = table[table["boxes"] != ""].drop_duplicates(["boxes", "boxes_basis"])
    for boxes, basis in zip(known["boxes"], known["boxes_basis"], strict=True):
        notes.append(f"Boxes, {html.escape(boxes)}: {html.escape(basis)}.")
    notes += [f"Source: {html.escape(source)}." for source in table["source"].unique()]
    style = f"color: {MUTED}; font-size: 0.85em; overflow-wrap: anywhere"
    return f'<div style="{style}">{"<br>".join(notes)}</div>'


def _table_styles(frame: pd.DataFrame, right: int) -> list[dict]:
    """CSS of a table: thin rules, words in the first two and `right` last columns, lines between rows."""
    starts = [f"tbody tr:nth-child({n}) td" for n, row in enumerate(frame[""], 1) if row and n > 1]
    columns = ["nth-child(-n+2)"] + [f"nth-last-child(-n+{right})"] * bool(right)
    words = ", ".join(f"{cell}:{column}" for cell in ("th", "td") for column in columns)
    return [
        {"selector": "", "props": "border-collapse: collapse; font-size: 0.92em"},
        {"selector": "th", "props": f"text-align: right; border-bottom: 1.5px solid {MUTED}"},
        {"selector": "td", "props": "text-align: right; white-space: nowrap; background: none"},
        {"selector": "th, td", "props": "padding: 3px 9px"},
        {
            "selector": words,
            "props": "text-align: left; white-space: normal; min-width: 6em; max-width: 13em",
        },
        {"selector": ", ".join(starts), "props": f"border-top: 1px solid {GRID}"},
    ]
