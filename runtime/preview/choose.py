"""From ``--preview`` to the screen that there is."""

from __future__ import annotations

from rich.console import Console

from measnet.runtime.options import PreviewPlace
from measnet.runtime.preview.screen import NoScreenError, Screen
from measnet.runtime.preview.terminal import Terminal
from measnet.runtime.preview.window import Window


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
