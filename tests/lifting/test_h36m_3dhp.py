"""Human3.6M and MPI-INF-3DHP from small files in their layout, and pickles that want more than arrays."""

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
    """Somebody near the room's middle, and what four cameras see of it, in the files' layout."""
    rng = np.random.default_rng(seed)
    world, seen = {}, {}
    for subject in SUBJECTS:
        world[subject], seen[subject] = {}, {}
        for action in ("Walking 1", "Walking", "SittingDown 2"):
            joints = (rng.uniform(-1, 1, (frames, 32, 3)) + [0, 0, 1]).astype(np.float32)
            world[subject][action] = joints
            cameras = h36m_3dhp.cameras(subject).values()
            seen[subject][action] = [
                camera.project(camera.see(joints[:, h36m_3dhp.KEPT])) for camera in cameras
            ]
    return world, seen


def write(root, world, seen, metadata=METADATA, kind="gt"):
    root.mkdir(exist_ok=True)
    np.savez_compressed(root / "data_3d_h36m.npz", positions_3d=world)
    np.savez_compressed(root / f"data_2d_h36m_{kind}.npz", positions_2d=seen, metadata=metadata)
    return root


@pytest.fixture
def files(tmp_path):
    return write(tmp_path / "h36m", *recording())


def test_clips_are_what_the_cameras_see(files, capsys):
    clips = h36m_3dhp.load("h36m-gt", files, "train")
    assert len(clips) == 5 * 3 * 4
    assert {clip.action for clip in clips} == {"Walking", "SittingDown"}
    assert clips[0].name == "S1 Walking 1 54138969" and clips[0].fps == 50
    for clip in clips[:8]:
        assert clip.keypoints.shape == clip.pose.shape == (30, 17, 3)
        assert clip.pose[..., 2].min() > 2  # meters before the camera
        assert clip.camera.project(clip.pose) == pytest.approx(clip.keypoints[..., :2], abs=0.05)
        assert clip_inputs(clip).abs().max() < 3
        assert clip_targets(clip)[:, 0].abs().max() == 0
    assert "2 of 15 actions" in capsys.readouterr().out
    assert {clip.name.split()[0] for clip in h36m_3dhp.load("h36m-gt", files, "val")} == {"S9", "S11"}


def test_seventeen_joints_are_taken_as_they_are(files, tmp_path):
    world, seen = recording()
    chosen = {
        s: {a: joints[:, h36m_3dhp.KEPT] for a, joints in actions.items()} for s, actions in world.items()
    }
    few = h36m_3dhp.load("h36m", write(tmp_path / "few", chosen, seen, kind="cpn_ft_h36m_dbb"), "val")
    for clip, other in zip(few, h36m_3dhp.load("h36m-gt", files, "val"), strict=True):
        np.testing.assert_array_equal(clip.pose, other.pose)


def test_the_kept_joints_are_seventeen_of_32():
    assert h36m_3dhp.KEPT == [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]


def test_the_shorter_of_2d_and_3d_ends_both_and_it_is_said(tmp_path, capsys):
    world, seen = recording()
    seen["S9"]["Walking"][2] = seen["S9"]["Walking"][2][:-2]
    seen["S11"]["Walking"][0] = np.concatenate([seen["S11"]["Walking"][0]] + [seen["S11"]["Walking"][0][:1]])
    clips = h36m_3dhp.load("h36m-gt", write(tmp_path / "h36m", world, seen), "val")
    lengths = {clip.name: len(clip.pose) for clip in clips}
    assert lengths["S9 Walking 58860488"] == 28 and sorted(set(lengths.values())) == [28, 30]
    assert all(len(clip.keypoints) == len(clip.pose) for clip in clips)
    assert "2 of 24 sequences are longer in 2D or 3D: cut by up to 2 frames" in capsys.readouterr().out


