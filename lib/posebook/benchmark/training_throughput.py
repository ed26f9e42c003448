"""How many people a second training takes in: their samples prepared in several ways, and the net's steps.

Plain is what a loader does that takes one sample after the other: decode the whole picture, warp, HSV in 16
bits, blurs and hole, a Gaussian a joint and axis. Order and distributions are the same for all ways.
"""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

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
    """`data.TrainDataset` the plain way; a sample is whole, with its targets."""

    def __init__(self, dataset: PoseDataset, recipe: Recipe, seed: int):
        self.dataset, self.recipe, self.seed = dataset, recipe, seed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Input (H, W, 3) uint8, targets x (K, 2 W) and y (K, 2 H), weights (K,)."""
        epoch, index = key
        person, skeleton, augmentation = (
            self.dataset.instances[index],
            self.dataset.skeleton,
            self.recipe.stage1,
        )
        height, width = input_size = self.recipe.input_size
        rng = np.random.default_rng((self.seed, epoch, index))
        image = cv2.imread(str(person.image))  # (H', W', 3) BGR
        matrix, flipped = transforms.random_affine(
            person.bbox, person.keypoints, skeleton, input_size, augmentation, rng
        )
        image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)  # (H, W, 3)
        jitter = transforms.draw_jitter(1, input_size, augmentation, rng)
        hue, saturation, value = jitter.gains[0]
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(np.int16)
        hsv[..., 0] = (hsv[..., 0] + hue) % 180
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
        sigma = recipes.sigma_for(self.recipe)
        bins = [np.arange(2 * size, dtype=np.float32) for size in (width, height)]
        targets = [np.zeros((len(points), len(line)), np.float32) for line in bins]  # (K, 2 W), (K, 2 H)
        for k, point in enumerate(points):
            for axis in (0, 1):
                distance = bins[axis] - np.round(2 * point[axis])
                targets[axis][k] = np.exp(-(distance**2) / (2 * sigma[axis] ** 2))
        return image, *targets, (inside & (keypoints[:, 2] > 0)).astype(np.float32)


def with_targets(batches: Iterator, recipe: Recipe) -> Iterator[tuple[Tensor, ...]]:
    """Batches of `data.TrainDataset` as Plain's: the targets of all in one go, where they have arrived.

    Processes that made them would have to send them, a third as many bytes as the inputs.
    """
    for images, points, weights in batches:
        targets = codecs.encode_simcc(points, recipe.input_size, 2.0, recipes.sigma_for(recipe))
        yield images, *targets, weights


def pipelines(
    dataset: PoseDataset, packs: dict[str, CanvasCache], recipe: Recipe, workers: int, device: str = "cpu"
) -> dict[str, Callable[[], Iterator]]:
    """Ways to start endless batches of the same people in the same order, targets and all.

    plain; pictures: posebook's samples without canvases; a way a pack, by its name, on a GPU sent there and
    warped there; held: on a GPU, the first pack whole on the device. A batch is images, targets x, targets y,
    weights.
    """
    endless = replace(recipe, epochs=10**9)  # the first stage all along

    def plain() -> Iterator:
        order = data.epoch_batches(len(dataset.instances), endless, 0, 0)
        return iter(
            DataLoader(ReferenceDataset(dataset, endless, 0), batch_sampler=order, num_workers=workers)
        )

    def ours(pack: CanvasCache | None = None) -> Callable[[], Iterator]:
        drawn = data.TrainDataset(dataset, endless, 0, pack)
        steps = data.ResumableBatchSampler(drawn, 0)
        if pack and device.startswith("cuda"):
            return lambda: with_targets(data.gpu_batches(drawn, steps, device, workers, None), recipe)
        return lambda: with_targets(data.make_loader(drawn, steps, workers), recipe)

    ways = {"plain": plain, "pictures": ours()}
    ways |= {name: ours(pack) for name, pack in packs.items()}
    if device.startswith("cuda"):
        held = data.TrainDataset(dataset, endless, 0, next(iter(packs.values())))
        whole, steps = held.canvases.tensor(device), data.ResumableBatchSampler(held, 0)
        ways["held"] = lambda: with_targets(data.gpu_batches(held, steps, device, 0, whole), recipe)
    return ways


def measure_pipelines(ways: dict[str, Callable[[], Iterator]], rounds: int = 3, seconds: float = 4.0) -> dict:
    """People a second of each way in turns, a number a round: {name: [...]}.

    In a turn processes start, run for `seconds` to get going, and then for `seconds` that count.
    """
    cv2.setNumThreads(0)  # the processes share the cores
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for the next piece of work would spin on a core of theirs
    found: dict[str, list[float]] = {}
    for _ in tqdm(range(rounds), desc="preparing samples", unit="round"):
        for name, start in ways.items():
            batches = start()
            _people_per_second(batches, seconds)
            found.setdefault(name, []).append(_people_per_second(batches, seconds))
            del batches  # ends its processes: none works beside the other's
    torch.set_num_threads(threads)
    return found


def _people_per_second(batches: Iterator, seconds: float) -> float:
    """People a second of batches taken for so long."""
    start, people = time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < seconds:
        people += len(next(batches)[0])
        _synchronize()
    return people / taken


def _synchronize() -> None:
    """Wait for what a GPU has been told to do."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


