"""Progress: how far an input is, and all of them; bars in a terminal, else a line a minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from measnet.printable import printable
from measnet.runtime.stream import RunFigures
from measnet.runtime.terminal import Terminal


@dataclass(frozen=True, slots=True)
class Amount:
    """Size of an input: ``frames`` of ``pixels`` each. ``None`` frames are not known before they came;
    ``0`` pixels: they differ, or are not known."""

    frames: int | None
    pixels: int


class Overall:
    """Counts the frames of all inputs, and tells the time left over all of them.

    The time is told by what was restored in this run: per pixel, or per frame where an input does not say
    how many pixels its frames have.

    Args:
        amounts: of all inputs, in their order.
        clock: tells seconds.
    """

    def __init__(self, amounts: Sequence[Amount], clock: Callable[[], float] = time.perf_counter) -> None:
        self._amounts = list(amounts)
        self._clock = clock
        self._by_pixels = all(amount.pixels for amount in amounts)
        self._started: float | None = None
        self._at = -1
        self._over = False
        self._finished = 0
        self._position = 0
        self._worked = 0.0
        self._worked_before = 0.0

    @property
    def inputs(self) -> int:
        """Number of all inputs."""
        return len(self._amounts)

    @property
    def number(self) -> int:
        """Number of the input at hand, from 1."""
        return self._at + 1

    @property
    def done(self) -> int:
        """Frames of all results that are restored, by this run or one before."""
        return self._finished + self._position

    @property
    def frames(self) -> int | None:
        """All there are to be, if that is known."""
        expected = [amount.frames for amount in self._amounts[max(0, self._at) :]]
        if self._over and expected:
            expected[0] = self._position
        known = [frames for frames in expected if frames is not None]
        return None if len(known) < len(expected) else max(self.done, self._finished + sum(known))

    @property
    def seconds_left(self) -> float | None:
        """Over all inputs, if that can be told yet."""
        if self._started is None or not self._worked or self.frames is None:
            return None
        left = 0.0
        for index in range(max(0, self._at), len(self._amounts)):
            frames = self._amounts[index].frames or 0
            if index == self._at:
                frames = 0 if self._over else max(0, frames - self._position)
            left += frames * self._weight(index)
        return left * (self._clock() - self._started) / self._worked

    def begin(self, index: int) -> None:
        """The input of this number, from 0, is at hand; those before it are over."""
        self._finished += self._position
        self._position = 0
        self._worked_before = self._worked
        self._at = index
        self._over = False
        if self._started is None:
            self._started = self._clock()

    def update(self, figures: RunFigures) -> None:
        """The figures so far of the input at hand."""
        self._position = figures.position
        self._worked = self._worked_before + figures.frames * self._weight(self._at)

    def end(self) -> None:
        """Ends the input at hand, however many frames it was to have."""
        self._over = True

    def _weight(self, index: int) -> int:
        return self._amounts[index].pixels if self._by_pixels else 1


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
        self._own = self._progress.add_task(escape(printable(name)), total=total, count="", left="")
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
            self._console.print(escape(printable(f"{self._name}: {self._line(figures)}")))
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
        """Tells the time left; the time taken so far where that is not known."""
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
