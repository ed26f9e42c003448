"""The sweep: wrong outputs stop it, other failures become rows, and it resumes; files match weights."""

import copy
import subprocess
import time

import pytest
import torch

from posebook import import_graph, models
from posebook.benchmark import memory, rows, sweep, timing
from posebook.inference import export, runtimes

SIZE = (64, 64)
pytestmark = pytest.mark.usefixtures("short_pauses")


def config(*names, **changes):
    """A sweep of RTMPose-t in these runtimes."""
    return sweep.SweepConfig([("rtmpose-t", SIZE)], names, **{"seconds": 0.1} | changes)


def make_rows(**rounds):
    """Benchmark rows of one model: for each runtime, the medians of its rounds."""
    return [
        {"model": "a", "input_size": [64, 64], "batch": 1, "threads": 2, "form": runtime, "difference": 0.0}
        | {"latency_ms": timing.summarize([[value] for value in medians])}
        for runtime, medians in rounds.items()
    ]


@pytest.fixture
def stub_export(monkeypatch):
    """Replace the ONNX export by a file of the weights; returns the list of exported paths."""
    exported = []

    def save(model, path, batch):
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(copy.deepcopy(model), path)
        exported.append(path)
        return path

    monkeypatch.setattr(export, "export", save)
    monkeypatch.setattr(runtimes, "require", lambda *_: None)
    return exported


def from_file(model, device, images, folder, **_):
    """A runtime that runs the exported file."""
    loaded = torch.load(runtimes.onnx_file(model, images, folder), weights_only=False)
    return runtimes.eager(loaded, device)


def test_every_combination_runs_its_own_weights(monkeypatch, stub_export):
    """With files keyed by folder and batch size, two threads ran the weights of one thread."""
    monkeypatch.setitem(runtimes.RUNTIMES, "file fp32", from_file)
    found, _ = sweep.run_sweep(config("file fp32", threads=[1, 2]))
    assert [row["form"] for row in found] == ["eager fp32", "file fp32"] * 2
    assert all(row["difference"] <= export.TOLERANCE for row in found)
    assert len(stub_export) == 1  # the seed gives the same weights for all numbers of threads


def test_exported_file_depends_on_weights_layers_and_sizes(tmp_path, stub_export):
    def file(name="amfacpose-r18", seed=0, size=SIZE, batch=1, **options):
        torch.manual_seed(seed)
        model = models.build(name, input_size=size, **options)
        return runtimes.onnx_file(model, torch.zeros(batch, 3, *size), tmp_path)

    first = file()
    assert file() == first and len(stub_export) == 1
    others = [file(seed=1), file(size=(64, 96)), file(batch=2), file(modulate="mask"), file(skeleton="mpii")]
    assert len({first, *others}) == 6 == len(stub_export)
    torch.manual_seed(0)
    model = models.build("amfacpose-r18", input_size=SIZE)
    hashed = runtimes.model_hash(model)
    assert runtimes.model_hash(model.eval()) == hashed
    model.stem[1].running_var[3] += 1  # a buffer is a weight, too
    assert runtimes.model_hash(model) != hashed


def wrong(model, device, **_):
    run = runtimes.eager(model, device)
    return lambda images: [output + 1 for output in run(images)]


def test_float32_runtime_with_other_outputs_stops_the_sweep(monkeypatch):
    monkeypatch.setitem(runtimes.RUNTIMES, "wrong fp32", wrong)
    monkeypatch.setitem(runtimes.RUNTIMES, "wrong int8", wrong)
    torch.set_num_threads(1)
    message = (
        r"^rtmpose-t, 64×64, batch 1, 2 threads: wrong fp32 differs from eager fp32 by \d\.\de[+-]\d+, "
        r"more than 1e-04: repair the export of this model, or leave out this runtime$"
    )
    with pytest.raises(export.OutputMismatch, match=message):
        sweep.run_sweep(config("wrong fp32", threads=[2]))
    assert torch.get_num_threads() == 1  # restored after the error
    found, _ = sweep.run_sweep(config("wrong int8"))
    assert found[1]["difference"] > export.TOLERANCE and "latency_ms" in found[1]


