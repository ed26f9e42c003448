"""A small StarPose and a plain lifter, trained alike on the embedded motion and scored in the same way.

    posebook train-starpose --seed 0

1. Both see the same windows, as often, with the same loss: a joint's mean distance, to which StarPose adds a
   tenth of its energy. A window of training is two that follow each other (diffusion.py, choice 7).
2. Five hypotheses are averaged before they are scored; none is picked by the truth. The best one by joint,
   which papers like to print, is recorded as what the averages leave on the table, and is no result.
3. History is withheld from the very same weights, and guidance too, so that four rows differ in nothing else.
4. In training the time t is drawn with a density of 2t: at little noise there is little to learn. By the toss
   of a coin a batch's second windows are told of the first, whose t is then 1 (diffusion.py, choice 7).
"""

import time
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from posebook import records
from posebook.lifting import diffusion, metrics, recipes, synthetic_motion
from posebook.lifting.clips import Clip, WindowDataset, clip_inputs, clip_targets, fill_gaps, window_starts
from posebook.lifting.diffusion import Denoiser, HistoryEncoder
from posebook.lifting.models import MixSTE
from posebook.lifting.recipes import Recipe
from posebook.lifting.skeleton import mirror
from posebook.lifting.training import clips_hash
from posebook.training import loop, runtime
from posebook.training.config import TrainConfig
from posebook.utils import sha256

FRAMES, PAST, WIDTH = 27, 9, 32
FPS = 25.0
TRAIN, VAL = 160, 20  # clips
GUIDED = 0.1  # share of the energy in StarPose's loss
STEPS = 5  # of guidance on the plain lifter's answer: as many as StarPose's has
RECIPE = replace(
    recipes.DEMO, epochs=4, batch_size=8, base_batch_size=8, learning_rate=1e-3, warmup_steps=20,
    cosine_start=0.3,
    min_lr_ratio=0.05, max_grad_norm=1.0, ema_momentum=1.0, frames=2 * FRAMES, evaluate_every=100,
)  # fmt: skip


def rays(clip: Clip) -> Tensor:
    """Where the joints of a clip were seen, as directions x/z, y/z (T, J, 2)."""
    keypoints, _ = fill_gaps(clip.keypoints, clip.name)
    return torch.as_tensor(clip.camera.rays(keypoints[..., :2]), dtype=torch.float32)


class RayWindows(Dataset):
    """The samples of `Windows`, each with its rays (F, J, 2)."""

    packed = None

    def __init__(self, clips: list[Clip], recipe: Recipe, seed: int):
        self.recipe, self.seed = recipe, seed
        self.windows, self.rays = (
            WindowDataset(clips, recipe, seed, recipe.frames),
            [rays(clip) for clip in clips],
        )

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, ...]:
        number, mirrored = divmod(key[1], 2)
        clip, start, _ = self.windows.places[number]
        seen = self.rays[clip][start : start + self.recipe.frames]
        return *self.windows[key], mirror(seen) if mirrored else seen


def mean_distance(answer: Tensor, truth: Tensor, counted: Tensor) -> Tensor:
    """The mean distance of joints (B, F, J, 3) in the frames that count (B, F), meters."""
    return (answer - truth).norm(dim=-1)[counted].mean()


def lifter_loss(net: nn.Module, batch: list[Tensor], recipe: Recipe) -> Tensor:
    """A plain lifter's: both windows, each by itself."""
    x, y, counted, _ = batch
    halves = (part.unflatten(1, (2, -1)).flatten(0, 1) for part in (x, y, counted))  # (2 B, F, ...)
    x, y, counted = halves
    return mean_distance(net(x), y, counted)


def starpose_loss(net: nn.Module, batch: list[Tensor], recipe: Recipe) -> Tensor:
    """StarPose's: two windows on their own or, every other time, the second told of the first; choice 4."""
    x, y, counted, seen = batch
    told, answers = bool(torch.rand(()) < 0.5), []
    for here in (slice(0, FRAMES), slice(FRAMES, 2 * FRAMES)):
        t = torch.rand(len(x), device=x.device).sqrt()
        past = None
        if told and answers:
            past = (x[:, FRAMES - PAST : FRAMES], answers[0][:, -PAST:].detach())
        elif told:
            t = torch.ones_like(t)  # noise alone
        noisy = diffusion.add_noise(y[:, here], t, torch.randn_like(y[:, here]))
        answers.append(net(torch.cat([x[:, here], noisy], -1), t, past))
    answer = torch.cat(answers, 1)
    return mean_distance(answer, y, counted) + GUIDED * diffusion.energy(answer, seen).mean()


def build_plain_lifter() -> MixSTE:
    """The plain lifter, untrained."""
    return MixSTE(FRAMES, channels=2, width=WIDTH, depth=4, heads=2, drop_path=0.0)


def build_starpose() -> Denoiser:
    """The same as a denoiser with a history, untrained."""
    lifter = MixSTE(FRAMES, channels=5 + WIDTH, width=WIDTH, depth=4, heads=2, drop_path=0.0)
    return Denoiser(lifter, HistoryEncoder(PAST, WIDTH, heads=2))


