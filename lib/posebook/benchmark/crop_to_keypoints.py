"""Time from a uint8 crop to keypoints: posebook's models beside MoveNet and BlazePose, in the same rounds.

1. posebook's models run as files of `posebook export --end-to-end` in OpenVINO. Normalization and decoding
   are inside the file. For int8, the model inside the file is quantized; decoding stays in float32.
2. MoveNet and BlazePose run as `tflite.load_peer` runs them: OpenVINO, with conversion and decoding in NumPy.
3. All of them are in memory at once and their rounds interleave, so that any two can be compared. A model
   for which alone there is no memory is skipped with a reason.
4. Weights and crops are random, which does not affect the times.
5. If the outputs are wrong, the measurement stops: a float32 file must have the outputs of the model in
   PyTorch, and a peer those of `load_peer` with the number of threads at the start.
"""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from posebook import models
from posebook.benchmark import timing
from posebook.benchmark.rows import check_outputs, is_quiet, label
from posebook.benchmark.sweep import SweepConfig, failure_reason, skip_reason
from posebook.inference import export, runtimes, tflite
from posebook.utils import sha256

FORMS = ("OpenVINO fp32", "OpenVINO int8")
PEER_FORM = "OpenVINO"  # as in the records of tflite.evaluate_peer: the precision is that of the file
THREADS = (1, 2)
Run = Callable[[object], list]  # ignores its argument, and returns keypoints (1, K, 2) and scores (1, K)


@dataclass(frozen=True)
class Candidate:
    """What is timed: the fields of its rows, a function that compiles it, and its expected outputs.

    compile uses the current number of threads. It is None if `row` has the reason why nothing is timed.
    """

    row: dict
    compile: Callable[[], Run] | None = None
    expected: list = field(default_factory=list)


def measure(config: SweepConfig, peer_files: Sequence[str | Path] = ()) -> list[dict]:
    """Time the config's models in its runtimes of FORMS, and the peers' files: one row for each and THREADS.

    Rows are like those of the sweep: with `latency_ms` and `conditions`, or with `why`. `moved_joints` is the
    share of joints that are elsewhere than expected, and `difference` that of the scores. Raises
    export.OutputMismatch (choice 5), and the errors of `tflite.load_peer`.
    """
    rows: list[dict] = []
    waited, previous_threads = 0.0, torch.get_num_threads()
    try:
        with tempfile.TemporaryDirectory() as folder:
            candidates = [_peer(path) for path in peer_files]
            for name, size in config.inputs:
                forms = [form for form in FORMS if form in config.runtimes]
                candidates += [_own(name, size, form, config, Path(folder)) for form in forms]
            for number, threads in enumerate(THREADS):
                runtimes.use_threads(threads)
                wait = (config.max_wait - waited) / (len(THREADS) - number)
                timed = _time(candidates, threads, config.seconds, wait)
                waited += max(
                    (row["conditions"]["waited_seconds"] for row in timed if "why" not in row), default=0
                )
                rows += timed
    finally:
        runtimes.use_threads(previous_threads)
    return rows


def _peer(path: str | Path) -> Candidate:
    peer = tflite.load_peer(path)
    crop = np.random.default_rng(0).integers(0, 256, (peer.side, peer.side, 3), np.uint8)
    row = {"model": peer.name, "input_size": [peer.side, peer.side], "batch": 1, "form": PEER_FORM}

    def compile_peer() -> Run:
        run = tflite.load_peer(path).run
        return lambda _: list(run(crop))

    return Candidate(row | {"sha256": sha256(path)}, compile_peer, list(peer.run(crop)))


def _own(name: str, size: tuple[int, int], form: str, config: SweepConfig, folder: Path) -> Candidate:
    """A model in one runtime. folder: for its files."""
    row = {"model": name, "input_size": list(size), "batch": 1, "form": form}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = models.build(name, input_size=size).eval()
        if reason := skip_reason(model, torch.zeros(1, 3, *size), len(FORMS), "cpu"):
            return Candidate(row | {"why": reason})
        generator = torch.Generator().manual_seed(0)
        shape = (1 + config.num_calibration, *size, 3)
        crops = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        file = _file(model, form, crops[1:], folder / f"{name}-{size[0]}x{size[1]}.onnx")
        with torch.no_grad():
            expected = list(export.EndToEnd(model)(crops[:1]))
    except export.OutputMismatch as error:
        raise export.OutputMismatch(f"{name}: {error}") from error
    except Exception as error:  # such as a missing package: the others are measured
        return Candidate(row | {"why": failure_reason(error)})
    return Candidate(row, partial(_compile, file, crops[:1]), expected)


