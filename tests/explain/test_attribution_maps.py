"""Attribution against sums and gradients made by hand, on small untrained nets."""

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
def test_grad_cam_has_a_layer_for_the_papers_nets(name, images):
    net = models.build(name, input_size=SIZE)
    assert attribution.LAYERS[type(net).__name__] in dict(net.named_modules())


def test_smooth_gradients_without_noise_are_gradient_times_input(net, images):
    target = attribution.JointTarget(net, "nose")
    asked = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target(asked, BINS).sum(), asked)
    found = attribution.smooth_gradients(target, images, BINS, noise=1e-9, samples=2)
    torch.testing.assert_close(found, (gradient * images).sum(1), atol=1e-4, rtol=1e-2)


def test_smooth_gradients_repeat_and_leave_the_generator_alone(net, images):
    target = attribution.JointTarget(net, "nose")
    state = torch.get_rng_state()
    one, two = (attribution.smooth_gradients(target, images, BINS, samples=2, seed=4) for _ in range(2))
    assert torch.equal(one, two) and torch.equal(torch.get_rng_state(), state)


def test_occlusion_is_the_mean_over_the_squares_that_cover_a_pixel(net, images):
    target, window = attribution.JointTarget(net, "nose"), 32
    found = attribution.occlusion_map(target, images, BINS, window=window, batch=3)
    by_hand, covered = torch.zeros(2, *SIZE), torch.zeros(SIZE)
    with torch.no_grad():
        whole = target(images, BINS)
        for row in range(0, 33, 16):
            for column in range(0, 33, 16):
                without = images.clone()
                where = slice(row, row + window), slice(column, column + window)
                without[:, :, *where] = 0
                by_hand[:, *where] += (whole - target(without, BINS))[:, None, None]
                covered[where] += 1
    torch.testing.assert_close(found, by_hand / covered, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("which", ["net", "lapx"])
def test_without_parts_is_captums_feature_ablation_for_every_joint(request, which, images):
    from captum.attr import FeatureAblation

    model = request.getfixturevalue(which)
    parts = torch.zeros(2, *SIZE, dtype=torch.long)
    parts[0, :20], parts[0, 20:40], parts[1, :, 30:] = 1, 2, 6
    bins = torch.randint(0, 16, (2, 17, 2), generator=torch.Generator().manual_seed(5))
    found = attribution.part_ablation(model, images, bins, parts)  # (2, 17, 7)
    assert found.shape == (2, 17, 7)
    for joint in (0, 9):
        target = attribution.JointTarget(model, model.skeleton.keypoints[joint])
        mask = parts[:, None].expand(-1, 3, -1, -1)
        by_captum = FeatureAblation(target).attribute(
            images, baselines=0, additional_forward_args=bins[:, joint], feature_mask=mask
        )[:, 0]
        for image, part in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 6)):
            pixels = by_captum[image][parts[image] == part]
            torch.testing.assert_close(
                found[image, joint, part].expand_as(pixels), pixels, atol=1e-4, rtol=1e-3
            )
    assert found[0, :, 3:].isnan().all() and found[1, :, 1:6].isnan().all()


def standing(skeleton) -> np.ndarray:
    """A person who faces us: joints (K, 3), made from their names."""
    places = {"ankle": (8, 110), "knee": (8, 90), "hip": (7, 65), "wrist": (22, 62), "elbow": (18, 48)}
    places |= {"shoulder": (12, 30), "eye": (3, 12), "ear": (6, 14), "nose": (0, 15), "neck": (0, 26)}
    places |= {"head": (0, 5), "thorax": (0, 30), "pelvis": (0, 65)}
    joints = []
    for name in skeleton.keypoints:
        across, down = next(place for word, place in places.items() if word in name)
        joints.append([48 + across * {"left": 1, "right": -1, "": 0}[skeletons.side(name)], down, 2])
    return np.array(joints, float)


@pytest.mark.parametrize("name", ["coco", "mpii", "lspet", "crowdpose"])
def test_body_parts_lie_where_their_joints_are(name):
    skeleton = skeletons.get(name)
    joints = standing(skeleton)
    drawn = attribution.body_part_masks(joints, skeleton, (128, 96))
    assert drawn.shape == (128, 96) and set(np.unique(drawn)) == set(range(7))
    expected = {"left_wrist": "left arm", "right_elbow": "right arm", "left_knee": "left leg"}
    expected |= {"right_ankle": "right leg"}
    for joint, part in expected.items():
        x, y = joints[skeleton.keypoints.index(joint), :2].astype(int)
        assert attribution.PARTS[drawn[y, x]] == part
    assert attribution.PARTS[drawn[48, 48]] == "trunk" and attribution.PARTS[drawn[12, 48]] == "head"
    assert drawn[0, 0] == 0


