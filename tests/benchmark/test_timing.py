"""Benchmarks: interleaved timing, statistics, memory, energy, and the sweep with its skipped rows."""

import functools
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from helpers import ROOT
from posebook import complexity, models
from posebook.benchmark import energy, memory, roofline, sweep, timing
from posebook.inference import export, runtimes


def test_rounds_interleave_and_record_every_sample():
    order = []

    def sleeper(name, seconds):
        def run(images):
            order.append(name)
            time.sleep(seconds)

        return run

    samples = timing.interleaved_timing(
        {"a": sleeper("a", 0.002), "b": sleeper("b", 0.004)}, torch.zeros(1), count=3, each=2, warmup=15
    )
    timed = order[-12:]  # after the warm-up of both
    assert timed == ["a", "a", "b", "b"] * 3
    assert [len(times) for times in samples["a"]] == [2, 2, 2]
    a, b = (timing.summarize(samples[name]) for name in "ab")
    assert 2 <= a["median"] < b["median"] and a["samples"] == samples["a"]
    assert timing.speedup(b, a)[1]


def test_seconds_bound_the_number_of_forwards():
    samples = timing.interleaved_timing(
        {"a": lambda images: time.sleep(0.02)}, torch.zeros(1), count=2, seconds=0.1, warmup=15
    )
    assert 1 <= len(samples["a"][0]) <= 3


def test_summary_and_speedup_are_computed_correctly():
    summary = timing.summarize([[1.0, 3.0], [2.0, 10.0]])
    assert summary["median"] == 2.5 and summary["mean"] == 4.0 and summary["rounds"] == [2.0, 6.0]
    assert summary["spread"] == 4 / 2.5
    assert summary["p99"] == pytest.approx(np.percentile([1, 2, 3, 10], 99))
    rising = {"rounds": [1.0, 2.0, 4.0, 8.0]}
    assert timing.speedup({"rounds": [2.0, 4.0, 8.0, 16.0]}, rising) == (2.0, True)
    assert timing.speedup({"rounds": [2.0, 1.0, 8.0, 4.0]}, rising)[1] is False


def test_warm_up_ends_when_times_are_stable():
    calls = []
    timing.warm_up(lambda images: (calls.append(1), time.sleep(0.005)), torch.zeros(1), timing.clock(), 50)
    assert 15 <= len(calls) < 50


def test_activation_bytes_are_those_of_tensors_alive_at_once():
    class Three(nn.Module):
        def forward(self, x):
            a = x + 1
            b = a + 1
            del a
            return [b + 1]

    assert memory.peak_activation_bytes(Three(), torch.zeros(1, 3, 8, 8)) == 2 * 4 * 3 * 64


def test_layer_costs_agree_with_the_complexity_counter():
    model = models.build("starnet-pose-t", input_size=(64, 64))
    rows = roofline.layer_times(model, torch.zeros(1, 3, 64, 64), runs=3)
    op_types = {row["kind"] for row in rows}
    assert {"depthwise", "1x1", "other convolutions", "norms", "linear", "between layers"} <= op_types
    assert all(row["ms"] >= 0 for row in rows)
    macs = sum(row["macs"] for row in rows)
    # the products of attention are not those of a layer
    assert 0.9 < macs / complexity.count(model, (64, 64))["macs"]["exact"] <= 1.0


def test_roofline_is_plausible():
    roofs = roofline.measure_roofline(side=256, mebibytes=16)
    assert 0.1 < roofs["gmacs"] < 1e6 and 0.1 < roofs["gbytes"] < 1e5


def test_energy_meter_reads_rapl_or_is_none(tmp_path):
    assert energy.energy_meter(root=tmp_path) is None
    for socket, microjoules in enumerate((2_000_000, 500_000)):
        (tmp_path / f"intel-rapl:{socket}").mkdir()
        (tmp_path / f"intel-rapl:{socket}" / "energy_uj").write_text(f"{microjoules}\n")
    assert energy.energy_meter(root=tmp_path)() == 2.5


def test_machine_state_always_has_all_fields():
    assert {"load", "cores", "governor", "mhz", "max_mhz"} == timing.machine_state().keys()


