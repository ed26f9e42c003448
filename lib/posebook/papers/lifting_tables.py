"""The papers' lifters at their own size, their printed figures, and the runs that compare ways of pruning.

1. A figure printed of a dataset takes only trainings on that very dataset, by the lifter's own recipe. What
   is measured on the embedded motion stands in tables of its own, and in no cell of a paper.
2. "FLOPs" are the papers' own: twice the multiply-adds of linear layers (complexity.py).
3. How a net is pruned is said in text, 'prune=2:uniform:81,5:uniform:27;recover=interpolate': before which
   layer, by which pruner, how many frames are kept. Without text nothing is pruned.
4. A way is no worse than another if the means over seeds differ by no more than the larger of the two
   deviations (of a sample), and better if it is ahead by more. Three seeds are few: neither is a test.
"""

import functools
import json
from collections import Counter
from collections.abc import Sequence

import pandas as pd
import torch

from posebook.lifting import complexity, metrics, recipes
from posebook.lifting.pruning import FramePruning, build_lifter
from posebook.papers import claims
from posebook.papers.claims import Finding
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
    "FLOPs (G)": "twice the multiply-adds of linear layers, as the papers count",
    "FLOPs saved (%)": "of the same net without pruning, both counted as the papers do",
}
IGNORED_FIELDS = ("evaluate_every", "device")  # of a record's parameters: no part of how a net was trained
STARPOSE = "posebook train-starpose --seed 0"


def parse_options(text: str) -> dict:
    """A way of pruning, as hourglass.build takes it and as a record has it; point 3."""
    pairs = dict(pair.split("=", 1) for pair in text.split(";") if pair)
    if not pairs:
        return {}
    places = [place.split(":") for place in pairs["prune"].split(",")]
    prune = {layer: [pruner, int(keep)] for layer, pruner, keep in places}
    return {"prune": prune, "recover": pairs["recover"]}


@functools.cache
def count(lifter: str, text: str = "") -> dict[str, int]:
    """What complexity.count says of a lifter of 243 frames, pruned as the text says."""
    with torch.device("meta"):
        net = build_lifter(lifter, 243, **parse_options(text))
    return complexity.count(net)


def costs(names: Sequence[str] = tuple(PAPER_MODELS)) -> pd.DataFrame:
    """Parameters, FLOPs and multiply-adds of some of NETS, and the shares that pruning saves."""
    lines = {}
    for name in names:
        lifter, text = PAPER_MODELS[name]
        own, whole = count(lifter, text), count(lifter)
        lines[name] = {
            "parameters (M)": own["params"] / 1e6,
            "FLOPs (G)": own["flops"] / 1e9,
            "FLOPs saved": 1 - own["flops"] / whole["flops"],
            "multiply-adds (G)": own["macs"] / 1e9,
            "multiply-adds saved": 1 - own["macs"] / whole["macs"],
        }
    return pd.DataFrame(lines).T


def counted_cost(cell: dict) -> float | None:
    """The counted figure of a printed cell, or None where its column is no cost."""
    if cell["column"] not in COSTS:
        return None
    own = count(cell["model"], cell["options"])["flops"]
    if cell["column"] == "FLOPs (G)":
        return own / 1e9
    return 100 * (1 - own / count(cell["model"])["flops"])


def matching_runs(cell: dict, records: Sequence[dict]) -> dict[int, dict]:
    """The trainings that measure a printed error by their seeds, of each the newest; point 1."""
    recipe = recipes.get("paper", cell["model"])
    found = [
        record
        for record in records
        if record["kind"] == "lift" and record["model"] == cell["model"] and record["profile"] == "paper"
        if record["dataset"]["name"] == record["evaluated"]["name"] == cell["dataset"]
        if record["evaluated"]["split"] == cell["split"]
        and record["options"] == parse_options(cell["options"])
        if trained_by(recipe, record["parameters"])
    ]
    return {record["seed"]: record for record in sorted(found, key=lambda record: record["started"])}


def training_command(cell: dict) -> str:
    """What would measure a printed error."""
    root = f"data/{cell['dataset'].removesuffix('-gt')}"
    words = [f"posebook train-lifter --lifter {cell['model']} --dataset {cell['dataset']}"]
    words += [f"--data-root {root} --profile paper --device cuda"]
    if how := parse_options(cell["options"]):
        words += [f"--prune '{json.dumps(how['prune'])}' --recover {how['recover']}"]
    return " ".join(words)


def h36m_command(name: str) -> str:
    """What would train one of NETS on Human3.6M."""
    lifter, text = PAPER_MODELS[name]
    return training_command({"model": lifter, "options": text, "dataset": "h36m"})


