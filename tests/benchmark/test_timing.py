"""Timing: rounds interleave, statistics are what they say, and each form runs or says why not."""

import functools
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from helpers import ROOT
from posebook import models
from posebook.benchmark import energy, memory, roofline, sweep, timing
from posebook.inference import export, runtimes


def test_rounds_interleave_and_keep_every_sample():
    order = []

    def form(name, seconds):
        def run(images):
            order.append(name)
            time.sleep(seconds)

        return run

    found = timing.interleaved_timing(
        {"a": form("a", 0.002), "b": form("b", 0.004)}, torch.zeros(1), count=3, each=2, warmup=15
    )
    timed = order[-12:]  # after both were warmed up
    assert timed == ["a", "a", "b", "b"] * 3
    assert [len(part) for part in found["a"]] == [2, 2, 2]
    a, b = (timing.summarize(found[name]) for name in "ab")
    assert 2 <= a["median"] < b["median"] and a["samples"] == found["a"]
    assert timing.speedup(b, a)[1]


def test_seconds_bound_the_number_of_forwards():
    found = timing.interleaved_timing(
        {"a": lambda images: time.sleep(0.02)}, torch.zeros(1), count=2, seconds=0.1, warmup=15
    )
    assert 1 <= len(found["a"][0]) <= 3


def test_summary_and_ratio_against_plain_arithmetic():
    samples = [[1.0, 3.0], [2.0, 10.0]]
    found = timing.summarize(samples)
    assert found["median"] == 2.5 and found["mean"] == 4.0 and found["rounds"] == [2.0, 6.0]
    assert found["spread"] == 4 / 2.5 and found["p99"] == pytest.approx(np.percentile([1, 2, 3, 10], 99))
    rising = {"rounds": [1.0, 2.0, 4.0, 8.0]}
    assert timing.speedup({"rounds": [2.0, 4.0, 8.0, 16.0]}, rising) == (2.0, True)
    assert timing.speedup({"rounds": [2.0, 1.0, 8.0, 4.0]}, rising)[1] is False


def test_settle_ends_when_times_are_steady():
    calls = []
    timing.warm_up(lambda images: (calls.append(1), time.sleep(0.005)), torch.zeros(1), timing.clock(), 50)
    assert 15 <= len(calls) < 50


def test_activations_are_what_is_alive_at_once():
    class Three(nn.Module):
        def forward(self, x):
            a = x + 1
            b = a + 1
            del a
            return [b + 1]

    assert memory.peak_activation_bytes(Three(), torch.zeros(1, 3, 8, 8)) == 2 * 4 * 3 * 64


def test_layers_own_times_add_up_and_count_as_the_counter_does():
    from posebook import complexity

    net = models.build("starnet-pose-t", input_size=(64, 64))
    found = roofline.layer_times(net, torch.zeros(1, 3, 64, 64), runs=3)
    kinds = {row["kind"] for row in found}
    assert {"depthwise", "1x1", "other convolutions", "norms", "linear", "between layers"} <= kinds
    assert all(row["ms"] >= 0 for row in found)
    layers = sum(row["macs"] for row in found)
    assert (
        0.9 < layers / complexity.count(net, (64, 64))["macs"]["exact"] <= 1.0
    )  # attention's products apart


def test_roofs_are_those_of_a_machine():
    found = roofline.measure_roofline(side=256, mebibytes=16)
    assert 0.1 < found["gmacs"] < 1e6 and 0.1 < found["gbytes"] < 1e5


def test_energy_is_read_where_the_machine_tells(tmp_path):
    assert energy.energy_meter(root=tmp_path) is None
    for number, used in enumerate((2_000_000, 500_000)):
        (tmp_path / f"intel-rapl:{number}").mkdir()
        (tmp_path / f"intel-rapl:{number}" / "energy_uj").write_text(f"{used}\n")
    assert energy.energy_meter(root=tmp_path)() == 2.5


