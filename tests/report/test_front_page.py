"""The front page: predictions, the moving skeleton, findings, cards of papers and their coverage."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from posebook.papers.cells import load_cells
from posebook.papers.names import PAPERS
from posebook.report import front_page, paper_cards
from posebook.report.colors import VERDICT_COLORS


def test_people_are_rendered_and_their_poses_lie_in_the_image():
    people, skeleton = front_page.predicted_people(count=2)
    assert len(people) == 2
    for person in people:
        height, width = person.image.shape[:2]
        assert person.keypoints.shape == (len(skeleton.keypoints), 2) and person.scores.shape == (17,)
        inside = (person.keypoints > -5).all(1) & (person.keypoints < [width + 5, height + 5]).all(1)
        assert inside.mean() > 0.7 and abs(width / height - 0.75) < 0.02
    assert front_page.person_image(people[0], skeleton).startswith('<img src="data:image/webp;base64,')


def test_walk_has_the_lifted_frames_and_returns_to_its_start():
    poses, fps = front_page.lifted_walk(frames=27)
    assert poses.shape == (27, 17, 3) and poses[..., 2].min() == pytest.approx(0)
    drawing = BeautifulSoup(front_page.walk_svg(poses, fps, step=3), "html.parser")
    paths = drawing.select("path:has(animate)")
    bones = sum(path["d"].count("M") for path in paths)
    assert bones == 16  # left, right and middle together
    for path in paths:
        frames = path.animate["values"].split(";")
        assert len(frames) == 9 + 7 and frames[0] == path["d"]
        assert frames[1] == frames[-1] and path.animate["repeatcount"] == "indefinite"
    assert len(drawing.decode()) < 60_000


def test_hourglass_widths_against_a_loop():
    for side in range(64, 400, 32):
        widths, fails = front_page.hourglass_widths(side)
        expected = None
        for low, high in zip(widths[:0:-1], widths[-2::-1], strict=True):
            if 2 * low != high:
                expected = high
                break
        assert fails == expected and (fails is None) == (side % 64 == 0)
    assert front_page.hourglass_widths(288) == ([72, 36, 18, 9, 4], 9)


def test_thumbnails_show_every_value():
    squares = BeautifulSoup(front_page.traced_svg([True] * 11 + [False]), "html.parser")
    assert len(squares.select("rect")) == 11 and len(squares.select("path")) == 1
    rows = [("one", 72.0, "ground truth"), ("two", 68.2, "detector, 56.4 person AP")]
    points = BeautifulSoup(front_page.boxes_svg(rows), "html.parser")
    assert [text.text for text in points.select("text")] == ["one: 72.0, ground truth", "two: 68.2, detector"]
    circle, square = points.circle, points.rect  # the shape tells whose boxes
    assert float(circle["cx"]) > float(square["x"]) + 7
    stops, runs = front_page.hourglass_svg(288), front_page.hourglass_svg(192)
    assert "2 · 4 ≠ 9" in stops and "≠" not in runs


def test_findings_are_cards_on_a_page_and_lines_in_a_terminal(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    front_page.show_findings(
        [("2 of 3 < 4", "<svg></svg>", "audit/lapx.ipynb"), ("another", "", "train.ipynb")]
    )
    (data,) = shown
    assert data["text/markdown"] == "- 2 of 3 < 4\n- another"
    cards = BeautifulSoup(data["text/html"], "html.parser").select(".cards > article")
    assert [card.a.text for card in cards] == ["2 of 3 < 4", "another"]
    assert cards[0].a["href"] == "audit/lapx.ipynb" and cards[0].svg


def test_every_paper_has_a_card_with_its_printed_numbers():
    papers = paper_cards.load_papers()
    assert list(papers["paper"]) == list(PAPERS)
    cells = load_cells().astype(str)
    verdicts = [*VERDICT_COLORS, next(iter(VERDICT_COLORS))]
    for paper in papers.to_dict("records"):
        card = BeautifulSoup(paper_cards.paper_card(paper, verdicts), "html.parser")
        assert card.h3.text == PAPERS[paper["paper"]] and card.svg
        own = cells[(cells["paper"] == paper["paper"]) & (cells["table"] == paper["table"])]
        printed = own["value"][(own["row"] == paper["row"]) & own["column"].isin(paper_cards.NUMBERS)]
        assert len(printed) and all(value in card.text for value in printed)
        assert f"{len(verdicts)} claims" in card.text
        assert (f"no code found: {paper['source']}" in card.text) == (paper["code"] == "")
        widths = [float(rect["width"]) for rect in card.select("rect")]
        assert sum(widths) == pytest.approx(240, abs=1) and len(widths) == len(VERDICT_COLORS)


def test_silhouettes_differ_as_the_models_do():
    papers = {paper["paper"]: paper for paper in paper_cards.load_papers().to_dict("records")}
    counts = {
        name: paper_cards.positions(*paper_cards.build_meta(papers[name])) for name in ("HoT", "H2OT", "LAPX")
    }
    tokens = 243 * 17
    assert counts["HoT"][0] == tokens and min(counts["HoT"][:-2]) == tokens // 3
    assert min(counts["H2OT"]) == tokens // 9
    rises = np.diff(counts["LAPX"]) > 0
    assert rises.sum() >= 9  # up again in each of three hourglasses


def test_pareto_front_against_a_loop():
    rng = np.random.default_rng(0)
    points = pd.DataFrame({"GFLOPs": rng.random(40), "ms": rng.random(40), "AP": rng.random(40).round(1)})
    for cost in ("GFLOPs", "ms"):
        front = paper_cards.pareto_front(points, cost)
        for index, point in points.iterrows():
            beaten = ((points[cost] <= point[cost]) & (points["AP"] > point["AP"])).any()
            cheaper = ((points[cost] < point[cost]) & (points["AP"] == point["AP"])).any()
            assert (index in front.index) == (not beaten and not cheaper)
    pd.testing.assert_frame_equal(
        paper_cards.pareto_front(points), paper_cards.pareto_front(points, "GFLOPs")
    )


def test_pareto_plot_never_connects_two_kinds_of_boxes():
    points = paper_cards.printed_tradeoff()
    assert set(points["boxes"]) == {"ground truth", "detector", "not stated"}
    ax = paper_cards.pareto_plot(points)
    fronts = [line.get_xydata() for line in ax.lines if line.get_linestyle() == "--"]
    plt.close(ax.figure)
    for front, boxes in zip(fronts, ("ground truth", "detector"), strict=True):
        own = points[points["boxes"] == boxes]
        assert len(front) and set(front[:, 0]) <= set(own["GFLOPs"]) and set(front[:, 1]) <= set(own["AP"])


def test_coverage_heatmap_shows_runs_and_leaves_missing_cells_empty():
    rows = [
        ("LAPX", "size", 3, 3),
        ("LAPX", "accuracy", 4, 0),
        ("LAPX", "accuracy", 1, 1),
        ("HoT", "size", 2, 1),
    ]
    counts = pd.DataFrame(rows, columns=["paper", "quantity", "count", "run"])
    ax = paper_cards.coverage_heatmap(counts, ["size", "accuracy"])
    texts = [text.get_text() for text in ax.texts]
    plt.close(ax.figure)
    assert texts == ["3 of 3", "1 of 5", "1 of 2"]
    assert not any(re.search("nan", text) for text in texts)
