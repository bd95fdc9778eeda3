"""What a preview is shown on."""

from __future__ import annotations

from typing import Protocol

from measnet.runtime.preview.shown import Picture, Room


class NoScreenError(Exception):
    """There is none of this kind here; the message says why."""


class Screen(Protocol):
    """Where pictures are shown. All calls come from one thread."""

    @property
    def open(self) -> bool:
        """Whether it is there."""
        ...

    @property
    def outlasts(self) -> bool:
        """Whether what was shown last is still to be seen when the program has ended."""
        ...

    def room(self) -> Room:
        """What it has for the next picture, in pixels."""
        ...

    def show(self, picture: Picture) -> None:
        """Put the picture there, in place of the one before."""
        ...

    def attend(self) -> None:
        """See to what the person at the screen did. Called about ten times a second."""
        ...

    def close(self) -> None:
        """Take it away."""
        ...