def stack_clips(clips: list[Clip]) -> tuple[Tensor, Tensor, Tensor]:
    """Clips of one length: what is seen (N, T, J, 2), the truth (N, T, J, 3), the rays (N, T, J, 2)."""
    return tuple(torch.stack([part(clip) for clip in clips]) for part in (clip_inputs, clip_targets, rays))


def lift_windows(net: MixSTE, x: Tensor) -> Tensor:
    """Sequences (N, T, J, 2) by a plain lifter, window by window: (N, T, J, 3), the hip at 0."""
    answer = x.new_zeros(*x.shape[:-1], 3)
    for start, counted in window_starts(x.shape[1], FRAMES):
        here = slice(start, start + FRAMES)
        answer[:, here][:, counted] = net(x[:, here])[:, counted]
    answer[..., 0, :] = 0
    return answer


def sequence_metrics(answer: Tensor, truth: Tensor) -> dict[str, float]:
    """The metrics of sequences (N, T, J, 3), mm: means over all frames, for every clip is an action's own."""
    return {name: float(metric(answer, truth).mean()) for name, metric in metrics.METRICS.items()}


@torch.no_grad()
def compare_methods(star: Denoiser, lifter: MixSTE, clips: list[Clip], seed: int) -> list[dict]:
    """Every way to answer, with its figures; history and guidance off and on."""
    x, y, seen = stack_clips(clips)
    single = lift_windows(lifter, x)
    found = [
        {"net": "plain", "guided": False} | sequence_metrics(single, y),
        {"net": "plain", "guided": True}
        | sequence_metrics(diffusion.energy_guidance(single, seen, STEPS), y),
    ]
    for history in (False, True):
        for guided in (False, True):
            start = time.perf_counter()
            answers = diffusion.lift_sequences(
                star, x, FRAMES, seen if guided else None, history,
                generator=torch.Generator().manual_seed(seed),
            )  # fmt: skip
            seconds = time.perf_counter() - start
            off = (answers - y[:, None]).norm(dim=-1)  # (N, H, T, J)
            found.append(
                {"net": "starpose", "history": history, "guided": guided}
                | sequence_metrics(answers.mean(1), y)
                | {"one hypothesis": metrics.MM * float(off[:, 0].mean())}
                | {"best by joint": metrics.MM * float(off.amin(1).mean()), "seconds": round(seconds, 1)}
            )
    return found


def train_and_compare(seed: int, out_dir: str | Path = "reports", **changes: object) -> dict:
    """Train both nets and score them: the record. StarPose's weights are left in its run's folder."""
    watch, recipe = records.RunMetadata(), replace(RECIPE, **changes)
    clips = synthetic_motion.load_split("train", TRAIN, 8 * FRAMES, fps=FPS)
    val = synthetic_motion.load_split("val", VAL, 6 * FRAMES, fps=FPS)
    way, trained, seconds = runtime.make_runtime(TrainConfig()), {}, {}
    for name, build, loss in (
        ("plain", build_plain_lifter, lifter_loss),
        ("starpose", build_starpose, starpose_loss),
    ):
        torch.manual_seed(seed)
        identity = {"net": name, "data": clips_hash(clips), "seed": seed}
        spec = loop.RunSpec(f"lift-{name}-motion-seed{seed}", Path(out_dir), identity)
        run, folder = loop.fit(
            build(), lambda _: RayWindows(clips, recipe, seed), recipe, way, spec, lambda _: {}, loss
        )
        trained[name], seconds[name] = run, run.seconds
    save_starpose(trained["starpose"].ema, folder / "weights.safetensors")
    fields = {
        "model": "starpose",
        "dataset": {"name": "motion", "split": "train", "clips": TRAIN, "sha256": clips_hash(clips)},
        "profile": "demo",
        "parameters": {"frames": FRAMES, "past": PAST, "width": WIDTH, "guided": GUIDED}
        | {
            field: getattr(recipe, field)
            for field in ("epochs", "batch_size", "learning_rate", "weight_decay")
        },
        "protocol": {"answer": "mean of 5 hypotheses, 5 steps", "flip_test": False},
        "evaluated": {"name": "motion", "split": "val", "clips": VAL, "sha256": clips_hash(val)},
        "metrics": compare_methods(trained["starpose"].ema.eval(), trained["plain"].ema.eval(), val, seed),
        "curves": {name: run.curve for name, run in trained.items()},
        "weights": {
            "file": f"runs/{folder.name}/weights.safetensors",
            "sha256": sha256(folder / "weights.safetensors"),
        },
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "params": {
            name: sum(parameter.numel() for parameter in run.model.parameters())
            for name, run in trained.items()
        },
        "seed": seed,
    }
    return records.build("starpose", f"lift-starpose-motion-seed{seed}", watch, **fields)


def save_starpose(net: Denoiser, path: Path) -> None:
    """Write a StarPose's weights, float16."""
    safetensors.torch.save_file({key: value.half() for key, value in net.state_dict().items()}, path)


def load_starpose(path: str | Path) -> Denoiser:
    """A small StarPose with the weights that `save` wrote, ready to answer."""
    net = build_starpose()
    net.load_state_dict({key: value.float() for key, value in safetensors.torch.load_file(path).items()})
    return net.eval()
