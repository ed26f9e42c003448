"""Small studies that test a claim of a paper at a scale that one CPU can repeat with several seeds.

data/studies.csv has one line for each arm of a study: the model, its options, the data, the changes to the
recipe of the study (SETTINGS), and the number of seeds. All arms of a study have the same start, data, steps
and schedule. A run is named study-STUDY-ARM-seedN, and so is its record.

1. The studies use the bundled synthetic data and small inputs. They show whether an effect exists here, not
   how large it is on the paper's dataset.
2. Two arms are compared by the interval over seeds (posebook.evaluation.seeds): each arm with the baseline,
   and the further pairs that the question of the study needs. The sentence on a page follows from the
   interval. If the interval contains 0, the sentence states the effect that would have been found with a
   probability of 80 %. The intervals are not corrected for the number of comparisons; the page says so.
3. A record with the name of a run counts only if it has the run's start, model, options, recipe and dataset;
   an evaluation on other images counts only if its weights are those of such a record.
4. The lifters start from scratch. The study of CoarseDropout continues from bundled weights: from scratch, a
   training that is short enough for fifteen of them is still far from its final accuracy, and would only show
   how dropout slows the first steps. The same holds for another input size, at which the head has to be
   learned again. The weights were trained without CoarseDropout.
"""

import csv
import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from posebook import models, paths, records
from posebook.datasets.synthetic.occlusion import SPLIT as OCCLUDED
from posebook.evaluation.seeds import SeedDifference, difference
from posebook.lifting.models import LIFTERS
from posebook.papers.names import method_name
from posebook.papers.runs import NotebookRun, training
from posebook.training.config import TrainConfig
from posebook.utils import check_name

FILE = paths.DATA / "studies.csv"
DATA_ROOT = paths.DATA / "study"  # posebook synthesize --root data/study --train-images 8000 --occluded
MILD = {"half_body": 0, "rotation": 20, "shift": 0, "blur": 0, "median_blur": 0}
SETTINGS: dict[str, dict] = {
    # input size, rate and augmentation are those of the last run that made the initial weights
    "dropout": {
        "epochs": 2,
        "stage2_epochs": 1,
        "input_size": [128, 96],
        "evaluate_every": 2,
        "batch_size": 32,
        "base_batch_size": 32,
        "learning_rate": 6e-4,
        "warmup_steps": 100,
        "cosine_start": 0.1,
        "min_lr_ratio": 0.01,
        "stage1": MILD | {"scale": [0.8, 1.2]},
        "stage2": MILD | {"scale": [0.9, 1.1], "hsv": [0, 0, 0]},
    },
    "pruning": {"epochs": 10},
    "priors": {"epochs": 10},
}


@dataclass(frozen=True)
class Outcome:
    """A result that a study compares: where it is recorded and how it is read."""

    label: str
    suffix: str  # of the record's name
    metric: str
    scale: float  # from the record's unit to `unit`
    unit: str


AP_CLEAN = Outcome("AP on the validation images", "", "AP", 100, "points")
AP_OCCLUDED = Outcome("AP on the occluded validation images", "-occluded", "AP", 100, "points")
MPJPE = Outcome("MPJPE", "", "MPJPE", 1, "mm")


@dataclass(frozen=True)
class Study:
    """The question of a study, its baseline, and what it compares."""

    paper: str
    question: str
    baseline: str  # arm that the others are compared with
    outcomes: tuple[Outcome, ...]
    pairs: tuple[tuple[str, str], ...] = ()  # further comparisons, (arm, arm it is compared with)
    init: str | None = None  # bundled weights that every arm starts from; None: from scratch
    shared: tuple[tuple[str, str], ...] = ()  # (study, arm) of trainings that are also an arm of this study


STUDIES = {
    "dropout": Study(
        "StarNet-Pose",
        "Does CoarseDropout make StarNet-Pose-T more accurate, on people who are hidden and on all people?",
        "none",
        (AP_CLEAN, AP_OCCLUDED),
        (("schedule-1.0-0.5", "constant-0.6"),),
        init="starnet-pose-t-synthetic.safetensors",
    ),
    "pruning": Study(
        "H2OT",
        "How much accuracy does pruning frames cost a small MixSTE, and does the choice of frames matter?",
        "full",
        (MPJPE,),
        # does the choice of frames matter, and does pruning gain anything over fewer input frames?
        (("h2ot-cluster", "h2ot-uniform"), ("h2ot-attended", "h2ot-uniform"), ("h2ot-uniform", "subsampled")),
    ),
    "priors": Study(
        "KTPFormer",
        "Does the graph of the skeleton make a small KTPFormer more accurate than other graphs?",
        "skeleton",
        (MPJPE,),
        shared=(("pruning", "full"),),  # MixSTE, with the same data and recipe
    ),
}


