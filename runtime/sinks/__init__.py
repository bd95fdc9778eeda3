"""Where restored frames go: video files, image files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from measnet.runtime.sinks.manifest import Header
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


@runtime_checkable
class ResumableSink(Sink, Protocol):
    """A sink that keeps what is finished of its result on disk, for a later run to go on with.

    ``finish`` with ``partial`` and ``abort`` keep it.
    """

    @property
    def done(self) -> int:
        """How many of the source's frames are in what is finished."""
        ...

    def begin(self, header: Header, *, restart: bool) -> Header:
        """Take up what an earlier run left, or with ``restart`` throw it away; before the first ``write``.

        Returns the header that holds: the settings of the run that began it. Raises UsageError when
        another run is at work on it or it was begun from something else, OutputError.
        """
        ...

    def look(self, header: Header) -> int:
        """What ``done`` would be after ``begin``; changes nothing. Raises UsageError as ``begin``."""
        ...
