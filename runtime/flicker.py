"""Flicker of a restoration itself, beyond what its source does.

Let D(b, t) be the mean of (result - source) over block b of frame t: 32x32 pixels and the three channels, in
steps of 8 bits. Flicker is the root mean square of D(b, t) - D(b, t - 1) over all blocks and all pairs of
neighbouring frames that lie in one scene. Blocks are counted from the top left corner; what is left at the
right and the bottom is no block, unless a side is shorter than 32: then it is one block long.

A result that differs from its source by the same amount everywhere and always has none; neither has a still
one of a still source, nor one that equals its source. Noise that a denoiser takes out of a block's mean
counts: sigma s gives s * sqrt(2 / 3) / 32. So compare runs of one clip, not clips.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from measnet.image import Pixels
from measnet.runtime.scene_cut import SceneCut

BLOCK = 32  # pixels a side

_Means = NDArray[np.float64]


class Flicker:
    """Measures frame by frame. ``pairs`` counts the pairs of neighbouring frames so far."""

    def __init__(self) -> None:
        self.pairs = 0
        self._sum = 0.0
        self._before: _Means | None = None

    def add(self, source: Pixels, result: Pixels, *, cut: bool) -> float | None:
        """The next frame, H W 3 each, of one depth. Returns the mean square change since the frame before,
        in squared steps of 8 bits; None where there is none, or where ``cut`` says that a scene begins."""
        now, before = _block_means(result) - _block_means(source), self._before
        self._before = now
        if cut or before is None or before.shape != now.shape:
            return None
        change = float(np.square(now - before).mean())
        self.pairs += 1
        self._sum += change
        return change

    @property
    def value(self) -> float | None:
        """Flicker in steps of 8 bits; None before there is a pair."""
        return math.sqrt(self._sum / self.pairs) if self.pairs else None


def flicker(sources: Iterable[Pixels], results: Iterable[Pixels]) -> float | None:
    """Flicker of two sequences of frames, of one length, as this module defines it; scenes are told apart by
    ``SceneCut``. None when no two frames belong together."""
    measure, scene = Flicker(), SceneCut()
    for source, result in zip(sources, results, strict=True):
        measure.add(source, result, cut=scene.begins_with(source))
    return measure.value


def _block_means(pixels: Pixels) -> _Means:
    """H W 3 -> blocks, in steps of 8 bits. Sums of integers, so that no rounding enters."""
    height, width = (max(BLOCK, side // BLOCK * BLOCK) for side in pixels.shape[:2])
    whole = pixels[:height, :width]
    rows, columns = min(BLOCK, whole.shape[0]), min(BLOCK, whole.shape[1])
    high, wide = whole.shape[0] // rows, whole.shape[1] // columns
    # 32 values of 8 bits fit into 16, of 16 bits into 32: twice as fast as summing everything at once.
    narrow = np.uint16 if pixels.dtype == np.uint8 else np.uint32
    sums = whole.reshape(high, rows, -1).sum(axis=1, dtype=narrow)
    blocks = sums.reshape(high, wide, columns * 3).sum(axis=2, dtype=np.uint64)
    return np.asarray(blocks * (255 / np.iinfo(pixels.dtype).max / (rows * columns * 3)), np.float64)