def test_rejected_export_stops_the_sweep(monkeypatch):
    def rejected(model, **_):
        raise export.OutputMismatch("the outputs of a.onnx differ from the model's by 1.0e+00")

    monkeypatch.setitem(runtimes.RUNTIMES, "rejected fp32", rejected)
    with pytest.raises(
        export.OutputMismatch, match="^rtmpose-t, .*, 1 thread: rejected fp32: the outputs of"
    ):
        sweep.run_sweep(config("rejected fp32"))


def test_wrong_row_is_never_ignored_in_a_record():
    found = make_rows(**{"eager fp32": [10.0], "OpenVINO fp32": [5.0], "OpenVINO int8": [1.0]})
    found[2]["difference"] = 0.3
    assert [row["form"] for row in rows.fastest_rows(found)] == ["OpenVINO fp32"]
    for difference in (1.6, float("inf"), float("nan")):
        found[1]["difference"] = difference
        with pytest.raises(
            export.OutputMismatch, match="^a, 64×64, batch 1, 2 threads: OpenVINO fp32 differs"
        ):
            rows.fastest_rows(found)


def test_warnings_name_noisy_rows_and_insignificant_differences():
    steady, other = [10.0, 10.1, 10.0, 10.1], [10.1, 10.0, 10.1, 10.0]
    lines = rows.noise_warnings(make_rows(a=steady, b=other, c=[20, 30, 20, 30]))
    assert any("a and b do not differ" in line or "b and a do not differ" in line for line in lines)
    assert any("c varies by" in line for line in lines) and len(lines) == 2
    assert rows.noise_warnings(make_rows(a=steady, b=[20.0, 20.1, 20.0, 20.1])) == []
    (row,) = make_rows(a=steady)
    row["latency_ms"]["drift"] = -0.9
    assert rows.noise_warnings([row]) == [
        f"{rows.label(row)}: a varies by 90% between the first and the last pass of a round"
    ]


def test_times_remain_without_the_memory(monkeypatch):
    def killed(*_):
        raise subprocess.CalledProcessError(-9, "python")

    monkeypatch.setitem(memory.RUNTIME_SCRIPTS, "eager fp32", "")
    monkeypatch.setattr(runtimes, "onnx_file", lambda *_: None)
    monkeypatch.setattr(memory, "resident_mib", killed)
    found, _ = sweep.run_sweep(config("folded fp32"))
    assert all("latency_ms" in row and "resident_mib" not in row for row in found)


def test_conditions_of_a_sweep_summarize_those_of_its_combinations():
    def timed(threads, quiet, waited, share):
        conditions = {"quiet": quiet, "waited_seconds": waited, "others_share": share}
        conditions |= {"load_before": 0.1 * threads, "load_after": 0.2 * threads}
        return [row | {"threads": threads, "conditions": conditions} for row in make_rows(a=[1], b=[2])]

    quiet = timed(1, True, 1.0, 0.01) + timed(2, True, 2.5, 0.02)
    assert rows.sweep_conditions(quiet) == {
        "quiet": True, "quiet_combinations": 2, "combinations": 2, "waited_seconds": 3.5,
        "load_before": 0.1, "load_after": 0.4, "others_share": 0.02,
    }  # fmt: skip
    both = rows.sweep_conditions(quiet + timed(4, False, 0.0, None))
    assert (both["quiet"], both["quiet_combinations"], both["others_share"]) == (False, 2, 0.02)
    assert not rows.sweep_conditions([])["quiet"] and not rows.is_quiet(make_rows(a=[1])[0])


def test_other_runtimes_are_measured_if_one_fails(monkeypatch):
    def broken(model, **_):
        raise RuntimeError("no such operator\nand much more")

    def silent(model, **_):
        raise RuntimeError

    def full(model, device, images, **_):
        if len(images) > 1:
            raise MemoryError
        return runtimes.eager(model, device)

    for maker in (broken, silent, full):
        monkeypatch.setitem(runtimes.RUNTIMES, maker.__name__, maker)
    found, _ = sweep.run_sweep(config("broken", "silent", "full", batches=[1, 2]))
    by_runtime = {(row["form"], row["batch"]): row for row in found}
    assert by_runtime["broken", 1]["why"] == "RuntimeError: no such operator"
    assert by_runtime["silent", 1]["why"] == "RuntimeError: "
    assert by_runtime["full", 2]["why"] == "no memory for this batch"
    assert "latency_ms" in by_runtime["full", 1]
    assert "latency_ms" in by_runtime["eager fp32", 2] and by_runtime["eager fp32", 1]["times"] == 1.0
    assert by_runtime["full", 1]["difference"] <= export.TOLERANCE
    assert {"quiet", "attempts", "load_before", "load_after"} <= by_runtime["full", 1]["conditions"].keys()
    row = by_runtime["full", 1]
    assert row["quiet"] is timing.is_quiet(row["latency_ms"], row["conditions"]["others_share"])


