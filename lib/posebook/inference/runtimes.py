"""Forms in which somebody would run a net: eager, compiled, CUDA graph, ONNX Runtime, OpenVINO.

Each maker takes a model, its device, images of the batch it is for, a folder of this model's own and pictures
to calibrate by, of which it uses what it needs, and gives a function from normalized images to the list of
outputs. It raises `Unavailable`, whose text says why, where a form cannot be had here. Threads are those that
`use_threads` has set.

1. Folding and the order of channels in memory are forms of their own, so that each step's gain is seen.
2. OpenVINO is told to compute in float32: left alone it takes bf16 where the processor has it.
3. ExecuTorch 1.5.1 is left out: it ended the whole process (a segmentation fault) where it was tried.
4. int8 is OpenVINO's own post-training quantization (nncf), of weights and activations, from calibration
   pictures. It says nothing of accuracy: the caller has to measure that.
"""

import contextlib
import copy
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from posebook.inference import export

InferenceFn = Callable[[Tensor], list]  # of images (B, 3, H, W), normalized


class Unavailable(RuntimeError):
    """This form cannot be had here; the text says why."""


def require(module: str, package: str) -> None:
    """Raises Unavailable where a package is not installed, with the command that installs it."""
    if importlib.util.find_spec(module) is None:
        raise Unavailable(f"{module} is not installed: pip install {package}")


def use_threads(threads: int) -> None:
    """Tells PyTorch how many threads an operation may take; the makers read it."""
    torch.set_num_threads(threads)


def _torch(
    net: nn.Module, device: str, dtype: torch.dtype = torch.float32, last: bool = False
) -> InferenceFn:
    """A PyTorch net as it runs: inference mode, autocast where the type is not float32."""
    form = torch.channels_last if last else torch.contiguous_format
    net = net.to(device, memory_format=form).eval()
    kind = torch.device(device).type

    @torch.inference_mode()
    def run(images: Tensor) -> list:
        images = images.to(device, memory_format=form)
        with torch.autocast(kind, dtype, enabled=dtype != torch.float32):
            return export.output_list(net(images))

    return run


def eager(model: nn.Module, device: str, **how: object) -> InferenceFn:
    """As the authors time theirs."""
    return _torch(copy.deepcopy(model), device)


def eager_bf16(model: nn.Module, device: str, **how: object) -> InferenceFn:
    """Autocast to bfloat16."""
    return _torch(copy.deepcopy(model), device, torch.bfloat16)


def eager_fp16(model: nn.Module, device: str, **how: object) -> InferenceFn:
    """Autocast to float16, on a GPU."""
    if torch.device(device).type == "cpu":
        raise Unavailable("float16 is for GPUs: a CPU has no arithmetic for it")
    return _torch(copy.deepcopy(model), device, torch.float16)


def folded(model: nn.Module, device: str, **how: object) -> InferenceFn:
    """Norms merged and constants computed, see deploy.fold."""
    return _torch(export.fold(model), device)


def channels_last(model: nn.Module, device: str, **how: object) -> InferenceFn:
    """Folded, with the channels of a pixel side by side in memory."""
    return _torch(export.fold(model), device, last=True)


def compiled(model: nn.Module, device: str, **how: object) -> InferenceFn:
    """Folded, channels last, by torch.compile; the first call takes long."""
    torch.compiler.reset()  # a class that was compiled at eight sizes would run eagerly at a ninth, unsaid
    net = export.fold(model).to(device, memory_format=torch.channels_last)
    return _torch(torch.compile(net, dynamic=False), device, last=True)


def cuda_graph(model: nn.Module, device: str, images: Tensor, **how: object) -> InferenceFn:
    """Folded, channels last, fp16, recorded once and played: no launch waits for Python."""
    if torch.device(device).type != "cuda":
        raise Unavailable("CUDA graphs need a CUDA device")
    # weights in fp16, not autocast: that would cast each of them again whenever the graph is played
    run = _torch(export.fold(model).half(), device, last=True)
    fixed = images.to(device, torch.float16, memory_format=torch.channels_last)
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            run(fixed)
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run(fixed)

    def play(images: Tensor) -> list:
        fixed.copy_(images)
        graph.replay()
        return result

    return play


def onnx_file(model: nn.Module, images: Tensor, folder: Path) -> Path:
    """The model as ONNX for batches of this size, in the model's own folder; made once."""
    require("onnxscript", "onnxscript")
    require("onnxruntime", "onnxruntime")
    path = folder / f"batch{len(images)}.onnx"
    return path if path.exists() else export.export(model, path, len(images))


def onnxruntime(model: nn.Module, device: str, images: Tensor, folder: Path, **how: object) -> InferenceFn:
    """ONNX Runtime on the CPU, or on CUDA where the device is one and its package is that for GPUs."""
    require("onnxruntime", "onnxruntime")
    import onnxruntime as ort

    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[torch.device(device).type]
    if provider not in ort.get_available_providers():
        raise Unavailable(f"this onnxruntime has no {provider}: pip install onnxruntime-gpu")
    path = onnx_file(model, images, folder)
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(str(path), options, providers=[provider])
    return lambda images: session.run(None, {"images": images.cpu().numpy()})


def _openvino(net: object) -> InferenceFn:
    """An OpenVINO model compiled for latency on this CPU."""
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(net, "CPU", settings).create_infer_request()
    # a request's answers live in its own memory until it runs again
    return lambda images: [np.array(part) for part in request.infer({0: images.numpy()}).values()]


def _read(model: nn.Module, device: str, images: Tensor, folder: Path) -> object:
    if torch.device(device).type != "cpu":
        raise Unavailable("OpenVINO is measured on CPUs")
    require("openvino", "openvino")
    import openvino

    return openvino.Core().read_model(onnx_file(model, images, folder))


def openvino(model: nn.Module, device: str, images: Tensor, folder: Path, **how: object) -> InferenceFn:
    """OpenVINO, float32."""
    return _openvino(_read(model, device, images, folder))


def openvino_int8(
    model: nn.Module, device: str, images: Tensor, folder: Path, calibration: Tensor | None = None
) -> InferenceFn:
    """OpenVINO, weights and activations in 8 bits, ranges from `calibration` pictures (N, 3, H, W)."""
    require("nncf", "nncf")
    if calibration is None:
        raise Unavailable("int8 needs calibration pictures")
    net = _read(model, device, images, folder)
    import nncf

    batches = [part.numpy() for part in calibration.split(len(images)) if len(part) == len(images)]
    with contextlib.redirect_stdout(io.StringIO()):  # nncf draws progress bars of its own, one a step
        return _openvino(nncf.quantize(net, nncf.Dataset(batches), subset_size=len(batches)))


RUNTIMES = {
    "eager fp32": eager,
    "eager bf16": eager_bf16,
    "eager fp16": eager_fp16,
    "folded fp32": folded,
    "folded fp32, channels last": channels_last,
    "torch.compile fp32": compiled,
    "CUDA graph fp16": cuda_graph,
    "ONNX Runtime fp32": onnxruntime,
    "OpenVINO fp32": openvino,
    "OpenVINO int8": openvino_int8,
}
