"""Rain: layers of streaks, and the veil that distant rain makes."""

from __future__ import annotations

import cv2
import numpy as np

from measnet.train.degradations.picture import Picture, clip


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
    return clip((1 - veil) * rainy + veil * rng.uniform(0.6, 1.0))


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
