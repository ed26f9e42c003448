"""The table of model names, and reading and writing of weights.

To add a model, write a file in this folder and add its name to MODELS.
"""

import inspect
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from posebook import migration, skeletons
from posebook.models import key_mapping, published
from posebook.models.amfacpose import AMFACPose
from posebook.models.checkpoint_reader import read_checkpoint
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
from posebook.utils import check_name, sha256

ModelT = TypeVar("ModelT", bound=nn.Module)

VITPOSE_PLUS = partial(ViTPose, extra_num_joints=EXTRA_NUM_JOINTS)

MODELS: dict[str, Callable[..., PoseModel]] = {
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
    "vitpose-plus-s": partial(VITPOSE_PLUS, width=384, expert_dim=192),
    "vitpose-plus-b": partial(VITPOSE_PLUS, width=768, drop_path=0.3, expert_dim=192),
    "vitpose-plus-l": partial(VITPOSE_PLUS, width=1024, depth=24, heads=16, drop_path=0.5, expert_dim=256),
    "vitpose-plus-h": partial(VITPOSE_PLUS, width=1280, depth=32, heads=16, drop_path=0.55, expert_dim=320),
}


def names() -> list[str]:
    """The names of all models, in the order of MODELS."""
    return list(MODELS)


def check_options(name: str, options: dict) -> None:
    """Raise ValueError, with similar names, if the model or one of its options does not exist."""
    check_name(name, names(), "model")
    parameters = inspect.signature(MODELS[name]).parameters
    known = [option for option in parameters if option not in ("skeleton", "input_size")]
    for option in options:
        check_name(option, known, f"option of {name}")


def build(
    name: str, skeleton: str | Skeleton = "coco", input_size: tuple[int, int] = (256, 192), **options: object
) -> PoseModel:
    """Build an untrained model.

    skeleton: a Skeleton or its name. input_size: (height, width) in pixels. options: keyword arguments of the
    model class. Raises ValueError for an unknown name, skeleton or option, or an input size that the model
    does not support.
    """
    check_options(name, options)
    resolved = skeleton if isinstance(skeleton, Skeleton) else skeletons.get(skeleton)
    return MODELS[name](skeleton=resolved, input_size=tuple(input_size), **options)


def load_official(model: ModelT, source: str | Path | dict[str, Tensor]) -> ModelT:
    """Load a checkpoint in the authors' layout, strictly; returns the model.

    Weights of a pose model may also be in the layout of mmpose or transformers: see key_mapping.py. Raises
    ValueError if the weights do not fit, and leaves the model unchanged. The message names the first keys
    that are missing, unexpected or of another shape. It also says if the weights appear to be those of
    another model or for another number of joints.
    """
    state = source if isinstance(source, dict) else read_checkpoint(source)
    own = model.state_dict()
    if isinstance(model, PoseModel):
        try:
            state = key_mapping.remap_keys(state, own)
        except KeyError as error:
            raise ValueError(f"the weights are incomplete: they have no {error.args[0]}") from error
    keys = [f"missing {key}" for key in own if key not in state]
    keys += [f"unexpected {key}" for key in state if key not in own]
    shapes = {k: (own[k].shape, state[k].shape) for k in own if k in state and state[k].shape != own[k].shape}
    faults = keys + [f"{key} is {tuple(theirs)}, not {tuple(ours)}" for key, (ours, theirs) in shapes.items()]
    if faults:
        message = f"the weights do not fit {type(model).__name__}"
        if 2 * len(keys) > len(own):  # most keys differ
            message += " (they belong to another model)"
        # Another number of joints changes only a few layers at the end; another width changes most of them.
        elif 4 * len(faults) < len(own) and isinstance(
            skeleton := getattr(model, "skeleton", None), Skeleton
        ):
            joints = len(skeleton.keypoints)
            other = _other_joint_count(shapes.values(), joints)
            message += f" for {joints} joints (they are for {other})" if other else ""
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise ValueError(f"{message}: {'; '.join(faults[:4])}{more}")
    model.load_state_dict(state)
    return model


