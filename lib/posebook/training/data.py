"""Training samples: the augmentation of each epoch, and batches of samples on a CPU or a GPU.

On a CPU, loader processes warp and color one sample after the other with OpenCV. A GPU receives canvases, or
stores all of them, and augments a whole batch at once. Both apply the same random draws.

1. The sample order and the augmentation of an epoch are drawn from (seed, epoch). A resumed run, or one with
   another number of loader processes, therefore sees the same images.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from posebook import transforms
from posebook.datasets import PoseDataset, combined, read_image
from posebook.datasets.canvas_cache import CanvasCache
from posebook.training import recipes
from posebook.training.recipes import BaseRecipe, Recipe

Key = tuple[int, int]  # (epoch, index of a sample in this epoch)


class EpochDataset(Protocol):
    """Interface of the datasets that the training loop takes: dataset[epoch, index] is a training sample."""

    @property
    def recipe(self) -> BaseRecipe: ...

    @property
    def seed(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Key, /) -> tuple: ...


class TrainDataset(Dataset):
    """Augmented training samples, from images or, if given, from canvases."""

    def __init__(self, dataset: PoseDataset, recipe: Recipe, seed: int, canvases: CanvasCache | None = None):
        self.dataset, self.recipe, self.seed, self.canvases = dataset, recipe, seed, canvases
        self.epoch = -1  # whose augmentation is drawn
        self._order = -1, np.zeros(0, int)  # an epoch and its person indices
        self.boxes = np.array([person.bbox for person in dataset.instances])  # (N, 4)
        self.keypoints = np.array([person.keypoints for person in dataset.instances])  # (N, K, 3)
        self.joint_weights = torch.tensor(recipes.joint_weights(dataset.skeleton.keypoints, recipe))  # (K,)

    def __len__(self) -> int:
        return len(self.dataset.instances)

    def person_indices(self, epoch: int) -> np.ndarray:
        """Return the index of the person that each sample of an epoch shows, (N,)."""
        if self._order[0] != epoch:
            self._order = epoch, combined.epoch_instances(self.dataset, self.seed, epoch)
        return self._order[1]

    def draw(self, epoch: int) -> None:
        """Draw the augmentation of all samples of an epoch at once.

        Drawn one by one, it would take half as long as the warps themselves.
        """
        chosen = self.person_indices(epoch)
        boxes, keypoints = self.boxes[chosen], self.keypoints[chosen]  # (N, 4), (N, K, 3)
        skeleton, size = self.dataset.skeleton, self.recipe.input_size
        in_stage2 = epoch >= self.recipe.epochs - self.recipe.stage2_epochs
        augmentation = self.recipe.stage2 if in_stage2 else self.recipe.stage1
        rng = np.random.default_rng((self.seed, epoch, 1))  # 1: epoch_batches uses (seed, epoch)
        self.matrices, flips = transforms.random_affine_batch(
            boxes, keypoints, skeleton, size, augmentation, rng
        )  # (N, 2, 3) from image to input, (N,)
        self.source_matrices = self.matrices  # (N, 2, 3) from image or canvas to input
        if self.canvases:
            self.source_matrices = transforms.from_canvas(self.matrices, self.canvases.matrices[chosen])
        self.jitter = transforms.draw_jitter(len(boxes), size, augmentation, rng)
        self.points, self.weights = transforms.transform_keypoints(
            torch.from_numpy(keypoints),
            torch.from_numpy(self.matrices),
            torch.from_numpy(flips),
            skeleton,
            size,
        )  # (N, K, 2), (N, K)
        self.weights *= self.joint_weights
        self.epoch = epoch

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor, Tensor]:
        """Return an input (H, W, 3) uint8, its keypoints (K, 2) in pixels, and their weights (K,).

        The weight is 0 for a joint that is not labeled or lies outside the input.
        """
        images, points, weights = self.__getitems__([key])
        return images[0], points[0], weights[0]

    def __getitems__(self, keys: list[Key]) -> tuple[Tensor, Tensor, Tensor]:
        """Return a batch from one epoch: images (B, H, W, 3), keypoints (B, K, 2) and weights (B, K)."""
        epoch, indices = keys[0][0], [index for _, index in keys]
        if epoch != self.epoch:
            self.draw(epoch)
        images = torch.empty(len(keys), *self.recipe.input_size, 3, dtype=torch.uint8)
        if get_worker_info():  # in shared memory from the start, so that the main process gets it uncopied
            images.share_memory_()
        for index, image in zip(indices, images.numpy(), strict=True):
            image[:] = self._image(index)
        return images, self.points[indices], self.weights[indices]

    def _image(self, index: int) -> np.ndarray:
        """Return the image of a sample of the drawn epoch, (H, W, 3)."""
        person = int(self.person_indices(self.epoch)[index])
        source = self.canvases[person] if self.canvases else read_image(self.dataset.instances[person].image)
        image = transforms.warp(source, self.source_matrices[index], self.recipe.input_size)
        return transforms.apply_photometric(image, self.jitter, index)


def epoch_batches(num_samples: int, recipe: BaseRecipe, seed: int, first_step: int) -> Iterator[list[Key]]:
    """Yield the keys of every batch from first_step to the end. Each epoch has every sample once."""
    steps = math.ceil(num_samples / recipe.batch_size)
    for epoch in range(first_step // steps, recipe.epochs):
        order = np.random.default_rng((seed, epoch)).permutation(num_samples)
        for step in range(first_step % steps if epoch == first_step // steps else 0, steps):
            yield [(epoch, int(i)) for i in order[step * recipe.batch_size : (step + 1) * recipe.batch_size]]


class ResumableBatchSampler:
    """Batch sampler for a DataLoader: one process's part of `epoch_batches` from a step on."""

    def __init__(self, dataset: EpochDataset, first_step: int, rank: int = 0, world_size: int = 1):
        self.dataset, self.first_step, self.rank, self.world_size = dataset, first_step, rank, world_size

    def __iter__(self) -> Iterator[list[Key]]:
        dataset = self.dataset
        for keys in epoch_batches(len(dataset), dataset.recipe, dataset.seed, self.first_step):
            # A batch with fewer samples than processes goes to each process as a whole.
            yield keys[self.rank :: self.world_size] if len(keys) >= self.world_size else keys


