"""StarPose: noise schedule, sampling with a perfect denoiser, energies and history."""

import math

import pytest
import torch

from posebook.lifting import diffusion
from posebook.lifting.diffusion import Denoiser, HistoryEncoder
from posebook.lifting.models import MixSTE
from posebook.lifting.pruning import FramePruning, UniformPruner
from posebook.lifting.skeleton import PARENTS

FRAMES = 9
# offset of each joint from its parent, meters: x right, y down
OFFSETS = torch.tensor([
    [0, 0, 0], [-0.13, 0, 0], [0, 0.44, 0.05], [0, 0.44, -0.05], [0.13, 0, 0], [0, 0.44, 0.05],
    [0, 0.44, -0.05], [0, -0.23, 0], [0, -0.25, 0], [0, -0.1, 0.05], [0, -0.11, 0], [0.15, 0, 0],
    [0.05, 0.28, 0], [0, 0.25, 0.05], [-0.15, 0, 0], [-0.05, 0.28, 0], [0, 0.25, 0.05],
])  # fmt: skip
ROOT = torch.tensor([0.3, -0.1, 4.0])


def rotating_body(frames: int = FRAMES, turn: float = 0.1) -> torch.Tensor:
    """A symmetric body that rotates about its hip without bending: (1, F, 17, 3)."""
    joints = []
    for offset, parent in zip(OFFSETS, PARENTS, strict=True):
        joints.append(offset if parent < 0 else joints[parent] + offset)
    angles = turn * torch.arange(frames)
    c, s, o, e = angles.cos(), angles.sin(), torch.zeros(frames), torch.ones(frames)
    rotations = torch.stack([c, o, s, o, e, o, -s, o, c], -1).view(frames, 3, 3)
    return (torch.stack(joints) @ rotations.transpose(1, 2))[None]


def rays_of(pose: torch.Tensor, root: torch.Tensor = ROOT) -> torch.Tensor:
    """The rays x/z, y/z, (..., J, 2), of a pose at a root position."""
    return (pose + root)[..., :2] / (pose + root)[..., 2:]


def small(history: bool = True, **options) -> Denoiser:
    lifter = MixSTE(FRAMES, channels=5 + 8, width=8, depth=2, heads=2, drop_path=0.0)
    return Denoiser(lifter, HistoryEncoder(4, 8, heads=2) if history else None, **options)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class PerfectDenoiser:
    """A perfect denoiser: it always returns the truth, and stores its arguments."""

    history = HistoryEncoder(4, 8, heads=2)

    def __init__(self, truth):
        self.truth, self.calls = truth, []

    def __call__(self, x, t, past=None):
        self.calls.append((x, t, past))
        return self.truth.expand(len(x), -1, -1, -1)