# What is changed of a training step, one thing after the other; the last is how posebook trains.
VARIANTS = {
    "as built": {},
    "+ channels last": {"layout": torch.channels_last},
    "+ fused optimizer": {"layout": torch.channels_last, "fused": True},
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
    """People a second through forward pass, loss, backward pass, update and average, a number a round.

    A way a line of VARIANTS, and with another precision or `compile` one more for each: {name: [...]}. The
    batch lies ready on the device.
    """
    ways = {name: variant | {"precision": "float32"} for name, variant in VARIANTS.items()}
    last = list(ways.values())[-1]
    if precision != "float32":
        ways[f"+ {precision}"] = last = last | {"precision": precision}
    if compile:
        ways["+ torch.compile"] = last | {"compile": True}
    takers = {name: _step_function(model, skeleton, recipe, device, **way) for name, way in ways.items()}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in tqdm(range(rounds), desc="training steps", unit="round"):
        for name, take in takers.items():
            start = time.perf_counter()
            for _ in range(steps):
                take()
            _synchronize()
            found[name].append(steps * recipe.batch_size / (time.perf_counter() - start))
    return found


def _step_function(
    model: str,
    skeleton: Skeleton,
    recipe: Recipe,
    device: str,
    layout: torch.memory_format = torch.contiguous_format,
    fused: bool = False,
    precision: str = "float32",
    compile: bool = False,
) -> Callable[[], None]:
    """A function that takes one training step, after two that warm it up."""
    net = models.build(model, skeleton, recipe.input_size).to(device, memory_format=layout).train()
    ema = copy.deepcopy(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=fused)
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=precision == "fp16")
    run, how = TrainState(net, ema, optimizer, scaler, {}), runtime.RuntimeConfig(device, precision=precision)
    joints = len(skeleton.keypoints)
    sides = torch.tensor(recipe.input_size[::-1], device=device)
    images = torch.randint(
        0, 256, (recipe.batch_size, *recipe.input_size, 3), dtype=torch.uint8, device=device
    )
    points = torch.rand(recipe.batch_size, joints, 2, device=device) * sides  # (B, K, 2)
    batch = [images, points, torch.ones(recipe.batch_size, joints, device=device)]
    step = torch.compile(net, dynamic=False) if compile else net

    def called(images: Tensor) -> object:
        return step(images.contiguous(memory_format=layout))  # normalized ones come channels last

    def take() -> None:
        loop.train_step(run, called, batch, recipe.batch_size, recipe, how, 1)
        update_ema(ema, net, run.step, recipe)

    take()
    take()
    _synchronize()
    return take


def profile_stages(
    dataset: PoseDataset, pack: CanvasCache, recipe: Recipe, count: int = 200
) -> dict[str, float]:
    """Microseconds a sample of each piece of its preparation, one process, means over `count` people."""
    drawn = data.TrainDataset(dataset, recipe, 0, pack)
    spent: dict[str, float] = {}

    def timed(name: str, do: Callable, *arguments: object) -> object:
        start = time.perf_counter()
        done = do(*arguments)
        spent[name] = spent.get(name, 0.0) + (time.perf_counter() - start) / count * 1e6
        return done

    drawn.draw(0)
    start = time.perf_counter()
    drawn.draw(1)
    spent["draw the augmentation"] = (time.perf_counter() - start) / len(drawn) * 1e6
    indices = np.random.default_rng(0).integers(0, len(drawn), count)
    for number, index in enumerate([*indices[:20], *indices]):
        if number == 20:  # so far it only warmed up
            spent = {"draw the augmentation": spent["draw the augmentation"]}
        matrix, size = drawn.matrices[index], recipe.input_size
        picture = timed("decode the picture", read_image, dataset.instances[index].image)
        timed("warp the picture", transforms.warp, picture, matrix, size)
        canvas = timed("fetch the canvas", pack.__getitem__, index)
        image = timed("warp the canvas", transforms.warp, canvas, drawn.source_matrices[index], size)
        timed("color, blur, cover", transforms.apply_photometric, image, drawn.jitter, index)
    for first in range(0, count, 32):
        points = drawn.points[torch.from_numpy(indices[first : first + 32])]
        timed(
            "make the targets", codecs.encode_simcc, points, recipe.input_size, 2.0, recipes.sigma_for(recipe)
        )
    return spent
