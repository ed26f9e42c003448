"""People per second in training: preparation of the samples with several pipelines, and training steps.

The plain pipeline is a loader that processes one sample after the other: it decodes the entire image, warps
it, jitters HSV in 16 bits, blurs, cuts a hole, and computes one Gaussian for each joint and axis. Order and
distributions of the samples are the same for all pipelines.
"""

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from posebook import codecs, models, transforms
from posebook.datasets import PoseDataset, read_image
from posebook.datasets.canvas_cache import CanvasCache
from posebook.skeletons import Skeleton
from posebook.training import data, loop, recipes, runtime
from posebook.training.checkpoints import TrainState
from posebook.training.optimizer import update_ema
from posebook.training.recipes import Recipe

Sample = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class ReferenceDataset(Dataset):
    """`data.TrainDataset` as a plain loader: each sample is complete and has its targets."""

    def __init__(self, dataset: PoseDataset, recipe: Recipe, seed: int):
        self.dataset, self.recipe, self.seed = dataset, recipe, seed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Return input (H, W, 3) uint8, targets x (K, 2 W) and y (K, 2 H), and weights (K,).

        key is (epoch, index).
        """
        epoch, index = key
        person, skeleton = self.dataset.instances[index], self.dataset.skeleton
        augmentation = self.recipe.stage1
        height, width = input_size = self.recipe.input_size
        rng = np.random.default_rng((self.seed, epoch, index))
        image = cv2.imread(str(person.image))  # (H', W', 3) BGR
        assert image is not None
        matrices, flips = transforms.random_affine_batch(
            np.array([person.bbox]), person.keypoints[None], skeleton, input_size, augmentation, rng
        )
        matrix, flipped = matrices[0], flips[0]  # (2, 3)
        image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)  # (H, W, 3)
        jitter = transforms.draw_jitter(1, input_size, augmentation, rng)
        hue, saturation, value = jitter.hsv_offsets[0]
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(np.int16)
        hsv[..., 0] = (hsv[..., 0] + hue) % 180  # OpenCV stores the hue of uint8 images in 0..179
        hsv[..., 1] = np.clip(hsv[..., 1] + saturation, 0, 255)
        hsv[..., 2] = np.clip(hsv[..., 2] + value, 0, 255)
        image = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
        if jitter.blur[0]:
            image = cv2.blur(image, (int(jitter.blur[0]),) * 2)
        if jitter.median[0]:
            image = cv2.medianBlur(image, int(jitter.median[0]))
        y, x, h, w = jitter.hole[0]
        image[y : y + h, x : x + w] = 0
        keypoints = person.keypoints.copy()  # (K, 3)
        keypoints[:, :2] = transforms.apply_affine(matrix, keypoints[:, :2])
        if flipped:
            keypoints = transforms.flip_joints(keypoints, skeleton)
        points = keypoints[:, :2].astype(np.float32)
        inside = ((points >= -0.5) & (points < (width - 0.5, height - 0.5))).all(1)
        x_targets, y_targets = self._targets(points)
        return image, x_targets, y_targets, (inside & (keypoints[:, 2] > 0)).astype(np.float32)

    def _targets(self, points: np.ndarray) -> list[np.ndarray]:
        """SimCC targets (K, 2 W) and (K, 2 H) of points (K, 2), one Gaussian at a time."""
        height, width = self.recipe.input_size
        targets = []
        for axis, (size, sigma) in enumerate(
            zip((width, height), recipes.sigma_for(self.recipe), strict=True)
        ):
            bins = np.arange(2 * size, dtype=np.float32)
            target = np.zeros((len(points), len(bins)), np.float32)
            for joint, point in enumerate(points):
                distance = bins - np.round(2 * point[axis])
                target[joint] = np.exp(-(distance**2) / (2 * sigma**2))
            targets.append(target)
        return targets


def with_targets(batches: Iterable, recipe: Recipe) -> Iterator[tuple[Tensor, ...]]:
    """Add the targets to batches of `data.TrainDataset`, for the entire batch and on its device.

    The loader processes do not make the targets, because these would add a third to the bytes that they send.
    """
    for images, points, weights in batches:
        targets = codecs.encode_simcc(points, recipe.input_size, 2.0, recipes.sigma_for(recipe))
        yield images, *targets, weights


def pipelines(
    dataset: PoseDataset, caches: dict[str, CanvasCache], recipe: Recipe, workers: int, device: str = "cpu"
) -> dict[str, Callable[[], Iterator]]:
    """Functions that start endless batches, by pipeline. All have the same people in the same order.

    plain: `ReferenceDataset`. pictures: posebook's samples without a canvas cache. The name of a cache:
    samples from it; on a GPU, its canvases are sent to the GPU and warped there. held: on a GPU only, the
    entire first cache is in GPU memory. A batch is images, targets x, targets y and weights.
    """
    endless = replace(recipe, epochs=10**9)  # so many epochs that all of them are in the first stage

    def plain() -> Iterator:
        order = data.epoch_batches(len(dataset.instances), endless, 0, 0)
        return iter(
            DataLoader(ReferenceDataset(dataset, endless, 0), batch_sampler=order, num_workers=workers)
        )

    def batched(cache: CanvasCache | None = None) -> Callable[[], Iterator]:
        samples = data.TrainDataset(dataset, endless, 0, cache)
        steps = data.ResumableBatchSampler(samples, 0)
        if cache and device.startswith("cuda"):
            return lambda: with_targets(data.gpu_batches(samples, steps, device, workers, None), recipe)
        return lambda: with_targets(data.make_loader(samples, steps, workers), recipe)

    starters = {"plain": plain, "pictures": batched()}
    starters |= {name: batched(cache) for name, cache in caches.items()}
    if device.startswith("cuda"):
        first = next(iter(caches.values()))
        held = data.TrainDataset(dataset, endless, 0, first)
        canvases, steps = first.tensor(device), data.ResumableBatchSampler(held, 0)
        starters["held"] = lambda: with_targets(data.gpu_batches(held, steps, device, 0, canvases), recipe)
    return starters


def measure_pipelines(
    starters: dict[str, Callable[[], Iterator]], rounds: int = 3, seconds: float = 4.0
) -> dict[str, list[float]]:
    """People per second of each pipeline, one value for each round: {name: [...]}. The pipelines alternate.

    In each round, a pipeline starts its processes, runs for `seconds` to warm up, and is measured for
    `seconds`.
    """
    cv2.setNumThreads(0)  # the loader processes share the cores
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # idle threads would spin and take a core from the loader processes
    rates: dict[str, list[float]] = {name: [] for name in starters}
    for _ in tqdm(range(rounds), desc="preparing samples", unit="round"):
        for name, start in starters.items():
            batches = start()
            _people_per_second(batches, seconds)
            rates[name].append(_people_per_second(batches, seconds))
            del batches  # ends its processes before the next pipeline starts
    torch.set_num_threads(threads)
    return rates


def _people_per_second(batches: Iterator, seconds: float) -> float:
    """Consume batches for `seconds` and return the people per second."""
    start, num_people = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        num_people += len(next(batches)[0])
        synchronize()
    return num_people / elapsed


def synchronize() -> None:
    """Wait until a GPU in use has finished its work."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@dataclass(frozen=True)
