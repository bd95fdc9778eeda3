"""The last step of a stream: frames help each other, and the source is mixed in."""

from __future__ import annotations

import cv2
import numpy as np

from measnet.runtime.frame import Mark, Restoration
from measnet.runtime.temporal import TemporalFusion


class Finish:
    """Fuses the frames of one source and mixes the source in: the last step of a stream.

    Args:
        depth: frames before that a frame takes from (``TemporalFusion``); 0 leaves each alone.
        strength: share of the restored picture, 0 to 1; the rest is the source.
        ahead: each takes from the frame that follows it too, and is done one frame later.
        sure: somebody has said that the video is dark, or hazy: its light is changed at once.
        intra: each frame was coded for itself.
    """

    name = "temporal"

    def __init__(
        self, depth: int, strength: float, *, ahead: bool = False, sure: bool = False, intra: bool = False
    ) -> None:
        self.waits = ahead and depth > 0
        self.fusion = TemporalFusion(depth, ahead=self.waits, sure=sure, intra=intra) if depth else None
        self._strength = strength
        self._waiting: Restoration | None = None

    @property
    def is_needed(self) -> bool:
        """Says whether it does anything."""
        return self.fusion is not None or self._strength < 1

    def take(self, passing: Restoration) -> None:
        """See Step.take."""
        if self.fusion is not None:
            frame = passing.source
            shown_at = float(frame.pts * frame.time_base)
            fused = self.fusion.fuse(
                frame.pixels, passing.pixels, passing.new_scene, shown_at=shown_at, faulty=passing.faulty
            )
            if self._waiting is not None and self.fusion.before is not None:
                self._waiting.pixels = self.fusion.before
            passing.pixels = fused
        if self.waits:
            self.end()
            self._waiting = passing
        else:
            self._mix(passing)

    def end(self) -> None:
        """See Step.end."""
        if self._waiting is not None:
            self._mix(self._waiting)
            self._waiting = None

    def _mix(self, passing: Restoration) -> None:
        if self._strength < 1:
            source = passing.source.pixels
            mixed = cv2.addWeighted(passing.pixels, self._strength, source, 1 - self._strength, 0)
            passing.pixels = np.asarray(mixed, source.dtype)

    def mark(self, mark: Mark) -> Mark:
        """See Step.mark."""
        return Mark(mark.state, None if self.fusion is None else self.fusion.state())

    def go_on(self, past: bytes | None) -> None:
        """Goes on behind the frame after which ``past`` was taken. Raises ValueError for other bytes."""
        if self.fusion is not None:
            self.fusion.set_state(past or b"")
