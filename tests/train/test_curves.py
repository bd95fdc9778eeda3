"""Curves of training: runs end to end, smoothed, each task in a panel of its own."""

from __future__ import annotations

import xml.dom.minidom

import pytest

from measnet.train.curves import HEIGHT, WIDTH, Line, Panel, draw, end_to_end, panels_of, smooth

LOG: list[Line] = [
    {"step": i, "minutes": i / 10, "psnr_keep": 20 + i**0.5, "psnr_derain": 18.0} for i in range(1, 21)
]


def test_every_task_has_a_panel_and_every_point_lies_in_it() -> None:
    picture = draw(panels_of({"nano": LOG, "small": LOG[:1], "none": []}))
    panels = xml.dom.minidom.parseString(picture).getElementsByTagName("g")
    assert [name in panel.toxml() for name in (">keep<", ">derain<") for panel in panels] == [1, 0, 0, 1]
    lines = panels[0].getElementsByTagName("polyline")
    runs = [[tuple(map(float, p.split(","))) for p in line.getAttribute("points").split()] for line in lines]
    assert [len(run) for run in runs] == [20, 1]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for run in runs for x, y in run)
    assert [x for x, _ in runs[0]] == sorted(x for x, _ in runs[0]) and runs[0][0][1] > runs[0][-1][1]


def test_dots_and_targets_are_drawn_in_their_networks_colour_within_the_panel() -> None:
    panel = Panel("a < b", {"nano": [], "small": []}, {"small": [(3.0, 40.5)]}, {"nano": 50.2})
    (drawn,) = xml.dom.minidom.parseString(draw([panel], "dots & dashes")).getElementsByTagName("g")
    (dot,) = drawn.getElementsByTagName("circle")
    (dashed,) = [path for path in drawn.getElementsByTagName("path") if path.getAttribute("stroke-dasharray")]
    assert float(dot.getAttribute("cx")) == WIDTH
    assert 0 < float(dashed.getAttribute("d")[3:].split()[0]) < float(dot.getAttribute("cy")) < HEIGHT
    assert dot.getAttribute("fill") != dashed.getAttribute("stroke")


def test_nothing_to_draw_is_a_picture_too() -> None:
    assert xml.dom.minidom.parseString(draw(panels_of({})))


def test_a_run_that_begins_anew_follows_where_the_one_before_ended() -> None:
    again = [{**line, "minutes": line["minutes"] / 2} for line in LOG]
    first, second = end_to_end([*LOG, *again])
    assert first == LOG and [line["minutes"] for line in second] == pytest.approx(
        [2 + line["minutes"] for line in again]
    )


def test_smoothing_takes_noise_and_keeps_where_a_curve_leads() -> None:
    points = [(float(x), x / 10 + (-1) ** x) for x in range(100)]
    smoothed = smooth(points)
    assert [x for x, _ in smoothed] == [x for x, _ in points]
    assert all(y == pytest.approx(x / 10, abs=0.1) for x, y in smoothed[30:70])
    assert smooth([]) == [] and smooth([(1.0, 30.0)]) == [(1.0, 30.0)]
