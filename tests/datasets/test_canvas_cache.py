"""Canvas caches: crops equal those of the images, files are checked, and outdated files are written again."""

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
def dataset(tmp_path) -> PoseDataset:
    """Two images with three people: small, large, and partly outside."""
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


def pack(dataset: PoseDataset, folder, format: str = "raw", stages=STAGES) -> canvas_cache.CanvasCache:
    return canvas_cache.open_or_create(dataset, folder, SIZE, stages, format)


@pytest.mark.parametrize("format", canvas_cache.FORMATS)
def test_a_canvas_is_centered_on_the_box(dataset, tmp_path, format):
    cache = pack(dataset, tmp_path, format)
    assert len(cache) == 3 and cache.facts["format"] == format
    sides = [len(cache[i]) for i in range(3)]
    assert sides[0] < cache.side == sides[1]  # the large person is reduced, the small one is not
    assert cache.matrices[0, 0, 0] == 1 and cache.matrices[1, 0, 0] < 1
    for i, person in enumerate(dataset.instances):
        canvas, matrix = cache[i], cache.matrices[i]
        assert canvas.dtype == np.uint8 and canvas.shape == (sides[i], sides[i], 3)
        x, y, w, h = person.bbox
        center = transforms.apply_affine(matrix, np.array([x + w / 2, y + h / 2]))
        assert center == pytest.approx([(sides[i] - 1) / 2] * 2, abs=1)
        assert matrix[0, 0] == matrix[1, 1] and matrix[0, 1] == matrix[1, 0] == 0


def test_a_canvas_without_reduction_copies_the_pixels(dataset, tmp_path):
    cache = pack(dataset, tmp_path)
    canvas, matrix = cache[0], cache.matrices[0]
    image = datasets.read_image(dataset.instances[0].image)
    left, top = (-matrix[:, 2]).astype(int)
    for y in range(len(canvas)):
        for x in range(len(canvas)):
            row, column = y + top, x + left
            inside = 0 <= row < image.shape[0] and 0 <= column < image.shape[1]
            assert (canvas[y, x] == (image[row, column] if inside else 0)).all()


def test_the_matrix_maps_a_spot_to_its_canvas_position(tmp_path):
    """In a reduced canvas, to a hundredth of a canvas pixel."""
    rows, columns = np.indices((600, 600))
    spot = 255 * np.exp(-((columns - 310.3) ** 2 + (rows - 280.7) ** 2) / (2 * 20.0**2))
    image = np.repeat(spot.round().astype(np.uint8)[..., None], 3, -1)
    person = Person(tmp_path, 1, 1, (200.0, 150.0, 150.0, 300.0), 1.0, np.zeros((17, 3)))
    canvas, matrix = canvas_cache.cut_canvas(image, person, SIZE, 60.0, 100)
    assert canvas.shape == (100, 100, 3) and matrix[0, 0] < 0.2
    weights, (y, x) = canvas[..., 0].astype(float), np.indices((100, 100))
    centroid = np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()
    assert centroid == pytest.approx(transforms.apply_affine(matrix, np.array([310.3, 280.7])), abs=0.01)


def test_reduction_does_not_alias():
    """Lines that are thinner than a canvas pixel become gray, not other lines."""
    image = np.zeros((900, 900, 3), np.uint8)
    image[:, ::2] = 255
    person = Person(None, 1, 1, (300.0, 250.0, 300.0, 400.0), 1.0, np.zeros((17, 3)))
    canvas, matrix = canvas_cache.cut_canvas(image, person, SIZE, 40.0, 100)
    assert matrix[0, 0] < 0.25 and np.abs(canvas[20:-20, 20:-20].astype(int) - 127.5).max() < 30


def test_nearly_all_augmented_crops_are_inside():
    reach, rng = canvas_cache.canvas_reach((256, 192), STAGES), np.random.default_rng(0)
    boxes = np.tile([0.0, 0.0, 192.0, 256.0], (5000, 1)) / transforms.PADDING  # scale 1: pixels of the input
    matrices, _ = transforms.random_affine_batch(
        boxes, np.zeros((5000, 17, 3)), skeletons.get("coco"), (256, 192), STAGES[0], rng
    )
    corners = np.array([[0, 0], [192, 0], [0, 256], [192, 256.0]])
    points = np.array([transforms.apply_affine(transforms.invert(matrix), corners) for matrix in matrices])
    center = boxes[0, 2:] / 2
    inside = (np.abs(points - center) <= reach).all((1, 2))  # (5000,)
    assert inside.mean() > 0.95
    mild = replace(STAGES[1], rotation=0, scale=(1, 1))
    assert canvas_cache.canvas_reach((256, 192), (mild,)) == 128  # exactly half the longer side


def real_datasets(test_data) -> dict[str, PoseDataset]:
    lsp = lspet.load(test_data / "lspet", "val")
    return {
        "lspet": replace(lsp, instances=lsp.instances[:40]),
        "coco": coco.load(test_data / "coco_sample", "train2017"),
    }


