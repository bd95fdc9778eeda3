"""Cameras attached to this machine, by number or device."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from fractions import Fraction

import cv2
import numpy as np

from measnet.errors import InputError
from measnet.image import Pixels
from measnet.runtime.frame import Colour, Frame, StreamInfo
from measnet.runtime.memory import check_size
from measnet.runtime.sources.connection import CLOCK, Connection, Over

CAMERA_PREFIX = "camera:"

_DEVICE = re.compile(r"/dev/video(\d+)", re.ASCII)
_FAILURES_UNTIL_GONE = 10


def is_device(spec: str) -> bool:
    """Says whether ``spec`` is called like a camera's device: ``/dev/video0``."""
    return _DEVICE.fullmatch(spec) is not None


def camera_number(spec: str) -> int:
    """Reads ``camera:0`` and ``/dev/video0``. Raises InputError."""
    device = _DEVICE.fullmatch(spec)
    number = device[1] if device else spec.removeprefix(CAMERA_PREFIX)
    if not (number.isascii() and number.isdecimal()):
        raise InputError(f"{spec}: a camera is named by its number, for example camera:0")
    return int(number)


class CameraConnection(Connection):
    """Frames of a camera, timed by this machine's clock.

    Raises:
        InputError: no such camera, or it gives no picture.
    """

    codec = "raw"

    def __init__(self, spec: str) -> None:
        super().__init__()
        self._spec = spec
        self._device = _open_quietly(camera_number(spec))
        first = self._grab() if self._device.isOpened() else None
        if first is None:
            self.close()
            raise InputError(
                f"{spec} gives no picture; check that it is plugged in, not in use by another "
                "program, and that this user may use it"
            )
        self._first: tuple[Pixels, float] = (first, time.monotonic())
        height, width = first.shape[:2]
        check_size(spec, width, height)
        fps = self._device.get(cv2.CAP_PROP_FPS)
        self.info = StreamInfo(
            name=spec,
            kind="live",
            width=width,
            height=height,
            time_base=CLOCK,
            rate=Fraction(round(fps * 1000), 1000) if 1 <= fps <= 1000 else None,
            intra=True,
            # The camera gives RGB without tags: these are what an RGB picture is, once in YUV.
            colour=Colour(matrix=1, primaries=1, transfer=13, range=1),
        )

    def items(self) -> Iterator[Frame]:
        """See Connection.items. Ends when the camera goes away."""
        pixels, started = self._first
        yield Frame(pixels, pts=0, time_base=CLOCK, captured=started)
        failures = 0
        while failures < _FAILURES_UNTIL_GONE:
            grabbed = self._grab()
            if grabbed is None:
                failures += 1
                continue
            failures = 0
            now = time.monotonic()
            yield Frame(grabbed, pts=round((now - started) / CLOCK), time_base=CLOCK, captured=now)

    def over(self) -> Over:
        return Over("it stopped giving pictures")

    def close(self) -> None:
        self._device.release()

    def _grab(self) -> Pixels | None:
        there, values = self._device.read()
        if not there or values is None:
            return None
        return np.ascontiguousarray(values[:, :, ::-1], dtype=np.uint8)


def _open_quietly(number: int) -> cv2.VideoCapture:
    """OpenCV writes a line of its own for every way of opening that it tries; ours says enough."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(number)
    finally:
        cv2.utils.logging.setLogLevel(level)
