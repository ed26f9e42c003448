"""Predict: people, one warp each, the net once or twice, decoded and brought back to the picture.

1. One exact warp from the full image, the net once or twice (flip test; mirrored heatmaps moved by a cell),
   decoding, and the same affine back. evaluation/metrics.py makes the figures.
2. Heatmaps are decoded by argmax with a quarter offset, or by DARK where asked for; SimCC by argmax.
3. Predictions are kept beside their record, with what the bootstrap needs: two records are then compared
   image by image without the data being there.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from posebook import codecs, models, transforms
from posebook.datasets import Person, PoseDataset, combined, read_image
from posebook.evaluation.metrics import ImageStats, Predictions
from posebook.skeletons import joint_difference


class CropDataset(Dataset):
    """The network inputs of some people: one warp each, straight from the full image."""

    def __init__(self, dataset: PoseDataset, input_size: tuple[int, int]):
        self.dataset, self.input_size = dataset, input_size

    def __len__(self) -> int:
        return len(self.dataset.instances)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, np.ndarray]:
        person = self.dataset.instances[index]
        matrix = transforms.crop_affine(person.bbox, self.input_size)
        return torch.from_numpy(transforms.warp(read_image(person.image), matrix, self.input_size)), matrix


def crop_people(persons: Sequence[Person], input_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The network inputs of a few people as pictures (B, H, W, 3), and their joints (B, K, 3) in them."""
    matrices = [transforms.crop_affine(person.bbox, input_size) for person in persons]
    pairs = list(zip(persons, matrices, strict=True))
    views = [transforms.warp(read_image(person.image), matrix, input_size) for person, matrix in pairs]
    joints = np.stack([person.keypoints for person in persons]).astype(float)  # (B, K, 3)
    joints[..., :2] = [transforms.apply_affine(matrix, person.keypoints[:, :2]) for person, matrix in pairs]
    return np.stack(views), joints


def forward(model: nn.Module, images: torch.Tensor, flip_test: bool) -> codecs.SimCC | torch.Tensor:
    """Run normalized images (B, 3, H, W); with flip_test, average with the mirrored images' outputs.

    Of a heatmap model the last stage's heatmaps (B, K, h, w).
    """
    output, flips = model(images), model.skeleton.flip_indices
    if isinstance(output, codecs.SimCC):
        if not flip_test:
            return output
        mirrored = codecs.flip_simcc(model(images.flip(-1)), flips)
        return codecs.SimCC(*((a + b) / 2 for a, b in zip(output, mirrored, strict=True)))
    if not flip_test:
        return output[-1]
    return (output[-1] + codecs.flip_heatmap(model(images.flip(-1))[-1], flips)) / 2


def decode(
    output: codecs.SimCC | torch.Tensor, input_size: tuple[int, int], dark: bool = False
) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Keypoints (B, K, 2) in input pixels, scores (B, K) and the decoding's name, of what `forward` gives.

    Raises ValueError for DARK on a model that gives no heatmaps.
    """
    if isinstance(output, codecs.SimCC):
        if dark:
            raise ValueError("DARK decodes heatmaps; this model gives coordinate classes")
        return *codecs.decode_simcc(output, output.x.shape[-1] / input_size[1]), "simcc argmax"
    stride = input_size[0] // output.shape[-2]
    if dark:
        return *codecs.decode_dark(output.float(), stride), "heatmap argmax, DARK"
    return *codecs.decode_heatmap(output, stride), "heatmap argmax, quarter offset"


@torch.no_grad()
def predict(
    model: nn.Module,
    dataset: PoseDataset,
    flip_test: bool = True,
    batch: int = 64,
    device: str = "cpu",
    workers: int = 0,
    dark: bool = False,
) -> Predictions:
    """Keypoints and scores of every person; puts the model in eval mode.

    Raises ValueError where the model's joints are not the people's, naming the first that differs.
    """
    if fault := joint_difference(model.skeleton.keypoints, dataset.skeleton.keypoints):
        raise ValueError(
            f"the model gives {model.skeleton.name} joints, {dataset.name} has {dataset.skeleton.name} "
            f"joints: the model's {fault}"
        )
    model.to(device).eval()
    crops = DataLoader(CropDataset(dataset, model.input_size), batch, num_workers=workers)
    keypoints, scores, decoding = [], [], ""
    for images, matrices in tqdm(crops, desc="predict", delay=2, leave=False):
        output = forward(model, transforms.normalize(images.to(device)), flip_test)
        points, score, decoding = decode(output, model.input_size, dark)
        for matrix, person in zip(matrices.numpy(), points.double().cpu().numpy(), strict=True):
            keypoints.append(transforms.apply_affine(transforms.invert(matrix), person))
        scores.append(score.cpu().numpy())
    return Predictions(np.stack(keypoints), np.concatenate(scores), decoding)


def check_not_trained_on(weights: str | Path, dataset: PoseDataset) -> None:
    """Raise ValueError where weights were trained on images of these people, as far as their file tells.

    Images are compared by hashes of their files, which are read only where the weights carry hashes.
    """
    if trained := models.trained_images(weights):
        combined.check_overlap(trained, combined.image_hashes(dataset.instances), Path(weights).name)


def save_predictions(path: Path, dataset: PoseDataset, predictions: Predictions, units: ImageStats) -> Path:
    """Write PATH's predictions beside its record, as NAME.npz: hundredths of a pixel, compressed."""
    people = dataset.instances
    arrays = {
        "person": np.array([person.id for person in people]),
        "image": np.array([person.image_id for person in people]),
        "bbox": np.array([person.bbox for person in people], np.float32),  # (N, 4)
        "keypoints": np.round(predictions.keypoints, 2).astype(np.float32),  # (N, K, 2)
        "scores": predictions.scores.astype(np.float32),  # (N, K)
    }
    arrays |= {f"units.{name}": value for name, value in asdict(units).items() if value is not None}
    target = Path(path).with_suffix(".npz")
    temporary = target.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, **arrays)
    temporary.replace(target)
    return target


def load_image_stats(path: Path) -> ImageStats:
    """The units kept beside the record PATH; raises FileNotFoundError where it has none."""
    path = Path(path).with_suffix(".npz")
    if not path.is_file():
        raise FileNotFoundError(f"no predictions beside {path.with_suffix('.json').name}: evaluate it again")
    with np.load(path) as arrays:
        return ImageStats(**{key[6:]: arrays[key] for key in arrays.files if key.startswith("units.")})
