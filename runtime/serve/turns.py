"""Turns: several cameras share one engine, and none of them waits longer than for one frame of each other."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator


class Turns:
    """Lets one at a time in, in the order they came: cameras that ask for each frame anew take turns.

    Batches of several cameras' frames were tried instead: on a CPU they take longer than the same frames one
    by one (``python bench/batching.py``, docs/cameras.md).
    """

    def __init__(self) -> None:
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Waits for a turn, and has it until the end of the block."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket)
        try:
            yield
        finally:
            with self._changed:
                self._waiting.popleft()
                self._changed.notify_all()
