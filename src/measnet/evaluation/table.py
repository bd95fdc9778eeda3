"""The figures for people: one table per question, in Markdown, so that they can be pasted into a document."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table

from measnet.evaluation.measure import Quality, SetFigures, gained, mean
from measnet.evaluation.published import (
    FIVE_TASKS,
    SINGLE_TASK,
    THREE_TASKS,
    Column,
    Setting,
    published_column,
)

TASK_TITLES = {
    "dehaze": "Dehaze",
    "derain": "Derain",
    "denoise": "Denoise",
    "deblur": "Deblur",
    "lowlight": "Low light",
}
NOTHING = "–"


def tables(sets: Sequence[SetFigures], models: Sequence[str]) -> str:
    """Every table that the figures fill, as text. ``models`` are the names of the one or two models."""
    parts = [gains(sets, models[0])]
    if any(one.classical for one in sets):
        parts.append(against_classical(sets, models[0]))
    if len(models) == 2:
        parts.append(side_by_side(sets, models))
    texts = [_text(table) for table in parts]
    for setting in settings(sets):
        texts.append(_text(papers_layout(sets, models, setting)))
        absent = missing(sets, setting)
        if absent:
            texts.append(f"Not measured, of the paper's sets: {', '.join(absent)}.\n")
    tiled = sum(one.tiled for one in sets)
    if tiled:
        total = sum(len(one.pictures) for one in sets)
        texts.append(
            f"In tiles, each of which chose its own image-level experts: {tiled} of {total} pictures.\n"
        )
    return "\n".join(texts)


def gains(sets: Sequence[SetFigures], model: str) -> Table:
    """Every set before and after."""
    table = _table("PSNR, dB / SSIM, means over pictures", "set", "task")
    for heading in ("pictures", "before", model, "gain, dB", "improved"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in sets:
        after = one.restored()
        table.add_row(
            one.title,
            TASK_TITLES[one.task].lower(),
            str(len(one.pictures)),
            cell(one.before),
            cell(after),
            signed(gained(one.before.psnr_db, after.psnr_db)),
            str(one.improved),
        )
    return table


def against_classical(sets: Sequence[SetFigures], model: str) -> Table:
    """Every set compared with the best of its task's classical tools."""
    table = _table("Compared with the classical tool, in the setting that suits the set best", "set", "tool")
    for heading in ("tool", model, "ahead, dB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in sets:
        if one.classical:
            tool, reached = next(iter(one.classical.items()))
            ahead = signed(gained(reached.psnr_db, one.restored().psnr_db))
            table.add_row(one.title, tool, cell(reached), cell(one.restored()), ahead)
    return table


def side_by_side(sets: Sequence[SetFigures], models: Sequence[str]) -> Table:
    """Two models and what the second loses (negative) or gains; how alike their results are."""
    table = _table("Side by side: B − A, and how far B's results are from A's at worst", "set")
    headings = ("B − A, dB", "worst picture, dB", "B to A, dB", "largest difference", "experts agree")
    for heading in (*models, *headings):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in sets:
        first, second, alike = one.restored(0), one.restored(1), one.likeness
        assert alike is not None
        table.add_row(
            one.title,
            cell(first),
            cell(second),
            signed(gained(first.psnr_db, second.psnr_db), digits=3),
            signed(one.worst_loss_db, digits=3),
            decibels(alike.psnr_db),
            f"{alike.largest_difference:.2g}",
            share(alike.experts_agree),
        )
    return table


def settings(sets: Sequence[SetFigures]) -> list[Setting]:
    """The paper's tables in which the sets belong."""
    five = any(one.task in ("deblur", "lowlight") for one in sets)
    three = any(one.sigma in (15, 50) for one in sets) or not five
    found = [setting for setting, wanted in ((THREE_TASKS, three), (FIVE_TASKS, five)) if wanted]
    return [setting for setting in found if _members(sets, setting)]


def papers_layout(sets: Sequence[SetFigures], models: Sequence[str], setting: Setting) -> Table:
    """The paper's layout: sets as columns, methods as rows; published figures under published sets alone."""
    members = _members(sets, setting)
    columns = [published_column(one.task, one.name, one.sigma) for one in members]
    table = _table(setting.title, "method")
    for one in members:
        table.add_column(_heading(one), justify="right", no_wrap=True)
    table.add_column("mean", justify="right", no_wrap=True)

    def row(name: str, values: Sequence[Quality | None], average: Quality | None) -> None:
        table.add_row(name, *(cell(value) for value in (*values, average)))

    def own(name: str, values: Sequence[Quality]) -> None:
        row(name, values, mean(values))

    own("degraded", [one.before for one in members])
    if all(one.classical for one in members):
        own("classical tool", [next(iter(one.classical.values())) for one in members])
    for number, model in enumerate(models):
        own(model, [one.restored(number) for one in members])

    def theirs(name: str, results: Mapping[Column, Quality], average: Quality | None) -> None:
        values = [None if column is None else results.get(column) for column in columns]
        if any(values):
            row(name, values, average if set(columns) == set(results) else None)

    theirs(setting.row, setting.results, setting.mean)
    theirs("MEASNet, one task alone (published)", SINGLE_TASK, None)
    return table


def missing(sets: Sequence[SetFigures], setting: Setting) -> list[str]:
    """The paper's sets that were not measured."""
    measured = {published_column(one.task, one.name, one.sigma) for one in sets}
    return [column.title for column in setting.results if column not in measured]


def cell(quality: Quality | None) -> str:
    """``31.61/.981``, as the paper prints it."""
    if quality is None:
        return NOTHING
    return f"{decibels(quality.psnr_db)}/{quality.ssim:.3f}".replace("/0.", "/.").replace("/-0.", "/-.")


def decibels(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "∞"


def signed(value: float, digits: int = 2) -> str:
    if not math.isfinite(value):
        return "+∞" if value > 0 else "−∞"
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0:.{digits}f}"


def share(value: float | None) -> str:
    """Writes a share in percent, rounded down: 100 % means every pixel."""
    return NOTHING if value is None else f"{math.floor(value * 1e5) / 1e5:.3%}"


def _members(sets: Sequence[SetFigures], setting: Setting) -> list[SetFigures]:
    """The sets that have a column in a table, in the table's order."""
    order = {(column.task, column.sigma): place for place, column in enumerate(setting.results)}
    members = [one for one in sets if (one.task, one.sigma) in order]
    return sorted(members, key=lambda one: order[one.task, one.sigma])


def _heading(one: SetFigures) -> str:
    """``Derain Rain100L``; a folder that is called after its task is said once."""
    task = TASK_TITLES[one.task]
    return task if one.title == one.task else f"{task} {one.title}"


def markdown(title: str, left: Sequence[str], right: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as text; ``left`` and ``right`` are the headings of its columns, by how they are set."""
    table = _table(title, *left)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return _text(table)


def _table(title: str, *left: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.MARKDOWN, title_style="bold")
    for heading in left:
        table.add_column(heading, no_wrap=True)
    return table


def _text(table: Table) -> str:
    """A table as text: never squeezed, a terminal that is too narrow breaks its lines."""
    page = StringIO()
    Console(file=page, width=1000).print(table)
    lines = [line.rstrip() for line in page.getvalue().splitlines()]
    return "\n".join([lines[0], "", *(line for line in lines[1:] if line)]) + "\n"