def test_body_parts_leave_out_what_is_not_labeled():
    skeleton = skeletons.get("coco")
    joints = standing(skeleton)
    joints[[i for i, name in enumerate(skeleton.keypoints) if "left" in name], 2] = 0
    drawn = attribution.body_part_masks(joints, skeleton, (128, 96))
    assert not {attribution.PARTS.index("left arm"), attribution.PARTS.index("left leg")} & set(
        np.unique(drawn)
    )
    assert not attribution.body_part_masks(joints * [1, 1, 0], skeleton, (128, 96)).any()


def test_a_cell_is_centered_on_a_multiple_of_its_stride():
    net = StarNet(8, (0, 0, 0, 0), "none", ())  # five strided convolutions and no block
    image = torch.randn(1, 3, 160, 160, requires_grad=True)
    net.eval()(image)[0, :, 2, 3].sum().backward()
    rows, columns = (image.grad[0].abs().sum(0).sum(axis).nonzero().squeeze(1) for axis in (1, 0))
    assert (rows.min() + rows.max()) / 2 == 2 * 32
    assert (columns.min() + columns.max()) / 2 == 3 * 32


def test_randomized_shuffles_a_copy(net, images):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    other = attribution.shuffle_weights(net, seed=3)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} of the original changed"
    for (name, mine), theirs in zip(net.named_parameters(), other.parameters(), strict=True):
        if name.endswith("f1.conv.bias"):
            assert torch.equal(mine.sort().values, theirs.sort().values), (
                f"{name} holds other values than before"
            )
        if mine.ndim > 1:
            assert not torch.equal(mine, theirs), f"{name} is as it was"
    again = attribution.shuffle_weights(net, seed=3)
    with torch.no_grad():
        assert torch.equal(other(images).x, again(images).x)
        assert not torch.allclose(other(images).x, net(images).x)


def test_through_keeps_what_goes_in_and_out(net, images):
    kept = attribution.capture_activations(net, images, ["backbone.stem", "head.cls_x"])
    assert torch.equal(kept["backbone.stem"][0], images)
    with torch.no_grad():
        assert torch.equal(kept["head.cls_x"][1], net(images).x)
    assert not net.backbone.stem._forward_hooks
    with pytest.raises(ValueError, match=r"layer of StarNetPose 'backbone.stam'.*backbone\.stem"):
        attribution.capture_activations(net, images, ["backbone.stam"])


def test_unknown_names_offer_near_ones(net, images):
    with pytest.raises(ValueError, match=r"layer of StarNetPose 'backbone.stage.3'.*backbone\.stages\.3"):
        attribution.grad_cam(attribution.JointTarget(net, "nose"), images, BINS, layer="backbone.stage.3")
    with pytest.raises(ValueError, match=r"joint of coco 'left_wirst'.*left_wrist"):
        attribution.JointTarget(net, "left_wirst")
    with pytest.raises(ValueError, match=r"target 'plaice'.*place"):
        attribution.JointTarget(net, "nose", what="plaice")


def run_page(name: str, monkeypatch, **parameters: object) -> None:
    """A notebook's code in this process, up to its first error, with these parameters."""
    monkeypatch.chdir(ROOT)
    matplotlib.use("Agg")
    scope = {}
    for cell in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells:
        if cell.cell_type == "code":
            exec(compile(ast.parse(cell.source), name, "exec"), scope)
            if "parameters" in cell.metadata.get("tags", []):
                assert parameters.keys() <= scope.keys()
                scope |= parameters


def test_the_page_refuses_to_explain_nobody(small, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"nobody to explain: no person \[999\] in synthetic val"):
        run_page("attribution", monkeypatch, data_root=str(small), people=[999])
    empty = tmp_path / "wall.png"
    cv2.imwrite(str(empty), np.random.default_rng(0).integers(90, 120, (200, 120, 3)).astype(np.uint8))
    with pytest.raises(ValueError, match="nobody to explain: over .*wall.png the net is about as unsure as"):
        run_page("attribution", monkeypatch, data_root=str(small), image=str(empty))


def test_the_page_refuses_other_weights_joints_methods_and_layers(small, monkeypatch):
    page = {"data_root": str(small)}
    for message, parameters in (
        ("holds weights of starnet-pose-t, not of lapx", {"model": "lapx", "weights": WEIGHTS}),
        ("joint of coco 'left_wirst'.*left_wrist", {"joints": ["left_wirst"]}),
        ("method 'ocklusion'.*occlusion", {"methods": ["ocklusion"]}),
        ("layer of StarNetPose 'backbone.stage.2'.*backbone.stages.2", {"layer": "backbone.stage.2"}),
    ):
        with pytest.raises(ValueError, match=message):
            run_page("attribution", monkeypatch, **page, **parameters)
