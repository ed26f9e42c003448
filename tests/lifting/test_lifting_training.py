"""Skeleton, camera, metrics, losses, recipes and training of lifters."""

import dataclasses
import re

import cv2
import numpy as np
import pytest
import torch
from lifting_helpers import SMALL

from helpers import ROOT
from posebook import skeletons, utils
from posebook.lifting import (
    camera,
    clips,
    metrics,
    models,
    recipes,
    skeleton,
    synthetic_motion,
    training,
    weights_io,
)


def test_coco_joints_are_converted_to_human36m():
    coco = np.zeros((17, 2))
    names = skeletons.get("coco").keypoints
    for name, place in {"left_hip": (-1, 0), "right_hip": (1, 0), "left_shoulder": (-2, -4)}.items():
        coco[names.index(name)] = place
    coco[names.index("right_shoulder")], coco[names.index("nose")] = (2, -4), (0, -6)
    coco[names.index("left_eye")] = coco[names.index("right_eye")] = (0, -6.5)
    result = dict(zip(skeleton.H36M.keypoints, skeleton.from_coco(coco).tolist(), strict=True))
    assert result["hip"] == [0, 0] and result["thorax"] == [0, -4] and result["spine"] == [0, -2]
    assert result["nose"] == [0, -6] and result["head"] == [0, -7.5] and result["left_hip"] == [-1, 0]


def test_a_mirror_is_its_own_inverse(clip):
    x = clips.clip_inputs(clip, 3)
    assert torch.equal(skeleton.mirror(skeleton.mirror(x)), x)
    left, right = skeleton.H36M.keypoints.index("left_wrist"), skeleton.H36M.keypoints.index("right_wrist")
    assert skeleton.mirror(x)[0, left].tolist() == [-x[0, right, 0], *x[0, right, 1:].tolist()]


def test_projection_matches_opencv():
    points = np.random.default_rng(0).uniform(-1, 1, (20, 3)) + [0, 0, 4]
    radial, tangential = (-0.2, 0.25, -0.009), (-0.0009, -0.0014)
    view = camera.Camera(
        np.eye(3),
        np.zeros(3),
        (1000, 1000),
        np.array([1145.0, 1143]),
        np.array([512.0, 515]),
        radial,
        tangential,
    )
    matrix = np.array([[1145.0, 0, 512], [0, 1143, 515], [0, 0, 1]])
    bend = np.array([*radial[:2], *tangential, radial[2]])
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix, bend)[0][:, 0]
    assert np.allclose(view.project(points), expected)
    with pytest.raises(ValueError, match="this camera has no intrinsics"):
        dataclasses.replace(view, focal=None).project(points)


def test_the_root_position_is_recovered(clip):
    pose = torch.as_tensor(clip.pose - clip.pose[:, :1])
    rays = torch.as_tensor(clip.camera.rays(clip.camera.project(clip.pose)))
    result = camera.solve_root(pose, rays)
    assert torch.allclose(result, torch.as_tensor(clip.pose[:, 0]), atol=1e-6)


