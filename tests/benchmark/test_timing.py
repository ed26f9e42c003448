"""Benchmarks: interleaved timing, statistics, waiting for a quiet machine, memory and energy."""

import functools
import itertools
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from posebook import complexity, models
from posebook.benchmark import energy, memory, roofline, timing
from posebook.inference import runtimes


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
    turns = [name for name, _ in itertools.groupby(order)][2:]  # after the warm-up of both
    # the same runtime can be the last of a round and the first of the next one: one longer turn
    assert 4 <= len(turns) <= 6 and set(turns) == {"a", "b"}
    assert order.count("a") >= 15 + 3 * (2 + 0.05 / 0.004)  # warm-up; timed and untimed passes
    assert [len(times) for times in samples["a"]] == [2, 2, 2]
    a, b = (timing.summarize(samples[name]) for name in "ab")
    assert 2 <= a["median"] < b["median"] and a["samples"] == samples["a"]
    assert timing.speedup(b, a)[1]


def test_seconds_bound_the_number_of_forwards():
    samples = timing.interleaved_timing(
        {"a": lambda images: time.sleep(0.02)}, torch.zeros(1), count=2, seconds=0.1, warmup=15
    )
    assert 1 <= len(samples["a"][0]) <= 3


def test_order_changes_from_round_to_round(monkeypatch):
    order = []
    runs = {name: lambda images, name=name: order.append(name) for name in "abc"}
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    timing.interleaved_timing(runs, torch.zeros(1), count=8, each=1, warmup=15)
    rounds = [tuple(order[-24:][i : i + 3]) for i in range(0, 24, 3)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds) and len(set(rounds)) > 1


def test_a_turn_starts_after_the_work_of_the_last_one():
    """A function that disturbs the next one for a while, as waiting threads do, does not slow it down."""
    busy_until = [0.0]

    def disturbing(images):
        busy_until[0] = time.perf_counter() + 0.03

    def disturbed(images):
        time.sleep(0.02 if time.perf_counter() < busy_until[0] else 0.002)

    samples = timing.interleaved_timing(
        {"a": disturbing, "b": disturbed}, torch.zeros(1), count=6, each=3, warmup=15
    )
    assert np.median(samples["b"]) < 10


def test_disturbance_within_rounds_is_not_quiet():
    """Here every round begins with a disturbed pass, so the medians of the rounds agree."""
    summary = timing.summarize([[12.0, 7.0, 6.8]] * 6)
    assert summary["spread"] == 0 and summary["drift"] == pytest.approx(12 / 6.8 - 1)
    assert not timing.is_quiet(summary, 0.0)
    assert timing.is_quiet(timing.summarize([[7.0, 7.0, 6.8]] * 6), 0.0)
    assert timing.summarize([[5.0]])["drift"] == 0


def test_summary_and_speedup_are_computed_correctly():
    summary = timing.summarize([[1.0, 3.0], [2.0, 10.0]])
    assert summary["median"] == 2.5 and summary["mean"] == 4.0 and summary["rounds"] == [2.0, 6.0]
    assert summary["spread"] == (5 - 3) / 2.5  # the quartiles of two rounds
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


def test_a_layer_that_runs_twice_has_the_costs_of_both_calls():
    layer = nn.Conv2d(3, 3, 3, padding=1)
    once, twice = (
        roofline.layer_times(nn.Sequential(*[layer] * count), torch.zeros(1, 3, 16, 16), runs=1)
        for count in (1, 2)
    )
    for key in ("macs", "bytes"):
        assert sum(row[key] for row in twice) == 2 * sum(row[key] for row in once) > 0


def test_roofline_is_plausible():
    roofs = roofline.measure_roofline(side=256, mebibytes=16)
    assert 0.1 < roofs["gmacs"] < 1e6 and 0.1 < roofs["gbytes"] < 1e5


def test_energy_meter_reads_rapl_or_is_none(tmp_path):
    assert energy.energy_meter(root=tmp_path) is None
    for socket, microjoules in enumerate((2_000_000, 500_000)):
        (tmp_path / f"intel-rapl:{socket}").mkdir()
        (tmp_path / f"intel-rapl:{socket}" / "energy_uj").write_text(f"{microjoules}\n")
        (tmp_path / f"intel-rapl:{socket}" / "name").write_text(f"package-{socket}\n")
    assert energy.energy_meter(root=tmp_path)() == 2.5
    (tmp_path / "intel-rapl:2").mkdir()
    (tmp_path / "intel-rapl:2" / "energy_uj").write_text("9000000\n")
    (tmp_path / "intel-rapl:2" / "name").write_text("psys\n")  # contains the packages
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
    wrapped = iter([65.5, 0.4])
    assert energy.joules_per_person(run, torch.zeros(3, 1), lambda: next(wrapped), seconds=0.05) is None


