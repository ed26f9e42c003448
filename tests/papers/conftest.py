"""Fixtures for the tests of this folder."""

import pandas as pd
import pytest
from tables_helpers import PAPER

from posebook.papers.cells import load_cells


@pytest.fixture(scope="module")
def everything() -> pd.DataFrame:
    return load_cells()


@pytest.fixture(scope="module")
def cells(everything) -> pd.DataFrame:
    return everything[everything["paper"] == PAPER]
