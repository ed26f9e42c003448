"""The papers' lifters at full size, their printed results, and the runs that compare pruning methods.

1. A result printed for a dataset is only compared with trainings on the same dataset, by the lifter's own
   recipe. Results on the bundled synthetic motion have tables of their own and never fill a paper's cell.
2. "FLOPs" follow the papers: twice the multiply-adds of linear layers (posebook.lifting.complexity).
3. Pruning is described by text, 'prune=2:uniform:81,5:uniform:27;recover=interpolate': before which layer, by
   which pruner, how many frames remain. An empty text means no pruning.
"""

import functools
import json
import statistics
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from posebook.lifting import complexity, metrics, recipes
from posebook.lifting.pruning import FramePruning, build_lifter
from posebook.papers.cells import parse_pairs
from posebook.papers.matching import trained_by

PAPER_MODELS = {
    "MixSTE": ("mixste", ""),
    "HoT w. MixSTE": ("mixste", "prune=3:cluster:81;recover=attend"),
    "TPC w. MixSTE, seq2frame": ("mixste", "prune=7:cluster:61;recover=keep"),
    "H2OT w. MixSTE, our schedule": ("mixste", "prune=2:uniform:81,5:uniform:27;recover=interpolate"),
    "MotionBERT": ("motionbert", ""),
    "HoT w. MotionBERT": ("motionbert", "prune=1:cluster:81;recover=attend"),
    "KTPFormer": ("ktpformer", ""),
}
COSTS = {
    "FLOPs (G)": "twice the multiply-adds of linear layers, as in the papers",
    "FLOPs saved (%)": "relative to the same model without pruning, both counted as in the papers",
}
VARIANT_OPTIONS: dict[str, dict] = {  # of records, by the variant's name
    name: {"prune": {str(layer): list(pruner) for layer, pruner in prune.items()}, "recover": recover}
    for name, (prune, recover) in recipes.VARIANTS.items()
}
VARIANT_OPTIONS |= {"full": {}, "no-bones": {"links": [list(link) for link in recipes.NO_BONES]}}
IGNORED_FIELDS = ("evaluate_every", "device", "seed")  # parameters in records that may differ between seeds
# The commands that train the first seed of the comparisons on the bundled synthetic motion.
PRUNING = "posebook train-lifter --lifter mixste --seed 0 --profile fast --variant hot"
STARPOSE = "posebook train-starpose --seed 0"


def parse_options(text: str) -> dict[str, Any]:
    """The pruning options that a text describes, as in build_lifter and in records (point 3)."""
    pairs = parse_pairs(text)
    if not pairs:
        return {}
    steps = [step.split(":") for step in pairs["prune"].split(",")]
    prune = {layer: [pruner, int(num_frames)] for layer, pruner, num_frames in steps}
    return {"prune": prune, "recover": pairs["recover"]}


@functools.cache
def count(lifter: str, text: str = "") -> dict[str, int]:
    """The result of complexity.count for a lifter of 243 frames, pruned as the text describes."""
    with torch.device("meta"):
        model = build_lifter(lifter, 243, **parse_options(text))
    return complexity.count(model)


def costs(names: Sequence[str] = tuple(PAPER_MODELS)) -> pd.DataFrame:
    """Parameters, FLOPs, multiply-adds and the savings of pruning, one row for each name of PAPER_MODELS."""
    rows = {}
    for name in names:
        lifter, text = PAPER_MODELS[name]
        pruned, unpruned = count(lifter, text), count(lifter)
        rows[name] = {
            "parameters (M)": pruned["params"] / 1e6,
            "FLOPs (G)": pruned["flops"] / 1e9,
            "FLOPs saved": 1 - pruned["flops"] / unpruned["flops"],
            "multiply-adds (G)": pruned["macs"] / 1e9,
            "multiply-adds saved": 1 - pruned["macs"] / unpruned["macs"],
        }
    return pd.DataFrame(rows).T


def counted_cost(cell: dict) -> tuple[float, float] | None:
    """The cost for a printed cell, counted as in the papers and from all multiply-adds.

    Returns None if the cell's column is not in COSTS.
    """
    if cell["column"] not in COSTS:
        return None
    counted, unpruned = count(cell["model"], cell["options"]), count(cell["model"])
    if cell["column"] == "FLOPs (G)":
        return counted["flops"] / 1e9, counted["macs"] / 1e9
    saved = [100 * (1 - counted[name] / unpruned[name]) for name in ("flops", "macs")]
    return saved[0], saved[1]


def matching_runs(cell: dict, records: Sequence[dict]) -> dict[int, dict]:
    """The trainings that measure a printed error, the newest of each seed, by seed (point 1)."""
    recipe = recipes.get("paper", cell["model"])
    runs = [
        record
        for record in records
        if record["kind"] == "lift" and record["model"] == cell["model"] and record["profile"] == "paper"
        if record["dataset"]["name"] == record["evaluated"]["name"] == cell["dataset"]
        if record["evaluated"]["split"] == cell["split"]
        and record["options"] == parse_options(cell["options"])
        if trained_by(recipe, record["parameters"])
    ]
    return {run["seed"]: run for run in sorted(runs, key=lambda run: run["started"])}


