"""Studies with several seeds: their runs, and the sentences that follow from the intervals."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from posebook import cli, records
from posebook.datasets.synthetic import occlusion, writing
from posebook.evaluation.seeds import SeedDifference
from posebook.lifting import pruning
from posebook.lifting import recipes as lifter_recipes
from posebook.lifting.models import LIFTERS
from posebook.papers import studies
from posebook.training import recipes


def ledger(values: dict[str, list[float]], study: str = "priors", suffix: str = "", metric: str = "MPJPE"):
    """Records of a study: results by arm, in the order of the seeds."""
    return [
        made_record(studies.get_run(f"study-{study}-{arm}-seed{seed}"), suffix, {metric: value})
        for arm, results in values.items()
        for seed, value in enumerate(results)
    ]


def made_record(run: studies.StudyRun, suffix: str, metrics: dict[str, float]) -> dict:
    """A record as the run writes it."""
    facts = {"name": run.name + suffix, "metrics": metrics, "model": run.model}
    facts |= {"dataset": {"name": run.dataset}, "kind": "evaluate" if suffix else "train"}
    init = studies.STUDIES[run.study].init
    start = f"weights {init} sha256 0" if init else "scratch"
    facts["weights"] = {"initialization": start, "sha256": f"of {run.name}"}
    parameters = json.loads(json.dumps(run.changes)) | {"workers": 0}
    small = {"width": 32} if run.model in LIFTERS else {}  # not an option of the study
    return facts | {"options": small | run.options, "parameters": parameters}


def test_arms_of_a_study_differ_only_in_what_the_study_compares():
    """All arms have the same schedule, input size and data; only augmentation, pruning or graph differ."""
    for study in studies.STUDIES:
        runs = [run for run in studies.runs().values() if run.study == study]
        assert studies.STUDIES[study].baseline in {run.arm for run in runs}
        seeds = {arm: sorted(run.seed for run in runs if run.arm == arm) for arm in {run.arm for run in runs}}
        assert set(map(tuple, seeds.values())) == {(0, 1, 2, 3, 4)}
        shared = [
            {key: value for key, value in run.changes.items() if key not in ("stage1", "stage2")}
            | {"data": run.dataset}
            for run in runs
        ]
        assert all(settings == shared[0] for settings in shared)


@pytest.mark.parametrize("name", [name for name in studies.runs() if name.endswith("seed0")])
def test_every_run_can_be_built(name):
    run = studies.get_run(name)
    if run.model in LIFTERS:
        recipe = lifter_recipes.get("fast", run.model, **run.changes)
        lifter = pruning.build_lifter(run.model, recipe.frames, **lifter_recipes.SMALL_MODEL | run.options)
        assert lifter.frames == 27
        with torch.no_grad():
            assert lifter(torch.randn(1, 27, 17, lifter.channels)).isfinite().all()
    else:
        recipe = recipes.get("fast", run.model, run.dataset, **run.changes)
        expected = {"none": (0, 0), "constant-0.6": (0.6, 0.6), "schedule-1.0-0.5": (1.0, 0.5)}[run.arm]
        assert (recipe.stage1.dropout, recipe.stage2.dropout) == expected
        assert recipe.stage1 == replace(recipe.stage1, rotation=20, shift=0, scale=(0.8, 1.2))


@pytest.mark.parametrize("study", studies.STUDIES)
def test_shared_runs_are_of_the_same_data_and_recipe(study):
    own = {(run.dataset, json.dumps(run.changes)) for run in studies.runs().values() if run.study == study}
    shared = [run for run in studies.runs_of(study) if run.study != study]
    assert len(shared) == 5 * len(studies.STUDIES[study].shared)
    assert {(run.dataset, json.dumps(run.changes)) for run in shared} <= own
    both = ledger({"skeleton": [80.0, 81.0]}) + ledger({"full": [90.0, 91.0]}, "pruning")
    assert ("MPJPE", "full", "skeleton") in studies.differences("priors", both)


def test_first_seeds_run_first():
    assert [run.seed for run in studies.runs().values()] == sorted(
        run.seed for run in studies.runs().values()
    )


def test_difference_and_sentence_follow_from_the_records():
    values = {
        "skeleton": [80.0, 81.0, 82.0],
        "no-links": [90.0, 91.0, 92.0],
        "not-a-skeleton": [80.5, 82.0, 81.0],
    }
    found = studies.differences("priors", ledger(values))
    assert set(found) == {("MPJPE", "no-links", "skeleton"), ("MPJPE", "not-a-skeleton", "skeleton")}
    worse, same = found["MPJPE", "no-links", "skeleton"], found["MPJPE", "not-a-skeleton", "skeleton"]
    assert worse.value == pytest.approx(10) and worse.low > 0
    text = studies.sentence("priors", "MPJPE", "no-links", "skeleton", worse)
    assert text.startswith("MPJPE: no links minus skeleton is +10.0 mm") and text.endswith("a difference.")
    text = studies.sentence("priors", "MPJPE", "not-a-skeleton", "skeleton", same)
    assert "no difference found" in text and f"{same.detectable:.1f} mm would be found" in text


def test_choice_of_frames_is_compared_by_its_own_interval():
    """Two intervals against a third arm do not compare the two arms."""
    values = {arm: [80.0 + i, 81.0, 82.0] for i, arm in enumerate(("full", "h2ot-uniform", "h2ot-cluster"))}
    found = studies.differences("pruning", ledger(values, "pruning"))
    assert list(found) == [
        ("MPJPE", "h2ot-uniform", "full"),
        ("MPJPE", "h2ot-cluster", "full"),
        ("MPJPE", "h2ot-cluster", "h2ot-uniform"),
    ]
    pair = found["MPJPE", "h2ot-cluster", "h2ot-uniform"]
    text = studies.sentence("pruning", "MPJPE", "h2ot-cluster", "h2ot-uniform", pair)
    assert pair.value == pytest.approx(1 / 3) and "minus H₂OT, uniform" in text


@pytest.mark.parametrize(
    "change",
    [
        {"model": "mixste"},
        {"options": {"width": 32}},
        {"dataset": {"name": "h36m"}},
        {"parameters": {"epochs": 2, "workers": 0}},
        {"weights": {"initialization": "weights lifter-motion.safetensors sha256 0", "sha256": "1"}},
    ],
)
def test_record_of_another_training_with_the_same_name_does_not_count(change):
    (made,) = ledger({"not-a-skeleton": [80.0]})
    assert len(studies.results("priors", [made])) == 1
    assert studies.results("priors", [made | change]).empty


def test_record_with_another_augmentation_does_not_count():
    (made,) = ledger({"none": [0.3]}, "dropout", "", "AP")
    assert len(studies.results("dropout", [made])) == 1
    assert studies.results("dropout", [made | {"options": {"attention": "cbam"}}]).empty
    changed = {"stage1": {"dropout": 0.5}}
    assert studies.results("dropout", [made | {"parameters": made["parameters"] | changed}]).empty
    assert studies.results(
        "dropout", [made | {"weights": made["weights"] | {"initialization": "scratch"}}]
    ).empty


def test_arm_with_a_single_run_is_not_compared():
    assert studies.differences("priors", ledger({"skeleton": [80.0, 81.0], "no-links": [70.0]})) == {}
    assert studies.differences("priors", ledger({"skeleton": [80.0], "no-links": [70.0, 71.0]})) == {}


def test_accuracies_are_shown_in_points():
    both = ledger({"none": [0.25]}, "dropout", "", "AP") + ledger(
        {"none": [0.1]}, "dropout", "-occluded", "AP"
    )
    table = studies.results("dropout", both)
    assert table["value"].tolist() == [25.0, 10.0]
    of_other_weights = both[1] | {"weights": {"sha256": "1"}}
    assert studies.results("dropout", [both[0], of_other_weights])["value"].tolist() == [25.0]
    interval = SeedDifference(-2.0, -3.0, -1.0, 1.5, (3, 3))
    text = studies.sentence("dropout", studies.AP_OCCLUDED.label, "constant-0.6", "none", interval)
    assert "fixed probability 0.6 minus none is -2.0 points (95 % interval -3.0 to -1.0" in text


@pytest.mark.parametrize(
    "line, message",
    [
        ("drop,none,starnet-pose-t,{},synthetic,{},3", "line 2: unknown study 'drop'; did you mean dropout"),
        ("dropout,none,starnet-pose-u,{},synthetic,{},3", "line 2: unknown model 'starnet-pose-u'"),
        ("dropout,none,starnet-pose-t,{,synthetic,{},3", "line 2: Expecting property name"),
    ],
)
def test_invalid_line_is_reported_with_number(line, message, tmp_path):
    path = tmp_path / "studies.csv"
    path.write_text(f"study,arm,model,options,dataset,changes,seeds\n{line}\n")
    with pytest.raises(ValueError, match=message):
        studies.runs(path)


def test_command_names_close_runs(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["study", "study-priors-skeleton-seed9"])
    assert stopped.value.code == 2
    assert "unknown study run 'study-priors-skeleton-seed9'; did you mean" in capsys.readouterr().err


def test_missing_people_are_reported_before_any_work(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(
            ["study", "study-dropout-none-seed0", "--data-root", str(tmp_path), "--out-dir", str(tmp_path)]
        )
    assert f"posebook synthesize --root {tmp_path} --occluded" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_run_writes_both_records(tmp_path, monkeypatch):
    """A tiny run on a dozen images: the training and the evaluation on occluded people."""
    root = tmp_path / "people"
    writing.generate(root, 12, 6, workers=1)
    occlusion.write_occluded(root)
    changes = {"epochs": 1, "stage2_epochs": 1, "input_size": [64, 64], "batch_size": 8, "evaluate_every": 1}
    run = studies.StudyRun("dropout", "none", "starnet-pose-t", {}, "synthetic", changes, 0)
    paths = studies.train(run, root, tmp_path / "reports")
    written = {record["name"]: record for record in records.load(tmp_path / "reports" / "records")}
    assert set(written) == set(run.records) and len(paths) == 2
    clean, occluded = (written[name] for name in run.records)
    assert studies.is_result(clean, run)
    assert clean["weights"]["transfer"]["copied"] > 300
    assert occluded["weights"]["sha256"] == clean["weights"]["sha256"]
    assert occluded["dataset"]["split"] == "val_occluded" and clean["evaluated"]["split"] == "val"
    shutil.rmtree(root)


def test_lifter_run_uses_the_settings_of_its_arm(monkeypatch, tmp_path):
    asked = {}

    def train_lifter(lifter, dataset, **settings):
        """Stand-in for the training."""
        asked.update(settings, lifter=lifter, dataset=dataset)
        return {"name": settings["name"]}

    monkeypatch.setattr("posebook.lifting.training.train_lifter", train_lifter)
    monkeypatch.setattr(records, "write", lambda record, out_dir: tmp_path / record["name"])
    run = studies.get_run("study-pruning-subsampled-seed3")
    assert studies.train(run, out_dir=tmp_path) == [tmp_path / run.name]
    assert asked["prune"] == {"0": ["uniform", 9]} and "options" not in asked and asked["seed"] == 3
    assert asked["epochs"] == studies.SETTINGS["pruning"]["epochs"] and asked["lifter"] == "mixste"