def test_unavailable_runtime_states_the_reason(tmp_path, monkeypatch):
    model, images = models.build("rtmpose-t", input_size=(64, 64)), torch.zeros(1, 3, 64, 64)
    settings = {"device": "cpu", "images": images, "folder": tmp_path}
    with pytest.raises(runtimes.Unavailable, match="float16 is for GPUs"):
        runtimes.eager_fp16(model, **settings)
    with pytest.raises(runtimes.Unavailable, match="CUDA graphs need a CUDA device"):
        runtimes.cuda_graph(model, **settings)
    with pytest.raises(runtimes.Unavailable, match="nowhere is not installed: pip install nothing"):
        runtimes.require("nowhere", "nothing")
    monkeypatch.setattr(runtimes, "require", lambda *_: None)
    with pytest.raises(runtimes.Unavailable, match="int8 needs calibration images"):
        runtimes.openvino_int8(model, **settings)


def make_rows(**rounds):
    """Benchmark rows of one model: for each runtime, the medians of its rounds."""
    return [
        {"model": "a", "input_size": [64, 64], "batch": 1, "threads": 2, "form": runtime, "difference": 0.0}
        | {"latency_ms": timing.summarize([[value] for value in medians])}
        for runtime, medians in rounds.items()
    ]


def test_model_is_compiled_for_every_size(monkeypatch):
    """Dynamo compiles at most eight sizes. A ninth would run eagerly and be reported as compiled."""

    class Tiny(nn.Module):
        def __init__(self, side):
            super().__init__()
            self.input_size = side, side
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, images):
            return [self.conv(images)]

    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    for count in range(1, 11):
        runtimes.compiled(Tiny(count), device="cpu")(torch.zeros(1, 3, count, count))
        assert counter.frame_count == count


def test_energy_is_per_person():
    joules = []
    run = lambda images: (time.sleep(0.01), joules.append(6.0))  # noqa: E731
    assert energy.joules_per_person(run, torch.zeros(3, 1), lambda: sum(joules), seconds=0.05) == 2.0


def test_warnings_name_noisy_rows_and_insignificant_differences():
    steady, other = [10.0, 10.1, 10.0, 10.1], [10.1, 10.0, 10.1, 10.0]
    lines = sweep.noise_warnings(make_rows(a=steady, b=other, c=[20, 30, 20, 30]))
    assert any("a and b do not differ" in line or "b and a do not differ" in line for line in lines)
    assert any("c varies by" in line for line in lines) and len(lines) == 2
    assert sweep.noise_warnings(make_rows(a=steady, b=[20.0, 20.1, 20.0, 20.1])) == []


def test_inexact_runtime_is_not_the_fastest_exact_one():
    rows = make_rows(plain=[10.0], int8=[1.0])
    rows[1]["difference"] = 0.3
    assert [row["form"] for row in sweep.fastest_rows(rows)] == ["plain"]
    assert [row["form"] for row in sweep.fastest_rows(rows, exact=False)] == ["int8"]


def test_other_runtimes_are_measured_if_one_fails(tmp_path, monkeypatch):
    def broken(model, **_):
        raise RuntimeError("no such operator\nand much more")

    def full(model, device, images, **_):
        if len(images) > 1:
            raise MemoryError
        return runtimes.eager(model, device)

    monkeypatch.setitem(runtimes.RUNTIMES, "broken", broken)
    monkeypatch.setitem(runtimes.RUNTIMES, "full", full)
    rows, _ = sweep.run_sweep(["rtmpose-t"], [(64, 64)], ["broken", "full"], [1, 2], [1], seconds=5)
    by_runtime = {(row["form"], row["batch"]): row for row in rows}
    assert by_runtime["broken", 1]["why"] == "RuntimeError: no such operator"
    assert by_runtime["full", 2]["why"] == "no memory for a batch of 2"
    assert "latency_ms" in by_runtime["full", 1]
    assert "latency_ms" in by_runtime["eager fp32", 2] and by_runtime["eager fp32", 1]["times"] == 1.0
    assert by_runtime["full", 1]["difference"] <= export.TOLERANCE


