"""Evaluate a person detector: the AP of its boxes, and the file of boxes for the evaluation of poses.

1. Boxes with a score above 0.05 count for the AP of boxes, at most 100 in an image, which is pycocotools'
   limit. Poses are predicted in boxes with a score above 0.3, the default of `posebook predict`.
2. All annotated people count for the AP of boxes, also those without joints. Crowds are ignored.
"""

import json
from pathlib import Path

from tqdm import tqdm

from posebook.datasets import PoseDataset, read_image
from posebook.evaluation import metrics
from posebook.inference.detectors import Detector
from posebook.utils import atomic_write, sha256

THRESHOLD, POSE_THRESHOLD = 0.05, 0.3  # minimum scores of boxes, for their AP and for poses
MAX_BOXES = 100  # in an image


def detect(detector: str | Path, dataset: PoseDataset, out_dir: str | Path) -> tuple[Path, dict]:
    """Run a detector once on each image of a split and write OUT_DIR/detections/DETECTOR-DATASET-SPLIT.json.

    Returns the path of this COCO results file, and the record's facts about detector and boxes. detector: a
    path or a name, as for `Detector`. Raises ValueError for a dataset that is scored only on
    annotated boxes, and if no person is found.
    """
    if dataset.metric_type not in ("oks", "crowd"):
        raise ValueError(
            f"{dataset.name} is scored on annotated boxes only: evaluate a detector on a dataset with OKS, "
            "such as coco"
        )
    metrics.check_dependencies(dataset)
    model = Detector(detector, THRESHOLD)
    entries = []
    for image_id, image in tqdm(sorted(dataset.images.items()), desc="detect", unit="image", delay=2):
        boxes, scores = model(read_image(image))
        for box, score in zip(boxes[:MAX_BOXES].tolist(), scores[:MAX_BOXES].tolist(), strict=True):
            entries.append({"image_id": image_id, "category_id": 1, "bbox": box, "score": score})
    for_poses = [entry for entry in entries if entry["score"] > POSE_THRESHOLD]
    if not for_poses:
        raise ValueError(f"{model.path} finds no person in {len(dataset.images)} images of {dataset.name}")
    path = Path(out_dir) / "detections" / f"{model.path.stem}-{dataset.name}-{dataset.split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(for_poses) + "\n")
    facts = {
        "name": model.path.stem,
        "sha256": sha256(model.path),
        "format": model.format.name,
        "runtime": model.runtime,
        "input_size": model.size,
        "threshold": POSE_THRESHOLD,
        "nms": model.format.nms,
        "boxes": len(for_poses),
        "box_metrics": box_metrics(dataset, entries) | {"threshold": THRESHOLD},
    }
    return path, facts


def box_metrics(dataset: PoseDataset, entries: list[dict]) -> dict[str, float]:
    """AP and AP50 of boxes by pycocotools, as fractions. entries: COCO results with at least one box."""
    content = metrics.coco_ground_truth(dataset)
    content["annotations"] = [entry for entry in content["annotations"] if min(entry["bbox"][2:]) > 0]
    scorer = metrics.run_cocoeval(dataset, content, entries, crowd=False, iou_type="bbox")
    return {"AP": float(scorer.stats[0]), "AP50": float(scorer.stats[1])}


def add_to_record(record: dict, facts: dict, annotated: dict) -> None:
    """Add to a record with a detector's boxes the facts of `detect` and the results with annotated boxes.

    annotated: the record of the same evaluation with annotated boxes.
    """
    beside = {"metrics": annotated["metrics"], "interval": annotated["interval"]}
    record["detector"] = facts | {"annotated_boxes": beside}
    record["name"] += f"-{facts['name']}"


def describe(record: dict) -> str:
    """One line of text for a record with the entry `detector`."""
    facts = record["detector"]
    annotated = facts["annotated_boxes"]["metrics"]["AP"]
    return (
        f"{facts['name']}: AP50 of its boxes {facts['box_metrics']['AP50']:.3f}; AP of poses "
        f"{record['metrics']['AP']:.3f} with its boxes, {annotated:.3f} with annotated boxes"
    )
