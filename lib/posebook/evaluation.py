"""Predict: people, one warp each, the net once or twice, decoded and brought back to the picture.

1. One exact warp from the full image, the net once or twice (flip test; mirrored heatmaps moved by a cell),
   decoding, and the same affine back. metrics.py makes the figures.
2. Heatmaps are decoded by argmax with a quarter offset, or by DARK where asked for; SimCC by argmax.
3. Predictions are kept beside their record, with what the bootstrap needs: two records are then compared
   image by image without the data being there.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from posebook import codecs, complexity, datasets, metrics, models, records, transforms, uncertainty
from posebook.commands import fails_in_one_line
from posebook.datasets import Person, Persons, combined, detections, read_image
from posebook.files import sha256
from posebook.metrics import Predictions, Units
from posebook.skeletons import difference


class Crops(Dataset):
    """The network inputs of some people: one warp each, straight from the full image."""

    def __init__(self, persons: Persons, input_size: tuple[int, int]):
        self.persons, self.input_size = persons, input_size

    def __len__(self) -> int:
        return len(self.persons.persons)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, np.ndarray]:
        person = self.persons.persons[index]
        matrix = transforms.crop_affine(person.bbox, self.input_size)
        return torch.from_numpy(transforms.warp(read_image(person.image), matrix, self.input_size)), matrix


def crops(persons: Sequence[Person], input_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The network inputs of a few people as pictures (B, H, W, 3), and their joints (B, K, 3) in them."""
    matrices = [transforms.crop_affine(person.bbox, input_size) for person in persons]
    pairs = list(zip(persons, matrices, strict=True))
    views = [transforms.warp(read_image(person.image), matrix, input_size) for person, matrix in pairs]
    joints = np.stack([person.keypoints for person in persons]).astype(float)  # (B, K, 3)
    joints[..., :2] = [transforms.apply_affine(matrix, person.keypoints[:, :2]) for person, matrix in pairs]
    return np.stack(views), joints


def forward(model: nn.Module, images: torch.Tensor, flip_test: bool) -> codecs.SimCC | torch.Tensor:
    """Run normalised images (B, 3, H, W); with flip_test, average with the mirrored images' outputs.

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
    persons: Persons,
    flip_test: bool = True,
    batch: int = 64,
    device: str = "cpu",
    workers: int = 0,
    dark: bool = False,
) -> Predictions:
    """Keypoints and scores of every person; puts the model in eval mode.

    Raises ValueError where the model's joints are not the people's, naming the first that differs.
    """
    if fault := difference(model.skeleton.keypoints, persons.skeleton.keypoints):
        raise ValueError(
            f"the model gives {model.skeleton.name} joints, {persons.name} has {persons.skeleton.name} "
            f"joints: the model's {fault}"
        )
    model.to(device).eval()
    crops = DataLoader(Crops(persons, model.input_size), batch, num_workers=workers)
    keypoints, scores, decoding = [], [], ""
    for images, matrices in tqdm(crops, desc="predict", delay=2, leave=False):
        output = forward(model, transforms.normalise(images.to(device)), flip_test)
        points, score, decoding = decode(output, model.input_size, dark)
        for matrix, person in zip(matrices.numpy(), points.double().cpu().numpy(), strict=True):
            keypoints.append(transforms.apply_affine(transforms.invert(matrix), person))
        scores.append(score.cpu().numpy())
    return Predictions(np.stack(keypoints), np.concatenate(scores), decoding)


def evaluate(model: nn.Module, persons: Persons, flip_test: bool = True, **how: object) -> dict[str, float]:
    """Predict and score; `how`: batch, device, workers and dark of `predict`."""
    return metrics.score(persons, predict(model, persons, flip_test, **how))


def protocol(persons: Persons, input_size: tuple[int, int], flip_test: bool, decoding: str) -> dict:
    """What a record says of how a figure was measured."""
    measured = metrics.kind(persons)
    oks, given = measured in ("oks", "crowd"), persons.boxes == "ground truth"
    names = {
        "oks": "OKS AP by pycocotools",
        "crowd": "OKS AP by pycocotools, CrowdPose's areas and 20 detections",
        "pckh": "PCKh, head size",
        "pck": "PCK, torso diagonal",
    }
    return {
        "input_size": list(input_size),
        "boxes": persons.boxes,
        "boxes_sha256": persons.boxes_sha256,
        "flip_test": flip_test,
        "decoding": decoding,
        "metric": names[measured],
        "sigmas": persons.skeleton.name if oks else None,
        "nms": f"OKS {metrics.NMS_THRESHOLD}" if oks and not given else None,
        "rescoring": f"mean of joint scores above {metrics.JOINT_THRESHOLD}" if oks else None,
        "evaluated_on": persons.split,
    }


def check_not_trained_on(weights: str | Path, persons: Persons) -> None:
    """Raise ValueError where weights were trained on images of these people, as far as their file tells.

    Images are compared by hashes of their files, which are read only where the weights carry hashes.
    """
    if trained := models.trained_images(weights):
        combined.check_overlap(trained, combined.image_hashes(persons.persons), Path(weights).name)


def record(
    model: nn.Module,
    persons: Persons,
    weights: str | Path,
    name: str | None = None,
    trained_on: str | None = None,
    profile: str = "demo",
    device: str = "cpu",
    seed: int = 0,
    workers: int = 0,
    dark: bool = False,
) -> tuple[dict, Predictions, Units]:
    """Measure a model of a weights file with and without flip test: the record, predictions, and their units.

    name and trained_on: the model, and the dataset, of weights that do not say it themselves; profile and
    seed only name the record. Raises ValueError, before any work, for people whose images the weights were
    trained on.
    """
    check_not_trained_on(weights, persons)
    watch, facts = records.Stopwatch(device), models.describe_weights(weights)
    how = {"device": device, "workers": workers, "dark": dark}
    single = metrics.score(persons, predict(model, persons, flip_test=False, **how))
    found = predict(model, persons, flip_test=True, **how)
    scores, units = metrics.measure(persons, found)
    height, width = model.input_size
    name = facts.get("model", name)
    words = ["evaluate", name, *(f"{k}={v}" for k, v in facts.get("options", {}).items()), persons.name]
    words += [f"{height}x{width}", profile, f"seed{seed}"]
    words += [] if persons.boxes == "ground truth" else ["detector"]
    written = {
        "kind": "evaluate",
        "name": "-".join(words),
        "model": name,
        "options": facts.get("options", {}),
        "dataset": persons.describe(),
        "profile": profile,
        "parameters": {"split": persons.split, "device": device, "workers": workers, "dark": dark},
        "protocol": protocol(persons, model.input_size, True, found.decoding),
        "metrics": scores,
        "interval": uncertainty.interval(units),
        "metrics_without_flip": single,
        "complexity": complexity.count(model, model.input_size),
        "weights": {"sha256": sha256(weights), "trained_on": facts.get("trained_on", trained_on)},
        "seed": seed,
        **watch.stamp(),
    }
    return written, found, units


def save(path: Path, persons: Persons, predictions: Predictions, units: Units) -> Path:
    """Write PATH's predictions beside its record, as NAME.npz: hundredths of a pixel, compressed."""
    people = persons.persons
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


