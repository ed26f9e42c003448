"""The small StarPose and its plain rival: the same samples, a loss that reaches everything, a record."""

import json

import pytest
import torch

from posebook import paths, records
from posebook.lifting import diffusion, starpose, synthetic_motion
from posebook.lifting.clips import clip_targets
from posebook.lifting.starpose import FRAMES, RECIPE, RayWindows
from posebook.utils import sha256

TOLD, UNTOLD = 0, 1  # seeds of the coin


@pytest.fixture(scope="module")
def clips():
    return synthetic_motion.load_split("train", 2, 2 * FRAMES, fps=25)


def batch(clips) -> list[torch.Tensor]:
    samples = RayWindows(clips, RECIPE, 0)
    return [torch.stack(part) for part in zip(*(samples[0, i] for i in range(len(samples))), strict=True)]


def test_a_mirrored_sample_is_seen_along_mirrored_rays():
    exact = synthetic_motion.make_clips(1, 2 * FRAMES, noise=0.0, fps=25)
    _, y, _, seen = batch(exact)
    assert len(y) == 2
    assert not torch.allclose(seen[0], seen[1])
    # float32, at some meters
    assert (diffusion.energy_terms(y, seen)["reprojection"] < 1e-8).all()


def test_both_nets_are_of_one_size_but_for_what_makes_a_denoiser():
    sizes = [
        sum(p.numel() for p in net.parameters())
        for net in (starpose.build_plain_lifter(), starpose.build_starpose().lifter)
    ]
    assert sizes[1] - sizes[0] == (3 + starpose.WIDTH) * starpose.WIDTH


def test_the_plain_loss_takes_both_windows_each_by_itself(clips):
    x, y, counted, seen = batch(clips)
    halves = y.unflatten(1, (2, FRAMES)).flatten(0, 1)  # (2 B, F, J, 3)
    assert starpose.lifter_loss(lambda _: halves, [x, y, counted, seen], RECIPE).item() == 0
    aside = halves + torch.tensor([0.0, 0.3, 0.4])
    assert starpose.lifter_loss(lambda _: aside, [x, y, counted, seen], RECIPE).item() == pytest.approx(0.5)


def test_the_loss_of_starpose_reaches_the_history_and_everything_else(clips):
    torch.manual_seed(TOLD)
    net = starpose.build_starpose()
    torch.manual_seed(TOLD)
    loss = starpose.starpose_loss(net, batch(clips), RECIPE)
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.any() for parameter in net.parameters())


def test_the_second_window_is_told_what_was_answered_for_the_first(clips):
    x, y, counted, seen = batch(clips)
    told, times = [], []

    def net(given, t, past):
        told.append(past)
        times.append(t)
        return torch.full((*given.shape[:-1], 3), float(len(told)))

    torch.manual_seed(TOLD)
    starpose.starpose_loss(net, [x, y, counted, seen], RECIPE)
    assert told[0] is None
    assert (times[0] == 1).all()  # an answer that has seen nothing of the truth
    assert (times[1] < 1).all()
    assert torch.equal(told[1][0], x[:, FRAMES - starpose.PAST : FRAMES])
    assert torch.equal(told[1][1], torch.ones(len(x), starpose.PAST, 17, 3))
    told.clear()
    torch.manual_seed(UNTOLD)
    starpose.starpose_loss(net, [x, y, counted, seen], RECIPE)
    assert told == [None, None]


def test_weights_come_back_as_they_were_but_for_halves(tmp_path):
    torch.manual_seed(0)
    net = starpose.build_starpose().eval()
    starpose.save_starpose(net, tmp_path / "weights.safetensors")
    again = starpose.load_starpose(tmp_path / "weights.safetensors")
    x, t = torch.randn(1, FRAMES, 17, 5), torch.ones(1)
    with torch.no_grad():
        assert torch.allclose(net(x, t), again(x, t), atol=0.02)
    assert (tmp_path / "weights.safetensors").stat().st_size < 300_000


def test_a_plain_lifter_answers_every_frame_once(clips):
    x, _, _ = starpose.stack_clips(clips)
    net = starpose.build_plain_lifter().eval()
    with torch.no_grad():
        answer = starpose.lift_windows(net, x[:, : 2 * FRAMES - 5])
        first, last = net(x[:, :FRAMES]), net(x[:, FRAMES - 5 : 2 * FRAMES - 5])
    assert torch.allclose(answer[:, :FRAMES, 1:], first[:, :, 1:])
    assert torch.allclose(answer[:, FRAMES:, 1:], last[:, 5:, 1:])
    assert not answer[:, :, 0].any()


def test_a_comparison_becomes_a_record(tmp_path, monkeypatch):
    monkeypatch.setattr(starpose, "TRAIN", 1)
    monkeypatch.setattr(starpose, "VAL", 1)
    record = starpose.train_and_compare(0, tmp_path, epochs=1)
    path = records.write(record, tmp_path)
    kept = json.loads(path.read_text())
    assert [row["net"] for row in kept["metrics"]] == ["plain"] * 2 + ["starpose"] * 4
    assert {(row["history"], row["guided"]) for row in kept["metrics"][2:]} == {
        (history, guided) for history in (False, True) for guided in (False, True)
    }
    for row in kept["metrics"]:
        assert row["MPJPE"] > row["P-MPJPE"] > 0
        if row["net"] == "starpose":
            assert row["best by joint"] < row["one hypothesis"]
    assert starpose.load_starpose(tmp_path / kept["weights"]["file"])


def test_the_truth_has_no_error(clips):
    y = torch.stack([clip_targets(clip) for clip in clips])
    assert all(abs(value) < 1e-2 for value in starpose.sequence_metrics(y, y).values())


def test_the_shipped_weights_are_those_of_the_kept_record_and_better_than_a_mean_pose():
    path = paths.ROOT / "data/weights/starpose-motion.safetensors"
    (record,) = (r for r in records.load(records.ARCHIVE) if r["name"] == "lift-starpose-motion-seed0")
    assert sha256(path) == record["weights"]["sha256"]
    assert record["weights"]["sha256"] in path.with_suffix(".md").read_text()
    x, y, _ = starpose.stack_clips(synthetic_motion.load_split("val", 6, FRAMES, fps=25))
    net = starpose.load_starpose(path)
    answer = diffusion.lift_sequences(net, x, FRAMES, generator=torch.Generator().manual_seed(0)).mean(1)
    mean = starpose.sequence_metrics(y.mean((0, 1)).expand_as(y), y)[
        "MPJPE"
    ]  # told by these clips themselves
    assert starpose.sequence_metrics(answer, y)["MPJPE"] < mean
