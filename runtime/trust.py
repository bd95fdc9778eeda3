"""Trust in the past, corrected: a thin network multiplies what the rule of ``temporal.py`` says.

The network is ``trust.onnx`` beside the weights. It sees planes of half the frame's size, as ``planes`` makes
them from what the rule knows, and works at a quarter. It was learnt (``train/fusion``). Where the rule
trusts nothing, nothing it says is trusted either, and nowhere more than the rule's depth.

It runs in OpenCV, which every installation has, so that the same video comes out whatever restores it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.runtime.planes import Plane
from measnet.weights import FOLDER

PLANES = 14
MULTIPLE = 2  # of the sides of the planes
FILE = FOLDER / "trust.onnx"

_MARGIN = 16  # pixels of half the size, farther than which nothing changes what the network says of one
_ROOT3 = np.float32(np.sqrt(3))
_AXES = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]], np.float32)
_AXES /= np.sqrt(np.array([[3], [2], [6]], np.float32))
_BRIGHTNESS = _AXES[:1]


@dataclass(frozen=True)
class Seen:
    """One frame with its past, as the rule sees them. H W are the frame's sides, h w half of them."""

    source: Plane
    """H W 3: the frame as it came."""

    now: Plane
    """H W 3: restored."""

    off: Plane
    """H W 3: less what the frames before showed, moved to where it is now."""

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


def trust_seal() -> str:
    """The network's SHA-256: another network makes other frames."""
    return hashlib.sha256(FILE.read_bytes()).hexdigest()


class ScratchArrays:
    """Arrays that are used again for every frame: new ones cost more than most of what is done in them."""

    def __init__(self) -> None:
        self._arrays: dict[str, Plane] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> Plane:
        """The array of that name, with whatever is in it."""
        size, found = math.prod(shape), self._arrays.get(name)
        if found is None or found.size < size:
            found = self._arrays[name] = np.empty(size, np.float32)
        return found[:size].reshape(shape)


class LearntTrust:
    """The network as a ``Judge``: a factor between e⁻³ and e³; the same planes give the same.

    It looks at large frames strip by strip, of ``at_once`` pixels of half the size, to take less memory.
    """

    def __init__(self, file: Path = FILE, at_once: int = 2**19) -> None:
        self._network: Any = cv2.dnn.readNetFromONNX(str(file))
        self._at_once = at_once
        self._room = ScratchArrays()

    def __call__(self, seen: Seen) -> Plane:
        height, width = seen.trust.shape
        rows = max(MULTIPLE, self._at_once // width // MULTIPLE * MULTIPLE)
        if rows >= height:
            return self._look(planes(seen, self._room), height, width)
        factor, noise = np.empty_like(seen.trust), _noise(seen, rows, self._room)
        for top in range(0, height, rows):
            first, last = max(0, top - _MARGIN), min(height, top + rows + _MARGIN)
            found = self._look(planes(_strip(seen, first, last), self._room, noise), last - first, width)
            factor[top : top + rows] = found[top - first : top - first + rows]
        return factor

    def _look(self, planes: Plane, height: int, width: int) -> Plane:
        self._network.setInput(planes[None])
        log_factor = np.asarray(self._network.forward(), np.float32)[0, 0, :height, :width]
        return np.asarray(np.exp(log_factor), np.float32)


def _strip(seen: Seen, first: int, last: int) -> Seen:
    """Its rows of half the size, from the first to before the last."""
    whole, half = slice(2 * first, 2 * last), slice(first, last)
    return Seen(
        seen.source[whole],
        seen.now[whole],
        seen.off[whole],
        seen.trust[half],
        seen.usual[half],
        seen.mismatch[half],
        seen.still[half],
    )


def _noise(seen: Seen, rows: int, room: ScratchArrays) -> np.float32:
    """The root mean square of the brightness that the network took, found by so many rows at once."""
    energy = 0.0
    for top in range(0, seen.now.shape[0], rows):
        source, now = seen.source[top : top + rows], seen.now[top : top + rows]
        one, other = (room.take(name, source.shape[:2]) for name in ("now", "off"))
        cv2.transform(source, _BRIGHTNESS, dst=one)
        cv2.transform(now, _BRIGHTNESS, dst=other)
        energy += cv2.norm(one, other, cv2.NORM_L2SQR)
    height, width = seen.now.shape[:2]
    return max(np.float32(0.5), np.float32(math.sqrt(energy / (height * width))))


def planes(seen: Seen, room: ScratchArrays | None = None, noise: np.float32 | None = None) -> Plane:
    """Makes what the network sees, 14 h w, in the ``room``; its sides are even, by repeating the last row and
    column. ``noise`` is that of the whole frame, where this is a part of it."""
    room = ScratchArrays() if room is None else room
    now, trust = seen.now, seen.trust
    height, width = trust.shape
    found = room.take("planes", (PLANES, height + height % MULTIPLE, width + width % MULTIPLE))
    inner = found[:, :height, :width]
    size = (width, height)

    def half(plane: Any) -> Any:
        return cv2.resize(plane, size, interpolation=cv2.INTER_AREA)

    def bound(plane: Any, number: int, scale: Any, most: float, weight: float = 1) -> None:
        """Writes it in multiples of ``scale``, as they are while small, and never beyond ``most`` in size."""
        cv2.divide(plane, scale + np.abs(plane) / np.float32(most), scale=weight, dst=inner[number])

    def describe(plane: Any, number: int, scale: Any, most: float, weight: float = 1) -> None:
        """The mean and the root mean square of each 2x2, as two planes."""
        bound(half(plane), number, scale, most, weight)
        square = cv2.multiply(plane, plane, dst=other)
        bound(cv2.sqrt(half(square)), number + 1, scale, most, weight)

    bright, bright_off, other = (room.take(name, now.shape[:2]) for name in ("now", "off", "other"))
    cv2.transform(now, _BRIGHTNESS, dst=bright)
    cv2.transform(seen.off, _BRIGHTNESS, dst=bright_off)
    deviation = cv2.sqrt(seen.usual) + np.float32(0.3)
    describe(bright_off, 0, deviation, 4)
    _, *colours = cv2.split(cv2.transform(half(seen.off), _AXES))
    for number, colour in enumerate(colours, 2):
        bound(colour, number, deviation, 4)
    weight = cv2.resize(trust / (1 + trust), now.shape[1::-1], dst=other)
    fused = cv2.subtract(bright, cv2.multiply(bright_off, weight, dst=other), dst=bright_off)
    inner[12] = half(fused) / (_ROOT3 * 128) - 1
    cv2.subtract(fused, cv2.blur(fused, (9, 9), dst=other), dst=fused)
    describe(fused, 6, deviation, 8, 0.5)
    taken = cv2.subtract(cv2.transform(seen.source, _BRIGHTNESS, dst=other), bright, dst=bright)
    if noise is None:
        noise = max(np.float32(0.5), np.float32(cv2.norm(taken) / math.sqrt(taken.size)))
    describe(taken, 4, noise, 4, 2)
    inner[8] = np.log1p(trust) / 2
    inner[9] = np.tanh(seen.mismatch)
    inner[10] = np.log(deviation / 2)
    inner[11] = np.log(noise / 8)
    inner[13] = seen.still
    found[:, height:] = found[:, height - 1 : height]
    found[:, :, width:] = found[:, :, width - 1 : width]
    return found
