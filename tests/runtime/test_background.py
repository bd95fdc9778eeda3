"""Checks in the background never hold a run up, keep to their share, and lose no error."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from measnet.errors import BackendError
from measnet.runtime.parity import BackgroundChecker

FRAME = np.zeros((2, 2, 3), np.uint8)


class Checker:
    """Takes ``seconds`` of a clock that stands still otherwise."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.now = 0.0
        self.seen: list[Any] = []
        self.closed = False
        self.may_end = threading.Event()
        self.may_end.set()
        self._seconds = seconds

    def clock(self) -> float:
        return self.now

    def check(self, pixels: Any, restored: Any) -> None:
        self.may_end.wait()
        self.now += self._seconds
        self.seen.append(restored)

    @property
    def figures(self) -> dict[str, Any]:
        return {"frames": len(self.seen)}

    def close(self) -> None:
        self.closed = True


def in_background(checker: Any, **options: Any) -> Any:
    return BackgroundChecker(checker, **options)


def test_frames_that_come_while_one_is_compared_are_left_out() -> None:
    checker = Checker()
    checker.may_end.clear()
    background = in_background(checker, share=1)
    for number in range(5):
        background.check(FRAME, number)
    checker.may_end.set()
    assert background.figures == {"frames": 1, "left_out": 4}
    background.check(FRAME, 5)
    assert background.figures == {"frames": 2, "left_out": 4}
    background.close()
    assert checker.closed and checker.seen == [0, 5]


def test_the_share_of_the_time_is_kept_the_first_frame_aside() -> None:
    checker = Checker(seconds=2)
    background = in_background(checker, share=0.25, clock=checker.clock)
    background.check(FRAME, "first")
    assert background.figures["frames"] == 1
    background.check(FRAME, "second")  # what was prepared for the first one is not held against it
    assert background.figures["frames"] == 2
    checker.now += 5.9  # 2 seconds are a quarter of 8
    background.check(FRAME, "early")
    assert background.figures == {"frames": 2, "left_out": 1}
    checker.now += 0.2
    background.check(FRAME, "third")
    assert background.figures == {"frames": 3, "left_out": 1}
    background.close()


def test_memory_that_an_engine_uses_again_does_not_change_what_is_compared() -> None:
    checker = Checker()
    checker.may_end.clear()
    background = in_background(checker, share=1)
    restored = np.full(3, 7)
    background.check(FRAME, restored)
    restored[:] = 0
    checker.may_end.set()
    assert background.figures["frames"] == 1
    background.close()
    assert (checker.seen[0] == 7).all()


def test_an_error_of_a_comparison_ends_the_run() -> None:
    checker = Checker()
    background = in_background(checker, share=1)

    def fail(pixels: Any, restored: Any) -> None:
        raise BackendError("the reference failed")

    checker.check = fail  # type: ignore[method-assign]  # for this one test
    background.check(FRAME, 0)
    with pytest.raises(BackendError, match="the reference failed"):
        _ = background.figures
    with pytest.raises(BackendError, match="the reference failed"):
        background.check(FRAME, 1)
    background.close()
