"""Preview: source and result on the screen while a run goes on; small, seldom, never in the result's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from measnet.image import eight_bits
from measnet.image_header import orientation
from measnet.runtime.comparison import Layout, laid_out
from measnet.runtime.frame import Frame, Restoration, StreamInfo
from measnet.runtime.sinks.orientation import EXIF_TURNS, Turn, turn_of, turned
from measnet.runtime.stream import Observer

Shown = npt.NDArray[np.uint8]
"""H×W×3, RGB."""


@dataclass(frozen=True, slots=True)
class Room:
    """Space that a screen has for a picture, in pixels of its own."""

    width: int
    height: int


def shown(source: Frame, restored: Frame, info: StreamInfo, layout: Layout, room: Room) -> Shown:
    """Puts both frames into one picture that fits into ``room``; never larger than they are."""
    each = Room(room.width // 2, room.height) if layout == "side" else room
    return np.asarray(laid_out(*pair_shown(source, restored, info, each), layout), np.uint8)


def pair_shown(source: Frame, restored: Frame, info: StreamInfo | None, room: Room) -> tuple[Shown, Shown]:
    """Makes both frames of one size that fits into ``room``, upright, never larger than they are.

    Pixels are picked, not averaged: an average would take away the very noise that the result is to be
    compared by. So it costs the same for frames of any size.
    """
    turn = EXIF_TURNS[1] if info is None else _turn(source, info)
    height, width = source.pixels.shape[:2]
    aspect = Fraction(1) if info is None or info.sample_aspect is None else info.sample_aspect
    wide, high = float(width * aspect), float(height)
    if turn[0]:
        wide, high = high, wide
    scale = min(room.width / wide, room.height / high, 1.0)
    size = max(1, int(wide * scale)), max(1, int(high * scale))
    stored = size[::-1] if turn[0] else size
    left, right = (turned(_small(frame, *stored), turn) for frame in (source, restored))
    return np.asarray(left, np.uint8), np.asarray(right, np.uint8)


def _small(frame: Frame, width: int, height: int) -> Shown:
    """Makes it 8 bits and of the size given."""
    return eight_bits(np.asarray(cv2.resize(frame.pixels, (width, height), interpolation=cv2.INTER_NEAREST)))


def _turn(frame: Frame, info: StreamInfo) -> Turn:
    """Finds how the frame is to be turned so that it stands upright."""
    if info.display_matrix is not None:
        return turn_of(info.display_matrix) or EXIF_TURNS[1]
    if frame.picture is not None:
        return EXIF_TURNS[orientation(frame.picture.metadata.exif)]
    return EXIF_TURNS[1]


class NoScreenError(Exception):
    """There is none of this kind here; the message says why."""


class Screen(Protocol):
    """Shows pictures. All calls come from one thread."""

    @property
    def open(self) -> bool:
        """Says whether it is there."""
        ...

    @property
    def outlasts(self) -> bool:
        """Says whether what was shown last is still to be seen when the program has ended."""
        ...

    def room(self) -> Room:
        """Tells the space for the next picture, in pixels."""
        ...

    def show(self, picture: Shown) -> None:
        """Put the picture there, in place of the one before."""
        ...

    def attend(self) -> None:
        """See to what the person at the screen did. Called about ten times a second."""
        ...

    def close(self) -> None:
        """Take it away."""
        ...


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
