"""Memory: activations alive at once, and the resident size of a runtime."""

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


RUNTIME_SCRIPTS = {
    "ONNX Runtime fp32": {
        "load": "import numpy, onnxruntime",
        "make": "options = onnxruntime.SessionOptions(); options.intra_op_num_threads = threads\n"
        "net = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])\n"
        "given = {i.name: numpy.zeros(i.shape, 'float32') for i in net.get_inputs()}",
        "run": "net.run(None, given)",
    },
    "OpenVINO fp32": {
        "load": "import numpy, openvino\n"
        "core = openvino.Core()\n"
        "core.get_property('CPU', 'DEVICE_ARCHITECTURE')",
        "make": "net = core.compile_model(path, 'CPU', {'PERFORMANCE_HINT': 'LATENCY', "
        "'INFERENCE_NUM_THREADS': threads, 'INFERENCE_PRECISION_HINT': 'f32'}).create_infer_request()\n"
        "given = {0: numpy.zeros(tuple(net.model_inputs[0].shape), 'float32')}",
        "run": "net.infer(given)",
    },
}


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive while a net runs, its weights and input left out."""

    def __init__(self, known: list[Tensor]):
        super().__init__()
        self.seen = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if (
                isinstance(tensor, Tensor)
                and (pointer := tensor.untyped_storage().data_ptr()) not in self.seen
            ):
                self.seen.add(pointer)
                storage = tensor.untyped_storage()
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, pointer, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _gone(self, pointer: int, size: int) -> None:
        self.seen.discard(pointer)
        self.now -= size


@torch.no_grad()
def peak_activation_bytes(model: nn.Module, images: Tensor) -> int:
    """Bytes of the largest set of tensors alive at once in a forward, weights and input left out."""
    known = [*model.parameters(), *model.buffers(), images]
    with _LiveBytes(known) as alive:
        model.eval()(images)
    return alive.peak


def resident_mib(form: str, onnx: str | Path, threads: int) -> float | None:
    """MiB of a fresh process that holds one ONNX file in a runtime, less the runtime's own (choice 4).

    None on systems that keep no /proc.
    """
    if not Path("/proc/self/statm").exists():
        return None
    script = RSS_SCRIPT.format(**RUNTIME_SCRIPTS[form])
    done = subprocess.run(
        [sys.executable, "-c", script, str(onnx), str(threads)], capture_output=True, text=True, check=True
    )
    return int(done.stdout) / 2**20
