"""When the preview is drawn: a few times a second, and never for more than its share of the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from measnet.runtime.compare.layout import Layout
from measnet.runtime.frame import Frame, Restoration, StreamInfo
from measnet.runtime.preview.screen import Screen
from measnet.runtime.preview.shown import shown
from measnet.runtime.stream import Observer

PER_SECOND = 5
"""Most pictures a second."""

SHARE = 0.05
"""Most of the time, by the clock, that drawing takes. It is done in the thread that waits for the run."""

_ATTEND_EVERY = 0.05


class Preview(Observer):
    """The newest source and result on a screen.

    Args:
        screen: where.
        layout: ``side`` by side, or ``split`` down the middle.
        clock: tells seconds.
    """

    def __init__(
        self, screen: Screen, layout: Layout, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.screen = screen
        self._layout = layout
        self._clock = clock
        self._info: StreamInfo | None = None
        self._newest: tuple[Frame, Frame] | None = None
        self._free_from = 0.0

    def begin(self, info: StreamInfo) -> None:
        """The frames to come are of this stream."""
        self._info = info
        self._newest = None

    def finished(self, passing: Restoration) -> None:
        """See Observer.finished. It only takes note of the newest pair."""
        self._newest = passing.source, passing.result

    def draw(self) -> None:
        """Show the newest pair if it is time to."""
        if self._clock() >= self._free_from:
            self._draw_newest()
        self.screen.attend()

    def end(self) -> None:
        """Show the last pair of the stream, whenever the one before was shown."""
        self._draw_newest()
        self.screen.attend()

    def linger(self, stop: threading.Event) -> None:
        """Wait until the person has seen enough, or ``stop`` is set; at once where what is shown stays."""
        while self.screen.open and not self.screen.outlasts and not stop.wait(_ATTEND_EVERY):
            self.screen.attend()

    def close(self) -> None:
        """Take the screen away."""
        self.screen.close()

    def _draw_newest(self) -> None:
        newest, self._newest = self._newest, None
        if newest is None or self._info is None or not self.screen.open:
            return
        started = self._clock()
        self.screen.show(shown(*newest, self._info, self._layout, self.screen.room()))
        ended = self._clock()
        self._free_from = max(started + 1 / PER_SECOND, ended + (ended - started) * (1 / SHARE - 1))
