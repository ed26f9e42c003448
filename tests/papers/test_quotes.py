"""The quotes of data/claims.csv, looked up in the texts of the papers if these are available."""

import itertools
import os
import re
from pathlib import Path

import pandas as pd
import pytest

from posebook.papers.claims import CLAIMS, load_claims

LINES = pd.read_csv(CLAIMS, dtype=str, keep_default_na=False)
TITLES = {  # a phrase that only the text of the paper contains at its beginning
    "StarNet-Pose": "Heatmap-Free Lightweight Pose Estimation via",
    "AMFACPose": "we propose AMFACPose",
    "LAPX": "LAPX: Lightweight Hourglass Network",
}
ABSTRACTS = {"HoT": "Hourglass Tokenizer for Efficient Transformer", "H2OT": "H2OT: Hierarchical"}
ABSTRACTS |= {"ViTPose": "ViTPose++:", "KTPFormer": "KTPFormer:", "StarPose": "StarPose:"}


def plain(text: str) -> str:
    """The text in lower case, without markup and with single spaces, to compare quotes."""
    symbols = {"\\times": "×", "\\gamma": "γ", "’": "'", "β": "→", "Β·": "·", "Γ": "×", "$": "", "*": ""}
    for old, new in symbols.items():  # LaTeX, and symbols that the text of the repository has lost
        text = text.replace(old, new)
    text = re.sub(r"\s*×\s*", "×", re.sub(r"\s+", " ", text)).lower()
    return re.sub(r" (?=[,.])", "", text)


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """The text of each paper, from the files *.txt beside $POSEBOOK_TEST_DATA, in the folder `seeds`."""
    folder = Path(os.environ.get("POSEBOOK_TEST_DATA", "-")).parent / "seeds"
    files = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))]
    if not files:
        pytest.skip("the texts of the papers are not beside $POSEBOOK_TEST_DATA")
    found = {paper: next(text for text in files if title in text) for paper, title in TITLES.items()}
    listing = next(text for text in files if ABSTRACTS["HoT"] in text).replace("$_{2}$", "2")
    return found | {
        paper: re.split(r"\n\s*• \d+ authors", listing[listing.index(title) :])[0]
        for paper, title in ABSTRACTS.items()
    }


def sections(text: str) -> dict[str, str]:
    """The parts of a text by number, '5.1' among them, and everything before section 1 as 'abstract'."""
    starts = [*re.finditer(r"^(\d(?:\.\d)*)\.? [A-Z][\w ():,–-]+$", text, re.MULTILINE)]
    parts = {"abstract": text[: starts[0].start()] if starts else text}
    for start, end in itertools.zip_longest(starts, starts[1:]):
        part = text[start.end() : end.start() if end else None]
        parts[start[1]] = parts.get(start[1], "") + part
    return parts


@pytest.mark.parametrize("paper", LINES["paper"].unique())
def test_every_quote_is_in_the_text_at_its_location(paper, texts):
    parts = {number: plain(part) for number, part in sections(texts[paper]).items()}
    for name, claim in load_claims(paper).items():
        numbers = re.findall(r"\b\d(?:\.\d)*(?:\.\d)*\b", re.sub(r"Tables?[ \d,and]*", "", claim.where))
        named = [parts[number] for number in numbers] if paper in TITLES else []
        where = " ".join(named) or plain(texts[paper])
        for quote in re.findall("“(.+?)”", claim.text):
            for piece in quote.split("[…]"):
                assert plain(piece).strip(" ,.") in where, f"{name}: {piece!r} is not in {claim.where}"


def test_some_claims_quote_their_paper():
    assert LINES["claim"].str.contains("“").mean() > 0.7
