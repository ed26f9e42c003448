# From a fresh clone to reports/html/index.html. Run by `make reproduce`; one rule a notebook.
#
# Execution (slow) and export (fast) are apart, so that a change to the page style runs no notebook.
# Inputs name what a notebook's figures depend on, and no more: a change to plots.py redraws pages, but does
# not train again.
import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from posebook import grid, recipes

PROFILE = config.get("profile", "demo")
try:
    recipes.get(PROFILE)
    ASKED = grid.matching(str(config["rows"] or "")) if "rows" in config else []  # rows of data/grid.csv to be made
except ValueError as error:
    raise WorkflowError(f"{error}")

RUNS = {row.name(PROFILE): row for row in ASKED}  # by their records' names

# Profile paper: the pages on embedded data stay the demo's; the papers' rows are measured on what lies in data/.
PAPER, PROFILE = PROFILE == "paper", "demo" if PROFILE == "paper" else PROFILE

MODEL = "starnet-pose-t"
WEIGHTS = "data/weights/starnet-pose-t-synthetic.safetensors"
TABLES = [
    "main_results",
    "lightweight_comparison",
    "speed",
    "architecture",
    "attention_ablation",
    "occlusion_ablation",
    "amfacpose_coco",
    "amfacpose_crowdpose",
    "amfacpose_ablation",
    "lapx_mpii",
    "lapx_coco",
    "lapx_ablation",
    "vitpose",
    "lifting",
    "real_photographs",
]
AUDITS = [path.stem for path in sorted(Path("notebooks/audit").glob("*.ipynb"))]
PAGES = ["dataset", "train", "evaluate", "predict", "predict_3d", *(f"audit/{paper}" for paper in AUDITS), "tables/complexity"]
PAGES += [f"tables/{table}" for table in TABLES]
PAGES += ["benchmark", "attribution"]
COURSE = "notebooks/learn/course.csv"  # the lessons in reading order
LESSONS = ["learn/index", *(f"learn/{line.split(',')[0]}" for line in Path(COURSE).read_text().splitlines()[1:])]


def executed(name):
    return f"reports/executed/{name}.ipynb"


def stopped(name):
    """What report/run.py leaves of a notebook that fails."""
    return f"reports/executed/{name}.failed.ipynb"


def page(name):
    """Of what a page is made. After a failure make asks again, with failed=1: then of what ran till then, too."""
    return stopped(name) if "failed" in config and Path(stopped(name)).exists() else executed(name)


# `make site` runs every lesson, looks closer at what nets do, and takes training apart; once executed, they stay.
EXPLAINED = {net: f"-p model {net}" for net in ("amfacpose-r18", "lapx")}  # attribution of other nets than the report's
EXPLAINED["vitpose-s-two-sets"] = (
    "-p model vitpose-s -p weights data/weights/vitpose-s-two-sets-synthetic.safetensors "
    "-p methods '[integrated gradients, Grad-CAM, attention]'"
)
CLOSER = [*(f"attribution/{net}" for net in EXPLAINED), "attention", "occlusion"]
SHOWN = [
    name
    for name in [*CLOSER, *LESSONS, "training_speed"]
    if config.get("site") or Path(executed(name)).exists() or Path(stopped(name)).exists()
]


def notebook(name):
    return f"notebooks/{name}.ipynb"


def lib(*names):
    """The package's modules of these names; a folder's name stands for all its modules."""
    root = Path("lib/posebook")
    return sorted(
        str(path)
        for name in names
        for path in ([root / f"{name}.py"] if not (root / name).is_dir() else (root / name).rglob("*.py"))
    )


def backbone(model):
    """The backbone's ImageNet file, StarNet's or MAE's, where the user has put it into data/checkpoints."""
    vits = {"s": "small", "b": "base", "l": "large", "h": "huge"}
    files = {f"vitpose-{size}": f"mae_pretrain_vit_{word}.pth" for size, word in vits.items()}
    files |= {"starnet-pose-t": "starnet_s1.pth.tar", "starnet-pose-s": "starnet_s3.pth.tar"}
    path = grid.BACKBONES / files.get(model, "")
    return f"--backbone {path}" if path.is_file() else ""


def root(dataset):
    """Where a dataset lies."""
    return Path("data", dataset.removesuffix("-mini"))


def record(kind):
    return f"reports/records/{kind}-{PROFILE}.json"


