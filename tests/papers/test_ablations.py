"""The grid of runs is valid, agrees with the printed tables, and every row trains."""

import dataclasses

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from posebook import cli, models, skeletons
from posebook.datasets import Person, PoseDataset
from posebook.papers import ablations, commands, matching
from posebook.papers.cells import all_options, load_cells, parse_options
from posebook.training import checkpoints, data, loop, recipes, runtime, trainer

ABLATIONS = {"attention_ablation", "occlusion_ablation", "ablation"}
HEADER = "id,paper,table,row,model,options,dataset,changes,backbone,seed\n"
LINE = 'lapx-{n},LAPX,ablation,x,{model},"{options}",mpii,"{changes}",,0\n'


def test_grid_contains_every_published_run():
    counts = pd.Series([(row.paper, row.table) for row in ablations.rows().values()]).value_counts().to_dict()
    assert counts == {
        ("LAPX", "ablation"): 13 + 3,  # row 12 is the mean of three runs
        ("AMFACPose", "ablation"): 6,
        ("StarNet-Pose", "attention_ablation"): 3,
        ("StarNet-Pose", "occlusion_ablation"): 5,
        ("StarNet-Pose", "occlusion_sweep"): 9,
    }
    assert [row.seed for row in ablations.matching_rows("lapx-12-*")] == [0, 1, 2]


def test_grid_agrees_with_printed_tables():
    """Every row of an ablation has runs with its model, options, recipe, data and backbone."""
    cells = load_cells()
    cells = cells[cells["table"].isin(ABLATIONS) & (cells["boxes"] != "")]  # accuracies
    printed = cells.drop_duplicates(["paper", "table", "row"]).to_dict("records")
    runs = {(run.paper, run.table, run.row) for run in ablations.rows().values() if run.row}
    assert runs == {(cell["paper"], cell["table"], cell["row"]) for cell in printed}
    for cell in printed:
        for id in commands.ablation_runs(cell):
            run = ablations.rows()[id]
            assert (run.model, run.dataset, run.backbone) == (
                cell["model"],
                cell["dataset"],
                cell["pretrained"],
            )
            assert all_options(run.model, run.options) == all_options(
                cell["model"], parse_options(cell["options"])
            )
            assert recipes.get("paper", run.model, run.dataset, **run.changes) == matching.cell_recipe(
                cell
            ), id


def test_sweep_matches_authors_repository():
    """All runs train S3 with coordinate attention for 100 epochs, ten of them in the second stage."""
    fixed, schedules = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0], {(1.0, 0.5), (0.8, 0.2), (0.6, 0.0)}
    found = set()
    for run in ablations.matching_rows("sweep-*"):
        recipe = recipes.get("paper", run.model, run.dataset, **run.changes)
        assert (run.model, run.options) == ("starnet-pose-s", {"attention": "coordinate"})
        assert (recipe.epochs, recipe.stage2_epochs, run.backbone) == (100, 10, "starnet_s3.pth.tar")
        found.add((recipe.stage1.dropout, recipe.stage2.dropout))
    assert found == {(p, p) for p in fixed} | schedules


def test_smaller_profiles_use_bundled_synthetic_data():
    run = ablations.get_row("attention-cbam")
    paper, demo = run.config("paper"), run.config("demo")
    assert (paper.name, paper.dataset, paper.recipe["epochs"]) == ("attention-cbam", "coco-mini", 210)
    assert paper.backbone.endswith("data/checkpoints/starnet_s3.pth.tar")
    assert (demo.name, demo.dataset) == ("attention-cbam-demo", "synthetic")
    assert demo.options == paper.options and demo.backbone is None and "epochs" not in demo.recipe
    assert ablations.get_row("sweep-08-02").config("demo").recipe["stage1"] == {"dropout": 0.8}
    assert ablations.get_row("lapx-14").config("fast").recipe["nonlocal_gain"] == 0.4