def test_the_schedule_decreases_from_the_pose_to_pure_noise():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    share = diffusion.alpha_bar(t)
    assert share[0] == 1
    assert share[-1] < 1e-12
    assert (share.diff() < 0).all()
    # the cosine schedule of Nichol & Dhariwal, equation 17
    assert share[50].item() == pytest.approx(
        (math.cos(0.508 / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2
    )


def test_noise_has_the_standard_deviation_of_poses():
    pose, noise = rotating_body(), torch.randn(1, FRAMES, 17, 3)
    assert torch.equal(diffusion.add_noise(pose, torch.zeros(1), noise), pose)
    assert torch.allclose(diffusion.add_noise(pose, torch.ones(1), noise), 0.3 * noise, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_ddim_step_gives_the_variance_of_the_target_time(eta):
    clean, t, to = torch.zeros(1, 200, 17, 3), torch.tensor(0.8), torch.tensor(0.4)
    noisy = diffusion.add_noise(clean, t[None], torch.randn(clean.shape))
    back = diffusion.ddim_step(noisy, clean, t, to, eta, torch.randn(clean.shape))
    assert back.std().item() == pytest.approx(0.3 * (1 - diffusion.alpha_bar(to)).sqrt().item(), rel=0.03)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_sampling_returns_the_prediction_of_a_perfect_denoiser(steps):
    truth = rotating_body()
    *_, (_, _, clean) = diffusion.ddim_sample(
        PerfectDenoiser(truth), rays_of(truth), steps=steps, generator=rng()
    )
    assert torch.equal(clean, truth)


def test_the_noisy_poses_approach_the_truth():
    truth, model = rotating_body(), PerfectDenoiser(rotating_body())
    noisy = [noisy for _, noisy, _ in diffusion.ddim_sample(model, rays_of(truth), steps=20, generator=rng())]
    off = [(x - truth).norm(dim=-1).mean() for x in noisy]
    assert off[-1] < 0.1 * off[0]


def test_a_rigid_body_has_no_energy_except_speed():
    pose = rotating_body()
    terms = diffusion.energy_terms(pose, rays_of(pose))
    for name in ("reprojection", "symmetry", "lengths"):
        assert terms[name].item() == pytest.approx(0, abs=1e-10), name
    assert terms["speed"] > 0
    still = rotating_body(turn=0.0)
    assert diffusion.energy(still, rays_of(still)).item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(
    ("name", "joint", "frames", "move"),
    [
        ("reprojection", 3, slice(None), (0.1, 0.0, 0.0)),  # an ankle moved sideways
        ("symmetry", 13, slice(None), (0.0, 0.1, 0.0)),  # one forearm longer
        ("lengths", 10, slice(0, 4), (0.0, -0.1, 0.0)),  # a head that grows
        ("speed", 10, slice(2, 3), (0.0, 0.0, 0.1)),
    ],
)
def test_each_energy_increases_with_its_own_error(name, joint, frames, move):
    pose = rotating_body()
    bent = pose.clone()
    bent[:, frames, joint] += torch.tensor(move)
    before, after = diffusion.energy_terms(pose, rays_of(pose)), diffusion.energy_terms(bent, rays_of(pose))
    assert after[name] > before[name] + 1e-4


def test_energies_of_a_batch_are_independent():
    pose = torch.cat([rotating_body(), rotating_body() + 0.05 * torch.randn(1, FRAMES, 17, 3)])
    together = diffusion.energy(pose, rays_of(pose))
    assert together.shape == (2,)
    for i in range(2):
        assert torch.allclose(
            together[i : i + 1], diffusion.energy(pose[i : i + 1], rays_of(pose[i : i + 1]))
        )


def test_guidance_lowers_the_energy_in_each_round():
    truth = rotating_body()
    pose = truth + 0.05 * torch.randn(4, FRAMES, 17, 3)
    pose[..., 0, :] = 0
    values = [diffusion.energy(pose, rays_of(truth).expand(4, -1, -1, -1))]
    for _ in range(5):
        pose = diffusion.energy_guidance(pose, rays_of(truth).expand(4, -1, -1, -1))
        values.append(diffusion.energy(pose, rays_of(truth).expand(4, -1, -1, -1)))
    assert (torch.stack(values).diff(dim=0) < 0).all()
    assert values[-1].max() < 0.5 * values[0].min()
    assert not pose[..., 0, :].any()
    assert not pose.requires_grad


def test_guidance_does_not_change_a_plausible_pose():
    still = rotating_body(turn=0.0)
    assert torch.allclose(diffusion.energy_guidance(still, rays_of(still)), still, atol=1e-6)


def test_the_root_position_is_solved_for():
    pose, model = rotating_body(), small()
    # at twice the distance and twice the size: the same input for the sampler
    near, far = rays_of(pose, ROOT), rays_of(2 * pose, 2 * ROOT)
    poses = [
        diffusion.lift_sequences(model, rays, FRAMES, rays=rays, hypotheses=2, generator=rng())
        for rays in (near, far)
    ]
    assert torch.allclose(*poses, atol=1e-5)
    assert diffusion.energy_terms(2 * pose, near)["reprojection"].item() == pytest.approx(0, abs=1e-9)


def test_predictions_depend_only_on_the_seed():
    x, model = rays_of(rotating_body(2 * FRAMES)), small().eval()
    first, again, other = (
        diffusion.lift_sequences(model, x, FRAMES, generator=rng(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_hypotheses_differ_only_with_noise(monkeypatch):
    x, model = rays_of(rotating_body()), small().eval()
    poses = diffusion.lift_sequences(model, x, FRAMES, hypotheses=3, eta=0.0, generator=rng())[0]
    assert not torch.allclose(poses[0], poses[1])  # they start from different noise
    monkeypatch.setattr(diffusion, "SPREAD", 0.0)
    poses = diffusion.lift_sequences(model, x, FRAMES, hypotheses=3, generator=rng())[0]
    assert torch.allclose(poses[0], poses[1])


def test_eta_changes_the_trajectory_but_not_its_start():
    x, model = rays_of(rotating_body()), small().eval()
    plain, drawn = (list(diffusion.ddim_sample(model, x, eta=eta, generator=rng())) for eta in (0.0, 1.0))
    assert torch.equal(plain[0][1], drawn[0][1])
    assert not torch.allclose(plain[1][1], drawn[1][1])


def test_the_history_changes_the_prediction():
    truth = rotating_body()
    x, model, t = rays_of(truth), small().eval(), torch.ones(1)
    noisy = torch.cat([x, torch.randn(truth.shape)], -1)
    past = x[:, :4], truth[:, :4]
    unconditioned, conditioned = model(noisy, t), model(noisy, t, past)
    assert not torch.allclose(unconditioned, conditioned)
    assert not torch.allclose(
        conditioned, model(noisy, t, (past[0], past[1] + 0.1))
    )  # depends on the 3D history
    assert not torch.allclose(conditioned, model(noisy, t, (past[0] + 0.1, past[1])))  # and on the 2D history


def test_the_history_is_the_prediction_before_the_window():
    truth, x = rotating_body(), rays_of(rotating_body(24))
    model = PerfectDenoiser(truth)
    poses = diffusion.lift_sequences(model, x, FRAMES, hypotheses=2, steps=1, generator=rng())
    assert poses.shape == (1, 2, 24, 17, 3)
    starts = [0, 9, 15]  # the last window is moved back
    for start, (x_noisy, t, past) in zip(starts, model.calls, strict=True):
        assert torch.equal(x_noisy[..., :2], x[:, start : start + FRAMES].expand(2, -1, -1, -1))
        assert t.tolist() == [1, 1]
        if start == 0:
            assert past is None
        else:
            assert torch.equal(past[0], x[:, start - 4 : start].expand(2, -1, -1, -1))
            assert torch.equal(past[1], poses[:, :, start - 4 : start].mean(1).expand(2, -1, -1, -1))
    # the moved window does not change the frames that it shares with the one before
    assert torch.equal(poses[0, 0, 15:18], truth[0, 6:9])
    assert torch.equal(poses[0, 0, 18:], truth[0, 3:9])


def test_without_history_windows_are_independent():
    model = PerfectDenoiser(rotating_body())
    diffusion.lift_sequences(
        model, rays_of(rotating_body(18)), FRAMES, history=False, steps=1, generator=rng()
    )
    assert [past for _, _, past in model.calls] == [None, None]
    unconditioned = diffusion.lift_sequences(
        small(history=False).eval(), rays_of(rotating_body(18)), FRAMES, generator=rng()
    )
    assert unconditioned.isfinite().all()


def test_the_hip_stays_at_zero():
    x = rays_of(rotating_body())
    for rays in (None, x):
        assert not diffusion.lift_sequences(small(), x, FRAMES, rays=rays, generator=rng())[..., 0, :].any()


def test_all_parameters_of_the_denoiser_get_gradients():
    truth, model = rotating_body(), small()
    noisy = diffusion.add_noise(truth, torch.full((1,), 0.5), torch.randn(truth.shape))
    past = rays_of(truth)[:, :4], truth[:, :4]
    predicted = model(torch.cat([rays_of(truth), noisy], -1), torch.full((1,), 0.5), past)
    assert predicted.shape == truth.shape
    (predicted - truth).norm(dim=-1).mean().backward()
    without_gradient = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert without_gradient == []


def test_the_energy_can_be_a_loss():
    truth, model = rotating_body(), small()
    predicted = model(torch.cat([rays_of(truth), truth], -1), torch.full((1,), 0.5))
    diffusion.energy(predicted, rays_of(truth)).mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.lifter.parameters())


def test_a_denoiser_can_prune_frames():
    lifter = FramePruning(MixSTE(FRAMES, channels=5 + 8, width=8, depth=2, heads=2), {1: UniformPruner(3)})
    poses = diffusion.lift_sequences(
        Denoiser(lifter, HistoryEncoder(4, 8, heads=2)).eval(),
        rays_of(rotating_body(18)),
        FRAMES,
        generator=rng(),
    )
    assert poses.shape == (1, 5, 18, 17, 3)