def test_waiting_is_shared_equally_by_the_combinations(monkeypatch):
    waits = []

    def measure_job(key, config, folder, max_wait):
        waits.append(max_wait)
        conditions = {"quiet": False, "waited_seconds": min(max_wait, 10.0), "others_share": 0.0}
        conditions |= {"load_before": 0.0, "load_after": 0.0}
        return [row | key | {"conditions": conditions} for row in make_rows(a=[1])], True

    monkeypatch.setattr(sweep, "_measure_job", measure_job)
    sweep.run_sweep(config(batches=[1, 2, 4], max_wait=60.0))
    assert waits == [20.0, 25.0, 40.0]  # the first two wait for ten seconds each


def test_onnx_runtime_leaves_the_cores_to_the_next_runtime(tmp_path, monkeypatch):
    """Threads that spin after a run would take the second core from the runtime that follows."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    model = models.build("starnet-pose-t", input_size=SIZE).eval()
    images = torch.randn(1, 3, *SIZE)
    run = runtimes.onnxruntime(model, "cpu", images, tmp_path)
    run(images)
    busy = []
    for _ in range(5):
        run(images)
        start = time.process_time()
        time.sleep(0.04)
        busy.append(time.process_time() - start)
    assert sorted(busy)[2] < 0.02  # about 0.04 if they spin


def test_row_is_quiet_by_its_own_rounds():
    steady, noisy = make_rows(a=[10.0, 10.1, 10.0, 10.1], b=[10.0, 20.0, 10.0, 20.0])
    assert timing.is_quiet(steady["latency_ms"], 0.01) and timing.is_quiet(steady["latency_ms"], None)
    assert not timing.is_quiet(steady["latency_ms"], 0.2) and not timing.is_quiet(noisy["latency_ms"], 0.01)
    # the times of one runtime do not become noisy because another runtime's are
    assert rows.is_quiet(steady | {"quiet": True, "conditions": {"quiet": False}})
    assert not rows.is_quiet(noisy | {"quiet": False, "conditions": {"quiet": True}})


def test_failure_of_the_baseline_is_a_reason_and_is_tried_again(tmp_path, monkeypatch):
    """The second model fails; the sweep continues with the third and saves only what it measured."""
    names = ["rtmpose-t", "amfacpose-r18", "starnet-pose-t"]
    settings = sweep.SweepConfig([(name, SIZE) for name in names], ["folded fp32"])

    def measure_model(model, *_):
        if type(model).__name__ == "AMFACPose":
            raise RuntimeError("no such kernel")
        return [{"form": sweep.BASELINE}]

    monkeypatch.setattr(sweep, "measure_model", measure_model)
    found, _ = sweep.run_sweep(settings, tmp_path)
    failed = [row for row in found if row["model"] == "amfacpose-r18"]
    assert [row["form"] for row in failed] == [sweep.BASELINE, "folded fp32"]
    assert all(row["why"] == "eager fp32: RuntimeError: no such kernel" for row in failed)
    assert [row["model"] for row in found if "why" not in row] == ["rtmpose-t", "starnet-pose-t"]
    saved = sorted(path.name.rpartition("-")[0] for path in tmp_path.iterdir())
    assert saved == ["rtmpose-t", "starnet-pose-t"]


def test_unknown_models_and_runtimes_are_rejected_at_once():
    with pytest.raises(ValueError, match="unknown model 'rtmpose-x'; did you mean rtmpose-"):
        sweep.SweepConfig([("rtmpose-x", SIZE)], [])
    with pytest.raises(ValueError, match="unknown runtime 'OpenVino fp32'; did you mean OpenVINO fp32"):
        config("OpenVino fp32")


def test_too_large_or_too_slow_combinations_are_skipped_with_a_reason(monkeypatch):
    model = models.build("rtmpose-t", input_size=SIZE).eval()
    images = torch.zeros(2, 3, *SIZE)
    assert sweep.skip_reason(model, images, 3, "cpu") is None
    reason = sweep.skip_reason(model, images, 10**9, "cpu")
    assert reason.startswith("no memory for a batch of 2: ") and reason.endswith(" are free")
    monkeypatch.setattr(sweep, "MAX_PASS_SECONDS", 0.0)
    slow = "a batch of 2 takes"
    assert sweep.skip_reason(model, images, 3, "cpu").startswith(slow)
    assert sweep.skip_reason(model, images[:1], 3, "cpu") is None  # latency is always measured
    found, _ = sweep.run_sweep(config("folded fp32", batches=[2]))
    assert [row["form"] for row in found] == [sweep.BASELINE, "folded fp32"]
    assert all(row["why"].startswith(slow) and "latency_ms" not in row for row in found)


def test_interrupted_sweep_resumes(tmp_path, monkeypatch):
    measured = []

    def measure_model(model, *_):
        measured.append(model.input_size)
        if model.input_size == (96, 96) and len(measured) == 2:
            raise KeyboardInterrupt
        return [{"form": sweep.BASELINE}]

    def run(sizes=((64, 64), (96, 96)), **changes):
        inputs = [("rtmpose-t", size) for size in sizes]
        return sweep.run_sweep(sweep.SweepConfig(inputs, [], **{"seconds": 0.1} | changes), folder)

    monkeypatch.setattr(sweep, "measure_model", measure_model)
    folder = tmp_path / "unfinished"
    with pytest.raises(KeyboardInterrupt):
        run(threads=[torch.get_num_threads()])
    found, earlier = run(threads=[torch.get_num_threads()])
    assert measured == [(64, 64), (96, 96), (96, 96)] and earlier > 0
    assert [row["input_size"] for row in found] == [[64, 64], [96, 96]]
    assert run()[0] == found and len(measured) == 3
    run([SIZE], seconds=0.2)
    assert len(measured) == 4  # other settings are another sweep
    monkeypatch.setattr(sweep, "package_versions", lambda: {"onnxruntime": "0.0"})
    run([SIZE])
    assert len(measured) == 5  # and so are other packages
    assert not list(folder.glob("*.tmp"))


def test_resuming_depends_on_all_code_that_affects_a_row(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(import_graph, "code_hash", lambda names: asked.append(names) or str(len(asked)))
    measured = []
    monkeypatch.setattr(sweep, "measure_model", lambda *_: measured.append(1) or [{"form": sweep.BASELINE}])
    for _ in range(2):  # the stub returns another hash each time
        sweep.run_sweep(config(), tmp_path)
    assert len(measured) == 2
    monkeypatch.undo()
    files = {path.name for path in import_graph.closure(map(import_graph.module_file, asked[0]))}
    assert {"export.py", "runtimes.py", "timing.py", "memory.py", "rtmpose.py", "layers.py"} <= files


def test_package_versions_are_none_if_not_installed(monkeypatch):
    monkeypatch.setattr(sweep, "PACKAGES", ("torch", "no-such-package"))
    versions = sweep.package_versions()
    assert versions["no-such-package"] is None and torch.__version__.startswith(
        versions["torch"].split("+")[0]
    )


@pytest.mark.slow
def test_runtimes_have_the_outputs_of_the_model_and_int8_is_close():
    for module in ("onnxscript", "onnxruntime", "openvino", "nncf"):
        pytest.importorskip(module)
    names = ["folded fp32", "folded fp32, channels last", *memory.RUNTIME_SCRIPTS, "OpenVINO int8"]
    inputs = [("starnet-pose-t", SIZE), ("amfacpose-r18", SIZE)]
    found, _ = sweep.run_sweep(sweep.SweepConfig(inputs, names, threads=[1, 2], seconds=0.1))
    assert len(found) == 2 * 2 * 6 and all("latency_ms" in row for row in found)
    for row in found:
        if row["form"] == "OpenVINO int8":
            assert export.TOLERANCE < row["difference"] < 0.5
        else:
            assert row["difference"] <= export.TOLERANCE
        if row["form"] in memory.RUNTIME_SCRIPTS:
            assert row["resident_mib"] is None or row["resident_mib"] > 5  # at least its weights
