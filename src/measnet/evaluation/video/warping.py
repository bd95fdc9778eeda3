"""Warping error: how much neighbouring frames differ after the clean video's own motion.

Of frame t and frame t - 1, moved to where its things are in t: the mean absolute difference over pixels and
channels, in steps of 8 bits; of a sequence the median over its pairs of neighbours within one scene. Motion
is OpenCV's DIS optical flow between the clean frames, the same for all that are judged. After Lai et al.,
"Learning Blind Video Temporal Consistency", ECCV 2018, without their mask: what is covered counts alike for
all, and the clean video's own error is what a result's is divided by.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.image import Pixels
from measnet.runtime.scene_cut import SceneCut

MotionField = NDArray[np.float32]
"""H W 2: where each pixel was in the frame before, in columns and rows."""


class MotionSeeker:
    """Finds the motion of a clean video from frame to frame, within its scenes."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._scenes = SceneCut()
        self._before: NDArray[np.uint8] | None = None

    def look(self, clean: Pixels) -> MotionField | None:
        """Motion since the frame before; None where a scene begins."""
        grey = np.asarray(cv2.cvtColor(_steps(clean).astype(np.uint8), cv2.COLOR_RGB2GRAY), np.uint8)
        before, self._before = self._before, grey
        if self._scenes.begins_with(clean) or before is None:
            return None
        flow = self._flow.calc(grey, before, None)  # type: ignore[call-overload]
        flow[..., 0] += np.arange(grey.shape[1], dtype=np.float32)
        flow[..., 1] += np.arange(grey.shape[0], dtype=np.float32)[:, None]
        return np.asarray(flow, np.float32)


class WarpingError:
    """Measures one result, frame by frame."""

    def __init__(self) -> None:
        self._before: NDArray[np.float32] | None = None
        self._errors: list[float] = []

    def add(self, result: Pixels, motion: MotionField | None) -> None:
        """The next frame, and the clean video's motion towards it."""
        now, before = _steps(result), self._before
        self._before = now
        if motion is None or before is None:
            return
        moved = cv2.remap(before, motion, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)  # type: ignore[call-overload]
        self._errors.append(float(cv2.norm(moved, now, cv2.NORM_L1)) / now.size)

    @property
    def value(self) -> float | None:
        """The median in steps of 8 bits; None before there is a pair."""
        return float(np.median(self._errors)) if self._errors else None


def _steps(pixels: Pixels) -> NDArray[np.float32]:
    return np.multiply(pixels, np.float32(255 / np.iinfo(pixels.dtype).max), dtype=np.float32)
