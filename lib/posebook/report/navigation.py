"""The list of pages: groups by paper, the names of pages within their group, and their order."""

import os
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import nbformat

from posebook import paths
from posebook.papers.names import PAPERS, display_name
from posebook.report.page_cells import first_heading

GROUPS = {  # title of a group -> its pages in order, without suffix; * stands for any text
    "": ("index",),
    "Learn": ("learn/index", "learn/*"),
    "StarNet-Pose": (
        "tables/main_results",
        "tables/lightweight_comparison",
        "tables/speed",
        "tables/architecture",
        "tables/attention_ablation",
        "tables/occlusion_ablation",
        "audit/starnet_pose",
    ),
    "AMFACPose": ("tables/amfacpose_*", "audit/amfacpose"),
    "LAPX": ("tables/lapx_*", "audit/lapx"),
    "ViTPose++": ("tables/vitpose*", "audit/vitpose"),
    "Lifting": ("tables/lifting", "audit/hot", "audit/h2ot", "audit/ktpformer", "audit/starpose"),
    "Tools": (
        "dataset",
        "train",
        "train_lifter",
        "evaluate",
        "predict",
        "browser",
        "explore",
        "predict_3d",
        "tables/complexity",
        "tables/coverage",
        "tables/studies",
        "tables/real_photographs",
        "benchmark",
        "training_speed",
        "attribution",
        "attribution/*",
        "attention",
        "occlusion",
    ),
    "Records": ("records",),
    "Runs": ("runs/*",),  # of `make grid`, `make study` and others: one page for each
}
OTHER = "Other"  # the group of pages that no pattern matches
SPELLING = {"coco": "COCO", "crowdpose": "CrowdPose", "mpii": "MPII"}
PREFIXES = ("amfacpose", "lapx", "vitpose")  # of a file name in tables/, which the title of the group repeats


def group_of(page: Path) -> tuple[str, int]:
    """The title of a page's group, and the position of the first pattern that matches the page."""
    name = page.with_suffix("").as_posix()
    for title, patterns in GROUPS.items():
        for position, pattern in enumerate(patterns):
            if fnmatch(name, pattern):
                return title, position
    return OTHER, 0


def in_order(pages: Iterable[Path]) -> list[Path]:
    """Pages in the order of the list; pages that match the same pattern keep their order."""
    titles = [*GROUPS, OTHER]

    def position(page: Path) -> tuple[int, int]:
        title, index = group_of(page)
        return titles.index(title), index

    return sorted(pages, key=position)


def short_title(page: Path, heading: str) -> str:
    """The name of a page in the list, from the file name or from the heading up to a colon."""
    start = heading.split(":")[0]
    if page == Path("index.html"):
        return "Front page"
    if page.parent.name == "runs":
        return page.stem
    if page.parent.name == "audit":
        alone = group_of(page)[0] in PAPERS.values()
        return "Claims" if alone else f"{start}: claims"
    if page.parent.name == "attribution":
        return "Attribution: " + display_name(page.stem).replace("-two-sets", ", two datasets")
    if page.parent.name == "tables":
        words = page.stem.split("_")
        words = words[1:] if words[0] in PREFIXES else words
        text = " ".join(SPELLING.get(word, word) for word in words) or "results"
        return text[:1].upper() + text[1:]
    return start


def notebook_title(name: str) -> str:
    """The heading of a notebook, by its path in notebooks/."""
    path = paths.require(paths.ROOT / "notebooks" / name)
    return first_heading(nbformat.read(path, as_version=4), path)


def page_groups(page: Path, titles: dict[Path, str], stopped: set[Path]) -> list[dict[str, Any]]:
    """The groups of the list as the page `page` shows it: title, pages, and whether `page` is one of them.

    titles: the heading of each page, in the order of the list. stopped: pages whose notebook stopped.
    """
    groups: dict[str, dict[str, Any]] = {}
    for other, heading in titles.items():
        title = group_of(other)[0]
        group = groups.setdefault(title, {"title": title, "pages": [], "current": False})
        group["current"] |= other == page
        group["pages"].append(
            {
                "title": short_title(other, heading),
                "href": os.path.relpath(other, page.parent),
                "here": other == page,
                "stopped": other in stopped,
            }
        )
    return list(groups.values())
