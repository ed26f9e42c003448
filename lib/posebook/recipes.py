"""Each paper's training recipe as data. A value's source stands beside it.

StarNet-Pose: the authors' released config (rtmpose_starnetca-s3_8xb256-420e_coco-256x192.py): its name says
8 GPUs of 256 images and 420 epochs, the file itself 128 images and 210 epochs; the file's values are here.
"""

from dataclasses import asdict, dataclass, replace

from posebook.names import near


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training sample. Probabilities 0 to 1, rotation in degrees."""

    flip: float = 0.5  # config: RandomFlip, horizontal
    half_body: float = 0.3  # mmpose's default probability
    scale: tuple[float, float] = (0.6, 1.4)  # config, stage 1
    rotation: float = 80.0  # config, stage 1
    rotation_probability: float = 0.6  # mmpose's default
    shift: float = 0.16  # share of the box; mmpose's default, stage 1
    shift_probability: float = 0.3  # mmpose's default
    hsv: tuple[float, float, float] = (5, 30, 30)  # YOLOX's hue, saturation and value ranges
    blur: float = 0.1  # config
    median_blur: float = 0.1  # config
    dropout: float = 1.0  # config: CoarseDropout, one hole, stage 1
    dropout_size: tuple[float, float] = (0.2, 0.4)  # config: share of each side


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. The rate is for `base_batch` and follows the real batch in proportion."""

    epochs: int = 210  # config
    batch: int = 1024  # config: what its learning rate is for
    base_batch: int = 1024  # config: auto_scale_lr
    learning_rate: float = 4e-3  # config
    weight_decay: float = 0.05  # config; none on norms and biases
    warmup_steps: int = 1000  # config: linear from 1e-5 of the rate
    cosine_from: float = 0.5  # share of training after which the rate falls; config
    final_rate: float = 0.05  # share of the rate at the end; config
    stage2_epochs: int = 15  # config: last epochs on the milder augmentation
    stage1: Augmentation = Augmentation()
    stage2: Augmentation = Augmentation(scale=(0.75, 1.25), rotation=60.0, shift=0.0, dropout=0.5)  # config
    ema: float = 0.0002  # config: ExpMomentumEMA
    ema_warmup: float = 2000.0  # mmengine's default gamma: early averages follow more closely
    beta: float = 10.0  # config: KLDiscretLoss
    sigma: tuple[float, float] = (4.9, 5.66)  # config: bins (x, y) for 192 x 256
    evaluate_every: int = 10  # epochs; config: val_interval
    input_size: tuple[int, int] = (256, 192)  # (height, width); config


STARNET_POSE = Recipe()

# For small sets and small batches: our choice, tuned on nothing but that the loss falls.
FAST = replace(
    STARNET_POSE,
    epochs=200,
    batch=64,
    base_batch=64,
    learning_rate=2e-3,
    warmup_steps=200,
    ema=0.002,
    ema_warmup=200.0,
)

# The report's own short run, on the embedded data: small batches and mild augmentation, because what counts
# in a few minutes is the number of steps and how alike training and validation pictures are.
MILD = replace(
    STARNET_POSE.stage2, half_body=0, scale=(0.8, 1.2), rotation=30, blur=0, median_blur=0, dropout=0
)
DEMO = replace(
    FAST,
    epochs=4,
    batch=16,
    base_batch=16,
    learning_rate=1e-3,
    warmup_steps=100,
    stage1=MILD,
    stage2=MILD,
    evaluate_every=2,
    input_size=(128, 96),
)

# Fitting a few dozen people by heart: mirrored at random, otherwise as they are.
_MIRROR = Augmentation(
    half_body=0, scale=(1, 1), rotation=0, shift=0, hsv=(0, 0, 0), blur=0, median_blur=0, dropout=0
)
OVERFIT = replace(
    FAST,
    epochs=70,
    batch=16,
    base_batch=16,
    warmup_steps=50,
    stage1=_MIRROR,
    stage2=_MIRROR,
    evaluate_every=14,
    ema=0.01,
)

PAPER_MODELS = ("starnet-pose-t", "starnet-pose-s")  # what profile `paper` is the recipe of
PROFILES = {"demo": DEMO, "fast": FAST, "paper": STARNET_POSE, "overfit": OVERFIT}


def get(profile: str, **changes: object) -> Recipe:
    """The recipe of a profile, with some fields set otherwise; ValueError offers the near names.

    A stage takes a dictionary of the fields of `Augmentation` to change: stage1={"dropout": 0.6}.
    """
    if profile not in PROFILES:
        raise near(profile, PROFILES, "profile")
    return _changed(PROFILES[profile], changes, "recipe field")


def _changed(settings: Recipe | Augmentation, changes: dict, what: str) -> Recipe | Augmentation:
    settled = {}
    for name, value in changes.items():
        if name not in asdict(settings):
            raise near(name, asdict(settings), what)
        if isinstance(value, dict):
            value = _changed(getattr(settings, name), value, "augmentation field")
        settled[name] = tuple(value) if isinstance(value, list) else value
    return replace(settings, **settled)


def sigma_for(input_size: tuple[int, int], recipe: Recipe) -> tuple[float, float]:
    """The label widths in bins for another input: they grow with the side, as RTMPose's do at 384 x 288."""
    height, width = recipe.input_size
    return recipe.sigma[0] * (input_size[1] / width) ** 0.5, recipe.sigma[1] * (input_size[0] / height) ** 0.5
