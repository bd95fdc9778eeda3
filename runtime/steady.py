"""A video's image-level decisions, from frame to frame: without flicker, and settled once for all tiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from measnet.decisions import Vector
from measnet.image import Pixels
from measnet.runtime.restorer import RestoredFrame, Restorer
from measnet.runtime.scene_cut import SceneCut
from measnet.runtime.tiles import Tile


class SteadyVideo:
    """Restores the frames of one video, in their order; an engine for a job.

    What holds for a frame is ``steady`` (0 to under 1) times what held for the frame before, plus the rest
    of its own. The first frame of a scene has its own alone. A frame in tiles knows its own decisions only
    when it is done, so its tiles are given what held for the frame before and what that frame then said
    itself; without this every frame in tiles would have to be restored several times.

    The restorer must be steerable. It stays its owner's unless ``close`` is called.
    """

    def __init__(self, restorer: Restorer, steady: float) -> None:
        self._restorer = restorer
        self._steady = np.float32(steady)
        self._cut = SceneCut()
        self._settled: Vector | None = None

    def restore(self, pixels: Pixels) -> RestoredFrame:
        """The next frame, as ``Restorer.restore``."""
        if self._cut.look(pixels):
            self._settled = None
        in_tiles = len(self._restorer.plan(*pixels.shape[:2])) > 1
        before = self._settled
        if before is None:
            steering = self._restorer.settle(pixels)
            if steering is None:
                steering = self._restorer.unsteered()
        else:
            steering = self._restorer.steer(before, 1 if in_tiles else float(self._steady))
        done = self._restorer.restore(pixels, steering)
        assert done.decisions is not None
        own = done.decisions
        self._settled = own if before is None else own + (before - own) * self._steady
        return done

    def plan(self, height: int, width: int) -> list[Tile]:
        """As the restorer's."""
        return self._restorer.plan(height, width)

    def hold(self, height: int, width: int, tiles: list[Tile]) -> None:
        """As the restorer's."""
        self._restorer.hold(height, width, tiles)

    @property
    def description(self) -> dict[str, Any]:
        """The restorer's, and how steady."""
        return self._restorer.description | {"steady": float(self._steady)}

    def close(self) -> None:
        """Closes the restorer."""
        self._restorer.close()

    def state(self) -> bytes:
        """What it knows of the frames so far (``measnet.runtime.job.Stateful``)."""
        settled = b"" if self._settled is None else self._settled.astype("<f4").tobytes()
        return bytes([bool(settled)]) + settled + self._cut.state()

    def set_state(self, state: bytes, /) -> None:
        """Goes on behind the frame after which ``state`` was taken. Raises ValueError for other bytes."""
        length = 4 * self._restorer.decisions_size if state[:1] == b"\1" else 0
        if state[:1] not in (b"\0", b"\1") or len(state) < 1 + length:
            raise ValueError("the decisions of the frames before are cut short")
        settled = np.frombuffer(state, "<f4", length // 4, 1).astype(np.float32)
        if not np.isfinite(settled).all():
            raise ValueError("the decisions of the frames before are not numbers")
        self._cut.set_state(state[1 + length :])
        self._settled = settled if length else None