def test_cameras_stand_around_the_room_and_look_into_it():
    for subject in SUBJECTS:
        views = h36m_3dhp.cameras(subject)
        assert list(views) == ["54138969", "55011271", "58860488", "60457274"]
        for camera in views.values():
            assert np.linalg.det(camera.rotation) == pytest.approx(1, abs=1e-6)
            at = -camera.rotation.T @ camera.translation
            assert 1.4 < at[2] < 1.7 and 4 < np.linalg.norm(at) < 6  # meters
            assert camera.rotation[2] @ -at / np.linalg.norm(at) > 0.98  # forward is inwards
            assert camera.rotation[1, 2] < -0.9  # down is down
    with pytest.raises(ValueError, match="no cameras for S2, only for S1, S5"):
        h36m_3dhp.cameras("S2")


def test_the_lenses_are_those_of_real_frames(test_data):
    """Four real frames whose joints are known in space and on the picture, each with its camera's number."""
    sample = np.load(test_data / "samples" / "h36m" / "test_h36m_body3d.npz")
    for name, pixels, joints in zip(sample["imgname"], sample["part"], sample["S"], strict=True):
        number = re.search(r"\.(\d{8})_", name)[1]
        camera = h36m_3dhp.cameras("S1")[number]  # a lens is the same on all subjects
        assert camera.project(joints[:, :3]) == pytest.approx(pixels[:, :2], abs=0.25)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda w, s: w.pop("S9"), "data_3d_h36m.npz has no S9; it has S1, S5"),
        (lambda w, s: s.pop("S11"), "data_2d_h36m_gt.npz has no S11; it has S1"),
        (lambda w, s: s["S9"].pop("Walking"), "data_2d_h36m_gt.npz, S9 has no Walking; it has Walking 1"),
        (lambda w, s: s["S9"]["Walking"].pop(), "S9 Walking has 3 cameras, not 4"),
        (lambda w, s: w.update(S9=[1]), "data_3d_h36m.npz, S9 is no dictionary: it is of type list"),
        (lambda w, s: s["S9"].update(Walking=[np.ones((30, 16, 2))] * 4),
         r"54138969 has the shape \(30, 16, 2\), not \(frames, 17 joints, 2\)"),
        (lambda w, s: w["S9"].update(Walking=np.ones((30, 25, 3))),
         r"S9 Walking has the shape \(30, 25, 3\), not \(frames, 32 or 17 joints, 3\)"),
        (lambda w, s: w["S9"].update(Walking=w["S9"]["Walking"] * 1000), "wanted in meters"),
        (lambda w, s: s["S9"].update(Walking=[v / 1000 for v in s["S9"]["Walking"]]), "wanted in pixels"),
        (lambda w, s: w["S9"].update(Walking=w["S9"]["Walking"] * np.nan), "no finite numbers"),
        (lambda w, s: s["S9"].update(Walking=[v[::2] for v in s["S9"]["Walking"]]),
         "15 frames, and 30 in 3D: they are not of one recording at one frame rate"),
    ],
)  # fmt: skip
def test_files_that_are_not_what_they_must_be(tmp_path, change, words):
    world, seen = recording()
    change(world, seen)
    with pytest.raises(ValueError, match=words):
        h36m_3dhp.load("h36m-gt", write(tmp_path / "h36m", world, seen), "val")


def test_2d_in_another_order_is_told_by_its_sides(tmp_path):
    world, seen = recording()
    coco = {"keypoints_symmetry": [[1, 3, 5, 7, 9, 11, 13, 15], [2, 4, 6, 8, 10, 12, 14, 16]]}
    with pytest.raises(ValueError, match=r"another joint order: left \[1, 3, .*COCO's, and .*from_coco"):
        h36m_3dhp.load("h36m-gt", write(tmp_path / "h36m", world, seen, coco), "val")
    swapped = {"keypoints_symmetry": [RIGHT, LEFT]}
    with pytest.raises(ValueError, match=r"another joint order: left \[1, 2, 3, 14, 15, 16\]") as told:
        h36m_3dhp.load("h36m-gt", write(tmp_path / "h36m", world, seen, swapped), "val")
    assert "COCO" not in str(told.value)
    with pytest.raises(ValueError, match="metadata has no keypoints_symmetry"):
        h36m_3dhp.load("h36m-gt", write(tmp_path / "h36m", world, seen, {}), "val")


