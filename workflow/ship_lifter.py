"""Copy the weights of a finished lifter run to data/weights, with a model card.

    python workflow/ship_lifter.py RECORD.json OUT_DIR NAME

OUT_DIR is the output folder of the run. All facts in the card come from the record.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from posebook import paths, utils


def ship(record_path: Path, out_dir: Path, name: str, make_card: Callable[[dict, str], str]) -> None:
    """Write NAME.safetensors and NAME.md in data/weights."""
    record = json.loads(record_path.read_text())
    if record["dataset"]["name"] != "motion":
        raise SystemExit(f"trained on {record['dataset']['name']}: such weights are not shipped")
    weights = out_dir / record["weights"]["file"]
    if utils.sha256(weights) != record["weights"]["sha256"]:
        raise SystemExit(f"the SHA-256 of {weights} differs from the record's")
    shutil.copy(weights, paths.WEIGHTS / f"{name}.safetensors")
    (paths.WEIGHTS / f"{name}.md").write_text(make_card(record, name))


def card(record: dict, name: str) -> str:
    """The model card, from the record."""
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


if __name__ == "__main__":
    ship(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], card)
