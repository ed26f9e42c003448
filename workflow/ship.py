"""Turn a finished run into weights that posebook ships: a float16 file, golden tensors and a model card.

    python workflow/ship.py RECORD.json reports/runs/NAME-HASH/weights.safetensors [NAME [EARLIER...]]

NAME is MODEL-synthetic by default. EARLIER are the records of the runs that this one started from, oldest
first. All facts on the card come from the records. Runs on the bundled synthetic data and on the combination
PHOTOGRAPHS may be shipped. The card of the latter takes its results from the archived evaluations of the
shipped file: ship it, evaluate it, archive the records, and ship it again.
"""

import json
import sys
from pathlib import Path

import safetensors.torch
import torch

from posebook import codecs, migration, models, paths, records, transforms, utils
from posebook.datasets.synthetic import crops, writing

PHOTOGRAPHS = "coco-sample+lspet+synthetic"


def ship(record_path: Path, weights: Path, name: str = "", *earlier: str) -> None:
    """Write NAME.safetensors, NAME.golden.safetensors and NAME.md to data/weights."""
    record = read_record(record_path)
    trained_on = record["dataset"]["name"]
    if trained_on not in ("synthetic", PHOTOGRAPHS):
        raise SystemExit(f"weights trained on {trained_on} are not shipped")
    if utils.sha256(weights) != record["weights"]["sha256"]:
        raise SystemExit(f"{weights} is not the file that the record describes")
    name = name or f"{record['model']}-synthetic"
    target = paths.WEIGHTS / f"{name}.safetensors"
    images = models.trained_images(weights)
    model = models.load_weights(weights)
    digest = models.save_weights(
        model, target, record["model"], trained_on, torch.float16, images, **record["options"]
    )
    safetensors.torch.save_file(golden_tensors(target), target.with_name(f"{name}.golden.safetensors"))
    write_card = card if trained_on == "synthetic" else photographs_card
    text = write_card(record, name, digest, [read_record(path) for path in earlier])
    target.with_name(f"{name}.md").write_text(text)


def read_record(path: str | Path) -> dict:
    """Read a record, also one that an earlier version of posebook wrote."""
    return migration.migrate_record(json.loads(Path(path).read_text()))


def golden_tensors(weights: Path) -> dict[str, torch.Tensor]:
    """Return an input (1, 3, H, W) with a rendered person and the model's output for it.

    For noise, a well-trained model is uncertain, and its outputs would be close to 0.
    """
    model = models.load_weights(weights)
    image, annotations = writing.render(0)  # (H', W', 3) uint8
    person = max(annotations, key=lambda annotation: annotation["area"])
    crop, _ = crops.crop_person(image, person, model.input_size)  # (H, W, 3)
    images = transforms.normalize(torch.from_numpy(crop)[None]).contiguous()  # (1, 3, H, W)
    with torch.no_grad():
        output = model(images)
    outputs = output._asdict() if isinstance(output, codecs.SimCC) else {"heatmap": output[-1]}
    return {"images": images} | {key: tensor.contiguous() for key, tensor in outputs.items()}


def learning_curve(runs: list[dict]) -> tuple[str, int]:
    """Return table rows of the learning curves of consecutive runs, and the number of samples they used."""
    rows, before, samples = [], 0, 0
    for number, run in enumerate(runs, 1):
        per_epoch = sum(one["persons"] for one in run.get("datasets", [run["dataset"]]))
        for point in run.get("curve") or run["curves"][0]:
            samples = before + point["epoch"] * per_epoch
            ap = format(point["AP"], ".3f") if "AP" in point else ""
            rows.append(f"| {number} | {point['epoch']} | {samples:,} | {point['loss']:.5f} | {ap} |")
        before = samples
    return "\n".join(rows), samples


