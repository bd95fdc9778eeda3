"""Checks in the background: in a thread of its own, on no more than its share of the time."""

from __future__ import annotations

import copy
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from measnet.errors import ParityError
from measnet.runtime.frame import Pixels, Restoration
from measnet.runtime.run_report import RunReport
from measnet.runtime.stream import Observer


class Checker(Protocol):
    """Compares restored pictures with the reference: the part of Verifier that is needed here."""

    @property
    def figures(self) -> dict[str, Any]: ...
    def check(self, pixels: Pixels, restored: Any, /) -> Any: ...
    def close(self) -> None: ...


class BackgroundChecker(Observer):
    """Has every N-th frame compared beside the run.

    A frame is taken when the one before is done and the checker has kept to its share since; otherwise it is
    left out and counted, so that nothing waits and nothing piles up. The first frame is always taken.

    Args:
        checker: what compares; used in this object's thread alone, and closed with it.
        share: of the time by the clock that it may compute, above 0 to 1. What its first frame takes is not
            counted: much of it is prepared once.
        every: so many frames one is offered.
        clock: tells seconds.
    """

    def __init__(
        self,
        checker: Checker,
        share: float,
        every: int = 1,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._checker = checker
        self._share = share
        self._every = every
        self._clock = clock
        self._seen = 0
        self._seconds = 0.0
        self._frames: queue.Queue[tuple[Pixels, Any] | None] = queue.Queue(1)
        self._idle = threading.Event()
        self._idle.set()
        self._free_from = 0.0
        self._checked = 0
        self._left_out = 0
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="measnet-verify", daemon=True)
        self._thread.start()

    def restored(self, passing: Restoration) -> None:
        """See Observer.restored."""
        if self._seen % self._every == 0:
            started = time.perf_counter()
            passing.verified = self.check(passing.source.pixels, passing.engine_result)
            self._seconds += time.perf_counter() - started
        self._seen += 1

    def conclude(self, report: RunReport) -> None:
        """See Observer.conclude. Raises ParityError."""
        report.verify = figures = self.figures
        report.seconds["verify"] = round(self._seconds, 4)
        if not figures["passed"]:
            message = (
                f"{report.output} is not what the network gives in float32: "
                f"{'; '.join(figures['breaches'])}; try another --backend and report this one"
            )
            report.error = message
            raise ParityError(message)

    def check(self, pixels: Pixels, restored: Any, /) -> bool:
        """Has ``restored`` compared soon; False where it is left out.

        Raises what an earlier comparison raised.
        """
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
