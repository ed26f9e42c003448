"""data/figures.csv lists every table and figure of the papers, and the page that shows it."""

import pandas as pd
import pytest

from posebook import paths
from posebook.papers.names import PAPERS

LAST = {  # the last number of each kind
    "AMFACPose": {"Figure": 11, "Table": 6},
    "LAPX": {"Figure": 3, "Table": 3},
}


@pytest.fixture(scope="module")
def items() -> pd.DataFrame:
    return pd.read_csv(paths.DATA / "figures.csv", dtype=str, keep_default_na=False)


def test_every_table_and_figure_is_listed_once(items):
    assert set(items["paper"]) == set(PAPERS)
    assert not items.duplicated(["paper", "item"]).any()
    for paper, kinds in LAST.items():
        expected = {f"{kind} {number + 1}" for kind, last in kinds.items() for number in range(last)}
        assert set(items.loc[items["paper"] == paper, "item"]) == expected


def test_every_item_has_a_page_or_a_reason(items):
    notebooks = paths.ROOT / "notebooks"
    assert [page for page in items["page"] if page and not (notebooks / page).is_file()] == []
    assert (items.loc[items["page"] == "", "note"] != "").all()
    for paper, page in items[["paper", "page"]].itertuples(index=False):
        assert not page or paper in (notebooks / page).read_text(), (paper, page)