def card(record: dict, name: str, digest: str, earlier: list[dict]) -> str:
    """Return the model card. earlier: records of the runs that this one started from."""
    recipe, evaluated = record["parameters"], record["evaluated"]
    flipped = record["metrics"] if record["protocol"]["flip_test"] else {}
    scores = "\n".join(
        f"| {key} | {format(flipped[key], '.3f') if flipped else ''} | {value:.3f} |"
        for key, value in record.get("metrics_without_flip", record["metrics"]).items()
    )
    data = " and ".join(
        f"{one['persons']:,} people of {one['name']} (annotations' SHA-256 `{one['sha256'][:16]}...`)"
        for one in record.get("datasets", [record["dataset"]])
    )
    extra = "".join(
        f", and {joints} of another set" for joints in record["options"].get("extra_num_joints", ())
    )
    runs = [*earlier, record]
    curve, samples = learning_curve(runs)
    hours = sum(run["wall_seconds"] for run in runs) / 3600
    history = ""
    if earlier:
        history = f"\n- The last of {len(runs)} runs. Each run started from the weights of the previous one:"
        history += f"\n  {samples:,} samples in {hours:.1f} hours."
    height, width = recipe["input_size"]
    options = f" with {record['options']}" if record["options"] else ""
    only_stage2 = recipe["stage2_epochs"] >= recipe["epochs"]
    dropout = recipe["stage2" if only_stage2 else "stage1"]["dropout"]
    minutes, machine = record["wall_seconds"] / 60, record["machine"]
    commit = record["code"]["commit"][:12]
    return f"""# {name}

`{record["model"]}`{options}, started from {record["weights"]["initialization"]} and trained on the bundled
synthetic data: rendered people, not photographs. It serves pages that need a trained model: attribution,
lessons, tests. It is not a pose estimator for real people.

- Input {height} x {width} (height, width), 17 COCO joints{extra}; float16 safetensors,
  SHA-256 `{digest}`.
- Trained on {data}
  for {recipe["epochs"]} epochs with batch size {recipe["batch_size"]}, seed {record["seed"]},
  commit `{commit}`, CoarseDropout with probability {dropout}:
  {minutes:.0f} minutes on {machine["device"]}, {machine["threads"]} thread(s).{history}
- Evaluated on {evaluated["persons"]:,} people of the validation split, annotated boxes.
- Golden tensors: `{name}.golden.safetensors`, an input and this model's output, checked at 1e-3 by the tests.
- License: Apache-2.0, like the code that rendered the data.

| metric | flip test | without |
| --- | --- | --- |
{scores}

## Learning curve

AP without flip test, of the averaged weights.

| run | epoch | people seen | loss | AP |
| --- | --- | --- | --- | --- |
{curve}
"""


def photographs_card(record: dict, name: str, digest: str, earlier: list[dict]) -> str:
    """Return the model card of weights trained on photographs."""
    height, width = record["parameters"]["input_size"]
    runs = [*earlier, record]
    hours = sum(run["wall_seconds"] for run in runs) / 3600
    shares = ", ".join(f"{one['share']:.2f} {one['name']}" for one in record["dataset"]["sources"])
    people = {one["name"]: one["persons"] for one in record["dataset"]["sources"]}
    evaluations = [
        r
        for r in records.load(records.ARCHIVE)
        if r.get("weights", {}).get("sha256") == digest
        and r["protocol"]["boxes"] == "ground truth"
        and "runtime" not in r["parameters"]  # evaluations in int8 are on the page of photographs
    ]
    return f"""# {name}

`{record["model"]}` for real photographs. `posebook predict` uses these weights by default.

- Input {height} x {width} (height, width), 17 COCO joints; float16 safetensors,
  SHA-256 `{digest}`.
- Started from {runs[0]["weights"]["initialization"]}.
- {len(runs)} runs, each from the weights of the previous one: {hours:.1f} hours on
  {record["machine"]["device"]}, last commit `{record["code"]["commit"][:12]}`, seed {record["seed"]}.
- Golden tensors: `{name}.golden.safetensors`, an input and this model's output, checked at 1e-3 by the tests.

## Data and terms

| source | people | terms |
| --- | --- | --- |
| COCO: 636 photographs of val2017 | {people["coco-sample"]:,} | annotations CC BY 4.0; image licenses vary |
| Leeds Sports Pose Extended (CVPR 2011) | {people["lspet"]:,} | for research |
| rendered by posebook | {people["synthetic"]:,} | Apache-2.0 |

The images belong to their authors. Shares of an epoch in the last run: {shares}.
LSPET has 12 of the 17 joints. Predictions of MoveNet Lightning (Apache-2.0) were added as labels of missing
joints for the people on whom it agreed with LSPET's annotations. A tenth of the images was held out to select
settings.

**Intended use:** research, teaching, and poses on your own photographs. Do not use it to identify or judge
people. The file contains no photograph. **Do not report results on COCO val2017:** 636 of its images were
used for training, and 66 to select settings. The file contains hashes of all of them; `posebook evaluate`
refuses them.

## Results

{results(evaluations)}

## Learning curves

On held-out training images, without flip test: PCK@0.2 for LSPET, AP for the others. Run 1 had inputs of
128x96, the others of 256x192. The LSPET values of runs 1 to 4 also count the joints that MoveNet labeled, so
they are higher than those of later runs and of the validation split. The held-out rendered images were among
the training images of the initial weights, so the rendered values of run 1 are too high.

| run | epoch | samples | loss | COCO | LSPET | rendered |
| --- | --- | --- | --- | --- | --- | --- |
{source_curves(runs)}

LAPX and AMFACPose were not trained on photographs: a CPU core trains them with about 5 people per second.
"""


