"""Draws training curves as one SVG: a panel for each task, PSNR over the minutes."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

Line = Mapping[str, float]
Point = tuple[float, float]
"""Minutes and dB."""

COLOURS = ("#0b62a4", "#c1440e", "#3a7d34", "#7a3b8f")
COLUMNS = 3
WIDTH, HEIGHT, GAP = 300, 200, 48  # of a panel's plot and between two, in pixels
SMOOTH = 0.1  # of a run's minutes: the standard deviation of the weights around each point


@dataclass(frozen=True)
class Panel:
    """Curves of one task: of each network its runs, in turn; dots and dashed lines beside them."""

    title: str
    runs: Mapping[str, Sequence[Sequence[Point]]]
    measured: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    targets: Mapping[str, float] = field(default_factory=dict)


def panels_of(logs: Mapping[str, Sequence[Line]]) -> list[Panel]:
    """A panel for each task that any network's log knows, of smoothed curves."""
    ended = {name: list(end_to_end(log)) for name, log in logs.items()}
    return [
        Panel(task, {name: [smooth(points_of(run, task)) for run in runs] for name, runs in ended.items()})
        for task in tasks_of(logs)
    ]


def tasks_of(logs: Mapping[str, Sequence[Line]]) -> list[str]:
    names = (key for log in logs.values() for line in log for key in line if key.startswith("psnr_"))
    return [name.removeprefix("psnr_") for name in dict.fromkeys(names)]


def end_to_end(log: Sequence[Line]) -> Iterator[list[Line]]:
    """The runs of a log, each of whose minutes begin where those of the one before end."""
    run: list[Line] = []
    begun = 0.0
    for line in log:
        if run and line["minutes"] + begun < run[-1]["minutes"]:
            yield run
            begun, run = run[-1]["minutes"], []
        run.append({**line, "minutes": begun + line["minutes"]})
    if run:
        yield run


def points_of(run: Sequence[Line], task: str) -> list[Point]:
    points = ((line["minutes"], line.get(f"psnr_{task}", math.nan)) for line in run)
    return [(x, y) for x, y in points if math.isfinite(y)]


def smooth(points: Sequence[Point]) -> list[Point]:
    """The mean around each point, its neighbours weighted by a Gaussian: a line of a log is a few crops."""
    if not points:
        return []
    sigma = SMOOTH * (points[-1][0] - points[0][0]) or 1.0

    def around(x: float) -> float:
        weights = [math.exp(-(((other - x) / sigma) ** 2) / 2) for other, _ in points]
        return sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / sum(weights)

    return [(x, around(x)) for x, _ in points]


def draw(panels: Sequence[Panel], caption: str = "") -> str:
    """An SVG of all panels, of networks in colours of their own, over the same minutes."""
    names = list(dict.fromkeys(name for panel in panels for name in (*panel.runs, *panel.measured)))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    most = max((x for panel in panels for x, _ in _points(panel)), default=1.0) or 1.0
    rows = max(1, math.ceil(len(panels) / COLUMNS))
    width, height = COLUMNS * (WIDTH + GAP) + GAP, rows * (HEIGHT + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="13"><rect width="100%" height="100%" fill="white"/>'
    ]
    for number, name in enumerate(names):
        parts.append(_words(GAP + 90 * number, 16, name, f'fill="{colours[name]}" font-weight="bold"'))
    parts.append(_words(GAP + 90 * len(names), 16, caption, 'fill="#555"'))
    for number, panel in enumerate(panels):
        left, top = GAP + number % COLUMNS * (WIDTH + GAP), GAP + number // COLUMNS * (HEIGHT + GAP)
        parts += [f'<g transform="translate({left},{top})">', *_drawn(panel, colours, most), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _drawn(panel: Panel, colours: Mapping[str, str], most: float) -> Iterator[str]:
    heights = [y for _, y in _points(panel)] + list(panel.targets.values())
    low = math.floor(min(heights, default=0))
    high = max(math.ceil(max(heights, default=1)), low + 1)

    def across(x: float) -> str:
        return f"{x / most * WIDTH:.1f}"

    def down(y: float) -> str:
        return f"{(high - y) / (high - low) * HEIGHT:.1f}"

    yield f'<path d="M0,0 V{HEIGHT} H{WIDTH}" fill="none" stroke="#888"/>'
    yield _words(4, -6, panel.title, 'font-weight="bold"')
    yield _words(-6, 10, str(high), 'text-anchor="end"') + _words(-6, HEIGHT, str(low), 'text-anchor="end"')
    yield _words(WIDTH, HEIGHT + 16, f"{most:.0f} minutes", 'text-anchor="end"')
    for name, target in panel.targets.items():
        height = down(target)
        yield f'<path d="M0,{height} H{WIDTH}" stroke="{colours[name]}" stroke-dasharray="6 4"/>'
    for name, runs in panel.runs.items():
        for run in runs:
            line = " ".join(f"{across(x)},{down(y)}" for x, y in run)
            yield f'<polyline points="{line}" fill="none" stroke="{colours[name]}" stroke-width="1.5"/>'
    for name, points in panel.measured.items():
        for x, y in points:
            yield f'<circle cx="{across(x)}" cy="{down(y)}" r="4" fill="{colours[name]}"/>'


def _points(panel: Panel) -> list[Point]:
    runs = [point for runs in panel.runs.values() for run in runs for point in run]
    return runs + [point for points in panel.measured.values() for point in points]


def _words(x: float, y: float, text: str, more: str) -> str:
    return f'<text x="{x}" y="{y}" {more}>{html.escape(text)}</text>'
