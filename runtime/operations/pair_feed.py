"""Pictures of a running stream: the newest frame as it came in and as it goes out, for any number of viewers.

The stream only notes its newest pair. It becomes JPEGs when somebody asks, once for all who do.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import cv2

from measnet.image import EightBitPixels
from measnet.runtime.frame import Frame, Restoration, StreamInfo
from measnet.runtime.preview import ScreenSpace, pair_shown
from measnet.runtime.stream import Observer

PER_SECOND = 10
"""Most pairs a second that a camera shows."""

SHARE = 0.1
"""Most of one processor that showing a camera takes: fewer pairs a second where there are many viewers."""

SECONDS_PER_ANSWER = 0.001
"""Time of the processor that one answer takes, about."""

PATIENCE = 0.5
"""Seconds that a viewer is kept waiting for a new frame."""

ROOM = ScreenSpace(1280, 720)

QUALITY = 80

_LOOK_EVERY = 0.01


class LatestPair(Observer):
    """Notes the newest source and result of one camera. ``info`` says how they are turned, if they are."""

    def __init__(self, info: StreamInfo | None = None) -> None:
        self._info = info
        self._newest: tuple[int, Frame, Frame] | None = None

    def finished(self, passing: Restoration) -> None:
        self._newest = self.serial + 1, passing.source, passing.result

    @property
    def serial(self) -> int:
        """Number of the newest pair, from 1; 0 before there is one."""
        return 0 if self._newest is None else self._newest[0]

    def encoded(self) -> EncodedPair | None:
        """Makes JPEGs of the newest pair, of one size; None before there is one."""
        if self._newest is None:
            return None
        started = time.thread_time()
        serial, source, restored = self._newest
        first, second = (_jpeg(shown) for shown in pair_shown(source, restored, self._info, ROOM))
        return EncodedPair(serial, first, second, time.thread_time() - started)


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Source and result of one frame as JPEG files."""

    serial: int
    source: bytes
    result: bytes
    seconds: float
    """Processor time that encoding them took."""


class PairFeed:
    """Hands encoded pairs of one camera to its viewers. Belongs to one event loop.

    ``encodings`` counts how often a pair was encoded.
    """

    def __init__(self, pair: LatestPair) -> None:
        self._pair = pair
        self._encoded: EncodedPair | None = None
        self._round: asyncio.Task[None] | None = None
        self._waiting = 0
        self._free_from = 0.0
        self.encodings = 0

    async def other_than(self, serial: int) -> EncodedPair | None:
        """Waits for a pair that is not the one of this number; None if none comes within ``PATIENCE``."""
        known = self._encoded
        if known is None or known.serial == serial or known.serial != self._pair.serial:
            self._round = self._round or asyncio.create_task(self._encode_next())
            self._waiting += 1
            try:
                await asyncio.shield(self._round)
            finally:
                self._waiting -= 1
        return None if self._encoded is None or self._encoded.serial == serial else self._encoded

    async def _encode_next(self) -> None:
        """Encodes the next pair for all who wait, when it is time to."""
        try:
            await asyncio.sleep(self._free_from - time.monotonic())
            seen = 0 if self._encoded is None else self._encoded.serial
            until = time.monotonic() + PATIENCE
            while self._pair.serial == seen:
                if time.monotonic() >= until:
                    return
                await asyncio.sleep(_LOOK_EVERY)
            started = time.monotonic()
            self._encoded = made = await asyncio.to_thread(self._pair.encoded)
            assert made is not None, "its serial is not 0"
            self.encodings += 1
            work = made.seconds + self._waiting * SECONDS_PER_ANSWER
            self._free_from = started + max(1 / PER_SECOND, work / SHARE)
        finally:
            self._round = None


def _jpeg(picture: EightBitPixels) -> bytes:
    written, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert written, "a picture of 8 bits can always be a JPEG"
    return data.tobytes()
