"""The table of all records."""

from bs4 import BeautifulSoup

from posebook import records
from posebook.report import record_table

TRAINING = {
    "kind": "train",
    "model": "starnet-pose-t",
    "dataset": {"name": "synthetic", "split": "train", "persons": 2445},
    "evaluated": {"name": "synthetic", "split": "val", "persons": 1756},
    "metrics": {"AP": 0.5512, "AR": 0.6},
    "interval": [0.527, 0.577],
    "seed": 3,
    "started": "2026-01-02T03:04:05Z",
    "code": {"commit": "0123456789abcdef"},
    "kept": True,
}
LIFTER = TRAINING | {
    "kind": "lift",
    "model": "mixste",
    "evaluated": {"name": "motion", "split": "val", "clips": 40},
    "metrics": {"MPJPE": 88.817},
    "interval": None,
    "started": "2026-01-03T03:04:05Z",
    "kept": False,
}
BENCHMARK = TRAINING | {
    "kind": "benchmark",
    "model": None,
    "dataset": None,
    "evaluated": None,
    "metrics": [{}, {}],
}


def test_a_row_has_data_metric_interval_date_and_commit():
    newest, training, benchmark = record_table.record_rows([TRAINING, BENCHMARK, LIFTER]).to_dict("records")
    assert training == {
        "run": "training",
        "model": "StarNet-Pose-T",
        "setup": "",
        "data": "synthetic val, 1,756 people",
        "metric": "AP",
        "value": "0.551",
        "95 % interval": "0.527 to 0.577",
        "seed": "3",
        "date": "2026-01-02",
        "commit": "0123456",
        "from": "archive",
    }
    assert (newest["model"], newest["metric"], newest["value"]) == ("MixSTE", "MPJPE, mm", "88.8")
    assert newest["data"] == "motion val, 40 clips" and newest["from"] == "this machine"
    assert (benchmark["model"], benchmark["metric"], benchmark["value"]) == ("", "2 results", "–")


def test_a_training_on_several_datasets_without_evaluation():
    dataset = {"name": "coco-sample+lspet", "split": "train2017+train without held out 0.1", "persons": 4289}
    run = TRAINING | {"dataset": dataset, "evaluated": None, "metrics": {}}
    (row,) = record_table.record_rows([run]).to_dict("records")
    assert row["data"] == "COCO sample + LSPET, 4,289 people" and (row["metric"], row["value"]) == (
        "not evaluated",
        "–",
    )


def test_setup_distinguishes_runs_of_one_model():
    detected = TRAINING | {
        "weights": {"file": "starnet-pose-t-photographs.safetensors"},
        "protocol": {"boxes": "detector: a.json", "input_size": [256, 192]},
        "parameters": {"runtime": "OpenVINO int8"},
    }
    trained = TRAINING | {"weights": {"file": "runs/train-lapx-fast-seed0-0123abcd/weights.safetensors"}}
    lesson = TRAINING | {"metrics": {"MPJPE of the model, other people": 88.817}}
    one, two, three = record_table.record_rows([detected, trained, lesson]).to_dict("records")
    assert one["setup"] == "starnet-pose-t-photographs, 256×192, OpenVINO int8, detector's boxes"
    assert one["data"] == "synthetic val, 1,756 detected boxes"
    assert two["setup"] == "train-lapx-fast-seed0"
    assert (three["metric"], three["value"]) == ("MPJPE of the model, other people, mm", "88.8")


def test_evaluation_of_a_run_is_named_by_its_record():
    """The weights of a run are all called weights.safetensors."""
    evaluation = TRAINING | {"kind": "evaluate", "name": "study-x-occluded"}
    evaluation["weights"] = {"file": "weights.safetensors"}
    (row,) = record_table.record_rows([evaluation]).to_dict("records")
    assert row["setup"].split(", ")[0] == "study-x-occluded"


def test_unknown_models_keep_their_name_and_counts_of_pages_are_left_out():
    rows = record_table.record_rows([TRAINING | {"model": "movenet"}, TRAINING | {"kind": "audit"}])
    assert list(rows["model"]) == ["movenet"]


def test_every_archived_record_has_a_row():
    archived = [
        record for record in records.load(records.ARCHIVE) if record["kind"] not in record_table.NOT_RUNS
    ]
    table = BeautifulSoup(record_table.record_table(archived).data, "html.parser")
    assert len(table.select(".filter tbody tr")) == len(archived)
    rows = record_table.record_rows(archived)
    assert (rows[["run", "metric", "value", "date", "commit"]] != "").all(axis=None)
    assert rows["date"].is_monotonic_decreasing
