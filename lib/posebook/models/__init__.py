"""The zoo: every model by name. To add one, write its file beside this and one line in ZOO."""

import inspect
import json
import pickle
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from posebook import migration, skeletons
from posebook.models.amfacpose import AMFACPose
from posebook.models.hf_hrnet import HFHRNet
from posebook.models.hrformer import HRFormer
from posebook.models.hrnet import HRNet
from posebook.models.lapx import LAPX
from posebook.models.layers import PoseModel
from posebook.models.lite_hrnet import LiteHRNet
from posebook.models.lpn import LPN
from posebook.models.rtmpose import RTMPose
from posebook.models.simplebaseline import SimpleBaseline
from posebook.models.starnet_pose import StarNetPose
from posebook.models.vitpose import EXTRA_NUM_JOINTS, ViTPose, from_mae
from posebook.skeletons import Skeleton
from posebook.utils import sha256, unknown_name_error

MODELS = {
    "starnet-pose-t": partial(StarNetPose, width=24, depths=(2, 2, 8, 3)),
    "starnet-pose-s": partial(StarNetPose, width=32, depths=(2, 2, 8, 4), attention="coordinate"),
    "amfacpose-r34": partial(AMFACPose, depth=34),
    "amfacpose-r18": partial(AMFACPose, depth=18),
    "lapx": LAPX,
    "lap": partial(
        LAPX, stages=2, width=256, attention="cbam", stem_attention=True, neck="cbam", soft_gate=False
    ),
    "rtmpose-t": partial(RTMPose, deepen=0.167, widen=0.375),
    "rtmpose-s": partial(RTMPose, deepen=0.33, widen=0.5),
    "lpn-50": partial(LPN, depth=50),
    "lpn-101": partial(LPN, depth=101),
    "lpn-152": partial(LPN, depth=152),
    "simplebaseline-50": partial(SimpleBaseline, depth=50),
    "simplebaseline-101": partial(SimpleBaseline, depth=101),
    "simplebaseline-152": partial(SimpleBaseline, depth=152),
    "simcc-resnet50": partial(SimpleBaseline, depth=50, simcc=True),
    "simcc-hrnet-w32": partial(HRNet, width=32, simcc=True),
    "simcc-hrnet-w48": partial(HRNet, width=48, simcc=True, split_ratio=1.5),
    "hrnet-w32": partial(HRNet, width=32),
    "hrnet-w48": partial(HRNet, width=48),
    "lite-hrnet-18": partial(LiteHRNet, depth=18),
    "lite-hrnet-30": partial(LiteHRNet, depth=30),
    "hrformer-t": partial(HRFormer, width=18),
    "hf-hrnet-18": partial(HFHRNet, depth=18),
    "hf-hrnet-30": partial(HFHRNet, depth=30),
    "vitpose-s": partial(ViTPose, width=384),
    "vitpose-b": partial(ViTPose, width=768, drop_path=0.3),
    "vitpose-l": partial(ViTPose, width=1024, depth=24, heads=16, drop_path=0.5),
    "vitpose-h": partial(ViTPose, width=1280, depth=32, heads=16, drop_path=0.55),
    "vitpose-plus-s": partial(ViTPose, width=384, expert_dim=192, extra_num_joints=EXTRA_NUM_JOINTS),
    "vitpose-plus-b": partial(
        ViTPose, width=768, drop_path=0.3, expert_dim=192, extra_num_joints=EXTRA_NUM_JOINTS
    ),
    "vitpose-plus-l": partial(
        ViTPose,
        width=1024,
        depth=24,
        heads=16,
        drop_path=0.5,
        expert_dim=256,
        extra_num_joints=EXTRA_NUM_JOINTS,
    ),
    "vitpose-plus-h": partial(
        ViTPose,
        width=1280,
        depth=32,
        heads=16,
        drop_path=0.55,
        expert_dim=320,
        extra_num_joints=EXTRA_NUM_JOINTS,
    ),
}


