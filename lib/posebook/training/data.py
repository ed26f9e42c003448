"""Training samples: an epoch's draws, and the batches that come of them on a CPU or on a GPU.

On a CPU loader processes warp and color one sample after the other with OpenCV. A GPU is sent canvases, or
holds them all, and draws a whole batch at once; both take the same draws through the same geometry.

1. Everybody's augmentation of an epoch is drawn from (seed, epoch), and so is the epoch's order, so that a
   resumed run, or one with other loader processes, sees the same pictures.
"""

import math
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from posebook import transforms
from posebook.datasets import PoseDataset, combined, read_image
from posebook.datasets.canvas_cache import CanvasCache
from posebook.training import recipes
from posebook.training.recipes import Recipe


class TrainDataset(Dataset):
    """Augmented training samples, asked for by (epoch, sample index); from `packed`, or from the pictures."""

    def __init__(self, dataset: PoseDataset, recipe: Recipe, seed: int, packed: CanvasCache | None = None):
        self.dataset, self.recipe, self.seed = dataset, recipe, seed
        self.packed, self.epoch, self._order = packed, -1, (-1, np.zeros(0, int))
        self.boxes = np.array([person.bbox for person in dataset.instances])  # (N, 4)
        self.keypoints = np.array([person.keypoints for person in dataset.instances])  # (N, K, 3)
        self.worth = torch.tensor(recipes.joint_weights(dataset.skeleton.keypoints, recipe))  # (K,)

    def __len__(self) -> int:
        return len(self.dataset.instances)

    def person_indices(self, epoch: int) -> np.ndarray:
        """Which person each sample of an epoch shows, (N,)."""
        if self._order[0] != epoch:
            self._order = epoch, combined.epoch_instances(self.dataset, self.seed, epoch)
        return self._order[1]

    def draw(self, epoch: int) -> None:
        """Draw an epoch's augmentation of everybody: one by one they would cost half as much as the warps."""
        chosen = self.person_indices(epoch)
        boxes, keypoints = self.boxes[chosen], self.keypoints[chosen]  # (N, 4), (N, K, 3)
        skeleton, size = self.dataset.skeleton, self.recipe.input_size
        late = epoch >= self.recipe.epochs - self.recipe.stage2_epochs
        augmentation = self.recipe.stage2 if late else self.recipe.stage1
        rng = np.random.default_rng((self.seed, epoch, 1))  # 1: not the order's own numbers
        self.matrices, flips = transforms.random_affine_batch(
            boxes, keypoints, skeleton, size, augmentation, rng
        )
        self.cuts = self.matrices  # (N, 2, 3) from what is warped: a picture, or a canvas
        if self.packed:
            self.cuts = transforms.from_canvas(self.matrices, self.packed.matrices[chosen])
        self.jitter = transforms.draw_jitter(len(boxes), size, augmentation, rng)
        arrays = map(torch.from_numpy, (keypoints, self.matrices, flips))
        self.points, self.weights = transforms.transform_keypoints(
            *arrays, skeleton, size
        )  # (N, K, 2), (N, K)
        self.weights *= self.worth
        self.epoch = epoch

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Input (H, W, 3) uint8, joints (K, 2) in its pixels, and weights (K,): 0 not labeled or outside."""
        return tuple(tensor[0] for tensor in self.__getitems__([key]))

    def __getitems__(self, keys: list[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """A batch of one epoch's samples: images (B, H, W, 3), joints (B, K, 2) and weights (B, K)."""
        epoch, chosen = keys[0][0], [index for _, index in keys]
        if epoch != self.epoch:
            self.draw(epoch)
        images = torch.empty(len(keys), *self.recipe.input_size, 3, dtype=torch.uint8)
        if get_worker_info():  # where the main process will read it: no copy on the way
            images.share_memory_()
        for index, image in zip(chosen, images.numpy(), strict=True):
            image[:] = self._image(index)
        return images, self.points[chosen], self.weights[chosen]

    def _image(self, index: int) -> np.ndarray:
        """The epoch's sample `index`, (H, W, 3)."""
        person = int(self.person_indices(self.epoch)[index])
        picture = self.packed[person] if self.packed else read_image(self.dataset.instances[person].image)
        image = transforms.warp(picture, self.cuts[index], self.recipe.input_size)
        return transforms.apply_photometric(image, self.jitter, index)


