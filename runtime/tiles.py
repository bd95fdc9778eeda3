"""Tiles: cuts a picture that is too large into overlapping pieces and blends what comes back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from measnet.image import Image

OVERLAP = 32  # pixels that neighbouring tiles share and blend over


@dataclass(frozen=True)
class Tile:
    """A piece of the picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


def plan_tiles(height: int, width: int, largest_area: int, multiple: int) -> list[Tile]:
    """The fewest tiles of equal size that cover ``height`` x ``width``, none above ``largest_area`` pixels.

    One tile is the whole picture. Sides of smaller tiles are multiples of ``multiple``.
    """
    if height * width <= largest_area:
        return [Tile(0, 0, height, width)]
    best: list[Tile] = []
    for rows in range(1, math.ceil(height / OVERLAP) + 1):
        tile_height = _tile_side(height, rows, multiple)
        columns = next(
            (n for n in range(1, 4096) if tile_height * _tile_side(width, n, multiple) <= largest_area),
            None,
        )
        if columns is None or (best and rows >= len(best)):
            continue
        tops = _starts(height, tile_height)
        tile_width = _tile_side(width, columns, multiple)
        lefts = _starts(width, tile_width)
        if not best or len(tops) * len(lefts) < len(best):
            best = [
                Tile(top, left, min(tile_height, height), min(tile_width, width))
                for top in tops
                for left in lefts
            ]
    return best or plan_tiles(height, width, (4 * OVERLAP) ** 2, multiple)


def square_tiles(height: int, width: int, side: int) -> list[Tile]:
    """Tiles of ``side`` x ``side`` pixels that cover the picture; fewer pixels where it is smaller."""
    return [
        Tile(top, left, min(side, height), min(side, width))
        for top in _starts(height, side)
        for left in _starts(width, side)
    ]


def tiles_from(stored: object, height: int, width: int) -> list[Tile] | None:
    """Tiles from ``[[top, left, height, width], ...]``; None unless they cover the picture and stay in it."""
    if not isinstance(stored, list) or len(stored) > height * width:
        return None
    covered = np.zeros((height, width), bool)
    tiles = []
    for row in stored:
        if not isinstance(row, list) or len(row) != 4 or any(type(side) is not int for side in row):
            return None
        tile = Tile(*row)
        bottom, right = tile.top + tile.height, tile.left + tile.width
        if min(row) < 0 or bottom > height or right > width:
            return None
        covered[tile.top : bottom, tile.left : right] = True
        tiles.append(tile)
    return tiles if covered.all() else None


def restore_tiles(image: Image, tiles: list[Tile], restore: Callable[[Image], Image]) -> Image:
    """``restore`` on each tile of ``image`` (1 3 H W), blended by linear ramps where tiles overlap."""
    if len(tiles) == 1:
        return restore(image)
    total = np.zeros_like(image)
    weight = np.zeros((1, 1, *image.shape[2:]), np.float32)
    for tile in tiles:
        rows = slice(tile.top, tile.top + tile.height)
        columns = slice(tile.left, tile.left + tile.width)
        window = np.outer(_ramp(tile.height), _ramp(tile.width)).astype(np.float32)
        total[:, :, rows, columns] += restore(np.ascontiguousarray(image[:, :, rows, columns])) * window
        weight[:, :, rows, columns] += window
    np.divide(total, weight, out=total)
    return total


def _tile_side(side: int, count: int, multiple: int) -> int:
    """The side of ``count`` overlapping tiles over ``side`` pixels."""
    if count == 1:
        return side
    least = math.ceil((side + (count - 1) * OVERLAP) / count)
    return min(side, max(-(-least // multiple) * multiple, 2 * OVERLAP))


def _starts(side: int, tile: int) -> list[int]:
    """Where tiles begin: evenly spread, so that all overlaps are alike and at least ``OVERLAP``."""
    if tile >= side:
        return [0]
    count = math.ceil((side - OVERLAP) / max(1, tile - OVERLAP))
    return [round(i * (side - tile) / (count - 1)) for i in range(count)]


def _ramp(side: int) -> NDArray[np.float64]:
    """1 inside, rising from near 0 over the overlap at both ends; never 0."""
    distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
    return np.minimum(distance / OVERLAP, 1)
