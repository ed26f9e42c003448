"""Several datasets as one training set, with joints mapped by name onto one keypoint set.

1. A joint that a source does not annotate has visibility 0: it has weight 0 in the loss.
2. `share` is a source's part of an epoch's samples. An epoch has as many samples as the sources have people.
   A source with a larger share than its part of the people repeats people. One with a smaller share shows all
   its people over several epochs.
3. Each source keeps its own metric. LSPET mapped onto COCO's joints is still scored by PCK, on 12 joints.
4. `labels` may add joints that a source does not annotate, such as a teacher model's face joints for LSPET.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from posebook import skeletons
from posebook.datasets import NAMES, Person, PoseDataset, load
from posebook.skeletons import Skeleton
from posebook.utils import sha256, unknown_name_error

HASH_LENGTH = 12  # hexadecimal digits of an image's SHA-256: 48 bits
LABEL_SCORE = 0.4  # added labels below this score are not used


@dataclass(frozen=True)
class Source:
    """One dataset of a combination; name, root and split are those of `datasets.load`."""

    name: str
    root: str | Path | None = None
    split: str | None = None
    share: float | None = None  # of an epoch; None for all sources: in proportion to their numbers of people
    labels: str | Path | None = None  # JSON file of `read_labels`


def load_combined(sources: Sequence[Source], skeleton: str | Skeleton = "coco") -> PoseDataset:
    """Load several datasets as one, mapped onto `skeleton`.

    Raises ValueError for a source without any joint of the skeleton, a joint that no source annotates, and
    shares that are negative, all zero, or given for some sources only; DatasetMissing for missing files.
    """
    skeleton = skeleton if isinstance(skeleton, Skeleton) else skeletons.get(skeleton)
    check_shares([source.share for source in sources], [source.name for source in sources])
    people = []
    for source in sources:
        mapped = map_joints(load(source.name, source.root, source.split), skeleton)
        people.append(add_labels(mapped, source.labels) if source.labels else mapped)
    return combine(people, [source.share for source in sources])


def check_shares(shares: Sequence[float | None], names: Sequence[str]) -> None:
    """Raise ValueError for shares that cannot be used."""
    given = [share for share in shares if share is not None]
    if given and len(given) < len(shares):
        lacking = [name for name, share in zip(names, shares, strict=True) if share is None]
        raise ValueError(f"shares are given for some sources but not for {', '.join(lacking)}")
    if any(not 0 <= share < math.inf for share in given):
        raise ValueError(f"shares must be finite numbers that are not negative, not {list(shares)}")
    if given and not any(given):
        raise ValueError(f"all shares are zero: no source of {', '.join(names)} would be used")


def combine(people: Sequence[PoseDataset], shares: Sequence[float | None]) -> PoseDataset:
    """Join datasets that have the same skeleton; shares as in `Source`, checked by `check_shares`."""
    skeleton = people[0].skeleton
    used = [source for source, share in zip(people, shares, strict=True) if share != 0]
    annotated = np.any([_labeled(source) for source in used], 0)  # (K,)
    if not annotated.all():
        lacking = [name for name, there in zip(skeleton.keypoints, annotated, strict=True) if not there]
        raise ValueError(
            f"no source annotates {', '.join(lacking)} of the skeleton {skeleton.name}: add a source that "
            "does, or train on a skeleton without them"
        )
    sizes = np.array([len(source.instances) for source in people], float)
    weights = sizes if shares[0] is None else np.array(shares, float)
    weights /= weights.sum()
    described = json.dumps([[source.describe() for source in people], weights.tolist(), skeleton.keypoints])
    return PoseDataset(
        name="+".join(source.name for source in people),
        split="+".join(source.split for source in people),
        skeleton=skeleton,
        sha256=hashlib.sha256(described.encode()).hexdigest(),
        instances=tuple(person for source in people for person in source.instances),
        annotations=people[0].annotations,
        skipped=tuple(name for source in people for name in source.skipped),
        sources=tuple(people),
        shares=tuple(weights.tolist()),
    )


def _labeled(people: PoseDataset) -> np.ndarray:
    """Whether anyone of a source has each joint, (K,)."""
    return (np.stack([person.keypoints for person in people.instances])[..., 2] > 0).any(0)


def map_joints(people: PoseDataset, skeleton: Skeleton) -> PoseDataset:
    """The same people with `skeleton`'s joints, by name; those they do not have get visibility 0.

    Raises ValueError where there is no common joint.
    """
    own = people.skeleton.keypoints
    if own == skeleton.keypoints:
        return people
    order = tuple(own.index(name) if name in own else -1 for name in skeleton.keypoints)  # (K,)
    if max(order) < 0:
        raise ValueError(
            f"{people.name} has no joint of the skeleton {skeleton.name}: its joints are "
            f"{', '.join(own[:4])}{', ...' if len(own) > 4 else ''}"
        )
    persons = []
    for person in people.instances:
        keypoints = person.keypoints[list(order)]  # (K, 3)
        keypoints[np.array(order) < 0] = 0
        persons.append(replace(person, keypoints=keypoints))
    return replace(
        people,
        instances=tuple(persons),
        skeleton=skeleton,
        file_joints=own,
        joint_map=order,
        mapped_metric=people.metric_type,
    )


def read_labels(path: str | Path) -> dict[str, dict[str, list[float]]]:
    """Additional joints by image file name: {"im00001.jpg": {"nose": [x, y, score], ...}, ...}.

    Points are pixels of the image. For datasets with one person per image.
    """
    content = json.loads(Path(path).read_text())
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise ValueError(f"{path} is not a file of additional labels: it has no object 'labels'")
    return content["labels"]


def add_labels(people: PoseDataset, path: str | Path) -> PoseDataset:
    """Fill in joints without a label from a file of `read_labels`, where its score is above LABEL_SCORE."""
    added, names = read_labels(path), people.skeleton.keypoints
    persons = []
    for person in people.instances:
        keypoints = person.keypoints.copy()
        for name, (x, y, score) in added.get(person.image.name, {}).items():
            if name in names and score > LABEL_SCORE and keypoints[names.index(name), 2] == 0:
                keypoints[names.index(name)] = x, y, 1
        persons.append(replace(person, keypoints=keypoints))
    return replace(people, instances=tuple(persons), labels=f"{Path(path).name} sha256 {sha256(path)}")


def epoch_instances(people: PoseDataset, seed: int, epoch: int) -> np.ndarray:
    """Indices into `people.instances` of an epoch's samples, (N,) with N the number of people.

    Without sources: all people once, in order. With sources: each has its share of the samples. A source's
    samples go through its people in one random order after another, so that all are seen equally often.
    """
    total = len(people.instances)
    if not people.sources:
        return np.arange(total)
    counts, chosen, first = split_epoch(people.shares, total), [], 0
    for number, (source, count) in enumerate(zip(people.sources, counts, strict=True)):
        size = len(source.instances)
        positions = np.arange(epoch * count, (epoch + 1) * count)
        rounds = {
            turn: np.random.default_rng((seed, turn, 2, number)).permutation(size)
            for turn in np.unique(positions // size).tolist()
        }
        chosen += [first + rounds[place // size][place % size] for place in positions.tolist()]
        first += size
    return np.array(chosen)


def split_epoch(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers in proportion to `shares`, which sum to 1; they sum to `total`.

    The largest remainders are rounded up.
    """
    exact = np.array(shares) * total
    counts = np.floor(exact).astype(int)
    for place in np.argsort(counts - exact, kind="stable")[: total - counts.sum()]:
        counts[place] += 1
    return counts.tolist()


