"""Preview: source and result on the screen while a run goes on; small, seldom, never in the result's way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import cv2
import numpy as np

from measnet.image import EightBitPixels, eight_bits
from measnet.image_header import orientation
from measnet.runtime.comparison import Layout, laid_out
from measnet.runtime.frame import Frame, Restoration, StreamInfo
from measnet.runtime.sinks.orientation import EXIF_TURNS, Turn, turn_of, turned
from measnet.runtime.stream import Observer

if TYPE_CHECKING:
    from measnet.runtime.terminal import Terminal


@dataclass(frozen=True, slots=True)
class ScreenSpace:
    """Space that a screen has for a picture, in pixels of its own."""

    width: int
    height: int


def shown(
    source: Frame, restored: Frame, info: StreamInfo, layout: Layout, room: ScreenSpace
) -> EightBitPixels:
    """Puts both frames into one picture that fits into ``room``; never larger than they are."""
    each = ScreenSpace(room.width // 2, room.height) if layout == "side" else room
    return np.asarray(laid_out(*pair_shown(source, restored, info, each), layout), np.uint8)


def pair_shown(
    source: Frame, restored: Frame, info: StreamInfo | None, room: ScreenSpace
) -> tuple[EightBitPixels, EightBitPixels]:
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


def _small(frame: Frame, width: int, height: int) -> EightBitPixels:
    """Makes it 8 bits and of the size given."""
    return eight_bits(np.asarray(cv2.resize(frame.pixels, (width, height), interpolation=cv2.INTER_NEAREST)))


def _turn(frame: Frame, info: StreamInfo) -> Turn:
    """Finds how the frame is to be turned so that it stands upright."""
    if info.display_matrix is not None:
        return turn_of(info.display_matrix) or EXIF_TURNS[1]
    if frame.picture is not None:
        return EXIF_TURNS[orientation(frame.picture.metadata.exif)]
    return EXIF_TURNS[1]


PER_SECOND = 5
"""Most pictures a second."""

SHARE = 0.05
"""Most of the time, by the clock, that drawing takes. It is done in the thread that waits for the run."""


class Preview(Observer):
    """The newest source and result on a screen.

    Args:
        screen: where.
        layout: ``side`` by side, or ``split`` down the middle.
        clock: tells seconds.
    """

    def __init__(
        self, screen: Terminal, layout: Layout, clock: Callable[[], float] = time.perf_counter
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
        # It only takes note: drawing is for a thread that has nothing else to do.
        self._newest = passing.source, passing.result

    def draw(self) -> None:
        """Shows the newest pair if it is time to."""
        if self._clock() >= self._free_from:
            self.end()

    def end(self) -> None:
        """Shows the last pair of the stream, whenever the one before was shown."""
        newest, self._newest = self._newest, None
        if newest is None or self._info is None:
            return
        started = self._clock()
        self.screen.show(shown(*newest, self._info, self._layout, self.screen.room()))
        ended = self._clock()
        self._free_from = max(started + 1 / PER_SECOND, ended + (ended - started) * (1 / SHARE - 1))
