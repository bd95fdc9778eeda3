"""measnet-run with an engine that changes nothing and takes its time."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from measnet.runtime import cli
from measnet.runtime.tiles import Tile


class _Restored:
    tiles = 1

    def __init__(self, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        self.pixels = pixels


class _SlowIdentity:
    description: dict[str, Any] = {  # noqa: RUF012 - nothing writes to it
        "model": "identity",
        "precision": "fp32",
        "provider": "cpu",
    }
    seconds = float(sys.argv.pop(1))
    steerable = False

    def restore(self, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> _Restored:
        time.sleep(self.seconds)
        return _Restored(pixels)

    def tiles_for(self, height: int, width: int) -> list[Tile]:
        return [Tile(0, 0, height, width)]

    def use_tiles(self, height: int, width: int, tiles: list[Tile]) -> None:
        pass

    def close(self) -> None:
        pass


cli.main(obj=lambda options: _SlowIdentity())
