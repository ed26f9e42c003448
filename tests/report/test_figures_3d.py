"""3D skeletons: upright, with true bone lengths, as plotly figure, as image and on a page."""

import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from bs4 import BeautifulSoup

from posebook.lifting import synthetic_motion
from posebook.lifting.camera import Camera
from posebook.lifting.skeleton import BONES
from posebook.report import figures_3d
from posebook.skeletons import LEFT

go = pytest.importorskip("plotly.graph_objects")


@pytest.fixture(scope="module")
def clip():
    return synthetic_motion.make_clips(1, frames=90, noise=0)[0]


@pytest.fixture(scope="module")
def poses(clip):
    return figures_3d.upright({"truth": clip.pose, "lifted": clip.pose + 0.01}, clip.camera)


def test_upright_does_not_depend_on_camera(clip):
    (pose,) = figures_3d.upright({"": clip.pose}, clip.camera).values()
    world = (clip.pose - clip.camera.translation) @ clip.camera.rotation
    assert np.allclose(pose[..., 2], world[..., 1] - world[..., 1].min())
    away = pose[:, 0, 1] - pose[0, 0, 1]
    assert np.corrcoef(away, clip.pose[:, 0, 2])[0, 1] > 0.8  # depth order is preserved
    turned = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # world axes with z up, as in Human3.6M
    other = Camera(clip.camera.rotation @ turned.T, clip.camera.translation, clip.camera.size)
    (same,) = figures_3d.upright({"": clip.pose}, other).values()
    assert np.allclose(same, pose)


def test_poses_are_not_mirrored(clip):
    """Without a camera, x stays x, and depth becomes y."""
    (pose,) = figures_3d.upright({"": clip.pose}).values()
    assert np.allclose(pose[..., 0], clip.pose[..., 0])
    assert np.allclose(pose[..., 1], clip.pose[..., 2])


def test_figure_has_equal_axes_floor_and_every_bone(clip, poses):
    drawn = figures_3d.figure({"truth": poses["truth"]}, clip.fps)
    assert drawn.layout.scene.aspectmode == "data"
    assert [trace.meta for trace in drawn.data] == ["floor", "left", "right", "middle"]
    assert drawn.data[1].line.color == LEFT
    assert np.allclose(drawn.data[0].z, 0)
    lengths = []
    for trace in drawn.data[1:4]:
        points = np.stack([trace.x, trace.y, trace.z], -1).reshape(-1, 3, 3)
        assert np.isnan(points[:, 2]).all()  # gap after every bone
        lengths += list(np.linalg.norm(points[:, 1] - points[:, 0], axis=-1))
    parents, joints = np.array(BONES).T
    wanted = np.linalg.norm(clip.pose[0, joints] - clip.pose[0, parents], axis=-1)
    assert np.allclose(sorted(lengths), sorted(wanted), atol=1e-4)


def test_frames_are_limited_and_span_the_clip(clip, poses):
    drawn = figures_3d.figure(poses, clip.fps)
    assert len(drawn.frames) == figures_3d.FRAMES
    assert drawn.frames[0].name == "0.00" and drawn.frames[-1].name == f"{89 / 50:.2f}"
    assert drawn.layout.meta["pace"] * (figures_3d.FRAMES - 1) == pytest.approx(1000 * 89 / 50)
    assert {"play", "stop"} == {button.label for button in drawn.layout.updatemenus[0].buttons}
    assert len(drawn.layout.sliders[0].steps) == len(drawn.frames)
    one = figures_3d.figure({name: pose[:1] for name, pose in poses.items()}, clip.fps)
    assert not one.layout.updatemenus and not one.layout.sliders  # nothing to play


def test_side_by_side_poses_do_not_overlap(clip, poses):
    drawn = figures_3d.figure(poses, clip.fps)
    words = next(trace for trace in drawn.data if trace.meta == "words")
    assert list(words.text) == ["truth", "lifted"]
    first, second = (
        [x for trace in drawn.data if trace.name == name for x in trace.x if not np.isnan(x)]
        for name in poses
    )
    assert max(first) < min(second)


def test_still_has_one_row_per_pose(poses):
    drawn = figures_3d.still(poses)
    assert [ax.get_title(loc="left") or ax.get_title() for ax in drawn.axes] == list(poses)
    assert len(drawn.axes[0].lines) == 6 * len(BONES) + 1  # and the floor
    plt.close(drawn)


def test_scene_in_jupyterlab_is_plotly_figure(clip, monkeypatch):
    monkeypatch.delenv("POSEBOOK_STILL", raising=False)
    assert isinstance(figures_3d.scene({"one": clip.pose}, clip.fps, clip.camera), go.Figure)


def test_scene_without_plotly_prints_hint(clip, monkeypatch, capsys):
    monkeypatch.delenv("POSEBOOK_STILL", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "plotly.graph_objects", None)
    assert figures_3d.scene({"one": clip.pose}) is None
    assert "pip install plotly" in capsys.readouterr().out


def test_scene_on_page_is_image_and_data(clip, monkeypatch):
    monkeypatch.setenv("POSEBOOK_STILL", "1")
    made = figures_3d.scene({"a </script> & b": clip.pose}, clip.fps, alt='someone "walks"').data
    assert len(re.findall("</script>", made)) == 1
    page = BeautifulSoup(made, "html.parser")
    assert page.figure["class"] == ["scene"] and page.img["alt"] == 'someone "walks"'
    assert page.img["src"].startswith("data:image/png;base64,")
    data = json.loads(page.script.string)
    assert len(data["frames"]) == figures_3d.FRAMES
    assert not data["layout"].get("sliders") and not data["layout"].get("updatemenus")
    assert len(made) < 250_000
    unsaid = figures_3d.scene({"truth": clip.pose}, clip.fps).data
    assert "truth: skeletons" in BeautifulSoup(unsaid, "html.parser").img["alt"]
