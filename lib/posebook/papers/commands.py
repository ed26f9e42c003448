"""Commands that would measure a cell of a published table, and estimates of their run time."""

import json

from posebook import datasets
from posebook.datasets.detector_boxes import COCO_BOXES
from posebook.models import published
from posebook.papers import ablations
from posebook.papers.cells import box_source, parse_options, parse_size, where_measured
from posebook.papers.matching import cell_recipe
from posebook.papers.size_trace import count
from posebook.training import recipes

# Person instances to train on. COCO: instances with a labeled joint, without crowds. The others are
# estimated: COCO-mini has 5000 of COCO's 118,287 images; CrowdPose's trainval is assumed to have as many
# instances per image as its val split (7,074 instances in 2,000 images).
TRAINING_INSTANCES = {
    "coco": 149813,
    "mpii": 22246,
    "coco-mini": 149813 * 5000 // 118287,
    "crowdpose": 7074 * 12000 // 2000,
}
NO_PUBLIC_WEIGHTS = ("lap",)


def measuring_command(cell: dict) -> str:
    """The command that measures an accuracy, or "" if posebook cannot train the model or read the data.

    A grid run is requested by its id. A model with a paper's recipe is trained. For any other model,
    published weights are evaluated: by name if they are known, otherwise from a file.
    """
    dataset = cell["dataset"]
    if dataset not in datasets.names():
        return ""
    if runs := ablation_runs(cell):
        return f"make grid PROFILE=paper ROWS={','.join(runs)}"
    if cell_recipe(cell):
        return training_command(cell)
    if cell["options"] or cell["recipe"] or cell["model"] in NO_PUBLIC_WEIGHTS:
        return ""
    size = list(parse_size(cell["input_size"]))
    if line := published_line(cell):
        boxes = " --boxes annotated" if box_source(cell["boxes"]) == "ground" else ""
        return f"posebook evaluate --weights {line.weights} --model {line.model} --profile paper{boxes}"
    boxes = (
        f" -p boxes data/coco/{COCO_BOXES}"
        if dataset == "coco" and box_source(cell["boxes"]) == "detector"
        else ""
    )
    return (
        f"papermill notebooks/evaluate.ipynb reports/executed/{cell['model']}.ipynb -p model {cell['model']} "
        f"-p weights AUTHORS_FILE -y 'input_size: {size}' -p trained_on {dataset} -p dataset {dataset} "
        f"-p data_root data/{dataset} -p profile paper{boxes}"
    )


def published_line(cell: dict) -> published.Checkpoint | None:
    """The published weights of a cell's model, dataset and input size; preferably those of its authors."""
    lines = [
        line
        for line in published.load_table()
        if (line.model, line.dataset, line.trained_on) == (cell["model"], cell["dataset"], cell["dataset"])
        and line.input_size == parse_size(cell["input_size"])
        and not (line.options or line.decoding)
    ]
    return min(lines, key=lambda line: "-authors" not in line.weights, default=None)


def ablation_runs(cell: dict) -> list[str]:
    """The ids of the grid runs that measure a cell's row."""
    printed = (cell["paper"], cell["table"], cell["row"])
    return [run.id for run in ablations.rows().values() if (run.paper, run.table, run.row) == printed]


def training_cost(cell: dict, records: list[dict]) -> str:
    """The estimated time of the trainings for a cell's row, from the speed of one recorded training.

    The time is assumed to be proportional to the multiply-adds for one instance. The reference is recorded on
    a GPU, because the commands train on one; preferably of the same model, then the newest. Returns "" if no
    such training is on record, if no training would measure the cell, or if the number of training instances
    is unknown.
    """
    recipe = cell_recipe(cell)
    runs = [r for r in records if r["kind"] == "train" and r.get("wall_seconds") and r.get("complexity")]
    runs = [run for run in runs if run["machine"]["device"].startswith("cuda")]
    if not runs or recipe is None or cell["dataset"] not in TRAINING_INSTANCES:
        return ""

    run = max(runs, key=lambda run: (run["model"] == cell["model"], run.get("started", "")))
    speed = run["dataset"]["persons"] * run["parameters"]["epochs"] / run["wall_seconds"]  # instances/s
    relative_macs = count(cell, records)["macs"]["exact"] / run["complexity"]["macs"]["exact"]
    epochs = recipe.epochs * max(1, len(ablation_runs(cell)))
    hours = epochs * TRAINING_INSTANCES[cell["dataset"]] * relative_macs / speed / 3600
    return (
        f"about {hours:,.0f} hours at the speed of {run['name']}: {speed:.0f} people/s, {where_measured(run)}"
    )


def training_command(cell: dict) -> str:
    """The command that trains a cell's model with profile paper."""
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