def epoch_batches(people: int, recipe: Recipe, seed: int, first_step: int) -> Iterator[list[tuple[int, int]]]:
    """(epoch, person) keys of every batch from first_step to the end; each epoch holds every person once."""
    steps = math.ceil(people / recipe.batch_size)
    for epoch in range(first_step // steps, recipe.epochs):
        order = np.random.default_rng((seed, epoch)).permutation(people)
        for step in range(first_step % steps if epoch == first_step // steps else 0, steps):
            yield [(epoch, int(i)) for i in order[step * recipe.batch_size : (step + 1) * recipe.batch_size]]


class ResumableBatchSampler:
    """`batches` from a step on as the batch sampler a DataLoader wants, of one of several processes."""

    def __init__(self, samples: TrainDataset, first_step: int, rank: int = 0, world: int = 1):
        self.samples, self.first_step, self.rank, self.world = samples, first_step, rank, world

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        samples = self.samples
        for keys in epoch_batches(len(samples), samples.recipe, samples.seed, self.first_step):
            # too few for all processes: each takes them all
            yield keys[self.rank :: self.world] if len(keys) >= self.world else keys


def make_loader(
    samples: Dataset, steps: ResumableBatchSampler, workers: int, pinned: bool = False
) -> DataLoader:
    """The batches of these steps, prepared on the CPU by so many processes."""
    cv2.setNumThreads(0)  # loader processes and torch share the cores already
    return DataLoader(
        samples,
        batch_sampler=steps,
        collate_fn=_as_is if isinstance(samples, TrainDataset) else None,
        num_workers=workers,
        pin_memory=pinned,
        generator=torch.Generator(),  # its own, or beginning anew would move the nets' random numbers
    )


def _as_is(batch: tuple[Tensor, ...]) -> list[Tensor]:
    """The batch as it is: `TrainDataset` returns whole batches."""
    return list(batch)


class CanvasDataset(Dataset):
    """Canvases as they are sent to a device: by (epoch, sample), in squares of one size."""

    def __init__(self, samples: TrainDataset):
        self.samples, self.packed = samples, samples.packed

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        """The square (S, S, 3) uint8 that holds a sample's canvas in its upper left."""
        epoch, index = key
        cut = torch.from_numpy(np.asarray(self.packed[int(self.samples.person_indices(epoch)[index])]))
        square = torch.zeros(self.packed.side, self.packed.side, 3, dtype=torch.uint8)
        square[: len(cut), : len(cut)] = cut
        return square


def gpu_batches(
    samples: TrainDataset, steps: ResumableBatchSampler, device: str, workers: int, whole: Tensor | None
) -> Iterator[list[Tensor]]:
    """The batches of these steps, warped and colored on the device, from packed canvases.

    whole: all of them (N, S, S, 3) where the device holds them; else they are sent as they are needed.
    Yields images (B, H, W, 3) uint8, joints (B, K, 2) and weights (B, K), all on the device.
    """
    pinned = device.startswith("cuda")
    sent = make_loader(CanvasDataset(samples), steps, workers, pinned) if whole is None else None
    for keys, squares in zip(steps, sent if sent is not None else iter(lambda: None, 0), strict=False):
        epoch, people = keys[0][0], np.array([index for _, index in keys])
        if epoch != samples.epoch:
            samples.draw(epoch)
        chosen = torch.from_numpy(people)
        if squares is None:
            squares = whole[
                torch.from_numpy(samples.person_indices(epoch)[people]).to(device)
            ]  # (B, S, S, 3)
        cuts, size = torch.from_numpy(samples.cuts[people]), samples.recipe.input_size
        images = transforms.warp_batch(squares.to(device, non_blocking=True), cuts, size)
        images = transforms.apply_photometric_batch(
            images, transforms.Jitter(*(draws[people] for draws in samples.jitter))
        )
        yield [images, samples.points[chosen].to(device), samples.weights[chosen].to(device)]


def preload_canvases(packed: CanvasCache, device: str) -> Tensor | None:
    """All canvases on a GPU, where they take up at most a quarter of what is free there."""
    need, free = len(packed) * packed.side**2 * 3, torch.cuda.mem_get_info(device)[0]
    return packed.tensor(device) if need <= free / 4 else None
