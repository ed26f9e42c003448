"""Combines several datasets into one training set. Joints are mapped by name to one skeleton.

1. A joint that a source does not annotate has visibility 0, so its weight in the loss is 0.
2. `share` is the fraction of an epoch's samples that a source provides. An epoch has as many samples as the
   sources have people. If a source's share is larger than its fraction of the people, some of its people are
   sampled more than once per epoch. If it is smaller, all its people are sampled over several epochs.
3. Each source keeps its own metric. LSPET mapped to COCO's joints is still evaluated with PCK, on 12 joints.
4. `labels` can add joints that a source does not annotate, such as a teacher model's face joints for LSPET.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from posebook import skeletons
from posebook.datasets import Person, PoseDataset, load, loaders
from posebook.datasets.coco_json import get_numbers
from posebook.skeletons import Skeleton
from posebook.utils import check_name, sha256

HASH_LENGTH = 12  # hexadecimal digits of an image's SHA-256: 48 bits
LABEL_SCORE = 0.4  # added labels with this score or a lower one are not used


@dataclass(frozen=True)
class Source:
    """One dataset of a combination. name, root and split are the arguments of `datasets.load`."""

    name: str
    root: str | Path | None = None
    split: str | None = None
    share: float | None = None  # if it is None for all sources, shares are proportional to their sizes
    labels: str | Path | None = None  # JSON file for `read_labels`


def load_combined(sources: Sequence[Source], skeleton: str | Skeleton = "coco") -> PoseDataset:
    """Load several datasets as one and map their joints to `skeleton`.

    Raises ValueError as `check_shares`, `map_joints`, `add_labels` and `check_joints` do, and DatasetMissing
    for missing files.
    """
    skeleton = skeleton if isinstance(skeleton, Skeleton) else skeletons.get(skeleton)
    check_shares([source.share for source in sources], [source.name for source in sources])
    datasets = []
    for source in sources:
        mapped = map_joints(load(source.name, source.root, source.split), skeleton)
        datasets.append(add_labels(mapped, source.labels) if source.labels else mapped)
    shares = [source.share for source in sources]
    check_joints([dataset for dataset, share in zip(datasets, shares, strict=True) if share != 0])
    return combine(datasets, shares)


def check_joints(datasets: Sequence[PoseDataset]) -> None:
    """Raise ValueError for a joint of the common skeleton that no dataset annotates."""
    skeleton = datasets[0].skeleton
    keypoints = np.concatenate([[person.keypoints for person in dataset.instances] for dataset in datasets])
    counts = np.count_nonzero(keypoints[..., 2] > 0, 0)  # (K,), from (N, K)
    missing = [name for name, count in zip(skeleton.keypoints, counts, strict=True) if not count]
    if missing:
        raise ValueError(
            f"no source annotates {', '.join(missing)} of the skeleton {skeleton.name}: add a source that "
            "does, or train on a skeleton without them"
        )


def check_shares(shares: Sequence[float | None], names: Sequence[str]) -> None:
    """Raise ValueError for shares that are negative, not finite, all zero, or given for some sources only."""
    given = [share for share in shares if share is not None]
    if given and len(given) < len(shares):
        missing = [name for name, share in zip(names, shares, strict=True) if share is None]
        raise ValueError(f"shares are given for some sources but not for {', '.join(missing)}")
    if any(not 0 <= share < math.inf for share in given):  # also true for NaN
        raise ValueError(f"shares must be finite numbers that are not negative, not {list(shares)}")
    if given and not any(given):
        raise ValueError(f"all shares are zero: no source of {', '.join(names)} would be used")


def combine(datasets: Sequence[PoseDataset], shares: Sequence[float | None]) -> PoseDataset:
    """Join datasets that have the same skeleton. shares: as in `Source`, checked by `check_shares`."""
    skeleton = datasets[0].skeleton
    sizes = [len(dataset.instances) for dataset in datasets]
    weights = np.array(sizes if shares[0] is None else shares, float)
    weights /= weights.sum()
    facts = json.dumps([[dataset.describe() for dataset in datasets], weights.tolist(), skeleton.keypoints])
    return PoseDataset(
        name="+".join(dataset.name for dataset in datasets),
        split="+".join(dataset.split for dataset in datasets),
        skeleton=skeleton,
        sha256=hashlib.sha256(facts.encode()).hexdigest(),
        instances=tuple(person for dataset in datasets for person in dataset.instances),
        annotations=datasets[0].annotations,
        skipped=tuple(name for dataset in datasets for name in dataset.skipped),
        sources=tuple(datasets),
        shares=tuple(weights.tolist()),
    )


def map_joints(dataset: PoseDataset, skeleton: Skeleton) -> PoseDataset:
    """The same people with the joints of `skeleton`, mapped by name. Missing joints get visibility 0.

    Raises ValueError if the two skeletons have no joint in common.
    """
    names = dataset.skeleton.keypoints
    if names == skeleton.keypoints:
        return dataset
    joint_map = tuple(names.index(name) if name in names else -1 for name in skeleton.keypoints)  # (K,)
    if max(joint_map) < 0:
        raise ValueError(
            f"{dataset.name} has no joint of the skeleton {skeleton.name}: its joints are "
            f"{', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        )
    instances = []
    for person in dataset.instances:
        keypoints = person.keypoints[list(joint_map)]  # (K, 3); -1 selects the last joint, which is wrong
        keypoints[np.array(joint_map) < 0] = 0
        instances.append(replace(person, keypoints=keypoints))
    return replace(
        dataset,
        instances=tuple(instances),
        skeleton=skeleton,
        file_joints=names,
        joint_map=joint_map,
        mapped_metric=dataset.metric_type,
    )


def read_labels(path: str | Path) -> dict[str, dict[str, list[float]]]:
    """Additional joints by image file name, from JSON: {"labels": {FILE: {JOINT: [x, y, score], ...}, ...}}.

    x and y are image pixels. Only for datasets with one person per image. Raises ValueError for another file.
    """
    try:
        content = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not a file of additional labels: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise ValueError(f"{path} is not a file of additional labels: it has no object 'labels'")
    for file, joints in content["labels"].items():
        for name, values in joints.items() if isinstance(joints, dict) else [("joints", joints)]:
            get_numbers(f"{path}, {file}", name, values, 3)
    return content["labels"]


def add_labels(dataset: PoseDataset, path: str | Path) -> PoseDataset:
    """Fill unlabeled joints from a file for `read_labels` if the label's score is above LABEL_SCORE.

    Joints that the skeleton does not have are ignored. Prints how many joints were filled. Raises ValueError
    if the file names no image of the dataset.
    """
    added, names = read_labels(path), dataset.skeleton.keypoints
    if not added.keys() & {person.image.name for person in dataset.instances}:
        raise ValueError(f"{path} has no label of an image of {dataset.name} {dataset.split}")
    instances, count = [], 0
    for person in dataset.instances:
        keypoints = person.keypoints.copy()
        for name, (x, y, score) in added.get(person.image.name, {}).items():
            if name in names and score > LABEL_SCORE and keypoints[names.index(name), 2] == 0:
                keypoints[names.index(name)] = x, y, 1
                count += 1
        instances.append(replace(person, keypoints=keypoints))
    print(f"{Path(path).name} adds {count} joints to {dataset.name} {dataset.split}")
    return replace(dataset, instances=tuple(instances), labels=f"{Path(path).name} sha256 {sha256(path)}")


def epoch_instances(dataset: PoseDataset, seed: int, epoch: int) -> np.ndarray:
    """The samples of an epoch as indices into `dataset.instances`, (N,) with N the number of instances.

    Without sources, the indices are 0 to N - 1 in order. With sources, each one provides its share of the
    samples: it goes through its people in one random permutation after another, across epochs, so that all of
    them are sampled equally often.
    """
    total = len(dataset.instances)
    if not dataset.sources:
        return np.arange(total)
    counts, indices, first = split_epoch(dataset.shares, total), [], 0
    for number, (source, count) in enumerate(zip(dataset.sources, counts, strict=True)):
        size = len(source.instances)
        positions = np.arange(epoch * count, (epoch + 1) * count)  # in the sequence of all permutations
        permutations = {
            # 2: TrainDataset.draw and epoch_batches use (seed, epoch, 1) and (seed, epoch).
            turn: np.random.default_rng((seed, turn, 2, number)).permutation(size)
            for turn in np.unique(positions // size).tolist()
        }
        indices += [first + permutations[i // size][i % size] for i in positions.tolist()]
        first += size
    return np.array(indices)


def split_epoch(shares: Sequence[float], total: int) -> list[int]:
    """Split `total` into integers proportional to `shares` (sum 1). The largest remainders are rounded up."""
    exact = np.array(shares) * total
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts.tolist()


def hold_out(dataset: PoseDataset, share: float) -> tuple[PoseDataset, PoseDataset]:
    """Split a dataset by images: return the rest, and about `share` of the images, which are held out.

    A hash of the file name decides, so that the split is the same in every run. Raises ValueError if one side
    would have no people.
    """
    if dataset.sources:
        pairs = [hold_out(source, share) for source in dataset.sources]
        rest, held_out = ([pair[side] for pair in pairs] for side in (0, 1))
        return combine(rest, dataset.shares), combine(held_out, dataset.shares)

    def is_held_out(name: str) -> bool:
        return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) < share * 16**8  # 8 hexadecimal digits

    sides = []
    for side in (False, True):
        instances = tuple(person for person in dataset.instances if is_held_out(person.image.name) == side)
        if not instances:
            raise ValueError(f"holding out {share:g} of {dataset.name} leaves one side without people")
        images = {
            image_id: path for image_id, path in dataset.images.items() if is_held_out(path.name) == side
        }
        split = f"{dataset.split} {'held out' if side else 'without held out'} {share:g}"
        sides.append(replace(dataset, instances=instances, images=images, split=split))
    return sides[0], sides[1]


def image_hashes(persons: Iterable[Person]) -> dict[str, str]:
    """The images of these people, {hash: file name}. A hash is HASH_LENGTH digits of the file's SHA-256."""
    files = dict.fromkeys(person.image for person in persons)
    return {sha256(file)[:HASH_LENGTH]: file.name for file in files}