@dataclass(frozen=True)
class StudyRun:
    """One training of a study."""

    study: str
    arm: str
    model: str
    options: dict
    dataset: str
    changes: dict  # changed fields of the recipe of profile fast
    seed: int

    @property
    def name(self) -> str:
        """The name of the record."""
        return f"study-{self.study}-{self.arm}-seed{self.seed}"

    @property
    def records(self) -> list[str]:
        """The names of all records that the run writes."""
        return [self.name + outcome.suffix for outcome in STUDIES[self.study].outcomes]

    def lifter_settings(self) -> dict:
        """The parameters of notebooks/train_lifter.ipynb, without those that have their default."""
        options = {key: value for key, value in self.options.items() if key != "prune"}
        settings = {"model": self.model, "dataset": self.dataset, "profile": "fast", "seed": self.seed}
        settings |= {"options": options, "prune": self.options.get("prune", {}), "settings": self.changes}
        return {key: value for key, value in settings.items() if value != {}} | {"name": self.name}

    def config(
        self, data_root: str | Path, weights: str | Path = paths.WEIGHTS, out_dir: str | Path = "reports"
    ) -> TrainConfig:
        """The training of a 2D model. weights: the folder of the bundled weights."""
        init = STUDIES[self.study].init
        return TrainConfig(
            model=self.model, options=self.options, dataset=self.dataset, data_root=str(data_root),
            profile="fast", seed=self.seed, out_dir=str(out_dir), name=self.name, recipe=self.changes,
            init=str(Path(weights, init)) if init else None,
        )  # fmt: skip

    def notebook_runs(self, data_root: str, people: str) -> dict[str, NotebookRun]:
        """The notebooks that write the records, by the name of the record.

        data_root: the folder of the synthetic people. people: the annotations that show that they exist.
        """
        if self.model in LIFTERS:
            return {self.name: NotebookRun("train_lifter", self.lifter_settings())}
        record = f"reports/records/{self.name}.json"
        name = self.name + AP_OCCLUDED.suffix
        evaluated: dict[str, Any] = {"weights": record, "model": self.model, "dataset": self.dataset}
        evaluated |= {"data_root": data_root, "split": OCCLUDED, "profile": "fast", "seed": self.seed}
        config = self.config(data_root, "data/weights")
        return {
            self.name: training(config, (people, *filter(None, [config.init]))),
            name: NotebookRun("evaluate", evaluated | {"name": name}, (people, record)),
        }


@functools.cache
def runs(path: Path = FILE) -> dict[str, StudyRun]:
    """Every run by its name, all arms of the first seed first.

    Raises ValueError, with the line number, for an unknown study, model or option.
    """
    found: list[StudyRun] = []
    with open(paths.require(path), newline="", encoding="utf8") as file:
        for line, cells in enumerate(csv.DictReader(file), 2):  # line 1 is the header
            try:
                check_name(cells["study"], STUDIES, "study")
                options, changes, seeds = (json.loads(cells[key]) for key in ("options", "changes", "seeds"))
                if cells["model"] not in LIFTERS:
                    models.check_options(cells["model"], options)
            except ValueError as error:
                raise ValueError(f"{path.name}, line {line}: {error}") from error
            changes = _merge(SETTINGS[cells["study"]], changes)
            arm = cells["study"], cells["arm"], cells["model"], options, cells["dataset"], changes
            found += [StudyRun(*arm, seed) for seed in range(seeds)]
    return {run.name: run for run in sorted(found, key=lambda run: run.seed)}


def _merge(settings: dict, changes: dict) -> dict:
    """Settings with changes, also inside their nested dictionaries."""
    nested = {
        key: settings[key] | changes[key]
        for key in settings.keys() & changes
        if isinstance(changes[key], dict)
    }
    return settings | changes | nested


def runs_of(study: str) -> list[StudyRun]:
    """The runs of a study, with those that it shares with another one."""
    compared = STUDIES[study]
    return [run for run in runs().values() if run.study == study or (run.study, run.arm) in compared.shared]


def get_run(name: str) -> StudyRun:
    """The run with this name; raises ValueError with close matches if there is none."""
    check_name(name, runs(), "study run")
    return runs()[name]


