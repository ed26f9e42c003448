"""Compare a measured accuracy with the published one of the same weights.

1. The two are comparable if they have the same source of boxes, decoding, flip test and images. Otherwise
   the differences are named, and there is no verdict.
2. The tolerance is half a point. Warping, rounding and suppression of duplicates differ between programs.
"""

from pathlib import Path

from posebook import datasets
from posebook.datasets.detector_boxes import COCO_BOXES
from posebook.models.published import Checkpoint

TOLERANCE = 0.5  # percentage points


def published_boxes(checkpoint: Checkpoint, root: Path) -> Path | None:
    """The file of detected boxes with which an accuracy on COCO was published, if it is in COCO's folder."""
    path = root / COCO_BOXES
    is_used = checkpoint.dataset == "coco" and checkpoint.boxes == "detector"
    return path if is_used and path.is_file() else None


def differences(checkpoint: Checkpoint, record: dict) -> list[str]:
    """How the protocol of a record differs from that of the published accuracy."""
    protocol, found = record["protocol"], []
    boxes = "detector" if protocol["boxes"].startswith("detector") else "ground truth"
    if boxes != checkpoint.boxes:
        where = f" ({COCO_BOXES})" if checkpoint.dataset == "coco" and checkpoint.boxes == "detector" else ""
        found.append(f"published with {checkpoint.boxes} boxes{where}, measured with {boxes} boxes")
    decoding = protocol["decoding"].rpartition(", ")[2]
    if (decoding if decoding in ("DARK", "UDP") else "") != checkpoint.decoding:
        found.append(f"published with {checkpoint.decoding or 'default'} decoding")
    published_split = datasets.default_split(checkpoint.dataset, train=False)
    if record["dataset"]["name"] != checkpoint.dataset:
        found.append(f"published on {checkpoint.dataset}, measured on {record['dataset']['name']}")
    elif record["dataset"]["split"] != published_split:
        found.append(f"published on {published_split}, measured on {record['dataset']['split']}")
    if protocol["flip_test"] != (checkpoint.flip_test == "yes"):
        found.append(f"published {'with' if checkpoint.flip_test == 'yes' else 'without'} flip test")
    return found


def compare(checkpoint: Checkpoint, record: dict) -> dict | None:
    """The record's entry `published`: metric, both values in percent, tolerance, differences and source.

    None if no accuracy is published or if the record does not have its metric.
    """
    measured = record["metrics"].get(checkpoint.metric)
    if measured is None or not checkpoint.value:
        return None
    return {
        "metric": checkpoint.metric,
        "published": float(checkpoint.value),
        "measured": 100 * measured,
        "tolerance": TOLERANCE,
        "differences": differences(checkpoint, record),
        "source": checkpoint.source,
        "note": checkpoint.note,
    }


def describe(entry: dict) -> str:
    """One line of text for an entry of `compare`."""
    text = f"{entry['metric']}: published {entry['published']:.1f}, measured {entry['measured']:.2f}"
    if entry["differences"]:
        return f"{text}; not comparable: {'; '.join(entry['differences'])}"
    within = abs(entry["measured"] - entry["published"]) <= entry["tolerance"]
    text += f"; {'within' if within else 'not within'} the tolerance of {entry['tolerance']:.1f} points"
    return f"{text} ({entry['note']})" if entry["note"] else text