def check_overlap(train: Iterable[str], val: dict[str, str], trained: str) -> None:
    """Raise ValueError if one of the evaluation images `val` ({hash: name}) is in `train` (hashes).

    trained: what was trained on the images `train`, for the message.
    """
    common = sorted(val[digest] for digest in set(train) & set(val))
    if common:
        raise ValueError(
            f"{len(common)} of {len(val)} images to evaluate on are among those that {trained} was trained "
            f"on ({', '.join(common[:3])}{', ...' if len(common) > 3 else ''}): evaluate on other images"
        )


def parse_sources(
    dataset: str,
    roots: str | dict | None = None,
    shares: str | Sequence[float] | None = None,
    labels: str | dict | None = None,
) -> list[Source]:
    """The sources of a dataset name such as 'coco+lspet+synthetic'.

    roots, labels: 'coco=PATH,lspet=PATH' or a dict; shares: '0.5,0.3,0.2' or numbers. Raises ValueError for
    an unknown dataset, a source that occurs twice, a root or labels for a name that is not a source, and
    shares that are not numbers or not one per source.
    """
    names = dataset.split("+")
    for name in names:
        check_name(name, loaders(), "dataset")
    if len(set(names)) < len(names):
        raise ValueError(f"{dataset} names a source twice")
    if isinstance(shares, str):
        try:
            shares = [float(share) for share in shares.split(",")]
        except ValueError as error:
            raise ValueError(f"shares must have the form 0.5,0.3, not {shares!r}") from error
    if shares is not None and len(shares) != len(names):
        raise ValueError(f"{len(shares)} shares for {len(names)} sources ({dataset}): give one for each")
    roots, labels = _by_name(roots, names, "data root"), _by_name(labels, names, "file of labels")
    return [
        Source(name, roots.get(name), None, share, labels.get(name))
        for name, share in zip(names, shares if shares is not None else [None] * len(names), strict=True)
    ]


def _by_name(values: str | dict | None, names: Sequence[str], what: str) -> dict[str, str]:
    """Parse 'coco=PATH,...' into {'coco': 'PATH'}. Raises ValueError for a name that is not a source."""
    if isinstance(values, str):
        pairs = [pair.partition("=") for pair in values.split(",")]
        if not all(separator for _, separator, _ in pairs):
            raise ValueError(
                f"a {what} for several sources must have the form {names[0]}=PATH,..., not {values!r}"
            )
        values = {name: path for name, _, path in pairs}
    for name in values or {}:
        if name not in names:
            raise ValueError(f"a {what} is given for {name}, which is not a source of {'+'.join(names)}")
    return values or {}
