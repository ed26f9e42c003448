"""What earlier versions wrote is read, converted or refused, never misread."""

import copy
import json
import subprocess

import pytest
import safetensors
import safetensors.torch
import torch

from helpers import ROOT
from posebook import cli, migration, models, paths, records
from posebook.papers import cells, lifting_tables, matching, tables
from posebook.training import recipes, trainer
from posebook.training.config import make_config

BACK = {new: old for old, new in migration.FIELDS.items()}


def as_before(record: dict) -> dict:
    """A record as posebook 0.1 wrote it."""
    old = copy.deepcopy(record) | {"schema": 1}
    if old["kind"] in migration.TRAININGS:
        old["parameters"] = migration.rename(old["parameters"], BACK)
    if isinstance(old.get("options"), dict):
        old["options"] = migration.rename(
            old["options"], {new: name for name, new in migration.OPTIONS.items()}
        )
    if isinstance(old.get("weights"), dict):
        old["weights"] = migration.rename(old["weights"], {"initialization": "initialisation"})
    return old


@pytest.fixture(scope="module")
def archived():
    return [json.loads(path.read_text()) for path in sorted(paths.MEASURED.glob("*.json"))]


def test_archived_records_have_todays_schema_and_every_field(archived):
    for record in archived:
        assert record["schema"] == migration.SCHEMA, record["name"]
        assert migration.migrate_record(record) is record
        if record["kind"] in ("train", "several"):
            assert recipes.Recipe.__dataclass_fields__.keys() <= record["parameters"].keys(), record["name"]


def test_old_records_are_read_as_they_were(archived, tmp_path):
    for record in archived:
        (tmp_path / f"{record['name']}.json").write_text(json.dumps(as_before(record)))
    read = {record["name"]: record for record in records.load(tmp_path)}
    for record in archived:
        found = {name: value for name, value in read[record["name"]].items() if name not in ("path", "kept")}
        assert found == record


@pytest.mark.slow
def test_every_table_is_the_same_from_old_records(archived, tmp_path):
    for record in archived:
        (tmp_path / f"{record['name']}.json").write_text(json.dumps(as_before(record)))
    old, new = records.load(tmp_path), records.load(paths.MEASURED)
    for paper, table in cells.load_cells()[["paper", "table"]].drop_duplicates().itertuples(index=False):
        before, after = (
            tables.build_table(paper, table, found).drop(columns="record") for found in (old, new)
        )
        assert before.equals(after), (paper, table)
    assert lifting_tables.pruning_table(old).equals(lifting_tables.pruning_table(new))
    assert lifting_tables.guidance_table(old).equals(lifting_tables.guidance_table(new))


def test_a_missing_field_is_an_error_and_not_equal_to_everything():
    parameters = json.loads(json.dumps(vars(recipes.get("paper", "lapx", "mpii")), default=vars))
    assert matching.trained_by(recipes.get("paper", "lapx", "mpii"), parameters)
    del parameters["max_grad_norm"]
    with pytest.raises(ValueError, match="lack max_grad_norm.*posebook records migrate"):
        matching.trained_by(recipes.get("paper", "lapx", "mpii"), parameters)


def test_a_newer_schema_is_refused(archived, tmp_path):
    (tmp_path / "new.json").write_text(json.dumps(archived[0] | {"schema": migration.SCHEMA + 1}))
    with pytest.raises(ValueError, match="new.json cannot be read as a record: schema 3 is newer than this"):
        records.load(tmp_path)


def test_the_command_rewrites_records_once(archived, tmp_path, capsys):
    path = tmp_path / "train.json"
    record = next(record for record in archived if record["kind"] == "train")
    path.write_text(json.dumps(as_before(record)))
    cli.main(["records", "migrate", str(tmp_path)])
    assert json.loads(path.read_text()) == record
    cli.main(["records", "migrate", str(path)])
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}: 1 of 1 records rewritten",
        f"{path}: 0 of 1 records rewritten",
    ]


