"""Haze, by the scattering model, over depths made up from the picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.train.degradations.picture import Picture, clip

COARSE = 48  # pixels of the longer side of the picture in which regions are found


def add_haze(rng: np.random.Generator, clean: Picture) -> Picture:
    """``I = J t + A (1 - t)`` with ``t = exp(-beta d)``: Koschmieder's law, as RESIDE uses it (Li et al.,
    2019).

    Half of the time outdoors: the airlight A is 0.65 to 1 and sometimes bluish or brownish, and beta is such
    that what is farthest, the sky aside, keeps 7 to 75 % of its light. Half of the time as RESIDE's indoor
    set: A of 0.7 to 1, a third of the time 1 itself, beta 0.5 to 1.8. A has the same value in all colours
    or, half of the time, a little tint.
    """
    if rng.random() < 0.5:
        depth = outdoor_depth(rng, clean)
        beta = -rng.uniform(np.log(0.07), np.log(0.75))
        airlight = rng.uniform(0.65, 1.0) * np.ones(3)
        if rng.random() < 0.2:
            airlight *= 1 + rng.uniform(-0.08, 0.08) * np.array([1.0, 0.2, -1.2])
    else:
        depth = indoor_depth(rng, clean)
        beta = rng.uniform(0.5, 1.8)
        airlight = (1.0 if rng.random() < 0.35 else rng.uniform(0.7, 1.0)) * np.ones(3)
    if rng.random() < 0.5:
        airlight += rng.normal(0, 0.01, 3)
    transmission = np.exp(np.float32(-beta) * depth)[:, :, None]
    return clip(clean * transmission + airlight.astype(np.float32) * (1 - transmission))


def outdoor_depth(rng: np.random.Generator, clean: Picture) -> Picture:
    """A sky far away, a ground that comes nearer towards the bottom, and things that stand on it as wholes.

    Depth on the ground is by perspective, one over the rows below the horizon. A region that does not reach
    the bottom stands, half of the time, upright at the depth of its lowest row.
    """
    coarse, labels = _regions(rng, clean)
    height, width = labels.shape
    rows = np.arange(height, dtype=np.float32)[:, None] / height
    horizon = rng.normal(0.25, 0.3)
    nearest = rng.uniform(0.04, 0.5)  # the depth at the bottom row
    below = np.maximum(rows - horizon, 0) / max(1 - horizon, 0.05)
    ground = np.minimum(nearest / np.maximum(below, 1e-3), 1) * np.ones((1, width), np.float32)
    depth = ground.astype(np.float32)
    sky = _sky(coarse, labels)
    for label in np.unique(labels[~sky]).tolist():
        inside = labels == label
        foot = int(np.flatnonzero(inside.any(axis=1))[-1])
        if rows[foot, 0] <= horizon:  # a hill, a house far off
            depth[inside] = rng.uniform(0.5, 1)
        elif foot < height - 2 and rng.random() < 0.6:
            depth[inside] = float(ground[foot, 0]) * rng.uniform(0.85, 1.15)
    depth[sky] = 1.3
    return _to_edges(depth, clean, radius=int(rng.integers(3, 9)))


def indoor_depth(rng: np.random.Generator, clean: Picture) -> Picture:
    """A room: a slope (its floor or a wall), soft shapes, and things in front of them as wholes."""
    _, labels = _regions(rng, clean)
    height, width = labels.shape
    angle = rng.normal(-np.pi / 2, 0.7)  # mostly: farther towards the top
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    slope = np.cos(angle) * columns / width + np.sin(angle) * rows / height
    cells = int(rng.integers(2, 7))
    shapes = rng.random((cells, cells), np.float32)
    shapes = np.asarray(cv2.resize(shapes, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    depth = _stretch(slope) * rng.uniform(0.2, 1) + _stretch(shapes) * rng.uniform(0, 0.7)
    wholes = rng.uniform(0, 1)
    for label in range(int(labels.max()) + 1):
        inside = labels == label
        if inside.any() and rng.random() < wholes:
            depth[inside] = depth[inside].mean() * rng.uniform(0.7, 1.05)
    nearest = rng.uniform(0.02, 0.55)
    depth = nearest + (rng.uniform(max(0.6, nearest), 1) - nearest) * _stretch(depth)
    return _to_edges(depth.astype(np.float32), clean, radius=int(rng.integers(4, 12)))


def guided_filter(guide: Picture, values: Picture, radius: int, eps: float) -> Picture:
    """``values`` smoothed except at the edges of ``guide``, both H x W (He et al., 2013)."""
    side = (2 * radius + 1, 2 * radius + 1)
    mean_g, mean_v = cv2.blur(guide, side), cv2.blur(values, side)
    covariance = cv2.blur(guide * values, side) - mean_g * mean_v
    variance = cv2.blur(guide * guide, side) - mean_g * mean_g
    gain = covariance / (variance + eps)
    offset = mean_v - gain * mean_g
    return np.asarray(cv2.blur(gain, side) * guide + cv2.blur(offset, side), np.float32)


def _regions(rng: np.random.Generator, clean: Picture) -> tuple[Picture, NDArray[np.int64]]:
    """The picture made small, and for each of its pixels the number of a region alike in colour and near.

    k-means over colour and place, started from a grid: superpixels as of Achanta et al., "SLIC Superpixels
    Compared to State-of-the-Art Superpixel Methods", 2012, without their search windows.
    """
    shrink = min(1.0, COARSE / max(clean.shape[:2]))
    size = (max(4, round(clean.shape[1] * shrink)), max(4, round(clean.shape[0] * shrink)))
    coarse = np.asarray(cv2.resize(clean, size, interpolation=cv2.INTER_AREA), np.float32)
    lab = np.asarray(cv2.cvtColor(coarse, cv2.COLOR_RGB2LAB), np.float32) / 100
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]].astype(np.float32) / max(size)
    nearness = np.float32(rng.uniform(0.2, 0.7))
    points = np.dstack([lab, rows * nearness, columns * nearness]).reshape(-1, 5)
    down, across = int(rng.integers(3, 6)), int(rng.integers(3, 6))
    grid = np.add.outer(
        np.linspace(0, size[1] - 1, down + 2).astype(int)[1:-1] * size[0],
        np.linspace(0, size[0] - 1, across + 2).astype(int)[1:-1],
    )
    centres = points[grid.ravel()]
    nearest = np.zeros(len(points), np.int64)
    for _ in range(4):
        nearest = np.argmin((centres**2).sum(axis=1) - 2 * (points @ centres.T), axis=1)
        counts = np.bincount(nearest, minlength=len(centres))
        sums = np.stack([np.bincount(nearest, column, len(centres)) for column in points.T], axis=1)
        centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
        centres = centres.astype(np.float32)
    return coarse, nearest.reshape(size[1], size[0])


def _sky(coarse: Picture, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Finds the sky: regions at the top that are bright, plain, and grey or blue, and their neighbours of
    nearly the same colour."""
    texture = cv2.blur(np.abs(cv2.Laplacian(coarse.mean(axis=2), cv2.CV_32F)), (3, 3))
    plain = {}
    for label in np.unique(labels).tolist():
        colour = coarse[labels == label].mean(axis=0)
        bluish = colour[2] >= max(colour[0], colour[1]) - 0.08
        if colour.max() > 0.45 and bluish and texture[labels == label].mean() < 0.06:
            plain[label] = colour
    top = np.unique(labels[: max(1, len(labels) // 12)]).tolist()
    found = [label for label in top if label in plain]
    for label in found:  # grows while it runs: what is next to sky found may be sky itself
        around = cv2.dilate((labels == label).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        for other in np.unique(labels[around]).tolist():
            if other in plain and other not in found and np.abs(plain[other] - plain[label]).max() < 0.13:
                found.append(other)
    return np.isin(labels, found)


def _to_edges(depth: Picture, clean: Picture, radius: int) -> Picture:
    """The coarse depth at the picture's size, drawn to its edges: depth jumps where things end."""
    height, width = clean.shape[:2]
    fine = np.asarray(cv2.resize(depth, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    filtered = guided_filter(clean.mean(axis=2), fine, radius, eps=1e-3)
    return np.asarray(np.clip(filtered, depth.min(), depth.max()), np.float32)


def _stretch(values: Picture) -> Picture:
    low, high = values.min(), values.max()
    return np.asarray((values - low) / (high - low + 1e-6), np.float32)
