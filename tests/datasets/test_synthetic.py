"""The embedded dataset: possible bodies, annotations that agree with the picture, seeds that decide."""

import json

import cv2
import numpy as np
import pytest

from posebook import datasets
from posebook.datasets.synthetic import anatomy, bodies, drawing, scenes, surfaces, writing
from posebook.evaluation import metrics

KEY = {name: number for number, name in enumerate(bodies.KEYPOINTS)}
REST = {name: 0.0 for name in anatomy.LIMITS} | {"family": "stand", "pitch": 0.0, "lift": 0.0}


def someone(yaw=180.0, place=(0.0, 3.0), pose=None, seed=3):
    rng = np.random.default_rng(seed)
    return bodies.person(rng, bodies.sample_look(rng), pose or REST, yaw, place)


def scene_of(people, **things):
    camera = scenes.make_camera(1.0, 0.0, 0.0, 260.0)
    return scenes.Scene(camera, people, room={"seed": 0}, **things)


def test_same_seed_same_picture_other_seed_other_picture():
    image, annotations = writing.render(5)
    again, same = writing.render(5)
    other, _ = writing.render(6)
    assert image.shape == (240, 320, 3) and image.dtype == np.uint8
    assert np.array_equal(image, again) and annotations == same
    assert np.abs(image.astype(int) - other).mean() > 5


def test_the_pictures_are_those_of_this_version():
    """Whoever changes what is drawn changes VERSION, and these figures; rounding may differ by machine."""
    image, people = writing.render(0)
    assert writing.VERSION == "posebook-synthetic-1"
    assert image.mean((0, 1)) == pytest.approx([129.77, 126.02, 120.36], abs=0.5)
    boxes = [[64, 0, 71, 232], [56, 0, 80, 97], [0, 0, 73, 139], [160, 56, 97, 140]]
    assert [who["bbox"] for who in people] == [pytest.approx(box, abs=1) for box in boxes]
    assert [who["area"] for who in people] == pytest.approx([8552, 608, 3811, 7674], rel=0.01)
    assert [who["num_keypoints"] for who in people] == [17, 8, 9, 17]
    points = np.array(people[3]["keypoints"]).reshape(17, 3)
    assert points[:3, :2].ravel() == pytest.approx([185, 79, 181, 77, 187, 73], abs=0.51)
    seen = [1, 1, 1, 2, 1, 2, 2, 2, 1, 1, 1, 2, 1, 2, 1, 2, 1]
    assert (points[:, 2] != seen).sum() <= 1  # one joint may lie on the very edge of hidden


def test_angles_stay_within_limits_and_every_family_is_drawn():
    rng = np.random.default_rng(0)
    poses = [anatomy.sample_pose(rng) for _ in range(600)]
    for pose in poses:
        for name, (low, high) in anatomy.LIMITS.items():
            assert low <= pose[name] <= high, (pose["family"], name)
    assert {pose["family"] for pose in poses} == set(anatomy.FAMILIES)


@pytest.mark.parametrize("seed", range(6))
def test_segments_have_the_lengths_of_the_table(seed):
    rng = np.random.default_rng(seed)
    look = bodies.sample_look(rng)
    who = bodies.person(rng, look, anatomy.sample_pose(rng), 40.0)
    for side in ("left", "right"):
        for a, b, segment in (
            ("shoulder", "elbow", "upper_arm"),
            ("elbow", "wrist", "forearm"),
            ("hip", "knee", "thigh"),
            ("knee", "ankle", "shank"),
        ):
            length = np.linalg.norm(who.joints[KEY[f"{side}_{a}"]] - who.joints[KEY[f"{side}_{b}"]])
            assert length / look.stature == pytest.approx(anatomy.TABLE[segment], rel=1e-6)


def test_an_upright_body_is_as_tall_as_its_stature_and_stands_on_the_floor():
    who = someone()
    heights = np.concatenate([part.grid[..., 1].ravel() for part in who.lofts])
    assert heights.min() == pytest.approx(0, abs=1e-5)
    assert heights.max() == pytest.approx(who.stature, rel=0.06)  # hair stands above it
    ankle = who.joints[KEY["left_ankle"], 1] / who.stature
    assert ankle == pytest.approx(
        anatomy.TABLE["foot_height"], abs=0.012
    )  # the pelvis may tilt, soles have corners