def test_a_training_of_old_code_continues(small, tmp_path):
    """A checkpoint in the old names is converted, and resumed to the same weights."""
    config = make_config(
        data_root=str(small), profile="fast", out_dir=str(tmp_path), epochs=2, batch_size=8,
        input_size=[64, 64], stage2_epochs=0, warmup_steps=2, evaluate_every=9, save_every=4,
    )  # fmt: skip
    record = trainer.train(config)
    folder = (tmp_path / record["weights"]["file"]).parent
    newest = sorted(folder.glob("checkpoint-*"))
    with safetensors.safe_open(newest[0], "pt") as file:
        facts = json.loads(file.metadata()["run"])
    identity = facts["identity"]
    identity["recipe"] = migration.rename(identity["recipe"], BACK)
    identity = migration.rename(identity, BACK | {"initialization": "initialisation"}) | {
        "code": "of old code"
    }
    tensors = safetensors.torch.load_file(newest[0])
    tensors = {name.replace("optimizer.", "optimiser."): value for name, value in tensors.items()}
    old = tmp_path / "runs" / "old-00000000"
    old.mkdir()
    stopped = json.dumps(facts | {"identity": identity})
    safetensors.torch.save_file(tensors, old / newest[0].name, {"run": stopped})
    converted = trainer.migrate_run(old / newest[0].name)
    assert converted.parent.name.split("-")[-1] == folder.name.split("-")[-1]
    for path in newest:
        path.unlink()
    converted.rename(folder / newest[0].name)
    again = trainer.train(config)
    assert again["weights"]["sha256"] == record["weights"]["sha256"]


def test_weights_with_former_options_are_read(tmp_path):
    net = models.build(
        "vitpose-s", "coco", (64, 48), width=24, depth=1, heads=2, expert_dim=12, extra_num_joints=(14,)
    )
    path = tmp_path / "weights.safetensors"
    facts = {"model": "vitpose-s", "skeleton": "coco", "input_size": [64, 48], "trained_on": "synthetic"}
    facts["options"] = {"width": 24, "depth": 1, "heads": 2, "part": 12, "others": [14]}
    safetensors.torch.save_file(net.state_dict(), path, {"posebook": json.dumps(facts)})
    read = models.load_weights(path)
    assert all(torch.equal(value, read.state_dict()[key]) for key, value in net.state_dict().items())


def test_what_is_nothing_of_ours_is_refused(tmp_path, capsys):
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "checkpoint-00000001.safetensors")
    with pytest.raises(SystemExit) as ended:
        cli.main(["records", "migrate", str(tmp_path)])
    assert ended.value.code == 2 and "is not a checkpoint of a posebook training" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content, message",
    [
        ("[]", "cannot be read as a record: it is not a record of posebook"),
        ('{"a": 1}', "cannot be read as a record: it is not a record of posebook"),
        ('{"kind": "train", "schema": "2"}', "cannot be read as a record: schema '2' is not a number"),
        ('{"kind": "train"}', "cannot be read as a record: it has no object `parameters`"),
        ("{", "cannot be read as a record: "),
    ],
)
def test_other_json_files_are_refused_in_one_line(content, message, tmp_path, capsys):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(SystemExit) as ended:
        cli.main(["records", "migrate", str(tmp_path / "x.json")])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and f"x.json {message}" in error


def test_incomplete_checkpoint_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "checkpoint-00000001.safetensors").write_bytes(b"broken")
    with pytest.raises(SystemExit) as ended:
        cli.main(["records", "migrate", str(tmp_path)])
    assert ended.value.code == 2 and "is not a complete safetensors file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["records", "migrate", str(tmp_path / "gone")])
    assert "gone does not exist" in capsys.readouterr().err


def test_git_knows_the_archive():
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "data/measured"], capture_output=True, text=True
    ).stdout.split()
    assert len(tracked) > 60 or not (ROOT / ".git").exists()
