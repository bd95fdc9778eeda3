"""Haze, by the scattering model, over depths made up from the picture."""

from __future__ import annotations

import cv2
import numpy as np

from measnet.train.degradations.picture import Picture, clip


def add_haze(rng: np.random.Generator, clean: Picture) -> Picture:
    """``I = J t + A (1 - t)`` with ``t = exp(-beta d)``: Koschmieder's law, as RESIDE uses it (Li et al.,
    2019).

    The airlight A is 0.65 to 1 with a little tint, the depth d in 0 to 1 comes from ``make_depth``, and beta
    is chosen so that the farthest point keeps 5 to 60 % of its light.
    """
    depth = make_depth(rng, clean)
    farthest = float(np.exp(rng.uniform(np.log(0.05), np.log(0.6))))
    transmission = np.power(np.float32(farthest), depth)[:, :, None]
    airlight = rng.uniform(0.65, 1.0) + rng.normal(0, 0.015, 3).astype(np.float32)
    return clip(clean * transmission + airlight * (1 - transmission))


def make_depth(rng: np.random.Generator, clean: Picture) -> Picture:
    """A depth for every pixel, H x W, 0 (near) to 1 (far), that a scene could have.

    A slope (ground or a wall) and soft shapes are mixed, then drawn to the picture's edges by the guided
    filter (He et al., "Guided Image Filtering", 2013), because depth jumps where objects end.
    """
    height, width = clean.shape[:2]
    angle = rng.normal(-np.pi / 2, 0.7)  # mostly: farther towards the top
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    slope = np.cos(angle) * columns / width + np.sin(angle) * rows / height
    cells = int(rng.integers(2, 7))
    shapes = rng.random((cells, cells), np.float32)
    shapes = np.asarray(cv2.resize(shapes, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    depth = _stretch(slope) * rng.uniform(0, 1) + _stretch(shapes) * rng.uniform(0, 1)
    depth = _stretch(guided_filter(clean.mean(axis=2), depth, radius=int(rng.integers(4, 16)), eps=1e-3))
    nearest = rng.uniform(0, 0.6)  # an open view has nothing near
    return np.asarray(nearest + (1 - nearest) * depth, np.float32)


def guided_filter(guide: Picture, values: Picture, radius: int, eps: float) -> Picture:
    """``values`` smoothed except at the edges of ``guide``, both H x W (He et al., 2013)."""
    side = (2 * radius + 1, 2 * radius + 1)
    mean_g, mean_v = cv2.blur(guide, side), cv2.blur(values, side)
    covariance = cv2.blur(guide * values, side) - mean_g * mean_v
    variance = cv2.blur(guide * guide, side) - mean_g * mean_g
    gain = covariance / (variance + eps)
    offset = mean_v - gain * mean_g
    return np.asarray(cv2.blur(gain, side) * guide + cv2.blur(offset, side), np.float32)


def _stretch(values: Picture) -> Picture:
    low, high = values.min(), values.max()
    return np.asarray((values - low) / (high - low + 1e-6), np.float32)
