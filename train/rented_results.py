"""Results to bring home from rented time: small files of all runs, a table, and curves."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from measnet.errors import OutputError
from measnet.train.curves import Line, draw, panels_of, tasks_of
from measnet.whole_file import write_whole

LAST_SHARE = 0.1  # of the log's lines, which the table is about: one line is one batch or few


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
    write_whole(out / "results.md", f"{table}\n\n![PSNR of each task over the minutes](curves.svg)\n")
    write_whole(out / "curves.svg", draw(panels_of(logs)))
    return table


def keep_half(weights: Path, kept: Path) -> None:
    """Copies weights in half precision, everything that is said about them included."""
    from measnet.checkpoint import load_checkpoint, save_checkpoint, stored_facts

    save_checkpoint(load_checkpoint(weights).half().float(), kept, stored_facts(weights), half=True)


def say_table(logs: Mapping[str, Sequence[Line]]) -> str:
    """A Markdown table: per network its steps and speed, and the PSNR of training crops of each task, dB."""
    rows = [["", *logs]]
    rows.append(["minutes", *(f"{_last(log, 'minutes'):.1f}" for log in logs.values())])
    rows.append(["steps", *(f"{_last(log, 'step'):.0f}" for log in logs.values())])
    rows.append(["pictures/s", *(f"{_mean(log, 'pictures_per_second'):.1f}" for log in logs.values())])
    rows.append(["L1", *(f"{_mean(log, 'l1'):.4f}" for log in logs.values())])
    for task in tasks_of(logs):
        rows.append([f"{task}, dB", *(f"{_mean(log, f'psnr_{task}'):.2f}" for log in logs.values())])
    lines = [f"| {' | '.join('-' if cell == 'nan' else cell for cell in cells)} |" for cells in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


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
