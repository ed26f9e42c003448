"""Ways to run a model for inference: eager, torch.compile, CUDA graph, ONNX Runtime, OpenVINO.

Each maker takes a model, its device, example images of the batch size to run, a folder for this model's
files, and calibration images. It uses what it needs and returns a function from normalized images to a list
of outputs. It raises `Unavailable` with the reason if the runtime cannot be used here. The makers use the
number of threads that `use_threads` has set.

1. Folding and the memory format are separate runtimes, so that the gain of each step is visible.
2. OpenVINO is set to compute in float32. By default it uses bf16 if the CPU supports it.
3. ExecuTorch 1.5.1 is left out because it crashed the process with a segmentation fault.
4. int8 is OpenVINO's own post-training quantization (nncf) of weights and activations, from calibration
   images. It does not measure accuracy. The caller has to do that. Some operations stay in float32 because
   that is faster (docs/experiments.md): OpenVINO computes depthwise convolutions in float32 anyway, it joins
   a sum with the convolution before it, and Swish and Mish with their parts in 8 bits are several operations.
5. By default, ONNX Runtime's threads spin for about 50 ms after a run, in case another one follows. They
   occupy the cores meanwhile: OpenVINO after it took 1.6 times as long with two threads. Here they stop at
   the end of a run. The run itself does not take longer (docs/experiments.md).
"""

import contextlib
import copy
import functools
import hashlib
import importlib.util
import inspect
import io
import itertools
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from posebook.inference import export
from posebook.inference.output import staged_folder
from posebook.models.layers import PoseModel
from posebook.skeletons import Skeleton

InferenceFn = Callable[[Tensor], list]  # from images (B, 3, H, W), normalized, to a list of outputs


class Unavailable(RuntimeError):
    """This runtime cannot be used here. The message states the reason."""


def require(module: str, package: str) -> None:
    """Raise Unavailable if a module is not installed, with the command that installs it."""
    if importlib.util.find_spec(module) is None:
        raise Unavailable(f"{module} is not installed: pip install {package}")


def is_float32(name: str) -> bool:
    """Whether a runtime computes in float32, so that its outputs must be the model's up to rounding."""
    return "fp32" in name


def use_threads(threads: int) -> None:
    """Set the number of threads of PyTorch's operations. The makers use the same number."""
    torch.set_num_threads(threads)


