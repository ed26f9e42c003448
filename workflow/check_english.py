"""Find constructions that made this project's texts hard to read. `make lint` runs it.

    python workflow/check_english.py

Each entry was frequent in earlier versions. The list is short on purpose: it contains no everyday words.
"""

import re
import sys
from pathlib import Path

from posebook.paths import ROOT

FILES = [
    "lib/**/*.py",
    "tests/**/*.py",
    "workflow/*.py",
    "workflow/Snakefile",
    "workflow/**/*.yaml",
    "notebooks/**/*.ipynb",
    "docs/*.md",
    "data/weights/*.md",
    "*.md",
    "Makefile",
    ".ci/run",
]
CONSTRUCTIONS = {
    r"\bas far as (it|its|they|the)\b": "state the condition: if ..., while ...",
    r"\b(raises?|\w*Error|None|False) where\b": "use 'if'",
    r"\bembedded (data|dataset|people|images|motion)\b": "use 'bundled synthetic'",
    r"\b(somebody|nobody|whoever|anybody)\b": "name who or what it is",
    r"\b(go|goes|going|went) on (from|with)\b": "use 'continue' or 'resume'",
    r"\b(an?|one|each) (joint|person|image|sample|axis) an? (?!few\b)\w+": "use 'per' or 'for each'",
    r"\bthat (is|are) (none|no) (?!longer\b|more\b)\w+": "use 'is not'",
    r"\bwhat (is|are|was) (there|told|said|lost|missing)\b": "use a noun",
    r"\b(stand|stands) (beside|beneath|here|there|alone|for nothing)\b": "say where it is written or stored",
    r"\bnear (ones|names)\b": "use 'close matches'",
    r"\bin (the|its|whose) place of\b": "use 'instead of'",
    r"\b(text|texts|paper) (is|are) silent\b": "use 'does not specify'",
    r"\bby heart\b": "use 'memorize' or 'overfit'",
    r"\blikewise\b": "repeat the noun",
}


def find(text: str) -> list[tuple[int, str, str]]:
    """Line number, matched words and advice for each listed construction in a text."""
    return [
        (number, match[0], advice)
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, advice in CONSTRUCTIONS.items()
        for match in re.finditer(pattern, line, re.IGNORECASE)
    ]


def main() -> int:
    """Print each finding; 1 if there are any."""
    paths = sorted(
        {path for pattern in FILES for path in ROOT.glob(pattern)}
        - {Path(__file__).resolve(), ROOT / "tests" / "test_tooling.py"}
    )  # both quote them
    findings = [(path, *finding) for path in paths for finding in find(path.read_text(encoding="utf-8"))]
    for path, number, words, advice in findings:
        print(f"{path.relative_to(ROOT)}:{number}: '{words}': {advice}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
