"""Human3.6M and MPI-INF-3DHP from the .npz files that lifters use since VideoPose3D.

Neither dataset may be redistributed: get the files and put them into a folder.

    data_3d_h36m.npz                  positions_3d: {subject: {action: (T, 32 or 17, 3)}}, world axes, meters
    data_2d_h36m_gt.npz               positions_2d: {subject: {action: [four of (T, 17, 2)]}}, and metadata
    data_2d_h36m_cpn_ft_h36m_dbb.npz  the same, as detected by CPN
    data_train_3dhp.npz               data: {sequence: [{camera: {data_2d, data_3d}}]}, pixels and millimeters
    data_test_3dhp.npz                data: {sequence: {data_2d, data_3d, valid}}

Pavllo et al., CVPR 2019 (Human3.6M); Shan et al. (P-STMO), ECCV 2022 (MPI-INF-3DHP).

1. Human3.6M: subjects 1, 5, 6, 7 and 8 are for training, 9 and 11 for testing. "Walking 1" is of the action
   "Walking". If the 2D and 3D sequence differ in length, the longer one is cut at its end; the number of
   these is printed.
2. MPI-INF-3DHP: the pose of a frame that the test set marks as invalid is NaN. Errors are averaged over
   frames regardless of the activity, so all clips have the same action. The files have no camera parameters.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from posebook import datasets, paths, skeletons
from posebook.lifting import safe_pickle
from posebook.lifting.camera import Camera
from posebook.lifting.clips import Clip
from posebook.lifting.skeleton import H36M
from posebook.utils import check_name

CAMERAS = paths.DATA / "h36m_cameras.json"
SUBJECTS = {"train": ("S1", "S5", "S6", "S7", "S8"), "val": ("S9", "S11")}
ACTIONS = 15
# The 17 of the 32 recorded joints that move independently.
KEPT = [joint for joint in range(32) if joint not in (4, 5, 9, 10, 11, 16, *range(20, 25), *range(28, 32))]
DETECTIONS = {"h36m": "data_2d_h36m_cpn_ft_h36m_dbb.npz", "h36m-gt": "data_2d_h36m_gt.npz"}
FROM_3DHP = [14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]  # its joints in Human3.6M's order
FAST_3DHP = ("S1 Seq2", "S3 Seq1", "S3 Seq2", "S5 Seq1", "S5 Seq2")  # 50 frames per second, the others 25
WIDE_3DHP = ("TS5", "TS6")  # 1920 x 1080 pixels, the others 2048 x 2048
NAMES = (*DETECTIONS, "3dhp")
HOW = {
    "h36m": "register at http://vision.imar.ro/human3.6m, then follow DATASETS.md of VideoPose3D",
    "3dhp": "http://vcai.mpi-inf.mpg.de/3dhp-dataset, converted to .npz as P-STMO (paTRICK-swk) describes",
}


def load(dataset: str, root: str | Path, split: str) -> list[Clip]:
    """The clips of h36m (2D joints of a detector), h36m-gt (true 2D joints) or 3dhp in the folder `root`.

    split: train, or val, which the papers use as the test set. Raises ValueError for an unknown name or split
    and for invalid files, datasets.DatasetMissing for missing files.
    """
    check_name(dataset, NAMES, "3D dataset")
    check_name(split, SUBJECTS, "split")
    return _3dhp(Path(root), split) if dataset == "3dhp" else _h36m(Path(root), split, DETECTIONS[dataset])


@cache
def cameras(subject: str) -> dict[str, Camera]:
    """The four cameras of a Human3.6M subject by their serial numbers, in the order of the files."""
    known = json.loads(paths.require(CAMERAS).read_text(encoding="utf-8"))
    if subject not in known["places"]:
        raise ValueError(f"Human3.6M has no cameras for {subject}, only for {', '.join(known['places'])}")
    views = {}
    for number, extrinsics in known["places"][subject].items():
        w, *xyz = extrinsics["orientation"]
        rotation = Rotation.from_quat([*xyz, w]).as_matrix().T  # world to camera
        translation = -rotation @ np.array(extrinsics["position"]) / 1000  # millimeters to meters
        lens = {key: tuple(value) for key, value in known["lenses"][number].items()}
        views[number] = Camera(
            rotation, translation, lens["size"], np.array(lens["focal"]), np.array(lens["center"]),
            lens["radial"], lens["tangential"],
        )  # fmt: skip
    return views


def _read(root: Path, file: str, names: tuple[str, ...], dataset: str, layout: str) -> list[dict]:
    """The dictionaries of a file by their names; layout: the files that the folder needs."""
    if not (root / file).is_file():
        raise datasets.missing_dataset(root, file, layout, HOW[dataset])
    content = safe_pickle.read(root / file)
    return [_dictionary(f"{root / file}, {name}", _entry(root / file, content, name)) for name in names]


def _dictionary(where: object, value: Any) -> dict:
    """The value; raises ValueError if it is not a dictionary."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not a dictionary but of type {type(value).__name__}")
    return value


def _entry(where: object, container: Any, key: str) -> Any:
    """container[key]; raises ValueError that lists the available keys."""
    if key not in _dictionary(where, container):
        raise ValueError(f"{where} has no {key}; it has {', '.join(map(str, container)) or 'nothing'}")
    return container[key]


def _sequence(where: str, values: Any, joints: tuple[int, ...], axes: int) -> np.ndarray:
    """Values (T, J, axes) as float32; raises ValueError for another shape or values that are not finite."""
    values = np.asarray(values)
    if values.ndim != 3 or values.shape[1] not in joints or values.shape[2] != axes or not len(values):
        expected = f"(frames, {' or '.join(map(str, joints))} joints, {axes})"
        raise ValueError(f"{where} has the shape {values.shape}, not {expected}")
    if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise ValueError(f"{where} has values that are not finite numbers")
    return values.astype(np.float32)


