"""Turn a finished run into weights that posebook ships: a float16 file, golden tensors and a model card.

    python workflow/ship.py RECORD.json reports/runs/NAME-HASH/weights.safetensors [NAME [EARLIER...]]

NAME is MODEL-synthetic by default. EARLIER are the records of the runs that this one started from, oldest
first. All facts on the card come from the records. Only runs on the bundled synthetic data may be shipped.
"""

import json
import sys
from pathlib import Path

import safetensors.torch
import torch

from posebook import codecs, migration, models, paths, utils


def ship(record_path: Path, weights: Path, name: str = "", *earlier: str) -> None:
    """Write NAME.safetensors, NAME.golden.safetensors and NAME.md to data/weights."""
    record = read_record(record_path)
    if record["dataset"]["name"] != "synthetic":
        raise SystemExit(f"weights trained on {record['dataset']['name']} are not shipped")
    if utils.sha256(weights) != record["weights"]["sha256"]:
        raise SystemExit(f"{weights} is not the file that the record describes")
    name = name or f"{record['model']}-synthetic"
    target = paths.WEIGHTS / f"{name}.safetensors"
    digest = models.save_weights(
        models.load_weights(weights), target, record["model"], "synthetic", torch.float16, **record["options"]
    )
    safetensors.torch.save_file(golden_tensors(target), target.with_name(f"{name}.golden.safetensors"))
    target.with_name(f"{name}.md").write_text(card(record, name, digest, [read_record(p) for p in earlier]))


def read_record(path: str | Path) -> dict:
    """Read a record, also one that an earlier version of posebook wrote."""
    return migration.migrate_record(json.loads(Path(path).read_text()))


def golden_tensors(weights: Path) -> dict[str, torch.Tensor]:
    """Return a random input (1, 3, H, W) and the model's output for it."""
    model = models.load_weights(weights)
    images = torch.randn(1, 3, *model.input_size, generator=torch.Generator().manual_seed(0))
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


if __name__ == "__main__":
    ship(*map(Path, sys.argv[1:3]), *sys.argv[3:])
