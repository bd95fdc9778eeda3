"""Sinks that encode frames as they come, and mux them with the source's other streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from measnet.errors import OutputError
from measnet.runtime.frame import Frame
from measnet.runtime.sinks import Sink
from measnet.runtime.sinks.aside import writing
from measnet.runtime.sinks.encoder import FrameTimes, PictureEncoding
from measnet.runtime.sinks.muxer import Muxer
from measnet.runtime.sinks.target import Target

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream


class ResultPlace(Protocol):
    """Place in which a result grows."""

    def keep(self, *, partial: bool = False) -> Target:
        """Gives the result its name, or with ``partial`` the name of a partial one. Raises OutputError."""
        ...

    def discard(self) -> None:
        """Leaves nothing behind."""
        ...


class Outside:
    """A target outside, a receiver or a device: it keeps nothing here."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def keep(self, *, partial: bool = False) -> Target:
        return self._target

    def discard(self) -> None:
        """See Place.discard."""


class EncodedSink(Sink):
    """Encodes frames and hands them to a muxer.

    Args:
        target: for messages.
        place: where the muxer writes.
        encoding: of the picture.
        muxer: open, with its encoder.
    """

    def __init__(self, target: Target, place: ResultPlace, encoding: PictureEncoding, muxer: Muxer) -> None:
        super().__init__()
        self._target = target
        self._place = place
        self._done = False
        self.encoding = encoding
        self._times = FrameTimes(encoding.time_base)
        self._muxer = muxer
        self.warnings = [*encoding.warnings, *muxer.warnings]

    def for_report(self) -> dict[str, Any]:
        return {**self.encoding.for_report(), "copied_streams": self._muxer.carried}

    def copy(self, packet: Packet[Stream]) -> None:
        self._muxer.mux_copy(packet)

    def write(self, frame: Frame) -> None:
        place = self._times.place(frame)
        if place is None:
            self.skipped = self._times.skipped
            return
        with writing(self._target):
            packets = self._muxer.encoder.encode(frame.pixels, *place, self.encoding.captions_of(frame))
        self._muxer.mux_picture(packets)

    def finish(self, *, partial: bool = False) -> Target | None:
        if self._done or self._times.last is None:
            self.abort()
            return None
        try:
            with writing(self._target):
                self._muxer.mux_picture(self._muxer.encoder.flush())
                self._muxer.close()
        except OutputError:
            self.abort()
            raise
        self._done = True
        self.warnings += (
            self._times.losses() + self.encoding.losses() + self._muxer.losses(self._times.rounded)
        )
        return self._place.keep(partial=partial)

    def abort(self) -> None:
        if self._done:
            return
        self._done = True
        self._muxer.close_anyhow()
        self._place.discard()