def names() -> list[str]:
    """Names that `build` knows, in the order they were added."""
    return list(MODELS)


def check_options(name: str, options: dict) -> None:
    """Raise ValueError, with the near names, for a model or a builder's option nobody knows."""
    if name not in MODELS:
        raise unknown_name_error(name, names(), "model")
    known = [
        option
        for option in inspect.signature(MODELS[name]).parameters
        if option not in ("skeleton", "input_size")
    ]
    for option in options:
        if option not in known:
            raise unknown_name_error(option, known, f"option of {name}")


def build(
    name: str, skeleton: str | Skeleton = "coco", input_size: tuple[int, int] = (256, 192), **options: object
) -> PoseModel:
    """Build a model, untrained. skeleton: a known set's name, or a set; input_size: (height, width); options:
    the model file's keyword arguments.

    Raises ValueError for a name, a skeleton, an option or an input size it does not know, before any work.
    """
    check_options(name, options)
    joints = skeleton if isinstance(skeleton, Skeleton) else skeletons.get(skeleton)
    return MODELS[name](skeleton=joints, input_size=tuple(input_size), **options)


class _Inert:
    """In place of what a checkpoint holds beside weights: takes anything, is nothing."""

    def __init__(self, *_: object):
        pass

    def __setstate__(self, _: object) -> None:
        pass


# A training script's random state (KTPFormer's files hold one) is made of these; none of them is ever called.
INERT_GLOBALS = [
    (_Inert, name)
    for name in (
        "numpy.random._pickle.__randomstate_ctor",
        "numpy.random._pickle.__bit_generator_ctor",
        "numpy.random._mt19937.MT19937",
        "numpy.random.__RandomState_ctor",
        "numpy._core.multiarray._reconstruct",
        "numpy.core.multiarray._reconstruct",
        "numpy.ndarray",
        "numpy.dtype",
        "_codecs.encode",
    )
]


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file, unwrapped and without 'module.', never unpickling code.

    Raises FileNotFoundError, and ValueError for a file that is no checkpoint or holds anything but tensors
    and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            with torch.serialization.safe_globals(INERT_GLOBALS):
                state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, safetensors.SafetensorError, RuntimeError, EOFError, ValueError) as error:
        head = path.read_bytes()[:64].lstrip()
        why = "it is a web page" if head[:1] == b"<" else str(error).splitlines()[0]
        raise ValueError(f"{path.name} cannot be read as weights: {why}") from error
    for wrapper in ("state_dict", "model", "model_pos"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path.name} holds no tensors by name")
    return {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}


def load_official(model: nn.Module, source: str | Path | dict[str, Tensor]) -> nn.Module:
    """Load a checkpoint in the authors' layout, strictly; the model is untouched when it does not fit.

    Raises ValueError that says what the weights are for, as far as it shows (another model, another number of
    joints), and names the first keys that are missing, left over or of another shape.
    """
    state = source if isinstance(source, dict) else read_checkpoint(source)
    own = model.state_dict()
    keys = [f"missing {key}" for key in own if key not in state]
    keys += [f"left over {key}" for key in state if key not in own]
    shapes = {k: (own[k].shape, state[k].shape) for k in own if k in state and state[k].shape != own[k].shape}
    faults = keys + [f"{key} is {tuple(theirs)}, not {tuple(ours)}" for key, (ours, theirs) in shapes.items()]
    if faults:
        what = f"the weights do not fit {type(model).__name__}"
        if 2 * len(keys) > len(own):
            what += " and are those of another model"
        elif not keys and hasattr(model, "skeleton"):
            joints = len(model.skeleton.keypoints)
            other = _other_joint_count(shapes.values(), joints)
            what += f" for {joints} joints and are for {other}" if other else ""
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise ValueError(f"{what}: {'; '.join(faults[:4])}{more}")
    model.load_state_dict(state)
    return model


