"""Sources: where frames come from."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from measnet.runtime.frame import Frame, StreamInfo

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream


class Source:
    """Yields frames, with the packets of other streams among them."""

    info: StreamInfo

    def __init__(self) -> None:
        self.damaged = 0
        """Frames that could not be decoded; final once ``read`` is exhausted."""

        self.truncated = False
        """True where the end of the file is missing; final likewise."""

        self.warnings: list[str] = []
        """Lines for the user."""

        self.lost: str | None = None
        """The reason why a live source ended before it was to, in one line; final likewise."""

    def read(self) -> Iterator[Frame | Packet[Stream]]:
        """Yields frames in order of presentation, with the copied packets among them. Can be called once.

        Raises InputError when the source gives out on the way.
        """
        raise NotImplementedError

    def settle_clock(self, endings: Collection[str]) -> None:
        """Has all times count from the source's beginning, where its clock begins anywhere, as a broadcast's
        does, and one of the results, by their ``endings``, is of another kind; called before ``read``."""

    def skip(self, frames: int, names: frozenset[str]) -> None:
        """Has ``read`` leave out the first ``frames``, or of a folder the pictures of these names."""
        raise NotImplementedError

    def copied_packets(self) -> Iterator[Packet[Stream]]:
        """Yields the copied packets once more, from the beginning, of a source that is a file."""
        return iter(())

    def interrupt(self) -> None:
        """Keeps ``read`` from waiting for what has not arrived yet; called from another thread."""

    def for_report(self) -> dict[str, Any]:
        """Tells how a live source came and went, ready for JSON."""
        return {}

    def close(self) -> None:
        """Lets go of the file or device. Calling it again does nothing."""
