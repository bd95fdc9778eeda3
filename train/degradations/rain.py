"""Rain: layers of streaks, and the veil that distant rain makes."""

from __future__ import annotations

import cv2
import numpy as np

from measnet.train.degradations.picture import Picture, clip


def add_rain(rng: np.random.Generator, clean: Picture) -> Picture:
    """Half of the time rain so dense that streaks lie over streaks, else single ones, from few to many."""
    kind = rng.random()
    if kind < 0.5:
        return add_dense_rain(rng, clean, rise=float(np.exp(rng.uniform(np.log(17), np.log(100)))))
    if kind < 0.65:
        return add_dense_rain(rng, clean, rise=float(np.exp(rng.uniform(np.log(2), np.log(17)))))
    return add_single_streaks(rng, clean)


def add_dense_rain(rng: np.random.Generator, clean: Picture, rise: float) -> Picture:
    """Streaks added to the picture that brighten black by ``rise`` 8-bit steps on average.

    Rain200H (Yang et al., "Deep Joint Rain Detection and Removal", 2017) is noise blurred along one
    direction, in layers, added and clipped. Measured on nine of its pictures: no tint and no veil, a rise of
    7 to 90, a variance of 18 to 36 steps times the rise, streaks 1 to 2 pixels wide and 10 to 90 long,
    within 15 degrees of the vertical.
    """
    height, width = clean.shape[:2]
    tilt = rng.normal(0, 7)
    spread = rng.uniform(0.5, 4)
    layers = int(rng.integers(2, 6))
    drop = rng.uniform(24, 50) / 2 * (0.6 + rise / 100)  # mean of what a streak adds, in 8-bit steps
    usual = np.exp(rng.uniform(np.log(14), np.log(110)))
    streaks = np.zeros((height, width), np.float32)
    for _ in range(layers):
        length = float(usual * rng.uniform(0.6, 1.6))
        breadth = rng.uniform(0.3, 0.9)
        density = rise / layers / drop / (length * (1 + 2 * breadth))
        streaks += _blurred_drops(rng, height, width, density, length, tilt + rng.normal(0, spread), breadth)
    streaks *= np.float32(rise / 255 / max(float(streaks.mean()), 1e-6))
    return clip(clean + streaks[:, :, None])


def add_single_streaks(rng: np.random.Generator, clean: Picture) -> Picture:
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


def _blurred_drops(
    rng: np.random.Generator,
    height: int,
    width: int,
    density: float,
    length: float,
    tilt: float,
    breadth: float,
) -> Picture:
    """Points of random brightness drawn out to ``length`` pixels; ``breadth`` is a sigma, across."""
    drops = np.where(
        rng.random((height, width), np.float32) < density,
        rng.standard_exponential((height, width), np.float32),
        np.float32(0),
    )
    half = int(np.ceil(length / 2)) + 1
    across = np.deg2rad(tilt)
    step = np.array([np.sin(across), np.cos(across)]) * (length / 2)
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
    start, end = ((half + sign * step) * 8 for sign in (-1, 1))
    cv2.line(kernel, start.astype(int).tolist(), end.astype(int).tolist(), 255, 1, cv2.LINE_AA, 3)
    spent = np.flatnonzero(kernel.any(axis=0))
    line = kernel[:, spent[0] : spent[-1] + 1]  # near the vertical most columns are empty
    if line.shape[1] % 2 == 0:
        line = np.hstack([line, np.zeros((len(line), 1), np.uint8)])
    drawn = cv2.filter2D(drops, -1, line.astype(np.float32) / 255, borderType=cv2.BORDER_REFLECT)
    return np.asarray(cv2.GaussianBlur(drawn, (5, 5), breadth), np.float32)


def _streaks(rng: np.random.Generator, height: int, width: int, tilt: float) -> Picture:
    """One layer of streaks, H x W, 0 where there is none."""
    length = float(np.exp(rng.uniform(np.log(10), np.log(120))))
    thickness = int(rng.choice([1, 1, 1, 2, 2, 3, 4]))
    strength = rng.uniform(0.15, 0.95) / np.sqrt(thickness)
    density = np.exp(rng.uniform(np.log(0.0008), np.log(0.02))) / max(1, length / 20) / thickness**1.5
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
