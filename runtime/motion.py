"""Motion of what two frames show, sought at half their size."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.runtime.planes import Plane

Grey = NDArray[np.uint8]

_FINER = 4  # pixels between the patches whose motion is sought, at a quarter of the frame's size
_STEPS, _SMOOTHED = 12, 2  # in which it is sought, and made smooth, there
_REFINED, _SOLVED = 2, 10  # the same at half the size, and steps in which each is solved
_TURNS = 2  # after which a motion is turned round


class Motion:
    """Says where the things of one frame are in another.

    Patches are sought at a quarter of the size, which is quick. The motion found may then be refined at half
    the size, which is worth as much as seeking there and takes a third of the time.
    """

    def __init__(self) -> None:
        self._patches = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._patches.setFinestScale(1)
        self._patches.setPatchStride(_FINER)
        self._patches.setGradientDescentIterations(_STEPS)
        self._patches.setVariationalRefinementIterations(_SMOOTHED)
        self._refinement = cv2.VariationalRefinement.create()
        self._refinement.setFixedPointIterations(_REFINED)
        self._refinement.setSorIterations(_SOLVED)

    def between(self, here: Grey, there: Grey, *, fit: bool) -> Plane:
        """Two frames at half their size, h w each -> for each place of ``here``, how far it is to its place
        ``there``, across and down: h w 2, in these pixels. ``fit`` makes it fit there."""
        flow = self._patches.calc(here, there, None)  # type: ignore[call-overload]
        return np.asarray(self._refinement.calc(here, there, flow) if fit else flow, np.float32)


def turned_round(flow: Plane) -> Plane:
    """Makes of the way from each place here to its place there (h w 2) that from each place there."""
    back = -flow
    for _ in range(_TURNS):
        back = -moved(flow, back)
    return back


def moved(
    picture: Plane, flow: Plane, how: int = cv2.INTER_LINEAR, border: int = cv2.BORDER_REPLICATE
) -> Plane:
    """Takes each place of the picture from where ``flow``, of the same size and in its pixels, says."""
    return np.asarray(
        cv2.remap(picture, flow, None, how | cv2.WARP_RELATIVE_MAP, borderMode=border),  # type: ignore[call-overload]
        np.float32,
    )
