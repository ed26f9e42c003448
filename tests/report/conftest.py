"""Fixtures for the tests of this folder."""

import re
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
from bs4 import BeautifulSoup
from report_helpers import executed_notebook, snakemake

from helpers import ROOT
from posebook.report import figures, html


@pytest.fixture
def page_style():
    """Draw in the style of the pages, and close all figures afterwards."""
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The exported pages of a report with two notebooks."""
    folder = tmp_path_factory.mktemp("report")
    for name in ("index", "tables/speed"):
        path = folder / "executed" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(executed_notebook(), path)
    html.export([folder / "executed/index.ipynb", folder / "executed/tables/speed.ipynb"], folder / "html")
    return folder / "html"


@pytest.fixture(scope="module")
def page(report) -> BeautifulSoup:
    return BeautifulSoup((report / "index.html").read_text(), "html.parser")


# what `make reproduce` runs


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the files that the Snakefile reads, with all outputs of profile demo up to date."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("lib", "notebooks", "workflow"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("published", "measured", "weights"):
        (folder / "data" / name).mkdir(parents=True)
    tables = "checkpoints", "claims", "errata", "figures", "grid", "papers", "studies"
    for name in (*(f"{table}.csv" for table in tables), "verdicts.json"):
        (folder / "data" / name).touch()
    for path in (ROOT / "data" / "weights").glob("*.safetensors"):
        (folder / "data" / "weights" / path.name).touch()
    for name in ("dataset", "train", "evaluate", "benchmark", "attribution"):
        (folder / "notebooks" / f"{name}.ipynb").touch()
    planned = snakemake(folder, "--dry-run")
    for output in re.findall(r"^    output: (.+)$", planned, re.MULTILINE):
        for path in output.split(", "):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()
    snakemake(folder, "--touch")
    return folder
