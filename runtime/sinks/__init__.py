"""Where restored frames go: video files, image files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from measnet.runtime.sources import Item


class Sink(Protocol):
    """Anything that takes restored frames and becomes a file.

    Nothing bears the result's name before ``finish``. ``skipped`` counts the frames that
    could not be placed in the file; ``warnings`` are lines for the user.
    """

    skipped: int
    warnings: list[str]

    def write(self, item: Item) -> None:
        """Take the next frame or copied packet. Raises OutputError."""
        ...

    def finish(self, *, partial: bool = False) -> Path | None:
        """Complete the file and give it its name, or one that says it is partial.

        Returns where it lies; None when nothing had been written and so there is no file.
        Raises OutputError, after which nothing is left behind.
        """
        ...

    def abort(self) -> None:
        """Leave nothing behind. Does nothing after ``finish``."""
        ...
