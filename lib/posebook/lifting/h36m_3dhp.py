"""Human3.6M and MPI-INF-3DHP from the .npz files that lifters have been trained on since VideoPose3D.

Neither may be passed on: who has the files puts them into a folder and names it.

    data_3d_h36m.npz                  positions_3d: {subject: {action: (T, 32 or 17, 3)}}, the world, meters
    data_2d_h36m_gt.npz               positions_2d: {subject: {action: [four of (T, 17, 2)]}}, and metadata
    data_2d_h36m_cpn_ft_h36m_dbb.npz  the same, as a detector (CPN) saw it
    data_train_3dhp.npz               data: {sequence: [{camera: {data_2d, data_3d}}]}, pixels and millimeters
    data_test_3dhp.npz                data: {sequence: {data_2d, data_3d, valid}}

Pavllo et al., CVPR 2019 (Human3.6M); Shan et al. (P-STMO), ECCV 2022 (MPI-INF-3DHP). Read by `pickles`.

1. Human3.6M: subjects 1, 5, 6, 7 and 8 teach, 9 and 11 test; "Walking 1" is of action "Walking"; where the 2D
   and the 3D sequence differ in length both end with the shorter one, and it is said how often.
2. MPI-INF-3DHP: the pose of a frame that the test set calls invalid is NaN. Errors are averaged over frames,
   whatever the person does, so that all clips are of one action. It comes without its cameras' constants.
"""

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from posebook import datasets, paths, skeletons
from posebook.lifting import safe_pickle
from posebook.lifting.camera import Camera
from posebook.lifting.clips import Clip
from posebook.lifting.skeleton import H36M
from posebook.utils import unknown_name_error

CAMERAS = paths.DATA / "h36m_cameras.json"
SUBJECTS = {"train": ("S1", "S5", "S6", "S7", "S8"), "val": ("S9", "S11")}
ACTIONS = 15
# Of the 32 joints of the recordings, those 17 that move by themselves.
KEPT = [joint for joint in range(32) if joint not in (4, 5, 9, 10, 11, 16, *range(20, 25), *range(28, 32))]
DETECTIONS = {"h36m": "data_2d_h36m_cpn_ft_h36m_dbb.npz", "h36m-gt": "data_2d_h36m_gt.npz"}
# MPI-INF-3DHP's seventeen joints in the order of Human3.6M's, and its sequences of 50 frames a second.
FROM_3DHP = [14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]
FAST_3DHP = ("S1 Seq2", "S3 Seq1", "S3 Seq2", "S5 Seq1", "S5 Seq2")
WIDE_3DHP = ("TS5", "TS6")  # of 1920 x 1080 pixels, not 2048 x 2048
NAMES = (*DETECTIONS, "3dhp")
HOW = {
    "h36m": "register at http://vision.imar.ro/human3.6m, then as DATASETS.md of VideoPose3D says",
    "3dhp": "http://vcai.mpi-inf.mpg.de/3dhp-dataset, made into .npz as P-STMO (paTRICK-swk) describes",
}


def load(dataset: str, root: str | Path, split: str) -> list[Clip]:
    """The clips of h36m (its 2D as a detector saw it), h36m-gt (as it was) or 3dhp in a folder; split: train,
    or val, which is what the papers test on.

    Raises ValueError for a name or split it does not know and for files that are not what they must be,
    datasets.DatasetMissing for files that are not there.
    """
    if dataset not in NAMES:
        raise unknown_name_error(dataset, NAMES, "dataset of motion")
    if split not in SUBJECTS:
        raise unknown_name_error(split, SUBJECTS, "split")
    return _3dhp(Path(root), split) if dataset == "3dhp" else _h36m(Path(root), split, DETECTIONS[dataset])


def cameras(subject: str) -> dict[str, Camera]:
    """The four views on a subject of Human3.6M, by the cameras' numbers, in the order of the files."""
    known = _constants()
    if subject not in known["places"]:
        raise ValueError(f"Human3.6M gives no cameras for {subject}, only for {', '.join(known['places'])}")
    views = {}
    for number, place in known["places"][subject].items():
        w, *xyz = place["orientation"]
        rotation = Rotation.from_quat([*xyz, w]).as_matrix().T  # world to camera
        lens = {key: np.array(value) for key, value in known["lenses"][number].items() if key != "size"}
        at = -rotation @ np.array(place["position"]) / 1000
        views[number] = Camera(rotation, at, tuple(known["lenses"][number]["size"]), **lens)
    return views


@cache
def _constants() -> dict:
    return json.loads(CAMERAS.read_text(encoding="utf-8"))


def _read(root: Path, file: str, names: tuple[str, ...], kind: str, layout: str) -> list[dict]:
    """The dictionaries of a file by name."""
    if not (root / file).is_file():
        raise datasets.missing_dataset(root, file, layout, HOW[kind])
    content = safe_pickle.read(root / file)
    return [_dictionary(f"{root / file}, {name}", _entry(root / file, content, name)) for name in names]