# In two minutes little is learnt from scratch: the demo starts from the shipped weights and learns other joints.
FROM = WEIGHTS if PROFILE == "demo" else ""
LEARNT = "synthetic-14" if FROM else "synthetic"
START = f"from-{Path(FROM).stem}-" if FROM else ""

RECORDS = {
    "dataset": record("dataset-synthetic"),
    "train": f"reports/records/train-{MODEL}-{LEARNT}-{START}{PROFILE}-seed0.json",
    "evaluate": f"reports/records/evaluate-{MODEL}-synthetic-128x96-{PROFILE}-seed0.json",
    "benchmark": record("benchmark"),
    "complexity": record("complexity"),
    "attribution": record(f"attribution-{MODEL}-synthetic"),
} | {f"audit-{paper}": record(f"audit-{paper}") for paper in AUDITS}


def made(*kinds):
    """The records that tables read: all of these, or after a failure those that are there."""
    return [RECORDS[kind] for kind in kinds if "failed" not in config or Path(RECORDS[kind]).exists()]


KEPT = sorted(map(str, Path("data/measured").glob("*.json")))
# Of the papers' rows, what can be measured here: authors' weights called MODEL-DATASET-HxW in data/checkpoints,
# COCO in a detector's boxes too where its file is there; and with a GPU every net whose paper's recipe is here, on
# what there is of its paper's data. Ablations, and all that is trained on COCO-mini, are asked for by `make grid`.
AUTHORS, TRAINED = {}, {}  # a record's name -> authors' file and command line; -> command line
BOXES = "data/coco/person_detection_results/COCO_val2017_detections_AP_H_56_person.json"
CHECKPOINT = re.compile(r"(.+)-(coco|crowdpose|mpii|lspet)-(\d+x\d+)\.(?:pth|pt|pth\.tar|safetensors)")
DEVICE = config.get("device", "cpu")
if (PAPER or ASKED or "compare" in config) and "device" not in config:
    import torch

    DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PACK = "" if DEVICE == "cpu" else "--pack jpeg"  # else a GPU waits for whole pictures to be decoded
if PAPER and not ASKED:
    for path in sorted(Path("data/checkpoints").glob("*")):
        if (found := CHECKPOINT.fullmatch(path.name)) and (root(found[2]) / "annotations").is_dir():
            words = f"--weights {path} --model {found[1]} --input-size {found[3].replace('x', ' ')} --dataset {found[2]}"
            words += f" --trained-on {found[2]}"
            row = f"evaluate-{found[1]}-{found[2]}-{found[3]}-paper-seed0"
            AUTHORS[row] = str(path), words
            if found[2] == "coco" and Path(BOXES).is_file():
                AUTHORS[f"{row}-detector"] = str(path), f"{words} --boxes {BOXES}"
    for model, sets in recipes.PAPER.items() if DEVICE != "cpu" else ():
        for data in sets:
            if model.startswith("vitpose") and not backbone(model):  # from scratch it is another experiment
                continue
            if not data.endswith("-mini") and (root(data) / "annotations").is_dir():
                words = f"--model {model} --dataset {data} {backbone(model)}"
                TRAINED[f"train-{model}-{data}-paper-seed0"] = words
ROWS = [f"reports/records/{row}.json" for row in [*AUTHORS, *TRAINED]]
if "failed" in config:  # what has failed is not tried again at once
    ROWS = [row for row in ROWS if Path(row).exists()]
if PAPER and not ASKED:
    print(f"the papers' rows to measure, on {DEVICE}: {len(ROWS)}", *ROWS, sep="\n  ", file=sys.stderr)

# The nets side by side on real photographs, from scratch, one budget: some ten minutes of a GPU, or on a CPU twenty of
# two cores at a size at which little can be learnt. `make compare` asks for them.
PHOTOGRAPHS, COMPARED = Path(os.environ.get("POSEBOOK_DATA", "data"), "lspet"), []
if "compare" in config:
    if not (PHOTOGRAPHS / "joints.mat").is_file():
        raise WorkflowError(f"no lspet in {PHOTOGRAPHS}: python -m posebook.datasets.download lspet says how to get it")
    nets = ["starnet-pose-t", "amfacpose-r18", "lapx", "rtmpose-t"]
    COMPARED = [f"reports/records/compare-{net}-seed{seed}.json" for net in nets for seed in range(3)]
