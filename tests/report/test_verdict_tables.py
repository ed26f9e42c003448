"""Verdicts on pages: the table of a paper, and the cards below its sections."""

import re

import pytest
from bs4 import BeautifulSoup

from posebook.papers.claims import BASES, VERDICTS, load_claims, make_finding, match_findings
from posebook.report import colors, html_tables


def findings() -> dict:
    known = dict.fromkeys(load_claims("HoT"), make_finding(True, "as printed <1>", "all", "#Sizes", "run"))
    where = "../tables/speed.ipynb"
    untested = make_finding(None, "-", "all", where, "text", "there is no record", "`make it`", ["a-record"])
    return known | {"extensive": untested}


def luminance(color: str) -> float:
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("verdict", VERDICTS)
def test_white_badge_text_has_enough_contrast(verdict):
    assert 1.05 / (luminance(colors.VERDICT_COLORS[verdict]) + 0.05) >= 4.5


def test_verdict_table():
    page = BeautifulSoup(html_tables.verdict_table(match_findings("HoT", findings())).data, "html.parser")
    rows = page.select("tbody tr")
    assert len(rows) == len(findings()) == 11
    assert [badge.text for badge in page.select("p .verdict")] == ["10 reproduced", "1 not tested"]
    assert all(row.select_one(".verdict").text in VERDICTS for row in rows)
    assert "as printed <1>" in rows[0].text and rows[0].select_one("a")["href"] == "#Sizes"
    last = rows[-1]
    assert last.select_one("a").text == "Speed" and last.select_one("details code").text == "make it"
    assert "Not tested, because there is no record." in last.text and BASES["text"] in last.text
    assert "records: a-record" in last.text and "what would test it" in last.text


def test_verdict_cards_quote_the_named_claims_above_their_verdicts():
    shown = html_tables.verdict_cards("HoT", findings(), "extensive hourglass").data
    page, claims = BeautifulSoup(shown, "html.parser"), load_claims("HoT")
    quotes = [quote.text for quote in page.select("blockquote")]
    assert quotes == [f"{claims[name].text} {claims[name].where}" for name in ("extensive", "hourglass")]
    assert [badge.text for badge in page.select(".verdict")] == ["not tested", "reproduced"]
    assert re.search(r"blockquote>\s*<div><b class=.verdict", shown)
    with pytest.raises(KeyError):
        html_tables.verdict_cards("HoT", findings(), "nothing")