def train(run: StudyRun, data_root: str | Path = DATA_ROOT, out_dir: str | Path = "reports") -> list[Path]:
    """Train and evaluate one run, and return the paths of its records. The same call continues a stopped run.

    data_root: the folder of the synthetic people, with the split val_occluded. Raises ValueError and
    FileNotFoundError before any work if these are missing.
    """
    from posebook import datasets
    from posebook.evaluation import evaluator, predictions
    from posebook.lifting.training import train_lifter
    from posebook.training import trainer

    if run.model in LIFTERS:
        settings = run.lifter_settings()
        lifter, changes = settings.pop("model"), settings.pop("settings")
        record = train_lifter(lifter, out_dir=out_dir, **settings, **changes)
        return [records.write(record, out_dir)]
    occluded = datasets.load(run.dataset, data_root, OCCLUDED)
    record = trainer.train(run.config(data_root, out_dir=out_dir))
    weights = Path(out_dir, record["weights"]["file"])
    evaluation, predicted, stats = evaluator.evaluate_weights(
        models.load_weights(weights), occluded, weights, profile="fast", seed=run.seed
    )
    evaluation["name"] = f"{run.name}{AP_OCCLUDED.suffix}"
    path = records.write(evaluation, out_dir)
    predictions.save_predictions(path, occluded, predicted, stats)
    return [records.write(record, out_dir), path]  # the training's record last: it marks the run as done


def is_result(record: dict, run: StudyRun) -> bool:
    """Whether a training's record has the start, model, options, recipe and dataset of a run (point 3)."""
    options = record["options"]
    if run.model in LIFTERS:  # a lifter's record also has the options of a small model
        options = {key: value for key, value in options.items() if key in ("prune", "links")}
    same = record["model"] == run.model and record["dataset"]["name"] == run.dataset
    init = STUDIES[run.study].init
    same &= record["weights"]["initialization"].startswith(f"weights {init} " if init else "scratch")
    return same and options == run.options and _contains(record["parameters"], run.changes)


def _contains(found: Any, asked: Any) -> bool:
    """Whether settings as in a record contain the asked ones, also those of nested dictionaries."""
    if isinstance(asked, dict):
        return all(key in found and _contains(found[key], value) for key, value in asked.items())
    return found == asked


def without_others(ledger: Iterable[dict]) -> list[dict]:
    """The records without those that have the name of a run but are of another training (point 3)."""
    ledger, trainings = list(ledger), runs()
    written_by = {name: run.name for run in trainings.values() for name in run.records}
    trained = {
        (name, record["weights"]["sha256"])
        for record in ledger
        if (name := record["name"]) in trainings and is_result(record, trainings[name])
    }

    def counts(record: dict) -> bool:
        name = record["name"]
        return name not in written_by or (written_by[name], record["weights"]["sha256"]) in trained

    return [record for record in ledger if counts(record)]


def results(study: str, ledger: Iterable[dict]) -> pd.DataFrame:
    """The recorded results of a study, one row each: outcome (its label), arm, seed, value (in its unit)."""
    by_name = {record["name"]: record for record in without_others(ledger)}
    lines = [
        [outcome.label, run.arm, run.seed, outcome.scale * by_name[name]["metrics"][outcome.metric]]
        for run in runs_of(study)
        for outcome, name in zip(STUDIES[study].outcomes, run.records, strict=True)
        if name in by_name
    ]
    return pd.DataFrame(lines, columns=["outcome", "arm", "seed", "value"])


def differences(study: str, ledger: Iterable[dict]) -> dict[tuple[str, str, str], SeedDifference]:
    """Each arm minus the baseline, and the further pairs, by (outcome label, arm, reference).

    Pairs with an arm of fewer than two runs are missing.
    """
    table, compared = results(study, ledger), STUDIES[study]
    by_arm = {key: group["value"].tolist() for key, group in table.groupby(["outcome", "arm"], sort=False)}
    arms = [arm for arm in table["arm"].unique() if arm != compared.baseline]
    pairs = [*((arm, compared.baseline) for arm in arms), *compared.pairs]
    return {
        (outcome.label, *pair): difference(*(by_arm[outcome.label, arm] for arm in pair))
        for outcome in compared.outcomes
        for pair in pairs
        if all(len(by_arm.get((outcome.label, arm), [])) > 1 for arm in pair)
    }


def sentence(study: str, label: str, arm: str, reference: str, found: SeedDifference) -> str:
    """One comparison in words. Which words is decided by the interval over seeds."""
    outcome = next(outcome for outcome in STUDIES[study].outcomes if outcome.label == label)

    def number(value: float, sign: str = "+") -> str:
        return f"{round(value, 1) + 0.0:{sign}.1f}"  # + 0.0: no -0.0

    value = f"{number(found.value)} {outcome.unit}"
    names = f"{outcome.label}: {method_name(arm)} minus {method_name(reference)}"
    differs = found.low > 0 or found.high < 0
    measured = (
        f"{value} (95 % interval {number(found.low)} to {number(found.high)}, "
        f"{found.seeds[0]} and {found.seeds[1]} seeds)"
    )
    if differs:
        return f"{names} is {measured}, a difference."
    return (
        f"{names} is {measured}, no difference found. A true difference of "
        f"{number(found.detectable, '')} {outcome.unit} would be found in 80 % of such studies."
    )
