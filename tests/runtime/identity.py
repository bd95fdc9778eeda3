"""An engine that changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from measnet.image import Pixels
from measnet.metrics import Choices
from measnet.runtime.restorer import RestoredFrame
from measnet.runtime.tiles import Tile


def given_back(pixels: Pixels) -> RestoredFrame:
    """A picture as an engine gives it back that does not say who restored it."""
    return RestoredFrame(pixels, np.empty((1, 3, 0, 0), np.float32), [Choices(None, None)])


class IdentityRestorer:
    """Has the face of Restorer and changes nothing."""

    description: dict[str, Any] = {  # noqa: RUF012 - nothing writes to it
        "model": "identity",
        "weights_sha256": "00" * 32,
        "precision": "fp32",
        "io": "float32-nchw",
        "backend": "identity",
        "provider": "cpu",
    }
    steerable = False

    def restore(self, pixels: Pixels) -> RestoredFrame:
        assert pixels.dtype in (np.uint8, np.uint16) and pixels.ndim == 3 and pixels.shape[2] == 3
        return given_back(pixels)

    def tiles_for(self, height: int, width: int) -> list[Tile]:
        return [Tile(0, 0, height, width)]

    def use_tiles(self, height: int, width: int, tiles: list[Tile]) -> None:
        pass

    def close(self) -> None:
        pass
