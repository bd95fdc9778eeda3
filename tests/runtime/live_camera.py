"""A camera that is not there, and its pictures sent into sinks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np

from measnet.runtime.frame import Frame, StreamInfo
from measnet.runtime.live.waits import Waits
from measnet.runtime.options import Encoding
from measnet.runtime.sinks import Sink
from measnet.runtime.sinks.several import Several
from measnet.runtime.sources import Source
from measnet.runtime.stream import Pace, RunFigures, run

from .conftest import Each

ULTRAFAST = Encoding(preset="ultrafast")
GENEROUS = 60.0
"""Seconds within which whatever is waited for must have come, on a machine however busy."""


PATIENT = Waits(opening=GENEROUS, delivery=30.0, unwritten=30.0)
"""A busy machine is no receiver that stalls."""


class Camera(Source):
    """Moving pictures of 160x96, ``fps`` of them a second by their times, one every ``pause`` seconds."""

    def __init__(self, frames: int, fps: int = 10, pause: float = 0.0, *, noisy: bool = False) -> None:
        super().__init__()
        base = Fraction(1, 90_000)
        self.info = StreamInfo("camera", "live", 160, 96, base, Fraction(fps), pixel_format="yuv420p")
        self._frames, self._step, self._pause, self._noisy = frames, 90_000 // fps, pause, noisy
        self._stop = threading.Event()
        self.sent = 0

    def read(self) -> Iterator[Frame]:
        random = np.random.default_rng(0)
        for number in range(self._frames):
            pixels = np.full((96, 160, 3), 60, np.uint8)
            if self._noisy:
                pixels = random.integers(0, 256, (96, 160, 3), np.uint8)
            pixels[:, number % 150 : number % 150 + 10] = 220
            yield Frame(pixels, number * self._step, self.info.time_base)
            self.sent += 1
            if self._stop.wait(self._pause):
                return

    def interrupt(self) -> None:
        self._stop.set()


def send(camera: Camera, *sinks: Sink, pace: Pace | None = None) -> RunFigures:
    """From the camera into the sinks; nothing is dropped before them."""
    sink = sinks[0] if len(sinks) == 1 else Several(sinks)
    try:
        figures = run(camera, (Each(),), sink, pace=pace or Pace(4))
        sink.finish()
    finally:
        sink.abort()
    return figures


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + GENEROUS
    while not true():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.02)