def test_names_and_folders_nobody_knows(tmp_path):
    with pytest.raises(ValueError, match="unknown dataset of motion 'h36m-cpn'; did you mean h36m"):
        h36m_3dhp.load("h36m-cpn", tmp_path, "val")
    with pytest.raises(ValueError, match="unknown split 'test'; did you mean"):
        h36m_3dhp.load("h36m-gt", tmp_path, "test")
    with pytest.raises(DatasetMissing, match="data_3d_h36m.npz is not in .*\n.*gt.npz\nTo get it: register"):
        h36m_3dhp.load("h36m-gt", tmp_path, "val")
    with pytest.raises(DatasetMissing, match="data_test_3dhp.npz is not in .*"):
        h36m_3dhp.load("3dhp", tmp_path, "val")


def test_a_git_lfs_pointer_is_called_one(files):
    (files / "data_3d_h36m.npz").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 153173\n"
    )
    with pytest.raises(ValueError, match="data_3d_h36m.npz is a Git LFS pointer.*git lfs pull"):
        h36m_3dhp.load("h36m-gt", files, "val")


def test_a_file_that_is_no_npz_or_not_all_of_one(files):
    whole = (files / "data_3d_h36m.npz").read_bytes()
    for content in (b"<html>", b"", whole[: len(whole) // 2]):
        (files / "data_3d_h36m.npz").write_bytes(content)
        with pytest.raises(ValueError, match="is not an .npz file, or not all of one"):
            h36m_3dhp.load("h36m-gt", files, "val")
    np.savez(files / "data_3d_h36m.npz", something=np.ones(3))
    with pytest.raises(ValueError, match="data_3d_h36m.npz has no positions_3d; it has something"):
        h36m_3dhp.load("h36m-gt", files, "val")
    np.savez(files / "data_3d_h36m.npz", positions_3d=np.ones(3))
    with pytest.raises(ValueError, match="positions_3d is no dictionary: it is of type ndarray"):
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


def test_3dhp_in_the_order_of_human36m(tmp_path):
    write_3dhp(tmp_path, "train")
    clips = h36m_3dhp.load("3dhp", tmp_path, "train")
    assert [(clip.name, clip.fps) for clip in clips] == [
        ("S1 Seq1 0", 25),
        ("S1 Seq1 8", 25),
        ("S1 Seq2 4", 50),
    ]
    raw = safe_pickle.read(tmp_path / "data_train_3dhp.npz")["data"]["S1 Seq2"][0]["4"]
    order = ["head", "thorax", *(f"right_{j}" for j in ("shoulder", "elbow", "wrist"))]
    order += [
        *(f"left_{j}" for j in ("shoulder", "elbow", "wrist")),
        *(f"right_{j}" for j in ("hip", "knee", "ankle")),
    ]
    order += [*(f"left_{j}" for j in ("hip", "knee", "ankle")), "hip", "spine", "nose"]
    for joint, name in enumerate(H36M.keypoints):
        theirs = order.index(name)
        assert clips[2].pose[:, joint] * 1000 == pytest.approx(raw["data_3d"][:, theirs], rel=1e-5)
        assert clips[2].keypoints[:, joint, :2] == pytest.approx(raw["data_2d"][:, theirs])


def test_3dhp_frames_that_do_not_count_and_cameras_of_which_nothing_is_known(tmp_path):
    write_3dhp(tmp_path, "test")
    first, last = h36m_3dhp.load("3dhp", tmp_path, "val")
    assert np.isfinite(first.pose).all((1, 2)).sum() == 4
    assert first.camera.size == (2048, 2048) and last.camera.size == (1080, 1920)
    with pytest.raises(ValueError, match="this camera has no intrinsics"):
        first.camera.project(first.pose)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda e: e.pop("data_2d"), "TS1 has no data_2d; it has data_3d, valid"),
        (lambda e: e.pop("valid"), "TS1 has no valid"),
        (lambda e: e.update(data_3d=e["data_3d"] / 1000), "it is wanted in millimeters"),
        (lambda e: e.update(data_3d=e["data_3d"][1:]), "20 frames in 2D, 19 in 3D, and 20 in valid"),
        (lambda e: e.update(data_2d=np.ones((20, 28, 2))), "not .frames, 17 joints, 2"),
    ],
)
def test_3dhp_files_that_are_not_what_they_must_be(tmp_path, change, words):
    write_3dhp(tmp_path, "test", change)
    with pytest.raises(ValueError, match=words):
        h36m_3dhp.load("3dhp", tmp_path, "val")


