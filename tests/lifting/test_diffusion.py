"""StarPose: its schedule, its sampler against a denoiser that knows the truth, its energies, its history."""

import math

import pytest
import torch

from posebook.lifting import diffusion
from posebook.lifting.diffusion import Denoiser, HistoryEncoder
from posebook.lifting.models import MixSTE
from posebook.lifting.pruning import FramePruning, UniformPruner
from posebook.lifting.skeleton import PARENTS

FRAMES = 9
# where each joint lies from its parent, meters: x right of the camera, y down
OFFSETS = torch.tensor([
    [0, 0, 0], [-0.13, 0, 0], [0, 0.44, 0.05], [0, 0.44, -0.05], [0.13, 0, 0], [0, 0.44, 0.05],
    [0, 0.44, -0.05], [0, -0.23, 0], [0, -0.25, 0], [0, -0.1, 0.05], [0, -0.11, 0], [0.15, 0, 0],
    [0.05, 0.28, 0], [0, 0.25, 0.05], [-0.15, 0, 0], [-0.05, 0.28, 0], [0, 0.25, 0.05],
])  # fmt: skip
ROOT = torch.tensor([0.3, -0.1, 4.0])


def turning(frames: int = FRAMES, turn: float = 0.1) -> torch.Tensor:
    """A body of equal sides that turns about its hip without bending: (1, F, 17, 3)."""
    joints = []
    for offset, parent in zip(OFFSETS, PARENTS, strict=True):
        joints.append(offset if parent < 0 else joints[parent] + offset)
    angles = turn * torch.arange(frames)
    c, s, o, e = angles.cos(), angles.sin(), torch.zeros(frames), torch.ones(frames)
    rotations = torch.stack([c, o, s, o, e, o, -s, o, c], -1).view(frames, 3, 3)
    return (torch.stack(joints) @ rotations.transpose(1, 2))[None]


def seen(pose: torch.Tensor, root: torch.Tensor = ROOT) -> torch.Tensor:
    """Its rays x/z, y/z, (..., J, 2)."""
    return (pose + root)[..., :2] / (pose + root)[..., 2:]


def small(history: bool = True, **options) -> Denoiser:
    lifter = MixSTE(FRAMES, channels=5 + 8, width=8, depth=2, heads=2, drop_path=0.0)
    return Denoiser(lifter, HistoryEncoder(4, 8, heads=2) if history else None, **options)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Knows:
    """A denoiser that has the truth, whatever it is given; remembers with what it was asked."""

    history = HistoryEncoder(4, 8, heads=2)

    def __init__(self, truth):
        self.truth, self.asked = truth, []

    def __call__(self, x, t, past=None):
        self.asked.append((x, t, past))
        return self.truth.expand(len(x), -1, -1, -1)


