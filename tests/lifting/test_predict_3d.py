"""From a video to 3D: tracking with lost frames, lifting, weights files, and invalid input."""

import json
import subprocess
import sys
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from posebook import models, skeletons
from posebook.inference import predict
from posebook.inference.video import Frames, open_frames
from posebook.lifting import clips, predict_3d, pruning, synthetic_video, weights_io
from posebook.lifting.camera import Camera
from posebook.lifting.models import LIFTERS, MixSTE, build_plain
from posebook.lifting.skeleton import H36M, mirror

TINY = {"width": 16, "depth": 2, "heads": 2}


@pytest.fixture(scope="module")
def model():
    return models.load_weights(predict.SYNTHETIC_WEIGHTS)


@pytest.fixture(scope="module")
def walk():
    return synthetic_video.walk(16)


@pytest.fixture(scope="module")
def video(walk, tmp_path_factory):
    """The video as a file, and the file with the person's boxes."""
    return synthetic_video.save(walk, tmp_path_factory.mktemp("video"))


@pytest.fixture
def lifter():
    torch.manual_seed(0)
    return build_plain("mixste", 9, **TINY).eval()


@pytest.fixture
def clip():
    keypoints = np.random.default_rng(0).uniform(100, 900, (31, 17, 3))
    keypoints[..., 2] = 1
    return clips.Clip("a clip", "", keypoints, None, Camera(np.eye(3), np.zeros(3), (1000, 1000)))


def boxes_of(video, frames):
    return predict.file_boxes(video[1], list(frames.images) or None)


def test_the_synthetic_video_matches_its_ground_truth(walk):
    assert walk.images.shape == (16, 240, 320, 3) and walk.images.dtype == np.uint8
    pixels = walk.camera.project(walk.pose)
    low, high = walk.boxes[:, None, :2], walk.boxes[:, None, :2] + walk.boxes[:, None, 2:]
    assert ((pixels > low - 4) & (pixels < high + 4)).all()
    lengths = np.linalg.norm(walk.pose[:, 2] - walk.pose[:, 3], axis=-1)  # a shank
    assert np.ptp(lengths) < 1e-6
    steps = np.linalg.norm(np.diff(walk.pose[:, 0], axis=0), axis=-1) * synthetic_video.FPS
    assert 0.8 < steps.mean() < 1.4  # meters per second
    feet = np.linalg.norm(np.diff(walk.pose[:, [3, 6]], axis=0), axis=-1).min(1) * synthetic_video.FPS
    assert feet.mean() < 0.4 * steps.mean()  # one foot is always on the floor
    np.testing.assert_array_equal(synthetic_video.walk(2).images, walk.images[:2])


def test_a_written_video_is_read_back(walk, video):
    frames = open_frames(video[0])
    assert frames.fps == synthetic_video.FPS and frames.count == 16
    for _ in range(2):  # frames can be iterated repeatedly
        found = [image for _, image in frames]
        assert len(found) == 16
        assert np.abs(np.stack(found).astype(int) - walk.images).mean() < 4


