"""Train a small StarPose and a plain lifter on the bundled synthetic motion and compare them.

    posebook train-starpose --seed 0

1. Both get the same windows, equally often, and the same loss, the mean joint distance. StarPose's loss adds
   a tenth of its energy. A training sample is two consecutive windows (diffusion.py, choice 7).
2. The prediction is the mean of five hypotheses; none is selected with the ground truth. The error of the
   best hypothesis of each joint, which papers often print, is recorded to show what the mean loses. It is not
   a result.
3. The rows without history or guidance use the same weights, so that the four rows differ in nothing else.
4. In training the time t has density 2t, because there is little to learn at low noise. With probability 0.5
   the second windows of a batch are conditioned on the first, whose t is then 1 (diffusion.py, choice 7).
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from posebook import records
from posebook.lifting import diffusion, metrics, recipes, synthetic_motion
from posebook.lifting.clips import Clip, WindowDataset, clip_inputs, clip_targets, fill_gaps, window_starts
from posebook.lifting.diffusion import Denoiser, HistoryEncoder
from posebook.lifting.models import MixSTE
from posebook.lifting.recipes import Recipe
from posebook.lifting.skeleton import mirror
from posebook.lifting.training import dataset_facts
from posebook.training import loop, runtime
from posebook.training.config import TrainConfig
from posebook.utils import sha256

FRAMES, PAST, WIDTH = 27, 9, 32
FPS = 25.0
TRAIN, VAL = 160, 20  # clips
GUIDED = 0.1  # weight of the energy in StarPose's loss
STEPS = 5  # guidance steps on the plain lifter's prediction, as many as in StarPose's sampling
RECIPE = replace(
    recipes.DEMO, epochs=4, batch_size=8, base_batch_size=8, learning_rate=1e-3, warmup_steps=20,
    cosine_start=0.3, min_lr_ratio=0.05, max_grad_norm=1.0, ema_momentum=1.0, frames=2 * FRAMES,
    evaluate_every=100,
)  # fmt: skip


def rays(clip: Clip) -> Tensor:
    """The viewing directions x/z, y/z (T, J, 2) of a clip's 2D joints."""
    keypoints = fill_gaps(clip.keypoints, clip.name)
    return torch.as_tensor(clip.camera.rays(keypoints[..., :2]), dtype=torch.float32)


class RayWindows(WindowDataset):
    """The samples of `WindowDataset`, each with its rays (F, J, 2)."""

    def __init__(self, clips: list[Clip], recipe: Recipe, seed: int):
        super().__init__(clips, recipe, seed)
        self.rays = [rays(clip) for clip in clips]

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, ...]:
        window, mirrored = divmod(key[1], 2)
        clip, start, _ = self.windows[window]
        window_rays = self.rays[clip][start : start + self.recipe.frames]
        return *super().__getitem__(key), mirror(window_rays) if mirrored else window_rays