class StepVariant:
    """Settings of a training step that change its speed."""

    memory_format: torch.memory_format = torch.contiguous_format
    fused: bool = False  # fused AdamW
    precision: str = "float32"
    compile: bool = False


# Each variant adds one setting to the previous one. The last one is posebook's training.
VARIANTS = {
    "as built": StepVariant(),
    "+ channels last": StepVariant(torch.channels_last),
    "+ fused optimizer": StepVariant(torch.channels_last, fused=True),
}


def step_rates(
    model: str,
    skeleton: Skeleton,
    recipe: Recipe,
    device: str,
    precision: str = "float32",
    compile: bool = False,
    rounds: int = 3,
    steps: int = 5,
) -> dict[str, list[float]]:
    """People per second of training steps, one value for each round: {variant: [...]}.

    A step is forward pass, loss, backward pass, optimizer update and EMA update. The batch is already on the
    device. Measures VARIANTS, one more for another precision, and one more for `compile`.
    """
    torch.backends.cudnn.benchmark = True  # as in `loop.fit`
    variants = dict(VARIANTS)
    last = list(variants.values())[-1]
    if precision != "float32":
        variants[f"+ {precision}"] = last = replace(last, precision=precision)
    if compile:
        variants["+ torch.compile"] = replace(last, compile=True)
    step_functions = {
        name: _step_function(model, skeleton, recipe, device, variant) for name, variant in variants.items()
    }
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for _ in tqdm(range(rounds), desc="training steps", unit="round"):
        for name, step in step_functions.items():
            start = time.perf_counter()
            for _ in range(steps):
                step()
            synchronize()
            rates[name].append(steps * recipe.batch_size / (time.perf_counter() - start))
    return rates


