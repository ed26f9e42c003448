"""Turn a finished run into weights that come with posebook: float16 file, golden tensors, card.

    python workflow/ship.py RECORD.json reports/runs/NAME-HASH/weights.safetensors [NAME [EARLIER...]]

NAME is MODEL-synthetic where none is given; EARLIER are the records of the runs that this one went on from,
the first one first. Everything the card says is read from the records. Only runs on the embedded data may be
shipped.
"""

import json
import sys
from pathlib import Path

import safetensors.torch
import torch

from posebook import codecs, models, paths, utils

HERE = paths.WEIGHTS


def ship(record_path: Path, weights: Path, name: str = "", *earlier: str) -> None:
    """Write NAME.safetensors, NAME.golden.safetensors and NAME.md in data/weights."""
    record = json.loads(record_path.read_text())
    if record["dataset"]["name"] != "synthetic":
        raise SystemExit(f"trained on {record['dataset']['name']}: such weights are not shipped")
    if utils.sha256(weights) != record["weights"]["sha256"]:
        raise SystemExit(f"{weights} is not what the record tells of")
    name = name or f"{record['model']}-synthetic"
    model = models.load_weights(weights)
    digest = models.save_weights(
        model, HERE / f"{name}.safetensors", record["model"], "synthetic", torch.float16, **record["options"]
    )
    model = models.load_weights(HERE / f"{name}.safetensors")
    images = torch.randn(1, 3, *model.input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = model(images)
    kinds = ("x", "y") if isinstance(output, codecs.SimCC) else ("heatmap",)
    golden = dict(zip(kinds, output if len(kinds) == 2 else output[-1:], strict=True))
    golden = {"images": images} | {kind: tensor.contiguous() for kind, tensor in golden.items()}
    safetensors.torch.save_file(golden, HERE / f"{name}.golden.safetensors")
    (HERE / f"{name}.md").write_text(
        card(record, name, digest, [json.loads(Path(path).read_text()) for path in earlier])
    )


def card(record: dict, name: str, digest: str, earlier: list[dict]) -> str:
    """The model card, from the record and those of the runs it went on from."""
    recipe, evaluated = record["parameters"], record["evaluated"]
    flipped = record["metrics"] if record["protocol"]["flip_test"] else {}
    figures = "\n".join(
        f"| {key} | {format(flipped[key], '.3f') if flipped else ''} | {value:.3f} |"
        for key, value in record.get("metrics_without_flip", record["metrics"]).items()
    )
    sets = record.get("datasets", [record["dataset"]])
    people = " and ".join(
        f"{one['persons']:,} people of {one['name']} (annotations' SHA-256 `{one['sha256'][:16]}...`)"
        for one in sets
    )
    others = "".join(
        f", and {joints} of another set" for joints in record["options"].get("extra_num_joints", ())
    )
    curve, seen, runs = [], 0, [*earlier, record]
    for number, run in enumerate(runs, 1):
        before, learnt = seen, sum(one["persons"] for one in run.get("datasets", [run["dataset"]]))
        for point in run.get("curve") or run["curves"][0]:
            seen, ap = before + point["epoch"] * learnt, format(point["AP"], ".3f") if "AP" in point else ""
            curve.append(f"| {number} | {point['epoch']} | {seen:,} | {point['loss']:.5f} | {ap} |")
    curve, hours = "\n".join(curve), sum(run["wall_seconds"] for run in runs) / 3600
    legs = f"The last of {len(runs)} runs, each from where the one before it ended:"
    legs = f"\n- {legs}\n  {seen:,} samples in {hours:.1f} hours." if earlier else ""
    height, width = recipe["input_size"]
    options = f" with {record['options']}" if record["options"] else ""
    start = record["weights"]["initialisation"]
    milder = recipe["stage2_epochs"] >= recipe["epochs"]
    dropout = recipe["stage2" if milder else "stage1"]["dropout"]
    minutes, machine = record["wall_seconds"] / 60, record["machine"]
    commit = record["code"]["commit"][:12]
    return f"""# {name}

`{record["model"]}`{options}, started from {start} and trained on the embedded data:
drawn people, not photographs. It is for pages that need a net that has learnt something: attribution,
lessons, tests. It is no pose estimator for real people.

- Input {height} x {width} (height, width), 17 COCO joints{others}; float16 safetensors,
  SHA-256 `{digest}`.
- Trained on {people}
  for {recipe["epochs"]} epochs of batch {recipe["batch_size"]}, seed {record["seed"]}, commit `{commit}`,
  CoarseDropout with probability {dropout}:
  {minutes:.0f} minutes on {machine["device"]}, {machine["threads"]} thread(s).{legs}
- Evaluated on {evaluated["persons"]:,} people of the validation split, annotated boxes.
- Golden tensors: `{name}.golden.safetensors`, an input and this net's output, checked at 1e-3 by the tests.
- Licence: Apache-2.0, as the code that drew the data.

| metric | flip test | without |
| --- | --- | --- |
{figures}

## Learning curve

AP without flip test, of the averaged weights.

| run | epoch | people seen | loss | AP |
| --- | --- | --- | --- | --- |
{curve}
"""


if __name__ == "__main__":
    ship(*map(Path, sys.argv[1:3]), *sys.argv[3:])
