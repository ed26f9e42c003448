"""Train and evaluate lifters with the training loop that all models share.

posebook train-lifter --lifter mixste --prune '{"1": ["uniform", 9]}'

The loss is the one of MixSTE's code: the weighted distance of the joints, the squared velocity of the
prediction, and the velocity error. MotionBERT's adds the distance after the best scaling.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from posebook import records
from posebook.lifting import complexity, h36m_3dhp, metrics, pruning, recipes, synthetic_motion, weights_io
from posebook.lifting.clips import Clip, WindowDataset, clip_inputs, clip_targets, window_starts
from posebook.lifting.models import LIFTERS, Lifter
from posebook.lifting.recipes import Recipe
from posebook.lifting.skeleton import mirror
from posebook.training import loop, runtime
from posebook.training.config import TrainConfig
from posebook.utils import check_name

DATASETS = ("motion", *h36m_3dhp.NAMES)
SYNTHETIC_CLIPS = {"train": 240, "val": 40}  # clips of 243 frames at 25 frames per second


def load_clips(dataset: str, root: str | Path | None, split: str) -> list[Clip]:
    """The clips of a split of the bundled synthetic motion ("motion"), or of a dataset's files in `root`."""
    check_name(dataset, DATASETS, "dataset")
    if dataset == "motion":
        return synthetic_motion.load_split(split, SYNTHETIC_CLIPS[split], frames=243, fps=25.0)
    if root is None:
        raise ValueError(f"dataset {dataset} needs data_root, the folder of its npz files")
    return h36m_3dhp.load(dataset, root, split)


def clips_hash(clips: list[Clip]) -> str:
    """A SHA-256 of the 2D and 3D joints of clips."""
    digest = hashlib.sha256()
    for clip in clips:
        assert clip.pose is not None, f"{clip.name} has no 3D pose"
        digest.update(clip.keypoints.astype("float32").tobytes() + clip.pose.astype("float32").tobytes())
    return digest.hexdigest()


def dataset_facts(name: str, split: str, clips: list[Clip]) -> dict:
    """What a record says of a dataset."""
    return {"name": name, "split": split, "sha256": clips_hash(clips), "clips": len(clips)}


def lifting_loss(predicted: Tensor, truth: Tensor, mask: Tensor, recipe: Recipe) -> Tensor:
    """The recipe's loss of poses (B, F, J, 3) in meters, over the frames of a mask (B, F) bool."""
    frames = mask.to(predicted.dtype)  # (B, F)
    steps = frames[:, 1:]  # a velocity counts if its later frame does

    def mean(values: Tensor, weights: Tensor) -> Tensor:
        """The mean of values (B, f, J) over joints and frames with weights (B, f)."""
        return (values * weights[..., None]).sum() / (weights.sum() * values.shape[-1]).clamp(min=1)

    joint_weights = predicted.new_tensor(recipe.joints)  # (J,)
    total = mean(joint_weights * (predicted - truth).norm(dim=-1), frames)
    velocity = predicted.diff(dim=1)  # (B, F - 1, J, 3)
    if recipe.smooth:
        total = total + recipe.smooth * mean(joint_weights * velocity.square().mean(-1), steps)
    if recipe.velocity:
        total = total + recipe.velocity * mean((velocity - truth.diff(dim=1)).norm(dim=-1), steps)
    if recipe.scale:
        scale = (predicted * truth).sum((-2, -1)) / predicted.square().sum((-2, -1)).clamp(min=1e-8)  # (B, F)
        total = total + recipe.scale * mean((scale[..., None, None] * predicted - truth).norm(dim=-1), frames)
    return total.square() / 2 if recipe.squared else total


def lifter_objective(model: Callable, batch: list[Tensor], recipe: Recipe) -> Tensor:
    """`lifting_loss` of a model on inputs (B, F, J, C), targets (B, F, J, 3) and masks (B, F)."""
    x, truth, mask = batch
    return lifting_loss(model(x).float(), truth, mask, recipe)


@torch.no_grad()
def lift_sequence(lifter: Lifter, x: Tensor, flip_test: bool = True, batch_size: int = 64) -> Tensor:
    """Lift a sequence (T, J, C) of any length, window by window, to (T, J, 3): meters relative to the hip.

    The predicted hip is subtracted from all joints (recipes.py, choice 5).

    flip_test: average with the prediction for the mirrored sequence. Raises ValueError if the sequence is
    shorter than the lifter's window.
    """
    device, windows = next(lifter.parameters()).device, window_starts(len(x), lifter.frames)
    x = x.to(device)
    poses = x.new_zeros(len(x), x.shape[1], 3)
    lifter.eval()
    for first in range(0, len(windows), batch_size):
        chunk = windows[first : first + batch_size]
        inputs = torch.stack([x[start : start + lifter.frames] for start, _ in chunk])  # (B, F, J, C)
        predicted = lifter(inputs)
        if flip_test:
            predicted = (predicted + mirror(lifter(mirror(inputs)))) / 2
        for (start, mask), pose in zip(chunk, predicted - predicted[:, :, :1], strict=True):
            frames = torch.from_numpy(mask).to(device)
            poses[start : start + lifter.frames][frames] = pose[frames]
    return poses.cpu()


