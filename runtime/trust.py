"""How far the past may be trusted: what a thin network makes of what the rule of ``temporal.py`` says.

The network is ``trust.onnx`` beside the weights. It sees planes of half the frame's size, as ``planes`` makes
them from what the rule knows, and works at a quarter. It was learnt (``train/fusion``). Where the rule
trusts nothing, nothing it says is trusted either, and nowhere more than the rule's depth.

It runs in OpenCV, which every installation has, so that the same video comes out whatever restores it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.weights import FOLDER

Plane = NDArray[np.float32]

PLANES = 14
MULTIPLE = 2  # of the sides of the planes
FILE = FOLDER / "trust.onnx"

_ROOT3 = np.float32(np.sqrt(3))
_BRIGHTNESS = np.full((1, 3), 1 / _ROOT3, np.float32)
_COLOURS = np.array([[1, 0, -1], [1, -2, 1]], np.float32) / np.sqrt(np.array([[2], [6]], np.float32))


@dataclass(frozen=True)
class Seen:
    """One frame with its past, as the rule sees them. H W are the frame's sides, h w half of them."""

    source: Plane
    """H W 3: the frame as it came."""

    now: Plane
    """H W 3: restored."""

    past: Plane
    """H W 3: what the frames before showed, moved to where it is now."""

    trust: Plane
    """h w: frames that the past is worth, by the rule."""

    usual: Plane
    """h w: how much frames differ where all is well, squared."""

    mismatch: Plane
    """h w: how much more they do here."""

    still: NDArray[np.bool_]
    """h w: where the scene stands."""


Judge = Callable[[Seen], Plane]
"""Gives the factor on the rule's trust, h w."""


class LearntTrust:
    """The network as a ``Judge``: a factor between e⁻³ and e³; the same planes give the same."""

    def __init__(self, file: Path = FILE) -> None:
        self._network: Any = cv2.dnn.readNetFromONNX(str(file))

    def __call__(self, seen: Seen) -> Plane:
        found = planes(seen)
        height, width = found.shape[1:]
        even = np.pad(found, ((0, 0), (0, height % MULTIPLE), (0, width % MULTIPLE)), "edge")
        self._network.setInput(np.ascontiguousarray(even[None]))
        log_factor = np.asarray(self._network.forward(), np.float32)[0, 0, :height, :width]
        return np.asarray(np.exp(log_factor), np.float32)


def planes(seen: Seen) -> Plane:
    """Makes what the network sees, 14 h w."""
    now, trust = seen.now, seen.trust
    size = trust.shape[::-1]

    def half(plane: Plane) -> Plane:
        return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)

    deviation = np.sqrt(seen.usual) + np.float32(0.3)
    bright = _brightness(now)
    off = bright - _brightness(seen.past)
    off_colours = cv2.transform(half(now) - half(seen.past), _COLOURS)
    taken = _brightness(seen.source) - bright
    fused = bright - off + off * cv2.resize(1 / (1 + trust), now.shape[1::-1])
    fine = fused - cv2.blur(fused, (9, 9))
    noise = max(np.float32(0.5), np.sqrt(np.square(taken).mean(dtype=np.float32)))
    return np.stack(
        [
            _bounded(half(off) / deviation, 4),
            _bounded(np.sqrt(half(off * off)) / deviation, 4),
            _bounded(off_colours[..., 0] / deviation, 4),
            _bounded(off_colours[..., 1] / deviation, 4),
            _bounded(half(taken) / noise, 4) * 2,
            _bounded(np.sqrt(half(taken * taken)) / noise, 4) * 2,
            _bounded(half(fine) / deviation, 8) / 2,
            _bounded(np.sqrt(half(fine * fine)) / deviation, 8) / 2,
            np.log1p(trust) / 2,
            np.tanh(seen.mismatch),
            np.log(deviation / 2),
            np.full_like(trust, np.log(noise / 8)),
            half(fused) / (_ROOT3 * 128) - 1,
            seen.still.astype(np.float32),
        ]
    ).astype(np.float32, copy=False)


def _brightness(picture: Plane) -> Plane:
    return np.asarray(cv2.transform(picture, _BRIGHTNESS), np.float32)


def _bounded(values: Any, most: float) -> Plane:
    """``values``, as they are while small, and never beyond ``most`` in size."""
    return np.asarray(values / (1 + np.abs(values) / np.float32(most)), np.float32)