def test_surroundings_leave_empty_what_the_system_does_not_say():
    assert {"load", "cores", "governor", "mhz", "max_mhz"} == timing.machine_state().keys()


def test_a_form_that_cannot_be_had_says_why(tmp_path, monkeypatch):
    net, images = models.build("rtmpose-t", input_size=(64, 64)), torch.zeros(1, 3, 64, 64)
    about = {"device": "cpu", "images": images, "folder": tmp_path}
    with pytest.raises(runtimes.Unavailable, match="float16 is for GPUs"):
        runtimes.eager_fp16(net, **about)
    with pytest.raises(runtimes.Unavailable, match="CUDA graphs need a CUDA device"):
        runtimes.cuda_graph(net, **about)
    with pytest.raises(runtimes.Unavailable, match="nowhere is not installed: pip install nothing"):
        runtimes.require("nowhere", "nothing")
    monkeypatch.setattr(runtimes, "require", lambda *names: None)
    with pytest.raises(runtimes.Unavailable, match="int8 needs calibration pictures"):
        runtimes.openvino_int8(net, **about)


def made_up(**rounds):
    """Benchmark rows of one model with these rounds' medians."""
    return [
        {"model": "net", "input_size": [64, 64], "batch": 1, "threads": 2, "form": form, "difference": 0.0}
        | {"latency_ms": timing.summarize([[value] for value in medians])}
        for form, medians in rounds.items()
    ]


def test_a_net_is_compiled_at_every_size(monkeypatch):
    """Dynamo stops at eight sizes, and a ninth would be timed eagerly under the other name."""

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


def test_energy_is_that_of_a_person():
    used = []
    run = lambda images: (time.sleep(0.01), used.append(6.0))  # noqa: E731
    assert energy.joules_per_person(run, torch.zeros(3, 1), lambda: sum(used), seconds=0.05) == 2.0


def test_warnings_name_noise_and_what_cannot_be_told_apart():
    steady, other = [10.0, 10.1, 10.0, 10.1], [10.1, 10.0, 10.1, 10.0]
    said = sweep.noise_warnings(made_up(a=steady, b=other, c=[20, 30, 20, 30]))
    assert any("a and b cannot be told apart" in line or "b and a cannot" in line for line in said)
    assert any("c differs by" in line for line in said) and len(said) == 2
    assert sweep.noise_warnings(made_up(a=steady, b=[20.0, 20.1, 20.0, 20.1])) == []


def test_a_form_that_answers_otherwise_is_never_best():
    rows = made_up(plain=[10.0], int8=[1.0])
    rows[1]["difference"] = 0.3
    assert [row["form"] for row in sweep.fastest_rows(rows)] == ["plain"]
    assert [row["form"] for row in sweep.fastest_rows(rows, exact=False)] == ["int8"]


def test_a_failing_form_and_a_full_memory_leave_the_others(tmp_path, monkeypatch):
    def broken(model, **how):
        raise RuntimeError("no such operator\nand much more")

    def full(model, device, images, **how):
        if len(images) > 1:
            raise MemoryError
        return runtimes.eager(model, device)

    monkeypatch.setitem(runtimes.RUNTIMES, "broken", broken)
    monkeypatch.setitem(runtimes.RUNTIMES, "full", full)
    rows, _ = sweep.run_sweep(["rtmpose-t"], [(64, 64)], ["broken", "full"], [1, 2], [1], seconds=5)
    found = {(row["form"], row["batch"]): row for row in rows}
    assert found["broken", 1]["why"] == "RuntimeError: no such operator"
    assert found["full", 2]["why"] == "no memory for a batch of 2" and "latency_ms" in found["full", 1]
    assert "latency_ms" in found["eager fp32", 2] and found["eager fp32", 1]["times"] == 1.0
    assert found["full", 1]["difference"] <= export.TOLERANCE


