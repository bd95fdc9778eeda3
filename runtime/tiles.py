"""Tiles: cuts a picture that is too large into overlapping pieces and blends what comes back.

Decisions about the image are taken once, for the whole of it, and given to every piece."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from measnet.config import SizeRule
from measnet.decision_layout import DecisionLayout, Vector
from measnet.image import Image, pad
from measnet.runtime.backends import Inference, SteerableBackend, Steering

OVERLAP = 64  # pixels that neighbouring tiles share and blend over


@dataclass(frozen=True)
class Tile:
    """A piece of the picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


def fewest_tiles(height: int, width: int, largest_area: int, rule: SizeRule) -> list[Tile]:
    """The fewest tiles of about equal size that cover ``height`` x ``width``, none above ``largest_area``
    pixels.

    One tile is the whole picture. Otherwise they lie on the grid of a network with this size rule.
    """
    if height * width <= largest_area:
        return [Tile(0, 0, height, width)]
    best: list[Tile] = []
    for rows in range(1, math.ceil(height / rule.multiple) + 1):
        tile_height = _tile_side(height, rows, rule)
        columns = next(
            (n for n in range(1, 4096) if tile_height * _tile_side(width, n, rule) <= largest_area),
            None,
        )
        if columns is None or (best and rows >= len(best)):
            continue
        tiles = _grid(height, width, tile_height, _tile_side(width, columns, rule), rule)
        if not best or len(tiles) < len(best):
            best = tiles
    smallest = rule.minimum + 2 * OVERLAP
    return best or _grid(height, width, smallest, smallest, rule)


def square_tiles(height: int, width: int, side: int, rule: SizeRule) -> list[Tile]:
    """Tiles of ``side`` x ``side`` pixels that cover the picture, fewer where it ends; on the grid of a
    network with this size rule."""
    return _grid(height, width, side, side, rule)


def cores(tiles: list[Tile], height: int, width: int, multiple: int) -> list[Tile]:
    """The part of each tile that no other one has: together they cover the picture once.

    Borders lie in the middle of what neighbours share, on multiples of ``multiple``.
    """
    rows = _borders({(tile.top, tile.height) for tile in tiles}, height, multiple)
    columns = _borders({(tile.left, tile.width) for tile in tiles}, width, multiple)
    found = []
    for tile in tiles:
        top, bottom = rows[tile.top]
        left, right = columns[tile.left]
        found.append(Tile(top, left, bottom - top, right - left))
    return found


def _borders(sides: set[tuple[int, int]], end: int, multiple: int) -> dict[int, tuple[int, int]]:
    """Finds, by where tiles in a row start, from where to where each has the picture to itself."""
    ordered = sorted(sides)
    between = [
        (start + before + length) // 2 // multiple * multiple
        for (before, length), (start, _) in itertools.pairwise(ordered)
    ]
    edges = [0, *between, end]
    return {start: (edges[index], edges[index + 1]) for index, (start, _) in enumerate(ordered)}


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


def restore_tiles(shape: tuple[int, ...], tiles: list[Tile], restore: Callable[[Tile], Image]) -> Image:
    """Puts together what ``restore`` makes of each tile of a picture (``shape`` is 1 3 H W).

    Linear ramps blend tiles where they overlap.
    """
    if len(tiles) == 1:
        return restore(tiles[0])
    total = np.zeros(shape, np.float32)
    weight = np.zeros((1, 1, *shape[2:]), np.float32)
    for tile in tiles:
        rows = slice(tile.top, tile.top + tile.height)
        columns = slice(tile.left, tile.left + tile.width)
        window = np.outer(_ramp(tile.height), _ramp(tile.width)).astype(np.float32)
        total[:, :, rows, columns] += restore(tile) * window
        weight[:, :, rows, columns] += window
    np.divide(total, weight, out=total)
    return total


