"""From crop to keypoints: rows of own models and peers, wrong outputs stop, other failures are reasons."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from posebook.benchmark import crop_to_keypoints, timing
from posebook.benchmark.sweep import SweepConfig
from posebook.inference import export, runtimes, tflite

SIZE = (64, 64)
pytestmark = pytest.mark.usefixtures("short_pauses")
FP32, INT8 = crop_to_keypoints.FORMS


def config(*forms, names=("rtmpose-t",), **changes):
    return SweepConfig(
        [(name, SIZE) for name in names], forms, **{"seconds": 0.05, "num_calibration": 2} | changes
    )


@pytest.fixture
def stub(monkeypatch, tmp_path):
    """Without OpenVINO: own files are PyTorch models, and a.tflite is a peer. Returns the exported models."""
    exported, threads = {}, []

    def save(model, path, end_to_end):
        assert end_to_end and path not in exported
        path.write_text("")
        exported[path] = export.EndToEnd(model)
        return path

    def compile_openvino(path):
        threads.append(torch.get_num_threads())
        model = exported[path]
        return lambda crops: [output.numpy() for output in model(crops)]

    def load_peer(path):
        points = np.tile(np.arange(17.0)[:, None], 2)
        return tflite.Peer("a", 48, lambda crop: (points + crop[0, 0, 0], np.ones(17)))

    monkeypatch.setattr(export, "export", save)
    monkeypatch.setattr(runtimes, "require", lambda *_: None)
    monkeypatch.setattr(runtimes, "compile_openvino", compile_openvino)
    monkeypatch.setattr(tflite, "load_peer", load_peer)
    (tmp_path / "a.tflite").write_bytes(b"file")
    return threads


@torch.no_grad()
def test_models_and_peers_are_timed_in_the_same_rounds(stub, tmp_path):
    torch.set_num_threads(1)
    rows = crop_to_keypoints.measure(
        config(FP32, "eager fp32", names=["rtmpose-t", "lapx"]), [tmp_path / "a.tflite"]
    )
    keys = [(row["model"], row["form"], row["threads"], tuple(row["input_size"])) for row in rows]
    once = [("a", "OpenVINO", (48, 48)), ("rtmpose-t", FP32, SIZE), ("lapx", FP32, SIZE)]
    assert keys == [(name, form, threads, size) for threads in (1, 2) for name, form, size in once]
    assert stub == [1, 1, 2, 2] and torch.get_num_threads() == 1
    for row in rows:
        assert row["difference"] <= export.TOLERANCE and row["moved_joints"] == 0 and row["batch"] == 1
        assert row["latency_ms"]["median"] > 0 and len(row["latency_ms"]["rounds"]) == 10
    assert rows[0]["conditions"] is rows[2]["conditions"] is not rows[3]["conditions"]
    assert len(rows[0]["sha256"]) == 64 and crop_to_keypoints.measure(config("eager fp32")) == []


@torch.no_grad()
def test_two_sizes_of_a_model_have_their_own_files(stub):
    inputs = [("rtmpose-t", SIZE), ("rtmpose-t", (96, 64)), ("rtmpose-t", (33, 64))]
    rows = crop_to_keypoints.measure(replace(config(FP32), inputs=inputs))
    assert [row["moved_joints"] for row in rows if "why" not in row] == [0] * 4
    assert all(row["why"] for row in rows if row["input_size"] == [33, 64])  # no multiple of the stride


@torch.no_grad()
def test_wrong_outputs_stop_the_measurement(stub, tmp_path, monkeypatch):
    right = runtimes.compile_openvino

    def changed(index, amount):
        def compile_openvino(path):
            run = right(path)
            return lambda crops: [x + amount * (i == index) for i, x in enumerate(run(crops))]

        return compile_openvino

    start = "^rtmpose-t, 64×64, batch 1, 1 thread: OpenVINO fp32 "
    monkeypatch.setattr(runtimes, "compile_openvino", changed(0, 0.5))
    with pytest.raises(
        export.OutputMismatch, match=start + "locates 100% of the joints elsewhere than expected$"
    ):
        crop_to_keypoints.measure(config(FP32))
    monkeypatch.setattr(runtimes, "compile_openvino", changed(1, 0.5))
    with pytest.raises(export.OutputMismatch, match=start + "differs from"):
        crop_to_keypoints.measure(config(FP32))
    loads = iter([0.0, 1.0])  # the second load, which is timed, has other points

    def load_peer(_):
        points = np.full((17, 2), next(loads))
        return tflite.Peer("a", 48, lambda crop: (points, np.ones(17)))

    monkeypatch.setattr(tflite, "load_peer", load_peer)
    with pytest.raises(export.OutputMismatch, match="^a, 48×48, batch 1, 1 thread: OpenVINO locates 100% of"):
        crop_to_keypoints.measure(config(), [tmp_path / "a.tflite"])
    loads = iter([1.0, 0.5])

    def load_other_scores(_):
        scores = np.full(17, next(loads))
        return tflite.Peer("a", 48, lambda crop: (np.zeros((17, 2)), scores))

    monkeypatch.setattr(tflite, "load_peer", load_other_scores)
    with pytest.raises(
        export.OutputMismatch, match="^a, 48×48, batch 1, 1 thread: its scores differ by 5.0e-01 from those"
    ):
        crop_to_keypoints.measure(config(), [tmp_path / "a.tflite"])


@torch.no_grad()
def test_failures_are_reasons_and_the_others_are_timed(stub, tmp_path, monkeypatch):
    def broken(path):
        raise RuntimeError("no such operator\nand more")

    def missing(module, package):
        raise runtimes.Unavailable(f"{module} is not installed: pip install {package}")

    monkeypatch.setattr(runtimes, "compile_openvino", broken)
    peer, own = crop_to_keypoints.measure(config(FP32), [tmp_path / "a.tflite"])[:2]
    assert own["why"] == "RuntimeError: no such operator" and "latency_ms" in peer
    monkeypatch.setattr(runtimes, "require", missing)
    (own, _) = crop_to_keypoints.measure(config(FP32))
    assert own["why"] == "onnxscript is not installed: pip install onnxscript"
    monkeypatch.setattr(crop_to_keypoints, "skip_reason", lambda *_: "no memory for a batch of 1")
    assert {row["why"] for row in crop_to_keypoints.measure(config(FP32, INT8))} == {
        "no memory for a batch of 1"
    }

    def rejected(*_, **__):
        raise export.OutputMismatch("the outputs of a.onnx differ")

    monkeypatch.undo()
    monkeypatch.setattr(export, "export", rejected)
    with pytest.raises(export.OutputMismatch, match="^rtmpose-t: the outputs of a.onnx differ$"):
        crop_to_keypoints.measure(config(FP32))


def made_record(started, quiet, *forms):
    rows = [
        {
            "model": "a",
            "input_size": [64, 48],
            "form": form,
            "threads": threads,
            "conditions": {"quiet": quiet},
        }
        | {"latency_ms": timing.summarize([[10.0 * threads + len(form)]])}
        for form in forms
        for threads in (1, 2)
    ]
    return {"kind": "benchmark", "started": started, "crop_to_keypoints": rows}


def test_record_with_peers_then_quiet_then_newest():
    others = [{"kind": "train"}, {"kind": "benchmark", "started": "9", "crop_to_keypoints": []}]
    assert crop_to_keypoints.find_record(others) is None
    old, new = made_record("1", True, FP32), made_record("2", True, FP32)
    loud, peer = made_record("3", False, FP32), made_record("0", False, FP32, "OpenVINO")
    for expected, records in ((new, [old, new]), (new, [new, loud]), (peer, [new, peer, loud])):
        assert crop_to_keypoints.find_record([*others, *records]) is expected


def test_time_of_an_evaluation_needs_the_same_model_size_runtime_and_threads():
    record = made_record("1", True, FP32, INT8, "OpenVINO")
    record["crop_to_keypoints"][1] = record["crop_to_keypoints"][1] | {"why": "broken"}
    del record["crop_to_keypoints"][1]["latency_ms"]

    def latency(threads=1, model="a", size=(64, 48), **parameters):
        evaluation = {"model": model, "protocol": {"input_size": list(size)}, "parameters": parameters}
        return crop_to_keypoints.find_row(evaluation, record, threads).get("latency_ms", {}).get("median")

    assert latency() == 10 + len(FP32) and latency(2) is None  # it is broken with two threads
    assert latency(2, runtime=INT8) == 20 + len(INT8) and latency(runtime="OpenVINO") == 10 + len("OpenVINO")
    assert latency(model="b") is None and latency(size=(64, 64)) is None and latency(4) is None


@pytest.mark.slow
def test_real_files_are_timed_and_int8_decodes_in_float32(test_data):
    """A SimCC bin is half a pixel: decoding in 8 bits would give other values."""
    for module in ("onnxscript", "onnxruntime", "openvino", "nncf"):
        pytest.importorskip(module)
    files = sorted((test_data / "peers").glob("*.tflite"))
    outputs = []
    check = crop_to_keypoints._check
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crop_to_keypoints, "THREADS", (1,))
        patch.setattr(crop_to_keypoints, "_check", lambda *a: outputs.append((a[0], a[2])) or check(*a))
        rows = crop_to_keypoints.measure(config(FP32, INT8, names=["starnet-pose-t"]), files)
    assert len(rows) == len(files) + 2 and all("latency_ms" in row for row in rows)
    assert [row["moved_joints"] for row in rows[:-1]] == [0] * (len(rows) - 1)
    row, (keypoints, scores) = outputs[-1]
    assert row["form"] == INT8 and 0 < rows[-1]["difference"] < 0.5
    assert (2 * keypoints == np.round(2 * keypoints)).all() and keypoints.shape == (1, 17, 2)
