"""Where frames come from: video files, live streams, cameras, images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, TypeAlias

from measnet.runtime.frame import Frame, StreamInfo

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

    Item: TypeAlias = Frame | Packet[Stream]


class Source(Protocol):
    """Anything that yields frames.

    ``damaged`` counts the frames that could not be decoded, ``truncated`` says that the
    end of the file is missing; both are final once ``read`` is exhausted. ``warnings``
    are lines for the user.
    """

    info: StreamInfo
    damaged: int
    truncated: bool
    warnings: list[str]

    def read(self) -> Iterator[Item]:
        """Frames in order of presentation, with the copied packets among them.

        Can be called once. Raises InputError when the source gives out on the way.
        """
        ...

    def interrupt(self) -> None:
        """Called from another thread: ``read`` is not to wait for anything that has not arrived yet."""
        ...

    def close(self) -> None:
        """Let go of the file or device. Calling it again does nothing."""
        ...
