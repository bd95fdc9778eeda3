"""Blur: a camera that moved while the shutter was open, or a lens out of focus.

The kernels are computed as light would draw them, and applied to amounts of light.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.train.degradations.picture import Picture, clip, to_light, to_stored

Kernel = NDArray[np.float32]

LONGEST = 31  # pixels of the largest kernel's side
FINE = 4  # kernels are drawn this many times larger, then averaged


def add_blur(rng: np.random.Generator, clean: Picture) -> Picture:
    """``y = k * x + n``, half of the time on amounts of light (a shutter adds light, not stored values).

    Kernels: straight motion (45 %), of it 40 % along rows or columns, as public pairs have it; a shaking
    hand (30 %); defocus (25 %). n: noise of up to 2 of 255, in half of the pictures.
    """
    kind = rng.random()
    if kind < 0.18:
        kernel = even_kernel(length=int(rng.integers(3, 26)), upright=rng.random() < 0.5)
    elif kind < 0.45:
        kernel = line_kernel(length=rng.uniform(3, 27), degrees=rng.uniform(0, 180))
    elif kind < 0.75:
        kernel = shake_kernel(rng, extent=rng.uniform(4, 24))
    else:
        kernel = disc_kernel(radius=rng.uniform(0.8, 4.5))
    as_light = rng.random() < 0.5
    blurred = to_stored(_filter(to_light(clean), kernel)) if as_light else _filter(clean, kernel)
    noise = rng.standard_normal(clean.shape, dtype=np.float32) * (max(0.0, rng.uniform(-2, 2)) / 255)
    return clip(blurred + noise)


def even_kernel(length: int, upright: bool) -> Kernel:
    """Even motion along a row, or upright along a column, and no lens: the mean of ``length`` pixels."""
    side = length + 1 - length % 2
    kernel = np.zeros((side, side), np.float32)
    kernel[side // 2] = 1
    if length % 2 == 0:
        kernel[side // 2, [0, -1]] = 0.5  # half a pixel at each end, so that the picture does not move
    kernel /= length
    return np.ascontiguousarray(kernel.T) if upright else kernel


def line_kernel(length: float, degrees: float) -> Kernel:
    """Even motion along a straight line: ``length`` in pixels."""
    along = np.linspace(-length / 2, length / 2, max(2, int(length * 2 * FINE)))
    angle = np.deg2rad(degrees)
    return _drawn(np.cos(angle) * along, np.sin(angle) * along)


def shake_kernel(rng: np.random.Generator, extent: float) -> Kernel:
    """The path of a shaking hand: a random walk with inertia, ``extent`` pixels across.

    After Boracchi and Foi, "Modeling the Performance of Image Restoration From Motion Blur", 2012.
    """
    steps = 64 * FINE
    inertia = rng.uniform(0.9, 0.995)
    velocity = rng.standard_normal(2)
    path = np.zeros((steps, 2))
    for step in range(1, steps):
        velocity = inertia * velocity + (1 - inertia) * rng.standard_normal(2) * 3
        if rng.random() < 0.3 / steps:  # a sudden jerk
            velocity = -2 * velocity
        path[step] = path[step - 1] + velocity
    path -= (path.max(axis=0) + path.min(axis=0)) / 2
    path *= extent / max(np.ptp(path, axis=0).max(), 1e-6)
    return _drawn(path[:, 0], path[:, 1])


def disc_kernel(radius: float) -> Kernel:
    """A lens out of focus: an even disc, ``radius`` in pixels."""
    half = int(np.ceil(radius))
    centres = (np.arange((2 * half + 1) * FINE) + 0.5) / FINE - half - 0.5
    inside = (centres[:, None] ** 2 + centres[None, :] ** 2 <= radius**2).astype(np.float32)
    return _averaged(inside)


def _drawn(x: NDArray[np.float64], y: NDArray[np.float64]) -> Kernel:
    """The light of a point that runs through (x, y), in pixels from the centre."""
    half = min(int(np.ceil(max(np.abs(x).max(), np.abs(y).max()))), LONGEST // 2)
    side = (2 * half + 1) * FINE
    edges = np.linspace(-half - 0.5, half + 0.5, side + 1)
    fine, _, _ = np.histogram2d(y, x, bins=(edges, edges))
    return _averaged(fine.astype(np.float32))


def _averaged(fine: Kernel) -> Kernel:
    side = fine.shape[0] // FINE
    kernel = fine.reshape(side, FINE, side, FINE).sum(axis=(1, 3))
    kernel = np.asarray(cv2.GaussianBlur(kernel, (3, 3), 0.4), np.float32)  # the lens is never perfect
    return np.asarray(kernel / kernel.sum(), np.float32)


def _filter(picture: Picture, kernel: Kernel) -> Picture:
    return np.asarray(cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_REFLECT_101), np.float32)
