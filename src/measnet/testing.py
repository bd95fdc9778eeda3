"""Stand-ins for tests of programs that embed MEASNet: a restorer and a source without a model and a camera.

from measnet.testing import FakeFrames, FakeRestorer

def test_my_loop() -> None:
    shown = my_loop(FakeRestorer(), FakeFrames(5))
    assert [FakeFrames.number_of(255 - frame) for frame in shown] == [0, 1, 2, 3, 4]
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from measnet.config import VARIANTS
from measnet.description import GraphDescription
from measnet.errors import BackendError, InputError
from measnet.image import ChannelOrder, Image
from measnet.metrics import Choices
from measnet.runtime.backends import Inference
from measnet.runtime.restorer import Restorer

_BITS = 16
"""Bits of a frame's number, each a square of ``_SQUARE`` pixels in the top row: white is 1."""

_SQUARE = 4


class FakeBackend:
    """Gives the negative of each image, so that a test sees whether a frame went through.

    Args:
        seconds: how long an image takes.
        failing: numbers of the calls, from 0, that raise ``BackendError``; they are counted as they come, so
            frames that are in flight together may change places.
    """

    def __init__(self, *, seconds: float = 0.0, failing: Collection[int] = ()) -> None:
        self.calls = 0
        """Images so far, in all threads."""
        self._seconds = seconds
        self._failing = frozenset(failing)
        self._active = False
        self._lock = threading.Lock()

    @property
    def description(self) -> GraphDescription:
        """Sizes are those of ``nano``; the weights are none."""
        return GraphDescription(VARIANTS["nano"], weights_sha256="", static_size=None)

    @property
    def facts(self) -> dict[str, str]:
        return {"backend": "fake", "provider": "none"}

    def activate(self) -> None:
        self._active = True

    def infer(self, images: Image) -> Inference:
        """B 3 H W, 0 to 1 -> 1 - images."""
        if not self._active:
            raise BackendError("the fake backend is not active")
        with self._lock:
            call, self.calls = self.calls, self.calls + 1
        time.sleep(self._seconds)
        if call in self._failing:
            raise BackendError(f"the fake backend fails on call {call}, as it was told to")
        return Inference(np.float32(1) - images, Choices(None, None), prompt_weights=None)

    def deactivate(self) -> None:
        self._active = False


class FakeRestorer(Restorer):
    """A restorer that returns ``255 - frame`` (65535 of uint16) at once, whatever the machine has installed.

    It is ``Restorer`` around ``FakeBackend``: frames are checked, threads, streams and asyncio behave, and
    errors read as those of a real one. It never cuts into tiles.
    """

    def __init__(
        self, channel_order: ChannelOrder = "rgb", *, seconds: float = 0.0, failing: Collection[int] = ()
    ) -> None:
        """``seconds`` and ``failing`` are those of ``FakeBackend``."""
        super().__init__("fake", FakeBackend(seconds=seconds, failing=failing), channel_order, tile="off")


class FakeFrames:
    """Frames of known content, uint8 H W 3: a grey that moves, and the frame's number written in the top row.

    Iterating again goes on where it stopped, as a camera that is opened again does.

    Args:
        count: how many there are, to 65536.
        height, width: in pixels, at least 4 and 64.
        fps: frames a second at most; None gives them as fast as they are taken.
        lost_before: numbers of frames before which the source is lost once, with ``InputError``.
    """

    def __init__(
        self,
        count: int,
        height: int = 64,
        width: int = 96,
        *,
        fps: float | None = None,
        lost_before: Collection[int] = (),
    ) -> None:
        if height < _SQUARE or width < _BITS * _SQUARE or not 0 <= count <= 2**_BITS:
            raise ValueError(f"{count} frames of {width}x{height} cannot be numbered")
        self._count = count
        self._size = (height, width)
        self._fps = fps
        self._losses = set(lost_before)
        self._next = 0

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        due = time.monotonic()
        while self._next < self._count:
            if self._next in self._losses:
                self._losses.remove(self._next)
                raise InputError(f"the fake source is lost before frame {self._next}, as it was told to")
            if self._fps is not None:
                due += 1 / self._fps
                time.sleep(max(0.0, due - time.monotonic()))
            number, self._next = self._next, self._next + 1
            yield self.frame(number)

    def frame(self, number: int) -> NDArray[np.uint8]:
        """The frame of this number."""
        height, width = self._size
        slope = (np.arange(width) + np.arange(height)[:, None] + number).astype(np.uint8)
        frame = np.repeat(slope[:, :, None], 3, axis=2)
        bits = (number >> np.arange(_BITS)) & 1
        frame[:_SQUARE, : _BITS * _SQUARE] = np.repeat(bits * 255, _SQUARE)[:, None]
        return frame

    @staticmethod
    def number_of(frame: NDArray[np.uint8]) -> int:
        """Reads the number out of a frame, whatever a coder did to it."""
        row = frame[:_SQUARE, : _BITS * _SQUARE].astype(np.float64)
        levels = row.reshape(_SQUARE, _BITS, _SQUARE, 3).mean(axis=(0, 2, 3))
        return int(((levels > 127).astype(int) << np.arange(_BITS)).sum())
