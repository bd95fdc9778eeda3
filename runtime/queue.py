"""The bounded queue between two stages of a run."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from measnet.runtime.frame import Frame

if TYPE_CHECKING:
    from measnet.runtime.sources import Item


class AbortedError(Exception):
    """The run was called off while a stage waited on a queue."""


class FrameQueue:
    """Hands frames and packets from one thread to the next, in order.

    Only frames count against the ``capacity``: packets are small, and a stretch of audio
    must not take the places of the frames that keep the engine busy.

    Args:
        capacity: how many frames may wait.
        newest_only: a frame never waits for room but takes the place of the one waiting;
            ``dropped`` counts those that had to go.
    """

    def __init__(self, capacity: int, *, newest_only: bool = False) -> None:
        self._capacity = capacity
        self._newest_only = newest_only
        self._items: deque[Item] = deque()
        self._frames = 0
        self._closed = False
        self._aborted = False
        self._changed = threading.Condition()
        self.dropped = 0

    def put(self, item: Item) -> None:
        """Wait for room, then append. Raises AbortedError."""
        with self._changed:
            if isinstance(item, Frame):
                if self._newest_only:
                    self._drop_waiting_frame()
                self._changed.wait_for(lambda: self._aborted or self._frames < self._capacity)
                self._frames += 1
            if self._aborted:
                raise AbortedError
            self._items.append(item)
            self._changed.notify_all()

    def get(self) -> Item | None:
        """Wait for the next item; None once the queue is closed and empty. Raises AbortedError."""
        with self._changed:
            self._changed.wait_for(lambda: self._aborted or self._closed or self._items)
            if self._aborted:
                raise AbortedError
            if not self._items:
                return None
            item = self._items.popleft()
            self._frames -= isinstance(item, Frame)
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Nothing more will be put."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Wake everyone who waits, with AbortedError."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()

    def _drop_waiting_frame(self) -> None:
        if self._frames < self._capacity:
            return
        oldest = next(item for item in self._items if isinstance(item, Frame))
        # Not remove(): comparing frames would compare their pixels.
        self._items = deque(item for item in self._items if item is not oldest)
        self._frames -= 1
        self.dropped += 1