def _torch(
    model: nn.Module, device: str, dtype: torch.dtype = torch.float32, channels_last: bool = False
) -> InferenceFn:
    """Run a PyTorch model in inference mode, with autocast if dtype is not float32."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    # PyTorch's annotations of Module.to omit memory_format
    model = model.to(device, memory_format=memory_format).eval()  # type: ignore[call-overload]
    device_type = torch.device(device).type

    @torch.inference_mode()
    def run(images: Tensor) -> list:
        images = images.to(device, memory_format=memory_format)
        with torch.autocast(device_type, dtype, enabled=dtype != torch.float32):
            return list(model(images))

    return run


def eager(model: nn.Module, device: str, **_: object) -> InferenceFn:
    """Eager float32, as papers usually measure their models."""
    return _torch(copy.deepcopy(model), device)


def eager_bf16(model: nn.Module, device: str, **_: object) -> InferenceFn:
    """Eager with autocast to bfloat16."""
    return _torch(copy.deepcopy(model), device, torch.bfloat16)


def eager_fp16(model: nn.Module, device: str, **_: object) -> InferenceFn:
    """Eager with autocast to float16, on a GPU."""
    if torch.device(device).type == "cpu":
        raise Unavailable("float16 is for GPUs: CPUs have no float16 arithmetic")
    return _torch(copy.deepcopy(model), device, torch.float16)


def folded(model: PoseModel, device: str, **_: object) -> InferenceFn:
    """Batch norms merged and constants precomputed, see export.fold."""
    return _torch(export.fold(model), device)


def channels_last(model: PoseModel, device: str, **_: object) -> InferenceFn:
    """Folded, in the channels-last memory format."""
    return _torch(export.fold(model), device, channels_last=True)


def compiled(model: PoseModel, device: str, **_: object) -> InferenceFn:
    """Folded, channels last, with torch.compile. The first call is slow."""
    # without the reset, dynamo silently runs a class eagerly after it has compiled it for eight sizes
    torch.compiler.reset()
    optimized = torch.compile(export.fold(model), dynamic=False)
    assert isinstance(optimized, nn.Module)  # it is annotated as a function
    return _torch(optimized, device, channels_last=True)


def cuda_graph(model: PoseModel, device: str, images: Tensor, **_: object) -> InferenceFn:
    """Folded, channels last, float16, captured once and replayed: no kernel launch waits for Python.

    Raises Unavailable if the device is not a CUDA device.
    """
    if torch.device(device).type != "cuda":
        raise Unavailable("CUDA graphs need a CUDA device")
    # weights in float16 instead of autocast, which would cast all weights again at each replay
    run = _torch(export.fold(model).half(), device, channels_last=True)
    static_input = images.to(device, torch.float16, memory_format=torch.channels_last)
    # PyTorch requires a warm-up on a side stream before the capture
    side_stream = torch.cuda.Stream(device)
    side_stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side_stream):
        for _warmup in range(3):
            run(static_input)
    torch.cuda.current_stream(device).wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        static_output = run(static_input)

    def replay(images: Tensor) -> list:
        static_input.copy_(images)
        graph.replay()
        return static_output

    return replay


def model_hash(model: PoseModel) -> str:
    """SHA-256 over what a model's ONNX file depends on: layers with settings and code, and weights."""
    plain = (bool, int, float, str, tuple, type(None), Skeleton)
    layers = [
        (
            type(layer).__qualname__,
            {k: v for k, v in vars(layer).items() if k != "training" and isinstance(v, plain)},
        )
        for layer in model.modules()
    ]
    modules = {type(layer).__module__ for layer in model.modules()} | {export.__name__}
    code = [inspect.getsource(sys.modules[name]) for name in sorted(modules) if name.startswith("posebook.")]
    digest = hashlib.sha256(repr((layers, code, torch.__version__)).encode())
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def onnx_path(model: PoseModel, batch: int, folder: Path) -> Path:
    """Path of the ONNX file of this model, with these weights, for this batch size.

    The file's name is a hash: with a name that does not depend on the weights, a model with other weights
    would get the outputs of the first one.
    """
    return folder / f"{model_hash(model)[:16]}-batch{batch}.onnx"


def onnx_file(model: PoseModel, images: Tensor, folder: Path) -> Path:
    """Return `onnx_path` for the batch size of the images. Export the file if it does not exist."""
    require("onnxscript", "onnxscript")
    require("onnxruntime", "onnxruntime")
    path = onnx_path(model, len(images), folder)
    return path if path.exists() else export.export(model, path, len(images))


def onnxruntime(model: PoseModel, device: str, images: Tensor, folder: Path, **_: object) -> InferenceFn:
    """ONNX Runtime on the CPU, or on CUDA if the package onnxruntime-gpu is installed.

    On CUDA, its times include the copies of images and outputs from and to the CPU.
    """
    require("onnxruntime", "onnxruntime")
    import onnxruntime as ort

    place = torch.device(device)
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(place.type)
    # by default, CUDA's convolutions and matrix products use TF32, which has fewer digits than float32
    settings = {"use_tf32": "0", "device_id": str(place.index or 0)} if place.type == "cuda" else {}
    if provider is None:
        raise Unavailable(f"ONNX Runtime runs here on cpu and cuda, not on {device}")
    if provider not in ort.get_available_providers():
        raise Unavailable(f"this onnxruntime has no {provider}: pip install onnxruntime-gpu")
    path = onnx_file(model, images, folder)
    options = onnxruntime_options()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(str(path), options, providers=[(provider, settings)])
    if provider not in session.get_providers():  # it would use the CPU instead
        raise Unavailable(f"{provider} cannot be loaded: check that its CUDA libraries are installed")
    return lambda images: session.run(None, {"images": images.cpu().numpy()})


