"""Image-level decisions of a video, held steady from frame to frame and settled once for all tiles."""

from __future__ import annotations

import numpy as np

from measnet.decision_layout import Vector
from measnet.image import Pixels
from measnet.runtime.restorer import RestoredFrame, Restorer


class Steady:
    """Knows the decisions that hold in a video, and has a restorer make its frames by them, in their order.

    A frame's decision is ``share`` (0 to under 1) times that of the frame before, plus the rest of its
    own. The first frame of a scene has its own alone. A frame in tiles knows its own decisions only
    when it is done, so its tiles are given what held for the frame before and what that frame then said
    itself; without this every frame in tiles would have to be restored several times.
    """

    def __init__(self, share: float) -> None:
        self._share = np.float32(share)
        self._settled: Vector | None = None

    @property
    def share(self) -> float:
        """Share that comes from the frames before."""
        return float(self._share)

    def restore(self, restorer: Restorer, pixels: Pixels, *, new_scene: bool) -> RestoredFrame:
        """Has the next frame restored by a restorer that is steerable."""
        before = None if new_scene else self._settled
        if before is None:
            steering = restorer.settle(pixels) or restorer.unsteered()
        else:
            in_tiles = len(restorer.tiles_for(*pixels.shape[:2])) > 1
            steering = restorer.steer(before, 1 if in_tiles else self.share)
        done = restorer.restore(pixels, steering)
        assert done.decisions is not None
        own = done.decisions
        self._settled = own if before is None else own + (before - own) * self._share
        return done

    def state(self) -> bytes:
        """Packs what holds, for ``set_state``; never empty."""
        return b"\0" if self._settled is None else b"\1" + self._settled.astype("<f4").tobytes()

    def set_state(self, state: bytes, size: int) -> None:
        """Goes on behind the frame after which ``state`` was taken, with a restorer of ``size`` decisions.

        Raises ValueError for other bytes.
        """
        length = 4 * size if state[:1] == b"\1" else 0
        if state[:1] not in (b"\0", b"\1") or len(state) != 1 + length:
            raise ValueError("the decisions of the frames before are cut short")
        settled = np.frombuffer(state, "<f4", offset=1).astype(np.float32)
        if not np.isfinite(settled).all():
            raise ValueError("the decisions of the frames before are not numbers")
        self._settled = settled if length else None