# Limit of the mean difference to crops from the images, in gray levels. Large COCO people differ more because
# the reduction avoids aliasing.
@pytest.mark.parametrize(
    "name, format, limit",
    [("lspet", "raw", 0.2), ("lspet", "jpeg", 2.0), ("coco", "raw", 1.5), ("coco", "jpeg", 3.5)],
)
def test_crops_of_real_people_equal_those_of_the_images(test_data, tmp_path, name, format, limit):
    dataset = real_datasets(test_data)[name]
    cache = canvas_cache.open_or_create(dataset, tmp_path, (256, 192), STAGES, format)
    recipe = recipes.get("paper")
    from_images = data.TrainDataset(dataset, recipe, 0)
    from_cache = data.TrainDataset(dataset, recipe, 0, cache)
    differences = []
    for i in range(0, len(cache), 3):
        (a, points, weights), (b, points_b, weights_b) = from_images[0, i], from_cache[0, i]
        assert torch.equal(points, points_b) and torch.equal(weights, weights_b)
        differences.append((a.float() - b.float()).abs().mean().item())
    assert np.mean(differences) < limit


@pytest.mark.parametrize("preload", [True, False])
def test_gpu_batches_equal_those_of_the_loader(test_data, tmp_path, preload):
    dataset = real_datasets(test_data)["lspet"]
    recipe = recipes.get("fast", batch_size=9, input_size=[128, 96], epochs=2, stage2_epochs=1)
    cache = canvas_cache.open_or_create(dataset, tmp_path, (128, 96), (recipe.stage1, recipe.stage2), "raw")
    samples = data.TrainDataset(dataset, recipe, 3, cache)
    steps = data.ResumableBatchSampler(samples, first_step=2)
    canvases = cache.tensor("cpu") if preload else None
    pairs = zip(
        data.gpu_batches(samples, steps, "cpu", 0, canvases),
        data.make_loader(data.TrainDataset(dataset, recipe, 3, cache), steps, 0),
        strict=True,
    )
    count = 0
    for device, loader in pairs:
        count += 1
        assert torch.equal(device[1], loader[1]) and torch.equal(device[2], loader[2])
        assert (
            device[0].float() - loader[0].float()
        ).abs().mean() < 0.5  # OpenCV warps in steps of 1/32 pixel
    assert count == 8  # steps 3 to 10


def test_a_cache_is_written_again_only_if_its_source_changes(dataset, tmp_path):
    path = pack(dataset, tmp_path).path
    written = path.stat().st_mtime_ns
    assert pack(dataset, tmp_path).path == path and path.stat().st_mtime_ns == written
    other = replace(dataset.instances[0], bbox=(1.0, 2.0, 30.0, 40.0))
    changed = [
        replace(dataset, instances=dataset.instances[:2]),
        replace(dataset, instances=(other, *dataset.instances[1:])),
        replace(dataset, sha256="1" * 64),
    ]
    for source in changed:
        before = pack(dataset, tmp_path).facts
        assert (after := pack(source, tmp_path)).facts != before
        assert len(after) == len(source.instances) and after.path == path
    pack(dataset, tmp_path)
    before = pack(dataset, tmp_path).facts
    os.utime(dataset.instances[0].image, ns=(1, 1))
    assert pack(dataset, tmp_path).facts != before
    milder = pack(dataset, tmp_path, stages=(STAGES[1],))
    assert milder.side < pack(dataset, tmp_path).side and milder.path.exists()
    assert not list(tmp_path.glob("*.tmp"))


def test_a_failed_write_leaves_no_file(dataset, tmp_path):
    person = replace(dataset.instances[2], image=tmp_path / "a.png")
    broken = tmp_path / "torn.png"
    broken.write_bytes(b"not an image")
    torn = replace(dataset, instances=(person, replace(person, image=broken)))
    with pytest.raises(ValueError, match="torn.png cannot be decoded"):
        pack(torn, tmp_path / "packs")
    assert not list((tmp_path / "packs").iterdir())


def test_damaged_and_foreign_files_are_rejected(dataset, tmp_path):
    path = pack(dataset, tmp_path).path
    valid = path.read_bytes()
    index = len(canvas_cache.MAGIC) + 8 + 32 + 5
    for content, message in [
        (b"", "is not a canvas cache"),
        (b"PK" + valid[2:], "is not a canvas cache"),
        (valid[:30], "the hash of its index is wrong"),
        (valid[:-1], "it has .* bytes, not"),
        (valid + b"0", "it has .* bytes, not"),
        (valid[:index] + b"#" + valid[index + 1 :], "the hash of its index is wrong"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path.name} {message}|{path.name} is damaged: {message}"):
            pack(dataset, tmp_path)
        assert path.read_bytes() == content
    path.write_bytes(valid[:-10] + b"0123456789")
    damaged = pack(dataset, tmp_path)
    _ = damaged[0], damaged[1]
    with pytest.raises(ValueError, match=f"{path.name} is damaged: the hash of canvas 2"):
        damaged[2]


def test_an_unknown_format_is_rejected(dataset, tmp_path):
    with pytest.raises(ValueError, match="is jpeg or raw, not 'png'"):
        pack(dataset, tmp_path, "png")


def test_tensor_holds_all_canvases(dataset, tmp_path):
    for format in canvas_cache.FORMATS:
        cache = pack(dataset, tmp_path, format)
        squares = cache.tensor("cpu")
        assert squares.shape == (3, cache.side, cache.side, 3) and squares.dtype == torch.uint8
        for i, square in enumerate(squares.numpy()):
            canvas = cache[i]
            assert (square[: len(canvas), : len(canvas)] == canvas).all()
            assert not square[len(canvas) :].any() and not square[:, len(canvas) :].any()


def test_pickling_sends_only_the_path(dataset, tmp_path):
    cache = pack(dataset, tmp_path)
    sent = pickle.dumps(cache)
    assert len(sent) < 1000 and (pickle.loads(sent)[1] == cache[1]).all()