def hold_out(people: PoseDataset, share: float) -> tuple[PoseDataset, PoseDataset]:
    """Split by images, decided by a hash of each file name: the rest, and about `share` of the images.

    Raises ValueError where nothing would be left on one side.
    """
    if people.sources:
        parts = [hold_out(source, share) for source in people.sources]
        return tuple(combine([part[side] for part in parts], people.shares) for side in (0, 1))

    def held(name: str) -> bool:
        return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) < share * 16**8

    sides = []
    for wanted in (False, True):
        persons = tuple(person for person in people.instances if held(person.image.name) == wanted)
        if not persons:
            raise ValueError(f"holding out {share:g} of {people.name} leaves nobody on one side")
        images = {number: path for number, path in people.images.items() if held(path.name) == wanted}
        split = f"{people.split} {'held out' if wanted else 'without held out'} {share:g}"
        sides.append(replace(people, instances=persons, images=images, split=split))
    return sides[0], sides[1]


def image_hashes(persons: Iterable[Person]) -> dict[str, str]:
    """The first HASH_LENGTH digits of the SHA-256 of every image file of these people: {hash: file name}."""
    files = dict.fromkeys(person.image for person in persons)
    return {sha256(file)[:HASH_LENGTH]: file.name for file in files}


def check_overlap(train: Iterable[str], val: dict[str, str], what: str) -> None:
    """Raise ValueError where images to evaluate on ({hash: name}) have hashes among those trained on."""
    common = sorted(val[digest] for digest in set(train) & set(val))
    if common:
        raise ValueError(
            f"{len(common)} of {len(val)} images to evaluate on are among those that {what} was trained on "
            f"({', '.join(common[:3])}{', ...' if len(common) > 3 else ''}): evaluate on other images"
        )


def parse_sources(
    dataset: str,
    roots: str | dict | None = None,
    shares: str | Sequence[float] | None = None,
    labels: str | dict | None = None,
) -> list[Source]:
    """The sources of a name such as 'coco+lspet+synthetic'.

    roots, labels: 'coco=PATH,lspet=PATH' or a dict; shares: '0.5,0.3,0.2' or numbers. Raises ValueError for
    an unknown dataset, a source named twice, a root or labels of no source, and shares that are no numbers or
    of another count.
    """
    names = dataset.split("+")
    for name in names:
        if name not in NAMES:
            raise unknown_name_error(name, NAMES, "dataset")
    if len(set(names)) < len(names):
        raise ValueError(f"{dataset} names a source twice")
    if isinstance(shares, str):
        try:
            shares = [float(share) for share in shares.split(",")]
        except ValueError as error:
            raise ValueError(f"shares are written 0.5,0.3; got {shares!r}") from error
    if shares is not None and len(shares) != len(names):
        raise ValueError(f"{len(shares)} shares for {len(names)} sources ({dataset}): give one for each")
    roots, labels = _by_name(roots, names, "data root"), _by_name(labels, names, "labels")
    return [
        Source(name, roots.get(name), None, shares[i] if shares is not None else None, labels.get(name))
        for i, name in enumerate(names)
    ]


def _by_name(values: str | dict | None, names: Sequence[str], what: str) -> dict[str, str]:
    """{'coco': 'PATH'} of 'coco=PATH,...'; ValueError for a name that is no source."""
    if isinstance(values, str):
        pairs = [pair.partition("=") for pair in values.split(",")]
        if not all(middle for _, middle, _ in pairs):
            raise ValueError(f"{what} of several sources is written {names[0]}=PATH,...; got {values!r}")
        values = {name: path for name, _, path in pairs}
    for name in values or {}:
        if name not in names:
            raise ValueError(f"a {what} is given for {name}, which is no source of {'+'.join(names)}")
    return values or {}
