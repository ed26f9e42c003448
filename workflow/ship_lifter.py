"""Copy the weights of a finished lifter or StarPose run to data/weights, with a model card.

    python workflow/ship_lifter.py RECORD.json OUT_DIR NAME

OUT_DIR is the output folder of the run. NAME is starpose-motion for StarPose. All facts in the card come
from the record.
"""

import json
import shutil
import sys
from pathlib import Path

from posebook import paths, utils


def ship(record_path: Path, out_dir: Path, name: str) -> None:
    """Write NAME.safetensors and NAME.md in data/weights."""
    record = json.loads(record_path.read_text())
    if record["dataset"]["name"] != "motion":
        raise SystemExit(f"trained on {record['dataset']['name']}: such weights are not shipped")
    weights = out_dir / record["weights"]["file"]
    if utils.sha256(weights) != record["weights"]["sha256"]:
        raise SystemExit(f"the SHA-256 of {weights} differs from the record's")
    shutil.copy(weights, paths.WEIGHTS / f"{name}.safetensors")
    card = starpose_card if record["kind"] == "starpose" else lifter_card
    (paths.WEIGHTS / f"{name}.md").write_text(card(record, name))


def lifter_card(record: dict, name: str) -> str:
    """The model card of a lifter, from the record of its training."""
    recipe, evaluated, machine = record["parameters"], record["evaluated"], record["machine"]
    rows = "\n".join(
        f"| {key} | {value:.1f} | {record['metrics_without_flip'][key]:.1f} |"
        for key, value in record["metrics"].items()
    )
    curve = "\n".join(
        f"| {point['epoch']} | {point['loss']:.4f} | {point['MPJPE']:.1f} |" for point in record["curve"]
    )
    options = ", ".join(f"{key} {value}" for key, value in record["options"].items())
    data, commit = record["dataset"], record["code"]["commit"][:12]
    return f"""# {name}

`{record["model"]}` ({options})
for windows of {recipe["frames"]} frames, trained from scratch on the bundled synthetic motion of procedural
people. It is for lessons, tests and first trials, not a benchmark.

- float32 safetensors, SHA-256 `{record["weights"]["sha256"]}`;
  Human3.6M's 17 joints, {record["complexity"]["params"]:,} parameters.
- Trained on {data["clips"]} clips (SHA-256 `{data["sha256"][:16]}...`)
  for {recipe["epochs"]} epochs, batch size {recipe["batch_size"]}, seed {record["seed"]}, commit
  `{commit}`:
  {record["wall_seconds"] / 60:.0f} minutes on {machine["device"]}, {machine["threads"]} thread(s).
- Evaluated on {evaluated["clips"]} other clips, {evaluated["frames"]:,} frames, from 2D joints with the
  errors of a simulated detector.
- License: Apache-2.0, like the code that generates the motion.

| mm | with flip test | without |
| --- | --- | --- |
{rows}

## Learning curve

Without flip test, with the averaged weights.

| epoch | loss | MPJPE |
| --- | --- | --- |
{curve}
"""


def starpose_card(record: dict, name: str) -> str:
    """The model card of StarPose, from the record of a comparison."""
    rows = "\n".join(
        f"| {row['net']} | {'on' if row.get('history') else ''} | {'on' if row['guided'] else ''} | "
        f"{row['MPJPE']:.1f} | {row['P-MPJPE']:.1f} | {row['MPJVE']:.1f} | {row['ACC']:.1f} |"
        for row in record["metrics"]
    )
    recipe, minutes = record["parameters"], record["seconds"]["starpose"] / 60
    return f"""# {name}

A small StarPose (`posebook.lifting.starpose`), trained on the bundled synthetic motion of procedural people.
It is for the lesson on diffusion and its tests, not for lifting real people.

- Windows of {recipe["frames"]} frames, history of {recipe["past"]}, width {recipe["width"]}:
  {record["params"]["starpose"]:,} parameters; float16 safetensors, SHA-256 `{record["weights"]["sha256"]}`.
- Trained on {record["dataset"]["clips"]} clips for {recipe["epochs"]} epochs, seed {record["seed"]}, commit
  `{record["code"]["commit"][:12]}`: {minutes:.0f} minutes on {record["machine"]["device"]}.
- Evaluated on {record["evaluated"]["clips"]} clips of the validation split: other people, other cameras.
- License: Apache-2.0, like the code that generates the motion.

| model | history | guidance | MPJPE, mm | P-MPJPE | MPJVE | ACC |
| --- | --- | --- | --- | --- | --- | --- |
{rows}
"""


if __name__ == "__main__":
    ship(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
