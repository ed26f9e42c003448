"""Annotation files in COCO's format: error messages for invalid entries, and own skeletons."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posebook import datasets, models, skeletons
from posebook.datasets import coco_json, custom, detector_boxes
from posebook.evaluation import metrics


@pytest.mark.parametrize(
    "content, words",
    [
        ({"annotations": []}, "is not a list of boxes"),
        ([{"bbox": [1, 2, 3, 4], "score": 1, "image_id": 785}], "detection 0: category_id is None"),
        ([{"bbox": [1, 2, 3], "score": 1, "image_id": 1, "category_id": 1}], "bbox is .*, not 4 numbers"),
        ([{"bbox": [1, 2, 3, 4], "image_id": 1, "category_id": 1}], "detection 0: score is"),
    ],
)
def test_invalid_detections_are_rejected(made, tmp_path, content, words):
    dataset = datasets.load("synthetic", made())
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        detector_boxes.load_boxes(dataset, tmp_path / "boxes.json")


def test_boxes_without_area_are_skipped_and_reported(made, tmp_path, capsys):
    dataset = datasets.load("synthetic", made())
    boxes = [{"bbox": [1, 2, 30, 40 * i], "score": 0.9, "image_id": i, "category_id": 1} for i in range(5)]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    assert len(detector_boxes.load_boxes(dataset, tmp_path / "boxes.json").instances) == 4
    boxes = [
        {"bbox": [1, 2, 30, 40 * (i - 1)], "score": 0.9, "image_id": i, "category_id": 1} for i in (1, 2)
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    assert len(detector_boxes.load_boxes(dataset, tmp_path / "boxes.json").instances) == 1
    assert "skipping 1 boxes without area in boxes.json" in capsys.readouterr().out
    for threshold in (0.9, 0.95):  # of the same images: the message does not blame the file
        message = f"boxes.json has no box of a person with an area and a score above {threshold}"
        with pytest.raises(ValueError, match=message):
            detector_boxes.load_boxes(dataset, tmp_path / "boxes.json", threshold)


@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda c: c["annotations"][3].update(id=2),
            "annotation at index 3: another annotation already has the id 2",
        ),
        (lambda c: c["images"][3].update(id=2), "image 3: 002.jpg already has the id 2"),
        (lambda c: c["images"][3].update(width=0), "image 3: width is 0, not a positive number"),
        (lambda c: c["images"][3].update(file_name="/etc/x.jpg"), "not a path inside the image folder"),
        (lambda c: c["images"][3].update(file_name="../x.jpg"), "not a path inside the image folder"),
        (lambda c: c["images"][3].pop("file_name"), "image 3: file_name is None, not a string"),
        (lambda c: c["annotations"][3].update(id="4"), "index 3: id is '4', not an integer"),
        (lambda c: c["annotations"][3].update(bbox=[1, 2, 3]), r"annotation 4: bbox is .*, not 4 numbers"),
        (
            lambda c: c["annotations"][3]["keypoints"].__setitem__(5, 7),
            "annotation 4: a visibility is not",
        ),
        (
            lambda c: c["annotations"][3]["keypoints"].__setitem__(0, float("nan")),
            "annotation 4: keypoints is .*nan",
        ),
        (
            lambda c: [a.update(bbox=[5, 5, 0, 9]) for a in c["annotations"]],
            "20 people with a box without area",
        ),
        (
            lambda c: [a["keypoints"].__setitem__(0, 500) for a in c["annotations"]],
            "20 people with joints outside the image, more than 5: annotation 1 .80 x 60 image 001.jpg",
        ),
        (
            lambda c: c["categories"][0].update(keypoints=[*skeletons.get("coco").keypoints[1:], "nose"]),
            "has other joints than coco: joint 0 is left_eye, not nose",
        ),
        (lambda c: c["annotations"][3].update(area=-1), "annotation 4: area is -1, not a number of pixels"),
        (lambda c: c["annotations"][3].update(iscrowd="no"), "index 3: iscrowd is 'no', not 0 or 1"),
        (lambda c: c["annotations"][3].update(num_keypoints=None), "num_keypoints is None, not an integer"),
        (lambda c: c.pop("images"), "it has no lists images and annotations"),
    ],
)
def test_annotations_are_checked_entry_by_entry(made, change, words):
    with pytest.raises(ValueError, match=words):
        datasets.load("synthetic", made(change))


def test_images_of_another_split_are_detected(made):
    root = made()
    for path in (root / "val").glob("*.jpg"):
        path.rename(path.with_name(f"other{path.name}"))
    with pytest.raises(
        ValueError, match="20 of 20 images .* 001.jpg .missing.*: is this the folder of another"
    ):
        datasets.load("synthetic", root)


def test_error_for_a_truncated_file_states_the_position(made):
    root = made()
    path = root / "annotations" / "person_keypoints_val.json"
    path.write_text(path.read_text()[:500])
    with pytest.raises(
        ValueError, match="val.json is not a COCO .* at character .* of 500.* the end of the file is missing"
    ):
        datasets.load("synthetic", root)


PAWS = ["nose", "withers", "LeftFrontPaw", "RightFrontPaw", "paw_l", "paw_r", "tail"]


def with_paws(content):
    """Replace COCO's 17 joints by the 7 joints of a quadruped."""
    content["categories"][0] |= {"name": "cat", "keypoints": PAWS, "skeleton": [[1, 2], [2, 7], [2, 3]]}
    for entry in content["annotations"]:
        entry.update(keypoints=entry["keypoints"][:21], num_keypoints=7)
        del entry["area"]


