"""Predict poses in the boxes of a dataset, and save predictions.

1. A single warp maps the box from the full image to the input size. The model runs once, or twice for the
   flip test (flipped heatmaps are shifted by one cell). The inverse affine maps the decoded keypoints back.
2. Heatmaps are decoded by argmax with a quarter offset, or optionally by DARK; SimCC outputs by argmax. For
   weights that were trained with UDP, crop, flip test and decoding are those of UDP.
3. Predictions are saved beside their record, together with the image statistics that the bootstrap needs.
   Two records can therefore be compared image by image without the dataset.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from posebook import codecs, models, transforms
from posebook.datasets import Person, PoseDataset, combined, read_image
from posebook.evaluation.metrics import ImageStats, Predictions
from posebook.models.layers import PoseModel
from posebook.skeletons import joint_difference
from posebook.utils import atomic_write


class CropDataset(Dataset):
    """The model inputs (H, W, 3) of a dataset's people, each with its affine matrix (image to input)."""

    def __init__(self, dataset: PoseDataset, input_size: tuple[int, int], udp: bool = False):
        self.dataset, self.input_size, self.udp = dataset, input_size, udp

    def __len__(self) -> int:
        return len(self.dataset.instances)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, np.ndarray]:
        person = self.dataset.instances[index]
        matrix = transforms.crop_affine(person.bbox, self.input_size, udp=self.udp)
        return torch.from_numpy(transforms.warp(read_image(person.image), matrix, self.input_size)), matrix


