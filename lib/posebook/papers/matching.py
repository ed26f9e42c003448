"""Which records measure a published cell."""

import json
from dataclasses import asdict

from posebook.lifting.recipes import Recipe as LifterRecipe
from posebook.papers.cells import all_options, box_source, parse_options, parse_pairs, parse_size
from posebook.training import recipes
from posebook.training.recipes import Recipe


def config_key(record: dict) -> tuple:
    """What trainings of one figure have in common; an evaluation of given weights is one of its own."""
    training = record["kind"] == "train" or record["name"]
    how = [record["parameters"].get(name) for name in ("precision", "pack", "processes")]
    start = record.get("weights", {}).get("initialization")
    return training, box_source(record["protocol"]["boxes"]), start, record["dataset"]["sha256"], *how


def matches(cell: dict, size: tuple[int, int], record: dict) -> bool:
    """Whether a record measures this cell: point 1 of the file's docstring."""
    kind = record["kind"] if "not_evaluated" not in record else None
    if kind not in ("train", "evaluate") or record["model"] != cell["model"] or record["profile"] != "paper":
        return False
    if kind == "train":
        learned_on = record["dataset"]["name"]
        if not trained_by(cell_recipe(cell), record["parameters"]):
            return False
        if record.get("weights", {}).get("initialization", "").startswith("weights"):  # and so trained longer
            return False
    else:  # weights from elsewhere: what they were trained on is all that the record says
        learned_on = record.get("weights", {}).get("trained_on")
        if cell["recipe"]:
            return False
    data, protocol = record.get("evaluated", record["dataset"]), record["protocol"]
    return (
        learned_on == data["name"] == cell["dataset"]
        and data["split"] == cell["split"]
        and tuple(protocol["input_size"]) == size
        and all_options(cell["model"], record.get("options", {}))
        == all_options(cell["model"], parse_options(cell["options"]))
    )


def cell_recipe(cell: dict) -> Recipe | None:
    """What a cell's net is trained by; None where its paper's recipe is not here."""
    if cell["dataset"] not in recipes.PAPER.get(cell["model"], {}):
        return None
    changes: dict[str, object] = {"input_size": parse_size(cell["input_size"])}
    for path, value in parse_pairs(cell["recipe"]).items():
        *stage, field = path.split(".")
        (changes.setdefault(stage[0], {}) if stage else changes)[field] = json.loads(value)
    return recipes.get("paper", cell["model"], cell["dataset"], **changes)


def trained_by(recipe: Recipe | LifterRecipe | None, parameters: dict) -> bool:
    """Whether a record's parameters are a recipe's; how often it was evaluated on the way does not count.

    Raises ValueError for parameters without a field of the recipe: a missing field is not equal to anything.
    """
    if recipe is None:
        return False
    wanted = json.loads(json.dumps(asdict(recipe)))  # tuples become lists, as in records
    del wanted["evaluate_every"]
    if missing := sorted(wanted.keys() - parameters.keys()):
        raise ValueError(
            f"a record's parameters lack {', '.join(missing)}: it was written by other code; convert it with "
            "posebook records migrate"
        )
    return all(parameters[name] == value for name, value in wanted.items())


def metric_value(column: str, record: dict, plain: bool) -> float | None:
    """The record's figure for a published column, in the paper's unit; None where it has none."""
    if column.startswith("Best AP"):
        scored = [entry for entry in record.get("curve", []) if entry.get("AP") is not None]
        if not scored:
            return None
        best = max(scored, key=lambda entry: entry["AP"])
        return best["epoch"] if column == "Best AP epoch" else 100 * best["AP"]
    flipped = record["protocol"]["flip_test"]
    value = record["metrics_without_flip" if plain and flipped else "metrics"].get(column)
    return None if value is None else 100 * value
