"""Stages of prediction: threads that work ahead, progress, the time of each stage, and a record of it."""

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from posebook import records
from posebook.utils import sha256

STAGES = ("read", "detect", "crop", "network", "decode", "draw")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
AHEAD = min(4 * CORES, 32)  # images in memory that wait for the model, and for drawing
T = TypeVar("T")


def prefetch(jobs: Iterable[Callable[[], T]], pool: ThreadPoolExecutor) -> Iterator[Future[T]]:
    """Yield the futures of the jobs in order. At most AHEAD jobs are started ahead of the consumer."""
    pending: deque[Future[T]] = deque()
    for job in jobs:
        pending.append(pool.submit(job))
        if len(pending) >= AHEAD:
            yield pending.popleft()
    yield from pending


class BoundedQueue:
    """Jobs in a pool, in order. `submit` waits if AHEAD jobs are not finished; `finish` waits for all."""

    def __init__(self, pool: ThreadPoolExecutor):
        self.pool, self.pending = pool, deque[Future]()

    def submit(self, job: Callable, *arguments: object) -> None:
        self.pending.append(self.pool.submit(job, *arguments))
        if len(self.pending) > AHEAD:
            self.pending.popleft().result()

    def finish(self) -> None:
        while self.pending:
            self.pending.popleft().result()


class StageTimes:
    """Seconds of work in each stage, and the numbers of images and people.

    Stages run in several threads at once, so that their sum can exceed the time that has passed.
    """

    def __init__(self) -> None:
        self.seconds, self.images, self.people = dict.fromkeys(STAGES, 0.0), 0, 0
        self.wall_seconds = 0.0  # until the last image
        self._start, self._lock = time.perf_counter(), threading.Lock()

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] += time.perf_counter() - start

    def progress(self, results: Iterable[tuple], total: int | None, unit: str) -> Iterator[tuple]:
        """Yield (image, keypoints (N, K, 2), scores (N, K)), count them, and show a progress bar."""
        with tqdm(total=total, desc="predict", unit=unit, delay=1) as bar:  # not for a few images
            for image, points, scores in results:
                self.images, self.people = self.images + 1, self.people + len(points)
                self.wall_seconds = time.perf_counter() - self._start
                bar.set_postfix_str(f"{self.people_per_second:.1f} people/s", refresh=False)
                bar.update()
                yield image, points, scores

    @property
    def people_per_second(self) -> float:
        """People per second since the start, up to the last image."""
        return self.people / max(self.wall_seconds, 1e-9)

    def finish(self) -> None:
        """Include the time since the last image, in which drawings were finished and files were written."""
        self.wall_seconds = time.perf_counter() - self._start


def build_record(
    model: str,
    weights: str | Path,
    sources: list[Path],
    times: StageTimes,
    parameters: dict,
    metadata: records.RunMetadata,
) -> dict:
    """The record of kind "predict": images per second of one runtime, and milliseconds of each stage.

    sources: the images, or the video. parameters: runtime, flip test, batch and other settings. The
    milliseconds are per image, summed over threads.
    """
    digest = hashlib.sha256("".join(sha256(path) for path in sources).encode()).hexdigest()
    name = sources[0].name if len(sources) == 1 else sources[0].absolute().parent.name
    dataset = {"name": name, "split": "images", "sha256": digest}
    return records.build(
        "predict",
        f"predict-{model}-{parameters['runtime']}",
        metadata,
        model=model,
        dataset=dataset | {"images": times.images, "persons": times.people},
        profile=None,
        parameters=parameters,
        protocol={"time": "from the first image to the last written file, without loading the model"},
        metrics={
            "images_per_second": times.images / times.wall_seconds,
            "people_per_second": times.people_per_second,
            "stage_milliseconds": {
                stage: 1000 * seconds / max(times.images, 1) for stage, seconds in times.seconds.items()
            },
        },
        weights={"sha256": sha256(weights), "file": Path(weights).name},
        seed=None,
    )
