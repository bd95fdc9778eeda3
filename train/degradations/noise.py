"""Noise: as benchmarks add it, as sensors make it, as 4:2:0 video carries it, and what JPEG leaves."""

from __future__ import annotations

import cv2
import numpy as np

from measnet.train.degradations.picture import Picture, clip


def add_gaussian_noise(rng: np.random.Generator, clean: Picture, sigma: float) -> Picture:
    """``clean + N(0, sigma)``, the field's denoising benchmark. ``sigma`` is in 8-bit steps (0-255)."""
    noise = rng.standard_normal(clean.shape, dtype=np.float32) * (sigma / 255)
    return clip(clean + noise)


def add_published_noise(rng: np.random.Generator, clean: Picture, sigma: float) -> Picture:
    """Gaussian noise exactly as the released code adds it: on 8-bit values, clipped, then truncated to 8
    bits."""
    noisy = np.rint(clean * 255) + rng.standard_normal(clean.shape) * sigma
    return np.asarray(np.floor(np.clip(noisy, 0, 255)), np.float32) / np.float32(255)


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
    return clip(clean + noise * np.sqrt(shot * clean + read**2))


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
    return clip(np.asarray(cv2.cvtColor(noisy, cv2.COLOR_YCrCb2RGB), np.float32))


def add_compression(clean: Picture, quality: int) -> Picture:
    """The picture after JPEG at ``quality`` (1-100)."""
    stored = cv2.cvtColor((clean * 255 + 0.5).astype(np.uint8), cv2.COLOR_RGB2BGR)
    written, data = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert written
    read = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert read is not None
    return np.asarray(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), np.float32) / np.float32(255)
