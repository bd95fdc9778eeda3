"""One picture of two: halves of each, or both whole."""

from __future__ import annotations

from typing import Literal

import numpy as np

from measnet.errors import InputError
from measnet.runtime.frame import Pixels

Layout = Literal["side", "split"]

LINE = 2
"""Width of the white line between the halves, in pixels."""


def laid_out(source: Pixels, restored: Pixels, layout: Layout) -> Pixels:
    """Two pictures of H×W×3 as one: ``side`` is H×2W×3 with the source on the left; ``split`` is H×W×3, its
    left half of the source and its right half of the result, with a line between them. Where only one is
    uint16, the other becomes so.

    Raises:
        InputError: they differ in size.
    """
    if source.shape != restored.shape:
        raise InputError(
            f"source and result cannot be compared: {source.shape[1]}×{source.shape[0]} and "
            f"{restored.shape[1]}×{restored.shape[0]} pixels"
        )
    if source.dtype != restored.dtype:
        source, restored = _deep(source), _deep(restored)
    if layout == "side":
        return np.concatenate([source, restored], axis=1)
    middle = source.shape[1] // 2
    picture = np.concatenate([source[:, :middle], restored[:, middle:]], axis=1)
    picture[:, max(0, middle - LINE // 2) : middle + LINE // 2] = np.iinfo(picture.dtype).max
    return picture


def _deep(pixels: Pixels) -> Pixels:
    return pixels if pixels.dtype == np.uint16 else pixels * np.uint16(257)