def load_units(path: Path) -> Units:
    """The units kept beside the record PATH; raises FileNotFoundError where it has none."""
    path = Path(path).with_suffix(".npz")
    if not path.is_file():
        raise FileNotFoundError(f"no predictions beside {path.with_suffix('.json').name}: evaluate it again")
    with np.load(path) as arrays:
        return Units(**{key[6:]: arrays[key] for key in arrays.files if key.startswith("units.")})


@fails_in_one_line
def main() -> None:
    """Evaluate from the command line; writes the record and its predictions, and says where."""
    parser = argparse.ArgumentParser(prog="python -m posebook.evaluation", description="Evaluate weights.")
    parser.add_argument("--weights", required=True, help="as training writes them, or the authors' file")
    parser.add_argument("--model", help=f"of weights that do not say it: {', '.join(models.names())}")
    parser.add_argument("--input-size", type=int, nargs=2, default=(256, 192), help="likewise: height, width")
    parser.add_argument("--trained-on", help="likewise: the dataset; coco for the authors'")
    parser.add_argument("--dataset", default="synthetic", help=", ".join(datasets.NAMES))
    parser.add_argument("--data-root", help="its own folder; default $POSEBOOK_DATA/NAME or data/NAME")
    parser.add_argument("--split", help="default: what the dataset is evaluated on")
    parser.add_argument("--boxes", help="a detector's file of boxes; default: the annotated boxes")
    parser.add_argument("--dark", action="store_true", help="decode heatmaps by DARK")
    parser.add_argument("--profile", default="demo", help="names the record")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--workers", type=int, default=0, help="loader processes")
    parser.add_argument("--out-dir", default="reports")
    told = parser.parse_args()
    people = datasets.load(told.dataset, told.data_root, told.split)
    people = detections.load(people, told.boxes) if told.boxes else people
    model = models.load_weights(told.weights, told.model, tuple(told.input_size))
    how = {name: getattr(told, name) for name in ("trained_on", "profile", "device", "workers", "dark")}
    written, found, units = record(model, people, told.weights, told.model, **how)
    path = records.write(written, told.out_dir)
    save(path, people, found, units)
    print({key: round(value, 4) for key, value in written["metrics"].items()}, path, sep="\n")


if __name__ == "__main__":
    main()