def test_what_is_too_large_or_too_slow_is_left_out_and_says_so():
    net = models.build("rtmpose-t", input_size=(64, 64)).eval()
    images = torch.zeros(2, 3, 64, 64)
    assert sweep.skip_reason(net, images, 3, "cpu", 60.0) is None
    reason = sweep.skip_reason(net, images, 10**9, "cpu", 60.0)
    assert reason.startswith("no memory for a batch of 2: ") and reason.endswith(" are free")
    slow = "a forward of a batch of 2 takes"
    assert sweep.skip_reason(net, images, 3, "cpu", 0.0).startswith(slow)
    assert sweep.skip_reason(net, images[:1], 3, "cpu", 0.0) is None  # latency is always had
    rows, _ = sweep.run_sweep(["rtmpose-t"], [(64, 64)], ["folded fp32"], [2], [1], seconds=0.0)
    assert [row["form"] for row in rows] == [sweep.BASELINE, "folded fp32"]
    assert all(row["why"].startswith(slow) and "latency_ms" not in row for row in rows)


def test_a_stopped_benchmark_goes_on_where_it_was(tmp_path, monkeypatch):
    asked, measured = dict(wanted=[], batches=[1], threads=[1], seconds=0.1), []

    def one(net, *more):
        measured.append(net.input_size)
        if net.input_size == (96, 96) and len(measured) == 2:
            raise KeyboardInterrupt
        return [{"form": sweep.BASELINE}]

    monkeypatch.setattr(sweep, "measure_model", one)
    sizes, folder = [(64, 64), (96, 96)], tmp_path / "unfinished"
    with pytest.raises(KeyboardInterrupt):
        sweep.run_sweep(["rtmpose-t"], sizes, unfinished=folder, **asked)
    rows, earlier = sweep.run_sweep(["rtmpose-t"], sizes, unfinished=folder, **asked)
    assert measured == [(64, 64), (96, 96), (96, 96)] and earlier > 0
    assert [row["input_size"] for row in rows] == [[64, 64], [96, 96]]
    again, _ = sweep.run_sweep(["rtmpose-t"], sizes, unfinished=folder, **asked)
    assert again == rows and len(measured) == 3
    sweep.run_sweep(["rtmpose-t"], sizes[:1], unfinished=folder, **asked | {"seconds": 0.2})
    assert len(measured) == 4  # another question
    assert not list(folder.glob("*.part"))


@pytest.mark.slow
def test_runtimes_answer_as_the_model_does_and_int8_nearly(tmp_path):
    for module in ("onnxscript", "onnxruntime", "openvino", "nncf"):
        pytest.importorskip(module)
    wanted = [
        "folded fp32",
        "folded fp32, channels last",
        "ONNX Runtime fp32",
        "OpenVINO fp32",
        "OpenVINO int8",
    ]
    rows, _ = sweep.run_sweep(["starnet-pose-t"], [(64, 64)], wanted, [1], [1], seconds=0.2, calibration=8)
    found = {row["form"]: row for row in rows}
    assert all("latency_ms" in found[form] for form in wanted)
    assert all(found[form]["difference"] <= export.TOLERANCE for form in wanted[:-1])
    assert export.TOLERANCE < found["OpenVINO int8"]["difference"] < 0.5
    for form in memory.RUNTIME_SCRIPTS:
        held = found[form]["resident_mib"]
        assert held is None or held > 5  # at least its weights


@pytest.mark.slow
def test_shipped_int8_keeps_most_of_its_accuracy(tmp_path):
    """On a hundred drawn people the 8-bit net finds joints about as the float one does."""
    for module in ("openvino", "nncf", "pycocotools"):
        pytest.importorskip(module)
    from posebook import datasets
    from posebook.datasets.synthetic import writing

    writing.generate(tmp_path, train_images=20, val_images=40, workers=1)
    root = ROOT
    net = models.load_weights(root / "data/weights/starnet-pose-t-synthetic.safetensors")
    people = [datasets.load("synthetic", tmp_path, split) for split in ("train", "val")]
    found = sweep.int8_accuracy(net, *people, pictures=32)
    assert found["fp32"] > 0.2 and abs(found["fp32"] - found["int8"]) < 0.1
