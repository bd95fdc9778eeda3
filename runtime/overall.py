"""How far a command with several inputs is, over all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from measnet.runtime.stream import RunFigures


@dataclass(frozen=True, slots=True)
class Amount:
    """What an input asks for: ``frames`` of ``pixels`` each. ``None`` frames are not known before they came;
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
        """How many there are."""
        return len(self._amounts)

    @property
    def number(self) -> int:
        """Of the input at hand, from 1."""
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
        """No more frames come of the input at hand, however many it was to have."""
        self._over = True

    def _weight(self, index: int) -> int:
        return self._amounts[index].pixels if self._by_pixels else 1
