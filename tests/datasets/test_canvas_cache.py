"""Packed canvases: the same crops as from the pictures; whole, checked, and made again when they must be."""

import os
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from posebook import datasets, skeletons, transforms
from posebook.datasets import Person, PoseDataset, canvas_cache, coco, lspet
from posebook.training import data, recipes
from posebook.training.recipes import STARNET_POSE

SIZE = (64, 48)
STAGES = (STARNET_POSE.stage1, STARNET_POSE.stage2)


@pytest.fixture
def people(tmp_path) -> PoseDataset:
    """Two pictures, three people: far off, near, and half outside."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        noise = cv2.resize(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), (300, 200))
        cv2.imwrite(str(path), noise)
    boxes = [(100.0, 60.0, 20.0, 40.0), (60.0, 10.0, 120.0, 180.0), (-30.0, 100.0, 60.0, 90.0)]
    persons = []
    for number, (box, path) in enumerate(zip(boxes, (paths[0], paths[0], paths[1]), strict=True)):
        points = np.array(box[:2]) + rng.random((17, 2)) * box[2:]
        joints = np.hstack([points, np.full((17, 1), 2.0)])
        persons.append(Person(path, number, number, box, 100.0, joints))
    annotations = tmp_path / "people.json"
    return PoseDataset("made", "train", skeletons.get("coco"), "0" * 64, tuple(persons), annotations)


def pack(people: PoseDataset, folder, format: str = "raw", stages=STAGES) -> canvas_cache.CanvasCache:
    return canvas_cache.open_or_create(people, folder, SIZE, stages, format)


@pytest.mark.parametrize("format", canvas_cache.FORMATS)
def test_a_canvas_is_the_picture_about_the_box(people, tmp_path, format):
    found = pack(people, tmp_path, format)
    assert len(found) == 3 and found.facts["format"] == format
    sides = [len(found[i]) for i in range(3)]
    assert sides[0] < found.side == sides[1]  # the near one is shrunk, the far one is not
    assert found.matrices[0, 0, 0] == 1 and found.matrices[1, 0, 0] < 1
    for i, person in enumerate(people.instances):
        canvas, matrix = found[i], found.matrices[i]
        assert canvas.dtype == np.uint8 and canvas.shape == (sides[i], sides[i], 3)
        x, y, w, h = person.bbox
        middle = transforms.apply_affine(matrix, np.array([x + w / 2, y + h / 2]))
        assert middle == pytest.approx([(sides[i] - 1) / 2] * 2, abs=1)
        assert matrix[0, 0] == matrix[1, 1] and matrix[0, 1] == matrix[1, 0] == 0


def test_what_is_not_shrunk_is_cut_out_pixel_by_pixel(people, tmp_path):
    found = pack(people, tmp_path)
    canvas, matrix = found[0], found.matrices[0]
    image = datasets.read_image(people.instances[0].image)
    left, top = (-matrix[:, 2]).astype(int)
    for y in range(len(canvas)):
        for x in range(len(canvas)):
            row, column = y + top, x + left
            inside = 0 <= row < image.shape[0] and 0 <= column < image.shape[1]
            assert (canvas[y, x] == (image[row, column] if inside else 0)).all()


def test_a_spot_lies_where_the_matrix_says(tmp_path):
    """Of a shrunk canvas, to a hundredth of its pixels."""
    rows, columns = np.indices((600, 600))
    spot = 255 * np.exp(-((columns - 310.3) ** 2 + (rows - 280.7) ** 2) / (2 * 20.0**2))
    image = np.repeat(spot.round().astype(np.uint8)[..., None], 3, -1)
    person = Person(tmp_path, 1, 1, (200.0, 150.0, 150.0, 300.0), 1.0, np.zeros((17, 3)))
    canvas, matrix = canvas_cache.cut_canvas(image, person, SIZE, 60.0, 100)
    assert canvas.shape == (100, 100, 3) and matrix[0, 0] < 0.2
    weights, (y, x) = canvas[..., 0].astype(float), np.indices((100, 100))
    found = np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()
    assert found == pytest.approx(transforms.apply_affine(matrix, np.array([310.3, 280.7])), abs=0.01)


def test_what_shrinks_does_not_alias():
    """Lines finer than a canvas pixel become gray, not other lines."""
    image = np.zeros((900, 900, 3), np.uint8)
    image[:, ::2] = 255
    person = Person(None, 1, 1, (300.0, 250.0, 300.0, 400.0), 1.0, np.zeros((17, 3)))
    canvas, matrix = canvas_cache.cut_canvas(image, person, SIZE, 40.0, 100)
    assert matrix[0, 0] < 0.25 and np.abs(canvas[20:-20, 20:-20].astype(int) - 127.5).max() < 30


def test_nearly_all_augmented_crops_lie_inside():
    half, rng = canvas_cache.canvas_reach((256, 192), STAGES), np.random.default_rng(0)
    boxes = np.tile([0.0, 0.0, 192.0, 256.0], (5000, 1)) / transforms.PADDING  # scale 1: an input's pixels
    matrices, _ = transforms.random_affine_batch(
        boxes, np.zeros((5000, 17, 3)), skeletons.get("coco"), (256, 192), STAGES[0], rng
    )
    corners = np.array([[0, 0], [192, 0], [0, 256], [192, 256.0]])
    places = np.array([transforms.apply_affine(transforms.invert(matrix), corners) for matrix in matrices])
    center = boxes[0, 2:] / 2
    inside = (np.abs(places - center) <= half).all((1, 2))  # (5000,)
    assert inside.mean() > 0.95
    mild = replace(STAGES[1], rotation=0, scale=(1, 1))
    assert canvas_cache.canvas_reach((256, 192), (mild,)) == 128  # half the longer side, and no more


def near(test_data) -> dict[str, PoseDataset]:
    lsp = lspet.load(test_data / "lspet", "val")
    return {
        "lspet": replace(lsp, instances=lsp.instances[:40]),
        "coco": coco.load(test_data / "coco_sample", "train2017"),
    }


# mean gray levels by which crops differ from the pictures' own; large COCO people are shrunk without aliasing
@pytest.mark.parametrize(
    "name, format, most",
    [("lspet", "raw", 0.2), ("lspet", "jpeg", 2.0), ("coco", "raw", 1.5), ("coco", "jpeg", 3.5)],
)
def test_crops_of_real_people_are_those_of_their_pictures(test_data, tmp_path, name, format, most):
    people = near(test_data)[name]
    found = canvas_cache.open_or_create(people, tmp_path, (256, 192), STAGES, format)
    recipe = recipes.get("paper")
    plain = data.TrainDataset(people, recipe, 0)
    quick = data.TrainDataset(people, recipe, 0, found)
    differences = []
    for i in range(0, len(found), 3):
        (a, points, weights), (b, points_b, weights_b) = plain[0, i], quick[0, i]
        assert torch.equal(points, points_b) and torch.equal(weights, weights_b)
        differences.append((a.float() - b.float()).abs().mean().item())
    assert np.mean(differences) < most


@pytest.mark.parametrize("held", [True, False])
def test_a_devices_batches_are_those_of_the_loader(test_data, tmp_path, held):
    people = near(test_data)["lspet"]
    recipe = recipes.get("fast", batch_size=9, input_size=[128, 96], epochs=2, stage2_epochs=1)
    found = canvas_cache.open_or_create(people, tmp_path, (128, 96), (recipe.stage1, recipe.stage2), "raw")
    drawn = data.TrainDataset(people, recipe, 3, found)
    steps = data.ResumableBatchSampler(drawn, first_step=2)
    whole = found.tensor("cpu") if held else None
    pairs = zip(
        data.gpu_batches(drawn, steps, "cpu", 0, whole),
        data.make_loader(data.TrainDataset(people, recipe, 3, found), steps, 0),
        strict=True,
    )
    count = 0
    for device, loader in pairs:
        count += 1
        assert torch.equal(device[1], loader[1]) and torch.equal(device[2], loader[2])
        assert (device[0].float() - loader[0].float()).abs().mean() < 0.5  # OpenCV warps in 32nds of a pixel
    assert count == 8  # of ten steps, from the third on


def test_it_is_made_once_and_again_when_its_source_changes(people, tmp_path):
    path = pack(people, tmp_path).path
    written = path.stat().st_mtime_ns
    assert pack(people, tmp_path).path == path and path.stat().st_mtime_ns == written
    other = replace(people.instances[0], bbox=(1.0, 2.0, 30.0, 40.0))
    changed = [
        replace(people, instances=people.instances[:2]),
        replace(people, instances=(other, *people.instances[1:])),
        replace(people, sha256="1" * 64),
    ]
    for source in changed:
        before = pack(people, tmp_path).facts
        assert (after := pack(source, tmp_path)).facts != before
        assert len(after) == len(source.instances) and after.path == path
    pack(people, tmp_path)
    before = pack(people, tmp_path).facts
    os.utime(people.instances[0].image, ns=(1, 1))
    assert pack(people, tmp_path).facts != before
    milder = pack(people, tmp_path, stages=(STAGES[1],))
    assert milder.side < pack(people, tmp_path).side and milder.path.exists()
    assert not list(tmp_path.glob("*.tmp"))


def test_a_broken_write_leaves_nothing(people, tmp_path):
    lost = replace(people.instances[2], image=tmp_path / "a.png")
    broken = tmp_path / "torn.png"
    broken.write_bytes(b"no picture")
    torn = replace(people, instances=(lost, replace(lost, image=broken)))
    with pytest.raises(ValueError, match="torn.png cannot be decoded"):
        pack(torn, tmp_path / "packs")
    assert not list((tmp_path / "packs").iterdir())


def test_torn_and_foreign_files_are_refused(people, tmp_path):
    path = pack(people, tmp_path).path
    whole = path.read_bytes()
    index = len(canvas_cache.MAGIC) + 8 + 32 + 5
    for content, message in [
        (b"", "is no file of packed canvases"),
        (b"PK" + whole[2:], "is no file of packed canvases"),
        (whole[:30], "its index is not what was written"),
        (whole[:-1], "is torn"),
        (whole + b"0", "is torn"),
        (whole[:index] + b"#" + whole[index + 1 :], "its index is not what was written"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path.name} {message}|{path.name} is damaged: {message}"):
            pack(people, tmp_path)
        assert path.read_bytes() == content
    path.write_bytes(whole[:-10] + b"0123456789")
    damaged = pack(people, tmp_path)
    _ = damaged[0], damaged[1]
    with pytest.raises(ValueError, match=f"{path.name} is damaged: entry 2"):
        damaged[2]


def test_another_format_is_refused(people, tmp_path):
    with pytest.raises(ValueError, match="packed as jpeg or raw, not as 'png'"):
        pack(people, tmp_path, "png")


def test_all_of_it_as_one_tensor(people, tmp_path):
    for format in canvas_cache.FORMATS:
        found = pack(people, tmp_path, format)
        whole = found.tensor("cpu")
        assert whole.shape == (3, found.side, found.side, 3) and whole.dtype == torch.uint8
        for i, square in enumerate(whole.numpy()):
            canvas = found[i]
            assert (square[: len(canvas), : len(canvas)] == canvas).all()
            assert not square[len(canvas) :].any() and not square[:, len(canvas) :].any()


def test_another_process_gets_the_name_and_not_the_bytes(people, tmp_path):
    found = pack(people, tmp_path)
    sent = pickle.dumps(found)
    assert len(sent) < 1000 and (pickle.loads(sent)[1] == found[1]).all()
