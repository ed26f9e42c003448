"""The cells of the published tables as printed, and functions that parse them."""

import inspect
import math
from pathlib import Path
from typing import Any

import pandas as pd

from posebook import models, paths, skeletons

FOLDER = paths.PUBLISHED
SIZE_COLUMNS = {
    "Params (M)": "parameters of the built model",
    "GFLOPs": "by the paper's counter; exact: multiply-adds of convolutions, linear layers, matrix products",
}
NO_FLIP_TEST = "test-time augmentation: no"  # part of the `setting` of a row


def load_cells(folder: str | Path = FOLDER) -> pd.DataFrame:
    """Every published cell of all papers in the folder, one row for each cell, all columns as text."""
    frames = [
        pd.read_csv(path, dtype=str, keep_default_na=False)
        for path in sorted(paths.require(Path(folder)).glob("*.csv"))
    ]
    if not frames:
        raise FileNotFoundError(f"no published results in {folder}: expected one CSV file for each paper")
    return pd.concat(frames, ignore_index=True)


def box_source(boxes: str) -> str:
    """'ground' or 'detector': the first word of a description of the person boxes."""
    return boxes.replace(",", " ").replace(":", " ").split(" ")[0]


def parse_size(text: str) -> tuple[int, int]:
    """'256x192' as (height, width)."""
    height, width = text.split("x")
    return int(height), int(width)


def skeleton_name(cell: dict) -> str:
    """The skeleton of a cell's dataset; COCO's if the dataset has none of its own."""
    return cell["dataset"] if cell["dataset"] in skeletons.SKELETONS else "coco"


def all_options(name: str, options: dict) -> dict[str, str]:
    """A model's options as text, completed with the defaults of its builder."""
    builder: Any = models.MODELS[name]
    signature = inspect.signature(builder).parameters.values()
    complete = {p.name: p.default for p in signature if p.default is not p.empty} | options
    return {key: str(tuple(value) if isinstance(value, list) else value) for key, value in complete.items()}


def parse_pairs(text: str) -> dict[str, str]:
    """'a=1;b=2' as a dictionary of strings."""
    return dict(pair.split("=", 1) for pair in text.split(";") if pair)


def parse_options(text: str) -> dict[str, Any]:
    """'a=1;b=true;c=cbam' as keyword arguments of a builder."""
    booleans = {"true": True, "false": False}
    return {
        key: int(value) if value.isdigit() else booleans.get(value, value)
        for key, value in parse_pairs(text).items()
    }


def format_like(value: float, printed: str) -> str:
    """A number with as many decimals as the printed one."""
    return f"{value:.{len(printed.partition('.')[2])}f}"


def roundings(value: float, printed: str) -> set[str]:
    """How a value becomes the printed one: 'rounded', 'truncated', both or neither."""
    scale, found = 10 ** len(printed.partition(".")[2]), set()
    if format_like(value, printed) == printed:
        found.add("rounded")
    # 1e-9 keeps a product such as 0.29 * 100 from ending just below the integer
    if math.floor(value * scale + 1e-9) == round(float(printed) * scale):
        found.add("truncated")
    return found


def where_measured(record: dict) -> str:
    """Device and date of a record."""
    device = record.get("machine", {}).get("device", "unknown device")
    return f"{device}, {record.get('started', 'undated')[:10]}"