class Machine:
    """A simulated machine: its clock advances only by sleeping and measuring; `loads` is what others use.

    loads: the share of all cores that other processes use in each second.
    """

    def __init__(self, loads):
        self.loads, self.time, self.used, self.measured = loads, 0.0, 0.0, []

    def load(self):
        return self.loads[min(int(self.time), len(self.loads) - 1)]

    def sleep(self, seconds):
        self.used += seconds * self.load() * timing.os.cpu_count()
        self.time += seconds

    def measure(self):
        """Four rounds in two seconds. The time of a forward pass is 10 ms, and 20 ms on a loaded machine."""
        samples = []
        for _ in range(4):
            samples.append([20.0 if self.load() > 0.5 else 10.0])
            self.sleep(0.5)
        self.measured.append(samples)
        return {"a": samples}

    def run(self, max_wait):
        return timing.quiet_timing(self.measure, max_wait, lambda: self.time, self.sleep, lambda: self.used)


def test_quiet_machine_is_measured_at_once():
    machine = Machine([0.0])
    samples, conditions = machine.run(max_wait=60)
    assert samples == {"a": [[10.0]] * 4} and conditions["quiet"]
    assert conditions["attempts"] == 1 and conditions["others_share"] == 0
    assert conditions["waited_seconds"] <= 0.5


def test_measurement_waits_for_the_end_of_other_work():
    machine = Machine([1.0] * 7 + [0.0])
    samples, conditions = machine.run(max_wait=60)
    assert samples == {"a": [[10.0]] * 4} and conditions["quiet"] and conditions["attempts"] == 1
    assert 7 <= conditions["waited_seconds"] <= 8


def test_measurement_is_repeated_if_other_work_begins_meanwhile():
    machine = Machine([0.0, 1.0, 1.0, 0.0])  # the first measurement is disturbed in its second half
    samples, conditions = machine.run(max_wait=60)
    assert machine.measured[0] == [[10.0], [10.0], [20.0], [20.0]]
    assert samples == {"a": [[10.0]] * 4} and conditions["quiet"] and conditions["attempts"] == 2


@pytest.mark.parametrize("max_wait", [0, 5, 30])
def test_waiting_ends_and_the_run_is_not_quiet(max_wait):
    machine = Machine([1.0])
    samples, conditions = machine.run(max_wait)
    assert samples == {"a": [[20.0]] * 4}  # its rounds agree, but others used the processor
    assert not conditions["quiet"] and conditions["others_share"] == 1.0
    assert max_wait <= conditions["waited_seconds"] <= max_wait + 2.5  # one attempt, or one look


def test_best_attempt_is_kept_if_none_is_quiet():
    machine = Machine([0.0, 1.0, 1.0, 0.3])
    samples, conditions = machine.run(max_wait=4)
    assert len(machine.measured) > 1 and samples == {"a": [[10.0]] * 4}
    assert not conditions["quiet"] and conditions["attempts"] == len(machine.measured)


def test_rounds_that_differ_are_not_quiet_without_information_on_load(monkeypatch):
    rounds = iter([[[10.0], [20.0], [10.0], [20.0]], [[10.0]] * 4])
    samples, conditions = timing.quiet_timing(lambda: {"a": next(rounds)}, 60, others=lambda: None)
    assert samples == {"a": [[10.0]] * 4}
    assert conditions["quiet"] and conditions["others_share"] is None and conditions["attempts"] == 2


def test_processor_time_of_others_is_read_from_the_system(tmp_path):
    assert timing.others_cpu_seconds(tmp_path / "missing") is None
    ticks = timing.os.sysconf("SC_CLK_TCK")
    (tmp_path / "stat").write_text(
        f"cpu  {1000 * ticks} {20 * ticks} 0 {9999 * ticks} 77 0 0 {3 * ticks} 5 5\n"
    )
    own = sum(timing.os.times()[:2])
    assert timing.others_cpu_seconds(tmp_path / "stat") == pytest.approx(1023 - own, abs=0.5)


@pytest.mark.skipif(timing.others_cpu_seconds() is None, reason="this system has no /proc/stat")
def test_processor_time_of_another_process_is_seen():
    code = "import time\nwhile time.process_time() < 0.5: pass"
    before = timing.others_cpu_seconds()
    subprocess.run([sys.executable, "-c", code], check=True)
    assert timing.others_cpu_seconds() - before > 0.4