def _other_joint_count(shapes: Iterable[tuple[torch.Size, torch.Size]], joints: int) -> int | None:
    """The weights' number of joints if it explains all pairs of shapes (model's, weights'), else None."""
    counts = set()
    for ours, theirs in shapes:
        for own, other in zip(ours, theirs, strict=False):
            if own != other:
                # An axis may have several entries per joint.
                counts.add(other * joints // own if own % joints == other * joints % own == 0 else None)
    return counts.pop() if len(counts) == 1 else None


def load_backbone(model: nn.Module, path: str | Path) -> nn.Module:
    """Load an ImageNet checkpoint of the backbone's authors, StarNet's or MAE's ViT, into `model.backbone`.

    Its classifier (`norm`, `head`) is ignored. Attention modules, which it does not contain, keep their
    initialization. Raises ValueError if the model has no backbone or if other keys are missing or unexpected.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ValueError(f"{type(model).__name__} has no backbone to load {Path(path).name} into")
    state = {k: v for k, v in read_checkpoint(path).items() if k.split(".")[0] not in ("norm", "head")}
    if isinstance(model, ViTPose) and "pos_embed" in state:
        try:
            state = from_mae(state, model.backbone)
        except KeyError as error:
            raise ValueError(f"{Path(path).name} is incomplete: it has no {error.args[0]}") from error
    attention = {key: value for key, value in backbone.state_dict().items() if ".ca." in key}
    load_official(backbone, attention | state)
    return model


def save_weights(
    model: PoseModel,
    path: str | Path,
    name: str,
    trained_on: str | None = None,
    dtype: torch.dtype = torch.float32,
    images: Iterable[str] = (),
    **options: object,
) -> str:
    """Write the weights and the arguments of `build` to a safetensors file; returns its SHA-256.

    name, options: the arguments of `build` that gave `model`. trained_on: name of the training dataset.
    dtype: type of the stored floating-point tensors. images: hashes of the training images, on which the
    model must not be evaluated.
    """
    state = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }
    facts: dict[str, Any] = {
        "model": name,
        "skeleton": skeletons.describe(model.skeleton),
        "input_size": list(model.input_size),
        "options": options,
        "trained_on": trained_on,
    }
    facts |= {name: True for name in ("udp", "dark") if getattr(model, name)}
    if images := sorted(images):
        facts["trained_images"] = " ".join(images)
    # A single entry: safetensors writes several in random order, and the hash of the file would change.
    metadata = {"posebook": json.dumps(facts)}
    safetensors.torch.save_file({key: value.contiguous() for key, value in state.items()}, path, metadata)
    return sha256(path)


def _metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file; {} for other files."""
    if Path(path).suffix != ".safetensors":
        return {}
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata() or {}


def describe_weights(path: str | Path) -> dict:
    """The facts that `save_weights` stored in a file, or those of a published file; {} for other files.

    Keys: model, skeleton, input_size, options, trained_on; udp or dark if the weights need it; and, if
    known, trained_images with the hashes of the training images, separated by spaces. A published file is
    known by its name: see published.py.
    """
    facts = json.loads(_metadata(path).get("posebook", "{}"))
    if not facts and (checkpoint := published.find_by_file(path)):
        return {
            "model": checkpoint.model,
            "skeleton": checkpoint.dataset,
            "input_size": list(checkpoint.input_size),
            "options": checkpoint.options,
            "trained_on": checkpoint.trained_on,
            **({checkpoint.decoding.lower(): True} if checkpoint.decoding in ("UDP", "DARK") else {}),
        }
    if "options" in facts:
        facts["options"] = migration.migrate_options(facts["options"])
    return facts


def trained_images(path: str | Path) -> set[str]:
    """Hashes of the images that the weights were trained on; empty if the file does not contain them."""
    metadata = _metadata(path)
    # Files of earlier versions have a separate metadata entry for the hashes.
    facts = metadata if "trained_images" in metadata else json.loads(metadata.get("posebook", "{}"))
    return set(facts.get("trained_images", "").split())


def load_weights(
    path: str | Path, name: str | None = None, input_size: tuple[int, int] = (256, 192)
) -> PoseModel:
    """Build a model from its weights file, in float32 and eval mode.

    A file of `save_weights` contains all that is needed, and a published file is known by its name. Any other
    file is loaded into model `name` with COCO's joints and this input_size (height, width). Raises ValueError
    if the file contains weights of another model than `name`, or if neither the file nor the caller names the
    model.
    """
    path, state = Path(path), read_checkpoint(path)
    facts = describe_weights(path)
    if not facts and name is None:
        raise ValueError(f"{path.name} does not say which model it contains; give the name of the model")
    if name and facts.get("model", name) != name:
        raise ValueError(f"{path.name} holds weights of {facts['model']}, not of {name}")
    facts = {"model": name, "skeleton": "coco", "input_size": input_size, "options": {}} | facts
    skeleton = skeletons.from_description(facts["skeleton"])
    model = build(facts["model"], skeleton, tuple(facts["input_size"]), **facts["options"])
    model.udp, model.dark = facts.get("udp", False), facts.get("dark", False)
    return load_official(model, state).eval()


def load(name: str, weights: str | Path = "coco") -> PoseModel:
    """Build a model with published or bundled weights, in float32 and eval mode; downloads them if necessary.

    weights: their name, as in `posebook download weights`, or a file. Raises the errors of
    `published.resolve` and `load_weights`.
    """
    return load_weights(published.resolve(weights, name), name)