def turned(pose: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """A pose after a random similarity transform."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    q *= np.sign(np.linalg.det(q))
    return 1.7 * pose @ torch.as_tensor(q, dtype=pose.dtype) + torch.as_tensor(rng.standard_normal(3))


def test_metrics_match_loops():
    torch.manual_seed(0)
    result, truth = torch.randn(2, 6, 17, 3, dtype=torch.double)
    for frame in range(6):
        errors = [float((result[frame, j] - truth[frame, j]).norm()) for j in range(17)]
        assert float(metrics.mpjpe(result, truth)[frame]) == pytest.approx(1000 * np.mean(errors))
    step = [
        np.mean(
            [float(((result[3, j] - result[2, j]) - (truth[3, j] - truth[2, j])).norm()) for j in range(17)]
        )
    ]
    assert float(metrics.mpjve(result, truth)[2]) == pytest.approx(1000 * step[0])
    bent = result[4] - 2 * result[3] + result[2] - (truth[4] - 2 * truth[3] + truth[2])
    assert float(metrics.acceleration_error(result, truth)[2]) == pytest.approx(
        1000 * float(bent.norm(dim=-1).mean())
    )


def test_alignment_allows_similarities_but_no_reflections():
    torch.manual_seed(0)
    truth = torch.randn(5, 17, 3, dtype=torch.double)
    assert metrics.p_mpjpe(turned(truth), truth).max() < 1e-6
    assert torch.allclose(metrics.p_mpjpe(turned(truth), truth * 2), torch.zeros(5).double(), atol=1e-6)
    assert metrics.p_mpjpe(truth * torch.tensor([-1.0, 1, 1]), truth).min() > 100
    result = truth + 0.1 * torch.randn_like(truth)
    best = metrics.p_mpjpe(result, truth)
    assert (best <= metrics.mpjpe(result - result.mean(1, True), truth - truth.mean(1, True)) * 1.2).all()
    assert torch.allclose(metrics.p_mpjpe(turned(result, 3), truth), best)


def test_errors_are_averaged_over_actions():
    truth = [torch.zeros(4, 17, 3), torch.zeros(8, 17, 3), torch.zeros(4, 17, 3)]
    result = [truth[0] + 1.0, truth[1] + 1.0, truth[2]]
    means, own = metrics.measure(result, truth, ["walk", "walk", "sit"])
    assert own["walk"]["MPJPE"] == pytest.approx(1000 * 3**0.5) and own["sit"]["MPJPE"] == 0
    assert means["MPJPE"] == pytest.approx(own["walk"]["MPJPE"] / 2)


def test_frames_without_ground_truth_are_ignored():
    truth, result = torch.zeros(7, 17, 3), torch.randn(7, 17, 3)
    truth[3] = torch.nan
    means, _ = metrics.measure([result], [truth], ["all"])
    known = [0, 1, 2, 4, 5, 6]
    assert means["MPJPE"] == pytest.approx(float(metrics.mpjpe(result[known], truth[known]).mean()), rel=1e-5)
    steps = metrics.mpjve(result, torch.zeros(7, 17, 3))[[0, 1, 4, 5]]
    assert means["MPJVE"] == pytest.approx(float(steps.mean()), rel=1e-5)
    bends = metrics.acceleration_error(result, torch.zeros(7, 17, 3))[[0, 4]]
    assert means["ACC"] == pytest.approx(float(bends.mean()), rel=1e-5)


def test_the_loss_matches_a_loop_and_ignores_masked_frames():
    torch.manual_seed(0)
    result, truth = torch.randn(2, 1, 5, 17, 3)
    mask = torch.tensor([[False, True, True, True, False]])
    recipe = recipes.get("demo", "mixste", scale=0.5)
    w, place, smooth, velocity, scaled = recipe.joints, [], [], [], []
    for f in (1, 2, 3):
        best = (result[0, f] * truth[0, f]).sum() / result[0, f].square().sum()
        for j in range(17):
            moved, true = result[0, f, j] - result[0, f - 1, j], truth[0, f, j] - truth[0, f - 1, j]
            place.append(w[j] * (result[0, f, j] - truth[0, f, j]).norm())
            smooth.append(w[j] * moved.square().mean())
            velocity.append((moved - true).norm())
            scaled.append((best * result[0, f, j] - truth[0, f, j]).norm())
    parts = [torch.stack(part).mean() for part in (place, smooth, velocity, scaled)]
    expected = parts[0] + 0.5 * parts[1] + 2 * parts[2] + 0.5 * parts[3]
    assert float(training.lifting_loss(result, truth, mask, recipe)) == pytest.approx(
        float(expected), rel=1e-5
    )
    other = result.clone()
    other[:, 4] += 9.0
    assert training.lifting_loss(other, truth, mask, recipe) == training.lifting_loss(
        result, truth, mask, recipe
    )


def test_squaring_scales_the_gradient_by_the_loss():
    """The authors' loss.backward(loss.detach()) gives the gradient of half the squared loss."""
    x = torch.randn(1, 4, 17, 3, requires_grad=True)
    truth, mask = torch.randn(1, 4, 17, 3), torch.ones(1, 4, dtype=torch.bool)
    plain, squared = recipes.get("demo", "mixste"), recipes.get("demo", "mixste", squared=True)
    value = training.lifting_loss(x, truth, mask, plain)
    value.backward(value.detach())
    theirs = x.grad.clone()
    x.grad = None
    training.lifting_loss(x, truth, mask, squared).backward()
    assert torch.allclose(x.grad, theirs, atol=1e-6)


def test_lifted_frames_keep_their_order(clip):
    """A lifter that returns its input reproduces the clip, with and without flip test."""

    class Same(models.Lifter):
        def __init__(self):
            super().__init__(frames=9, channels=2, width=1, depth=0)
            self.one = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            return torch.cat([x, x[..., :1].abs()], -1) * self.one

    x = clips.clip_inputs(clip)
    for flip in (False, True):
        result = training.lift_sequence(Same(), x, flip)
        assert result.shape == (len(x), 17, 3) and torch.allclose(result[..., :2], x - x[:, :1], atol=1e-6)


def test_paper_recipes_match_the_released_code():
    assert (
        recipes.get("paper", "mixste").learning_rate == 4e-5
        and recipes.get("paper", "mixste").batch_size == 4
    )
    assert recipes.get("paper", "ktpformer").epochs == 200 and recipes.get("paper", "ktpformer").squared
    rates = [1e-5 * 0.99**epoch for epoch in range(3)]
    recipe = recipes.get("paper", "mixste", learning_rate=1e-5)
    from posebook.training import optimizer

    result = [optimizer.lr_at_step(epoch * 10, 1600, recipe) for epoch in range(3)]
    assert result == pytest.approx(rates)
    with pytest.raises(ValueError, match="unknown recipe field 'epoch'; did you mean epochs"):
        recipes.get("demo", "mixste", epoch=3)
    with pytest.raises(ValueError, match="unknown profile 'papers'; did you mean paper"):
        recipes.get("papers", "mixste")


def test_training_writes_a_record_and_resumes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "SYNTHETIC_CLIPS", {"train": 3, "val": 2})
    some = {"epochs": 2, "batch_size": 8, "frames": 27, "evaluate_every": 1}
    record = training.train_lifter(
        profile="demo", out_dir=tmp_path, prune={1: ("uniform", 9)}, options=SMALL, **some
    )
    assert record["kind"] == "lift" and [point["epoch"] for point in record["curve"]] == [1, 2]
    assert record["metrics"].keys() == metrics.METRICS.keys() and record["evaluated"]["clips"] == 2
    assert record["complexity"]["flops"] > 0 and record["evaluated"]["frames"] == 486
    capsys.readouterr()
    again = training.train_lifter(
        profile="demo", out_dir=tmp_path, prune={1: ("uniform", 9)}, options=SMALL, **some
    )
    assert "resuming from step" in capsys.readouterr().out
    assert again["weights"]["sha256"] == record["weights"]["sha256"]
    assert again["metrics"] == record["metrics"]


def test_training_refuses_unknown_names_before_any_work(tmp_path):
    for arguments, message in (
        ({"lifter": "mixte"}, "unknown lifter 'mixte'"),
        ({"dataset": "human"}, "unknown dataset 'human'"),
        ({"profile": "quick"}, "unknown profile 'quick'"),
        ({"recover": "keep"}, "predicts only the kept frames"),
    ):
        with pytest.raises(ValueError, match=message):
            training.train_lifter(**arguments, out_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "path", sorted((ROOT / "data" / "weights").glob("lifter-*.safetensors")), ids=lambda path: path.stem
)
def test_shipped_lifters_match_their_cards(path):
    """Within 20%, because only four of the forty clips are used."""
    card = path.with_suffix(".md").read_text()
    assert utils.sha256(path) in card
    stated = float(re.search(r"\| MPJPE \| ([\d.]+)", card)[1])
    model = weights_io.load_weights(path)
    result = training.evaluate_lifter(model, synthetic_motion.load_split("val", 4, frames=243, fps=25.0))[0][
        "MPJPE"
    ]
    assert result == pytest.approx(stated, rel=0.2)
