"""Time that a method takes: by the clock, which a user waits for, and of processor cores, which is the same
on a busy machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True)
class Taken:
    """Seconds."""

    cores: float
    """Work of all cores together; what a GPU does is not in it."""

    clock: float | None
    """None where another program does the work, at its own pace."""

    def __add__(self, other: Taken) -> Taken:
        known = self.clock is not None and other.clock is not None
        clock = (self.clock or 0) + (other.clock or 0) if known else None
        return Taken(self.cores + other.cores, clock)

    def per(self, count: int) -> Taken:
        """The share of one of so many frames."""
        return Taken(self.cores / count, None if self.clock is None else self.clock / count)


class Stopwatch:
    """Adds up what happens inside ``with`` blocks."""

    def __init__(self) -> None:
        self.taken = Taken(0.0, 0.0)

    def __enter__(self) -> Stopwatch:
        self._began = time.process_time(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cores, clock = self._began
        self.taken += Taken(time.process_time() - cores, time.perf_counter() - clock)
