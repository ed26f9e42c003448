"""The bundled synthetic dataset: bodies within limits, annotations that match the image, seeds."""

import json

import cv2
import numpy as np
import pytest

from posebook import datasets
from posebook.datasets.synthetic import anatomy, bodies, drawing, occlusion, scenes, surfaces, writing

KEY = {name: number for number, name in enumerate(bodies.KEYPOINTS)}
REST = {name: 0.0 for name in anatomy.LIMITS} | {"family": "stand", "pitch": 0.0, "lift": 0.0}


def make_person(yaw=180.0, position=(0.0, 3.0), pose=None, seed=3):
    rng = np.random.default_rng(seed)
    return bodies.person(rng, bodies.sample_look(rng), pose or REST, yaw, position)


def make_scene(people, **objects):
    camera = scenes.make_camera(1.0, 0.0, 0.0, 260.0)
    return scenes.Scene(camera, people, room={"seed": 0}, **objects)


def test_the_seed_determines_the_image():
    image, annotations = writing.render(5)
    same_image, same_annotations = writing.render(5)
    other_image, _ = writing.render(6)
    assert image.shape == (240, 320, 3) and image.dtype == np.uint8
    assert np.array_equal(image, same_image) and annotations == same_annotations
    assert np.abs(image.astype(int) - other_image).mean() > 5


def test_the_images_match_the_version():
    """If you change the images, change VERSION and these numbers. Rounding may differ between machines."""
    image, people = writing.render(0)
    assert writing.VERSION == "posebook-synthetic-1"
    assert image.mean((0, 1)) == pytest.approx([129.77, 126.02, 120.36], abs=0.5)
    boxes = [[64, 0, 71, 232], [56, 0, 80, 97], [0, 0, 73, 139], [160, 56, 97, 140]]
    assert [person["bbox"] for person in people] == [pytest.approx(box, abs=1) for box in boxes]
    assert [person["area"] for person in people] == pytest.approx([8552, 608, 3811, 7674], rel=0.01)
    assert [person["num_keypoints"] for person in people] == [17, 8, 9, 17]
    points = np.array(people[3]["keypoints"]).reshape(17, 3)
    assert points[:3, :2].ravel() == pytest.approx([185, 79, 181, 77, 187, 73], abs=0.51)
    visibility = [1, 1, 1, 2, 1, 2, 2, 2, 1, 1, 1, 2, 1, 2, 1, 2, 1]
    assert (points[:, 2] != visibility).sum() <= 1  # one joint may be on the border of visible


def test_angles_are_within_limits_and_every_family_occurs():
    rng = np.random.default_rng(0)
    poses = [anatomy.sample_pose(rng) for _ in range(600)]
    for pose in poses:
        for name, (low, high) in anatomy.LIMITS.items():
            assert low <= pose[name] <= high, (pose["family"], name)
    assert {pose["family"] for pose in poses} == set(anatomy.FAMILIES)


def test_generate_refuses_a_folder_with_another_dataset(tmp_path):
    (tmp_path / "train").mkdir()
    photograph = tmp_path / "train" / "im00001.jpg"
    photograph.write_bytes(b"a photograph")
    with pytest.raises(FileExistsError, match="another dataset.*im00001.jpg"):
        writing.generate(tmp_path, 1, 1)
    photograph.rename(tmp_path / "train" / "000001.jpg")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "person_keypoints_val.json").write_text('{"info": {}}')
    with pytest.raises(FileExistsError, match="another dataset.*person_keypoints_val"):
        writing.generate(tmp_path, 1, 1)
    assert (tmp_path / "train" / "000001.jpg").read_bytes() == b"a photograph"
    (tmp_path / "annotations" / "person_keypoints_val.json").unlink()
    with pytest.raises(FileExistsError, match="another dataset.*000001.jpg"):  # without any annotation
        writing.generate(tmp_path, 1, 1)
    (tmp_path / "annotations" / "train.json").write_text('{"info": {}}')  # a user's own data
    with pytest.raises(FileExistsError, match="another dataset.*train.json"):
        writing.generate(tmp_path, 1, 1)
    assert (tmp_path / "train" / "000001.jpg").read_bytes() == b"a photograph"


