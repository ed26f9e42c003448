"""Each paper's training recipe as data. A value's source stands beside it.

StarNet-Pose: the authors' released config (rtmpose_starnetca-s3_8xb256-420e_coco-256x192.py): its name says
8 GPUs of 256 images and 420 epochs, the file itself 128 images and 210 epochs; the file's values are here.
COCO-mini: their generated configs of the occlusion study (experiments/occlusion_prob_study). AMFACPose:
section 4.3 of Zakir et al., 2025. LAPX: sections 3.3 and 4.1 of Zhao et al., 2025. ViTPose: its authors'
configs (ViTPose_base_coco_256x192.py and its kin).

Where the texts are silent, or our copy has lost what they said:
1. Every rate holds for `base_batch_size` and follows the real batch, over all processes, in proportion.
2. AMFACPose: our copy has lost rate, decay, drops, smoothing, temperature, joint weights and label width.
   Chosen: SimCC's rate and drops (1e-3, a tenth at 90 and 120 of the same 140 epochs and batch of 32),
   AdamW's usual decay, smoothing 0.1, temperature 0.5 ("moderately sharpened"), SimCC's width of 6 bins and
   its weights of the limbs ("more weight on hands and feet").
3. LAPX: the text gives no scale range; the HRNet code's, whose loss and protocol it has, is 0.65 to 1.35
   (MPII 0.75 to 1.25). Nor does it say how long the warm-up is in which its non-local branches are frozen
   (10 epochs here), nor whether weights decay (they do not).
4. Neither of these two averages its weights, nor does ViTPose.
5. ViTPose++ is trained on six datasets at once by its authors: no recipe for it is here. ViTPose's boxes are
   warped without UDP, see transforms.py; its heatmaps' loss is half of its authors', and so is
   the norm that gradients are cut to.
"""

from dataclasses import asdict, dataclass, replace

