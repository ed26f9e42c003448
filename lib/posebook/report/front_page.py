"""The drawings of the front page: predictions, a walk in 3D, and the thumbnails of findings.

Drawings are SVG elements with the colors of posebook.report.colors, which follow the color scheme of a page.
Nothing is read from reports/; people and motion are rendered here.
"""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from posebook import models, skeletons
from posebook.datasets import synthetic
from posebook.inference import output, predict
from posebook.lifting import predict_3d, synthetic_motion, weights_io
from posebook.lifting.skeleton import BONES, H36M
from posebook.models.lapx import HOURGLASS_DEPTH
from posebook.report.colors import BLUE, BOX_COLORS, GRID, INK, MUTED, ORANGE, TEAL
from posebook.report.figures_3d import SIDES, upright

# people and motion


@dataclass(frozen=True)
class Person:
    """A rendered image (H, W, 3) and the pose that a model finds in it: (K, 2) in pixels, scores (K,)."""

    image: np.ndarray
    keypoints: np.ndarray
    scores: np.ndarray


def predicted_people(
    weights: Path = predict.SYNTHETIC_WEIGHTS, count: int = 4
) -> tuple[list[Person], skeletons.Skeleton]:
    """The first `count` images of the synthetic validation split with one large, well visible person."""
    model = models.load_weights(weights).eval()
    people: list[Person] = []
    for number in range(200):
        image, annotations = synthetic.render(np.random.SeedSequence((0, 1, number)))
        x, y, width, height = annotations[0]["bbox"] if len(annotations) == 1 else (0, 0, 0, 0)
        if height < 0.6 * image.shape[0] or annotations[0]["num_keypoints"] < 15:
            continue
        boxes = np.array([[x, y, width, height]])
        keypoints, scores = predict.predict_boxes(model, image, boxes)
        # A window around the box, of the proportions 3 : 4, inside the image.
        side = min(image.shape[0], 1.15 * height)
        left = np.clip(x + width / 2 - 0.375 * side, 0, max(image.shape[1] - 0.75 * side, 0))
        top = np.clip(y + height / 2 - side / 2, 0, image.shape[0] - side)
        rows, columns = slice(int(top), int(top + side)), slice(int(left), int(left + 0.75 * side))
        people.append(Person(image[rows, columns], keypoints[0] - [int(left), int(top)], scores[0]))
        if len(people) == count:
            break
    return people, model.skeleton


def lifted_walk(lifter: Path = predict_3d.LIFTER, frames: int = 81) -> tuple[np.ndarray, float]:
    """A generated motion lifted from noisy 2D joints: upright poses (T, 17, 3), and frames per second."""
    (clip,) = synthetic_motion.make_clips(1, frames)
    pose = predict_3d.lift_clip(weights_io.load_weights(lifter), clip)
    return upright({"lifted": pose}, clip.camera)["lifted"], clip.fps


# drawings


