"""The picture above the bars of a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.console import Console, ConsoleOptions
from rich.segment import ControlType, Segment

from measnet.runtime.preview.half_blocks import lines
from measnet.runtime.preview.screen import NoScreenError
from measnet.runtime.preview.shown import Picture, Room

KEPT_FREE = 6
"""Lines of the terminal that the picture leaves to bars and notes."""

# Rich counts columns by the text, and passes on what is marked as control as it is.
_AS_IT_IS = [(ControlType.BELL,)]


class Terminal:
    """A screen of character cells, of which two pixels share one. ``console`` is where it is drawn.

    Raises:
        NoScreenError: that is no terminal, or one without colours.
    """

    open = True
    outlasts = True

    def __init__(self, console: Console) -> None:
        if not console.is_terminal:
            raise NoScreenError("the output goes to no terminal")
        if console.color_system not in ("truecolor", "256") or console.no_color:
            raise NoScreenError("the terminal shows too few colours")
        self._console = console
        self._lines: list[str] = []
        self._draw: Callable[[], None] = lambda: None

    def room(self) -> Room:
        """See Screen.room."""
        columns, rows = self._console.size
        return Room(columns, 2 * max(1, rows - KEPT_FREE))

    def show(self, picture: Picture) -> None:
        """See Screen.show."""
        self._lines = lines(picture, "truecolor" if self._console.color_system == "truecolor" else "256")
        self._draw()

    def attend(self) -> None:
        """See Screen.attend. Nobody can do anything to it."""

    def close(self) -> None:
        """See Screen.close."""

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
