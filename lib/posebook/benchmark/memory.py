"""Memory: peak size of the activations, and resident size of a runtime."""

import subprocess
import sys
import weakref
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

RSS_SCRIPT = """
import os, sys
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
path, threads = sys.argv[1], int(sys.argv[2])
{load}
before = resident()
{make}
for _ in range(10):
    {run}
print(resident() - before)
"""

# By runtime: "load" imports it, "make" creates the model and zero inputs, "run" runs the model once. OpenVINO
# loads its CPU plugin at the first query, so "load" makes one; otherwise the plugin would count as the model.
RUNTIME_SCRIPTS = {
    "ONNX Runtime fp32": {
        "load": "import numpy, onnxruntime",
        "make": "options = onnxruntime.SessionOptions(); options.intra_op_num_threads = threads\n"
        "session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])\n"
        "inputs = {i.name: numpy.zeros(i.shape, 'float32') for i in session.get_inputs()}",
        "run": "session.run(None, inputs)",
    },
    "OpenVINO fp32": {
        "load": "import numpy, openvino\n"
        "core = openvino.Core()\n"
        "core.get_property('CPU', 'DEVICE_ARCHITECTURE')",
        "make": "request = core.compile_model(path, 'CPU', {'PERFORMANCE_HINT': 'LATENCY', "
        "'INFERENCE_NUM_THREADS': threads, 'INFERENCE_PRECISION_HINT': 'f32'}).create_infer_request()\n"
        "inputs = {0: numpy.zeros(tuple(request.model_inputs[0].shape), 'float32')}",
        "run": "request.infer(inputs)",
    },
}


class _LiveBytes(TorchDispatchMode):
    """Count the bytes of the tensors that are alive while a model runs, except those of `known`."""

    def __init__(self, known: list[Tensor]):
        super().__init__()
        self.seen = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()  # views share the storage of their base
            pointer, size = storage.data_ptr(), storage.nbytes()
            if pointer not in self.seen:
                self.seen.add(pointer)
                self.now += size
                weakref.finalize(storage, self._release, pointer, size)
        self.peak = max(self.peak, self.now)
        return result

    def _release(self, pointer: int, size: int) -> None:
        self.seen.discard(pointer)
        self.now -= size


@torch.no_grad()
def peak_activation_bytes(model: nn.Module, images: Tensor) -> int:
    """Peak bytes of the tensors alive at once in a forward pass, without weights, buffers and input."""
    with _LiveBytes([*model.parameters(), *model.buffers(), images]) as live:
        model.eval()(images)
    return live.peak


def resident_mib(runtime: str, onnx: str | Path, threads: int) -> float | None:
    """MiB that one ONNX file adds to a new process with the runtime loaded (timing.py, choice 5).

    None on systems without /proc.
    """
    if not Path("/proc/self/statm").exists():
        return None
    script = RSS_SCRIPT.format(**RUNTIME_SCRIPTS[runtime])
    process = subprocess.run(
        [sys.executable, "-c", script, str(onnx), str(threads)], capture_output=True, text=True, check=True
    )
    return int(process.stdout) / 2**20
