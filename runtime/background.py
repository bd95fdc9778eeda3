"""Checks in the background: in a thread of its own, on no more than its share of the time."""

from __future__ import annotations

import copy
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from measnet.runtime.frame import Pixels
from measnet.runtime.job import Checker


class OwnChecker(Checker, Protocol):
    """A checker that can be closed."""

    def close(self) -> None: ...


class BackgroundChecker:
    """Has the face of the checker that it runs beside the run.

    A frame is taken when the one before is done and the checker has kept to its share since; otherwise it is
    left out and counted, so that nothing waits and nothing piles up. The first frame is always taken.

    Args:
        checker: what compares; used in this object's thread alone, and closed with it.
        share: of the time by the clock that it may compute, above 0 to 1. What its first frame takes is not
            counted: much of it is prepared once.
        clock: tells seconds.
    """

    def __init__(
        self, checker: OwnChecker, share: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._checker = checker
        self._share = share
        self._clock = clock
        self._frames: queue.Queue[tuple[Pixels, Any] | None] = queue.Queue(1)
        self._idle = threading.Event()
        self._idle.set()
        self._free_from = 0.0
        self._checked = 0
        self._left_out = 0
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="measnet-verify", daemon=True)
        self._thread.start()

    def check(self, pixels: Pixels, restored: Any, /) -> bool:
        """Has ``restored`` compared soon, or leaves it out and says False. Raises what an earlier comparison
        raised."""
        self._raise_failure()
        if not self._idle.is_set() or self._clock() < self._free_from:
            self._left_out += 1
            return False
        self._idle.clear()
        self._frames.put(copy.deepcopy((pixels, restored)))  # an engine may use its memory again
        return True

    @property
    def figures(self) -> dict[str, Any]:
        """The checker's, once it is done with what it took; ``left_out`` counts what it did not take."""
        self._idle.wait()
        self._raise_failure()
        return {**self._checker.figures, "left_out": self._left_out}

    def close(self) -> None:
        """Ends the thread, after the comparison it is at, and closes the checker."""
        if self._thread.is_alive():
            self._frames.put(None)
            self._thread.join()
            self._checker.close()

    def _work(self) -> None:
        while (item := self._frames.get()) is not None:
            started = self._clock()
            try:
                self._checker.check(*item)
            except BaseException as error:
                self._failure = error
            ended = self._clock()
            if self._checked:
                self._free_from = ended + (ended - started) * (1 / self._share - 1)
            self._checked += 1
            self._idle.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
