"""Fixtures for the tests of this folder."""

import pytest

from posebook.benchmark import timing


@pytest.fixture
def short_pauses(monkeypatch):
    """Turns without waiting: for tests that need times, but not quiet ones."""
    monkeypatch.setattr(timing, "PAUSE", 0.001)
