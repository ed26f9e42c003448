"""Read what earlier versions of posebook wrote: records, weights and checkpoints of unfinished trainings.

Schema 1 (posebook 0.1) used other names for the fields of a recipe, and its records lack the fields that were
added after them. Schema 2 has the names of `training.recipes.Recipe`.

1. A field that a record lacks gets the value of the code that wrote it: that code behaved as if the field
   had this value. `training.recipes.Recipe` has other defaults, so they are listed here.
2. Reading converts in memory. `posebook records migrate` also rewrites files.
"""

import hashlib
import json
from pathlib import Path

import safetensors
import safetensors.torch

SCHEMA = 2
FIELDS = {
    "batch": "batch_size",
    "base_batch": "base_batch_size",
    "optimiser": "optimizer",
    "drops": "milestones",
    "drop": "lr_gamma",
    "cosine_from": "cosine_start",
    "final_rate": "min_lr_ratio",
    "clip": "max_grad_norm",
    "ema": "ema_momentum",
    "limbs": "limb_weights",
    "smoothing": "label_smoothing",
    "context": "nonlocal_gain",
    "context_span": "nonlocal_schedule",
    "parts": "grad_accum_steps",
}
# What the first trainings did, before there were fields for it.
ADDED = {
    "optimizer": "adamw",
    "layer_decay": 1.0,
    "milestones": [],
    "lr_gamma": 0.1,
    "max_grad_norm": 0.0,
    "loss": "simcc_kl",
    "label_smoothing": 0.1,
    "temperature": 0.5,
    "limb_weights": [1.0, 1.0],
    "nonlocal_gain": 0.2,
    "nonlocal_schedule": [0.05, 0.3],
}
OPTIONS = {"part": "expert_dim", "others": "extra_num_joints"}  # of ViTPose's builder
TRAININGS = ("train", "several", "lift", "starpose")  # kinds of records whose parameters are a recipe


def rename(values: dict, names: dict[str, str]) -> dict:
    """The same entries with other keys, in the same order."""
    return {names.get(key, key): value for key, value in values.items()}


def migrate_options(options: dict) -> dict:
    """A builder's keyword arguments under their names of today."""
    return rename(options, OPTIONS)


def migrate_record(record: dict) -> dict:
    """A record in today's schema; one that has it already is returned as it is.

    Raises ValueError for a schema that is newer than this code.
    """
    schema = record.get("schema", 1)
    if schema > SCHEMA:
        raise ValueError(
            f"schema {schema} is newer than this posebook, which knows up to {SCHEMA}: update it"
        )
    if schema == SCHEMA:
        return record
    record = record | {"schema": SCHEMA}
    if record["kind"] in TRAININGS:
        parameters = rename(record["parameters"], FIELDS)
        if record["kind"] == "train":
            parameters |= {name: value for name, value in ADDED.items() if name not in parameters}
        record["parameters"] = parameters
    if isinstance(record.get("options"), dict):
        record["options"] = migrate_options(record["options"])
    if isinstance(record.get("weights"), dict):
        record["weights"] = rename(record["weights"], {"initialisation": "initialization"})
    return record


def migrate_keys(state: dict) -> dict:
    """A lifter's tensors under today's names."""
    return {key.replace(".learnt", ".learned"): value for key, value in state.items()}


def migrate_identity(identity: dict) -> dict:
    """What makes a training run this one, in today's names; its code hash stays the old one."""
    identity = rename(identity, FIELDS | {"initialisation": "initialization"})
    if "options" in identity:
        identity["options"] = migrate_options(identity["options"])
    if "recipe" in identity:
        recipe = rename(identity["recipe"], FIELDS)
        if "model" in identity:
            recipe |= {name: value for name, value in ADDED.items() if name not in recipe}
        identity["recipe"] = recipe
    return identity


def identity_hash(identity: dict) -> str:
    """Return the eight digits at the end of the name of a run's folder.

    The order of keys does not matter: a migrated identity has another one than an identity of today.
    """
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def read_run(path: Path) -> dict:
    """What a checkpoint says of its run, the identity among it; raises ValueError for another file."""
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    if "run" not in metadata:
        raise ValueError(f"{path} is not a checkpoint of a posebook training")
    return json.loads(metadata["run"])


def migrate_checkpoint(path: Path, code: str) -> Path:
    """Rewrite a checkpoint of an earlier version for today's code; returns the new file's path.

    path: checkpoint-NNNNNNNN.safetensors in its run's folder RUNS/NAME-HASH. code: the hash of today's code
    for this run. The new file lies in RUNS/NAME-NEWHASH, where the same command continues from it; the old
    one stays. Raises ValueError for a file that is no checkpoint.
    """
    facts = read_run(path)
    facts["identity"] = migrate_identity(facts["identity"]) | {"code": code}
    tensors = {
        name.replace("optimiser.", "optimizer.", 1) if name.startswith("optimiser.") else name: value
        for name, value in safetensors.torch.load_file(path).items()
    }
    name = path.parent.name.rpartition("-")[0]
    folder = path.parent.with_name(f"{name}-{identity_hash(facts['identity'])}")
    folder.mkdir(exist_ok=True)
    target, temporary = folder / path.name, folder / f"{path.stem}.tmp"
    safetensors.torch.save_file(tensors, temporary, {"run": json.dumps(facts)})
    temporary.replace(target)
    return target


def migrate_record_file(path: Path) -> bool:
    """Rewrite a record in today's schema; False where it has it already."""
    before = json.loads(path.read_text())
    after = migrate_record(before)
    if after is before:
        return False
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(after, indent=1) + "\n")
    temporary.replace(path)
    return True
