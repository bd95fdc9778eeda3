"""Screens for a preview: a window by Tk, or half blocks in a terminal.

A character cell is about twice as high as wide and shows two pixels: its upper half has the colour of the
character, its lower half that of the ground. OpenCV's own windows are not used: this project depends on the
package without them, and where there is no display they end the whole process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from rich.console import Console, ConsoleOptions
from rich.segment import ControlType, Segment

from measnet.runtime.options import PreviewPlace
from measnet.runtime.preview import NoScreenError, Room, Screen, Shown

Colours = Literal["truecolor", "256"]

_UPPER_HALF = "▀"
_RESET = "\x1b[0m"
# Of a terminal's 256 colours, 216 are a cube with these levels on each side, and the last 24 these greys.
_FIRST_OF_CUBE, _FIRST_GREY = 16, 232
_LEVELS = np.array([0, 95, 135, 175, 215, 255])
_GREYS = np.arange(8, 239, 10)
_NEAREST_LEVEL = np.abs(np.arange(256)[:, None] - _LEVELS).argmin(axis=1)
_NEAREST_GREY = np.abs(np.arange(256)[:, None] - _GREYS).argmin(axis=1)


def lines(picture: Shown, colours: Colours) -> list[str]:
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


def _true_colours(picture: Shown) -> list[list[str]]:
    return [[f"2;{r};{g};{b}" for r, g, b in row] for row in picture.tolist()]


def _fewer_colours(picture: Shown) -> list[list[str]]:
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

    def show(self, picture: Shown) -> None:
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


OF_THE_DISPLAY = 0.8
"""The share of it that the window takes at most."""


class Window:
    """A window, to be used in the thread that made it. Once closed, by q or Esc too, it stays closed.

    Raises:
        NoScreenError: there is no Tk or no display.
    """

    outlasts = False

    def __init__(self, title: str) -> None:
        try:
            import tkinter
        except ImportError:
            raise NoScreenError(
                "this Python has no tkinter (Debian and Ubuntu: apt install python3-tk)"
            ) from None
        try:
            root = tkinter.Tk(className="measnet")
        except tkinter.TclError as error:
            raise NoScreenError(str(error)) from None
        # Kept until this object goes: Tcl ends the process when another thread happens to collect it.
        self._root = root
        self._failure = tkinter.TclError
        self.open = True
        root.title(title)
        root.resizable(False, False)
        self._photo = tkinter.PhotoImage(master=root)
        tkinter.Label(root, image=self._photo, borderwidth=0, background="black").pack()
        self._room = Room(
            int(root.winfo_screenwidth() * OF_THE_DISPLAY), int(root.winfo_screenheight() * OF_THE_DISPLAY)
        )
        root.protocol("WM_DELETE_WINDOW", self.close)
        for key in ("<q>", "<Escape>"):
            root.bind(key, lambda event: self.close())

    def room(self) -> Room:
        """See Screen.room."""
        return self._room

    def show(self, picture: Shown) -> None:
        """See Screen.show."""
        height, width = picture.shape[:2]
        self._attempt(
            lambda: self._photo.configure(data=b"P6 %d %d 255\n" % (width, height) + picture.tobytes())
        )

    def attend(self) -> None:
        """See Screen.attend."""
        self._attempt(self._root.update)

    def close(self) -> None:
        """See Screen.close."""
        self._attempt(self._root.destroy)
        self.open = False

    def _attempt(self, step: Callable[[], object]) -> None:
        """Does nothing to a window that the person closed, be it in this very step."""
        if not self.open:
            return
        try:
            step()
        except self._failure:
            self.open = False


def open_screen(where: PreviewPlace, console: Console) -> Screen:
    """A window, or the terminal of ``console``; ``auto`` takes the first of them that can be had.

    Raises:
        NoScreenError: none can.
    """
    if where == "terminal":
        return Terminal(console)
    try:
        return Window("measnet-run: source and result")
    except NoScreenError as no_window:
        if where == "window":
            raise
        try:
            return Terminal(console)
        except NoScreenError as no_terminal:
            raise NoScreenError(f"{no_terminal}, and for a window, {no_window}") from None
