"""Training and scoring of lifters, through the loop that all nets of posebook share.

posebook train-lifter --lifter mixste --prune '{"1": ["uniform", 9]}'

The loss is that of MixSTE's code: joints' weighted distance, the answer's own squared velocity, and the error
of velocity; MotionBERT's adds the distance after the best scale.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from posebook import records
from posebook.lifting import complexity, h36m_3dhp, metrics, pruning, recipes, synthetic_motion, weights_io
from posebook.lifting.clips import Clip, WindowDataset, clip_inputs, clip_targets, window_starts
from posebook.lifting.models import LIFTERS, Lifter
from posebook.lifting.recipes import Recipe
from posebook.lifting.skeleton import mirror
from posebook.training import loop, runtime
from posebook.training.config import TrainConfig
from posebook.utils import unknown_name_error

DATASETS = ("motion", *h36m_3dhp.NAMES)
SYNTHETIC_CLIPS = {"train": 240, "val": 40}  # clips of 243 frames at 25 a second


def load_clips(dataset: str, root: str | Path | None, split: str) -> list[Clip]:
    """The clips of a dataset's split: motion, which is made here, or those of files."""
    if dataset not in DATASETS:
        raise unknown_name_error(dataset, DATASETS, "dataset")
    if dataset == "motion":
        return synthetic_motion.load_split(split, SYNTHETIC_CLIPS[split], frames=243, fps=25.0)
    return h36m_3dhp.load(dataset, root, split)


def clips_hash(clips: list[Clip]) -> str:
    """What tells these clips from others: a hash of all that nets are given and asked."""
    found = hashlib.sha256()
    for clip in clips:
        found.update(clip.keypoints.astype("float32").tobytes() + clip.pose.astype("float32").tobytes())
    return found.hexdigest()


def lifting_loss(found: Tensor, truth: Tensor, counted: Tensor, recipe: Recipe) -> Tensor:
    """The recipe's loss of poses (B, F, J, 3) in meters, over the frames that count (B, F) bool."""
    frames = counted.to(found.dtype)  # (B, F)
    steps = frames[:, 1:]  # a velocity counts with its later frame

    def mean(values: Tensor, of: Tensor) -> Tensor:
        """Of values (B, f, J) over counted frames (B, f) and joints."""
        return (values * of[..., None]).sum() / (of.sum() * values.shape[-1]).clamp(min=1)

    weights = found.new_tensor(recipe.joints)  # (J,)
    total = mean(weights * (found - truth).norm(dim=-1), frames)
    moved = found.diff(dim=1)  # (B, F - 1, J, 3)
    if recipe.smooth:
        total = total + recipe.smooth * mean(weights * moved.square().mean(-1), steps)
    if recipe.velocity:
        total = total + recipe.velocity * mean((moved - truth.diff(dim=1)).norm(dim=-1), steps)
    if recipe.scale:
        best = (found * truth).sum((-2, -1)) / found.square().sum((-2, -1)).clamp(min=1e-8)  # (B, F)
        total = total + recipe.scale * mean((best[..., None, None] * found - truth).norm(dim=-1), frames)
    return total.square() / 2 if recipe.squared else total


def lifter_objective(net: Callable, batch: list[Tensor], recipe: Recipe) -> Tensor:
    """`loss` of a net on inputs (B, F, J, C), targets (B, F, J, 3) and counted frames (B, F)."""
    x, truth, counted = batch
    return lifting_loss(net(x).float(), truth, counted, recipe)


@torch.no_grad()
def lift_sequence(
    net: Lifter, x: Tensor, flip_test: bool = True, pad: bool = False, batch: int = 64
) -> Tensor:
    """A whole sequence (T, J, C) to poses (T, J, 3), meters relative to the hip, every frame once.

    flip_test: averaged with the answer for the mirrored sequence; pad: a sequence shorter than the net's
    window repeats its last frame. Raises ValueError for one, without it.
    """
    device, places = next(net.parameters()).device, window_starts(len(x), net.frames, pad)
    x, length = x.to(device), len(x)
    if length < net.frames:
        x = torch.cat([x, x[-1:].expand(net.frames - length, -1, -1)])
    poses = x.new_zeros(len(x), x.shape[1], 3)
    net.eval()
    for first in range(0, len(places), batch):
        some = places[first : first + batch]
        chunk = torch.stack([x[start : start + net.frames] for start, _ in some])  # (B, F, J, C)
        found = net(chunk)
        if flip_test:
            found = (found + mirror(net(mirror(chunk)))) / 2
        for (start, counted), pose in zip(some, found - found[:, :, :1], strict=True):
            mine = torch.from_numpy(counted).to(device)
            poses[start : start + net.frames][mine] = pose[mine]
    return poses[:length].cpu()