def make_loader(
    dataset: Any, sampler: ResumableBatchSampler, workers: int, pin_memory: bool = False
) -> DataLoader:
    """Return a loader that prepares the sampler's batches on the CPU, in `workers` processes.

    dataset: any object with `__getitem__` for the sampler's keys.
    """
    cv2.setNumThreads(0)  # the loader processes and torch already use all cores
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=list if isinstance(dataset, TrainDataset) else None,  # its __getitems__ returns a batch
        num_workers=workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # the default one would take numbers from the model's random stream
    )


class CanvasDataset(Dataset):
    """Canvases for augmentation on a GPU, by (epoch, index), padded to squares of one size."""

    def __init__(self, dataset: TrainDataset, canvases: CanvasCache):
        self.dataset, self.canvases = dataset, canvases

    def __getitem__(self, key: Key) -> Tensor:
        """Return a square (S, S, 3) uint8 with the sample's canvas in its upper left corner."""
        epoch, index = key
        canvas = torch.from_numpy(np.asarray(self.canvases[int(self.dataset.person_indices(epoch)[index])]))
        square = torch.zeros(self.canvases.side, self.canvases.side, 3, dtype=torch.uint8)
        square[: len(canvas), : len(canvas)] = canvas
        return square


def gpu_batches(
    dataset: TrainDataset,
    sampler: ResumableBatchSampler,
    device: str,
    workers: int,
    preloaded: Tensor | None,
) -> Iterator[list[Tensor]]:
    """Yield the sampler's batches, warped and colored on the device from the dataset's canvases.

    preloaded: all canvases (N, S, S, 3) on the device; None: each batch of canvases is copied there. Yields
    images (B, H, W, 3) uint8, keypoints (B, K, 2) and weights (B, K), all on the device.
    """
    assert dataset.canvases is not None
    loader: Iterable[Tensor | None] = itertools.repeat(None)
    if preloaded is None:
        canvases = CanvasDataset(dataset, dataset.canvases)
        loader = make_loader(canvases, sampler, workers, device.startswith("cuda"))
    for keys, squares in zip(sampler, loader, strict=False):  # squares: (B, S, S, 3)
        epoch, indices = keys[0][0], np.array([index for _, index in keys])
        if epoch != dataset.epoch:
            dataset.draw(epoch)
        if squares is None:
            assert preloaded is not None
            squares = preloaded[torch.from_numpy(dataset.person_indices(epoch)[indices]).to(device)]
        matrices, size = torch.from_numpy(dataset.source_matrices[indices]), dataset.recipe.input_size
        images = transforms.warp_batch(squares.to(device, non_blocking=True), matrices, size)  # (B, H, W, 3)
        jitter = transforms.Jitter(*(draws[indices] for draws in dataset.jitter))
        images = transforms.apply_photometric_batch(images, jitter)
        chosen = torch.from_numpy(indices)
        yield [images, dataset.points[chosen].to(device), dataset.weights[chosen].to(device)]


def preload_canvases(canvases: CanvasCache, device: str) -> Tensor | None:
    """Copy all canvases to a GPU if they fit into a quarter of its free memory, else return None."""
    size, free = len(canvases) * canvases.side**2 * 3, torch.cuda.mem_get_info(device)[0]
    return canvases.tensor(device) if size <= free / 4 else None
