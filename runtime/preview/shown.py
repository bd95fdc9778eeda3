"""Frames as they are shown on a screen: upright, in their true proportions, small, in 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
import numpy.typing as npt

from measnet.image_header import orientation
from measnet.runtime.compare.layout import Layout, laid_out
from measnet.runtime.frame import Frame, StreamInfo
from measnet.runtime.sinks.orientation import EXIF_TURNS, Turn, turn_of, turned

Picture = npt.NDArray[np.uint8]
"""H×W×3, RGB."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a screen has for a picture, in pixels of its own."""

    width: int
    height: int


def shown(source: Frame, restored: Frame, info: StreamInfo, layout: Layout, room: Room) -> Picture:
    """Both frames in one picture that fits into ``room``; never larger than they are.

    Pixels are picked, not averaged: an average would take away the very noise that the result is to be
    compared by. So it costs the same for frames of any size.
    """
    turn = _turn(source, info)
    height, width = source.pixels.shape[:2]
    aspect = info.sample_aspect or Fraction(1)
    wide, high = float(width * aspect), float(height)
    if turn[0]:
        wide, high = high, wide
    pieces = 2 if layout == "side" else 1
    scale = min(room.width / (pieces * wide), room.height / high, 1.0)
    size = max(1, int(wide * scale)), max(1, int(high * scale))
    stored = size[::-1] if turn[0] else size
    left, right = (turned(_small(frame, *stored), turn) for frame in (source, restored))
    return np.asarray(laid_out(left, right, layout), np.uint8)


def _small(frame: Frame, width: int, height: int) -> Picture:
    """In 8 bits and in the size given."""
    small = np.asarray(cv2.resize(frame.pixels, (width, height), interpolation=cv2.INTER_NEAREST))
    return np.asarray(small // 256 if small.dtype == np.uint16 else small, np.uint8)


def _turn(frame: Frame, info: StreamInfo) -> Turn:
    """How the frame is to be turned so that it stands upright."""
    if info.display_matrix is not None:
        return turn_of(info.display_matrix) or EXIF_TURNS[1]
    if frame.picture is not None:
        return EXIF_TURNS[orientation(frame.picture.metadata.exif)]
    return EXIF_TURNS[1]
