"""Draws how the bundled weights were trained, task by task: whether it was still rising, or flat.

    python bench/curves.py [docs/curves] [--out docs/images/curves.svg]

The folder has the log of each run, ``gated-NETWORK-NUMBER.jsonl``; a network's are laid end to end in the
order of their numbers, each smoothed by itself. Lines are PSNR of the crops of training, a mixture that
differs from run to run. ``measured.json`` has what the weights shipped after a run reach on the test sets
(dots), and the targets that were set for these (dashed). Prints the mean of each run's last quarter.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from measnet.train.curves import Line, Panel, Point, draw, end_to_end, points_of, smooth
from measnet.whole_file import write_whole

TITLES = {
    "denoise15": "noise σ 15",
    "denoise25": "noise σ 25",
    "denoise50": "noise σ 50",
    "coded": "coded video",
    "derain": "rain",
    "dehaze": "haze",
    "lowlight": "low light",
    "deblur": "blur",
    "keep": "undamaged",
}
CAPTION = "lines: crops of training, run after run; dots: the test set; dashed: its target"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs/curves"))
    parser.add_argument("--out", type=Path, default=Path("docs/images/curves.svg"))
    options = parser.parse_args()
    logs: dict[str, list[Line]] = defaultdict(list)
    ends: dict[str, tuple[str, float]] = {}
    for path in sorted(options.folder.glob("gated-*-*.jsonl"), key=in_order):
        name, _ = in_order(path)
        logs[name] += [json.loads(line) for line in path.read_text().splitlines()]
        ends[path.stem] = (name, list(end_to_end(logs[name]))[-1][-1]["minutes"])
    runs = {name: list(end_to_end(log)) for name, log in logs.items()}
    print_ends(runs)
    beside: dict[str, Any] = json.loads((options.folder / "measured.json").read_text())
    write_whole(options.out, draw([panel(task, runs, ends, beside) for task in TITLES], CAPTION))


def in_order(path: Path) -> tuple[str, int]:
    _, name, number = path.stem.split("-")
    return name, int(number)


def panel(
    task: str, runs: dict[str, list[list[Line]]], ends: dict[str, tuple[str, float]], beside: dict[str, Any]
) -> Panel:
    measured: dict[str, list[Point]] = defaultdict(list)
    for figures in beside["measured"]:
        name, minutes = ends[figures["after"]]
        if task in figures:
            measured[name].append((minutes, figures[task]))
    smoothed = {name: [smooth(points_of(run, task)) for run in of] for name, of in runs.items()}
    targets = {name: of[task] for name, of in beside["targets"].items() if task in of}
    return Panel(f"{TITLES[task]}, dB", smoothed, measured, targets)


def print_ends(runs: dict[str, list[list[Line]]]) -> None:
    print(f"| network | until minute | {' | '.join(TITLES.values())} |\n|{'---|' * (len(TITLES) + 2)}")
    for name, of in runs.items():
        for run in of:
            ends = [last_quarter(points_of(run, task)) for task in TITLES]
            print(f"| {name} | {run[-1]['minutes']:.0f} | {' | '.join(f'{end:.2f}' for end in ends)} |")


def last_quarter(points: list[Point]) -> float:
    last = [y for _, y in points[-max(1, len(points) // 4) :]]
    return sum(last) / len(last) if last else math.nan


if __name__ == "__main__":
    main()
