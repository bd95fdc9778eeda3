"""The past of a video, as its next frame finds it, and the bytes that a run takes it up from.

All levels are of 255. Shapes: H W of the frame, h w half of it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from measnet.runtime import planes
from measnet.runtime.planes import Plane

BROAD = 16  # pixels: of light that restoring adds

_HEAD = struct.Struct("<IIBddd")
_CUT_SHORT = "the frames before are cut short"


@dataclass
class Sources:
    """Mean of the sources before, not restored, while the camera stands still."""

    mean: Plane
    """H W 3."""

    count: Plane
    """h w: frames that the mean is worth."""

    noise: Plane
    """h w: the variance of their noise; 0 where it is not known yet."""


@dataclass
class Light:
    """The light that a restoration adds to its source, over some breadth."""

    source: Plane
    """h w 3, in tiles of ``BROAD`` pixels: the source of the frame before."""

    added: Plane
    """h w 3: the mean of what was added."""

    count: Plane
    """h w: frames that the mean is worth."""

    shown: Plane
    """h w 3: what was added to the frame before, in the end."""


@dataclass
class Past:
    """Mean of what the frames before the next one showed."""

    mean: Plane
    """H W 3: restored frames, fused."""

    count: Plane
    """h w: frames that the mean is worth."""

    light: Light
    own: Plane
    """h w: the difference of frames in each place where nothing moved, squared; 0 where nobody knows yet."""

    sources: Sources | None = None
    usual: float | None = None
    """The usual difference of frames, squared."""

    still_share: float | None = None
    whiteness: float | None = None
    """The share of the noise that is new in each frame, 0 to 1: a codec repeats some of it."""

    half: Plane = field(init=False)
    """h w 3: ``mean`` at half its size."""

    def __post_init__(self) -> None:
        self.half = planes.half(self.mean)

    @staticmethod
    def packed(past: Past | None) -> bytes:
        """The bytes of a past, pictures to a 256th of a level."""
        if past is None:
            return _HEAD.pack(0, 0, 0, -1, -1, -1)
        light = past.light
        parts = [_fine_bytes(past.mean), past.count.tobytes(), past.own.astype("<f4").tobytes()]
        parts += [plane.tobytes() for plane in (light.count, light.source, light.added, light.shown)]
        if past.sources is not None:
            sources = past.sources
            parts += [_fine_bytes(sources.mean), sources.count.tobytes(), sources.noise.tobytes()]
        figures = (past.usual, past.still_share, past.whiteness)
        numbers = (-1.0 if figure is None else figure for figure in figures)
        return _HEAD.pack(*past.mean.shape[:2], past.sources is not None, *numbers) + b"".join(parts)

    @staticmethod
    def unpacked(state: bytes) -> tuple[Past | None, bytes]:
        """Finds the past in ``packed`` bytes, and what follows them. Raises ValueError for other bytes."""
        if len(state) < _HEAD.size:
            raise ValueError(_CUT_SHORT)
        height, width, has_sources, *figures = _HEAD.unpack_from(state)
        half = ((height + 1) // 2, (width + 1) // 2)
        broad = (max(1, height // BROAD), max(1, width // BROAD))
        picture = 6 * height * width + 8 * half[0] * half[1]  # bytes, with two planes of half its size
        size = _HEAD.size + bool(height) * (picture * (1 + has_sources) + 40 * broad[0] * broad[1])
        if len(state) < size or has_sources > bool(height):
            raise ValueError(_CUT_SHORT)
        if not height:
            return None, state[size:]
        place = _HEAD.size

        def take(shape: tuple[int, ...], kind: str, least: float = 0) -> Plane:
            nonlocal place
            values = np.frombuffer(state, kind, int(np.prod(shape)), place).reshape(shape)
            place += values.nbytes
            if kind == "<f4" and not (np.isfinite(values).all() and (values >= least).all()):
                raise ValueError("the frames before are not numbers")
            return values.astype(np.float32) / np.float32(256 if kind == "<u2" else 1)

        mean, count, own = take((height, width, 3), "<u2"), take(half, "<f4"), take(half, "<f4")
        light_count = take(broad, "<f4")
        source, added, shown = (take((*broad, 3), "<f4", least) for least in (0, -256, -256))
        light = Light(source, added, light_count, shown)
        past = Past(mean, count, light, own)
        if has_sources:
            past.sources = Sources(take((height, width, 3), "<u2"), take(half, "<f4"), take(half, "<f4"))
        past.usual, past.still_share, past.whiteness = (f if 0 <= f <= 65025 else None for f in figures)
        return past, state[size:]


def _fine_bytes(levels: Plane) -> bytes:
    return np.rint(np.clip(levels * 256, 0, 65535)).astype("<u2").tobytes()
