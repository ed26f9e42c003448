"""Turn a finished comparison into StarPose's weights that come with posebook, and their card.

    python workflow/ship_starpose.py RECORD.json OUT_DIR

OUT_DIR is where the run wrote. Everything the card says is read from the record.
"""

import json
import shutil
import sys
from pathlib import Path

from posebook import paths, utils

HERE, NAME = paths.WEIGHTS, "starpose-motion"


def ship(record_path: Path, out_dir: Path) -> None:
    """Write NAME.safetensors and NAME.md in data/weights."""
    record = json.loads(record_path.read_text())
    weights = out_dir / record["weights"]["file"]
    if utils.sha256(weights) != record["weights"]["sha256"]:
        raise SystemExit(f"{weights} is not what the record tells of")
    shutil.copy(weights, HERE / f"{NAME}.safetensors")
    (HERE / f"{NAME}.md").write_text(card(record))


def card(record: dict) -> str:
    """The model card, from the record."""
    rows = "\n".join(
        f"| {row['net']} | {'on' if row.get('history') else ''} | {'on' if row['guided'] else ''} | "
        f"{row['MPJPE']:.1f} | {row['P-MPJPE']:.1f} | {row['MPJVE']:.1f} | {row['ACC']:.1f} |"
        for row in record["metrics"]
    )
    recipe, minutes = record["parameters"], record["seconds"]["starpose"] / 60
    return f"""# {NAME}

A small StarPose (`posebook.lifting.starpose`), trained on the embedded motion: people who move by rule. It is
for the lesson on diffusion and its tests, and no lifter for real people.

- Windows of {recipe["frames"]} frames, history of {recipe["past"]}, width {recipe["width"]}:
  {record["params"]["starpose"]:,} parameters; float16 safetensors, SHA-256 `{record["weights"]["sha256"]}`.
- Trained on {record["dataset"]["clips"]} clips for {recipe["epochs"]} epochs, seed {record["seed"]}, commit
  `{record["code"]["commit"][:12]}`: {minutes:.0f} minutes on {record["machine"]["device"]}.
- Scored on {record["evaluated"]["clips"]} clips of the validation split: other people, other cameras.
- Licence: Apache-2.0, as the code that made the motion.

| net | history | guidance | MPJPE, mm | P-MPJPE | MPJVE | ACC |
| --- | --- | --- | --- | --- | --- | --- |
{rows}
"""


if __name__ == "__main__":
    ship(*map(Path, sys.argv[1:3]))
