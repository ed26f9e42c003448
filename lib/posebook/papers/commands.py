"""Commands that would measure a cell, and how long they take."""

import json

from posebook import datasets
from posebook.papers import ablations
from posebook.papers.cells import box_source, parse_options, parse_size, where_measured
from posebook.papers.matching import cell_recipe
from posebook.papers.size_trace import count
from posebook.training import recipes

COCO_BOXES = "data/coco/person_detection_results/COCO_val2017_detections_AP_H_56_person.json"


# Who are trained on; COCO: with a labeled joint, no crowds. Of COCO-mini and of CrowdPose's trainval as many
# a picture as in the whole of COCO (118,287 pictures) and in CrowdPose's val (7,074 people in 2,000).
TRAINING_PEOPLE = {"coco": 149813, "mpii": 22246}
TRAINING_PEOPLE |= {"coco-mini": 149813 * 5000 // 118287, "crowdpose": 7074 * 12000 // 2000}
NO_PUBLIC_WEIGHTS = ("lap",)


BENCHMARK_COMMAND = "papermill notebooks/benchmark.ipynb reports/executed/benchmark.ipynb -p model all"


def measuring_command(cell: dict) -> str:
    """What would measure an accuracy, or "" where posebook cannot train the net or read the data.

    A run of the grid is asked for by its name; a net whose paper's recipe is here is trained; of another,
    the authors' weights are evaluated.
    """
    if cell["dataset"] not in datasets.NAMES:
        return ""
    if runs := ablation_runs(cell):
        return f"make grid PROFILE=paper ROWS={','.join(runs)}"
    if cell_recipe(cell):
        return training_command(cell)
    if cell["options"] or cell["recipe"] or cell["model"] in NO_PUBLIC_WEIGHTS:
        return ""
    size, data = [int(side) for side in cell["input_size"].split("x")], cell["dataset"]
    boxes = f" -p boxes {COCO_BOXES}" if data == "coco" and box_source(cell["boxes"]) == "detector" else ""
    return (
        f"papermill notebooks/evaluate.ipynb reports/executed/{cell['model']}.ipynb -p model {cell['model']} "
        f"-p weights AUTHORS_FILE -y 'input_size: {size}' -p trained_on {data} -p dataset {data} "
        f"-p data_root data/{data} -p profile paper{boxes}"
    )


def ablation_runs(cell: dict) -> list[str]:
    """The runs of the grid that make a cell's row, by their ids."""
    printed = (cell["paper"], cell["table"], cell["row"])
    return [run.id for run in ablations.rows().values() if (run.paper, run.table, run.row) == printed]


def training_cost(cell: dict, records: list[dict]) -> str:
    """How long the trainings that a cell's row is made of would take, from the rate of one on record.

    Taken as in proportion to the multiply-adds of a person's input; a GPU's record before a CPU's, then one
    of the same net, then the newest. "" where no training is on record, none would measure the cell, or how
    many would learn from is not known.
    """
    recipe = cell_recipe(cell)
    runs = [r for r in records if r["kind"] == "train" and r.get("wall_seconds") and r.get("complexity")]
    if not runs or recipe is None or cell["dataset"] not in TRAINING_PEOPLE:
        return ""

    def rank(run: dict) -> tuple[bool, bool, str]:
        same = run["model"] == cell["model"]
        return run["machine"]["device"].startswith("cuda"), same, run.get("started", "")

    run = max(runs, key=rank)
    rate = run["dataset"]["persons"] * run["parameters"]["epochs"] / run["wall_seconds"]
    work = count(cell, records)["macs"]["exact"] / run["complexity"]["macs"]["exact"]
    epochs = recipe.epochs * max(1, len(ablation_runs(cell)))
    hours = epochs * TRAINING_PEOPLE[cell["dataset"]] * work / rate / 3600
    return (
        f"about {hours:,.0f} hours at the {rate:.0f} people a second of {run['name']}, {where_measured(run)}"
    )


def training_command(cell: dict) -> str:
    """What would measure an accuracy: a training run of profile paper."""
    root = f"data/{cell['dataset'].removesuffix('-mini')}"
    words = [f"posebook train --model {cell['model']} --dataset {cell['dataset']} --data-root {root}"]
    words += ["--profile paper --device cuda"]
    if cell["pretrained"]:
        words += [f"--backbone {ablations.BACKBONES / cell['pretrained']}"]
    if cell["options"]:
        words += [f"--options '{json.dumps(parse_options(cell['options']))}'"]
    size = parse_size(cell["input_size"])
    if size != recipes.get("paper", cell["model"], cell["dataset"]).input_size:
        words += [f"--set '{json.dumps({'input_size': size})}'"]
    return " ".join(words)
