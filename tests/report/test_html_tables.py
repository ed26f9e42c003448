"""Published-versus-measured tables: one row for each model, with badges that follow from the values."""

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from posebook import paths
from posebook.papers import runs, tables
from posebook.papers.statuses import BADGES, STATUSES
from posebook.report import html_tables

RTX = "RTX 5090"
COLUMNS = {"backbone": "", "setting": "", "unit": "%", "boxes": "", "boxes_basis": "", "source": "a paper"}


def cells(*lines: dict) -> pd.DataFrame:
    """A table of cells; each line has at least row, column, published and status."""
    empty = tables.EMPTY_CELL | COLUMNS | {"quantity": "accuracy", "model": "", "input_size": ""}
    return pd.DataFrame([empty | line for line in lines])


def page(table: pd.DataFrame) -> BeautifulSoup:
    return BeautifulSoup(html_tables.comparison_table(table).data, "html.parser")


def row(soup: BeautifulSoup, number: int = 0) -> dict[str, str]:
    """The text of each cell of one row, by the head of its column."""
    heads = [head.get_text(" ", strip=True) for head in soup.select("thead th")]
    texts = [
        cell.get_text(" ", strip=True) for cell in soup.select("tbody tr")[number].find_all(["th", "td"])
    ]
    return dict(zip(heads, texts, strict=True))


def test_one_row_for_each_model_with_both_values():
    table = tables.build_table("StarNet-Pose", "main_results", [])
    soup = page(table)
    assert len(soup.select("tbody tr")) == 2
    for number, name in enumerate(table["row"].unique()):
        shown = row(soup, number)
        assert shown["model"] == name and shown["counter"] == "fvcore" and shown["boxes"] == "ground truth"
        for line in table[table["row"] == name].to_dict("records"):
            column = f"{line['column']}, {RTX}" if line["quantity"] == "latency" else line["column"]
            sign = "" if line["status"] == "published only" else BADGES[line["status"]]
            assert shown[column] == " ".join(filter(None, [line["published"], sign, line["measured"]]))
    assert {len(tr.find_all(["th", "td"])) for tr in soup.select("tr")} == {len(soup.select("thead th"))}
    assert not soup.select("[rowspan], [colspan], script, [src], link")  # sortable; nothing is loaded


def test_badge_is_a_sign_with_its_words():
    for status in BADGES:
        (sign,) = BeautifulSoup(html_tables.badge(status, "why & how"), "html.parser").select("b")
        assert sign.get_text() == BADGES[status] and sign["role"] == "img"
        assert sign["aria-label"] == sign["title"] == f"{status}: why & how"
    assert len(set(BADGES.values())) == len(BADGES) and set(BADGES) < set(STATUSES)


def test_reason_spread_and_other_boxes_are_in_the_cell():
    line = {"row": "A", "column": "AP", "published": "72.0", "measured": "71.2", "status": "differs"}
    line |= {"reason": "−0.8", "spread": "± 0.1, 3 runs", "other": "69.0", "other_boxes": "detector: x.json"}
    line |= {"where": "a GPU <1>", "boxes": "ground truth", "measured_boxes": "ground truth", "fitted": "yes"}
    soup = page(cells(line))
    assert row(soup)["AP"] == "72.0 ≠ 71.2 a ± 0.1, 3 runs fitted −0.8 detector: 69.0"
    notes = soup.select_one(".notes").get_text(" ")
    assert "a GPU <1>" in notes and "standard deviation" in notes and "no evidence" in notes
    assert "1 differs" in notes


def test_a_cell_links_to_the_run_that_filled_it_if_it_has_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "REPORTS", tmp_path)
    line = {"row": "A", "column": "AP", "published": "72.0", "measured": "71.2", "status": "differs"}
    table = cells(line | {"record": "reports/records/lapx-3.json"})
    assert not page(table).select("a")
    (tmp_path / runs.PAGES).mkdir(parents=True)
    (tmp_path / runs.PAGES / "lapx-3.ipynb").touch()
    (link,) = page(table).select("td a")
    assert (link["href"], link.get_text()) == ("../runs/lapx-3.ipynb", "71.2")
    assert html_tables.run_link("lapx-3") == '<a href="../runs/lapx-3.ipynb">lapx-3</a>'
    assert html_tables.run_link("lapx-4") == "lapx-4"


