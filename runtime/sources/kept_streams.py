"""Streams that outlive the connection they came from, so that sound goes on behind an outage."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import av
from av.error import FFmpegError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from av.packet import Packet
    from av.stream import Stream


class KeptStreams:
    """Doubles of a first connection's sound and subtitles, for the packets of that and all later ones.

    A packet must not be used once the connection of its stream is closed; one that was moved here may be.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        # Never written to: its streams are all that is wanted.
        self._container = av.open(io.BytesIO(), "w", format="matroska")
        self.streams: list[Stream] = []
        self._kinds: list[object] = []
        for stream in streams:
            try:
                double = self._container.add_stream_from_template(stream, opaque=True)
            except (FFmpegError, ValueError):
                continue  # nothing that could be written to a file
            double.metadata.update(stream.metadata)
            self.streams.append(double)
            self._kinds.append(_kind(stream))

    def places(self, streams: Sequence[Stream]) -> dict[int, Stream]:
        """Finds the double of each stream of a connection, by index: the first free one of its kind."""
        free = list(zip(self.streams, self._kinds, strict=True))
        found: dict[int, Stream] = {}
        for stream in streams:
            for place, (double, kind) in enumerate(free):
                if kind == _kind(stream):
                    found[stream.index] = double
                    del free[place]
                    break
        return found


def moved_to_double(packet: Packet[Stream], places: dict[int, Stream]) -> bool:
    """Moves a packet to the double of its stream; False where there is none."""
    double = places.get(packet.stream.index)
    if double is None:
        return False
    unit = packet.time_base
    packet.stream = double
    packet.time_base = unit
    return True


def _kind(stream: Stream) -> object:
    """Properties that a stream must share with another one to take its place."""
    context = stream.codec_context
    rate, layout = getattr(context, "sample_rate", None), getattr(context, "layout", None)
    return stream.type, context.name, rate, None if layout is None else layout.name
