"""A terminal as the screen of a preview.

A character cell is about twice as high as wide and shows two pixels: its upper half has the colour of the
character, its lower half that of the ground. docs/architecture.md says why rich-pixels does not draw it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from rich.console import Console, ConsoleOptions
from rich.segment import ControlType, Segment

from measnet.image import EightBitPixels
from measnet.runtime.preview import ScreenSpace

Colours = Literal["truecolor", "256"]

_UPPER_HALF = "▀"
_RESET = "\x1b[0m"
# Of a terminal's 256 colours, 216 are a cube with these levels on each side, and the last 24 these greys.
_FIRST_OF_CUBE, _FIRST_GREY = 16, 232
_LEVELS = np.array([0, 95, 135, 175, 215, 255])
_GREYS = np.arange(8, 239, 10)
_NEAREST_LEVEL = np.abs(np.arange(256)[:, None] - _LEVELS).argmin(axis=1)
_NEAREST_GREY = np.abs(np.arange(256)[:, None] - _GREYS).argmin(axis=1)


def half_blocks(picture: EightBitPixels, colours: Colours) -> list[str]:
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


def _true_colours(picture: EightBitPixels) -> list[list[str]]:
    return [[f"2;{r};{g};{b}" for r, g, b in row] for row in picture.tolist()]


def _fewer_colours(picture: EightBitPixels) -> list[list[str]]:
    """Takes of the cube and the greys whichever is nearer."""
    levels = _NEAREST_LEVEL[picture]
    cube = _FIRST_OF_CUBE + levels @ np.array([36, 6, 1])
    grey = _NEAREST_GREY[picture.mean(axis=2).astype(np.uint8)]
    wanted = picture.astype(int)
    from_cube = ((_LEVELS[levels] - wanted) ** 2).sum(axis=2)
    from_grey = ((_GREYS[grey][:, :, None] - wanted) ** 2).sum(axis=2)
    numbers = np.where(from_grey < from_cube, _FIRST_GREY + grey, cube)
    return [[f"5;{number}" for number in row] for row in numbers.tolist()]


KEPT_FREE = 6
"""Lines of the terminal that the picture leaves to bars and notes."""

# Rich counts columns by the text, and passes on what is marked as control as it is.
_AS_IT_IS = [(ControlType.BELL,)]


class NoScreenError(Exception):
    """The terminal shows no pictures; the message says why."""


class Terminal:
    """A screen of character cells, of which two pixels share one. ``console`` is where it is drawn.

    Raises:
        NoScreenError: that is no terminal, or one without colours.
    """

    def __init__(self, console: Console) -> None:
        if not console.is_terminal:
            raise NoScreenError("the output goes to no terminal")
        if console.color_system not in ("truecolor", "256") or console.no_color:
            raise NoScreenError("the terminal shows too few colours")
        self._console = console
        self._lines: list[str] = []
        self._draw: Callable[[], None] = lambda: None

    def room(self) -> ScreenSpace:
        """Tells the space for the next picture, in pixels."""
        columns, rows = self._console.size
        return ScreenSpace(columns, 2 * max(1, rows - KEPT_FREE))

    def show(self, picture: EightBitPixels) -> None:
        """Puts the picture there, in place of the one before."""
        self._lines = half_blocks(
            picture, "truecolor" if self._console.color_system == "truecolor" else "256"
        )
        self._draw()

    def drawn_by(self, draw: Callable[[], None]) -> None:
        """Calls ``draw`` for every new picture; that is to print this object where the picture belongs."""
        self._draw = draw

    def leave(self) -> None:
        """Leaves the picture where the cursor is, and is blank again."""
        if self._lines:
            self._console.print(self)
        self._lines = []
        self._draw = lambda: None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for line in self._lines:
            yield Segment(line, None, _AS_IT_IS)
            yield Segment.line()