if DEVICE == "cpu":
    BUDGET = "--profile demo --set '{\"epochs\": 2, \"input_size\": [64, 64]}'"
else:
    BUDGET = "--profile fast --pack jpeg --precision bf16 --set '{\"epochs\": 60}'"

# A record that somebody's own run left in reports/records belongs into the tables too.
OWN = sorted({str(path) for path in Path("reports/records").glob("*.json")} - {*RECORDS.values(), *ROWS, *COMPARED})
PUBLISHED = sorted(map(str, Path("data/published").glob("*.csv")))
# Not the zoo itself: a line for another model moves nothing of this one.
NET = lib("models/layers", "models/starnet_pose", "skeletons", "codecs")
DATA = lib("datasets/__init__", "datasets/annotations", "datasets/coco", "transforms", "skeletons")
MEASURE = lib("evaluation", "metrics", "uncertainty")

LIFTERS = sorted(map(str, Path("data/weights").glob("lifter-*.safetensors")))
PEOPLE = [f"data/synthetic/annotations/person_keypoints_{split}.json" for split in ("train", "val", "14_train", "14_val")]
PICTURES = {"train": 1200 if PROFILE == "demo" else 8000, "val": 400}  # as dataset.ipynb wants them

# `exec`: the job is then snakemake's own child, and ends with it even when snakemake is killed.
RUN = f"exec env OMP_NUM_THREADS={{threads}} {sys.executable} report/run.py"
EXECUTE = RUN + " execute {input.notebook} {output.notebook} {params}"


def needed(row):
    """What must be there before a row of the grid is trained: an ImageNet file, or the embedded data."""
    if not PAPER:
        return PEOPLE
    return [str(grid.BACKBONES / row.backbone)] if row.backbone else []


rule report:
    input:
        "reports/html/index.html",


rule people:
    input:
        lib("datasets/synthetic", "skeletons"),
    output:
        PEOPLE,
    params:
        f"--train-images {PICTURES['train']} --val-images {PICTURES['val']}",
    threads: workflow.cores
    shell:
        f"exec {sys.executable} -m posebook.datasets.synthetic {{params}}"


rule dataset:
    input:
        notebook=notebook("dataset"),
        code=lib("datasets", "skeletons", "plots"),
        people=PEOPLE,
    output:
        notebook=executed("dataset"),
        record=RECORDS["dataset"],
    params:
        f"-p profile {PROFILE}",
    threads: workflow.cores
    shell:
        EXECUTE


rule train:
    input:
        notebook=notebook("train"),
        code=NET + DATA + MEASURE + lib("losses", "recipes", "samples", "training", "checkpoints", "datasets/packed", "datasets/combined", "models/transfer", "complexity"),
        people=PEOPLE,
        weights=[FROM] if FROM else [],
    output:
        notebook=executed("train"),
        record=RECORDS["train"],
    params:
        f"-p profile {PROFILE} -p dataset {LEARNT} -p init '{FROM}'",
    threads: workflow.cores
    shell:
        EXECUTE


rule evaluate:
    input:
        notebook=notebook("evaluate"),
        code=NET + DATA + MEASURE + lib("diagnosis", "complexity", "plots"),
        weights=WEIGHTS,
        people=PEOPLE,
        run=made("train"),
    output:
        notebook=executed("evaluate"),
        record=RECORDS["evaluate"],
    params:
        " ".join([f"-p profile {PROFILE}", *(f"-p run {path}" for path in made("train"))]),
    threads: workflow.cores
    shell:
        EXECUTE


rule predict:
    input:
        notebook=notebook("predict"),
        code=NET + DATA + MEASURE + lib("predict", "detector", "plots"),
        weights=WEIGHTS,
        people=PEOPLE,
    output:
        notebook=executed("predict"),
    params:
        "",
    shell:
        EXECUTE


rule predict_3d:
    input:
        notebook=notebook("predict_3d"),
        code=NET + DATA + MEASURE + lib("predict", "detector", "plots", "plots3d", "lifting", "datasets/synthetic"),
        weights=[WEIGHTS, *LIFTERS],
    output:
        notebook=executed("predict_3d"),
    params:
        "",
    shell:
        EXECUTE