def pruning_table(records: Sequence[dict], profile: str = "fast") -> pd.DataFrame:
    """The ways in which lifters were trained on the embedded motion, a line each; see `_over_seeds`.

    A run is told by its name, lift-LIFTER-WAY-PROFILE-seedN; most ways are recipes.VARIANTS. Ways of MixSTE
    are called by their own name, others 'LIFTER, WAY'. Only runs by one recipe, that of most, are compared.
    """
    lines, learned = [], []
    for record in {record["name"]: record for record in records}.values():  # the later one of a name
        way = record["name"].removeprefix(f"lift-{record['model']}-").rpartition(f"-{profile}-seed")[0]
        if way and record["kind"] == "lift" and record["dataset"]["name"] == "motion":
            way = way if record["model"] == "mixste" else f"{record['model']}, {way}"
            cost = record["complexity"]["macs"] / 1e6
            lines.append({"way": way, "multiply-adds (M)": cost} | record["metrics"])
            told = {name: value for name, value in record["parameters"].items() if name not in IGNORED_FIELDS}
            learned.append(json.dumps(told, sort_keys=True))
    most = Counter(learned).most_common(1)
    lines = [line for line, recipe in zip(lines, learned, strict=True) if recipe == most[0][0]]
    return _over_seeds(lines, [*recipes.VARIANTS, *(line["way"] for line in lines)])


def guidance_table(records: Sequence[dict]) -> pd.DataFrame:
    """A plain lifter and StarPose, with and without history and guidance, a line each; see `_over_seeds`."""
    lines, order = [], []
    for record in {record["name"]: record for record in records}.values():
        for row in record["metrics"] if record["kind"] == "starpose" else ():
            parts = [row["net"], *(part for part in ("history", "guided") if row.get(part))]
            order.append(" + ".join(parts))
            lines.append({"way": order[-1]} | {name: row[name] for name in metrics.METRICS})
    return _over_seeds(lines, order)


def _over_seeds(lines: list[dict], order: list[str]) -> pd.DataFrame:
    """Lines of figures to a line a `way`: `seeds`, each figure's mean, and as 'NAME ±' its deviation.

    The deviation of a cost, which no seed moves, is left out; without lines the table is empty.
    """
    if not lines:
        return pd.DataFrame({"seeds": pd.Series(dtype=int)})
    groups = pd.DataFrame(lines).groupby("way")
    table = groups.mean().join(groups[list(metrics.METRICS)].std().add_suffix(" ±"))
    pairs = [column for name in metrics.METRICS for column in (name, f"{name} ±")]
    table = table[[*table.columns.difference(pairs), *pairs]]
    table.insert(0, "seeds", groups.size())
    return table.loc[[way for way in dict.fromkeys(order) if way in table.index]]


def variant_command(way: str) -> str:
    """The command that trains a way of `pruning` with the first seed."""
    lifter, _, variant = way.rpartition(", ")
    lifter = lifter or "mixste"
    words = [f"posebook train-lifter --lifter {lifter} --seed 0 --profile fast"]
    if variant == "no-bones":
        links = json.dumps({"links": recipes.NO_BONES})
        words += [f"--options '{links}' --name lift-{lifter}-no-bones-fast-seed0"]
    else:
        words += [f"--variant {variant}"]
    return " ".join(words)


def frames_per_layer(net: FramePruning, x: torch.Tensor) -> list[int]:
    """How many frames each layer of a net sees of sequences (B, F, J, C)."""
    with torch.no_grad():
        kept = net.middle(x)[1]
    now = x.shape[1]
    return [now := kept[layer].shape[1] if layer in kept else now for layer in range(net.depth)]


def compare_methods(
    table: pd.DataFrame,
    ways: Sequence[str],
    other: str,
    evidence: str,
    by: Sequence[str] = ("MPJPE",),
    better: bool = False,
    would: str = "",
) -> Finding:
    """Whether some ways are each no worse than another, or better, by every metric of `by`; point 4.

    table: of `pruning` or `guidance`; cannot be tested where one of them has not run with two seeds. would:
    what would run a way, if not `training_of`.
    """
    rule = f"{'better' if better else 'no worse'} than {other} by more than the seeds' larger deviation"
    lacking = [w for w in (*ways, other) if w not in table.index or table.loc[w, "seeds"] < 2]
    if lacking:
        asked = dict.fromkeys(f"`{would or variant_command(way)}`" for way in lacking)
        why = "Human3.6M may not be passed on, and too few runs on the embedded motion are on record"
        asked = f"{'; '.join(asked)}, and more seeds"
        told = f"not run with two seeds: {'; '.join(lacking)}"
        return claims.make_finding(None, told, rule, evidence, "run", why, asked)
    held, said = [], []
    for way in ways:
        for name in by:
            gap = table.loc[way, name] - table.loc[other, name]
            wide = table.loc[[way, other], f"{name} ±"].max()
            held.append(gap < -wide if better else gap <= wide)
            said.append(f"{way}: {gap:+.1f} ± {wide:.1f} mm {name}")
    seeds = int(table.loc[[*ways, other], "seeds"].min())
    told = f"against {other}, on the embedded motion, {seeds} seeds: {'; '.join(said)}"
    return claims.make_finding(all(held), told, rule, evidence, "run")