def evaluate_lifter(net: Lifter, clips: list[Clip], flip_test: bool = True) -> tuple[dict, dict]:
    """Metrics in mm of a net on clips: the mean over actions, and by action."""
    found = [lift_sequence(net, clip_inputs(clip, net.channels), flip_test) for clip in clips]
    return metrics.measure(found, [clip_targets(clip) for clip in clips], [clip.action for clip in clips])


def train_lifter(
    lifter: str = "mixste",
    dataset: str = "motion",
    data_root: str | None = None,
    profile: str = "demo",
    device: str = "cpu",
    seed: int = 0,
    out_dir: str = "reports",
    prune: dict | None = None,
    recover: str = "interpolate",
    options: dict | None = None,
    name: str | None = None,
    **changes: object,
) -> dict:
    """Train a lifter, with frames pruned where `prune` says so, evaluate it, and return the record.

    prune and recover as hourglass.build takes them; options: the lifter's keyword arguments, on top of a
    small net's in the profiles demo and fast; changes: fields of the recipe. Weights and checkpoints go to
    OUT_DIR/runs/NAME-HASH; the same call goes on from there. Raises ValueError before any work for what it
    does not know, and as posebook.training.train does.
    """
    if lifter not in LIFTERS:
        raise unknown_name_error(lifter, LIFTERS, "lifter")
    if recover == "keep":
        raise ValueError("a net that answers for the kept frames alone is not trained here: recover them")
    recipe = recipes.get(profile, lifter, **changes)
    options = ({} if profile == "paper" else recipes.SMALL_MODEL) | (options or {})
    if prune:
        options |= {"prune": prune, "recover": recover}
    way = runtime.make_runtime(TrainConfig(device=device))
    watch = records.RunMetadata(way.device)
    torch.manual_seed(seed)
    net = pruning.build_lifter(lifter, recipe.frames, **options)
    train_clips, val_clips = (load_clips(dataset, data_root, split) for split in ("train", "val"))
    name = name or f"lift-{lifter}-{dataset}-{profile}-seed{seed}"
    identity = {"lifter": lifter, "options": options, "data": clips_hash(train_clips), "seed": seed}

    def people(_: bool) -> WindowDataset:
        return WindowDataset(train_clips, recipe, seed, recipe.frames, net.channels)

    def score(ema: Lifter) -> dict:
        return evaluate_lifter(ema, val_clips, flip_test=False)[0]

    spec = loop.RunSpec(name, Path(out_dir), identity)
    run, folder = loop.fit(net, people, recipe, way, spec, score, lifter_objective)
    if way.rank > 0:  # the first process writes the record
        return {}
    means, actions = evaluate_lifter(run.ema, val_clips)
    plain = evaluate_lifter(run.ema, val_clips, flip_test=False)[0]
    run.curve[-1] |= plain
    weights = folder / "weights.safetensors"
    sha256 = weights_io.save_weights(run.ema.cpu(), weights, lifter, dataset, **options)
    fields = {
        "model": lifter,
        "options": options,
        "dataset": {
            "name": dataset,
            "split": "train",
            "sha256": clips_hash(train_clips),
            "clips": len(train_clips),
        },
        "profile": profile,
        "parameters": run.identity["recipe"] | {"dataset": dataset, "device": way.device},
        "protocol": {
            "input": "2D joints with a detector's errors" if dataset == "motion" else "2D joints of the file",
            "flip_test": True,
            "metric": "mm, hip at 0, every frame once, mean over actions",
        },
        "evaluated": {
            "name": dataset,
            "split": "val",
            "sha256": clips_hash(val_clips),
            "clips": len(val_clips),
            "frames": sum(len(clip.pose) for clip in val_clips),
        },
        "metrics": means,
        "metrics_without_flip": plain,
        "actions": actions,
        "complexity": complexity.count(run.ema),
        "curve": run.curve,
        "weights": records.weights_facts(weights, sha256, "scratch", dataset),
        "seed": seed,
    }
    return records.build("lift", name, watch, run.seconds, **fields)
