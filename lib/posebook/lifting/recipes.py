"""The training recipe of each lifter as data, each value with its source.

HoT with MixSTE, MotionBERT and KTPFormer: the authors' released code and configurations. The recipes for
small models on the bundled synthetic motion are ours.

1. KTPFormer's (and D3DP's) authors scale the gradient by the loss itself, `loss.backward(loss.detach())`,
   which gives the gradient of half the squared loss. `squared` does this.
2. A learning rate that decays by a factor per epoch has an `lr_gamma` at every epoch.
3. No source has a training recipe of H2OT: here it is trained by HoT's.
4. Differences from the authors' code: biases and norms have no weight decay (the authors give one decay to
   all parameters). MotionBERT's windows do not overlap here (81 frames apart in the authors' code, so three
   times as many), and its inputs have a constant score (the authors use a detector's scores). The result is
   that of the last epoch; HoT's and KTPFormer's code keeps the epoch with the lowest error on the test
   set, so that the printed errors can be lower by this choice.
5. Errors are measured relative to the hip of the prediction (`training.lift_sequence`). HoT's code sets the
   predicted hip to 0 and KTPFormer's leaves it as it is, while all of them train the hip's position too. With
   the bundled weights, MPJPE is 0.9 mm lower with the hip set to 0.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from posebook.training.recipes import BaseRecipe
from posebook.utils import check_name

# Loss weights of the joints, largest for elbows and wrists, then for knees and ankles. Source: the code of
# MixSTE, also used by HoT and KTPFormer.
JOINTS = (1, 1, 2.5, 2.5, 1, 2.5, 2.5, 1, 1, 1, 1.5, 1.5, 4, 4, 1.5, 4, 4)


@dataclass(frozen=True)
class Recipe(BaseRecipe):
    """Hyperparameters of a lifter's training. A batch contains windows; an epoch has each one twice."""

    epochs: int = 160  # HoT
    batch_size: int = 4  # HoT: 4 windows of 243 frames
    base_batch_size: int = 4  # the batch size that the learning rate is for
    optimizer: str = "adamw"  # all
    learning_rate: float = 4e-5  # HoT
    weight_decay: float = 0.1  # HoT, KTPFormer
    layer_decay: float = 1.0  # 1: the same learning rate in all layers
    warmup_steps: int = 0
    cosine_start: float = 0.0
    min_lr_ratio: float = 0.01
    milestones: tuple[int, ...] = tuple(range(1, 160))  # choice 2
    lr_gamma: float = 0.99  # HoT, KTPFormer
    max_grad_norm: float = 0.0  # 0: no clipping
    ema_momentum: float = 1.0  # 1: no moving average
    ema_warmup: float = 100.0
    frames: int = 243
    joints: tuple[float, ...] = JOINTS
    smooth: float = 0.5  # weight of the predicted squared velocity
    velocity: float = 2.0  # weight of the velocity error
    scale: float = 0.0  # weight of the error after the best scaling
    squared: bool = False  # choice 1
    evaluate_every: int = 10  # epochs


HOT = Recipe()
KTPFORMER = replace(
    HOT,
    epochs=200,
    batch_size=8,
    base_batch_size=8,
    learning_rate=8e-5,
    milestones=tuple(range(1, 200)),
    squared=True,
)
MOTIONBERT = replace(
    HOT,
    epochs=120,
    batch_size=32,
    base_batch_size=32,
    learning_rate=5e-4,
    weight_decay=0.01,
    milestones=tuple(range(1, 120)),
    joints=(1.0,) * 17,
    smooth=0.0,
    velocity=20.0,
    scale=0.5,
)
PAPER = {"mixste": HOT, "ktpformer": KTPFORMER, "motionbert": MOTIONBERT}
# A minute on a laptop: a small model on short windows; its weights are averaged over about a hundred steps.
DEMO = Recipe(
    epochs=1,
    batch_size=8,
    base_batch_size=8,
    learning_rate=4e-3,
    weight_decay=0.01,
    warmup_steps=100,
    milestones=(),
    ema_momentum=0.02,
    frames=27,
    evaluate_every=1,
)
FAST = replace(DEMO, epochs=2)  # to compare VARIANTS
PROFILES = ("demo", "fast", "paper")
SMALL_MODEL = {"width": 32, "depth": 4, "heads": 2}  # options of profiles demo and fast
SMALL_MOTIONBERT = SMALL_MODEL | {"hidden": 64, "features": 64}  # its layers have further widths

# Pruning variants of a small model with 27 frames and 4 layers: pruners by layer, and the frame recovery.
VARIANTS: dict[str, tuple[dict[int, tuple[str, int]], str]] = {
    "full": ({}, "interpolate"),
    "hot": ({1: ("cluster", 9)}, "attend"),
    "h2ot-uniform": ({1: ("uniform", 9), 2: ("uniform", 3)}, "interpolate"),
    "h2ot-cluster": ({1: ("cluster", 9), 2: ("cluster", 3)}, "interpolate"),
    "h2ot-motion": ({1: ("motion", 9), 2: ("motion", 3)}, "interpolate"),
    "h2ot-attended": ({1: ("attended", 9), 2: ("attended", 3)}, "interpolate"),
    "uniform": ({1: ("uniform", 9)}, "interpolate"),
    "subsampled": ({0: ("uniform", 9)}, "interpolate"),  # the model never sees the other frames
}
# A control graph for KTPFormer: the skeleton's tree with permuted joints, so that no link is a bone.
NO_BONES = (
    (7, 11), (11, 0), (0, 10), (7, 5), (5, 8), (8, 4), (7, 15), (15, 13),
    (13, 9), (9, 16), (13, 1), (1, 12), (12, 14), (13, 2), (2, 6), (6, 3),
)  # fmt: skip


def get(profile: str, lifter: str, **changes: Any) -> Recipe:
    """The recipe of a profile with changed fields; raises ValueError with suggestions for an unknown name.

    Profile paper is the lifter's own recipe. The others are the same for all lifters, so that these can be
    compared.
    """
    check_name(profile, PROFILES, "profile")
    recipe = PAPER[lifter] if profile == "paper" else {"demo": DEMO, "fast": FAST}[profile]
    for name in changes:
        check_name(name, asdict(recipe), "recipe field")
    changes = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    return replace(recipe, **changes)
