"""A picture in a terminal: every character cell shows two pixels, one above the other.

The cell holds a half block: its upper half has the colour of the character, its lower half that of the
ground. Cells are about twice as high as wide, so the pixels are about square.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from measnet.runtime.preview.shown import Picture

Colours = Literal["truecolor", "256"]

_UPPER_HALF = "▀"
_RESET = "\x1b[0m"
# Of a terminal's 256 colours, 216 are a cube with these levels on each side, and the last 24 these greys.
_FIRST_OF_CUBE, _FIRST_GREY = 16, 232
_LEVELS = np.array([0, 95, 135, 175, 215, 255])
_GREYS = np.arange(8, 239, 10)
_NEAREST_LEVEL = np.abs(np.arange(256)[:, None] - _LEVELS).argmin(axis=1)
_NEAREST_GREY = np.abs(np.arange(256)[:, None] - _GREYS).argmin(axis=1)


def lines(picture: Picture, colours: Colours) -> list[str]:
    """One string for each two rows of ``picture`` (H×W×3), with the escape codes for its colours.

    The lower half of the last line is black where the number of rows is odd.
    """
    if len(picture) % 2:
        picture = np.concatenate([picture, np.zeros_like(picture[:1])])
    named = _true_colours(picture) if colours == "truecolor" else _fewer_colours(picture)
    return ["".join(_line(*rows)) + _RESET for rows in zip(named[::2], named[1::2], strict=True)]


def _line(upper: list[str], lower: list[str]) -> Iterator[str]:
    ink = ground = ""
    for above, below in zip(upper, lower, strict=True):
        # A colour holds until another is named: naming it again would only make the line longer.
        if above != ink:
            yield f"\x1b[38;{above}m"
        if below != ground:
            yield f"\x1b[48;{below}m"
        ink, ground = above, below
        yield _UPPER_HALF


def _true_colours(picture: Picture) -> list[list[str]]:
    return [[f"2;{r};{g};{b}" for r, g, b in row] for row in picture.tolist()]


def _fewer_colours(picture: Picture) -> list[list[str]]:
    """Of the cube or the greys whichever is nearer."""
    levels = _NEAREST_LEVEL[picture]
    cube = _FIRST_OF_CUBE + levels @ np.array([36, 6, 1])
    grey = _NEAREST_GREY[picture.mean(axis=2).astype(np.uint8)]
    wanted = picture.astype(int)
    from_cube = ((_LEVELS[levels] - wanted) ** 2).sum(axis=2)
    from_grey = ((_GREYS[grey][:, :, None] - wanted) ** 2).sum(axis=2)
    numbers = np.where(from_grey < from_cube, _FIRST_GREY + grey, cube)
    return [[f"5;{number}" for number in row] for row in numbers.tolist()]
