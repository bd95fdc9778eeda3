"""When frames are shown, in the time base of the result."""

from __future__ import annotations

from fractions import Fraction

from measnet.runtime.frame import Frame


class FrameTimes:
    """Gives each frame its time in the result, later than that of the frame before.

    Args:
        time_base: of the result, in seconds.

    ``last`` is the time of the last frame that has one. ``skipped`` counts frames that do not come after
    it, ``rounded`` those whose time is no multiple of the time base.
    """

    def __init__(self, time_base: Fraction) -> None:
        self._time_base = time_base
        self.last: int | None = None
        self.skipped = 0
        self.rounded = 0

    def place(self, frame: Frame) -> tuple[int, int] | None:
        """Its time and duration; None for a frame that has to be left out."""
        exact = frame.pts * frame.time_base / self._time_base
        pts = round(exact)
        if self.last is not None and pts <= self.last:
            self.skipped += 1
            return None
        self.last = pts
        self.rounded += exact.denominator != 1
        return pts, round(frame.duration * frame.time_base / self._time_base)

    def losses(self) -> list[str]:
        """A line on the frames left out, if there are any."""
        if not self.skipped:
            return []
        return [f"{self.skipped} frames were left out: their times do not follow the frame before"]
