"""Published cells, errata and quotations compared with the texts of the papers.

The texts are not in the repository. POSEBOOK_PAPERS names a folder with them (*.txt); without it, tests skip.
"""

import os
import re
from pathlib import Path

import pandas as pd
import pytest

from posebook import paths
from posebook.models import amfacpose
from posebook.papers import size_trace
from posebook.papers.cells import load_cells
from posebook.training import recipes

# Paper -> words that only its text contains. HoT's is an abstract.
MARKS = {
    "StarNet-Pose": "RTMCCHead",
    "AMFACPose": "KLDDiscretLoss",
    "LAPX": "stem-ECA-CBAM",
    "HoT": "called Hourglass Tokenizer (HoT)",
}


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    """The lines of each paper's text."""
    folder = os.environ.get("POSEBOOK_PAPERS", "")
    if not folder:
        pytest.skip("POSEBOOK_PAPERS does not name a folder with the texts of the papers")
    assert Path(folder).is_dir(), f"POSEBOOK_PAPERS names {folder}, which is not there"
    files = [path.read_text() for path in Path(folder).glob("*.txt")]
    return {paper: next(text for text in files if mark in text).splitlines() for paper, mark in MARKS.items()}


def squeeze(text: str) -> str:
    """Lower case without spaces, hyphens and typographic quotes; a badly decoded × is one again."""
    return re.sub(r"[-\s]", "", text.translate(str.maketrans("Γ“”’", '×""\''))).lower()


def has_number(line: str, value: str) -> bool:
    """Whether a line contains a number with exactly these digits. Commas may separate thousands."""
    line = re.sub(r"(?<=\d),(?=\d{3})", "", line)
    return re.search(rf"(?<![\d.]){re.escape(value)}(?!\.?\d)", line) is not None


def has_cells(line: str, cells: pd.DataFrame) -> bool:
    """Whether a line contains all values of the cells and names their row (by the longest word)."""
    name = cells.iloc[0]["backbone"] or cells.iloc[0]["row"]
    word = max(re.split(r"[ ,:]+", name.partition(",")[0]), key=len)
    return squeeze(word) in squeeze(line) and all(
        squeeze(value) in squeeze(line) if unit == "text" else has_number(line, value)
        for value, unit in cells[["value", "unit"]].itertuples(index=False)
    )


def test_numbers_are_found_with_their_digits():
    line = "about 118,000 images, 72.00 AP, ~22k and 17FPS; 0.06"
    assert all(has_number(line, value) for value in ("118000", "72.00", "22", "17", "0.06"))
    assert not any(has_number(line, value) for value in ("72", "72.0", "000", "2", "6", "06", "118"))


@pytest.mark.parametrize("paper", ["StarNet-Pose", "AMFACPose", "LAPX"])
def test_every_published_cell_is_in_the_text(paper, texts):
    """A row of a table is in one line. AMFACPose's tables are lost: its values are in paragraphs."""
    cells = load_cells()
    groups = [rows for _, rows in cells[cells["paper"] == paper].groupby(["table", "row"], sort=False)]
    if paper == "AMFACPose":
        groups = [rows.iloc[[i]] for rows in groups for i in range(len(rows))]
    missing = [rows for rows in groups if not any(has_cells(line, rows) for line in texts[paper])]
    assert not missing, pd.concat(missing)[["table", "row", "column", "value"]].to_string()


def test_cells_of_an_abstract_are_in_it(texts):
    cells = load_cells()
    values = cells.loc[cells["source"].str.startswith("abstract:"), "value"]
    text = next(line for line in texts["HoT"] if MARKS["HoT"] in line)
    assert len(values) == 3 and all(has_number(text, value) for value in values)


def test_errata_quote_the_text(texts):
    lines = pd.read_csv(size_trace.ERRATA, dtype=str, keep_default_na=False).to_dict("records")
    quotes = [(line["paper"], q) for line in lines for q in re.findall("“(.*?)”", line["says"] + line["but"])]
    missing = [(p, q) for p, q in quotes if squeeze(q.rstrip(".")) not in squeeze(" ".join(texts[p]))]
    assert len(quotes) >= 5 and not missing


@pytest.mark.parametrize("paper", ["AMFACPose", "LAPX"])
def test_every_table_and_figure_of_the_text_is_listed(paper, texts):
    items = pd.read_csv(paths.DATA / "figures.csv", dtype=str, keep_default_na=False)
    named = re.findall(r"\b(?:Figure|Table)\s+\d+", " ".join(texts[paper]))
    assert set(named) == set(items.loc[items["paper"] == paper, "item"])


@pytest.mark.parametrize("module", [amfacpose, recipes], ids=lambda module: module.__name__)
def test_quotations_about_amfacpose_are_in_the_text(module, texts):
    quotes = re.findall('"([^"]+)"', module.__doc__)
    quotes = [
        part
        for quote in quotes
        if not quote.startswith("Attentive Multi-Scale")
        for part in quote.split("[...]")
    ]
    text = squeeze(" ".join(texts["AMFACPose"])).replace("×", "x")
    missing = [quote for quote in quotes if squeeze(quote) not in text]
    assert quotes and not missing