def mean_distance(predicted: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """The mean distance of joints (B, F, J, 3) in the frames of a mask (B, F), meters."""
    return (predicted - truth).norm(dim=-1)[mask].mean()


def lifter_loss(model: Callable, batch: list[Tensor], recipe: Recipe) -> Tensor:
    """The plain lifter's loss: the two windows of a sample are independent."""
    x, y, mask = (tensor.unflatten(1, (2, -1)).flatten(0, 1) for tensor in batch[:3])  # (2 B, F, ...)
    return mean_distance(model(x), y, mask)


def starpose_loss(model: Callable, batch: list[Tensor], recipe: Recipe) -> Tensor:
    """StarPose's loss; with probability 0.5 the second windows have the first as history, choice 4."""
    x, y, mask, batch_rays = batch
    with_history = bool(torch.rand(()) < 0.5)
    predicted: list[Tensor] = []
    for window in (slice(0, FRAMES), slice(FRAMES, 2 * FRAMES)):
        t = torch.rand(len(x), device=x.device).sqrt()
        past = None
        if with_history and predicted:
            past = (x[:, FRAMES - PAST : FRAMES], predicted[0][:, -PAST:].detach())
        elif with_history:
            t = torch.ones_like(t)  # pure noise
        noisy = diffusion.add_noise(y[:, window], t, torch.randn_like(y[:, window]))
        predicted.append(model(torch.cat([x[:, window], noisy], -1), t, past))
    poses = torch.cat(predicted, 1)
    return mean_distance(poses, y, mask) + GUIDED * diffusion.energy(poses, batch_rays).mean()


def build_plain_lifter() -> MixSTE:
    """The plain lifter, untrained."""
    return MixSTE(FRAMES, channels=2, width=WIDTH, depth=4, heads=2, drop_path=0.0)


def build_starpose() -> Denoiser:
    """The same lifter as a denoiser with a history, untrained."""
    lifter = MixSTE(FRAMES, channels=5 + WIDTH, width=WIDTH, depth=4, heads=2, drop_path=0.0)
    return Denoiser(lifter, HistoryEncoder(PAST, WIDTH, heads=2))


def stack_clips(clips: list[Clip]) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (N, T, J, 2), targets (N, T, J, 3) and rays (N, T, J, 2) of clips of the same length."""
    inputs, targets, clip_rays = zip(
        *((clip_inputs(c), clip_targets(c), rays(c)) for c in clips), strict=True
    )
    return torch.stack(inputs), torch.stack(targets), torch.stack(clip_rays)


def lift_windows(lifter: MixSTE, x: Tensor) -> Tensor:
    """Lift sequences (N, T, J, 2) with the plain lifter, window by window: (N, T, J, 3), the hip at 0."""
    poses = x.new_zeros(*x.shape[:-1], 3)
    for start, mask in window_starts(x.shape[1], FRAMES):
        window = slice(start, start + FRAMES)
        poses[:, window][:, mask] = lifter(x[:, window])[:, mask]
    poses[..., 0, :] = 0
    return poses


def sequence_metrics(predicted: Tensor, truth: Tensor) -> dict[str, float]:
    """Metrics of sequences (N, T, J, 3) in mm: means over all frames, not over actions."""
    return {name: float(metric(predicted, truth).mean()) for name, metric in metrics.METRICS.items()}


@torch.no_grad()
def compare_methods(star: Denoiser, lifter: MixSTE, clips: list[Clip], seed: int) -> list[dict]:
    """The metrics of both models, StarPose with and without history, each with and without guidance."""
    x, y, clip_rays = stack_clips(clips)
    plain = lift_windows(lifter, x)
    guided_plain = diffusion.energy_guidance(plain, clip_rays, STEPS)
    rows: list[dict] = [
        {"net": "plain", "guided": guided} | sequence_metrics(poses, y)
        for guided, poses in ((False, plain), (True, guided_plain))
    ]
    for history in (False, True):
        for guided in (False, True):
            start = time.perf_counter()
            hypotheses = diffusion.lift_sequences(
                star, x, FRAMES, clip_rays if guided else None, history,
                generator=torch.Generator().manual_seed(seed),
            )  # fmt: skip
            seconds = time.perf_counter() - start
            errors = (hypotheses - y[:, None]).norm(dim=-1)  # (N, H, T, J)
            rows.append(
                {"net": "starpose", "history": history, "guided": guided}
                | sequence_metrics(hypotheses.mean(1), y)
                | {"one hypothesis": metrics.MM * float(errors[:, 0].mean())}
                | {"best by joint": metrics.MM * float(errors.amin(1).mean()), "seconds": round(seconds, 1)}
            )
    return rows


def train_and_compare(seed: int, out_dir: str | Path = "reports", **changes: Any) -> dict:
    """Train both models, evaluate them, and return the record; changes: fields of RECIPE.

    Writes StarPose's weights to its run's folder.
    """
    metadata, recipe = records.RunMetadata(), replace(RECIPE, **changes)
    clips = synthetic_motion.load_split("train", TRAIN, 8 * FRAMES, fps=FPS)
    val = synthetic_motion.load_split("val", VAL, 6 * FRAMES, fps=FPS)
    dataset = dataset_facts("motion", "train", clips)
    runtime_config = runtime.make_runtime(TrainConfig())

    def train(name: str, build: Callable, loss: Callable) -> tuple[loop.TrainState, Path]:
        torch.manual_seed(seed)
        identity = {"net": name, "data": dataset["sha256"], "seed": seed}
        spec = loop.RunSpec(f"lift-{name}-motion-seed{seed}", Path(out_dir), identity)
        return loop.fit(
            build(),
            lambda _: RayWindows(clips, recipe, seed),
            recipe,
            runtime_config,
            spec,
            lambda _: {},
            loss,
        )

    plain, _ = train("plain", build_plain_lifter, lifter_loss)
    star, folder = train("starpose", build_starpose, starpose_loss)
    assert isinstance(plain.ema, MixSTE) and isinstance(star.ema, Denoiser)
    path, runs = folder / "weights.safetensors", {"plain": plain, "starpose": star}
    save_starpose(star.ema, path)
    hyperparameters = ("epochs", "batch_size", "learning_rate", "weight_decay")
    return records.build(
        "starpose",
        f"lift-starpose-motion-seed{seed}",
        metadata,
        model="starpose",
        dataset=dataset,
        profile="demo",
        parameters={"frames": FRAMES, "past": PAST, "width": WIDTH, "guided": GUIDED}
        | {name: getattr(recipe, name) for name in hyperparameters},
        protocol={"answer": "mean of 5 hypotheses, 5 steps", "flip_test": False},
        evaluated=dataset_facts("motion", "val", val),
        metrics=compare_methods(star.ema.eval(), plain.ema.eval(), val, seed),
        curves={name: run.curve for name, run in runs.items()},
        weights={"file": f"runs/{folder.name}/{path.name}", "sha256": sha256(path)},
        seconds={name: round(run.seconds, 1) for name, run in runs.items()},
        params={name: sum(p.numel() for p in run.model.parameters()) for name, run in runs.items()},
        seed=seed,
    )


def save_starpose(model: Denoiser, path: Path) -> None:
    """Write the weights as float16."""
    safetensors.torch.save_file({key: value.half() for key, value in model.state_dict().items()}, path)


def load_starpose(path: str | Path) -> Denoiser:
    """A small StarPose with the weights of `save_starpose`, in eval mode."""
    model = build_starpose()
    model.load_state_dict(safetensors.torch.load_file(path))
    return model.eval()
