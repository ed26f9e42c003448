"""Code for GPUs, on fake CUDA tensors: devices and dtypes of all results, without a GPU.

A fake tensor has a shape, a dtype and a device, but no values. An operation on tensors of two devices raises,
as on a GPU. Only autograd's backward pass needs a real device.
"""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from posebook import codecs, complexity, datasets, models, transforms
from posebook.benchmark.random_people import random_people
from posebook.datasets import canvas_cache
from posebook.evaluation import predictions
from posebook.inference import runtimes
from posebook.training import data, loop, objectives, optimizer, recipes
from posebook.training.runtime import PRECISIONS, RuntimeConfig

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="needs a CUDA build of PyTorch, not a GPU")
TRAINED = ("starnet-pose-t", "amfacpose-r18", "lapx", "vitpose-s")
SIZE = (128, 96)


@pytest.fixture
def gpu(monkeypatch):
    """A mode in which all tensors are fake, and PyTorch lets them use autocast and a scaler on CUDA.

    A DataLoader draws its seed from a tensor, so a list of batches replaces it.
    """
    for module in (torch.cuda.amp.common, torch.amp.grad_scaler):
        monkeypatch.setattr(module, "amp_definitely_not_available", lambda: False, raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(
        data, "make_loader", lambda samples, keys, *_: [torch.stack([samples[k] for k in b]) for b in keys]
    )
    with FakeTensorMode() as mode:
        yield mode


def build(name: str, size: tuple[int, int] = SIZE, dtype: torch.dtype | None = None) -> nn.Module:
    """A model with fake parameters and buffers on the GPU. Other tensors stay where they are built."""
    with unset_fake_temporarily(), torch.device("meta"), complexity.SkipInit():
        model = models.build(name, input_size=size)
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for key, value in tensors.items():
                if value is not None:
                    kind = dtype if dtype and value.is_floating_point() else value.dtype
                    fake = torch.empty(value.shape, dtype=kind, device="cuda")
                    tensors[key] = nn.Parameter(fake) if tensors is module._parameters else fake
    return model


def facts(tensors) -> set[tuple[str, torch.dtype]]:
    """The devices and dtypes of tensors."""
    return {(tensor.device.type, tensor.dtype) for tensor in tensors}


@pytest.mark.parametrize("name", models.names())
def test_every_model_runs_in_half_precision(gpu, name):
    model = build(name, (256, 192), torch.float16).eval()
    with torch.no_grad():
        output = model(torch.empty(2, 3, 256, 192, dtype=torch.float16, device="cuda"))
    assert facts(output) == {("cuda", torch.float16)}
    assert all(len(tensor) == 2 and tensor.shape[1] == 17 for tensor in output)


def make_batch(device: str = "cuda", size: tuple[int, int] = SIZE) -> list[torch.Tensor]:
    """Six images, their keypoints and weights."""
    images = torch.empty(6, *size, 3, dtype=torch.uint8, device=device)
    return [images, torch.empty(6, 17, 2, device=device), torch.empty(6, 17, device=device)]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", TRAINED)
def test_loss_of_a_training_step(gpu, name, precision, monkeypatch):
    """A batch in two parts, up to the call of backward: the scaled loss is a float32 scalar on the GPU."""
    scaled, outputs = [], []
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: scaled.append(loss))
    runtime, recipe = (
        RuntimeConfig("cuda", precision=precision),
        recipes.get("paper", name, input_size=list(SIZE)),
    )
    model = build(name).train()
    model.register_forward_hook(lambda module, inputs, output: outputs.extend(output))
    scaler = loop.make_scaler(runtime)
    assert scaler.is_enabled() == (precision == "fp16")
    total = loop.accumulate_gradients(
        scaler, model, make_batch(), 4, 6, recipe, runtime, objectives.pose_loss
    )
    assert len(scaled) == 2 and facts([total, *scaled]) == {("cuda", torch.float32)} and total.shape == ()
    assert facts(outputs) <= {("cuda", torch.float32), ("cuda", PRECISIONS[precision])}
    if precision != "float32" and name != "vitpose-s":
        assert ("cuda", PRECISIONS[precision]) in facts(outputs)


