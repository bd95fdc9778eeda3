"""What a picture in tiles must settle only once: its image-level decisions, as the whole of it has them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from measnet.decisions import DecisionLayout, Vector
from measnet.image import Image, pad
from measnet.runtime.backends import Inference, SteerableBackend, Steering
from measnet.runtime.tiles import Tile, cores


class TileRound:
    """Restores tile by tile and puts together what they would have decided.

    Each pixel counts once, in the tile in whose core it lies; what a tile sees beyond its core only keeps
    its edges out of the means. It is one round over ``tiles`` of ``image`` (1 3 H W).
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
        done = self._backend.infer_steered(pad(piece, size), Steering(steering.held, steering.hold, window))
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