def _grid(height: int, width: int, tile_height: int, tile_width: int, rule: SizeRule) -> list[Tile]:
    return [
        Tile(top, left, min(tile_height, height - top), min(tile_width, width - left))
        for top in _starts(height, tile_height, rule)
        for left in _starts(width, tile_width, rule)
    ]


def _tile_side(side: int, count: int, rule: SizeRule) -> int:
    """The side of ``count`` overlapping tiles over ``side`` pixels, a multiple of the rule's."""
    if count == 1:
        return side
    least = math.ceil((side + (count - 1) * (OVERLAP + rule.multiple)) / count)
    return min(side, max(-(-least // rule.multiple) * rule.multiple, rule.minimum, 2 * OVERLAP))


def _starts(side: int, tile: int, rule: SizeRule) -> list[int]:
    """Says where tiles begin: evenly spread on the network's grid, overlapping by at least ``OVERLAP``, or by
    half of a small tile.

    A network that halves its features sees a picture through a grid. Off the picture's own grid a tile
    comes out otherwise than the same pixels of the whole.
    """
    if tile >= side:
        return [0]
    grid = rule.minimum if tile >= 4 * rule.minimum else rule.multiple
    last = -(-(side - tile) // grid) * grid
    longest = max(grid, (tile - min(OVERLAP, tile // 2)) // grid * grid)
    count = -(-last // longest)
    return [index * last // count // grid * grid for index in range(count + 1)]


def _ramp(side: int) -> NDArray[np.float64]:
    """1 inside, rising from near 0 over the overlap at both ends; never 0."""
    distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
    return np.minimum(distance / OVERLAP, 1)


class TileRound:
    """Restores tile by tile, and combines the tiles' own decisions into those of the picture.

    Each pixel counts once, in the tile in whose core it lies; the rest of a tile only keeps its edges out of
    the means. It is one round over ``tiles`` of ``image`` (1 3 H W).
    """

    def __init__(
        self, backend: SteerableBackend, layout: DecisionLayout, image: Image, tiles: list[Tile]
    ) -> None:
        self._backend = backend
        self._layout = layout
        self._image = image
        multiple = backend.description.size_rule.multiple
        height, width = image.shape[2:]
        self._core_of = dict(zip(tiles, cores(tiles, height, width, multiple), strict=True))
        self._decisions: list[Vector] = []
        self._norms: list[Vector] = []
        self._pixels: list[int] = []

    def ask(self, tile: Tile, steering: Steering) -> Inference:
        """Restores ``tile`` with the decisions that hold, and notes its own."""
        piece = cut(self._image, tile)
        description = self._backend.description
        size = description.fit(*piece.shape[2:])
        window = self._window(tile, size)
        done = self._backend.infer(pad(piece, size), Steering(steering.held, steering.hold, window))
        assert done.decisions is not None and done.norms is not None
        self._decisions.append(done.decisions[0])
        self._norms.append(done.norms[0])
        # A graph that takes bytes pads the window inside; what it makes of it is what counted.
        inside = pad(window[None, None], description.size_rule.fit(*size))
        self._pixels.append(int(inside.sum()))
        return done

    def settled(self) -> Vector:
        """D: the whole picture's, once every tile was asked."""
        return self._layout.combine(self._decisions, self._norms, self._pixels)

    def _window(self, tile: Tile, size: tuple[int, int]) -> NDArray[np.float32]:
        """1 in the core; at the picture's end also in the padding, which the whole picture would have too."""
        core, (height, width) = self._core_of[tile], self._image.shape[2:]
        top, left = core.top - tile.top, core.left - tile.left
        bottom = size[0] if core.top + core.height == height else top + core.height
        right = size[1] if core.left + core.width == width else left + core.width
        window = np.zeros(size, np.float32)
        window[top:bottom, left:right] = 1
        return window


def cut(image: Image, tile: Tile) -> Image:
    """The pixels of ``tile``, 1 3 h w."""
    rows = slice(tile.top, tile.top + tile.height)
    columns = slice(tile.left, tile.left + tile.width)
    return np.ascontiguousarray(image[:, :, rows, columns])