def test_model_that_is_not_built_has_only_the_printed_value():
    soup = page(tables.build_table("StarNet-Pose", "lightweight_comparison", []))
    shown = {cell["model"]: cell for cell in (row(soup, number) for number in range(8))}
    assert shown["LGM-Pose"]["AP"] == "69.30" and shown["LGM-Pose"]["counter"] == ""
    assert shown["RTMPose-t"]["AP"] == "68.20 ○"


def test_speeds_of_another_device_have_a_column_of_their_own():
    common = {"row": "A", "quantity": "latency", "setting": f"{RTX}, batch 1", "where": "here"}
    common |= {"status": "measured on another device", "device": "cpu: Intel(R) Xeon"}
    lines = [
        common | {"column": "Latency (ms)", "published": "3.19", "measured": "20.00"},
        common | {"column": "FPS", "published": "313.8", "measured": "50.0"},
        common | {"column": "FPS", "published": "9", "status": "published only", "device": "", "row": "B"},
    ]
    soup = page(cells(*lines))
    assert row(soup) == {
        "model": "A",
        f"Latency (ms), {RTX}": "3.19",
        f"FPS, {RTX}": "313.8",
        "measured on Intel Xeon": "20.00 ms a 50.0 FPS a",
    }
    assert row(soup, 1)["measured on Intel Xeon"] == ""
    assert not soup.select("tbody b")  # no badge


def test_commands_and_protocol_are_folded():
    line = {"row": "A", "column": "AP", "published": "72", "status": "not run", "command": "train <it>"}
    more = {"boxes": "detector, of a kind", "boxes_basis": "stated", "setting": "test-time augmentation: yes"}
    other = line | {"row": "B", "cost": "about 3 hours", "setting": "test-time augmentation: no; slow"}
    soup = page(cells(line | more, other))
    protocol, commands = (fold.get_text("\n") for fold in soup.select(".notes details"))
    assert "A: \ntrain <it>" in commands and "train <it>\n, about 3 hours" in commands
    assert "boxes, detector, of a kind: stated" in protocol and "source: a paper" in protocol
    assert row(soup)["boxes"] == "detector"
    assert [row(soup, n)["TTA"] for n in (0, 1)] == ["yes", "no"]
    assert "AP: slow" in protocol


def test_names_of_columns_and_rows_are_short():
    names = ("PCKh@0.5 head", "PCKh@0.5")
    lines = [{"row": "A, 256×192", "column": c, "published": "9", "status": "not run"} for c in names]
    assert row(page(cells(*lines))) == {"model": "A", "head": "9 ○", "PCKh@0.5": "9 ○"}
    other = lines[0] | {"row": "A, 384×288"}
    assert row(page(cells(*lines, other)))["model"] == "A, 256×192"


def test_architecture_shows_equal_texts_once():
    soup = page(tables.build_table("StarNet-Pose", "architecture", []))
    shown = row(soup)
    assert shown["component"] == "Stem" and shown["StarNet-Pose-T"].count("Conv") == 1
    assert shown["StarNet-Pose-T"].endswith("=")


def test_paired_differences_of_measured_rows_are_listed(monkeypatch):
    line = {"row": "A", "less": "B", "column": "AP", "difference": 1.2, "low": 0.5, "high": 2.0}
    monkeypatch.setattr(tables, "paired_differences", lambda table: pd.DataFrame([line]))
    soup = page(cells({"row": "A", "column": "AP", "published": "9", "status": "not run"}))
    assert "AP, A minus B: +1.20, 95 % interval +0.50 to +2.00" in soup.select_one("details[open]").get_text()


@pytest.mark.parametrize("table", [("LAPX", "mpii_results"), ("AMFACPose", "coco_results")], ids=str)
def test_every_value_of_a_table_is_on_the_page(table):
    shown = tables.build_table(*table, [])
    soup = page(shown)
    rows = {tr.th.get_text(): tr.get_text(" ") for tr in soup.select("tbody tr")}
    for line in shown.to_dict("records"):
        assert line["published"] in rows[line["row"]] and line["measured"] in rows[line["row"]]
        assert line["command"] in soup.select_one(".notes").get_text()
