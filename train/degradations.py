"""Makes degraded pictures from clean ones, the same way every time for the same random generator.

Pictures are H x W x 3, float32, in [0, 1], RGB. Every function returns a new picture in [0, 1]; none
rounds to 8 bits, which the data set does once, at the end.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]


def add_gaussian_noise(rng: np.random.Generator, clean: Picture, sigma: float) -> Picture:
    """``clean + N(0, sigma)``, the field's denoising benchmark. ``sigma`` is in 8-bit steps (0-255)."""
    noise = rng.standard_normal(clean.shape, dtype=np.float32) * (sigma / 255)
    return _clip(clean + noise)


def add_sensor_noise(
    rng: np.random.Generator, clean: Picture, *, shot: float, read: float, grain: float
) -> Picture:
    """Noise whose variance grows with brightness, ``N(0, shot * clean + read^2)``.

    The heteroscedastic model of Foi et al., "Practical Poissonian-Gaussian Noise Modeling and Fitting",
    2008. ``grain`` (in pixels) blurs the noise, as demosaicking and scaling do, keeping its strength.
    """
    noise = rng.standard_normal(clean.shape, dtype=np.float32)
    if grain > 0.2:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), grain), np.float32)
        noise /= noise.std() + 1e-6
    return _clip(clean + noise * np.sqrt(shot * clean + read**2))


def add_video_noise(rng: np.random.Generator, clean: Picture, *, luma: float, chroma: float) -> Picture:
    """Noise as 4:2:0 video carries it: brightness at full resolution, colour at half, both ways.

    ``luma`` and ``chroma`` are standard deviations in 8-bit steps of Y'CbCr (BT.601, full range); the colour
    planes are halved by area and doubled again bilinearly, with their noise in between.
    """
    height, width = clean.shape[:2]
    planes = np.asarray(cv2.cvtColor(clean, cv2.COLOR_RGB2YCrCb), np.float32)
    brightness = planes[:, :, 0] + rng.standard_normal((height, width), np.float32) * (luma / 255)
    half = ((width + 1) // 2, (height + 1) // 2)
    colour = np.asarray(cv2.resize(planes[:, :, 1:], half, interpolation=cv2.INTER_AREA), np.float32)
    colour = colour + rng.standard_normal(colour.shape, np.float32) * (chroma / 255)
    colour = np.asarray(cv2.resize(colour, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    noisy = np.dstack([brightness, colour]).astype(np.float32)
    return _clip(np.asarray(cv2.cvtColor(noisy, cv2.COLOR_YCrCb2RGB), np.float32))


def add_compression(clean: Picture, quality: int) -> Picture:
    """What JPEG at ``quality`` (1-100) leaves of the picture."""
    stored = cv2.cvtColor((clean * 255 + 0.5).astype(np.uint8), cv2.COLOR_RGB2BGR)
    written, data = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert written
    read = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert read is not None
    return np.asarray(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), np.float32) / np.float32(255)


def add_rain(rng: np.random.Generator, clean: Picture) -> Picture:
    """Layers of streaks over the picture, with a little of the veil that distant rain makes.

    ``O = (1 - a) * (B + S * (1 - s * B)) + a * A``: the heavy-rain model of Yang et al., "Deep Joint Rain
    Detection and Removal", 2017, with streaks S, airlight A, veil a, and s between their plain sum (0) and
    a screen that keeps highlights (1). Streaks of a layer share direction, length and thickness.
    """
    height, width = clean.shape[:2]
    tilt = rng.normal(0, 12)  # degrees from the vertical, shared by all layers
    streaks = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(1, 5))):
        streaks += _streaks(rng, height, width, tilt)
    tint = 1 - rng.uniform(0, 0.15) * rng.random(3, dtype=np.float32)
    light = np.minimum(streaks, 1)[:, :, None] * tint
    rainy = clean + light * (1 - rng.uniform(0, 1) * clean)
    veil = rng.uniform(0, 0.12) if rng.random() < 0.3 else 0.0
    return _clip((1 - veil) * rainy + veil * rng.uniform(0.6, 1.0))


def _streaks(rng: np.random.Generator, height: int, width: int, tilt: float) -> Picture:
    """One layer of streaks, H x W, 0 where there is none."""
    length = float(np.exp(rng.uniform(np.log(10), np.log(120))))
    thickness = int(rng.choice([1, 1, 1, 2, 2, 3, 4]))
    strength = rng.uniform(0.15, 0.95)
    density = np.exp(rng.uniform(np.log(0.0008), np.log(0.02))) / max(1, length / 20)
    layer = np.zeros((height, width), np.uint8)
    count = int(density * height * width) + 1
    middles = rng.uniform(-0.2, 1.2, (count, 2)) * (width, height)
    angles = np.deg2rad(tilt + rng.normal(0, 3, count))
    halves = (length * rng.uniform(0.4, 1.2, count) / 2)[:, None]
    steps = np.stack([np.sin(angles), np.cos(angles)], axis=1) * halves
    glow = (255 * strength * rng.uniform(0.4, 1, count)).astype(int)
    fraction = 3  # cv2.line takes positions in 1/8 pixel
    starts = ((middles - steps) * (1 << fraction)).astype(int)
    ends = ((middles + steps) * (1 << fraction)).astype(int)
    for start, end, value in zip(starts.tolist(), ends.tolist(), glow.tolist(), strict=True):
        cv2.line(layer, start, end, value, thickness, cv2.LINE_AA, fraction)
    softness = rng.uniform(0.3, 1.0)
    soft = cv2.GaussianBlur(layer.astype(np.float32) / 255, (0, 0), softness)
    return np.asarray(soft, np.float32)


def _clip(picture: NDArray[np.floating[Any]]) -> Picture:
    return np.asarray(np.clip(picture, 0, 1), np.float32)
