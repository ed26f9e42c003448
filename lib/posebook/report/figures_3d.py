"""Moving 3D skeletons, interactive in JupyterLab and on pages, and static in print.

In JupyterLab, a scene is a plotly figure with plotly's controls. In the output of a page, it is a static
image of a few frames and the plotly figure as JSON. The script of the page turns the JSON into an interactive
figure with the copy of plotly.js beside the pages (posebook.report.html), so nothing loads from another
host. Without JavaScript and in print, the static image remains. Poses are (T, 17, 3) in meters, camera axes.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from posebook.lifting.camera import Camera
from posebook.lifting.skeleton import BONES, H36M
from posebook.report.colors import INK, MUTED
from posebook.skeletons import LEFT, MIDDLE, RIGHT

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from IPython.display import HTML

SIDES = {"left": LEFT, "right": RIGHT, "middle": MIDDLE}
FRAMES, STILL_FRAMES = 60, 6  # maximum number of frames of a scene, and frames of its static image


def scene(
    poses: Mapping[str, np.ndarray], fps: float = 50.0, camera: Camera | None = None, alt: str = ""
) -> go.Figure | HTML | None:
    """An interactive 3D animation of named poses side by side, for the last line of a cell.

    camera: the camera in whose axes the poses are, used to draw them upright. alt: the text alternative; by
    default, the names. Returns None if plotly is missing.
    """
    upright_poses = upright(poses, camera)
    if "POSEBOOK_STILL" not in os.environ:
        try:
            return figure(upright_poses, fps)
        except ModuleNotFoundError:
            print("This interactive 3D figure needs plotly: pip install plotly")
            return None
    from IPython.display import HTML

    static, stream = still(upright_poses), io.BytesIO()
    static.savefig(stream, format="png", dpi=110, transparent=True)
    plt.close(static)
    image = base64.b64encode(stream.getvalue()).decode()
    words = html.escape(alt or f"{', '.join(poses)}: skeletons in a few frames of the motion")
    interactive = figure(upright_poses, fps)
    interactive.layout.updatemenus = interactive.layout.sliders = ()  # pages have their own controls
    data = interactive.to_json().replace("</", "<\\/")  # "</script>" in the data would end the script
    return HTML(
        f'<figure class="scene"><img src="data:image/png;base64,{image}" alt="{words}">'
        f'<script type="application/json">{data}</script></figure>'
    )


def upright(poses: Mapping[str, np.ndarray], camera: Camera | None = None) -> dict[str, np.ndarray]:
    """Poses (T, 17, 3) rotated from camera axes to x right, y away from the camera, z up, lowest z at 0.

    The up direction is the world axis nearest to the camera's up direction; without a camera, the latter.
    """
    axes = np.eye(3) if camera is None else np.asarray(camera.rotation)  # columns: world axes in camera axes
    # The y axis of a camera points down.
    up = min((sign * axes[:, axis] for axis in range(3) for sign in (1, -1)), key=lambda column: column[1])
    away = np.array([0.0, 0.0, 1.0]) - up[2] * up
    away /= np.linalg.norm(away)
    basis = np.stack([np.cross(away, up), away, up], -1)  # (3, 3)
    rotated = {name: np.asarray(pose, float) @ basis for name, pose in poses.items()}
    lowest = min(pose[..., 2].min() for pose in rotated.values())
    return {name: pose - [0, 0, lowest] for name, pose in rotated.items()}


def figure(poses: Mapping[str, np.ndarray], fps: float = 50.0) -> go.Figure:
    """Upright poses as a plotly figure: a floor, skeletons, a play button and a frame slider.

    The `meta` of a trace states what it shows (left, right, middle, floor or words); the page uses it to set
    the color.
    """
    import plotly.graph_objects as go

    poses = _side_by_side(poses)
    frames = min(map(len, poses.values()))
    shown = np.unique(np.linspace(0, frames - 1, min(frames, FRAMES)).round().astype(int))
    traces = [_floor(go, poses)]
    if len(poses) > 1:
        traces.append(_names(go, poses))
    first = len(traces)
    traces += _skeletons(go, poses, shown[0])
    moving = list(range(first, len(traces)))  # the traces that differ between frames
    steps = [
        go.Frame(data=[{"type": "scatter3d"} | lines for lines in _bones(poses, frame)], traces=moving,
                 name=f"{frame / fps:.2f}")
        for frame in shown
    ]  # fmt: skip
    pace = 1000 * (shown[-1] / fps) / max(len(shown) - 1, 1)  # milliseconds per frame
    hidden = {"visible": False, "showspikes": False}
    plot = go.Figure(traces, frames=steps)
    plot.update_layout(
        template="none",
        meta={"pace": pace},
        height=440,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        font={"color": MUTED, "family": "system-ui, DejaVu Sans, sans-serif"},
        showlegend=False,
        scene={
            "bgcolor": "rgba(0,0,0,0)",
            "aspectmode": "data",  # the same scale along all axes
            "dragmode": "turntable",
            "xaxis": hidden, "yaxis": hidden, "zaxis": hidden,
            "camera": {"eye": {"x": 0.55, "y": -1.75, "z": 0.45}, "center": {"x": 0, "y": 0, "z": -0.1}},
        },
    )  # fmt: skip
    if len(shown) > 1:
        plot.update_layout(**_controls(steps, pace))
    return plot


def still(poses: Mapping[str, np.ndarray]) -> Figure:
    """A few frames of upright poses in oblique projection, one row for each pose."""
    plot, axes = plt.subplots(len(poses), 1, figsize=(9.6, 2.4 * len(poses)), squeeze=False)
    top = max(pose[..., 2].max() for pose in poses.values())
    for ax, (name, pose) in zip(axes[:, 0], poses.items(), strict=True):
        frames = np.linspace(0, len(pose) - 1, STILL_FRAMES).round().astype(int)
        for column, frame in enumerate(pose[frames]):
            x, y, z = (frame - [*frame[0, :2], 0]).T  # each (17,), centered at the pelvis
            x, z = x * 0.94 + y * 0.34 + column * 1.2, z + y * 0.17  # oblique; 1.2 m between frames
            for a, b in BONES:
                ax.plot(x[[a, b]], z[[a, b]], color=H36M.colors[b], lw=2.2, solid_capstyle="round")
        ax.axhline(0, color=MUTED, linewidth=1)
        ax.set(xlim=(-0.8, 1.2 * STILL_FRAMES - 0.4), ylim=(-0.2, top + 0.15), aspect="equal")
        ax.set_title(name, fontsize=9, color=MUTED)
        ax.set_axis_off()
    return plot


def _side_by_side(poses: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Poses moved along x so that they do not overlap."""
    moved, edge = {}, 0.0
    for name, pose in poses.items():
        low, high = pose[..., 0].min(), pose[..., 0].max()
        moved[name] = pose + [edge - low, 0, 0]
        edge += high - low + 0.5  # meters
    return moved