def test_the_schedule_falls_from_the_pose_to_noise_alone():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    share = diffusion.alpha_bar(t)
    assert share[0] == 1
    assert share[-1] < 1e-12
    assert (share.diff() < 0).all()
    # the cosine of Nichol & Dhariwal, equation 17
    assert share[50].item() == pytest.approx(
        (math.cos(0.508 / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2
    )


def test_noise_is_added_at_a_poses_own_size():
    pose, noise = turning(), torch.randn(1, FRAMES, 17, 3)
    assert torch.equal(diffusion.add_noise(pose, torch.zeros(1), noise), pose)
    assert torch.allclose(diffusion.add_noise(pose, torch.ones(1), noise), 0.3 * noise, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_step_back_keeps_the_variance_that_diffusion_has_there(eta):
    clean, t, to = torch.zeros(1, 200, 17, 3), torch.tensor(0.8), torch.tensor(0.4)
    noisy = diffusion.add_noise(clean, t[None], torch.randn(clean.shape))
    back = diffusion.ddim_step(noisy, clean, t, to, eta, torch.randn(clean.shape))
    assert back.std().item() == pytest.approx(0.3 * (1 - diffusion.alpha_bar(to)).sqrt().item(), rel=0.03)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_denoiser_that_knows_the_truth_is_believed(steps):
    truth = turning()
    *_, (_, _, clean) = diffusion.ddim_sample(Knows(truth), seen(truth), steps=steps, generator=rng())
    assert torch.equal(clean, truth)


def test_the_last_noisy_poses_are_nearly_the_truth():
    truth, net = turning(), Knows(turning())
    noisy = [noisy for _, noisy, _ in diffusion.ddim_sample(net, seen(truth), steps=20, generator=rng())]
    off = [(x - truth).norm(dim=-1).mean() for x in noisy]
    assert off[-1] < 0.1 * off[0]


def test_a_body_that_neither_bends_nor_stretches_has_no_energy_but_its_speed():
    pose = turning()
    found = diffusion.energy_terms(pose, seen(pose))
    for name in ("reprojection", "symmetry", "lengths"):
        assert found[name].item() == pytest.approx(0, abs=1e-10), name
    assert found["speed"] > 0
    still = turning(turn=0.0)
    assert diffusion.energy(still, seen(still)).item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(
    ("name", "joint", "frames", "move"),
    [
        ("reprojection", 3, slice(None), (0.1, 0.0, 0.0)),  # an ankle aside
        ("symmetry", 13, slice(None), (0.0, 0.1, 0.0)),  # one forearm longer
        ("lengths", 10, slice(0, 4), (0.0, -0.1, 0.0)),  # a head that grows
        ("speed", 10, slice(2, 3), (0.0, 0.0, 0.1)),
    ],
)
def test_each_energy_sees_what_it_is_for(name, joint, frames, move):
    pose = turning()
    bent = pose.clone()
    bent[:, frames, joint] += torch.tensor(move)
    before, after = diffusion.energy_terms(pose, seen(pose)), diffusion.energy_terms(bent, seen(pose))
    assert after[name] > before[name] + 1e-4


def test_energies_are_each_sequences_own():
    pose = torch.cat([turning(), turning() + 0.05 * torch.randn(1, FRAMES, 17, 3)])
    together = diffusion.energy(pose, seen(pose))
    assert together.shape == (2,)
    for i in range(2):
        assert torch.allclose(together[i : i + 1], diffusion.energy(pose[i : i + 1], seen(pose[i : i + 1])))


def test_guidance_lowers_its_own_energy_round_by_round():
    truth = turning()
    pose = truth + 0.05 * torch.randn(4, FRAMES, 17, 3)
    pose[..., 0, :] = 0
    values = [diffusion.energy(pose, seen(truth).expand(4, -1, -1, -1))]
    for _ in range(5):
        pose = diffusion.energy_guidance(pose, seen(truth).expand(4, -1, -1, -1))
        values.append(diffusion.energy(pose, seen(truth).expand(4, -1, -1, -1)))
    assert (torch.stack(values).diff(dim=0) < 0).all()
    assert values[-1].max() < 0.5 * values[0].min()
    assert not pose[..., 0, :].any()
    assert not pose.requires_grad


def test_guidance_leaves_a_plausible_pose_where_it_is():
    still = turning(turn=0.0)
    assert torch.allclose(diffusion.energy_guidance(still, seen(still)), still, atol=1e-6)


def test_where_the_person_stands_is_solved_for_and_never_told():
    pose, net = turning(), small()
    # seen alike from twice as far, twice as large: nothing the sampler is given can tell
    near, far = seen(pose, ROOT), seen(2 * pose, 2 * ROOT)
    answers = [
        diffusion.lift_sequences(net, rays, FRAMES, rays=rays, hypotheses=2, generator=rng())
        for rays in (near, far)
    ]
    assert torch.allclose(*answers, atol=1e-5)
    assert diffusion.energy_terms(2 * pose, near)["reprojection"].item() == pytest.approx(0, abs=1e-9)


def test_the_same_seed_has_the_same_answer_and_another_seed_another():
    x, net = seen(turning(2 * FRAMES)), small().eval()
    first, again, other = (
        diffusion.lift_sequences(net, x, FRAMES, generator=rng(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_hypotheses_differ_where_there_is_noise_and_agree_where_there_is_none(monkeypatch):
    x, net = seen(turning()), small().eval()
    answers = diffusion.lift_sequences(net, x, FRAMES, hypotheses=3, eta=0.0, generator=rng())[0]
    assert not torch.allclose(answers[0], answers[1])  # they set out from different noise
    monkeypatch.setattr(diffusion, "SPREAD", 0.0)
    answers = diffusion.lift_sequences(net, x, FRAMES, hypotheses=3, generator=rng())[0]
    assert torch.allclose(answers[0], answers[1])


def test_fresh_noise_changes_the_way_and_not_the_start():
    x, net = seen(turning()), small().eval()
    plain, drawn = (list(diffusion.ddim_sample(net, x, eta=eta, generator=rng())) for eta in (0.0, 1.0))
    assert torch.equal(plain[0][1], drawn[0][1])
    assert not torch.allclose(plain[1][1], drawn[1][1])


def test_a_history_shifts_the_answer():
    truth = turning()
    x, net, t = seen(truth), small().eval(), torch.ones(1)
    noisy = torch.cat([x, torch.randn(truth.shape)], -1)
    past = x[:, :4], truth[:, :4]
    alone, told = net(noisy, t), net(noisy, t, past)
    assert not torch.allclose(alone, told)
    assert not torch.allclose(told, net(noisy, t, (past[0], past[1] + 0.1)))  # by what was answered
    assert not torch.allclose(told, net(noisy, t, (past[0] + 0.1, past[1])))  # and by what was seen


def test_the_history_is_what_was_answered_just_before():
    truth, x = turning(), seen(turning(24))
    net = Knows(truth)
    answers = diffusion.lift_sequences(net, x, FRAMES, hypotheses=2, steps=1, generator=rng())
    assert answers.shape == (1, 2, 24, 17, 3)
    starts = [0, 9, 15]  # the last window is moved back
    for start, (given, t, past) in zip(starts, net.asked, strict=True):
        assert torch.equal(given[..., :2], x[:, start : start + FRAMES].expand(2, -1, -1, -1))
        assert t.tolist() == [1, 1]
        if start == 0:
            assert past is None
        else:
            assert torch.equal(past[0], x[:, start - 4 : start].expand(2, -1, -1, -1))
            assert torch.equal(past[1], answers[:, :, start - 4 : start].mean(1).expand(2, -1, -1, -1))
    # the frames that the moved window shares with the one before stay as they were
    assert torch.equal(answers[0, 0, 15:18], truth[0, 6:9])
    assert torch.equal(answers[0, 0, 18:], truth[0, 3:9])


def test_without_history_each_window_stands_alone():
    net = Knows(turning())
    diffusion.lift_sequences(net, seen(turning(18)), FRAMES, history=False, steps=1, generator=rng())
    assert [past for _, _, past in net.asked] == [None, None]
    alone = diffusion.lift_sequences(small(history=False).eval(), seen(turning(18)), FRAMES, generator=rng())
    assert alone.isfinite().all()


def test_the_hip_stays_at_nought():
    x = seen(turning())
    for rays in (None, x):
        assert not diffusion.lift_sequences(small(), x, FRAMES, rays=rays, generator=rng())[..., 0, :].any()


def test_all_of_the_denoiser_learns():
    truth, net = turning(), small()
    noisy = diffusion.add_noise(truth, torch.full((1,), 0.5), torch.randn(truth.shape))
    past = seen(truth)[:, :4], truth[:, :4]
    answer = net(torch.cat([seen(truth), noisy], -1), torch.full((1,), 0.5), past)
    assert answer.shape == truth.shape
    (answer - truth).norm(dim=-1).mean().backward()
    silent = [
        name
        for name, parameter in net.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert silent == []


def test_the_energy_can_be_a_loss_of_the_net():
    truth, net = turning(), small()
    answer = net(torch.cat([seen(truth), truth], -1), torch.full((1,), 0.5))
    diffusion.energy(answer, seen(truth)).mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.lifter.parameters())


def test_an_hourglass_of_frames_samples_too():
    lifter = FramePruning(MixSTE(FRAMES, channels=5 + 8, width=8, depth=2, heads=2), {1: UniformPruner(3)})
    answers = diffusion.lift_sequences(
        Denoiser(lifter, HistoryEncoder(4, 8, heads=2)).eval(), seen(turning(18)), FRAMES, generator=rng()
    )
    assert answers.shape == (1, 5, 18, 17, 3)