def _pixels(where: str, values: Any) -> np.ndarray:
    """Keypoints (T, 17, 3): x, y in pixels, and a score of 1."""
    points = _sequence(where, values, (17,), 2)
    if np.abs(points).max() < 3:
        raise ValueError(f"{where} has no value above 3: it is normalized, but must be in pixels")
    return np.concatenate([points, np.ones_like(points[..., :1])], -1)


def _h36m(root: Path, split: str, file: str) -> list[Clip]:
    path_3d, path_2d, layout = root / "data_3d_h36m.npz", root / file, f"data_3d_h36m.npz, {file}"
    (poses,) = _read(root, path_3d.name, ("positions_3d",), "h36m", layout)
    detections, metadata = _read(root, file, ("positions_2d", "metadata"), "h36m", layout)
    _check_symmetry(path_2d, metadata)
    clips, cut = [], []
    for subject in SUBJECTS[split]:
        actions = _dictionary(f"{path_3d}, {subject}", _entry(path_3d, poses, subject))
        subject_2d = _entry(path_2d, detections, subject)
        for action, world in actions.items():
            world = _sequence(f"{path_3d}, {subject} {action}", world, (32, 17), 3)
            if np.abs(world).max() > 100:
                raise ValueError(f"{path_3d}, {subject} {action} has values above 100: it must be in meters")
            world = world[:, KEPT] if world.shape[1] == 32 else world  # (T, 17, 3)
            where = f"{path_2d}, {subject} {action}"
            views = _entry(f"{path_2d}, {subject}", subject_2d, action)
            if len(views) != 4:
                raise ValueError(f"{where} has {len(views)} cameras, not 4")
            for view, (number, camera) in zip(views, cameras(subject).items(), strict=True):
                points = _pixels(f"{where}, camera {number}", view)
                length = min(len(points), len(world))
                cut.append(max(len(points), len(world)) - length)
                if cut[-1] > 0.1 * length:
                    raise ValueError(
                        f"{where}, camera {number}: {len(points)} frames in 2D, but {len(world)} in 3D: "
                        "these are different recordings or frame rates"
                    )
                pose = camera.world_to_camera(world[:length]).astype(np.float32)
                name, base_action = f"{subject} {action} {number}", re.sub(r" \d+$", "", action)
                clips.append(Clip(name, base_action, points[:length], pose, camera))
    if any(cut):
        number = f"{sum(frames > 0 for frames in cut)} of {len(clips)} sequences"
        print(f"{number} differ in length between 2D and 3D: cut by up to {max(cut)} frames")
    if (count := len({clip.action for clip in clips})) != ACTIONS:
        print(f"{count} of {ACTIONS} actions: means over actions do not follow the published protocol")
    return clips


def _check_symmetry(path: Path, metadata: dict) -> None:
    """Raise ValueError if the file's left and right joints are not Human3.6M's: its joint order differs."""
    symmetry = metadata.get("keypoints_symmetry")
    if not isinstance(symmetry, list | tuple) or len(symmetry) != 2:
        raise ValueError(f"{path}: metadata has no keypoints_symmetry, the left and the right joints")
    sides = [[int(joint) for joint in side] for side in symmetry]
    if sides != _sides(H36M):
        is_coco = sides == _sides(skeletons.get("coco"))
        hint = "; this is COCO's order, which posebook.lifting.skeleton.from_coco converts" if is_coco else ""
        raise ValueError(
            f"{path} has another joint order: left {sides[0]} and right {sides[1]}, not {_sides(H36M)[0]} "
            f"and {_sides(H36M)[1]}{hint}"
        )


def _sides(skeleton: skeletons.Skeleton) -> list[list[int]]:
    return [list(side) for side in zip(*skeleton.flip_pairs, strict=True)]


def _3dhp(root: Path, split: str) -> list[Clip]:
    file = f"data_{'train' if split == 'train' else 'test'}_3dhp.npz"
    (content,) = _read(root, file, ("data",), "3dhp", "data_train_3dhp.npz, data_test_3dhp.npz")
    clips = []
    for sequence, entry in content.items():
        views = {sequence: entry}
        if split == "train":  # one view for each camera
            entry = entry[0] if isinstance(entry, list | tuple) and entry else entry
            entry = _dictionary(f"{root / file}, {sequence}", entry)
            views = {f"{sequence} {camera}": view for camera, view in entry.items()}
        size = (1080, 1920) if sequence in WIDE_3DHP else (2048, 2048)
        camera, fps = Camera(np.eye(3), np.zeros(3), size), 50.0 if sequence in FAST_3DHP else 25.0
        for name, view in views.items():
            where = f"{root / file}, {name}"
            points = _pixels(f"{where}, data_2d", _entry(where, view, "data_2d"))
            pose = _sequence(f"{where}, data_3d", _entry(where, view, "data_3d"), (17,), 3)
            if np.abs(np.diff(pose, axis=1)).max() < 20:
                raise ValueError(f"{where}, data_3d: no joints are 20 apart: it must be in millimeters")
            valid = np.ones(len(pose), bool)
            if split == "val":
                valid = np.asarray(_entry(where, view, "valid")).ravel() > 0  # (T,)
            if not len(points) == len(pose) == len(valid):
                counts = f"{len(points)} frames in 2D, {len(pose)} in 3D, and {len(valid)} in valid"
                raise ValueError(f"{where} has {counts}")
            pose = np.where(valid[:, None, None], pose[:, FROM_3DHP] / 1000, np.float32(np.nan))
            clips.append(Clip(name, "all", points[:, FROM_3DHP], pose, camera, fps))
    return clips
