"""Pictures, as every degradation takes and returns them.

A picture is H x W x 3, float32, in [0, 1], RGB. Every degradation returns a new picture in [0, 1], the same
for the same random generator; none rounds to 8 bits, which the data set does once, at the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]

GAMMA = 2.2  # of the curve that stands in for a camera's: stored value = light ** (1 / GAMMA)


def clip(picture: NDArray[np.floating[Any]]) -> Picture:
    return np.asarray(np.clip(picture, 0, 1), np.float32)


def to_light(picture: Picture) -> Picture:
    """Stored values as amounts of light."""
    return np.asarray(np.power(picture, np.float32(GAMMA)), np.float32)


def to_stored(light: NDArray[np.floating[Any]]) -> Picture:
    """Amounts of light as stored values."""
    return np.asarray(np.power(np.clip(light, 0, 1), np.float32(1 / GAMMA)), np.float32)


def with_less_contrast(rng: np.random.Generator, picture: Picture) -> Picture:
    """The same scene with 25 to 100 % of its contrast around its mean, and with its mean moved by up to a
    fifth."""
    mean = picture.mean(dtype=np.float64)
    duller = mean + (picture - mean) * rng.uniform(0.25, 1) + rng.uniform(-0.2, 0.2)
    return clip(duller)


def rounded_to_8_bits(picture: Picture) -> Picture:
    """The picture in steps of 1/255."""
    return np.asarray(np.rint(picture * np.float32(255)) / np.float32(255), np.float32)


def to_uint8(picture: Picture) -> NDArray[np.uint8]:
    """Stored values as 0 to 255."""
    return np.asarray(np.rint(picture * np.float32(255)), np.uint8)


def from_uint8(pixels: NDArray[np.uint8]) -> Picture:
    return np.asarray(pixels.astype(np.float32) / np.float32(255), np.float32)