def test_images_are_sorted_by_number(tmp_path):
    for name in ("walk10_2.png", "walk9_10.png", "walk9_2.png", "walk1_3.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4, 3), np.uint8))
    names = [path.name for path, _ in open_frames(tmp_path)]
    assert names == ["walk1_3.png", "walk9_2.png", "walk9_10.png", "walk10_2.png"]


def test_a_person_is_tracked_in_a_video_and_in_images(walk, video, model, tmp_path):
    frames = open_frames(video[0])
    track = predict_3d.track_person(frames, model, boxes_of(video, frames))
    assert track.clip.keypoints.shape == (16, 17, 3) and not track.lost.any()
    assert track.clip.camera.size == (240, 320) and track.clip.fps == synthetic_video.FPS
    np.testing.assert_allclose(track.boxes, walk.boxes)
    apart = np.linalg.norm(track.clip.keypoints[..., :2] - walk.camera.project(walk.pose), axis=-1)
    assert np.median(apart) < 4  # pixels
    for number, image in enumerate(walk.images, 1):
        cv2.imwrite(str(tmp_path / f"{number:06d}.png"), image[..., ::-1])
    images = open_frames(tmp_path)
    same = predict_3d.track_person(images, model, boxes_of(video, images))
    assert np.median(np.abs(same.clip.keypoints - track.clip.keypoints)) < 1


def test_the_nearest_box_is_tracked_unless_it_is_too_far():
    boxes = np.array([[0, 0, 10, 20], [100, 0, 30, 60], [110, 5, 30, 60.0]])
    assert predict_3d.nearest_box(boxes, None) == 1  # the first of the largest
    assert predict_3d.nearest_box(boxes, boxes[2] + 1) == 2
    assert predict_3d.nearest_box(boxes[:1], boxes[1]) is None
    assert predict_3d.nearest_box(boxes[:1], boxes[1], gone=3) == 0  # possible within three frames
    assert predict_3d.nearest_box(np.zeros((0, 4)), boxes[1]) is None


def test_lost_frames_are_interpolated(video, model, walk):
    frames = open_frames(video[0])
    known = boxes_of(video, frames)

    def boxes(path, image):
        gone = int(path.stem) in (5, 6, 7)
        return (np.zeros((0, 4)), np.zeros(0)) if gone else known(path, image)

    track = predict_3d.track_person(frames, model, boxes)
    assert np.flatnonzero(track.lost).tolist() == [4, 5, 6]
    assert np.isnan(track.boxes[4:7]).all() and np.isfinite(track.clip.keypoints).all()
    points = track.clip.keypoints
    assert points[5, :, :2] == pytest.approx((points[3, :, :2] + points[7, :, :2]) / 2)
    assert (points[4:7, :, 2] == 0).all()
    shown = predict_3d.draw_frames(frames, track, 4)
    assert list(shown)[::3] == [0, 15] and not set(shown) & {4, 5, 6}
    assert all((image != walk.images[number]).any() for number, image in shown.items())


def test_a_video_without_a_person(video, model, monkeypatch):
    frames = open_frames(video[0])
    with pytest.raises(ValueError, match="walk.avi: no person was found in any of 16 frames"):
        predict_3d.track_person(frames, model, lambda *_: (np.zeros((0, 4)), np.zeros(0)))
    unsure = lambda _, images, *__: [(np.zeros((1, 17, 2)), np.full((1, 17), 0.1))] * len(images)  # noqa: E731
    monkeypatch.setattr(predict, "predict_keypoints", unsure)
    with pytest.raises(ValueError, match="no person was found in any of 16 frames"):
        predict_3d.track_person(frames, model)


def test_a_person_who_is_lost_in_most_frames(video, model):
    frames = open_frames(video[0])
    known = boxes_of(video, frames)

    def boxes(path, image):
        return known(path, image) if int(path.stem) < 5 else (np.zeros((0, 4)), np.zeros(0))

    with pytest.raises(ValueError, match="walk.avi: 75% of its joints were not detected"):
        predict_3d.track_person(frames, model, boxes)


def test_invalid_videos(tmp_path):
    with pytest.raises(FileNotFoundError, match="no video and no folder of frames at .*absent.mp4"):
        open_frames(tmp_path / "absent.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(ValueError, match="text.mp4 cannot be opened as a video: .*folder with its frames"):
        open_frames(tmp_path / "text.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image in .*empty: supported are .jpg"):
        open_frames(tmp_path / "empty")


def test_a_truncated_video_and_a_broken_image(video, walk, model, tmp_path, capsys):
    complete = video[0].read_bytes()
    (tmp_path / "cut.avi").write_bytes(complete[: len(complete) // 2])
    cut = open_frames(tmp_path / "cut.avi")
    cut = Frames(cut.source, 16, cut.fps)  # as its header states
    assert 2 < len(list(cut)) < 16
    assert "of 16 frames: it is truncated" in capsys.readouterr().out
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in (1, 2, 4):
        cv2.imwrite(str(folder / f"{number}.png"), walk.images[number - 1][..., ::-1])
    (folder / "3.png").write_text("broken")
    images = open_frames(folder)
    track = predict_3d.track_person(images, model, boxes_of(video, images))
    assert track.lost.tolist() == [False, False, True, False]
    assert "skipped: " in capsys.readouterr().out
    cv2.imwrite(str(folder / "5.png"), np.zeros((50, 60, 3), np.uint8))
    with pytest.raises(
        ValueError, match=r"5.png has \(50, 60\) pixels, but the frames before it \(240, 320\)"
    ):
        predict_3d.track_person(open_frames(folder), model)


def test_models_with_other_joints(video, monkeypatch):
    frames = open_frames(video[0])
    model = models.build("starnet-pose-t", "crowdpose", (64, 32)).eval()
    with pytest.raises(
        ValueError, match="lifters need Human3.6M's 17 joints .* joint 0 is left_shoulder, not hip"
    ):
        predict_3d.track_person(frames, model)
    own = skeletons.make_skeleton("h36m", list(H36M.keypoints), [list(limb) for limb in H36M.limbs], None)
    points = np.random.default_rng(0).uniform(0, 200, (1, 17, 2))
    monkeypatch.setattr(
        predict, "predict_keypoints", lambda _, some, *__: [(points, np.full((1, 17), 0.9))] * len(some)
    )
    track = predict_3d.track_person(frames, models.build("starnet-pose-t", own, (64, 32)).eval())
    assert (track.clip.keypoints[..., :2] == points).all()  # used without conversion


def test_all_frames_are_lifted_and_mirroring_is_equivariant(lifter, clip):
    pose = predict_3d.lift_clip(lifter, clip)
    assert pose.shape == (31, 17, 3) and np.isfinite(pose).all() and (pose[:, 0] == 0).all()
    turned = clip.keypoints.copy()
    turned[..., 0] = 1000 - turned[..., 0]
    other = clips.Clip("b", "", turned[:, H36M.flip_indices], None, clip.camera)
    assert predict_3d.lift_clip(lifter, other) == pytest.approx(mirror(pose), abs=1e-5)
    alone = clips.Clip("c", "", clip.keypoints[:9], None, clip.camera)
    assert predict_3d.lift_clip(lifter, alone) == pytest.approx(pose[:9], abs=1e-5)
    assert predict_3d.lift_clip(lifter, clip, flip_test=False) != pytest.approx(pose, abs=1e-3)


def test_a_clip_shorter_than_the_window(lifter, clip):
    short = clips.Clip("short.mp4", "", clip.keypoints[:8], None, clip.camera)
    with pytest.raises(ValueError, match="8 frames, fewer than the lifter's window of 9: use a longer"):
        predict_3d.lift_clip(lifter, short)


def test_lifter_weights_round_trip_and_errors(lifter, clip, tmp_path):
    path = tmp_path / "lifter.safetensors"
    weights_io.save_weights(lifter, path, "mixste", "motion", **TINY)
    again = weights_io.load_weights(path)
    np.testing.assert_array_equal(predict_3d.lift_clip(again, clip), predict_3d.lift_clip(lifter, clip))
    assert weights_io.load_weights(path, "mixste").frames == 9
    with pytest.raises(ValueError, match="lifter.safetensors has weights of mixste, not of ktpformer"):
        weights_io.load_weights(path, "ktpformer")
    with pytest.raises(ValueError, match="has weights of starnet-pose-t, which is not a lifter"):
        weights_io.load_weights(predict.SYNTHETIC_WEIGHTS)
    with pytest.raises(FileNotFoundError, match="no weights at"):
        weights_io.load_weights(tmp_path / "absent.safetensors")
    torch.save(lifter.state_dict(), tmp_path / "plain.pth")
    with pytest.raises(ValueError, match="does not state its lifter: give one of mixste, "):
        weights_io.load_weights(tmp_path / "plain.pth")
    with pytest.raises(
        ValueError, match="the weights do not fit MixSTE"
    ):  # the size is not the published one
        weights_io.load_weights(tmp_path / "plain.pth", "mixste")
    pruned = pruning.build_lifter("mixste", 9, prune={1: ("uniform", 3)}, **TINY).eval()
    weights_io.save_weights(pruned, path, "mixste", prune={1: ("uniform", 3)}, **TINY)
    np.testing.assert_array_equal(
        predict_3d.lift_clip(weights_io.load_weights(path), clip), predict_3d.lift_clip(pruned, clip)
    )


THEIRS = {
    "spatial_norm": "Spatial_norm", "temporal_norm": "Temporal_norm", "spatial.": "STEblocks.",
    "temporal.": "TTEblocks.", "start.": "Spatial_patch_to_embedding.", "places": "Spatial_pos_embed",
    "times": "Temporal_pos_embed",
}  # fmt: skip
THEIRS_AROUND = {
    "positions": "pos_embed_token", "recover.queries": "x_token", "recover.proj": "cross_attention.proj",
    "recover.": "cross_attention.linear_",
}  # fmt: skip


def theirs(key: str, names: dict[str, str]) -> str:
    """The key of a tensor in the authors' files."""
    found = next((ours for ours in names if key.startswith(ours)), "")
    return names.get(found, "") + key.removeprefix(found)


@pytest.mark.parametrize("recover", [None, "attend"])
def test_authors_files_determine_window_and_pruning(recover, clip, tmp_path, monkeypatch):
    monkeypatch.setitem(LIFTERS, "mixste", partial(MixSTE, width=16, depth=4, heads=2))
    options = {"prune": {3: ("cluster", 3)}, "recover": recover} if recover else {}
    lifter = pruning.build_lifter("mixste", 9, **options).eval()
    for parameter in lifter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    state = {}
    for key, value in lifter.state_dict().items():
        inner = key.removeprefix("lifter.")
        around = recover and inner == key
        state[f"module.{theirs(inner, THEIRS_AROUND if around else THEIRS)}"] = value
    torch.save({"epoch": 3, "lr": 1e-4, "model_pos": state}, tmp_path / "theirs.bin")
    again = weights_io.load_weights(tmp_path / "theirs.bin", "mixste")
    assert again.frames == 9 and isinstance(again, pruning.FramePruning) == bool(recover)
    np.testing.assert_array_equal(predict_3d.lift_clip(again, clip), predict_3d.lift_clip(lifter, clip))


def test_written_poses_are_read_without_pickles(lifter, clip, tmp_path):
    track = predict_3d.Track(clip, np.zeros((31, 4)), np.arange(31) == 3)
    pose = predict_3d.lift_clip(lifter, clip)
    path = predict_3d.write_poses(tmp_path / "out", track, pose, {"lifter": "mixste"})
    arrays = np.load(path, allow_pickle=False)
    assert arrays["pose"] == pytest.approx(pose, abs=1e-3) and arrays["joints"].tolist() == list(
        H36M.keypoints
    )
    content = json.loads(path.with_suffix(".json").read_text())
    assert content["source"] == "a clip" and content["size"] == [1000, 1000] and content["lifter"] == "mixste"
    np.testing.assert_allclose(content["pose"], arrays["pose"])
    assert content["lost"] == arrays["lost"].tolist()


def test_images_of_an_earlier_video_are_removed(video, lifter, tmp_path, monkeypatch):
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays" / "000099.jpg").touch()
    monkeypatch.setattr(predict_3d, "track_person", lambda *_: predict_3d.Track(None, None, None))
    monkeypatch.setattr(predict_3d, "lift_clip", lambda *_: None)
    monkeypatch.setattr(predict_3d, "write_poses", lambda *_: tmp_path / "poses3d.npz")
    image = np.zeros((8, 8, 3), np.uint8)
    monkeypatch.setattr(predict_3d, "draw_frames", lambda *_: {4: image})
    predict_3d.lift_video(None, None, lifter, None, False, "cpu", tmp_path, (__file__, __file__))
    assert [path.name for path in (tmp_path / "overlays").iterdir()] == ["000005.jpg"]


def test_the_command_line_lifts_a_video(video, lifter, tmp_path):
    weights_io.save_weights(lifter, tmp_path / "lifter.safetensors", "mixste", **TINY)
    words = [sys.executable, "-m", "posebook", "lift", str(video[0]), "--boxes", str(video[1])]
    words += ["--lifter-weights", str(tmp_path / "lifter.safetensors"), "--out-dir", str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "16 frames, the person was lost in 0: " in done.stdout
    assert np.load(tmp_path / "out" / "poses3d.npz")["pose"].shape == (16, 17, 3)
    assert len(list((tmp_path / "out" / "overlays").glob("*.jpg"))) == 6
