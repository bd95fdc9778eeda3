"""What a picture in tiles must settle only once: its image-level decisions, as the whole of it has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from measnet.decisions import DecisionLayout, Vector
from measnet.image import Image, pad
from measnet.runtime.backends import SteerableBackend, Steering
from measnet.runtime.tiles import Tile, cores


@dataclass(frozen=True)
class Survey:
    """Asks every tile what it would decide, and settles that for all.

    Each pixel counts once, in the tile in whose core it lies; what a tile sees beyond its core only keeps its
    edges out of the means.
    """

    backend: SteerableBackend
    layout: DecisionLayout

    def of(self, image: Image, tiles: list[Tile], given: Steering) -> Vector:
        """``image`` (1 3 H W) in ``tiles``, with the decisions ``given`` -> D, of the whole picture."""
        height, width = image.shape[2:]
        rule = self.backend.description.size_rule
        decisions, norms, pixels = [], [], []
        for tile, core in zip(tiles, cores(tiles, height, width, rule.multiple), strict=True):
            piece = cut(image, tile)
            size = self.backend.description.fit(*piece.shape[2:])
            window = _window(tile, core, size, (height, width))
            done = self.backend.infer_steered(pad(piece, size), Steering(given.held, given.hold, window))
            assert done.decisions is not None and done.norms is not None
            decisions.append(done.decisions[0])
            norms.append(done.norms[0])
            pixels.append(int(window.sum()))
        return self.layout.combine(decisions, norms, pixels)


def cut(image: Image, tile: Tile) -> Image:
    """The pixels of ``tile``, 1 3 h w."""
    rows = slice(tile.top, tile.top + tile.height)
    columns = slice(tile.left, tile.left + tile.width)
    return np.ascontiguousarray(image[:, :, rows, columns])


def _window(
    tile: Tile, core: Tile, size: tuple[int, int], picture: tuple[int, int]
) -> NDArray[np.float32]:
    """1 in the core; at the picture's end also in the padding, which the whole picture would have too."""
    window = np.zeros(size, np.float32)
    top, left = core.top - tile.top, core.left - tile.left
    bottom = size[0] if core.top + core.height == picture[0] else top + core.height
    right = size[1] if core.left + core.width == picture[1] else left + core.width
    window[top:bottom, left:right] = 1
    return window
