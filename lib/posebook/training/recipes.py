"""The training recipes of the papers as data. Each value's source is given next to it.

StarNet-Pose: the authors' released config (rtmpose_starnetca-s3_8xb256-420e_coco-256x192.py). Its name says
8 GPUs with 256 images each and 420 epochs, but the file itself sets 128 images and 210 epochs. The values
here are those in the file. COCO-mini: their generated configs of the occlusion study
(experiments/occlusion_prob_study). AMFACPose: section 4.3 of Zakir et al., 2025. LAPX: sections 3.3 and 4.1
of Zhao et al., 2025. ViTPose: its authors' configs (ViTPose_base_coco_256x192.py and the other sizes).

Choices where the texts give no value, or where our copy of a text has lost it:
1. Every learning rate is for `base_batch_size` samples and is scaled linearly with the real batch size, which
   is counted over all processes.
2. AMFACPose: our copy has lost learning rate, weight decay, milestones, label smoothing, temperature, joint
   weights and label width. Chosen: SimCC's learning rate and milestones (1e-3, a tenth at epochs 90 and 120
   of the same 140 epochs with batch size 32), AdamW's usual decay, smoothing 0.1, temperature 0.5
   ("moderately sharpened"), SimCC's limb weights (the text weights "harder-to-detect keypoints, such as hands
   or feet") and its label width of 6 bins at 384 x 288. `sigma_for` scales the width to 5.66 (x) and 4.9 (y)
   bins at 256 x 256, our size for ResNet-18. The text does not specify a recipe for CrowdPose: it is trained
   by COCO's, on trainval, as other papers do.
3. LAPX: the text gives no scale range. HRNet's code, whose loss and protocol LAPX uses, has 0.65 to 1.35
   (MPII 0.75 to 1.25). The text also does not say how long the warm-up is during which the non-local
   branches are frozen (10 epochs here), nor whether there is weight decay (none here).
4. AMFACPose, LAPX and ViTPose are trained without a moving average of the weights.
5. AMFACPose and LAPX give ranges of rotation without a probability. Every sample is rotated.
6. The authors train ViTPose++ on six datasets at once. This file has no recipe for it. ViTPose's boxes are
   warped without UDP, see transforms.py. Our heatmap loss is half of the authors', and therefore so is
   ViTPose's max_grad_norm.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from posebook.transforms import Augmentation
from posebook.utils import check_name


@dataclass(frozen=True)
class BaseRecipe:
    """Settings that training of any model needs. The loop and the optimizer use only these.

    The defaults are those of StarNet-Pose's config.
    """

    epochs: int = 210  # config
    batch_size: int = 1024  # over all processes; config: the batch size that its learning rate is for
    base_batch_size: int = 1024  # config: auto_scale_lr
    optimizer: str = "adamw"  # or adam; config
    learning_rate: float = 4e-3  # for base_batch_size; config
    weight_decay: float = 0.05  # none on norms and biases; config
    layer_decay: float = 1.0  # ratio of a layer's learning rate to that of the next layer
    warmup_steps: int = 1000  # linear from 1e-5 of the learning rate; config
    cosine_start: float = 0.5  # fraction of the training after which the learning rate falls; config
    min_lr_ratio: float = 0.05  # ratio of the last learning rate to the first; config
    milestones: tuple[int, ...] = ()  # multiply the rate by lr_gamma at these epochs, instead of a cosine
    lr_gamma: float = 0.1
    max_grad_norm: float = 0.0  # gradients are clipped to this norm; 0: no clipping, as in all three papers
    ema_momentum: float = 0.0002  # 1: no average; config: ExpMomentumEMA
    ema_warmup: float = 2000.0  # in steps: early averages follow the weights faster; mmengine's default gamma
    evaluate_every: int = 10  # epochs; config: val_interval


@dataclass(frozen=True)
class Recipe(BaseRecipe):
    """Training settings of a 2D pose model."""

    stage2_epochs: int = 15  # last epochs, with the milder augmentation; config
    stage1: Augmentation = Augmentation()
    stage2: Augmentation = Augmentation(scale=(0.75, 1.25), rotation=60.0, shift=0.0, dropout=0.5)  # config
    loss: str = "simcc_kl"  # or kl_discrete, for SimCC models; heatmap models have one loss
    beta: float = 10.0  # of simcc_kl; config: KLDiscretLoss
    label_smoothing: float = 0.1  # of kl_discrete
    temperature: float = 0.5  # of kl_discrete
    limb_weights: tuple[float, float] = (1.0, 1.0)  # of elbows and knees, of wrists and ankles; others: 1
    sigma: tuple[float, float] = (4.9, 5.66)  # label width in bins (x, y) at 256 x 192, see sigma_for; config
    nonlocal_gain: float = 0.2  # final gain of LAPX's non-local branches
    # LAPX: the gain is 0 up to the first fraction of the training, rises up to the second, then is learned
    nonlocal_schedule: tuple[float, float] = (0.05, 0.3)
    input_size: tuple[int, int] = (256, 192)  # (height, width); config


STARNET_POSE = Recipe()

# The occlusion study on COCO-mini: one GPU with 64 images. Its command does not scale the learning rate.
STARNET_MINI = replace(STARNET_POSE, epochs=100, stage2_epochs=10, batch_size=64, base_batch_size=64)

GEOMETRY_ONLY = Augmentation(
    half_body=0, shift=0, hsv=(0, 0, 0), blur=0, median_blur=0, dropout=0, rotation_probability=1
)
_AMFACPOSE = replace(GEOMETRY_ONLY, rotation=30, scale=(0.7, 1.3))  # section 4.3
AMFACPOSE = Recipe(
    epochs=140,  # section 4.3
    batch_size=32,  # section 4.3
    base_batch_size=32,
    learning_rate=1e-3,  # chosen
    weight_decay=1e-2,  # chosen
    warmup_steps=0,
    milestones=(90, 120),  # chosen
    stage2_epochs=0,
    stage1=_AMFACPOSE,
    stage2=_AMFACPOSE,
    ema_momentum=1.0,
    loss="kl_discrete",  # section 3.6
    sigma=(4.9, 4.9),  # chosen: 6 bins at 384 x 288
    limb_weights=(1.2, 1.5),  # chosen
    input_size=(384, 288),  # table 6
)

_LAPX = replace(GEOMETRY_ONLY, rotation=40, scale=(0.65, 1.35))  # section 4.1; scale: chosen
LAPX_COCO = Recipe(
    epochs=210,  # section 4.1
    batch_size=32,  # section 4.1
    base_batch_size=32,
    optimizer="adam",  # section 4.1
    learning_rate=2e-4,  # section 4.1
    weight_decay=0.0,
    warmup_steps=0,
    milestones=(120, 160, 190),  # section 4.1
    lr_gamma=0.4,  # section 4.1
    stage2_epochs=0,
    stage1=_LAPX,
    stage2=_LAPX,
    ema_momentum=1.0,
    nonlocal_gain=0.2,  # section 3.3
    nonlocal_schedule=(10 / 210, 60 / 210),  # section 3.3: rises over 50 epochs, after a warm-up
)
_LAPX_MPII = replace(_LAPX, scale=(0.75, 1.25))
LAPX_MPII = replace(
    LAPX_COCO,
    epochs=200,  # section 4.1
    learning_rate=3e-4,  # section 4.1
    milestones=(105, 150, 175, 190),  # section 4.1
    lr_gamma=0.5,  # section 4.1
    stage1=_LAPX_MPII,
    stage2=_LAPX_MPII,
    nonlocal_schedule=(10 / 200, 60 / 200),
    input_size=(256, 256),  # table 1
)

_VITPOSE = replace(GEOMETRY_ONLY, half_body=0.3, rotation=40, scale=(0.5, 1.5), rotation_probability=0.6)
VITPOSE = Recipe(
    batch_size=512,
    base_batch_size=512,
    learning_rate=5e-4,
    weight_decay=0.1,
    layer_decay=0.75,
    warmup_steps=500,
    milestones=(170, 200),
    max_grad_norm=0.5,  # 1 for their loss, which is twice ours
    stage2_epochs=0,
    stage1=_VITPOSE,
    stage2=_VITPOSE,
    ema_momentum=1.0,
)

# Our choice for small datasets and small batches. It was only checked that the loss falls.
FAST = replace(
    STARNET_POSE,
    epochs=200,
    batch_size=64,
    base_batch_size=64,
    learning_rate=2e-3,
    warmup_steps=200,
    ema_momentum=0.002,
    ema_warmup=200.0,
)

# The report's own training: two minutes on the bundled synthetic data, starting from shipped weights.
# Batches are small and augmentation is mild, because in so short a run the number of steps matters and
# training images should resemble validation images. The learning rate is half of that from scratch and falls
# early, because the model already knows most joints. See docs/experiments.md.
MILD = replace(
    STARNET_POSE.stage2, half_body=0, scale=(0.8, 1.2), rotation=30, blur=0, median_blur=0, dropout=0
)
DEMO = replace(
    FAST,
    epochs=2,
    batch_size=16,
    base_batch_size=16,
    learning_rate=5e-4,
    warmup_steps=50,
    cosine_start=0.2,
    min_lr_ratio=0.02,
    stage1=MILD,
    stage2=MILD,
    ema_momentum=0.02,  # the run has about 300 steps
    ema_warmup=50.0,
    evaluate_every=1,
    input_size=(128, 96),
)

# Overfitting a few dozen people: flips at random, no other augmentation.
_MIRROR = Augmentation(
    half_body=0, scale=(1, 1), rotation=0, shift=0, hsv=(0, 0, 0), blur=0, median_blur=0, dropout=0
)
OVERFIT = replace(
    FAST,
    epochs=70,
    batch_size=16,
    base_batch_size=16,
    warmup_steps=50,
    stage1=_MIRROR,
    stage2=_MIRROR,
    evaluate_every=14,
    ema_momentum=0.01,
)

# Model -> dataset -> recipe. The study trains RTMPose-t on COCO-mini without averaging the weights.
_STARNET = {"coco": STARNET_POSE, "coco-mini": STARNET_MINI}
PAPER = {
    "starnet-pose-t": _STARNET,
    "starnet-pose-s": _STARNET,
    "rtmpose-t": {"coco-mini": replace(STARNET_MINI, ema_momentum=1.0)},
    "amfacpose-r34": {"coco": AMFACPOSE, "crowdpose": AMFACPOSE},
    "amfacpose-r18": dict.fromkeys(["coco", "crowdpose"], replace(AMFACPOSE, input_size=(256, 256))),
    "lapx": {"coco": LAPX_COCO, "mpii": LAPX_MPII},
    "vitpose-s": {"coco": replace(VITPOSE, layer_decay=0.8)},
    "vitpose-b": {"coco": VITPOSE},
    "vitpose-l": {"coco": replace(VITPOSE, layer_decay=0.8)},
    "vitpose-h": {"coco": replace(VITPOSE, layer_decay=0.85)},
}
OPTIMIZERS, LOSSES = ("adamw", "adam"), ("simcc_kl", "kl_discrete")
PROFILES = {"demo": DEMO, "fast": FAST, "paper": STARNET_POSE, "overfit": OVERFIT}


def get(profile: str, model: str = "starnet-pose-t", dataset: str = "coco", /, **changes: object) -> Recipe:
    """Return the recipe of a profile with some fields changed.

    Profile paper is the recipe from the model's own paper for this dataset. Each other profile has the same
    recipe for all models, so that they can be compared, but each model keeps the loss of its paper. stage1
    and stage2 take a dictionary of changed `Augmentation` fields: stage1={"dropout": 0.6}. Raises ValueError
    with close matches for unknown names, and for values that cannot be used.
    """
    check_name(profile, PROFILES, "profile")
    recipe = PROFILES[profile]
    if profile == "paper":
        if dataset not in PAPER.get(model, {}):
            known = ", ".join(f"{name} on {data}" for name, sets in PAPER.items() for data in sets)
            raise ValueError(
                f"no paper's recipe for {model} on {dataset}: profile paper has recipes for {known}. "
                "Choose another profile"
            )
        recipe = PAPER[model][dataset]
    elif model.startswith("amfacpose"):
        recipe = replace(
            recipe, loss=AMFACPOSE.loss, sigma=AMFACPOSE.sigma, limb_weights=AMFACPOSE.limb_weights
        )
    recipe = _with_changes(recipe, changes, "recipe field")
    _check(recipe)
    return recipe


def _check(recipe: Recipe) -> None:
    """Raise ValueError for values that cannot be used."""
    for field, known in (("optimizer", OPTIMIZERS), ("loss", LOSSES)):
        check_name(str(getattr(recipe, field)), known, field)
    for field in ("epochs", "batch_size", "base_batch_size", "evaluate_every"):
        value = getattr(recipe, field)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"recipe field {field} must be a positive integer, not {value!r}")
    if not 0 <= recipe.cosine_start < 1:
        raise ValueError(
            f"recipe field cosine_start must be at least 0 and below 1, not {recipe.cosine_start}"
        )


Settings = TypeVar("Settings", Recipe, Augmentation)


def _with_changes(settings: Settings, changes: dict, what: str) -> Settings:
    """Return the settings with some fields changed. Lists, as JSON has them, become tuples."""
    values: dict[str, Any] = {}
    for name, value in changes.items():
        check_name(name, asdict(settings), what)
        present = getattr(settings, name)
        if isinstance(value, dict) and isinstance(present, Augmentation):
            value = _with_changes(present, value, "augmentation field")
        value = tuple(value) if isinstance(value, list) else value
        if not _same_type(value, present, name):
            raise ValueError(f"{what} {name} must be like {present!r}, not {value!r}")
        values[name] = value
    return replace(settings, **values)


def _same_type(value: object, present: object, name: str) -> bool:
    """Whether a value has the type of the present one: a number, a tuple of numbers, a string, and so on."""
    if isinstance(present, bool) or isinstance(value, bool):
        return isinstance(present, bool) and isinstance(value, bool)
    if isinstance(present, int | float):
        return isinstance(value, int | float) and math.isfinite(value)
    if isinstance(present, tuple):
        same_length = name == "milestones" or (isinstance(value, tuple) and len(value) == len(present))
        return same_length and isinstance(value, tuple) and all(_same_type(item, 0, "") for item in value)
    return isinstance(value, type(present))


def sigma_for(recipe: Recipe) -> tuple[float, float]:
    """Return the label width in bins (x, y) at the recipe's input size.

    It grows with the square root of the input's side, as in RTMPose.
    """
    height, width = recipe.input_size
    return recipe.sigma[0] * (width / 192) ** 0.5, recipe.sigma[1] * (height / 256) ** 0.5


def joint_weights(keypoints: tuple[str, ...], recipe: Recipe) -> list[float]:
    """Return the weight of each named joint in the loss."""
    middle, outer = recipe.limb_weights
    return [
        middle if "elbow" in name or "knee" in name else outer if "wrist" in name or "ankle" in name else 1.0
        for name in keypoints
    ]


def nonlocal_gain_at(epoch: int, recipe: Recipe) -> float | None:
    """Return the fixed gain of LAPX's non-local branches in an epoch, counted from 0; None if it is learned.

    It is 0 at first, which freezes the branches. It then rises with each epoch and reaches `nonlocal_gain`.
    """
    start, end = (fraction * recipe.epochs for fraction in recipe.nonlocal_schedule)
    done = epoch + 1  # epochs after this one
    # 1e-6: fraction * epochs is not exact
    return None if done > end + 1e-6 else recipe.nonlocal_gain * max(0.0, (done - start) / (end - start))
