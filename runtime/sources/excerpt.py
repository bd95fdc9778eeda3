"""A piece of a video, cut by presentation time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av

from measnet.runtime.options import Reading

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

MARGIN = 10
"""Seconds that sound and subtitles may be stored away from the pictures they go with."""


class Cutter:
    """Leaves of a stream of frames and packets what belongs to an excerpt.

    With a start, times are moved so that the first frame left is at zero; ``zero`` is its time
    in the file. Sound is cut between packets, a subtitle that reaches over an edge is shortened,
    a copied picture begins with its first key frame. Without a start nothing is moved.

    Args:
        reading: says which part of the file is wanted.
        origin: the time in the file, in seconds, that players call zero.
        copied: the streams whose packets come along.
    """

    def __init__(self, reading: Reading, origin: Fraction, copied: Iterable[Stream]) -> None:
        self.start = origin + reading.start if reading.start else None
        self.end = None
        if reading.duration is not None:
            self.end = origin + (reading.start or 0) + reading.duration
        self.zero: Fraction | None = None if self.start is not None else Fraction(0)
        self.reached_end = False
        self._copied = tuple(copied)
        self._awaiting_key = {s.index for s in self._copied if s.type == "video" and self.start is not None}

    def cut(
        self, items: Iterator[av.VideoFrame | Packet[Stream]]
    ) -> Iterator[av.VideoFrame | Packet[Stream]]:
        """``items`` in their order, less what lies outside. Every frame must have its time."""
        early: list[Packet[Stream]] = []
        # Subtitles come once in a while: waiting for one could mean reading to the end.
        unfinished = {stream.index for stream in self._copied if stream.type in ("audio", "video")}
        for item in items:
            if isinstance(item, av.VideoFrame):
                unit = item.time_base or Fraction(1)
                at = (item.pts or 0) * unit
                if self.start is not None and at < self.start:
                    continue
                if self.end is not None and at >= self.end:
                    self.reached_end = True
                    if not unfinished or at > self.end + MARGIN:
                        return
                    continue
                if self.zero is None:
                    self.zero = at
                    for packet in early:
                        yield from self._moved(packet)
                if self.start is not None:
                    item.pts = (item.pts or 0) - round(self.zero / unit)
                yield item
                continue
            if self.end is not None and _time(item) >= self.end:
                unfinished.discard(item.stream.index)
                if self.reached_end and not unfinished:
                    return
            if self.zero is not None:
                yield from self._moved(item)
            elif self.start is not None and _end(item) >= self.start:
                early.append(item)

    def cut_copies(self, packets: Iterator[Packet[Stream]]) -> Iterator[Packet[Stream]]:
        """Packets without the frames beside them, less what lies outside.

        ``cut`` must have come to a frame by then, as that says what zero is.
        """
        for packet in packets:
            if self.end is not None and _decoded(packet) > self.end + MARGIN:
                return
            yield from self._moved(packet)

    def chapters(self, chapters: Iterable[Any]) -> tuple[Any, ...]:
        """The chapters that reach into the excerpt, cut and moved like everything else."""
        kept = []
        for chapter in chapters:
            unit = chapter["time_base"]
            start, end = chapter["start"] * unit, chapter["end"] * unit
            if self.start is not None:
                start, end = max(start - (self.zero or 0), Fraction(0)), end - (self.zero or 0)
            if self.end is not None:
                end = min(end, self.end - (self.zero or 0))
            if end > start:
                kept.append({**chapter, "start": round(start / unit), "end": round(end / unit)})
        return tuple(kept)

    def expected(self, frames: int | None, rate: Fraction | None, length: Fraction | None) -> int | None:
        """How many of a file's ``frames`` belong to the excerpt, as far as its ``rate`` tells."""
        if self.start is None and self.end is None:
            return frames
        if rate is None or length is None:
            return None
        end = length if self.end is None else min(self.end, length)
        return max(1, round((end - (self.zero or 0)) * rate))

    def _moved(self, packet: Packet[Stream]) -> Iterator[Packet[Stream]]:
        zero = self.zero or Fraction(0)
        if packet.stream.type == "subtitle":
            if not self._shorten(packet):
                return
        elif packet.stream.type == "video":
            # In order of storage: a picture inside may need one stored before it and shown after it.
            if self.end is not None and _decoded(packet) >= self.end:
                return
            if packet.stream.index in self._awaiting_key:
                if not packet.is_keyframe or _time(packet) < zero:
                    return
                self._awaiting_key.discard(packet.stream.index)
        elif (self.start is not None and _time(packet) < zero) or (
            self.end is not None and _time(packet) >= self.end
        ):
            return
        if self.start is not None:
            shift = round(zero / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
        yield packet

    def _shorten(self, packet: Packet[Stream]) -> bool:
        """Cut a subtitle to the excerpt, still in the file's times; False if nothing is left of it."""
        begin, end = _time(packet), _end(packet)
        unknown = not packet.duration
        if self.start is not None:
            begin = max(begin, self.zero or Fraction(0))
        if self.end is not None:
            end = min(end, self.end)
            if begin >= self.end:
                return False
        if begin > end or (begin == end and not unknown):
            return False
        packet.pts = packet.dts = round(begin / packet.time_base)
        if not unknown:
            packet.duration = round((end - begin) / packet.time_base)
        return True


def _time(packet: Packet[Stream]) -> Fraction:
    return (packet.pts if packet.pts is not None else packet.dts or 0) * packet.time_base


def _decoded(packet: Packet[Stream]) -> Fraction:
    return (packet.dts if packet.dts is not None else packet.pts or 0) * packet.time_base


def _end(packet: Packet[Stream]) -> Fraction:
    return _time(packet) + (packet.duration or 0) * packet.time_base