def evaluate_lifter(lifter: Lifter, clips: list[Clip], flip_test: bool = True) -> tuple[dict, dict]:
    """Metrics in mm of a lifter on clips: the mean over actions, and by action."""
    predicted = [lift_sequence(lifter, clip_inputs(clip, lifter.channels), flip_test) for clip in clips]
    return metrics.measure(predicted, [clip_targets(clip) for clip in clips], [clip.action for clip in clips])


def _builder_options(lifter: str, profile: str, prune: dict | None, recover: str, options: dict) -> dict:
    """Keyword arguments of `pruning.build_lifter`; raises ValueError for a lifter that cannot be trained."""
    check_name(lifter, LIFTERS, "lifter")
    if recover == "keep":
        raise ValueError("a lifter that predicts only the kept frames cannot be trained: recover all frames")
    if "frames" in options:
        raise ValueError("frames is a field of the recipe, not an option of the lifter")
    small = recipes.SMALL_MOTIONBERT if lifter == "motionbert" else recipes.SMALL_MODEL
    options = ({} if profile == "paper" else small) | options
    return options | {"prune": prune, "recover": recover} if prune else options


def train_lifter(
    lifter: str = "mixste",
    dataset: str = "motion",
    data_root: str | None = None,
    profile: str = "demo",
    device: str = "cpu",
    seed: int = 0,
    out_dir: str | Path = "reports",
    prune: dict | None = None,
    recover: str = "interpolate",
    options: dict | None = None,
    name: str | None = None,
    **changes: Any,
) -> dict:
    """Train a lifter, evaluate it, and return the record; {} in all processes but the first.

    Its many parameters are the options of `posebook train-lifter`. prune, recover: see
    `pruning.build_lifter`. options: keyword arguments of the lifter, added to `recipes.SMALL_MODEL` in the
    profiles demo and fast. changes: fields of the recipe. Weights and checkpoints go to
    OUT_DIR/runs/NAME-HASH, where the same call continues. Raises ValueError for unknown names before any
    work, and as posebook.training.train does.
    """
    options = _builder_options(lifter, profile, prune, recover, options or {})
    recipe = recipes.get(profile, lifter, **changes)
    runtime_config = runtime.make_runtime(TrainConfig(device=device))
    metadata = records.RunMetadata(runtime_config.device)
    torch.manual_seed(seed)
    model = pruning.build_lifter(lifter, recipe.frames, **options)
    train_clips, val_clips = (load_clips(dataset, data_root, split) for split in ("train", "val"))
    name = name or f"lift-{lifter}-{dataset}-{profile}-seed{seed}"
    identity = {"lifter": lifter, "options": options, "data": clips_hash(train_clips), "seed": seed}

    def make_dataset(_: bool) -> WindowDataset:
        return WindowDataset(train_clips, recipe, seed, model.channels)

    def score(ema: nn.Module) -> dict:
        return evaluate_lifter(cast(Lifter, ema), val_clips, flip_test=False)[0]

    spec = loop.RunSpec(name, Path(out_dir), identity)
    run, folder = loop.fit(model, make_dataset, recipe, runtime_config, spec, score, lifter_objective)
    if runtime_config.rank > 0:  # the first process writes the record
        return {}
    evaluation = evaluation_fields(cast(Lifter, run.ema), dataset, val_clips)
    run.curve[-1] |= evaluation["metrics_without_flip"]
    path = folder / "weights.safetensors"
    digest = weights_io.save_weights(cast(Lifter, run.ema.cpu()), path, lifter, dataset, **options)
    fields = {
        "model": lifter,
        "options": options,
        "dataset": dataset_facts(dataset, "train", train_clips),
        "profile": profile,
        "parameters": run.identity["recipe"] | {"dataset": dataset, "device": runtime_config.device},
        **evaluation,
        "curve": run.curve,
        "weights": records.weights_facts(path, digest, "scratch", dataset),
    }
    return records.build("lift", name, metadata, run.seconds, **fields, seed=seed)


def evaluation_fields(lifter: Lifter, dataset: str, clips: list[Clip]) -> dict:
    """The fields of a record that describe a lifter's evaluation."""
    means, actions = evaluate_lifter(lifter, clips)
    frames = sum(len(clip.keypoints) for clip in clips)
    return {
        "protocol": {
            "input": "2D joints with a detector's errors" if dataset == "motion" else "2D joints of the file",
            "flip_test": True,
            "metric": "mm, hip at 0, every frame once, mean over actions",
        },
        "evaluated": dataset_facts(dataset, "val", clips) | {"frames": frames},
        "metrics": means,
        "metrics_without_flip": evaluate_lifter(lifter, clips, flip_test=False)[0],
        "actions": actions,
        "complexity": complexity.count(lifter),
    }
