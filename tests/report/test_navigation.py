"""The list of pages."""

from collections import Counter
from pathlib import Path

import pytest

from helpers import ROOT
from posebook.report import navigation

PAGES = [
    path.relative_to(ROOT / "notebooks").with_suffix(".html")
    for path in sorted(ROOT.glob("notebooks/**/*.ipynb"))
]


def test_every_notebook_has_a_group_and_every_pattern_a_notebook():
    groups = Counter(navigation.group_of(page) for page in PAGES)
    assert navigation.OTHER not in {title for title, _ in groups}
    patterns = {(title, i) for title, texts in navigation.GROUPS.items() for i in range(len(texts))}
    generated = {("Tools", navigation.GROUPS["Tools"].index("attribution/*")), ("Runs", 0)}  # by one notebook
    assert patterns - groups.keys() == generated


def test_names_are_unique_within_a_group_and_groups_stand_together():
    titles = {page: page.stem for page in navigation.in_order(reversed(PAGES))}
    here = Path("tables/lapx_coco.html")
    groups = navigation.page_groups(here, titles, stopped={Path("train.html")})
    assert [group["title"] for group in groups] == [title for title in navigation.GROUPS if title != "Runs"]
    assert [group["title"] for group in groups if group["current"]] == ["LAPX"]
    for group in groups:
        names = [entry["title"] for entry in group["pages"]]
        assert len(names) == len(set(names))
    entries = [entry for group in groups for entry in group["pages"]]
    assert [entry["href"] for entry in entries if entry["here"]] == ["lapx_coco.html"]
    assert [entry["href"] for entry in entries if entry["stopped"]] == ["../train.html"]
    assert len(entries) == len(PAGES)


@pytest.mark.parametrize(
    "page, heading, title",
    [
        ("tables/lapx_coco", "LAPX: COCO", "COCO"),
        ("tables/vitpose", "ViTPose: all results", "Results"),
        ("tables/real_photographs", "Photographs", "Real photographs"),
        ("audit/lapx", "LAPX: its claims", "Claims"),
        ("audit/h2ot", "H₂OT: its claims", "H₂OT: claims"),
        ("attribution/vitpose-s-two-sets", "Attribution", "Attribution: ViTPose-S, two datasets"),
        ("train", "Train a model: how", "Train a model"),
        ("runs/lapx-3", "Train a model: lapx-3", "lapx-3"),
    ],
)
def test_short_titles(page, heading, title):
    assert navigation.short_title(Path(f"{page}.html"), heading) == title


def test_unknown_page_is_in_the_last_group():
    pages = [Path("mine.html"), Path("index.html"), Path("learn/lapx.html")]
    assert navigation.in_order(pages) == [Path("index.html"), Path("learn/lapx.html"), Path("mine.html")]
    assert navigation.group_of(Path("mine.html")) == (navigation.OTHER, 0)


def test_title_of_a_notebook_is_its_heading():
    assert navigation.notebook_title("tables/lapx_coco.ipynb") == "LAPX: COCO"
    with pytest.raises(FileNotFoundError):
        navigation.notebook_title("tables/nothing.ipynb")