rule benchmark:  # every core is its own, so that nothing runs beside it
    input:
        notebook=notebook("benchmark"),
        code=NET + DATA + lib("benchmark", "forms", "deploy", "latency", "complexity", "evaluation", "plots"),
        weights=WEIGHTS,
        people=PEOPLE,
        published=PUBLISHED,
    output:
        notebook=executed("benchmark"),
        record=RECORDS["benchmark"],
    params:
        f"-p profile {PROFILE}",
    threads: workflow.cores
    shell:
        EXECUTE


rule attribution:  # beside the counting of parameters, which takes as long on one core
    input:
        notebook=notebook("attribution"),
        code=NET + DATA + lib("explain", "faithfulness", "evaluation", "plots", "records"),
        weights=WEIGHTS,
        people=PEOPLE,
    output:
        notebook=executed("attribution"),
        record=RECORDS["attribution"],
    params:
        f"-p profile {PROFILE}",
    shell:
        EXECUTE


rule attribution_of:
    wildcard_constraints:
        net="|".join(EXPLAINED),
    input:
        notebook=notebook("attribution"),
        code=DATA + lib("models", "codecs", "explain", "faithfulness", "evaluation", "plots", "records"),
        weights="data/weights/{net}-synthetic.safetensors",
        people=PEOPLE,
    output:
        notebook=executed("attribution/{net}"),
    params:
        lambda words: f"{EXPLAINED[words.net]} -p joints '[left_wrist]' -p steps 16",  # LAPX takes long over a picture
    threads: workflow.cores
    shell:
        EXECUTE


rule attention:
    input:
        notebook=notebook("attention"),
        code=DATA + lib("models", "codecs", "explain", "plots", "records"),
        weights=[f"data/weights/{net}-synthetic.safetensors" for net in ("amfacpose-r18", "amfacpose-r18-without-dgcb", "lapx")],
        people=PEOPLE,
    output:
        notebook=executed("attention"),
    params:
        f"-p profile {PROFILE}",
    threads: workflow.cores
    shell:
        EXECUTE


rule occlusion:
    input:
        notebook=notebook("occlusion"),
        code=NET + DATA + lib("explain", "evaluation", "plots", "records"),
        weights=[WEIGHTS, WEIGHTS.replace("-synthetic", "-dropout-synthetic")],
        people=PEOPLE,
    output:
        notebook=executed("occlusion"),
    params:
        f"-p profile {PROFILE}",
    threads: workflow.cores
    shell:
        EXECUTE


rule complexity:
    input:
        notebook=notebook("tables/complexity"),
        code=lib("models", "skeletons", "codecs", "complexity", "sizes", "published", "plots"),
        published=[*PUBLISHED, "data/errata.csv"],
    output:
        notebook=executed("tables/complexity"),
        record=RECORDS["complexity"],
    params:
        f"-p profile {PROFILE}",
    shell:
        EXECUTE


# What fills the papers' rows: each rule only where it has something to make, so that the report never makes a record
# again that lies here from another time or another machine.
if AUTHORS:

    rule authors:
        wildcard_constraints:
            row="|".join(AUTHORS),
        input:
            weights=lambda words: AUTHORS[words.row][0],
        output:
            "reports/records/{row}.json",
        params:
            lambda words: AUTHORS[words.row][1],
        threads: workflow.cores
        resources:
            gpu=int(DEVICE != "cpu"),
        shell:
            f"exec {sys.executable} -m posebook.evaluation {{params}} --profile paper "
            f"--device {DEVICE} --workers {{threads}}"


if TRAINED:

    rule trained:
        wildcard_constraints:
            row="|".join(TRAINED),
        output:
            "reports/records/{row}.json",
        params:
            lambda words: TRAINED[words.row],
        threads: workflow.cores
        resources:
            gpu=int(DEVICE != "cpu"),
        shell:
            f"exec {sys.executable} -m posebook.training {{params}} --profile paper "
            f"--device {DEVICE} --workers {{threads}} {PACK}"


rule grid:
    input:
        lambda _: [f"reports/records/{run}.json" for run in RUNS] or grid.matching(""),  # whose error names all rows