def _other_joint_count(shapes: Iterable[tuple[torch.Size, torch.Size]], joints: int) -> int | None:
    """The number of joints in whose place (ours, theirs) differ, where that explains every difference."""
    counts = set()
    for ours, theirs in shapes:
        for own, other in zip(ours, theirs, strict=False):
            if own != other:
                counts.add(other * joints // own if own % joints == other * joints % own == 0 else None)
    return counts.pop() if len(counts) == 1 else None


def load_backbone(model: nn.Module, path: str | Path) -> nn.Module:
    """Load the backbone's authors' ImageNet file into model.backbone: StarNet's, or a ViT's of MAE.

    Its classifier (`norm`, `head`) is left out and attention modules, which it does not have, keep their
    start; anything else missing or left over raises ValueError.
    """
    state = {k: v for k, v in read_checkpoint(path).items() if k.split(".")[0] not in ("norm", "head")}
    if isinstance(model, ViTPose) and "pos_embed" in state:
        state = from_mae(state, model.backbone)
    own = model.backbone.state_dict()
    attention = {key: value for key, value in own.items() if ".ca." in key}
    load_official(model.backbone, attention | state)
    return model


def save_weights(
    model: nn.Module,
    path: str | Path,
    name: str,
    trained_on: str | None = None,
    dtype: torch.dtype = torch.float32,
    images: Iterable[str] = (),
    **options: object,
) -> str:
    """Write the model with what is needed to build it again; returns the file's SHA-256.

    images: hashes of the images that it was trained on, on which it must not be evaluated.
    """
    state = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }
    built = {
        "model": name,
        "skeleton": skeletons.describe(model.skeleton),
        "input_size": list(model.input_size),
        "options": options,
    }
    facts = built | {"trained_on": trained_on}
    if images := sorted(images):
        facts["trained_images"] = " ".join(images)
    # one entry: safetensors writes several in an order of chance, and the file's hash would change
    facts = {"posebook": json.dumps(facts)}
    safetensors.torch.save_file({key: value.contiguous() for key, value in state.items()}, path, facts)
    return sha256(path)


def describe_weights(path: str | Path) -> dict:
    """What a file of `save_weights` says of itself: model, skeleton, input_size, options, trained_on, and
    trained_images, hashes in one string, where they are known.

    {} for any other file.
    """
    if Path(path).suffix != ".safetensors":
        return {}
    with safetensors.safe_open(path, "pt") as file:
        facts = json.loads((file.metadata() or {}).get("posebook", "{}"))
    if "options" in facts:
        facts["options"] = migration.migrate_options(facts["options"])
    return facts


def trained_images(path: str | Path) -> set[str]:
    """Hashes of the images that weights were trained on, as far as their file tells."""
    if Path(path).suffix != ".safetensors":
        return set()
    with safetensors.safe_open(path, "pt") as file:
        facts = file.metadata() or {}
    told = facts.get("trained_images") or json.loads(facts.get("posebook", "{}")).get("trained_images", "")
    return set(told.split())


def load_weights(
    path: str | Path, name: str | None = None, input_size: tuple[int, int] = (256, 192)
) -> PoseModel:
    """The model of a weights file, in eval mode and float32: built as the file says, or, for authors' files,
    which say nothing, as model `name` with COCO's joints for input_size (height, width).

    Raises ValueError for weights of another model than `name`, or that say nothing where no name is given.
    """
    path, state = Path(path), read_checkpoint(path)
    built = describe_weights(path)
    if not built and name is None:
        raise ValueError(f"{path.name} does not say which model it is: name one")
    if name and built.get("model", name) != name:
        raise ValueError(f"{path.name} holds weights of {built['model']}, not of {name}")
    built = {"model": name, "skeleton": "coco", "input_size": input_size, "options": {}} | built
    joints = skeletons.from_description(built["skeleton"])
    model = build(built["model"], joints, tuple(built["input_size"]), **built["options"])
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    return load_official(model, state).eval()
