"""Runs as notebooks: their parameters, and the page of a record."""

import dataclasses
import shlex

import pytest

from helpers import ROOT
from posebook import paths
from posebook.papers import ablations, runs, studies
from posebook.report import notebooks, running
from posebook.training.config import TrainConfig

VALUES = [
    "lapx",
    "",
    "0.5",
    "a b'c",
    "null",
    "yes",
    None,
    True,
    3,
    1e-5,
    [1, "a"],
    {"stage1": {"rate": 1e-5}},
]


def declared(notebook: str) -> dict:
    return notebooks.declared_parameters(ROOT / "notebooks" / f"{notebook}.ipynb")


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_options_give_the_notebook_the_same_value(value):
    words = shlex.split(runs.NotebookRun("train", {"model": value}).options(seed=2))
    assert words[:2] == ["-p", "model"] and words[3:] == ["-p", "seed", "2"]
    assert runs.parse_value(words[2]) == value and type(runs.parse_value(words[2])) is type(value)


def test_defaults_of_the_notebook_are_those_of_the_config():
    config, notebook = dataclasses.asdict(TrainConfig()), declared("train")
    names = {name: "settings" if name == "recipe" else name for name in config}
    assert {"torchrun"} == notebook.keys() - set(names.values())
    for name in config:
        if names[name] in notebook:
            assert notebook[names[name]] == config[name], name


def test_a_training_has_the_changed_fields_of_its_config():
    run = runs.training(TrainConfig(model="lapx", recipe={"epochs": 2}, pack="jpeg"), ("a.pth",))
    assert run == runs.NotebookRun(
        "train", {"model": "lapx", "pack": "jpeg", "settings": {"epochs": 2}}, ("a.pth",)
    )


@pytest.mark.parametrize("profile", ["demo", "fast", "paper"])
def test_the_notebook_accepts_every_row_of_the_grid(profile):
    for row in ablations.rows().values():
        run = runs.training(row.config(profile, device="cuda", pack="jpeg"))
        running.check_parameters(declared("train"), run.parameters)
        assert run.parameters["name"] == row.name(profile)


def test_notebooks_accept_every_run_of_the_studies():
    written = []
    for study in studies.runs().values():
        found = study.notebook_runs("data/study", "people.json")
        for name, run in found.items():
            running.check_parameters(declared(run.notebook), run.parameters)
            assert run.parameters["name"] == name
        assert list(found) == study.records
        written += found
    assert len(written) == len(set(written)) == sum(len(run.records) for run in studies.runs().values())


def test_the_occluded_images_are_evaluated_after_the_training():
    first, second = studies.get_run("study-dropout-none-seed1").notebook_runs("d", "people.json").values()
    assert (first.notebook, second.notebook) == ("train", "evaluate")
    assert first.files == ("people.json", first.parameters["init"])
    assert (paths.ROOT / first.parameters["init"]).is_file()
    assert second.parameters["weights"] in second.files
    assert second.parameters["weights"] == f"reports/records/{first.parameters['name']}.json"


def test_page_of_a_record(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "REPORTS", tmp_path)
    assert runs.page_of("reports/records/lapx-3.json") is None and runs.page_of("") is None
    (tmp_path / runs.PAGES).mkdir(parents=True)
    page = tmp_path / runs.PAGES / "lapx-3.ipynb"
    page.touch()
    for record in ("reports/records/lapx-3.json", "data/measured/lapx-3.json", "lapx-3", "lapx-3-detector"):
        assert runs.page_of(record) == page
    assert runs.page_of("lapx-4") is None
