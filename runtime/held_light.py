"""Light that changes within a scene is the source's: a fade is no darkness, and no haze.

The first frames of a fade from black look like dark pictures, and a network would lighten them: a video would
begin with a flash. Whether a scene is dark shows once its light rises no more. Fades from and to white look
like haze for a while, and a room whose light goes off like one that was always dark: what restoring adds to
the light may grow within a scene, but slowly. The first frame of a scene is taken at its word.
"""

from __future__ import annotations

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.image import Pixels
from measnet.runtime import planes

_TILE = 16  # pixels
_BLACK = 16.0  # levels of 255 that the lightest tile of a black frame does not reach
_CUT = 48.0  # the same of a frame after black that is no fade, but a cut
_RISES = 1.03  # times the light of the frame before
_CALM = 3  # frames without a rise, after which it has risen
_LONGEST = 100  # frames: a video that is darker for longer, or rises more slowly, is a dark one
_RELEASE = 8  # frames in which the light is let go
_LOST = 250.0  # levels, from which on something lightened shows nothing any more
_AROUND = 9  # pixels
_LITTLE = 1e-9
_GROWS = 1.0  # levels that a frame may be lightened or darkened by more than the one before
_MUCH = 0.5  # levels beyond that, from which on it is held back
_STATE = struct.Struct("<III?d3d")


class HeldLight:
    """Follows the light of one video, frame by frame. The same frames always give the same result."""

    SIZE = _STATE.size
    """Bytes of its state."""

    def __init__(self) -> None:
        self._left = 0  # frames for which the light may still be held
        self._calm = 0  # frames since it rose
        self._release = 0  # frames in which it is being let go
        self._was_black = False  # the frame before
        self._light = 0.0  # its light
        self._added = np.zeros(3)  # by restoring, to each colour of it; levels

    def hold(self, source: Pixels, restored: Pixels, new_scene: bool) -> Pixels:
        """The restored frame, H W 3, with as much of the light of its source as it is to have."""
        added = _mean(restored) - _mean(source)
        size = float(np.abs(added).max())
        this_way = max(0.0, float(self._added @ added) / (float(added @ added) + _LITTLE))  # of it, before
        allowed = size if new_scene else this_way * size + _GROWS
        share = 1 - allowed / size if size > allowed + _MUCH else 0.0
        out_of_black = self._left or self._release
        risen = self._holds(source, new_scene)
        share = risen if out_of_black else max(share, risen)
        self._added = added * (1 - share)
        return _in_light_of(source, restored, share) if share else restored

    def _holds(self, source: Pixels, new_scene: bool) -> float:
        """Says how far the light of a frame out of black is to be that of its source: from 0 to 1."""
        light, before = _levels(source), self._light
        self._light = float(light.mean())
        if new_scene and light.max() > _CUT:
            self._left = self._release = 0
        was_black, self._was_black = self._was_black, bool(light.max() < _BLACK)
        if self._was_black:
            if not was_black:
                self._left, self._release = _LONGEST, 0
            self._calm = 0
        elif self._light > before * _RISES:
            self._calm = 0
        else:
            self._calm += 1
        if self._left:
            self._left -= 1
            if self._left and self._calm < _CALM:
                return 1.0
            self._left, self._release = 0, _RELEASE
        if self._release:
            self._release -= 1
        return self._release / _RELEASE

    def state(self) -> bytes:
        """Packs its state after the frames before."""
        return _STATE.pack(self._left, self._calm, self._release, self._was_black, self._light, *self._added)

    def set_state(self, state: bytes) -> None:
        """Goes on behind the frame after which ``state`` was taken."""
        self._left, self._calm, self._release, self._was_black, self._light, *added = _STATE.unpack(state)
        self._added = np.array(added)


def _in_light_of(source: Pixels, restored: Pixels, share: float) -> Pixels:
    """Gives ``restored`` (H W 3), by that share, the light of its source: a gain and an offset for each
    colour of the whole picture. Places lightened until nothing showed are taken from the source."""
    now, before = (np.empty(restored.shape, np.float32) for _ in range(2))
    planes.levels(restored, now)
    planes.levels(source, before)
    lost = cv2.blur((now.max(axis=2) >= _LOST).astype(np.float32), (_AROUND, _AROUND))
    lost = np.minimum(1, 2 * lost)[..., None] * np.float32(share)
    gain, offset, _ = planes.fit_light(planes.coarse(now, _TILE), planes.coarse(before, _TILE))
    planes.turn(now, 1 + (gain - 1) * np.float32(share), offset * np.float32(share))
    return planes.pixels(now + (before - now) * lost, restored.dtype)


def _mean(frame: Pixels) -> NDArray[np.float64]:
    """The mean of each colour, of 255."""
    return np.array(cv2.mean(frame)[:3]) * (255 / np.iinfo(frame.dtype).max)


def _levels(source: Pixels) -> planes.Plane:
    """The means of tiles, h w 3, of 255."""
    return planes.coarse(source, _TILE) * np.float32(255 / np.iinfo(source.dtype).max)