# The weights and checkpoints in reports/runs are no outputs: a run that was stopped goes on from them.
if ASKED:

    rule run:
        wildcard_constraints:
            run="|".join(RUNS),
        input:
            lambda words: needed(RUNS[words.run]),
        output:
            "reports/records/{run}.json",
        params:
            row=lambda words: RUNS[words.run].id,
            profile="paper" if PAPER else PROFILE,
        threads: workflow.cores
        resources:
            gpu=int(DEVICE != "cpu"),
        shell:
            f"exec {sys.executable} -m posebook.training --grid {{params.row}} --profile {{params.profile}} "
            f"--device {DEVICE} --workers {{threads}} {PACK}"


rule compare:
    input:
        COMPARED,


if COMPARED:

    rule compared:
        output:
            "reports/records/compare-{net}-seed{seed}.json",
        params:
            budget=BUDGET,
        threads: 1 if DEVICE == "cpu" else workflow.cores
        resources:
            gpu=int(DEVICE != "cpu"),
        shell:
            f"exec env OMP_NUM_THREADS={{threads}} {sys.executable} -m posebook.training --dataset lspet "
            f"--data-root {PHOTOGRAPHS} --model {{wildcards.net}} --seed {{wildcards.seed}} --device {DEVICE} "
            "--name compare-{wildcards.net}-seed{wildcards.seed} {params.budget}"


rule speed:  # of training; every core is its own
    input:
        notebook=notebook("training_speed"),
        code=NET + DATA + lib("datasets/packed", "throughput", "training", "samples", "losses", "recipes", "plots"),
        people=PEOPLE,
    output:
        notebook=executed("training_speed"),
    params:
        "-p people 200 -p seconds 2.0 -p steps 3",
    threads: workflow.cores
    shell:
        EXECUTE


rule table:
    wildcard_constraints:
        table="|".join(TABLES),
    input:
        notebook=notebook("tables/{table}"),
        code=MEASURE + lib("models", "skeletons", "codecs", "published", "grid", "recipes", "records", "complexity", "sizes", "plots", "lifting"),
        published=[*PUBLISHED, "data/grid.csv"],
        records=made("train", "evaluate", "benchmark", "complexity") + KEPT + OWN + ROWS,
    output:
        notebook=executed("tables/{table}"),
    params:
        "",
    shell:
        EXECUTE


rule audit:
    wildcard_constraints:
        paper="|".join(AUDITS),
    input:
        notebook=notebook("audit/{paper}"),
        code=DATA + MEASURE + lib("audit", "models", "codecs", "published", "grid", "recipes", "records", "complexity", "benchmark", "diagnosis", "plots", "lifting"),
        weights=LIFTERS,
        published=[*PUBLISHED, "data/grid.csv", "data/claims.csv"],
        records=made("train", "evaluate", "benchmark", "complexity") + KEPT + OWN + ROWS,
        people=PEOPLE,
    output:
        notebook=executed("audit/{paper}"),
        record=record("audit-{paper}"),
    params:
        f"-p profile {PROFILE}",
    shell:
        EXECUTE


rule lesson:
    input:
        notebook=notebook("learn/{lesson}"),
        code=DATA + MEASURE + lib("datasets/own", "models", "codecs", "complexity", "training", "samples", "recipes", "losses", "latency", "forms", "deploy", "explain", "faithfulness", "plots", "plots3d", "lifting"),
        weights=sorted(map(str, Path("data/weights").glob("*-synthetic.safetensors"))),
        people=PEOPLE,
        course=lambda words: [COURSE, *map(notebook, LESSONS[1:])] if words.lesson == "index" else [],
        records=lambda words: KEPT if words.lesson == "vitpose" else [],
    output:
        notebook=executed("learn/{lesson}"),
    params:
        "",
    shell:
        EXECUTE


rule index:
    input:
        notebook=notebook("index"),
        code=lib("audit", "published", "grid", "recipes", "records", "plots", "lifting/papers"),
        published=[*PUBLISHED, "data/grid.csv"],
        records=made(*RECORDS) + KEPT + OWN + ROWS,
        pages=map(page, PAGES),
    output:
        notebook=executed("index"),
    params:
        f"-p profile {PROFILE} -p trained {Path(RECORDS['train']).stem}",
    shell:
        EXECUTE


rule export:
    input:
        pages=map(page, ["index", *PAGES, *SHOWN]),
        style=["report/pages.py", *(f"report/template/{file}" for file in ("index.html.j2", "style.css", "page.js"))],
    output:
        "reports/html/index.html",
    shell:
        RUN + " export reports/html {input.pages}"