def test_a_tensor_on_the_wrong_device_is_an_error(gpu):
    """Otherwise the tests in this file could not fail."""
    recipe, model = recipes.get("fast", input_size=list(SIZE)), build("starnet-pose-t")
    images, points, weights = make_batch()
    with pytest.raises(RuntimeError, match="device"):
        objectives.pose_loss(model, [images, points.cpu(), weights.cpu()], recipe)
    with pytest.raises(RuntimeError, match="dtype|type"):  # no autocast
        model(torch.empty(2, 3, *SIZE, dtype=torch.float16, device="cuda"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_codecs_and_decoders(gpu, dtype):
    points = torch.empty(2, 17, 2, device="cuda")
    targets = codecs.encode_simcc(points, SIZE)
    heatmaps = codecs.encode_heatmap(points, SIZE)
    assert facts([*targets, heatmaps, codecs.inside(points, SIZE).float()]) == {("cuda", torch.float32)}
    simcc, maps = codecs.SimCC(*(axis.to(dtype) for axis in targets)), heatmaps.to(dtype)
    flip = list(range(17))
    flipped = [*codecs.flip_simcc(simcc, flip), codecs.flip_heatmap(maps, flip)]
    assert facts(flipped) == {("cuda", dtype)}
    decoded = [
        codecs.decode_simcc(simcc), codecs.decode_heatmap(maps), codecs.decode_dark(maps),
        codecs.decode_udp(maps, SIZE), predictions.decode(simcc, SIZE)[:2],
        predictions.decode(maps, SIZE)[:2],
    ]  # fmt: skip
    for keypoints, scores in decoded:
        assert keypoints.shape == (2, 17, 2) and scores.shape == (2, 17)
        assert {device for device, _ in facts([keypoints, scores])} == {"cuda"}


@pytest.mark.parametrize("held", [True, False])
def test_batches_are_augmented_on_the_gpu(gpu, held):
    """All augmentations, with canvases in GPU memory and with canvases that are sent there."""
    augmentation = {"blur": 1.0, "median_blur": 1.0}
    recipe = recipes.get("fast", batch_size=8, epochs=2, input_size=list(SIZE), stage1=augmentation)
    people, canvases = random_people(12, recipe)
    samples = data.TrainDataset(people, recipe, 0, canvases)
    preloaded = canvases.tensor("cuda") if held else None
    batches = list(data.gpu_batches(samples, data.ResumableBatchSampler(samples, 0), "cuda", 0, preloaded))
    assert [len(images) for images, _, _ in batches] == [8, 4, 8, 4]
    for images, points, weights in batches:
        assert facts([images]) == {("cuda", torch.uint8)} and images.shape[1:] == (*SIZE, 3)
        assert facts([points, weights, transforms.normalize(images)]) == {("cuda", torch.float32)}


@pytest.mark.parametrize("free, fits", [(10**12, True), (10**5, False)])
def test_canvases_that_fit_are_loaded_into_gpu_memory(gpu, small, tmp_path, free, fits, monkeypatch):
    recipe = recipes.get("fast", input_size=list(SIZE))
    dataset = datasets.load("synthetic", small, "train")
    cache = canvas_cache.open_or_create(dataset, tmp_path, SIZE, (recipe.stage1, recipe.stage2), "raw")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    canvases = data.preload_canvases(cache, "cuda")
    assert (canvases is not None) == fits
    if canvases is not None:
        assert facts([canvases]) == {("cuda", torch.uint8)} and canvases.shape == (
            24,
            cache.side,
            cache.side,
            3,
        )
    samples = data.TrainDataset(dataset, recipe, 0, cache)
    images, *_ = next(iter(loop.batch_iterator(samples, 0, RuntimeConfig("cuda"))))
    assert facts([images]) == {("cuda", torch.uint8)}


def test_the_moving_average_stays_on_the_gpu(gpu):
    model, ema, recipe = build("lapx"), build("lapx"), recipes.get("paper", "starnet-pose-t")
    optimizer.update_ema(ema, model, 0, recipe)
    assert {device for device, _ in facts([*ema.parameters(), *ema.buffers()])} == {"cuda"}


def test_a_cuda_graph_is_captured_after_a_warm_up_and_replayed(gpu, monkeypatch):
    """Streams and the graph are replaced. The model, its input and its outputs are fake."""
    events, model = [], build("starnet-pose-t", dtype=torch.float16).eval()

    class Recorder:
        def __init__(self, name: object = "", *_: object):
            self.name = name

        def __enter__(self):
            events.append(f"enter {type(self.name).__name__}")

        def __exit__(self, *_: object):
            events.append("leave")

        def wait_stream(self, other: object) -> None:
            events.append("wait")

        def replay(self) -> None:
            events.append("replay")

    for name in ("Stream", "current_stream", "stream", "CUDAGraph", "graph"):
        monkeypatch.setattr(torch.cuda, name, Recorder)
    monkeypatch.setattr(runtimes.export, "fold", lambda model: model)

    def in_half(module: nn.Module, device: str, channels_last: bool = False):
        assert device == "cuda" and channels_last
        assert facts(module.parameters()) == {("cuda", torch.float16)}

        def run(images: torch.Tensor) -> list:
            events.append("run")
            assert facts([images]) == {("cuda", torch.float16)}
            assert images.is_contiguous(memory_format=torch.channels_last)
            with torch.no_grad():
                return list(module(images))

        return run

    monkeypatch.setattr(
        nn.Module, "half", lambda module: module
    )  # fake parameters cannot be converted in place
    monkeypatch.setattr(runtimes, "_torch", in_half)
    replay = runtimes.cuda_graph(model, "cuda", torch.empty(1, 3, *SIZE))
    capture = events.index("enter Recorder", events.index("leave"))
    assert events[:capture].count("run") == 3 and events[capture:].count("run") == 1
    outputs = replay(torch.empty(1, 3, *SIZE, device="cuda"))
    assert events[-1] == "replay" and events.count("run") == 4
    assert facts(outputs) == {("cuda", torch.float16)}
    assert replay(torch.empty(1, 3, *SIZE))[0] is outputs[0]  # the graph's own buffer