def _file(model: models.layers.PoseModel, form: str, calibration: Tensor, path: Path) -> Path:
    """The file of a model from crops to keypoints. calibration: crops (N, H, W, 3) for int8."""
    for package in ("onnxscript", "onnxruntime", "openvino"):
        runtimes.require(package, package)
    if not path.exists():
        export.export(model, path, end_to_end=True)
    if runtimes.is_float32(form):
        return path
    source = runtimes.openvino_core().read_model(path)
    quantized = path.with_suffix(".int8.xml")
    runtimes.quantize(source, [crop[None].numpy() for crop in calibration], quantized, _decoding(source))
    return quantized


def _decoding(source: object) -> list[str]:
    """Names of the operations of a file that decode: all that the search for the maximum does not need."""
    operations = source.get_ordered_ops()  # type: ignore[attr-defined]
    maxima = [op for op in operations if op.get_type_name() == "ReduceMax"]  # codecs.first_maximum
    open_ends = [value.get_node() for op in maxima for value in op.input_values()]
    needed = {}
    while open_ends:
        op = open_ends.pop()
        if op.get_friendly_name() not in needed:
            needed[op.get_friendly_name()] = op
            open_ends += [value.get_node() for value in op.input_values()]
    return [op.get_friendly_name() for op in operations if op.get_friendly_name() not in needed]


def _compile(file: Path, crop: Tensor) -> Run:
    run = runtimes.compile_openvino(file)
    return lambda _: run(crop)


def _time(candidates: Sequence[Candidate], threads: int, seconds: float, max_wait: float) -> list[dict]:
    """The rows of all candidates with one number of threads."""
    rows = [candidate.row | {"threads": threads} for candidate in candidates]
    runs: dict[str, Run] = {}
    for number, (row, candidate) in enumerate(zip(rows, candidates, strict=True)):
        if candidate.compile is None:
            continue
        try:
            run = candidate.compile()
            outputs = run(None)
        except Exception as error:
            row["why"] = failure_reason(error)
            continue
        _check(row, candidate.expected, outputs)
        runs[str(number)] = run
    samples, conditions = timing.quiet_timing(
        lambda: timing.interleaved_timing(runs, torch.empty(0), seconds=seconds), max_wait
    )
    for index, times in samples.items():
        timed = timing.summarize(times)
        fields = {"latency_ms": timed, "people_a_second": 1000 / timed["median"], "conditions": conditions}
        fields["quiet"] = timing.is_quiet(timed, conditions["others_share"])
        rows[int(index)] |= fields
    return rows


def _check(row: dict, expected: list, outputs: list) -> None:
    """Add to a row how its outputs differ. Raise export.OutputMismatch if they must not (choice 5)."""
    row["moved_joints"] = export.moved_joints(expected[0], outputs[0])
    row["difference"] = export.max_difference(expected[1:], outputs[1:])
    if row["form"] == "OpenVINO int8":
        return
    if row["form"] == PEER_FORM and row["difference"] > export.TOLERANCE:
        where = f"{row['difference']:.1e} from those with the number of threads at the start"
        raise export.OutputMismatch(f"{label(row)}: its scores differ by {where}")
    check_outputs(row | {"form": FORMS[0]}, f"{label(row)}: ")
    if row["moved_joints"] > export.MAX_MOVED:
        share = f"{row['moved_joints']:.0%} of the joints"
        raise export.OutputMismatch(f"{label(row)}: {row['form']} locates {share} elsewhere than expected")


def find_record(records: Iterable[dict]) -> dict | None:
    """The benchmark record with rows of `measure`: with peers first, then quiet, then newer; or None."""

    def priority(record: dict) -> tuple[bool, bool, str]:
        timed = [row for row in record["crop_to_keypoints"] if "latency_ms" in row]
        return any(row["form"] == PEER_FORM for row in timed), all(map(is_quiet, timed)), record["started"]

    return max((record for record in records if record.get("crop_to_keypoints")), key=priority, default=None)


def find_row(evaluation: dict, record: dict, threads: int) -> dict:
    """The row with the times of an evaluation's model, input size and runtime; {} if they were not timed.

    An evaluation in PyTorch has the outputs, and so the accuracy, of OpenVINO in float32.
    """
    form = evaluation["parameters"].get("runtime") or FORMS[0]
    key = evaluation["model"], evaluation["protocol"]["input_size"], form, threads
    for row in record["crop_to_keypoints"]:
        if (row["model"], row["input_size"], row["form"], row["threads"]) == key and "latency_ms" in row:
            return row
    return {}
