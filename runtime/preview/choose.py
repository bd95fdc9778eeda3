"""From ``--preview`` to the screen that there is."""

from __future__ import annotations

from typing import Literal

from rich.console import Console

from measnet.runtime.preview.screen import NoScreenError, Screen
from measnet.runtime.preview.terminal import Terminal
from measnet.runtime.preview.window import Window

Where = Literal["auto", "window", "terminal"]


def open_screen(where: Where, console: Console) -> Screen:
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