def test_left_and_right_are_the_persons_own():
    camera = scenes.make_camera(1.0, 0.0, 0.0, 260.0)
    front, back = camera.project(someone(180.0).joints), camera.project(someone(0.0).joints)
    for part in ("eye", "ear", "shoulder", "hip", "ankle"):
        assert front[KEY[f"left_{part}"], 0] > front[KEY[f"right_{part}"], 0]
        assert back[KEY[f"left_{part}"], 0] < back[KEY[f"right_{part}"], 0]


def test_visibility_is_the_depth_order():
    who = someone()
    plain = scene_of([who])
    (alone,) = writing.annotate(plain, drawing.rasterize(plain))
    points = np.array(alone["keypoints"]).reshape(-1, 3)
    assert (points[:, 2] == 2).all()  # all of a standing person who faces the camera

    # A box before the legs hides knees and ankles and nothing else; behind the legs it hides nothing.
    picture = np.full((8, 8, 4), 255, np.uint8)
    for z, expected in ((2.2, 1), (3.9, 2)):
        boxed = scene_of([who], quads=surfaces.box((0, 0, z), (2.0, 0.75, 0.2), 0.0, [picture]))
        (hidden,) = writing.annotate(boxed, drawing.rasterize(boxed))
        points = np.array(hidden["keypoints"]).reshape(-1, 3)
        for name in ("left_knee", "right_knee", "left_ankle", "right_ankle"):
            assert points[KEY[name], 2] == expected
        assert (points[: KEY["left_knee"], 2] == 2).all()
        assert hidden["num_keypoints"] == 17

    # Too near for the picture: what lies outside is 0, 0, 0.
    close = scene_of([someone(place=(0.0, 1.2))])
    (cut,) = writing.annotate(close, drawing.rasterize(close))
    points = np.array(cut["keypoints"]).reshape(-1, 3)
    assert (points[KEY["left_ankle"]] == 0).all() and (points[KEY["right_ankle"]] == 0).all()
    assert points[KEY["left_hip"], 2] == 2
    assert cut["num_keypoints"] == (points[:, 2] > 0).sum() < 17


def test_the_far_side_of_the_head_is_hidden():
    away = scene_of([someone(0.0)])
    (back,) = writing.annotate(away, drawing.rasterize(away))
    points = np.array(back["keypoints"]).reshape(-1, 3)
    assert (points[[KEY["nose"], KEY["left_eye"], KEY["right_eye"]], 2] == 1).all()
    assert (points[[KEY["left_shoulder"], KEY["right_shoulder"]], 2] == 2).all()
    side = scene_of(
        [someone(90.0)]
    )  # looks along +x, the picture's left: its right side is towards the camera
    (profile,) = writing.annotate(side, drawing.rasterize(side))
    points = np.array(profile["keypoints"]).reshape(-1, 3)
    near, far = ("right", "left") if points[KEY["right_ear"], 2] == 2 else ("left", "right")
    assert points[KEY[f"{near}_ear"], 2] == 2 and points[KEY[f"{far}_ear"], 2] == 1
    assert points[KEY[f"{far}_eye"], 2] == 1


def test_the_nearer_person_is_in_front():
    near, far = someone(place=(0.0, 2.4)), someone(place=(0.35, 3.6), seed=4)
    scene = scene_of([far, near])
    buffers = drawing.rasterize(scene)
    first, second = writing.masks(buffers, 2)
    alone = writing.masks(drawing.rasterize(scene_of([near])), 1)[0]
    assert not (first & second).any()
    assert (second != alone).sum() < 0.01 * alone.sum()  # nobody hides the nearer one
    assert first.sum() < writing.masks(drawing.rasterize(scene_of([far])), 1)[0].sum()


def test_area_box_and_polygons_agree_with_the_mask():
    checked = 0
    for seed in range(5):
        scene = scenes.sample_scene(np.random.default_rng(seed))
        buffers = drawing.rasterize(scene)
        masks = {int(m.sum()): m for m in writing.masks(buffers, len(scene.people))}
        for who in writing.annotate(scene, buffers):
            mask = masks[who["area"]]
            x, y, w, h = who["bbox"]
            inside = mask[y : y + h, x : x + w]
            assert inside.sum() == mask.sum()
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
            filled = np.zeros(scenes.SIZE, np.uint8)
            polygons = [np.array(p).reshape(-1, 2) for p in who["segmentation"]]
            cv2.fillPoly(filled, polygons, 1)
            outside = np.abs(filled.astype(int) - mask).sum()
            assert outside <= 0.35 * who["area"]  # holes and crumbs
            assert (filled[mask] == 1).mean() > 0.97
            checked += 1
    assert checked >= 6