def svg(width: float, height: float, content: str, label: str) -> str:
    """An svg element with a text alternative; it is as wide as its column, up to `width` pixels."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{html.escape(label)}" xmlns="http://www.w3.org/2000/svg">{content}</svg>'
    )


def person_image(person: Person, skeleton: skeletons.Skeleton) -> str:
    """An img element: the person with the limbs and joints of the predicted pose, 240 x 320 pixels."""
    height, width = person.image.shape[:2]
    drawn = output.draw_poses(
        cv2.resize(person.image, (240, 320), interpolation=cv2.INTER_CUBIC),
        person.keypoints[None] * [240 / width, 320 / height],
        person.scores[None],
        skeleton,
    )
    _, data = cv2.imencode(".webp", drawn[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 80])
    encoded = base64.b64encode(data.tobytes()).decode()
    return f'<img src="data:image/webp;base64,{encoded}" alt="A rendered person with the predicted pose">'


def walk_svg(poses: np.ndarray, fps: float, step: int = 3) -> str:
    """A skeleton that moves forward and backward in time without end; page.js adds a button that pauses it.

    poses: (T, 17, 3), z up. Every `step`th frame is drawn, in an oblique projection centered at the pelvis.
    """
    poses = poses[::step] - poses[::step, :1] * [1, 1, 0]  # (T', 17, 3)
    x = poses[..., 0] * 0.94 + poses[..., 1] * 0.34
    y = poses[..., 2].max() - poses[..., 2] - poses[..., 1] * 0.17
    points = np.stack([120 + 150 * x, 22 + 150 * y], -1).round(1)  # (T', 17, 2), pixels
    points = np.concatenate([points, points[-2:0:-1]])  # back to the start
    duration, content = len(points) * step / fps, []
    for color in SIDES.values():
        bones = [bone for bone in BONES if H36M.colors[bone[1]] == color]
        lines = ["".join(f"M{_xy(frame[a])}L{_xy(frame[b])}" for a, b in bones) for frame in points]
        style = f"fill: none; stroke: {color}; stroke-width: 5; stroke-linecap: round"
        animation = f'<animate attributeName="d" dur="{duration:.2f}s" repeatCount="indefinite"'
        content.append(
            f'<path style="{style}" d="{lines[0]}">{animation} values="{";".join(lines)}"/></path>'
        )
    floor = points[..., 1].max() + 8
    content.append(f'<path style="stroke: {MUTED}; stroke-width: 1.5" d="M20 {floor:g}H220"/>')
    return svg(240, 320, "".join(content), "A skeleton in 3D that walks")


def _xy(point: np.ndarray) -> str:
    return f"{point[0]:g} {point[1]:g}"


def traced_svg(traced: Sequence[bool]) -> str:
    """A square for each printed number: filled if a counter gives it, a cross if none does."""
    cells = []
    for i, found in enumerate(traced):
        x, y = 12 + 22 * (i % 10), 14 + 22 * (i // 10)
        if found:
            cells.append(f'<rect x="{x}" y="{y}" width="16" height="16" rx="3" style="fill: {TEAL}"/>')
        else:
            style = f"stroke: {ORANGE}; stroke-width: 3"
            cells.append(f'<path d="M{x} {y}l16 16m-16 0l16 -16" style="{style}"/>')
    return svg(240, 110, "".join(cells), f"{sum(traced)} of {len(traced)} squares filled")


def boxes_svg(rows: Sequence[tuple[str, float, str]]) -> str:
    """Rows of (name, AP, boxes) as points over a common AP axis: circles for ground truth, else squares."""
    values = [value for _, value, _ in rows]
    low, scale = min(values) - 1, 200 / (max(values) - min(values) + 2)
    content = []
    for i, (name, value, boxes) in enumerate(rows):
        x, y = 20 + scale * (value - low), 24 + 52 * i
        if boxes.startswith("ground"):
            source, shape = "ground truth", f'circle cx="{x:g}" cy="{y}" r="7"'
        else:
            source, shape = "detector", f'rect x="{x - 7:g}" y="{y - 7}" width="14" height="14"'
        point = f'<{shape} style="fill: {BOX_COLORS[source]}"/>'
        content.append(f'<path d="M12 {y}H230" style="stroke: {GRID}; stroke-width: 1.5"/>{point}')
        style = f"fill: {INK}; font-size: 12px"
        content.append(f'<text x="12" y="{y + 24}" style="{style}">{name}: {value:.1f}, {source}</text>')
    return svg(240, 110, "".join(content), "; ".join(f"{n}: {v:.1f} AP, {b} boxes" for n, v, b in rows))


def hourglass_widths(side: int) -> tuple[list[int], int | None]:
    """Widths of an hourglass' maps on the way down for an input side, and the width at which doubling fails.

    LAPX halves its maps HOURGLASS_DEPTH times from a quarter of the input; an odd width is rounded down. On
    the way up, the authors' code doubles, and adds the map of the same level.
    """
    widths = [side // 4]
    for _ in range(HOURGLASS_DEPTH):
        widths.append(widths[-1] // 2)
    return widths, next(
        (w for w, half in zip(widths[-2::-1], widths[:0:-1], strict=True) if 2 * half != w), None
    )


def hourglass_svg(side: int) -> str:
    """The widths of `hourglass_widths` as bars, with a cross where the way up stops."""
    widths, fails = hourglass_widths(side)
    content = []
    for i, width in enumerate(widths):
        height, x = 90 * width / widths[0], 14 + 26 * i
        content.append(
            f'<rect x="{x}" y="{55 - height / 2:g}" width="18" height="{height:g}" style="fill: {BLUE}"/>'
        )
    if fails is not None:
        last, x = widths[-1], 14 + 26 * len(widths)
        style = f"fill: {ORANGE}; font-size: 12px"
        content.append(f'<path d="M{x} 49l12 12m-12 0l12 -12" style="stroke: {ORANGE}; stroke-width: 3"/>')
        content.append(f'<text x="{x + 18}" y="59" style="{style}">2 · {last} ≠ {fails}</text>')
    return svg(240, 110, "".join(content), f"maps of {', '.join(map(str, widths))} columns")


def show_findings(findings: Sequence[tuple[str, str, str]]) -> None:
    """Display findings (sentence, drawing, page) as cards, and as a list of sentences in a terminal."""
    from IPython.display import display

    cards = [
        f'<article>{drawing}<h3><a href="{page}">{html.escape(text)}</a></h3></article>'
        for text, drawing, page in findings
    ]
    lines = "\n".join(f"- {text}" for text, _, _ in findings)
    display({"text/html": f'<div class="cards">{"".join(cards)}</div>', "text/markdown": lines}, raw=True)