def test_own_joints_define_the_skeleton(made, tmp_path):
    root = made(with_paws)
    dataset = datasets.load("own", root, "val")
    assert dataset.name == f"own-{root.name}" and dataset.skeleton.keypoints == tuple(PAWS)
    assert dataset.skeleton.flip_pairs == ((2, 3), (4, 5)) and dataset.skeleton.limbs == (
        (0, 1),
        (1, 6),
        (1, 2),
    )
    assert dataset.skeleton.sigmas == pytest.approx([0.067] * 7, abs=1e-3)
    assert dataset.instances[0].area == 40 * 50
    model = models.build("starnet-pose-t", dataset.skeleton, (64, 64))
    models.save_weights(model, tmp_path / "cat.safetensors", "starnet-pose-t", dataset.name)
    assert models.load_weights(tmp_path / "cat.safetensors").skeleton == dataset.skeleton


def test_known_joints_give_the_known_skeleton(made):
    use_coco = lambda c: c["categories"][0].update(keypoints=list(skeletons.get("coco").keypoints))  # noqa: E731
    assert datasets.load("own", made(use_coco), "val").skeleton is skeletons.get("coco")


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda cat: cat.pop("keypoints"), "names no joints: its category must have a list `keypoints`"),
        (lambda cat: cat.update(keypoints=[*PAWS[:-1], "nose"]), "a joint name occurs twice"),
        (
            lambda cat: cat.update(keypoints=[*PAWS[:-1], "left_ear"]),
            "left_ear has no counterpart right_ear",
        ),
        (lambda cat: cat.update(skeleton=[[1, 9]]), "limbs are .*, not pairs of the 7 joints"),
        (lambda cat: cat.update(sigmas=[0.1] * 6), "not a positive number for each of 7 joints"),
        (lambda cat: cat.update(keypoints=[*PAWS[:-1], 5]), "the joint names are"),
    ],
)
def test_invalid_categories_are_rejected(made, change, words):
    def both(content):
        with_paws(content)
        change(content["categories"][0])

    with pytest.raises(ValueError, match=words):
        datasets.load("own", made(both), "val")


def test_missing_own_data_is_reported(tmp_path):
    with pytest.raises(datasets.DatasetMissing, match=r"annotations/val.json \(COCO keypoint format\)"):
        datasets.load("own", tmp_path)


@pytest.mark.parametrize("name", skeletons.SKELETONS)
def test_mirroring_a_name_twice_gives_the_name(name):
    for joint in skeletons.get(name).keypoints:
        other = skeletons.mirrored(joint)
        assert skeletons.mirrored(other) == joint and other in skeletons.get(name).keypoints
        assert (other == joint) == (skeletons.side(joint) == "")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_arbitrary_content_is_read_or_rejected(tmp_path_factory, data):
    """Any changed value in a valid file, and any truncation, gives a dataset or a ValueError."""
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    if not folder.exists():
        (folder / "val").mkdir(parents=True)
        for i in range(3):
            cv2.imwrite(str(folder / "val" / f"{i}.jpg"), np.zeros((60, 80, 3), np.uint8))
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 60, "width": 80} for i in range(3)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 40, 50], "area": 900.0, "iscrowd": 0}
            | {"num_keypoints": 7, "keypoints": [10, 20, 2] * 7}
            for i in range(3)
        ],
        "categories": [
            {"id": 1, "name": "cat", "keypoints": PAWS, "skeleton": [[1, 2]], "sigmas": [0.1] * 7}
        ],
    }
    keys = [[key] for key in content] + [
        [key, i, *rest]
        for key in content
        for i, entry in enumerate(content[key])
        for rest in ([], *([name] for name in entry))
    ]
    for path in data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3)):
        holder = content
        try:
            for step in path[:-1]:
                holder = holder[step]
            holder[path[-1]] = data.draw(values)
        except (KeyError, IndexError, TypeError):
            pass  # an earlier change has replaced the parent
    text = json.dumps(content)
    text = text[: data.draw(st.integers(0, len(text)) | st.just(len(text)))]
    path = folder / "val.json"
    path.write_text(text)
    try:
        read = coco_json.read_annotations(path)
        skeleton = custom.category_skeleton(read, "own-fuzz")
        dataset = coco_json.make_dataset(read, "own-fuzz", "val", folder / "val", skeleton)
        joints = np.stack([person.keypoints[:, :2] for person in dataset.instances])
        result = metrics.score(dataset, metrics.Predictions(joints, np.ones(joints.shape[:2])))
    except ValueError as error:
        assert str(error)
    else:
        people = dataset.instances
        assert people and set(dataset.images) >= {person.image_id for person in people}
        assert all(np.isfinite(person.keypoints).all() and person.area >= 0 for person in people)
        assert 0 <= result["AP"] <= 1


