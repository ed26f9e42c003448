"""Random people and canvases in memory: training data of any size without files."""

import math
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from posebook import skeletons
from posebook.datasets import Person, PoseDataset, canvas_cache
from posebook.training.recipes import Recipe

NUM_IMAGES = 16  # different canvases
TILE, NOISE = 16, 7  # tiles of one color with noise: a JPEG file is as large as one of a photograph


class RandomCanvases:
    """Random canvases with the interface of `CanvasCache`. A canvas is the whole image of its person.

    jpeg: whether canvases are stored as JPEG files and decoded at each access, which needs OpenCV.
    """

    def __init__(self, count: int, side: int, jpeg: bool = False):
        self.side, self.matrices = side, np.tile(np.eye(2, 3), (count, 1, 1))  # (N, 2, 3)
        rng, tiles = np.random.default_rng(0), math.ceil(side / TILE)
        coarse = rng.integers(0, 240, (min(count, NUM_IMAGES), tiles, tiles, 3))
        images = coarse.repeat(TILE, 1).repeat(TILE, 2)[:, :side, :side]  # (N, S, S, 3)
        self._images = (images + rng.integers(0, NOISE, images.shape)).astype(np.uint8)
        quality = [cv2.IMWRITE_JPEG_QUALITY, canvas_cache.QUALITY] if jpeg else []
        encoded = self._images[..., ::-1] if jpeg else ()  # OpenCV's order is BGR
        self._files = [cv2.imencode(".jpg", image, quality)[1] for image in encoded]

    def __len__(self) -> int:
        return len(self.matrices)

    def __getitem__(self, i: int) -> np.ndarray:
        """The canvas (S, S, 3), uint8, of person i."""
        if not self._files:
            return self._images[i % len(self._images)]
        canvas = cv2.imdecode(self._files[i % len(self._files)], cv2.IMREAD_COLOR_RGB)
        assert canvas is not None  # it was encoded here
        return canvas

    def tensor(self, device: str) -> Tensor:
        """All canvases on a device, (N, S, S, 3) uint8."""
        images = torch.from_numpy(self._images).to(device)
        return images[torch.arange(len(self), device=device) % len(images)]


def random_people(count: int, recipe: Recipe, jpeg: bool = False) -> tuple[PoseDataset, RandomCanvases]:
    """Return `count` people with COCO's joints at random positions, and canvases for the recipe."""
    height, width = recipe.input_size
    reach = canvas_cache.canvas_reach(recipe.input_size, (recipe.stage1, recipe.stage2))
    side = 8 * math.ceil(2 * reach * canvas_cache.DENSITY / 8)
    # The enlarged box has DENSITY pixels per pixel of the input, as in a canvas cache.
    w, h = (length * canvas_cache.DENSITY / canvas_cache.PADDING for length in (width, height))
    x, y = (side - w) / 2, (side - h) / 2
    skeleton, rng = skeletons.get("coco"), np.random.default_rng(0)
    joints = rng.uniform((x, y), (x + w, y + h), (count, len(skeleton.keypoints), 2))  # (N, K, 2)
    keypoints = np.concatenate([joints, np.full((*joints.shape[:2], 1), 2.0)], 2)  # (N, K, 3)
    people = tuple(Person(Path(f"{i}.jpg"), i, i, (x, y, w, h), w * h, keypoints[i]) for i in range(count))
    return PoseDataset("random", "train", skeleton, "", people, Path("none")), RandomCanvases(
        count, side, jpeg
    )