def training_command(cell: dict) -> str:
    """The command that would measure a printed error."""
    root = f"data/{cell['dataset'].removesuffix('-gt')}"
    words = [f"posebook train-lifter --lifter {cell['model']} --dataset {cell['dataset']}"]
    words += [f"--data-root {root} --profile paper --device cuda"]
    if options := parse_options(cell["options"]):
        words += [f"--prune '{json.dumps(options['prune'])}' --recover {options['recover']}"]
    return " ".join(words)


def h36m_command(name: str) -> str:
    """The command that would train a model of PAPER_MODELS on Human3.6M."""
    lifter, text = PAPER_MODELS[name]
    return training_command({"model": lifter, "options": text, "dataset": "h36m"})


def variant_name(record: dict) -> str:
    """METHOD in the name lift-LIFTER-METHOD-fast-seedN of a record; '' for other names."""
    return record["name"].removeprefix(f"lift-{record.get('model')}-").rpartition("-fast-seed")[0]


def has_options_of_its_name(record: dict) -> bool:
    """False for a training with the name of a variant but other options, or of no known variant."""
    if record["kind"] != "lift" or not (method := variant_name(record)):
        return True
    return method in VARIANT_OPTIONS and record["options"] == recipes.SMALL_MODEL | VARIANT_OPTIONS[method]


def with_same_settings(records: Sequence[dict]) -> list[dict]:
    """The records whose parameters, except IGNORED_FIELDS, are the most frequent ones."""
    texts = [
        json.dumps({k: v for k, v in parameters.items() if k not in IGNORED_FIELDS}, sort_keys=True)
        for parameters in (record.get("parameters", {}) for record in records)
    ]
    most_frequent = statistics.mode(texts) if texts else ""
    return [record for record, text in zip(records, texts, strict=True) if text == most_frequent]


def pruning_runs(records: Sequence[dict]) -> list[dict]:
    """The trainings of pruning methods on the bundled synthetic motion, one dictionary each.

    The method is that of `variant_name`. A method of MixSTE has its plain name, any other is called
    'LIFTER, METHOD'. Only runs with the options of their method and the most frequent parameters are
    included.
    """
    runs = [
        record
        for record in {record["name"]: record for record in records}.values()  # the last one of each name
        if variant_name(record) and record["dataset"]["name"] == "motion" and has_options_of_its_name(record)
    ]
    rows = []
    for record in with_same_settings(runs):
        method = variant_name(record)
        method = method if record["model"] == "mixste" else f"{record['model']}, {method}"
        macs = record["complexity"]["macs"] / 1e6
        rows.append({"method": method, "multiply-adds (M)": macs} | record["metrics"])
    return rows


def pruning_table(records: Sequence[dict]) -> pd.DataFrame:
    """The methods of `pruning_runs`, one row each; see `_over_seeds`."""
    rows = pruning_runs(records)
    return _over_seeds(rows, [*recipes.VARIANTS, *(row["method"] for row in rows)])


def guidance_table(records: Sequence[dict]) -> pd.DataFrame:
    """A plain lifter and StarPose with and without history and guidance, one row each; see `_over_seeds`."""
    # the last record of each name
    named = {record["name"]: record for record in records if record["kind"] == "starpose"}
    rows = []
    for record in with_same_settings([*named.values()]):
        for result in record["metrics"]:
            words = [result["net"], *(option for option in ("history", "guided") if result.get(option))]
            rows.append({"method": " + ".join(words)} | {name: result[name] for name in metrics.METRICS})
    return _over_seeds(rows, [row["method"] for row in rows])


def _over_seeds(rows: list[dict], order: list[str]) -> pd.DataFrame:
    """One row for each `method`: number of `seeds`, mean of each value, its deviation as 'NAME ±'.

    Costs have no deviation, because they do not depend on the seed. Without rows, the table is empty.
    """
    if not rows:
        return pd.DataFrame({"seeds": pd.Series(dtype=int)})
    groups = pd.DataFrame(rows).groupby("method")
    table = groups.mean().join(groups[list(metrics.METRICS)].std().add_suffix(" ±"))
    pairs = [column for name in metrics.METRICS for column in (name, f"{name} ±")]
    table = table[[*table.columns.difference(pairs), *pairs]]
    table.insert(0, "seeds", groups.size())
    return table.loc[[method for method in dict.fromkeys(order) if method in table.index]]


def frames_per_layer(model: FramePruning, x: torch.Tensor) -> list[int]:
    """The number of frames that each layer processes, for input sequences x (B, F, J, C)."""
    with torch.no_grad():
        remaining = model.middle(x)[1]  # by pruned layer: the frames left, (B, f)
    frames, num_frames = [], x.shape[1]
    for layer in range(model.depth):
        num_frames = remaining[layer].shape[1] if layer in remaining else num_frames
        frames.append(num_frames)
    return frames
