"""The synthetic motion: reproducible, with rigid bones, feet on the floor and plausible joint angles."""

import numpy as np
import pytest

from posebook.datasets.synthetic.anatomy import LIMITS
from posebook.lifting import synthetic_motion
from posebook.lifting.skeleton import BONES, H36M, PARENTS

FPS = 50


@pytest.fixture(scope="module")
def clips():
    """Two clips of each activity, without the simulated detector's noise."""
    return synthetic_motion.make_clips(2 * len(synthetic_motion.ACTIVITIES), frames=300, noise=0)


def world(clip) -> np.ndarray:
    """Joints (T, 17, 3) in world axes: the floor is y = 0."""
    return (clip.pose - clip.camera.translation) @ clip.camera.rotation


def bend(pose: np.ndarray, middle: int, end: int) -> np.ndarray:
    """The bend (T,) of a limb at its middle joint in degrees; 0 is straight."""
    upper, lower = pose[:, middle] - pose[:, PARENTS[middle]], pose[:, end] - pose[:, middle]
    lengths = np.linalg.norm(upper, axis=-1) * np.linalg.norm(lower, axis=-1)
    return np.degrees(np.arccos(((upper * lower).sum(-1) / lengths).clip(-1, 1)))


def bones(pose: np.ndarray) -> np.ndarray:
    return np.stack([np.linalg.norm(pose[:, joint] - pose[:, parent], axis=-1) for parent, joint in BONES], 1)


def test_a_clip_depends_only_on_seed_and_number():
    few, more = (
        synthetic_motion.make_clips(2, frames=60, seed=3),
        synthetic_motion.make_clips(4, frames=60, seed=3),
    )
    for one, other in zip(few, more, strict=False):
        assert one.name == other.name
        assert np.array_equal(one.keypoints, other.keypoints)
        assert np.array_equal(one.pose, other.pose)
    assert not np.allclose(few[0].pose, synthetic_motion.make_clips(1, frames=60, seed=4)[0].pose)
    assert few[0].keypoints.shape == few[0].pose.shape == (60, 17, 3)


def test_noise_changes_only_the_keypoints():
    (clean,), (noisy,) = (synthetic_motion.make_clips(1, frames=60, noise=noise) for noise in (0, 1))
    assert np.array_equal(clean.pose, noisy.pose)
    assert not np.allclose(clean.keypoints, noisy.keypoints)


def test_splits_share_no_clips():
    train, val = (
        synthetic_motion.load_split("train", 3, frames=40),
        synthetic_motion.load_split("val", 3, frames=40),
    )
    assert not {clip.name for clip in train} & {clip.name for clip in val}
    assert np.array_equal(
        synthetic_motion.make_clips(1, frames=40, seed=synthetic_motion.SPLITS["val"])[0].pose, val[0].pose
    )
    for one, other in zip(train, val, strict=True):
        assert np.abs(bones(one.pose)[0] - bones(other.pose)[0]).max() > 0.002


def test_short_clips_and_low_frame_rates():
    (short,) = synthetic_motion.make_clips(1, frames=9)
    assert short.pose.shape == (9, 17, 3)
    fast, slow = (
        synthetic_motion.make_clips(1, frames=frames, noise=0, fps=fps)[0]
        for frames, fps in ((100, 50), (50, 25))
    )
    ways = [np.linalg.norm(np.diff(clip.pose, axis=0), axis=-1).sum(0).mean() for clip in (fast, slow)]
    assert ways[0] == pytest.approx(ways[1], rel=0.3)  # the same distance in two seconds


def test_all_activities_occur(clips):
    found = {clip.action for clip in synthetic_motion.make_clips(80, frames=60)}
    assert found == set(synthetic_motion.ACTIVITIES)
    assert all(clip.fps == FPS and clip.joints == H36M.keypoints for clip in clips)


def test_bone_lengths_are_constant_and_symmetric(clips):
    for clip in clips:
        lengths = bones(clip.pose)
        assert np.ptp(lengths, axis=0).max() < 1e-6
        by_joint = dict(zip((joint for _, joint in BONES), lengths[0], strict=True))
        for left, right in H36M.flip_pairs:
            assert by_joint[left] == pytest.approx(by_joint[right], abs=1e-9)
        assert 1.3 < clip_height(by_joint) < 2.1


def clip_height(lengths: dict[int, float]) -> float:
    """The approximate stature: shank, thigh, trunk, head, and the height of the ankle."""
    return sum(lengths[joint] for joint in (2, 3, 7, 8, 9, 10)) + 0.07


def test_feet_touch_the_floor_and_stay_above_it(clips):
    for clip in clips:
        ankles = world(clip)[:, [3, 6], 1]
        assert world(clip)[..., 1].min() > 0.03  # at least the height of an ankle
        assert (ankles.min(1) < ankles.min() + 0.02).mean() > 0.2
        if "jump" not in clip.action:
            assert np.percentile(ankles.min(1), 60) < ankles.min() + 0.12