def test_five_files_or_one_percent_may_be_skipped():
    assert [datasets.skip_limit(count) for count in (20, 599, 600, 5000)] == [5, 5, 6, 50]


def test_annotations_of_other_categories_are_not_people(made):
    """A file of people and cars: cars have no joints."""
    joints = list(skeletons.get("coco").keypoints)

    def add_cars(content):
        content["categories"] = [{"id": 2, "name": "car"}, {"id": 1, "name": "person", "keypoints": joints}]
        content["annotations"] += [
            {"id": 99, "image_id": 3, "category_id": 2, "bbox": [0, 0, 9, 9], "area": 81}
        ]

    dataset = custom.load(made(add_cars))
    assert len(dataset.instances) == 20
    assert {entry["id"] for entry in metrics.coco_ground_truth(dataset)["annotations"]} == set(range(1, 21))


def test_categories_with_different_joints_are_rejected(made):
    def add_dogs(content):
        dog = {"id": 2, "name": "dog", "keypoints": ["nose", "tail"]}
        content["categories"] = [{"id": 1, "name": "cat", "keypoints": ["tail", "nose"]}, dog]

    with pytest.raises(
        ValueError, match="the categories cat and dog have different joints; write a file for"
    ):
        custom.load(made(add_dogs))


@pytest.mark.parametrize("area", [0, None])
def test_a_person_without_an_area_has_that_of_the_box(made, area):
    def change(content):
        content["annotations"][3]["area"] = area
        if area is None:
            del content["annotations"][3]["area"]

    dataset = datasets.load("synthetic", made(change))
    assert dataset.instances[3].area == 40 * 50
    assert metrics.coco_ground_truth(dataset)["annotations"][3]["area"] == 40 * 50


def test_images_of_another_size_are_rejected(made):
    """A photograph that the annotation tool turned by its EXIF data."""
    joints = list(skeletons.get("coco").keypoints)

    def change(content):
        content["categories"][0]["keypoints"] = joints
        content["images"][4] |= {"width": 60, "height": 80}

    with pytest.raises(ValueError, match=r"005.jpg is 80 x 60 pixels, not 60 x 80 as in .*EXIF orientation"):
        custom.load(made(change))


@pytest.mark.parametrize("name, sigmas", [("coco", None), ("coco", [0.1] * 17), ("lspet", None)])
def test_own_data_is_scored_with_oks_and_its_own_sigmas(made, name, sigmas):
    known = skeletons.get(name)

    def change(content):
        content["categories"][0]["keypoints"] = list(known.keypoints)
        content["categories"][0] |= {"sigmas": sigmas} if sigmas else {}
        for entry in content["annotations"]:
            entry |= {"keypoints": [10, 20, 2] * len(known.keypoints), "num_keypoints": len(known.keypoints)}

    dataset = custom.load(made(change))
    expected = list(sigmas or known.sigmas or [0.067] * len(known.keypoints))
    assert dataset.metric_type == "oks" and list(dataset.skeleton.sigmas) == pytest.approx(expected, abs=1e-3)
    assert dataset.skeleton.limbs == known.limbs


def test_complete_images_are_not_called_truncated(made, tmp_path):
    """A motion photo has a video behind its end marker; a truncated photograph can have a whole thumbnail."""
    path = made() / "val" / "001.jpg"
    data = path.read_bytes()
    path.write_bytes(data + bytes(9000))
    assert datasets.is_complete_jpeg(path)
    thumbnail = b"\xff\xe1" + (2 + len(data)).to_bytes(2, "big") + data
    path.write_bytes(data[:2] + thumbnail + data[2:] + bytes(9000))
    assert datasets.is_complete_jpeg(path)
    path.write_bytes(data[:2] + thumbnail + data[2:-900])
    assert not datasets.is_complete_jpeg(path)
    cv2.imwrite(str(tmp_path / "image.png"), datasets.read_image(made() / "val" / "002.jpg"))
    assert datasets.is_complete_jpeg((tmp_path / "image.png").rename(tmp_path / "image.jpg"))