def test_globs_select_each_row_once_in_order():
    ids = [row.id for row in ablations.matching_rows("lapx-12*, amfacpose-3,lapx-12-seed1")]
    assert ids == ["lapx-12-seed0", "lapx-12-seed1", "lapx-12-seed2", "amfacpose-3"]
    with pytest.raises(ValueError, match="unknown grid row 'lapy-3'; did you mean lapx-3"):
        ablations.matching_rows("amfacpose-3,lapy-3")
    with pytest.raises(ValueError, match="unknown grid row 'lapx'; did you mean lapx-"):
        ablations.get_row("lapx")


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"model": "lapy"}, "grid.csv, line 3: unknown model 'lapy'; did you mean lap or lapx"),
        ({"options": '{""necks"": 1}'}, "line 3: unknown option of lapx 'necks'; did you mean neck"),
        ({"changes": '{""epoch"": 1}'}, "line 3: unknown recipe field 'epoch'; did you mean epochs"),
        ({"changes": '{""epochs"": }'}, "line 3: Expecting value"),
        ({"model": "lap"}, "line 3: no paper's recipe for lap on mpii"),
        ({"n": 1}, "line 3: duplicate id 'lapx-1'"),
    ],
    ids=str,
)
def test_invalid_line_is_reported_with_number(wrong, message, tmp_path):
    right = {"n": 1, "model": "lapx", "options": "{}", "changes": "{}"}
    path = tmp_path / "grid.csv"
    path.write_text(HEADER + LINE.format(**right) + LINE.format(**right | {"n": 2} | wrong))
    with pytest.raises(ValueError, match=message):
        ablations.rows(path)


def test_command_line_trains_grid_row(monkeypatch, tmp_path):
    asked = []

    def train(config):
        """Stand-in for trainer.train."""
        asked.append(config)
        return {}

    monkeypatch.setattr(trainer, "train", train)
    cli.main(["train", "--grid", "lapx-11", "--profile", "paper", "--device", "cuda", "--workers", "3"])
    (config,) = asked
    assert (config.name, config.model, config.dataset, config.seed) == ("lapx-11", "lapx", "mpii", 0)
    assert config.recipe == {"nonlocal_gain": 0.1} and (config.device, config.workers) == ("cuda", 3)


@pytest.fixture(scope="module")
def image_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("grid") / "noise.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("id", ablations.rows())
def test_every_row_trains_one_step(id, image_path):
    """One step at a small input size, with the skeleton, loss, optimizer and augmentation of the row."""
    row = ablations.get_row(id)
    skeleton = skeletons.get("mpii" if row.dataset == "mpii" else "coco")
    joints = np.random.default_rng(1).uniform(8, 56, (len(skeleton.keypoints), 3))
    persons = tuple(Person(image_path, 1, n, (4, 4, 56, 56), 3136.0, joints) for n in range(4))
    instances = PoseDataset(row.dataset, "train", skeleton, "", persons, image_path)
    recipe = recipes.get(
        "paper", row.model, row.dataset, **row.changes | {"input_size": [64, 64], "batch_size": 4}
    )
    recipe = dataclasses.replace(recipe, warmup_steps=0)
    dataset, config = data.TrainDataset(instances, recipe, row.seed), runtime.RuntimeConfig("cpu")
    batch = next(iter(loop.batch_iterator(dataset, 0, config)))
    model = models.build(row.model, skeleton, (64, 64), **row.options)
    adam = loop.make_optimizer(model, recipe)
    for group in adam.param_groups:
        group["lr"] = 1e-3
    run = checkpoints.TrainState(model, model, adam, torch.amp.GradScaler(enabled=False), {})
    before = [parameter.detach().clone() for parameter in model.parameters()]
    loss, _ = loop.train_step(run, loop.wrap_model(run, recipe, 20, config), batch, 4, recipe, config, 1)
    assert loss > 0 and loss.isfinite()
    moved = [not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)