def test_standing_feet_do_not_slide(clips):
    slides = []
    for clip in clips:
        for ankle in (3, 6):
            path = world(clip)[:, ankle]
            down = (path[:-1, 1] < path[:, 1].min() + 0.002) & (abs(np.diff(path[:, 1])) < 1e-4)
            slides.append(np.linalg.norm(np.diff(path[:, [0, 2]], axis=0), axis=-1)[down] * FPS)
    assert np.percentile(np.concatenate(slides), [50, 90]) == pytest.approx([0, 0], abs=0.05)  # m/s


def test_knees_and_elbows_respect_their_limits(clips):
    for clip in clips:
        pose = world(clip)
        for knee, ankle in ((2, 3), (5, 6)):
            assert bend(pose, knee, ankle).max() <= LIMITS["left_knee"][1]
            hip = pose[:, PARENTS[knee]]
            front = np.cross(pose[:, ankle] - hip, pose[:, 4] - pose[:, 1])  # forward direction of the leg
            assert ((pose[:, knee] - hip) * front).sum(-1).min() > 0
        for elbow, wrist in ((12, 13), (15, 16)):
            assert bend(pose, elbow, wrist).max() <= LIMITS["left_elbow"][1] + 1e-6


def test_arms_and_legs_swing_in_opposite_phase():
    found = []
    for clip in synthetic_motion.make_clips(2 * len(synthetic_motion.ACTIVITIES), frames=300, noise=0):
        if clip.action == "walk":
            pose = world(clip)
            across = pose[:, 4] - pose[:, 1]
            ahead = np.cross(across, [0, 1, 0]) / np.linalg.norm(across, axis=-1, keepdims=True)
            legs, arms = (((pose[:, a] - pose[:, b]) * ahead).sum(-1) for a, b in ((6, 3), (13, 16)))
            apart = abs(legs) > 0.3
            found.append(np.mean(legs[apart] * arms[apart] < 0))
    assert found and np.mean(found) > 0.9


def test_speeds_are_plausible(clips):
    for clip in clips:
        speed = np.linalg.norm(np.diff(clip.pose, axis=0), axis=-1) * FPS
        assert speed.max() < 15  # m/s
        assert speed[:, [0, 7, 8]].max() < 5
        assert speed.mean(1).min() > 1e-3, "all people move a little"


def test_keypoints_without_noise_are_projections(clips):
    for clip in clips:
        assert np.allclose(clip.camera.project(clip.pose), clip.keypoints[..., :2])
        assert (clip.keypoints[..., 2] == 1).all()
        assert (clip.pose[..., 2] > 0.5).all()
        assert clip.keypoints[..., :2].min() > 0 and clip.keypoints[..., :2].max() < synthetic_motion.SIZE
        assert np.ptp(clip.keypoints[:, :, 1], axis=1).mean() > 120  # pixels


def test_the_simulated_detector_has_the_documented_errors():
    rng = np.random.default_rng(0)
    exact = np.zeros((4000, 17, 2))
    exact[:, 0, 1] = 500  # a person of 500 pixels
    error = synthetic_motion.simulate_detector(rng, exact)[..., :2] - exact
    assert np.median(abs(error[:, 7])) == pytest.approx(0.6745 * 0.008 * 500, rel=0.1)
    assert np.median(abs(error[:, 3])) == pytest.approx(1.5 * 0.6745 * 0.008 * 500, rel=0.1)
    calm = error[:, 7, 0][abs(error[:, 7, 0]) < 14]
    assert np.corrcoef(calm[:-1], calm[1:])[0, 1] == pytest.approx(
        0.8, abs=0.06
    )  # correlation of consecutive frames
    size = np.linalg.norm(error, axis=-1)
    assert 0.002 < (size > 30).mean() < 0.03  # bursts
    twice = synthetic_motion.simulate_detector(np.random.default_rng(0), exact, 2.0)[..., :2] - exact
    assert np.allclose(twice, 2 * error)
    smaller = synthetic_motion.simulate_detector(np.random.default_rng(0), exact / 2)[..., :2] - exact / 2
    assert np.allclose(smaller, error / 2)


def test_scores_decrease_with_the_error():
    (clean,), (noisy,) = (synthetic_motion.make_clips(1, frames=400, noise=noise) for noise in (0, 1))
    size = np.linalg.norm((noisy.keypoints - clean.keypoints)[..., :2], axis=-1)
    score = noisy.keypoints[..., 2]
    worst = size > np.percentile(size, 99)
    assert score[worst].mean() < 0.5 < 0.8 < score[~worst].mean()
    assert 0 < score.min() and score.max() <= 1
