"""Small files in the layout of Human3.6M and MPI-INF-3DHP, and pickles with more than arrays."""

import io
import json
import os
import pickle
import pickletools
import re
import zipfile

import numpy as np
import pytest

from posebook.datasets import DatasetMissing
from posebook.lifting import h36m_3dhp, safe_pickle
from posebook.lifting.clips import clip_inputs, clip_targets
from posebook.lifting.skeleton import H36M

LEFT, RIGHT = [4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]
METADATA = {"layout_name": "h36m", "num_joints": 17, "keypoints_symmetry": [LEFT, RIGHT]}
SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")


def recording(seed: int = 0, frames: int = 30) -> tuple[dict, dict]:
    """Random 3D joints near the room's center and their 2D joints in four cameras, in the files' layout."""
    rng = np.random.default_rng(seed)
    world, views = {}, {}
    for subject in SUBJECTS:
        world[subject], views[subject] = {}, {}
        for action in ("Walking 1", "Walking", "SittingDown 2"):
            joints = (rng.uniform(-1, 1, (frames, 32, 3)) + [0, 0, 1]).astype(np.float32)
            world[subject][action] = joints
            cameras = h36m_3dhp.cameras(subject).values()
            views[subject][action] = [
                camera.project(camera.world_to_camera(joints[:, h36m_3dhp.KEPT])) for camera in cameras
            ]
    return world, views


def write(root, world, views, metadata=METADATA, detector="gt"):
    root.mkdir(exist_ok=True)
    np.savez_compressed(root / "data_3d_h36m.npz", positions_3d=world)
    np.savez_compressed(root / f"data_2d_h36m_{detector}.npz", positions_2d=views, metadata=metadata)
    return root


@pytest.fixture
def files(tmp_path):
    return write(tmp_path / "h36m", *recording())


def test_clips_project_to_their_keypoints(files, capsys):
    clips = h36m_3dhp.load("h36m-gt", files, "train")
    assert len(clips) == 5 * 3 * 4
    assert {clip.action for clip in clips} == {"Walking", "SittingDown"}
    assert clips[0].name == "S1 Walking 1 54138969" and clips[0].fps == 50
    for clip in clips[:8]:
        assert clip.keypoints.shape == clip.pose.shape == (30, 17, 3)
        assert clip.pose[..., 2].min() > 2  # meters in front of the camera
        assert clip.camera.project(clip.pose) == pytest.approx(clip.keypoints[..., :2], abs=0.05)
        assert clip_inputs(clip).abs().max() < 3
        assert clip_targets(clip)[:, 0].abs().max() == 0
    assert "2 of 15 actions" in capsys.readouterr().out
    assert {clip.name.split()[0] for clip in h36m_3dhp.load("h36m-gt", files, "val")} == {"S9", "S11"}


def test_files_with_seventeen_joints_are_not_reduced(files, tmp_path):
    world, views = recording()
    reduced = {
        s: {a: joints[:, h36m_3dhp.KEPT] for a, joints in actions.items()} for s, actions in world.items()
    }
    folder = write(tmp_path / "few", reduced, views, detector="cpn_ft_h36m_dbb")
    few = h36m_3dhp.load("h36m", folder, "val")
    for clip, other in zip(few, h36m_3dhp.load("h36m-gt", files, "val"), strict=True):
        np.testing.assert_array_equal(clip.pose, other.pose)


def test_seventeen_of_32_joints_are_kept():
    assert h36m_3dhp.KEPT == [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]


def test_the_longer_of_2d_and_3d_is_cut_with_a_message(tmp_path, capsys):
    world, views = recording()
    views["S9"]["Walking"][2] = views["S9"]["Walking"][2][:-2]
    longer = views["S11"]["Walking"][0]
    views["S11"]["Walking"][0] = np.concatenate([longer, longer[:1]])
    clips = h36m_3dhp.load("h36m-gt", write(tmp_path / "h36m", world, views), "val")
    lengths = {clip.name: len(clip.pose) for clip in clips}
    assert lengths["S9 Walking 58860488"] == 28 and sorted(set(lengths.values())) == [28, 30]
    assert all(len(clip.keypoints) == len(clip.pose) for clip in clips)
    assert "2 of 24 sequences differ in length between 2D and 3D: cut by" in capsys.readouterr().out


