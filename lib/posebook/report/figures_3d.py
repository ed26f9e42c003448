"""Skeletons that move in space: to be turned and played, in JupyterLab and on a page; still on paper.

In JupyterLab a scene is plotly's figure with its own buttons. On a page in the making it is a picture of a
few instants and, beside it, the same figure as data, which the page's script brings to life with a copy of
plotly's script that lies beside the pages (lib/posebook/report/html.py): nothing comes from another host,
and without script, or printed, the picture stands. Poses are (T, 17, 3) in meters, in the axes of a camera.
"""

import base64
import html
import io
import os
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from posebook.lifting.camera import Camera
from posebook.lifting.skeleton import BONES, H36M
from posebook.report.colors import GRID, INK, MUTED
from posebook.skeletons import LEFT, MIDDLE, RIGHT

SIDES = {"left": LEFT, "right": RIGHT, "middle": MIDDLE}
FRAMES = 60  # that a scene holds of a clip
WIDE, NARROW = 7, 4  # lines in pixels: of the first pose, of those laid over it


def scene(
    poses: Mapping[str, np.ndarray],
    fps: float = 50.0,
    camera: Camera | None = None,
    beside: bool = True,
    alt: str = "",
) -> "go.Figure | HTML | None":  # noqa: F821
    """Poses by name, side by side or laid over one another, to be turned and played; the last line of a cell.

    camera: whose axes the poses are in; they then stand upright. alt: what there is to see, for those who
    cannot; by itself, the names.
    """
    upright_poses = upright(poses, camera)
    if "POSEBOOK_STILL" not in os.environ:
        try:
            return figure(upright_poses, fps, beside)
        except ModuleNotFoundError:
            print("With plotly installed this cell is a figure to turn: pip install plotly")
            return None
    from IPython.display import HTML

    drawn, stream = still(upright_poses, beside), io.BytesIO()
    drawn.savefig(stream, format="png", dpi=110)
    plt.close(drawn)
    picture = base64.b64encode(stream.getvalue()).decode()
    words = html.escape(alt or f"{', '.join(poses)}: skeletons at a few instants of the motion")
    live = figure(upright_poses, fps, beside)
    live.layout.updatemenus = live.layout.sliders = ()  # the page has its own
    data = live.to_json().replace("</", "<\\/")  # which would end the script
    return HTML(
        f'<figure class="scene"><img src="data:image/png;base64,{picture}" alt="{words}">'
        f'<script type="application/json">{data}</script></figure>'
    )


def upright(poses: Mapping[str, np.ndarray], camera: Camera | None = None) -> dict[str, np.ndarray]:
    """Poses (T, 17, 3) of camera axes as x right, y away from the camera, z up, the lowest joint at z = 0.

    Which way is up is the world's axis that the camera's own comes nearest to; without a camera, its own.
    """
    axes = np.eye(3) if camera is None else np.asarray(camera.rotation)  # columns: the world's
    up = min((sign * axes[:, axis] for axis in range(3) for sign in (1, -1)), key=lambda column: column[1])
    away = np.array([0.0, 0.0, 1.0]) - up[2] * up
    away /= np.linalg.norm(away)
    basis = np.stack([np.cross(away, up), away, up], -1)  # (3, 3)
    turned = {name: np.asarray(pose, float) @ basis for name, pose in poses.items()}
    lowest = min(pose[..., 2].min() for pose in turned.values())
    return {name: pose - [0, 0, lowest] for name, pose in turned.items()}


def figure(poses: Mapping[str, np.ndarray], fps: float = 50.0, beside: bool = True) -> "go.Figure":  # noqa: F821
    """Upright poses as plotly's figure: a floor, skeletons, a button that plays and a slider of frames.

    What a trace is of (left, right, middle, floor, words) stands in its meta, for the page to color it.
    """
    import plotly.graph_objects as go

    poses = _apart(poses) if beside else dict(poses)
    frames = min(map(len, poses.values()))
    shown = np.unique(np.linspace(0, frames - 1, min(frames, FRAMES)).round().astype(int))
    traces = [_floor(go, poses)]
    if beside and len(poses) > 1:
        traces.append(_names(go, poses))
    first = len(traces)
    traces += _skeletons(go, poses, shown[0], beside)
    moving = list(range(first, len(traces)))
    steps = [
        go.Frame(data=[{"type": "scatter3d"} | lines for lines in _bones(poses, frame)], traces=moving,
                 name=f"{frame / fps:.2f}")
        for frame in shown
    ]  # fmt: skip
    pace = 1000 * (shown[-1] / fps) / max(len(shown) - 1, 1)  # milliseconds from a frame to the next
    hidden = {"visible": False, "showspikes": False}
    drawn = go.Figure(traces, frames=steps)
    drawn.update_layout(
        template="none",
        meta={"pace": pace},
        height=440,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        font={"color": MUTED, "family": "system-ui, DejaVu Sans, sans-serif"},
        showlegend=not beside and len(poses) > 1,
        legend={"orientation": "h", "x": 0, "y": 1},
        scene={
            "bgcolor": "rgba(0,0,0,0)",
            "aspectmode": "data",  # a meter is a meter along every axis
            "dragmode": "turntable",
            "xaxis": hidden, "yaxis": hidden, "zaxis": hidden,
            "camera": {"eye": {"x": 0.55, "y": -1.75, "z": 0.45}, "center": {"x": 0, "y": 0, "z": -0.1}},
        },
    )  # fmt: skip
    if len(shown) > 1:
        drawn.update_layout(**_controls(steps, pace))
    return drawn