def onnxruntime_options() -> Any:
    """Options for an ONNX Runtime session whose threads do not spin after a run (choice 5)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


@functools.cache
def openvino_core() -> Any:
    """The only OpenVINO core of this process.

    Each core installs a stack for signal handlers, and removes it at its end. If there were two cores, the
    first one's removed stack could remain installed, and Ctrl+C would crash Python.
    """
    import openvino

    return openvino.Core()


def openvino_settings() -> dict[str, Any]:
    """OpenVINO's settings for low latency in float32 (choice 2) with PyTorch's number of threads."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }


def compile_openvino(model: Any) -> InferenceFn:
    """Compile an OpenVINO model, or the file of one, for this CPU."""
    request = openvino_core().compile_model(model, "CPU", openvino_settings()).create_infer_request()
    # the outputs are copied because the next call overwrites the request's own buffers
    return lambda images: [np.array(output) for output in request.infer({0: images.numpy()}).values()]


def _read_openvino(model: PoseModel, device: str, images: Tensor, folder: Path) -> Any:
    if torch.device(device).type != "cpu":
        raise Unavailable("OpenVINO is measured on CPUs only")
    require("openvino", "openvino")
    return openvino_core().read_model(onnx_file(model, images, folder))


def openvino(model: PoseModel, device: str, images: Tensor, folder: Path, **_: object) -> InferenceFn:
    """OpenVINO, float32."""
    return compile_openvino(_read_openvino(model, device, images, folder))


def openvino_int8(
    model: PoseModel, device: str, images: Tensor, folder: Path, calibration: Tensor | None = None
) -> InferenceFn:
    """OpenVINO, weights and activations in 8 bits, with ranges from calibration images (N, 3, H, W)."""
    if calibration is None:
        raise Unavailable("int8 needs calibration images")
    source = _read_openvino(model, device, images, folder)
    digest = hashlib.sha256(calibration.numpy().tobytes()).hexdigest()[:16]
    path = onnx_file(model, images, folder).with_suffix(f".int8-{digest}.xml")
    if not path.exists():
        # the file has a fixed batch size, so an incomplete last batch is dropped
        batches = [batch.numpy() for batch in calibration.split(len(images)) if len(batch) == len(images)]
        quantize(source, batches, path)
    return compile_openvino(path)


def _gated_products(source: Any) -> list[str]:
    """Names of the products in Swish and Mish: element-wise functions of a sigmoid."""
    gates: set[str] = set()
    names: list[str] = []
    for op in source.get_ordered_ops():
        name, kind = op.get_friendly_name(), op.get_type_name()
        inputs = {value.get_node().get_friendly_name() for value in op.input_values()}
        if kind == "Sigmoid" or (kind in ("Subtract", "Multiply", "Divide") and inputs & gates):
            gates.add(name)
            names += [name] * (kind == "Multiply")
    return names


def quantize(source: Any, batches: list[np.ndarray], path: Path, float_ops: Sequence[str] = ()) -> None:
    """Quantize an OpenVINO model to 8 bits and save it.

    batches: inputs that the ranges are taken from. float_ops: names of operations that stay in float32, in
    addition to those of choice 4. Raises Unavailable without nncf.
    """
    require("nncf", "nncf")
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)  # otherwise one line for each operation of float_ops
    names = [*float_ops, *_gated_products(source)]
    # not validated because nncf has no node for constants
    ignored = nncf.IgnoredScope(names=names, types=["GroupConvolution", "Add"], validate=False)
    with contextlib.redirect_stdout(io.StringIO()):  # nncf prints one progress bar for each step
        quantized = nncf.quantize(
            source, nncf.Dataset(batches), subset_size=len(batches), ignored_scope=ignored
        )
    with staged_folder(path.parent) as folder:  # no incomplete file after an interruption
        openvino.save_model(quantized, folder / path.name, compress_to_fp16=False)


RUNTIMES: dict[str, Callable[..., InferenceFn]] = {
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
