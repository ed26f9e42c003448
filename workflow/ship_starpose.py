"""Copy StarPose's weights of a finished comparison to data/weights, with a model card.

    python workflow/ship_starpose.py RECORD.json OUT_DIR

OUT_DIR is the output folder of the run. All facts in the card come from the record.
"""

import sys
from pathlib import Path

from ship_lifter import ship


def card(record: dict, name: str) -> str:
    """The model card, from the record."""
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
    ship(Path(sys.argv[1]), Path(sys.argv[2]), "starpose-motion", card)
