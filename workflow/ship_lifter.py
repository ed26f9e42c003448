"""Turn a finished run of a lifter into weights that come with posebook, and their card.

    python workflow/ship_lifter.py RECORD.json OUT_DIR NAME

OUT_DIR is where the run wrote. Everything the card says is read from the record.
"""

import json
import shutil
import sys
from pathlib import Path

from posebook import paths, utils

HERE = paths.WEIGHTS


def ship(record_path: Path, out_dir: Path, name: str) -> None:
    """Write NAME.safetensors and NAME.md in data/weights."""
    record = json.loads(record_path.read_text())
    if record["dataset"]["name"] != "motion":
        raise SystemExit(f"trained on {record['dataset']['name']}: such weights are not shipped")
    weights = out_dir / record["weights"]["file"]
    if utils.sha256(weights) != record["weights"]["sha256"]:
        raise SystemExit(f"{weights} is not what the record tells of")
    shutil.copy(weights, HERE / f"{name}.safetensors")
    (HERE / f"{name}.md").write_text(card(record, name))


def card(record: dict, name: str) -> str:
    """The model card, from the record."""
    recipe, evaluated, machine = record["parameters"], record["evaluated"], record["machine"]
    figures = "\n".join(
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
for windows of {recipe["frames"]} frames, trained from scratch on the embedded motion: people who move by
rule. It is for lessons, tests and trying out, and no benchmark of anything.

- float32 safetensors, SHA-256 `{record["weights"]["sha256"]}`;
  Human3.6M's 17 joints, {record["complexity"]["params"]:,} parameters.
- Trained on {data["clips"]} clips (SHA-256 `{data["sha256"][:16]}...`)
  for {recipe["epochs"]} epochs of batch {recipe["batch_size"]}, seed {record["seed"]}, commit `{commit}`:
  {record["wall_seconds"] / 60:.0f} minutes on {machine["device"]}, {machine["threads"]} thread(s).
- Evaluated on {evaluated["clips"]} other clips, {evaluated["frames"]:,} frames, from 2D joints with a
  detector's errors.
- Licence: Apache-2.0, as the code that made the motion.

| mm | flip test | without |
| --- | --- | --- |
{figures}

## Learning curve

Without flip test, of the averaged weights.

| epoch | loss | MPJPE |
| --- | --- | --- |
{curve}
"""


if __name__ == "__main__":
    ship(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
