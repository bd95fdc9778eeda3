"""How far a run is: bars in a terminal, with a picture above them if there is one; else a line a minute."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from measnet.runtime.overall import Overall
from measnet.runtime.preview.terminal import Terminal
from measnet.runtime.stream import RunFigures

LINE_EVERY = 60.0
"""Seconds between two lines where there is no terminal: in a log, bars are noise."""

_NAME_WIDTH = 32


class Bars:
    """A bar for one input and, with several, one over all. Nothing of them stays.

    Args:
        console: where they are drawn.
        name: of the result.
        total: frames that it is to have, if that is known.
        overall: how far the whole command is, if it has several inputs.
        picture: shown above them, if there is one.
        silent: draw nothing.
    """

    def __init__(
        self,
        console: Console,
        name: str,
        total: int | None,
        *,
        overall: Overall | None = None,
        picture: Terminal | None = None,
        silent: bool = False,
    ) -> None:
        self._console = console
        self._name = name
        self._total = total
        self._overall = overall
        self._picture = picture
        self._lines = not silent and not console.is_terminal
        self._next_line = time.monotonic() + LINE_EVERY
        self._progress = _Rows(console, picture, disable=silent or not console.is_terminal)
        self._own = self._progress.add_task(escape(name), total=total, count="", left="")
        self._all = (
            None
            if overall is None
            else self._progress.add_task(f"input {overall.number} of {overall.inputs}", count="", left="")
        )

    def update(self, figures: RunFigures) -> None:
        """Draws how far it is."""
        if self._overall is not None:
            self._overall.update(figures)
        if self._lines and time.monotonic() >= self._next_line:
            self._next_line += LINE_EVERY
            self._console.print(escape(f"{self._name}: {self._line(figures)}"))
        self._progress.update(
            self._own,
            completed=figures.position,
            count=f"{_count(figures.position, self._total)}  {figures.fps:.1f} fps",
            left=self._time(figures),
        )
        if self._all is not None and self._overall is not None:
            overall = self._overall
            self._progress.update(
                self._all,
                total=overall.frames,
                completed=overall.done,
                count=_count(overall.done, overall.frames),
                left=_left(overall.seconds_left),
            )

    def __enter__(self) -> Bars:
        if self._picture is not None:
            self._picture.drawn_by(self._progress.refresh)
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if self._picture is not None:
            self._picture.leave()

    def _time(self, figures: RunFigures) -> str:
        """What is left of it; what it took so far where that cannot be told."""
        if self._total is None:
            return _clock(figures.seconds_total)
        if not figures.fps:
            return ""
        if figures.position >= self._total:
            return "finishing"
        return _left(max(0, self._total - figures.position) / figures.fps)

    def _line(self, figures: RunFigures) -> str:
        parts = [f"{_count(figures.position, self._total)} frames", f"{figures.fps:.1f} fps"]
        parts.append(self._time(figures))
        if self._overall is not None:
            overall = self._overall
            parts.append(f"input {overall.number} of {overall.inputs}")
            parts.append(f"{_count(overall.done, overall.frames)} frames of all")
            parts.append(_left(overall.seconds_left))
        return ", ".join(part for part in parts if part)


class _Rows(Progress):
    """The bars, with the picture above them."""

    def __init__(self, console: Console, picture: Terminal | None, *, disable: bool) -> None:
        self._picture = picture
        super().__init__(
            TextColumn(
                "{task.description}",
                table_column=Column(no_wrap=True, overflow="ellipsis", max_width=_NAME_WIDTH),
            ),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            disable=disable,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """See Progress."""
        if self._picture is not None:
            yield self._picture
        yield self.make_tasks_table(self.tasks)


def _count(done: int, total: int | None) -> str:
    return f"{done}" if total is None else f"{done}/{total}"


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{_clock(seconds)} left"


def _clock(seconds: float) -> str:
    """0:01:05."""
    return str(timedelta(seconds=round(seconds)))
