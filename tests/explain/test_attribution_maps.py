"""Attribution maps against computations by hand and captum; the attribution notebook."""

import ast

import cv2
import matplotlib
import nbformat
import numpy as np
import pytest
import torch
from attribution_helpers import BINS, SIZE

from helpers import ROOT
from posebook import models, skeletons
from posebook.explain import attribution
from posebook.models.starnet_pose import StarNet

WEIGHTS = "data/weights/starnet-pose-t-synthetic.safetensors"


@pytest.mark.parametrize("name", ["starnet-pose-s", "amfacpose-r18", "lapx", "rtmpose-t"])
def test_grad_cam_has_a_default_layer_for_the_papers_models(name, images):
    model = models.build(name, input_size=SIZE)
    assert attribution.LAYERS[type(model).__name__] in dict(model.named_modules())


def test_smooth_gradients_without_noise_are_gradient_times_input(model, images):
    target = attribution.JointTarget(model, "nose")
    inputs = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target(inputs, BINS).sum(), inputs)
    maps = attribution.smooth_gradients(target, images, BINS, noise=1e-9, samples=2)
    torch.testing.assert_close(maps, (gradient * images).sum(1), atol=1e-4, rtol=1e-2)


def test_smooth_gradients_are_reproducible_and_restore_the_generator(model, images):
    target = attribution.JointTarget(model, "nose")
    state = torch.get_rng_state()
    first, second = (attribution.smooth_gradients(target, images, BINS, samples=2, seed=4) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(torch.get_rng_state(), state)


def test_occlusion_is_the_mean_over_the_squares_that_cover_a_pixel(model, images):
    target, window = attribution.JointTarget(model, "nose"), 32
    maps = attribution.occlusion_map(target, images, BINS, window=window, batch_size=3)
    by_hand, covered = torch.zeros(2, *SIZE), torch.zeros(SIZE)
    with torch.no_grad():
        full = target(images, BINS)
        for row in range(0, 33, 16):
            for column in range(0, 33, 16):
                occluded = images.clone()
                square = slice(row, row + window), slice(column, column + window)
                occluded[:, :, *square] = 0
                by_hand[:, *square] += (full - target(occluded, BINS))[:, None, None]
                covered[square] += 1
    torch.testing.assert_close(maps, by_hand / covered, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("fixture", ["model", "lapx"])
def test_part_ablation_is_captums_feature_ablation_for_each_joint(request, fixture, images):
    from captum.attr import FeatureAblation

    model = request.getfixturevalue(fixture)
    part_map = torch.zeros(2, *SIZE, dtype=torch.long)
    part_map[0, :20], part_map[0, 20:40], part_map[1, :, 30:] = 1, 2, 6
    bins = torch.randint(0, 16, (2, 17, 2), generator=torch.Generator().manual_seed(5))
    decreases = attribution.part_ablation(model, images, bins, part_map)  # (2, 17, 7)
    assert decreases.shape == (2, 17, 7)
    for joint in (0, 9):
        target = attribution.JointTarget(model, model.skeleton.keypoints[joint])
        mask = part_map[:, None].expand(-1, 3, -1, -1)
        by_captum = FeatureAblation(target).attribute(
            images, baselines=0, additional_forward_args=bins[:, joint], feature_mask=mask
        )[:, 0]
        for image, part in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 6)):
            pixels = by_captum[image][part_map[image] == part]
            torch.testing.assert_close(
                decreases[image, joint, part].expand_as(pixels), pixels, atol=1e-4, rtol=1e-3
            )
    assert decreases[0, :, 3:].isnan().all() and decreases[1, :, 1:6].isnan().all()


def standing_person(skeleton) -> np.ndarray:
    """Joints (K, 3) of a standing person who faces the camera, by their names."""
    offsets = {"ankle": (8, 110), "knee": (8, 90), "hip": (7, 65), "wrist": (22, 62), "elbow": (18, 48)}
    offsets |= {"shoulder": (12, 30), "eye": (3, 12), "ear": (6, 14), "nose": (0, 15), "neck": (0, 26)}
    offsets |= {"head": (0, 5), "thorax": (0, 30), "pelvis": (0, 65)}
    joints = []
    for name in skeleton.keypoints:
        across, down = next(offset for word, offset in offsets.items() if word in name)
        joints.append([48 + across * {"left": 1, "right": -1, "": 0}[skeletons.side(name)], down, 2])
    return np.array(joints, float)


@pytest.mark.parametrize("name", ["coco", "mpii", "lspet", "crowdpose"])
def test_body_parts_are_at_their_joints(name):
    skeleton = skeletons.get(name)
    joints = standing_person(skeleton)
    part_map = attribution.body_part_masks(joints, skeleton, (128, 96))
    assert part_map.shape == (128, 96) and set(np.unique(part_map)) == set(range(7))
    expected = {"left_wrist": "left arm", "right_elbow": "right arm", "left_knee": "left leg"}
    expected |= {"right_ankle": "right leg"}
    for joint, part in expected.items():
        x, y = joints[skeleton.keypoints.index(joint), :2].astype(int)
        assert attribution.PARTS[part_map[y, x]] == part
    assert attribution.PARTS[part_map[48, 48]] == "trunk" and attribution.PARTS[part_map[12, 48]] == "head"
    assert part_map[0, 0] == 0


