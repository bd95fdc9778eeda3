"""Health of every frame that comes back: can it be a picture of what went in?

Only what is certain counts as a fault: a result without a picture in it though the source has one, and one
that stands still while the source moves. A grid of points is looked at, a few thousand per frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from measnet.image import Pixels

POINTS = 64  # a side, about

LEVEL = 1 / 255

FLAT = 1 * LEVEL
"""Standard deviation under which nothing can be seen in a picture."""

PICTURE = 8 * LEVEL
"""Standard deviation from which on a picture surely shows something."""

BLACK = 4 * LEVEL
"""Mean under which a flat result is called black."""

MOVES = 2.5 * LEVEL
"""Mean change between two frames from which on the source surely moves."""

STILL_FRAMES = 3
"""So many results in a row that are equal to the bit while the source moves: frozen."""

Grid = NDArray[np.float32]


class Health:
    """Looks at the frames of one source, in order."""

    def __init__(self) -> None:
        self._source: Grid | None = None
        self._restored: Grid | None = None
        self._still = 0

    def fault_in(self, restored: Pixels, source: Pixels) -> str | None:
        """Says what is wrong with the next restored frame, or None. Both are H×W×3."""
        before, result_before = self._source, self._restored
        self._source, self._restored = now, result = _grid(source), _grid(restored)
        if now.std() > PICTURE and result.std() < FLAT:
            return "it is black" if result.mean() < BLACK else "there is no picture in it"
        same = result_before is not None and np.array_equal(result, result_before)
        moves = before is not None and before.shape == now.shape and np.abs(now - before).mean() > MOVES
        self._still = self._still + 1 if same and moves else 0
        if self._still >= STILL_FRAMES:
            return f"it has not changed for {self._still} frames while the source moved"
        return None


def _grid(pixels: Pixels) -> Grid:
    """Points of the picture, 0 to 1."""
    rows, columns = (max(1, side // POINTS) for side in pixels.shape[:2])
    points = pixels[::rows, ::columns]
    return np.asarray(points, np.float32) / np.float32(np.iinfo(points.dtype).max)