def test_too_large_or_too_slow_combinations_are_skipped_with_a_reason():
    model = models.build("rtmpose-t", input_size=(64, 64)).eval()
    images = torch.zeros(2, 3, 64, 64)
    assert sweep.skip_reason(model, images, 3, "cpu", 60.0) is None
    reason = sweep.skip_reason(model, images, 10**9, "cpu", 60.0)
    assert reason.startswith("no memory for a batch of 2: ") and reason.endswith(" are free")
    slow = "a batch of 2 takes"
    assert sweep.skip_reason(model, images, 3, "cpu", 0.0).startswith(slow)
    assert sweep.skip_reason(model, images[:1], 3, "cpu", 0.0) is None  # latency is always measured
    rows, _ = sweep.run_sweep(["rtmpose-t"], [(64, 64)], ["folded fp32"], [2], [1], seconds=0.0)
    assert [row["form"] for row in rows] == [sweep.BASELINE, "folded fp32"]
    assert all(row["why"].startswith(slow) and "latency_ms" not in row for row in rows)


def test_interrupted_sweep_resumes(tmp_path, monkeypatch):
    settings, measured = dict(runtime_names=[], batches=[1], threads=[1], seconds=0.1), []

    def measure_model(model, *_):
        measured.append(model.input_size)
        if model.input_size == (96, 96) and len(measured) == 2:
            raise KeyboardInterrupt
        return [{"form": sweep.BASELINE}]

    monkeypatch.setattr(sweep, "measure_model", measure_model)
    sizes, folder = [(64, 64), (96, 96)], tmp_path / "unfinished"
    with pytest.raises(KeyboardInterrupt):
        sweep.run_sweep(["rtmpose-t"], sizes, unfinished=folder, **settings)
    rows, earlier = sweep.run_sweep(["rtmpose-t"], sizes, unfinished=folder, **settings)
    assert measured == [(64, 64), (96, 96), (96, 96)] and earlier > 0
    assert [row["input_size"] for row in rows] == [[64, 64], [96, 96]]
    again, _ = sweep.run_sweep(["rtmpose-t"], sizes, unfinished=folder, **settings)
    assert again == rows and len(measured) == 3
    sweep.run_sweep(["rtmpose-t"], sizes[:1], unfinished=folder, **settings | {"seconds": 0.2})
    assert len(measured) == 4  # other settings are another sweep
    assert not list(folder.glob("*.part"))


@pytest.mark.slow
def test_runtimes_have_the_outputs_of_the_model_and_int8_is_close():
    for module in ("onnxscript", "onnxruntime", "openvino", "nncf"):
        pytest.importorskip(module)
    names = [
        "folded fp32",
        "folded fp32, channels last",
        "ONNX Runtime fp32",
        "OpenVINO fp32",
        "OpenVINO int8",
    ]
    rows, _ = sweep.run_sweep(["starnet-pose-t"], [(64, 64)], names, [1], [1], seconds=0.2, num_calibration=8)
    by_runtime = {row["form"]: row for row in rows}
    assert all("latency_ms" in by_runtime[name] for name in names)
    assert all(by_runtime[name]["difference"] <= export.TOLERANCE for name in names[:-1])
    assert export.TOLERANCE < by_runtime["OpenVINO int8"]["difference"] < 0.5
    for name in memory.RUNTIME_SCRIPTS:
        mib = by_runtime[name]["resident_mib"]
        assert mib is None or mib > 5  # at least its weights


@pytest.mark.slow
def test_int8_accuracy_is_close_to_float32(tmp_path):
    """With shipped weights, on the rendered people of 40 images."""
    for module in ("openvino", "nncf", "pycocotools"):
        pytest.importorskip(module)
    from posebook import datasets
    from posebook.datasets.synthetic import writing

    writing.generate(tmp_path, train_images=20, val_images=40, workers=1)
    model = models.load_weights(ROOT / "data/weights/starnet-pose-t-synthetic.safetensors")
    train, val = (datasets.load("synthetic", tmp_path, split) for split in ("train", "val"))
    ap = sweep.int8_accuracy(model, train, val, num_images=32)
    assert ap["fp32"] > 0.2 and abs(ap["fp32"] - ap["int8"]) < 0.1