def test_cameras_surround_the_room_and_face_its_center():
    for subject in SUBJECTS:
        views = h36m_3dhp.cameras(subject)
        assert list(views) == ["54138969", "55011271", "58860488", "60457274"]
        for camera in views.values():
            assert np.linalg.det(camera.rotation) == pytest.approx(1, abs=1e-6)
            at = -camera.rotation.T @ camera.translation
            assert 1.4 < at[2] < 1.7 and 4 < np.linalg.norm(at) < 6  # meters
            assert camera.rotation[2] @ -at / np.linalg.norm(at) > 0.98  # the camera faces the room's center
            assert camera.rotation[1, 2] < -0.9  # the camera's y axis is the world's down
    with pytest.raises(ValueError, match="no cameras for S2, only for S1, S5"):
        h36m_3dhp.cameras("S2")


def test_lenses_project_real_frames(test_data):
    """Four real frames with 3D joints, 2D joints and the number of their camera."""
    sample = np.load(test_data / "samples" / "h36m" / "test_h36m_body3d.npz")
    for name, pixels, joints in zip(sample["imgname"], sample["part"], sample["S"], strict=True):
        number = re.search(r"\.(\d{8})_", name)[1]
        camera = h36m_3dhp.cameras("S1")[number]  # the lens parameters are the same for all subjects
        assert camera.project(joints[:, :3]) == pytest.approx(pixels[:, :2], abs=0.25)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda w, s: w.pop("S9"), "data_3d_h36m.npz has no S9; it has S1, S5"),
        (lambda w, s: s.pop("S11"), "data_2d_h36m_gt.npz has no S11; it has S1"),
        (lambda w, s: s["S9"].pop("Walking"), "data_2d_h36m_gt.npz, S9 has no Walking; it has Walking 1"),
        (lambda w, s: s["S9"]["Walking"].pop(), "S9 Walking has 3 cameras, not 4"),
        (lambda w, s: w.update(S9=[1]), "data_3d_h36m.npz, S9 is not a dictionary but of type list"),
        (lambda w, s: s["S9"].update(Walking=[np.ones((30, 16, 2))] * 4),
         r"54138969 has the shape \(30, 16, 2\), not \(frames, 17 joints, 2\)"),
        (lambda w, s: w["S9"].update(Walking=np.ones((30, 25, 3))),
         r"S9 Walking has the shape \(30, 25, 3\), not \(frames, 32 or 17 joints, 3\)"),
        (lambda w, s: w["S9"].update(Walking=w["S9"]["Walking"] * 1000), "must be in meters"),
        (lambda w, s: s["S9"].update(Walking=[v / 1000 for v in s["S9"]["Walking"]]), "must be in pixels"),
        (lambda w, s: w["S9"].update(Walking=w["S9"]["Walking"] * np.nan), "not finite numbers"),
        (lambda w, s: s["S9"].update(Walking=[v[::2] for v in s["S9"]["Walking"]]),
         "15 frames in 2D, but 30 in 3D: these are different recordings or frame rates"),
    ],
)  # fmt: skip
def test_invalid_h36m_files(tmp_path, change, message):
    world, views = recording()
    change(world, views)
    with pytest.raises(ValueError, match=message):
        h36m_3dhp.load("h36m-gt", write(tmp_path / "h36m", world, views), "val")


