"""Arithmetic on pictures of floating-point numbers, a channel or three. Shapes: h w, half of the frame."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.image import Pixels

Plane = NDArray[np.float32]

THIRDS = np.full((1, 3), 1 / 3, np.float32)
"""Weights of the colours in their mean, for ``cv2.transform``."""

_BLUR = 1.2  # pixels: σ of what motion is sought in
_SAMPLE, _TO_FIT = 8192, 1600  # places, of which a statistic is made
_GREY = np.array([[0.299, 0.587, 0.114]], np.float32)
_NOTHING = np.float32(0)
_OF_TILE = np.array([1 / 8, 3 / 4, 1 / 8], np.float32)
"""Weights of the mean over a tile when its value is spread: of one neighbour, of itself, of the other."""


def turn(picture: Plane, gain: Plane, offset: Plane) -> None:
    """Changes each colour (3) of the picture, in place, by a gain and an offset."""
    cv2.transform(picture, np.hstack([np.diag(gain), offset[:, None]]), dst=picture)


def beyond(values: NDArray[Any], bound: Plane | np.float32) -> Plane:
    """Takes ``bound`` off the size of each value, whatever its sign; 0 within."""
    return np.asarray(np.sign(values) * np.maximum(np.abs(values) - bound, _NOTHING), np.float32)


def fit_light(a: Plane, b: Plane) -> tuple[Plane, Plane, float]:
    """Gain and offset of each colour (3) that make ``a`` look like ``b``, h w 3 each; and the share of the
    variance of ``b`` that they explain.

    Places that fit worst, as things that move do, are left out of a second fit.
    """
    x, y = (some(picture, _TO_FIT).reshape(-1, 3).astype(np.float64) for picture in (a, b))
    kept = np.ones(len(x))
    for _ in range(2):
        share = kept / kept.sum()
        mean_x, mean_y = share @ x, share @ y
        dx, dy = x - mean_x, y - mean_y
        spread = share @ dx**2 + 1e-6
        gain = np.where(spread > 1, share @ (dx * dy) / spread, 1)
        error = ((dy - gain * dx) ** 2).sum(axis=1)
        kept = (error <= quantile(error, 0.7)).astype(np.float64)
    explained = 1 - error @ kept / (((dy**2).sum(axis=1)) @ kept + 1e-6)
    return gain.astype(np.float32), (mean_y - gain * mean_x).astype(np.float32), float(explained)


def coarse(picture: Any, side: int) -> Plane:
    """The means of whole tiles of ``side`` pixels, from the top left; a smaller picture is one tile."""
    rows, columns = (max(1, length // side) for length in picture.shape[:2])
    tiled = picture[: rows * side, : columns * side]
    return np.asarray(cv2.resize(tiled, (columns, rows), interpolation=cv2.INTER_AREA), np.float32)


def spread(tiles: Plane, side: int, place: Plane) -> Plane:
    """Writes to ``place`` what passes smoothly from the middle of a tile of ``side`` pixels to the next."""
    height, width = place.shape[:2]
    # A half that was rounded up may have more tiles than there is room for.
    rows, columns = (max(1, length // side) for length in (height, width))
    bottom, right = min(height, rows * side), min(width, columns * side)
    cv2.resize(tiles[:rows, :columns], (right, bottom), dst=place[:bottom, :right])
    place[bottom:, :right] = place[bottom - 1, :right]
    place[:, right:] = place[:, right - 1 : right]
    return place


def with_means(wanted: Plane) -> Plane:
    """Finds the tiles that have the ``wanted`` means, nearly, once they are ``spread``."""
    spread_means = cv2.sepFilter2D(wanted, -1, _OF_TILE, _OF_TILE, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(2 * wanted - spread_means, np.float32)


def some(plane: Any, enough: int = _SAMPLE) -> Any:
    """Takes every nth place across and down, so many that they are ``enough`` for a statistic."""
    step = max(1, math.isqrt(plane.shape[0] * plane.shape[1] // enough))
    return plane[::step, ::step]


def median(values: NDArray[Any]) -> Any:
    """The median of all values, as of ``np.median``, which loads ``numpy.ma``: 20 ms of every start."""
    flat, middle = values.reshape(-1), values.size // 2
    if values.size % 2:
        return np.partition(flat, middle)[middle]
    low, high = np.partition(flat, (middle - 1, middle))[middle - 1 : middle + 1]
    return (low + high) / 2


def quantile(values: NDArray[Any], share: float) -> float:
    """The value that so many of them are not above; of flat ``values``."""
    place = int(share * (len(values) - 1))
    return float(np.partition(values, place)[place])


def squared_difference(a: Plane, b: Plane) -> Plane:
    """The squared difference of two pictures, averaged over colours and 3x3; h w."""
    return np.asarray(blurred(mean_square(a - b), 3), np.float32)


def blurred(plane: Any, size: int) -> Any:
    """The mean over ``size`` x ``size`` of a plane without negative values; rounding makes none."""
    return np.maximum(cv2.blur(plane, (size, size)), _NOTHING)


def mean_square(picture: Plane) -> Plane:
    """The square, averaged over the colours; H W."""
    return np.asarray(cv2.transform(cv2.multiply(picture, picture), THIRDS), np.float32)


def half(picture: Plane) -> Plane:
    """Averages the picture down to half its sides, rounded up."""
    height, width = picture.shape[:2]
    size = ((width + 1) // 2, (height + 1) // 2)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)


def whole(plane: Any, like: Plane, how: int = cv2.INTER_LINEAR) -> Any:
    """Brings the plane to the size of ``like``."""
    return cv2.resize(plane, like.shape[1::-1], interpolation=how)


def grey(half: Plane) -> NDArray[np.uint8]:
    """Makes of a picture of half size, h w 3, the grey one in which motion is sought."""
    grey = cv2.convertScaleAbs(np.maximum(cv2.transform(half, _GREY), 0))
    return np.asarray(cv2.GaussianBlur(grey, (5, 5), _BLUR / 2), np.uint8)


def finest(picture: Plane, at_half: Plane) -> float:
    """The mean square of the detail that ``at_half``, the picture at half its size, lacks."""
    whole, half = (cv2.norm(plane, cv2.NORM_L2SQR) / plane.size for plane in (picture, at_half))
    return max(0.0, whole - half)


def levels(pixels: Pixels, levels: Plane) -> None:
    """Writes the pixels as ``levels``."""
    np.copyto(levels, pixels)
    if pixels.dtype != np.uint8:
        levels *= np.float32(255 / np.iinfo(pixels.dtype).max)


def pixels(levels: Plane, kind: np.dtype[Any]) -> Pixels:
    """Rounds levels of 0 to 255 to pixels of that kind."""
    depth = cv2.CV_8U if kind == np.uint8 else cv2.CV_16U
    return np.asarray(cv2.addWeighted(levels, np.iinfo(kind).max / 255, levels, 0, 0, dtype=depth), kind)
