"""Results to bring home from rented time: small files of all runs, a table, and curves."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from measnet.errors import OutputError
from measnet.whole_file import write_whole

Line = Mapping[str, float]

LAST_SHARE = 0.1  # of the log's lines, which the table is about: one line is one batch or few
COLOURS = ("#0b62a4", "#c1440e", "#3a7d34", "#7a3b8f")
WIDTH, HEIGHT, MARGIN = 720, 360, 48  # of the plot, in pixels


def collect(names: Sequence[str], work: Path, out: Path) -> str:
    """Brings ``out`` up to date with the runs in ``work``; returns the table.

    Every file is replaced as a whole. Raises ``OutputError``.
    """
    logs = {name: _read_log(work / name / "log.jsonl") for name in names}
    try:
        for name in names:
            for source, target in ((f"{name}/log.jsonl", f"{name}.jsonl"), (f"{name}.txt", f"{name}.txt")):
                if (work / source).is_file():
                    shutil.copyfile(work / source, out / target)
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}") from None
    for name in names:
        weights, kept = work / name / "weights.safetensors", out / f"{name}.safetensors"
        if weights.is_file() and not (kept.is_file() and kept.stat().st_mtime >= weights.stat().st_mtime):
            keep_half(weights, kept)
    table = say_table(logs)
    write_whole(out / "results.md", f"{table}\n\n![mean PSNR over tasks](curves.svg)\n")
    write_whole(out / "curves.svg", draw_curves(logs))
    return table


def keep_half(weights: Path, kept: Path) -> None:
    """Copies weights in half precision, everything that is said about them included."""
    from measnet.checkpoint import load_checkpoint, save_checkpoint, stored_facts

    save_checkpoint(load_checkpoint(weights).half().float(), kept, stored_facts(weights), half=True)


def say_table(logs: Mapping[str, Sequence[Line]]) -> str:
    """A Markdown table: per network its steps and speed, and the PSNR of training crops of each task, dB."""
    tasks = list(
        dict.fromkeys(key for log in logs.values() for line in log for key in line if "psnr_" in key)
    )
    rows = [["", *logs]]
    rows.append(["minutes", *(f"{_last(log, 'minutes'):.1f}" for log in logs.values())])
    rows.append(["steps", *(f"{_last(log, 'step'):.0f}" for log in logs.values())])
    rows.append(["pictures/s", *(f"{_mean(log, 'pictures_per_second'):.1f}" for log in logs.values())])
    rows.append(["L1", *(f"{_mean(log, 'l1'):.4f}" for log in logs.values())])
    for task in tasks:
        rows.append(
            [f"{task.removeprefix('psnr_')}, dB", *(f"{_mean(log, task):.2f}" for log in logs.values())]
        )
    lines = [f"| {' | '.join('-' if cell == 'nan' else cell for cell in cells)} |" for cells in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def draw_curves(logs: Mapping[str, Sequence[Line]]) -> str:
    """An SVG: each network's PSNR of training crops, the mean over tasks, over the minutes."""
    curves = {name: [(line["minutes"], _over_tasks(line)) for line in log] for name, log in logs.items()}
    points = [point for curve in curves.values() for point in curve if math.isfinite(point[1])]
    most = max((x for x, _ in points), default=1.0) or 1.0
    low, high = (
        math.floor(min((y for _, y in points), default=0)),
        math.ceil(max((y for _, y in points), default=1)),
    )
    high = max(high, low + 1)

    def place(x: float, y: float) -> str:
        across = MARGIN + x / most * (WIDTH - 2 * MARGIN)
        return f"{across:.1f},{HEIGHT - MARGIN - (y - low) / (high - low) * (HEIGHT - 2 * MARGIN):.1f}"

    def words(x: float, y: float, text: str, more: str = "") -> str:
        return f'<text x="{x}" y="{y}" {more}>{text}</text>'

    right, bottom = WIDTH - MARGIN, HEIGHT - MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="13"><rect width="100%" height="100%" fill="white"/>',
        f'<path d="M{MARGIN},{MARGIN} V{bottom} H{right}" fill="none" stroke="#888"/>',
        words(8, MARGIN, f"{high} dB") + words(8, bottom, f"{low} dB"),
        words(MARGIN, bottom + 20, "0") + words(right - 60, bottom + 20, f"{most:.1f} minutes"),
    ]
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(place(x, y) for x, y in curve if math.isfinite(y))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(words(MARGIN + 12, MARGIN + 16 * (number + 1), name, f'fill="{colour}"'))
    return "\n".join([*parts, "</svg>", ""])


def _read_log(path: Path) -> list[Line]:
    """Its whole lines; a run may be writing the last one."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _last(log: Sequence[Line], name: str) -> float:
    return log[-1].get(name, math.nan) if log else math.nan


def _mean(log: Sequence[Line], name: str) -> float:
    """Over the last of the lines that know it."""
    values = [line[name] for line in log if name in line]
    values = values[-max(1, round(len(log) * LAST_SHARE)) :]
    return sum(values) / len(values) if values else math.nan


def _over_tasks(line: Line) -> float:
    values = [value for name, value in line.items() if name.startswith("psnr_")]
    return sum(values) / len(values) if values else math.nan
