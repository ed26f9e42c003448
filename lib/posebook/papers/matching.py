"""Which records measure a cell of a published table."""

import json
from dataclasses import asdict
from typing import Any

from posebook.lifting.recipes import Recipe as LifterRecipe
from posebook.papers.cells import all_options, box_source, parse_options, parse_pairs, parse_size
from posebook.training import recipes
from posebook.training.recipes import Recipe


def config_key(record: dict) -> tuple:
    """What runs that differ only in their seed have in common.

    An evaluation of given weights has a key of its own, its name.
    """
    training = record["kind"] == "train" or record["name"]
    runtime = [record["parameters"].get(name) for name in ("precision", "pack", "processes")]
    start = record.get("weights", {}).get("initialization")
    return training, box_source(record["protocol"]["boxes"]), start, record["dataset"]["sha256"], *runtime


def matches(cell: dict, size: tuple[int, int], record: dict) -> bool:
    """Whether a record measures this cell, by rule 1 of posebook.papers.tables."""
    kind = record["kind"] if "not_evaluated" not in record else None
    if kind not in ("train", "evaluate") or record["model"] != cell["model"] or record["profile"] != "paper":
        return False
    if kind == "train":
        trained_on = record["dataset"]["name"]
        if not trained_by(cell_recipe(cell), record["parameters"]):
            return False
        # A run that starts from weights of the whole model has been trained longer than the recipe.
        start = record.get("weights", {}).get("initialization", "")
        if start.startswith("weights"):
            return False
        # The row starts from a backbone, so a run from scratch is another experiment.
        if cell.get("pretrained") and not start.startswith(f"backbone {cell['pretrained']} "):
            return False
        if (record.get("config") or {}).get("hold_out"):  # not trained on the whole dataset
            return False
    else:  # For weights from elsewhere, the record only states their training data.
        trained_on = record.get("weights", {}).get("trained_on")
        # A runtime other than PyTorch can have fewer digits than the published value.
        if cell["recipe"] or record["parameters"].get("runtime"):
            return False
    data, protocol = record.get("evaluated", record["dataset"]), record["protocol"]
    return (
        trained_on == data["name"] == cell["dataset"]
        and data["split"] == cell["split"]
        and tuple(protocol["input_size"]) == size
        and all_options(cell["model"], record.get("options", {}))
        == all_options(cell["model"], parse_options(cell["options"]))
    )


def cell_recipe(cell: dict) -> Recipe | None:
    """The recipe that trains a cell's model; None if posebook does not have the paper's recipe."""
    if cell["dataset"] not in recipes.PAPER.get(cell["model"], {}):
        return None
    changes: dict[str, Any] = {"input_size": parse_size(cell["input_size"])}
    for path, value in parse_pairs(cell["recipe"]).items():
        *stage, field = path.split(".")
        (changes.setdefault(stage[0], {}) if stage else changes)[field] = json.loads(value)
    return recipes.get("paper", cell["model"], cell["dataset"], **changes)


def trained_by(recipe: Recipe | LifterRecipe | None, parameters: dict) -> bool:
    """Whether a record's parameters are those of a recipe, except for `evaluate_every`.

    Raises ValueError if the parameters lack a field of the recipe: a missing field must never count as equal.
    """
    if recipe is None:
        return False
    expected = json.loads(json.dumps(asdict(recipe)))  # tuples become lists, as in records
    del expected["evaluate_every"]  # does not affect the weights
    if missing := sorted(expected.keys() - parameters.keys()):
        raise ValueError(
            f"a record's parameters lack {', '.join(missing)}: it was written by another version; convert it "
            "with posebook records migrate"
        )
    return all(parameters[name] == value for name, value in expected.items())


def metric_value(column: str, record: dict, no_flip_test: bool) -> float | None:
    """The record's value for a published column, in the paper's unit; None if the record has none."""
    if column.startswith("Best AP"):
        evaluated = [entry for entry in record.get("curve", []) if entry.get("AP") is not None]
        if not evaluated:
            return None
        best = max(evaluated, key=lambda entry: entry["AP"])
        return best["epoch"] if column == "Best AP epoch" else 100 * best["AP"]
    without = no_flip_test and record["protocol"]["flip_test"]  # else `metrics` is without flip test itself
    value = record["metrics_without_flip" if without else "metrics"].get(column)
    return None if value is None else 100 * value