def test_an_interrupted_rendering_is_continued(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_annotations", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            writing.generate(tmp_path, 1, 1, workers=1)
    (tmp_path / "train" / "000009.jpg").touch()
    writing.generate(tmp_path, 1, 1, workers=1)
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["000000.jpg"]


def test_images_are_rendered_again_without_their_annotations(tmp_path):
    """Snakemake removes the annotation files before it runs the rule that writes them."""
    writing.generate(tmp_path, 1, 1, workers=1)
    for path in (tmp_path / "annotations").iterdir():
        path.unlink()
    writing.generate(tmp_path, 1, 1, workers=1)
    assert datasets.load("synthetic", tmp_path).instances


def test_another_rendering_removes_the_occluded_split(tmp_path):
    writing.generate(tmp_path, 1, 1, workers=1)
    occlusion.write_occluded(tmp_path)
    writing.generate(tmp_path, 1, 1, seed=1, workers=1)
    with pytest.raises(datasets.DatasetMissing, match="--occluded"):
        datasets.load("synthetic", tmp_path, "val_occluded")


@pytest.mark.parametrize("seed", range(6))
def test_segment_lengths_match_the_table(seed):
    rng = np.random.default_rng(seed)
    look = bodies.sample_look(rng)
    person = bodies.person(rng, look, anatomy.sample_pose(rng), 40.0)
    for side in ("left", "right"):
        for a, b, segment in (
            ("shoulder", "elbow", "upper_arm"),
            ("elbow", "wrist", "forearm"),
            ("hip", "knee", "thigh"),
            ("knee", "ankle", "shank"),
        ):
            length = np.linalg.norm(person.joints[KEY[f"{side}_{a}"]] - person.joints[KEY[f"{side}_{b}"]])
            assert length / look.stature == pytest.approx(anatomy.TABLE[segment], rel=1e-6)


def test_an_upright_body_is_as_tall_as_its_stature_and_stands_on_the_floor():
    person = make_person()
    heights = np.concatenate([loft.grid[..., 1].ravel() for loft in person.lofts])
    assert heights.min() == pytest.approx(0, abs=1e-5)
    assert heights.max() == pytest.approx(person.stature, rel=0.06)  # hair adds to the height
    ankle = person.joints[KEY["left_ankle"], 1] / person.stature
    # The tolerance allows for a tilted pelvis and for the corners of the soles.
    assert ankle == pytest.approx(anatomy.TABLE["foot_height"], abs=0.012)


def test_left_and_right_are_from_the_persons_view():
    camera = scenes.make_camera(1.0, 0.0, 0.0, 260.0)
    front, back = camera.project(make_person(180.0).joints), camera.project(make_person(0.0).joints)
    for joint in ("eye", "ear", "shoulder", "hip", "ankle"):
        assert front[KEY[f"left_{joint}"], 0] > front[KEY[f"right_{joint}"], 0]
        assert back[KEY[f"left_{joint}"], 0] < back[KEY[f"right_{joint}"], 0]


def test_visibility_follows_the_depth_order():
    person = make_person()
    scene = make_scene([person])
    (alone,) = writing.annotate(scene, drawing.rasterize(scene))
    points = np.array(alone["keypoints"]).reshape(-1, 3)
    assert (points[:, 2] == 2).all()  # the person stands and faces the camera

    # A box in front of the legs hides only knees and ankles. A box behind the legs hides nothing.
    texture = np.full((8, 8, 4), 255, np.uint8)
    for z, expected in ((2.2, 1), (3.9, 2)):
        boxed = make_scene([person], quads=surfaces.box((0, 0, z), (2.0, 0.75, 0.2), 0.0, [texture]))
        (hidden,) = writing.annotate(boxed, drawing.rasterize(boxed))
        points = np.array(hidden["keypoints"]).reshape(-1, 3)
        for name in ("left_knee", "right_knee", "left_ankle", "right_ankle"):
            assert points[KEY[name], 2] == expected
        assert (points[: KEY["left_knee"], 2] == 2).all()
        assert hidden["num_keypoints"] == 17

    # The person is too close to fit into the image: joints outside it are 0, 0, 0.
    close = make_scene([make_person(position=(0.0, 1.2))])
    (cut,) = writing.annotate(close, drawing.rasterize(close))
    points = np.array(cut["keypoints"]).reshape(-1, 3)
    assert (points[KEY["left_ankle"]] == 0).all() and (points[KEY["right_ankle"]] == 0).all()
    assert points[KEY["left_hip"], 2] == 2
    assert cut["num_keypoints"] == (points[:, 2] > 0).sum() < 17


def test_the_far_side_of_the_head_is_hidden():
    away = make_scene([make_person(0.0)])
    (back,) = writing.annotate(away, drawing.rasterize(away))
    points = np.array(back["keypoints"]).reshape(-1, 3)
    assert (points[[KEY["nose"], KEY["left_eye"], KEY["right_eye"]], 2] == 1).all()
    assert (points[[KEY["left_shoulder"], KEY["right_shoulder"]], 2] == 2).all()
    # The person looks along +x, to the left of the image: the right side faces the camera.
    side = make_scene([make_person(90.0)])
    (profile,) = writing.annotate(side, drawing.rasterize(side))
    points = np.array(profile["keypoints"]).reshape(-1, 3)
    near, far = ("right", "left") if points[KEY["right_ear"], 2] == 2 else ("left", "right")
    assert points[KEY[f"{near}_ear"], 2] == 2 and points[KEY[f"{far}_ear"], 2] == 1
    assert points[KEY[f"{far}_eye"], 2] == 1


def test_the_nearer_person_is_in_front():
    near, far = make_person(position=(0.0, 2.4)), make_person(position=(0.35, 3.6), seed=4)
    scene = make_scene([far, near])
    buffers = drawing.rasterize(scene)
    first, second = writing.masks(buffers, 2)
    alone = writing.masks(drawing.rasterize(make_scene([near])), 1)[0]
    assert not (first & second).any()
    assert (second != alone).sum() < 0.01 * alone.sum()  # the nearer person is not hidden
    assert first.sum() < writing.masks(drawing.rasterize(make_scene([far])), 1)[0].sum()


def test_area_box_and_polygons_match_the_mask():
    checked = 0
    for seed in range(5):
        scene = scenes.sample_scene(np.random.default_rng(seed))
        buffers = drawing.rasterize(scene)
        masks = {int(m.sum()): m for m in writing.masks(buffers, len(scene.people))}
        for annotation in writing.annotate(scene, buffers):
            mask = masks[annotation["area"]]
            x, y, w, h = annotation["bbox"]
            inside = mask[y : y + h, x : x + w]
            assert inside.sum() == mask.sum()
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
            filled = np.zeros(scenes.SIZE, np.uint8)
            polygons = [np.array(p).reshape(-1, 2) for p in annotation["segmentation"]]
            cv2.fillPoly(filled, polygons, 1)
            difference = np.abs(filled.astype(int) - mask).sum()
            assert difference <= 0.35 * annotation["area"]  # holes and tiny regions
            assert (filled[mask] == 1).mean() > 0.97
            checked += 1
    assert checked >= 6


def test_generate_writes_coco_files_once_and_independently_of_the_workers(tmp_path):
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    writing.generate(tmp_path / "one", 3, 2, seed=7, workers=1)
    assert cv2.getNumThreads() == 2  # the caller's setting
    cv2.setNumThreads(before)
    writing.generate(tmp_path / "two", 3, 2, seed=7, workers=2)
    for split, count in (("train", 3), ("val", 2)):
        files = [tmp_path / run / "annotations" / f"person_keypoints_{split}.json" for run in ("one", "two")]
        assert files[0].read_bytes() == files[1].read_bytes()
        content = json.loads(files[0].read_text())
        assert len(content["images"]) == count and content["info"]["version"] == writing.VERSION
        assert content["categories"][0]["keypoints"] == list(bodies.KEYPOINTS)
        for image in content["images"]:
            one, two = ((tmp_path / run / split / image["file_name"]).read_bytes() for run in ("one", "two"))
            assert one == two
            assert cv2.imdecode(np.frombuffer(one, np.uint8), 1).shape == (240, 320, 3)
        assert len({entry["id"] for entry in content["annotations"]}) == len(content["annotations"]) > 0
        for entry in content["annotations"]:
            points = np.array(entry["keypoints"]).reshape(17, 3)
            assert entry["image_id"] in {image["id"] for image in content["images"]}
            assert entry["iscrowd"] == 0 and entry["category_id"] == 1 and entry["area"] >= writing.MIN_AREA
            assert set(points[:, 2]) <= {0, 1, 2} and entry["num_keypoints"] == (points[:, 2] > 0).sum()
            assert (points[points[:, 2] == 0] == 0).all()
            assert (points[:, 0] <= 319.5).all() and (points[:, 1] <= 239.5).all()

    first = tmp_path / "one" / "train" / "000000.jpg"
    modified = first.stat().st_mtime_ns
    writing.generate(tmp_path / "one", 3, 2, seed=7, workers=1)
    assert first.stat().st_mtime_ns == modified
    before = first.read_bytes()
    writing.generate(tmp_path / "one", 2, 1, seed=8, workers=1)
    assert first.read_bytes() != before
    assert sorted(p.name for p in first.parent.iterdir()) == ["000000.jpg", "000001.jpg"]


def test_the_same_people_are_written_with_the_joints_of_crowdpose(tmp_path):
    writing.generate(tmp_path, 3, 2, seed=7, workers=1)
    for split in ("train", "val"):
        coco = json.loads((tmp_path / f"annotations/person_keypoints_{split}.json").read_text())
        crowd = json.loads((tmp_path / f"annotations/person_keypoints_14_{split}.json").read_text())
        assert coco["images"] == crowd["images"] and coco["info"] == crowd["info"]
        assert crowd["categories"][0]["keypoints"][-2:] == ["head", "neck"]
        for one, other in zip(coco["annotations"], crowd["annotations"], strict=True):
            assert other["keypoints"][:36] == one["keypoints"][15:] and len(other["keypoints"]) == 42
            assert other["num_keypoints"] == sum(v > 0 for v in other["keypoints"][2::3])
            assert {k: v for k, v in one.items() if "keypoints" not in k} == {
                k: v for k, v in other.items() if "keypoints" not in k
            }
    coco, crowd = (datasets.load(name, tmp_path, "val") for name in ("synthetic", "synthetic-14"))
    assert len(coco.skeleton.keypoints) == 17 and len(crowd.skeleton.keypoints) == 14
    assert crowd.name == "synthetic-14" and crowd.metric_type == "oks"
    assert [p.bbox for p in coco.instances] == [p.bbox for p in crowd.instances]


def test_a_folder_without_the_14_joints_is_rendered_again_with_the_same_result(tmp_path):
    writing.generate(tmp_path, 1, 1, seed=7, workers=1)
    old, new = (tmp_path / f"annotations/person_keypoints_{name}val.json" for name in ("", "14_"))
    before = old.read_bytes()
    new.unlink()
    with pytest.raises(datasets.DatasetMissing, match="person_keypoints_14_val.json and the folder val/"):
        datasets.load("synthetic-14", tmp_path)
    writing.generate(tmp_path, 1, 1, seed=7, workers=1)
    assert new.is_file() and old.read_bytes() == before


@pytest.mark.parametrize("seed", range(4))
def test_crown_and_neck_are_at_anatomical_positions(seed):
    rng = np.random.default_rng(seed)
    look = bodies.sample_look(rng)
    person = bodies.person(rng, look, REST, 30.0)
    crown, neck = person.joints[-2:]
    shoulders, eyes = (
        person.joints[[KEY[f"left_{joint}"], KEY[f"right_{joint}"]]].mean(0) for joint in ("shoulder", "eye")
    )
    assert shoulders[1] < neck[1] < person.joints[KEY["nose"], 1] < eyes[1] < crown[1]
    assert crown[1] == pytest.approx(person.stature, rel=0.05)
    assert (
        np.linalg.norm((neck - shoulders)[[0, 2]]) < 0.05 * person.stature
    )  # above the middle of the shoulders
    points = np.concatenate([loft.grid.reshape(-1, 3) for loft in person.lofts])
    assert np.linalg.norm(points - crown, axis=1).min() < 0.02 * person.stature
