"""Account of what a frame shows, for the telemetry: who restored it, and what its damage was taken for."""

from __future__ import annotations

import cv2
import numpy as np

from measnet.config import MOST_MODULES
from measnet.runtime.frame import Restoration
from measnet.runtime.live.telemetry import Telemetry
from measnet.runtime.stream import Observer


class Account(Observer):
    """Writes it into ``telemetry``, frame by frame.

    Args:
        telemetry: of the camera.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def finished(self, passing: Restoration) -> None:
        self._telemetry.restored_by(_experts(passing), passing.damage or {})


def _experts(passing: Restoration) -> tuple[float, ...]:
    """Shares of the pixels whose first expert is each, as far as the last one that has any."""
    counts = np.zeros(MOST_MODULES)
    for choices in passing.choices:
        if choices.pixel_experts is not None:
            plane = np.ascontiguousarray(choices.pixel_experts[0, 0])
            counts += cv2.calcHist([plane], [0], None, [MOST_MODULES], [0, MOST_MODULES]).ravel()
    if not counts.any():
        return ()
    shares = counts / counts.sum()
    return tuple(float(share) for share in shares[: int(shares.nonzero()[0].max()) + 1])
