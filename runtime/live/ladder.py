"""Ladder: does less work per second while frames reach the sinks too late, more again when they do not."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from measnet.errors import MEASNetError
from measnet.image import Pixels
from measnet.runtime.frame import Mark, Restoration
from measnet.runtime.live.watch import Watch
from measnet.runtime.stream import Step

WINDOW = 2.0
"""Seconds after a step before the next one is thought of, downwards."""

LEAST_FRAMES = 4
"""Number to judge by, at the least."""

PATIENCE, MOST_PATIENCE = 30.0, 3600.0
"""Seconds in which all must be well before more work is tried; twice as long each time it was too much."""

EASY = 0.5
"""Share of the limit that the slowest frame of that time may have taken."""

_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Rung:
    """A measure of work: every so many-th frame, by the smaller model or the chosen one, at half the size or
    at its own."""

    every: int = 1
    smaller: str | None = None
    """Name of the smaller model."""

    half: bool = False

    @property
    def words(self) -> str:
        """For people."""
        often = {1: "full", 2: "every second frame", 4: "every fourth frame"}[self.every]
        by = f", by {self.smaller}" if self.smaller else ""
        return f"{often}{by}{', at half size' if self.half else ''}"


def rungs(smaller: str | None = None) -> tuple[Rung, ...]:
    """From all of the work to the least, each with less of it: fewer frames, then the ``smaller`` model where
    there is one, then a smaller picture, then still fewer frames."""
    by_smaller = (Rung(2, smaller),) if smaller else ()
    return (Rung(), Rung(2), *by_smaller, Rung(2, smaller, half=True), Rung(4, smaller, half=True))


class Ladder:
    """Chooses the rung by how late frames come. Thread-safe.

    It goes down a rung when more than half of the frames of a window were late, and up again when none
    came near the limit for ``PATIENCE``. Every step is an event.

    Args:
        limit: seconds from capture to sink.
        watch: hears of every step.
        rungs: from all of the work to the least.
        window: seconds after a step before the next one is thought of, downwards.
        clock: tells seconds.
    """

    def __init__(
        self,
        limit: float,
        watch: Watch,
        rungs: Sequence[Rung],
        *,
        window: float = WINDOW,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._watch = watch
        self._rungs = rungs
        self._window = window
        self._clock = clock
        self._lock = threading.Lock()
        self._place = 0
        self._arrived = 0
        self._patience = PATIENCE
        self._tried_more = False
        self._began = clock()
        self._since, self._frames, self._late = 0.0, 0, 0
        self._slowest: float = 0.0
        self._steps: deque[tuple[float, str]] = deque(maxlen=_KEPT)
        self._begin(clock())

    @property
    def rung(self) -> Rung:
        """The one it stands on."""
        return self._rungs[self._place]

    def admits(self) -> bool:
        """Says of the next frame whether it is to be restored."""
        with self._lock:
            self._arrived += 1
            return (self._arrived - 1) % self.rung.every == 0

    def for_report(self) -> list[dict[str, Any]]:
        """Tells the last steps, with the seconds at which they were taken."""
        with self._lock:
            return [{"at": round(at, 3), "rung": words} for at, words in self._steps]

    def saw(self, latency: float) -> None:
        """Judges by a frame that reached the sinks, or was left out for being so late."""
        now = self._clock()
        with self._lock:
            self._frames += 1
            self._late += latency > self._limit
            self._slowest = max(self._slowest, latency)
            if now - self._since < self._window or self._frames < LEAST_FRAMES:
                return
            if self._late > self._frames / 2:
                if self._tried_more:
                    self._patience = min(2 * self._patience, MOST_PATIENCE)
                self._tried_more = False
                self._step(1, now)
            elif self._slowest > EASY * self._limit:
                self._begin(now)
            elif now - self._since >= self._patience:
                self._tried_more = True
                self._step(-1, now)

    def _step(self, by: int, now: float) -> None:
        self._begin(now)
        place = min(max(self._place + by, 0), len(self._rungs) - 1)
        if place == self._place:
            return
        self._place = place
        self._steps.append((now - self._began, self.rung.words))
        self._watch.telemetry.climbed(self.rung.words)
        why = f"frames come later than {self._limit:g} s" if by > 0 else "there is time again"
        self._watch.say("ladder", f"{why}: {self.rung.words}", rung=self.rung.words)

    def _begin(self, now: float) -> None:
        self._since, self._frames, self._late, self._slowest = now, 0, 0, 0.0


class AtRung:
    """The first step of a stream: restores as the ladder asks for. The result keeps its size.

    Args:
        step: restores with the chosen model.
        ladder: is asked before every frame.
        watch: hears that the smaller model cannot be had.
        smaller: opens a step with the smaller model; called at most once.
    """

    def __init__(
        self, step: Step, ladder: Ladder, watch: Watch, smaller: Callable[[], Step] | None = None
    ) -> None:
        self.name = step.name
        self._step = step
        self._ladder = ladder
        self._watch = watch
        self._open_smaller = smaller
        self._smaller: Step | None = None

    def take(self, passing: Restoration) -> None:
        rung = self._ladder.rung
        step = self._step if rung.smaller is None else self._with_smaller(rung.smaller)
        if rung.half and min(passing.source.pixels.shape[:2]) > 1:
            self._take_half(step, passing)
        else:
            step.take(passing)
        if step is not self._step:
            # Its experts are others than those of the frames before, and no reference stands for it.
            passing.choices, passing.prompt_weights, passing.engine_result = [], [], None

    def _with_smaller(self, name: str) -> Step:
        if self._open_smaller is not None:
            open_smaller, self._open_smaller = self._open_smaller, None
            try:
                self._smaller = open_smaller()
            except MEASNetError as error:
                self._watch.say("note", f"{name} cannot take over: {error}")
        return self._smaller or self._step

    @staticmethod
    def _take_half(step: Step, passing: Restoration) -> None:
        whole = passing.source
        passing.source = replace(whole, pixels=_halved(whole.pixels))
        try:
            step.take(passing)
        finally:
            passing.source = whole
        height, width = whole.pixels.shape[:2]
        passing.pixels = np.asarray(
            cv2.resize(passing.pixels, (width, height), interpolation=cv2.INTER_CUBIC), whole.pixels.dtype
        )
        # It belongs to a picture that nobody else has seen.
        passing.engine_result = None

    def mark(self, mark: Mark) -> Mark:
        return self._step.mark(mark)


def _halved(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    half = (width + 1) // 2, (height + 1) // 2
    return np.asarray(cv2.resize(pixels, half, interpolation=cv2.INTER_AREA), pixels.dtype)
