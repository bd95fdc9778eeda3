"""Frames in flight: a few are worked on while the caller deals with the one before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def restore_in_order(
    restore: Callable[[Given], Made], frames: Iterable[Given], in_flight: int, check: Callable[[], None]
) -> Generator[Made, None, None]:
    """Calls ``restore`` on ``frames``, up to ``in_flight`` at once, and gives the results in order.

    ``check`` is called in the caller's thread before each wait, and may raise.
    """
    check()
    source, waiting = iter(frames), deque[Future[Made]]()
    ended, failure = False, None
    with ThreadPoolExecutor(in_flight, "measnet-stream") as pool:
        try:
            while not ended or waiting:
                while not ended and len(waiting) < in_flight:
                    try:
                        waiting.append(pool.submit(restore, next(source)))
                    except StopIteration:
                        ended = True
                    except Exception as error:
                        ended, failure = True, error  # its turn comes after the frames before it
                check()
                if waiting:
                    yield waiting.popleft().result()
            if failure is not None:
                raise failure
        finally:
            for future in waiting:
                future.cancel()