def still(poses: Mapping[str, np.ndarray], beside: bool = True, instants: int = 6) -> Figure:
    """Upright poses at a few instants, seen slantwise: one row a pose, or one row for all of them."""
    rows = [[name] for name in poses] if beside else [list(poses)]
    drawn, axes = plt.subplots(len(rows), 1, figsize=(9.6, 2.4 * len(rows)), squeeze=False)
    top = max(pose[..., 2].max() for pose in poses.values())
    for ax, names in zip(axes[:, 0], rows, strict=True):
        for order, name in enumerate(names):
            frames = np.linspace(0, len(poses[name]) - 1, instants).round().astype(int)
            for place, frame in enumerate(frames):
                middle = poses[names[0]][min(frame, len(poses[names[0]]) - 1), 0]
                x, y, z = (poses[name][frame] - [*middle[:2], 0]).T
                x, z = x * 0.94 + y * 0.34 + place * 1.2, z + y * 0.17
                for a, b in BONES:
                    style = {"linewidth": 1.2, "linestyle": (0, (3, 1.5))} if order else {"linewidth": 2.2}
                    ax.plot(x[[a, b]], z[[a, b]], color=H36M.colors[b], solid_capstyle="round", **style)
        ax.axhline(0, color=GRID, linewidth=1)
        ax.set(xlim=(-0.8, 1.2 * instants - 0.4), ylim=(-0.2, top + 0.15), aspect="equal")
        ax.set_title(" — ".join(names) + (" (dashed)" if len(names) == 2 else ""), fontsize=9)
        ax.set_axis_off()
    return drawn


def _apart(poses: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Poses moved along x so that none stands in another's way."""
    moved, edge = {}, 0.0
    for name, pose in poses.items():
        low, high = pose[..., 0].min(), pose[..., 0].max()
        moved[name] = pose + [edge - low, 0, 0]
        edge += high - low + 0.5
    return moved


def _bones(poses: Mapping[str, np.ndarray], frame: int) -> list[dict[str, np.ndarray]]:
    """x, y, z of the lines of one frame: of each pose its left, right and middle, with a gap after a bone."""
    lines = []
    for pose in poses.values():
        for color in SIDES.values():
            own = [bone for bone in BONES if H36M.colors[bone[1]] == color]
            points = np.full((len(own), 3, 3), np.nan, np.float32)
            points[:, :2] = pose[frame][np.array(own)]
            lines.append(dict(zip("xyz", points.reshape(-1, 3).T, strict=True)))
    return lines


def _skeletons(go, poses: Mapping[str, np.ndarray], frame: int, beside: bool) -> list:
    """The traces whose lines `_bones` gives; a pose that lies over another is thin and dashed."""
    made, kinds = [], [(order, name, side) for order, name in enumerate(poses) for side in SIDES]
    for (order, name, side), lines in zip(kinds, _bones(poses, frame), strict=True):
        over = order > 0 and not beside
        line = {"width": NARROW, "dash": "dash"} if over else {"width": WIDE}
        made.append(
            go.Scatter3d(
                **lines, mode="lines+markers", meta=side, name=name, legendgroup=name, hoverinfo="skip",
                line=line | {"color": SIDES[side]}, marker={"color": SIDES[side], "size": 2 if over else 3},
                showlegend=side == "middle",
            )
        )  # fmt: skip
    return made


def _floor(go, poses: Mapping[str, np.ndarray]):
    """A grid on the floor, a line every half meter, under all of the poses."""
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
    """The poses' names over their heads."""
    x, y = np.array([pose[:, 0, :2].mean(0) for pose in poses.values()]).T
    top = max(pose[..., 2].max() for pose in poses.values()) + 0.15
    return go.Scatter3d(
        x=x, y=y, z=np.full_like(x, top), mode="text", text=list(poses), meta="words", hoverinfo="skip",
        textfont={"color": MUTED, "size": 13}, showlegend=False,
    )  # fmt: skip


def _controls(steps: list, pace: float) -> dict:
    """Plotly's own buttons and slider, for JupyterLab; a page has its own, which the keyboard reaches."""

    def shown(duration: float) -> dict:
        return {
            "frame": {"duration": duration, "redraw": True}, "transition": {"duration": 0},
            "mode": "immediate", "fromcurrent": True,
        }  # fmt: skip

    buttons = [
        {"label": "play", "method": "animate", "args": [None, shown(pace)]},
        {"label": "stop", "method": "animate", "args": [[None], shown(0)]},
    ]
    place = {"x": 0.02, "y": 0.02, "xanchor": "left", "yanchor": "bottom", "font": {"color": INK}}
    marks = [{"label": step.name, "method": "animate", "args": [[step.name], shown(0)]} for step in steps]
    slider = {"x": 0.22, "len": 0.75, "y": 0.06, "currentvalue": {"suffix": " s", "xanchor": "right"}}
    slider["font"] = {"color": "rgba(0,0,0,0)"}  # a mark a frame is too many to be read
    slider["currentvalue"]["font"] = {"color": MUTED}
    return {
        "updatemenus": [{"type": "buttons", "direction": "left", "buttons": buttons, **place}],
        "sliders": [{"steps": marks, "ticklen": 0, "minorticklen": 0, **slider}],
    }
