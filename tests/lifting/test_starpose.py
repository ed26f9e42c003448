"""The comparison of a small StarPose with a plain lifter: samples, losses, weights and record."""

import json

import numpy as np
import pytest
import torch

from helpers import ROOT
from posebook import paths, records
from posebook.lifting import diffusion, starpose, synthetic_motion
from posebook.lifting.clips import clip_targets
from posebook.lifting.starpose import FRAMES, RECIPE, RayWindows
from posebook.utils import sha256

GOLDEN = ROOT / "tests" / "parity" / "lifting" / "starpose-motion.golden.npz"
HISTORY_SEED, NO_HISTORY_SEED = 0, 1  # the loss draws a history with the first seed only


@pytest.fixture(scope="module")
def clips():
    return synthetic_motion.load_split("train", 2, 2 * FRAMES, fps=25)


def batch(clips) -> list[torch.Tensor]:
    samples = RayWindows(clips, RECIPE, 0)
    return [torch.stack(part) for part in zip(*(samples[0, i] for i in range(len(samples))), strict=True)]


def test_mirrored_samples_have_mirrored_rays():
    exact = synthetic_motion.make_clips(1, 2 * FRAMES, noise=0.0, fps=25)
    _, y, _, rays = batch(exact)
    assert len(y) == 2
    assert not torch.allclose(rays[0], rays[1])
    # limited by float32 at distances of several meters
    assert (diffusion.energy_terms(y, rays)["reprojection"] < 1e-8).all()


def test_both_models_differ_only_in_the_input_projection():
    sizes = [
        sum(p.numel() for p in model.parameters())
        for model in (starpose.build_plain_lifter(), starpose.build_starpose().lifter)
    ]
    assert sizes[1] - sizes[0] == (3 + starpose.WIDTH) * starpose.WIDTH


def test_the_plain_loss_treats_both_windows_separately(clips):
    x, y, mask, rays = batch(clips)
    halves = y.unflatten(1, (2, FRAMES)).flatten(0, 1)  # (2 B, F, J, 3)
    assert starpose.lifter_loss(lambda _: halves, [x, y, mask, rays], RECIPE).item() == 0
    aside = halves + torch.tensor([0.0, 0.3, 0.4])
    assert starpose.lifter_loss(lambda _: aside, [x, y, mask, rays], RECIPE).item() == pytest.approx(0.5)


def test_starpose_loss_gives_all_parameters_gradients(clips):
    torch.manual_seed(HISTORY_SEED)
    model = starpose.build_starpose()
    torch.manual_seed(HISTORY_SEED)
    loss = starpose.starpose_loss(model, batch(clips), RECIPE)
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_the_history_is_the_prediction_of_the_first_window(clips):
    x, y, mask, rays = batch(clips)
    histories, times = [], []

    def model(inputs, t, past):
        histories.append(past)
        times.append(t)
        return torch.full((*inputs.shape[:-1], 3), float(len(histories)))

    torch.manual_seed(HISTORY_SEED)
    starpose.starpose_loss(model, [x, y, mask, rays], RECIPE)
    assert histories[0] is None
    assert (times[0] == 1).all()  # predicted from pure noise, without the truth
    assert (times[1] < 1).all()
    assert torch.equal(histories[1][0], x[:, FRAMES - starpose.PAST : FRAMES])
    assert torch.equal(histories[1][1], torch.ones(len(x), starpose.PAST, 17, 3))
    histories.clear()
    torch.manual_seed(NO_HISTORY_SEED)
    starpose.starpose_loss(model, [x, y, mask, rays], RECIPE)
    assert histories == [None, None]


def test_weights_round_trip_in_half_precision(tmp_path):
    torch.manual_seed(0)
    model = starpose.build_starpose().eval()
    starpose.save_starpose(model, tmp_path / "weights.safetensors")
    again = starpose.load_starpose(tmp_path / "weights.safetensors")
    x, t = torch.randn(1, FRAMES, 17, 5), torch.ones(1)
    with torch.no_grad():
        assert torch.allclose(model(x, t), again(x, t), atol=0.02)
    assert (tmp_path / "weights.safetensors").stat().st_size < 300_000


def test_the_plain_lifter_predicts_each_frame_once(clips):
    x, _, _ = starpose.stack_clips(clips)
    model = starpose.build_plain_lifter().eval()
    with torch.no_grad():
        predicted = starpose.lift_windows(model, x[:, : 2 * FRAMES - 5])
        first, last = model(x[:, :FRAMES]), model(x[:, FRAMES - 5 : 2 * FRAMES - 5])
    assert torch.allclose(predicted[:, :FRAMES, 1:], first[:, :, 1:])
    assert torch.allclose(predicted[:, FRAMES:, 1:], last[:, 5:, 1:])
    assert not predicted[:, :, 0].any()


def test_the_comparison_writes_a_record(tmp_path, monkeypatch):
    monkeypatch.setattr(starpose, "TRAIN", 1)
    monkeypatch.setattr(starpose, "VAL", 1)
    record = starpose.train_and_compare(0, tmp_path, epochs=1)
    path = records.write(record, tmp_path)
    stored = json.loads(path.read_text())
    assert [row["net"] for row in stored["metrics"]] == ["plain"] * 2 + ["starpose"] * 4
    assert {(row["history"], row["guided"]) for row in stored["metrics"][2:]} == {
        (history, guided) for history in (False, True) for guided in (False, True)
    }
    for row in stored["metrics"]:
        assert row["MPJPE"] > row["P-MPJPE"] > 0
        if row["net"] == "starpose":
            assert row["best by joint"] < row["one hypothesis"]
    assert starpose.load_starpose(tmp_path / stored["weights"]["file"])


def test_ground_truth_has_no_error(clips):
    y = torch.stack([clip_targets(clip) for clip in clips])
    assert all(abs(value) < 1e-2 for value in starpose.sequence_metrics(y, y).values())


def test_shipped_weights_give_the_stored_outputs():
    """With other time embeddings or links, the weights would still load and the poses look plausible."""
    golden = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN).items()}
    model = starpose.load_starpose(paths.ROOT / "data/weights/starpose-motion.safetensors").eval()
    with torch.no_grad():
        plain = model(golden["x"], golden["t"])
        history = model(golden["x"], golden["t"], (golden["past2d"], golden["past3d"]))
    torch.testing.assert_close(plain, golden["plain"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(history, golden["history"], atol=1e-4, rtol=1e-4)


def test_shipped_weights_match_the_archived_record_and_beat_a_mean_pose():
    path = paths.ROOT / "data/weights/starpose-motion.safetensors"
    (record,) = (r for r in records.load(records.ARCHIVE) if r["name"] == "lift-starpose-motion-seed0")
    assert sha256(path) == record["weights"]["sha256"]
    assert record["weights"]["sha256"] in path.with_suffix(".md").read_text()
    x, y, _ = starpose.stack_clips(synthetic_motion.load_split("val", 6, FRAMES, fps=25))
    model = starpose.load_starpose(path)
    predicted = diffusion.lift_sequences(model, x, FRAMES, generator=torch.Generator().manual_seed(0)).mean(1)
    mean = starpose.sequence_metrics(y.mean((0, 1)).expand_as(y), y)[
        "MPJPE"
    ]  # the mean pose of the same clips
    assert starpose.sequence_metrics(predicted, y)["MPJPE"] < mean
