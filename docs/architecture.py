"""Write docs/architecture.md: packages, where to find what, and paths of samples, predictions and results.

Run `python docs/architecture.py` after imports have changed; a test compares the page with its output. Edges
between packages are imports. The steps of a path are functions that exist.
"""

import ast
from pathlib import Path

from posebook import import_graph

PACKAGE = import_graph.PACKAGE
SHARED = "codecs complexity downloads import_graph losses migration paths records skeletons utils".split()

# (module, function or class, what it does); consecutive steps hand their result on
TRAINING_SAMPLE = [
    ("datasets.coco_json", "make_dataset", "annotation file to people with joints and boxes"),
    (
        "datasets.canvas_cache",
        "cut_canvas",
        "decode the image, cut a generous canvas around the person (uint8)",
    ),
    ("transforms", "random_affine_batch", "one affine from flip, rotation, scale and half body"),
    ("transforms", "apply_photometric", "color changes and dropout"),
    ("training.data", "TrainDataset", "image and joints in pixels of the input"),
    ("models.starnet_pose", "StarNetPose", "the model predicts SimCC logits; other models predict heatmaps"),
    ("codecs", "encode_simcc", "joints to target distributions"),
    ("losses", "simcc_kl", "compare predictions with targets"),
    ("training.loop", "train_step", "backward pass and optimizer step"),
]
PREDICTION = [
    ("datasets", "read_image", "the image, upright, (H, W, 3) uint8"),
    ("inference.detectors", "Detector", "boxes of people; without a detector, the image is one box"),
    ("transforms", "crop_affine", "the matrix that maps a box to the model's input"),
    ("transforms", "warp", "the crop"),
    ("evaluation.predictions", "forward", "the model, and its mirrored input for the flip test"),
    ("evaluation.predictions", "decode", "outputs to joints and scores"),
    ("inference.tracking", "update_tracks", "in a video: which person of the last frame it is"),
    ("inference.output", "draw_poses", "the image with its poses"),
]
# What is computed or written, and where.
PLACES = [
    ("label of a SimCC output", "codecs", "encode_simcc"),
    ("learning rate of a step", "training.optimizer", "lr_at_step"),
    ("average precision", "evaluation.metrics", "average_precision"),
    ("crop of a person", "transforms", "crop_affine_batch"),
    ("checkpoint of a run", "training.checkpoints", "TrainState"),
    ("record of a run", "records", "build"),
    ("whether a record fills a cell of a table", "papers.matching", "matches"),
    ("multiply-adds of a pose model", "complexity", "count"),
    ("multiply-adds of a lifter", "lifting.complexity", "count"),
    ("attribution with Captum", "explain.attribution", "integrated_gradients"),
    ("tracks of people in a video", "inference.tracking", "update_tracks"),
    ("track of one person for a lifter", "lifting.predict_3d", "track_person"),
    ("HTML of a page", "report.html", "export"),
    ("HTML of a table", "report.html_tables", "comparison_table"),
]
RESULT = [
    ("training.trainer", "train", "a run, described by a TrainConfig"),
    ("evaluation.evaluator", "evaluate", "predictions and metrics on held-out people"),
    ("records", "write", "one record per run in reports/records/"),
    ("papers.matching", "trained_by", "which records used the recipe of a row"),
    ("papers.tables", "build_table", "published and measured values side by side"),
    ("report.html_tables", "comparison_table", "the table on a page"),
    ("report.html", "export", "executed notebooks to HTML pages"),
]


def module_part(path: Path) -> str:
    """The top-level package or module that a file belongs to; all shared modules count as one."""
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "shared" if name in SHARED else name


def package_imports() -> dict[str, set[str]]:
    """Which packages each package imports."""
    edges: dict[str, set[str]] = {}
    files = set(PACKAGE.rglob("*.py"))
    for path in sorted(files):
        part = module_part(path)
        if path.name == "__main__.py" or part == "__init__":  # python -m posebook.training calls the command
            continue
        imported = import_graph.closure([path], stop=files - {path})  # this file and what it imports itself
        edges.setdefault(part, set()).update({module_part(other) for other in imported} - {part, "__init__"})
    return edges


def without_shortcuts(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out an edge if another path connects its ends, so that the drawing stays readable."""

    def reachable(part: str) -> set[str]:
        return set().union(*({other} | reachable(other) for other in edges[part]))

    return {
        part: {other for other in others if not any(other in reachable(third) for third in others - {other})}
        for part, others in edges.items()
    }


def packages_diagram() -> str:
    """A Mermaid flowchart of the packages."""
    lines = ["flowchart TD", '    shared["shared modules: ' + ", ".join(SHARED) + '"]']
    for part, others in sorted(without_shortcuts(package_imports()).items()):
        lines += [f"    {part} --> {other}" for other in sorted(others)]
    return "\n".join(lines)


def path_diagram(steps: list[tuple[str, str, str]]) -> str:
    """A Mermaid flowchart of one path. Raises ValueError for a step whose function does not exist."""
    lines = ["flowchart TD"]
    for number, (module, name, text) in enumerate(steps):
        check_exists(module, name)
        lines.append(f'    s{number}["<b>{module}.{name}</b><br/>{text}"]')
    lines += [f"    s{number} --> s{number + 1}" for number in range(len(steps) - 1)]
    return "\n".join(lines)


def check_exists(module: str, name: str) -> None:
    """Raise ValueError if a module of the library does not define this function or class."""
    path = import_graph.module_file(f"posebook.{module}")
    tree = ast.parse(path.read_text()) if path else ast.Module([], [])
    if name not in {getattr(node, "name", None) for node in tree.body}:
        raise ValueError(f"posebook.{module} has no {name}: correct docs/architecture.py")


def places_table() -> str:
    """A table of PLACES. Raises ValueError if one of them does not exist."""
    lines = ["| what | where |", "| --- | --- |"]
    for what, module, name in PLACES:
        check_exists(module, name)
        lines.append(f"| {what} | `{module}.{name}` |")
    return "\n".join(lines)


def page() -> str:
    """The text of docs/architecture.md."""
    return f"""# Architecture

This page is written by `docs/architecture.py` from the imports of the library. Do not edit it.

## Packages

An arrow means "imports". Imports go down only. An arrow is left out if others already connect both ends.

```mermaid
{packages_diagram()}
```

## Where to find what

{places_table()}

## Path of a training sample

```mermaid
{path_diagram(TRAINING_SAMPLE)}
```

## Path of a prediction

```mermaid
{path_diagram(PREDICTION)}
```

## Path of a result

```mermaid
{path_diagram(RESULT)}
```
"""


if __name__ == "__main__":
    (Path(__file__).parent / "architecture.md").write_text(page())
