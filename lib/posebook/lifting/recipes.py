"""Each lifter's training recipe as data. A value's source stands beside it.

HoT around MixSTE, MotionBERT and KTPFormer: their authors' released code and configurations. For small nets
on the embedded motion: ours.

1. KTPFormer's authors (and D3DP's) scale the gradient by the loss itself, `loss.backward(loss.detach())`: the
   gradient of half its square. Here it is not, unless `squared` asks for it.
2. A rate that falls by a factor an epoch is a `lr_gamma` at every epoch.
3. Where H2OT is trained at all, it is by HoT's recipe: its own is in no source.
"""

from dataclasses import asdict, dataclass, replace

from posebook.training.recipes import BaseRecipe
from posebook.utils import unknown_name_error

# By joint, wrists and ankles most; MixSTE's code, and with it HoT's and KTPFormer's.
JOINTS = (1, 1, 2.5, 2.5, 1, 2.5, 2.5, 1, 1, 1, 1.5, 1.5, 4, 4, 1.5, 4, 4)


@dataclass(frozen=True)
class Recipe(BaseRecipe):
    """How a lifter is trained. A batch counts windows, each of which comes plain and mirrored an epoch."""

    epochs: int = 160  # HoT
    batch_size: int = 4  # HoT: 4 of 243 frames
    base_batch_size: int = 4  # the rate is for this many
    optimizer: str = "adamw"  # all
    learning_rate: float = 4e-5  # HoT
    weight_decay: float = 0.1  # HoT, KTPFormer
    layer_decay: float = 1.0  # one rate for all layers
    warmup_steps: int = 0
    cosine_start: float = 0.0
    min_lr_ratio: float = 0.01
    milestones: tuple[int, ...] = tuple(range(1, 160))
    lr_gamma: float = 0.99  # HoT, KTPFormer: an epoch
    max_grad_norm: float = 0.0
    ema_momentum: float = 1.0  # no average
    ema_warmup: float = 100.0
    frames: int = 243
    joints: tuple[float, ...] = JOINTS
    smooth: float = 0.5  # weight of the answer's own squared velocity
    velocity: float = 2.0  # weight of the velocity's error
    scale: float = 0.0  # weight of the error after the best scale
    squared: bool = False  # choice 1
    evaluate_every: int = 10


HOT = Recipe()
KTPFORMER = replace(
    HOT, epochs=200, batch_size=8, base_batch_size=8, learning_rate=8e-5, milestones=tuple(range(1, 200))
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
# A minute of a laptop: a small net on short windows, its answer averaged over the last hundred steps or so.
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
FAST = replace(DEMO, epochs=2)  # the comparison of VARIANTS
PROFILES = ("demo", "fast", "paper")
SMALL_MODEL = {"width": 32, "depth": 4, "heads": 2}  # of the nets that the profiles demo and fast train

# Ways to prune a small net of 27 frames and 4 layers, by name: pruners by layer, and how frames come back.
VARIANTS = {
    "full": ({}, "interpolate"),
    "hot": ({1: ("cluster", 9)}, "attend"),
    "h2ot-uniform": ({1: ("uniform", 9), 2: ("uniform", 3)}, "interpolate"),
    "h2ot-cluster": ({1: ("cluster", 9), 2: ("cluster", 3)}, "interpolate"),
    "h2ot-motion": ({1: ("motion", 9), 2: ("motion", 3)}, "interpolate"),
    "h2ot-attended": ({1: ("attended", 9), 2: ("attended", 3)}, "interpolate"),
    "uniform": ({1: ("uniform", 9)}, "interpolate"),
    "subsampled": ({0: ("uniform", 9)}, "interpolate"),  # the net never sees the other frames
}
# The skeleton's tree with its joints exchanged, so that no link is a bone: what no body is like.
NO_BONES = (
    (7, 11), (11, 0), (0, 10), (7, 5), (5, 8), (8, 4), (7, 15), (15, 13),
    (13, 9), (9, 16), (13, 1), (1, 12), (12, 14), (13, 2), (2, 6), (6, 3),
)  # fmt: skip


def get(profile: str, lifter: str, **changes: object) -> Recipe:
    """The recipe of a profile, with some fields set otherwise; ValueError offers the near names.

    Profile paper is the lifter's own; the others are one recipe for all, so that lifters can be compared.
    """
    if profile not in PROFILES:
        raise unknown_name_error(profile, PROFILES, "profile")
    recipe = PAPER[lifter] if profile == "paper" else {"demo": DEMO, "fast": FAST}[profile]
    for name in changes:
        if name not in asdict(recipe):
            raise unknown_name_error(name, asdict(recipe), "recipe field")
    lists = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    return replace(recipe, **lists)