from posebook.transforms import Augmentation
from posebook.utils import unknown_name_error


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. The rate is for `base_batch_size` and follows the real batch in proportion."""

    epochs: int = 210  # config
    batch_size: int = 1024  # over all processes; config: what its learning rate is for
    base_batch_size: int = 1024  # config: auto_scale_lr
    optimizer: str = "adamw"  # config; or adam
    learning_rate: float = 4e-3  # config
    weight_decay: float = 0.05  # config; none on norms and biases
    layer_decay: float = 1.0  # share of a layer's rate that the layer before it has; 1: one rate for all
    warmup_steps: int = 1000  # config: linear from 1e-5 of the rate
    cosine_start: float = 0.5  # share of training after which the rate falls; config
    min_lr_ratio: float = 0.05  # share of the rate at the end; config
    milestones: tuple[int, ...] = ()  # epochs at which the rate falls by `lr_gamma`; with any, no cosine
    lr_gamma: float = 0.1
    max_grad_norm: float = 0.0  # largest norm of the gradient; 0: not clipped, as in all three papers
    stage2_epochs: int = 15  # config: last epochs on the milder augmentation
    stage1: Augmentation = Augmentation()
    stage2: Augmentation = Augmentation(scale=(0.75, 1.25), rotation=60.0, shift=0.0, dropout=0.5)  # config
    ema_momentum: float = 0.0002  # config: ExpMomentumEMA; 1: no average
    ema_warmup: float = 2000.0  # mmengine's default gamma: early averages follow more closely
    loss: str = "simcc_kl"  # of nets that classify coordinates; or kl_discrete. Heatmaps have one loss
    beta: float = 10.0  # config: KLDiscretLoss
    label_smoothing: float = 0.1  # of kl_discrete
    temperature: float = 0.5  # of kl_discrete
    limb_weights: tuple[float, float] = (
        1.0,
        1.0,
    )  # weight of elbows and knees, of wrists and ankles; the others 1
    sigma: tuple[float, float] = (4.9, 5.66)  # config: bins (x, y) of a label at 256 x 192, see sigma_for
    nonlocal_gain: float = 0.2  # the gain that LAPX's non-local branches are raised to
    nonlocal_schedule: tuple[float, float] = (
        0.05,
        0.3,
    )  # shares of training: frozen, raised from to, then free
    evaluate_every: int = 10  # epochs; config: val_interval
    input_size: tuple[int, int] = (256, 192)  # (height, width); config


STARNET_POSE = Recipe()

# The occlusion study on COCO-mini: one GPU of 64 images, whose rate its command does not scale.
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

_LAPX = replace(GEOMETRY_ONLY, rotation=40, scale=(0.65, 1.35))  # section 4.1; the scale chosen
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
    nonlocal_schedule=(10 / 210, 60 / 210),  # section 3.3: over 50 epochs, after a warm-up
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
    max_grad_norm=0.5,  # 1 of their loss, which is twice ours
    stage2_epochs=0,
    stage1=_VITPOSE,
    stage2=_VITPOSE,
    ema_momentum=1.0,
)

# For small sets and small batches: our choice, tuned on nothing but that the loss falls.
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

# The report's own run of two minutes, on the embedded data, from shipped weights: small batches and mild
# augmentation, because what counts is the number of steps and how alike training and validation pictures are;
# half the rate of a run from scratch, falling early, because most joints are known. See docs/experiments.md.
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
    ema_momentum=0.02,  # of some 300 steps
    ema_warmup=50.0,
    evaluate_every=1,
    input_size=(128, 96),
)

# Fitting a few dozen people by heart: mirrored at random, otherwise as they are.
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

# Whose recipe on which data; the study of RTMPose-t on COCO-mini runs without an average of weights.
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


def get(profile: str, model: str = "starnet-pose-t", dataset: str = "coco", **changes: object) -> Recipe:
    """The recipe of a profile, with some fields set otherwise; ValueError offers the near names.

    Profile paper is the recipe of the model's own paper on that dataset, where there is one; the others are
    one recipe for all models, so that these can be compared, each with the loss of its own paper.
    A stage takes a dictionary of the fields of `Augmentation` to change: stage1={"dropout": 0.6}.
    """
    if profile not in PROFILES:
        raise unknown_name_error(profile, PROFILES, "profile")
    if profile == "paper":
        own = PAPER.get(model, {})
        if dataset not in own:
            known = ", ".join(f"{name} on {data}" for name, sets in PAPER.items() for data in sets)
            raise ValueError(
                f"no paper's recipe for {model} on {dataset}: profile paper is that of {known}; name another"
            )
        recipe = own[dataset]
    else:
        recipe = PROFILES[profile]
        if model.startswith("amfacpose"):
            recipe = replace(
                recipe, loss=AMFACPOSE.loss, sigma=AMFACPOSE.sigma, limb_weights=AMFACPOSE.limb_weights
            )
    return _checked(_changed(recipe, changes, "recipe field"))


def _checked(recipe: Recipe) -> Recipe:
    """The recipe, if it can be run; ValueError says what cannot, before any work."""
    for field, known in (("optimizer", OPTIMIZERS), ("loss", LOSSES)):
        if getattr(recipe, field) not in known:
            raise unknown_name_error(str(getattr(recipe, field)), known, field)
    for field in ("epochs", "batch_size", "base_batch_size", "evaluate_every"):
        value = getattr(recipe, field)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"recipe field {field} is {value!r}, not a whole number from 1 on")
    size = recipe.input_size
    if not isinstance(size, tuple) or len(size) != 2:
        raise ValueError(f"recipe field input_size is {size!r}, not a height and a width")
    return recipe


def _changed(settings: Recipe | Augmentation, changes: dict, what: str) -> Recipe | Augmentation:
    settled = {}
    for name, value in changes.items():
        if name not in asdict(settings):
            raise unknown_name_error(name, asdict(settings), what)
        if isinstance(value, dict):
            value = _changed(getattr(settings, name), value, "augmentation field")
        settled[name] = tuple(value) if isinstance(value, list) else value
    return replace(settings, **settled)


def sigma_for(recipe: Recipe) -> tuple[float, float]:
    """The label widths in bins at the recipe's input: they grow as its side's root, as RTMPose's do."""
    height, width = recipe.input_size
    return recipe.sigma[0] * (width / 192) ** 0.5, recipe.sigma[1] * (height / 256) ** 0.5


def joint_weights(keypoints: tuple[str, ...], recipe: Recipe) -> list[float]:
    """How much each joint of these names counts in the loss."""
    middle, outer = recipe.limb_weights
    return [
        middle if "elbow" in name or "knee" in name else outer if "wrist" in name or "ankle" in name else 1.0
        for name in keypoints
    ]


def nonlocal_gain_at(epoch: int, recipe: Recipe) -> float | None:
    """What the non-local branches' gain is held at in an epoch, counted from 0; None: it learns freely.

    At first 0, which freezes the branches; then raised by the epoch, in the last of these to `context`.
    """
    start, end = (share * recipe.epochs for share in recipe.nonlocal_schedule)
    after = epoch + 1
    return None if after > end + 1e-6 else recipe.nonlocal_gain * max(0.0, (after - start) / (end - start))