def results(evaluations: list[dict]) -> str:
    """Return tables of the archived evaluations of the shipped file."""
    blocks = []
    for run in evaluations:
        (low, high), single, dataset = run["interval"], run["metrics_without_flip"], run["dataset"]
        people = f"{dataset['persons']:,} people of {dataset['split']}"
        lines = [f"**{dataset['name']}**: {people}, annotated boxes.",
                 f"The 95 % interval of the first metric is {low:.3f} to {high:.3f}.", "",
                 "| metric | flip test | without |", "| --- | --- | --- |"]  # fmt: skip
        if skipped := run["metrics"].get("not_scored"):
            lines[0] = lines[0][:-1] + f", of whom {skipped} are not scored, because they have no torso."
        metrics = {key: value for key, value in run["metrics"].items() if isinstance(value, float)}
        lines += [f"| {key} | {value:.3f} | {single[key]:.3f} |" for key, value in metrics.items()]
        if breakdown := run.get("breakdown"):
            groups = breakdown["by_visibility"] | breakdown["by_occlusion"]
            lines += ["", "| joints or people | AP | people |", "| --- | --- | --- |"]
            lines += [f"| {key} | {ap:.3f} | {people} |" for key, (ap, people) in groups.items()]
            lines += ["", "How often a pose fails (OKS below 0.5), by condition:", "",
                      "| condition | people | failed |", "| --- | --- | --- |"]  # fmt: skip
            failures = breakdown["failures"].items()
            lines += [f"| {key} | {row['people']} | {row['failed']:.0%} |" for key, row in failures]
            rates = ", ".join(f"{key} {rate:.0%}" for key, rate in breakdown["error_types"].items())
            lines += ["", f"Labeled joints by type of error (Ronchi and Perona, ICCV 2017): {rates}."]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) or "Not evaluated yet."


def source_curves(runs: list[dict]) -> str:
    """Return table rows of the learning curves of each source over consecutive runs."""
    rows, samples = [], 0
    for number, run in enumerate(runs, 1):
        for point in run["curve"]:
            samples += run["dataset"]["persons"]
            values = [point.get(key) for key in ("coco-sample AP", "lspet PCK@0.2", "synthetic AP")]
            cells = " | ".join("" if value is None else f"{value:.3f}" for value in values)
            rows.append(f"| {number} | {point['epoch']} | {samples:,} | {point['loss']:.5f} | {cells} |")
    return "\n".join(rows)


if __name__ == "__main__":
    ship(*map(Path, sys.argv[1:3]), *sys.argv[3:])