def _dictionary(where: object, value: object) -> dict:
    """The value, if it is a dictionary; ValueError otherwise."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} is no dictionary: it is of type {type(value).__name__}")
    return value


def _entry(where: object, holder: object, key: str) -> object:
    """holder[key]; where it is not there ValueError says what is."""
    if key not in _dictionary(where, holder):
        raise ValueError(f"{where} has no {key}; it has {', '.join(map(str, holder)) or 'nothing'}")
    return holder[key]


def _sequence(where: str, values: object, joints: tuple[int, ...], axes: int) -> np.ndarray:
    """Values (T, J, axes) as float32; ValueError for another shape or values that are no numbers."""
    values = np.asarray(values)
    if values.ndim != 3 or values.shape[1] not in joints or values.shape[2] != axes or not len(values):
        wanted = f"(frames, {' or '.join(map(str, joints))} joints, {axes})"
        raise ValueError(f"{where} has the shape {values.shape}, not {wanted}")
    if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise ValueError(f"{where} holds values that are no finite numbers")
    return values.astype(np.float32)


def _pixels(where: str, values: object) -> np.ndarray:
    """Keypoints (T, 17, 3): x, y in pixels, and a score of 1."""
    points = _sequence(where, values, (17,), 2)
    if np.abs(points).max() < 3:
        raise ValueError(f"{where} holds nothing beyond 3: it is normalized, and wanted in pixels")
    return np.concatenate([points, np.ones_like(points[..., :1])], -1)


def _h36m(root: Path, split: str, file: str) -> list[Clip]:
    in_space, layout = root / "data_3d_h36m.npz", f"data_3d_h36m.npz, {file}"
    (poses,) = _read(root, in_space.name, ("positions_3d",), "h36m", layout)
    detected, facts = _read(root, file, ("positions_2d", "metadata"), "h36m", layout)
    _check_symmetry(root / file, facts)
    clips, cut = [], []
    for subject in SUBJECTS[split]:
        actions = _dictionary(f"{in_space}, {subject}", _entry(in_space, poses, subject))
        seen = _entry(root / file, detected, subject)
        for action, world in actions.items():
            world = _sequence(f"{in_space}, {subject} {action}", world, (32, 17), 3)
            if np.abs(world).max() > 100:
                raise ValueError(f"{in_space}, {subject} {action} reaches beyond 100: it is wanted in meters")
            world = world[:, KEPT] if world.shape[1] == 32 else world  # (T, 17, 3)
            what = f"{root / file}, {subject} {action}"
            views = _entry(f"{root / file}, {subject}", seen, action)
            if len(views) != 4:
                raise ValueError(f"{what} has {len(views)} cameras, not 4")
            for view, (number, camera) in zip(views, cameras(subject).items(), strict=True):
                points = _pixels(f"{what}, camera {number}", view)
                length = min(len(points), len(world))
                cut.append(max(len(points), len(world)) - length)
                if cut[-1] > 0.1 * length:
                    raise ValueError(
                        f"{what}, camera {number}: {len(points)} frames, and {len(world)} in 3D: "
                        "they are not of one recording at one frame rate"
                    )
                pose = camera.see(world[:length]).astype(np.float32)
                name, kind = f"{subject} {action} {number}", re.sub(r" \d+$", "", action)
                clips.append(Clip(name, kind, points[:length], pose, camera))
    if any(cut):
        longer = sum(frames > 0 for frames in cut)
        print(f"{longer} of {len(clips)} sequences are longer in 2D or 3D: cut by up to {max(cut)} frames")
    if (count := len({clip.action for clip in clips})) != ACTIONS:
        print(f"{count} of {ACTIONS} actions: means over them are not those of the published protocol")
    return clips


def _check_symmetry(path: Path, facts: dict) -> None:
    """Raise ValueError where the file's left and right joints are not Human3.6M's: it has another order."""
    told = facts.get("keypoints_symmetry")
    if not isinstance(told, list | tuple) or len(told) != 2:
        raise ValueError(f"{path}: metadata has no keypoints_symmetry, the left and the right joints")
    sides = [[int(joint) for joint in side] for side in told]
    if sides != _sides(H36M):
        coco = "; they are COCO's, and posebook.lifting.skeleton.from_coco turns them"
        raise ValueError(
            f"{path} is in another joint order: left {sides[0]} and right {sides[1]}, not {_sides(H36M)[0]} "
            f"and {_sides(H36M)[1]}{coco if sides == _sides(skeletons.get('coco')) else ''}"
        )


def _sides(skeleton: skeletons.Skeleton) -> list[list[int]]:
    return [list(side) for side in zip(*skeleton.flip_pairs, strict=True)]


def _3dhp(root: Path, split: str) -> list[Clip]:
    file = f"data_{'train' if split == 'train' else 'test'}_3dhp.npz"
    (content,) = _read(root, file, ("data",), "3dhp", "data_train_3dhp.npz, data_test_3dhp.npz")
    clips = []
    for sequence, entry in content.items():
        views = {sequence: entry}
        if split == "train":
            held = entry[0] if isinstance(entry, list | tuple) and entry else entry
            held = _dictionary(f"{root / file}, {sequence}", held)
            views = {f"{sequence} {camera}": view for camera, view in held.items()}
        size = (1080, 1920) if sequence in WIDE_3DHP else (2048, 2048)
        camera, fps = Camera(np.eye(3), np.zeros(3), size), 50.0 if sequence in FAST_3DHP else 25.0
        for name, view in views.items():
            what = f"{root / file}, {name}"
            points = _pixels(f"{what}, data_2d", _entry(what, view, "data_2d"))
            pose = _sequence(f"{what}, data_3d", _entry(what, view, "data_3d"), (17,), 3)
            if np.abs(np.diff(pose, axis=1)).max() < 20:
                raise ValueError(f"{what}, data_3d: no joints are 20 apart; it is wanted in millimeters")
            valid = np.ones(len(pose), bool)
            if split == "val":
                valid = np.asarray(_entry(what, view, "valid")).ravel() > 0  # (T,)
            if not len(points) == len(pose) == len(valid):
                counts = f"{len(points)} frames in 2D, {len(pose)} in 3D, and {len(valid)} in valid"
                raise ValueError(f"{what} has {counts}")
            pose = np.where(valid[:, None, None], pose[:, FROM_3DHP] / 1000, np.float32(np.nan))
            clips.append(Clip(name, "all", points[:, FROM_3DHP], pose, camera, fps))
    return clips
