"""When frames are shown, in the time base of the result."""

from __future__ import annotations

from collections.abc import Sequence
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


def decoding_times(shown: Sequence[int], reordering: int) -> list[int]:
    """When each picture is to be decoded: later than the one stored before it, not after it is shown.

    Args:
        shown: presentation times in the order of storage, no two alike.
        reordering: by how many places the encoder says it may store a picture early.

    The first ones get times before the first picture's own, at the pace of those that follow.
    """
    if not shown:
        return []
    in_order = sorted(shown)
    place = {pts: index for index, pts in enumerate(in_order)}
    needed = max(index - place[pts] for index, pts in enumerate(shown))
    depth = min(max(needed, reordering), len(shown) - 1)
    run_up = in_order[depth] - in_order[0]
    return [pts - run_up for pts in in_order[:depth]] + in_order[: len(in_order) - depth]