def _step_function(
    name: str, skeleton: Skeleton, recipe: Recipe, device: str, variant: StepVariant
) -> Callable[[], None]:
    """Return a function that performs one training step, after two steps of warm-up."""
    memory_format = variant.memory_format
    # PyTorch's annotations of Module.to omit memory_format
    model = models.build(name, skeleton, recipe.input_size).to(device, memory_format=memory_format)  # type: ignore[call-overload]
    model.train()
    ema = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=variant.fused)
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=variant.precision == "fp16")
    state = TrainState(model, ema, optimizer, scaler, {})
    config = runtime.RuntimeConfig(device, precision=variant.precision)
    batch_size, num_joints = recipe.batch_size, len(skeleton.keypoints)
    width_height = torch.tensor(recipe.input_size[::-1], device=device)
    images = torch.randint(0, 256, (batch_size, *recipe.input_size, 3), dtype=torch.uint8, device=device)
    points = torch.rand(batch_size, num_joints, 2, device=device) * width_height  # (B, K, 2)
    batch = [images, points, torch.ones(batch_size, num_joints, device=device)]
    compiled = torch.compile(model, dynamic=False) if variant.compile else model

    def forward(images: Tensor) -> object:
        # train_step's normalized images are channels last
        return compiled(images.contiguous(memory_format=memory_format))

    def step() -> None:
        # train_step only calls its model
        loop.train_step(state, forward, batch, batch_size, recipe, config, 1)
        update_ema(ema, model, state.step, recipe)

    step()
    step()
    synchronize()
    return step


def profile_stages(
    dataset: PoseDataset, cache: CanvasCache, recipe: Recipe, count: int = 200
) -> dict[str, float]:
    """Microseconds per sample of each stage of its preparation in one process, the mean of `count` people."""
    samples = data.TrainDataset(dataset, recipe, 0, cache)
    microseconds: dict[str, float] = {}

    def timed(name: str, function: Callable, *args: object) -> object:
        start = time.perf_counter()
        result = function(*args)
        microseconds[name] = microseconds.get(name, 0.0) + (time.perf_counter() - start) / count * 1e6
        return result

    samples.draw(0)  # warm-up
    start = time.perf_counter()
    samples.draw(1)
    draw = {"draw the augmentation": (time.perf_counter() - start) / len(samples) * 1e6}
    indices = np.random.default_rng(0).integers(0, len(samples), count)
    warmup = indices[:20]
    for number, index in enumerate([*warmup, *indices]):
        if number == len(warmup):
            microseconds = dict(draw)
        matrix, size = samples.matrices[index], recipe.input_size
        image = timed("decode the picture", read_image, dataset.instances[index].image)
        timed("warp the picture", transforms.warp, image, matrix, size)
        canvas = timed("fetch the canvas", cache.__getitem__, index)
        crop = timed("warp the canvas", transforms.warp, canvas, samples.source_matrices[index], size)
        timed("color, blur, cover", transforms.apply_photometric, crop, samples.jitter, index)
    for first in range(0, count, 32):
        points = samples.points[torch.from_numpy(indices[first : first + 32])]
        sigma = recipes.sigma_for(recipe)
        timed("make the targets", codecs.encode_simcc, points, recipe.input_size, 2.0, sigma)
    return microseconds