def archive(path, pickled: bytes):
    """An .npz file with one array of one object, whose pickle is this."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("positions_3d.npy", header.getvalue() + pickled)
    return path


class Calls:
    """Pickles into a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def names(module: str, name: str) -> bytes:
    """A pickle that asks for a name and calls it without anything."""
    return f"c{module}\n{name}\n)R.".encode()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_something_is_refused_by_name_and_runs_nothing(tmp_path, protocol):
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
        with pytest.raises(ValueError, match=rf"asks for [\w.]+\.{name}, no array.*nothing of it was run"):
            safe_pickle.read(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins.exec", "os.popen", "posix.system", "subprocess.Popen", "numpy.load", "numpy.rec.array",
     "numpy._core.multiarray.fromstring", "copyreg._reconstructor", "builtins.object", "_codecs.decode",
     "numpy.testing._private.utils.runstring", "numpy.ndarray.tofile", "torch._utils._rebuild_tensor_v2"],
)  # fmt: skip
def test_no_other_name_is_known(tmp_path, name):
    path = archive(tmp_path / "a.npz", names(*name.rsplit(".", 1)))
    with pytest.raises(ValueError, match=f"asks for {name}"):
        safe_pickle.read(path)


def test_an_array_of_objects_is_made_of_no_bytes(tmp_path):
    """NumPy itself would take the eight bytes for an object's address."""
    kind = np.dtype("O")
    state = (1, (1,), kind, False, b"\x08" * 8)
    empty = np.core.multiarray._reconstruct if not hasattr(np, "_core") else np._core.multiarray._reconstruct

    class Forged:
        def __reduce__(self):
            return empty, (np.ndarray, (0,), b"b"), state

    for protocol in (2, 4):
        path = archive(tmp_path / "a.npz", pickle.dumps(Forged(), protocol))
        with pytest.raises(ValueError, match="array of objects that is no list of them"):
            safe_pickle.read(path)
    structured = np.zeros(2, [("a", "f4"), ("b", "O")])
    path = archive(tmp_path / "b.npz", pickle.dumps([structured]))
    with pytest.raises(ValueError, match="holds values of type 'V"):
        safe_pickle.read(path)
    path = archive(tmp_path / "c.npz", names("numpy", "ndarray"))
    with pytest.raises(ValueError, match="makes no sense"):
        safe_pickle.read(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL))
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_what_numpy_of_either_kind_has_written_is_read(tmp_path, protocol, core):
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
    if protocol < 4:  # names stand there as lines; from 4 on with their lengths
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
    """A pickle without frames, whose lengths no longer fit."""
    pieces, last = [], None
    for opcode, _, place in pickletools.genops(pickled):
        if last is not None:
            pieces.append(pickled[last:place])
        last = place if opcode.name != "FRAME" else None
        if opcode.name == "FRAME":
            last = place + 9
    return b"".join(pieces) + b"."


def test_what_python_2_has_written_is_read(tmp_path):
    """Text and bytes are one there: opcodes that Python 3 no longer writes."""
    raw = np.arange(3, dtype="<f4").tobytes()
    pickled = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I3\ntcnumpy\ndtype\n(S'f4'\n"
        b"I0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nU" + bytes([len(raw)]) + raw + b"tb."
    )
    found = safe_pickle.read(archive(tmp_path / "a.npz", pickled))["positions_3d"]
    assert found.tolist() == [0, 1, 2]


def test_the_cameras_say_where_they_are_from():
    known = json.loads(h36m_3dhp.CAMERAS.read_text())
    assert "Human3.6M" in known["source"] and "millimeters" in known["units"]
    assert set(known["places"]) == set(SUBJECTS)
    views = [view for places in known["places"].values() for view in places.values()]
    views += list(known["lenses"].values())
    for value in (value for view in views for values in view.values() for value in values):
        assert float(np.float32(value)) == value  # published in single precision: a slip of a digit shows
