"""Convert records, weights and checkpoints that earlier versions of posebook wrote.

Schema 1 (posebook 0.1) used other names for the fields of a recipe, and its oldest records lack fields that
were added later. Schema 2 uses the names of `training.recipes.Recipe`.

1. A missing field gets the value that the old code used implicitly. These values are listed here because
   `training.recipes.Recipe` has other defaults.
2. Reading converts in memory. `posebook records migrate` also rewrites the files.
"""

import hashlib
import json
from pathlib import Path

import safetensors
import safetensors.torch

from posebook.utils import atomic_write

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
# What the first trainings did before these fields existed.
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
OPTIONS = {"part": "expert_dim", "others": "extra_num_joints"}  # keyword arguments of the ViTPose builder
TRAININGS = ("train", "several", "lift", "starpose")  # the kinds of record whose `parameters` are a recipe


def rename(values: dict, names: dict[str, str]) -> dict:
    """Rename keys and keep the order of the entries."""
    return {names.get(key, key): value for key, value in values.items()}


def migrate_options(options: dict) -> dict:
    """Rename the keyword arguments of a model builder to their current names."""
    return rename(options, OPTIONS)


def migrate_record(record: dict) -> dict:
    """Convert a record to the current schema. A record that already has it is returned unchanged.

    Raises ValueError if it is none, or if its schema is newer than this code.
    """
    if not isinstance(record, dict) or "kind" not in record:
        raise ValueError("it is not a record of posebook")
    schema = record.get("schema", 1)
    if not isinstance(schema, int):
        raise ValueError(f"schema {schema!r} is not a number")
    if schema > SCHEMA:
        raise ValueError(
            f"schema {schema} is newer than this posebook, which reads up to {SCHEMA}: update it"
        )
    if schema == SCHEMA:
        return record
    record = record | {"schema": SCHEMA}
    if record["kind"] in TRAININGS:
        if not isinstance(record.get("parameters"), dict):
            raise ValueError("it has no object `parameters`")
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
    """Rename the tensors of a lifter to their current names."""
    return {key.replace(".learnt", ".learned"): value for key, value in state.items()}


def migrate_identity(identity: dict) -> dict:
    """Convert the settings that identify a training run to current names. The code hash is kept."""
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
    """The run description stored in a checkpoint, with its identity. Raises ValueError for any other file."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from error
    if "run" not in metadata:
        raise ValueError(f"{path} is not a checkpoint of a posebook training")
    return json.loads(metadata["run"])


def migrate_checkpoint(path: Path, code: str) -> Path:
    """Convert a checkpoint of an earlier version so that the current code resumes from it.

    path: checkpoint-NNNNNNNN.safetensors in the run folder RUNS/NAME-HASH. code: the hash of the current code
    for this run. The new file is written to RUNS/NAME-NEWHASH, where the same command resumes; the old file
    stays. Returns the new path. Raises ValueError for a file that is not a checkpoint.
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
    target = folder / path.name
    with atomic_write(target) as temporary:
        safetensors.torch.save_file(tensors, temporary, {"run": json.dumps(facts)})
    return target


def migrate_record_file(path: Path) -> bool:
    """Rewrite a record file in the current schema. Returns False if it already has it.

    Raises ValueError that names the file if it is not a record.
    """
    try:
        before = json.loads(path.read_text())
        after = migrate_record(before)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a record: {error}") from error
    if after is before:
        return False
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(after, indent=1) + "\n")
    return True
