"""Turning pixels for files that cannot say 'show me turned'."""

from __future__ import annotations

import numpy as np

from measnet.image import Pixels

Turn = tuple[bool, bool, bool]

# By EXIF's orientation: whether a viewer is to swap axes, flip rows, flip columns.
EXIF_TURNS: dict[int, Turn] = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def turn_of(matrix: tuple[int, ...]) -> Turn | None:
    """A display matrix as (swap axes, flip rows, flip columns), in that order.

    None for a matrix that is not one of the eight ways to lay a rectangle on itself.
    """
    a, b, _, c, d = matrix[:5]
    if a == d == 0 and b != 0 and c != 0:
        return True, b < 0, c < 0
    if b == c == 0 and a != 0 and d != 0:
        return False, d < 0, a < 0
    return None


def turned(pixels: Pixels, turn: Turn) -> Pixels:
    """``pixels`` (H×W×3) as a player would show them."""
    swap, flip_rows, flip_columns = turn
    if swap:
        pixels = pixels.transpose(1, 0, 2)
    if flip_rows:
        pixels = pixels[::-1]
    if flip_columns:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