def test_generate_writes_coco_whatever_the_workers_and_only_once(tmp_path):
    writing.generate(tmp_path / "one", 3, 2, seed=7, workers=1)
    writing.generate(tmp_path / "two", 3, 2, seed=7, workers=2)
    for split, count in (("train", 3), ("val", 2)):
        files = [tmp_path / run / "annotations" / f"person_keypoints_{split}.json" for run in ("one", "two")]
        assert files[0].read_bytes() == files[1].read_bytes()
        content = json.loads(files[0].read_text())
        assert len(content["images"]) == count and content["info"]["version"] == writing.VERSION
        assert content["categories"][0]["keypoints"] == list(bodies.KEYPOINTS)
        for image in content["images"]:
            pictures = [(tmp_path / run / split / image["file_name"]).read_bytes() for run in ("one", "two")]
            assert pictures[0] == pictures[1]
            assert cv2.imdecode(np.frombuffer(pictures[0], np.uint8), 1).shape == (240, 320, 3)
        assert len({who["id"] for who in content["annotations"]}) == len(content["annotations"]) > 0
        for who in content["annotations"]:
            points = np.array(who["keypoints"]).reshape(17, 3)
            assert who["image_id"] in {image["id"] for image in content["images"]}
            assert who["iscrowd"] == 0 and who["category_id"] == 1 and who["area"] >= writing.MIN_AREA
            assert set(points[:, 2]) <= {0, 1, 2} and who["num_keypoints"] == (points[:, 2] > 0).sum()
            assert (points[points[:, 2] == 0] == 0).all()
            assert (points[:, 0] <= 319.5).all() and (points[:, 1] <= 239.5).all()

    picture = tmp_path / "one" / "train" / "000000.jpg"
    stamp = picture.stat().st_mtime_ns
    writing.generate(tmp_path / "one", 3, 2, seed=7, workers=1)
    assert picture.stat().st_mtime_ns == stamp
    before = picture.read_bytes()
    writing.generate(tmp_path / "one", 2, 1, seed=8, workers=1)
    assert picture.read_bytes() != before
    assert sorted(p.name for p in picture.parent.iterdir()) == ["000000.jpg", "000001.jpg"]


def test_the_same_people_are_written_with_crowdposes_joints_too(tmp_path):
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
    people = [datasets.load(name, tmp_path, "val") for name in ("synthetic", "synthetic-14")]
    assert [len(some.skeleton.keypoints) for some in people] == [17, 14]
    assert people[1].name == "synthetic-14" and metrics.metric_type(people[1]) == "oks"
    assert [p.bbox for p in people[0].instances] == [p.bbox for p in people[1].instances]


def test_a_folder_drawn_before_there_were_14_joints_is_drawn_again_the_same(tmp_path):
    writing.generate(tmp_path, 1, 1, seed=7, workers=1)
    old, new = (tmp_path / f"annotations/person_keypoints_{name}val.json" for name in ("", "14_"))
    before = old.read_bytes()
    new.unlink()
    with pytest.raises(datasets.DatasetMissing, match="person_keypoints_14_val.json and the folder val/"):
        datasets.load("synthetic-14", tmp_path)
    writing.generate(tmp_path, 1, 1, seed=7, workers=1)
    assert new.is_file() and old.read_bytes() == before


@pytest.mark.parametrize("seed", range(4))
def test_the_crown_and_the_neck_lie_where_a_body_has_them(seed):
    rng = np.random.default_rng(seed)
    look = bodies.sample_look(rng)
    who = bodies.person(rng, look, REST, 30.0)
    crown, neck = who.joints[-2:]
    shoulders, ears, eyes = (
        who.joints[[KEY[f"left_{part}"], KEY[f"right_{part}"]]].mean(0) for part in ("shoulder", "ear", "eye")
    )
    assert shoulders[1] < neck[1] < who.joints[KEY["nose"], 1] < eyes[1] < crown[1]
    assert crown[1] == pytest.approx(who.stature, rel=0.05)
    assert np.linalg.norm((neck - shoulders)[[0, 2]]) < 0.05 * who.stature  # above their middle
    skull = np.concatenate([part.grid.reshape(-1, 3) for part in who.lofts])
    assert np.linalg.norm(skull - crown, axis=1).min() < 0.02 * who.stature