def test_another_joint_order_is_detected_by_left_and_right(tmp_path):
    world, views = recording()
    coco = {"keypoints_symmetry": [[1, 3, 5, 7, 9, 11, 13, 15], [2, 4, 6, 8, 10, 12, 14, 16]]}
    with pytest.raises(
        ValueError, match=r"another joint order: left \[1, 3, .*COCO's order, which .*from_coco"
    ):
        h36m_3dhp.load("h36m-gt", write(tmp_path / "h36m", world, views, coco), "val")
    swapped = {"keypoints_symmetry": [RIGHT, LEFT]}
    with pytest.raises(ValueError, match=r"another joint order: left \[1, 2, 3, 14, 15, 16\]") as error:
        h36m_3dhp.load("h36m-gt", write(tmp_path / "h36m", world, views, swapped), "val")
    assert "COCO" not in str(error.value)
    with pytest.raises(ValueError, match="metadata has no keypoints_symmetry"):
        h36m_3dhp.load("h36m-gt", write(tmp_path / "h36m", world, views, {}), "val")


def test_unknown_names_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match="unknown 3D dataset 'h36m-cpn'; did you mean h36m"):
        h36m_3dhp.load("h36m-cpn", tmp_path, "val")
    with pytest.raises(ValueError, match="unknown split 'test'; did you mean"):
        h36m_3dhp.load("h36m-gt", tmp_path, "test")
    with pytest.raises(DatasetMissing, match="data_3d_h36m.npz is not in .*\n.*gt.npz\nTo get it: register"):
        h36m_3dhp.load("h36m-gt", tmp_path, "val")
    with pytest.raises(DatasetMissing, match="data_test_3dhp.npz is not in .*"):
        h36m_3dhp.load("3dhp", tmp_path, "val")


def test_a_git_lfs_pointer_is_recognized(files):
    (files / "data_3d_h36m.npz").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 153173\n"
    )
    with pytest.raises(ValueError, match="data_3d_h36m.npz is a Git LFS pointer.*git lfs pull"):
        h36m_3dhp.load("h36m-gt", files, "val")


def test_invalid_and_truncated_npz_files(files):
    complete = (files / "data_3d_h36m.npz").read_bytes()
    for content in (b"<html>", b"", complete[: len(complete) // 2]):
        (files / "data_3d_h36m.npz").write_bytes(content)
        with pytest.raises(ValueError, match="is not a complete .npz file"):
            h36m_3dhp.load("h36m-gt", files, "val")
    np.savez(files / "data_3d_h36m.npz", something=np.ones(3))
    with pytest.raises(ValueError, match="data_3d_h36m.npz has no positions_3d; it has something"):
        h36m_3dhp.load("h36m-gt", files, "val")
    np.savez(files / "data_3d_h36m.npz", positions_3d=np.ones(3))
    with pytest.raises(ValueError, match="positions_3d is not a dictionary but of type ndarray"):
        h36m_3dhp.load("h36m-gt", files, "val")


def write_3dhp(root, split, change=lambda entry: None):
    rng = np.random.default_rng(0)

    def entry():
        made = {
            "data_2d": rng.uniform(100, 900, (20, 17, 2)).astype(np.float32),
            "data_3d": (rng.normal(0, 400, (20, 17, 3)) + [0, 0, 4000]).astype(np.float32),
        }
        if split == "test":
            made["valid"] = np.arange(20) % 5 == 0
        change(made)
        return made

    content = {"S1 Seq1": [{"0": entry(), "8": entry()}], "S1 Seq2": [{"4": entry()}]}
    if split == "test":
        content = {"TS1": entry(), "TS6": entry()}
    np.savez_compressed(root / f"data_{split}_3dhp.npz", data=content)


def test_3dhp_joints_are_in_human36m_order(tmp_path):
    write_3dhp(tmp_path, "train")
    clips = h36m_3dhp.load("3dhp", tmp_path, "train")
    rates = {clip.name: clip.fps for clip in clips}
    assert rates == {"S1 Seq1 0": 25, "S1 Seq1 8": 25, "S1 Seq2 4": 50}
    raw = safe_pickle.read(tmp_path / "data_train_3dhp.npz")["data"]["S1 Seq2"][0]["4"]
    order = ["head", "thorax", *(f"right_{j}" for j in ("shoulder", "elbow", "wrist"))]
    order += [f"left_{joint}" for joint in ("shoulder", "elbow", "wrist")]
    order += [f"{side}_{joint}" for side in ("right", "left") for joint in ("hip", "knee", "ankle")]
    order += ["hip", "spine", "nose"]
    for joint, name in enumerate(H36M.keypoints):
        theirs = order.index(name)
        assert clips[2].pose[:, joint] * 1000 == pytest.approx(raw["data_3d"][:, theirs], rel=1e-5)
        assert clips[2].keypoints[:, joint, :2] == pytest.approx(raw["data_2d"][:, theirs])


def test_3dhp_invalid_frames_and_unknown_cameras(tmp_path):
    write_3dhp(tmp_path, "test")
    first, last = h36m_3dhp.load("3dhp", tmp_path, "val")
    assert np.isfinite(first.pose).all((1, 2)).sum() == 4
    assert first.camera.size == (2048, 2048) and last.camera.size == (1080, 1920)
    with pytest.raises(ValueError, match="this camera has no intrinsics"):
        first.camera.project(first.pose)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda e: e.pop("data_2d"), "TS1 has no data_2d; it has data_3d, valid"),
        (lambda e: e.pop("valid"), "TS1 has no valid"),
        (lambda e: e.update(data_3d=e["data_3d"] / 1000), "it must be in millimeters"),
        (lambda e: e.update(data_3d=e["data_3d"][1:]), "20 frames in 2D, 19 in 3D, and 20 in valid"),
        (lambda e: e.update(data_2d=np.ones((20, 28, 2))), "not .frames, 17 joints, 2"),
    ],
)
def test_invalid_3dhp_files(tmp_path, change, message):
    write_3dhp(tmp_path, "test", change)
    with pytest.raises(ValueError, match=message):
        h36m_3dhp.load("3dhp", tmp_path, "val")