def test_body_parts_ignore_joints_that_are_not_labeled():
    skeleton = skeletons.get("coco")
    joints = standing_person(skeleton)
    joints[[i for i, name in enumerate(skeleton.keypoints) if "left" in name], 2] = 0
    part_map = attribution.body_part_masks(joints, skeleton, (128, 96))
    assert not {attribution.PARTS.index("left arm"), attribution.PARTS.index("left leg")} & set(
        np.unique(part_map)
    )
    assert not attribution.body_part_masks(joints * [1, 1, 0], skeleton, (128, 96)).any()


def test_a_cell_is_centered_on_a_multiple_of_its_stride():
    model = StarNet(8, (0, 0, 0, 0), "none", ())  # five strided convolutions and no blocks
    image = torch.randn(1, 3, 160, 160, requires_grad=True)
    model.eval()(image)[0, :, 2, 3].sum().backward()
    rows, columns = (image.grad[0].abs().sum(0).sum(axis).nonzero().squeeze(1) for axis in (1, 0))
    assert (rows.min() + rows.max()) / 2 == 2 * 32
    assert (columns.min() + columns.max()) / 2 == 3 * 32


def test_a_cell_of_lapx_is_centered_between_the_pixels_that_were_pooled(lapx):
    """Up to the end of the stem, without the attention, which depends on all pixels."""
    image = torch.randn(1, 3, 96, 96, requires_grad=True)
    cells = lapx.maxpool(lapx.layer1(lapx.elu(lapx.bn1(lapx.conv1(image)))))
    cells[0, :, 10, 12].sum().backward()
    rows, columns = (image.grad[0].abs().sum(0).sum(axis).nonzero().squeeze(1) for axis in (1, 0))
    first = attribution.first_cell_center(lapx, 4)
    assert (rows.min() + rows.max()) / 2 == 4 * 10 + first
    assert (columns.min() + columns.max()) / 2 == 4 * 12 + first


def test_shuffle_weights_shuffles_a_copy(model, images):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shuffled = attribution.shuffle_weights(model, seed=3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} of the original changed"
    for (name, original), changed in zip(model.named_parameters(), shuffled.parameters(), strict=True):
        if name.endswith("f1.conv.bias"):
            assert torch.equal(original.sort().values, changed.sort().values), (
                f"{name} has other values than before"
            )
        if original.ndim > 1:
            assert not torch.equal(original, changed), f"{name} is unchanged"
    repeated = attribution.shuffle_weights(model, seed=3)
    with torch.no_grad():
        assert torch.equal(shuffled(images).x, repeated(images).x)
        assert not torch.allclose(shuffled(images).x, model(images).x)


def test_capture_activations_returns_inputs_and_outputs(model, images):
    activations = attribution.capture_activations(model, images, ["backbone.stem", "head.cls_x"])
    assert torch.equal(activations["backbone.stem"][0], images)
    with torch.no_grad():
        assert torch.equal(activations["head.cls_x"][1], model(images).x)
    assert not model.backbone.stem._forward_hooks
    with pytest.raises(ValueError, match=r"layer of StarNetPose 'backbone.stam'.*backbone\.stem"):
        attribution.capture_activations(model, images, ["backbone.stam"])


def test_unknown_names_suggest_close_matches(model, images):
    with pytest.raises(ValueError, match=r"layer of StarNetPose 'backbone.stage.3'.*backbone\.stages\.3"):
        attribution.grad_cam(attribution.JointTarget(model, "nose"), images, BINS, layer="backbone.stage.3")
    with pytest.raises(ValueError, match=r"joint of coco 'left_wirst'.*left_wrist"):
        attribution.JointTarget(model, "left_wirst")


def test_model_without_default_layer_is_an_error():
    model = models.build("hrnet-w32", input_size=(64, 64))
    with pytest.raises(ValueError, match="HRNet has no default layer: name one, such as "):
        attribution.find_layer(model)


def run_notebook(name: str, monkeypatch, **parameters: object) -> None:
    """Run the code of a notebook in this process, up to its first error, with these parameters."""
    monkeypatch.chdir(ROOT)
    matplotlib.use("Agg")
    scope = {}
    code = [c for c in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells if c.cell_type == "code"]
    with matplotlib.rc_context():  # the notebook sets a style, which would change the plots of later tests
        for cell in code:
            exec(compile(ast.parse(cell.source), name, "exec"), scope)
            if "parameters" in cell.metadata.get("tags", []):
                assert parameters.keys() <= scope.keys()
                scope |= parameters


def test_notebook_raises_without_a_person(small, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"no person to explain: no \[999\] in synthetic val"):
        run_notebook("attribution", monkeypatch, data_root=str(small), people=[999])
    empty_image = tmp_path / "wall.png"
    cv2.imwrite(str(empty_image), np.random.default_rng(0).integers(90, 120, (200, 120, 3)).astype(np.uint8))
    with pytest.raises(
        ValueError, match="no person to explain: over .*wall.png the model is about as unsure as"
    ):
        run_notebook("attribution", monkeypatch, data_root=str(small), image=str(empty_image))


def test_notebook_raises_for_unknown_weights_joints_methods_and_layers(small, monkeypatch):
    for message, parameters in (
        ("holds weights of starnet-pose-t, not of lapx", {"model": "lapx", "weights": WEIGHTS}),
        ("joint of coco 'left_wirst'.*left_wrist", {"joints": ["left_wirst"]}),
        ("method 'ocklusion'.*occlusion", {"methods": ["ocklusion"]}),
        ("layer of StarNetPose 'backbone.stage.2'.*backbone.stages.2", {"layer": "backbone.stage.2"}),
    ):
        with pytest.raises(ValueError, match=message):
            run_notebook("attribution", monkeypatch, data_root=str(small), **parameters)
