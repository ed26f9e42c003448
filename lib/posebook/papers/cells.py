"""The cells of the published tables, as printed, and how to read them."""

import inspect
from pathlib import Path

import pandas as pd

from posebook import models, paths, skeletons

FOLDER = paths.PUBLISHED


SIZE_COLUMNS = {
    "Params (M)": "parameters of the built model",
    "GFLOPs": "multiply-adds of convolutions, linear layers and matrix products, norms and pooling left out",
}


SPEED_COLUMNS = ("Latency (ms)", "FPS")


NO_FLIP_TEST = "test-time augmentation: no"  # in the setting of a row


def load_cells(folder: str | Path = FOLDER) -> pd.DataFrame:
    """Every published cell as text, one line each, over all papers of the folder."""
    sheets = [
        pd.read_csv(path, dtype=str, keep_default_na=False) for path in sorted(Path(folder).glob("*.csv"))
    ]
    if not sheets:
        raise FileNotFoundError(f"no published numbers in {folder}: it holds one CSV file a paper")
    return pd.concat(sheets, ignore_index=True)


def box_source(boxes: str) -> str:
    """'ground' or 'detector': the first word of what says whose boxes they are."""
    return boxes.replace(",", " ").replace(":", " ").split(" ")[0]


def parse_size(text: str) -> tuple[int, int]:
    """'256x192' as (height, width)."""
    height, width = text.split("x")
    return int(height), int(width)


def skeleton_name(cell: dict) -> str:
    """The keypoint set of a cell's dataset; COCO's where it names none."""
    return cell["dataset"] if cell["dataset"] in skeletons.SKELETONS else "coco"


def all_options(name: str, options: dict) -> dict[str, str]:
    """A model's options with the builder's own values for those left out, as text."""
    signature = inspect.signature(models.MODELS[name]).parameters.values()
    given = {p.name: p.default for p in signature if p.default is not p.empty} | options
    return {key: str(tuple(value) if isinstance(value, list) else value) for key, value in given.items()}


def parse_pairs(text: str) -> dict[str, str]:
    """'a=1;b=2' as a dictionary of texts."""
    return dict(pair.split("=", 1) for pair in text.split(";") if pair)


def parse_options(text: str) -> dict[str, object]:
    """'a=1;b=true;c=cbam' as a builder's keyword arguments."""
    plain = {"true": True, "false": False}
    return {
        key: int(value) if value.isdigit() else plain.get(value, value)
        for key, value in parse_pairs(text).items()
    }


def format_like(value: float, printed: str) -> str:
    """A number with as many digits after the point as the printed one."""
    return f"{value:.{len(printed.partition('.')[2])}f}"


def where_measured(record: dict) -> str:
    """Device and day of a record."""
    device = record.get("machine", {}).get("device", "an unnamed device")
    return f"{device}, {record.get('started', 'undated')[:10]}"