def crop_people(
    persons: Sequence[Person], input_size: tuple[int, int], udp: bool = False, upright: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The crops of a few people, uint8 images (B, H, W, 3), and their joints (B, K, 3) in input pixels.

    upright: whether the boxes belong to images that were turned as their EXIF data say.
    """
    matrices = [transforms.crop_affine(person.bbox, input_size, udp=udp) for person in persons]
    pairs = list(zip(persons, matrices, strict=True))
    crops = [
        transforms.warp(read_image(person.image, upright), matrix, input_size) for person, matrix in pairs
    ]
    joints = np.stack([person.keypoints for person in persons]).astype(float)  # (B, K, 3)
    joints[..., :2] = [transforms.apply_affine(matrix, person.keypoints[:, :2]) for person, matrix in pairs]
    return np.stack(crops), joints


def forward(model: PoseModel, images: torch.Tensor, flip_test: bool) -> codecs.SimCC | torch.Tensor:
    """The output for normalized images (B, 3, H, W): SimCC, or the heatmaps (B, K, h, w) of the last stage.

    With flip_test it is the mean of the outputs for the images and for the mirrored images.
    """
    output, flip_indices = model(images), model.skeleton.flip_indices
    if isinstance(output, codecs.SimCC):
        if not flip_test:
            return output
        mirrored = codecs.flip_simcc(model(images.flip(-1)), flip_indices)
        return codecs.SimCC(*((a + b) / 2 for a, b in zip(output, mirrored, strict=True)))
    if not flip_test:
        return output[-1]
    heatmaps = codecs.flip_heatmap(model(images.flip(-1))[-1], flip_indices, shift=not model.udp)
    return (output[-1] + heatmaps) / 2


def decode(
    output: codecs.SimCC | list[torch.Tensor] | torch.Tensor,
    input_size: tuple[int, int],
    dark: bool = False,
    udp: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Keypoints (B, K, 2) in input pixels, scores (B, K) and name of the decoding.

    output: of `forward`, or of a model, whose last stage is then decoded.
    dark: decode heatmaps with DARK. udp: the model's weights were trained with UDP, which includes DARK.

    Raises ValueError for DARK on a model that does not return heatmaps.
    """
    if isinstance(output, codecs.SimCC):
        if dark:
            raise ValueError("DARK decodes heatmaps; this model returns SimCC outputs")
        return *codecs.decode_simcc(output, output.x.shape[-1] / input_size[1]), "simcc argmax"
    if isinstance(output, list):
        output = output[-1]  # (B, K, h, w)
    if udp:
        return *codecs.decode_udp(output.float(), input_size), "heatmap argmax, DARK, UDP"
    stride = input_size[0] // output.shape[-2]
    if dark:
        return *codecs.decode_dark(output.float(), stride), "heatmap argmax, DARK"
    return *codecs.decode_heatmap(output.float(), stride), "heatmap argmax, quarter offset"


@torch.no_grad()
def predict(
    model: PoseModel,
    dataset: PoseDataset,
    flip_test: bool = True,
    batch_size: int = 64,
    device: str = "cpu",
    workers: int = 0,
    dark: bool = False,
) -> Predictions:
    """Keypoints and scores of every person. Moves the model to `device` and puts it into eval mode.

    workers: number of loader processes. dark: decode heatmaps with DARK, as always if `model.dark`. Raises
    ValueError, with the first joint that differs, if the model and the dataset have different joints.
    """
    if difference := joint_difference(model.skeleton.keypoints, dataset.skeleton.keypoints):
        raise ValueError(
            f"the model predicts {model.skeleton.name} joints, {dataset.name} has {dataset.skeleton.name} "
            f"joints: the model's {difference}"
        )
    model.to(device).eval()
    crops = DataLoader(
        CropDataset(dataset, model.input_size, model.udp),
        batch_size,
        num_workers=workers,
        generator=torch.Generator(),  # without it, the loader would draw from the random stream of a training
    )
    keypoints, scores, decoding = [], [], ""
    for images, matrices in tqdm(crops, desc="predict", delay=2, leave=False):
        output = forward(model, transforms.normalize(images.to(device)), flip_test)
        points, score, decoding = decode(output, model.input_size, dark or model.dark, model.udp)
        for matrix, person in zip(matrices.numpy(), points.double().cpu().numpy(), strict=True):
            keypoints.append(transforms.apply_affine(transforms.invert(matrix), person))
        scores.append(score.cpu().numpy())
    return Predictions(np.stack(keypoints), np.concatenate(scores), decoding)


def check_not_trained_on(weights: str | Path, dataset: PoseDataset) -> None:
    """Raise ValueError if a weights file says that it was trained on images of this dataset.

    Images are compared by the hashes of their files, which are read only if the weights file contains hashes.
    """
    if trained := models.trained_images(weights):
        combined.check_overlap(trained, combined.image_hashes(dataset.instances), Path(weights).name)


def save_predictions(path: Path, dataset: PoseDataset, predictions: Predictions, stats: ImageStats) -> Path:
    """Write predictions beside the record `path`, as a compressed .npz file, rounded to 0.01 pixels."""
    people = dataset.instances
    arrays = {
        "person": np.array([person.id for person in people]),
        "image": np.array([person.image_id for person in people]),
        "bbox": np.array([person.bbox for person in people], np.float32),  # (N, 4)
        "keypoints": np.round(predictions.keypoints, 2).astype(np.float32),  # (N, K, 2)
        "scores": predictions.scores.astype(np.float32),  # (N, K)
    }
    arrays |= {f"units.{name}": value for name, value in asdict(stats).items() if value is not None}
    target = Path(path).with_suffix(".npz")
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # the stub mistakes it for allow_pickle
    return target


def _predictions_file(record: str | Path) -> Path:
    path = Path(record).with_suffix(".npz")
    if not path.is_file():
        raise FileNotFoundError(f"no predictions beside {path.with_suffix('.json').name}: evaluate it again")
    return path


def load_predictions(path: str | Path, dataset: PoseDataset) -> Predictions:
    """The predictions saved beside the record `path`, in the order of the dataset.

    Raises FileNotFoundError if there are none, and ValueError if they are those of other people.
    """
    with np.load(_predictions_file(path)) as arrays:
        people = [(person.id, person.image_id) for person in dataset.instances]
        if people != list(zip(arrays["person"].tolist(), arrays["image"].tolist(), strict=True)):
            raise ValueError(f"{Path(path).name} has predictions for other people than {dataset.name}")
        return Predictions(arrays["keypoints"], arrays["scores"])


def load_image_stats(path: str | Path) -> ImageStats:
    """The image statistics saved beside the record `path`. Raises FileNotFoundError if there are none."""
    with np.load(_predictions_file(path)) as arrays:
        return ImageStats(**{key[6:]: arrays[key] for key in arrays.files if key.startswith("units.")})
