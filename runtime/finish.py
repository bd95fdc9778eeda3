"""The step behind the engine: joins each frame with those before it, and mixes the source in."""

from __future__ import annotations

import cv2
import numpy as np

from measnet.runtime.frame import Mark, Restoration
from measnet.runtime.temporal import TemporalFusion


class Finish:
    """Fuses the frames of one source and mixes the source in: the second step of a stream.

    Args:
        depth: frames before that a frame takes from (``TemporalFusion``); 0 leaves each alone.
        strength: share of the restored picture, 0 to 1; the rest is the source.
    """

    name = "temporal"

    def __init__(self, depth: int, strength: float) -> None:
        self.fusion = TemporalFusion(depth) if depth else None
        self._strength = strength

    @property
    def is_needed(self) -> bool:
        """Whether it does anything."""
        return self.fusion is not None or self._strength < 1

    def take(self, passing: Restoration) -> None:
        """See Step.take."""
        source, result = passing.source.pixels, passing.pixels
        if self.fusion is not None:
            result = self.fusion.fuse(source, result, passing.new_scene)
        if self._strength < 1:
            mixed = cv2.addWeighted(result, self._strength, source, 1 - self._strength, 0)
            result = np.asarray(mixed, source.dtype)
        passing.pixels = result

    def mark(self, mark: Mark) -> Mark:
        """See Step.mark."""
        return Mark(mark.state, None if self.fusion is None else self.fusion.state())

    def go_on(self, past: bytes | None) -> None:
        """Goes on behind the frame after which ``past`` was taken. Raises ValueError for other bytes."""
        if self.fusion is not None:
            self.fusion.set_state(past or b"")
