"""The frames that INT8 is calibrated on, and others from the same source that its loss is measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np

from measnet.description import Calibration
from measnet.export.pictures import fitted, spread_frames
from measnet.image import Image, to_image

MOST_HELD_OUT = 8


class Frames:
    """Frames to calibrate on, up to ``wanted``, read once, as parts of ``size`` (height, width) in pixels.

    ``source`` is a video, a picture or a folder of pictures. Frames lie evenly apart, and each is cropped at
    another place; what is too small is grown by reflection. One frame in five is held out and never
    calibrated on.
    Raises ``InputError`` for a source that cannot be read.
    """

    def __init__(self, source: str, wanted: int, size: tuple[int, int]) -> None:
        self.source = Path(source)
        self.size = size
        self.wanted = wanted
        self._most_held_out = min(MOST_HELD_OUT, -(-wanted // 4))
        frames = spread_frames(source, wanted + self._most_held_out)
        first = list(islice(frames, 2))  # so that a bad source is refused before any work
        self._frames = chain(first, frames)
        self.alone = len(first) == 1
        """The source has one frame, so that none can be held out."""

        self.calibrated: list[str] = []
        """The frames calibrated on: names of pictures, or times in a video."""

        self.held_out: list[tuple[str, Image]] = []
        """The others, by the same names, each 1 3 H W."""

        self._digest = hashlib.sha256()

    def to_calibrate(self) -> Iterator[Image]:
        """One frame after the other, 1 3 H W; fills ``calibrated`` and ``held_out`` on the way.

        Raises ``InputError`` for a source that gives out on the way.
        """
        for index, frame in enumerate(self._frames):
            vertical, horizontal = np.random.default_rng(index).random(2)
            pixels = fitted(frame.pixels, *self.size, place=(vertical, horizontal))
            name = frame.picture.path.name if frame.picture else f"{float(frame.pts * frame.time_base):.2f} s"
            if index % 5 == 1 and len(self.held_out) < self._most_held_out:
                self.held_out.append((name, to_image(pixels)))
            else:
                self.calibrated.append(name)
                self._digest.update(pixels.tobytes())
                yield to_image(pixels)

    @property
    def calibration(self) -> Calibration:
        """The entry about these frames in the graph that was calibrated on them."""
        return Calibration(self.source.name, len(self.calibrated), self._digest.hexdigest())