def _bones(poses: Mapping[str, np.ndarray], frame: int) -> list[dict[str, np.ndarray]]:
    """x, y, z of the lines of one frame: left, right and middle of each pose, with a gap after each bone."""
    lines = []
    for pose in poses.values():
        for color in SIDES.values():
            bones = np.array([bone for bone in BONES if H36M.colors[bone[1]] == color])  # (N, 2)
            points = np.full((len(bones), 3, 3), np.nan, np.float32)  # start, end and gap of each bone
            points[:, :2] = pose[frame][bones]
            lines.append(dict(zip("xyz", points.reshape(-1, 3).T, strict=True)))
    return lines


def _skeletons(go, poses: Mapping[str, np.ndarray], frame: int) -> list:
    """The traces of the lines from `_bones`."""
    keys = [(name, side) for name in poses for side in SIDES]
    return [
        go.Scatter3d(
            **lines, mode="lines+markers", meta=side, name=name, hoverinfo="skip",
            line={"width": 7, "color": SIDES[side]}, marker={"color": SIDES[side], "size": 3},
        )
        for (name, side), lines in zip(keys, _bones(poses, frame), strict=True)
    ]  # fmt: skip


def _floor(go, poses: Mapping[str, np.ndarray]):
    """A grid on the floor under all poses, with lines every 0.5 m."""
    points = np.concatenate([pose.reshape(-1, 3) for pose in poses.values()])
    (left, near), (right, far) = (np.floor(points.min(0)[:2] * 2) / 2, np.ceil(points.max(0)[:2] * 2) / 2)
    across, along = np.arange(left, right + 0.1, 0.5), np.arange(near, far + 0.1, 0.5)
    lines = [[(x, near), (x, far), (np.nan, np.nan)] for x in across]
    lines += [[(left, y), (right, y), (np.nan, np.nan)] for y in along]
    x, y = np.array(lines, np.float32).reshape(-1, 2).T
    return go.Scatter3d(
        x=x, y=y, z=np.zeros_like(x), mode="lines", meta="floor", hoverinfo="skip", showlegend=False,
        line={"color": MUTED, "width": 1}, opacity=0.5,
    )  # fmt: skip


def _names(go, poses: Mapping[str, np.ndarray]):
    """The names of the poses above their heads."""
    x, y = np.array([pose[:, 0, :2].mean(0) for pose in poses.values()]).T
    top = max(pose[..., 2].max() for pose in poses.values()) + 0.15
    return go.Scatter3d(
        x=x, y=y, z=np.full_like(x, top), mode="text", text=list(poses), meta="words", hoverinfo="skip",
        textfont={"color": MUTED, "size": 13}, showlegend=False,
    )  # fmt: skip


def _controls(steps: list, pace: float) -> dict:
    """Plotly's buttons and slider, for JupyterLab. Pages have their own controls, which work by keyboard."""

    def animation(duration: float) -> dict:
        return {
            "frame": {"duration": duration, "redraw": True}, "transition": {"duration": 0},
            "mode": "immediate", "fromcurrent": True,
        }  # fmt: skip

    buttons = [
        {"label": "play", "method": "animate", "args": [None, animation(pace)]},
        {"label": "stop", "method": "animate", "args": [[None], animation(0)]},
    ]
    position = {"x": 0.02, "y": 0.02, "xanchor": "left", "yanchor": "bottom", "font": {"color": INK}}
    labels = [
        {"label": step.name, "method": "animate", "args": [[step.name], animation(0)]} for step in steps
    ]
    value = {"suffix": " s", "xanchor": "right", "font": {"color": MUTED}}
    slider: dict[str, Any] = {"x": 0.22, "len": 0.75, "y": 0.06, "currentvalue": value}
    slider["font"] = {"color": "rgba(0,0,0,0)"}  # hides the labels: there are too many to read
    return {
        "updatemenus": [{"type": "buttons", "direction": "left", "buttons": buttons, **position}],
        "sliders": [{"steps": labels, "ticklen": 0, "minorticklen": 0, **slider}],
    }
