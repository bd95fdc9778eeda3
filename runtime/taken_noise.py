"""The noise that restoring took from a frame: how much it was, and of which kind.

All levels are of 255. Shapes: H W of the frame, h w of its tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from measnet.runtime import planes
from measnet.runtime.past import BROAD
from measnet.runtime.planes import Plane

_NOISY = (3.0, 10.0)  # in variance: below, what was taken is no noise, above it all is
_WHITE = (1.33, 1.4)  # how smooth and grey noise is: 0.9 if new in every pixel, more if a codec made it
_GREY = 0.15  # of that, how much it counts that colours go together
_LEFT_OF_NEW = 0.025  # of what was taken, in variance: restoring leaves no more of white noise
_LITTLE_NOISE = 30.0  # in variance: so little that was taken is no reason to fuse
_LEFT_OF_CODED = 0.2  # the same of a codec's, times what was taken: undamaged frames are changed by 1, too
_LEFT_OF_INTRA = 0.05  # the same where each frame was coded for itself
_LITTLE, _NOTHING = np.float32(1e-3), np.float32(0)


@dataclass(frozen=True)
class TakenNoise:
    """The noise that restoring took from a frame."""

    noise: Plane
    """h w 3: how far it moves the mean of a tile of ``BROAD`` pixels, of each colour."""

    explains: np.float32
    """The difference of two restored frames, squared, that noise alone can make. Beyond it they differ by
    detail that moving blurs, and a frame with little noise is better off without the past."""

    def mean_square(self) -> float:
        return float(np.square(self.noise).mean()) * BROAD**2 + float(_LITTLE)

    def of_light(self, light: Plane, share: np.float32) -> Plane:
        """Takes off ``light``, h w 3 in tiles, so much of what noise does to it. A little is no noise, but
        what restoring does to undamaged frames."""
        told = np.float32(np.interp(self.mean_square(), _NOISY, (0, 1)))
        return planes.beyond(light, share * told * self.noise)


def taken_noise(taken: Plane, square: Plane, *, intra: bool) -> tuple[Plane, TakenNoise]:
    """Measures the noise in ``taken``, which restoring added to a frame, and its ``square`` (H W 3 each).

    Returns the means of ``taken`` over tiles of ``BROAD`` pixels, h w 3, too. ``intra`` says that each frame
    was coded for itself.
    """
    added, variance = planes.coarse(taken, BROAD), planes.coarse(square, BROAD)
    variance = np.maximum(variance - added * added, _NOTHING)
    noise = np.asarray(np.sqrt(variance) / np.float32(BROAD), np.float32)
    return added, TakenNoise(noise, _explained(float(variance.mean()), taken, added, intra=intra))


def _explained(variance: float, taken: Plane, light: Plane, *, intra: bool) -> np.float32:
    """The variance that noise can leave between two restored frames.

    ``taken`` is what restoring added, H W 3, in place of ``variance``; ``light`` its means over tiles. White
    noise is taken nearly whole. A codec's is smooth, repeats (but for ``intra`` frames) and is left in part;
    but restoring also changes undamaged frames, by about a level.
    """
    half = planes.half(taken)
    at_half = np.square(half).mean() - np.square(light).mean()
    grey = np.square(cv2.transform(half, planes.THIRDS)).mean() - np.square(light.mean(axis=2)).mean()
    likeness = 4 * at_half / (variance + _LITTLE) + _GREY * (3 * grey / (at_half + _LITTLE) - 1)
    coded = float(np.interp(likeness, _WHITE, (0, 1)))
    of_new = _LEFT_OF_NEW * max(0.0, variance - _LITTLE_NOISE)
    of_coded = _LEFT_OF_INTRA * variance if intra else _LEFT_OF_CODED * variance**2
    return np.float32(of_new + (of_coded - of_new) * coded)
