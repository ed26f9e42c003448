"""The error for a name nobody knows, in one form everywhere."""

import difflib
from collections.abc import Iterable


def near(word: str, known: Iterable[str], what: str) -> ValueError:
    """An error for a name that is not known, with the near ones in it, or all where none is near."""
    known = list(known)
    offers = difflib.get_close_matches(word, known, n=3, cutoff=0.4) or known
    return ValueError(f"unknown {what} {word!r}; did you mean {' or '.join(offers)}?")