def archive(path, pickled: bytes):
    """Write an .npz file with one array of one object, given as a pickle."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("positions_3d.npy", header.getvalue() + pickled)
    return path


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def names(module: str, name: str) -> bytes:
    """A pickle that calls a function without arguments."""
    return f"c{module}\n{name}\n)R.".encode()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_with_calls_are_refused_and_not_run(tmp_path, protocol):
    trace = tmp_path / "trace"
    calls = {
        "system": (os.system, f"touch {trace}"),
        "eval": (eval, f"open({str(trace)!r}, 'w')"),
        "partial": (__import__("functools").partial, os.system, f"touch {trace}"),
        "getattr": (getattr, "text", "join"),
        "load": (np.load, str(trace)),
        "frombuffer": (np.frombuffer, b"12345678", "O"),
    }
    for name, (function, *arguments) in calls.items():
        nested = {"S1": [1.0, Calls(function, *arguments)]}
        path = archive(tmp_path / f"{name}.npz", pickle.dumps(nested, protocol))
        with pytest.raises(
            ValueError, match=rf"needs [\w.]+\.{name}, neither an array.*none of its code was run"
        ):
            safe_pickle.read(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins.exec", "os.popen", "posix.system", "subprocess.Popen", "numpy.load", "numpy.rec.array",
     "numpy._core.multiarray.fromstring", "copyreg._reconstructor", "builtins.object", "_codecs.decode",
     "numpy.testing._private.utils.runstring", "numpy.ndarray.tofile", "torch._utils._rebuild_tensor_v2"],
)  # fmt: skip
def test_unknown_names_in_pickles_are_refused(tmp_path, name):
    path = archive(tmp_path / "a.npz", names(*name.rsplit(".", 1)))
    with pytest.raises(ValueError, match=f"needs {name}"):
        safe_pickle.read(path)


def test_arrays_of_objects_are_not_made_from_bytes(tmp_path):
    """NumPy itself would interpret the eight bytes as the address of an object."""
    kind = np.dtype("O")
    state = (1, (1,), kind, False, b"\x08" * 8)
    empty = np.core.multiarray._reconstruct if not hasattr(np, "_core") else np._core.multiarray._reconstruct

    class Forged:
        def __reduce__(self):
            return empty, (np.ndarray, (0,), b"b"), state

    for protocol in (2, 4):
        path = archive(tmp_path / "a.npz", pickle.dumps(Forged(), protocol))
        with pytest.raises(ValueError, match="array of objects that is not made from a list"):
            safe_pickle.read(path)
    structured = np.zeros(2, [("a", "f4"), ("b", "O")])
    path = archive(tmp_path / "b.npz", pickle.dumps([structured]))
    with pytest.raises(ValueError, match="has values of type 'V"):
        safe_pickle.read(path)
    path = archive(tmp_path / "c.npz", names("numpy", "ndarray"))
    with pytest.raises(ValueError, match="its content is invalid"):
        safe_pickle.read(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL))
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_pickles_of_numpy_1_and_2_are_read(tmp_path, protocol, core):
    content = {
        "S1": {
            "Walking 1": np.arange(24, dtype=np.float32).reshape(2, 4, 3),
            "f": np.asfortranarray(np.eye(3)),
        },
        "metadata": {
            "symmetry": [(1, 2), np.array([3, 4])],
            "name": "h36m",
            "count": np.int64(7),
            "none": None,
        },
        "big": np.arange(3, dtype=">f8"),
        "list": np.array([np.ones(2), {"a": np.float32(1.5)}, "text"], object),
        "text": np.array(["S1", "S11"]),
        "flags": np.array([True, False]),
    }
    pickled = pickle.dumps(np.array(content, object), protocol)
    if protocol < 4:  # stores names as lines; protocol 4 and later with their lengths
        pickled = pickled.replace(b"numpy._core", core.encode())
    elif core == "numpy.core":
        pickled = pickled.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
        pickled = unframed(pickled)
    found = safe_pickle.read(archive(tmp_path / "a.npz", pickled))["positions_3d"]
    assert found["metadata"]["count"] == 7 and found["metadata"]["none"] is None
    np.testing.assert_equal(found["S1"], content["S1"])
    np.testing.assert_equal(found["big"], content["big"])
    np.testing.assert_equal(found["list"][1], content["list"][1])
    np.testing.assert_equal(found["metadata"]["symmetry"], content["metadata"]["symmetry"])
    assert found["text"].tolist() == ["S1", "S11"] and found["flags"].tolist() == [True, False]


def unframed(pickled: bytes) -> bytes:
    """Remove the frames of a pickle, because their lengths have become wrong."""
    pieces, last = [], None
    for opcode, _, place in pickletools.genops(pickled):
        if last is not None:
            pieces.append(pickled[last:place])
        last = place if opcode.name != "FRAME" else None
        if opcode.name == "FRAME":
            last = place + 9
    return b"".join(pieces) + b"."


def test_pickles_of_python_2_are_read(tmp_path):
    """With opcodes for text that Python 3 no longer writes."""
    raw = np.arange(3, dtype="<f4").tobytes()
    pickled = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I3\ntcnumpy\ndtype\n(S'f4'\n"
        b"I0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nU" + bytes([len(raw)]) + raw + b"tb."
    )
    found = safe_pickle.read(archive(tmp_path / "a.npz", pickled))["positions_3d"]
    assert found.tolist() == [0, 1, 2]


def test_the_camera_file_names_its_source_and_units():
    known = json.loads(h36m_3dhp.CAMERAS.read_text())
    assert "Human3.6M" in known["source"] and "millimeters" in known["units"]
    assert set(known["places"]) == set(SUBJECTS)
    views = [view for places in known["places"].values() for view in places.values()]
    views += list(known["lenses"].values())
    for value in (value for view in views for values in view.values() for value in values):
        assert float(np.float32(value)) == value  # published in single precision: detects typing errors
